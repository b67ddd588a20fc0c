"""Parameters, MACs and saved bytes of a network on paper, without torch.

The first of the three counters, and the one that a reader can follow on paper. Counts are of one
image; saved bytes are of the whole batch in float32. `resources` gets the same numbers from the
operators that torch runs; tests/test_formulas.py and tests/test_saved.py compare the two.

`shapes` has the formulas of single layers. What autograd keeps comes from the `tape`. It has no
second derivation on paper; it is tested against the hooks on saved tensors, the traced graph and
fvcore's count of activations, which all run torch.
"""

from __future__ import annotations

from collections import Counter

from ninlab.architectures import Architecture
from ninlab.errors import NinlabError
from ninlab.liveness import saved_lines
from ninlab.reports import LayerCost, SavedTensor
from ninlab.shapes import layer_macs, layer_parameters, placed_layers
from ninlab.steps import LOSS, Kernels


def parameters(architecture: Architecture) -> int:
    """Learnable scalars of the network at its own input shape."""
    return sum(layer_parameters(at.layer, at.input_shape) for at in placed_layers(architecture))


def macs(architecture: Architecture) -> int:
    """Multiply-accumulates of one forward pass on one image at its own input shape."""
    return sum(layer_macs(at.layer, at.input_shape) for at in placed_layers(architecture))


def layer_costs(
    architecture: Architecture, batch_size: int = 1, *, kernels: str = Kernels.TORCH
) -> tuple[LayerCost, ...]:
    """What each layer costs, in order of execution; the last row is the cross-entropy loss.

    The columns add up to the totals of the network. kernels change what is kept, and nothing else.
    """
    saved: Counter[str] = Counter()
    for tensor in saved_tensors(architecture, batch_size, kernels=kernels):
        saved[tensor.layer] += tensor.bytes
    costs = [
        LayerCost(
            name=at.name,
            kind=at.layer.module_name,
            output_shape=at.output_shape,
            parameters=layer_parameters(at.layer, at.input_shape),
            macs=layer_macs(at.layer, at.input_shape),
            saved_bytes=saved[at.name],
        )
        for at in placed_layers(architecture)
    ]
    return (*costs, LayerCost(LOSS, "CrossEntropyLoss", (), 0, 0, saved[LOSS]))


def saved_tensors(
    architecture: Architecture, batch_size: int = 1, *, kernels: str = Kernels.TORCH
) -> tuple[SavedTensor, ...]:
    """What autograd keeps from forward and loss for backward, parameters excluded.

    In float32 as on CUDA, where dropout's masks take one byte a value. A tensor that several
    layers keep is listed once, under the first layer that keeps it. Layers before the first
    parameters keep nothing, because no gradient passes them. The last entries are those of
    the loss: the log-softmax, the labels and the total weight.
    Source: the formulas torch derives its backward pass from (Paszke2019).
    """
    if batch_size < 1:
        raise NinlabError(f"the batch size must be at least 1, not {batch_size}")
    lines = saved_lines(architecture, kernels=kernels)
    return tuple(SavedTensor(one.layer, one.kind, one.bytes(batch_size)) for one in lines)


def saved_bytes(
    architecture: Architecture, batch_size: int = 1, *, kernels: str = Kernels.TORCH
) -> int:
    """Bytes kept from forward and loss for backward, for the whole batch in float32."""
    kept = saved_tensors(architecture, batch_size, kernels=kernels)
    return sum(tensor.bytes for tensor in kept)
