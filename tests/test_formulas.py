"""Laws of the closed forms, and the outside oracles that they must meet."""

from dataclasses import replace

import pytest
import torch
import torchvision
from hypothesis import assume, given, settings
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from ninlab import formulas, shapes
from ninlab.architectures import (
    ARCHITECTURES,
    VGG_CONVOLUTIONS,
    Architecture,
    architecture,
    vgg_layers,
)
from ninlab.errors import NinlabError, ShapeError
from ninlab.layers import AvgPool, Block, Branches, Conv, GlobalAvgPool, Linear, MaxPool
from ninlab.networks import build
from tests.strategies import architectures, convolutions, image_shapes, pools, reads


def torch_counted_flops(
    module: nn.Module, input_shape: tuple[int, ...], batch_size: int = 1
) -> int:
    """What torch's own counter says of one forward pass, on the meta device."""
    module = module.to("meta").eval()  # in training one value has no variance, and torch refuses it
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module(torch.empty(batch_size, *input_shape, device="meta"))
    return counter.get_total_flops()


def as_module(conv: Conv, in_channels: int) -> nn.Conv2d:
    return nn.Conv2d(
        in_channels,
        conv.out_channels,
        conv.kernel_size,
        conv.stride,
        conv.padding,
        groups=conv.groups,
        bias=conv.bias,
        device="meta",
    )


@given(conv=convolutions(), input_shape=image_shapes())
def test_convolution_macs_are_half_of_torchs_flops(conv, input_shape):
    assume(reads(conv, input_shape))
    module = as_module(conv, input_shape[0])
    assert 2 * shapes.layer_macs(conv, input_shape) == torch_counted_flops(module, input_shape)


@given(conv=convolutions(), input_shape=image_shapes())
def test_convolution_shape_and_parameters_are_torchs(conv, input_shape):
    assume(reads(conv, input_shape))
    module = as_module(conv, input_shape[0])
    assert shapes.layer_parameters(conv, input_shape) == sum(p.numel() for p in module.parameters())
    image = torch.empty(1, *input_shape, device="meta")
    assert shapes.output_shape(conv, input_shape) == module(image).shape[1:]


@given(pool=pools, input_shape=image_shapes())
def test_pool_shapes_are_torchs(pool, input_shape):
    assume(reads(pool, input_shape))
    kind = {"MaxPool": nn.MaxPool2d, "AvgPool": nn.AvgPool2d}[type(pool).__name__]
    module = kind(pool.kernel_size, pool.stride, pool.padding)
    image = torch.empty(1, *input_shape, device="meta")
    assert shapes.output_shape(pool, input_shape) == module(image).shape[1:]


@given(conv=convolutions(), input_shape=image_shapes())
def test_doubling_out_channels_doubles_macs(conv, input_shape):
    assume(reads(conv, input_shape))
    doubled = replace(conv, out_channels=2 * conv.out_channels)
    assert shapes.layer_macs(doubled, input_shape) == 2 * shapes.layer_macs(conv, input_shape)


@given(input_shape=image_shapes(), conv=convolutions())
def test_a_1x1_convolution_costs_the_linear_layer_at_every_pixel(conv, input_shape):
    conv = Conv(conv.out_channels, kernel_size=1)
    linear = Linear(conv.out_channels)
    channels, height, width = input_shape
    assert shapes.layer_parameters(conv, input_shape) == shapes.layer_parameters(
        linear, (channels,)
    )
    assert shapes.layer_macs(conv, input_shape) == height * width * shapes.layer_macs(
        linear, (channels,)
    )


@settings(deadline=None)
@given(network=architectures())
def test_formulas_and_torch_agree_on_random_networks(network):
    module = build(network, device="meta")
    assert formulas.parameters(network) == sum(p.numel() for p in module.parameters())
    assert 2 * formulas.macs(network) == torch_counted_flops(module, network.input_shape)


@given(network=architectures())
def test_columns_of_the_layer_table_add_up_to_the_totals(network):
    costs = formulas.layer_costs(network, batch_size=3)
    assert sum(cost.parameters for cost in costs) == formulas.parameters(network)
    assert sum(cost.macs for cost in costs) == formulas.macs(network)
    assert sum(cost.saved_bytes for cost in costs) == formulas.saved_bytes(network, 3)


@given(network=architectures())
def test_saved_bytes_are_affine_in_the_batch(network):
    one, two, nine = (formulas.saved_bytes(network, batch) for batch in (1, 2, 9))
    assert nine - one == 8 * (two - one)


@pytest.mark.parametrize("network", ARCHITECTURES.values(), ids=lambda network: network.name)
def test_every_network_of_the_book_counts_as_torch_counts_it(network):
    module = build(network, device="meta")
    assert formulas.parameters(network) == sum(p.numel() for p in module.parameters())
    assert 2 * formulas.macs(network) == torch_counted_flops(module, network.input_shape)


