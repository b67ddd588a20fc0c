# The numbers of 14_fusion, proved: each part runs behind the cell that it names.

# %% setup
from dataclasses import replace
from math import prod

from ninlab.devices import DEVICES
from ninlab.errors import NinlabError
from ninlab.fused import matching, operators, tiles, why_not
from ninlab.layers import MaxPool, ReLU
from ninlab.recipes import TRAINED_KERNELS
from ninlab.shapes import placed_layers
from ninlab.units import format_shape

# %% count-moved
placed = {at.name: at for at in placed_layers(nin)}
inside = [name for name in placed if name.startswith(block)]
assert len(inside) == 7
assert format_bytes(moved) == "2.28 GiB"
one_image = roofline.training_operators(nin, 1, "sgd", "bf16")
assert sum(one.flops for one in step) / sum(one.flops for one in one_image) == 128
pooled = 2 * 128 * prod(placed["maxpool1"].output_shape)
assert format_bytes(pooled) == "15.8 MiB"

# %% prediction
sides = {name: placed[name].output_shape for name in inside if name != "maxpool1"}
assert {format_shape(shape) for shape in sides.values()} == {"96x54x54"}
a_map = 2 * prod(placed["block1.relu3"].output_shape)


def maps_written(kernels):
    """Maps of the block's size that its operators write in the forward pass, the pool's apart."""
    calls = tape.record(nin, precision="bf16", kernels=kernels).calls
    return sum(
        one.size == (0, a_map)
        for call in calls
        if call.layer in sides and call.phase == "forward"
        for one in call.writes
    )


assert (maps_written("torch"), maps_written("chained")) == (6, 2)
stock = liveness.saved_lines(nin, "bf16")
assert sum(one.bytes_per_image == a_map for one in stock if one.layer in sides) == 3
(places,) = (one for one in stock if (one.layer, one.kind) == ("maxpool1", "pool_indices"))
assert places.bytes_per_image / prod(placed["maxpool1"].output_shape) == 8

# %% figure-traffic
of_block = {
    kernels: [
        one
        for one in roofline.training_operators(nin, 128, "sgd", "bf16", kernels=kernels)
        if one.layer.startswith(block)
    ]
    for kernels in Kernels
}
traffic = {kernels: sum(one.bytes for one in ops) for kernels, ops in of_block.items()}
assert traffic["chained"] < moved / 2
assert f"a factor of {moved / traffic['chained']:.1f}" == "a factor of 2.5"
assert format_bytes(traffic["chained"], "GiB") == "0.90 GiB"
assert format_bytes(128 * a_map) == "68.3 MiB"
moved_tensors = [
    one.size[0] + 128 * one.size[1]
    for call in tape.record(nin, precision="bf16").calls
    if call.layer in inside
    for one in (*call.reads, *call.writes)
]
assert max(moved_tensors) == 128 * a_map
first = [
    call
    for call in tape.record(nin, precision="bf16").calls
    if call.layer == "block1.conv1" and call.phase == "backward"
]
assert not any(one.size[1] for call in first for one in call.writes)  # no map is written
empty = {"block1.relu1", "block1.relu2", "block1.relu3"}
assert empty.isdisjoint(one.layer for one in of_block["fused"])
by_row = {
    kernels: {
        (phase, layer): sum(
            one.bytes for one in of_block[kernels] if (one.phase, one.layer) == (phase, layer)
        )
        for phase in ("forward", "backward")
        for layer in set(inside) - empty
    }
    for kernels in ("torch", "fused")
}
longer = [by_row["fused"][at] > 1.01 * by_row["torch"][at] for at in by_row["torch"]]
assert 0 < sum(longer) < len(longer)
between = [
    one
    for one in of_block["chained"]
    if one.phase == "forward"
    and one.layer not in ("block1.conv1", "maxpool1")
    and one.name != "_to_copy"  # of the weights
]
assert [one.name for one in between] == ["chain"]
chain_calls = {
    call.operator: [[t.size for t in side if t.size[1]] for side in (call.reads, call.writes)]
    for call in tape.record(nin, precision="bf16", kernels="chained").calls
    if call.operator.startswith("chain")
}
assert chain_calls["chain"] == [[(0, a_map)], [(0, a_map)]]
assert chain_calls["chain_backward"] == [[(0, a_map)] * 2 * 2, [(0, a_map)] * 2]  # two layers

