"""The fused operators as torch knows them: ``ninlab::NAME``, on a GPU, on a CPU and on paper.

Each has a kernel in Triton for CUDA (`kernels`), the plain one of `reference` for the CPU, and says
for the meta device what it returns. So profilers, traces and counters meet it as an operator like
any other. What it computes, and what its arguments are, is said in `reference`.

The functions at the end are what modules call. They say what autograd keeps: of `bias_relu` the
result, of `bias_relu_max_pool` the codes, of `chain` the input, of `product_bias_relu` what the
product read and made.
"""

from __future__ import annotations

import os
import shutil
import sysconfig
from collections.abc import Callable, Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.library import custom_op

from ninlab.errors import quoted
from ninlab.fused import reference
from ninlab.fused.reference import channels_last, check_is_batch, new_maps, wide
from ninlab.fused.tiles import pooled_sides
from ninlab.torch_private import product_bias_relu as _product_bias_relu

# ---------------------------------------------------------------- where they run

LEAST_CAPABILITY = (8, 0)
"""CUDA's compute capability from which a GPU multiplies bfloat16: Ampere's."""


def why_not(device: torch.device | str) -> str | None:
    """One sentence that says why the kernels cannot run on that device; None where they can.

    On a CPU the operators run as plain torch, which is there to check them and not to train.
    """
    device = torch.device(device)
    if device.type != "cuda":
        return f"fused kernels need a CUDA device, not {quoted(str(device))}; torch's run anywhere"
    if not torch.cuda.is_available():
        return "fused kernels need a CUDA device, and torch finds none here"
    capability = torch.cuda.get_device_capability(device)
    if capability < LEAST_CAPABILITY:
        named = torch.cuda.get_device_name(device)
        return (
            f"fused kernels need compute capability {_dotted(LEAST_CAPABILITY)} or above, for "
            f"bfloat16; {named} has {_dotted(capability)}"
        )
    if find_spec("triton") is None:
        return "fused kernels are written in Triton, which is not installed: pip install triton"
    compilers = [os.environ["CC"]] if "CC" in os.environ else ["gcc", "clang"]
    if not any(map(shutil.which, compilers)):
        return (
            "Triton starts fused kernels through code that a C compiler builds, and there is "
            f"no {' or '.join(compilers)} here; the variable CC names another"
        )
    if not (header := _python_header()).exists():
        return (
            "Triton starts fused kernels through code that is compiled with Python's headers, and "
            f"there is no {header}; install those of this Python (python3-dev)"
        )
    return None


def _python_header() -> Path:
    """Where Triton's code looks for ``Python.h``, which its driver.c includes.

    Source: _build in triton/runtime/build.py, 3.9: in the folder of Python's own scheme, and of
    Debian's, which names one without headers, in that of the scheme behind it.
    """
    scheme = sysconfig.get_default_scheme()
    scheme = "posix_prefix" if scheme == "posix_local" else scheme
    return Path(sysconfig.get_path("include", scheme)) / "Python.h"


def _dotted(capability: tuple[int, int]) -> str:
    return ".".join(map(str, capability))


# ---------------------------------------------------------------- what they return


def _wide(like: Tensor, *shape: int) -> Tensor:
    """What sums of such maps are returned in."""
    return like.new_empty(shape, dtype=wide(like.dtype))


def _nothing(maps: Tensor, bias: Tensor) -> None:
    """What `bias_relu_` makes: it works in place."""


def _like_maps_and_bias(gradient: Tensor, result: Tensor) -> tuple[Tensor, Tensor]:
    return new_maps(gradient, *gradient.shape), _wide(gradient, gradient.shape[1])


def _pooled_and_codes(
    maps: Tensor, bias: Tensor, kernel: int, stride: int, padding: int, with_codes: bool
) -> tuple[Tensor, Tensor]:
    batch, channels, *sides = maps.shape
    shape = (batch, channels, *pooled_sides(sides, kernel, stride, padding))
    pooled = new_maps(maps, *shape)
    if with_codes:
        return pooled, new_maps(maps, *shape, dtype=torch.uint8)
    return pooled, maps.new_empty(0, dtype=torch.uint8)


def _before_the_pool(
    gradient: Tensor,
    codes: Tensor,
    height: int,
    width: int,
    kernel: int,
    stride: int,
    padding: int,
) -> tuple[Tensor, Tensor]:
    batch, channels = gradient.shape[:2]
    return new_maps(gradient, batch, channels, height, width), _wide(gradient, channels)


