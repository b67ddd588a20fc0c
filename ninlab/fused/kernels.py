"""The fused operators on CUDA, each the namesake of one in `reference`.

Here maps are cut into tiles, as `tiles` says, and kernels are started: those of `passes` and
`chains`. Sizes of tiles are never tried out at run time. What is fastest today may not be tomorrow,
and sums would change with it. ``tools/compile_kernels.py`` shows without a GPU what becomes of
the kernels.
"""

from __future__ import annotations

import torch
import triton
from torch import Tensor

from ninlab.fused import chains, passes, reference, tiles
from ninlab.fused.reference import channels_last, fold, fold_backward, new_maps
from ninlab.fused.tiles import CHAIN_ROWS, TILE

__all__ = [
    "bias_relu_",
    "bias_relu_max_pool",
    "bias_relu_max_pool_backward",
    "chain",
    "chain_backward",
    "fold",
    "fold_backward",
    "pick",
    "relu_bias_backward",
]

# ---------------------------------------------------------------- passes


def bias_relu_(maps: Tensor, bias: Tensor) -> None:
    """`reference.bias_relu_`: reads the maps once and writes them once."""
    dense = channels_last(maps)
    rows, channels = _rows_and_channels(dense)
    passes.bias_relu_kernel[_one_tile_each(rows, channels)](
        *(dense, bias.contiguous(), rows, channels, *tiles.tile(channels)),
        num_warps=_warps(dense),
    )
    if dense is not maps:
        maps.copy_(dense)


def relu_bias_backward(gradient: Tensor, result: Tensor) -> tuple[Tensor, Tensor]:
    """`reference.relu_bias_backward`: reads two maps and writes one."""
    gradient, result = channels_last(gradient), channels_last(result)
    rows, channels = _rows_and_channels(gradient)
    passed = torch.empty_like(gradient)
    partial = _partial_sums(gradient, rows)
    passes.relu_bias_backward_kernel[_summing(partial)](
        *(gradient, result, passed, partial, rows, channels),
        *tiles.tile(channels),
        num_warps=_warps(gradient),
    )
    return passed, partial.sum(0)


def bias_relu_max_pool(
    maps: Tensor, bias: Tensor, kernel: int, stride: int, padding: int, with_codes: bool
) -> tuple[Tensor, Tensor]:
    """`reference.bias_relu_max_pool`: reads the maps and writes the pooled maps and their codes.

    Windows overlap. What several of them read comes from memory once, and else from the cache.
    """
    if not tiles.has_kernel(kernel, stride):
        return reference.bias_relu_max_pool(maps, bias, kernel, stride, padding, with_codes)
    maps = channels_last(maps)
    batch, channels, *sides = maps.shape
    pooled_sides = tiles.pooled_sides(sides, kernel, stride, padding)
    shape = (batch, channels, *pooled_sides)
    pooled = new_maps(maps, *shape)
    tiles.check(max(maps.numel(), pooled.numel()))
    codes = torch.empty(0, dtype=torch.uint8, device=maps.device)
    if with_codes:
        codes = new_maps(maps, *shape, dtype=torch.uint8)
    rows = batch * pooled_sides[0] * pooled_sides[1]
    passes.bias_relu_max_pool_kernel[_one_tile_each(rows, channels)](
        *(maps, bias.contiguous(), pooled, codes, rows, *sides, channels, *pooled_sides),
        *(kernel, stride, padding, with_codes, *tiles.tile(channels)),
        num_warps=_warps(maps),
    )
    return pooled, codes


def bias_relu_max_pool_backward(
    gradient: Tensor,
    codes: Tensor,
    height: int,
    width: int,
    kernel: int,
    stride: int,
    padding: int,
) -> tuple[Tensor, Tensor]:
    """`reference.bias_relu_max_pool_backward`: reads gradient and codes, and writes one map."""
    if not tiles.has_kernel(kernel, stride):
        return reference.bias_relu_max_pool_backward(
            gradient, codes, height, width, kernel, stride, padding
        )
    gradient, codes = channels_last(gradient), channels_last(codes)
    batch, channels, *pooled_sides = gradient.shape
    to_maps = new_maps(gradient, batch, channels, height, width)
    tiles.check(max(to_maps.numel(), gradient.numel()))
    cells = [tiles.cells(side, stride, padding) for side in (height, width)]
    rows = batch * cells[0] * cells[1]
    partial = _partial_sums(gradient, rows)
    passes.bias_relu_max_pool_backward_kernel[_summing(partial)](
        *(gradient, codes, to_maps, partial, rows, height, width, channels, *pooled_sides),
        *(*cells, kernel, stride, padding, *tiles.tile(channels)),
        num_warps=_warps(gradient),
    )
    return to_maps, partial.sum(0)


def pick(
    images: Tensor, indices: Tensor, mean: float, deviation: float, dtype: torch.dtype
) -> Tensor:
    """`reference.pick`: reads a byte a pixel, and writes the pixel in the network's type.

    Indices must be those of images: nothing checks them, for that would wait for the device.
    """
    images, indices = images.contiguous(), indices.contiguous()
    picked = images.new_empty(len(indices), *images.shape[1:], dtype=dtype)
    tiles.check(picked.numel())
    pixels = picked[:1].numel()
    passes.pick_kernel[len(indices), triton.cdiv(pixels, TILE)](
        *(images, indices, picked, pixels, mean, deviation, bool(mean or deviation != 1), TILE),
        num_warps=_warps(picked),
    )
    return picked


