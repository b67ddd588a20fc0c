"""Which operators have a price, which are free by convention, and which nobody can price?

A MAC is one multiply-accumulate of a convolution or a matrix product. fvcore's
formulas and torch's are asked for the same operators; what neither knows is free
only if it moves data, works element by element, pools, normalizes or reduces: none
of them multiplies by a weight matrix. Every other operator is named as unsupported.

Imports nothing from ninlab. This is the one place that reaches into fvcore and
torch's flop counter.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.utils.flop_counter import flop_registry

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
        "adaptive_max_pool3d", "avg_pool1d", "avg_pool2d", "avg_pool3d",
        "fractional_max_pool2d", "max_pool2d_with_indices", "max_pool3d_with_indices",
        "_batch_norm_no_update", "_batch_norm_with_update", "_fused_rms_norm",
        "_native_batch_norm_legit", "_native_batch_norm_legit_no_training",
        "_weight_norm_interface", "cudnn_batch_norm", "native_batch_norm", "native_group_norm",
        "native_layer_norm", "_log_softmax", "_safe_softmax", "_softmax", "linalg_vector_norm",
        "logsumexp",
        "all", "amax", "amin", "any", "argmax", "argmin", "cummax", "cummin", "cumprod", "cumsum",
        "kthvalue", "max", "mean", "median", "min", "mode", "norm", "prod", "std", "std_mean",
        "sum", "var", "var_mean",
    }
)  # fmt: skip

_POINTWISE_WITHOUT_TAG = frozenset(
    {
        "_prelu_kernel", "gelu_", "glu", "hardswish", "hardswish_", "log_sigmoid_forward",
        "masked_fill", "masked_fill_", "mish_", "rrelu_with_noise", "threshold_",
    }
)  # fmt: skip
"""Element by element, though torch does not tag them so (looked up in torch 2.15)."""

_MOVES_OF_DATA = frozenset(
    {
        "_pack_padded_sequence", "_to_copy", "_unsafe_index", "_unsafe_view",
        "_upsample_bicubic2d_aa", "_upsample_bilinear2d_aa", "_upsample_nearest_exact2d",
        "as_strided_", "bernoulli", "bernoulli_", "cat", "channel_shuffle", "clone", "col2im",
        "complex", "constant_pad_nd", "copy_", "embedding", "empty_like", "exponential_", "fill_",
        "flip", "full_like", "gather", "im2col", "index", "index_put_", "index_select",
        "masked_select", "native_dropout", "new_empty", "new_full", "new_ones", "new_zeros",
        "nonzero", "normal_", "ones_like", "pixel_shuffle", "pixel_unshuffle", "rand_like",
        "randn_like", "reflection_pad1d", "reflection_pad2d", "reflection_pad3d", "repeat",
        "replication_pad1d", "replication_pad2d", "replication_pad3d", "roll", "scatter",
        "scatter_add", "slice_scatter", "sort", "stack", "topk", "tril", "triu", "uniform_",
        "unsafe_chunk", "unsafe_split", "unsafe_split_with_sizes", "upsample_bicubic2d",
        "upsample_bilinear2d", "upsample_linear1d", "upsample_nearest1d", "upsample_nearest2d",
        "upsample_nearest3d", "upsample_trilinear3d", "zero_", "zeros_like",
    }
)  # fmt: skip

COST_FREE = _POOLS_NORMS_AND_REDUCTIONS | _POINTWISE_WITHOUT_TAG | _MOVES_OF_DATA
"""ATen operators, without overload, that multiply by no weight matrix."""


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
    return operator._schema.name.rpartition("::")[2]


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
    defaults = (argument.default_value for argument in operator._schema.arguments[len(args) :])
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
    formula = flop_registry.get(operator._overloadpacket)
    return None if formula is None else int(formula(*args, **kwargs, out_val=result))


def is_composite(operator: OpOverload) -> bool:
    """Whether the operator only calls others, which can be looked at one by one."""
    return bool(operator._can_decompose())


def is_convolution(operator: OpOverload) -> bool:
    """Whether fvcore's tracer looks through the operator: ``conv2d`` records ``_convolution``."""
    return is_aten(operator) and base_name(operator).startswith("conv")


def is_free(operator: OpOverload, args: Sequence[Any]) -> bool:
    """Whether the operator costs no MAC by convention: views, moves, pointwise, pools, norms."""
    if not is_aten(operator):
        return operator.namespace == "profiler"
    return (
        torch.Tag.pointwise in operator.tags
        or base_name(operator) in COST_FREE
        or _is_view(operator)
        or not any(isinstance(arg, Tensor) for arg in flatten(args))  # makes a tensor of its own
    )


def _is_view(operator: OpOverload) -> bool:
    returns = [each.alias_info for each in operator._schema.returns]
    return bool(returns) and all(alias is not None and not alias.is_write for alias in returns)


def flatten(values: Iterable[Any]) -> Iterator[Any]:
    """The values, with those inside lists and tuples in their place."""
    for value in values:
        if isinstance(value, list | tuple):
            yield from flatten(value)
        else:
            yield value
