# The numbers of 10_nin_family, proved: each part runs behind the cell that it names.

# %% setup
from math import log

import torch

from ninlab.answers import answer
from ninlab.comparisons import (
    CONFIDENCE,
    MARGIN,
    confidence_of_rows,
    difference,
    share_of_failures,
    shares_differ,
    summary,
    train_loss,
)
from ninlab.devices import device
from ninlab.formulas import saved_bytes
from ninlab.layers import ReLU
from ninlab.liveness import largest_batch
from ninlab.relapses import relapsed
from ninlab.resources import profile
from ninlab.roofline import training_bound
from ninlab.shapes import receptive_field
from ninlab.units import format_shape

torch.set_num_threads(1)

# %% designs
blocks_of = {label: [*stages_of(network).values()] for label, network in networks.items()}
assert blocks_of["four blocks (NiN)"] == [1, 1, 1, 1]
assert blocks_of["six blocks"] == [1, 2, 2, 1]
assert blocks_of["eight blocks"] == [2, 2, 3, 1]
for depth in ("four blocks", "eight blocks"):
    (same_depth,) = (label for label in family.values() if label.split(" (")[0] == depth)
    assert blocks_of[f"{depth}, doubling"] == blocks_of[same_depth]
widths = [
    [at.output_shape[0] for at in placed_layers(networks[label]) if at.name.endswith(".conv3")]
    for label in ("four blocks (NiN)", "four blocks, doubling")
]
assert [of_blocks[:3] for of_blocks in widths] == [[96, 256, 384], [96, 192, 384]]
assert f"{widths[1][1]}" == "192"
assert networks["four blocks (NiN)"] is architecture("nin_fixed")

# %% costs
assert {format_shape(network.input_shape) for network in compared.values()} == {"1x224x224"}
assert {f"{network.num_classes} classes" for network in compared.values()} == {"10 classes"}
assert {run.recipe.batch_size for run in compact if run.experiment == "family"} == {128}
for label, network in compared.items():
    counted_by_torch = profile(network.name, batch_size=128)
    assert list(costs.loc[label])[1:] == [
        counted_by_torch.parameters,
        counted_by_torch.macs,
        counted_by_torch.training.tensor_peak_bytes,
    ]
more = costs / costs.loc["four blocks (NiN)"]
assert f"{more['parameters']['eight blocks']:.1f} times" == "3.0 times"
assert f"{more['MACs']['eight blocks']:.1f} times" == "2.6 times"
assert f"{more['to train']['eight blocks']:.2f} times" == "1.86 times"
deepest = costs.loc["VGG-19"] / costs.loc["VGG-11"]
assert f"{deepest['parameters'] - 1:.0%} {deepest['MACs']:.1f} times" == "8% 2.6 times"
in_head = sum(
    cost.parameters for cost in layer_costs(architecture("vgg11")) if cost.name.startswith("head")
)
assert in_head > costs["parameters"]["VGG-11"] / 2
shrunk = costs["parameters"]["VGG-11"] / costs["parameters"]["eight blocks"]
assert 20 < shrunk < 22
assert costs["parameters"]["eight blocks"] == costs.loc[[*networks], "parameters"].max()
for what in ("parameters", "MACs"):
    assert abs(more[what]["four blocks, doubling"] - 0.78) < 0.02
assert list(costs["layers"]) == [12, 18, 24, 12, 24, 11, 13, 16, 19]
in_blocks = [
    sum(isinstance(layer, Conv) for layer in block.layers)
    for block in architecture("vgg11").layers[:-1]
]
assert in_blocks == [1, 1, 2, 2, 2]
in_line = [layer for layer in architecture("vgg11").layers[-1].layers if isinstance(layer, Linear)]
assert (len(in_line), f"{len(in_blocks) + len(in_line)} rows") == (3, "8 rows")
kept_share = 128 * saved_bytes(networks["eight blocks"]) / costs["to train"]["eight blocks"]
assert f"{kept_share:.0%}" == "97%"

