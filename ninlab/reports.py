"""What does every counter return?

One vocabulary for all counters: paper (`formulas`, `liveness`), operator
dispatch (`resources`) and measurement (`measurement`) answer in these records,
so that two of them can be compared field by field. All quantities are integers
in the unit of their name; nothing is rounded here.

Counts (parameters, MACs, FLOPs) are of one image and one forward pass; bytes
are of the whole batch. A MAC is one multiply-accumulate of a convolution or a
linear layer; bias, activation, normalization and pooling are not counted. A
FLOP count is twice the MAC count.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

from ninlab.steps import Kernels
from ninlab.units import Shape

if TYPE_CHECKING:
    import pandas as pd


class Category(StrEnum):
    """Whose bytes these are."""

    PARAMETER = "parameter"  # weights, biases and the buffers of the module
    GRADIENT = "gradient"  # of parameters, and under autocast of their casts
    OPTIMIZER_STATE = "optimizer_state"
    ACTIVATION = "activation"  # kept by autograd, or handed on, forward and backward
    TEMPORARY = "temporary"  # dead before the operator that follows has run
    WORKSPACE = "workspace"  # scratch of cuDNN and cuBLAS
    INPUT = "input"  # the batch of images and labels


class Phase(StrEnum):
    """Which part of the training step is running."""

    SETUP = "setup"  # weights, optimizer state and what the previous step left
    ZERO_GRAD = "zero_grad"
    FORWARD = "forward"
    LOSS = "loss"
    BACKWARD = "backward"
    STEP = "step"


class MemoryEvent(NamedTuple):
    """One allocation (or its release) as an affine function of the batch size.

    A tuple with names, because a step has thousands of them. block identifies the
    allocation: its release carries the same number and the same sizes. A counter that
    knows only one batch size gives ``bytes_per_image = 0``.
    """

    allocates: bool
    block: int
    constant_bytes: int
    bytes_per_image: int
    category: Category
    phase: Phase
    layer: str  # dotted module path, "" outside any layer
    operator: str  # ATen name without overload, e.g. "convolution_backward"
    # Of what a library keeps, in the set-up: how many events of the step come before it in the
    # first one, which makes it there.
    first_at: int | None = None

    def bytes(self, batch_size: int) -> int:
        """Size of the block at that batch size, before any rounding by an allocator."""
        return self.constant_bytes + self.bytes_per_image * batch_size


class TracedMoment(NamedTuple):
    """A moment of a predicted step beside the same moment of the allocator's trace on a GPU."""

    event: MemoryEvent  # what was predicted to happen
    live: Mapping[Category, int]  # predicted bytes by category
    traced_bytes: int  # requested from the device's allocator


@dataclass(frozen=True)
class MemoryReport:
    """Peak memory of one step, in bytes of the whole batch.

    tensor_peak_bytes is the largest sum of live tensors, without scratch and
    rounding; requested adds the scratch of cuDNN and cuBLAS, allocated and
    reserved what the CUDA caching allocator makes of the requests. The last
    three are None where no workspace table covers device, network and batch.
    reserved_range_bytes is the reserved peak under either order in which a driver
    may lay large segments, the least first, where the two differ (see `allocator`).
    """

    tensor_peak_bytes: int | None
    requested_peak_bytes: int | None = None
    allocated_peak_bytes: int | None = None
    reserved_peak_bytes: int | None = None
    reserved_range_bytes: tuple[int, int] | None = None
    at: str | None = None  # "phase layer operator" of the first event at the tensor peak
    by_category: Mapping[str, int] = field(default_factory=dict)  # adds up to the tensor peak


def live_bytes(events: Iterable[MemoryEvent], batch_size: int) -> list[int]:
    """Bytes of all live tensors after each event: the memory curve of one step.

    Scratch (`Category.WORKSPACE`) is left out.
    """
    scratch = Category.WORKSPACE
    live = 0
    curve = []
    for allocates, _, constant, per_image, category, _, _, _, _ in events:
        if category is not scratch:
            size = constant + per_image * batch_size
            live += size if allocates else -size
        curve.append(live)
    return curve


def tensor_peak(events: Sequence[MemoryEvent], batch_size: int) -> MemoryReport:
    """The largest sum of live tensors, where it is first reached and whose bytes they are.

    requested, allocated and reserved stay None: `allocator` answers those.
    """
    curve = live_bytes(events, batch_size)
    peak = max(curve)
    first = curve.index(peak)
    by_category: Counter[str] = Counter()
    for event in events[: first + 1]:
        by_category[event.category] += _change(event, batch_size)
    at = events[first]
    return MemoryReport(
        tensor_peak_bytes=peak,
        at=" ".join(part for part in (at.phase, at.layer, at.operator) if part),
        by_category={name: count for name, count in by_category.items() if count},
    )


