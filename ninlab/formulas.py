"""Shapes, parameters, MACs and saved bytes in closed form, without torch.

The first of the three counters: what a reader can follow with paper. Counts are
of one image; saved bytes are of the whole batch in float32. `resources` arrives
at the same numbers from the operators that torch runs, `tests/test_formulas.py`
compares the two.

Imports from ninlab: architectures, reports, units and errors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import assert_never

from ninlab.architectures import Architecture
from ninlab.errors import NinlabError, ShapeError
from ninlab.layers import (
    Activation,
    AvgPool,
    BatchNorm,
    Block,
    Branches,
    Conv,
    Dropout,
    Flatten,
    GlobalAvgPool,
    Layer,
    Leaf,
    Linear,
    MaxPool,
    ReLU,
    Sigmoid,
    named_children,
    walk,
)
from ninlab.reports import LayerCost, SavedTensor
from ninlab.units import Shape, format_shape

FLOAT32_BYTES = 4
INT64_BYTES = 8
BOOL_BYTES = 1


@dataclass(frozen=True)
class PlacedLayer:
    """A leaf layer with the shapes it meets in its network."""

    name: str
    layer: Leaf
    input_shape: Shape
    output_shape: Shape


# ---------------------------------------------------------------- shapes


def output_shape(layer: Layer, input_shape: Shape) -> Shape:
    """Shape of one image after the layer; shapes are (channels, height, width) or (features,).

    Raises ShapeError when the layer cannot read that input.
    """
    return walk((layer,), input_shape, lambda _, *at: leaf_shape(*at), joined_shape)


def leaf_shape(layer: Leaf, input_shape: Shape) -> Shape:
    """As `output_shape`, of a layer that computes.

    Source: Dumoulin2016 for windows; pools round down.
    """
    match layer:
        case Flatten():
            return (prod(input_shape),)
        case Linear(out_features=out_features):
            if len(input_shape) != 1:
                raise ShapeError(
                    f"a linear layer reads flat features, not {format_shape(input_shape)}; "
                    "flatten first"
                )
            return (out_features,)
        case Dropout():
            return input_shape
    if isinstance(layer, Activation):
        return input_shape
    if len(input_shape) != 3:
        raise ShapeError(
            f"a {type(layer).__name__} reads channels x height x width, "
            f"not {format_shape(input_shape)}"
        )
    channels, height, width = input_shape
    match layer:
        case BatchNorm():
            return input_shape
        case GlobalAvgPool():
            return (channels, 1, 1)
        case Conv(groups=groups):
            if channels % groups or layer.out_channels % groups:
                raise ShapeError(
                    f"{groups} groups must divide the {channels} input "
                    f"and {layer.out_channels} output channels"
                )
            return (layer.out_channels, _windows(layer, height), _windows(layer, width))
        case MaxPool() | AvgPool():
            if 2 * layer.padding > layer.kernel_size:
                raise ShapeError(
                    f"pooling pads by at most half its window of {layer.kernel_size}, "
                    f"not by {layer.padding}"
                )
            return (channels, _windows(layer, height), _windows(layer, width))
        case _:
            assert_never(layer)


def _windows(layer: Conv | MaxPool | AvgPool, size: int) -> int:
    padded = size + 2 * layer.padding
    if padded < layer.kernel_size:
        raise ShapeError(
            f"a window of {layer.kernel_size} does not fit a map of {size} padded to {padded}"
        )
    return (padded - layer.kernel_size) // layer.stride + 1


def joined_shape(path: str, branches: Branches, shapes: Sequence[Shape]) -> Shape:
    """Shape of the branches' outputs joined along the channels.

    Raises ShapeError when their maps differ in size.
    """
    if len({shape[1:] for shape in shapes}) != 1:
        maps = ", ".join(format_shape(shape) for shape in shapes)
        raise ShapeError(
            f"the branches of {branches.name!r} put out maps of different size: {maps}"
        )
    return (sum(shape[0] for shape in shapes), *shapes[0][1:])


def placed_layers(
    architecture: Architecture, input_shape: Shape | None = None
) -> tuple[PlacedLayer, ...]:
    """Every leaf with its shapes, in order of execution.

    input_shape replaces the architecture's own. Raises ShapeError that names the layer,
    and the smallest square input that works when there is one.
    """
    shape = architecture.input_shape if input_shape is None else input_shape
    is_readable = len(shape) == 3 and shape[0] == architecture.input_shape[0]
    if not is_readable:
        raise ShapeError(
            f"{architecture.name} reads {architecture.input_shape[0]} channel(s), "
            f"not the shape {format_shape(shape)}; try {format_shape(architecture.input_shape)}"
        )
    placed: list[PlacedLayer] = []

    def place(path: str, leaf: Leaf, before: Shape) -> Shape:
        placed.append(PlacedLayer(path, leaf, before, leaf_shape(leaf, before)))
        return placed[-1].output_shape

    try:
        walk(architecture.layers, shape, place, joined_shape)
    except ShapeError as error:
        smallest = smallest_input(architecture)
        hint = f"; the smallest input that works is {format_shape(smallest)}" if smallest else ""
        raise ShapeError(
            f"{architecture.name} cannot read {format_shape(shape)}: {error}{hint}"
        ) from None
    return tuple(placed)


def smallest_input(architecture: Architecture, largest: int = 1024) -> Shape | None:
    """The smallest square input that every layer can read, or None up to that size."""
    channels = architecture.input_shape[0]
    network = Block(architecture.name, architecture.layers)
    for size in range(1, largest + 1):
        try:
            output_shape(network, (channels, size, size))
        except ShapeError:
            continue
        return (channels, size, size)
    return None


def at_input(architecture: Architecture, input_shape: Shape) -> Architecture:
    """The same layers for another input. Raises ShapeError when they cannot read it."""
    placed_layers(architecture, input_shape)  # raises where a layer cannot read
    return replace(architecture, input_shape=input_shape)


# ---------------------------------------------------------------- counts of one layer


def layer_parameters(layer: Leaf, input_shape: Shape) -> int:
    """Learnable scalars of one layer, biases included."""
    return sum(parameter_counts(layer, input_shape))


def parameter_counts(layer: Leaf, input_shape: Shape) -> tuple[int, ...]:
    """Learnable scalars of each parameter of one layer: its weight, and its bias if it has one."""
    match layer:
        case Conv():
            fan_in = input_shape[0] // layer.groups * layer.kernel_size**2
            return (layer.out_channels * fan_in, layer.out_channels)[: 1 + layer.bias]
        case Linear():
            return (layer.out_features * input_shape[0], layer.out_features)[: 1 + layer.bias]
        case BatchNorm():
            return input_shape[0], input_shape[0]
        case MaxPool() | AvgPool() | GlobalAvgPool() | Dropout() | Flatten():
            return ()
    if isinstance(layer, Activation):
        return ()
    assert_never(layer)


def layer_macs(layer: Leaf, input_shape: Shape) -> int:
    """Multiply-accumulates of one layer on one image; adding the bias is not counted.

    Only convolutions and linear layers have any: each use of a weight is one. Raises
    ShapeError when the layer cannot read the input.
    """
    match layer:
        case Conv() | Linear():
            weights, *_ = parameter_counts(layer, input_shape)
            return weights * prod(leaf_shape(layer, input_shape)[1:])
        case BatchNorm() | MaxPool() | AvgPool() | GlobalAvgPool() | Dropout() | Flatten():
            return 0
    if isinstance(layer, Activation):
        return 0
    assert_never(layer)


# ---------------------------------------------------------------- counts of a network


def parameters(architecture: Architecture) -> int:
    """Learnable scalars of the network at its own input shape."""
    return sum(layer_parameters(at.layer, at.input_shape) for at in placed_layers(architecture))


def macs(architecture: Architecture) -> int:
    """Multiply-accumulates of one forward pass on one image at its own input shape."""
    return sum(layer_macs(at.layer, at.input_shape) for at in placed_layers(architecture))


def layer_costs(architecture: Architecture, batch_size: int = 1) -> tuple[LayerCost, ...]:
    """What each layer costs, in order of execution; the last row is the cross-entropy loss.

    The columns add up to the totals of the network.
    """
    _check_batch_size(batch_size)
    saved: dict[str, int] = {}
    for tensor in saved_tensors(architecture, batch_size):
        saved[tensor.layer] = saved.get(tensor.layer, 0) + tensor.bytes
    costs = [
        LayerCost(
            name=at.name,
            kind=at.layer.module_name,
            output_shape=at.output_shape,
            parameters=layer_parameters(at.layer, at.input_shape),
            macs=layer_macs(at.layer, at.input_shape),
            saved_bytes=saved.get(at.name, 0),
        )
        for at in placed_layers(architecture)
    ]
    return (*costs, LayerCost("loss", "CrossEntropyLoss", (), 0, 0, saved["loss"]))


# ---------------------------------------------------------------- saved for backward


@dataclass
class _Tensor:
    """One activation on its way through the network; views share the object."""

    elements: int
    needs_gradient: bool  # a layer with parameters lies before it
    saved: bool = False


def saved_tensors(architecture: Architecture, batch_size: int = 1) -> tuple[SavedTensor, ...]:
    """What autograd keeps from forward and loss for backward, parameters excluded.

    float32, as on CUDA (dropout masks of one byte an element). A tensor that several
    layers keep is listed once, under the first layer that keeps it; layers before the
    first parameters keep nothing, because no gradient passes them. The last entries are
    the loss's: the log-softmax, the labels and the total weight.
    Source: the formulas torch derives its backward pass from (Paszke2019);
    tests/test_saved.py compares with torch's own hooks.
    """
    _check_batch_size(batch_size)
    kept: list[SavedTensor] = []

    def keep(tensor: _Tensor, layer: str, kind: str) -> None:
        if not tensor.saved:
            tensor.saved = True
            kept.append(SavedTensor(layer, kind, batch_size * tensor.elements * FLOAT32_BYTES))

    def run(layers: Sequence[Layer], shape: Shape, tensor: _Tensor, prefix: str) -> _Tensor:
        for name, layer in named_children(layers):
            path = prefix + name
            after = output_shape(layer, shape)
            if isinstance(layer, Block):
                tensor = run(layer.layers, shape, tensor, f"{path}.")
            elif isinstance(layer, Branches):
                ends = [run((branch,), shape, tensor, f"{path}.") for branch in layer.branches]
                tensor = _Tensor(prod(after), any(end.needs_gradient for end in ends))
            else:
                tensor = step(layer, path, tensor, after, shape)
            shape = after
        return tensor

    def step(layer: Leaf, path: str, tensor: _Tensor, after: Shape, before: Shape) -> _Tensor:
        if isinstance(layer, Flatten) or layer == Dropout(0):
            return tensor
        has_parameters = isinstance(layer, Conv | Linear | BatchNorm)
        result = _Tensor(prod(after), tensor.needs_gradient or has_parameters)
        if not result.needs_gradient:
            return result
        match layer:
            case Conv() | Linear():
                keep(tensor, path, "input")
            case BatchNorm():
                keep(tensor, path, "input")
                for statistic in ("batch_mean", "batch_inverse_deviation"):
                    kept.append(SavedTensor(path, statistic, before[0] * FLOAT32_BYTES))
            case ReLU():
                keep(result, path, "relu_result")
            case Sigmoid():
                keep(result, path, "sigmoid_result")
            case MaxPool():
                keep(tensor, path, "pool_input")
                kept.append(
                    SavedTensor(path, "pool_indices", batch_size * prod(after) * INT64_BYTES)
                )
            case AvgPool():
                keep(tensor, path, "pool_input")
            case Dropout(probability=1):  # a product with a single zero
                kept.append(SavedTensor(path, "mul_other", FLOAT32_BYTES))
            case Dropout():
                kept.append(
                    SavedTensor(path, "dropout_mask", batch_size * prod(after) * BOOL_BYTES)
                )
        return result

    shape = architecture.input_shape
    images = _Tensor(prod(shape), needs_gradient=False)
    scores = run(architecture.layers, shape, images, "")
    kept.append(SavedTensor("loss", "log_softmax", batch_size * scores.elements * FLOAT32_BYTES))
    kept.append(SavedTensor("loss", "labels", batch_size * INT64_BYTES))
    kept.append(SavedTensor("loss", "total_weight", FLOAT32_BYTES))
    return tuple(kept)


def saved_bytes(architecture: Architecture, batch_size: int = 1) -> int:
    """Bytes kept from forward and loss for backward, for the whole batch in float32."""
    return sum(tensor.bytes for tensor in saved_tensors(architecture, batch_size))


def _check_batch_size(batch_size: int) -> None:
    if batch_size < 1:
        raise NinlabError(f"the batch size must be at least 1, not {batch_size}")
