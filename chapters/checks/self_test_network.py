# The numbers of self_test_network, proved: each part runs behind the cell that it names.

# %% weights
import math

from ninlab.architectures import architecture
from ninlab.comparisons import CONFIDENCE, Difference
from ninlab.experiments import PLANS
from ninlab.formulas import layer_costs
from ninlab.formulas import parameters as total
from ninlab.layers import Conv
from ninlab.lost_classes import accuracy_roof, loss_floor
from ninlab.shapes import at_input, placed_layers
from ninlab.units import format_shape

placed = {at.name: at for at in placed_layers(architecture("nin"))}


def parameters(network, name):
    (row,) = (row for row in layer_costs(network) if row.name == name)
    return row.parameters


conv = placed["block1.conv2"]
assert format_shape(conv.input_shape) == format_shape(conv.output_shape) == "96x54x54"
assert conv.layer.kernel_size == 1
layer_weights = parameters(architecture("nin"), "block1.conv2") - conv.layer.out_channels
assert f"{layer_weights:,}" == "9,216"
assert f"{math.prod(conv.input_shape):,}" == "279,936"

# %% image
grown = {
    name: total(at_input(architecture(name), (1, 448, 448)))
    / total(at_input(architecture(name), (1, 224, 224)))
    for name in ("nin", "alexnet", "vgg11", "googlenet")
}
assert grown["nin"] == grown["googlenet"] == 1
assert f"{grown['alexnet']:.1f} times, {grown['vgg11']:.1f} times" == "3.7 times, 3.4 times"
assert architecture("nin").input_shape[1] * 2 == 448
assert architecture("nin").input_shape == (1, 224, 224)

# %% dead
assert f"{accuracy_roof(3, 10):.0%} {loss_floor(3, 10):.2f}" == "70% 0.69"
assert f"{architecture('nin').num_classes} classes" == "10 classes"
lost = [k for k in range(11) if accuracy_roof(k, 10) == accuracy_roof(3, 10)]
assert f"{lost[0]} classes" == "3 classes"

# %% start
assert f"{math.log(architecture('nin').num_classes):.3f}" == "2.303"
convs = [at for at in placed.values() if isinstance(at.layer, Conv)]
assert len(convs) == 12
(equal,) = {at.input_shape[0] / (at.input_shape[0] + at.output_shape[0]) for at in (conv,)}
assert equal == 1 / 2

# %% shown
assert f"{CONFIDENCE:.0%}" == "95%"
shown = Difference(mean=0.008, low=-0.012, high=0.028)
assert not shown.shown
assert str(shown) == "+0.8 (-1.2 to +2.8)"
fewest = min(row.seeds for row in PLANS["full"].experiment("family_improved").rows)
assert f"{fewest} seeds" == "3 seeds"
