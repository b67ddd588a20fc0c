# The numbers of 05_how_many_1x1, proved: each part runs behind the cell that it names.

# %% designs
import math
from itertools import pairwise
from math import comb, isclose

from ninlab.answers import answer
from ninlab.comparisons import (
    CONFIDENCE,
    confidence_of_each,
    confidence_of_rows,
    difference,
    equivalence,
    interaction,
    summary,
    train_loss,
)
from ninlab.decisions import MARGIN as EQUAL_WITHIN
from ninlab.devices import device
from ninlab.formulas import layer_costs
from ninlab.layers import Conv
from ninlab.relapses import relapse, relapsed
from ninlab.roofline import training_bound
from ninlab.shapes import placed_layers, receptive_field
from ninlab.units import format_bytes, format_count, format_shape

networks = {label: architecture(name) for label, name in designs.items()}


# %% prediction
nin = {cost.name: cost for cost in layer_costs(networks["two 1×1 layers (NiN)"])}
for part in ("block1", "block2", "block3"):
    assert len({nin[f"{part}.conv{i}"].output_shape for i in (1, 2, 3)}) == 1
assert f"{nin['block3.conv2'].parameters:,}" == "147,840"
assert nin["block3.conv2"].output_shape[0] == 384
assert format_shape(architecture("nin_fixed").input_shape) == "1x224x224"


# %% fig-costs
costs = pd.DataFrame({label: counts(label) for label in designs}).T.astype(int)
usual = "two 1×1 layers (NiN)"
depths = ["no 1×1 layer", "one 1×1 layer", usual, "three 1×1 layers"]
assert [f"{part:.0%}" for part in share] == ["22%", "24%", "53%"]
steps = {
    what: {costs[what][b] - costs[what][a] for a, b in pairwise(depths)} for what in costs.columns
}
assert all(len(step) == 1 for step in steps.values())
(more_parameters,), (more_macs,), (more_kept,) = steps.values()
assert f"{more_parameters:,}" == "223,054"
assert format_count(more_macs) == "92.4 M"
assert format_bytes(more_kept) == "1.94 MiB"
wider_by = costs.loc["two layers of 3×3"] / costs.loc[usual]
assert f"{wider_by['parameters']:.1f} times" == "2.8 times"
assert f"{wider_by['MACs']:.1f} times" == "2.9 times"
assert wider_by["kept bytes"] == 1

# %% count-text
depth = [
    sum(isinstance(at.layer, Conv) for at in placed_layers(network))
    for network in networks.values()
]
assert depth == [12, 4, 8, 16, 12]
assert max(depth) == 16

# %% field
fields = {label: side_seen(name) for label, name in designs.items()}
one_sides = {fields[label] for label in depths}
assert len(one_sides) == 1
assert one_sides == {195}
assert receptive_field(networks["no 1×1 layer"]) == 195
assert 0.9 * 224 < fields["two layers of 3×3"] <= 224

# %% times-text
h100 = device("h100")
least = {
    label: training_bound(network, 128, h100, precision="bf16")
    for label, network in networks.items()
}
none_least, two_least = least["no 1×1 layer"], least[usual]
waiting = two_least.memory_bound_seconds - none_least.memory_bound_seconds
wide_least = least["two layers of 3×3"].seconds / two_least.seconds
added = costs["MACs"][usual] / costs["MACs"]["no 1×1 layer"] - 1
assert f"{added:.0%}" == "32%"
assert f"{1e3 * none_least.seconds:.2f} ms" == "0.86 ms"
assert f"{1e3 * two_least.seconds:.2f} ms" == "1.72 ms"
assert f"{two_least.seconds / none_least.seconds:.2f}" == "2.00"
assert isclose(two_least.seconds - none_least.seconds, waiting)
assert f"{wide_least:.1f} times" == "1.5 times"

