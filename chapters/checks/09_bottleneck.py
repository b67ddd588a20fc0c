# The numbers of 09_bottleneck, proved: each part runs behind the cell that it names.

# %% networks
import math
from itertools import pairwise
from statistics import NormalDist

from scipy import stats

from ninlab.architectures import architecture
from ninlab.comparisons import (
    CONFIDENCE,
    MARGIN,
    confidence_of_rows,
    difference,
    share_of_failures,
    shares_differ,
    summary,
)
from ninlab.experiments.plans import WIDE_PILOT
from ninlab.power import smallest_shown
from ninlab.relapses import relapsed
from ninlab.shapes import placed_layers
from ninlab.units import format_shape

layers = {
    title: {cost.name: cost for cost in formulas.layer_costs(network)}
    for title, network in networks.items()
}


def output(title, layer):
    return format_shape(layers[title][layer].output_shape)


full_size = format_shape(architecture("nin_fixed").input_shape)
assert full_size == "1x224x224"
assert f"{architecture('nin').num_classes} classes" == "10 classes"
assert networks["one step"] is architecture("nin_fixed")
assert output("one step", "maxpool3") == "384x5x5"
assert output("one step", "classes.conv1") == "10x5x5"
assert [layers["three steps"][f"classes.conv{i}"].output_shape[0] for i in (1, 2, 3)] == [
    192,
    96,
    10,
]
assert layers["one step"]["maxpool3"].output_shape[0] == 384
assert output("no third pool", "classes.conv3") == "10x12x12"

# %% count-table
block = {title: [rows[f"classes.conv{i}"] for i in (1, 2, 3)] for title, rows in layers.items()}
in_block = {title: sum(cost.parameters for cost in convs) for title, convs in block.items()}
assert [f"{c.parameters:,}" for c in block["one step"]] == ["34,570", "110", "110"]
assert f"{in_block['one step']:,}" == "34,790"
assert f"{block['one step'][0].parameters / in_block['one step']:.1%}" == "99.4%"
assert block["three steps"][0].parameters == 9 * 384 * 192 + 192 == 663_744
assert [rows["classes.conv1"].output_shape[-1] ** 2 for rows in layers.values()] == [25, 25, 144]


def passed(*channels):
    return math.prod(a / (a + b) for a, b in pairwise(channels))


at_28 = {
    title: [
        cost.output_shape[0]
        for cost in formulas.layer_costs(variant_of("nin_28", variant))
        if cost.name == "maxpool3" or cost.name.startswith("classes.conv")
    ]
    for variant, title in remedies.items()
}
assert at_28["one step"] == [48, 10, 10, 10]
assert at_28["three steps"] == [48, 24, 12, 10]
one_step, three_steps = passed(*at_28["one step"]), passed(*at_28["three steps"])
assert [f"{one_step:.0%}", f"{three_steps:.0%}"] == ["21%", "24%"]
assert f"{math.sqrt(three_steps / one_step) - 1:.0%}" == "8%"
assert [a + b for a, b in pairwise(at_28["three steps"])] == [72, 36, 22]
assert sum(at_28["one step"][:2]) == 58
assert compact[0].recipe.batch_size == 128
assert costs["peak"].diff()["three steps"] == 8 * costs["parameters"].diff()["three steps"]
assert f"{costs['parameters'].diff()['three steps']:,.0f}" == "648,452"
assert costs["parameters"]["no third pool"] == costs["parameters"]["one step"]

# %% growth
assert f"{growth['parameters']['three steps']:.0%}" == "33%"
assert f"{growth['MACs']['three steps']:.1%}" == "2.1%"
assert f"{growth['MACs']['no third pool']:.1%}" == "0.5%"
assert (growth.loc["no third pool", ["kept", "peak"]] > 0).all()

# %% fig-bottleneck-costs
assert "equal" in provenance

# %% readable-table
assert f"{len(trained)} seeds" == "5 seeds"
mean = shares["mean"]
assert f"{mean['before the step']:.1%}" == "85.2%"
assert f"{mean['behind it']:.1%}" == "84.5%"
assert mean["behind it"] > mean["the network itself"]
lost_there = sorted(f["before the step"] - f["behind it"] for f in found)
assert f"{100 * lost_there[0]:.1f} {100 * lost_there[-1]:.1f}" == "0.1 1.1"
assert [called[place.name] for place in read] == ["before the step", "behind it", "one layer on"]
assert [place.values for place in read] == [192, 40, 40]
assert f"{len(fitted):,}" == "6,000"

