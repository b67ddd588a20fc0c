"""Which tensors exist at each moment of a training step, in bytes ``a + b * batch``?

`tape` says what a step does. Here this becomes a list of allocations and releases, and a list
of what autograd keeps. One list of events serves every batch size. The peak as a function of the
batch is made of a few straight lines, which `peaks` finds. Known limits: those of the tape.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from ninlab.architectures import Architecture
from ninlab.liveness.peaks import Line, crossing, envelope, largest_batch, peak_bytes
from ninlab.reports import Category, MemoryEvent
from ninlab.steps import Kernels, Optimizer, Precision
from ninlab.tape import Tape, record

__all__ = [
    "Line",
    "SavedLine",
    "crossing",
    "envelope",
    "kept",
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

    def bytes(self, batch_size: int) -> int:
        """Its size at that batch size."""
        return self.constant_bytes + self.bytes_per_image * batch_size


@lru_cache(maxsize=128)
def timeline(
    architecture: Architecture,
    optimizer: str = Optimizer.SGD,
    precision: str = Precision.FP32,
    *,
    training: bool = True,
    kernels: str = Kernels.TORCH,
) -> tuple[MemoryEvent, ...]:
    """Every allocation and release of one warm step, in order; sizes are affine in the batch.

    optimizer is one of `steps.Optimizer`, precision one of `steps.Precision`, kernels one of
    `steps.Kernels`. With ``training=False`` one prediction in evaluation mode, without gradients;
    the optimizer is then of no concern. Raises UnknownNameError for another optimizer, precision
    or kernels, ShapeError when a layer cannot read its input.
    """
    return record(architecture, optimizer, precision, training=training, kernels=kernels).events


@lru_cache(maxsize=128)
def saved_lines(
    architecture: Architecture,
    precision: str = Precision.FP32,
    *,
    kernels: str = Kernels.TORCH,
) -> tuple[SavedLine, ...]:
    """What autograd keeps from forward and loss for backward, parameters excluded.

    A tensor that several layers keep is listed once, under the first of them. Raises as
    `timeline` does.
    """
    return kept(record(architecture, precision=precision, kernels=kernels))


def kept(tape: Tape) -> tuple[SavedLine, ...]:
    """What autograd keeps of the tape's step, as `saved_lines`."""
    lines: dict[int, SavedLine] = {}
    for storage, layer, kind in tape.kept:
        if storage.category is not Category.PARAMETER:
            lines.setdefault(storage.number, SavedLine(layer, str(kind), *storage.size))
    return tuple(lines.values())
