"""What was predicted of a measured case?

Cases run by torch's own kernels. The peaks come from `resources`, replayed under the allocator's
setting; the least time from the operators of `roofline`. The three constants of step time are
fitted to the steps of `FITTED_NETWORKS` alone, and judged on all other networks.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import cache

import torch
from torch import nn

from ninlab.allocator import CachingAllocator
from ninlab.architectures import architecture
from ninlab.devices import device, of_cuda_name
from ninlab.errors import NinlabError
from ninlab.measurement import (
    INFERENCE,
    PEAKS,
    WARM_STEPS,
    Allocator,
    Case,
    MemoryRecord,
)
from ninlab.records import Device
from ninlab.reports import tensor_peak
from ninlab.resources import load, profile, trace_step
from ninlab.roofline import (
    Operator,
    TimeBound,
    TimeModel,
    fit,
    inference_operators,
    time_bound,
    training_operators,
)
from ninlab.steps import Optimizer, Precision
from ninlab.workspaces import has_table, minor_version

FITTED_NETWORKS = ("vgg11", "lenet")
"""Large batches of the first tell how well kernels run, steps of the second wait for the host."""


def predicted(case: Case, allocator: Allocator, on: Device) -> dict[str, float]:
    """What a record of the case says was predicted: the peaks in bytes, and ``bound_seconds``.

    Values that cannot be predicted are missing.
    """
    on_gpu = allocator is not Allocator.CPU
    peaks = predicted_peaks(case, allocator, on if on_gpu else None)
    least = bound(case, on)
    return {**peaks, **({} if least is None else {"bound_seconds": least.seconds})}


def predicted_peaks(
    case: Case,
    allocator: Allocator,
    on: Device | None,
    *,
    network: nn.Module | str | None = None,
    torch_version: str | None = None,
) -> dict[str, int]:
    """The calculator's peaks for that case by name, those that it knows.

    Scratch and the allocator's peaks are among them where a workspace table is of that
    device and of that torch, by default the installed one. network is the module that was
    measured, by default the book's of the case's name.
    """
    training = case.mode != INFERENCE
    described = None if on is None else of_cuda_name(on.name)
    version = torch_version or torch.__version__
    tabled = described is not None and has_table(described.name, version)
    cost = profile(
        case.network if network is None else network,
        case.input_shape,
        batch_size=case.batch_size,
        optimizer=case.mode if training else Optimizer.SGD,
        precision=case.precision,
        device=described.name if described is not None and tabled else None,
        torch_version=minor_version(version),
    )
    report = cost.training if training else cost.inference
    if report.requested_peak_bytes is not None and allocator is Allocator.EXPANDABLE_SEGMENTS:
        events = cost.training_events if training else cost.inference_events
        report = CachingAllocator(expandable_segments=True).replay(events, case.batch_size)
    peaks = {name: getattr(report, name) for name in PEAKS.values()}
    return {name: value for name, value in peaks.items() if value is not None}


def predicted_now(step: MemoryRecord) -> MemoryRecord:
    """The step with the peaks that the calculator predicts today, for the torch that took it.

    A record keeps what was predicted when it was made. Whoever sets a prediction beside a
    measurement shows this one. What was predicted beside peaks stays.
    """
    on = None if step.allocator is Allocator.CPU else step.device
    peaks = _peaks_now(step.case, step.allocator, on, minor_version(step.software.torch))
    others = {name: value for name, value in step.predicted.items() if name not in PEAKS.values()}
    return replace(step, predicted=others | peaks)


@cache
def _peaks_now(
    case: Case, allocator: Allocator, on: Device | None, torch_version: str
) -> dict[str, int]:
    return predicted_peaks(case, allocator, on, torch_version=torch_version)


def tensor_peak_on_cpu(case: Case) -> int:
    """Peak bytes of the tensors of the case's step on a CPU, traced on tensors without data.

    There dropout keeps its mask in 4 bytes a value, not in one, and Adam's step counters are
    tensors beside the weights. Raises NinlabError for another precision than float32, which a CPU
    casts to in a way of its own.
    """
    if case.precision != Precision.FP32:
        raise NinlabError(f"a step on a CPU is predicted in fp32, not in {case.precision}")
    training = case.mode != INFERENCE
    step = trace_step(
        load(case.network, case.input_shape),
        case.batch_size,
        case.mode if training else Optimizer.SGD,
        training=training,
        on_cuda=False,
    )
    peak = tensor_peak(step.events, case.batch_size).tensor_peak_bytes
    assert peak is not None
    return peak


# ---------------------------------------------------------------- time


def case_operators(case: Case) -> tuple[Operator, ...]:
    """What the case's step calls."""
    network = architecture(case.network)
    if case.mode == INFERENCE:
        return inference_operators(network, case.batch_size, case.precision)
    return training_operators(network, case.batch_size, case.mode, case.precision)


def bound(case: Case, on: Device) -> TimeBound | None:
    """The least that the step can take on that device, None where no data sheet says so."""
    described = of_cuda_name(on.name)
    if described is None or case.precision not in described.flops_per_second:
        return None
    return time_bound(case_operators(case), described, case.precision)


def time_model(steps: Iterable[MemoryRecord], device_name: str, precision: str) -> TimeModel:
    """The three constants of step time, fitted to those of the steps that may be used for it.

    The steps are of one device; device_name is its name in `ninlab.devices`. Raises NinlabError
    where the steps leave a constant open.
    """
    timed = [
        (case_operators(step.case), seconds)
        for step, seconds in _timed(steps, precision)
        if step.case.network in FITTED_NETWORKS
    ]
    return fit(timed, device(device_name), precision)


def prediction_errors(model: TimeModel, steps: Iterable[MemoryRecord]) -> dict[str, float]:
    """Predicted over measured seconds, less one, of steps that the fit has not seen, by id."""
    return {
        step.id: model.seconds(case_operators(step.case)) / seconds - 1
        for step, seconds in _timed(steps, model.precision)
        if step.case.network not in FITTED_NETWORKS
    }


def _timed(steps: Iterable[MemoryRecord], precision: str) -> Iterator[tuple[MemoryRecord, float]]:
    """The steps of that precision that were timed, each with its median seconds."""
    for step in steps:
        seconds = step.measured.median_seconds
        if step.case.precision == precision and seconds is not None:
            yield step, seconds


def estimated_seconds(case: Case, timed_steps: int, rate: float) -> float:
    """Arithmetic of all steps of a case at that rate; what else a step does comes on top."""
    timed = WARM_STEPS + timed_steps if timed_steps else 0
    steps = 2 + timed + 1  # peaks, warm and timed, traced
    return steps * sum(operator.flops for operator in case_operators(case)) / rate