# %% difference
at_once = confidence_of_rows(small)
gradual, early = (
    difference(small[remedy], small["one step"], at_once)
    for remedy in ("three steps", "no third pool")
)
assert str(gradual) == "+0.4 (-0.7 to +1.4)"
assert str(early) == "+0.1 (-1.1 to +1.2)"
assert gradual.verdict_within(MARGIN) == early.verdict_within(MARGIN) == "not shown"
assert gradual.high < 0.02  # "a gain of two points is ruled out"
means = [summary(group).mean for group in small.values()]
assert max(means) - min(means) < MARGIN
fails = {label: share_of_failures(group) for label, group in small.items()}
assert [f"{one.count} runs" for one in fails.values()] == ["9 runs", "4 runs", "13 runs"]
assert {f"{one.of} runs" for one in fails.values()} == {"20 runs"}
how = [relapsed(group) for group in small.values()]
assert sum(how) > 0.9 * sum(one.count for one in fails.values())
for remedy in ("three steps", "no third pool"):
    assert shares_differ(fails[remedy], fails["one step"]) > 1 - CONFIDENCE
assert all(run.last.dead_classes == 0 for group in small.values() for run in group)
assert f"{CONFIDENCE:.0%}" == "95%"

# %% better-text
of_better = {
    label: difference(group, small_better["one step"], confidence_of_rows(small_better))
    for label, group in small_better.items()
    if label != "one step"
}
assert {apart.verdict_within(MARGIN) for apart in of_better.values()} == {"equal"}
assert str(of_better["three steps"]) == "+0.0 (-0.3 to +0.3)"
assert {f"{len(group)} seeds" for group in small_better.values()} == {"10 seeds"}
assert not any(share_of_failures(group).count for group in small_better.values())
(by_better,) = {run.recipe for group in small_better.values() for run in group}
assert by_better.momentum
assert by_better.weight_decay
assert (by_better.schedule, by_better.augmentation) == ("one_cycle", "flip")

# %% fig-wide
assert list(wide) == list(improved) == list(remedies.values())
widths = {layer.name: layer.output_shape[0] for layer in placed_layers(architecture("nin_28_wide"))}
assert [widths[f"block{i}.conv3"] for i in (1, 2, 3)] == [96, 256, 384]
assert widths["classes.conv1"] == 10
everyone = [run for groups in (wide, wide_better) for group in groups.values() for run in group]
assert {f"{run.data_set.train_images:,}" for run in everyone} == {"20,000"}
(by_better,) = {run.recipe for group in wide_better.values() for run in group}
assert f"{by_better.learning_rate}" == "0.05"

# %% wide-text
endings = {of: {run.seed: run.last.test_accuracy for run in group} for of, group in wide.items()}
in_one, in_three = endings["one step"], endings["three steps"]
assert [f"{min(in_three.values()):.1%}", f"{max(in_one.values()):.1%}"] == ["78.0%", "76.7%"]
without = {of: share(run.never_predicted > 0 for run in group) for of, group in wide.items()}
assert f"{without['one step'].count} of {without['one step'].of} runs" == "10 of 12 runs"
assert (without["three steps"].count, without["three steps"].of) == (0, 12)
fresh = {of: [run for run in group if run.seed >= WIDE_PILOT] for of, group in wide.items()}
fresh_fails = {of: share_of_failures(group) for of, group in fresh.items()}
assert f"{WIDE_PILOT} seeds" == "5 seeds"
assert [f"{one.count} of {one.of} runs" for one in fresh_fails.values()] == [
    "3 of 7 runs",
    "1 of 7 runs",
    "3 of 7 runs",
]
for remedy in ("three steps", "no third pool"):
    assert shares_differ(fresh_fails[remedy], fresh_fails["one step"]) > (1 - CONFIDENCE) / 2
fresh_in_one, fresh_in_three = (
    [run.last.test_accuracy for run in fresh[of]] for of in ("one step", "three steps")
)
assert min(fresh_in_three) > max(fresh_in_one)
by_luck = 2 / math.comb(len(fresh_in_one) + len(fresh_in_three), len(fresh_in_one))
assert by_luck < 1 / 1000
two_designs = [*endings["no third pool"].values()], [*in_one.values()]
assert stats.mannwhitneyu(*two_designs).pvalue > 1 - CONFIDENCE
for remedy in ("three steps", "no third pool"):
    assert not difference(wide[remedy], wide["one step"], confidence_of_rows(wide)).shown
