"""How far are predicted peaks from measured ones, and in which part of them?

Known limit: the peaks of one step need not lie at one moment, so that a part here is a difference
of peaks, not what was alive at any of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median

from ninlab.errors import UnknownNameError
from ninlab.measurement.cases import PEAKS, CaseOutcome
from ninlab.measurement.memory_records import MemoryRecord

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
        if step.measured.outcome is CaseOutcome.FINISHED
        if field in step.predicted and (measured := getattr(step.measured, field))
    }


TOLERANCE = 0.01
"""By how much a predicted peak may be off and count as right; that of tensors by nothing."""


def rightly(steps: Iterable[MemoryRecord], peak: str) -> str:
    """In how many of the steps that peak is predicted rightly, as in ``17 of 22``."""
    tolerance = 0 if peak == "tensor" else TOLERANCE
    errors = relative_errors(steps, peak).values()
    return f"{sum(abs(error) <= tolerance for error in errors)} of {len(errors)}"


def errors_in_words(steps: Sequence[MemoryRecord], peak: str) -> str:
    """A sentence on how well that peak is predicted; empty where it was not."""
    errors = relative_errors(steps, peak).values()
    if not errors:
        return ""
    how = "to the byte" if peak == "tensor" else f"within {TOLERANCE:.0%}"
    if not any(errors):
        return f"The {peak} peak is predicted to the byte in {rightly(steps, peak)} steps."
    return (
        f"The {peak} peak is predicted {how} in {rightly(steps, peak)} steps; the median error "
        f"is {median(map(abs, errors)):.2%}, the worst {max(errors, key=abs):+.1%}."
    )


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


@dataclass(frozen=True)
class Order:
    """One peak of two networks whose steps differ in nothing else; bytes of the first come first.

    predicted is None where one of the two was not predicted.
    """

    step: MemoryRecord  # of the first network
    peak: str
    measured: tuple[int, int]
    predicted: tuple[int, int] | None

    @property
    def holds(self) -> bool | None:
        """Whether the network that needs more is the predicted one; None without a prediction."""
        if self.predicted is None:
            return None
        return (self.measured[0] > self.measured[1]) == (self.predicted[0] > self.predicted[1])


def orders(steps: Iterable[MemoryRecord], first: str, second: str) -> list[Order]:
    """Each of `PEAKS` that was measured of both networks, for each `setting` that they share."""
    finished = [step for step in steps if step.measured.outcome is CaseOutcome.FINISHED]
    others = {setting(step): step for step in finished if step.case.network == second}
    return [
        order
        for step in finished
        if step.case.network == first and setting(step) in others
        for order in _orders(step, others[setting(step)])
    ]


def setting(step: MemoryRecord) -> tuple[object, ...]:
    """Everything but the network and its input: steps of one setting may be compared."""
    case = step.case
    return (
        *(case.batch_size, case.precision, case.mode),
        *(step.allocator, step.device.slug, step.software.torch),
    )


def _orders(first: MemoryRecord, second: MemoryRecord) -> Iterator[Order]:
    for kind, field in PEAKS.items():
        here, there = (getattr(step.measured, field) for step in (first, second))
        if here is not None and there is not None:
            known = field in first.predicted and field in second.predicted
            predicted = (
                (round(first.predicted[field]), round(second.predicted[field])) if known else None
            )
            yield Order(first, kind, (here, there), predicted)
