"""The fused operators' kernels compute what the reference does, to the bit.

On a GPU by tests/gpu/test_fused_kernels.py. Without one in Triton's interpreter, by
tests/test_fused_kernels.py and in a process of its own: Triton reads TRITON_INTERPRET when it is
imported. Numbers are few, and halves where a sum is compared: such sums are exact in any order.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from ninlab.errors import NinlabError
from ninlab.fused import kernels, reference, tiles
from ninlab.torch_private import DispatchMode

IS_INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if IS_INTERPRETED else "cuda"

SHAPES = [(2, 96, 5, 7), (1, 10, 6, 5), (1, 200, 3, 4), (2, 1, 5, 6)]
"""Channels of whole blocks, of less than one, of one and a half, and one channel."""

TYPES = [torch.float32, torch.float16]
if not IS_INTERPRETED:  # which makes something else of bfloat16
    TYPES.append(torch.bfloat16)


def laid_out(values: Tensor) -> Tensor:
    """Maps in channels_last; a bias as it is."""
    return values.contiguous(memory_format=torch.channels_last) if values.dim() == 4 else values


def coarse(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    """Halves from -1 to 1: many are equal, and many are 0."""
    generator = torch.Generator().manual_seed(seed)
    return laid_out((torch.randint(-2, 3, shape, generator=generator) / 2).to(dtype))


def fine(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return laid_out(torch.randn(shape, generator=generator).to(dtype))


def with_nan(maps: Tensor) -> Tensor:
    """The maps with a NaN in each window of 3 x 3, and two in some."""
    maps[:, ::2, 1::3, 1::3] = maps[:, 1::4, 2::5, 2::5] = torch.nan
    return maps


MADE = [coarse, fine, lambda *shape, **options: with_nan(coarse(*shape, **options))]


def there(*values: Any) -> list[Any]:
    """The values, of which tensors lie where kernels compute."""
    return [value.to(DEVICE) if isinstance(value, Tensor) else value for value in values]


def here(values: Any) -> list[Tensor]:
    """What a kernel or the reference makes, on the CPU."""
    return [value.cpu() for value in ([values] if isinstance(values, Tensor) else values)]


def assert_same(name: str, *arguments: Any, kernel: str = "") -> list[Tensor]:
    """What the reference makes of the arguments, and to the bit its kernel; NaN equals NaN.

    No two results of the kernel share memory, which torch refuses from an operator.
    """
    expected = here(getattr(reference, name)(*arguments))
    made = getattr(kernels, kernel or name)(*there(*arguments))
    if isinstance(made, tuple):
        places = [each.untyped_storage().data_ptr() for each in made if each.numel()]
        assert len(set(places)) == len(places)
    assert_close(here(made), expected, rtol=0, atol=0, equal_nan=True)
    return expected


@pytest.fixture(params=[tiles.SUMMING_PROGRAMS, 2])
def programs(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many programs as on a GPU, each of which meets one tile here; and two, with many."""
    monkeypatch.setattr(tiles, "SUMMING_PROGRAMS", request.param)
    monkeypatch.setattr(tiles, "CHAIN_PROGRAMS", request.param)


@pytest.mark.parametrize("made", MADE, ids=["ties", "random", "nan"])
@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_bias_and_relu(
    shape: tuple[int, ...], dtype: torch.dtype, made: Callable[..., Tensor]
) -> None:
    maps, bias = made(*shape, dtype=dtype), fine(2 * shape[1])[::2]
    for given in (maps, maps.contiguous()):  # channels side by side, and pixels
        ours, theirs = given.to(DEVICE, copy=True), given.clone()
        kernels.bias_relu_(ours, bias.to(DEVICE))
        reference.bias_relu_(theirs, bias)
        assert_close(ours.cpu(), theirs, rtol=0, atol=0, equal_nan=True)


