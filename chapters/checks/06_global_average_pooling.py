# The numbers of 06_global_average_pooling, proved: each part runs behind the cell that it names.

# %% setup
import math

from scipy import stats

from ninlab.answers import answer
from ninlab.comparisons import (
    CONFIDENCE,
    MARGIN,
    confidence_of_rows,
    difference,
    failures,
    gap_difference,
    interaction,
    share_of_failures,
    shares_differ,
)
from ninlab.layers import Dropout
from ninlab.relapses import held
from ninlab.shapes import at_input, placed_layers
from ninlab.units import format_count, format_shape

# %% rivals
linear_head = {at.name: at for at in placed_layers(architecture("nin_fixed_linear_head"))}
assert linear_head["head.linear1"].input_shape[0] == 250
assert linear_head["head.linear1"].output_shape[0] == 10
wide = {at.name: at for at in placed_layers(architecture("nin_fixed_fully_connected"))}
assert wide["head.linear1"].output_shape[0] == 4096

# %% prediction
average, linear, connected = heads.values()
parameters = {name: formulas.parameters(architecture(name)) for name in heads.values()}
macs = {name: formulas.macs(architecture(name)) for name in heads.values()}
added = parameters[linear] - parameters[average]
assert added == 2_510
assert wide["head.linear1"].input_shape[0] == 9_600
head = sum(
    cost.parameters
    for cost in formulas.layer_costs(architecture(connected))
    if cost.name.startswith("head")
)
assert format_count(head) == "56.1 M"
assert format_count(parameters[connected]) == "58.1 M"
assert format_count(parameters[average]) == "1.99 M"
assert f"{parameters[connected] / parameters[average]:.0f} times" == "29 times"
strides = [
    at.layer.stride for at in placed_layers(architecture("nin_28")) if hasattr(at.layer, "stride")
]
assert math.prod(strides) == 16

# %% fig-average-costs
assert compact[0].recipe.batch_size == 128
extra = [
    formulas.saved_bytes(architecture(n)) - formulas.saved_bytes(architecture(average))
    for n in (linear, connected)
]
assert extra[0] == 1_000
assert f"{macs[connected] / macs[average] - 1:.1%}" == "7.3%"
peaks = {
    name: liveness.peak_bytes(liveness.timeline(architecture(name)), 128) for name in heads.values()
}
for of, peak in peaks.items():
    assert peak == profile(of, batch_size=128).training.tensor_peak_bytes
assert f"{peaks[connected] / peaks[average] - 1:.0%}" == "44%"
assert format_bytes(4 * parameters[connected]) == "222 MiB"
assert format_bytes(4 * parameters[average]) == "7.60 MiB"

# %% as-linear
assert apart.abs().max() < 1e-4
assert f"{len(test):,}" == "1,000"

# %% difference
own_row = "AlexNet's head, rate 0.025"
own, common = small[own_row], small["AlexNet's head"]
at_once = confidence_of_rows(small)
by_matrix = difference(small["linear layer"], small["average"], at_once)
by_alexnet = difference(own, small["average"], at_once)
compared = [label for label, group in small.items() if len(held(group)) > 1]
assert compared == ["average", "linear layer", own_row]
assert str(by_matrix) == "+0.8 (-0.3 to +2.0)"
assert not by_matrix.shown
assert by_matrix.verdict_within(MARGIN) == "not shown"
assert by_matrix.low > -0.005
assert str(by_alexnet) == "-2.9 (-4.5 to -1.3)"
assert by_alexnet.verdict_within(MARGIN) == "a loss"
fails = {label: share_of_failures(group) for label, group in small.items()}
assert [f"{one.count} of {one.of} runs" for one in fails.values()] == [
    "9 of 20 runs",
    "6 of 20 runs",
    "19 of 20 runs",
    "0 of 20 runs",
]
assert shares_differ(fails[own_row], fails["average"]) < 0.01
assert failures(common) == "1 diverged, 8 relapsed, 10 stuck"
assert shares_differ(fails["linear layer"], fails["average"]) > 0.2
assert shares_differ(fails["AlexNet's head"], fails["average"]) < 0.01
assert max(fails, key=lambda label: fails[label].count / fails[label].of) == "AlexNet's head"
rates = {run.recipe.learning_rate for run in (*common, *own)}
assert sorted(f"{rate:g}" for rate in rates) == ["0.025", "0.1"]
everyone = [run for group in small.values() for run in group]
assert {f"{run.recipe.epochs} epochs" for run in everyone} == {"5 epochs"}
overfits = gap_difference(small["linear layer"], small["average"])
assert str(overfits) == "+0.3 (-0.5 to +1.1)"
assert not overfits.shown
assert str(gap_difference(own, small["average"])) == "-1.8 (-2.6 to -0.9)"
dropped = [
    sum(isinstance(layer, Dropout) for _, layer in network.named_leaves())
    for network in map(architecture, ("nin_28_fully_connected", "nin_28"))
]
assert dropped == [3, 1]
assert all(abs(gap) < 0.02 for label in ("average", "linear layer") for gap in gaps(small[label]))
at_own = answer("own_rate", compact).runs
for own_label, own_name in (("average", "nin_28"), ("linear layer", "nin_28_linear_head")):
    loss_of = {run.seed: run.loss for run in small[own_label]}
    assert all(run.loss == loss_of[run.seed] for run in at_own[own_name])
