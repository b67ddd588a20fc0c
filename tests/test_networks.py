import pytest
import torch
from hypothesis import given, settings
from torch import nn

from ninlab import shapes
from ninlab.architectures import (
    ARCHITECTURES,
    KAIMING_ZERO_BIASES,
    XAVIER_WEIGHTS,
    architecture,
)
from ninlab.errors import ShapeError, UnknownNetworkError
from ninlab.networks import build, initialize
from tests.strategies import architectures


@pytest.mark.parametrize("network", ARCHITECTURES.values(), ids=lambda network: network.name)
def test_modules_carry_the_names_and_shapes_that_the_formulas_give(network):
    module = build(network, device="meta")
    put_out = {}
    for name, leaf in module.named_modules():
        if not list(leaf.children()):
            leaf.register_forward_hook(
                lambda _, __, output, name=name: put_out.update({name: tuple(output.shape[1:])})
            )
    module(torch.empty(2, *network.input_shape, device="meta"))
    placed = {at.name: at.output_shape for at in shapes.placed_layers(network)}
    assert put_out == placed
    assert list(put_out) == list(placed)


@settings(deadline=None)
@given(network=architectures())
def test_random_networks_map_images_to_scores(network):
    scores = build(network, seed=0).eval()(torch.zeros(2, *network.input_shape))
    assert scores.shape == (2, network.num_classes)


def test_a_seed_fixes_the_weights_and_leaves_the_global_random_state_alone():
    before = torch.get_rng_state()
    first, again, other = (build("nin_28", seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    for name, weight in first.state_dict().items():
        assert torch.equal(weight, again.state_dict()[name])
    assert not torch.equal(first.block1.conv1.weight, other.block1.conv1.weight)


def test_on_the_meta_device_nothing_is_allocated():
    assert all(p.is_meta for p in build("vgg19", device="meta").parameters())


def test_without_a_device_a_network_is_built_where_torch_builds_its_modules():
    assert not any(p.is_meta for p in build("lenet").parameters())
    with torch.device("meta"):
        assert all(p.is_meta for p in build("vgg19").parameters())


def test_xavier_draws_within_its_bound_and_leaves_the_biases_alone():
    network = build("nin", seed=0)
    conv = network.block2.conv1
    fan_in, fan_out = 96 * 25, 256 * 25
    bound = (6 / (fan_in + fan_out)) ** 0.5
    assert 0.99 * bound < conv.weight.abs().max() <= bound
    assert conv.bias.abs().max() > 0
    assert architecture("nin").initialization == XAVIER_WEIGHTS


def test_kaiming_keeps_the_second_moment_and_zeroes_the_biases():
    network = build("nin_fixed", seed=0)
    conv = network.block2.conv1
    # 614,400 draws: the standard deviation of the estimate is 0.1 %, five of them are 0.5 %.
    assert conv.weight.std().item() == pytest.approx((2 / (96 * 25)) ** 0.5, rel=5e-3)
    assert conv.bias.abs().max() == 0
    assert architecture("nin_fixed").initialization == KAIMING_ZERO_BIASES


def test_initialization_passes_over_layers_without_a_bias():
    module = nn.Sequential(nn.Conv2d(1, 2, 3, bias=False), nn.ReLU())
    initialize(module, KAIMING_ZERO_BIASES)
    assert module[0].bias is None


def test_what_cannot_be_built_says_so_before_anything_is_allocated():
    with pytest.raises(UnknownNetworkError):
        build("resnet")
    network = architecture("vgg11")
    with pytest.raises(ShapeError, match="smallest"):
        shapes.at_input(network, (1, 28, 28))
