"""Dots of runs, and how far groups of them lie apart: one panel a scale."""

import statistics
from dataclasses import replace
from itertools import combinations

import plotly.graph_objects as go
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ninlab import figures
from ninlab.comparisons import conditions, confidence_of_rows, difference
from ninlab.errors import NinlabError
from ninlab.figures.themes import TEXT_PIXELS
from ninlab.records import LossCurve, Outcome, RunRecord
from tests.test_figures import run

drawing = settings(max_examples=25, deadline=None)  # a Plotly figure takes some 10 ms to make

accuracies = st.lists(st.integers(0, 1000).map(lambda part: part / 1000), min_size=1, max_size=5)
groups = st.lists(accuracies, min_size=1, max_size=4)
SIDES = {"small": 28, "large": 224}


def ended_at(
    accuracies: list[float], side: int = 28, outcome: Outcome = Outcome.FINISHED
) -> list[RunRecord]:
    """Runs of one network that end at these accuracies, one a seed."""
    return [
        replace(run("nin", seed, [accuracy], outcome), input_shape=(1, side, side))
        for seed, accuracy in enumerate(accuracies)
    ]


def mean(runs: list[RunRecord]) -> float:
    return statistics.fmean(one.last.test_accuracy for one in runs)


def labeled(groups: list[list[float]], scale: str, name: str = "") -> dict[str, list[RunRecord]]:
    return {f"{name or scale} {i}": ended_at(group, SIDES[scale]) for i, group in enumerate(groups)}


def texts(figure: go.Figure) -> list[str]:
    """What is written in the figure, whatever the lines and the kinds of space."""
    notes = (note.text.replace("<br>", " ") for note in figure.layout.annotations)
    return [note.replace("\N{NO-BREAK SPACE}", " ") for note in notes]


def headings(figure: go.Figure) -> list[str]:
    return [text for text in texts(figure) if text.startswith("<b>")]


@drawing
@given(groups, groups)
@example([[0.5, 0.5], [0.5, 0.5]], [[0.1, 0.1], [0.9, 0.9]])
@example([[0.2], [0.3, 0.4]], [[0.2, 0.4], [0.3], [0.3, 0.31, 0.32]])
def test_an_interval_crosses_the_line_of_its_own_scale_where_no_difference_is_shown(few, many):
    scales = labeled(few, "small"), labeled(many, "large")
    figure = figures.endings(*scales, intervals=True)
    intervals = {t.name: t for t in figure.data if "interval" in t.name}
    for number, scale in enumerate(scales, start=1):
        axis = "x" if number == 1 else f"x{number}"
        (first, baseline), *others = scale.items()
        lines = {(s.x0, s.xref) for s in figure.layout.shapes if s.name == f"mean of {first}"}
        if len(baseline) > 1:
            ((line, of),) = lines
            assert line == pytest.approx(mean(baseline))
            assert of == axis
        else:
            assert not lines
        for label, runs in others:
            drawn = intervals.pop(f"{label}, interval of the distance from {first}", None)
            assert (drawn is None) == (min(len(runs), len(baseline)) < 2)
            if drawn is not None:
                apart = difference(runs, baseline, confidence_of_rows(scale))
                low, high = drawn.x
                assert drawn.xaxis == axis
                if apart.low > -1 and apart.high < 1:  # it ends where accuracies do
                    assert low + high == pytest.approx(2 * mean(runs))
                assert high - low == pytest.approx(apart.high - apart.low)
                if min(abs(apart.low), abs(apart.high)) > 1e-12:
                    assert (low <= mean(baseline) <= high) == (not apart.shown)
    assert not intervals


@drawing
@given(groups)
@example([[0.5] * 5, [0.5, 0.501, 0.502, 0.503, 0.504]])
def test_no_mark_of_a_run_hides_another_of_its_row(groups):
    """Marks 0.002 apart lie side by side; closer ones step aside, by more than half a mark."""
    figure = figures.endings(labeled(groups, "small"))
    for trace in figure.data:
        marks = zip(trace.x, trace.y, strict=True)
        for (x, y), (other_x, other_y) in combinations(marks, 2):
            assert abs(x - other_x) > 0.0019 or abs(y - other_y) > 5