@pytest.mark.usefixtures("programs")
@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("shape", [*SHAPES, (2, 32, 7, 9)])
def test_back_through_bias_and_relu(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    gradient = coarse(*shape, dtype=dtype, seed=1)
    assert_same("relu_bias_backward", gradient, with_nan(coarse(*shape, dtype=dtype)))


@pytest.mark.parametrize("made", MADE, ids=["ties", "random", "nan"])
@pytest.mark.parametrize(
    ("window", "shape", "dtype"),
    [
        ((3, 2, 0), SHAPES[0], TYPES[-1]),
        ((3, 2, 1), SHAPES[1], torch.float32),
        ((2, 2, 0), SHAPES[2], torch.float32),
        ((3, 1, 1), SHAPES[3], torch.float16),
        ((2, 3, 0), SHAPES[1], TYPES[-1]),
        ((4, 3, 2), SHAPES[3], torch.float32),
        ((9, 2, 4), SHAPES[3], torch.float32),
    ],
)
def test_a_pool_both_ways(
    window: tuple[int, int, int],
    shape: tuple[int, ...],
    dtype: torch.dtype,
    made: Callable[..., Tensor],
) -> None:
    maps, bias = made(*shape, dtype=dtype), coarse(2 * shape[1], seed=1)[::2]
    pooled, codes = assert_same("bias_relu_max_pool", maps, bias, *window, True)
    assert_same("bias_relu_max_pool", maps, bias, *window, False)
    gradient = coarse(*pooled.shape, dtype=dtype, seed=2)
    assert_same("bias_relu_max_pool_backward", gradient, codes, *shape[2:], *window)


@pytest.mark.usefixtures("programs")
def test_back_through_a_pool_of_more_tiles_than_programs() -> None:
    maps, bias = coarse(1, 128, 9, 8), coarse(128, seed=1)
    pooled, codes = reference.bias_relu_max_pool(maps, bias, 3, 2, 1, True)
    gradient = coarse(*pooled.shape, seed=2)
    assert_same("bias_relu_max_pool_backward", gradient, codes, 9, 8, 3, 2, 1)


@pytest.mark.usefixtures("programs")
@pytest.mark.parametrize("dtype", TYPES if IS_INTERPRETED else TYPES[1:])
@pytest.mark.parametrize("channels", [8, 24, 128])
def test_a_chain_both_ways(channels: int, dtype: torch.dtype) -> None:
    maps, gradient = (coarse(2, channels, 9, 8, dtype=dtype, seed=seed) for seed in (0, 1))
    few = fine(channels, channels, 1, 1) > 1  # so that 16 bits hold every sum
    weights = [coarse(channels, channels, 1, 1, dtype=dtype, seed=seed) * few for seed in (2, 3)]
    biases = [coarse(2 * channels, seed=seed)[::2] for seed in (4, 5)]
    given = maps, biases[0], weights[0], biases[1], weights[1]
    assert_same("chain", *given, kernel="chained")
    assert_same("chain_backward", gradient, *given, kernel="chained_backward")


def test_a_chain_of_float32_is_torchs() -> None:
    given = there(fine(1, 8, 3, 3), fine(8), fine(8, 8, 1, 1), fine(8), fine(8, 8, 1, 1))
    assert torch.equal(kernels.chain(*given), reference.chain(*given))
    made = kernels.chain_backward(given[0], *given)
    for ours, theirs in zip(made, reference.chain_backward(given[0], *given), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("shift", [(0.0, 1.0), (0.286, 0.353)])
@pytest.mark.parametrize("dtype", TYPES)
def test_picked_images(dtype: torch.dtype, shift: tuple[float, float]) -> None:
    images = torch.arange(3 * 1400).remainder(256).to(torch.uint8).view(3, 2, 28, 25)
    assert_same("pick", images, torch.tensor([2, 0, 2, 1]), *shift, dtype)


def test_partial_sums_take_as_many_bytes_as_is_said() -> None:
    class Room(DispatchMode):
        """Adds up what is made for sums."""

        def __torch_dispatch__(self, operator, types, arguments=(), options=None):
            made = operator(*arguments, **(options or {}))
            if operator is torch.ops.aten.new_empty.default and made.dtype == torch.float32:
                self.bytes += made.nbytes
            return made

    def room(operator: Callable[..., Any], *arguments: Any) -> int:
        with Room() as seen:
            seen.bytes = 0
            operator(*arguments)
        return seen.bytes

    maps, bias = there(coarse(2, 24, 9, 8, dtype=torch.float16), coarse(24))
    assert room(kernels.relu_bias_backward, maps, maps) == tiles.partial_bytes(2 * 9 * 8, 24)
    pooled, codes = reference.bias_relu_max_pool(maps, bias, 3, 2, 1, True)
    rows = 2 * tiles.cells(9, 2, 1) * tiles.cells(8, 2, 1)
    taken = room(kernels.bias_relu_max_pool_backward, pooled, codes, 9, 8, 3, 2, 1)
    assert taken == tiles.partial_bytes(rows, 24)
    weight = coarse(24, 24, 1, 1, dtype=torch.float16).to(DEVICE)
    taken = room(kernels.chain_backward, maps, maps, bias, weight, bias, weight)
    assert taken == tiles.chain_partial_bytes(2 * 9 * 8, 24)


def test_maps_of_too_many_values_are_refused() -> None:
    maps = torch.empty(2**15, 2**16, 1, 1, dtype=torch.uint8, device="meta")
    half_as_many = torch.empty(2**15, 2**15, 1, 1, dtype=torch.uint8, device="meta")  # four times
    for start in (
        lambda: kernels.bias_relu_(maps, maps),
        lambda: kernels.relu_bias_backward(maps, maps),
        lambda: kernels.bias_relu_max_pool(maps, maps, 1, 1, 0, True),
        lambda: kernels.bias_relu_max_pool(half_as_many, maps, 2, 1, 1, True),
        lambda: kernels.pick(maps, maps[:, 0, 0, 0], 0.0, 1.0, torch.float32),
        lambda: kernels.bias_relu_max_pool_backward(maps, maps, 1, 1, 1, 1, 0),
        lambda: kernels.chained(maps, maps, maps, maps, maps),
        lambda: kernels.chained_backward(maps, maps, maps, maps, maps, maps),
    ):
        with pytest.raises(NinlabError, match="fewer than 2\\*\\*31 values"):
            start()