# %% added
one, two, three = (list(prices.loc[stage]) for stage in prices.index)
assert list(price("block3c").values()) == three
totals = {
    label: [parameters(network), macs(network), saved_bytes(network)]
    for label, network in networks.items()
}
six, eight = totals["six blocks"], totals["eight blocks"]
step_to_six = [b - a for a, b in zip(totals["four blocks (NiN)"], six, strict=True)]
step_to_eight = [b - a for a, b in zip(six, eight, strict=True)]
assert step_to_six == [a + b for a, b in zip(two, three, strict=True)]
assert step_to_eight == [a + b for a, b in zip(one, three, strict=True)]
assert f"{three[0] / one[0]:.0f} times" == "16 times"
assert f"{one[2] / three[2]:.1f} times" == "5.1 times"
assert max(two[1], one[1], three[1]) == two[1]
assert three[2] == min(one[2], two[2], three[2])

# %% field
fields = [side["224×224"] for side in sides.values()]
assert fields == [195, 243, 283, 195, 283]
assert fields[1] > networks["six blocks"].input_shape[-1] == 224
assert [side["28×28"] for side in sides.values()] == [97, 121, 141, 97, 141]
assert fields == [receptive_field(network) for network in networks.values()]
assert format_shape(architecture("nin_28").input_shape) == "1x28x28"

# %% table
four = small["four blocks (NiN)"]
ends = {label: summary(group) for label, group in small.items()}
at_once = confidence_of_rows(small)
less = {
    label: difference(group, four, at_once)
    for label, group in small.items()
    if group is not four and ends[label].held > 1
}
assert str(less["six blocks"]) == "-0.6 (-2.0 to +0.8)"
assert less["six blocks"].high < 0.01  # "a gain of a point is ruled out"
assert str(less["four blocks, doubling"]) == "+1.2 (+0.2 to +2.3)"
assert [label for label, apart in less.items() if apart.shown] == ["four blocks, doubling"]
assert f"{CONFIDENCE:.0%}" == "95%"
at_common_rate = {label: small[label] for label in family.values()}
fails = {label: share_of_failures(group) for label, group in at_common_rate.items()}
assert [f"{one.count} of {one.of} runs" for one in fails.values()] == [
    "9 of 20 runs",
    "9 of 20 runs",
    "16 of 20 runs",
    "8 of 20 runs",
    "15 of 20 runs",
]
deepest = [fails[label] for label in fails if label.startswith("eight")]
assert [f"{one.count} runs, {one.of} runs" for one in deepest] == [
    "16 runs, 20 runs",
    "15 runs, 20 runs",
]
first_fails, *others_fail = fails.values()
assert f"{len(others_fail)} comparisons" == "4 comparisons"
for of_design in others_fail:
    assert shares_differ(of_design, first_fails) > (1 - CONFIDENCE) / len(others_fail)
how = [relapsed(group) for group in at_common_rate.values()]
assert sum(how) > 0.8 * sum(one.count for one in fails.values())
last_width = [
    next(at for at in placed_layers(architecture(name)) if at.name == "block3.conv3").output_shape[
        0
    ]
    for name in ("nin_28_doubling", "nin_28")
]
assert f"{last_width}" == "[64, 48]"

# %% fig-curves
begun = [f"{train_loss(small[label], 0):.2f}" for label in by_depth]
assert [begun[0], begun[-1]] == ["1.48", "2.15"]
assert begun == sorted(begun)
closing = [train_loss(small[label], -1) for label in by_depth]
assert closing == sorted(closing)
everyone = [run for group in small.values() for run in group]
assert {f"{run.recipe.epochs} epochs" for run in everyone} == {"5 epochs"}
leaves = [
    layer
    for _, layer in architecture("nin_28_8_blocks").named_leaves()
    if isinstance(layer, Conv | ReLU)
]
assert isinstance(leaves[-1], Conv)
assert all(e.dead_classes == 0 for run in everyone for e in run.epochs)
assert f"{log(architecture('nin_28').num_classes):.2f}" == "2.30"

