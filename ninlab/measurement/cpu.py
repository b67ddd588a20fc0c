"""What does a step on the CPU allocate? Torch's profiler, block by block.

Imports from ninlab: `cases` and `steps`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch

from ninlab.measurement.cases import Case, Measured, Outcome
from ninlab.measurement.steps import NetworkFactory, Step, quartiles

_MEASURED_STEP = "ninlab: measured step"


@dataclass(frozen=True, slots=True)
class _CpuEvent:
    nanoseconds: int
    address: int
    bytes: int  # negative where the block is freed
    call: int | None  # which ATen call it happened in
    in_step: bool


def measure_on_cpu(
    case: Case,
    device: torch.device,
    timed_steps: int,
    build_network: NetworkFactory | None = None,
) -> Measured:
    """Peaks and duration of the case, in this process."""
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    ) as profiler:
        step = Step(case, device, build_network)  # inside, so that every block's birth is seen
        step()
        with torch.profiler.record_function(_MEASURED_STEP):
            step()
    results: Any = profiler.profiler
    events = sorted(
        _cpu_events(results.kineto_results.experimental_event_tree()),
        key=lambda event: event.nanoseconds,
    )
    return Measured(
        outcome=Outcome.FINISHED,
        requested_peak_bytes=_peak(events),
        tensor_peak_bytes=_peak(_without_scratch(events)),
        step_seconds=quartiles(step, timed_steps, lambda: None) if timed_steps else None,
        timed_steps=timed_steps,
    )


def _cpu_events(
    nodes: Sequence[Any], call: int | None = None, in_step: bool = False
) -> Iterator[_CpuEvent]:
    """Allocations and releases of the profiler's tree.

    call is the outermost ATen call that is no mere composition of others: what a count
    of operators sees as one.
    """
    from torch._C._profiler import _EventType

    for node in nodes:
        if node.tag == _EventType.Allocation:
            fields = node.extra_fields
            yield _CpuEvent(node.start_time_ns, fields.ptr, fields.alloc_size, call, in_step)
        inner = call
        if call is None and node.tag == _EventType.TorchOp and not _is_composed(node.name):
            inner = node.start_time_ns
        yield from _cpu_events(node.children, inner, in_step or node.name == _MEASURED_STEP)


@cache
def _is_composed(name: str) -> bool:
    """Whether that name is no ATen operator, or one that only calls others."""
    namespace, _, operator = name.partition("::")
    packet = getattr(torch.ops.aten, operator, None) if namespace == "aten" else None
    if packet is None:
        return True
    overloads = {f"{name}.{o}" if o != "default" else name for o in packet.overloads()}
    dispatched = overloads & _dispatched_operators()
    has_kernel: Any = torch._C._dispatch_has_kernel_for_dispatch_key
    return all(has_kernel(overload, "CompositeImplicitAutograd") for overload in dispatched)


@cache
def _dispatched_operators() -> frozenset[str]:
    """Every operator that torch's dispatcher knows; TorchScript knows a few more."""
    return frozenset(torch._C._dispatch_get_all_op_names())


def _without_scratch(events: Sequence[_CpuEvent]) -> list[_CpuEvent]:
    """The events of blocks that outlive the ATen call they were allocated in."""
    born: dict[int, int] = {}
    scratch: set[int] = set()
    for index, event in enumerate(events):
        if event.bytes > 0:
            born[event.address] = index
            continue
        birth = born.pop(event.address, None)
        if birth is not None and event.call is not None and events[birth].call == event.call:
            scratch |= {birth, index}
    return [event for index, event in enumerate(events) if index not in scratch]


def _peak(events: Sequence[_CpuEvent]) -> int:
    """Most bytes alive in the measured step."""
    alive = peak = 0
    for event in events:
        alive += event.bytes
        if event.in_step:
            peak = max(peak, alive)
    return peak
