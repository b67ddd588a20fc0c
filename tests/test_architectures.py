from dataclasses import replace

import pytest

from ninlab import formulas, shapes
from ninlab.architectures import (
    ARCHITECTURES,
    Architecture,
    Head,
    Initialization,
    architecture,
    googlenet_layers,
    nin_block,
    nin_layers,
    normalized,
    register,
    variant_of,
)
from ninlab.errors import NinlabError, UnknownNameError, UnknownNetworkError
from ninlab.layers import (
    AvgPool,
    BatchNorm,
    Block,
    Conv,
    Dropout,
    Linear,
    MaxPool,
    ReLU,
    named_leaves,
)

ALL = list(ARCHITECTURES.values())
REPAIRED = ("nin_fixed", "nin_28", "nin_28_wide")
"""The networks from which the designs start, at each size and width."""


def variants_of(base: str) -> list[str]:
    """The variants of a network's family for the same images, without the network itself."""
    network = architecture(base)
    same = (network.family, network.input_shape)
    return [n.variant for n in ALL if (n.family, n.input_shape) == same and n.variant]


DESIGNS = [
    (base, variant)
    for base in REPAIRED
    for variant in variants_of(base)
    if not variant.endswith(normalized()) and variant != "no_dropout"
]
"""Every network with one design decision changed; dropout is a matter of training."""


def head_share(network: Architecture) -> float:
    """Share of the parameters that sits in linear layers."""
    in_head = sum(
        shapes.layer_parameters(at.layer, at.input_shape)
        for at in shapes.placed_layers(network)
        if isinstance(at.layer, Linear)
    )
    return in_head / formulas.parameters(network)


@pytest.mark.parametrize("network", ALL, ids=lambda network: network.name)
def test_every_network_names_its_source_and_ends_in_its_classes(network):
    assert network.source
    assert network.deviations
    *_, last = shapes.placed_layers(network)
    assert last.output_shape == (network.num_classes,)


@pytest.mark.parametrize("network", ALL, ids=lambda network: network.name)
def test_layer_names_are_unique_within_a_network(network):
    names = [name for name, _ in network.named_leaves()]
    assert len(names) == len(set(names))


def test_titles_and_digests_tell_networks_apart():
    assert len({network.title for network in ALL}) == len(ALL)
    assert len({network.digest for network in ALL}) == len(ALL)


def test_the_digest_follows_layers_and_initialization_but_not_the_wording():
    nin = architecture("nin")
    assert replace(nin, title="other", source="other", deviations=()).digest == nin.digest
    assert replace(nin, initialization=Initialization()).digest != nin.digest
    assert replace(nin, layers=(*nin.layers, ReLU())).digest != nin.digest
    assert replace(nin, input_shape=(1, 227, 227)).digest != nin.digest


def test_the_authors_cifar_10_network_has_the_parameters_that_others_publish():
    # The model list of osmr/imgclsmob, which converted the authors' definition on its own.
    assert formulas.parameters(architecture("nin_cifar10")) == 966_986


def test_the_maps_of_the_authors_imagenet_network_have_the_published_sides():
    # 55-27-13-6 is published beside 224x224, and is what images of 227x227 give: chapter 12.
    network = shapes.at_input(architecture("nin_imagenet"), (3, 227, 227))
    sides = {at.name: at.output_shape[-1] for at in shapes.placed_layers(network)}
    steps = ("block1.conv1", "maxpool1", "maxpool2", "maxpool3")
    assert [sides[name] for name in steps] == [55, 27, 13, 6]
    for block, side in (("block2", 27), ("block3", 13), ("classes", 6)):
        assert {sides[name] for name in sides if name.startswith(block)} == {side}


def test_a_taken_name_and_an_unknown_one_are_refused():
    with pytest.raises(NinlabError, match="'nin' is taken"):
        register(architecture("nin"))
    with pytest.raises(UnknownNetworkError, match="did you mean 'alexnet'"):
        architecture("alexnett")


