# The numbers of 10_nin_family, proved: each part runs behind the cell that it names.

# %% hidden-imports
from math import log
from statistics import median

import torch

from ninlab.answers import answer
from ninlab.comparisons import difference, summary
from ninlab.devices import device
from ninlab.layers import ReLU
from ninlab.networks import build
from ninlab.relapses import FACTOR, MARGIN
from ninlab.roofline import time_bound, training_operators
from ninlab.units import format_shape

torch.set_num_threads(1)

# %% check-prediction
vgg = [
    at.layer.out_channels
    for at in placed_layers(architecture("vgg11"))
    if isinstance(at.layer, Conv)
]
assert [*dict.fromkeys(vgg)] == [64, 128, 256, 512]
repeats = {
    at.name.split(".")[0]
    for at in placed_layers(architecture("nin_fixed_6_blocks"))
    if at.name.startswith("block")
}
assert repeats == {"block1", "block2", "block2b", "block3", "block3b"}
assert {name.split(".")[0] for name in stage if name.startswith("block")} == {
    *repeats,
    "block1b",
    "block3c",
}

# %% check-count
assert format_shape(architecture("nin_fixed").input_shape) == "1x224x224"
assert f"{224}×{224}" == "224×224"
grown = {
    what: [f"{c / counts['four blocks (NiN)']:.1f} times" for c in counts.values()]
    for what, counts in costs.items()
}
assert grown["parameters"] == ["1.0 times", "2.2 times", "3.0 times"]
assert grown["MACs"] == ["1.0 times", "1.9 times", "2.6 times"]
assert grown["kept"] == ["1.0 times", "1.4 times", "1.9 times"]
assert [format_count(c) for c in costs["MACs"].values()] == [
    "762 M",
    "1.48 G",
    "2.01 G",
]
assert [f"{c / 1e6:.2f}" for c in costs["parameters"].values()] == [
    "1.99",
    "4.34",
    "6.06",
]
assert f"{parameters(architecture('vgg11')) / 1e6:.0f}" == "129"
assert f"{macs(architecture('vgg11')) / 1e9:.2f} G" == "7.55 G"
depth = [
    sum(isinstance(at.layer, Conv) for at in placed_layers(network))
    for network in networks.values()
]
assert depth == [12, 18, 24]

# %% check-added
one, two, three = prices.values()
assert steps[0] == tuple(map(sum, zip(two, three, strict=True)))
assert steps[1] == tuple(map(sum, zip(one, three, strict=True)))
assert price("block3c") == three
assert [f"{p[0]:,}" for p in prices.values()] == [
    "101,664",
    "721,664",
    "1,623,168",
]
assert [format_count(p[1]) for p in prices.values()] == [
    "296 M",
    "487 M",
    "234 M",
]
assert [format_bytes(p[2]) for p in prices.values()] == [
    "3.20 MiB",
    "1.98 MiB",
    "648 KiB",
]
assert f"{three[0] / one[0]:.0f} times" == "16 times"
assert f"{one[2] / three[2]:.1f} times" == "5.1 times"

# %% peaks
traced = {
    label: profile(name, batch_size=128).training.tensor_peak_bytes
    for label, name in family.items()
}
assert traced == peaks
assert [format_bytes(peak) for peak in peaks.values()] == [
    "980 MiB",
    "1.29 GiB",
    "1.78 GiB",
]
smallest, *_, largest = peaks.values()
assert f"{largest / smallest:.2f} times" == "1.86 times"
kept_share = 128 * saved_bytes(networks["eight blocks"]) / largest
assert f"{kept_share:.0%}" == "97%"
assert 128 in {run.recipe.batch_size for run in compact}

# %% field
fields = [side_seen(network) for network in networks.values()]
assert fields == [195, 243, 283]
assert [side["28×28"] for side in sides.values()] == [97, 121, 141]
assert fields[1] - fields[0] == 2 * 8 + 2 * 16
assert fields[2] - fields[1] == 2 * 4 + 2 * 16
assert (2 * 8, 2 * 16) == (16, 32)
probe = build("nin_fixed", seed=0).eval()
image = torch.rand(1, 1, 224, 224, requires_grad=True)
maps = image
for part, module in probe.named_children():
    maps = module(maps)
    if part == "classes":
        break
row = maps.shape[2] // 2
maps[0, :, row, row].sum().backward()
seen = int((image.grad[0, 0] != 0).any(dim=0).sum())
assert seen == fields[0]
assert architecture("nin_28").input_shape == (1, 28, 28)
assert f"{28}×{28}" == "28×28"