assert not any(share_of_failures(group).count for group in wide_better.values())
of_wide = {
    remedy: difference(improved[remedy], improved["one step"], confidence_of_rows(improved))
    for remedy in ("three steps", "no third pool")
}
assert {apart.verdict_within(MARGIN) for apart in of_wide.values()} == {"equal"}
assert str(of_wide["three steps"]) == "+0.3 (+0.0 to +0.7)"
assert of_wide["three steps"].low < 0

# %% collapse-table
by_start = small_printed["as printed"]
narrowed = small_printed["in three steps"]
with_dead = [sum(run.last.dead_classes > 0 for run in group) for group in (by_start, narrowed)]
assert with_dead[0] == with_dead[1]
assert f"{with_dead[0]} of {len(by_start)} runs" == "9 of 20 runs"
assert len(narrowed) == len(by_start)
gap = difference(narrowed, by_start)
assert not gap.shown
assert str(gap) == "+4.4 (-6.6 to +15.4)"

# %% take-away
saved = 1 - costs["parameters"]["one step"] / costs["parameters"]["three steps"]
assert abs(saved - 1 / 4) < 0.005
imagenet = formulas.layer_costs(architecture("nin_imagenet"))
last_block = [cost.output_shape[0] for cost in imagenet if cost.name.startswith("classes.conv")]
assert last_block == [1024, 1024, 1000]
assert [c for c in imagenet if c.name.startswith("block3.conv")][-1].output_shape[0] == 384

# %% limits
assert {format_shape(r.input_shape) for g in small.values() for r in g} == {"1x28x28"}
assert {f"{r.recipe.epochs} epochs" for g in small.values() for r in g} == {"5 epochs"}
in_full = {
    title: [cost.output_shape[0] for cost in (rows["block3.conv3"], *block[title])]
    for title, rows in layers.items()
}

# %% exercises
added = costs["kept"]["no third pool"] - costs["kept"]["one step"]
assert added == 161_200
before_pool, behind_pool = (
    math.prod(at.output_shape[1:])
    for at in placed_layers(architecture("nin_fixed"))
    if at.name in ("block3.conv3", "maxpool3")
)
more_pixels = before_pool - behind_pool
assert more_pixels == 119
channels, num_classes, *_ = in_full["no third pool"]
in_mask, in_results = channels * more_pixels, 2 * 4 * num_classes * more_pixels
of_places = 8 * channels * behind_pool
assert (in_mask, 4 * in_mask, in_results, of_places) == (45_696, 182_784, 9_520, 76_800)
assert in_mask + 4 * in_mask + in_results - of_places == added
assert f"{channels * behind_pool:,}" == "9,600"
places, *_ = [
    line
    for line in liveness.saved_lines(architecture("nin_fixed"))
    if (line.layer, line.kind) == ("maxpool3", "pool_indices")
]
assert places.bytes_per_image == of_places

# %% ex-seeds
spread = [f"{100 * summary(small[name]).deviation:.1f}" for name in ("one step", "three steps")]
assert spread == ["1.0", "1.3"]
width = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
assert f"{width:.2f}" == "1.96"
needed = round(width, 2) ** 2 * sum(float(points) ** 2 for points in spread)
assert f"{needed:.1f}" == "10.3"
assert f"{math.ceil(needed)} seeds" == "11 seeds"
typical = math.hypot(*map(float, spread)) / math.sqrt(2) / 100  # of two equal groups
assert abs(smallest_shown(typical, 11, 11, power=0.5) / 0.01 - 1) < 0.1
shows = next(n for n in range(2, 200) if smallest_shown(typical, n, n, power=0.9) <= 0.01)
assert f"{round(shows, -1)} seeds" == "30 seeds"

# %% ex-signal
step, steps = in_full["one step"], in_full["three steps"]
assert [step, steps] == [[384, 10, 10, 10], [384, 192, 96, 10]]
whole = [passed(*step), passed(*steps)]
assert [f"{share:.0%}" for share in whole] == ["24%", "40%"]
assert f"{math.sqrt(whole[1] / whole[0]) - 1:.0%}" == "29%"
assert [a + b for a, b in pairwise(steps)] == [576, 288, 106]
assert sum(step[:2]) == 394
