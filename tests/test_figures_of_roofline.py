"""A roofline: no step can be above the roof, and each mark is where its numbers are."""

from __future__ import annotations

from itertools import combinations, pairwise
from math import log10
from typing import Any

import plotly.graph_objects as go
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ninlab import figures
from ninlab.architectures import ARCHITECTURES, architecture
from ninlab.devices import DEVICES, DataSheet
from ninlab.errors import NinlabError
from ninlab.figures.labels import COLUMN_PIXELS, PHONE_PIXELS
from ninlab.figures.placing import LETTER_PIXELS, LINE_PIXELS, Box, Point
from ninlab.figures.roofline import roofline
from ninlab.roofline import time_bound, training_operators
from tests.test_figures import SOURCE, drawing

NETWORKS = ("nin", "alexnet", "vgg11")
WITH_RATES = [
    (one, precision)
    for one in DEVICES.values()
    if one.bytes_per_second is not None
    for precision in one.flops_per_second
]
rated = st.sampled_from(WITH_RATES)
networks = st.lists(st.sampled_from(NETWORKS), min_size=1, unique=True)


def marks(figure: Any) -> dict[str, Any]:
    """The one mark of each trace that has one, by the trace's name."""
    return {trace.name: trace for trace in figure.data if trace.mode == "markers"}


def drawn(names: list[str], where: DataSheet, precision: str, batch: int = 8, **more: Any) -> Any:
    steps = {n: training_operators(architecture(n), batch, "sgd", precision) for n in names}
    return roofline(steps, where, precision, provenance=SOURCE, **more)


@drawing
@given(networks, rated, st.integers(1, 512))
def test_no_step_is_above_the_roof(names, where, batch):
    device, precision = where
    found = marks(drawn(names, device, precision, batch))
    assert len(found) == len(names)
    for mark in found.values():
        (intensity,), (rate,) = mark.x, mark.y
        roof = min(device.peak(precision), intensity * device.bandwidth())
        assert rate <= roof * (1 + 1e-12)  # three roundings of floats


@drawing
@given(rated, st.floats(1e-3, 1e3))
def test_a_step_at_best_is_hollow_at_its_bound_and_a_measured_one_solid_at_its_time(where, seconds):
    device, precision = where
    found = marks(drawn(["nin"], device, precision, measured={"nin": seconds}))
    step = training_operators(architecture("nin"), 8, "sgd", precision)
    bound = time_bound(step, device, precision)
    hollow, solid = found["NiN"], found["NiN, measured"]
    assert hollow.marker.symbol == f"{solid.marker.symbol}-open"
    assert hollow.x == solid.x == (bound.flops / bound.bytes,)
    assert (hollow.y, solid.y) == ((bound.flops / bound.seconds,), (bound.flops / seconds,))


@pytest.mark.parametrize(("device", "precision"), WITH_RATES, ids=lambda one: str(one)[:12])
def test_the_roof_turns_at_the_ridge(device, precision):
    figure = drawn(["nin"], device, precision)
    (left, ridge, right), (start, top, end) = figure.data[0].x, figure.data[0].y
    assert left < ridge < right
    assert top == pytest.approx(end)
    assert end == device.peak(precision)
    assert start / left == pytest.approx(device.bandwidth())
    assert ridge == device.peak(precision) / device.bandwidth()


def test_a_roofline_needs_a_network_and_has_room_for_six():
    with pytest.raises(NinlabError, match="not 0"):
        drawn([], DEVICES["t4"], "fp32")
    with pytest.raises(NinlabError, match="not 7"):
        drawn(list(ARCHITECTURES)[:7], DEVICES["t4"], "fp32")


def test_a_device_without_rates_has_no_roof():
    with pytest.raises(NinlabError, match="peak rate"):
        drawn(["nin"], DEVICES["phone_512mb"], "fp32")


def test_a_narrow_column_has_a_legend_of_the_networks_in_place_of_their_names():
    figure = drawn(list(NETWORKS), DEVICES["h100"], "tf32", measured={"nin": 1.0})
    narrow = figure.layout.meta["narrow"]
    legend = {trace.name for trace in figure.data if trace.showlegend}
    assert legend == {architecture(name).title for name in NETWORKS}
    assert legend < {note.text for note in figure.layout.annotations}
    assert not legend & {note["text"] for note in narrow["annotations"]}
    assert figures.table(figure).shape[0] > len(NETWORKS)


# ---------------------------------------------------------------- its labels

OF_THE_BOOK = ("nin", "alexnet", "vgg11_quarter", "vgg11", "googlenet")
MARK = 11  # pixels across


class Plot:
    """A roofline in a column of that width: where its points and its labels are, in pixels."""

    def __init__(self, figure: go.Figure, width: float) -> None:
        layout = figure.layout
        self.size = (width, layout.height - layout.margin.t - layout.margin.b)
        self.ends = (layout.xaxis.range, layout.yaxis.range)

    def pixels(self, at: Point) -> Point:
        """A point in the units of the two axes, which are powers of ten."""
        x, y = (
            size * (value - low) / (high - low)
            for size, value, (low, high) in zip(self.size, at, self.ends, strict=True)
        )
        return x, y

    def box(self, note: dict[str, Any]) -> Box:
        """The room that a label takes, less what rounding may take away."""
        width, height = LETTER_PIXELS * len(note["text"]), LINE_PIXELS
        x, y = self.pixels((note["x"], note["y"]))
        x += note["xshift"] + {"left": 0.5, "center": 0, "right": -0.5}[note["xanchor"]] * width
        y += note["yshift"] + {"bottom": 0.5, "middle": 0, "top": -0.5}[note["yanchor"]] * height
        return Box.around((x, y), width - 1e-6, height - 1e-6)


@drawing
@given(
    st.sampled_from(["tf32", "bf16"]),
    st.dictionaries(st.sampled_from(OF_THE_BOOK), st.floats(1.01, 10)),
)
@example("tf32", {"nin": 2.9, "alexnet": 3.2, "vgg11": 2.4})
@example("tf32", {})
@example("tf32", dict.fromkeys(OF_THE_BOOK, 3.0))
def test_labels_lie_on_nothing_whatever_of_the_books_networks_is_measured(precision, slower):
    h100 = DEVICES["h100"]
    steps = {n: training_operators(architecture(n), 128, "sgd", precision) for n in OF_THE_BOOK}
    seconds = {
        n: times * time_bound(steps[n], h100, precision).seconds for n, times in slower.items()
    }
    figure = roofline(steps, h100, precision, provenance=SOURCE, measured=seconds)
    wide = [note.to_plotly_json() for note in figure.layout.annotations]
    narrow = figure.layout.meta["narrow"]["annotations"]
    for width, notes in ((COLUMN_PIXELS, wide), (PHONE_PIXELS, narrow)):
        plot = Plot(figure, width)
        boxes = [plot.box(note) for note in notes if "yref" not in note]
        assert not any(one.meets(other) for one, other in combinations(boxes, 2))
        for trace in figure.data:
            points = [
                plot.pixels((log10(x), log10(y))) for x, y in zip(trace.x, trace.y, strict=True)
            ]
            if trace.mode == "markers":
                marks = [Box.around(point, MARK, MARK) for point in points]
                assert not any(box.meets(mark) for box in boxes for mark in marks), trace.name
            else:
                lines = list(pairwise(points))
                assert not any(box.is_crossed_by(*line) for box in boxes for line in lines)
