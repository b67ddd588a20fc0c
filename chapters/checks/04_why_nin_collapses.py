# The numbers of 04_why_nin_collapses, proved: each part runs behind the cell that it names.

# %% setup
import math

from torchvision.models import squeezenet1_0

from ninlab.comparisons import (
    CONFIDENCE,
    confidence_of_each,
    confidence_of_rows,
    difference,
    failures,
    share_of_failures,
    shares_differ,
    summary,
)
from ninlab.experiments import PLANS
from ninlab.layers import ReLU
from ninlab.published import TEXTBOOK_ENDS
from ninlab.relapses import FACTOR, MARGIN, WINDOW_STEPS, failed, relapsed
from ninlab.starts import has_last_relu
from ninlab.units import format_shape

assert format_shape(textbook[0].input_shape) == "1x28x28"
assert f"{len(textbook)} runs" == "20 runs"
assert len({run.recipe for run in textbook}) == 1
printed = {end.year: (float(end.loss), float(end.accuracy)) for end in TEXTBOOK_ENDS}
assert list(printed) == [2021, 2023]
assert [f"{accuracy:.1%}" for _, accuracy in printed.values()] == [
    "84.2%",
    "79.0%",
]
guessing = math.log(architecture("nin").num_classes)
assert f"{guessing:.6f}" == "2.302585"
printed_recipe = answer("collapse", full, "full").experiment.rows[0].recipe
assert f"{printed_recipe.epochs} epochs" == "10 epochs"
_, convolution, activation, _ = squeezenet1_0().classifier
assert isinstance(convolution, torch.nn.Conv2d)
assert isinstance(activation, torch.nn.ReLU)
for ending_in_relu in ("nin", "nin_cifar10", "nin_imagenet"):
    leaves = [layer for _, layer in architecture(ending_in_relu).named_leaves()]
    last_relu = max(i for i, layer in enumerate(leaves) if layer == ReLU())
    assert isinstance(leaves[last_relu - 1], Conv)
    assert not any(isinstance(layer, Conv) for layer in leaves[last_relu:])

