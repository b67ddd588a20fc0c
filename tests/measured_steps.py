"""The steps that an H100 measured, each with its trace and with the step that is traced here."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

import torch
import torchvision

from benchmarks.strangers import case_of, read_lines
from ninlab.measurement import (
    INFERENCE,
    Allocator,
    Case,
    Measured,
    events_path,
    load_records,
    measured_from_json,
)
from ninlab.records import runs_folder
from ninlab.resources import Subject, load, trace_step
from ninlab.resources.timeline import StepTimeline
from ninlab.steps import Precision

PROBES = runs_folder() / "probes"


@dataclass(frozen=True)
class MeasuredStep:
    """A step of one of the book's networks, or of a stranger's: one of torchvision's."""

    case: Case
    allocator: Allocator
    measured: Measured
    trace: Path  # of one warm step; it need not be there
    is_own: bool

    @property
    def name(self) -> str:
        """The case and, where it is not the usual one, the allocator's setting."""
        setting = "" if self.allocator is Allocator.DEFAULT else f"-{self.allocator}"
        return f"{self.case.slug}{setting}"

    @property
    def subject(self) -> Subject:
        """The network, without data."""
        if self.is_own:
            return load(self.case.network)
        with torch.device("meta"):
            network = torchvision.models.get_model(self.case.network, weights=None)
        return load(network, self.case.input_shape)

    @cached_property
    def step(self) -> StepTimeline:
        """The same step, traced without a device."""
        trains = self.case.mode != INFERENCE
        return trace_step(
            self.subject,
            self.case.batch_size,
            self.case.mode if trains else "sgd",
            autocast=Precision(self.case.precision).autocasts,
            training=trains,
        )


@cache
def measured_steps() -> tuple[MeasuredStep, ...]:
    """All of them, the book's own first; of a corrected one the correction."""
    return tuple(_measured_steps())


def traced_steps() -> dict[str, MeasuredStep]:
    """Those whose trace is there, by name."""
    return {step.name: step for step in measured_steps() if step.trace.exists()}


def _measured_steps() -> Iterator[MeasuredStep]:
    for record in load_records(runs_folder()):
        if record.allocator is not Allocator.CPU:
            trace = events_path(PROBES / "events" / record.allocator, record.case)
            yield MeasuredStep(record.case, record.allocator, record.measured, trace, is_own=True)
    for file in sorted(PROBES.glob("strangers-*.jsonl")):
        for line in read_lines(file):
            case = case_of(line)
            trace = events_path(PROBES / "strangers", case)
            measured = measured_from_json(line["measured"])
            yield MeasuredStep(case, Allocator.DEFAULT, measured, trace, is_own=False)
