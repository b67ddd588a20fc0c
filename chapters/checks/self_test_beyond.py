# The numbers of self_test_beyond, proved: each part runs behind the cell that it names.

# %% maps
import math
from dataclasses import replace

from ninlab import formulas
from ninlab.architectures import architecture, conv_relu
from ninlab.devices import device
from ninlab.layers import Block, Conv
from ninlab.roofline import time_bound, training_operators
from ninlab.shapes import at_input, output_shape, placed_layers
from ninlab.units import format_shape

placed = {at.name: at for at in placed_layers(architecture("nin"))}
googlenet = at_input(architecture("googlenet"), (1, 224, 224))
inception = googlenet.layers[2]

field, pixel = 1, 1  # sides, in pixels of the image
for at in placed_layers(architecture("nin_28")):
    if hasattr(at.layer, "kernel_size"):
        field += (at.layer.kernel_size - 1) * pixel
        pixel *= at.layer.stride
assert field > architecture("nin_28").input_shape[-1]

# %% reduction
reads = output_shape(Block("stem", googlenet.layers[:2]), googlenet.input_shape)
assert reads[0] == 192
wide_macs = 3**2 * 192 * 128
narrowed = 192 * 96 + 3**2 * 96 * 128
assert f"{1 - narrowed / wide_macs:.0%}" == "42%"
branch = [layer for layer in inception.branches[1].layers if isinstance(layer, Conv)]
assert [layer.out_channels for layer in branch] == [96, 128]
most = max(r for r in range(1, 192) if r * 192 + 3**2 * r * 128 < wide_macs)
assert most + 1 == 165

# %% half
at_least = {
    name: time_bound(
        training_operators(at_input(architecture(name), (1, 224, 224)), 128, "sgd", "bf16"),
        device("h100"),
        "bf16",
    ).seconds
    for name in ("nin", "alexnet")
}
assert formulas.macs(architecture("nin")) < formulas.macs(architecture("alexnet"))
assert at_least["nin"] > at_least["alexnet"]

# %% relu
step = training_operators(architecture("nin"), 128, "sgd", "tf32")
(relu,) = (one for one in step if one.layer == "block1.relu1" and one.phase == "forward")
values = 128 * math.prod(placed["block1.relu1"].output_shape)
assert format_shape(placed["block1.relu1"].output_shape) == "96x54x54"
assert relu.bytes == 8 * values
assert time_bound([relu], device("h100"), "tf32").memory_bound_seconds > 0


# %% branches
def block_cost(layer):
    rows = formulas.layer_costs(replace(googlenet, layers=(*googlenet.layers[:2], layer)))
    inside = [row for row in rows if row.name.startswith(layer.name)]
    return [
        sum(getattr(row, field) for row in inside)
        for field in ("macs", "parameters", "saved_bytes")
    ]


of_block = block_cost(inception)
of_plain = block_cost(Block("plain", conv_relu(Conv(256, 3, padding=1))))
assert of_block[0] < of_plain[0]
assert of_block[1] < of_plain[1]
assert f"{of_block[2] / of_plain[2]:.1f} times" == "2.5 times"
rows = formulas.layer_costs(replace(googlenet, layers=googlenet.layers[:3]))
pooling = [row for row in rows if row.name.startswith(f"{inception.name}.branch4")]
assert sum(row.saved_bytes for row in pooling) > of_block[2] / 2
