# The numbers of 12_multi_branch, proved: each part runs behind the cell that it names.

# %% setup
import math

from ninlab import peers
from ninlab.formulas import layer_costs, macs, parameters, saved_bytes
from ninlab.published import NIN_ERRORS, STRIDED_END

# %% googlenet
assert format_shape(googlenet.input_shape) == "1x224x224"
assert format_shape(architecture("googlenet").input_shape) == "1x96x96"

# %% figure-inception
assert format_shape(before) == "192x28x28"
assert format_shape(output_shape(inception, before)) == "256x28x28"
plain_at_a_pixel = 3**2 * before[0] * output_shape(inception, before)[0]
assert f"{plain_at_a_pixel:,}" == "442,368"
widths = [output_shape(branch, before)[0] for branch in inception.branches]
assert widths == [64, 128, 32, 32]
assert sum(widths) == 256


# %% count-one
def limit(k, c_in, c_out):
    return k**2 * c_in * c_out / (c_in + k**2 * c_out)


def saved_share(k, c_in, c_out, r):
    return 1 - r * (c_in + k**2 * c_out) / (k**2 * c_in * c_out)


def reduced(branch, c_in):
    """k, c_in, c_out and r of a branch that is narrowed in front of its window."""
    narrow, window = (layer for layer in branch.layers if isinstance(layer, Conv))
    return window.kernel_size, c_in, window.out_channels, narrow.out_channels


narrowed_ones = [reduced(branch, before[0]) for branch in inception.branches[1:3]]
assert narrowed_ones == [(3, 192, 128, 96), (5, 192, 32, 16)]
assert [f"{limit(*sizes):.2f}" for *sizes, _ in narrowed_ones] == ["164.57", "154.84"]
assert [f"{saved_share(*sizes):.0%}" for sizes in narrowed_ones] == ["42%", "90%"]
assert [before[0] / r for *_, r in narrowed_ones] == [2, 12]

# %% figure-costs
block, plain_one, wide = (
    costs[name] for name in ("Inception 3a", "plain 3×3", "without reductions")
)
factor = block["MACs"] / plain_one["MACs"]
assert "equal" in source
assert f"{factor:.2f}, {1 / factor:.1f} times" == "0.37, 2.7 times"
assert f"{block['kept'] / plain_one['kept']:.1f} times" == "2.5 times"
assert f"{wide['MACs'] / block['MACs']:.1f} times" == "2.4 times"
assert wide["MACs"] < plain_one["MACs"]
assert f"{wide['MACs'] / plain_one['MACs']:.0%}" == "89%"

# %% count-branches-result
pooling = branches["pool, 1×1"]
assert [f"{pooling[what] / block[what]:.0%}" for what in block] == [
    "4%",
    "54%",
]
assert "equal" in source_of_parts
assert all(sum(c[what] for c in branches.values()) == block[what] for what in block)


def places_share(name):
    kept = profile(name, (1, 224, 224)).saved_tensors
    return sum(t.bytes for t in kept if t.kind == "pool_indices") / sum(t.bytes for t in kept)


assert f"{places_share('googlenet'):.0%} {places_share('nin'):.0%}" == "33% 12%"
joined = 4 * peers.joined(googlenet)
unread = 4 * 1024 * 7 * 7  # the last join: the backward pass of a mean needs no values
copies = (joined - unread) / saved_bytes(googlenet)
assert f"{copies:.0%}" == "14%"
read = [
    tensor.bytes
    for tensor in profile("googlenet", (1, 224, 224)).saved_tensors
    if (tensor.layer, tensor.kind) == ("inception3b.branch1.conv1", "input")
]
copy = 4 * 256 * 28 * 28
assert read == [copy]
with_copy = (block["kept"] + copy) / plain_one["kept"]
assert f"{with_copy:.1f} {block['kept'] / plain_one['kept']:.1f}" == "3.1 2.5"

# %% count-networks
for network in networks.values():
    counted_by_torch = profile(network.name, network.input_shape)
    assert (
        counted_by_torch.parameters,
        counted_by_torch.macs,
        counted_by_torch.saved_bytes,
    ) == (parameters(network), macs(network), saved_bytes(network))
