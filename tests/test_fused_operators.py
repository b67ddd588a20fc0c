"""The fused operators in plain torch compute what torch's layers do, and give their gradients."""

from __future__ import annotations

import shutil
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.autograd import gradcheck
from torch.library import opcheck
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

from ninlab.errors import KernelsError, NinlabError
from ninlab.fused import fuse, layers, operators, pick, reference, tiles, why_not
from ninlab.fused.reference import channels_last

WINDOWS = [(3, 2, 0), (3, 2, 1), (2, 2, 0), (3, 1, 1), (2, 3, 1), (5, 3, 2), (1, 1, 0)]
"""(kernel, stride, padding) of a pool."""

SHAPES = [(2, 8, 5, 7), (1, 3, 9, 6)]


def laid_out(values: Tensor) -> Tensor:
    """Maps in channels_last; a bias as it is."""
    return channels_last(values) if values.dim() == 4 else values


def maps_of(shape: tuple[int, ...], dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)
    return laid_out(values).requires_grad_()


def coarse(shape: tuple[int, ...], dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    """Halves from -1 to 1: many are equal, many are 0, and their sums are exact in any order."""
    generator = torch.Generator().manual_seed(seed)
    halves = torch.randint(-2, 3, shape, generator=generator) / 2
    return laid_out(halves.to(dtype)).requires_grad_()


def with_nan(maps: Tensor) -> Tensor:
    """The maps with a NaN in each window of 3 x 3, and two in some."""
    values = maps.detach().clone(memory_format=torch.preserve_format)
    values[:, ::2, 1::3, 1::3] = values[:, 1::4, 2::5, 2::5] = torch.nan
    return values.requires_grad_()


def results_and_gradients(layer: Callable[..., Tensor], *inputs: Tensor) -> list[Tensor]:
    """What the layer makes, and the gradients of its inputs for one of small integers."""
    leaves = [each.detach().clone(memory_format=torch.preserve_format) for each in inputs]
    result = layer(*(each.requires_grad_() for each in leaves))
    return [result, *torch.autograd.grad(result, leaves, coarse(result.shape, result.dtype, 9))]


def assert_same_bits(
    ours: Callable[..., Tensor], torchs: Callable[..., Tensor], *inputs: Tensor
) -> None:
    one, other = results_and_gradients(ours, *inputs), results_and_gradients(torchs, *inputs)
    assert_close(one, other, rtol=0, atol=0, equal_nan=True)


def biased(maps: Tensor, bias: Tensor) -> Tensor:
    return F.relu(maps + bias[:, None, None])


# ---------------------------------------------------------------- gradients

weights = maps_of((8, 8, 1, 1), seed=1), maps_of((8, 8, 1, 1), seed=2)
biases = maps_of((8,), seed=3), maps_of((8,), seed=4)


@pytest.mark.parametrize(
    ("operator", "inputs"),
    [
        (lambda maps, bias: operators.bias_relu(maps * 1, bias), (biases[0],)),
        (operators.product_bias_relu, (weights[0], biases[0])),
        (operators.product, (weights[0],)),
        (operators.chain, (biases[0], weights[0], biases[1], weights[1])),
        (lambda maps: operators.fold(maps, 2, 0, 4, 8), ()),
        (lambda maps: operators.fold(maps, 3, 2, 9, 6), ()),
    ],
    ids=["bias_relu", "product_bias_relu", "product", "chain", "fold", "fold_padded"],
)
def test_gradients_are_the_slopes(operator: Callable[..., Tensor], inputs: tuple[Tensor]) -> None:
    assert gradcheck(operator, (maps_of((1, 8, 5, 7)), *inputs))


@pytest.mark.parametrize("window", WINDOWS)
def test_gradients_of_a_pool_are_the_slopes(window: tuple[int, int, int]) -> None:
    def pool(maps: Tensor, bias: Tensor) -> Tensor:
        return operators.bias_relu_max_pool(maps, bias, *window)

    assert gradcheck(pool, (maps_of((1, 3, 5, 7)), maps_of((3,), seed=1)))


# ---------------------------------------------------------------- bits


@pytest.mark.parametrize("change", [lambda maps: maps, with_nan], ids=["ties", "nan"])
@pytest.mark.parametrize("shape", SHAPES)
def test_bias_and_relu_have_torchs_bits(shape: tuple[int, ...], change: Callable[..., Any]) -> None:
    maps, bias = change(coarse(shape)), coarse(shape[1:2], seed=1)
    assert_same_bits(lambda maps, bias: operators.bias_relu(maps * 1, bias), biased, maps, bias)


@pytest.mark.parametrize("change", [lambda maps: maps, with_nan], ids=["ties", "nan"])
@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("shape", SHAPES)
def test_a_pool_has_torchs_bits(
    shape: tuple[int, ...], window: tuple[int, int, int], change: Callable[..., Any]
) -> None:
    maps, bias = change(coarse(shape)), coarse(shape[1:2], seed=1)
    assert_same_bits(
        lambda maps, bias: operators.bias_relu_max_pool(maps, bias, *window),
        lambda maps, bias: F.max_pool2d(biased(maps, bias), *window),
        *(maps, bias),
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_bias_is_rounded_before_it_is_added_and_the_sum_before_it_is_compared(
    dtype: torch.dtype,
) -> None:
    maps, bias = maps_of((2, 8, 9, 7), dtype), maps_of((8,), torch.float32, seed=1)
    rounded = biased(maps, bias.to(dtype))
    assert torch.equal(operators.bias_relu(maps * 1, bias), rounded)
    pooled = operators.bias_relu_max_pool(maps, bias, 3, 3, 0)
    assert torch.equal(pooled, F.max_pool2d(rounded, 3, 3))
    gradient = coarse(pooled.shape, dtype)
    (ours,) = torch.autograd.grad(pooled, maps, gradient)
    (torchs,) = torch.autograd.grad(F.max_pool2d(rounded, 3, 3), maps, gradient)
    assert torch.equal(ours, torchs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gradients_of_biases_and_weights_have_their_type(dtype: torch.dtype) -> None:
    maps, bias, weight = coarse((2, 8, 5, 7), dtype), coarse((8,)), coarse((8, 8, 1, 1))
    maps = operators.bias_relu(maps * 1, bias)
    maps = operators.product_bias_relu(maps, weight, bias)
    maps = operators.chain(operators.product(maps, weight), bias, weight, bias, weight)
    operators.bias_relu_max_pool(maps, bias, 3, 2, 1).sum().backward()
    assert {each.grad.dtype for each in (bias, weight)} == {torch.float32}


def test_a_prediction_makes_no_codes() -> None:
    maps, bias = coarse((2, 8, 5, 7)), coarse((8,))
    pooled, codes = reference.bias_relu_max_pool(maps.detach(), bias.detach(), 3, 2, 0, False)
    assert codes.numel() == 0
    with torch.no_grad():
        assert torch.equal(operators.bias_relu_max_pool(maps, bias, 3, 2, 0), pooled)


@given(
    sides=st.tuples(*[st.integers(1, 15)] * 2),
    kernel=st.integers(1, 7),
    stride=st.integers(2, 5),
    padding=st.integers(0, 3),
    channels=st.integers(1, 7),
)
@settings(max_examples=60)
def test_a_folded_convolution_is_the_convolution(
    sides: tuple[int, int], kernel: int, stride: int, padding: int, channels: int
) -> None:
    assume(kernel <= min(sides) + 2 * padding)
    conv = nn.Conv2d(channels, 5, kernel, stride, padding, dtype=torch.float64)
    folded = layers.ConvWithoutBias(conv)
    assert folded.fold == stride
    images = maps_of((2, channels, *sides))
    expected = conv(images) - conv.bias[:, None, None]
    made = folded(images)
    assert_close(made, expected)
    for ours, torchs in zip(
        *(torch.autograd.grad(each.sum() ** 2, [images, conv.weight]) for each in (made, expected)),
        strict=True,
    ):
        assert_close(ours, torchs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_picked_pixels_are_divided_and_shifted_in_float32(dtype: torch.dtype) -> None:
    images = torch.arange(256, dtype=torch.uint8).view(4, 1, 8, 8)
    picked = pick(images, torch.tensor([3, 0, 3]), 0.25, 0.5, dtype)
    expected = ((images[[3, 0, 3]].float() / 255 - 0.25) / 0.5).to(dtype)
    assert torch.equal(picked, expected)


# ---------------------------------------------------------------- operators of torch


def arguments_of_each() -> dict[str, list[tuple[Any, ...]]]:
    maps, bias, weight = (each.detach() for each in (coarse(SHAPES[0]), biases[0], weights[0]))
    bias, weight = bias.float(), weight.float()
    pixel = maps[:1, :1, :1, :1]
    pooled, codes = reference.bias_relu_max_pool(maps, bias, 3, 2, 1, True)
    images = torch.zeros(3, 1, 4, 4, dtype=torch.uint8)
    return {
        "bias_relu_": [(maps, bias), (pixel, bias[:1])],
        "relu_bias_backward": [(maps, maps), (pixel, pixel)],
        "bias_relu_max_pool": [
            (maps, bias, 3, 2, 1, True),
            (maps, bias, 3, 2, 1, False),
            (pixel, bias[:1], 1, 1, 0, True),
        ],
        "bias_relu_max_pool_backward": [(pooled, codes, 5, 7, 3, 2, 1)],
        "chain": [(maps, bias, weight, bias, weight)],
        "chain_backward": [(maps, maps, bias, weight, bias, weight)],
        "fold": [(maps, 2, 1, 6, 8), (maps[:, :1, :4, :4], 4, 0, 4, 4)],
        "fold_backward": [(maps, 2, 1, 8, 13), (maps[:1, :, :1, :1], 2, 0, 2, 2)],
        "pick": [(images, torch.tensor([1, 0]), 0.25, 0.5, torch.bfloat16)],
    }


@pytest.mark.parametrize("name", arguments_of_each())
def test_an_operator_returns_what_it_says_on_paper_and_new_memory(name: str) -> None:
    for arguments in arguments_of_each()[name]:
        opcheck(getattr(torch.ops.ninlab, name).default, arguments)


# ---------------------------------------------------------------- where kernels run


def test_a_cpu_runs_no_kernels() -> None:
    assert why_not("cpu") == ("fused kernels need a CUDA device, not 'cpu'; torch's run anywhere")


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Callable[[tuple[int, int]], None]:
    """Pretends that there is a GPU of that compute capability, and all that kernels need."""

    def pretend(capability: tuple[int, int]) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla T4")

    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr(operators, "find_spec", lambda name: name)
    monkeypatch.setattr(operators, "_python_header", lambda: Path(__file__))
    monkeypatch.setattr(shutil, "which", lambda name: "/usr/bin/gcc" if name == "gcc" else None)
    return pretend


def test_a_gpu_from_ampere_on_runs_them(gpu: Callable[..., None]) -> None:
    gpu((8, 0))
    assert why_not("cuda:0") is None
    gpu((7, 5))
    assert "need compute capability 8.0 or above, for bfloat16; Tesla T4 has 7.5" in why_not("cuda")


@pytest.mark.parametrize("scheme", ["posix_prefix", "posix_local"])
def test_headers_are_looked_for_where_triton_does(
    scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Debian's own scheme puts what is installed later into another folder than the headers'."""
    folders = {"posix_prefix": "usr", "posix_local": "usr/local"}
    monkeypatch.setattr(sysconfig, "get_default_scheme", lambda: scheme)
    monkeypatch.setattr(sysconfig, "get_path", lambda name, scheme: folders[scheme])
    assert operators._python_header() == Path("usr/Python.h")


def test_what_a_machine_lacks_is_said(
    gpu: Callable[..., None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    gpu((9, 0))
    monkeypatch.setattr(operators, "_python_header", lambda: tmp_path / "Python.h")
    assert f"there is no {tmp_path / 'Python.h'}; install" in why_not("cuda")
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert "there is no gcc or clang here" in why_not("cuda")
    monkeypatch.setenv("CC", "icx")
    assert "there is no icx here" in why_not("cuda")
    monkeypatch.setattr(operators, "find_spec", lambda name: None)
    assert "Triton, which is not installed" in why_not("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "torch finds none here" in why_not("cuda")


# ---------------------------------------------------------------- tiles


@given(channels=st.integers(1, 2000))
def test_a_tile_has_sides_that_are_powers_of_two_and_covers_few_channels(channels: int) -> None:
    rows, block = tiles.tile(channels)
    assert rows * block == tiles.TILE
    assert block & (block - 1) == 0
    assert block <= tiles.WIDEST_BLOCK
    if channels % 16 == 0:
        assert channels % block == 0


@given(side=st.integers(1, 60), kernel=st.integers(1, 9), stride=st.integers(1, 9), data=st.data())
def test_each_position_and_each_window_begins_in_a_cell(
    side: int, kernel: int, stride: int, data: st.DataObject
) -> None:
    padding = data.draw(st.integers(0, kernel // 2))
    assume(kernel <= side + 2 * padding)
    cells = tiles.cells(side, stride, padding)
    assert (cells - 1) * stride < side + padding <= cells * stride
    assert (side + 2 * padding - kernel) // stride + 1 <= cells


def test_maps_whose_offsets_are_no_int32_are_refused() -> None:
    tiles.check(2**31 - 1)
    with pytest.raises(KernelsError, match="take a smaller batch"):
        tiles.check(2**31)


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("pool", [(), (nn.MaxPool2d(2),)])
def test_one_image_without_a_batch_is_refused(kernel: int, pool: tuple[nn.Module, ...]) -> None:
    joined = fuse(nn.Sequential(nn.Conv2d(8, 8, kernel), nn.ReLU(), *pool))
    with pytest.raises(NinlabError, match=r"batches of maps, .*, not 8x"):
        joined(torch.zeros(8, 6, 6))


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_maps_that_are_smaller_than_a_window_are_refused_everywhere(device: str) -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), nn.MaxPool2d(3, 2)).to(device)
    with pytest.raises((NinlabError, RuntimeError), match=r"smaller than a window|too small"):
        fuse(network)(torch.zeros(1, 3, 2, 2, device=device))


def test_an_empty_batch_goes_both_ways() -> None:
    network = nn.Sequential(
        nn.Conv2d(8, 16, 1), nn.ReLU(), nn.Conv2d(16, 16, 1), nn.ReLU(), nn.MaxPool2d(2)
    )
    made = fuse(network)(torch.zeros(0, 8, 6, 6))
    assert made.shape == (0, 16, 3, 3)
    made.sum().backward()
    assert all(not parameter.grad.any() for parameter in network.parameters())


@pytest.mark.parametrize("pool", [(), (nn.MaxPool2d(2),)])
def test_a_product_computes_in_the_type_of_autocast(pool: tuple[nn.Module, ...]) -> None:
    """Autocast knows torch's own 1x1 layers, and on CUDA no product with an epilogue."""
    network = nn.Sequential(nn.GroupNorm(1, 8), nn.Conv2d(8, 16, 1), nn.ReLU(), *pool)
    images = torch.randn(2, 8, 6, 6)
    seen = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            if func.overloadpacket.__name__ in ("_addmm_activation", "mm"):
                seen.append(args[1].dtype)
            return func(*args, **(kwargs or {}))

    with torch.autocast("cpu", torch.bfloat16):
        expected = network(images)
        with Watch():
            made = fuse(network)(images)
    assert made.dtype == expected.dtype == torch.bfloat16
    assert seen == [torch.bfloat16]
