"""The figures of a signal that fades and of losses that stand still."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import plotly.graph_objects as go
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ninlab import figures
from ninlab.errors import NinlabError
from ninlab.lost_classes import accuracy_roof, loss_floor
from ninlab.records import RunRecord
from tests.test_figures import run

drawing = settings(max_examples=25, deadline=None)  # a Plotly figure takes some 10 ms to make

LAYERS = ("conv1", "conv2", "conv3")
RUNS = [run("a", seed, [0.5, 0.8, 0.9]) for seed in (0, 1, 4)]


def test_a_predicted_signal_is_hollow_and_dashed_and_a_measured_one_solid() -> None:
    figure = figures.fading_signal(
        (0.5, 0.25, 0.125), {"nin": (0.4, 0.2, 0.1)}, layers=LAYERS, provenance="Measured: here."
    )
    predicted, measured = figure.data
    assert predicted.line.dash == "dash"
    assert predicted.marker.symbol.endswith("-open")
    assert measured.line.dash == "solid"
    assert not measured.marker.symbol.endswith("-open")
    signs = {note.text.partition("</span>")[0][-1] for note in figure.layout.annotations}
    assert signs == {"○", "●"}


def test_a_signal_needs_one_ratio_a_layer() -> None:
    with pytest.raises(NinlabError, match="2 ratios for 3 layers"):
        figures.fading_signal((0.5, 0.25), {}, layers=LAYERS, provenance="Predicted: here.")


def test_the_slider_shows_one_seed_at_a_time_and_every_seed_once() -> None:
    figure = figures.plateaus(RUNS)
    (slider,) = figure.layout.sliders
    assert [step.label for step in slider.steps] == ["0", "1", "4"]
    shown = [step.args[1] for step in slider.steps]
    assert [sum(of_a_seed) for of_a_seed in zip(*shown, strict=True)] == [1] * len(figure.data)
    assert [trace.visible for trace in figure.data] == list(shown[0])


def test_a_floor_is_hollow_and_that_of_the_dead_classes_of_its_epoch() -> None:
    epochs = tuple(
        replace(e, epoch=i + 1, dead_classes=7 - i) for i, e in enumerate(RUNS[0].epochs)
    )
    figure = figures.plateaus([replace(RUNS[0], epochs=epochs)])
    (floors,) = (trace for trace in figure.data if trace.marker.symbol == "square-open")
    assert list(floors.y) == [loss_floor(dead, 10) for dead in (7, 6, 5)]


def test_one_run_has_no_slider() -> None:
    assert not figures.plateaus(RUNS[:1]).layout.sliders


@drawing
@given(st.lists(st.integers(0, 10), min_size=1, max_size=12))
def test_a_number_of_dead_classes_is_written_where_it_changes_and_not_again(counts) -> None:
    """Ten labels side by side would cover each other on a phone."""
    first = RUNS[0].epochs[0]
    epochs = tuple(replace(first, epoch=i, dead_classes=k) for i, k in enumerate(counts, start=1))
    recipe = replace(RUNS[0].recipe, epochs=len(epochs))
    run = replace(RUNS[0], epochs=epochs, recipe=recipe)
    figure = figures.plateaus([run])
    (floors,) = (trace for trace in figure.data if trace.marker.symbol == "square-open")
    written, last = [], None
    for text, count in zip(floors.text, counts, strict=True):
        assert text == ("" if count == last else f"{count} dead")
        written.append(text)
        last = count
    assert written[0]


# ---------------------------------------------------------------- classes never predicted


def losing(lost: int, accuracy: float, dead: int = 0) -> RunRecord:
    """A run that never predicts the last classes and ends at that accuracy."""
    made = run("a", 0, [accuracy])
    others = 10 - lost - 1
    row = (1000 - others, *[1] * others, *[0] * lost)
    return replace(
        made,
        epochs=(replace(made.last, dead_classes=dead),),
        confusion=(row,) * 10,
        data_set=replace(made.data_set, evaluation_images=10_000),
    )


@drawing
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 100)), min_size=1, max_size=30))
def test_a_run_stands_at_its_classes_and_accuracy_and_hides_no_other(endings) -> None:
    runs = [losing(lost, accuracy / 100) for lost, accuracy in endings]
    figure = figures.lost_classes({"row": runs})
    (dots,) = (trace for trace in figure.data if trace.name == "row")
    for (lost, accuracy), x, y in zip(endings, dots.x, dots.y, strict=True):
        assert y == accuracy / 100
        assert abs(x - lost) < 1  # thirty that end alike need the width of a class and a half
    of_largest = dots.marker.size / 8
    places = list(zip(dots.x, dots.y, strict=True))
    for (x, y), (other_x, other_y) in combinations(places, 2):
        assert abs(x - other_x) > 0.03 * of_largest or abs(y - other_y) > 0.019 * of_largest


@drawing
@given(st.integers(1, 12))
def test_dots_get_smaller_before_they_leave_their_classes(alike) -> None:
    runs = [losing(3, 0.5)] * alike
    (dots,) = (t for t in figures.lost_classes({"row": runs}).data if t.name == "row")
    assert all(abs(x - 3) < 0.5 for x in dots.x)
    assert dots.marker.size == 8
    crowd = figures.lost_classes({"row": [losing(3, 0.5)] * (alike + 13)})
    (dots,) = (t for t in crowd.data if t.name == "row")
    assert dots.marker.size < 8


def test_the_roof_is_a_step_over_each_number_of_classes() -> None:
    figure = figures.lost_classes({"row": [losing(0, 0.9)]})
    (roof,) = (trace for trace in figure.data if trace.name == "roof")
    assert roof.line.dash == "dash"
    for lost in range(10):
        at = [y for x, y in zip(roof.x, roof.y, strict=True) if abs(x - lost) == 0.5 and x != lost]
        assert accuracy_roof(lost, 10) in at


def test_a_run_with_a_dead_class_is_a_square_and_scales_have_panels() -> None:
    small = {"alive": [losing(2, 0.6)], "dead": [losing(2, 0.5, dead=2)]}
    large = {
        label: [replace(one, input_shape=(1, 224, 224)) for one in runs]
        for label, runs in small.items()
    }
    figure = figures.lost_classes(small, {}, large)
    dots = [
        trace for trace in figure.data if isinstance(trace, go.Scatter) and trace.name != "roof"
    ]
    assert [list(trace.marker.symbol) for trace in dots] == [["circle"], ["square"]] * 2
    assert [trace.yaxis for trace in dots] == ["y", "y", "y2", "y2"]
    with pytest.raises(NinlabError, match="one scale"):
        figures.lost_classes({"both": [*small["dead"], *large["dead"]]})


def test_plateaus_need_a_run() -> None:
    with pytest.raises(NinlabError):
        figures.plateaus([])


def test_dots_of_other_kernels_than_the_headings_say_so() -> None:
    torchs, others = [losing(0, 0.9)], [losing(1, 0.8)]
    fused = [replace(one, recipe=replace(one.recipe, kernels="fused")) for one in others]
    figure = figures.lost_classes({"one": torchs, "two": others, "three": fused})
    (title,) = (note.text for note in figure.layout.annotations)
    assert "torch kernels if no row names others" in title.replace("<br>", " ")
    named = [trace.name for trace in figure.data if trace.name != "roof"]
    assert named == ["one", "two", "three, fused kernels"]
    assert all("three, fused kernels" in text for text in figure.data[-1].hovertext)