@pytest.fixture
def add(monkeypatch):
    """Registers a network like another one until the test ends."""
    monkeypatch.setattr("ninlab.architectures.ARCHITECTURES", dict(ARCHITECTURES))

    def add(name: str, like: str, **changes: str) -> Architecture:
        return register(replace(architecture(like), name=name, title=name, **changes))

    return add


@pytest.mark.parametrize("network", ALL, ids=lambda network: network.name)
def test_a_variant_that_a_family_has_is_refused_with_the_network_that_it_is(network, add):
    said = f"variant {network.variant!r} of family {network.family!r} .* is {network.name!r}"
    with pytest.raises(NinlabError, match=f"{said}; choose another variant"):
        add("another", network.name)
    with pytest.raises(UnknownNetworkError):
        architecture("another")
    assert add("another", network.name, variant="new").variant == "new"


def test_a_network_without_a_family_is_related_to_itself_alone(add):
    one, other = add("one", "nin", family=""), add("other", "nin", family="", variant="changed")
    again = add("again", "nin", family="")
    assert [variant_of(name, "") for name in ("one", "again")] == [one, again]
    assert variant_of("other", "changed") is other
    with pytest.raises(UnknownNameError):
        variant_of("one", "changed")


def test_two_blocks_of_one_name_are_refused():
    twice = (Block("same", (ReLU(),)), Block("same", (ReLU(),)))
    with pytest.raises(NinlabError, match="'same'"):
        list(named_leaves(twice))


def test_a_reduction_must_give_every_inner_layer_its_width():
    with pytest.raises(NinlabError, match="reduction"):
        nin_block("block", 10, 3, reduction=(192,))


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (lambda: Conv(0, 3), "out_channels of Conv must be at least 1, not 0"),
        (lambda: Conv(8, 3, stride=0), "stride of Conv must be at least 1, not 0"),
        (lambda: Conv(8, 3, padding=-1), "padding of Conv must be at least 0, not -1"),
        (lambda: MaxPool(3, 0), "stride of MaxPool"),
        (lambda: AvgPool(0, 1), "kernel_size of AvgPool"),
        (lambda: Linear(0), "out_features of Linear"),
        (lambda: Dropout(1.5), "from 0 to 1, not 1.5"),
        (lambda: nin_block("block", 8, 3, one_by_one_layers=-1), "0 or more 1x1 layers, not -1"),
        (lambda: nin_block("block", 8, 3, inner_kernel_size=2), "windows of 2 .* take 3"),
        (lambda: nin_layers(repeats=(1, 2)), r"repeats \(1, 2\) needs .* each of the 3 stages"),
        (lambda: nin_layers(repeats=(1, 0, 1)), "at least 1"),
        (lambda: nin_layers(num_classes=0), "out_channels of Conv"),
        (lambda: googlenet_layers(divide_widths_by=100), "out_channels of Conv"),
    ],
)
def test_a_layer_that_cannot_be_is_refused_where_it_is_written(build, said):
    with pytest.raises(NinlabError, match=said):
        build()


def test_a_nin_block_has_a_relu_after_every_convolution_unless_the_last_is_linear():
    def kinds(block: Block) -> list[type]:
        return [type(layer) for layer in block.layers]

    assert kinds(nin_block("block", 96, 11)) == [Conv, ReLU] * 3
    assert kinds(nin_block("block", 10, 3, last_relu=False)) == [Conv, ReLU, Conv, ReLU, Conv]
    assert kinds(nin_block("block", 96, 11, one_by_one_layers=0)) == [Conv, ReLU]


@pytest.mark.parametrize("base", REPAIRED)
def test_a_design_variant_shares_the_start_and_the_input_of_the_repaired_network(base):
    assert variants_of(base)
    for variant in variants_of(base):
        assert variant_of(base, variant).initialization == architecture(base).initialization
        assert variant_of(base, variant).input_shape == architecture(base).input_shape