# %% floors
ties = torch.zeros(10, 10)  # all classes dead: the scores of one image of each class
named_right = (ties.argmax(1) == torch.arange(10)).double().mean().item()
assert ties.argmax(1).unique().tolist() == [0]
assert named_right == accuracy_roof(10, 10) == 1 / 10
assert math.isclose(cross_entropy(ties, torch.arange(10)).item(), loss_floor(10, 10), rel_tol=1e-6)
a_tie = torch.tensor([[0.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])  # the first class is dead
assert (a_tie.argmax(1) == torch.arange(3)).all()
assert f"{accuracy_roof(3, 10):.0%}" == "70%"
assert f"3 of {architecture('nin').num_classes} classes" == "3 of 10 classes"
assert f"{architecture('nin').num_classes} classes" == "10 classes"
assert f"{loss_floor(3, 10):.2f}" == "0.69"


# %% floors-text
def most_dead(loss, accuracy):
    return max(
        k for k in range(11) if loss_floor(k, 10) <= loss and accuracy <= accuracy_roof(k, 10)
    )


assert math.isclose(loss_floor(0, 10, 1), math.log(2) / 10)

# %% signal-left
expected = signal_left("nin_28_textbook")
assert f"{len(expected)} convolutions" == "12 convolutions"
assert f"{expected[-1]:.2%}" == "0.50%"
assert f"{signal_left('nin')[-1]:.2%}" == "0.21%"
last_conv = build("nin_28_textbook", seed=0).classes.conv3
assert last_conv.in_channels == 10
assert last_conv.kernel_size == (1, 1)
largest_bias = 1 / math.sqrt(last_conv.in_channels)
assert f"{largest_bias:.2f}" == "0.32"
assert float(last_conv.bias.detach().abs().max()) <= largest_bias

# %% fig-signal
assert f"{images.shape[0]}" == "128"
assert f"{len(found)} seeds" == "10 seeds"
quotients = [
    by_xavier / by_kaiming / predicted
    for by_xavier, by_kaiming, predicted in zip(
        left["zero biases"],
        left["Kaiming, zero biases"],
        expected,
        strict=True,
    )
]
assert f"{max(abs(q - 1) for q in quotients):.0%}" == "13%"
assert f"{left['textbook'][-1]:.1%}" == "0.2%"
assert f"{left['Kaiming, zero biases'][-1]:.0%}" == "47%"
for under, wanted in (
    ("textbook", expected[-1]),
    ("zero biases", expected[-1]),
    ("Kaiming, zero biases", 1),
):
    assert left[under][-1] < wanted / 2
assert [(row["dead"], row["range"]) for row in rows.values()] == [
    ("5.0", "3 to 7"),
    ("1.1", "0 to 3"),
    ("1.3", "0 to 3"),
    ("0.0", "0 to 0"),
    ("4.5", "2 to 6"),
]
spreads = [float(rows[label]["spread"]) for label in ("textbook", "zero biases")]
assert max(spreads) < 0.0005
assert largest_bias / max(spreads) > 200

# %% gradients
assert dead.sum() > 0
assert of_scores[dead].max() == 0
assert of_scores[~dead].max() > 0
assert of_layer_1 > 0
buried = build("nin_28_textbook", seed=7).eval()
with torch.no_grad():
    buried.classes.conv3.weight.zero_()
    buried.classes.conv3.bias.fill_(-1)
cross_entropy(buried(images), fashion_mnist()[1].labels[:128]).backward()
assert all(not weights.grad.any() for weights in buried.parameters())

# %% fig-plateaus
ended_with = [run.last.dead_classes for run in textbook]
after_one = [run.epochs[0].dead_classes for run in textbook]
assert f"{ended_with.count(0)} of {len(textbook)} runs" == "11 of 20 runs"
assert f"{sum(after_one) / len(after_one):.1f} classes" == "4.5 classes"
(buried_run,) = (run for run in textbook if run.last.dead_classes == 10)
assert (buried_run.seed, textbook[7].seed) == (7, 7)
assert f"{len([*textbook[:5], textbook[7]])} of {len(textbook)} runs" == "6 of 20 runs"
assert not failed(buried_run)  # which the rule cannot see, as the limits say
assert 1.40 < min(buried_run.loss.values) < 2.0
assert f"{buried_run.last.test_loss:.5f}" == f"{guessing:.5f}"

# %% fig-lost
everyone = [run for group in small.values() for run in group]
lost = [run for run in everyone if run.never_predicted >= 2]
assert f"{len(lost)} of {len(everyone)} runs" == "46 of 172 runs"
assert any(run.last.dead_classes == 0 for run in lost)
under = [
    run for run in lost if accuracy_roof(run.never_predicted, 10) - run.last.test_accuracy < 0.02
]
assert f"{len(under)} runs" == "7 runs"
assert f"{min(run.never_predicted for run in under)} classes" == "5 classes"
for every_label, group in small.items():
    if every_label in ("no last ReLU", "repaired NiN"):
        continue
    for run in group:
        for epoch in run.epochs:
            assert epoch.test_loss >= loss_floor(epoch.dead_classes, 10)
            assert epoch.test_accuracy <= accuracy_roof(epoch.dead_classes, 10)
        assert run.last.test_loss >= loss_floor(run.last.dead_classes, 10, run.never_predicted)

# %% waiting
assert len(ends) == len(textbook)
assert [left_plateau(run) for run in textbook].count("1") == 1
assert not any(left_plateau(run) == "never" for run in textbook)
assert f"{len(textbook[:5])} seeds" == "5 seeds"
by_third, later = (
    [run for run in textbook if (left_plateau(run) in ("1", "2", "3")) is early]
    for early in (True, False)
)
assert [f"{len(group)} runs" for group in (by_third, later)] == ["14 runs", "6 runs"]
apart_by_wait = difference(by_third, later)
assert str(apart_by_wait) == "+25.2 (+3.9 to +46.6)"
assert apart_by_wait.shown
fresh, fresh_later = ([run for run in group if run.seed >= 5] for group in (by_third, later))
assert f"{len(fresh) + len(fresh_later)}" == "15"
assert not difference(fresh, fresh_later).shown

# %% table-repairs
assert list(small)[:2] == ["textbook, rate 0.1", "textbook, rate 0.05"]
assert small["textbook, rate 0.1"] == textbook
last_rows = [architecture(group[0].network) for group in list(small.values())[-2:]]
assert f"last {len(last_rows)}" == "last 2"
assert [network.name for network in last_rows] == ["nin_julia_28", "nin_28"]


def mean_of(label):
    return f"{summary(small[label]).mean:.1%}"


assert mean_of("batch normalization") == "88.3%"
by_waiting = {label: waited(group) for label, group in small.items()}
assert by_waiting["zero biases"] == "1 of 20"
tried = {label: group for label, group in small.items() if label != "textbook, rate 0.1"}
at_once = confidence_of_rows(small)
gained = {label: difference(group, textbook, at_once) for label, group in tried.items()}
assert max(gained.values(), key=lambda apart: apart.mean) is gained["batch normalization"]
assert at_once == confidence_of_each(len(tried))
assert f"{len(tried)} comparisons" == "8 comparisons"
gains = {label: apart.mean for label, apart in gained.items() if apart.shown}
assert list(gains) == [
    "no last ReLU",
    "Kaiming, zero biases",
    "batch normalization",
    "one 1×1 layer, zero biases",
    "repaired NiN",
]
assert [f"{100 * gain:.1f}" for gain in gains.values()] == ["18.6", "21.3", "27.8", "19.9", "23.4"]
assert f"{int(100 * min(gains.values()))}" == "18"
fails = {label: share_of_failures(group) for label, group in small.items()}
assert [f"{one.count} of {one.of} runs" for one in fails.values()] == [
    "2 of 20 runs",
    "7 of 20 runs",
    "3 of 20 runs",
    "13 of 20 runs",
    "2 of 20 runs",
    "0 of 12 runs",
    "3 of 20 runs",
    "1 of 20 runs",
    "9 of 20 runs",
]
early = sum(left_plateau(run) == "1" for run in small["zero biases"])
assert f"{early} of {len(small['zero biases'])} runs" == "19 of 20 runs"
assert failures(small["textbook, rate 0.05"]) == "7 stuck"
assert failures(small["repaired NiN"]) == "9 relapsed"
other_fails = [shares_differ(fails[label], fails["textbook, rate 0.1"]) for label in tried]
shown_at_once = 1 - at_once
assert [label for label, p in zip(tried, other_fails, strict=True) if p < shown_at_once] == [
    "no last ReLU"
]
assert fails["repaired NiN"].count > fails["Kaiming, zero biases"].count
held_ends = summary(small["repaired NiN"])
assert f"{100 * (held_ends.greatest - held_ends.least):.1f}" == "3.5"
everywhere = [relapsed(group) for group in small.values()]
assert 2 * sum(everywhere) > sum(map(failed, everyone))
assert f"{len(everyone)} runs" == "172 runs"
slower = [left_plateau(run) for run in small["textbook, rate 0.05"]]
assert sorted(slower)[len(slower) // 2] > sorted(map(left_plateau, textbook))[len(textbook) // 2]
assert f"{small['textbook, rate 0.05'][0].recipe.learning_rate:g}" == "0.05"
swept = [run for run in compact if run.experiment == "rate_sweep"]
too_fast = [run for run in swept if run.outcome == "stuck"]
assert f"{len(too_fast)} runs" == "7 runs"
without_dropout = answer("dropout", compact).runs["nin_28_no_dropout"]
stuck_without = [run for run in without_dropout if run.outcome == "stuck"]
assert f"{len(stuck_without)} runs" == "2 runs"
assert {run.recipe for run in stuck_without} == {run.recipe for run in small["repaired NiN"]}
assert not any(has_last_relu(architecture(run.network)) for run in (*too_fast, *stuck_without))
of_searches = {
    chapter: sorted({row.network for row in PLANS["compact"].experiment(name).rows})
    for chapter, name in {"3": "baselines", "5": "one_by_one", "6": "head", "10": "family"}.items()
}
assert all(any(run.network in rows for rows in of_searches.values()) for run in too_fast)
assert all(any(run.network in rows for run in too_fast) for rows in of_searches.values())
assert {architecture(run.network).initialization for run in (*too_fast, *stuck_without)} == {
    architecture("nin_28").initialization
}
assert {f"{run.recipe.learning_rate:g}" for run in too_fast} == {"0.1", "0.2"}
for run in too_fast:
    assert (
        max(
            other.last.test_accuracy
            for other in swept
            if other.network == run.network
            and other.recipe.learning_rate < run.recipe.learning_rate
        )
        > 0.7
    )
assert f"{CONFIDENCE:.0%}" == "95%"
assert f"{WINDOW_STEPS} {FACTOR} times {MARGIN}" == "20 1.5 times 0.2"

# %% limits
assert f"{everyone[0].recipe.epochs} epochs" == "5 epochs"
assert f"{(guessing - MARGIN) / FACTOR:.2f} {guessing:.2f}" == "1.40 2.30"

# %% ex-floor
classes, gone = 100, 30
assert f"{loss_floor(gone, classes):.2f}" == "1.38"
assert f"{accuracy_roof(gone, classes):.0%}" == "70%"
assert f"{loss_floor(gone, classes) / math.log(classes):.1f}" == "0.3"

# %% ex-log
assert most_dead(1.10, 0.60) == 4
assert f"{loss_floor(4, 10):.2f} {loss_floor(5, 10):.2f}" == "0.92 1.15"
assert loss_floor(5, 10) > 1.10
assert f"{accuracy_roof(4, 10):.0%} {accuracy_roof(5, 10):.0%}" == "60% 50%"

# %% ex-stem
kept = [
    at.input_shape[0] / (at.input_shape[0] + at.output_shape[0])
    for at in placed_layers(architecture("nin"))
    if isinstance(at.layer, Conv)
]
assert min(kept) == kept[0] == 1 / 97
assert f"{architecture('nin').input_shape[0]} to {round(1 / kept[0]) - 1}" == "1 to 96"
assert round(1 / kept[0]) == 97
assert f"{math.sqrt(kept[0]):.0%}" == "10%"
assert f"{signal_left('nin')[-1] * math.sqrt(97):.1%}" == "2.0%"
