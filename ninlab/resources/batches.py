"""How does the memory of a step grow with the batch, for a module that nobody knows in closed form?

A step at one batch size says nothing of another. Two of them give every block as
``a + b * batch``, and a third says whether that is true: networks whose images do not
depend on each other pass, one that pairs images does not.
"""

from __future__ import annotations

from typing import Any

from ninlab.errors import NinlabError
from ninlab.reports import MemoryEvent
from ninlab.resources.modules import Subject
from ninlab.resources.timeline import OptimizerFactory, trace_step

SMALL, LARGE, CHECKED = 2, 3, 7
"""Batch sizes that are traced. A batch of one image may take shortcuts: it fits any layout."""


def trace_batches(
    subject: Subject, optimizer: str | OptimizerFactory = "sgd", **options: Any
) -> tuple[MemoryEvent, ...]:
    """The events of one warm step at every batch size from two images on.

    options are those of `trace_step`. `liveness.envelope`, `largest_batch` and `crossing`
    work on the result as on the events of a closed form.
    Raises NinlabError when the memory of the step is no straight line in the batch.
    """
    small, large, checked = (
        trace_step(subject, batch_size, optimizer, **options).events
        for batch_size in (SMALL, LARGE, CHECKED)
    )
    events = tuple(_line(ours, theirs) for ours, theirs in zip(small, large, strict=False))
    at_checked = [
        event._replace(constant_bytes=event.bytes(CHECKED), bytes_per_image=0) for event in events
    ]
    if at_checked != list(checked) or len(small) != len(large):
        raise NinlabError(
            f"a step of {subject.name} does other work at other batch sizes; "
            "look at each batch size on its own"
        )
    return events


def _line(small: MemoryEvent, large: MemoryEvent) -> MemoryEvent:
    """The event as a straight line through its sizes at the two batch sizes."""
    slope = (large.constant_bytes - small.constant_bytes) // (LARGE - SMALL)
    return small._replace(
        constant_bytes=small.constant_bytes - slope * SMALL, bytes_per_image=slope
    )
