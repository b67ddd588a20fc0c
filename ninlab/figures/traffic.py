"""What does a step read from memory and write to it? One bar a tensor that moves.

Everything here is counted on the tape, and so hollow.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from ninlab.errors import NinlabError
from ninlab.figures.colors import HOLLOW, NEUTRAL, color_of, faded
from ninlab.figures.layout import axes_of_panels, finish
from ninlab.reports import Phase
from ninlab.tape import Tape
from ninlab.units import format_bytes

_ROW = 22  # pixels
_HEADING = 46  # pixels over the plots, for two lines
_RIGHT = 36  # pixels: on a phone the last panel is narrower than what stands below it
_BAR = 0.7  # of a row
_BETWEEN = 0.05  # of the width, from one step to the next
_MARGIN = 1.03  # length of a panel, in lengths of its longest row
_THINNEST = 1 / 500  # of the longest row: what is less would be all outline
_PHASES = (Phase.FORWARD, Phase.BACKWARD)
_HALVES = {"read": HOLLOW, "written": 0.35}
"""Both sides of a step's line, and the opacity of their bars."""


def traffic(
    steps: Mapping[str, Tape],
    layers: Mapping[str, str],
    batch_size: int,
    *,
    like: str,
    provenance: str,
) -> go.Figure:
    """The bytes that some layers of a network read and write in each of several steps.

    steps gives the tape of each by a reader's label, layers the label of each layer by its dotted
    path, in order of execution. A step is a pair of panels: to the left of its line are the
    tensors that a layer's operators read, to the right those that they write. Rows run from the
    top down in order of execution, forward and then backward; where a row is empty, another layer's
    operator does its work. All panels have one scale, and all sums over them one unit; like names
    the network whose color they have. A tensor of less than a five-hundredth of the longest row is
    in the sum and not drawn.
    Raises NinlabError without a step, and where the layers move nothing.
    """
    rows = _Rows(dict(layers))
    moved = {label: rows.moved(tape, batch_size) for label, tape in steps.items()}
    longest = [max((both[side].longest for both in moved.values()), default=0) for side in (0, 1)]
    if not all(longest):
        raise NinlabError(f"nothing to draw: {len(steps)} steps move no byte of these layers")
    totals = {label: sum(half.ends.total() for half in both) for label, both in moved.items()}
    unit = format_bytes(max(totals.values())).split()[-1]
    figure = make_subplots(rows=1, cols=2 * len(moved), shared_yaxes=True)
    width = (1 + _BETWEEN) / len(moved) - _BETWEEN
    for number, (label, both) in enumerate(moved.items()):
        left = number * (width + _BETWEEN)
        line = left + width * longest[0] / sum(longest)
        ends = (left, line), (line, min(1, left + width))
        for side, half in enumerate(both):
            column = 2 * number + side + 1
            _add_half(figure, column, label, half, longest, color_of(like))
            figure.update_xaxes(domain=ends[side], row=1, col=column)
        figure.add_annotation(
            x=line, xref="paper", xanchor="center", y=1, yref="paper", yanchor="bottom",
            text=f"<b>{label}</b><br>{format_bytes(totals[label], unit)}", showarrow=False,
        )  # fmt: skip
        for name, anchor, shift in zip(_HALVES, ("right", "left"), (-1, 1), strict=True):
            figure.add_annotation(
                x=line, xref="paper", xanchor=anchor, xshift=shift,
                y=0, yref="paper", yanchor="top", text=name, showarrow=False,
            )  # fmt: skip
    figure.update_yaxes(
        range=[len(rows.labels) - 0.5, -0.5],
        tickvals=list(range(len(rows.labels))),
        ticktext=[f"{label} " for label in rows.labels],
        showgrid=False,
        zeroline=False,
    )
    return finish(
        figure,
        height=_ROW * len(rows.labels) + _HEADING + 34,
        provenance=provenance,
        quantities=axes_of_panels("x", [f"bytes {half}" for half in _HALVES] * len(moved))
        | axes_of_panels("y", ["layer"] * (2 * len(moved))),
        barmode="overlay",  # each bar says where it begins
        margin={"l": 8, "r": _RIGHT, "t": _HEADING, "b": 34},
    )


class _Bar(NamedTuple):
    """One tensor that moves: where it is drawn, and what pointing at it shows."""

    row: int
    start: int  # bytes between the line and the bar
    bytes: int
    note: str


@dataclass
class _Half:
    """The tensors that one step reads, or those that it writes, row by row."""

    bars: list[_Bar] = field(default_factory=list)
    ends: Counter[int] = field(default_factory=Counter)  # bytes of each row so far

    @property
    def longest(self) -> int:
        """The bytes of its longest row."""
        return max(self.ends.values(), default=0)

    def add(self, row: int, count: int, note: str) -> None:
        """A tensor more, behind those of the same row."""
        self.bars.append(_Bar(row, self.ends[row], count, note))
        self.ends[row] += count


@dataclass(frozen=True)
class _Rows:
    """One row a layer and phase, under a heading for each phase."""

    layers: Mapping[str, str]  # labels by path

    @property
    def labels(self) -> list[str]:
        """What stands beside each row."""
        forward = [*self.layers.values()]
        heads = [f"<b>{phase}</b>" for phase in _PHASES]
        return [heads[0], *forward, heads[1], *forward[::-1]]

    def moved(self, tape: Tape, batch_size: int) -> tuple[_Half, _Half]:
        """What the layers read and what they write in the step, in its order."""
        below = {layer: number for number, layer in enumerate(self.layers, start=1)}
        last = 2 * len(below) + 2
        read, written = _Half(), _Half()
        for call in tape.calls:
            if call.layer not in below or call.phase not in _PHASES:
                continue
            row = below[call.layer]
            row = row if call.phase is Phase.FORWARD else last - row
            for half, tensors, verb in (
                (read, call.reads, "reads"),
                (written, call.writes, "writes"),
            ):
                for constant, per_image in (one.size for one in tensors):
                    count = constant + per_image * batch_size
                    note = f"{call.operator} {verb} {format_bytes(count)}"
                    half.add(row, count, f"{call.phase}, {call.layer}<br>{note}")
        return read, written


def _add_half(
    figure: go.Figure, column: int, label: str, half: _Half, longest: Sequence[int], color: str
) -> None:
    """Draw what a step reads, from its line to the left, or what it writes, to the right."""
    side = (column - 1) % 2
    name, opacity = list(_HALVES.items())[side]
    drawn = [bar for bar in half.bars if bar.bytes >= _THINNEST * max(longest)]
    figure.add_bar(
        x=[bar.bytes for bar in drawn],
        y=[bar.row for bar in drawn],
        base=[bar.start for bar in drawn],
        width=_BAR,
        orientation="h",
        name=f"{label}, {name}",
        constraintext="none",
        marker={"color": faded(color, opacity), "line": {"color": color, "width": 1}},
        hovertext=[f"<b>{label}</b><br>{bar.note}" for bar in drawn],
        row=1,
        col=column,
    )
    end = _MARGIN * longest[side]
    figure.update_xaxes(
        range=[end, 0] if side == 0 else [0, end],
        showticklabels=False,
        showgrid=False,
        zerolinecolor=NEUTRAL,
        row=1,
        col=column,
    )
