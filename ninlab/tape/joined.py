"""What does a step do whose layers are computed together, several by one operator?

`roles` says which layers are joined, from the architecture alone. `JoinedPlayer` plays their
operators, and all others as `rules` has them. Joined layers leave their maps in channels_last, so
the whole step is one of channels_last: where torch has to copy because something lies otherwise,
the copy is played, too. `ninlab.fused` joins the layers of a module; it is the second opinion on
all of this, and never asked here.

Known limits. Where windows of one pixel read an image of one channel, or branches hand it on, torch
cannot tell the layouts apart and makes maps channel by channel; the copies that this leads to are
left out. So are the partial sums of the kernels, which are scratch. And where branches end in maps
of one pixel, a single image's gradients are copied here, while torch takes them as they lie: some
hundred bytes (`tests/test_liveness.py` shows both).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from enum import Enum, auto
from math import prod
from typing import assert_never

from ninlab.architectures import Architecture
from ninlab.layers import (
    AvgPool,
    BatchNorm,
    Block,
    Branches,
    Conv,
    Flatten,
    GlobalAvgPool,
    Layer,
    Leaf,
    MaxPool,
    ReLU,
    named_blocks,
    named_children,
)
from ninlab.reports import Category
from ninlab.shapes import leaf_shape, parameter_counts, placed_layers, product_macs
from ninlab.steps import FLOAT32_BYTES, Kernels, Precision, SavedKind
from ninlab.tape.rules import Player
from ninlab.tape.writer import Backward, Node, Value
from ninlab.units import Shape

FEW_CHANNELS = 8
"""An image of fewer channels is folded for a convolution that strides."""

CHAINED_CHANNELS = 128
"""The widest block of which the 1x1 layers are computed together: a program sums a whole weight."""

ALIGNED_CHANNELS = 8
"""The multiple of channels that a 1x1 layer needs on both sides to be a matrix product."""

PLACES_IN_A_WINDOW = 255
"""The most that a byte tells from one another, and from no place at all."""


class Role(Enum):
    """What a layer is to the operator that computes it."""

    CONVOLUTION_RELU = auto()  # with the ReLU behind it
    CONVOLUTION = auto()  # alone: its bias is added by the operator behind it
    PRODUCT_RELU = auto()
    PRODUCT = auto()
    PARAMETERS = auto()  # for the chain behind it
    CHAIN = auto()  # ReLU, 1x1, ReLU, 1x1
    POOL = auto()  # bias, ReLU and max pool
    NOTHING = auto()  # a ReLU that another layer's operator applies


# ---------------------------------------------------------------- which layers are joined


def roles(architecture: Architecture, kernels: Kernels) -> Mapping[str, Role]:
    """The roles of the layers that those kernels join, by dotted module path.

    Raises ShapeError when a layer cannot read its input.
    """
    if kernels is Kernels.TORCH:
        return {}
    channels = {at.name: at.input_shape[0] for at in placed_layers(architecture)}
    row = [*_row(architecture.layers), *[("", None)] * 7]
    found: dict[str, Role] = {}
    place = 0
    while place < len(row) - 7:
        window = row[place : place + 7]
        match = (kernels is Kernels.CHAINED and _chain(window, channels)) or _pair(window, channels)
        found |= zip((path for path, _ in window), match, strict=False)
        place += max(1, len(match))
    return found


Place = tuple[str, Leaf | None]
"""(dotted module path, layer), or no layer where a layer does not read what the one before made."""


def _row(layers: Sequence[Layer], prefix: str = "") -> Iterator[Place]:
    """The layers in order of execution, with gaps around branches."""
    for name, layer in named_children(layers):
        path = prefix + name
        if isinstance(layer, Block):
            yield from _row(layer.layers, f"{path}.")
        elif isinstance(layer, Branches):
            yield "", None
            for branch_name, branch in named_blocks(layer):
                yield from _row(branch.layers, f"{path}.{branch_name}.")
                yield "", None
        else:
            yield path, layer


def _pair(window: Sequence[Place], channels: Mapping[str, int]) -> tuple[Role, ...]:
    """A convolution and its ReLU, and the max pool behind them if there is one."""
    (path, conv), (_, relu), (_, pool), *_ = window
    if not (_is_plain(conv) and isinstance(relu, ReLU)):
        return ()
    by_product = _is_product(conv, channels[path])
    if not _has_few_places(pool):
        return Role.PRODUCT_RELU if by_product else Role.CONVOLUTION_RELU, Role.NOTHING
    return Role.PRODUCT if by_product else Role.CONVOLUTION, Role.NOTHING, Role.POOL


_CHAIN = (
    *(Role.CONVOLUTION, Role.NOTHING, Role.PARAMETERS, Role.NOTHING),
    *(Role.CHAIN, Role.NOTHING, Role.POOL),
)


def _chain(window: Sequence[Place], channels: Mapping[str, int]) -> tuple[Role, ...]:
    """A block of a convolution and two 1x1 layers, all of one narrow width, and its pool."""
    layers = [layer for _, layer in window]
    convs = [(path, layer) for path, layer in window[:6:2] if _is_plain(layer)]
    if not (
        len(convs) == 3
        and all(isinstance(layer, ReLU) for layer in layers[1:6:2])
        and _has_few_places(layers[6])
    ):
        return ()
    widths = {layer.out_channels for _, layer in convs if isinstance(layer, Conv)}
    are_products = all(_is_product(layer, channels[path]) for path, layer in convs[1:])
    return _CHAIN if are_products and len(widths) == 1 and max(widths) <= CHAINED_CHANNELS else ()


def _is_plain(layer: Leaf | None) -> bool:
    return isinstance(layer, Conv) and layer.bias and layer.groups == 1


def _is_product(layer: Leaf | None, in_channels: int) -> bool:
    return (
        isinstance(layer, Conv)
        and (layer.kernel_size, layer.stride, layer.padding) == (1, 1, 0)
        and in_channels % ALIGNED_CHANNELS == layer.out_channels % ALIGNED_CHANNELS == 0
    )


def _has_few_places(layer: Leaf | None) -> bool:
    return isinstance(layer, MaxPool) and layer.kernel_size**2 <= PLACES_IN_A_WINDOW


# ---------------------------------------------------------------- what they do


class JoinedPlayer(Player):
    """Plays a step in channels_last of a network with joined layers.

    Its images come in the type in which it computes, as `training` picks them.
    """

    in_channels_last = True

    def __init__(self, precision: Precision, found: Mapping[str, Role], *, training: bool) -> None:
        super().__init__(precision, training=training)
        self.image_bytes = self.compute_bytes
        self.roles = found
        self._awaited: list[Value] = []  # parameters that the operator behind them needs

    def _lays_last(self, shape: Shape) -> bool:
        return _is_laid_out(shape)

    def _leaf(self, path: str, layer: Leaf, value: Value) -> Value:
        role = self.roles.get(path)
        if role is None:
            return self._alone(path, layer, value)
        self.writer.layer = path
        match role:
            case Role.NOTHING:
                return value.view()
            case Role.PARAMETERS:
                self._awaited += self.parameters_of(parameter_counts(layer, value.shape))
                return value.view()
            case Role.POOL:
                assert isinstance(layer, MaxPool)
                return self._bias_relu_max_pool(value, leaf_shape(layer, value.shape))
        assert isinstance(layer, Conv)
        weight, bias = self.parameters_of(parameter_counts(layer, value.shape))
        shape = leaf_shape(layer, value.shape)
        match role:
            case Role.CONVOLUTION_RELU:
                return self._bias_relu(self._without_bias(layer, value, weight, shape), bias)
            case Role.PRODUCT_RELU:
                return self._product_bias_relu(value, weight, bias, shape)
            case Role.CONVOLUTION:
                result = self._without_bias(layer, value, weight, shape)
            case Role.PRODUCT:
                result = self._product(value, weight, shape)
            case Role.CHAIN:
                result = self._chain(value, weight, shape)
            case _:
                assert_never(role)
        self._awaited.append(bias)
        return result

    # ------------------------------------------------------------ joined layers

    def _without_bias(self, layer: Conv, value: Value, weight: Value, shape: Shape) -> Value:
        """The convolution alone."""
        if layer.stride > 1 and value.shape[0] < FEW_CHANNELS:
            return self._convolution_of_folded(layer, value, weight, shape)
        copy = self.cast(weight, self.compute_bytes)
        if copy.storage is not weight.storage:  # autocast keeps it for who reads it next
            self.casts.append(copy)
        source = self.cast(value, self.compute_bytes)
        return self._convolved(source, copy, (), _macs(weight, shape), shape)

    def _convolution_of_folded(
        self, layer: Conv, value: Value, weight: Value, shape: Shape
    ) -> Value:
        """A convolution without stride, of squares of pixels."""
        stride, side = layer.stride, -(-layer.kernel_size // layer.stride)
        height, width = (count - 1 + side for count in shape[1:])
        channels = value.shape[0] * stride**2
        fits = layer.padding == 0 and (height * stride, width * stride) == value.shape[1:]
        images = self._folded(value, (channels, height, width), is_padded=not fits)
        window, fits = (channels, side, side), layer.kernel_size == side * stride
        weights = self._folded(weight, window, is_padded=not fits, count=shape[0])
        copy = self.cast(weights, self.compute_bytes)
        source = self.cast(images, self.compute_bytes)
        result = self._convolved(source, copy, (), _macs(weights, shape), shape)
        for each in (copy, weights, images):
            self.writer.drop(each.storage)
        return result

    def _folded(
        self, value: Value, shape: Shape, *, is_padded: bool, count: int | None = None
    ) -> Value:
        """The value with squares of pixels as one pixel; of a weight there are count such."""
        width = value.element_bytes
        size = prod(shape) * width
        storage = self.writer.make((0, size) if count is None else (count * size, 0))
        result = Value(storage, shape, width, is_last=True)
        copies = [result.size] if is_padded else []
        made = [self.writer.make(size, Category.TEMPORARY) for size in copies]
        self.writer.call("fold", (value,), (result,), (*made, storage))
        for copy in made:
            self.writer.drop(copy)
        if value.source:
            backward = Backward("fold_backward", (value,), (result,))
            self.writer.remember(result, [backward], copies=copies)
        return result

    def _bias_relu(self, value: Value, bias: Value) -> Value:
        """In place: what the convolution made is no more."""
        self.writer.call("bias_relu_", (value,), (value,))
        return self._relu_of(value, bias)

    def _relu_of(self, value: Value, bias: Value) -> Value:
        """The value, to which the bias and the ReLU are done; its gradient has to pass them yet."""
        result = _last(Value(value.storage, value.shape, value.element_bytes))
        if bias.source:
            self.writer.remember(
                result,
                [Backward("relu_bias_backward", (value, bias), (result, result))],
                ((result.storage, SavedKind.RELU_RESULT),),
                reads_last=_is_laid_out(result.shape) or None,
            )
        return result

    def _bias_relu_max_pool(self, value: Value, shape: Shape) -> Value:
        """One byte a pooled value is kept, and nothing of what was read."""
        (bias,) = self._awaited
        self._awaited = []
        operator = "bias_relu_max_pool"
        if bias.source is None:
            return _last(self.result(operator, (value,), shape, value.element_bytes))
        result = _last(self.new(shape, value.element_bytes))
        codes = self.writer.make((0, prod(shape)))
        self.writer.call(operator, (value,), (result, codes), (result.storage, codes))
        self.writer.remember(
            result,
            [Backward(f"{operator}_backward", (value, bias), (result, codes))],
            ((codes, SavedKind.POOL_CODES),),
            reads_last=_is_laid_out(shape) or None,
        )
        self.writer.drop(codes)
        return result

    def _product_bias_relu(self, value: Value, weight: Value, bias: Value, shape: Shape) -> Value:
        """One product, and two functions to autograd. It sees no copy of the bias."""
        width, macs = value.element_bytes, _macs(weight, shape)
        copy = self.cast(weight, width)
        narrow = self.cast(Value(bias.storage, (), FLOAT32_BYTES), width)
        operator = "_addmm_activation"
        product = self.result(operator, (value, copy), shape, width, macs=macs)
        if copy.source:
            self.writer.remember(
                product,
                (
                    Backward("mm", (value,), (product, copy), macs),
                    Backward("mm", (copy,), (product, value), macs),
                ),
                ((value.storage, SavedKind.INPUT), (copy.storage, SavedKind.WEIGHT_COPY)),
            )
        for each in (narrow, copy):
            self.writer.drop(each.storage)
        return self._relu_of(product, bias)

    def _product(self, value: Value, weight: Value, shape: Shape) -> Value:
        width, macs = value.element_bytes, _macs(weight, shape)
        copy = self.cast(weight, width)
        result = _last(self.result("mm", (value, copy), shape, width, macs=macs))
        if copy.source:
            keeps = ((value.storage, SavedKind.INPUT), (copy.storage, SavedKind.WEIGHT_COPY))
            self.writer.remember(
                result,
                (
                    Backward("mm", (copy,), (result, value), macs),
                    Backward("mm", (value,), (result, copy), macs),
                ),
                keeps if value.source else keeps[:1],
            )
        self.writer.drop(copy.storage)
        return result

    def _chain(self, value: Value, weight3: Value, shape: Shape) -> Value:
        """Of the maps inside nothing is written; the way back computes them again.

        It goes back through one layer after the other: each reads two maps and writes one.
        """
        bias1, weight2, bias2 = self._awaited
        self._awaited = []
        width, macs = value.element_bytes, _macs(weight3, shape)
        copies = [
            self.cast(Value(each.storage, (), FLOAT32_BYTES), width) for each in (weight2, weight3)
        ]
        reads = (value, *copies)
        result = _last(self.result("chain", reads, shape, width, macs=2 * macs))
        if bias1.source:
            of = (value, weight3, weight2, bias1, bias2)  # as its kernel makes their gradients
            kept = [(copy.storage, SavedKind.WEIGHT_COPY) for copy in copies]
            self.writer.remember(
                result,
                [Backward("chain_backward", of, (result, *reads), 5 * macs, passes=2)],
                ((value.storage, SavedKind.INPUT), *kept),
                reads_last=_is_laid_out(shape) or None,
            )
        for copy in copies:
            self.writer.drop(copy.storage)
        return result

    # ------------------------------------------------------------ layouts

    def _alone(self, path: str, layer: Leaf, value: Value) -> Value:
        """A layer that torch computes, with the layout of what it makes."""
        if isinstance(layer, Flatten) and value.is_last and _is_laid_out(value.shape):
            self.writer.layer = path
            shape = leaf_shape(layer, value.shape)
            result = self.result("clone", (value,), shape, value.element_bytes)
            result.source = value.source
            return result
        result = super()._leaf(path, layer, value)
        if isinstance(layer, MaxPool | AvgPool):
            result.is_last = _suggests_last(value)
            if isinstance(result.source, Node) and _is_laid_out(result.shape):
                result.source.reads_last = result.is_last
        elif isinstance(layer, GlobalAvgPool):
            result = self._as_strided(value, result)
        elif not isinstance(layer, Conv):
            result.is_last = value.is_last
        if isinstance(layer, BatchNorm) and isinstance(result.source, Node):
            result.source.reads_last = value.is_last if _is_laid_out(value.shape) else None
        return result

    def _convolved(
        self, source: Value, weight: Value, bias: Sequence[Value], macs: int, shape: Shape
    ) -> Value:
        """In channels_last; the way back brings the gradient into the layout of what was read."""
        result = _last(super()._convolved(source, weight, bias, macs, shape))
        if isinstance(result.source, Node):
            result.source.reads_last = _suggests_last(source)
        return result

    def _as_strided(self, value: Value, result: Value) -> Value:
        """A mean as ATen lays it out where it averages maps in channels_last: a view of it."""
        if not _suggests_last(value):
            return result
        view = Value(result.storage, result.shape, result.element_bytes, is_last=True)
        if result.source:
            backward = (
                Backward("new_zeros", (result,)),
                Backward("copy_", (), (view,), is_copy=True),
            )
            self.writer.remember(view, backward)
        return view

    def _join(self, path: str, branches: Branches, parts: list[Value]) -> Value:
        are_last = all(map(_suggests_last, parts))
        result = super()._join(path, branches, parts)
        result.is_last = are_last
        return result


def _macs(weight: Value, shape: Shape) -> int:
    return product_macs(weight.size[0] // weight.element_bytes, shape)


def _last(value: Value) -> Value:
    """The value, which lies in channels_last."""
    value.is_last = True
    return value


def _is_laid_out(shape: Shape) -> bool:
    """Whether the two layouts of such maps differ: they have several channels and pixels."""
    return len(shape) == 3 and shape[0] > 1 and prod(shape[1:]) > 1


def _suggests_last(value: Value) -> bool:
    """Whether torch takes the value to be in channels_last."""
    return value.is_last and value.shape != (1, 1, 1)