nin, vgg = networks["nin"], networks["vgg11"]
assert f"{parameters(googlenet) / parameters(nin):.1f}" == "3.0"
assert f"{macs(googlenet) / macs(nin):.1f}" == "2.0"
assert f"{saved_bytes(googlenet) / saved_bytes(nin):.1f} times" == "4.6 times"
assert f"{macs(vgg) / macs(googlenet):.1f}" == "5.0"


def without_reductions(layer):
    if not isinstance(layer, Branches):
        return layer
    return replace(
        layer,
        branches=tuple(
            replace(branch, layers=branch.layers[2:])
            if branch.name in ("branch2", "branch3")
            else branch
            for branch in layer.branches
        ),
    )


blocks = [layer for layer in googlenet.layers if isinstance(layer, Branches)]
assert len(blocks) == 9
wide_network = replace(googlenet, layers=tuple(map(without_reductions, googlenet.layers)))
assert cost(without_reductions(inception))["MACs"] == wide["MACs"]
assert f"{macs(wide_network) / macs(googlenet):.1f} times" == "2.9 times"
grown = [peak_bytes(timeline(networks[name]), 128) for name in ("googlenet", "nin")]
assert f"{grown[0] / grown[1]:.1f} times" == "4.4 times"
assert inception.branches[1].layers[2].out_channels == 128
assert f"{googlenet.num_classes} classes" == "10 classes"
channels = [row.output_shape[0] for row in layer_costs(googlenet)[:-1]]
assert (channels[0], max(channels)) == (64, 1024)

# %% figure-nins
julia = parameters(architecture("nin_julia"))
assert f"{julia / 1e6:.2f} million" == "1.77 million"

# %% layer-table
assert sum(row.parameters for row in rows) == parameters(imagenet)

# %% count-sides
maps = torch.empty(1, 1, 54, 54, device="meta")
for side in sides(224, ceil)[1:]:
    maps = torch.nn.functional.max_pool2d(maps, 3, 2, ceil_mode=True)
    assert maps.shape[-1] == side
assert sides(227, floor) == sides(227, ceil) == [55, 27, 13, 6]
assert sides(224, floor) == [54, 26, 12, 5]
assert sides(224, ceil) == [54, 27, 13, 6]
placed = {row.name: row.output_shape for row in layer_costs(imagenet)}
assert sides(224, floor) == [
    placed[n][1] for n in ("block1.conv1", "maxpool1", "maxpool2", "maxpool3")
]
cifar, strided = (
    architecture("nin_cifar10"),
    architecture("nin_cifar10_strided"),
)
assert f"{parameters(strided) / parameters(cifar) - 1:.0%}" == "15%"
assert f"{macs(cifar) / macs(strided):.1f} times" == "7.7 times"
first_layer = layer_costs(strided)[0]
assert first_layer.output_shape[1:] == (16, 16)  # a quarter of 32x32
assert STRIDED_END.network == strided.name
of_paper = next(error for error in NIN_ERRORS if error.data_set == STRIDED_END.data_set)
assert f"{100 - float(of_paper.error_percent):.2f}%" == "89.59%"
assert f"{float(STRIDED_END.accuracy):.2%}" == "76.57%"

# %% count-doubled
assert len([row for row in rows if row.name.endswith("conv1")]) == 4
assert len([row for row in rows if row.parameters]) == 4 + 8
assert rows[0].parameters == (11 * 11 * 3 + 1) * 96
assert format_bytes(4 * (large + small)) == "29.0 MiB"
assert format_bytes(4 * (2 * large + small)) == "48.3 MiB"
assert f"{4 * (large + small) / 2**20:.0f} MB" == "29 MB"  # as the author writes MiB

# %% measure-kept
assert {name: kept_by_autograd(module) for name, module in modules.items()} == {
    name: c["kept"] for name, c in costs.items()
}

# %% count-legacy
assert [share_of_1x1("resnet50"), share_of_1x1("mobilenet_v2")] == [
    {"1×1 layers": "36 of 53", "MACs": "52%"},
    {"1×1 layers": "34 of 52", "MACs": "89%"},
]