@pytest.mark.parametrize(("base", "design"), DESIGNS)
def test_a_normalized_design_is_the_design_with_batch_normalization_alone(base, design):
    plain, with_norms = (
        [layer for _, layer in architecture(name).named_leaves()]
        for name in (variant_of(base, of).name for of in (design, normalized(design)))
    )
    assert [layer for layer in with_norms if not isinstance(layer, BatchNorm)] == plain
    convolutions = [isinstance(layer, Conv) for layer in with_norms]
    norms = [isinstance(layer, BatchNorm) for layer in with_norms]
    assert 0 < sum(norms) <= sum(convolutions)
    assert all(convolutions[i - 1] for i, is_norm in enumerate(norms) if is_norm)


def test_every_variant_of_the_full_scale_has_a_small_copy():
    assert [v for v in variants_of("nin_28") if v in variants_of("nin_fixed")] == variants_of(
        "nin_fixed"
    )


@pytest.mark.parametrize("name", [n.name for n in ALL if n.input_shape == (1, 96, 96)])
def test_a_network_at_96x96_is_the_textbooks_but_for_the_images(name):
    small = architecture(name)
    if small.name == "googlenet":  # the textbook trains it at that size
        return
    full = next(n for n in ALL if (n.family, n.variant) == (small.family, small.variant))
    assert full.input_shape == (1, 224, 224)
    assert (small.layers, small.initialization) == (full.layers, full.initialization)


@pytest.mark.parametrize("name", ["nin_28", "nin_28_textbook"])
def test_a_network_without_dropout_is_the_same_network_otherwise(name):
    layers = [layer for _, layer in architecture(name).named_leaves()]
    without = [layer for _, layer in variant_of(name, "no_dropout").named_leaves()]
    assert len(without) < len(layers)
    assert without == [layer for layer in layers if not isinstance(layer, Dropout)]
    assert variant_of(name, "no_dropout").initialization == architecture(name).initialization


def test_the_wide_copy_has_the_widths_of_the_textbook_and_the_windows_of_the_small_one():
    def convolutions(name):
        return [x for _, x in architecture(name).named_leaves() if isinstance(x, Conv)]

    wide, small, textbook = map(convolutions, ("nin_28_wide", "nin_28", "nin"))
    assert [conv.out_channels for conv in wide] == [conv.out_channels for conv in textbook]
    assert wide == [
        replace(conv, out_channels=of.out_channels)
        for conv, of in zip(small, textbook, strict=True)
    ]


@pytest.mark.parametrize("base", ["nin_fixed", "nin_28"])
@pytest.mark.parametrize("design", ["doubling", "8_blocks_doubling"])
def test_widths_double_from_stage_to_stage_by_vggs_second_rule(base, design):
    placed = [
        at
        for at in shapes.placed_layers(variant_of(base, design))
        if isinstance(at.layer, Conv) and at.name.startswith("block")
    ]
    widths = {}
    for at in placed:  # a map's side falls by a pool from stage to stage
        widths.setdefault(at.name.split(".")[0][: len("block1")], set()).add(at.layer.out_channels)
    first = variant_of(base, "").layers[0].layers[0].out_channels
    assert list(widths.values()) == [{first}, {2 * first}, {4 * first}]


@pytest.mark.parametrize(
    "name",
    [n for n in ARCHITECTURES if n.startswith(("nin_28", "nin_julia_28")) and "wide" not in n],
)
def test_the_widths_that_a_small_network_names_as_its_deviation_are_those_of_its_blocks(name):
    widths = {
        block.name[: len("block1")]: str(block.layers[0].out_channels)
        for block in architecture(name).layers
        if isinstance(block, Block) and block.name.startswith("block")
    }
    assert f"widths {', '.join(widths.values())}" in architecture(name).deviations


