# The numbers of index, proved: each part runs behind the cell that it names.

# %% fig-costs
import math

from ninlab import liveness
from ninlab.answers import answer, recorded
from ninlab.architectures import variant_of
from ninlab.comparisons import (
    CONFIDENCE,
    confidence_of_each,
    confidence_of_rows,
    difference,
    share_of_failures,
    summary,
)
from ninlab.decisions import MARGIN
from ninlab.layers import Conv
from ninlab.shapes import placed_layers
from ninlab.units import format_count, format_shape

assert batch == 128
ratio = parameters["alexnet"] / parameters["nin"]
assert f"{ratio:.0f}rd" == "23rd"
assert min(macs, key=macs.get) == "nin"
assert format_bytes(to_train["nin"]) == "980 MiB"
assert format_bytes(to_train["alexnet"]) == "864 MiB"
assert min(to_predict, key=to_predict.get) == "nin"
shapes = {format_shape(each.input_shape) for each in networks.values()}
assert shapes == {"1x224x224"}

# %% fig-batch
crossing = liveness.crossing(training["nin"], training["alexnet"])
assert (crossing, crossing - 1) == (96, 95)
for name_, step_ in training.items():
    in_tf32 = liveness.timeline(networks[name_], "sgd", "tf32")
    assert peak_bytes(in_tf32, batch) == peak_bytes(step_, batch)

# %% fig-start
compact_starts = starts[0]
ended = [summary(group) for group in compact_starts.values()]
between = [f"{group.least:.1%} {group.greatest:.1%}" for group in ended]
assert between == [
    "10.0% 82.2%",
    "52.4% 82.7%",
    "64.1% 85.8%",
    "82.1% 85.6%",
    "87.2% 89.0%",
]
assert [f"{end.failed} of {end.runs} runs" for end in ended[2:4]] == [
    "2 of 20 runs",
    "9 of 20 runs",
]
assert ended[4].failed == 0
pairs = [
    (placed.input_shape[0], placed.output_shape[0])
    for placed in placed_layers(architecture("nin_28_textbook"))
    if isinstance(placed.layer, Conv)
]
assert math.sqrt(math.prod(a / (a + b) for a, b in pairs)) < 0.01
assert "{1}×{2}".format(*architecture("nin_28").input_shape) == "28×28"
of_textbook, *repaired_ones = compact_starts.values()
at_once = confidence_of_rows(compact_starts)
lifts = [difference(group, of_textbook, at_once) for group in repaired_ones]
assert [lift.verdict for lift in lifts] == ["not shown", "a gain", "a gain", "a gain"]
assert f"{int(100 * min(lift.mean for lift in lifts[1:]))}" == "21"
every_run = [run for group in compact_starts.values() for run in group]
(recipe,) = {run.recipe for run in every_run}
assert f"{recipe.epochs} epochs" == "5 epochs"
by_kaiming = architecture("nin_28").initialization
stopped = [
    architecture(run.network).initialization
    for run in runs
    if (run.experiment, run.scale) == ("rate_sweep", (28, "cpu"))
    and run.recipe.learning_rate == 2 * recipe.learning_rate
    and run.outcome == "stuck"
]
assert by_kaiming in stopped

