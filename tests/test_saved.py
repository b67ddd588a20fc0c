"""Saved bytes on paper and read from autograd's graph against the tensors that torch hands to its
hooks.
"""

from collections.abc import Iterable

import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from ninlab import formulas, liveness
from ninlab.architectures import ARCHITECTURES
from ninlab.fused import fuse
from ninlab.networks import build
from ninlab.reports import SavedTensor
from ninlab.resources import joined, load, profile, trace_step
from ninlab.resources.loss import cross_entropy, labels_for, scores_of
from ninlab.steps import Kernels
from tests.strategies import architectures, joinable

BATCH_SIZE = 2
BOOK = (
    *("lenet", "nin", "alexnet", "vgg11", "googlenet", "nin_28_batch_norm", "nin_cifar10"),
    *("nin_28", "nin_28_fully_connected", "googlenet_28", "nin_cifar10_strided"),
)
TORCHVISION = ("alexnet", "vgg11", "googlenet", "resnet18", "mobilenet_v2", "densenet121")


def hooked_bytes(
    module: nn.Module,
    input_shape: tuple[int, ...],
    batch_size: int,
    memory_format: torch.memory_format = torch.contiguous_format,
) -> int:
    """Bytes of the distinct storages that a real forward pass and its loss pack on the CPU."""
    own = {each.untyped_storage().data_ptr() for each in (*module.parameters(), *module.buffers())}
    packed: dict[int, torch.UntypedStorage] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            packed[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        images = torch.zeros(batch_size, *input_shape).contiguous(memory_format=memory_format)
        scores = scores_of(module.train()(images))
        cross_entropy(scores, [each.zero_() for each in labels_for(scores)])
    return sum(storage.nbytes() for storage in packed.values())


def with_cpus_masks(saved: Iterable[SavedTensor]) -> int:
    """Bytes of tensors that CUDA keeps, where each dropout mask is a float32 as on the CPU."""
    return sum(each.bytes * (4 if each.kind == "dropout_mask" else 1) for each in saved)


def check(module: nn.Module, input_shape: tuple[int, ...], batch_size: int = BATCH_SIZE) -> int:
    """The bytes that the graph and the hooks tell alike."""
    real = hooked_bytes(module, input_shape, batch_size)
    subject = load(module, input_shape)
    as_on_cpu = trace_step(subject, batch_size, on_cuda=False).saved
    assert sum(tensor.bytes for tensor in as_on_cpu) == real
    assert with_cpus_masks(trace_step(subject, batch_size).saved) == real
    return real


@pytest.mark.parametrize("batch_size", [1, 3])
@pytest.mark.parametrize("name", BOOK)
def test_saved_bytes_are_what_autograd_packs(name, batch_size):
    network = ARCHITECTURES[name]
    real = check(build(name), network.input_shape, batch_size)
    assert with_cpus_masks(formulas.saved_tensors(network, batch_size)) == real


@settings(deadline=None, max_examples=50)
@given(network=architectures())
def test_saved_bytes_are_what_autograd_packs_on_random_networks(network):
    real = hooked_bytes(build(network, seed=0), network.input_shape, BATCH_SIZE)
    assert with_cpus_masks(formulas.saved_tensors(network, BATCH_SIZE)) == real


def assert_joined_layers_keep_what_is_said(network, kernels, batch_size) -> None:
    """By the hooks of a real step in float32, by the graph of a traced one, and on paper."""
    subject = joined(load(build(network, device="meta"), network.input_shape), kernels)
    layout = subject.memory_format
    twin = fuse(build(network, seed=0).to(memory_format=layout), kernels)
    real = hooked_bytes(twin, network.input_shape, batch_size, layout)
    assert with_cpus_masks(trace_step(subject, batch_size).saved) == real
    assert with_cpus_masks(formulas.saved_tensors(network, batch_size, kernels=kernels)) == real


@pytest.mark.parametrize("kernels", [Kernels.FUSED, Kernels.CHAINED])
@pytest.mark.parametrize("name", ["nin", "nin_28", "alexnet_28", "vgg11_28", "googlenet_28"])
def test_joined_layers_keep_what_autograd_packs(name, kernels):
    assert_joined_layers_keep_what_is_said(ARCHITECTURES[name], kernels, BATCH_SIZE)


@settings(deadline=None, max_examples=40)
@given(network=joinable(), kernels=st.sampled_from([Kernels.FUSED, Kernels.CHAINED]))
def test_joined_layers_keep_what_autograd_packs_in_random_networks(network, kernels):
    assert_joined_layers_keep_what_is_said(network, kernels, 3)


def kept_by_nin(kernels: str) -> dict[str, int]:
    """Bytes by kind that NiN keeps at batch 128 in bf16."""
    kinds: dict[str, int] = {}
    for line in liveness.saved_lines(ARCHITECTURES["nin"], "bf16", kernels=kernels):
        kinds[line.kind] = kinds.get(line.kind, 0) + line.bytes(128)
    return kinds


def test_nin_keeps_under_half_once_the_inside_of_its_first_block_is_never_written():
    kept = {kernels: kept_by_nin(kernels) for kernels in Kernels}
    assert {kernels: sum(kinds.values()) for kernels, kinds in kept.items()} == {
        "torch": 551_160_404,
        "fused": 321_264_532,
        "chained": 249_600_916,
    }
    weights = {kernels: kinds["weight_copy"] for kernels, kinds in kept.items()}
    folded = 2 * 96 * (12**2 - 11**2)  # bytes of zeros in the first layer's windows
    assert weights["fused"] == weights["chained"] == weights["torch"] + folded == 3_984_272


def test_a_pool_that_adds_bias_and_relu_keeps_a_byte_a_value_and_no_map():
    one_map, pooled = 96 * 54**2, 96 * 26**2
    kinds = {}
    for kernels in (Kernels.FUSED, Kernels.TORCH):
        for tensor in formulas.saved_tensors(ARCHITECTURES["nin"], kernels=kernels):
            kinds[kernels, tensor.layer, tensor.kind] = tensor.bytes
    assert kinds["torch", "maxpool1", "pool_indices"] == 8 * pooled
    assert kinds["torch", "block1.relu3", "relu_result"] == 4 * one_map
    assert kinds["fused", "maxpool1", "pool_codes"] == pooled
    assert ("fused", "block1.relu3", "relu_result") not in kinds
    assert ("fused", "block1.conv3", "input") not in kinds  # block1.conv2 keeps that map as its own


def test_a_chain_keeps_one_map_of_the_three_of_its_block():
    block1 = {
        kernels: sum(
            tensor.bytes
            for tensor in formulas.saved_tensors(ARCHITECTURES["nin"], kernels=kernels)
            if tensor.layer.startswith("block1") and tensor.layer != "block1.conv1"
        )
        for kernels in Kernels
    }
    one_map = 4 * 96 * 54**2
    assert block1["chained"] == one_map
    # Of the stock block the first convolution keeps the images alone.
    assert block1["torch"] == 3 * one_map


@pytest.mark.parametrize("name", TORCHVISION)
def test_saved_bytes_are_what_autograd_packs_in_networks_of_others(name):
    options = {"init_weights": False} if name in ("googlenet", "vgg11") else {}
    check(getattr(torchvision.models, name)(weights=None, **options), (3, 224, 224))


def test_pool_indices_take_eight_bytes_and_relu_results_four():
    kinds = {}
    for tensor in formulas.saved_tensors(ARCHITECTURES["nin"], batch_size=BATCH_SIZE):
        kinds[tensor.layer, tensor.kind] = tensor.bytes
    assert kinds["block1.relu1", "relu_result"] == BATCH_SIZE * 96 * 54 * 54 * 4
    assert kinds["maxpool1", "pool_indices"] == BATCH_SIZE * 96 * 26 * 26 * 8
    assert kinds["dropout1", "dropout_mask"] == BATCH_SIZE * 384 * 5 * 5


class Square(torch.autograd.Function):
    """x * x, with a backward pass written in Python."""

    @staticmethod
    def forward(context, values):
        context.save_for_backward(values)
        return values * values

    @staticmethod
    def backward(context, gradient):
        (values,) = context.saved_tensors
        return 2 * values * gradient


class Custom(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1, 8, 8))

    def forward(self, images):
        return Square.apply(images * self.scale).flatten(1)


