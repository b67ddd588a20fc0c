"""What scratch do the kernels of `ninlab.fused` take on CUDA?

Gradients of biases, and of a chain's weights, are summed over all pixels: each of a fixed number
of programs leaves a partial sum, and ATen adds those up. `ninlab.fused.tiles` says how many
programs there are, and how large their sums. These grow with the batch up to a bound, in no
straight line: so they are scratch as cuDNN's, and none of the step's tensors.

Known limits. The partial sums of a chain are two blocks, of weights and of biases, and one here.
A chain of float32 maps and a pool of wide windows have no kernel: on CUDA they are computed by the
plain operators of the reference, whose scratch nobody has looked up.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from ninlab.fused import tiles
from ninlab.reductions import Reduction
from ninlab.torch_private import OpOverload

_JOINED = torch.ops.ninlab
_RELU = _JOINED.relu_bias_backward.default
_POOL = _JOINED.bias_relu_max_pool_backward.default
_POOL_FORWARD = _JOINED.bias_relu_max_pool.default
_CHAIN = _JOINED.chain.default
_CHAIN_BACKWARD = _JOINED.chain_backward.default


class PartialSums(NamedTuple):
    """The bytes of a call's partial sums, and what is summed of them for each result.

    They are there from behind the first result until the one of number last is made. The bytes
    are None where nobody knows what the call takes.
    """

    bytes: int | None
    sums: tuple[Reduction | None, ...]
    last: int


_UNKNOWN = PartialSums(None, (), last=0)


def partial_sums(operator: OpOverload, args: Sequence[Any]) -> PartialSums | None:
    """Those of that call; None for one without any."""
    if operator is _RELU:
        batch, channels, height, width = args[0].shape
        return _of_bias(batch * height * width, channels)
    if operator is _POOL:
        gradient, _, height, width, kernel, stride, padding = args
        if not tiles.has_kernel(kernel, stride):
            return _UNKNOWN
        batch, channels = gradient.shape[:2]
        cells = (tiles.cells(side, stride, padding) for side in (height, width))
        return _of_bias(batch * next(cells) * next(cells), channels)
    if operator is _POOL_FORWARD:
        return None if tiles.has_kernel(args[2], args[3]) else _UNKNOWN
    if operator is _CHAIN:
        return None if args[0].element_size() == 2 else _UNKNOWN
    if operator is _CHAIN_BACKWARD:
        return _of_chain(args[1]) if args[1].element_size() == 2 else _UNKNOWN
    return None


def _of_bias(rows: int, channels: int) -> PartialSums:
    programs = tiles.summing_programs(rows, channels)
    sums = (None, _sum(programs, channels))
    return PartialSums(tiles.partial_bytes(rows, channels), sums, last=1)


def _of_chain(maps: torch.Tensor) -> PartialSums:
    channels = maps.shape[1]
    rows = maps.numel() // channels
    programs = tiles.chain_programs(rows)
    of_weight = _sum(programs, channels**2)
    of_bias = _sum(programs, channels, apart=2 * channels)  # both biases lie side by side
    sums = (None, of_bias, of_weight, of_bias, of_weight)
    return PartialSums(tiles.chain_partial_bytes(rows, channels), sums, last=3)


def _sum(programs: int, values: int, *, apart: int | None = None) -> Reduction:
    """Of so many partial sums in single precision, which begin apart values from one another."""
    return Reduction((programs, values), (apart or values, 1), (0,), 4, 4)
