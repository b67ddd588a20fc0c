"""How are maps divided among the programs of a kernel, and what scratch do these need?

Arithmetic of shapes alone, without Triton. A program computes tiles: some rows of a map (one for
each pixel) of a block of its channels. What is summed over all pixels, such as the gradient of a
bias, is summed by a fixed number of programs, each of which leaves a partial sum. All sizes are
constants that no device changes. So a step has the same bits wherever it runs, and how much
scratch it takes is known before.
"""

from __future__ import annotations

from collections.abc import Sequence

from ninlab.errors import KernelsError, NinlabError, quoted

TILE = 1024
"""Values of a tile: each thread has as many as 16 bytes of them, which it loads at once."""

WIDEST_BLOCK = 128
"""Channels of a tile at most, so that it has 8 rows at least."""

SUMMING_PROGRAMS = 512
"""Most programs that sum over the pixels of a block of channels.

That is about four for each of the 132 multiprocessors of an H100, which wait for memory in turn."""

CHAIN_ROWS = 64
"""Pixels of a chain's tile: as many rows as four warps multiply at once on an H100."""

CHAIN_PROGRAMS = 128
"""Most programs that sum gradients of a chain's weights: one for nearly each multiprocessor.

Each leaves a partial sum as large as the weight."""

WIDEST_WINDOW = 7
"""Side of the widest window, and the longest stride, of a pool that has a kernel.

The kernels have code for each place of a window or of a cell: that of 15 x 15 takes minutes to
compile."""

_MOST_VALUES = 2**31  # from so many on, an offset is no int32


def tile(channels: int) -> tuple[int, int]:
    """(rows, channels) of a tile of maps of so many channels, both powers of two.

    The block of channels is the widest that leaves no thread without work. Where that is below 16,
    32 bytes of bfloat16, it is the narrowest that holds all channels.
    """
    divisor = channels & -channels
    covering = 1 << (channels - 1).bit_length()
    block = min(WIDEST_BLOCK, divisor if divisor >= 16 else covering)
    return TILE // block, block


def warps(element_bytes: int) -> int:
    """Groups of 32 threads that compute a tile of such values."""
    return TILE * element_bytes // (32 * 16)


def has_kernel(kernel: int, stride: int) -> bool:
    """Whether a max pool of that window has a kernel."""
    return max(kernel, stride) <= WIDEST_WINDOW


def pooled_sides(sides: Sequence[int], kernel: int, stride: int, padding: int) -> list[int]:
    """Height and width of pooled maps. Raises NinlabError where torch makes none, either."""
    if padding > kernel // 2:
        raise NinlabError(f"a padding of {padding} is more than half of a window of {kernel}")
    pooled = [(side + 2 * padding - kernel) // stride + 1 for side in sides]
    if min(pooled) < 1:
        shown = "x".join(map(str, sides))
        raise NinlabError(f"maps of {shown} are smaller than a window of {kernel}x{kernel}")
    return pooled


def cells(side: int, stride: int, padding: int) -> int:
    """How many cells of stride positions cover a side of a map and the padding before it.

    The backward pass of a pool takes a cell of stride x stride positions for a row.
    """
    return -(-(side + padding) // stride)


def summing_programs(rows: int, channels: int) -> int:
    """How many programs sum over so many rows of a block of channels."""
    return min(SUMMING_PROGRAMS, -(-rows // tile(channels)[0]))


def partial_bytes(rows: int, channels: int) -> int:
    """Bytes of the float32 partial sums of a bias's gradient, while its operator runs.

    rows are the pixels of all maps for `reference.relu_bias_backward`, and all their `cells` for
    `reference.bias_relu_max_pool_backward` of windows up to `WIDEST_WINDOW`.
    """
    return summing_programs(rows, channels) * channels * 4


def chain_programs(rows: int) -> int:
    """How many programs sum the gradients of a chain's parameters over so many pixels."""
    return min(CHAIN_PROGRAMS, -(-rows // CHAIN_ROWS))


def chain_partial_bytes(rows: int, channels: int) -> int:
    """Bytes of the float32 partial sums of `reference.chain_backward`: a weight, two biases.

    The second weight's partial sums are written over the third's.
    """
    return chain_programs(rows) * (channels + 2) * channels * 4


def check(values: int) -> None:
    """Raise KernelsError for maps of so many values that their offsets are no int32."""
    if values >= _MOST_VALUES:
        raise KernelsError(
            f"fused kernels compute maps of fewer than 2**31 values, not of {quoted(values)}: "
            "take a smaller batch"
        )
