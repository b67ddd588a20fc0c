"""The chain of two 1x1 layers as Triton kernels: a small network on each pixel.

A tile is some pixels with all their channels. What a 1x1 layer makes of a pixel depends on that
pixel alone: so a program takes a tile through both layers, and no map between them is ever
written. The backward pass needs these maps again, and computes them again. Tensor cores do that in
less time than it takes to keep them in memory.

The backward pass goes back through one layer at a time. A program that went through both would sum
the gradients of two weights, for which it has not enough registers. So two times it reads two maps
and writes one: six passes. Layer by layer they are fourteen: three for each of the two ReLUs with
their biases, and two for each of the four products.
"""

from __future__ import annotations

import triton
import triton.language as tl

from ninlab.fused.passes import relu


@triton.jit
def _square(weight, C: tl.constexpr, BLOCK_C: tl.constexpr):
    """A weight as (outputs, inputs), with zeros behind its channels."""
    channel = tl.arange(0, BLOCK_C)
    row, column = channel[:, None], channel[None, :]
    return tl.load(weight + row * C + column, mask=(row < C) & (column < C), other=0)


@triton.jit
def _line(bias, C: tl.constexpr, BLOCK_C: tl.constexpr):
    """A bias as one row, with zeros behind its channels."""
    channel = tl.arange(0, BLOCK_C)[None, :]
    return tl.load(bias + channel, mask=channel < C, other=0)


@triton.jit
def _tile(tile, rows, C: tl.constexpr, BLOCK_R: tl.constexpr, BLOCK_C: tl.constexpr):
    """(offsets of the values of that tile, whether they exist)."""
    row = (tile * BLOCK_R + tl.arange(0, BLOCK_R))[:, None]
    channel = tl.arange(0, BLOCK_C)[None, :]
    return row * C + channel, (row < rows) & (channel < C)


@triton.jit(do_not_specialize=["rows"])
def chain_kernel(
    maps,
    bias1,
    weight2,
    bias2,
    weight3,
    result,
    rows,
    C: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_C: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Tile by tile, weight3 relu(weight2 relu(maps + bias1) + bias2)."""
    kind = maps.dtype.element_ty
    second, third = _square(weight2, C, BLOCK_C).T, _square(weight3, C, BLOCK_C).T
    added1, added2 = _line(bias1, C, BLOCK_C).to(kind), _line(bias2, C, BLOCK_C)
    for tile in range(tl.program_id(0), tl.cdiv(rows, BLOCK_R), tl.num_programs(0)):
        at, exists = _tile(tile, rows, C, BLOCK_R, BLOCK_C)
        values = relu(tl.load(maps + at, mask=exists, other=0) + added1).to(kind)
        values = relu(tl.dot(values, second, input_precision=PRECISION) + added2).to(kind)
        values = tl.dot(values, third, input_precision=PRECISION)
        tl.store(result + at, values.to(kind), mask=exists)


@triton.jit(do_not_specialize=["rows"])
def chain_backward_kernel(
    gradient,
    maps,
    bias1,
    weight2,
    bias2,
    weight,
    passed,
    to_weight,
    to_biases,
    rows,
    C: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_C: tl.constexpr,
    IS_THIRD: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Back through one 1x1 layer, the second or the third, and the ReLU before it.

    gradient is of what the layer made, and passed of what it had read without bias and ReLU. What
    it had read is computed from the maps. The second layer sums gradients of both biases: of its
    own all that arrives, of the first all that passes.
    """
    kind = maps.dtype.element_ty
    square, added1 = _square(weight, C, BLOCK_C), _line(bias1, C, BLOCK_C).to(kind)
    if IS_THIRD:
        second, added2 = _square(weight2, C, BLOCK_C).T, _line(bias2, C, BLOCK_C)
    of_weight = tl.zeros([BLOCK_C, BLOCK_C], tl.float32)
    of_bias1, of_bias2 = tl.zeros([BLOCK_C], tl.float32), tl.zeros([BLOCK_C], tl.float32)
    for tile in range(tl.program_id(0), tl.cdiv(rows, BLOCK_R), tl.num_programs(0)):
        at, exists = _tile(tile, rows, C, BLOCK_R, BLOCK_C)
        read = relu(tl.load(maps + at, mask=exists, other=0) + added1).to(kind)
        if IS_THIRD:
            read = relu(tl.dot(read, second, input_precision=PRECISION) + added2).to(kind)
        arrives = tl.load(gradient + at, mask=exists, other=0)
        of_weight = tl.dot(arrives.T, read, of_weight, input_precision=PRECISION)
        passes = tl.where(read <= 0, 0.0, tl.dot(arrives, square, input_precision=PRECISION))
        tl.store(passed + at, passes.to(kind), mask=exists)
        if not IS_THIRD:
            of_bias1 += tl.sum(passes, 0)
            of_bias2 += tl.sum(arrives.to(tl.float32), 0)
    at, exists = _tile(0, C, C, BLOCK_C, BLOCK_C)
    tl.store(to_weight + tl.program_id(0) * C * C + at, of_weight, mask=exists)
    if not IS_THIRD:
        channel, at = tl.arange(0, BLOCK_C), to_biases + tl.program_id(0) * 2 * C
        tl.store(at + channel, of_bias1, mask=channel < C)
        tl.store(at + C + channel, of_bias2, mask=channel < C)
