"""What does a trace of the CUDA allocator say when it is read again?

`gpu` writes a trace beside each case that it measures: addresses, requested bytes, and which
blocks no tensor owns. `as_step` makes events of it that `ninlab.allocator` can replay, so that
the model of the allocator is held against a device's peaks with that device's own requests.
`beside` sets a trace beside the step that was predicted of it, moment by moment.

Known limit. What lies there before the step and stays comes in no entry and has to be told.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ninlab.errors import RecordError, shortened
from ninlab.measurement.gpu import GpuEvent
from ninlab.reports import Category, MemoryEvent, Phase, TracedMoment
from ninlab.units import format_bytes

LARGEST_BYTES = 2**26
"""What a trace may unpack to: thousands of times what a step of the book's networks needs."""

_TYPES = [bool, int, int, bool]  # of the fields of a GpuEvent


def read_trace(path: Path) -> tuple[GpuEvent, ...]:
    """The trace of one warm step, as `measure` wrote it. Raises RecordError for another file."""
    try:
        with gzip.open(path) as file:
            text = file.read(LARGEST_BYTES + 1)
        if len(text) > LARGEST_BYTES:
            raise ValueError(f"it unpacks to more than {format_bytes(LARGEST_BYTES)}")
        return tuple(map(_event, json.loads(text)))
    except (OSError, EOFError, TypeError, ValueError, RecursionError, zlib.error) as error:
        raise RecordError(f"{path} is no trace of the CUDA allocator: {error}") from error


def _event(entry: Any) -> GpuEvent:
    """An entry as it was written. Raises TypeError or ValueError for what no allocator did."""
    if [*map(type, entry)] != _TYPES:  # no text of digits, no 1 for true, no NaN
        raise TypeError(f"an event is {shortened(repr(entry), 40)}")
    event = GpuEvent(*entry)
    if event.bytes < 0 or event.address < 0:
        raise ValueError(f"an event has a negative number: {shortened(repr(entry), 40)}")
    return event


def as_step(
    trace: Sequence[GpuEvent], found: Mapping[Category, Sequence[int]]
) -> tuple[MemoryEvent, ...]:
    """The trace as events of a warm step, all in `Phase.FORWARD`, for a batch of any size.

    found says what lies there before the step and stays: the bytes of each block by category, in
    the order in which they were made. What the step releases without having made it is found,
    too. What a library keeps is made anew in a trace, and moves to what the step finds, with
    `MemoryEvent.first_at`.
    """
    made = [number for number, event in enumerate(trace) if event.allocates]
    alive: dict[int, int] = {}  # by address: the number of the event that made the block
    blocks: list[int] = []  # of each event
    inherited: list[int] = []  # bytes
    for number, event in enumerate(trace):
        if event.allocates:
            alive[event.address] = number
            blocks.append(number)
        elif event.address in alive:
            blocks.append(alive.pop(event.address))
        else:
            inherited.append(event.bytes)
            blocks.append(-len(inherited))
    kept = _kept(trace, [number for number in made if number in alive.values()], inherited)

    def event_of(block: int, size: int, category: Category, phase: Phase) -> MemoryEvent:
        return MemoryEvent(True, block, size, 0, category, phase, "", "")

    sizes = [(category, size) for category, each in found.items() for size in each]
    setup = [
        event_of(number, size, category, Phase.SETUP)
        for number, (category, size) in enumerate(sizes, len(trace))
    ]
    setup += [
        event_of(-number, size, Category.ACTIVATION, Phase.SETUP)
        for number, size in enumerate(inherited, 1)
    ]
    step: list[MemoryEvent] = []
    for block, event in zip(blocks, trace, strict=True):
        scratch = block >= 0 and trace[block].is_scratch
        category = Category.WORKSPACE if scratch else Category.ACTIVATION
        if block in kept:
            found_late = event_of(block, event.bytes, category, Phase.SETUP)
            setup.append(found_late._replace(first_at=len(step)))
        else:
            change = event_of(block, event.bytes, category, Phase.FORWARD)
            step.append(change._replace(allocates=event.allocates))
    return (*setup, *step)


def beside(
    events: Sequence[MemoryEvent],
    batch_size: int,
    trace: Sequence[GpuEvent],
    requested_peak_bytes: int,
) -> list[TracedMoment]:
    """The fullest moment between each tensor and the next one: of the step, and of its trace.

    events are the predicted ones of the step, with its scratch; requested_peak_bytes is what the
    device reported, from which follows what was there before the trace. The first moment is
    before the first tensor. Raises RecordError where the tensors are others than predicted, or
    where a library took blocks to keep: which of those were there before, a trace does not say.
    """
    if any(event.first_at is not None for event in events):
        raise RecordError(
            "the step has blocks that a library keeps, of which a trace says too little"
        )
    live = Counter[Category]()
    moments: list[tuple[int, MemoryEvent, Mapping[Category, int]]] = []
    tensors: list[int] = []
    for event in events:
        size = event.bytes(batch_size)
        live[event.category] += size if event.allocates else -size
        if event.phase is Phase.SETUP:
            moments = [(live.total(), event, dict(live))]
            continue
        if event.allocates and event.category is not Category.WORKSPACE and size:
            tensors.append(size)
            moments.append((live.total(), event, dict(live)))
        elif live.total() > moments[-1][0]:
            moments[-1] = (live.total(), event, dict(live))
    traced, level, most = [0], 0, 0
    for entry in trace:
        level += entry.bytes if entry.allocates else -entry.bytes
        most = max(most, level)
        if entry.allocates and not entry.is_scratch:
            traced.append(level)
        else:
            traced[-1] = max(traced[-1], level)
    if tensors != [entry.bytes for entry in trace if entry.allocates and not entry.is_scratch]:
        raise RecordError("the trace has other tensors than the predicted step")
    before = requested_peak_bytes - most
    return [
        TracedMoment(event, alive, before + level)
        for (_, event, alive), level in zip(moments, traced, strict=True)
    ]


def _kept(trace: Sequence[GpuEvent], left: Sequence[int], inherited: Sequence[int]) -> set[int]:
    """Which of the blocks that the step leaves are a library's, by the numbers of their events.

    They are scratch, and no block of their size was there before: cuBLAS was told to let go of
    its own. Early traces call a tensor scratch whose storage was resized, as the gradient of a
    depthwise convolution is; one of its size was there before.
    """
    expected = Counter(inherited)
    expected.subtract(trace[number].bytes for number in left if not trace[number].is_scratch)
    kept = set()
    for number in left:
        event = trace[number]
        if event.is_scratch and expected[event.bytes] > 0:
            expected[event.bytes] -= 1
        elif event.is_scratch:
            kept.add(number)
    return kept
