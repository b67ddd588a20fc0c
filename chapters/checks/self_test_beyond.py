# The numbers of self_test_beyond, proved: each part runs behind the cell that it names.

# %% maps
import math
from itertools import pairwise

from ninlab import formulas, liveness
from ninlab.architectures import architecture
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
assert pays[-1] == 164

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

# %% fused
nin = architecture("nin")
inside = [f"block1.{name}" for name in ("relu1", "conv2", "relu2")]
chained_lines = liveness.saved_lines(nin, "bf16", kernels="chained")
assert {one.layer for one in chained_lines}.isdisjoint(inside)
of_pool = [one for one in chained_lines if one.layer == "maxpool1"]
assert [one.bytes_per_image for one in of_pool] == [math.prod(placed["maxpool1"].output_shape)]
chained_step = training_operators(nin, 128, "sgd", "bf16", kernels="chained")
assert {one.layer for one in chained_step if one.flops}.isdisjoint(inside)
a_map = 2 * 128 * math.prod(placed["block1.relu1"].output_shape)
(product,) = (
    one
    for one in training_operators(nin, 128, "sgd", "bf16")
    if (one.layer, one.phase, one.name) == ("block1.conv2", "forward", "convolution")
)
h100 = device("h100")
assert product.flops / h100.peak("bf16") < a_map / h100.bandwidth()
