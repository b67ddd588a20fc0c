# The numbers of 10_nin_family, proved: each part runs behind the cell that it names.

# %% setup
from math import log

import torch

from ninlab.answers import answer
from ninlab.comparisons import CONFIDENCE, confidence_of_rows, difference, summary, train_loss
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
assert list(costs["layers"]) == [12, 18, 24, 11, 16, 19]
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
assert fields == [195, 243, 283]
assert fields[1] > networks["six blocks"].input_shape[-1] == 224
assert [side["28×28"] for side in sides.values()] == [97, 121, 141]
assert fields == [receptive_field(network) for network in networks.values()]
assert format_shape(architecture("nin_28").input_shape) == "1x28x28"

# %% table
four = small["four blocks (NiN)"]
ends = {label: summary(group) for label, group in small.items()}
assert [end.failed for end in ends.values()] == [0, 0, 1, 0]
assert [end.runs for end in ends.values()] == [5, 3, 3, 3]
at_once = confidence_of_rows(small)
less = {
    label: difference(group, four, at_once) for label, group in small.items() if group is not four
}
assert str(less["six blocks"]) == "-2.1 (-4.3 to +0.2)"
assert str(less["eight blocks"]) == "-1.3 (-6.0 to +3.4)"
assert str(less["eight blocks, rate 0.05"]) == "-0.6 (-3.0 to +1.8)"
assert not any(apart.shown for apart in less.values())
assert f"{CONFIDENCE:.0%}" == "95%"
deep = small["eight blocks"]
assert f"{len(deep)} runs" == "3 runs"
(failed,) = [run for run in deep if run.outcome != "finished"]
assert failed.outcome == "diverged"
assert len(failed.epochs) == 3
assert f"{failed.last.test_accuracy:.1%}" == "10.0%"
finished = [run for run in deep if run.outcome == "finished"]
of_all = sum(run.last.test_accuracy for run in deep) / len(deep)
assert f"{of_all:.1%}" == "58.3%"
assert len(finished) == 2

# %% fig-curves
begun = [f"{train_loss(small[label], 0):.2f}" for label in family.values()]
assert begun == ["1.61", "1.72", "2.16"]
ended = [f"{train_loss(small[label], -1):.2f}" for label in family.values()]
assert ended == ["0.46", "0.48", "0.50"]  # "a little behind"
everyone = [run for group in small.values() for run in group]
assert {f"{run.recipe.epochs} epochs" for run in everyone} == {"5 epochs"}
assert max(run.epochs[0].test_loss for run in everyone) < 2
leaves = [
    layer
    for _, layer in architecture("nin_28_8_blocks").named_leaves()
    if isinstance(layer, Conv | ReLU)
]
assert isinstance(leaves[-1], Conv)
assert all(e.dead_classes == 0 for run in everyone for e in run.epochs)
at_the_end = [run for run in everyone if run.outcome == "finished"]
assert all(run.never_predicted == 0 for run in at_the_end)
assert f"{log(architecture('nin_28').num_classes):.2f}" == "2.30"
assert failed.epochs[-1].train_loss is None

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
assert {f"{len(own[name])} seeds" for name in wanted} == {"3 seeds"}
assert {run.outcome for run in own["nin_28_8_blocks"]} == {"finished"}
fell_back = [relapsed([run]) for run in own["nin_28_8_blocks"]]
assert (sum(fell_back), len(fell_back)) == (2, 3)

# %% full-sentence
assert standing < log(10)

# %% time-sentence
least = [
    training_bound(network, 128, device("h100"), precision="bf16") for network in networks.values()
]
assert f"{least[-1].seconds / least[0].seconds:.2f} times" == "2.16 times"
for bound in least:
    assert bound.memory_bound_seconds > bound.seconds / 2
for bound in least[1:]:
    assert bound.bytes / least[0].bytes < bound.flops / least[0].flops

# %% take-away
carried = answer("one_by_one_batch_norm", compact)
normalized = carried.runs["nin_28_batch_norm"]
assert f"{summary(normalized).mean:.1%}" == "87.3%"
assert summary(normalized).least > max(e.greatest for e in ends.values())
assert {run.recipe for run in normalized} == {run.recipe for run in four}
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

# %% ex-luck
at_common_rate = small["eight blocks"]
spared = sum(run.outcome == "finished" for run in at_common_rate) / len(at_common_rate)
assert f"{spared**3:.0%}" == "30%"
assert spared**8 < 1 - CONFIDENCE < spared**7
assert f"{1 - CONFIDENCE:.0%} {1 - CONFIDENCE:.2f}" == "5% 0.05"
assert f"{len(own['nin_28_8_blocks'])} runs" == "3 runs"

# %% ex-device
room = 8 * 2**30
pair = [networks["four blocks (NiN)"], networks["eight blocks"]]
kept = [saved_bytes(network) for network in pair]
assert [format_bytes(k) for k in kept] == ["7.29 MiB", "13.7 MiB"]
assert [room // k for k in kept] == [1123, 596]
fitting = [largest_batch(timeline(network), room) for network in pair]
assert fitting == [1077, 581]