# %% count-kept
assert [format_seconds(seconds) for seconds in least.values()] == ["1.72 ms", "1.38 ms", "1.12 ms"]
assert f"{1 - least['chained'] / least['torch']:.0%}" == "34%"
(codes,) = (one for one in kept["chained"] if one.layer == "maxpool1")
assert codes.bytes_per_image == prod(placed["maxpool1"].output_shape)
chain_keeps = [one for one in kept["chained"] if one.layer == "block1.conv3"]
assert [one.bytes_per_image for one in chain_keeps if one.bytes_per_image] == [a_map]

# %% figure-kept
per_block = bytes_kept("", block).values
assert [format_bytes(per_block[k]) for k in ("chained", "torch")] == ["88.6 MiB", "281 MiB"]
assert [format_bytes(of_nin.values[k]) for k in ("chained", "torch")] == ["238 MiB", "526 MiB"]
assert of_nin.values["chained"] < of_nin.values["torch"] / 2

# %% figure-left
ridge = h100.peak("bf16") / h100.bandwidth()
assert f"{ridge:.0f}" == "295"
products = [
    one
    for one in roofline.training_operators(nin, 128, "sgd", "bf16", kernels="chained")
    if one.layer == "block2.conv1" and one.flops
]
window = leaves["block2.conv1"].kernel_size
assert f"{((8 + window - 1) / 8) ** 2} times" == "2.25 times"
assert 8 + window - 1 == 12
assert longest[0] == "block2.conv1"
share = sum(roofline.operator_seconds(one, h100, "bf16") for one in products) / least["chained"]
assert f"{share:.0%}" == "29%"
assert {f"{one.flops / one.bytes:,.0f}" for one in products} == {"1,711"}
assert f"{left[''] / least['chained']:.1%}" == "0.6%"
assert abs(sum(left.values()) - least["chained"]) < 1e-12

# %% count-four
width = leaves["block1.conv2"].out_channels
by_name = {one.name: one for one in of_block["chained"] if "chain" in one.name}
pixels = 128 * prod(placed["block1.conv2"].output_shape[1:])
a_layer = 2 * width**2 * pixels  # FLOPs, whether it makes a map, a gradient or that of a weight
map_bytes = 128 * a_map
assert by_name["chain"].flops == 2 * a_layer == 4 * width**2 * pixels
assert by_name["chain_backward"].flops == (3 + 2) * a_layer == (6 + 4) * width**2 * pixels
weights = {"chain": 2, "chain_backward": 6}  # copies that are read, and gradients
for operator, maps in (("chain", 2), ("chain_backward", 3 + 3)):
    of_maps = maps * map_bytes
    assert 0 <= by_name[operator].bytes - of_maps <= weights[operator] * 4 * width**2
    assert of_maps == 2 * maps * width * pixels
a_byte = {name: one.flops / one.bytes for name, one in by_name.items()}
assert f"{a_byte['chain'] / width:.2f}" == "1.00"
both = a_byte["chain_backward"] / width
assert abs(both - (1 + 2 / 3) / 2) < 1e-3  # each of both moves as much
assert f"{ridge:.0f}" == "295"
assert matching.CHAINED_CHANNELS == 128
assert 2 * matching.CHAINED_CHANNELS == 256
assert (2 * matching.CHAINED_CHANNELS) ** 2 == h100.described["maxRegistersPerSM"] == 65_536
widths = [leaves[f"block{number}.conv2"].out_channels for number in (1, 2, 3)]
assert widths == [96, 256, 384]
of_step = roofline.training_operators(nin, 128, "sgd", "bf16", kernels="chained")
assert [one.layer for one in of_step if one.name == "chain"] == ["block1.conv3"]

