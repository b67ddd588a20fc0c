"""What does torch choose on a CUDA device that it would not choose on the meta device?

Dropout keeps a bool mask there, batch normalization is cuDNN's, attention a fused kernel, and
under autocast operators cast their inputs. These choices are made inside torch's C++
operators, before autograd records anything, so they have to be made at the same place here:
as kernels of a dispatch key that stands above autograd. The key is one that torch reserves
for a device that no CPU or CUDA build knows; its kernels are registered when `as_on_cuda` is
first entered, and met only inside it, by the thread that entered it.

Source: the lists of ``ATen/autocast_mode.h``, the fused-kernel test of
``ATen/native/Dropout.cpp``, the cuDNN test of ``ATen/native/Normalization.cpp`` and the order of
kernels in ``ATen/native/transformers/cuda/sdp_utils.cpp``;
tests/test_timeline_cuda.py compares operators and saved tensors with torch's own
autocast on fake CUDA tensors.

Known limits. Recurrent layers and cells, and root mean square normalization run as plain
formulas here, where CUDA has fused kernels, and the gradients of a few operators by other
formulas than there; `UNMODELED` names them all. So does attention with a mask, with fewer heads
of keys than of queries, or with shapes that the chosen kernel refuses. Its kernels are those of
a Hopper or Blackwell GPU for data centers with cuDNN 9.15 or newer: another device runs flash
attention in half precision, which keeps as much but seeds. ``norm`` under autocast keeps its
input's dtype. An autocast region for CUDA that a module enters by itself is not followed.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor

from ninlab.torch_private import (
    SPARE_KEY,
    below_spare_key,
    is_view,
    schema_of,
    spare_key_included,
    suggested_format,
)

LOWER_PRECISION = (
    "_convolution", "_thnn_fused_gru_cell", "_thnn_fused_lstm_cell", "addbmm", "addmm", "addmv",
    "addr", "baddbmm", "bmm", "chain_matmul", "conv1d", "conv2d", "conv3d", "conv_tbc",
    "conv_transpose1d", "conv_transpose2d.input", "conv_transpose3d.input", "convolution",
    "einsum", "gru_cell", "linalg_multi_dot", "linalg_vecdot", "linear", "lstm_cell", "matmul",
    "mm", "mv", "prelu", "rnn_relu_cell", "rnn_tanh_cell", "scaled_dot_product_attention",
)  # fmt: skip
"""Operators that autocast runs in bfloat16."""

FLOAT32 = (
    "_upsample_bicubic2d_aa", "_upsample_bilinear2d_aa", "_upsample_nearest_exact1d",
    "_upsample_nearest_exact2d", "_upsample_nearest_exact3d", "acos", "asin",
    "binary_cross_entropy_with_logits", "cdist", "cosh", "cosine_embedding_loss",
    "cosine_similarity", "dist", "erfinv", "exp", "expm1", "frobenius_norm.dim", "group_norm",
    "hinge_embedding_loss", "huber_loss", "kl_div", "l1_loss", "layer_norm", "log", "log10",
    "log1p", "log2", "logsumexp", "margin_ranking_loss", "mse_loss", "multi_margin_loss",
    "multilabel_margin_loss", "native_layer_norm", "nll_loss", "nll_loss2d", "nuclear_norm",
    "nuclear_norm.dim", "pdist", "poisson_nll_loss", "pow.Scalar", "pow.Tensor_Scalar",
    "pow.Tensor_Tensor", "reciprocal", "renorm", "rms_norm", "rsqrt", "sinh", "smooth_l1_loss",
    "soft_margin_loss", "softplus", "tan", "triplet_margin_loss", "upsample_bicubic2d",
    "upsample_bilinear2d", "upsample_linear1d", "upsample_nearest1d", "upsample_nearest2d",
    "upsample_nearest3d", "upsample_trilinear3d",
)  # fmt: skip
"""Operators that autocast runs in float32."""

FLOAT32_UNLESS_TOLD = (
    "cumprod", "cumsum", "linalg_matrix_norm", "linalg_matrix_norm.str_ord",
    "linalg_vector_norm", "log_softmax.int", "prod", "prod.dim_int", "softmax.int", "sum",
    "sum.dim_IntList",
)  # fmt: skip
"""Operators to which autocast passes dtype=float32 if the caller passes none."""

WIDEST_INPUT = (
    "addcdiv", "addcmul", "atan2", "bilinear", "cross", "dot", "grid_sampler", "index_put",
    "scatter_add", "tensordot", "vdot",
)  # fmt: skip
"""Operators that need one dtype: autocast takes the widest of their inputs."""

_AUTOCAST = (LOWER_PRECISION, FLOAT32, FLOAT32_UNLESS_TOLD, WIDEST_INPUT)

UNMODELED = (
    "atan2", "cumprod", "gru.data", "gru.input", "gru_cell", "log_sigmoid", "lstm.data",
    "lstm.input", "lstm_cell", "mish", "prod", "prod.dim_int", "rms_norm", "rnn_relu.data",
    "rnn_relu.input", "rnn_tanh.data", "rnn_tanh.input", "scaled_dot_product_attention",
)  # fmt: skip
"""Operators that allocate otherwise on CUDA, forward or backward, than what is run here."""

FUSED_ATTENTION = "aten::_native_multi_head_attention"
"""What a prediction of ``nn.MultiheadAttention`` calls on the CPU and on CUDA, but not on meta."""

_ATTENTION = "scaled_dot_product_attention"
_UNMODELED_PACKETS = frozenset(f"aten::{name.partition('.')[0]}" for name in UNMODELED) | {
    FUSED_ATTENTION,
    "ninlab::bias_relu_max_pool",
    "ninlab::bias_relu_max_pool_backward",
    "ninlab::chain",
    "ninlab::chain_backward",
    "saved_tensors_hooks",
}

_state = threading.local()
_registering = threading.Lock()


def allocates_otherwise_on_cuda(name: str) -> bool:
    """Whether a name among the unsupported operators is one of `UNMODELED`, as ``aten::lstm``.

    The rest of them has no rule for its cost.
    """
    return name in _UNMODELED_PACKETS


@contextmanager
def as_on_cuda(*, autocast: bool = False, backward: bool = False) -> Iterator[Counter[str]]:
    """Let operators of this thread choose as on CUDA, under bfloat16 autocast if asked for.

    As at the end of an autocast region, cached casts of the weights are dropped on exit.
    In a backward pass autograd's own formulas run without autocast, and only what records
    a graph again has it: forward passes that checkpoints repeat.
    Yields the calls of `UNMODELED` operators, by name.
    """
    with _registering:
        _libraries()
    _state.autocast, _state.backward = autocast, backward
    _state.casts, _state.unmodeled = {}, Counter()
    try:
        with spare_key_included():
            yield _state.unmodeled
    finally:
        _state.casts = {}


def _cast(value: Any, dtype: torch.dtype) -> Any:
    if isinstance(value, list | tuple):
        return type(value)(_cast(item, dtype) for item in value)
    if not _is_eligible(value) or value.dtype is dtype:
        return value
    is_weight = (
        dtype is torch.bfloat16
        and value.dtype is torch.float32
        and value.requires_grad
        and value.is_leaf
        and not is_view(value)
    )
    if not is_weight:
        return value.to(dtype)
    casts: dict[int, tuple[Tensor, Tensor]] = _state.casts
    if id(value) not in casts:
        casts[id(value)] = value, value.to(dtype)  # the weight is held so that its id stays its own
    return casts[id(value)][1]


def _cast_all(args: tuple[Any, ...], dtype: torch.dtype) -> tuple[Any, ...]:
    """The arguments, cast from the last to the first: as torch's compiler evaluates them.

    The order decides which of two weight gradients backward makes first.
    """
    return tuple(_cast(arg, dtype) for arg in reversed(args))[::-1]


def _is_eligible(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point() and value.dtype != torch.float64


def _lower_precision(args: Any, kwargs: Any, schema: Any) -> tuple[Any, Any]:
    return _cast_all(args, torch.bfloat16), kwargs


def _float32(args: Any, kwargs: Any, schema: Any) -> tuple[Any, Any]:
    return _cast_all(args, torch.float32), kwargs


def _float32_unless_told(args: Any, kwargs: Any, schema: Any) -> tuple[Any, Any]:
    if not _is_eligible(args[0]):
        return args, kwargs
    place = next(i for i, argument in enumerate(schema.arguments) if argument.name == "dtype")
    told = args[place] if place < len(args) else kwargs.get("dtype")
    if told is not None:
        return args, kwargs
    return args[:place], kwargs | {"dtype": torch.float32}


def _as_they_are(args: Any, kwargs: Any, schema: Any) -> tuple[Any, Any]:
    return args, kwargs


def _widest_input(args: Any, kwargs: Any, schema: Any) -> tuple[Any, Any]:
    tensors = [item for arg in args for item in (arg if isinstance(arg, list) else [arg])]
    wide = any(_is_eligible(item) and item.dtype is torch.float32 for item in tensors)
    return _cast_all(args, torch.float32 if wide else torch.bfloat16), kwargs


def _casting(name: str, policy: Callable[[Any, Any, Any], tuple[Any, Any]]) -> Callable[..., Any]:
    packet, _, overload = name.partition(".")
    operator = getattr(getattr(torch.ops.aten, packet), overload or "default")
    run = {"linear": _linear, _ATTENTION: _attention}.get(name, operator)
    schema = schema_of(operator)

    def kernel(*args: Any, **kwargs: Any) -> Any:
        if name in UNMODELED and name != _ATTENTION:
            _state.unmodeled[f"aten::{packet}"] += 1
        with below_spare_key():
            if _state.autocast and (torch.is_grad_enabled() or not _state.backward):
                args, kwargs = policy(args, kwargs, schema)
            return run(*args, **kwargs)

    return kernel


def _linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """As elsewhere than on meta, where the bias is not added in place to an unfused product."""
    if bias is None or input.dim() <= 2 or input.is_contiguous():
        return torch.nn.functional.linear(input, weight, bias)
    return torch.matmul(input, weight.t()).add_(bias)


def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None = None,
    dropout: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """By the fused kernel that CUDA would choose, or by the plain formula, which is then named.

    CUDA asks cuDNN first, which takes half precision, and in single precision is left with the
    kernel that works tile by tile.
    """
    kept = torch.is_grad_enabled() and any(each.requires_grad for each in (query, key, value))
    if _fits_fused_attention(query, key, value, mask):
        operands = (query, key, value, None, kept, dropout, is_causal)
        if query.dtype is torch.float32:
            by_tiles: Tensor = torch.ops.aten._scaled_dot_product_efficient_attention(
                *operands, scale=scale
            )[0]
            return by_tiles
        if dropout * 16 % 1:  # cuDNN's in some versions of torch, flash attention in others
            _state.unmodeled[f"aten::{_ATTENTION}"] += 1
        by_cudnn: Tensor = torch.ops.aten._scaled_dot_product_cudnn_attention(
            *operands, scale=scale
        )[0]
        return by_cudnn
    _state.unmodeled[f"aten::{_ATTENTION}"] += 1
    return torch.nn.functional.scaled_dot_product_attention(
        query, key, value, mask, dropout, is_causal, scale=scale, enable_gqa=enable_gqa
    )


def _fits_fused_attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> bool:
    """Whether the call is one of those that a fused kernel takes and that are modeled here."""
    operands = (query, key, value)
    if mask is not None or any(each.dim() != 4 or not each.numel() for each in operands):
        return False
    alike = (
        max(query.shape[:2]) <= 65_535
        and query.shape[:2] == key.shape[:2] == value.shape[:2]
        and query.shape[3] == key.shape[3]
        and query.dtype is key.dtype is value.dtype
        and all(each.stride(3) == 1 for each in operands)
    )
    widths = (query.shape[3], value.shape[3])
    if query.dtype is torch.float32:
        return alike and _is_allowed("mem_efficient") and all(width % 4 == 0 for width in widths)
    return (
        alike
        and _is_allowed("cudnn")
        and query.dtype in (torch.bfloat16, torch.float16)
        and all(width % 8 == 0 and width <= 128 for width in widths)
        and key.shape[2] > 1
    )


def _is_allowed(kernel: str) -> bool:
    """Whether ``torch.nn.attention.sdpa_kernel`` and its like left attention that kernel."""
    return bool(getattr(torch.backends.cuda, f"{kernel}_sdp_enabled")())


def _dropout(images: Tensor, p: float, train: bool) -> Tensor:
    with below_spare_key():
        if train and 0 < p < 1 and images.numel() > 0:
            return torch.native_dropout(images, p, train)[0]
        return torch.dropout(images, p, train)


def _batch_norm(
    images: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor | None,
    variance: Tensor | None,
    training: bool,
    momentum: float,
    eps: float,
    cudnn_enabled: bool,
) -> Tensor:
    """By cuDNN where ATen's ``_batch_norm_impl_index`` would ask it, else by ATen's own kernel."""
    by_cudnn = (
        cudnn_enabled
        and images.dim() >= 3
        and images.shape[0] <= (880_801 if training else 65_535)
        and weight is not None
        and bias is not None
        and (images.dtype, weight.dtype)
        in ((torch.float32, torch.float32), (torch.float16, torch.float32))
        and (mean is None) == (variance is None)
        and (mean is not None or training)
    )
    operands = (weight, bias, mean, variance, training, momentum, eps)
    with below_spare_key():
        if by_cudnn:
            if not images.is_contiguous():
                images = images.contiguous(memory_format=suggested_format(images))
            result: Tensor = torch.ops.aten.cudnn_batch_norm(images, *operands)[0]
            return result
        return torch.batch_norm(images, *operands, cudnn_enabled)


@cache
def _libraries() -> tuple[Any, Any]:
    """The kernels above, registered with torch for as long as the libraries live."""
    library: Any = torch.library.Library
    others, aten = library("_", "IMPL", SPARE_KEY), library("aten", "IMPL", SPARE_KEY)
    others.fallback(torch.library.fallthrough_kernel)
    aten.impl("dropout", _dropout)
    aten.impl("batch_norm", _batch_norm)
    for names, policy in (
        (LOWER_PRECISION, _lower_precision),
        (FLOAT32, _float32),
        (FLOAT32_UNLESS_TOLD, _float32_unless_told),
        (WIDEST_INPUT, _widest_input),
        (set(UNMODELED).difference(*_AUTOCAST), _as_they_are),
    ):
        for name in names:
            if hasattr(torch.ops.aten, name.partition(".")[0]):  # the lists grow with torch
                aten.impl(name, _casting(name, policy))
    return others, aten
