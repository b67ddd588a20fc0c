"""What does a step on the CPU allocate? Torch's profiler, block by block.

Scratch is a block that lives and dies inside one operator of ATen: what oneDNN reorders, what an
operator wraps. It has no counterpart in a count of tensors. The operator is the outermost one, by
its overload, that does not only call others: `torch.where` with a number calls two, and
`torch.std` of everything is one.

Known limits. A block of which no birth was seen lowers the peak when it is freed: `recorded` has to
begin before the network is built.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch

from ninlab.measurement.cases import Case, CaseOutcome, Measured
from ninlab.measurement.steps import CaseStep, NetworkFactory, quartiles
from ninlab.torch_private import check, events_of, has_kernel, profile_of_the_cpu

_MARK = "ninlab: "


@dataclass(frozen=True, slots=True)
class CpuEvent:
    """One allocation or release."""

    nanoseconds: int
    address: int
    bytes: int  # negative for a release
    call: int | None  # the profiler's number of the operator that it happened in
    step: str | None  # the `marked` step that it happened in


def measure_on_cpu(
    case: Case,
    device: torch.device,
    timed_steps: int,
    build_network: NetworkFactory | None = None,
) -> Measured:
    """Peaks and duration of the case, in this process."""
    with recorded() as events:
        step = CaseStep(case, device, build_network)  # inside, so that every block's birth is seen
        step()
        with marked("measured"):
            step()
    return Measured(
        outcome=CaseOutcome.FINISHED,
        requested_peak_bytes=peak_bytes(events, "measured"),
        tensor_peak_bytes=peak_bytes(without_scratch(events), "measured"),
        step_seconds=quartiles(step, timed_steps, lambda: None) if timed_steps else None,
        timed_steps=timed_steps,
    )


@contextmanager
def recorded() -> Iterator[list[CpuEvent]]:
    """What this process allocates and frees inside the block, in order of time.

    The list is filled when the block is left. Raises NinlabError where this torch lacks what it
    takes.
    """
    check()
    events: list[CpuEvent] = []
    with profile_of_the_cpu() as profile:
        yield events
    trees, operators = events_of(profile)
    events += sorted(_events(trees, operators), key=lambda event: event.nanoseconds)


def marked(step: str) -> AbstractContextManager[Any]:
    """What is recorded inside the block happened in the step of that name."""
    return torch.profiler.record_function(_MARK + step)


def _events(
    nodes: Sequence[Any],
    operators: Mapping[int, str],
    call: int | None = None,
    step: str | None = None,
) -> Iterator[CpuEvent]:
    for node in nodes:
        if node.name == "[memory]":
            fields = node.extra_fields
            yield CpuEvent(node.start_time_ns, fields.ptr, fields.alloc_size, call, step)
        number, operator = node.correlation_id, operators.get(node.correlation_id)
        is_call = call is None and operator is not None and not _only_calls_others(operator)
        inner_step = node.name.removeprefix(_MARK) if node.name.startswith(_MARK) else step
        yield from _events(node.children, operators, number if is_call else call, inner_step)


@cache
def _only_calls_others(operator: str) -> bool:
    return has_kernel(operator, "CompositeImplicitAutograd")


def without_scratch(events: Sequence[CpuEvent]) -> list[CpuEvent]:
    """The events of blocks that outlive the operator that they were allocated in."""
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


def peak_bytes(events: Sequence[CpuEvent], step: str) -> int:
    """Most bytes alive in the step of that name."""
    alive = peak = 0
    for event in events:
        alive += event.bytes
        if event.step == step:
            peak = max(peak, alive)
    return peak
