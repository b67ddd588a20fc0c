"""Where in a step do cuDNN, cuBLAS and sums take their scratch memory?

`timeline` knows the calls, `workspaces` and `reductions` the bytes; here the one is put between
the other's events. A call allocates a result, takes its workspace, frees it, and goes on to
its next result. Workspaces that a library keeps are there from the start, as in every
step but the first, which takes each at the first call of its owner (`MemoryEvent.first_at`).
"""

from __future__ import annotations

from collections import Counter, defaultdict

from ninlab.reports import Category, MemoryEvent, Phase
from ninlab.resources.recorder import KernelCall
from ninlab.resources.timeline import StepTimeline
from ninlab.workspaces import Source, Workspaces


def with_scratch(
    step: StepTimeline, tables: Workspaces, precision: str
) -> tuple[tuple[MemoryEvent, ...], Counter[Source]] | None:
    """The events of the step with those of scratch memory, and how many convolutions each said.

    A convolution counts once for each of its results. None where nobody knows the scratch of one.
    """
    sources: Counter[Source] = Counter()
    next_block = 1 + max(event.block for event in step.events)
    kept: set[str] = set()
    taken: dict[int, list[MemoryEvent]] = defaultdict(list)  # after the event of that number
    sizes_of_device = (
        tables.device_properties["multiProcessorCount"],
        tables.device_properties["maxThreadsPerSM"],
    )

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
            if call.convolution is None:
                return None
            scratch = tables.convolution(
                call.convolution,
                call.directions[result],
                step.batch_size,
                precision,
                call.memory_formats[result],
            )
            if scratch is None:
                return None
            sources[scratch.source] += 1
            if scratch.bytes:
                taken[call.place(result)] += workspace(scratch.bytes, call, call.operator)
        for result, reduction in enumerate(call.reductions):
            for launch in reduction.scratch(*sizes_of_device) if reduction else ():
                partial, semaphores = (workspace(size, call, call.operator) for size in launch)
                both = (partial[0], semaphores[0], semaphores[1], partial[1])
                taken[call.place(result)] += both
        if call.scratch_bytes is None:
            return None
        if call.scratch_bytes:
            begins, ends = workspace(call.scratch_bytes, call, call.operator)
            taken[call.place(0)].append(begins)
            taken[call.place(call.scratch_until)].append(ends)
        for block in tables.gemm(call.operator, call.phase):
            if block.owner is None:
                taken[call.event] += workspace(block.bytes, call, call.operator)
            elif block.owner not in kept:
                kept.add(block.owner)
                taken[call.event] += workspace(block.bytes, None, block.owner)[:1]
    return _merged(step.events, taken), sources


def _merged(
    events: tuple[MemoryEvent, ...], taken: dict[int, list[MemoryEvent]]
) -> tuple[MemoryEvent, ...]:
    """The events with what is taken after each; what is kept moves to the end of the set-up."""
    setup = sum(event.phase is Phase.SETUP for event in events)
    kept: list[MemoryEvent] = []
    step: list[MemoryEvent] = []
    for number, event in enumerate(events[setup:], setup):
        step.append(event)
        for scratch in taken.get(number, ()):
            if scratch.phase is Phase.SETUP:
                kept.append(scratch._replace(first_at=len(step)))
            else:
                step.append(scratch)
    return (*events[:setup], *kept, *step)
