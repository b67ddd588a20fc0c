# The numbers of 09_bottleneck, proved: each part runs behind the cell that it names.

# %% hidden-imports
import math
from itertools import pairwise

from ninlab.comparisons import difference, summary
from ninlab.relapses import relapse
from ninlab.units import format_shape

layers = {
    name: {cost.name: cost for cost in formulas.layer_costs(architecture(name))}
    for name in variants
}


# %% check-question
def output(name, layer):
    return format_shape(layers[name][layer].output_shape)


full_size = format_shape(architecture("nin_fixed").input_shape)
assert full_size == "1x224x224"
assert f"{architecture('nin').num_classes} classes" == "10 classes"
assert f"{224}×{224}" == "224×224"
assert output("nin_fixed", "maxpool3") == "384x5x5"
assert output("nin_fixed", "classes.conv1") == "10x5x5"
assert [layers["nin_fixed_gradual"][f"classes.conv{i}"].output_shape[0] for i in (1, 2, 3)] == [
    192,
    96,
    10,
]
assert layers["nin_fixed"]["maxpool3"].output_shape[0] == 384
assert output("nin_fixed_early_classes", "classes.conv3") == "10x12x12"

# %% check-prediction
block = {name: [layers[name][f"classes.conv{i}"] for i in (1, 2, 3)] for name in variants}
in_block = {name: sum(cost.parameters for cost in convs) for name, convs in block.items()}
assert [f"{c.parameters:,}" for c in block["nin_fixed"]] == [
    "34,570",
    "110",
    "110",
]
assert f"{in_block['nin_fixed']:,}" == "34,790"
assert 9 * 384 * 10 + 10 == 34_570
assert f"{34_570 / 34_790:.1%}" == "99.4%"
assert block["nin_fixed_gradual"][0].parameters == 9 * 384 * 192 + 192 == 663_744
assert f"{growth(parameters, 'nin_fixed_gradual'):.0%}" == "33%"
assert f"{growth(macs, 'nin_fixed_gradual'):.1%}" == "2.1%"
assert 5 * 5 == 25


def passed(*channels):
    return math.prod(a / (a + b) for a, b in pairwise(channels))


one_step, three_steps = passed(48, 10, 10, 10), passed(48, 24, 12, 10)
assert [f"{one_step:.0%}", f"{three_steps:.0%}"] == ["21%", "24%"]
assert f"{math.sqrt(three_steps / one_step) - 1:.0%}" == "8%"
assert [48 + 10, 48 + 24, 24 + 12, 12 + 10] == [58, 72, 36, 22]
at_28 = {
    cost.name: cost.output_shape[0]
    for cost in formulas.layer_costs(architecture("nin_28_gradual"))
    if cost.output_shape
}
assert at_28["maxpool3"] == 48
assert [at_28[f"classes.conv{i}"] for i in (1, 2, 3)] == [24, 12, 10]

# %% check-count
assert {rows[title]["peak"] for title in ("one step",)} == {"980 MiB"}
kept = {name: formulas.saved_bytes(architecture(name)) for name in variants}
assert format_bytes(peaks["nin_fixed_gradual"]) == "985 MiB"
assert format_bytes(peaks["nin_fixed_early_classes"]) == "987 MiB"
assert f"{growth(peaks, 'nin_fixed_gradual'):.1%}" == "0.5%"
assert f"{growth(peaks, 'nin_fixed_early_classes'):.1%}" == "0.8%"
added = parameters["nin_fixed_gradual"] - parameters["nin_fixed"]
assert f"{added:,}" == "648,452"
assert peaks["nin_fixed_gradual"] - peaks["nin_fixed"] == 8 * added
assert parameters["nin_fixed_early_classes"] == parameters["nin_fixed"]
assert f"{144 / 25:.2f} times" == "5.76 times"
assert math.isclose(
    sum(c.macs for c in block["nin_fixed_early_classes"]) / sum(c.macs for c in block["nin_fixed"]),
    144 / 25,
)
assert f"{growth(macs, 'nin_fixed_early_classes'):.1%}" == "0.5%"
assert f"{growth(kept, 'nin_fixed_early_classes'):.1%}" == "2.1%"
assert f"{growth(kept, 'nin_fixed_gradual'):.1%}" == "0.4%"
assert 12 * 12 == 144
assert compact[0].recipe.batch_size == 128
assert "equal" in counted

# %% readable-table
assert f"{len(trained)} seeds" == "5 seeds"
mean = shares["mean"]
assert f"{mean['before the step']:.1%}" == "86.0%"
assert f"{mean['behind it']:.1%}" == "85.2%"
assert f"{mean['one layer on']:.1%}" == "85.4%"
assert f"{mean['the network itself']:.1%}" == "84.6%"
lost = sorted(f["before the step"] - f["behind it"] for f in found)
assert f"{100 * sum(lost) / 5:.1f}" == "0.8"
assert f"{100 * lost[0]:.1f} {100 * lost[-1]:.1f}" == "0.5 1.3"
with torch.no_grad():
    cut, _ = stages(load_network(trained[0]), test.images[:1])
widths = {place: values.shape[1] for place, values in cut.items()}
assert list(widths.values()) == [192, 40, 40]
assert list(widths) == ["before the step", "behind it", "one layer on"]
assert f"{len(train):,} {len(test):,}" == "6,000 2,000"

