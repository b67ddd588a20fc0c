"""On a GPU: the fused operators' kernels compute what the reference does, each time the same."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ninlab.fused import fuse, why_not

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
    pytest.mark.skipif(bool(why_not("cuda")), reason=str(why_not("cuda"))),
]

if torch.cuda.is_available() and not why_not("cuda"):
    from tests.kernel_laws import *  # noqa: F403  # each test of it is one of this file

Made = tuple[Tensor, ...]


def random(*shape: int, seed: int) -> Tensor:
    generator = torch.Generator("cuda").manual_seed(seed)
    return torch.randn(shape, generator=generator, device="cuda")


def maps(seed: int) -> Tensor:
    """What the first pool of NiN reads."""
    made = random(128, 96, 54, 54, seed=seed).bfloat16()
    return made.to(memory_format=torch.channels_last)


@pytest.fixture
def step() -> Callable[[], Made]:
    """What all kernels make of maps of NiN's first block, both ways."""
    read, bias, weight = maps(0), random(96, seed=1), random(96, 96, 1, 1, seed=2).bfloat16()
    images = torch.arange(256, dtype=torch.uint8, device="cuda").expand(50, 1, 28, 256).contiguous()
    indices = torch.arange(49, -1, -1, device="cuda")

    def run() -> Made:
        ops = torch.ops.ninlab
        chained = ops.chain(read, bias, weight, bias, weight)
        pooled, codes = ops.bias_relu_max_pool(chained, bias, 3, 2, 0, True)
        to_chained, to_bias = ops.bias_relu_max_pool_backward(pooled, codes, 54, 54, 3, 2, 0)
        to_read = ops.chain_backward(to_chained, read, bias, weight, bias, weight)
        passed = ops.relu_bias_backward(to_chained, read)
        picked = ops.pick(images, indices, 0.25, 0.5, torch.bfloat16)
        return chained, pooled, codes, to_bias, *to_read, *passed, picked

    return run


def same(one: Made, other: Made) -> bool:
    return all(map(torch.equal, one, other))


def test_kernels_make_the_same_bits_each_time_and_in_a_graph(step: Callable[[], Made]) -> None:
    first = step()
    assert same(step(), first)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        made = step()
    graph.replay()
    torch.cuda.synchronize()
    assert same(made, first)


def test_a_pool_of_nin_has_torchs_bits() -> None:
    read, bias = maps(0), random(96, seed=1)
    pooled, _ = torch.ops.ninlab.bias_relu_max_pool(read, bias, 3, 2, 0, True)
    assert torch.equal(pooled, F.max_pool2d(F.relu(read + bias.bfloat16()[:, None, None]), 3, 2))


@pytest.mark.parametrize("pool", [(), (nn.MaxPool2d(3, 2),)])
@pytest.mark.parametrize("kernel", [1, 3])
def test_what_is_no_number_goes_through_joined_layers_as_through_torchs(
    kernel: int, pool: tuple[nn.Module, ...]
) -> None:
    """A product's epilogue is cuBLAS's, and whether its ReLU cuts NaN is said nowhere."""
    network = nn.Sequential(nn.Conv2d(64, 64, kernel), nn.ReLU(), *pool)
    network = network.cuda().to(memory_format=torch.channels_last)
    images = random(2, 64, 9, 9, seed=0)
    images[0, 3, 4, 4] = torch.nan
    with torch.autocast("cuda", torch.bfloat16), torch.no_grad():
        stock, joined = network(images), fuse(network)(images)
    assert stock.isnan().any()
    assert torch.equal(stock.isnan(), joined.isnan())