def peak_by_layer(events: Sequence[MemoryEvent], batch_size: int) -> dict[str, int]:
    """Bytes at the tensor peak by the layer that allocated them, the largest first.

    They add up to the peak; "" has what belongs to no layer, such as the batch.
    """
    curve = live_bytes(events, batch_size)
    owners: dict[int, str] = {}
    by_layer: Counter[str] = Counter()
    for event in events[: curve.index(max(curve)) + 1]:
        owner = owners.setdefault(event.block, event.layer)
        by_layer[owner] += _change(event, batch_size)
    return {name: count for name, count in by_layer.most_common() if count}


def peak_by_phase(events: Sequence[MemoryEvent], batch_size: int) -> dict[str, int]:
    """The largest sum of live tensors within each phase of the step, in order."""
    peaks: dict[str, int] = {}
    for event, live in zip(events, live_bytes(events, batch_size), strict=True):
        peaks[event.phase] = max(live, peaks.get(event.phase, 0))
    return peaks


def _change(event: MemoryEvent, batch_size: int) -> int:
    if event.category is Category.WORKSPACE:
        return 0
    return event.bytes(batch_size) if event.allocates else -event.bytes(batch_size)


@dataclass(frozen=True)
class SavedTensor:
    """One tensor that autograd keeps from the forward pass for the backward pass."""

    layer: str
    kind: str  # "input", "relu_result", "pool_input", "pool_indices", "dropout_mask", ...
    bytes: int


@dataclass(frozen=True)
class LayerCost:
    """What one layer costs. Counts are of one image, saved_bytes of the whole batch."""

    name: str  # dotted module path
    kind: str  # class name of the module, e.g. "Conv2d"
    output_shape: Shape  # of one image
    parameters: int
    macs: int
    saved_bytes: int

    @property
    def flops(self) -> int:
        """Twice the MACs: one multiplication and one addition each."""
        return 2 * self.macs


@dataclass(frozen=True)
class NetworkCost:
    """What one network costs at one input shape, batch size, optimizer and precision."""

    network: str
    input_shape: Shape
    batch_size: int
    optimizer: str
    precision: str
    device: str | None
    parameters: int
    macs: int
    fvcore_flops: int  # fvcore's own total of one image: MACs, plus what it counts beside them
    fvcore_activations: int  # elements put out by convolutions and matrix products
    saved_bytes: int
    training: MemoryReport
    inference: MemoryReport
    unsupported_operators: Mapping[str, int] = field(default_factory=dict)
    layer_costs: tuple[LayerCost, ...] = ()
    saved_tensors: tuple[SavedTensor, ...] = ()
    training_flops: int | None = None  # forward and backward of one image, as torch counts them
    kernels: str = Kernels.TORCH  # those of the steps
    # What the two peaks were found in, scratch included where a table covers it.
    training_events: tuple[MemoryEvent, ...] = field(default=(), repr=False)
    inference_events: tuple[MemoryEvent, ...] = field(default=(), repr=False)
    # Of how many convolutions of a training step each `workspaces.Source` said the scratch, each
    # gradient counted for itself. Empty without a device, or where nobody knew one.
    scratch_sources: Mapping[str, int] = field(default_factory=dict)

    @property
    def flops(self) -> int:
        """Floating-point operations of one image's forward pass: twice the MACs."""
        return 2 * self.macs

    @cached_property
    def layers(self) -> pd.DataFrame:
        """One row a layer, in order of execution, indexed by the dotted module path."""
        import pandas as pd

        rows = [asdict(cost) | {"flops": cost.flops} for cost in self.layer_costs]
        columns = ["kind", "output_shape", "parameters", "macs", "flops", "saved_bytes"]
        return pd.DataFrame(rows, columns=["name", *columns]).set_index("name")

    def to_json(self) -> dict[str, Any]:
        """The object that ``resources --format json`` prints, with integers unrounded."""

        def with_device(key: str, value: object) -> dict[str, object]:
            return {} if self.device is None else {key: value}

        def peaks(report: MemoryReport) -> dict[str, Any]:
            return {
                "tensor_peak_bytes": report.tensor_peak_bytes,
                "requested_peak_bytes": report.requested_peak_bytes,
                "allocated_peak_bytes": report.allocated_peak_bytes,
                "reserved_peak_bytes": report.reserved_peak_bytes,
                "at": report.at,
                **with_device("reserved_range_bytes", report.reserved_range_bytes),
            }

        return {
            "network": self.network,
            "input_shape": list(self.input_shape),
            "batch_size": self.batch_size,
            "optimizer": self.optimizer,
            "precision": self.precision,
            "kernels": str(self.kernels),
            "device": self.device,
            "parameters": self.parameters,
            "macs": self.macs,
            "flops": self.flops,
            "fvcore_flops": self.fvcore_flops,
            "fvcore_activations": self.fvcore_activations,
            "saved_bytes": self.saved_bytes,
            "training": peaks(self.training),
            "inference": peaks(self.inference),
            "unsupported_operators": dict(self.unsupported_operators),
            **with_device("scratch_sources", dict(self.scratch_sources)),
        }