assert f"{CONFIDENCE:.0%}" == "95%"

# %% better-text
at_once = confidence_of_rows(small_better)
by_matrix, by_alexnet = (
    difference(small_better[label], small_better["average"], at_once)
    for label in ("linear layer", "AlexNet's head")
)
assert by_matrix.verdict_within(MARGIN) == "equal"
assert str(by_alexnet) == "-0.7 (-1.1 to -0.3)"
assert by_alexnet.verdict_within(MARGIN) == "a loss"
assert {f"{len(group)} seeds" for group in small_better.values()} == {"10 seeds"}
assert not any(share_of_failures(group).count for group in small_better.values())
assert all(abs(gap) < MARGIN for group in small_better.values() for gap in gaps(group))

# %% square-text
usual_runs, bare, connected_runs, both = answer("one_by_one_and_head", compact).runs.values()
assert not share_of_failures([*bare, *both]).count
assert str(difference(bare, both)) == "+1.7 (+1.0 to +2.4)"
usual_runs, bare, connected_runs, both = answer(
    "one_by_one_and_head_improved", compact
).runs.values()
assert str(difference(bare, both)) == "+0.8 (+0.6 to +1.0)"
together = interaction(both=both, first=connected_runs, second=bare, neither=usual_runs)
assert str(together) == "-0.1 (-0.5 to +0.3)"
assert together.verdict_within(MARGIN) == "equal"

# %% step-times
raced = compact_race.ratio("nin_28_fully_connected", "nin_28").median
assert f"{raced:.1f} times" == "2.4 times"
raced = race.ratio(connected, average).median
assert f"{raced:.1f} times" == "1.3 times"
for beside_average in (
    *(race.ratio(heads["linear layer"], average, kind) for kind in Step),
    compact_race.ratio("nin_28_linear_head", "nin_28"),
):
    assert beside_average.low < 1 < beside_average.high
assert (race.batch_size, compact_race.batch_size) == (32, 128)
assert {format_shape(lane.input_shape) for lane in race.lanes} == {"1x224x224"}
by_compact = formulas.macs(architecture("nin_28_fully_connected"))
by_compact /= formulas.macs(architecture("nin_28"))
assert f"{by_compact:.1f} times" == "2.0 times"
at_least = [
    training_bound(architecture(name), 128, device("h100"), precision="bf16")
    for name in (average, connected)
]
short, long = at_least
assert f"{long.seconds / short.seconds - 1:.0%}" == "30%"
assert math.isclose(
    long.seconds - short.seconds,
    long.memory_bound_seconds - short.memory_bound_seconds,
)

