# The numbers of 05_how_many_1x1, proved: each part runs behind the cell that it names.

# %% designs
import math
from itertools import pairwise
from math import isclose

from ninlab.answers import answer
from ninlab.comparisons import (
    CONFIDENCE,
    confidence_of_each,
    confidence_of_rows,
    difference,
    interaction,
    share_of_failures,
    shares_differ,
    summary,
    train_loss,
)
from ninlab.decisions import MARGIN as EQUAL_WITHIN
from ninlab.devices import device
from ninlab.formulas import layer_costs
from ninlab.layers import Conv
from ninlab.relapses import failed, relapse
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
at_once = confidence_of_rows(small)
apart = {
    label: difference(group, nin_runs, at_once)
    for label, group in small.items()
    if group is not nin_runs
}
fewer = ("no 1×1 layer", "one 1×1 layer", "two layers of 3×3")
assert [f"{100 * apart[label].mean:.1f}" for label in fewer] == ["2.2", "1.4", "2.4"]
assert all(apart[label].verdict == "a gain" for label in fewer)
assert [label for label, d in apart.items() if not d.shown] == ["three 1×1 layers"]
at_one_rate = {label: group for label, group in small.items() if "rate" not in label}
fails = {label: share_of_failures(group) for label, group in at_one_rate.items()}
assert {label: one.count for label, one in fails.items() if one.count} == {
    usual: 9,
    "one 1×1 layer": 2,
    "three 1×1 layers": 15,
}
in_words_of = [f"{one.count} of {one.of} runs" for one in fails.values() if one.count]
assert in_words_of == ["9 of 20 runs", "2 of 20 runs", "15 of 20 runs"]
assert {f"{one.of} runs" for one in fails.values()} == {"20 runs"}
tests = {label: shares_differ(one, fails[usual]) for label, one in fails.items() if label != usual}
assert f"{len(tests)} times" == "4 times"
assert [label for label, p in tests.items() if p < (1 - CONFIDENCE) / len(tests)] == [
    label for label, one in fails.items() if not one.count
]
assert {f"{run.recipe.epochs} epochs" for g in small.values() for run in g} == {"5 epochs"}
assert f"{CONFIDENCE:.0%}" == "95%"
vgg13, vgg16 = (
    [layer.kernel_size for _, layer in architecture(name).named_leaves() if isinstance(layer, Conv)]
    for name in ("vgg13", "vgg16")
)
assert (len(vgg16) - len(vgg13), {*vgg13, *vgg16}) == (3, {3})

# %% fig-curves
losses = [f"{train_loss(small[label], 0):.2f}" for label in by_depth]
assert [losses[0], losses[-1]] == ["0.87", "1.85"]
assert losses == sorted(losses)
at_first, at_last = ([train_loss(small[n], epoch) for n in by_depth] for epoch in (0, -1))
assert at_last == sorted(at_last)
assert at_last[-1] - at_last[0] < at_first[-1] - at_first[0]

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
    [*nin_runs[:3], *small["three 1×1 layers"][:3]],
    strict=True,
)
assert all(again.loss == run.loss for again, run in repeated)
assert f"{len(small['no 1×1 layer, rate 0.2'])} runs" == "20 runs"
assert str(apart["no 1×1 layer, rate 0.2"]) == "+3.2 (+2.2 to +4.2)"

# %% normalized-text
two_so, none_so, one_so, three_so = small_normalized.values()
means = [summary(group).mean for group in small_normalized.values()]
assert max(means) - min(means) < 0.01
for group in small_normalized.values():
    assert {run.recipe for run in group} == {run.recipe for run in nin_runs}
assert {f"{len(group)} seeds" for group in small_normalized.values()} == {"12 seeds"}
of_kind = [
    difference(group, two_so, confidence_of_rows(small_normalized)).verdict_within(EQUAL_WITHIN)
    for group in (none_so, one_so, three_so)
]
assert set(of_kind) == {"equal"}
none_plain = small["no 1×1 layer"]
assert str(difference(none_so, none_plain, confidence_of_each(2))) == "+1.1 (+0.7 to +1.5)"
assert str(difference(two_so, nin_runs, confidence_of_each(2))) == "+3.5 (+2.6 to +4.5)"
together = interaction(both=two_so, first=nin_runs, second=none_so, neither=none_plain)
assert str(together) == "+2.4 (+1.6 to +3.3)"
assert abs(apart["no 1×1 layer"].mean - together.mean) < 0.003
by_epoch = {
    epoch: [f"{train_loss(g, epoch):.2f}" for g in (none_so, one_so, two_so, three_so)]
    for epoch in (0, -1)
}
assert by_epoch[0] == sorted(by_epoch[0])
assert by_epoch[-1] != sorted(by_epoch[-1])
for group in small_normalized.values():
    assert all(run.last.dead_classes == 0 for run in group)
    assert not any(run.never_predicted or failed(run) for run in group)

# %% better-text
of_better = {
    label: difference(group, small_better[usual], confidence_of_rows(small_better))
    for label, group in small_better.items()
    if label != usual
}
wider = of_better.pop("two layers of 3×3")
assert str(wider) == "+1.0 (+0.6 to +1.3)"
assert wider.verdict_within(EQUAL_WITHIN) == "a gain"
of_small = [small_better[label][0].parameters for label in ("two layers of 3×3", usual)]
assert f"{of_small[0] / of_small[1]:.1f} times" == "2.5 times"
assert {apart.verdict_within(EQUAL_WITHIN) for apart in of_better.values()} == {"equal"}
assert str(of_better["no 1×1 layer"]) == "-0.5 (-0.8 to -0.1)"
by_recipe = interaction(
    both=small_better[usual],
    first=nin_runs,
    second=small_better["no 1×1 layer"],
    neither=none_plain,
)
assert str(by_recipe) == "+2.7 (+2.0 to +3.4)"
assert not any(failed(run) for group in small_better.values() for run in group)
(of_better_recipe,) = {run.recipe for group in small_better.values() for run in group}
assert of_better_recipe.momentum
assert of_better_recipe.weight_decay
assert (of_better_recipe.schedule, of_better_recipe.augmentation) == ("one_cycle", "flip")
assert f"{of_better_recipe.epochs} epochs" == "5 epochs"

# %% conclusion
assert apart["two layers of 3×3"].mean > 2 * EQUAL_WITHIN
assert abs(wider.mean - EQUAL_WITHIN) < 0.001

# %% limits
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
