# The numbers of 06_global_average_pooling, proved: each part runs behind the cell that it names.

# %% hidden-imports
import math

from scipy import stats

from ninlab.comparisons import difference
from ninlab.devices import device
from ninlab.relapses import relapse
from ninlab.roofline import time_bound, training_operators
from ninlab.shapes import at_input, placed_layers
from ninlab.units import format_count, format_shape

# %% check-question
linear_head = {at.name: at for at in placed_layers(architecture("nin_fixed_linear_head"))}
assert linear_head["head.linear1"].input_shape[0] == 250 == 10 * 5 * 5
assert linear_head["head.linear1"].output_shape[0] == 10
wide = {at.name: at for at in placed_layers(architecture("nin_fixed_fully_connected"))}
assert wide["head.linear1"].output_shape[0] == 4096

# %% check-prediction
average, linear, connected = variants
added = parameters[linear] - parameters[average]
assert added == 250 * 10 + 10 == 2_510
assert 384 * 5 * 5 == 9_600
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

# %% check-count
assert compact[0].recipe.batch_size == 128
extra = [
    formulas.saved_bytes(architecture(n)) - formulas.saved_bytes(architecture(average))
    for n in (linear, connected)
]
assert extra[0] == 1_000
assert f"{macs[connected] / macs[average] - 1:.1%}" == "7.3%"
assert format_bytes(peaks[average]) == format_bytes(peaks[linear]) == "980 MiB"
assert format_bytes(peaks[connected]) == "1.37 GiB"
assert f"{peaks[connected] / peaks[average] - 1:.0%}" == "44%"
assert format_bytes(4 * parameters[connected]) == "222 MiB"
assert format_bytes(4 * parameters[average]) == "7.60 MiB"

# %% as-linear
assert apart.abs().max() < 1e-4
assert f"{len(test):,}" == "1,000"

# %% check-endings
own = small["AlexNet's head, rate 0.025"]
by_matrix = difference(small["linear layer"], small["average"])
by_alexnet = difference(own, small["average"])
assert [len(g) for g in small.values()] == [5, 3, 3, 3]
assert f"{len(small['average'])} seeds" == "5 seeds"
assert f"{len(small) - 1} rows" == "3 rows"
means = [f"{summary(g).mean:.1%}" for g in small.values()]
assert means == ["83.8%", "85.5%", "46.0%", "78.8%"]
assert str(by_matrix) == "+1.8 (+0.2 to +3.4)"
assert by_matrix.shown
at_once = difference(small["linear layer"], small["average"], confidence=1 - 0.05 / 3)
assert str(at_once) == "+1.8 (-0.5 to +4.0)"
assert f"{1 - 0.05 / 3:.1%}" == "98.3%"
assert str(by_alexnet) == "-4.9 (-15.3 to +5.4)"
assert not by_alexnet.shown
assert summary(own).greatest < summary(small["average"]).least
assert math.comb(8, 3) == 56
common = small["AlexNet's head"]
assert [str(run.outcome) for run in common] == [
    "finished",
    "diverged",
    "finished",
]
assert [f"{run.last.test_accuracy:.1%}" for run in common] == [
    "81.9%",
    "10.0%",
    "10.0%",
]
assert f"{len(common)} runs" == "3 runs"
recovered, diverged, fallen = common
assert relapse(recovered)
assert relapse(fallen)
assert len(diverged.epochs) == 3
assert len(fallen.epochs) == fallen.recipe.epochs
assert fallen.last.train_loss > fallen.epochs[-2].train_loss + 1
assert fallen.never_predicted == 9
assert not any(run.outcome != "finished" or relapse(run) for run in own)
assert {run.recipe.learning_rate for run in own} == {0.025}
assert {run.recipe.learning_rate for run in common} == {0.1}
assert f"{0.1:g} {0.025:g}" == "0.1 0.025"
assert f"{own[0].parameters / averages[0].parameters:.0f} times" == "33 times"
fitted = {label: f"{sum(seen(g)) / len(g):.1%}" for label, g in small.items()}
assert fitted["average"] == "83.4%"
assert fitted["linear layer"] == "84.9%"
assert fitted["AlexNet's head, rate 0.025"] == "78.9%"
everyone = [run for group in small.values() for run in group]
assert {f"{run.recipe.epochs} epochs" for run in everyone} == {"5 epochs"}
ahead = stats.ttest_ind(
    seen(small["linear layer"]), seen(small["average"]), equal_var=False
).confidence_interval()
assert f"{100 * ahead.low:.1f} {100 * ahead.high:.1f}" == "-0.3 3.2"
assert f"{84.9 - 83.4:.1f}" == "1.5"
assert f"{0.95:.0%}" == "95%"

