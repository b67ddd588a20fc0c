# The numbers of 02_nin_model, proved: each part runs behind the cell that it names.

# %% library
import math

import torchvision

from ninlab.shapes import at_input, placed_layers, smallest_input
from ninlab.units import format_bytes, format_count

names = ("nin", "alexnet", "vgg11")
layers = {n: {c.name: c for c in formulas.layer_costs(architecture(n))} for n in names}
parameters = {n: formulas.parameters(architecture(n)) for n in names}
macs = {n: formulas.macs(architecture(n)) for n in names}
measured = layer_by_layer(textbook, build("nin"), torch.rand(1, 1, 224, 224))
assert measured["equal"].all()
assert textbook(torch.rand(1, 1, 224, 224)).abs().max() > 0  # not a comparison of zeros
assert measured["shape"]["classes"] == format_shape(layers["nin"]["classes.conv3"].output_shape)
sides = [int(measured["shape"][n].split("x")[1]) for n in ("block1", "block2", "block3", "classes")]
assert sides == [54, 26, 12, 5]
assert measured["shape"]["maxpool3"] == "384x5x5"
before, behind = (
    torch.Size(map(int, measured["shape"][n].split("x"))).numel() for n in ("dropout1", "classes")
)
assert f"{before:,}, {behind}" == "9,600, 250"

assert f"{parameters['alexnet'] // parameters['nin']} times" == "23 times"
assert format_count(parameters["nin"]) == "1.99 M"
assert format_count(parameters["alexnet"]) == "46.8 M"
assert f"{1 - parameters['nin'] / parameters['alexnet']:.0%}" == "96%"
weighted = {n: sum(c.parameters > 0 for c in layers[n].values()) for n in names}
assert (weighted["nin"], weighted["alexnet"]) == (12, 8)
assert {format_shape(architecture(n).input_shape) for n in names} == {"1x224x224"}
assert {f"{architecture(n).num_classes} classes" for n in names} == {"10 classes"}

# %% compact
assert layer_by_layer(compact, build("nin_28"), torch.rand(3, 1, 28, 28))["equal"].all()
assert {str(layer) for layer in compact.modules() if isinstance(layer, nn.Dropout)} == {
    "Dropout(p=0.5, inplace=False)"
}
assert format_shape(architecture("nin_28").input_shape) == "1x28x28"

# %% prediction
head = [c for n, c in layers["alexnet"].items() if n.startswith("head")]
head_parameters, head_macs = (
    sum(c.parameters for c in head),
    sum(c.macs for c in head),
)
assert format_count(macs["alexnet"]) == "938 M"
read = layers["alexnet"]["maxpool3"].output_shape
assert format_shape(read) == "256x5x5"
assert f"{math.prod(read):,}" == "6,400"
assert head[1].output_shape == (4096,)
of_matrices = [c.parameters - c.output_shape[0] for c in head if c.kind == "Linear"]
assert [format_count(size) for size in of_matrices[:2]] == ["26.2 M", "16.8 M"]
assert format_count(head_parameters) == format_count(head_macs) == "43.0 M"
assert f"{head_parameters / parameters['alexnet']:.0%}" == "92%"
assert f"{head_macs / macs['alexnet']:.1%}" == "4.6%"
second = layers["alexnet"]["conv2"]
assert second.output_shape == (256, 26, 26)
assert f"{second.macs // (second.parameters - 256)} times" == "676 times"
assert math.prod(second.output_shape[1:]) == 676
shared = (
    ("conv1", "block1.conv1"),
    ("conv2", "block2.conv1"),
    ("conv3", "block3.conv1"),
)
for in_alexnet, in_nin in shared:
    ours, theirs = layers["nin"][in_nin], layers["alexnet"][in_alexnet]
    assert (ours.parameters, ours.macs) == (theirs.parameters, theirs.macs)
    assert ours.output_shape == theirs.output_shape
paddings = [
    [
        at.layer.padding
        for at in placed_layers(architecture(network))
        if at.name in dict(shared) or at.name in dict(shared).values()
    ]
    for network in ("alexnet", "nin")
]
assert [a == b for a, b in zip(*paddings, strict=True)] == [
    False,
    True,
    True,
]

# %% count-moves
start, *steps, end = moves.values()
signs = (1, -1, -1, 1, 1)
for count in ("parameters", "MACs"):
    assert sum(s * m[count] for s, m in zip(signs, (start, *steps), strict=True)) == end[count]
without_head, _, _, with_classes = steps
difference = parameters["alexnet"] - parameters["nin"]
saved = without_head["parameters"] - with_classes["parameters"]
assert f"{saved / difference:.0%}" == "96%"
assert f"{1 - macs['nin'] / macs['alexnet']:.0%}" == "19%"
assert f"{steps[1]['MACs'] / start['MACs']:.0%}" == "34%"

# %% figure-where
vgg_head = [c for n, c in layers["vgg11"].items() if n.startswith("head")]
assert f"{sum(c.parameters for c in vgg_head) / parameters['vgg11']:.0%}" == "93%"
assert f"{sum(c.macs for c in vgg_head) / macs['vgg11']:.1%}" == "1.6%"
first_linear = layers["vgg11"]["head.linear1"].parameters
assert 2 * first_linear > sum(parameters.values())

