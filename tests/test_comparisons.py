import re
import warnings
from dataclasses import replace
from functools import cache
from math import comb

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats

from ninlab import records
from ninlab.comparisons import (
    CONFIDENCE,
    MARGIN,
    Difference,
    Verdict,
    by_kernels,
    by_scale,
    conditions,
    confidence_of_each,
    difference,
    effects,
    equivalence,
    failures,
    gap_difference,
    gaps,
    gaps_in_words,
    images_of,
    in_words,
    interaction,
    kernels_of,
    sampling_error,
    scale_of,
    share,
    share_of_failures,
    shares_differ,
    speeds_compare,
    step_seconds,
    summary,
    told_apart,
    train_loss,
)
from ninlab.decisions import decide
from ninlab.errors import NinlabError
from ninlab.recipes import Schedule
from ninlab.records import LossCurve, Outcome, RunRecord
from ninlab.relapses import held
from ninlab.steps import Kernels
from tests.records import A_HOST

hits = st.integers(1000, 9500)  # of 10,000 test images
accuracies = st.lists(hits.map(lambda count: count / 10_000), min_size=2, max_size=6)


@cache
def template() -> RunRecord:
    run = next(run for run in records.load() if run.outcome is Outcome.FINISHED)
    return replace(run, loss=LossCurve(20, (2.3, 0.5)))  # which holds, and is quick to look at


def group(values: list[float], outcome: Outcome = Outcome.FINISHED) -> list[RunRecord]:
    """Runs that end at these accuracies."""
    run = template()
    return [
        replace(
            run,
            seed=seed,
            outcome=outcome,
            epochs=(*run.epochs[:-1], replace(run.last, test_accuracy=value)),
        )
        for seed, value in enumerate(values)
    ]


@given(accuracies)
def test_the_mean_lies_between_the_least_and_the_greatest(values):
    result = summary(group(values))
    assert result.least <= result.mean + 1e-12
    assert result.mean <= result.greatest + 1e-12
    assert result.runs == len(values)


@given(accuracies, accuracies)
def test_a_difference_turns_its_sign_with_its_groups(ours, theirs):
    there, back = difference(group(ours), group(theirs)), difference(group(theirs), group(ours))
    assert there.mean == pytest.approx(-back.mean)
    assert (there.low, there.high) == pytest.approx((-back.high, -back.low))
    assert there.shown == back.shown


@given(accuracies, accuracies)
def test_the_interval_holds_the_difference_and_widens_with_the_confidence(ours, theirs):
    assume(len(set(ours)) > 1)
    narrow = difference(group(ours), group(theirs), confidence=0.5)
    wide = difference(group(ours), group(theirs), confidence=0.99)
    assert wide.low <= narrow.low <= narrow.mean <= narrow.high <= wide.high


@given(accuracies)
def test_the_deviation_is_that_between_seeds_and_a_single_run_has_none(values):
    # Both take differences of numbers that may be close: half of the digits.
    assert summary(group(values)).deviation == pytest.approx(np.std(values, ddof=1), abs=1e-8)
    assert summary(group(values[:1])).deviation is None


@given(accuracies, accuracies)
def test_a_difference_is_written_in_points(ours, theirs):
    apart = difference(group(ours), group(theirs))
    written = [float(number) for number in re.findall(r"[+-]\d+\.\d", str(apart))]
    shares = (apart.mean, apart.low, apart.high)
    assert written == pytest.approx([100 * share for share in shares], abs=0.051)  # one decimal


def test_a_group_differs_from_itself_by_nothing_that_is_shown():
    values = [0.80, 0.82, 0.85]
    assert not difference(group(values), group(values)).shown


def test_groups_far_apart_for_their_spread_are_told_apart():
    assert difference(group([0.80, 0.81, 0.80]), group([0.70, 0.71, 0.70])).shown


def test_welchs_interval_is_the_textbooks():
    # Two groups with the same spread and size: the classical interval with 4 degrees of
    # freedom, whose 97.5 % quantile of Student's t is 2.776.
    ours, theirs = [0.81, 0.82, 0.83], [0.71, 0.72, 0.73]
    half = 2.776 * (0.01**2 / 3 * 2) ** 0.5
    result = difference(group(ours), group(theirs))
    assert result.mean == pytest.approx(0.1)
    assert (result.low, result.high) == pytest.approx((0.1 - half, 0.1 + half), abs=1e-5)


