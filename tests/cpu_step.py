"""Steps of any module and optimizer on the CPU, as `ninlab.measurement.cpu` records them, and
the timelines that foretell them.

Scratch is left out: a timeline of operators cannot and should not know it, and CUDA's kernels do
not make it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ninlab.measurement.cpu import marked, peak_bytes, recorded, without_scratch
from ninlab.reports import Phase, tensor_peak
from ninlab.resources import StepTimeline, Subject, trace_step

SCALAR_BYTES = 8
"""An optimizer or a formula may hold one host scalar, wrapped as a float64 tensor, at the peak."""


@dataclass(frozen=True)
class WarmStep:
    """One warm step to measure; without an optimizer a prediction without gradients."""

    batch_size: int
    make_optimizer: Callable[[list[nn.Parameter]], torch.optim.Optimizer] | None = None

    @property
    def training(self) -> bool:
        return self.make_optimizer is not None


@dataclass(frozen=True)
class Measured:
    """Bytes allocated at the peak, and the sizes of the blocks that the step asked for."""

    peak_bytes: int
    block_sizes: tuple[int, ...]  # sorted


def measure(
    build: Callable[[], nn.Module],
    input_shape: Sequence[int],
    steps: Sequence[WarmStep],
    loss_of: Callable[[Any, torch.Tensor], torch.Tensor] = nn.functional.cross_entropy,
) -> list[Measured]:
    """What the second of two such steps allocates, for each of the steps."""
    marks = [f"step {number}" for number in range(len(steps))]
    with recorded() as events:
        module = build()
        for mark, step in zip(marks, steps, strict=True):
            _run_twice(module, input_shape, step, loss_of, mark)
    tensors = without_scratch(events)
    return [
        Measured(
            peak_bytes(tensors, mark),
            tuple(sorted(e.bytes for e in tensors if e.step == mark and e.bytes > 0)),
        )
        for mark in marks
    ]


def _run_twice(
    module: nn.Module, input_shape: Any, step: WarmStep, loss_of: Any, mark: str
) -> None:
    images = torch.zeros(step.batch_size, *input_shape)
    module.train(step.training)
    module.zero_grad(set_to_none=True)
    if step.make_optimizer is None:
        scores = None
        with torch.no_grad():
            for name in ("first", mark):
                with marked(name):
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
        with marked(name):
            held = train()
    del held
    module.zero_grad(set_to_none=True)


def as_on_cpu(subject: Subject, step: WarmStep, **options: Any) -> StepTimeline:
    """The timeline of the step that `measure` takes."""
    return trace_step(
        subject,
        step.batch_size,
        step.make_optimizer or "sgd",
        training=step.training,
        on_cuda=False,
        **options,
    )


def peak_of(timeline: StepTimeline) -> int:
    """Bytes of its tensors at the peak."""
    peak = tensor_peak(timeline.events, timeline.batch_size).tensor_peak_bytes
    assert peak is not None
    return peak


def block_sizes(timeline: StepTimeline) -> tuple[int, ...]:
    """The sizes of the blocks that the step asks for, sorted."""
    return tuple(
        sorted(
            event.constant_bytes
            for event in timeline.events
            if event.allocates and event.phase is not Phase.SETUP
        )
    )
