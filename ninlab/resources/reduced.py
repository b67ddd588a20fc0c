"""Which operators reduce a tensor on CUDA with ATen's one kernel for that, and what do they reduce?

Sums, means, products, norms, variances and largest values: what such a call takes beside its
results, `ninlab.reductions` knows. The bias gradient of a convolution is a sum over images and
pixels, and the gradients of a layer norm's weight and bias end in a sum where rows are many.

Source: what each kernel carries is in ReduceSumProdKernel.cu,
ReduceMomentKernel.cu, ReduceNormKernel.cu and ReduceMaxValuesKernel.cu of ATen/native/cuda; the
bias gradient is at the end of ``convolution_backward`` in ATen/native/Convolution.cpp, the layer
norm in cuda/layer_norm_kernel.cu (``LaunchGammaBetaBackwardCUDAKernel``).

Known limits. Left out are ``argmax``, ``argmin``, ``aminmax``, ``any``, ``all``, ``nansum``, and
``max`` and ``min`` that are not elementwise; reductions inside other operators, such as the mean
of ``mse_loss``; whole and complex numbers. Where a reduction has to cast first, the cast is no
part of this.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ninlab.reductions import Reduction
from ninlab.resources.temporaries import layer_norm_parts
from ninlab.torch_private import OpOverload


@dataclass(frozen=True, slots=True)
class _Kernel:
    """One kind of reduction: where its dimensions stand among the arguments, and what it does.

    carries is how many numbers go from value to value.
    """

    dimensions_at: int = 1
    carries: int = 1
    widens_half: bool = True  # 16-bit values are computed with in single precision


_ATEN = torch.ops.aten
_CONVOLUTION_BACKWARD = _ATEN.convolution_backward.default
_LAYER_NORM_BACKWARD = _ATEN.native_layer_norm_backward.default
_SUM = _Kernel()
_NORM = _Kernel(dimensions_at=2)
_VARIANCE = _Kernel(carries=4)  # mean, squares and the count twice
_LARGEST = _Kernel(widens_half=False)

_KERNELS: Mapping[OpOverload, _Kernel] = {
    _ATEN.sum.default: _SUM,
    _ATEN.sum.dim_IntList: _SUM,
    _ATEN.mean.default: _SUM,
    _ATEN.mean.dim: _SUM,
    _ATEN.prod.default: _SUM,
    _ATEN.prod.dim_int: _SUM,
    _ATEN.linalg_vector_norm.default: _NORM,
    _ATEN.var.correction: _VARIANCE,
    _ATEN.std.correction: _VARIANCE,
    _ATEN.var_mean.correction: _VARIANCE,
    _ATEN.std_mean.correction: _VARIANCE,
    _ATEN.amax.default: _LARGEST,
    _ATEN.amin.default: _LARGEST,
}
_HALF = (torch.bfloat16, torch.float16)


def reductions_of(
    func: OpOverload, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> tuple[Reduction | None, ...]:
    """What that call reduces for each of its results, None for one that is made otherwise.

    () where the call reduces nothing, or in no way that is known here.
    """
    if func is _CONVOLUTION_BACKWARD:
        return _of_convolution(args[0], args[10])
    if func is _LAYER_NORM_BACKWARD:
        return _of_layer_norm(args[1], args[2], args[5], args[7])
    kernel = _KERNELS.get(func)
    if kernel is None:
        return ()
    tensor, at = args[0], kernel.dimensions_at
    dimensions = args[at] if len(args) > at else kwargs.get("dim")
    keeps = args[at + 1] if len(args) > at + 1 else kwargs.get("keepdim", False)
    result = kwargs.get("dtype") or tensor.dtype
    if not (tensor.is_floating_point() and result.is_floating_point):
        return ()
    if dimensions is None or dimensions == []:
        dimensions = range(tensor.dim())
    elif isinstance(dimensions, int):
        dimensions = [dimensions]
    if keeps:  # TensorIterator cannot tell the ones that are left of them from others
        dimensions = [each for each in dimensions if tensor.shape[each] != 1]
    return (_reduction(kernel, tensor, dimensions, result),)


def _of_convolution(gradient: Tensor, wanted: Sequence[bool]) -> tuple[Reduction | None, ...]:
    """The last result, of three, is the gradient of the bias."""
    if not wanted[2] or not gradient.is_floating_point():
        return ()
    summed = [dimension for dimension in range(gradient.dim()) if dimension != 1]
    return (*[None] * sum(wanted[:2]), _reduction(_SUM, gradient, summed, gradient.dtype))


def _of_layer_norm(
    images: Tensor, shape: Sequence[int], weight: Tensor | None, wanted: Sequence[bool]
) -> tuple[Reduction | None, ...]:
    """Weight and bias: of very many rows ATen sums 32 at a time, then a reduction those sums."""
    parts = layer_norm_parts(images, shape)
    if not parts:
        return ()
    columns = math.prod(shape)
    size = (images if weight is None else weight).element_size()
    last = Reduction((parts, columns), (columns, 1), (0,), size, max(size, 4))
    return (*[None] * wanted[0], *[last] * sum(wanted[1:]))


def _reduction(
    kernel: _Kernel, tensor: Tensor, dimensions: Sequence[int], result: torch.dtype
) -> Reduction:
    # From 16 bits to single precision is the one step that needs no cast before.
    reads = tensor.dtype if tensor.dtype in _HALF and result is torch.float32 else result
    is_half = reads in _HALF
    computes_in = 4 if is_half and kernel.widens_half else reads.itemsize
    return Reduction(
        shape=tuple(tensor.shape),
        strides=tensor.stride(),
        reduced=tuple(dimension % tensor.dim() for dimension in dimensions),
        element_bytes=reads.itemsize,
        accumulator_bytes=kernel.carries * computes_in,
        offset=int(tensor.storage_offset()),
    )