def test_a_variant_is_found_by_what_is_changed():
    for network in ALL:
        assert variant_of(network.name, network.variant) is network  # no other is like that


def test_an_unknown_variant_is_refused_with_those_of_the_family():
    with pytest.raises(UnknownNameError, match="variant of nin_28 'no_1x2'; did you mean 'no_1x1'"):
        variant_of("nin_28", "no_1x2")
    with pytest.raises(UnknownNetworkError):
        variant_of("nin_29", "no_1x1")


def test_family_and_variant_are_no_part_of_what_is_computed():
    for network in ALL:
        assert replace(network, family="another", variant="one").digest == network.digest


def test_a_short_title_is_a_title_without_the_size_of_the_images():
    for network in ALL:
        assert " at " not in network.short_title
        assert (network.short_title == network.title) is (" at " not in network.title)
    assert architecture("nin_julia_28").short_title == architecture("nin_julia").title


def test_a_title_names_the_size_of_the_images_unless_it_is_that_of_most():
    """So that no label of a figure or table passes one size's costs for another's."""
    for network in ALL:
        size = "{1}x{2}".format(*network.input_shape)
        assert (f" at {size}" in network.title) is (size != "224x224"), network.name


@pytest.mark.parametrize("name", ["nin", "nin_28", "googlenet", "nin_julia"])
@pytest.mark.parametrize("side", [96, 160, 224])
def test_the_title_of_a_network_for_other_images_names_their_size(name, side):
    of_others = shapes.at_input(architecture(name), (1, side, side))
    assert of_others.short_title == architecture(name).short_title
    assert (of_others.title == of_others.short_title) is (side == 224)
    assert (f" at {side}x{side}" in of_others.title) is (side != 224)
    again = shapes.at_input(of_others, architecture(name).input_shape)
    assert again.short_title == architecture(name).short_title


@pytest.mark.parametrize(
    ("small", "full"),
    [
        ("nin_28", "nin"),
        ("alexnet_28", "alexnet"),
        ("vgg11_28", "vgg11"),
        ("vgg11_quarter_28", "vgg11_quarter"),
        ("nin_28_fully_connected", "nin_fixed_fully_connected"),
    ],
)
def test_the_head_of_a_small_counterpart_holds_the_share_of_the_full_one(small, full):
    # A point: the two hidden layers have one width, and that of NiN's head is a round number.
    assert head_share(architecture(small)) == pytest.approx(
        head_share(architecture(full)), abs=0.01
    )


def test_thinning_a_network_without_hidden_layers_raises_the_share_of_its_head_as_much():
    small, full = architecture("googlenet_28"), architecture("googlenet")
    # 2 %: biases fall with the widths alone as well, in the head and before it.
    assert head_share(small) == pytest.approx(8 * head_share(full), rel=0.02)
    assert any("eight times as large a share" in deviation for deviation in small.deviations)


def test_a_matched_linear_head_adds_next_to_nothing():
    plain, linear = architecture("nin_fixed"), architecture("nin_fixed_linear_head")
    assert formulas.parameters(linear) - formulas.parameters(plain) == 10 * 5 * 5 * 10 + 10


def test_the_width_factor_scales_the_weights_between_wide_layers_by_its_square():
    def inner_weights(factor: float) -> int:
        network = Architecture("w", "w", (1, 224, 224), 10, nin_layers(width_factor=factor), "none")
        return next(
            shapes.layer_parameters(replace(at.layer, bias=False), at.input_shape)
            for at in shapes.placed_layers(network)
            if at.name == "block2.conv2"
        )

    assert inner_weights(2) == 4 * inner_weights(1) == 16 * inner_weights(0.5)


@pytest.mark.parametrize("head", list(Head))
def test_every_head_maps_to_the_classes(head):
    network = Architecture("h", "h", (1, 224, 224), 7, nin_layers(num_classes=7, head=head), "none")
    *_, last = shapes.placed_layers(network)
    assert last.output_shape == (7,)