# %% table
ends = {label: summary(group) for label, group in small.items()}
assert [f"{end.mean:.1%}" for end in ends.values()] == [
    "83.8%",
    "81.7%",
    "82.5%",
    "83.2%",
]
assert [end.failed for end in ends.values()] == [0, 0, 1, 0]
assert [end.runs for end in ends.values()] == [5, 3, 3, 3]
less = {label: difference(group, four) for label, group in small.items() if group is not four}
assert str(less["six blocks"]) == "-2.1 (-3.7 to -0.4)"
assert str(less["eight blocks"]) == "-1.3 (-4.3 to +1.7)"
assert str(less["eight blocks, rate 0.05"]) == "-0.6 (-2.4 to +1.2)"
assert f"{len(less)} rows" == "3 rows"
at_once = difference(small["six blocks"], four, confidence=1 - 0.05 / 3)
assert str(at_once) == "-2.1 (-4.3 to +0.2)"
assert f"{1 - 0.05 / 3:.1%}" == "98.3%"
assert f"{0.95:.0%}" == "95%"
deep = small["eight blocks"]
assert f"{len(deep)} runs" == "3 runs"
(failed,) = [run for run in deep if run.outcome != "finished"]
assert failed.outcome == "diverged"
assert len(failed.epochs) == 3
assert f"{failed.last.test_accuracy:.1%}" == "10.0%"
finished = [run for run in deep if run.outcome == "finished"]
of_all = sum(run.last.test_accuracy for run in deep) / len(deep)
assert f"{of_all:.1%}" == "58.3%"
assert sorted(f"{r.last.test_accuracy:.1%}" for r in finished) == [
    "81.8%",
    "83.1%",
]


# %% fig-curves
def loss(label, epoch):
    ended = [run for run in small[label] if run.outcome == "finished"]
    return median(run.epochs[epoch].train_loss for run in ended)


begun = [f"{loss(label, 0):.2f}" for label in common]
assert begun == ["1.61", "1.72", "2.16"]
ended = [f"{loss(label, -1):.2f}" for label in common]
assert ended == ["0.46", "0.48", "0.50"]
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
assert f"{-torch.tensor(0.1).log():.2f}" == "2.30"
assert failed.epochs[-1].train_loss is None

# %% hidden-rates
own = answer("own_rate", compact).runs

# %% fig-rates
at_rate = {n: {run.recipe.learning_rate: run for run in group} for n, group in tried.items()}
deep, shallow = at_rate["nin_28_8_blocks"], at_rate["nin_28"]
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
sizes = {
    (run.data_set.train_images, run.data_set.evaluation_images)
    for group in tried.values()
    for run in group
}
assert sizes == {(55_000, 5_000)}
assert {f"{run.recipe.epochs} epochs" for run in swept} == {"2 epochs"}
again = zip(own["nin_28"], four[:3], strict=True)
assert all(new.loss == old.loss for new, old in again)
assert {f"{len(own[name])} seeds" for name in wanted} == {"3 seeds"}
assert {run.outcome for run in own["nin_28_8_blocks"]} == {"finished"}
fell_back = [bool(relapse(run)) for run in own["nin_28_8_blocks"]]
assert (sum(fell_back), len(fell_back)) == (2, 3)

# %% time-sentence
least = [
    time_bound(
        training_operators(network, 128, "sgd", "bf16"),
        device("h100"),
        "bf16",
    )
    for network in networks.values()
]
assert f"{(log(10) - MARGIN) / FACTOR:.2f}" == "1.40"
assert f"{standing:.2f}" == "2.25"
assert standing < log(10)
assert f"{1e3 * least[0].seconds:.2f} ms" == "1.72 ms"
assert [f"{b.seconds / least[0].seconds:.2f} times" for b in least] == [
    "1.00 times",
    "1.55 times",
    "2.16 times",
]
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
assert {run.recipe.learning_rate for label in common for run in small[label]} == {0.1}

# %% ex-price
assert stage["block2b.conv1"].output_shape == (256, 26, 26)
assert f"{26}×{26}" == "26×26"
assert f"{11 * 256**2 + 3 * 256:,}" == "721,664"
assert format_count(11 * 256**2 * 26**2) == "487 M"
assert format_bytes(3 * 4 * 256 * 26**2) == "1.98 MiB"
assert prices["stage 2"] == (721_664, 11 * 256**2 * 26**2, 12 * 256 * 26**2)

# %% ex-rule
shapes = [stage[f"{block}.conv1"].output_shape for block in stages.values()]
assert [shape[:2] for shape in shapes] == [(96, 54), (256, 26), (384, 12)]
factors = [prices["stage 2"][1] / one[1], three[1] / prices["stage 2"][1]]
assert [f"{factor:.2f}" for factor in factors] == ["1.65", "0.48"]
compact_deep = {c.name: c for c in layer_costs(architecture("nin_28_8_blocks"))}
assert compact_deep["block1b.conv1"].macs == compact_deep["block2b.conv1"].macs

# %% ex-luck
assert f"{(2 / 3) ** 3:.0%}" == "30%"
assert (2 / 3) ** 8 < 0.05 < (2 / 3) ** 7
assert f"{0.05:.0%} {0.05}" == "5% 0.05"
assert f"{len(own['nin_28_8_blocks'])} runs" == "3 runs"

# %% ex-device
room = 8 * 2**30
assert format_bytes(room) == "8.00 GiB"
assert f"{8} GiB" == "8 GiB"
assert f"{room / 2**20:,.0f} MiB" == "8,192 MiB"
pair = [networks["four blocks (NiN)"], networks["eight blocks"]]
kept = [saved_bytes(network) for network in pair]
assert [format_bytes(k) for k in kept] == ["7.29 MiB", "13.7 MiB"]
assert [room // k for k in kept] == [1123, 596]
fitting = [liveness.largest_batch(liveness.timeline(n), room) for n in pair]
assert fitting == [1077, 581]
