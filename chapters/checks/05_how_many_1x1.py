# The numbers of 05_how_many_1x1, proved: each part runs behind the cell that it names.

# %% hidden-imports
from math import comb, isclose
from statistics import median

from ninlab.answers import answer
from ninlab.comparisons import difference, summary
from ninlab.devices import device
from ninlab.layers import Conv
from ninlab.roofline import time_bound, training_operators
from ninlab.shapes import placed_layers
from ninlab.units import format_count, format_shape

# %% check-prediction
assert f"{nin['block3.conv2'].parameters:,}" == "147,840"
assert nin["block3.conv2"].output_shape[0] == 384
assert f"{384 * 384 + 384:,}" == "147,840"
assert format_shape(architecture("nin_fixed").input_shape) == "1x224x224"


# %% check-count
def share(what):
    return 1 - costs[what]["no 1×1 layer"] / costs[what]["two: NiN"]


assert [f"{share(what):.0%}" for what in costs] == ["22%", "24%", "53%"]
steps = {
    what: {
        costs[what][more] - costs[what][fewer]
        for fewer, more in (
            ("no 1×1 layer", "one"),
            ("one", "two: NiN"),
            ("two: NiN", "three"),
        )
    }
    for what in costs
}
assert all(len(step) == 1 for step in steps.values())
(more_parameters,), (more_macs,), (more_kept,) = steps.values()
assert f"{more_parameters:,}" == "223,054"
assert format_count(more_macs) == "92.4 M"
assert format_bytes(more_kept) == "1.94 MiB"
assert f"{more_parameters / costs['parameters']['two: NiN']:.0%}" == "11%"
assert f"{more_macs / costs['MACs']['two: NiN']:.0%}" == "12%"
assert f"{more_kept / costs['kept']['two: NiN']:.0%}" == "27%"
wide = {w: costs[w]["two of 3×3"] / costs[w]["two: NiN"] for w in costs}
assert f"{wide['parameters']:.1f} times" == "2.8 times"
assert f"{wide['MACs']:.1f} times" == "2.9 times"
assert wide["kept"] == 1

# %% count-text
depth = [
    sum(isinstance(at.layer, Conv) for at in placed_layers(network))
    for network in networks.values()
]
assert depth == [4, 8, 12, 16, 12]
assert depth[3] == 16

# %% field
fields = {label: side_seen(name) for label, name in designs.items()}
one_sides = {fields[label] for label in list(designs)[:4]}
assert len(one_sides) == 1
assert one_sides == {195}
assert (2 * 4, 4 * 8, 2 * 8, 2 * 16, 2 * 16, 2 * 32) == (
    8,
    32,
    16,
    32,
    32,
    64,
)
assert 11 + 8 + 32 + 16 + 32 + 32 + 64 == 195
side, step, wider = 1, 1, []
for at in placed_layers(networks["no 1×1 layer"]):
    if hasattr(at.layer, "kernel_size"):
        wider.append((at.layer.kernel_size - 1) * step)
        step *= at.layer.stride
assert wider == [10, 8, 32, 16, 32, 32, 64]
assert 0.9 * 224 < fields["two of 3×3"] <= 224

# %% hidden-records
h100 = device("h100")
least = {
    label: time_bound(training_operators(network, 128, "sgd", "bf16"), h100, "bf16")
    for label, network in networks.items()
}
none_least, two_least = least["no 1×1 layer"], least["two: NiN"]
waiting = two_least.memory_bound_seconds - none_least.memory_bound_seconds
wide_least = least["two of 3×3"].seconds / two_least.seconds
added = costs["MACs"]["two: NiN"] / costs["MACs"]["no 1×1 layer"] - 1
assert f"{added:.0%}" == "32%"
assert f"{1e3 * none_least.seconds:.2f} ms" == "0.86 ms"
assert f"{1e3 * two_least.seconds:.2f} ms" == "1.72 ms"
assert f"{two_least.seconds / none_least.seconds:.2f}" == "2.00"
assert isclose(two_least.seconds - none_least.seconds, waiting)
assert f"{wide_least:.1f} times" == "1.5 times"