# %% fig-rates
own = answer("own_rate", compact).runs
wanted = ["nin_28", "nin_28_8_blocks"]
at_rate = {
    name: {run.recipe.learning_rate: run for run in swept if run.network == name} for name in wanted
}
deep, shallow = at_rate["nin_28_8_blocks"], at_rate["nin_28"]
assert [len(group) for group in at_rate.values()] == [4, 4]
assert (deep[0.2].outcome, shallow[0.2].outcome) == ("stuck", "finished")
held_out = [deep[0.05], deep[0.1]]
assert [f"{run.last.test_accuracy:.1%}" for run in held_out] == [
    "77.0%",
    "75.4%",
]
rates = [own[name][0].recipe.learning_rate for name in wanted]
assert [f"{rate}" for rate in rates] == ["0.1", "0.05"]
best = [max(group.values(), key=lambda run: run.last.test_accuracy) for group in at_rate.values()]
assert [run.recipe.learning_rate for run in best] == rates
assert f"{max(deep)}" == "0.2"
sizes = {(run.data_set.train_images, run.data_set.evaluation_images) for run in swept}
assert sizes == {(55_000, 5_000)}
assert {f"{run.recipe.epochs} epochs" for run in swept} == {"2 epochs"}
at_half, at_common = (
    share_of_failures(small[label]) for label in ("eight blocks, rate 0.05", "eight blocks")
)
assert [f"{one.count} of {one.of} runs" for one in (at_half, at_common)] == [
    "7 of 20 runs",
    "16 of 20 runs",
]
# one comparison more than those above
assert shares_differ(at_half, at_common) < (1 - CONFIDENCE) / (len(others_fail) + 1)
assert str(less["eight blocks, rate 0.05"]) == "-0.1 (-1.2 to +1.1)"
assert less["eight blocks, rate 0.05"].verdict_within(MARGIN) == "not shown"

# %% better-text
of_better = {
    label: difference(group, small_better["four blocks (NiN)"], confidence_of_rows(small_better))
    for label, group in small_better.items()
    if label != "four blocks (NiN)"
}
assert {apart.verdict_within(MARGIN) for apart in of_better.values()} == {"equal"}
assert list(of_better) == list(family.values())[1:]
assert {f"{len(group)} seeds" for group in small_better.values()} == {"10 seeds"}
assert not any(share_of_failures(group).count for group in small_better.values())
(by_better,) = {run.recipe for group in small_better.values() for run in group}
assert by_better.momentum
assert by_better.weight_decay
assert (by_better.schedule, by_better.augmentation) == ("one_cycle", "flip")

# %% full-sentence
assert standing < log(10)

# %% time-sentence
least = [
    training_bound(networks[label], 128, device("h100"), precision="bf16") for label in by_depth
]
assert f"{least[-1].seconds / least[0].seconds:.2f} times" == "2.16 times"
for bound in least:
    assert bound.memory_bound_seconds > bound.seconds / 2
for bound in least[1:]:
    assert bound.bytes / least[0].bytes < bound.flops / least[0].flops

# %% take-away
assert {f"{run.recipe.epochs} epochs" for run in everyone} == {"5 epochs"}

# %% limits
at = {c.name: c.output_shape for c in layer_costs(architecture("nin_28"))}
assert [at[f"block{i}.conv2"][0] for i in (1, 2, 3)] == [16, 32, 48]
assert at["block3.conv2"] == (48, 4, 4)
assert {run.recipe.learning_rate for label in family.values() for run in small[label]} == {0.1}

# %% ex-price
stage = {cost.name: cost for cost in layer_costs(networks["eight blocks"])}
assert format_shape(stage["block2b.conv1"].output_shape) == "256x26x26"
assert list(prices.loc["stage 2"]) == [721_664, 11 * 256**2 * 26**2, 3 * 4 * 256 * 26**2]
assert format_count(prices["MACs"]["stage 2"]) == "487 M"
assert format_bytes(prices["kept"]["stage 2"]) == "1.98 MiB"

# %% ex-rule
shapes = [stage[f"{block}.conv1"].output_shape for block in stages.values()]
assert [shape[:2] for shape in shapes] == [(96, 54), (256, 26), (384, 12)]
assert [f"{two[1] / one[1]:.2f}", f"{three[1] / two[1]:.2f}"] == ["1.65", "0.48"]
compact_deep = {c.name: c for c in layer_costs(architecture("nin_28_8_blocks"))}
assert compact_deep["block1b.conv1"].macs == compact_deep["block2b.conv1"].macs

# %% ex-device
room = 8 * 2**30
pair = [networks["four blocks (NiN)"], networks["eight blocks"]]
kept = [saved_bytes(network) for network in pair]
assert [format_bytes(k) for k in kept] == ["7.29 MiB", "13.7 MiB"]
assert [room // k for k in kept] == [1123, 596]
fitting = [largest_batch(timeline(network), room) for network in pair]
assert fitting == [1077, 581]