# %% measure-tree
stem = chained[0].conv1
assert (stem.fold, stem.kernel, stem.stride) == (4, 11, 4)
folded_channels, folded_side = stem.fold**2 * nin.input_shape[0], -(-stem.kernel // stem.fold)
assert (folded_channels, folded_side) == (16, 3)
assert folded_side * stem.fold == 12

# %% measure-difference
assert (scores - same_scores).abs().max() < 1e-5
assert max(apart) < 0.01 * max(one.abs().max() for one in gradients)  # a ReLU may have changed

# %% measure-kept
assert counted("torch") == all_bytes
assert counted("chained") == fewer_bytes

# %% take-away
no_pool = "block2.conv1", "block2.relu1"
alone = {
    kernels: sum(one.bytes(128) for one in lines if one.layer in no_pool)
    for kernels, lines in kept.items()
}
assert alone["fused"] == alone["torch"] > 0

# %% limits
assert ".".join(map(str, operators.LEAST_CAPABILITY)) == "8.0"
assert "need a CUDA device" in why_not("cpu")
assert [*TRAINED_KERNELS] == ["torch", "fused"]


# %% exercises
def share_saved(name):
    """Which share of the bytes that it keeps a network saves when its layers are fused."""
    network_kept = {
        k: sum(
            one.bytes(128) for one in liveness.saved_lines(architecture(name), "bf16", kernels=k)
        )
        for k in Kernels
    }
    return 1 - network_kept["fused"] / network_kept["torch"]


names = ("vgg11", "alexnet", "nin")
assert [f"{share_saved(name):.0%}" for name in names] == ["71%", "55%", "42%"]
chained_operators = [
    one.name
    for name in names[:2]
    for one in roofline.training_operators(architecture(name), 128, kernels="chained")
]
assert "chain" not in chained_operators
vgg = [type(leaf).__name__ for _, leaf in architecture("vgg11").named_leaves()]
assert (vgg.count("Conv"), vgg.count("MaxPool")) == (8, 5)
kinds = [type(leaf).__name__ for leaf in leaves.values()]
assert (kinds.count("Conv"), kinds.count("MaxPool")) == (12, 3)
pools = [one for _, one in architecture("vgg11").named_leaves() if isinstance(one, MaxPool)]
assert {8 / one.kernel_size**2 for one in pools} == {2.0}
assert {1 / one.stride**2 for one in pools} == {0.25}

# %% exercise-swap
pool_first = []
for layer in nin.layers:
    if isinstance(layer, MaxPool):
        before = pool_first.pop()
        pool_first += [replace(before, layers=before.layers[:-1]), layer, ReLU()]
    else:
        pool_first.append(layer)
swapped = replace(nin, layers=tuple(pool_first))
sums = [
    sum(one.bytes for one in roofline.training_operators(one_network, 128, "sgd", "bf16"))
    for one_network in (nin, swapped)
]
assert [format_bytes(count) for count in sums] == ["4.29 GiB", "3.81 GiB"]
assert f"{1 - sums[1] / sums[0]:.0%}" == "11%"
both_kept = [
    sum(one.bytes(128) for one in liveness.saved_lines(one_network, "bf16"))
    for one_network in (nin, swapped)
]
assert [format_bytes(count) for count in both_kept] == ["526 MiB", "528 MiB"]
smaller = prod(placed["block1.relu3"].output_shape) / prod(placed["maxpool1"].output_shape)
assert 4 < smaller < 5

# %% exercise-batch
card = device("l4").memory_bytes
assert DEVICES["l4"].described["deviceVer"] >= 100 * operators.LEAST_CAPABILITY[0]
assert f"{card / 1e9:.0f} GB" == "24 GB"
steps = {k: liveness.timeline(nin, precision="bf16", kernels=k) for k in Kernels}
fitting = {k: liveness.largest_batch(one, card) for k, one in steps.items()}
assert [*fitting.values()] == [5_226, 8_271, 10_251]
assert f"{fitting['chained'] / fitting['torch']:.1f} times" == "2.0 times"
an_image = {k: sum(one.bytes_per_image for one in kept[k]) for k in kept}
assert f"{an_image['chained'] / an_image['torch']:.0%}" == "45%"
above = {
    k: liveness.envelope(steps[k])[-1].bytes_per_image / an_image[k] - 1
    for k in ("torch", "chained")
}
assert [f"{share:.0%}" for share in above.values()] == ["7%", "22%"]
values = max(prod(at.output_shape) for at in placed.values())
assert values == prod(placed["block1.conv1"].output_shape) == 279_936
most = torch.iinfo(torch.int32).max // values
assert (torch.iinfo(torch.int32).bits, most) == (32, 7_671)
tiles.check(most * values)
try:
    tiles.check((most + 1) * values)
except NinlabError as error:
    refusal = str(error)
assert "fewer than 2**31 values" in refusal
