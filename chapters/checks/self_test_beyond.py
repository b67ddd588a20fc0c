# The numbers of self_test_beyond, proved: each part runs behind the cell that it names.

# %% maps
import math
from dataclasses import replace
from itertools import pairwise

from ninlab import formulas
from ninlab.architectures import architecture, conv_relu
from ninlab.devices import device
from ninlab.layers import Block, Conv
from ninlab.roofline import time_bound, training_bound, training_operators
from ninlab.shapes import at_input, output_shape, placed_layers, receptive_field
from ninlab.units import format_shape

placed = {at.name: at for at in placed_layers(architecture("nin"))}
googlenet = at_input(architecture("googlenet"), (1, 224, 224))
inception = googlenet.layers[2]
assert receptive_field(architecture("nin_28")) > architecture("nin_28").input_shape[-1]

# %% reduction
reads = output_shape(Block("stem", googlenet.layers[:2]), googlenet.input_shape)
narrow, window = (layer for layer in inception.branches[1].layers if isinstance(layer, Conv))
c_in, r, c_out = reads[0], narrow.out_channels, window.out_channels
assert (c_in, r, c_out, window.kernel_size) == (192, 96, 128, 3)


def macs_at_a_pixel(*channels):
    """Of 1x1 layers and then the window, each of which reads what the one before it puts out."""
    *first, last = (a * b for a, b in pairwise(channels))
    return sum(first) + window.kernel_size**2 * last


wide_macs = macs_at_a_pixel(c_in, c_out)
assert f"{1 - macs_at_a_pixel(c_in, r, c_out) / wide_macs:.0%}" == "42%"
pays = [width for width in range(1, c_in) if macs_at_a_pixel(c_in, width, c_out) < wide_macs]
assert pays == list(range(1, pays[-1] + 1))
assert pays[-1] + 1 == 165

# %% half
at_least = {
    name: training_bound(architecture(name), 128, device("h100"), precision="bf16").seconds
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
