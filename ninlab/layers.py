"""What is a layer, and in which order do the layers of a network run?

A layer is a frozen value. `Leaf` is the closed union of those that compute; every module that
tells them apart ends in ``typing.assert_never``, so that mypy names each place that a new kind
was forgotten in. `Block` and `Branches` contain others, and are walked through here: by
`named_layers`, which lists, and by `walk`, which carries a value (a shape, a tensor on paper) from
the first layer to the last.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, TypeVar

from ninlab.errors import NinlabError

Value = TypeVar("Value")

# ---------------------------------------------------------------- leaves


class _Named:
    """A kind of layer that no number tells from others of its kind."""

    words: ClassVar[str]

    def __str__(self) -> str:
        """What it is, in a word or two."""
        return self.words


@dataclass(frozen=True)
class Conv:
    """A 2-d convolution with square windows."""

    out_channels: int
    kernel_size: int
    stride: int = 1
    padding: int = 0
    groups: int = 1
    bias: bool = True

    module_name: ClassVar[str] = "Conv2d"

    def __post_init__(self) -> None:
        _check_window(self)
        _check_at_least(1, self, "out_channels", "groups")

    def __str__(self) -> str:
        """In a few words: ``11×11 conv 96 /4``, where /4 is the stride."""
        several = f" in {self.groups} groups" if self.groups > 1 else ""
        return f"{_window(self)} conv {self.out_channels}{_by(self)}{several}"


@dataclass(frozen=True)
class Linear:
    """A fully connected layer on flattened features."""

    out_features: int
    bias: bool = True

    module_name: ClassVar[str] = "Linear"

    def __post_init__(self) -> None:
        _check_at_least(1, self, "out_features")

    def __str__(self) -> str:
        """In a few words: ``linear 4096``."""
        return f"linear {self.out_features}"


@dataclass(frozen=True)
class BatchNorm(_Named):
    """Batch normalization over each channel, with a learned scale and shift."""

    module_name: ClassVar[str] = "BatchNorm2d"
    words: ClassVar[str] = "batch norm"


@dataclass(frozen=True)
class ReLU(_Named):
    """max(x, 0), written to a new tensor."""

    module_name: ClassVar[str] = "ReLU"
    words: ClassVar[str] = "ReLU"


@dataclass(frozen=True)
class Sigmoid(_Named):
    """1 / (1 + exp(-x)), the activation of LeNet."""

    module_name: ClassVar[str] = "Sigmoid"
    words: ClassVar[str] = "sigmoid"


@dataclass(frozen=True)
class _Windowed:
    """A kind of layer that makes one value of each window, without parameters."""

    kernel_size: int
    stride: int
    padding: int = 0

    words: ClassVar[str]

    def __post_init__(self) -> None:
        _check_window(self)

    def __str__(self) -> str:
        """In a few words: ``3×3 max pool /2``, where /2 is the stride."""
        return f"{_window(self)} {self.words}{_by(self)}"


@dataclass(frozen=True)
class MaxPool(_Windowed):
    """Largest value of each window; autograd keeps where it stood."""

    module_name: ClassVar[str] = "MaxPool2d"
    words: ClassVar[str] = "max pool"


@dataclass(frozen=True)
class AvgPool(_Windowed):
    """Mean of each window."""

    module_name: ClassVar[str] = "AvgPool2d"
    words: ClassVar[str] = "mean"


@dataclass(frozen=True)
class GlobalAvgPool(_Named):
    """Mean of each channel over the whole map: (channels, height, width) to (channels, 1, 1)."""

    module_name: ClassVar[str] = "AdaptiveAvgPool2d"
    words: ClassVar[str] = "global average"


@dataclass(frozen=True)
class Dropout:
    """Zeroes each value with that probability during training."""

    probability: float = 0.5

    module_name: ClassVar[str] = "Dropout"

    def __post_init__(self) -> None:
        if not 0 <= self.probability <= 1:
            raise NinlabError(
                f"dropout needs a probability from 0 to 1, not {self.probability}; the usual is 0.5"
            )

    def __str__(self) -> str:
        """In a few words: ``dropout 0.5``."""
        return f"dropout {self.probability:g}"


@dataclass(frozen=True)
class Flatten(_Named):
    """(channels, height, width) to (channels * height * width,); a view, no copy."""

    module_name: ClassVar[str] = "Flatten"
    words: ClassVar[str] = "flatten"


def _check_window(layer: Conv | _Windowed) -> None:
    _check_at_least(1, layer, "kernel_size", "stride")
    _check_at_least(0, layer, "padding")


def _check_at_least(minimum: int, layer: object, *names: str) -> None:
    for name in names:
        if (value := getattr(layer, name)) < minimum:
            raise NinlabError(
                f"the {name} of {type(layer).__name__} must be at least {minimum}, not {value}"
            )


def _window(layer: Conv | _Windowed) -> str:
    return f"{layer.kernel_size}×{layer.kernel_size}"


def _by(layer: Conv | _Windowed) -> str:
    return f" /{layer.stride}" if layer.stride > 1 else ""


Activation = ReLU | Sigmoid
"""Computes each value from one value, without parameters."""

Pool = MaxPool | AvgPool
"""Makes one value of each window."""

Leaf = Activation | Pool | Conv | Linear | BatchNorm | GlobalAvgPool | Dropout | Flatten
"""Every layer that computes. Each has words for its ``str()``, and the name of torch's module."""