def scipys(
    ours: list[float], theirs: list[float], confidence: float, limit: float
) -> tuple[float, float]:
    """Welch's interval by scipy, cut at the limit. Only for groups of which one spreads.

    Both sum a handful of float64 numbers, of which two may be close: half of the digits agree.
    """
    assume(len(set(ours)) > 1 or len(set(theirs)) > 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of runs that end alike
        interval = stats.ttest_ind(ours, theirs, equal_var=False).confidence_interval(confidence)
    return max(float(interval.low), -limit), min(float(interval.high), limit)


@given(accuracies, accuracies, st.floats(0.5, 0.999))
def test_the_interval_is_welchs_as_far_as_accuracies_can_differ(ours, theirs, confidence):
    result = difference(group(ours), group(theirs), confidence)
    assert (result.low, result.high) == pytest.approx(
        scipys(ours, theirs, confidence, limit=1), rel=1e-8, abs=1e-8
    )


@given(accuracies, accuracies)
def test_nothing_is_written_with_a_minus_sign_before_it(ours, theirs):
    assert "-0.0" not in re.findall(r"[-+][\d.]+", str(difference(group(ours), group(theirs))))


@pytest.mark.parametrize("confidence", [0, 1, 95])
def test_a_confidence_is_a_share(confidence):
    with pytest.raises(NinlabError, match=f"not {confidence}"):
        difference(group([0.8, 0.9]), group([0.7, 0.8]), confidence)


@given(accuracies, st.integers(1, 3), st.sampled_from([Outcome.STUCK, Outcome.DIVERGED]))
def test_failures_are_named_and_in_no_mean_and_no_difference(values, count, outcome):
    finished, failed = group(values), group([0.1] * count, outcome)
    result = summary([*finished, *failed])
    assert (result.runs, result.failed, result.held) == (len(values) + count, count, len(values))
    assert replace(result, runs=result.held, failed=0) == summary(finished)
    assert f"n = {len(values)} of {len(values) + count})" in str(result)
    assert failures([*failed, *finished]) == f"{count} {outcome}"
    other = group([0.5, 0.6])
    assert difference([*failed, *finished], other) == difference(finished, other)


def with_losses(runs: list[RunRecord], *values: float) -> list[RunRecord]:
    """The runs with such a curve, each value the mean of 20 steps."""
    return [replace(run, loss=LossCurve(20, values)) for run in runs]


@given(accuracies, st.integers(1, 3))
def test_runs_that_relapsed_are_failures_and_in_no_number_of_a_group(values, count):
    steady = with_losses(group(values), 2.3, 0.5, 0.4)
    both = [*with_losses(group([0.2] * count), 2.3, 0.5, 2.3), *steady]
    assert replace(summary(both), runs=len(steady), failed=0) == summary(steady)
    assert gaps(both) == gaps(steady)
    other = group([0.5, 0.6])
    for compare in (difference, gap_difference, equivalence):
        assert compare(both, other) == compare(steady, other)
        assert compare(other, both) == compare(other, steady)
    row, of_steady = (effects({"first": other, "row": runs})["row"] for runs in (both, steady))
    for column in ("points", "shown", "mean"):
        assert row[column] == of_steady[column]
    assert row["failed"] == str(share([True] * count + [False] * len(steady)))
    assert row["runs"] == f"{len(both)}, {count} relapsed"


def test_a_run_that_relapsed_and_then_diverged_fails_once():
    (run,) = with_losses(group([0.1], Outcome.DIVERGED), 2.3, 0.5, 2.3)
    assert failures([run]) == "1 diverged"
    assert summary([run]).failed == share_of_failures([run]).count == 1


@given(st.lists(st.booleans(), min_size=1, max_size=12), st.lists(st.booleans(), min_size=1))
def test_shares_differ_as_counted_tables_with_the_same_margins_do(ours, theirs):
    """Second derivation: of all ways to deal the failures out, those that are no more probable."""
    one, other = share(ours), share(theirs)
    failed = one.count + other.count
    ways = {
        count: comb(one.of, count) * comb(other.of, failed - count)
        for count in range(failed + 1)
        if count <= one.of and failed - count <= other.of
    }
    as_rare = sum(count for count in ways.values() if count <= ways[one.count])
    assert shares_differ(one, other) == pytest.approx(as_rare / sum(ways.values()))
    assert shares_differ(one, other) == pytest.approx(shares_differ(other, one))


def test_where_no_run_finished_there_is_no_accuracy():
    stuck, diverged = group([0.1], Outcome.STUCK), group([0.1], Outcome.DIVERGED)
    result = summary([*stuck, *diverged])
    assert result.mean is result.least is result.greatest is result.deviation is None
    assert str(result) == "none held (n = 0 of 2)"
    assert failures([*stuck, *diverged]) == "1 diverged, 1 stuck"
    rows = effects({"first": group([0.8, 0.9]), "second": [*stuck, *diverged]})
    assert rows["second"]["shown"] == "not tested (no run held)"
    assert rows["second"]["mean"] == rows["second"]["points"] == ""
    assert rows["second"]["runs"] == "2, 1 diverged, 1 stuck"
    turned = {"first": stuck, "second": group([0.8, 0.9])}
    assert effects(turned)["second"]["shown"] == "not tested (no run of the first row held)"
    assert "Not tested, as no run of the first one held: second, at 85.0%." in in_words(turned)


@given(st.lists(st.booleans(), min_size=1, max_size=40), st.floats(0.5, 0.99))
def test_a_share_lies_in_its_interval_and_turns_with_what_is_counted(holds, confidence):
    there = share(holds, confidence)
    back = share([not one for one in holds], confidence)
    assert there.low <= there.count / there.of <= there.high
    assert (there.low, there.high) == pytest.approx((1 - back.high, 1 - back.low))
    wider = share(holds, (1 + confidence) / 2)
    assert wider.low <= there.low + 1e-9
    assert there.high <= wider.high + 1e-9


def test_none_of_three_may_be_seven_of_ten():
    # Clopper and Pearson's upper end for none of n solves (1 - p)^n = 2.5 %.
    none = share([False] * 3)
    assert none.low == 0
    assert none.high == pytest.approx(1 - 0.025 ** (1 / 3))
    assert str(none) == "0 of 3 (0% to 71%)"
    with pytest.raises(NinlabError, match="at least one case"):
        share([])


def fitted(values: list[float], train_accuracy: float) -> list[RunRecord]:
    """Runs that end at these test accuracies, and all at one training accuracy."""
    return [
        replace(
            run,
            epochs=(*run.epochs[:-1], replace(run.last, train_accuracy=train_accuracy)),
        )
        for run in group(values)
    ]


@given(accuracies, accuracies)
def test_where_all_fit_alike_gaps_differ_by_what_test_accuracies_do_turned_round(ours, theirs):
    one, other = fitted(ours, 0.5), fitted(theirs, 0.5)
    assert gaps(one) == pytest.approx([0.5 - value for value in ours])
    apart, by_test = gap_difference(one, other), difference(other, one)
    assert apart.mean == pytest.approx(by_test.mean)
    assert max(apart.low, -1) == pytest.approx(by_test.low)
    assert min(apart.high, 1) == pytest.approx(by_test.high)


def test_a_gap_of_a_run_that_failed_is_none():
    assert gaps(group([0.1, 0.1], Outcome.STUCK)) == []
    assert gaps_in_words({"row": group([0.1], Outcome.STUCK)}) == gaps_in_words({}) == ""


def test_words_on_gaps_keep_what_is_not_tested_from_what_is_not_shown():
    first, wide = fitted([0.8, 0.81, 0.8], 0.8), fitted([0.7, 0.71, 0.7], 0.95)
    words = gaps_in_words({"first": first, "wide": wide, "alike": first, "one": first[:1]})
    assert "first, \N{MINUS SIGN}0.3; wide, +24.7" in words
    assert re.search(r"Wide against first: \+25\.0 \(.*\), a difference is shown\.", words)
    assert re.search(r"Alike against first: \+0\.0 \(.*\), a difference is not shown\.", words)
    assert "Not tested, for want of a second run: one against first." in words


def test_the_intervals_of_a_paragraph_on_gaps_hold_together():
    groups = {f"{i}": fitted([0.8 + i / 100, 0.82 + i / 100, 0.8], 0.9) for i in range(4)}
    first, *others = groups.values()
    groups["one"] = first[:1]
    words = gaps_in_words(groups).replace("\N{MINUS SIGN}", "-")
    for runs in others:
        assert f": {gap_difference(runs, first, confidence_of_each(len(others)))}, " in words
        assert f": {gap_difference(runs, first)}, " not in words


def test_one_run_has_no_spread_and_no_run_no_accuracy():
    with pytest.raises(NinlabError, match="at least two"):
        difference(group([0.8]), group([0.7, 0.8]))
    with pytest.raises(NinlabError, match="at least one"):
        summary([])


def test_intervals_that_hold_at_once_are_wider_and_one_alone_is_as_it_was() -> None:
    assert confidence_of_each(1) == CONFIDENCE
    assert confidence_of_each(5) == pytest.approx(0.99)
    assert confidence_of_each(4, confidence=0.9) == pytest.approx(0.975)
    for comparisons, confidence in ((0, 0.95), (3, 1.0)):
        with pytest.raises(NinlabError):
            confidence_of_each(comparisons, confidence)


@pytest.mark.parametrize("epoch", [0, -1])
def test_the_loss_of_an_epoch_is_the_middle_one_of_the_runs_that_finished(epoch: int) -> None:
    def ended_at(loss: float, outcome: Outcome = Outcome.FINISHED) -> RunRecord:
        (run,) = group([0.8], outcome)
        epochs = list(run.epochs)
        epochs[epoch] = replace(epochs[epoch], train_loss=loss)
        return replace(run, epochs=tuple(epochs))

    runs = [ended_at(0.5), ended_at(9.0), ended_at(0.7), ended_at(0.1, Outcome.STUCK)]
    assert train_loss(runs, epoch) == 0.7
    with pytest.raises(NinlabError, match="at least one run"):
        train_loss(runs[3:], epoch)


def test_ten_thousand_images_tell_an_accuracy_to_a_third_of_a_point():
    assert sampling_error(0.9, 10_000) == pytest.approx(0.003)


@given(accuracies, accuracies)
def test_a_table_of_effects_says_what_the_difference_says(ours, theirs):
    apart = difference(group(ours), group(theirs))
    row = effects({"first": group(theirs), "second": group(ours)})["second"]
    assert row["points"].replace("−", "-") == str(apart)
    is_equal = max(-apart.low, apart.high) < MARGIN
    assert row["shown"] == ("equal within 1 point" if is_equal else apart.verdict)


def test_a_table_of_equals_shows_a_difference_once_in_twenty_at_most():
    """Without a correction it is more than twice as often."""
    random = np.random.default_rng(0)
    tables, wrong, wrong_at_95 = 400, 0, 0
    for _ in range(tables):
        rows = {f"{i}": group(list(random.normal(0.8, 0.02, 5))) for i in range(6)}
        first, *others = rows.values()
        wrong += any(row["shown"] in ("a gain", "a loss") for row in effects(rows).values())
        wrong_at_95 += any(difference(runs, first).shown for runs in others)
    assert wrong <= 0.05 * tables < 2 * wrong < wrong_at_95


@pytest.mark.filterwarnings("ignore:Precision loss")  # of a group without spread
@given(st.lists(accuracies, min_size=2, max_size=5), accuracies)
def test_the_intervals_of_a_table_are_scipys_at_the_confidence_that_each_must_have(found, alone):
    """A row of one run is in no comparison, and takes no confidence from the others."""
    first, *others = found
    rows = effects({"alone in its part": group(alone)}) | effects(
        {f"{i}": group(values) for i, values in enumerate([*found, [0.5]])}
    )
    assert rows["alone in its part"]["points"] == ""
    assert rows[f"{len(found)}"]["shown"] == "not tested (one seed)"
    for i, values in enumerate(others, start=1):
        if len(set(values)) == len(set(first)) == 1:
            continue  # no spread, no interval
        test = stats.ttest_ind(values, first, equal_var=False)
        low, high = test.confidence_interval(1 - 0.05 / len(others))
        says = [float(end) for end in re.findall(r"[+-][0-9.]+", points_of(rows[f"{i}"]))]
        assert says[1:] == pytest.approx([100 * max(low, -1), 100 * min(high, 1)], abs=0.051)


def points_of(row):
    return row["points"].replace("\N{MINUS SIGN}", "-")


def test_one_seed_is_not_tested_and_never_called_nothing():
    groups = {"first": group([0.8, 0.82]), "second": group([0.85]), "third": group([0.1])}
    rows = effects(groups)
    assert rows["first"]["points"] == rows["first"]["shown"] == ""
    assert [rows[label]["points"] for label in ("second", "third")] == ["+4.0", "−71.0"]
    assert {rows[label]["shown"] for label in ("second", "third")} == {"not tested (one seed)"}
    words = in_words(groups)
    assert (
        "Not tested, for want of a second seed: second, +4.0 points; third, −71.0 points." in words
    )
    assert "show" not in words


def test_a_group_of_which_one_run_finished_is_not_tested():
    half = [*group([0.85]), *group([0.1], Outcome.DIVERGED)]
    rows = effects({"first": group([0.8, 0.82]), "second": half})
    assert rows["second"]["shown"] == "not tested (one run held)"
    assert rows["second"]["runs"] == "2, 1 diverged"


def test_words_keep_what_is_shown_from_what_is_not():
    groups = {
        "first": group([0.802, 0.803, 0.804]),
        "better": group([0.90, 0.91, 0.90]),
        "worse": group([0.70, 0.71, 0.70]),
        "apart": group([0.60, 0.99, 0.80]),
        "alike": group([0.802, 0.803, 0.804]),
    }
    words = in_words(groups, [*groups, "never run"])
    assert words.startswith(f"{conditions(groups)}. First ended at 80.3% (n = 3).")
    for said in (
        "Against that, the runs show a gain for better, +10.0 points (",
        "the runs show a loss for worse",
        "They do not show a difference for apart",
        "Equal within 1 point: alike, +0.0 points (",
        "Not recorded yet: never run.",
    ):
        assert words.count(said) == 1
    assert "Failed" not in words


def test_words_on_a_part_of_a_table_have_the_intervals_of_the_table():
    first, second, third = ([0.8 + shift, 0.82 + shift] for shift in (0, 0.01, 0.02))
    part = {"first": group(first), "second": group(second)}
    parts = [part, {"first": group(first), "third": group(third), "fourth": group(second)}]
    interval = effects(part, among=parts)["second"]["points"].partition(" ")[2]
    assert interval in in_words(part, among=parts)
    assert interval not in in_words(part)
    assert in_words(part, among=[part]) == in_words(part)


def test_words_name_who_failed_and_how():
    fallen, steady = (with_losses(group([0.8, 0.82]), 2.3, 0.5, last) for last in (1.5, 0.4))
    stuck = [replace(run, outcome=Outcome.STUCK) for run in steady]
    words = in_words({"steady": steady, "fallen": fallen, "both": [fallen[0], stuck[0]]})
    assert "Failed, and in no mean: fallen (2 relapsed of 2); both (1 relapsed, 1 stuck of 2)." in (
        words
    )
    assert "Not tested, as no run held: fallen; both." in words
    assert "Fallen ended" not in in_words({"fallen": fallen, "steady": steady})
    assert "Steady ended at 81.0% (n = 2 of 3)." in in_words({"steady": [*steady, *stuck[:1]]})


def test_the_spread_of_other_seeds_says_how_far_luck_sets_single_runs_apart():
    single = {"first": group([0.8]), "second": group([0.85])}
    spread_of = on(group([0.80, 0.82, 0.84]), "cpu", "CPU", 28)  # a deviation of two points
    words = in_words(single, spread_of=spread_of)
    assert "as those of the 28×28 network, by 2.0 points" in words
    assert "two single runs 6 points apart" in words  # 1.96 * sqrt(2) * 2.0 = 5.5
    assert "luck alone" not in in_words(single, spread_of=spread_of[:1])
    pairs = {"first": group([0.8, 0.9]), "second": group([0.8, 0.9])}
    assert "luck alone" not in in_words(pairs, spread_of=spread_of)


def test_without_a_group_there_are_words_and_no_comparison():
    assert effects({}) == {}
    assert in_words({}) == in_words({}, ["wanted"]) == "Nothing to compare is recorded yet."


# ---------------------------------------------------------------- equal, or not shown

margins = st.floats(0.001, 0.5)


@given(accuracies, accuracies, margins)
def test_the_p_value_of_equality_is_that_of_two_one_sided_tests(ours, theirs, margin):
    assume(len(set(ours)) > 1 or len(set(theirs)) > 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of runs that end alike
        above, below = (
            stats.ttest_ind(
                np.array(ours) + shift, theirs, equal_var=False, alternative=alternative
            ).pvalue
            for shift, alternative in ((margin, "greater"), (-margin, "less"))
        )
    found = equivalence(group(ours), group(theirs), margin)
    # both sum a handful of float64 numbers, of which two may be close
    assert found.p_value == pytest.approx(max(above, below), rel=1e-6, abs=1e-9)


@given(accuracies, accuracies, margins, st.floats(0.5, 0.999))
def test_the_groups_are_equal_where_both_tests_reject_and_else_as_the_interval_says(
    ours, theirs, margin, confidence
):
    found = equivalence(group(ours), group(theirs), margin, confidence)
    level = (1 - confidence) / 2
    assume(abs(found.p_value - level) > 1e-9)
    assert found.difference == difference(group(ours), group(theirs), confidence)
    expected = Verdict.EQUAL if found.p_value < level else found.difference.verdict
    assert found.verdict is expected


@given(accuracies, accuracies, margins)
def test_equality_turns_with_its_groups(ours, theirs, margin):
    there = equivalence(group(ours), group(theirs), margin)
    back = equivalence(group(theirs), group(ours), margin)
    assert there.p_value == pytest.approx(back.p_value)
    turned = {Verdict.GAIN: Verdict.LOSS, Verdict.LOSS: Verdict.GAIN}
    assert there.verdict is turned.get(back.verdict, back.verdict)


@given(accuracies, accuracies, margins, margins)
def test_what_is_equal_within_a_margin_is_equal_within_a_wider_one(ours, theirs, one, other):
    narrow, wide = (
        equivalence(group(ours), group(theirs), margin) for margin in sorted((one, other))
    )
    assert wide.p_value <= narrow.p_value
    assert narrow.verdict is not Verdict.EQUAL or wide.verdict is Verdict.EQUAL


def test_runs_that_failed_decide_neither_equality_nor_an_interaction():
    ours, theirs = group([0.80, 0.81, 0.83]), group([0.80, 0.82])
    stuck = group([0.1, 0.1], Outcome.STUCK)
    fell_back = [replace(run, loss=LossCurve(20, (2.3, 0.5, 2.3))) for run in group([0.2, 0.3])]
    with_failures = [*ours, *stuck, *fell_back]
    assert equivalence(with_failures, theirs) == equivalence(ours, theirs)
    clean, dirty = (
        interaction(both=both, first=theirs, second=theirs, neither=theirs)
        for both in (ours, with_failures)
    )
    assert clean == dirty
    for too_few in (fell_back, [*fell_back, *theirs[:1]]):
        with pytest.raises(NinlabError, match="at least two"):
            equivalence(too_few, theirs)
        with pytest.raises(NinlabError, match=f"2, 2, 2 and {len(held(too_few))}"):
            interaction(both=theirs, first=theirs, second=theirs, neither=too_few)


def test_groups_without_spread_are_equal_just_where_they_differ_by_less_than_the_margin():
    ours, theirs = group([0.75, 0.75]), group([0.5, 0.5])
    assert equivalence(ours, theirs, 0.25).verdict is Verdict.GAIN
    assert equivalence(ours, theirs, 0.25).p_value == 1
    assert equivalence(ours, theirs, 0.26).verdict is Verdict.EQUAL
    assert equivalence(ours, theirs, 0.26).p_value == 0


@pytest.mark.parametrize("margin", [-0.01, 0.0, 1.0, 95.0])
def test_a_margin_lies_between_nothing_and_everything(margin):
    with pytest.raises(NinlabError, match=f"the margin is {margin}"):
        equivalence(group([0.8, 0.9]), group([0.8, 0.9]), margin)
    with pytest.raises(NinlabError, match=f"the margin is {margin}"):
        Difference(0, 0, 0).verdict_within(margin)


@pytest.mark.parametrize(
    ("margin", "said"),
    [(0.01, "equal within 1 point"), (0.005, "equal within 0.5 points"), (0.02, "2 points")],
)
def test_equality_names_its_margin_and_nothing_else_does(margin, said):
    assert Verdict.EQUAL.within(margin).endswith(said)
    for other in set(Verdict) - {Verdict.EQUAL}:
        assert other.within(margin) == other.value
    alike = equivalence(group([0.8, 0.8]), group([0.8, 0.8]), margin)
    assert str(alike).endswith(said)


# ---------------------------------------------------------------- a square of four groups


def crossed(corners: list[list[float]], confidence: float = CONFIDENCE) -> Difference:
    """The interaction of accuracies with both changes, the first, the second, and neither."""
    names = ("both", "first", "second", "neither")
    square = dict(zip(names, map(group, corners), strict=True))
    return interaction(**square, confidence=confidence)


squares = st.tuples(accuracies, accuracies, accuracies, accuracies)


@given(squares)
def test_an_interaction_is_that_of_a_regression_whose_errors_spread_differently(corners):
    """Outside oracle: least squares with the sandwich of HC2, of which each row knows its cell."""
    assume(any(len(set(corner)) > 1 for corner in corners))
    cells = [(1, 1), (1, 0), (0, 1), (0, 0)]
    rows = [(1, a, b, a * b) for (a, b), c in zip(cells, corners, strict=True) for _ in c]
    design, ends = np.array(rows, float), np.concatenate(corners)
    inverse = np.linalg.inv(design.T @ design)
    coefficients = inverse @ design.T @ ends
    leverage = np.einsum("ij,jk,ik->i", design, inverse, design)
    squares = (ends - design @ coefficients) ** 2 / (1 - leverage)
    error = float((inverse @ (design.T * squares) @ design @ inverse)[3, 3]) ** 0.5
    found = crossed(corners, confidence=0.5)
    assert found.mean == pytest.approx(coefficients[3], abs=1e-9)
    # Student's quartile for one degree of freedom is 1, and 0.674 for very many
    assume(abs(found.mean) + error < 2)
    assert 0.674 * error * 0.999 <= (found.high - found.low) / 2 <= 1.001 * error + 1e-9


@given(accuracies, accuracies, hits, st.floats(0.5, 0.999))
def test_where_one_change_does_nothing_without_the_other_it_is_welchs_difference(
    ours, theirs, alike, confidence
):
    found = crossed([ours, theirs, *[[alike / 10_000] * 2] * 2], confidence)
    assert (found.low, found.high) == pytest.approx(
        scipys(ours, theirs, confidence, limit=2), rel=1e-8, abs=1e-8
    )


@given(st.integers(2, 6), st.floats(0.5, 0.999))
def test_corners_that_spread_alike_share_their_degrees_of_freedom(seeds, confidence):
    values = [0.8 + 0.001 * seed for seed in range(seeds)]
    half = stats.t.ppf((1 + confidence) / 2, 4 * (seeds - 1)) * 2 * stats.sem(values)
    assert crossed([values] * 4, confidence).high == pytest.approx(half)


@given(squares)
def test_an_interaction_knows_no_first_change_and_turns_with_what_is_called_a_change(corners):
    both, first, second, neither = corners
    there = crossed([both, first, second, neither])
    other_way = crossed([both, second, first, neither])
    undone = crossed([second, neither, both, first])
    ends = (there.mean, there.low, there.high)
    assert ends == pytest.approx((other_way.mean, other_way.low, other_way.high))
    assert ends == pytest.approx((-undone.mean, -undone.high, -undone.low))


# ---------------------------------------------------------------- scales


def on(runs: list[RunRecord], slug: str, name: str, side: int = 224) -> list[RunRecord]:
    device = replace(template().device, slug=slug, name=name)
    return [replace(run, device=device, input_shape=(1, side, side)) for run in runs]


def test_runs_of_two_scales_are_never_listed_together():
    small = on(group([0.8, 0.9]), "cpu", "a CPU", 28)
    large = on(group([0.8, 0.9]), "cpu", "a CPU", 224)
    elsewhere = on(group([0.8, 0.9]), "gpu", "a GPU", 28)
    for mixed in ([*small, *large], [*small, *elsewhere]):
        with pytest.raises(NinlabError, match="one scale"):
            scale_of(mixed)
        for told in (conditions, effects, in_words):
            with pytest.raises(NinlabError, match="one scale"):
                told({"first": mixed[:2], "second": mixed[2:]})
    with pytest.raises(NinlabError, match="not of none"):
        scale_of([])


def on_images(images: int | None, runs: list[RunRecord]) -> list[RunRecord]:
    """The runs as they were if their recipe limited them to that many training images."""
    return [replace(run, recipe=replace(run.recipe, train_images=images)) for run in runs]


def test_runs_on_a_part_of_the_images_are_never_averaged_with_others_or_tested_against_them():
    everything = group([0.8, 0.9])
    part, fewer = on_images(20_000, everything), on_images(10_000, everything)
    assert [images_of(runs) for runs in ([], everything, part)] == [None, None, 20_000]
    for one, other in ((everything, part), (part, fewer)):
        mixed = [*one[:1], *other[1:]]
        for told in (summary, gaps, lambda runs: decide(runs, {})):
            told(one)
            with pytest.raises(NinlabError, match=r"train on as many images, but .* 20,000"):
                told(mixed)
        for against in (
            *(difference, gap_difference, equivalence, lambda a, b: decide(a, {"b": b})),
            lambda a, b: interaction(both=a, first=a, second=b, neither=b),
        ):
            against(one, one)
            with pytest.raises(NinlabError, match=r"make a group of each, and compare within"):
                against(one, other)
        for told in (conditions, effects, in_words):
            with pytest.raises(NinlabError, match=r"one scale .* with 20,000 images"):
                told({"one": one, "other": other})
        assert by_scale({"one": one, "other": other}) == [{"one": one}, {"other": other}]


def test_a_heading_says_on_how_many_images_runs_trained_where_it_is_not_on_all():
    runs = group([0.8, 0.9])
    said = f"{runs[0].recipe.epochs} epochs"
    assert f", {said}, " in conditions({"": runs})
    assert f", {said} of 20,000 images, " in conditions({"": on_images(20_000, runs)})


def test_each_scale_has_its_own_groups():
    small, large = on(group([0.8, 0.9]), "cpu", "a CPU", 28), on(group([0.8]), "cpu", "a CPU")
    elsewhere = on(group([0.7]), "gpu", "a GPU", 28)
    assert {run.scale for run in small} == {(28, "cpu")}
    groups = {"small": small, "large": large, "elsewhere": elsewhere, "again": small}
    first, *others = by_scale(groups)
    assert list(first) == ["small", "again"]
    assert others == [{"large": large}, {"elsewhere": elsewhere}]
    with pytest.raises(NinlabError, match="one scale"):
        by_scale({"mixed": [*small, *large]})


def test_conditions_say_once_what_all_rows_have_in_common():
    runs = on(group([0.8]), "nvidia-h100", "NVIDIA H100 80GB HBM3")
    (run,) = runs
    recipe = f"{run.recipe.precision}, rate {run.recipe.learning_rate:g}"
    epochs = f"{run.recipe.epochs} epochs"
    assert conditions({"one": runs}) == f"224×224: H100, {recipe}, {epochs}, one seed"
    faster = [replace(run, recipe=replace(run.recipe, learning_rate=9.0))]
    assert f"{recipe} if no row names another" in conditions(
        {"one": runs, "two": runs, "at 9": faster}
    )
    unknown = on(group([0.8, 0.9]), "abacus", "Abacus")
    assert conditions({"both": unknown}).startswith("224×224: Abacus, ")
    assert conditions({"both": unknown, "half": unknown[:1]}).endswith("1 to 2 seeds")


@given(
    st.lists(st.tuples(st.sampled_from([0.1, 0.05, 0.2]), st.sampled_from(Schedule)), max_size=6)
)
def test_a_row_names_its_rate_where_the_heading_names_another(rates):
    (run,) = group([0.8])
    groups = {
        f"row {i}": [replace(run, recipe=replace(run.recipe, learning_rate=rate, schedule=moves))]
        for i, (rate, moves) in enumerate(rates)
    }
    named = told_apart(groups)
    assert list(named.values()) == list(groups.values())
    if rates:
        heading = conditions(groups)
        for label, runs in named.items():
            moves = runs[0].recipe.schedule is not Schedule.CONSTANT
            rate = f", {'peak ' if moves else ''}rate {runs[0].recipe.learning_rate:g}"
            assert label.endswith(rate) != (f"{rate} if no" in heading or f"{rate}," in heading)
        assert ("if no row names another" in heading) == any(", " in label for label in named)


def beside(runs: list[RunRecord], other_cores: float | None) -> list[RunRecord]:
    """The runs, made while others kept so many cores busy; None where that is unknown."""
    return [replace(run, host=replace(A_HOST, other_cores=other_cores)) for run in runs]


def test_a_gpus_rows_and_an_idle_cpus_have_the_time_of_a_step_and_a_busy_cpus_have_none():
    seconds = 0.25
    rate = template().recipe.batch_size / seconds
    timed = [replace(run, images_per_second=rate) for run in group([0.8])]
    on_cpu = on(timed, "cpu", "CPU")
    for alone in (on(timed, "gpu", "GPU"), beside(on_cpu, 0.0)):
        assert step_seconds(alone) == pytest.approx(seconds)
        assert effects({"one": alone})["one"]["ms a step"] == "250.00"
    older = [replace(run, host=None) for run in on_cpu]
    for shared in (beside(on_cpu, 1.0), beside(on_cpu, None), older):
        assert "ms a step" not in effects({"one": shared})["one"]
        with pytest.raises(NinlabError, match=r"race\.py"):
            step_seconds(shared)


def test_one_busy_run_or_another_device_takes_the_times_from_all():
    idle = beside(on(group([0.8, 0.9]), "cpu", "CPU"), 0.0)
    busy = beside(idle, 0.5)
    assert speeds_compare(idle)
    assert not speeds_compare([])
    assert not speeds_compare([*idle, busy[0]])
    assert not speeds_compare([idle[0], *on(idle[1:], "cpu", "another CPU")])
    two_threads = replace(idle[1].device, threads=2)
    assert not speeds_compare([idle[0], replace(idle[1], device=two_threads)])
    for changed in ({"processor": "another"}, {"cpu_capability": "AVX2"}, {"kernel_variables": {}}):
        elsewhere = replace(idle[1], host=replace(idle[1].host, **changed))
        assert not speeds_compare([idle[0], elsewhere])
        assert speeds_compare(on([idle[0], elsewhere], "gpu", "GPU"))
    assert "ms a step" not in effects({"a": idle, "b": busy})["a"]


def test_a_refusal_names_what_keeps_the_speeds_apart_and_nothing_else():
    idle = beside(on(group([0.8, 0.9]), "cpu", "CPU"), 0.0)
    busy, elsewhere = beside(idle, 0.5), on(idle, "cpu", "another CPU")
    for runs, shared, devices in (
        (busy[:1], True, False),
        ([idle[0], elsewhere[1]], False, True),
        ([busy[0], elsewhere[1]], True, True),
    ):
        with pytest.raises(NinlabError) as refused:
            step_seconds(runs)
        assert ("shared their CPU" in str(refused.value)) == shared
        assert ("of 2 devices" in str(refused.value)) == devices
    with pytest.raises(NinlabError, match="there is none"):
        step_seconds([])


# ---------------------------------------------------------------- kernels


def by_fused(runs: list[RunRecord]) -> list[RunRecord]:
    return [replace(run, recipe=replace(run.recipe, kernels=Kernels.FUSED)) for run in runs]


def test_no_number_is_of_runs_by_two_kernels():
    one = on(group([0.8, 0.81, 0.82]), "gpu", "GPU")
    mixed = [*one[:2], *by_fused(one[2:])]
    for number in (kernels_of, summary, gaps, step_seconds):
        number(one)
        number(by_fused(one))
        with pytest.raises(NinlabError, match="were made by fused and by torch"):
            number(mixed)
    for several in (effects, in_words, conditions, told_apart, gaps_in_words):
        with pytest.raises(NinlabError, match="share their kernels"):
            several({"one": one, "mixed": mixed})
    with pytest.raises(NinlabError, match="share their kernels"):
        difference(mixed, one)
    with pytest.raises(NinlabError, match="share their kernels"):
        decide(one, {"mixed": mixed})


def test_groups_by_two_kernels_are_compared_and_told_apart():
    one, other = group([0.8, 0.81]), group([0.7, 0.71])
    torchs = {"first": one, "second": other}
    fused = {label: by_fused(runs) for label, runs in torchs.items()}
    assert conditions(fused) == conditions(torchs).replace(", rate", ", fused kernels, rate")
    assert told_apart(fused).keys() == told_apart(torchs).keys() == torchs.keys()
    both = torchs | {"third": fused["second"]}
    assert "torch kernels if no row names others" in conditions(both)
    labels = ["first", "second", "third, fused kernels"]
    assert [*told_apart(both)] == [*effects(both)] == labels
    assert [*told_apart(told_apart(both))] == labels
    assert "a loss for second, −10.0 points" in in_words(both)
    assert "third, fused kernels, −10.0 points" in in_words(both)


def test_groups_under_one_heading_name_the_kernels_that_are_not_those_of_most_of_them():
    torchs = {"first": group([0.8, 0.81]), "second": group([0.7, 0.71])}
    fused = {label: by_fused(runs) for label, runs in torchs.items()}
    parts = [torchs, {"third": torchs["first"]}, fused]
    assert [[*told_apart(part, among=parts)] for part in parts] == [
        ["first", "second"],
        ["third"],
        ["first, fused kernels", "second, fused kernels"],
    ]
    one_of_each = [{"one": torchs["first"]}, {"other": fused["first"]}]
    assert [*told_apart(one_of_each[1], among=one_of_each)] == ["other, fused kernels"]


def at_rate(runs: list[RunRecord], rate: float) -> list[RunRecord]:
    return [replace(run, recipe=replace(run.recipe, learning_rate=rate)) for run in runs]


def test_groups_under_one_heading_name_the_rate_that_is_not_that_of_most_of_them():
    runs = at_rate(group([0.8, 0.81]), 0.1)
    plain = {"first": runs, "second": runs, "second, rate 0.05": at_rate(runs, 0.05)}
    better = {"first, better": at_rate(runs, 0.2), "second, fused kernels": by_fused(runs)}
    assert [*told_apart(better, among=[plain, better])] == [
        "first, better, rate 0.2",
        "second, fused kernels",
    ]
    assert [*told_apart(plain, among=[plain, better])] == [*plain]
    assert [*told_apart({"none": [], "one": at_rate(runs, 0.2)}, among=[plain])] == [
        "none",
        "one, rate 0.2",
    ]


def test_no_group_is_lost_where_two_would_have_one_label():
    torchs, fused = group([0.8, 0.81]), by_fused(group([0.7, 0.71]))
    groups = {"a": fused, "a, fused kernels": fused, "b": torchs, "c": torchs, "d": torchs}
    with pytest.raises(NinlabError, match="two groups would have the label 'a, fused kernels'"):
        told_apart(groups)
    del groups["a"]
    assert told_apart(groups) == groups


def test_runs_of_a_group_by_two_kernels_become_two_groups():
    torchs, fused = group([0.8, 0.81]), by_fused(group([0.7]))
    assert by_kernels({"a": torchs}) == {("a", ""): torchs}
    assert by_kernels({"a": fused}) == {("a", ""): fused}
    assert by_kernels({"a": [*fused, *torchs], "b": fused, "c": []}) == {
        ("a", ", fused kernels"): fused,
        ("a", ""): torchs,
        ("b", ", fused kernels"): fused,
    }
