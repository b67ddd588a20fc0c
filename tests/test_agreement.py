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
    Measured,
    MemoryRecord,
    Outcome,
    bytes_off,
    relative_errors,
)
from ninlab.records import Device, Provenance, Software

BYTES = st.integers(1, 2**40)
PEAK_BYTES = st.fixed_dictionaries(dict.fromkeys(PEAKS, BYTES))


def step(measured, predicted, outcome=Outcome.FINISHED):
    """A step on a GPU with those peaks, by kind; what is not given is not known."""
    return MemoryRecord(
        case=Case("nin", (1, 224, 224), 128),
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
    unmeasured = step({}, bytes_, Outcome.OUT_OF_MEMORY)
    unpredicted = step(bytes_, {"tensor": 2**20})
    assert relative_errors([unmeasured, unpredicted], "allocated") == {}
    assert bytes_off(unmeasured) == {}


def test_a_peak_that_does_not_exist_is_answered_with_those_that_do():
    with pytest.raises(UnknownNameError, match=r"known: tensor, requested, allocated, reserved"):
        relative_errors([], "memory")
