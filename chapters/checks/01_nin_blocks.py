# The numbers of 01_nin_blocks, proved: each part runs behind the cell that it names.

# %% library
import math

from ninlab.layers import Conv
from ninlab.shapes import placed_layers
from ninlab.units import format_shape

assert format_shape(block(torch.zeros(1, 256, 12, 12)).shape[1:]) == "384x12x12"
placed = {at.name: at for at in placed_layers(architectures.NIN)}
assert format_shape(placed["block3.conv1"].input_shape) == "256x12x12"

# %% compare
assert [row["shape"] for row in rows.values()] == 6 * [(384, 12, 12)]
assert all(row["same values"] for row in rows.values())
assert by_hand.count_nonzero() > 0  # the comparison is not between zeros
in_third = {name for name in placed if name.startswith("block3.")}
assert in_third == {f"block3.{name}" for name in rows}

# %% count-costs
parameters, macs = counts["parameters"], counts["MACs"]
assert block[2].weight.numel() * 6 == block[0].weight.numel()
assert str(block[2](torch.zeros(1, 384, 12, 12))[0, 0].numel()) == "144"
assert f"{parameters['NiN block'] / parameters['3×3 alone'] - 1:.0%}" == "33%"
assert f"{macs['NiN block'] / macs['3×3 alone'] - 1:.0%}" == "33%"
for count in counts.values():
    assert f"{count['VGG block'] / count['NiN block']:.2f} times" == "3.00 times"
assert macs["VGG block"] == 3 * macs["NiN block"]
assert parameters["VGG block"] - 3 * 384 == 3 * (parameters["NiN block"] - 3 * 384)
assert f"{parameters['VGG block'] / parameters['3×3 alone']:.1f}" == "4.0"
assert f"{parameters['NiN block']:,}" == "1,180,800"
assert f"{macs['NiN block']:,}" == "169,869,312"

# %% figure-layers
costs = {cost.name: cost for cost in formulas.layer_costs(architectures.NIN)}
windows = {
    name: layer.kernel_size
    for name, layer in architectures.NIN.named_leaves()
    if isinstance(layer, Conv)
}
one_by_one = [name for name, kernel_size in windows.items() if kernel_size == 1]
assert (len(windows), len(one_by_one)) == (12, 8)
stem, after_stem = costs["block1.conv1"], costs["block1.conv2"]
assert format_shape(stem.output_shape) == "96x54x54"
shapes = {name: p.shape for name, p in build("nin").named_parameters()}
share = shapes["block1.conv2.weight"].numel() / shapes["block1.conv1.weight"].numel()
assert f"{share:.0%}" == "79%"
assert f"{2 * after_stem.parameters / stem.parameters:.2f} times" == "1.59 times"
nin_parameters = sum(costs[name].parameters for name in one_by_one)
nin_macs = sum(costs[name].macs for name in one_by_one)
assert f"{nin_parameters / formulas.parameters(architectures.NIN):.0%}" == "22%"
assert f"{nin_macs / formulas.macs(architectures.NIN):.0%}" == "24%"

# %% measure-linear
assert tuple(convolution.weight.shape) == (384, 384, 1, 1)
assert torch.equal(convolution(maps), by_linear_layer)
assert convolution(maps).abs().max() < 2**24  # below which float32 has every whole number

# %% measure-shuffle
assert torch.equal(convolution(shuffle(maps)), shuffle(convolution(maps)))
assert not torch.equal(block[0](shuffle(images)), shuffle(block[0](images)))

# %% measure-mlp
assert f"{block[0].weight[0].numel():,}" == "2,304"
assert torch.equal(block(images), by_perceptron)
assert block(images).max() > 0  # the comparison is not between zeros
assert block(images).max() < 2**24

# %% measure-cost
assert sum(sizes) == parameters["NiN block"]
assert counter.get_total_flops() == 2 * macs["NiN block"]

# %% conclusion
last = Architecture("last", "last", (192, 8, 8), 10, (Conv(10, 1),), source="Lin2013")
at_end, *_ = formulas.layer_costs(last)
classes, *map_sizes = at_end.output_shape
assert str(math.prod(map_sizes)) == "64"
assert f"{classes} classes" == "10 classes"
of_last = formulas.parameters(last)
assert f"{of_last - classes:,}, {of_last:,}" == "1,920, 1,930"
assert f"{formulas.macs(last):,}" == "122,880"

# %% exercise-dear
firsts = [
    (at.layer.out_channels, at.layer.kernel_size, at.input_shape[0])
    for at in placed_layers(architectures.NIN)
    if isinstance(at.layer, Conv) and at.layer.kernel_size > 1
]
assert [2 * out for out, _, _ in firsts] == [192, 512, 768, 20]
reads = [k * k * channels for _, k, channels in firsts]
assert ", ".join(map("{:,}".format, reads)) == "121, 2,400, 2,304, 3,456"
assert [2 * out > k * k * channels for out, k, channels in firsts] == [
    True,
    False,
    False,
    False,
]
(_, window, _), *_ = firsts
colors = architectures.architecture("nin_imagenet").input_shape[0]
assert str(window**2 * colors) == "363"

# %% exercise-merge
first, second = block[2], block[4]
merged = nn.Conv2d(384, 384, kernel_size=1)
w1, w2 = (layer.weight[:, :, 0, 0] for layer in (first, second))
bias = w2 @ first.bias + second.bias
merged.load_state_dict({"weight": (w2 @ w1)[:, :, None, None], "bias": bias})
assert torch.equal(second(first(maps)), merged(maps))
assert f"{sum(p.numel() for p in merged.parameters()):,}" == "147,840"


# %% exercise-bottleneck
width = block[2].out_channels


def bottleneck_weights(r):
    """The weights of the three layers, biases left out."""
    layers = nn.Conv2d(width, r, 1), nn.Conv2d(r, r, 3), nn.Conv2d(r, width, 1)
    return sum(layer.weight.numel() for layer in layers)


quarter = nn.Conv2d(width, width, 3).weight.numel() // 4
root = (-2 * width + ((2 * width) ** 2 + 4 * 9 * quarter) ** 0.5) / 18
assert f"{quarter:,}, {2 * width}, {root:.2f}" == "331,776, 768, 154.02"
assert (int(root), f"{bottleneck_weights(int(root)):,}") == (154, "331,716")
assert bottleneck_weights(int(root)) <= quarter < bottleneck_weights(155)
part = int(root) / width
assert f"{part:.0%}, {part**2:.0%}" == "40%, 16%"