# %% fig-average-shifts
share = {k: (frame.sum(axis=1) / 6000).tolist() for k, frame in hits.items()}
assert f"{len(test):,}" == "1,000"
assert [f"{share[k][0]:.0%}" for k in share] == ["84%", "85%"]
assert [f"{share[k][4]:.0%}" for k in share] == ["52%", "61%"]
assert f"{1 - ink[4][0] / ink[0][0]:.1%}" == "3.4%"
drops = {kind: ((frame.loc[0] - frame.loc[4]) / 20).tolist() for kind, frame in hits.items()}
assert {f"{len(drop)} seeds" for drop in drops.values()} == {"3 seeds"}
gap = stats.ttest_ind(*drops.values(), equal_var=False)
loses = sum(drops["average"]) / 3 - sum(drops["linear layer"]) / 3
reach = gap.confidence_interval()
assert f"{loses:.0f} {reach.low:.0f} {reach.high:.0f}" == "7 -8 22"

# %% stride-check
assert change[16] < 1e-5
assert min(change[4], change[8]) > 0.1
assert format_shape(on_canvas(test.images[:1], 224).shape[1:]) == "1x224x224"

# %% refusal
assert accuracies["36×36"].max() < 0.5
assert accuracies["28×28"].min() > 0.8
try:
    load_network(small["linear layer"][0])(framed[:1].float() / 255)
except RuntimeError as refused:
    refusal = str(refused)
assert "1x90 and 40x10" in refusal
assert format_shape(framed.shape[2:]) == "36x36"
assert ends_in_matrix.head.linear1.in_features == 40
garment = test.images.shape[-1]
frame = (framed.shape[-1] - garment) // 2
places = range(0, framed.shape[-1], math.prod(strides))
centers = [(x, y) for x in places for y in places]
on_garment = [c for c in centers if all(frame <= side < frame + garment for side in c)]
assert len(centers) - len(on_garment) == 8

# %% limits
assert {format_shape(run.input_shape) for run in everyone} == {"1x28x28"}
tried = {
    (run.network, run.recipe.learning_rate): run
    for run in compact
    if run.experiment == "rate_sweep" and run.network in {one.network for one in everyone}
}
epochs_tried = {f"{r.recipe.epochs} epochs" for r in tried.values()}
assert epochs_tried == {"2 epochs"}
assert len(tried) == 3 * len({rate for _, rate in tried})


# %% exercises
def block(classes):
    """The parameters of a last block with as many channels everywhere as there are classes."""
    first = torch.nn.Conv2d(linear_head["maxpool3"].output_shape[0], classes, kernel_size=3)
    others = [torch.nn.Conv2d(classes, classes, kernel_size=1) for _ in range(2)]
    return sum(p.numel() for layer in (first, *others) for p in layer.parameters())


of_ten = formulas.layer_costs(architecture(average))
assert block(10) == sum(cost.parameters for cost in of_ten if cost.name.startswith("classes"))
assert f"{10 * architecture(average).num_classes} classes" == "100 classes"
assert block(100) == 365_900
flat = torch.nn.Linear(100 * math.prod(linear_head["classes.conv3"].output_shape[1:]), 100)
assert f"{flat.in_features:,}" == "2,500"
assert sum(p.numel() for p in flat.parameters()) == 250_100
assert linear_head["maxpool3"].output_shape[0] == 384

# %% ex-stride
of_full = math.prod(
    at.layer.stride for at in placed_layers(architecture("nin")) if hasattr(at.layer, "stride")
)
assert of_full == 32
assert of_full // (224 // 28) == 4

# %% ex-canvas
larger = at_input(architecture("nin_28_linear_head"), (1, 36, 36))
maps = {at.name: at for at in placed_layers(larger)}
sides = [maps[n].output_shape[1] for n in ("block1.conv1", "maxpool1", "maxpool2", "maxpool3")]
assert sides == [18, 9, 5, 3]
assert maps["head.linear1"].input_shape[0] == 90
of_heads = [
    cost.parameters
    for network in (larger, architecture("nin_28_linear_head"))
    for cost in formulas.layer_costs(network)
    if cost.name == "head.linear1"
]
assert of_heads == [910, 410]
assert formulas.parameters(larger) == 39_940
assert formulas.parameters(architecture("nin_28_linear_head")) == 39_440
assert larger.input_shape[1] == 36
