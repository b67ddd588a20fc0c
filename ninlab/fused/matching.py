"""Which layers of a network can be computed together, and what stands in their place?

Layers of nested ``nn.Sequential`` run one after the other, so they are read as one row, and so is
each branch of our own branches. In a row are looked for: a convolution and its ReLU, and the max
pool behind them; and a narrow NiN block.

Nobody knows what a module of another kind calls, and in which order: it may ask the first layer of
a row for its maps, and not the second. So it stays as it is, with all that it contains. So does a
layer with groups or dilation, and what has a hook or a ``forward`` of its own.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import TypeGuard

from torch import nn

from ninlab.fused import layers
from ninlab.fused.reference import CUT
from ninlab.networks import JoinedBranches
from ninlab.steps import Kernels

Row = list[tuple[str, nn.Module]]
"""(dotted path, layer) of layers of which each reads what the one before it made."""

CHAINED_CHANNELS = 128
"""The widest block. The sums of a weight, 128 x 128 numbers, have to fit a program's registers."""

_ALIGNED = 8  # channels: 16 bytes of bfloat16, which products for tensor cores read at once


def replaced(network: nn.Module, kernels: Kernels) -> dict[str, nn.Module]:
    """What stands under those dotted paths of the network in place of torch's layers."""
    found: dict[str, nn.Module] = {}
    for row in _rows(network):
        place = 0
        while place < len(row):
            match = _match(row[place:], kernels)
            found |= match
            place += max(1, len(match))
    return found


def rebuilt(network: nn.Module, by_path: Mapping[str, nn.Module], path: str = "") -> nn.Module:
    """The network with those layers; what contains none of them is the same object."""
    if path in by_path:
        return by_path[path]
    before = network._modules
    after = {
        name: None if child is None else rebuilt(child, by_path, f"{path}.{name}".lstrip("."))
        for name, child in before.items()
    }
    if all(after[name] is before[name] for name in before):
        return network
    twin = copy.copy(network)
    for name, empty in vars(
        nn.Module()
    ).items():  # parameters, buffers, hooks: the twin's own lists
        if isinstance(empty, dict | set):
            vars(twin)[name] = vars(network)[name].copy()
    twin._modules = after
    return twin


# ---------------------------------------------------------------- rows


def _rows(network: nn.Module) -> Iterator[Row]:
    """The rows of a network, in no order of their own."""
    open_row: Row = []

    def read(module: nn.Module, path: str) -> Iterator[Row]:
        nonlocal open_row
        children = [
            (f"{path}.{name}".lstrip("."), child)
            for name, child in module._modules.items()
            if child is not None
        ]
        if _is(module, nn.Sequential):
            for inner, child in children:
                yield from read(child, inner)
        elif _is(module, JoinedBranches):  # all of which read the same maps
            yield from close()
            for inner, child in children:
                yield from read(child, inner)
                yield from close()
        else:
            open_row.append((path, module))

    def close() -> Iterator[Row]:
        nonlocal open_row
        yield open_row
        open_row = []

    yield from read(network, "")
    yield open_row


def _has_hooks(module: nn.Module) -> bool:
    """Whether somebody watches or changes what the module reads or makes."""
    return any(
        getattr(module, f"_{kind}_hooks")
        for kind in ("forward", "forward_pre", "backward", "backward_pre")
    )


# ---------------------------------------------------------------- matches


def _match(row: Row, kernels: Kernels) -> dict[str, nn.Module]:
    """What replaces the first layers of the row, one for each of them; nothing if no rule holds."""
    chain = _chain(row) if kernels is Kernels.CHAINED else {}
    return chain or _conv_relu(row)


def _conv_relu(row: Row) -> dict[str, nn.Module]:
    """A convolution, its ReLU, and the max pool behind them if there is one."""
    if len(row) < 2:
        return {}
    (path, conv), (relu_path, relu), *rest = row
    if not (_is_plain_conv(conv) and _is(relu, nn.ReLU)):
        return {}
    by_product = _is_product(conv)
    if not (rest and _is_plain_pool(rest[0][1])):
        kind = layers.ProductBiasRelu if by_product else layers.ConvBiasRelu
        return {path: kind(conv), relu_path: layers.DoneElsewhere(path)}
    pool_path, pool = rest[0]
    assert isinstance(pool, nn.MaxPool2d)
    alone = (layers.ProductWithoutBias if by_product else layers.ConvWithoutBias)(conv)
    return {
        path: alone,
        relu_path: layers.DoneElsewhere(pool_path),
        pool_path: layers.BiasReluMaxPool(pool, alone),
    }


def _chain(row: Row) -> dict[str, nn.Module]:
    """The NiN block with its pool, if all of it is as wide as the first layer, which is narrow."""
    if len(row) < 7:
        return {}
    paths = [path for path, _ in row[:7]]
    convs = [layer for _, layer in row[:6:2]]
    relus = [layer for _, layer in row[1:6:2]]
    pool = row[6][1]
    if not (
        all(map(_is_plain_conv, convs))
        and all(_is(relu, nn.ReLU) for relu in relus)
        and _is_plain_pool(pool)
    ):
        return {}
    first, second, third = (conv for conv in convs if isinstance(conv, nn.Conv2d))
    if not (
        _is_product(second)
        and _is_product(third)
        and first.out_channels == second.out_channels == third.out_channels <= CHAINED_CHANNELS
    ):
        return {}
    block_end, pool_path = paths[4], paths[6]
    stem = layers.ConvWithoutBias(first)
    inner = layers.DoneElsewhere(block_end, second)
    chain = layers.Chain(third, stem, inner)
    made = (
        stem,
        layers.DoneElsewhere(block_end),
        inner,
        layers.DoneElsewhere(block_end),
        chain,
        layers.DoneElsewhere(pool_path),
        layers.BiasReluMaxPool(pool, chain),
    )
    return dict(zip(paths, made, strict=True))


def _is(module: nn.Module, kind: type[nn.Module]) -> bool:
    """Whether it is of that kind and no other, and computes what that kind computes."""
    return type(module) is kind and "forward" not in vars(module) and not _has_hooks(module)


def _is_plain_conv(module: nn.Module) -> TypeGuard[nn.Conv2d]:
    return (
        _is(module, nn.Conv2d)
        and isinstance(module, nn.Conv2d)
        and module.bias is not None
        and module.groups == 1
        and module.padding_mode == "zeros"
        and not isinstance(module.padding, str)
        and module.dilation == (1, 1)
        and all(len({*sides}) == 1 for sides in (module.kernel_size, module.stride, module.padding))
    )


def _is_product(conv: nn.Conv2d) -> bool:
    """Whether a product of all pixels and the weight computes it, and tensor cores read both."""
    return (
        (conv.kernel_size, conv.stride, conv.padding) == ((1, 1), (1, 1), (0, 0))
        and conv.in_channels % _ALIGNED == 0
        and conv.out_channels % _ALIGNED == 0
    )


def _is_plain_pool(module: nn.Module) -> TypeGuard[nn.MaxPool2d]:
    if not (_is(module, nn.MaxPool2d) and isinstance(module, nn.MaxPool2d)):
        return False
    sides = [
        {size} if isinstance(size, int) else {*size}
        for size in (module.kernel_size, module.stride, module.padding, module.dilation)
    ]
    return (
        all(len(side) == 1 for side in sides)
        and sides[3] == {1}
        and max(sides[0]) ** 2 <= CUT
        and not module.ceil_mode
        and not module.return_indices
    )
