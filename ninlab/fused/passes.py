"""Fused operators that pass once over maps, as Triton kernels: bias, ReLU, max pool, a batch.

Maps lie in channels_last: as rows, one for each pixel, of as many values as there are channels. A
program reads a tile of them, computes in registers, and writes. What several layers do to a tile
then costs no more than to read and to write it once, and that is all that fusion is.

A bias is rounded to the maps' type, and so is a sum before it is compared: values, and the place
of the largest, are torch's to the bit. `kernels` starts what is defined here. Shapes are constants
of the code, all but the number of rows: the last batch of an epoch may be smaller.
"""

from __future__ import annotations

import triton
import triton.language as tl

from ninlab.fused import reference

CUT = tl.constexpr(reference.CUT)

# ---------------------------------------------------------------- parts of kernels


@triton.jit
def _place(C: tl.constexpr, BLOCK_C: tl.constexpr):
    """(first tile of this program, its channels as one row, whether these exist).

    Programs start in the order of their numbers: first those of all channels of one tile, which
    read memory that lies side by side.
    """
    BLOCKS: tl.constexpr = (C + BLOCK_C - 1) // BLOCK_C
    channel = (tl.program_id(0) % BLOCKS * BLOCK_C + tl.arange(0, BLOCK_C))[None, :]
    return tl.program_id(0) // BLOCKS, channel, channel < C


@triton.jit
def _programs(C: tl.constexpr, BLOCK_C: tl.constexpr):
    """How many programs share the tiles of a block of channels."""
    return tl.num_programs(0) // ((C + BLOCK_C - 1) // BLOCK_C)


@triton.jit
def _rows_of(tile, BLOCK_R: tl.constexpr):
    """The rows of that tile, as one column."""
    return (tile * BLOCK_R + tl.arange(0, BLOCK_R))[:, None]


@triton.jit
def _biased(values, bias):
    """The sum in the type of both, as torch would have stored it, then in float32."""
    return (values + bias).to(tl.float32)


@triton.jit
def relu(values):
    """The values, and 0 in place of those below it; NaN stays."""
    return tl.where(values < 0, 0.0, values)


# ---------------------------------------------------------------- kernels


@triton.jit(do_not_specialize=["rows"])
def bias_relu_kernel(
    maps, bias, rows, C: tl.constexpr, BLOCK_R: tl.constexpr, BLOCK_C: tl.constexpr
):
    """Turn maps into relu(maps + bias)."""
    tile, channel, exists = _place(C, BLOCK_C)
    row = _rows_of(tile, BLOCK_R)
    at, inside = row * C + channel, (row < rows) & exists
    values = tl.load(maps + at, mask=inside)
    added = tl.load(bias + channel, mask=exists).to(values.dtype)
    tl.store(maps + at, relu(_biased(values, added)).to(values.dtype), mask=inside)


