"""Predictions are held against measurements peak by peak, and their errors add up part by part."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ninlab.errors import UnknownNameError
from ninlab.measurement import (
    PARTS,
    PEAKS,
    Allocator,
    Case,
    CaseOutcome,
    Measured,
    MemoryRecord,
    bytes_off,
    errors_in_words,
    orders,
    relative_errors,
    rightly,
)
from ninlab.records import Device, Provenance, Software

BYTES = st.integers(1, 2**40)
PEAK_BYTES = st.fixed_dictionaries(dict.fromkeys(PEAKS, BYTES))


def step(measured, predicted, outcome=CaseOutcome.FINISHED, network="nin", **case):
    """A step on a GPU with those peaks, by kind; what is not given is not known."""
    return MemoryRecord(
        case=Case(network, (1, 224, 224), **({"batch_size": 128} | case)),
        network_digest="0" * 12,
        allocator=Allocator.DEFAULT,
        measured=Measured(outcome, **{PEAKS[kind]: size for kind, size in measured.items()}),
        predicted={PEAKS[kind]: size for kind, size in predicted.items()},
        provenance=Provenance("2026-01-01T00:00:00Z", "test", None, False),
        device=Device("some-gpu", "Some GPU", 2**36),
        software=Software("3.12", "2.11.0", "0"),
    )


@given(measured=PEAK_BYTES)
def test_a_prediction_of_what_was_measured_is_off_by_nothing(measured):
    one = step(measured, measured)
    assert bytes_off(one) == dict.fromkeys(PARTS, 0)
    assert all(relative_errors([one], peak) == {one.id: 0} for peak in PEAKS)


@given(measured=PEAK_BYTES, predicted=PEAK_BYTES)
def test_the_parts_add_up_to_the_error_of_every_peak(measured, predicted):
    off = list(bytes_off(step(measured, predicted)).values())
    for place, kind in enumerate(PEAKS):
        assert sum(off[: place + 1]) == predicted[kind] - measured[kind]


@given(measured=PEAK_BYTES, predicted=PEAK_BYTES, known=st.integers(0, len(PEAKS)))
def test_the_parts_are_those_up_to_the_last_peak_that_was_predicted(measured, predicted, known):
    kinds = list(PEAKS)[:known]
    off = bytes_off(step(measured, {kind: predicted[kind] for kind in kinds}))
    assert list(off) == list(PARTS)[:known]


@given(measured=PEAK_BYTES, predicted=PEAK_BYTES, peak=st.sampled_from(list(PEAKS)))
def test_an_error_is_positive_where_the_prediction_is_too_high(measured, predicted, peak):
    one = step(measured, predicted)
    error = relative_errors([one], peak)[one.id]
    rounding = 2**-52 * max(measured[peak], predicted[peak])  # of the quotient, and of taking 1 off
    assert (1 + error) * measured[peak] == pytest.approx(predicted[peak], abs=2 * rounding)
    assert (error > 0) == (predicted[peak] > measured[peak])


def test_a_step_that_was_not_measured_or_not_predicted_has_no_error():
    bytes_ = dict.fromkeys(PEAKS, 2**20)
    unmeasured = step({}, bytes_, CaseOutcome.OUT_OF_MEMORY)
    unpredicted = step(bytes_, {"tensor": 2**20})
    assert relative_errors([unmeasured, unpredicted], "allocated") == {}
    assert bytes_off(unmeasured) == {}


def test_a_peak_that_does_not_exist_is_answered_with_those_that_do():
    with pytest.raises(UnknownNameError, match=r"known: tensor, requested, allocated, reserved"):
        relative_errors([], "memory")


@given(st.lists(st.tuples(PEAK_BYTES, PEAK_BYTES), min_size=1, max_size=5))
def test_a_tensor_peak_is_right_to_the_byte_and_another_one_within_a_hundredth(pairs):
    steps = [step(*pair, batch_size=n) for n, pair in enumerate(pairs, start=1)]
    for peak in PEAKS:
        allowed = 0 if peak == "tensor" else 100
        right = sum(
            abs(predicted[peak] - measured[peak]) * allowed <= measured[peak]
            if allowed
            else predicted[peak] == measured[peak]
            for measured, predicted in pairs
        )
        assert rightly(steps, peak) == f"{right} of {len(pairs)}"


def test_the_words_on_errors_name_the_median_and_the_worst_with_its_sign():
    bytes_ = dict.fromkeys(PEAKS, 1000)
    off = [1000, 1005, 800]
    steps = [
        step(bytes_, dict.fromkeys(PEAKS, size), batch_size=n) for n, size in enumerate(off, 1)
    ]
    ending = "the median error is 0.50%, the worst -20.0%."
    assert errors_in_words(steps, "requested") == (
        f"The requested peak is predicted within 1% in 2 of 3 steps; {ending}"
    )
    assert errors_in_words(steps, "tensor") == (
        f"The tensor peak is predicted to the byte in 1 of 3 steps; {ending}"
    )
    assert errors_in_words([step(bytes_, {})], "requested") == ""
    alike = [step(bytes_, bytes_, batch_size=n) for n in (1, 2)]
    assert errors_in_words(alike, "requested") == (
        "The requested peak is predicted to the byte in 2 of 2 steps."
    )


# ---------------------------------------------------------------- two networks


@given(*[PEAK_BYTES] * 4)
def test_an_order_holds_if_the_network_that_needs_more_is_the_predicted_one(
    measured, predicted, others, others_predicted
):
    steps = [step(measured, predicted), step(others, others_predicted, network="alexnet")]
    found = orders(steps, "nin", "alexnet")
    assert [order.peak for order in found] == list(PEAKS)
    for order in found:
        kind = order.peak
        assert order.measured == (measured[kind], others[kind])
        assert order.predicted == (predicted[kind], others_predicted[kind])
        more = measured[kind] > others[kind]
        assert order.holds == (more == (predicted[kind] > others_predicted[kind]))


@pytest.mark.parametrize("other", [{"batch_size": 64}, {"precision": "tf32"}, {"mode": "adam"}])
def test_two_networks_are_compared_under_one_setting_only(other):
    bytes_ = dict.fromkeys(PEAKS, 2**20)
    steps = [step(bytes_, bytes_), step(bytes_, bytes_, network="alexnet", **other)]
    assert orders(steps, "nin", "alexnet") == []
    steps.append(step(bytes_, {}, CaseOutcome.OUT_OF_MEMORY, "alexnet"))
    assert orders(steps, "nin", "alexnet") == []


def test_an_order_without_a_prediction_of_both_neither_holds_nor_fails():
    bytes_ = dict.fromkeys(PEAKS, 2**20)
    steps = [step(bytes_, bytes_), step(bytes_, {"tensor": 2**20}, network="alexnet")]
    assert [order.holds for order in orders(steps, "nin", "alexnet")] == [True, None, None, None]
