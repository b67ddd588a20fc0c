"""Dots of runs, and how far groups of them lie apart."""

from dataclasses import replace
from itertools import combinations
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ninlab import figures
from ninlab.comparisons import difference
from ninlab.records import RunRecord, load

A_RUN = min(load(Path(__file__).parents[1] / "runs"), key=lambda run: run.id)
accuracies = st.lists(st.integers(0, 1000).map(lambda part: part / 1000), min_size=1, max_size=5)
groups = st.lists(accuracies, min_size=1, max_size=4)


def ended_at(accuracies: list[float]) -> list[RunRecord]:
    """Runs of one network that end at these accuracies, one a seed."""
    recipe, epoch = replace(A_RUN.recipe, epochs=1), A_RUN.epochs[0]
    return [
        replace(A_RUN, seed=seed, recipe=recipe, epochs=(replace(epoch, test_accuracy=accuracy),))
        for seed, accuracy in enumerate(accuracies)
    ]


def mean(runs: list[RunRecord]) -> float:
    return sum(run.last.test_accuracy for run in runs) / len(runs)


def labeled(groups: list[list[float]], scale: str) -> dict[str, list[RunRecord]]:
    return {f"{scale} {i}": ended_at(group) for i, group in enumerate(groups)}


@given(groups, groups)
def test_an_interval_crosses_the_line_of_its_own_scale_where_no_difference_is_shown(few, many):
    scales = labeled(few, "small"), labeled(many, "large")
    figure = figures.endings(*scales, intervals=True)
    intervals = {t.name: t for t in figure.data if "interval" in t.name}
    for scale in scales:
        (first, baseline), *others = scale.items()
        (line,) = {s.x0 for s in figure.layout.shapes if s.name == f"mean of {first}"}
        assert line == pytest.approx(mean(baseline))
        for label, runs in others:
            drawn = intervals.pop(f"{label}, interval of the distance from {first}", None)
            assert (drawn is None) == (min(len(runs), len(baseline)) < 2)
            if drawn is not None:
                apart = difference(runs, baseline)
                low, high = drawn.x
                if apart.low > -1 and apart.high < 1:  # it ends where accuracies do
                    assert low + high == pytest.approx(2 * mean(runs))
                assert high - low == pytest.approx(apart.high - apart.low)
                if min(abs(apart.low), abs(apart.high)) > 1e-12:
                    assert (low <= mean(baseline) <= high) == (not apart.shown)
    assert not intervals


@given(groups)
def test_no_mark_of_a_run_hides_another_of_its_row(groups):
    """Marks 0.002 apart lie side by side; closer ones step aside by a tenth of a row at least."""
    figure = figures.endings(labeled(groups, "row"))
    for trace in figure.data:
        marks = zip(trace.x, trace.y, strict=True)
        for (x, y), (other_x, other_y) in combinations(marks, 2):
            assert abs(x - other_x) > 0.0019 or abs(y - other_y) > 0.1


@given(groups)
def test_the_dots_decide_what_is_in_the_frame(groups):
    scale = labeled(groups, "row")
    low, high = figures.endings(scale, intervals=True).layout.xaxis.range
    assert (low, high) == figures.endings(scale).layout.xaxis.range
    assert all(low <= accuracy <= high for group in groups for accuracy in group)