def test_what_a_backward_written_in_python_keeps_is_listed():
    check(Custom(), (1, 8, 8))
    kept = profile(Custom(), (1, 8, 8), batch_size=BATCH_SIZE).saved_tensors
    assert [(each.kind, each.bytes) for each in kept if each.layer == ""] == [
        ("mul_self", BATCH_SIZE * 256),
        ("square_saved_tensors", BATCH_SIZE * 256),
    ]


def test_bf16_keeps_half_of_each_activation_and_a_copy_of_each_weight():
    kinds: dict[str, dict[str, int]] = {}
    for precision in ("fp32", "bf16"):
        kinds[precision] = {}
        for each in profile("nin", batch_size=4, precision=precision).saved_tensors:
            kinds[precision][each.kind] = kinds[precision].get(each.kind, 0) + each.bytes
    full, half = kinds["fp32"], kinds["bf16"]
    assert 2 * half["relu_result"] == full["relu_result"]
    assert half["pool_indices"] == full["pool_indices"]
    weights = sum(each.numel() for each in build("nin").parameters() if each.dim() == 4)
    assert half["weight_copy"] == 2 * weights
    assert "weight_copy" not in full


def test_a_number_that_autograd_keeps_lies_on_the_host():
    class Scaled(nn.Conv2d):
        def forward(self, images):
            return torch.tanh(super().forward(images) * 3).mean((2, 3))

    saved = profile(Scaled(3, 8, 1), (3, 8, 8)).saved_tensors
    assert [each.kind for each in saved if each.layer == ""] == ["input", "tanh_result"]
