"""Which operators have a price, which are free by convention, and which nobody can price?

A MAC is one multiply-accumulate of a convolution or a matrix product. fvcore's
formulas and torch's are asked for the same operators; what neither knows is free
only if it moves data, works element by element, pools, normalizes or reduces: none
of them multiplies by a weight matrix. Every other operator is named as unsupported.

This is the one place that reaches into fvcore and torch's flop counter.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import flop_registry

from ninlab.torch_private import OpOverload, packet_of, qualified_name, schema_of

with warnings.catch_warnings():
    # fvcore decorates an unrelated loss with torch.jit.script, deprecated since torch 2.11.
    for category in (DeprecationWarning, FutureWarning):
        warnings.simplefilter("ignore", category)
    from fvcore.nn.activation_count import _DEFAULT_SUPPORTED_OPS as _FVCORE_ACTIVATIONS
    from fvcore.nn.flop_count import _DEFAULT_SUPPORTED_OPS as _FVCORE_FLOPS

Handle = Callable[[Sequence[Any], Sequence[Any]], Any]

MAC_OPERATORS = frozenset({"_convolution", "addmm", "bmm", "linear", "matmul", "mm"})
"""The operators whose fvcore "flops" are MACs; its other formulas price norms and pools.

An einsum is left to the products that it is made of: fvcore reads its cost from a text of
four digits.
"""

_POOLS_NORMS_AND_REDUCTIONS = frozenset(
    {
        "_adaptive_avg_pool2d", "_adaptive_avg_pool3d", "adaptive_max_pool2d",
        "adaptive_max_pool3d", "avg_pool1d", "avg_pool2d", "avg_pool3d", "fractional_max_pool2d",
        "max_pool2d_with_indices", "max_pool3d_with_indices", "max_unpool2d", "max_unpool3d",
        "_batch_norm_no_update", "_batch_norm_with_update", "_fused_rms_norm",
        "_native_batch_norm_legit", "_native_batch_norm_legit_no_training",
        "_weight_norm_interface", "cudnn_batch_norm", "native_batch_norm", "native_group_norm",
        "native_layer_norm", "_log_softmax", "_safe_softmax", "_softmax", "linalg_vector_norm",
        "logsumexp", "embedding_renorm", "renorm",
        "all", "amax", "amin", "aminmax", "any", "argmax", "argmin", "count_nonzero", "cummax",
        "cummin", "cumprod", "cumsum", "kthvalue", "logcumsumexp", "max", "mean", "median", "min",
        "mode", "nanmedian", "nansum", "norm", "prod", "std", "std_mean", "sum", "trace", "var",
        "var_mean",
    }
)  # fmt: skip

_POINTWISE_WITHOUT_TAG = frozenset(
    {
        "_prelu_kernel", "abs", "binary_cross_entropy", "eq", "floor_divide", "ge", "gelu", "glu",
        "gt", "hardswish", "huber_loss", "le", "log_sigmoid_forward", "lt", "masked_fill", "mish",
        "mse_loss", "ne", "rrelu_with_noise", "rsub", "smooth_l1_loss", "threshold",
    }
)  # fmt: skip
"""Element by element, though torch does not tag them so (looked up in torch 2.15)."""

_MOVES_OF_DATA = frozenset(
    {
        "_pack_padded_sequence", "_to_copy", "_unsafe_index", "_unsafe_view",
        "_upsample_bicubic2d_aa", "_upsample_bilinear2d_aa", "_upsample_nearest_exact2d",
        "as_strided_", "as_strided_scatter", "bernoulli", "bucketize", "cat", "channel_shuffle",
        "clone", "col2im", "complex", "constant_pad_nd", "copy", "detach_", "diag_embed",
        "diagonal_scatter", "embedding", "empty_like", "exponential", "fill", "flip", "full_like",
        "gather", "grid_sampler_2d", "grid_sampler_3d", "im2col", "index", "index_add",
        "index_copy", "index_fill", "index_put", "index_reduce", "index_select", "linspace",
        "log_normal", "masked_scatter", "masked_select", "multinomial", "native_dropout",
        "new_empty", "new_empty_strided", "new_full", "new_ones", "new_zeros", "nonzero", "normal",
        "ones_like", "pixel_shuffle", "pixel_unshuffle", "rand_like", "randint_like", "randn_like",
        "random", "reflection_pad1d", "reflection_pad2d", "reflection_pad3d", "repeat",
        "repeat_interleave", "replication_pad1d", "replication_pad2d", "replication_pad3d", "roll",
        "rot90", "scatter", "scatter_add", "scatter_reduce", "searchsorted", "select_scatter",
        "slice_scatter", "sort", "squeeze_", "stack", "t_", "take", "topk", "transpose_", "tril",
        "triu", "uniform", "unsafe_chunk", "unsafe_split", "unsafe_split_with_sizes", "unsqueeze_",
        "upsample_bicubic2d", "upsample_bilinear2d", "upsample_linear1d", "upsample_nearest1d",
        "upsample_nearest2d", "upsample_nearest3d", "upsample_trilinear3d", "zero", "zeros_like",
    }
)  # fmt: skip

COST_FREE = _POOLS_NORMS_AND_REDUCTIONS | _POINTWISE_WITHOUT_TAG | _MOVES_OF_DATA
"""ATen operators, without overload, that multiply by no weight matrix.

