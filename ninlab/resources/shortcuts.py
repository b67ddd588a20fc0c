"""What do common operators return on the meta device, without asking torch's Python kernels?

Torch computes the shapes of many operators in Python, step by step through their
decomposition: one batch normalization takes as long as ten convolutions. For the
operators of this table the answer is plain to see, because their results look like their
operands. tests/test_resources_shortcuts.py holds every row to torch's own answer, which is
wrong once: its kernel on meta makes a gradient of images that need none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ninlab.torch_private import DispatchMode, OpOverload, qualified_name

aten = torch.ops.aten


class Shortcuts(DispatchMode):
    """Takes the shortcut of every operator that has one, while it is entered."""

    def __torch_dispatch__(
        self,
        func: OpOverload,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        result = result_on_meta(func, args)
        return func(*args, **kwargs or {}) if result is NotImplemented else result


def result_on_meta(operator: OpOverload, args: Sequence[Any]) -> Any:
    """What the operator returns for these meta tensors, or NotImplemented to ask torch."""
    if not args:
        return NotImplemented
    shortcut = SHORTCUTS.get(operator)
    if shortcut is not None:
        return shortcut(*args) if args[0].is_meta else NotImplemented
    name = qualified_name(operator).removeprefix("aten::")
    if name.startswith("_foreach_"):
        return _lists(name, args)
    in_place = name.endswith("_") and torch.Tag.pointwise in operator.tags
    return args[0] if in_place and args[0].is_meta else NotImplemented


def _lists(name: str, args: Sequence[Any]) -> Any:
    """Optimizers work on lists of tensors; the results look like the first of them."""
    tensors = args[0]
    if not all(each.is_meta and each.is_floating_point() for each in tensors):
        return NotImplemented
    if name.endswith("_"):
        return None
    return [torch.empty_like(each) for each in tensors] if name in LISTS else NotImplemented


LISTS = frozenset(
    f"_foreach_{name}"
    for name in ("add", "addcdiv", "addcmul", "div", "lerp", "mul", "neg", "pow", "sqrt", "sub")
)
"""Operators on lists of floating tensors that return a list like it."""


def _like_first(first: Tensor, *_: Any) -> Tensor:
    return torch.empty_like(first)


def _cudnn_batch_norm(
    images: Tensor, weight: Tensor, bias: Any, mean: Any, variance: Any, training: bool, *_: Any
) -> tuple[Tensor, ...]:
    statistics = (weight.new_empty(weight.shape if training else 0) for _ in range(2))
    reserve = images.new_empty(0, dtype=torch.uint8)
    return torch.empty_like(images), *statistics, reserve


def _native_batch_norm(
    images: Tensor, weight: Tensor | None, bias: Any, mean: Any, variance: Any, *_: Any
) -> tuple[Tensor, ...]:
    like = images if weight is None else weight
    return torch.empty_like(images), *(like.new_empty(images.shape[1]) for _ in range(2))


def _cudnn_batch_norm_backward(
    images: Tensor, gradient: Tensor, weight: Tensor, *_: Any
) -> tuple[Tensor, ...]:
    return torch.empty_like(images), torch.empty_like(weight), torch.empty_like(weight)


def _native_batch_norm_backward(
    gradient: Tensor, images: Tensor, weight: Tensor | None, *others: Any
) -> tuple[Tensor | None, ...]:
    *_, wanted = others
    like = images if weight is None else weight
    results = (images, like.new_empty(images.shape[1]), like.new_empty(images.shape[1]))
    return tuple(
        torch.empty_like(each) if want else None for each, want in zip(results, wanted, strict=True)
    )


SHORTCUTS: Mapping[OpOverload, Callable[..., Any]] = {
    aten.cudnn_batch_norm.default: _cudnn_batch_norm,
    aten.cudnn_batch_norm_backward.default: _cudnn_batch_norm_backward,
    aten.hardtanh.default: _like_first,
    aten.hardtanh_backward.default: _like_first,
    aten.mish_backward.default: _like_first,
    aten.native_batch_norm.default: _native_batch_norm,
    aten.native_batch_norm_backward.default: _native_batch_norm_backward,
    aten.native_dropout_backward.default: _like_first,
    aten.relu.default: _like_first,
    aten.sigmoid.default: _like_first,
    aten.sigmoid_backward.default: _like_first,
    aten.silu.default: _like_first,
    aten.silu_backward.default: _like_first,
    aten.threshold_backward.default: _like_first,
}
"""Operators by what their results look like."""