# ---------------------------------------------------------------- containers


@dataclass(frozen=True)
class Block:
    """Layers that run one after the other under one name."""

    name: str
    layers: tuple[Layer, ...]

    def __str__(self) -> str:
        """The block's name."""
        return self.name


@dataclass(frozen=True)
class Branches:
    """Blocks that read the same input; their outputs are joined along the channels."""

    name: str
    branches: tuple[Block, ...]

    def __str__(self) -> str:
        """The name of the branches together."""
        return self.name


Container = Block | Branches
Layer = Leaf | Container


def named_children(layers: Sequence[Layer]) -> Iterator[tuple[str, Layer]]:
    """(name, layer) of each layer of one container.

    Blocks and branches carry their own names; a leaf is called after its kind and
    its place among its kind: conv1, relu1, conv2, ... Raises NinlabError when two
    blocks of one container share a name.
    """
    seen: dict[str, int] = {}
    for layer in layers:
        if isinstance(layer, Container):
            name = layer.name
            if name in seen:
                raise NinlabError(
                    f"two blocks of one container are called {name!r}; name each once"
                )
            seen[name] = 1
        else:
            kind = type(layer).__name__.lower()
            seen[kind] = seen.get(kind, 0) + 1
            name = f"{kind}{seen[kind]}"
        yield name, layer


def named_blocks(branches: Branches) -> Iterator[tuple[str, Block]]:
    """(name, block) of each branch. Raises NinlabError when two share a name."""
    for name, block in named_children(branches.branches):
        assert isinstance(block, Block)
        yield name, block


def named_layers(layers: Sequence[Layer], prefix: str = "") -> Iterator[tuple[str, Layer]]:
    """(dotted module path, layer) of every layer, a container before what it contains."""
    for name, layer in named_children(layers):
        path = prefix + name
        yield path, layer
        if isinstance(layer, Block):
            yield from named_layers(layer.layers, f"{path}.")
        elif isinstance(layer, Branches):
            yield from named_layers(layer.branches, f"{path}.")


def named_leaves(layers: Sequence[Layer]) -> Iterator[tuple[str, Leaf]]:
    """(dotted module path, layer) of the layers that compute, in order of execution."""
    for path, layer in named_layers(layers):
        if not isinstance(layer, Container):
            yield path, layer


def walk(
    layers: Sequence[Layer],
    value: Value,
    leaf: Callable[[str, Leaf, Value], Value],
    join: Callable[[str, Branches, list[Value]], Value],
    hold: Callable[[Value], Value] = lambda value: value,
    let_go: Callable[[Value], object] = lambda value: None,
    prefix: str = "",
) -> Value:
    """Carry a value through the layers in order of execution, and return what comes out.

    leaf makes of a layer and its input the layer's output, join makes one value of the
    outputs of branches; both are given the dotted module path. As a container takes its input,
    hold is called with it, and let_go when the container needs one of its values no more: after
    the layer that read it has returned. This is how long a call of ``nn.Sequential`` keeps a
    tensor alive.
    """
    value = hold(value)
    for name, layer in named_children(layers):
        path = prefix + name
        if isinstance(layer, Block):
            result = walk(layer.layers, value, leaf, join, hold, let_go, f"{path}.")
        elif isinstance(layer, Branches):
            ends = [
                walk(branch.layers, value, leaf, join, hold, let_go, f"{path}.{branch_name}.")
                for branch_name, branch in named_blocks(layer)
            ]
            result = join(path, layer, ends)
        else:
            result = leaf(path, layer, value)
        let_go(value)
        value = result
    return value
