"""How far are predicted peaks from measured ones, and in which part of them?

Imports from ninlab: errors, `cases` and `memory_records`.
Known limit: the peaks of one step need not lie at one moment, so that a part here is a
difference of peaks, not what was alive at any of them.
"""

from __future__ import annotations

from collections.abc import Iterable

from ninlab.errors import UnknownNameError
from ninlab.measurement.cases import Outcome
from ninlab.measurement.memory_records import MemoryRecord

PEAKS = {kind: f"{kind}_peak_bytes" for kind in ("tensor", "requested", "allocated", "reserved")}
"""What each peak is called in `Measured` and in the predictions of a record."""

PARTS = {
    "tensors": (None, "tensor"),
    "scratch": ("tensor", "requested"),  # of cuDNN and cuBLAS
    "blocks": ("requested", "allocated"),  # rounded, or not worth splitting
    "cache": ("allocated", "reserved"),  # segments kept for later
}
"""Each part of a GPU's reserved memory: the peak without it and the peak with it."""


def relative_errors(steps: Iterable[MemoryRecord], peak: str) -> dict[str, float]:
    """Prediction over measurement, less one, by the id of the record.

    peak is one of `PEAKS`. A step without that measurement or prediction is passed over: one
    that ran out of memory, or that no workspace table knows. Raises UnknownNameError for
    another peak.
    """
    if peak not in PEAKS:
        raise UnknownNameError("peak", peak, PEAKS)
    field = PEAKS[peak]
    return {
        step.id: step.predicted[field] / measured - 1
        for step in steps
        if step.measured.outcome is Outcome.FINISHED
        if field in step.predicted and (measured := getattr(step.measured, field))
    }


def bytes_off(step: MemoryRecord) -> dict[str, int]:
    """Predicted less measured bytes of each of `PARTS` whose two peaks are known.

    The parts add up to the error of the last peak among them, so that the largest says where
    a prediction went wrong.
    """
    off: dict[str | None, int] = {None: 0}
    for kind, field in PEAKS.items():
        measured = getattr(step.measured, field)
        if measured is not None and field in step.predicted:
            off[kind] = round(step.predicted[field]) - measured
    return {
        part: off[with_it] - off[without]
        for part, (without, with_it) in PARTS.items()
        if with_it in off and without in off
    }
