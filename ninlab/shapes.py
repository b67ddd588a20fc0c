"""What does each layer put out, and how many parameters and MACs has it?

The arithmetic of layers in closed form, without torch, for one image: what `formulas` adds up over
a network and `tape` plays through a step. `placed_layers` gives each layer of a network the shape
that it meets there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import assert_never

from ninlab.architectures import Architecture
from ninlab.errors import ShapeError
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
    walk,
)
from ninlab.units import Shape, format_shape


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
        case Conv(groups=groups):
            channels, height, width = _map(layer, input_shape)
            if channels % groups or layer.out_channels % groups:
                raise ShapeError(
                    f"{groups} groups must divide the {channels} input "
                    f"and {layer.out_channels} output channels"
                )
            return (layer.out_channels, _windows(layer, height), _windows(layer, width))
        case MaxPool() | AvgPool():
            channels, height, width = _map(layer, input_shape)
            if 2 * layer.padding > layer.kernel_size:
                raise ShapeError(
                    f"pooling pads by at most half its window of {layer.kernel_size}, "
                    f"not by {layer.padding}"
                )
            return (channels, _windows(layer, height), _windows(layer, width))
        case Linear(out_features=out_features):
            if len(input_shape) != 1:
                raise ShapeError(
                    f"a linear layer reads flat features, not {format_shape(input_shape)}; "
                    "flatten first"
                )
            return (out_features,)
        case BatchNorm():
            return _map(layer, input_shape)
        case GlobalAvgPool():
            return (_map(layer, input_shape)[0], 1, 1)
        case Flatten():
            return (prod(input_shape),)
        case Dropout():
            return input_shape
    if isinstance(layer, Activation):
        return input_shape
    assert_never(layer)


def _map(layer: Leaf, shape: Shape) -> tuple[int, int, int]:
    """The shape of a map, which the layer reads. Raises ShapeError for that of no map."""
    if len(shape) != 3:
        raise ShapeError(
            f"a {type(layer).__name__} reads channels x height x width, not {format_shape(shape)}"
        )
    return shape


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


def receptive_field(architecture: Architecture) -> int:
    """Side of the part of the image, in pixels, that one value of the last maps depends on.

    A window of k makes the side k - 1 pixels of its input longer. Neighbors among these lie as far
    apart in the image as the strides before them multiply to. What padding adds counts as image,
    of branches the widest counts. Layers that see whole maps, as a global average, are left out.
    """

    def widen(_: str, leaf: Leaf, seen: tuple[int, int]) -> tuple[int, int]:
        side, apart = seen
        if isinstance(leaf, Conv | MaxPool | AvgPool):
            return side + (leaf.kernel_size - 1) * apart, apart * leaf.stride
        return seen

    side, _ = walk(architecture.layers, (1, 1), widen, lambda _path, _branches, ends: max(ends))
    return side


def at_input(architecture: Architecture, input_shape: Shape) -> Architecture:
    """The same layers for another input, which the title names unless it is the usual one.

    Raises ShapeError when they cannot read it.
    """
    placed_layers(architecture, input_shape)  # raises where a layer cannot read
    title = architecture.title_at(input_shape)
    return replace(architecture, input_shape=input_shape, title=title)


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


def product_macs(weights: int, output_shape: Shape) -> int:
    """Multiply-accumulates of a product: every pixel of the output uses each weight once."""
    return weights * prod(output_shape[1:])


def layer_macs(layer: Leaf, input_shape: Shape) -> int:
    """Multiply-accumulates of one layer on one image; adding the bias is not counted.

    Only convolutions and linear layers have any: each use of a weight is one. Raises
    ShapeError when the layer cannot read the input.
    """
    match layer:
        case Conv() | Linear():
            weights, *_ = parameter_counts(layer, input_shape)
            return product_macs(weights, leaf_shape(layer, input_shape))
        case BatchNorm() | MaxPool() | AvgPool() | GlobalAvgPool() | Dropout() | Flatten():
            return 0
    if isinstance(layer, Activation):
        return 0
    assert_never(layer)