# ---------------------------------------------------------------- the chain


def chain(maps: Tensor, bias1: Tensor, weight2: Tensor, bias2: Tensor, weight3: Tensor) -> Tensor:
    """`reference.chain`: reads the maps and writes the result."""
    if not _pays_to_chain(maps):
        return reference.chain(maps, bias1, weight2, bias2, weight3)
    return chained(maps, bias1, weight2, bias2, weight3)


def chain_backward(
    gradient: Tensor, maps: Tensor, bias1: Tensor, weight2: Tensor, bias2: Tensor, weight3: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """`reference.chain_backward`: reads two maps and writes one, two times."""
    if not _pays_to_chain(maps):
        return reference.chain_backward(gradient, maps, bias1, weight2, bias2, weight3)
    return chained_backward(gradient, maps, bias1, weight2, bias2, weight3)


def chained(maps: Tensor, bias1: Tensor, weight2: Tensor, bias2: Tensor, weight3: Tensor) -> Tensor:
    """`chain` by its kernel, whatever the type of the maps."""
    maps = channels_last(maps)
    result = torch.empty_like(maps)
    parameters = [each.contiguous() for each in (bias1, weight2, bias2, weight3)]
    rows, sizes = _sizes_of_chain(maps)
    # Without sums in registers, two programs fit on a multiprocessor.
    chains.chain_kernel[(2 * tiles.chain_programs(rows),)](
        *(maps, *parameters, result, rows),
        **sizes,
        num_warps=4,
        num_stages=2,
    )
    return result


def chained_backward(
    gradient: Tensor, maps: Tensor, bias1: Tensor, weight2: Tensor, bias2: Tensor, weight3: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """`chain_backward` by its kernel, whatever the type of the maps."""
    maps, arrives = channels_last(maps), channels_last(gradient)
    bias1, weight2 = bias1.contiguous(), weight2.contiguous()
    bias2, weight3 = bias2.contiguous(), weight3.contiguous()
    rows, sizes = _sizes_of_chain(maps)
    passed = torch.empty_like(maps)
    partial = maps.new_empty(tiles.chain_programs(rows), *weight2.shape, dtype=torch.float32)
    partial_of_biases = partial.new_empty(len(partial), 2, len(weight2))
    to_weights = []
    for weight, is_third in ((weight3, True), (weight2, False)):
        chains.chain_backward_kernel[(len(partial),)](
            *(arrives, maps, bias1, weight2, bias2, weight, passed, partial, partial_of_biases),
            rows,
            **sizes,
            IS_THIRD=is_third,
            num_warps=8,
            num_stages=2,
        )
        to_weights.append(partial.sum(0))
        arrives = passed  # written over in place: no two programs share a tile
    to_weight3, to_weight2 = to_weights
    # Summed apart: what an operator returns must not be two views of one tensor.
    to_bias1, to_bias2 = (partial_of_biases[:, place].sum(0) for place in range(2))
    return passed, to_bias1, to_weight2, to_bias2, to_weight3


def _pays_to_chain(maps: Tensor) -> bool:
    """Whether tensor cores compute maps again in less time than memory takes to keep them.

    Of float32 they do not, and whether they may round it to TF32 is said to torch's own layers.
    """
    return maps.element_size() == 2


def _sizes_of_chain(maps: Tensor) -> tuple[int, dict[str, object]]:
    """How many pixels there are, and the constants of the kernels."""
    rows, channels = _rows_and_channels(maps)
    return rows, {
        "C": channels,
        "BLOCK_R": CHAIN_ROWS,
        "BLOCK_C": max(16, triton.next_power_of_2(channels)),  # tensor cores take no fewer
        "PRECISION": "ieee",  # for float32 in tests; 16-bit numbers are multiplied exactly
    }


# ---------------------------------------------------------------- parts


def _rows_and_channels(maps: Tensor) -> tuple[int, int]:
    """Its shape as rows; NinlabError where no int32 reaches the last value."""
    tiles.check(maps.numel())
    channels = maps.shape[1]
    return maps.numel() // channels, channels


def _warps(maps: Tensor) -> int:
    return tiles.warps(maps.element_size())


def _one_tile_each(rows: int, channels: int) -> tuple[int]:
    """The grid of programs of which each computes one tile."""
    block_r, block_c = tiles.tile(channels)
    return (triton.cdiv(rows, block_r) * triton.cdiv(channels, block_c),)


def _partial_sums(maps: Tensor, rows: int) -> Tensor:
    """Room for the partial sums over so many rows: (programs, channels), `tiles.partial_bytes`."""
    channels = maps.shape[1]
    return maps.new_empty(tiles.summing_programs(rows, channels), channels, dtype=torch.float32)


def _summing(partial: Tensor) -> tuple[int]:
    """The grid of programs of which each leaves a partial sum."""
    programs, channels = partial.shape
    return (programs * triton.cdiv(channels, tiles.tile(channels)[1]),)
