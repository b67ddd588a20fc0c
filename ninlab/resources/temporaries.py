"""Which tensors does an operator make on CUDA that are gone when it returns?

The meta device knows what an operator returns. Many of CUDA's kernels make more: copies that
are contiguous, sums by parts, a product of two operands. They come from the allocator as the
results do, before, between or after them, and free memory again at the end of the call, so
that peaks and the order of all blocks depend on them. A rule of this module names, for one
call, its results and its temporary tensors in the order in which CUDA makes them.

Sources, all below ``aten/src/ATen/native``: ``cuda/Dropout.cu``, ``cuda/layer_norm_kernel.cu``,
``cuda/SoftMax.cu``, ``cuda/TensorTransformations.cu``, ``cuda/Indexing.cu``,
``cuda/AveragePool2d.cu``, ``cuda/DilatedMaxPool2d.cu``, ``cuda/DepthwiseConv2d.cu``,
``Convolution.cpp``, ``cudnn/ConvShared.cpp``, ``transformers/cuda/attention_backward.cu`` and
``transformers/cuda/mem_eff_attention/kernel_backward.h``. tests/test_temporaries.py holds the
steps that a real GPU wrote down to them, block by block. What the operators of ``ninlab`` make is
read in ``ninlab/fused/kernels.py``.

Known limits. Only operators of `RULES` are known; group normalization, embeddings and
upsampling, among others, make temporary tensors too. Scratch that libraries and reductions take
is not listed here, nor is what sorting takes. What depends on the number of multiprocessors is
said in its rule.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil, prod
from typing import Any

import torch
from torch import Tensor

from ninlab import fused
from ninlab.torch_private import OpOverload, suggested_format

assert fused  # who imports it has registered ``ninlab::``


@dataclass(frozen=True, slots=True, eq=False)
class Temporary:
    """A tensor that lives inside one call; a `Course` names it twice: where it comes and goes."""

    bytes: int


@dataclass(frozen=True, slots=True)
class Scratch:
    """The point where the kernel of that result runs, and takes its scratch memory."""

    result: int


Course = Sequence[int | Temporary | Scratch]
"""What an operator does: a number is the result of that place, which is made now."""

aten = torch.ops.aten
joined = torch.ops.ninlab
_CUDNN_ATTENTION = aten._scaled_dot_product_cudnn_attention.default
_CUDNN_ATTENTION_BACKWARD = aten._scaled_dot_product_cudnn_attention_backward.default
_EFFICIENT_ATTENTION = aten._scaled_dot_product_efficient_attention.default
_LAYER_NORM_BACKWARD = aten.native_layer_norm_backward.default


def course(operator: OpOverload, args: Sequence[Any], result: Any) -> Course | None:
    """What happens inside that call on CUDA, or None where its results come one by one."""
    rule = RULES.get(operator)
    return None if rule is None else rule(args, result)


def as_on_cuda(operator: OpOverload, result: Any) -> Any:
    """The results as CUDA returns them, where meta gives them another layout or device."""
    if operator is _LAYER_NORM_BACKWARD and result[0] is not None:
        return (result[0].contiguous(), *result[1:])
    if operator is _EFFICIENT_ATTENTION:  # its seed and offset are on the host
        return (*result[:2], *(torch.empty_like(each, device="cpu") for each in result[2:]))
    return result


def attention_scratch(operator: OpOverload, args: Sequence[Any]) -> int:
    """The bytes that cuDNN takes for fused attention, 0 for any other operator.

    Its frontend asks for a query's gradient and a number a row in single precision; the 256 bytes
    of both directions are what an H100 took beside them.
    """
    if operator is _CUDNN_ATTENTION:
        return 256
    if operator is not _CUDNN_ATTENTION_BACKWARD:
        return 0
    batch, heads, queries, width = args[1].shape
    return int(4 * batch * heads * queries * (width + 1) + 256)


# ---------------------------------------------------------------- copies


def _size(tensor: Tensor, *, element: int | None = None) -> int:
    return tensor.numel() * (tensor.element_size() if element is None else element)


def _copy(
    tensor: Tensor | None, memory_format: torch.memory_format = torch.contiguous_format
) -> list[Temporary]:
    """What ``contiguous(memory_format)`` makes: nothing if the tensor is so already."""
    if tensor is None or tensor.is_contiguous(memory_format=memory_format):
        return []
    return [Temporary(_size(tensor))]


def format_of(tensor: Tensor) -> torch.memory_format:
    """The memory format that ATen takes a tensor of these strides to have.

    In channels_last no stride is smaller than that of the channels: most images are told by it.
    """
    if tensor.dim() == 4:
        _, channels, _, columns = tensor.stride()
        if columns < channels:
            return torch.contiguous_format
    return suggested_format(tensor)


def _results(result: Any) -> list[int]:
    """The places of all tensors among the results, in order."""
    return [place for place, each in enumerate(result) if isinstance(each, Tensor)]


# ---------------------------------------------------------------- the rules


def _native_dropout(args: Sequence[Any], result: Any) -> Course:
    """The mask first, then what it masks."""
    return (1, 0)


def _native_layer_norm(args: Sequence[Any], result: Any) -> Course:
    rows = _copy(args[0])
    return (*rows, 0, 1, 2, *rows)


def layer_norm_parts(images: Tensor, shape: Sequence[int]) -> int:
    """Into how many parts the sums of a layer norm's weight and bias gradients are cut first.

    0 where they are summed at once. ATen cuts for more than 65,536 rows, and for fewer columns
    than half of the multiprocessors with 32 columns each. The device is not known here, so the
    second is taken as met: on an H100 up to 2,111 columns meet it. A part has 32 rows.
    """
    columns = prod(shape)
    rows = images.numel() // columns if columns else 0
    return min(32 * 1024 // ceil(columns / 32), ceil(rows / 32)) if rows > 64 * 1024 else 0


def _native_layer_norm_backward(args: Sequence[Any], result: Any) -> Course:
    """Gradients of weight and bias are summed in two passes where there are very many rows."""
    gradient, images, shape, *_ = args
    copy, gradient_copy = _copy(images), _copy(gradient)
    made = _results(result)
    parts = layer_norm_parts(images, shape)
    if not parts:
        return (*copy, *made, *gradient_copy, *gradient_copy, *copy)
    learning = [place for place in made if place > 0]
    firsts = [Temporary(_size(result[place])) for place in learning]
    blocks = [Temporary(parts * _size(result[place])) for place in learning]
    sums = [step for pair in zip(learning, firsts, strict=True) for step in pair]
    inner = (*gradient_copy, *blocks, *sums, *reversed(blocks), *gradient_copy)
    return (*copy, *(place for place in made if place == 0), *firsts, *inner, *copy)


def _softmax(args: Sequence[Any], result: Any) -> Course:
    rows = _copy(args[0])
    return (0, *rows, *rows)


def _log_softmax_backward(args: Sequence[Any], result: Any) -> Course:
    gradient, output = _copy(args[0]), _copy(args[1])
    return (0, *gradient, *output, *output, *gradient)


def _softmax_backward(args: Sequence[Any], result: Any) -> Course:
    """As that of the logarithm, for the product of gradient and output."""
    product, output = Temporary(_size(args[0])), _copy(args[1])
    return (0, product, *output, *output, product)


def _roll(args: Sequence[Any], result: Any) -> Course:
    """One dimension after the other; each result but the last lives until the end."""
    images, shifts, *_ = args
    copy = _copy(images)
    between = [Temporary(_size(images)) for _ in shifts[1:]]
    if not between:
        return (*copy, 0, *copy)
    first, *others = between
    return (*copy, first, *copy, *others, 0, *reversed(others), first)


def _pool(args: Sequence[Any], result: Any) -> Course:
    made = [0] if isinstance(result, Tensor) else _results(result)
    images = _copy(args[0], format_of(args[0]))
    return (*made, *images, *images)


def _pool_backward(args: Sequence[Any], result: Any) -> Course:
    gradient, images, *_ = args
    memory_format = format_of(images)
    copies = (*_copy(images, memory_format), *_copy(gradient, memory_format))
    return (0, *copies, *reversed(copies))


def _index_put(args: Sequence[Any], result: Any) -> Course:
    """Values are added row by row, in the sorted order of the rows.

    As the derivative of ``index`` calls it, which does not check the indices. They are numbers
    here, and of dimensions side by side; else nothing is said.
    """
    target, indices, values, *_ = args
    given = [index for index in indices if index is not None]
    if any(index.dtype not in (torch.int32, torch.int64) for index in given):
        return ()
    shapes = (each.shape for each in given)
    count = prod(torch.broadcast_shapes(*shapes))  # type: ignore[no-untyped-call]
    places = [place for place, index in enumerate(indices) if index is not None]
    if not count or not target.numel() or places != list(range(places[0], places[-1] + 1)):
        return ()
    steps: list[int | Temporary | Scratch] = []
    linear: Temporary | None = None
    for index in given:
        long = [Temporary(8 * index.numel())] if index.dtype == torch.int32 else []
        wrapped, scaled = Temporary(8 * count), Temporary(8 * count)
        steps += [*long, wrapped, scaled, wrapped, *long]
        if linear is None:
            linear = scaled
        else:
            steps.append(scaled)
    assert linear is not None
    elements = target.numel() // prod(target.shape[place] for place in places) * count
    whole = values.is_contiguous() and values.numel() == elements
    expanded = [] if whole else [Temporary(elements * values.element_size())]
    in_order, origin, counted = (Temporary(8 * count) for _ in range(3))
    return (
        *steps,
        *expanded,
        *(in_order, origin, counted, counted, origin, in_order),
        *expanded,
        linear,
    )


def _convolution(args: Sequence[Any], result: Any) -> Course:
    images, weight, _, _, _, _, transposed, _, groups = args
    if is_depthwise_by_aten(images, weight, transposed=transposed, groups=groups):
        images_copy, weight_copy = _copy(images), _copy(weight)
        return (*images_copy, *weight_copy, 0, Scratch(0), *weight_copy, *images_copy)
    memory_format = convolution_format(images, weight)
    images_copy, weight_copy = _copy(images, memory_format), _copy(weight, memory_format)
    return (*images_copy, 0, *weight_copy, Scratch(0), *weight_copy, *images_copy)


def _convolution_backward(args: Sequence[Any], result: Any) -> Course:
    """The input's gradient and the weight's make what copies they need, each for itself."""
    gradient, images, weight, _, _, _, _, transposed, _, groups, wanted = args
    bias = (2,) if wanted[2] else ()
    if is_depthwise_by_aten(images, weight, transposed=transposed, groups=groups):
        whole = _copy(gradient)
        steps: list[int | Temporary | Scratch] = [*whole]
        if wanted[1]:
            steps += [*(copy := _copy(images)), 1, Scratch(1), *copy]
        if wanted[0]:
            steps += [*(copy := _copy(weight)), 0, Scratch(0), *copy]
        return (*steps, *whole, *bias)
    images_copy = _copy(images, convolution_format(images, weight)) if wanted[1] else []
    if images_copy:
        images = images.contiguous(memory_format=convolution_format(images, weight))
    gradient_copy: list[Temporary] = []
    own_format = format_of(images)
    if format_of(gradient) is not own_format or (
        transposed and not gradient.is_contiguous(memory_format=own_format)
    ):
        gradient_copy = [Temporary(_size(gradient))]
        gradient = torch.empty_like(gradient, memory_format=own_format)
    steps = [*images_copy, *gradient_copy]
    if wanted[0]:
        memory_format = convolution_format(gradient, weight)
        weights = _copy(weight, memory_format)
        gradients = _copy(gradient, memory_format)
        copies = (*gradients, *weights) if transposed else (*weights, *gradients)
        steps += [0, *copies, Scratch(0), *reversed(copies)]
    if wanted[1]:
        memory_format = convolution_format(images, gradient)
        operands = (images, gradient) if transposed else (gradient, images)
        copies = tuple(step for each in operands for step in _copy(each, memory_format))
        steps += [*copies, 1, Scratch(1), *reversed(copies)]
    return (*steps, *gradient_copy, *images_copy, *bias)


def convolution_format(images: Tensor, other: Tensor) -> torch.memory_format:
    """The memory format in which cuDNN is given a convolution of the two."""
    is_wide = torch.float64 in (images.dtype, other.dtype)
    last = {4: torch.channels_last, 5: torch.channels_last_3d}.get(other.dim())
    if last is None or is_wide or last not in (format_of(images), format_of(other)):
        return torch.contiguous_format
    return last


def is_depthwise_by_aten(images: Tensor, weight: Tensor, *, transposed: bool, groups: int) -> bool:
    """Whether the convolution runs in ATen's own kernel for one filter a channel.

    In channels_last, and for float16, which no network of ours runs in, it is cuDNN's.
    """
    return (
        not transposed
        and images.dim() == 4
        and groups == images.shape[1] > 1
        and weight.shape[0] % groups == 0
        and convolution_format(images, weight) is torch.contiguous_format
    )


def _efficient_attention(args: Sequence[Any], result: Any) -> Course:
    return (0, 1)


def _efficient_attention_backward(args: Sequence[Any], result: Any) -> Course:
    """Of 32-bit attention: sums of the outputs times their gradients, and tiles of the query's.

    The kernel for compute capability 8.0 and higher works on 64 keys at a time, and on 64
    queries or, where heads are wider than 64, on 128. Each tile of the query's gradient has
    16 bytes before it.
    """
    gradient, query, _, value, _, out, *_ = args
    batch, heads, queries, width = query.shape
    at_once = 64 if max(width, value.shape[-1]) <= 64 else 128
    tiles = batch * heads * ceil(queries / at_once) * ceil(width / 64)
    copy = _copy(gradient.transpose(1, 2))
    product = Temporary(_size(out, element=4))
    summed, delta = (Temporary(4 * batch * heads * queries) for _ in range(2))
    space = Temporary(tiles * (16 + 4 * at_once * 64))
    inner = (product, summed, delta, summed, product, space, delta, space)
    return (*copy, *_results(result), *inner, *copy)


def _cudnn_attention(args: Sequence[Any], result: Any) -> Course:
    """Seed and offset, on the device here, come first; without gradients no sums are kept."""
    output, sums, *others = _results(result)
    return (*others, output, *((sums,) if args[4] else ()), Scratch(0))


def _cudnn_attention_backward(args: Sequence[Any], result: Any) -> Course:
    return (0, 1, 2, Scratch(0))


def _laid_last(args: Sequence[Any], result: Any) -> Course:
    """A kernel of `ninlab.fused` on maps: a copy of those if they are in another layout."""
    made = [0] if isinstance(result, Tensor) else _results(result)
    copy = _copy(args[0], torch.channels_last)
    return (*copy, *made, *copy)


def _chain_backward(args: Sequence[Any], result: Any) -> Course:
    """The gradient of the maps; then the weights', the second one's first, and the biases'."""
    copy = _copy(args[0], torch.channels_last)
    return (*copy, 0, 4, 2, 1, 3, *copy)