# %% difference
means = [f"{summary(group).mean:.1%}" for group in small.values()]
assert means == ["83.8%", "83.3%", "73.2%"]
gradual = difference(small["three steps"], small["one step"])
early = difference(small["no third pool"], small["one step"])
assert not gradual.shown
assert not early.shown
assert str(gradual) == "-0.4 (-5.0 to +4.1)"
assert str(early) == "-10.6 (-49.9 to +28.8)"
fallen = [
    [f"{epoch.test_accuracy:.1%}" for epoch in run.epochs[-2:]] for run in small["no third pool"]
]
assert fallen[1] == ["79.8%", "54.8%"]
assert [fallen[0][1], fallen[2][1]] == ["83.6%", "81.1%"]
assert {
    (run.last.dead_classes, run.never_predicted) for group in small.values() for run in group
} == {(0, 0)}
assert [f"{len(group)} seeds" for group in small.values()] == [
    "5 seeds",
    "3 seeds",
    "3 seeds",
]
relapses = {label: [relapse(run) for run in group] for label, group in small.items()}
assert [
    f"{len(found) - found.count(None)} of {len(found)} runs" for found in relapses.values()
] == ["2 of 5 runs", "0 of 3 runs", "3 of 3 runs"]
no_pool = small["no third pool"]
assert [
    # the epoch in which each run fell back
    1 + at.step * run.recipe.epochs // run.recipe.steps
    for at, run in zip(relapses["no third pool"], no_pool, strict=True)
] == [3, 5, 4]
assert len(no_pool[0].epochs) == 5
assert f"{0.95:.0%}" == "95%"

# %% collapse-table
by_start = as_printed["as printed"]
narrowed = as_printed["in three steps"]
assert [f"{summary(g).mean:.1%}" for g in (by_start, narrowed)] == [
    "62.2%",
    "64.3%",
]
assert [len(by_start), len(narrowed)] == [5, 5]
of_five = f"{summary(narrowed).failed} of {len(narrowed)}"
assert f"{of_five} seeds" == "1 of 5 seeds"
assert f"{of_five} runs" == "1 of 5 runs"
assert summary(by_start).failed == 0
stuck = next(run for run in narrowed if run.outcome == "stuck")
assert f"{stuck.last.dead_classes} classes" == "8 classes"
assert stuck.never_predicted == 9
assert f"{stuck.last.test_accuracy:.0%}" == "10%"
assert dead(by_start) == "0 0 0 2 0"
assert lost(by_start) == "0 1 1 6 2"
assert dead(narrowed) == "8 0 0 1 0"
assert lost(narrowed) == "9 1 0 2 1"
ended_dead = max(run.last.dead_classes for run in by_start)
assert f"{ended_dead} classes" == "2 classes"
back = [bool(relapse(run)) for run in narrowed]
assert back == [False, False, False, True, False]
assert not any(map(relapse, by_start))
assert [f"{e.test_accuracy:.1%}" for e in narrowed[3].epochs[-2:]] == [
    "75.5%",
    "41.8%",
]
gap = difference(narrowed, by_start)
assert not gap.shown
assert str(gap) == "+2.1 (-25.5 to +29.7)"

# %% take-away
saved = 1 - parameters["nin_fixed"] / parameters["nin_fixed_gradual"]
assert abs(saved - 1 / 4) < 0.005
imagenet = formulas.layer_costs(architecture("nin_imagenet"))
last_block = [cost.output_shape[0] for cost in imagenet if cost.name.startswith("classes.conv")]
assert last_block == [1024, 1024, 1000]
assert [c for c in imagenet if c.name.startswith("block3.conv")][-1].output_shape[0] == 384

# %% limits
assert {r.input_shape for g in small.values() for r in g} == {(1, 28, 28)}
assert f"{28}×{28}" == "28×28"
assert {f"{len(r.epochs)} epochs" for g in small.values() for r in g} == {"5 epochs"}
assert (round(48 / 10), round(384 / 10, -1)) == (5, 40)
assert f"{384 / 10:.0f}" == "38"

# %% exercises
cheap = (384 + 1) * 192 + (192 + 1) * 96 + (96 + 1) * 10
assert cheap == 93_418
assert in_block["nin_fixed_gradual"] == 683_242

# %% ex-kept
more = kept["nin_fixed_early_classes"] - kept["nin_fixed"]
assert more == 161_200
assert 144 - 25 == 119
parts = (8 * 384 * 25, 384 * 119, 4 * 384 * 119, 2 * 4 * 10 * 119)
assert parts == (76_800, 45_696, 182_784, 9_520)
assert -parts[0] + sum(parts[1:]) == 161_200
assert f"{384 * 25:,}" == "9,600"
places, *_ = [
    line
    for line in liveness.saved_lines(architecture("nin_fixed"))
    if (line.layer, line.kind) == ("maxpool3", "pool_indices")
]
assert places.bytes_per_image == 76_800

# %% ex-seeds
spread = [f"{100 * summary(small[name]).deviation:.1f}" for name in ("one step", "three steps")]
assert spread == ["1.3", "2.2"]
needed = 1.96**2 * (1.3**2 + 2.2**2)
assert f"{needed:.1f}" == "25.1"
assert f"{math.ceil(needed)} seeds" == "26 seeds"
assert f"{0.95:.0%}" == "95%"
assert f"{1.96}" == "1.96"

# %% ex-signal
whole = [passed(384, 10, 10, 10), passed(384, 192, 96, 10)]
assert [f"{share:.0%}" for share in whole] == ["24%", "40%"]
assert f"{math.sqrt(whole[1] / whole[0]) - 1:.0%}" == "29%"
assert [384 + 10, 384 + 192, 192 + 96, 96 + 10] == [394, 576, 288, 106]
