"""The chain of two 1x1 layers as Triton kernels: a small network on each pixel.

A tile is some pixels with all their channels. What a 1x1 layer makes of a pixel depends on that
pixel alone: so a program takes a tile through both layers, and no map between them is ever
written. The backward pass needs these maps again, and computes them again. Tensor cores do that in
less time than it takes to keep them in memory.

The backward pass goes back through one layer at a time. A program that went through both would sum
the gradients of two weights, for which it has not enough registers.
"""

from __future__ import annotations

import triton
import triton.language as tl

from ninlab.fused.passes import relu


@triton.jit
def _square(weight, C: tl.constexpr, BLOCK_C: tl.constexpr):
    """A weight as (outputs, inputs), with zeros behind its channels."""
    channel = tl.arange(0, BLOCK_C)
    output, input = channel[:, None], channel[None, :]
    return tl.load(weight + output * C + input, mask=(output < C) & (input < C), other=0)


@triton.jit
def _line(bias, C: tl.constexpr, BLOCK_C: tl.constexpr):
    """A bias as one row, with zeros behind its channels."""
    channel = tl.arange(0, BLOCK_C)[None, :]
    return tl.load(bias + channel, mask=channel < C, other=0)


@triton.jit
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
    """Weight3 relu(weight2 relu(maps + bias1) + bias2), tile by tile."""
    kind = maps.dtype.element_ty
    second, third = _square(weight2, C, BLOCK_C).T, _square(weight3, C, BLOCK_C).T
    added1, added2 = _line(bias1, C, BLOCK_C).to(kind), _line(bias2, C, BLOCK_C)
    channel = tl.arange(0, BLOCK_C)[None, :]
    for tile in range(tl.program_id(0), tl.cdiv(rows, BLOCK_R), tl.num_programs(0)):
        row = (tile * BLOCK_R + tl.arange(0, BLOCK_R))[:, None]
        at, inside = row * C + channel, (row < rows) & (channel < C)
        values = relu(tl.load(maps + at, mask=inside, other=0) + added1).to(kind)
        values = relu(tl.dot(values, second, input_precision=PRECISION) + added2).to(kind)
        values = tl.dot(values, third, input_precision=PRECISION).to(kind)
        tl.store(result + at, values, mask=inside)


@triton.jit
def chain_backward_kernel(
    gradient,
    maps,
    bias1,
    weight2,
    bias2,
    weight,
    passed,
    to_weight,
    to_bias,
    rows,
    C: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_C: tl.constexpr,
    IS_THIRD: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Back through one 1x1 layer and through bias and ReLU before it.

    The gradient is of what the layer made. What it had read is computed from the maps: one bias and
    ReLU for the second layer, and the whole second layer, too, for the third.
    """
    kind = maps.dtype.element_ty
    square = _square(weight, C, BLOCK_C)
    added1 = _line(bias1, C, BLOCK_C).to(kind)
    if IS_THIRD:
        second, added2 = _square(weight2, C, BLOCK_C).T, _line(bias2, C, BLOCK_C)
    sum_of_weight = tl.zeros([BLOCK_C, BLOCK_C], tl.float32)
    sum_of_bias = tl.zeros([BLOCK_C], tl.float32)
    channel = tl.arange(0, BLOCK_C)[None, :]
    for tile in range(tl.program_id(0), tl.cdiv(rows, BLOCK_R), tl.num_programs(0)):
        row = (tile * BLOCK_R + tl.arange(0, BLOCK_R))[:, None]
        at, inside = row * C + channel, (row < rows) & (channel < C)
        read = relu(tl.load(maps + at, mask=inside, other=0) + added1).to(kind)
        if IS_THIRD:
            read = relu(tl.dot(read, second, input_precision=PRECISION) + added2).to(kind)
        arrived = tl.load(gradient + at, mask=inside, other=0)
        sum_of_weight = tl.dot(arrived.T, read, sum_of_weight, input_precision=PRECISION)
        passes = tl.where(read <= 0, 0.0, tl.dot(arrived, square, input_precision=PRECISION))
        sum_of_bias += tl.sum(passes, 0)
        tl.store(passed + at, passes.to(kind), mask=inside)
    one, all_of = tl.arange(0, BLOCK_C), tl.program_id(0) * C
    tl.store(to_bias + all_of + one, sum_of_bias, mask=one < C)
    at, inside = (all_of + one[:, None]) * C + channel, (one[:, None] < C) & (channel < C)
    tl.store(to_weight + at, sum_of_weight, mask=inside)