# %% table
ends = {label: summary(group) for label, group in small.items()}
assert [f"{end.mean:.1%}" for end in ends.values()] == [
    "83.8%",
    "86.3%",
    "87.2%",
    "84.5%",
    "57.4%",
    "85.1%",
]
apart = {label: difference(group, two) for label, group in small.items() if group is not two}
assert str(apart["no 1×1 layer"]) == "+2.5 (+0.9 to +4.1)"
assert str(apart["one 1×1 layer"]) == "+0.8 (-0.8 to +2.4)"
assert str(apart["two layers of 3×3"]) == "+1.4 (-1.6 to +4.4)"
assert str(apart["three 1×1 layers"]) == "-26.4 (-74.6 to +21.8)"
assert [label for label, d in apart.items() if d.shown] == [
    "no 1×1 layer",
    "no 1×1 layer, rate 0.2",
]
at_once = difference(small["no 1×1 layer"], two, confidence=1 - 0.05 / 4)
assert str(at_once) == "+2.5 (+0.1 to +5.0)"
assert f"{1 - 0.05 / 4:.2%}" == "98.75%"
three = sorted(r.last.test_accuracy for r in small["three 1×1 layers"])
assert [f"{a:.1%}" for a in three] == ["44.4%", "47.9%", "79.8%"]
assert three[-1] < ends["two 1×1 layers (NiN)"].least
assert comb(8, 3) == 56
assert (len(three), len(two)) == (3, 5)
assert all(end.failed == 0 for end in ends.values())
assert ends["no 1×1 layer"].least > ends["one 1×1 layer"].greatest
assert {f"{len(run.epochs)} epochs" for g in small.values() for run in g} == {"5 epochs"}
assert f"{0.95:.0%}" == "95%"
vgg13, vgg16 = (
    [layer.kernel_size for _, layer in architecture(name).named_leaves() if isinstance(layer, Conv)]
    for name in ("vgg13", "vgg16")
)
assert (len(vgg16) - len(vgg13), {*vgg13, *vgg16}) == (3, {3})


# %% fig-curves
def loss(label, epoch):
    return median(run.epochs[epoch].train_loss for run in small[label])


first = [f"{loss(label, 0):.2f}" for label in by_depth]
assert first == ["0.86", "1.18", "1.61", "1.81"]
last = [f"{loss(label, -1):.2f}" for label in by_depth[:3]]
assert last == ["0.39", "0.42", "0.46"]
relapsed = {label: [run for run in group if relapse(run)] for label, group in small.items()}
assert [
    f"{label}: {len(relapsed[label])} of {len(group)} runs"
    for label, group in small.items()
    if relapsed[label]
] == ["two 1×1 layers (NiN): 2 of 5 runs", "three 1×1 layers: 3 of 3 runs"]
assert all(relapse(run).step < run.recipe.steps / run.recipe.epochs for run in relapsed[usual])
again = sorted(run.last.test_accuracy for run in relapsed[usual])
assert [f"{accuracy:.1%}" for accuracy in again] == ["83.6%", "84.4%"]
assert all(run.last.dead_classes == 0 for g in small.values() for run in g)
assert {
    label: sorted(run.never_predicted for run in group)
    for label, group in small.items()
    if any(run.never_predicted for run in group)
} == {"three 1×1 layers": [0, 1, 3]}
most = max(run.never_predicted for run in small["three 1×1 layers"])
assert f"{most} classes" == "3 classes"

# %% hidden-rates
own = answer("own_rate", compact).runs

# %% fig-rates
best = {n: own[n][0].recipe.learning_rate for n in wanted}
assert best == {
    "nin_28_no_1x1": 0.2,
    "nin_28": 0.1,
    "nin_28_three_1x1": 0.1,
}
at_rate = {n: {run.recipe.learning_rate: run for run in group} for n, group in tried.items()}
for rate in (0.025, 0.05, 0.1, 0.2):
    accuracies = [group[rate].last.test_accuracy for group in at_rate.values()]
    assert max(accuracies) == accuracies[0]
doubled = [group[0.2] for group in at_rate.values()]
assert [run.outcome.value for run in doubled] == [
    "finished",
    "finished",
    "stuck",
]
at_best = at_rate["nin_28"][0.1].last.test_accuracy
assert f"{at_best:.0%} {doubled[1].last.test_accuracy:.0%}" == "81% 65%"
assert {run.data_set.train_images for group in tried.values() for run in group} == {55_000}
assert {run.data_set.evaluation_images for g in tried.values() for run in g} == {5_000}
assert {f"{run.recipe.epochs} epochs" for g in tried.values() for run in g} == {"2 epochs"}
fell_at = {n: [rate for rate, run in group.items() if relapse(run)] for n, group in at_rate.items()}
assert fell_at["nin_28_no_1x1"] == []
assert f"{sorted(fell_at['nin_28'])}" == "[0.025, 0.05, 0.1]"
repeated = zip(
    [*own["nin_28"], *own["nin_28_three_1x1"]],
    [*two[:3], *small["three 1×1 layers"]],
    strict=True,
)
assert all(again.loss == run.loss for again, run in repeated)
assert {f"{len(own[n])} seeds" for n in wanted} == {"3 seeds"}
assert str(apart["no 1×1 layer, rate 0.2"]) == "+3.4 (+1.8 to +5.0)"
at_once = difference(small["no 1×1 layer, rate 0.2"], two, confidence=1 - 0.05 / 5)
assert str(at_once) == "+3.4 (+0.8 to +6.0)"
assert f"{1 - 0.05 / 5:.0%}" == "99%"
assert len(apart) == 5
assert f"{ends['no 1×1 layer, rate 0.2'].mean:.1%}" == "87.2%"
assert f"{0.1} {0.2}" == "0.1 0.2"

