"""The picture of what a step moves has the bytes that the roofline counts, all at one scale."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import plotly.graph_objects as go
import pytest

from ninlab import figures, roofline
from ninlab.architectures import architecture
from ninlab.errors import NinlabError
from ninlab.reports import Phase
from ninlab.tape import Tape, record
from ninlab.units import format_bytes

NIN = architecture("nin")
LAYERS = {path: str(leaf) for path, leaf in NIN.named_leaves()}
BLOCK = {path: label for path, label in LAYERS.items() if path.startswith("block1.")}
STEPS = {width: record(NIN, precision=width) for width in ("fp32", "bf16")}
BATCH = 128
UNDRAWN = 1 / 500  # of the longest row; smaller tensors are counted alone


def picture(layers: Mapping[str, str], steps: Mapping[str, Tape] = STEPS) -> go.Figure:
    return figures.traffic(steps, layers, BATCH, like="nin", provenance="Counted: paper.")


def moving(tape: Tape, layers: Mapping[str, str]) -> list[roofline.Operator]:
    """What those layers call forward and backward, by the roofline."""
    return [
        one
        for one in roofline.tape_operators(tape, BATCH)
        if one.layer in layers and one.phase in (Phase.FORWARD, Phase.BACKWARD)
    ]


def longest_row(figure: go.Figure) -> int:
    return max(
        start + length
        for half in figure.data
        for start, length in zip(half.base, half.x, strict=True)
    )


def heads_of(figure: go.Figure) -> list[str]:
    """What stands over the steps; what they read and what they write is named below."""
    texts = [one.text for one in figure.layout.annotations]
    heads = [text for text in texts if text.startswith("<b>")]
    below = [text for text in texts if text not in heads]
    assert below == ["read", "written"] * len(heads)
    return heads


@pytest.mark.parametrize("layers", [LAYERS, BLOCK], ids=["network", "block"])
def test_traffic_is_what_the_roofline_counts(layers: Mapping[str, str]) -> None:
    figure = picture(layers)
    totals = [sum(one.bytes for one in moving(tape, layers)) for tape in STEPS.values()]
    unit = format_bytes(max(totals)).split()[-1]
    for number, (label, tape) in enumerate(STEPS.items()):
        total = totals[number]
        head = f"<b>{label}</b><br>{format_bytes(total, unit)}"
        assert heads_of(figure)[number] == head
        halves = figure.data[2 * number : 2 * number + 2]
        tensors = sum(
            len(call.reads) + len(call.writes)
            for call in tape.calls
            if call.layer in layers and call.phase in (Phase.FORWARD, Phase.BACKWARD)
        )
        undrawn = tensors - sum(len(half.x) for half in halves)
        left_out = total - sum(sum(half.x) for half in halves)
        assert 0 <= left_out <= undrawn * UNDRAWN * longest_row(figure)


def test_all_sums_have_one_unit() -> None:
    few, many = record(NIN, precision="bf16", kernels="chained"), STEPS["fp32"]
    heads = heads_of(picture(BLOCK, {"few": few, "many": many}))
    sums = [sum(one.bytes for one in moving(tape, BLOCK)) for tape in (few, many)]
    assert len({format_bytes(count).split()[-1] for count in sums}) == 2
    assert len({head.split()[-1] for head in heads}) == 1


def test_half_the_bytes_a_number_are_half_the_traffic_between_convolutions() -> None:
    relus = {path: label for path, label in BLOCK.items() if "relu" in path}
    wide, narrow = picture(relus).data[::2], picture(relus).data[1::2]
    for halves in (wide, narrow):
        assert sum(halves[0].x) == 2 * sum(halves[1].x) > 0


def test_tensors_of_a_row_stand_one_behind_the_other() -> None:
    figure = picture(BLOCK)
    gap = 3 * UNDRAWN * longest_row(figure)  # of a weight, a bias and a copy that are not drawn
    for half in figure.data:
        ends: dict[float, float] = {}
        for row, start, length in zip(half.y, half.base, half.x, strict=True):
            assert 0 <= start - ends.get(row, 0) <= gap
            ends[row] = start + length


def test_all_halves_have_one_scale_and_fill_the_width_from_left_to_right() -> None:
    axes = list(picture(LAYERS).select_xaxes())
    scales = [
        (axis.domain[1] - axis.domain[0]) / abs(axis.range[1] - axis.range[0]) for axis in axes
    ]
    assert scales == pytest.approx([scales[0]] * len(axes))
    assert (axes[0].domain[0], axes[-1].domain[1]) == (0, pytest.approx(1))
    for left, right in pairwise(axes):
        assert left.domain[1] <= right.domain[0]


def test_rows_run_forward_and_then_backward() -> None:
    figure = picture(BLOCK)
    rows = [label.strip() for label in figure.layout.yaxis.ticktext]
    labels = list(BLOCK.values())
    assert rows == ["<b>forward</b>", *labels, "<b>backward</b>", *reversed(labels)]
    for half in figure.data:
        for row, note in zip(half.y, half.hovertext, strict=True):
            phase, _, rest = note.partition("<br>")[2].partition(", ")
            assert BLOCK[rest.partition("<br>")[0]] == rows[row]
            assert (row > rows.index("<b>backward</b>")) == (phase == "backward")


@pytest.mark.parametrize(("steps", "layers"), [({}, BLOCK), (STEPS, {"no.layer": "none"})])
def test_a_picture_of_nothing_is_refused(
    steps: Mapping[str, Tape], layers: Mapping[str, str]
) -> None:
    with pytest.raises(NinlabError, match="nothing to draw"):
        picture(layers, steps)