def _fold(args: Sequence[Any], result: Any) -> Course:
    """The maps with their padding come before the result."""
    maps, _, before, height, width = args
    if (before, height, width) == (0, *maps.shape[2:]):
        return (0,)
    padded = Temporary(prod(maps.shape[:2]) * height * width * maps.element_size())
    return (padded, 0, padded)


def _fold_backward(args: Sequence[Any], result: Any) -> Course:
    """All pixels, with those of the padding, come before the result."""
    gradient, factor, before, height, width = args
    if (before, height, width) == (0, *(factor * side for side in gradient.shape[2:])):
        return (0,)
    padded = Temporary(_size(gradient))
    return (padded, 0, padded)


RULES: Mapping[OpOverload, Callable[[Sequence[Any], Any], Course]] = {
    aten._index_put_impl_.default: _index_put,
    aten._log_softmax.default: _softmax,
    aten._log_softmax_backward_data.default: _log_softmax_backward,
    _CUDNN_ATTENTION: _cudnn_attention,
    _CUDNN_ATTENTION_BACKWARD: _cudnn_attention_backward,
    _EFFICIENT_ATTENTION: _efficient_attention,
    aten._scaled_dot_product_efficient_attention_backward.default: _efficient_attention_backward,
    aten._softmax.default: _softmax,
    aten._softmax_backward_data.default: _softmax_backward,
    aten.avg_pool2d.default: _pool,
    aten.avg_pool2d_backward.default: _pool_backward,
    aten.convolution.default: _convolution,
    aten.convolution_backward.default: _convolution_backward,
    aten.max_pool2d_with_indices.default: _pool,
    aten.max_pool2d_with_indices_backward.default: _pool_backward,
    aten.native_dropout.default: _native_dropout,
    aten.native_layer_norm.default: _native_layer_norm,
    _LAYER_NORM_BACKWARD: _native_layer_norm_backward,
    aten.roll.default: _roll,
    joined.bias_relu_max_pool.default: _laid_last,
    joined.bias_relu_max_pool_backward.default: _laid_last,
    joined.chain_backward.default: _chain_backward,
    joined.fold.default: _fold,
    joined.fold_backward.default: _fold_backward,
    joined.relu_bias_backward.default: _laid_last,
}
"""What is known, by operator."""

INSIDE: Mapping[OpOverload, OpOverload] = {aten.index_put.default: aten._index_put_impl_.default}
"""What works in place of operators that autograd calls only because a dispatch mode looks on."""