# %% table
nin_runs = small[usual]
ends = {label: summary(group) for label, group in small.items()}
at_once = confidence_of_rows(small, small_normalized)
apart = {
    label: difference(group, nin_runs, at_once)
    for label, group in small.items()
    if group is not nin_runs
}
assert str(apart["no 1×1 layer"]) == "+2.5 (-0.3 to +5.4)"
assert apart["one 1×1 layer"].mean > 0
assert apart["two layers of 3×3"].mean > 0
assert [label for label, d in apart.items() if d.shown] == ["no 1×1 layer, rate 0.2"]
deepest = sorted(run.last.test_accuracy for run in small["three 1×1 layers"])
assert deepest[-1] < ends[usual].least
assert comb(len(deepest) + len(nin_runs), len(deepest)) == 56
assert f"{len(deepest)} runs below all {len(nin_runs)} runs" == "3 runs below all 5 runs"
assert all(end.failed == 0 for end in ends.values())
assert max(ends, key=lambda label: ends[label].mean) == "no 1×1 layer, rate 0.2"
assert max(depths, key=lambda label: ends[label].mean) == "no 1×1 layer"
assert {f"{len(run.epochs)} epochs" for g in small.values() for run in g} == {"5 epochs"}
assert f"{CONFIDENCE:.0%}" == "95%"
vgg13, vgg16 = (
    [layer.kernel_size for _, layer in architecture(name).named_leaves() if isinstance(layer, Conv)]
    for name in ("vgg13", "vgg16")
)
assert (len(vgg16) - len(vgg13), {*vgg13, *vgg16}) == (3, {3})

# %% fig-curves
losses = [f"{train_loss(small[label], 0):.2f}" for label in by_depth]
assert losses == ["0.86", "1.18", "1.61", "1.81"]
at_first, at_last = ([train_loss(small[n], epoch) for n in by_depth[:3]] for epoch in (0, -1))
assert at_last == sorted(at_last)
assert at_last[-1] - at_last[0] < at_first[-1] - at_first[0]
relapses = {
    label: f"{relapsed(group)} of {len(group)} runs"
    for label, group in small.items()
    if relapsed(group)
}
assert list(relapses) == [usual, "three 1×1 layers"]
assert list(relapses.values()) == ["2 of 5 runs", "3 of 3 runs"]

# %% fig-rates
own = answer("own_rate", compact).runs
best = {n: own[n][0].recipe.learning_rate for n in tried}
assert best == {
    "nin_28_no_1x1": 0.2,
    "nin_28": 0.1,
    "nin_28_three_1x1": 0.1,
}
at_rate = {n: {run.recipe.learning_rate: run for run in swept if run.network == n} for n in tried}
for rate in (0.025, 0.05, 0.1, 0.2):
    accuracies = [group[rate].last.test_accuracy for group in at_rate.values()]
    assert max(accuracies) == accuracies[0]
doubled = [group[0.2] for group in at_rate.values()]
assert [run.outcome.value for run in doubled] == [
    "finished",
    "finished",
    "stuck",
]
assert {f"{run.data_set.evaluation_images:,}" for run in swept} == {"5,000"}
assert {run.data_set.train_images + run.data_set.evaluation_images for run in swept} == {60_000}
assert {f"{run.recipe.epochs} epochs" for run in swept} == {"2 epochs"}
fell_at = {n: [rate for rate, run in group.items() if relapse(run)] for n, group in at_rate.items()}
assert fell_at["nin_28_no_1x1"] == []
assert f"{sorted(fell_at['nin_28'])}" == "[0.025, 0.05, 0.1]"
repeated = zip(
    [*own["nin_28"], *own["nin_28_three_1x1"]],
    [*nin_runs[:3], *small["three 1×1 layers"]],
    strict=True,
)
assert all(again.loss == run.loss for again, run in repeated)
assert {f"{len(own[n])} seeds" for n in tried} == {"3 seeds"}
assert str(apart["no 1×1 layer, rate 0.2"]) == "+3.4 (+0.5 to +6.3)"
for confidence in (CONFIDENCE, at_once):  # of the runs that held
    of_held = equivalence(small["no 1×1 layer, rate 0.2"], nin_runs, confidence=confidence)
    assert of_held.verdict == "not shown"