# %% normalized-text
ended = [f"{label}: {summary(group).mean:.1%}" for label, group in small_normalized.items()]
assert ended == [
    "two 1×1 layers, normalized: 87.3%",
    "no 1×1 layer, normalized: 87.4%",
    "one 1×1 layer, normalized: 88.0%",
]
two_so, none_so, one_so = small_normalized.values()
for group in (two_so, none_so, one_so):
    assert {run.recipe for run in group} == {run.recipe for run in two}
    assert len(group) == 3
assert str(difference(none_so, two_so)) == "+0.1 (-1.1 to +1.3)"
assert str(difference(one_so, two_so)) == "+0.6 (-0.6 to +1.9)"
for one, other in ((none_so, two_so), (one_so, two_so), (one_so, none_so)):
    assert not difference(one, other).shown
assert str(difference(none_so, small["no 1×1 layer"])) == "+1.1 (+0.5 to +1.8)"
assert str(difference(two_so, two)) == "+3.6 (+1.9 to +5.2)"
by_epoch = {
    epoch: [
        f"{median(run.epochs[epoch].train_loss for run in group):.2f}"
        for group in (none_so, one_so, two_so)
    ]
    for epoch in (0, -1)
}
assert by_epoch[0] == ["0.68", "0.84", "0.95"]
assert by_epoch[-1] == ["0.34", "0.32", "0.34"]
for group in (two_so, none_so, one_so):
    assert all(run.last.dead_classes == 0 for run in group)
    assert not any(run.never_predicted or relapse(run) for run in group)

# %% limits
assert {f"{len(group)} seeds" for group in small.values()} == {
    "3 seeds",
    "5 seeds",
}
shared = {
    run.recipe.learning_rate
    for label, group in small.items()
    for run in group
    if "rate" not in label
}
assert shared == {0.1}
at = {c.name: c.output_shape for c in layer_costs(architecture("nin_28"))}
assert [at[f"block{i}.conv2"][0] for i in (1, 2, 3)] == [16, 32, 48]
assert {run.recipe.batch_size for g in small.values() for run in g} == {128}
assert {run.input_shape for g in small.values() for run in g} == {(1, 28, 28)}
assert f"{28}×{28}" == "28×28"

# %% ex-price
assert nin["block2.conv2"].output_shape == (256, 26, 26)
assert f"{26}×{26}" == "26×26"
assert nin["block2.conv2"].parameters == 65_792
assert f"{256**2 + 256:,} {9 * 256**2 + 256:,}" == "65,792 590,080"
assert 256**2 == 65_536
assert f"{26**2}" == "676"
assert nin["block2.conv2"].macs == 256**2 * 26**2
assert format_count(256**2 * 26**2) == "44.3 M"
assert format_count(9 * 256**2 * 26**2) == "399 M"
assert format_bytes(4 * 256 * 26**2) == "676 KiB"
assert (256, 26) == (256, 26)

# %% ex-batch
assert format_bytes(128 * more_kept) == "248 MiB"
assert format_bytes(more_kept) == "1.94 MiB"
assert f"{4 * more_parameters / 2**20:.2f} MiB" == "0.85 MiB"
assert f"{8 * more_parameters / 2**20:.2f} MiB" == "1.70 MiB"
assert f"{128 * more_kept / (8 * more_parameters):.0f} times" == "146 times"
assert 128 in {run.recipe.batch_size for run in compact}

# %% ex-equal
per_channel = 9 * 256 + 1 + 9 * 10
assert f"{per_channel:,} {2 * more_parameters:,}" == "2,395 446,108"
assert 2 * more_parameters // per_channel == 186
assert 384 + 186 == 570
assert nin["block3.conv1"].parameters == (9 * 256 + 1) * 384
assert (nin["block3.conv1"].output_shape[0], 256) == (384, 256)
bare = {c.name: c for c in layer_costs(networks["no 1×1 layer"])}
assert bare["classes.conv1"].parameters == (9 * 384 + 1) * 10
