"""Where in a step do cuDNN and cuBLAS take their scratch memory?

`timeline` knows the calls, `workspaces` the bytes; here the one is put between the
other's events. A call allocates a result, takes its workspace, frees it, and goes on to
its next result. Workspaces that a library keeps are there from the start, as in every
step but the first.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from ninlab.reports import Category, MemoryEvent, Phase
from ninlab.resources.recorder import KernelCall
from ninlab.resources.timeline import StepTimeline
from ninlab.workspaces import Workspaces


def with_scratch(
    step: StepTimeline, tables: Workspaces, precision: str, *, channels_last: bool = False
) -> tuple[MemoryEvent, ...] | None:
    """The events of the step with those of scratch memory, or None where a table has a gap."""
    memory_format = "channels_last" if channels_last else "contiguous"
    next_block = 1 + max(event.block for event in step.events)
    kept: dict[str, MemoryEvent] = {}
    taken: dict[int, list[MemoryEvent]] = defaultdict(list)  # after the event of that number

    def workspace(size: int, call: KernelCall | None, operator: str) -> tuple[MemoryEvent, ...]:
        nonlocal next_block
        phase, layer = (call.phase, call.layer) if call else (Phase.SETUP, "")
        next_block += 1
        return tuple(
            MemoryEvent(
                allocates, next_block - 1, size, 0, Category.WORKSPACE, phase, layer, operator
            )
            for allocates in (True, False)
        )

    for call in step.calls:
        for result in range(len(call.directions)):
            size = None
            if call.convolution is not None:
                size = tables.convolution_bytes(
                    call.convolution,
                    call.directions[result],
                    step.batch_size,
                    precision,
                    memory_format,
                )
            if size is None:
                return None
            if size:
                taken[call.event + result] += workspace(size, call, call.operator)
        for scratch in tables.gemm(call.operator, call.phase):
            if scratch.owner is None:
                taken[call.event] += workspace(scratch.bytes, call, call.operator)
            elif scratch.owner not in kept:
                kept[scratch.owner] = workspace(scratch.bytes, None, scratch.owner)[0]
    return tuple(_merged(step.events, tuple(kept.values()), taken))


def _merged(
    events: tuple[MemoryEvent, ...],
    kept: tuple[MemoryEvent, ...],
    taken: dict[int, list[MemoryEvent]],
) -> Iterator[MemoryEvent]:
    setup = sum(event.phase is Phase.SETUP for event in events)
    for number, event in enumerate(events):
        if number == setup:
            yield from kept
        yield event
        yield from taken.get(number, ())