# %% normalized-text
two_so, none_so, one_so = small_normalized.values()
means = [summary(group).mean for group in small_normalized.values()]
assert max(means) - min(means) < 0.01
for group in (two_so, none_so, one_so):
    assert {run.recipe for run in group} == {run.recipe for run in nin_runs}
    assert len(group) == 3
for ours, theirs in ((none_so, two_so), (one_so, two_so), (one_so, none_so)):
    between = difference(ours, theirs, at_once)
    assert not between.shown
    assert between.high - between.low > 2 * EQUAL_WITHIN
none_plain = small["no 1×1 layer"]
assert str(difference(none_so, none_plain, confidence_of_each(2))) == "+1.1 (+0.3 to +2.0)"
assert str(difference(two_so, nin_runs, confidence_of_each(2))) == "+3.6 (+1.6 to +5.6)"
assert not interaction(both=none_so, first=none_plain, second=two_so, neither=nin_runs).shown
by_epoch = {
    epoch: [f"{train_loss(group, epoch):.2f}" for group in (none_so, one_so, two_so)]
    for epoch in (0, -1)
}
assert by_epoch[0] == sorted(by_epoch[0])
assert by_epoch[-1] != sorted(by_epoch[-1])
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
(image,) = {run.input_shape for g in small.values() for run in g}
assert "{1}×{2}".format(*image) == "28×28"

# %% ex-price
assert nin["block2.conv2"].output_shape == (256, 26, 26)
assert "{1}×{2}".format(*nin["block2.conv2"].output_shape) == "26×26"
assert nin["block2.conv2"].parameters == 65_792
of_3x3 = {cost.name: cost for cost in layer_costs(architecture("nin_fixed_3x3"))}
assert of_3x3["block2.conv2"].parameters == 590_080
assert nin["block2.conv2"].parameters - 256 == 65_536
assert f"{math.prod(nin['block2.conv2'].output_shape[1:])}" == "676"
assert nin["block2.conv2"].macs == 256**2 * 26**2
assert format_count(nin["block2.conv2"].macs) == "44.3 M"
assert of_3x3["block2.conv2"].macs == 9 * nin["block2.conv2"].macs
assert format_count(of_3x3["block2.conv2"].macs) == "399 M"
assert nin["block2.relu2"].saved_bytes == of_3x3["block2.relu2"].saved_bytes
assert format_bytes(nin["block2.relu2"].saved_bytes) == "676 KiB"

# %% ex-batch
assert format_bytes(128 * more_kept) == "248 MiB"
assert format_bytes(more_kept) == "1.94 MiB"
assert f"{4 * more_parameters / 2**20:.2f} MiB" == "0.85 MiB"
assert f"{8 * more_parameters / 2**20:.2f} MiB" == "1.70 MiB"
assert f"{128 * more_kept / (8 * more_parameters):.0f} times" == "146 times"
assert 128 in {run.recipe.batch_size for run in compact}

# %% ex-equal
bare = {c.name: c for c in layer_costs(networks["no 1×1 layer"])}
third, fourth = nin["block3.conv1"], bare["classes.conv1"]
of_its_own = third.parameters // third.output_shape[0]
in_the_next = (fourth.parameters - fourth.output_shape[0]) // third.output_shape[0]
per_channel = of_its_own + in_the_next
assert f"{per_channel:,} {2 * more_parameters:,}" == "2,395 446,108"
assert 2 * more_parameters // per_channel == 186
assert third.output_shape[0] + 186 == 570
assert (of_its_own, in_the_next) == (9 * 256 + 1, 9 * 10)
assert (third.output_shape[0], nin["block2.conv3"].output_shape[0]) == (384, 256)