# %% speed-sentence
fastest = {
    name: max(r.images_per_second for r in compact if r.network == name)
    for name in ("nin_28", "nin_28_fully_connected")
}
in_median = step_seconds(common) / step_seconds(small["average"])
assert f"{in_median:.1f} times" == "2.5 times"
slower = fastest["nin_28"] / fastest["nin_28_fully_connected"]
assert f"{slower:.1f} times" == "3.2 times"
by_compact = formulas.macs(architecture("nin_28_fully_connected"))
by_compact /= formulas.macs(architecture("nin_28"))
assert f"{by_compact:.1f} times" == "2.0 times"
assert f"{macs[connected] / macs[average]:.2f} times" == "1.07 times"
at_least = [
    time_bound(
        training_operators(architecture(name), 128, "sgd", "bf16"),
        device("h100"),
        "bf16",
    )
    for name in (average, connected)
]
assert [f"{1e3 * one.seconds:.2f} ms" for one in at_least] == [
    "1.72 ms",
    "2.23 ms",
]
short, long = at_least
assert f"{long.seconds / short.seconds:.2f} times" == "1.30 times"
assert math.isclose(
    long.seconds - short.seconds,
    long.memory_bound_seconds - short.memory_bound_seconds,
)

# %% fig-average-shifts
share = {k: [count / tried for count in counts] for k, counts in totals.items()}
assert [f"{share[k][0]:.0%}" for k in share] == ["84%", "85%"]
assert [f"{share[k][4]:.0%}" for k in share] == ["52%", "61%"]
assert f"{1 - kept_ink[4] / kept_ink[0]:.1%}" == "3.4%"
drops = {
    kind: sorted((seed[0] - seed[4]) / (2 * len(test)) * 100 for seed in of_kind.values())
    for kind, of_kind in hits.items()
}
ranges = [f"{drop[0]:.0f} {drop[-1]:.0f}" for drop in drops.values()]
assert ranges == ["29 36", "17 31"]
assert {f"{len(drop)} seeds" for drop in drops.values()} == {"3 seeds"}
gap = stats.ttest_ind(*drops.values(), equal_var=False)
loses = sum(drops["average"]) / 3 - sum(drops["matrix"]) / 3
reach = gap.confidence_interval()
assert f"{loses:.0f} {reach.low:.0f} {reach.high:.0f}" == "7 -8 22"

# %% stride-check
assert moved[16] < 1e-5
assert min(moved[4], moved[8]) > 0.1
assert format_shape(on_canvas(few, 224).shape[1:]) == "1x224x224"
assert f"{224}×{224}" == "224×224"
assert 2**4 == 16
assert len(few) == 20

# %% refusal
assert [f"{count / len(test):.0%}" for count in sorted(on_large)][::2] == [
    "36%",
    "48%",
]
assert min(in_frame) > 0.8 * len(test)
assert "1x90 and 40x10" in refusal
assert f"{36}×{36}" == "36×36"
assert (10 * 3 * 3, 10 * 2 * 2) == (90, 40)
centers = [(x, y) for x in (0, 16, 32) for y in (0, 16, 32)]
on_garment = [c for c in centers if all(4 <= side < 4 + 28 for side in c)]
assert len(centers) - len(on_garment) == 8

# %% limits
assert f"{28}×{28}" == "28×28"
assert {run.input_shape for run in everyone} == {(1, 28, 28)}
tried = {
    (run.network, run.recipe.learning_rate): run
    for run in compact
    if run.experiment == "rate_sweep" and run.network in {one.network for one in everyone}
}
epochs_tried = {f"{r.recipe.epochs} epochs" for r in tried.values()}
assert epochs_tried == {"2 epochs"}
assert len(tried) == 3 * len({rate for _, rate in tried})
high, low, stuck = (tried["nin_28_linear_head", rate] for rate in (0.1, 0.025, 0.2))
assert f"{high.last.test_accuracy:.1%}" == "79.6%"
assert f"{low.last.test_accuracy:.1%}" == "79.2%"
assert stuck.outcome == "stuck"
assert f"{0.2:g}" == "0.2"


# %% exercises
def block(classes):
    return 9 * 384 * classes + classes + 2 * (classes**2 + classes)


of_ten = formulas.layer_costs(architecture(average))
assert block(10) == sum(cost.parameters for cost in of_ten if cost.name.startswith("classes"))
assert f"{10 * architecture(average).num_classes} classes" == "100 classes"
assert block(100) == 365_900
assert 100 * 25 * 100 + 100 == 250_100
assert 100 * 25 == 2_500
assert linear_head["maxpool3"].output_shape[0] == 384

# %% ex-stride
of_full = math.prod(
    at.layer.stride for at in placed_layers(architecture("nin")) if hasattr(at.layer, "stride")
)
assert of_full == 32
assert of_full // (224 // 28) == 4

# %% ex-canvas
large = at_input(architecture("nin_28_linear_head"), (1, 36, 36))
maps = {at.name: at for at in placed_layers(large)}
sides = [maps[n].output_shape[1] for n in ("block1.conv1", "maxpool1", "maxpool2", "maxpool3")]
assert sides == [18, 9, 5, 3]
assert maps["head.linear1"].input_shape[0] == 90
assert 90 * 10 + 10 == 910
assert 40 * 10 + 10 == 410
assert formulas.parameters(large) == 39_940
assert formulas.parameters(architecture("nin_28_linear_head")) == 39_440
assert large.input_shape[1] == 36
