"""What a training step on the CPU really allocates: torch's profiler, block by block.

The profiler watches from the construction of the module on, so that no block is of
unknown origin. Blocks that live and die inside one ATen kernel (copies that oneDNN
reorders, scalars that an operator wraps) are set apart: a timeline of operators cannot
and should not know them, and CUDA's kernels do not make them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import nn
from torch.profiler import ProfilerActivity, record_function


@dataclass(frozen=True)
class Step:
    """One warm step to measure; without an optimizer a prediction without gradients."""

    batch_size: int
    make_optimizer: Callable[[list[nn.Parameter]], torch.optim.Optimizer] | None = None

    @property
    def training(self) -> bool:
        return self.make_optimizer is not None


@dataclass(frozen=True)
class Measured:
    """Bytes allocated at the peak, and the sizes of the blocks that the step asked for."""

    peak_bytes: int  # of blocks that outlive the kernel that made them
    peak_with_kernels_bytes: int
    block_sizes: tuple[int, ...]  # sorted


@dataclass(frozen=True)
class _Change:
    time: int
    address: int
    bytes: int  # negative for a release
    within: tuple[Any, ...]  # the profiler's events around it, outermost first


def measure(
    build: Callable[[], nn.Module],
    input_shape: Sequence[int],
    steps: Sequence[Step],
    loss_of: Callable[[Any, torch.Tensor], torch.Tensor] = nn.functional.cross_entropy,
) -> list[Measured]:
    """What the second of two such steps allocates, for each of the steps."""
    with torch.profiler.profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        module = build()
        for number, step in enumerate(steps):
            _run_twice(module, input_shape, step, loss_of, f"step {number}")
    changes = _changes(profiler.profiler.kineto_results.experimental_event_tree())
    return [_between(changes, f"step {number}") for number in range(len(steps))]


def _run_twice(module: nn.Module, input_shape: Any, step: Step, loss_of: Any, mark: str) -> None:
    images = torch.zeros(step.batch_size, *input_shape)
    module.train(step.training)
    module.zero_grad(set_to_none=True)
    if step.make_optimizer is None:
        scores = None
        with torch.no_grad():
            for name in ("first", mark):
                with record_function(name):
                    scores = module(images)
        del scores
        return
    labels = torch.zeros(step.batch_size, dtype=torch.int64)
    optimizer = step.make_optimizer(list(module.parameters()))

    def train() -> tuple[Any, torch.Tensor]:
        optimizer.zero_grad(set_to_none=True)
        scores = module(images)
        loss = loss_of(scores, labels)
        loss.backward()
        optimizer.step()
        return scores, loss

    held = None
    for name in ("first", mark):
        with record_function(name):
            held = train()
    del held
    module.zero_grad(set_to_none=True)


def _changes(roots: Sequence[Any]) -> list[_Change]:
    changes = []
    waiting = [(root, ()) for root in roots]
    while waiting:
        event, within = waiting.pop()
        if event.name == "[memory]":
            fields = event.extra_fields
            changes.append(_Change(event.start_time_ns, fields.ptr, fields.alloc_size, within))
        waiting += [(child, (*within, event)) for child in event.children]
    return sorted(changes, key=lambda change: change.time)


def _between(changes: Sequence[_Change], mark: str) -> Measured:
    """The peak and the blocks of what happened inside the event of that name."""
    inside = [any(event.name == mark for event in change.within) for change in changes]
    first, last = inside.index(True), len(inside) - inside[::-1].index(True)
    kernels_own = set(_made_and_freed_in_one_kernel(changes))
    live = live_with_kernels = peak = peak_with_kernels = 0
    sizes = []
    for number, change in enumerate(changes[:last]):
        live_with_kernels += change.bytes
        if number not in kernels_own:
            live += change.bytes
            if number >= first and change.bytes > 0:
                sizes.append(change.bytes)
        if number >= first:
            peak, peak_with_kernels = (
                max(peak, live),
                max(peak_with_kernels, live_with_kernels),
            )
    return Measured(peak, peak_with_kernels, tuple(sorted(sizes)))


def _made_and_freed_in_one_kernel(changes: Sequence[_Change]) -> Iterator[int]:
    """Numbers of the changes of such blocks."""
    allocated: dict[int, int] = {}
    for number, change in enumerate(changes):
        if change.bytes > 0:
            allocated[change.address] = number
        elif change.address in allocated:
            start = allocated.pop(change.address)
            around = zip(changes[start].within, change.within, strict=False)
            shared = [ours for ours, theirs in around if ours is theirs]
            if any(map(_is_kernel, shared, (None, *shared))):
                yield from (start, number)


def _is_kernel(event: Any, outer: Any) -> bool:
    """Whether the profiler's event is an operator that does not just call others.

    An event tells no overload: of two with one name the inner is the kernel.
    """
    return _has_only_kernels(event.name) or (outer is not None and outer.name == event.name)


@cache
def _has_only_kernels(name: str) -> bool:
    packet = getattr(torch.ops.aten, name.removeprefix("aten::"), None)
    if not name.startswith("aten::") or packet is None:
        return False
    operators = [getattr(packet, overload) for overload in packet.overloads()]
    composed = "CompositeImplicitAutograd"
    return not any(
        torch._C._dispatch_has_kernel_for_dispatch_key(operator.name(), composed)
        for operator in operators
        if torch._C._dispatch_has_kernel(operator.name())
    )
