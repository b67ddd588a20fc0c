import re
import statistics
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.special import stdtrit

from ninlab import records
from ninlab.comparisons import difference, effects, in_words, sampling_error, summary
from ninlab.errors import NinlabError
from ninlab.records import Outcome, RunRecord

hits = st.integers(1000, 9500)  # of 10,000 test images
accuracies = st.lists(hits.map(lambda count: count / 10_000), min_size=2, max_size=6)


@cache
def template() -> RunRecord:
    return next(run for run in records.load() if run.outcome is Outcome.FINISHED)


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
    assert summary(group(values[:1])).deviation == 0


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


@given(accuracies, accuracies, st.floats(0.5, 0.999))
def test_the_interval_is_welchs_as_far_as_accuracies_can_differ(ours, theirs, confidence):
    squared_errors = [statistics.variance(group) / len(group) for group in (ours, theirs)]
    assume(any(squared_errors))
    freedom = sum(squared_errors) ** 2 / sum(
        error**2 / (len(group) - 1)
        for error, group in zip(squared_errors, (ours, theirs), strict=True)
    )
    half = stdtrit(freedom, (1 + confidence) / 2) * sum(squared_errors) ** 0.5
    result = difference(group(ours), group(theirs), confidence)
    # Both sum a handful of float64 numbers, of which two may be close: half of the digits.
    assert (result.low, result.high) == pytest.approx(
        (max(result.mean - half, -1), min(result.mean + half, 1)), rel=1e-8, abs=1e-8
    )


@given(accuracies, accuracies)
def test_nothing_is_written_with_a_minus_sign_before_it(ours, theirs):
    assert "-0.0" not in re.findall(r"[-+][\d.]+", str(difference(group(ours), group(theirs))))


@pytest.mark.parametrize("confidence", [0, 1, 95])
def test_a_confidence_is_a_share(confidence):
    with pytest.raises(NinlabError, match=f"not {confidence}"):
        difference(group([0.8, 0.9]), group([0.7, 0.8]), confidence)


def test_failures_count_and_are_counted():
    runs = [*group([0.8, 0.8]), *group([0.1], Outcome.STUCK)]
    result = summary(runs)
    assert result.failed == 1
    assert result.mean == pytest.approx(1.7 / 3)
    assert "1 failed" in str(result)


def test_one_run_has_no_spread_and_no_run_no_accuracy():
    with pytest.raises(NinlabError, match="at least two"):
        difference(group([0.8]), group([0.7, 0.8]))
    with pytest.raises(NinlabError, match="at least one"):
        summary([])


def test_ten_thousand_images_tell_an_accuracy_to_a_third_of_a_point():
    assert sampling_error(0.9, 10_000) == pytest.approx(0.003)


@given(accuracies, accuracies)
def test_a_table_of_effects_says_what_the_difference_says(ours, theirs):
    apart = difference(group(ours), group(theirs))
    row = effects({"first": group(theirs), "second": group(ours)})["second"]
    assert row["points"].replace("−", "-") == str(apart)
    assert row["shown"] == {"no difference": "nothing"}.get(apart.verdict, apart.verdict)
    assert (row["shown"] == "nothing") == (apart.low <= 0 <= apart.high)


def test_a_single_run_has_a_difference_and_no_interval():
    groups = {"first": group([0.8, 0.82]), "second": group([0.85]), "third": group([0.1])}
    rows = effects(groups)
    assert rows["first"]["points"] == rows["first"]["shown"] == ""
    assert [rows[label]["points"] for label in ("second", "third")] == ["+4.0", "−71.0"]
    assert rows["second"]["shown"] == rows["third"]["shown"] == "nothing"
    assert "nothing, for want of a second run, for second, +4.0 points and for third" in in_words(
        groups
    )


def test_words_name_the_device_and_every_answer_once():
    groups = {
        "first": group([0.80, 0.81, 0.80]),
        "better": group([0.90, 0.91, 0.90]),
        "worse": group([0.70, 0.71, 0.70]),
        "alike": group([0.60, 0.99, 0.80]),
    }
    words = in_words(groups)
    assert words.startswith(f"Against first, the runs on {template().device.name} show ")
    for said in (
        "a gain for better, +10.0 points (",
        "a loss for worse",
        "no difference for alike",
    ):
        assert words.count(said) == 1


def test_words_name_every_device_once_and_in_order():
    runs = group([0.8, 0.82, 0.81, 0.83, 0.84])
    names = ("tpu", "gpu", "cpu", "npu", "gpu")
    mixed = [replace(run, device=replace(run.device, name=name))
             for run, name in zip(runs, names, strict=True)]  # fmt: skip
    words = in_words({"first": mixed[:2], "second": mixed[2:]})
    assert words.startswith("Against first, the runs on cpu and gpu and npu and tpu show ")


def test_without_two_groups_there_are_words_and_no_comparison():
    assert effects({}) == {}
    for groups in ({}, {"alone": group([0.8, 0.9])}):
        assert in_words(groups) == "No run of it is recorded yet."
