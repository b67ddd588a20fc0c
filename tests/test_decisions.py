"""Several designs against one reference: the intervals hold together, and say what they mean."""

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


@given(st.lists(accuracies, min_size=1, max_size=4), accuracies)
def test_the_intervals_are_scipys_at_the_confidence_that_each_must_have(rows, theirs):
    """Outside oracle; a design of one run is in no comparison, and takes nothing from others."""
    assume(all(len(set(row)) > 1 for row in (*rows, theirs)))
    designs = {str(i): group(row) for i, row in enumerate(rows)} | {"one": group([0.5])}
    decided = decide(group(theirs), designs)
    for i, row in enumerate(rows):
        test = stats.ttest_ind(row, theirs, equal_var=False)
        low, high = test.confidence_interval(1 - 0.05 / len(rows))
        found = decided[str(i)].difference
        assert (found.low, found.high) == pytest.approx((max(low, -1), min(high, 1)), abs=1e-8)


def test_designs_that_spread_otherwise_than_their_reference_are_not_told_apart_too_often():
    """Of equals, one steady reference and four designs that spread from as much to 40 times.

    Dunnett's intervals take them to spread alike: the steady ones then have too wide an interval,
    the others one that is too narrow.
    """
    random = np.random.default_rng(0)
    tables, wrong, dunnetts = 300, 0, 0
    for _ in range(tables):
        reference, *designs = (
            0.5 + 0.004 * spread * random.standard_normal(20) for spread in (1, 1, 1, 1, 40)
        )
        labeled = {str(i): group(list(values)) for i, values in enumerate(designs)}
        decided = decide(group(list(reference)), labeled).values()
        wrong += any(one.difference.shown for one in decided)
        dunnetts += bool((stats.dunnett(*designs, control=reference).pvalue < 0.05).any())
    assert wrong <= 0.05 * tables < 2 * wrong
    assert dunnetts > 2 * 0.05 * tables


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
