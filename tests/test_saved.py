"""Saved bytes on paper against what autograd really hands to its hooks."""

import pytest
import torch
from hypothesis import given, settings
from torch import nn

from ninlab import formulas
from ninlab.architectures import Architecture, architecture
from ninlab.networks import build
from tests.strategies import architectures


def hooked_bytes(network: Architecture, batch_size: int) -> int:
    """Bytes of the distinct storages that forward and loss pack, parameters excluded."""
    module = build(network, seed=0)
    own = {p.untyped_storage().data_ptr() for p in module.parameters()}
    own |= {b.untyped_storage().data_ptr() for b in module.buffers()}
    packed: dict[int, torch.UntypedStorage] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            packed[storage.data_ptr()] = storage
        return tensor

    images = torch.zeros(batch_size, *network.input_shape)
    labels = torch.zeros(batch_size, dtype=torch.int64)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        nn.functional.cross_entropy(module(images), labels)
    return sum(storage.nbytes() for storage in packed.values())


def mask_surplus(network: Architecture, batch_size: int) -> int:
    """On the CPU a dropout mask is kept as float32: three bytes an element more than on CUDA."""
    saved = formulas.saved_tensors(network, batch_size)
    return sum(3 * tensor.bytes for tensor in saved if tensor.kind == "dropout_mask")


@pytest.mark.parametrize(
    "name", ["lenet", "nin_28", "nin_28_batch_norm", "nin_28_fully_connected", "googlenet_28",
             "googlenet", "nin_cifar10", "nin_cifar10_strided", "alexnet"],
)  # fmt: skip
@pytest.mark.parametrize("batch_size", [1, 3])
def test_saved_bytes_are_what_autograd_packs(name, batch_size):
    network = architecture(name)
    expected = formulas.saved_bytes(network, batch_size) + mask_surplus(network, batch_size)
    assert hooked_bytes(network, batch_size) == expected


@settings(deadline=None, max_examples=50)
@given(network=architectures())
def test_saved_bytes_are_what_autograd_packs_on_random_networks(network):
    expected = formulas.saved_bytes(network, 2) + mask_surplus(network, 2)
    assert hooked_bytes(network, 2) == expected


def test_pool_indices_take_eight_bytes_and_relu_results_four():
    kinds = {}
    for tensor in formulas.saved_tensors(architecture("nin"), batch_size=2):
        kinds[tensor.layer, tensor.kind] = tensor.bytes
    assert kinds["block1.relu1", "relu_result"] == 2 * 96 * 54 * 54 * 4
    assert kinds["maxpool1", "pool_indices"] == 2 * 96 * 26 * 26 * 8
    assert kinds["dropout1", "dropout_mask"] == 2 * 384 * 5 * 5