# %% fig-designs
at_compact, at_compact_better = compared[::2]
repaired_runs = at_compact[repaired]
at_once = confidence_of_rows(at_compact)
apart = {
    label: difference(group, repaired_runs, at_once)
    for label, group in at_compact.items()
    if label != repaired and summary(group).held > 1
}
means = {label_: f"{summary(group).mean:.1%}" for label_, group in at_compact.items()}
gaining = ("no 1×1 layer", "3×3 in place of 1×1")
assert [f"{100 * apart[label_].mean:.1f}" for label_ in gaining] == ["2.2", "2.4"]
assert {apart[label_].verdict for label_ in (*gaining, "no 1×1 layer, retuned")} == {"a gain"}
fails = {label_: share_of_failures(group) for label_, group in at_compact.items()}
failing = (repaired, "three 1×1 layers", "twice the blocks")
assert [f"{fails[label_].count} of {fails[label_].of} runs" for label_ in failing] == [
    "9 of 20 runs",
    "15 of 20 runs",
    "16 of 20 runs",
]
assert [f"{fails[label_].count} of {fails[label_].of} runs" for label_ in gaining] == [
    "0 of 20 runs",
    "0 of 20 runs",
]
assert f"{fails['no 1×1 layer'].of} runs" == "20 runs"
of_better_recipe = at_compact_better["better recipe"]
at_once = confidence_of_rows(at_compact_better)
apart_by_better = {
    label: difference(group, of_better_recipe, at_once)
    for label, group in at_compact_better.items()
    if label != "better recipe"
}
assert {one.of - one.count for one in map(share_of_failures, at_compact_better.values())} == {10}
assert f"{summary(of_better_recipe).mean:.1%}" == "89.5%"
verdicts = {label: one.verdict_within(MARGIN) for label, one in apart_by_better.items()}
assert [label for label, verdict in verdicts.items() if verdict != "equal"] == [
    "better recipe, 3×3 in place of 1×1",
    "better recipe, AlexNet's head",
]
wider, connected = (apart_by_better[label] for label in verdicts if verdicts[label] != "equal")
assert (wider.verdict, connected.verdict) == ("a gain", "a loss")
as_drawn = confidence_of_rows(at_compact, at_compact_better)  # the panel has both recipes
assert all(
    difference(at_compact_better[label], of_better_recipe, as_drawn).shown
    for label, verdict in verdicts.items()
    if verdict != "equal"
)
assert f"{100 * wider.mean:.1f} {-100 * connected.mean:.1f}" == "1.0 0.7"
compact_runs = recorded().compact
rival = answer("improved", compact_runs).runs["alexnet_28_batch_norm"]
by_rival = difference(rival, of_better_recipe, confidence_of_each(2))  # one of two, as in chapter 3
assert by_rival.verdict_within(MARGIN) == "equal"
(of_recipe,) = {run.recipe for group in at_compact_better.values() for run in group}
assert of_recipe in {run.recipe for run in rival}
assert f"{of_recipe.learning_rate} {of_recipe.schedule}" == "0.05 one_cycle"
assert {label for label, one in apart.items() if not one.shown} == {
    "three 1×1 layers",
    "linear layer",
    "three steps to ten",
    "twice the blocks",
}
assert f"{CONFIDENCE:.0%}" == "95%"
assert f"{architecture('nin').num_classes} classes" == "10 classes"

# %% exercises
parts = {layer.name: layer for layer in placed_layers(networks["nin"])}
narrowing = (
    parts["classes.conv1"].input_shape,
    parts["classes.conv3"].output_shape,
)
assert [*map(format_shape, narrowing)] == ["384x5x5", "10x5x5"]
wide = architecture("nin_fixed_3x3")
grown = [
    f"{formulas.parameters(wide) / parameters['nin']:.1f} times",
    f"{formulas.macs(wide) / macs['nin']:.1f} times",
]
assert grown == ["2.8 times", "2.9 times"]
headed = formulas.parameters(architecture("nin_fixed_fully_connected"))
assert f"{headed / parameters['nin']:.0f} times" == "29 times"
assert format_count(parameters["nin"]) == "1.99 M"
assert format_count(macs["nin"]) == "762 M"
assert format_bytes(to_predict["nin"]) == "305 MiB"


def ours(question, variant):
    """The runs of one change of the repaired compact NiN."""
    return answer(question, compact_runs).runs[variant_of("nin_28", variant).name]


of_its_table = confidence_of_each(2)  # which has more rows than that


def gains(question, variant):
    """Whether the runs show that the change gains accuracy."""
    return difference(ours(question, variant), repaired_runs, of_its_table).low > 0


assert not gains("head", "linear_head")
one = ours("one_by_one", "one_1x1")
by_one = difference(one, repaired_runs, confidence_of_each(7))  # as many as chapter 5 makes
assert f"{100 * by_one.mean:.1f} points" == "1.4 points"
assert by_one.shown
of_norm = answer("one_by_one_batch_norm", compact_runs).runs
with_two = of_norm.pop("nin_28_batch_norm")
for normalized_runs in of_norm.values():
    in_its_table = difference(normalized_runs, with_two, confidence_of_each(len(of_norm)))
    assert in_its_table.verdict_within(MARGIN) == "equal"
of_head = share_of_failures(ours("head", "fully_connected"))
assert f"{of_head.count} of {of_head.of} runs" == "19 of 20 runs"
by_steps = difference(ours("bottleneck", "gradual"), repaired_runs, of_its_table)
assert not by_steps.shown
assert by_steps.high < 0.02  # "one of two points is ruled out"
at_full_width = answer("bottleneck_wide", compact_runs).runs
worst_by_steps = min(run.last.test_accuracy for run in at_full_width["nin_28_wide_gradual"])
best_at_once = max(run.last.test_accuracy for run in at_full_width["nin_28_wide"])
assert worst_by_steps > best_at_once
with_linear = formulas.parameters(architecture("nin_fixed_linear_head"))
assert with_linear / parameters["nin"] < 1.01
for question, variant in (
    ("family", "6_blocks"),
    ("family", "8_blocks"),
):
    assert not gains(question, variant)