def _like_maps(
    maps: Tensor, bias1: Tensor, weight2: Tensor, bias2: Tensor, weight3: Tensor
) -> Tensor:
    return new_maps(maps, *maps.shape)


def _like_all_of_the_chain(
    gradient: Tensor, maps: Tensor, bias1: Tensor, weight2: Tensor, bias2: Tensor, weight3: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    of_bias1, of_weight2, of_bias2, of_weight3 = (
        _wide(maps, *each.shape) for each in (bias1, weight2, bias2, weight3)
    )
    return new_maps(maps, *maps.shape), of_bias1, of_weight2, of_bias2, of_weight3


def _folded(maps: Tensor, factor: int, before: int, height: int, width: int) -> Tensor:
    batch, channels = maps.shape[:2]
    return new_maps(maps, batch, channels * factor**2, height // factor, width // factor)


def _unfolded(gradient: Tensor, factor: int, before: int, height: int, width: int) -> Tensor:
    batch, channels = gradient.shape[:2]
    return new_maps(gradient, batch, channels // factor**2, height, width)


def _picked(
    images: Tensor, indices: Tensor, mean: float, deviation: float, dtype: torch.dtype
) -> Tensor:
    return images.new_empty(len(indices), *images.shape[1:], dtype=dtype)


# ---------------------------------------------------------------- as torch knows them


def _operator(
    compute: Callable[..., Any], returns: Callable[..., Any], mutates: Iterable[str] = ()
) -> Callable[..., Any]:
    """``ninlab::`` and the function's name: that function on the CPU, its namesake on a GPU."""
    name = compute.__name__
    operator = custom_op(f"ninlab::{name}", compute, mutates_args=mutates, device_types="cpu")

    def on_a_gpu(maps: Tensor, *arguments: Any) -> Any:
        from ninlab.fused import kernels  # needs Triton, which only a GPU's torch brings

        if maps.dtype == torch.float64:  # of which kernels make no more than float32
            return compute(maps, *arguments)
        with torch.cuda.device(maps.device):  # Triton starts kernels on the current one
            return getattr(kernels, name)(maps, *arguments)

    operator.register_kernel("cuda")(on_a_gpu)
    operator.register_fake(returns)
    return operator


_bias_relu_ = _operator(reference.bias_relu_, _nothing, mutates=("maps",))
_relu_bias_backward = _operator(reference.relu_bias_backward, _like_maps_and_bias)
_bias_relu_max_pool = _operator(reference.bias_relu_max_pool, _pooled_and_codes)
_bias_relu_max_pool_backward = _operator(reference.bias_relu_max_pool_backward, _before_the_pool)
_chain = _operator(reference.chain, _like_maps)
_chain_backward = _operator(reference.chain_backward, _like_all_of_the_chain)
_fold = _operator(reference.fold, _folded)
_fold_backward = _operator(reference.fold_backward, _unfolded)
pick = _operator(reference.pick, _picked)


# ---------------------------------------------------------------- with gradients


class _BiasRelu(Function):
    @staticmethod
    def forward(ctx: Any, maps: Tensor, bias: Tensor) -> Tensor:
        _bias_relu_(maps, bias)
        ctx.mark_dirty(maps)
        ctx.save_for_backward(maps)
        return maps

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Any:
        (result,) = ctx.saved_tensors
        return _relu_bias_backward(gradient, result)


class _ProductWithEpilogue(Function):
    """relu(product + bias) of the gradient that has passed bias and ReLU; see `_Epilogue`."""

    @staticmethod
    def forward(ctx: Any, maps: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(maps, weight)
        product = _product_bias_relu(bias.to(maps.dtype), rows_of(maps), weight.flatten(1).T)
        return _maps_of(product, maps)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, passed: Tensor) -> tuple[Tensor | None, Tensor, None]:
        maps, weight = ctx.saved_tensors
        rows = rows_of(passed)
        to_maps = _maps_of(rows @ weight.flatten(1), maps) if ctx.needs_input_grad[0] else None
        return to_maps, (rows.T @ rows_of(maps)).view_as(weight), None


class _Epilogue(Function):
    """The bias and the ReLU of a product that has them already: only the way back is left to do.

    Were the two one function, what arrives and the result would lie in memory until the products
    of the backward pass are made, which need neither.
    """

    @staticmethod
    def forward(ctx: Any, result: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(result)
        return result.detach()  # a view with its strides, which view_as changes for one image

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Any:
        (result,) = ctx.saved_tensors
        return _relu_bias_backward(gradient, result)


class _BiasReluMaxPool(Function):
    @staticmethod
    def forward(
        ctx: Any, maps: Tensor, bias: Tensor, kernel: int, stride: int, padding: int
    ) -> Any:
        pooled, codes = _bias_relu_max_pool(maps, bias, kernel, stride, padding, True)
        ctx.save_for_backward(codes)
        ctx.window = (*maps.shape[-2:], kernel, stride, padding)
        return pooled

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        (codes,) = ctx.saved_tensors
        return (*_bias_relu_max_pool_backward(gradient, codes, *ctx.window), None, None, None)


class _Chain(Function):
    @staticmethod
    def forward(
        ctx: Any, maps: Tensor, bias1: Tensor, weight2: Tensor, bias2: Tensor, weight3: Tensor
    ) -> Any:
        # Cast here: a cast that autograd saw would round the float32 gradients of the weights.
        operands = maps, bias1, weight2.to(maps.dtype), bias2, weight3.to(maps.dtype)
        ctx.save_for_backward(*operands)
        return _chain(*operands)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Any:
        return _chain_backward(gradient, *ctx.saved_tensors)


class _Fold(Function):
    @staticmethod
    def forward(ctx: Any, maps: Tensor, factor: int, before: int, height: int, width: int) -> Any:
        ctx.unfold = (factor, before, *maps.shape[-2:])
        return _fold(maps, factor, before, height, width)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None, None]:
        return _fold_backward(gradient, *ctx.unfold), None, None, None, None


# ---------------------------------------------------------------- what modules call


def _apply(function: type[Function], *arguments: Any) -> Tensor:
    """What the function makes of them, remembered by autograd."""
    result: Tensor = function.apply(*arguments)
    return result


def bias_relu(maps: Tensor, bias: Tensor) -> Tensor:
    """relu(maps + bias) in the memory of the maps, which must be nobody else's."""
    return _apply(_BiasRelu, channels_last(maps), bias)


def product_bias_relu(maps: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """A 1x1 layer with ReLU: one product of (pixels, channels) and the weight, and its epilogue."""
    maps = _narrowed(maps)
    weight = weight.to(maps.dtype)
    result = _apply(_ProductWithEpilogue, channels_last(maps), weight, bias.detach())
    return _apply(_Epilogue, result, bias)


def product(maps: Tensor, weight: Tensor) -> Tensor:
    """A 1x1 layer without bias: one product of (pixels, channels) and the weight."""
    maps = _narrowed(maps)
    weight = weight.to(maps.dtype)  # first: on the way back, maps get their gradient before it
    return _maps_of(rows_of(channels_last(maps)) @ weight.flatten(1).T, maps)


def bias_relu_max_pool(
    maps: Tensor, bias: Tensor, kernel: int, stride: int, padding: int
) -> Tensor:
    """The largest value of each window of relu(maps + bias)."""
    check_is_batch(maps)
    if torch.is_grad_enabled() and (maps.requires_grad or bias.requires_grad):
        return _apply(_BiasReluMaxPool, maps, bias, kernel, stride, padding)
    pooled: Tensor = _bias_relu_max_pool(maps, bias, kernel, stride, padding, False)[0]
    return pooled


def chain(maps: Tensor, bias1: Tensor, weight2: Tensor, bias2: Tensor, weight3: Tensor) -> Tensor:
    """weight3 relu(weight2 relu(maps + bias1) + bias2), of which only the maps are kept."""
    return _apply(_Chain, channels_last(maps), bias1, weight2, bias2, weight3)


def fold(maps: Tensor, factor: int, before: int, height: int, width: int) -> Tensor:
    """Squares of factor x factor pixels as one pixel each; see `reference.fold`."""
    check_is_batch(maps)
    return _apply(_Fold, maps, factor, before, height, width)


def _narrowed(maps: Tensor) -> Tensor:
    """The maps in the type in which autocast takes products, where it is on.

    Torch does so for its own 1x1 layers, but on CUDA not for a product with an epilogue.
    """
    kind = maps.device.type
    if kind not in ("cpu", "cuda") or not torch.is_autocast_enabled(kind):
        return maps
    return maps.to(torch.get_autocast_dtype(kind)) if maps.dtype == torch.float32 else maps


def rows_of(maps: Tensor) -> Tensor:
    """(batch * height * width, channels): a view, for the maps are in channels_last."""
    return maps.permute(0, 2, 3, 1).flatten(0, 2)


def _maps_of(rows: Tensor, like: Tensor) -> Tensor:
    """The rows as maps in channels_last, of the height and width of those: a view."""
    batch, _, height, width = like.shape
    return rows.view(batch, height, width, rows.shape[1]).permute(0, 3, 1, 2)