def test_the_parameters_of_nin_do_not_depend_on_the_image_but_those_of_vgg_do():
    nin, vgg = architecture("nin"), architecture("vgg11")
    larger = (1, 288, 288)
    assert formulas.parameters(shapes.at_input(nin, larger)) == formulas.parameters(nin)
    assert formulas.parameters(shapes.at_input(vgg, larger)) > formulas.parameters(vgg)


# ---------------------------------------------------------------- published figures

WEIGHTS = {
    "alexnet_one_tower": torchvision.models.AlexNet_Weights,
    "vgg11": torchvision.models.VGG11_Weights,
    "vgg13": torchvision.models.VGG13_Weights,
    "vgg16": torchvision.models.VGG16_Weights,
    "vgg19": torchvision.models.VGG19_Weights,
}


def for_imagenet(name: str) -> Architecture:
    """The network as torchvision publishes it: color images, a thousand classes."""
    network = architecture(name)
    if name in VGG_CONVOLUTIONS:
        layers = vgg_layers(VGG_CONVOLUTIONS[name], num_classes=1000)
        network = replace(network, input_shape=(3, 224, 224), num_classes=1000, layers=layers)
    return network


@pytest.mark.parametrize("name", WEIGHTS)
def test_torchvisions_published_counts_are_met(name):
    published = WEIGHTS[name].IMAGENET1K_V1.value.meta
    network = for_imagenet(name)
    assert formulas.parameters(network) == published["num_params"]
    # torchvision rounds to a thousandth of a GMAC, and calls it GFLOPs.
    assert round(formulas.macs(network) / 1e9, 3) == published["_ops"]


def test_nin_has_the_counts_that_every_other_counter_gives_it():
    # Ten counters out of ten agree on the parameters, seven to the unit on the MACs.
    nin = architecture("nin")
    assert formulas.parameters(nin) == 1_992_166
    assert formulas.macs(nin) == 762_297_352


# ---------------------------------------------------------------- bad input


TWO_WAYS = Architecture(
    "two_ways",
    "two ways",
    (1, 40, 40),
    10,
    (
        Conv(4, 3, stride=2, padding=1),
        Branches(
            "ways",
            (
                Block("narrow", (Conv(2, 3, padding=1), AvgPool(3, stride=1, padding=1))),
                Block("wide", (Conv(2, 7, padding=3), Conv(3, 1))),
            ),
        ),
        MaxPool(3, stride=2),
    ),
    source="Lin2013",
)


@pytest.mark.parametrize(
    ("network", "side"),
    [
        (shapes.at_input(architecture("nin_28"), (1, 168, 168)), 97),
        (shapes.at_input(architecture("nin_28_8_blocks"), (1, 168, 168)), 141),
        (architecture("nin_fixed"), 195),
        (TWO_WAYS, 19),
    ],
    ids=lambda given: getattr(given, "name", None),
)
def test_a_value_of_the_last_maps_depends_on_its_receptive_field_and_on_all_of_it(network, side):
    whole = next((i for i, at in enumerate(network.layers) if isinstance(at, GlobalAvgPool)), None)
    module = build(replace(network, layers=network.layers[:whole])).eval()
    for name, layer in module.named_modules():
        if isinstance(layer, nn.MaxPool2d):  # which passes a gradient to one value alone
            mean = nn.AvgPool2d(layer.kernel_size, layer.stride, layer.padding)
            module.set_submodule(name, mean)
    with torch.no_grad():
        for values in module.parameters():
            values.abs_()  # so that no two ways cancel
    image = torch.ones(1, *network.input_shape, requires_grad=True)
    maps = module(image)
    middle = maps.shape[-1] // 2
    maps[0, :, middle, middle].sum().backward()
    assert image.grad is not None
    assert int((image.grad[0, 0] != 0).any(dim=0).sum()) == side
    assert shapes.receptive_field(network) == side


def test_an_input_too_small_is_answered_with_the_smallest_that_works():
    network = architecture("nin")
    with pytest.raises(ShapeError, match="1x67x67") as error:
        shapes.at_input(network, (1, 60, 60))
    assert "nin cannot read 1x60x60" in str(error.value)
    shapes.at_input(network, (1, 67, 67))
    with pytest.raises(ShapeError):
        shapes.at_input(network, (1, 66, 66))


def test_wrong_channels_are_named():
    with pytest.raises(ShapeError, match=r"nin reads 1 channel.*3x224x224"):
        shapes.at_input(architecture("nin"), (3, 224, 224))


@pytest.mark.parametrize("batch_size", [0, -1])
def test_a_batch_has_at_least_one_image(batch_size):
    with pytest.raises(NinlabError, match=f"at least 1, not {batch_size}"):
        formulas.layer_costs(architecture("lenet"), batch_size)


def test_layers_that_do_not_fit_say_why():
    with pytest.raises(ShapeError, match="groups must divide"):
        shapes.output_shape(Conv(4, 1, groups=2), (3, 8, 8))
    with pytest.raises(ShapeError, match="flatten first"):
        shapes.output_shape(Linear(10), (3, 8, 8))
    with pytest.raises(ShapeError, match="channels x height x width"):
        shapes.output_shape(Conv(4, 1), (10,))
