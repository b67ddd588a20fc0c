"""How large are the events of a step at most, for one batch size and for all of them?

The events are `liveness.timeline`'s or any others that are affine in the batch. Scratch
(`Category.WORKSPACE`) is left out throughout.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from ninlab.errors import NinlabError
from ninlab.reports import Category, MemoryEvent, live_bytes


class Line(NamedTuple):
    """One straight piece of a peak over the batch: ``constant_bytes + bytes_per_image * batch``.

    It holds from first_batch to the batch before the next line's.
    """

    constant_bytes: int
    bytes_per_image: int
    first_batch: int


def peak_bytes(events: Sequence[MemoryEvent], batch_size: int) -> int:
    """The largest sum of live tensors during the step, for the whole batch.

    Raises NinlabError for a batch size under 1.
    """
    if batch_size < 1:
        raise NinlabError(f"the batch size must be at least 1, not {batch_size}")
    return max(live_bytes(events, batch_size))


def envelope(events: Sequence[MemoryEvent]) -> tuple[Line, ...]:
    """The peak as a function of the batch: exact for every whole batch size from 1 on.

    Where two lines tie the flatter one holds; first_batch of the first line is 1.
    """
    highest: dict[int, int] = {}
    for constant, per_image in _sums(events):
        if constant > highest.get(per_image, -1):
            highest[per_image] = constant
    lines: list[Line] = []
    for per_image in sorted(highest):
        constant = highest[per_image]
        first = 1
        while lines:
            flatter = lines[-1]
            lead = flatter.constant_bytes - constant
            first = max(1, lead // (per_image - flatter.bytes_per_image) + 1)
            if first > flatter.first_batch:
                break
            lines.pop()
            first = 1
        lines.append(Line(constant, per_image, first))
    return tuple(lines)


def largest_batch(events: Sequence[MemoryEvent], available_bytes: int) -> int:
    """The largest batch whose tensors fit into that many bytes; 0 if one image does not fit.

    Without scratch and rounding. Raises NinlabError when the batch does not matter to these
    events, so that there is no largest.
    """
    limits = []
    for constant, per_image, _ in envelope(events):
        if constant + per_image > available_bytes:
            return 0
        if per_image > 0:
            limits.append((available_bytes - constant) // per_image)
    if not limits:
        raise NinlabError("no block of these events grows with the batch: every batch fits")
    return min(limits)


def crossing(first: Sequence[MemoryEvent], second: Sequence[MemoryEvent]) -> int | None:
    """The batch size from which on the first step always needs more memory than the second.

    1 if it always does; None if there is no such batch size.
    """
    ours, theirs = envelope(first), envelope(second)
    starts = sorted({line.first_batch for line in (*ours, *theirs)})
    last_without = 0  # the last batch size at which the first step needs no more
    for start, end in zip(starts, (*starts[1:], None), strict=True):
        mine, other = _line_at(ours, start), _line_at(theirs, start)
        constant = mine.constant_bytes - other.constant_bytes
        per_image = mine.bytes_per_image - other.bytes_per_image
        if end is None:
            if per_image < 0 or (per_image == 0 and constant <= 0):
                return None
        elif constant + per_image * (end - 1) <= 0:
            last_without = end - 1
            continue
        if constant + per_image * start <= 0:
            last_without = -constant // per_image
    return last_without + 1


def _line_at(lines: Sequence[Line], batch_size: int) -> Line:
    return next(line for line in reversed(lines) if line.first_batch <= batch_size)


def _sums(events: Sequence[MemoryEvent]) -> Iterator[tuple[int, int]]:
    """(constant, per image) of all live tensors after each event."""
    constant = per_image = 0
    for event in events:
        if event.category is not Category.WORKSPACE:
            if event.allocates:
                constant += event.constant_bytes
                per_image += event.bytes_per_image
            else:
                constant -= event.constant_bytes
                per_image -= event.bytes_per_image
        yield constant, per_image
