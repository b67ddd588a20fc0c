"""Several designs against one reference: the intervals hold together, and say what they mean."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats

from ninlab import comparisons
from ninlab.comparisons import MARGIN, Verdict
from ninlab.decisions import Decision, decide
from ninlab.errors import NinlabError
from ninlab.records import LossCurve, Outcome
from tests.test_comparisons import accuracies, group

REFERENCE = [0.900, 0.902, 0.898, 0.901, 0.899]


def alone(values: list[float], reference: list[float]) -> Decision:
    return decide(group(reference), {"design": group(values)})["design"]


@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        ([0.930, 0.932, 0.929], Verdict.GAIN),
        ([0.870, 0.872, 0.869], Verdict.LOSS),
        ([0.901, 0.899, 0.900], Verdict.EQUAL),
        ([0.880, 0.940, 0.905], Verdict.NOT_SHOWN),  # so far apart that nothing is known
        ([0.9041, 0.9039, 0.9040], Verdict.EQUAL),  # a gain, and too small a one to matter
        ([0.930], Verdict.NOT_TESTED),
        ([], Verdict.NOT_TESTED),
    ],
)
def test_an_interval_means_what_was_written_down_before(values, verdict):
    decision = alone(values, REFERENCE)
    assert decision.verdict is verdict
    assert (decision.runs, decision.reference_runs) == (len(values), len(REFERENCE))
    assert (decision.difference is None) == (len(values) < 2)


def level(difference: comparisons.Difference, half_width: float, degrees: int) -> float:
    """With which probability Student's t leaves the interval, whose unit is half_width."""
    width = (difference.high - difference.low) / 2
    return 2 * float(stats.t.sf(width / half_width, degrees))


def within_the_possible(difference: comparisons.Difference) -> bool:
    """Whether the interval was not cut where accuracies end."""
    return difference.low > -1 and difference.high < 1


@given(accuracies, accuracies)
def test_one_design_alone_has_students_interval(ours, theirs):
    """Outside oracle: with one comparison Dunnett's interval is that of the pooled t-test."""
    assume(len(set(ours)) > 1 and len(set(theirs)) > 1)
    found = alone(ours, theirs).difference
    assume(within_the_possible(found))
    test = stats.ttest_ind(ours, theirs, equal_var=True)
    error = (test.confidence_interval(0.95).high - test.confidence_interval(0.95).low) / 2
    unit = error / stats.t.ppf(0.975, test.df)
    assert level(found, unit, test.df) == pytest.approx(0.05, rel=0.1)


@given(st.lists(accuracies, min_size=2, max_size=4), accuracies)
def test_more_designs_make_every_interval_wider_but_never_wider_than_bonferronis(rows, theirs):
    assume(all(len(set(row)) > 1 for row in (*rows, theirs)))
    designs = {str(i): group(row) for i, row in enumerate(rows)}
    together = decide(group(theirs), designs)
    degrees = sum(map(len, rows)) + len(theirs) - len(rows) - 1
    pooled = math.sqrt(sum(np.var(row) * len(row) for row in (*rows, theirs)) / degrees)
    for row, decision in zip(rows, together.values(), strict=True):
        if within_the_possible(decision.difference):
            unit = pooled * math.sqrt(1 / len(row) + 1 / len(theirs))
            alone = level(decision.difference, unit, degrees)
            assert 0.05 / len(rows) * 0.9 <= alone <= 0.05 * 1.1


def test_the_same_runs_are_decided_the_same_way_every_time():
    designs = {"a": group([0.91, 0.92, 0.93]), "b": group([0.89, 0.90])}
    assert decide(group(REFERENCE), designs) == decide(group(REFERENCE), designs)


def test_runs_that_failed_or_relapsed_are_in_no_mean():
    failed = group([0.1, 0.1], Outcome.STUCK)
    fell_back = [replace(run, loss=LossCurve(20, (2.3, 0.5, 2.3))) for run in group([0.2, 0.3])]
    assert alone_with(failed) == alone_with(fell_back) == alone_with([])


def alone_with(more: list) -> Decision:
    return decide(group(REFERENCE), {"design": [*group([0.93, 0.932]), *more]})["design"]


def test_runs_without_any_spread_differ_by_what_they_differ():
    decision = alone([0.93, 0.93], [0.90, 0.90])
    assert decision.difference == comparisons.Difference(0.93 - 0.90, 0.93 - 0.90, 0.93 - 0.90)
    assert decision.verdict is Verdict.GAIN
    assert alone([0.9, 0.9], [0.9, 0.9]).verdict is Verdict.EQUAL


@pytest.mark.parametrize("margin", [0.0, -MARGIN])
def test_a_margin_of_nothing_is_refused(margin):
    with pytest.raises(NinlabError, match="must be above 0"):
        decide(group(REFERENCE), {}, margin=margin)