@drawing
@given(groups)
@example([[0.5]])
@example([[0.0, 1.0], [0.4, 0.6]])
def test_the_dots_decide_what_is_in_the_frame(groups):
    scale = labeled(groups, "small")
    low, high = figures.endings(scale, intervals=True).layout.xaxis.range
    assert (low, high) == figures.endings(scale).layout.xaxis.range
    assert all(low <= accuracy <= high for group in groups for accuracy in group)


@drawing
@given(groups)
@example([[0.4, 0.6], [0.45, 0.55]])  # beyond both ends
@example([[0.4, 0.41, 0.4], [0.5, 0.51, 0.5], [0.45]])  # within
def test_an_interval_beyond_the_plot_ends_in_an_arrow_that_tells_all_of_it(groups):
    scale = labeled(groups, "small")
    figure = figures.endings(scale, intervals=True)
    left, right = figure.layout.xaxis.range
    beyond = {trace.name.split(",")[0]: trace for trace in figure.data if "beyond" in trace.name}
    for interval in (trace for trace in figure.data if "interval" in trace.name):
        low, high = interval.x
        signs = {left: "triangle-left"} if low < left else {}
        signs |= {right: "triangle-right"} if high > right else {}
        arrows = beyond.pop(interval.name.split(",")[0], None)
        assert (arrows is None) == (not signs)
        if arrows is not None:
            assert dict(zip(arrows.x, arrows.marker.symbol, strict=True)) == signs
            assert set(arrows.y) == set(interval.y)
            assert arrows.cliponaxis is False
            assert arrows.hovertext == interval.hovertext
            label = interval.name.split(",")[0]
            first = next(iter(scale.values()))
            apart = difference(scale[label], first, confidence_of_rows(scale))
            assert str(apart) in arrows.hovertext
    assert not beyond


LINE = 1.3 * TEXT_PIXELS  # pixels from a line of Plotly's text to the next


@drawing
@given(st.lists(accuracies, min_size=1, max_size=4), st.integers(0, 90), st.integers(0, 90))
def test_no_label_lies_on_the_line_of_guessing_or_of_a_mean(groups, letters, other_letters):
    """A row's lines begin where its label ends, and end where the next label begins."""
    names = ("a " * letters + "first", "b " * other_letters + "second", "third", "fourth")
    runs = map(ended_at, groups)
    parts = dict(zip(names, runs, strict=False))
    large = {f"{name} large": [*ended_at([0.2, 0.3], 224)] for name in parts}
    figure = figures.endings(parts, large, chance=0.1, intervals=True)
    inner = figure.layout.height - figure.layout.margin.t - figure.layout.margin.b
    for number in ("", "2"):
        axis = figure.layout[f"yaxis{number}"]
        assert abs(axis.range[0] - axis.range[1]) == pytest.approx(  # a unit is a pixel
            inner * (axis.domain[1] - axis.domain[0]), abs=0.5
        )
        labels = [note for note in figure.layout.annotations if note.yref == f"y{number}"]
        lines = [line for line in figure.layout.shapes if line.yref == f"y{number}"]
        assert len(labels) == len(parts)
        assert len(lines) >= len(parts)
        for note in labels:
            assert (note.yanchor, note.yshift) == ("bottom", None)
            top = note.y - LINE * (1 + note.text.count("<br>"))
            for line in lines:
                assert line.y1 <= top or line.y0 >= note.y
        for one, other in combinations(sorted(labels, key=lambda note: note.y), 2):
            assert other.y - LINE * (1 + other.text.count("<br>")) > one.y


@drawing
@given(groups, groups, groups)
def test_each_scale_has_one_panel_under_what_its_rows_have_in_common(one, two, three):
    small = labeled(one, "small"), {f"other {i}": ended_at(g) for i, g in enumerate(two)}
    large = labeled(three, "large")
    figure = figures.endings(*small, {}, large)
    shared = conditions({**small[0], **small[1]})
    assert headings(figure) == [f"<b>{shared}</b>", f"<b>{conditions(large)}</b>"]
    (above, below) = figure.layout.yaxis.domain, figure.layout.yaxis2.domain
    assert below[1] < above[0]
    for trace in figure.data:
        assert trace.yaxis == ("y2" if trace.name.startswith("large") else "y")


