"""Tables of what runs show: one a scale, in the order given, none mixed."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ninlab import figures
from ninlab.comparisons import MARGIN, conditions, confidence_of_each, difference, effects
from ninlab.errors import NinlabError, UnknownNameError
from ninlab.records import Device
from tests.records import A_HOST
from tests.test_figures_of_endings import accuracies, labeled

drawing = settings(max_examples=25, deadline=None)  # a Plotly figure takes some 10 ms to make

SMALL, LARGE = labeled([[0.8, 0.9], [0.7]], "small"), labeled([[0.5]], "large")


def test_each_scale_has_a_table_under_its_conditions() -> None:
    shown = figures.tables_by_scale(SMALL, {}, LARGE)
    assert list(shown.frames) == [conditions(SMALL), conditions(LARGE)]
    for groups in (SMALL, LARGE):
        frame = shown[conditions(groups)]
        assert list(frame.index) == list(groups)
        for label, row in effects(groups).items():
            assert dict(frame.loc[label]) == row


def test_arguments_of_one_scale_share_a_table_and_keep_their_own_first_row() -> None:
    again = {f"{label}, again": runs for label, runs in SMALL.items()}
    (frame,) = figures.tables_by_scale(SMALL, again).frames.values()
    assert list(frame.index) == [*SMALL, *again]
    assert list(frame["points"]) == [row["points"] for row in effects(SMALL).values()] * 2


@drawing
@given(st.lists(st.lists(accuracies, min_size=1, max_size=4), min_size=1, max_size=2))
def test_a_table_shows_what_the_figure_of_the_same_runs_shows(parts):
    """All comparisons under one heading share one confidence, also those of other first rows."""
    named = [labeled(part, "small", f"part {i}") for i, part in enumerate(parts)]
    ((_, frame),) = figures.tables_by_scale(*named).frames.items()
    compared = sum(len(part[0]) > 1 and len(values) > 1 for part in parts for values in part[1:])
    drawn = {
        trace.name.split(",")[0]: trace
        for trace in figures.endings(*named, intervals=True).data
        if "interval" in trace.name
    }
    assert len(drawn) == compared
    for part in named:
        first = next(iter(part.values()))
        for label in drawn.keys() & part.keys():
            apart = difference(part[label], first, confidence_of_each(compared))
            assert frame.loc[label, "points"].replace("\N{MINUS SIGN}", "-") == str(apart)
            assert frame.loc[label, "shown"] == apart.verdict_within(MARGIN).within(MARGIN)
            assert str(apart) in drawn[label].hovertext


def test_rows_of_several_arguments_name_the_kernels_that_their_heading_does_not() -> None:
    fused = {
        f"{label}, again": [
            replace(one, recipe=replace(one.recipe, kernels="fused")) for one in runs
        ]
        for label, runs in SMALL.items()
    }
    more = {f"{label}, too": runs for label, runs in SMALL.items()}
    shown = figures.tables_by_scale(SMALL, fused, more)
    ((heading, frame),) = shown.frames.items()
    assert "torch kernels if no row names others" in heading
    assert list(frame.index) == [*SMALL, *(f"{label}, fused kernels" for label in fused), *more]


def test_no_table_is_lost_whatever_the_order_of_the_scales() -> None:
    again = {f"{label}, again": runs for label, runs in SMALL.items()}
    shown = figures.tables_by_scale(SMALL, LARGE, again)
    assert [list(frame.index) for frame in shown.frames.values()] == [[*SMALL, *again], [*LARGE]]


def test_two_models_of_one_name_have_a_table_each() -> None:
    one, two = (
        {
            label: [replace(run, device=replace(run.device, slug=slug)) for run in runs]
            for label, runs in LARGE.items()
        }
        for slug in ("one", "two")
    )
    assert len(figures.tables_by_scale(one, two).frames) == 2


def test_more_columns_come_from_the_runs_of_a_row() -> None:
    (frame,) = figures.tables_by_scale(
        SMALL, more={"seeds": lambda runs: str(len(runs))}
    ).frames.values()
    assert list(frame["seeds"]) == ["2", "1"]


def test_columns_are_chosen_by_name_and_a_scale_that_lacks_one_goes_without() -> None:
    gpu = Device("a-gpu", "some GPU", 1)
    large = {label: [replace(run, device=gpu) for run in runs] for label, runs in LARGE.items()}
    busy = replace(A_HOST, other_cores=1.0)  # beside which a step has no time of its own
    small = {label: [replace(run, host=busy) for run in runs] for label, runs in SMALL.items()}
    shown = figures.tables_by_scale(small, large, columns=("mean", "ms a step", "points"))
    assert [list(frame) for frame in shown.frames.values()] == [
        ["mean", "points"],
        ["mean", "ms a step", "points"],
    ]
    with pytest.raises(UnknownNameError, match="unknown column 'means'; did you mean 'mean'"):
        figures.tables_by_scale(SMALL, columns=("means",))
    assert figures.tables_by_scale({}, columns=("mean",)).frames == {}


def test_a_page_shows_the_heading_and_the_table_and_a_terminal_too() -> None:
    shown = figures.tables_by_scale(SMALL)
    for text in (shown._repr_html_(), repr(shown)):
        assert conditions(SMALL) in text
        assert "small 1" in text
    assert shown._repr_html_().count("<table") == 1


def test_a_mixture_is_refused() -> None:
    with pytest.raises(NinlabError, match="one scale"):
        figures.tables_by_scale(SMALL | LARGE)
