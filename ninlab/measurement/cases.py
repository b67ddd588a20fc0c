"""What can be measured, and what comes out?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from ninlab.errors import NinlabError, UnknownNameError
from ninlab.records import part
from ninlab.records.schema import Above0, Count, ImageShape, Name, Positive
from ninlab.steps import Optimizer, Precision, named

MODES = (INFERENCE := "inference", *Optimizer)
"""What can be measured: one forward pass, or a training step with that optimizer."""


class Allocator(StrEnum):
    """How the device's memory is handed out. The first two are settings of the CUDA allocator."""

    DEFAULT = "default"
    EXPANDABLE_SEGMENTS = "expandable_segments"
    CPU = "cpu"


class CaseOutcome(StrEnum):
    """How a case ended."""

    FINISHED = "finished"
    OUT_OF_MEMORY = "out_of_memory"


@dataclass(frozen=True)
class Case:
    """One thing to measure. Raises NinlabError for a value that cannot be measured."""

    network: Name
    input_shape: ImageShape
    batch_size: Positive
    precision: str = Precision.FP32
    mode: str = Optimizer.SGD

    def __post_init__(self) -> None:
        named(Precision, self.precision)
        if self.mode not in MODES:
            raise UnknownNameError("mode", self.mode, MODES)
        if self.batch_size < 1:
            raise NinlabError(f"the batch size must be at least 1, not {self.batch_size}")

    @property
    def slug(self) -> str:
        """The case as part of a file name: ``nin-b128-tf32-sgd``."""
        return f"{self.network}-b{self.batch_size}-{self.precision}-{self.mode}"


@dataclass(frozen=True)
class Measured:
    """What one case took. Bytes are of the whole batch; None is what a device does not tell.

    requested_peak_bytes counts what was asked for, scratch included, and
    tensor_peak_bytes the same without scratch; allocated and reserved are the CUDA
    caching allocator's. overhead_bytes is device memory in use outside the allocator.
    step_seconds holds the three quartiles over timed_steps steps.
    """

    outcome: CaseOutcome
    requested_peak_bytes: Positive | None = None
    tensor_peak_bytes: Positive | None = None
    allocated_peak_bytes: Positive | None = None
    reserved_peak_bytes: Positive | None = None
    overhead_bytes: Count | None = None
    step_seconds: tuple[Above0, Above0, Above0] | None = None
    timed_steps: Count = 0

    @property
    def median_seconds(self) -> float | None:
        """The middle quartile of the step's duration."""
        return None if self.step_seconds is None else self.step_seconds[1]


@dataclass(frozen=True)
class Failed:
    """What a case is answered with that raised an error: nothing of it is measured."""

    sentence: str

    @classmethod
    def of(cls, error: BaseException) -> Failed:
        """The error in one line: its kind, unless a reader caused it, and the first line of it.

        What CUDA says goes on for lines, which are about debugging in general.
        """
        if isinstance(error, NinlabError):
            return cls(" ".join(str(error).split()))
        first = next(iter(str(error).strip().splitlines()), "")
        return cls(f"{type(error).__name__}: {first}" if first else type(error).__name__)


def measured_from_json(content: Mapping[str, Any]) -> Measured:
    """The result that a JSON object holds. Raises RecordError when it does not fit."""
    return part(Measured, content)


PEAKS = {kind: f"{kind}_peak_bytes" for kind in ("tensor", "requested", "allocated", "reserved")}
"""What each peak is called in `Measured` and in the predictions of a record, the least first:
each counts what the one before it counts, and more."""