# %% measure-bytes
inputs = architecture("vgg11")
(first_matrix,) = (at for at in placed_layers(inputs) if at.name == "head.linear1")
rows_and_columns = (*first_matrix.input_shape, first_matrix.layer.out_features)
assert rows_and_columns == tuple(matrix.shape)
assert "{}×{}".format(*rows_and_columns) == "25088×4096"
assert f"{matrix.nbytes / 10**6:.0f} MB" == "411 MB"
assert f"{matrix.nbytes / 10**6 / 400 - 1:.0%}" == "3%"
assert f"{matrix.nbytes / 2**20} MiB" == "392.0 MiB"
assert format_bytes(matrix.nbytes) == "392 MiB"
assert round(400e6) < matrix.nbytes < 400 * 2**20
assert f"{matrix.numel() / parameters['vgg11']:.0%}" == "80%"
assert f"{2 * matrix.nbytes // 2**20} MiB" == "784 MiB"

# %% measure-file
assert predicted == 4 * parameters["nin"]
more = file.tell() / predicted - 1
assert more > 0
assert f"{max(more, 0.005):.1%}" == "0.5%"  # "within" it
assert format_bytes(predicted) == "7.60 MiB"
assert f"{4 * parameters['vgg11'] / 2**20:.0f} MiB" == "491 MiB"

# %% conclusion
assert f"{macs['nin'] / macs['alexnet']:.0%}" == "81%"
assert f"{math.ceil(100 * head_macs / macs['alexnet'])}%" == "5%"
imagenet = formulas.parameters(architecture("nin_imagenet"))
one_tower = formulas.parameters(architecture("alexnet_one_tower"))
assert format_count(imagenet) == "7.60 M"
assert f"{one_tower / imagenet:.1f} times" == "8.0 times"
squeezenet = torchvision.models.squeezenet1_0()
squeezed = sum(p.numel() for p in squeezenet.parameters())
assert format_count(squeezed) == "1.25 M"
assert f"{one_tower / squeezed:.0f}th" == "49th"

# %% limits
small = at_input(architecture("nin"), (1, 96, 96))
sides = [
    at.output_shape[1]
    for at in placed_layers(small)
    if at.name in ("block1.conv1", "maxpool1", "maxpool2", "maxpool3")
]
assert sides == [22, 10, 4, 1]
assert format_shape(small.input_shape) == "1x96x96"
assert small.input_shape[1] == 96
needed = [1]  # pixels a side, from the class maps back to the image
for at in reversed(placed_layers(small)):
    if at.name.startswith("maxpool") or at.name == "block1.conv1":
        needed.append(at.layer.stride * (needed[-1] - 1) + at.layer.kernel_size)
assert needed == [1, 3, 7, 15, 67]
assert smallest_input(architecture("nin")) == (1, 67, 67)

# %% exercise-head
of_large_head = formulas.layer_costs(architecture("nin_fixed_fully_connected"))
head_of_nin = sum(c.parameters for c in of_large_head if c.name.startswith("head"))
trunk = parameters["nin"] - with_classes["parameters"]
whole = formulas.parameters(architecture("nin_fixed_fully_connected"))
assert whole == head_of_nin + trunk > parameters["alexnet"]
rows_of_head = [
    math.prod(at.input_shape) + 1
    for at in placed_layers(architecture("nin_fixed_fully_connected"))
    if at.name.startswith("head.linear")
]
assert [f"{rows:,}" for rows in rows_of_head] == ["9,601", "4,097", "4,097"]
assert rows_of_head[-1] - 1 == 4096
assert f"{head_of_nin:,}, {trunk:,}, {whole:,}" == "56,147,978, 1,957,376, 58,105,354"
assert f"{whole / parameters['nin']:.1f} times" == "29.2 times"

# %% exercise-double
large = {n: at_input(architecture(n), (1, 448, 448)) for n in ("nin", "vgg11")}
first = next(at for at in placed_layers(large["vgg11"]) if at.name == "head.linear1")
assert (
    large["vgg11"].input_shape[1],
    architecture("nin").input_shape[1],
) == (448, 224)
assert first.input_shape == (100_352,)
(last_maps,) = (
    at.output_shape for at in placed_layers(large["vgg11"]) if at.name == "block5.maxpool1"
)
assert math.prod(last_maps) == 100_352
assert "{1}×{2}".format(*last_maps) == "14×14"
assert format_bytes(4 * math.prod(first.input_shape) * first.layer.out_features) == "1.53 GiB"
assert formulas.parameters(large["nin"]) == parameters["nin"]
grown = sum(c.macs for c in formulas.layer_costs(large["vgg11"]) if c.kind == "Conv2d")
assert grown == 4 * sum(c.macs for c in layers["vgg11"].values() if c.kind == "Conv2d")
quarter = placed_layers(architecture("vgg11_quarter"))
inputs = next(at for at in quarter if at.name == "head.linear1").input_shape[0]
assert f"{inputs}×4096" == "6272×4096"
assert format_bytes(4 * inputs * 4096) == "98.0 MiB"
assert f"{4 * inputs * 4096 // 2**20} MiB" == "98 MiB"

# %% exercise-vgg
trunk = parameters["vgg11"] - sum(c.parameters for c in vgg_head)
last_width = layers["vgg11"]["block5.conv2"].output_shape[0]
assert last_width == 512
short_head = nn.Linear(last_width, architecture("vgg11").num_classes)
in_matrix, in_bias = (p.numel() for p in short_head.parameters())
assert f"{trunk:,}, {in_matrix:,}, {in_matrix + in_bias:,}" == "9,219,328, 5,120, 5,130"
assert format_count(trunk + in_matrix + in_bias) == "9.22 M"
assert f"{(trunk + in_matrix + in_bias) / parameters['vgg11']:.1%}" == "7.2%"
assert f"{short_head.weight.nbytes // 2**10} KiB" == "20 KiB"