One that writes to its operand, as ``scatter_``, is as free as the one that does not.
"""

_LOOKED_THROUGH = frozenset(
    {
        "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d",
        "gru_cell", "lstm_cell", "rnn_relu_cell", "rnn_tanh_cell",
    }
)  # fmt: skip
"""Composed operators that TorchScript does not record as one (torchgen's gen_trace_type.py)."""


class _Value:
    """A tensor, number or list in the clothes of a TorchScript value, as fvcore reads them."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def isCompleteTensor(self) -> bool:
        return isinstance(self.value, Tensor)

    def type(self) -> _Value:
        return self

    def sizes(self) -> list[int]:
        return list(self.value.shape)

    def toIValue(self) -> Any:
        return self.value

    def node(self) -> _Value:
        return self

    def inputs(self) -> list[_Value]:
        return [_Value(item) for item in self.value]


def base_name(operator: OpOverload) -> str:
    """The operator's name without namespace and overload: ``convolution``."""
    return qualified_name(operator).rpartition("::")[2]


def is_aten(operator: OpOverload) -> bool:
    """Whether the operator is torch's own."""
    return operator.namespace == "aten"


def fvcore_flops(operator: OpOverload, args: Sequence[Any], result: Any) -> int | None:
    """What fvcore's formula for the operator gives, or None where it has none.

    fvcore calls it flops and means MACs, except for norms, pools and interpolation.
    """
    return _ask(_FVCORE_FLOPS, operator, args, result)


def fvcore_activations(operator: OpOverload, args: Sequence[Any], result: Any) -> int | None:
    """Elements that fvcore counts as put out by the operator, or None where it has no rule."""
    return _ask(_FVCORE_ACTIVATIONS, operator, args, result)


def _ask(
    formulas: Mapping[str, Handle], operator: OpOverload, args: Sequence[Any], result: Any
) -> int | None:
    name = fvcore_name(operator)
    handle = formulas.get(f"aten::{name}") if is_aten(operator) else None
    if handle is None:
        return None
    # The traced operator carries its defaults, the dispatched one leaves them out.
    defaults = (argument.default_value for argument in schema_of(operator).arguments[len(args) :])
    values = [_Value(arg) for arg in (*args, *defaults)]
    if name == "_convolution":
        # The traced operator carries three cuDNN switches more than the dispatched one.
        values += [_Value(None)] * 3
    count = handle(values, [_Value(result)])
    return int(sum(count.values()) if isinstance(count, Counter) else count)


def fvcore_name(operator: OpOverload) -> str:
    """The name under which a TorchScript trace, and so fvcore, knows the operator."""
    name = base_name(operator)
    return "_convolution" if name == "convolution" else name


def torch_flops(
    operator: OpOverload, args: Sequence[Any], kwargs: Mapping[str, Any], result: Any
) -> int | None:
    """What torch's flop counter gives for the operator (2 a MAC), or None without a formula."""
    products = _PRODUCTS_INSIDE.get(qualified_name(operator))
    if products is not None:
        return 2 * products(args)
    formula = flop_registry.get(packet_of(operator))
    return None if formula is None else int(formula(*args, **kwargs, out_val=result))


def _of_rows(args: Sequence[Any]) -> int:
    """MACs of ``_addmm_activation``: of rows, the second argument, and a matrix."""
    return int(args[1].numel() * args[2].shape[1])


def _of_pixels(maps: Tensor) -> int:
    """MACs of one 1x1 layer of as many channels as the maps have."""
    return int(maps.numel() * maps.shape[1])


_PRODUCTS_INSIDE: Mapping[str, Callable[[Sequence[Any]], int]] = {
    "aten::_addmm_activation": _of_rows,
    "ninlab::chain": lambda args: 2 * _of_pixels(args[0]),
    # Two gradients of each layer, and the first layer's result once more.
    "ninlab::chain_backward": lambda args: 5 * _of_pixels(args[0]),
}
"""MACs of operators that torch's flop counter does not know, by their arguments."""


def is_looked_through(operator: OpOverload) -> bool:
    """Whether fvcore's tracer records what the operator calls: of ``conv2d``, ``_convolution``."""
    return is_aten(operator) and base_name(operator) in _LOOKED_THROUGH


def is_free(operator: OpOverload, args: Sequence[Any]) -> bool:
    """Whether the operator costs no MAC by convention: views, moves, pointwise, pools, norms."""
    if not is_aten(operator):
        return operator.namespace == "profiler"
    name = base_name(operator)
    return (
        torch.Tag.pointwise in operator.tags
        or not COST_FREE.isdisjoint({name, name.removesuffix("_")})
        or _is_view(operator)
        or not any(isinstance(arg, Tensor) for arg in flatten(args))  # makes a tensor of its own
    )


def _is_view(operator: OpOverload) -> bool:
    returns = [each.alias_info for each in schema_of(operator).returns]
    return bool(returns) and all(alias is not None and not alias.is_write for alias in returns)


def flatten(values: Iterable[Any]) -> Iterator[Any]:
    """The values, with those inside lists and tuples in their place."""
    for value in values:
        if isinstance(value, list | tuple):
            yield from flatten(value)
        else:
            yield value