# %% legacy-average
with torch.device("meta"):
    parts_of_resnet = [*get_model("resnet50").children()]
assert isinstance(parts_of_resnet[-2], torch.nn.AdaptiveAvgPool2d)
assert isinstance(parts_of_resnet[-1], torch.nn.Linear)
features, weights = torch.randn(2, 8, 5, 5), torch.randn(10, 8)
class_activations = torch.einsum("kc,ncyx->nkyx", weights, features)
scores = features.mean((2, 3)) @ weights.T
assert torch.allclose(class_activations.mean((2, 3)), scores, atol=1e-5)

# %% exercises
last = googlenet.layers[-4]
assert last.name == "inception5b"
reads = output_shape(Block("all", googlenet.layers[:-4]), googlenet.input_shape)[0]
k, c_in, c_out, r = reduced(last.branches[2], reads)
assert (k, c_in, c_out, r) == (5, 832, 128, 48)
assert f"{limit(k, c_in, c_out):.2f} {math.floor(limit(k, c_in, c_out))}" == "660.32 660"
assert f"{r * (c_in + k**2 * c_out):,} {k**2 * c_in * c_out:,}" == "193,536 2,662,400"
assert f"{saved_share(k, c_in, c_out, r):.0%}" == "93%"


# %% exercise-places
def with_small_places(tensors):
    return sum(t.bytes // 8 if t.kind == "pool_indices" else t.bytes for t in tensors)


tensors = profile("googlenet", (1, 224, 224)).saved_tensors
inside = [t for t in tensors if t.layer.startswith("inception3a")]
last_branch = [t for t in inside if t.layer.startswith("inception3a.branch4")]
assert sum(t.bytes for t in inside) == block["kept"]
shares = [
    with_small_places(some) / sum(t.bytes for t in some) for some in (last_branch, inside, tensors)
]
assert [f"{share:.0%}" for share in shares] == ["45%", "70%", "72%"], shares
with_bytes = with_small_places(inside) / plain_one["kept"]
assert f"{with_bytes:.1f} times" == "1.8 times"

# %% exercise-227
larger = at_input(imagenet, (3, 227, 227))
assert format_shape(larger.input_shape) == "3x227x227"
assert larger.input_shape[1] == 227
assert imagenet.input_shape[1] == 224
assert parameters(larger) == parameters(imagenet)
more_of_image = math.prod(larger.input_shape) / math.prod(imagenet.input_shape) - 1
assert f"{macs(larger) / macs(imagenet) - 1:.0%} {more_of_image:.1%}" == "14% 2.7%"
pixels_of = [
    math.prod(c.output_shape[1:])
    for network in (larger, imagenet)
    for c in layer_costs(network)
    if c.name == "classes.conv3"
]
assert pixels_of == [36, 25]
assert f"{pixels_of[0] / pixels_of[1] - 1:.0%}" == "44%"

# %% exercise-design
nin = architecture("nin")
second_block = nin.layers[2]
assert second_block.layers[0] == Conv(256, 5, padding=2)
large_window = {row.name: row for row in layer_costs(nin)}["block2.conv1"]
assert large_window.macs > macs(nin) / 2
narrowed = replace(
    nin,
    layers=(
        *nin.layers[:2],
        replace(
            second_block,
            layers=(*conv_relu(Conv(24, 1)), *second_block.layers),
        ),
        *nin.layers[3:],
    ),
)
assert f"{macs(narrowed) / macs(nin):.0%}" == "59%"
assert f"{parameters(narrowed) / parameters(nin):.0%}" == "77%"
more = saved_bytes(narrowed) - saved_bytes(nin)
reduction = {row.name: row for row in layer_costs(narrowed)}["block2.conv1"]
assert reduction.output_shape == (24, 26, 26)
assert format_shape(reduction.output_shape) == "24x26x26"
assert more == 24 * 26 * 26 * 4
assert format_bytes(more) == "63.4 KiB"
assert f"{more / saved_bytes(nin):.0%}" == "1%"
