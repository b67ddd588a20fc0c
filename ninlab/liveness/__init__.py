"""Which bytes are alive when, in one training step, as ``a + b * batch``?

A training step is played on paper: every tensor is a block with a size affine in the batch
and a count of who still holds it, namely the frames that run the network, autograd's nodes,
autocast's cache, the user. A block dies when nobody does. No weight is allocated and torch
is not needed; the list of events that comes out serves every batch size at once, and the
peak over the batch is a handful of straight lines.

The step is a warm one (the second or any later) in the textbook's order: zero_grad
(set_to_none), forward, cross-entropy, backward, optimizer step. The scores and the loss of
the step before are held by the caller until this one has returned its own; so are the scores
at prediction, which runs forward alone. Where torch decides by device, the decisions are
CUDA's: dropout masks of one byte, optimizers that work on lists of tensors (foreach), bf16
by autocast with its cached copies of the weights, batch norm by cuDNN. TF32 changes no size.

Known limits: only what tensors hold. Scratch of cuDNN and cuBLAS is `workspaces`, rounding
and fragmentation are `allocator`; what lives and dies inside one operator, and a reserve
that cuDNN's batch norm might keep, are left out.

`steps` plays the layers of a step, `autograd` keeps what the way back needs, and `peaks`
reads the events.

Imports from ninlab: architectures, reports, units and errors; from formulas only what a layer
puts out and how wide a number is, no cost.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from ninlab.architectures import Architecture
from ninlab.liveness.peaks import (
    Line,
    breakdown,
    crossing,
    envelope,
    largest_batch,
    peak_bytes,
)
from ninlab.liveness.steps import COMPUTE_BYTES, LOSS, OPTIMIZER_STATES, Step
from ninlab.reports import Category, MemoryEvent

__all__ = [
    "COMPUTE_BYTES",
    "LOSS",
    "OPTIMIZER_STATES",
    "Line",
    "SavedLine",
    "breakdown",
    "crossing",
    "envelope",
    "largest_batch",
    "peak_bytes",
    "saved_lines",
    "timeline",
]


@dataclass(frozen=True)
class SavedLine:
    """Bytes of one tensor kept for backward: ``constant_bytes + bytes_per_image * batch``."""

    layer: str  # dotted module path, or "loss"
    kind: str  # "input", "relu_result", "pool_indices", ...; as in `reports.SavedTensor`
    constant_bytes: int
    bytes_per_image: int


@lru_cache(maxsize=128)
def timeline(
    architecture: Architecture,
    optimizer: str = "sgd",
    precision: str = "fp32",
    *,
    training: bool = True,
) -> tuple[MemoryEvent, ...]:
    """Every allocation and release of one warm step, in order; sizes are affine in the batch.

    optimizer is a key of `OPTIMIZER_STATES`, precision one of `COMPUTE_BYTES`. With
    ``training=False`` one prediction in evaluation mode, without gradients; the optimizer
    is then of no concern. Raises UnknownNameError for another optimizer or precision,
    ShapeError when a layer cannot read its input.
    """
    return Step(architecture, optimizer, precision, training=training).memory.events()


def saved_lines(architecture: Architecture, precision: str = "fp32") -> tuple[SavedLine, ...]:
    """What autograd keeps from forward and loss for backward, parameters excluded.

    A tensor that several layers keep is listed once, under the first of them. Raises as
    `timeline` does.
    """
    step = Step(architecture, "sgd", precision, training=True)
    lines: dict[int, SavedLine] = {}
    for node in step.autograd.nodes:
        for block, kind in node.saved:
            if block.category is not Category.PARAMETER:
                line = SavedLine(node.layer, kind, *block.size)
                lines.setdefault(block.number, line)
    return tuple(lines.values())
