"""What scratch do the kernels of `ninlab.fused` take on CUDA?

Gradients of biases, and of a chain's weights, are summed over all pixels: each of a fixed number
of programs leaves a partial sum, and ATen adds those up. `ninlab.fused.tiles` says how many
programs there are, and how large their sums. These grow with the batch up to a bound, in no
straight line: so they are scratch as cuDNN's, and none of the step's tensors.

Known limits. A chain of float32 maps is computed on CUDA by the plain operators of the reference,
whose scratch nobody has looked up.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ninlab.fused import tiles
from ninlab.reductions import Reduction
from ninlab.torch_private import OpOverload

_JOINED = torch.ops.ninlab
_RELU = _JOINED.relu_bias_backward.default
_POOL = _JOINED.bias_relu_max_pool_backward.default
_CHAIN = _JOINED.chain.default
_CHAIN_BACKWARD = _JOINED.chain_backward.default

Reductions = tuple[Reduction | None, ...]


def partial_sums(operator: OpOverload, args: Sequence[Any]) -> tuple[int | None, Reductions] | None:
    """The bytes of the partial sums, and what is summed of them for each result; None without any.

    The bytes are None where nobody knows what the call takes. They are there from behind the
    first result until the last is made.
    """
    if operator is _RELU:
        batch, channels, height, width = args[0].shape
        return _of_bias(batch * height * width, channels)
    if operator is _POOL:
        gradient, _, height, width, _, stride, padding = args
        batch, channels = gradient.shape[:2]
        cells = (tiles.cells(side, stride, padding) for side in (height, width))
        return _of_bias(batch * next(cells) * next(cells), channels)
    if operator is _CHAIN:
        return None if args[0].element_size() == 2 else (None, ())
    if operator is _CHAIN_BACKWARD:
        maps = args[1]
        if maps.element_size() != 2:
            return None, ()
        channels = maps.shape[1]
        rows = maps.numel() // channels
        programs = tiles.chain_programs(rows)
        of_bias, of_weight = (_sum(programs, size) for size in (channels, channels**2))
        sums = (None, of_bias, of_weight, of_bias, of_weight)
        return tiles.chain_partial_bytes(rows, channels), sums
    return None


def _of_bias(rows: int, channels: int) -> tuple[int, Reductions]:
    programs = tiles.summing_programs(rows, channels)
    return tiles.partial_bytes(rows, channels), (None, _sum(programs, channels))


def _sum(programs: int, values: int) -> Reduction:
    """Of the partial sums of so many values each, in single precision."""
    return Reduction((programs, values), (values, 1), (0,), 4, 4)