@drawing
@given(accuracies, accuracies)
def test_an_argument_of_two_scales_is_refused(few, many):
    with pytest.raises(NinlabError, match="one scale"):
        figures.endings({"small": ended_at(few, 28), "large": ended_at(many, 224)})


@drawing
@given(accuracies)
@example([0.036, 0.043, 0.073, 0.042])  # 4.85 %
def test_a_row_says_how_many_runs_it_has_and_a_mean_needs_two(values):
    figure = figures.endings({"row": ended_at(values)})
    assert any(trace.name == "row, mean" for trace in figure.data) == (len(values) > 1)
    mean = statistics.fmean(values)  # summed exactly: halves of the last digit are rounded alike
    assert f"row: {mean:.1%}, n = {len(values)}" in texts(figure)


def test_failures_are_crosses_in_no_mean_and_counted_in_the_label() -> None:
    runs = [*ended_at([0.8, 0.9]), *ended_at([0.1], outcome=Outcome.STUCK)]
    figure = figures.endings({"row": runs, "lost": runs[2:]})
    assert {"row: 85.0%, n = 3, 1 stuck", "lost: n = 1, 1 stuck"} < set(texts(figure))
    (middle,) = (trace for trace in figure.data if trace.name.endswith("mean"))
    assert list(middle.x) == pytest.approx([0.85])
    (dots,) = (trace for trace in figure.data if trace.name == "row")
    assert list(dots.marker.symbol) == ["circle", "circle", "x"]


def test_a_row_of_other_kernels_says_so() -> None:
    torchs, others = ended_at([0.8, 0.81]), ended_at([0.7, 0.71])
    fused = [replace(one, recipe=replace(one.recipe, kernels="fused")) for one in others]
    figure = figures.endings({"one": torchs, "two": others, "three": fused})
    assert any(text.startswith("three, fused kernels") for text in texts(figure))
    assert "torch kernels if no row names others" in headings(figure)[0].replace("<br>", " ")


def test_rows_of_several_arguments_name_the_kernels_that_their_heading_does_not() -> None:
    torchs = {"one": ended_at([0.8, 0.81]), "two": ended_at([0.7, 0.71])}
    fused = {
        f"{label}, again": [
            replace(one, recipe=replace(one.recipe, kernels="fused")) for one in runs
        ]
        for label, runs in torchs.items()
    }
    figure = figures.endings(torchs, fused, {"three": torchs["one"]})
    (heading,) = headings(figure)
    assert "torch kernels if no row names others" in heading.replace("<br>", " ")
    rows = [trace.name for trace in figure.data if not trace.name.endswith(", mean")]
    named = [f"{label}, fused kernels" for label in fused]
    assert rows == ["one", "two", *named, "three"]


def test_relapsed_runs_are_counted_in_the_label_and_in_no_mean() -> None:
    fell = [replace(one, loss=LossCurve(20, (0.5, 1.5))) for one in ended_at([0.8])]
    held = ended_at([0.9])
    assert "row: 90.0%, n = 2, 1 relapsed" in texts(figures.endings({"row": [*held, *fell]}))
    assert "row: n = 1, 1 relapsed" in texts(figures.endings({"row": fell}))


def test_runs_that_failed_are_crosses_whichever_way_they_did() -> None:
    fell = [replace(one, loss=LossCurve(20, (0.5, 1.5))) for one in ended_at([0.8])]
    runs = [*ended_at([0.9]), *fell, *ended_at([0.1], outcome=Outcome.STUCK)]
    (dots,) = figures.endings({"row": runs}).data
    assert dots.marker.symbol == ("circle", "x", "x")
    assert "relapsed" in dots.hovertext[1]


@drawing
@given(st.integers(0, 30))
def test_a_line_of_a_label_does_not_end_between_a_number_and_its_word(letters) -> None:
    runs = [*ended_at([0.8, 0.9]), *ended_at([0.1], outcome=Outcome.STUCK)]
    for note in figures.endings({"x" * letters + " row": runs}).layout.annotations:
        for line in note.text.split("<br>"):
            assert not line.endswith((" =", "n", " 1", " 3"))