@triton.jit(do_not_specialize=["rows"])
def relu_bias_backward_kernel(
    gradient,
    result,
    passed,
    partial,
    rows,
    C: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """The gradient where the result is above 0, and what of it passed through this program."""
    first, channel, exists = _place(C, BLOCK_C)
    total = tl.zeros([BLOCK_R, BLOCK_C], tl.float32)
    for tile in range(first, tl.cdiv(rows, BLOCK_R), _programs(C, BLOCK_C)):
        row = _rows_of(tile, BLOCK_R)
        at, inside = row * C + channel, (row < rows) & exists
        value = tl.load(result + at, mask=inside, other=0)
        arrived = tl.load(gradient + at, mask=inside, other=0)
        passes = tl.where(value <= 0, 0.0, arrived.to(tl.float32))
        tl.store(passed + at, passes.to(arrived.dtype), mask=inside)
        total += passes
    tl.store(partial + first * C + channel, tl.sum(total, 0)[None, :], mask=exists)


@triton.jit(do_not_specialize=["rows"])
def bias_relu_max_pool_kernel(
    maps,
    bias,
    pooled,
    codes,
    rows,
    H: tl.constexpr,
    W: tl.constexpr,
    C: tl.constexpr,
    POOLED_H: tl.constexpr,
    POOLED_W: tl.constexpr,
    KERNEL: tl.constexpr,
    STRIDE: tl.constexpr,
    PADDING: tl.constexpr,
    WITH_CODES: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """The maximum of each window of relu(maps + bias), and where in the window it lies.

    A row is a window. The ReLU comes last, once for each window: it changes no order.
    """
    tile, channel, exists = _place(C, BLOCK_C)
    row = _rows_of(tile, BLOCK_R)
    image, top, left = row // (POOLED_H * POOLED_W), row // POOLED_W % POOLED_H, row % POOLED_W
    here = (row < rows) & exists
    added = tl.load(bias + channel, mask=exists).to(maps.dtype.element_ty)
    largest = tl.full([BLOCK_R, BLOCK_C], float("-inf"), tl.float32)
    place = tl.zeros([BLOCK_R, BLOCK_C], tl.int32)
    for code in tl.static_range(KERNEL * KERNEL):
        h = top * STRIDE - PADDING + code // KERNEL
        w = left * STRIDE - PADDING + code % KERNEL
        inside = here & (h >= 0) & (h < H) & (w >= 0) & (w < W) if PADDING > 0 else here
        value = tl.load(maps + ((image * H + h) * W + w) * C + channel, mask=inside)
        value = _biased(value, added)
        larger = (value > largest) | (value != value)  # NaN is the largest, as in torch
        if PADDING > 0:
            larger = larger & inside
        largest = tl.where(larger, value, largest)
        place = tl.where(larger, code, place)
    at = row * C + channel
    tl.store(pooled + at, relu(largest).to(pooled.dtype.element_ty), mask=here)
    if WITH_CODES:
        tl.store(codes + at, tl.where(largest <= 0, CUT, place).to(tl.uint8), mask=here)


@triton.jit(do_not_specialize=["rows"])
def bias_relu_max_pool_backward_kernel(
    gradient,
    codes,
    to_maps,
    partial,
    rows,
    H: tl.constexpr,
    W: tl.constexpr,
    C: tl.constexpr,
    POOLED_H: tl.constexpr,
    POOLED_W: tl.constexpr,
    CELLS_H: tl.constexpr,
    CELLS_W: tl.constexpr,
    KERNEL: tl.constexpr,
    STRIDE: tl.constexpr,
    PADDING: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Each position of the maps adds up the gradients of the windows that chose it.

    A row is a cell: STRIDE x STRIDE positions, at the first of which a window begins. Which windows
    hold a position, and what code each has for it, depends on its place in the cell alone: they
    begin in this cell, or less than REACH cells above or to the left. So no window is searched
    for, and no two programs write to one position.
    """
    first, channel, exists = _place(C, BLOCK_C)
    total = tl.zeros([BLOCK_R, BLOCK_C], tl.float32)
    REACH: tl.constexpr = (KERNEL - 1) // STRIDE + 1  # so many windows overlap on a line
    for tile in range(first, tl.cdiv(rows, BLOCK_R), _programs(C, BLOCK_C)):
        row = _rows_of(tile, BLOCK_R)
        image, top, left = row // (CELLS_H * CELLS_W), row // CELLS_W % CELLS_H, row % CELLS_W
        here = (row < rows) & exists
        for position in tl.static_range(STRIDE * STRIDE):
            found = tl.zeros([BLOCK_R, BLOCK_C], tl.float32)
            for window in tl.static_range(REACH * REACH):
                up = REACH - 1 - window // REACH  # the first window first, as torch adds them
                back = REACH - 1 - window % REACH
                i = position // STRIDE + up * STRIDE
                j = position % STRIDE + back * STRIDE
                if i < KERNEL and j < KERNEL:
                    h, w = top - up, left - back
                    at = ((image * POOLED_H + h) * POOLED_W + w) * C + channel
                    inside = here & (h >= 0) & (h < POOLED_H) & (w >= 0) & (w < POOLED_W)
                    code = tl.load(codes + at, mask=inside, other=CUT).to(tl.int32)
                    arrived = tl.load(gradient + at, mask=inside, other=0).to(tl.float32)
                    found += tl.where(code == i * KERNEL + j, arrived, 0.0)
                    if i == 0 and j == 0:  # here each window is met once
                        total += tl.where(code == CUT, 0.0, arrived)
            h = top * STRIDE - PADDING + position // STRIDE
            w = left * STRIDE - PADDING + position % STRIDE
            inside = here & (h >= 0) & (h < H) & (w >= 0) & (w < W)
            to = to_maps + ((image * H + h) * W + w) * C + channel
            tl.store(to, found.to(to_maps.dtype.element_ty), mask=inside)
    tl.store(partial + first * C + channel, tl.sum(total, 0)[None, :], mask=exists)


@triton.jit
def pick_kernel(
    images, indices, picked, pixels, mean, deviation, SHIFTED: tl.constexpr, BLOCK: tl.constexpr
):
    """(pixel / 255 - mean) / deviation of one image; quotients are rounded as torch's on a CPU."""
    pixel = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    image = tl.load(indices + tl.program_id(0)).to(tl.int64)  # of more than 2**31 pixels in all
    value = tl.load(images + image * pixels + pixel, mask=pixel < pixels).to(tl.float32)
    value = tl.div_rn(value, tl.full([BLOCK], 255.0, tl.float32))
    if SHIFTED:
        value = tl.div_rn(value - mean, tl.full([BLOCK], deviation, tl.float32))
    to = picked + tl.program_id(0) * pixels + pixel
    tl.store(to, value.to(picked.dtype.element_ty), mask=pixel < pixels)
