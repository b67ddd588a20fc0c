# The numbers of 04_why_nin_collapses, proved: each part runs behind the cell that it names.

# %% setup
import math

from torchvision.models import squeezenet1_0

from ninlab.comparisons import (
    CONFIDENCE,
    confidence_of_each,
    confidence_of_rows,
    difference,
    summary,
)
from ninlab.experiments import PLANS
from ninlab.layers import ReLU
from ninlab.published import TEXTBOOK_ENDS
from ninlab.relapses import FACTOR, MARGIN, WINDOW_STEPS, relapsed
from ninlab.starts import has_last_relu
from ninlab.units import format_shape

assert format_shape(textbook[0].input_shape) == "1x28x28"
assert f"{len(textbook)} runs" == "5 runs"
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


assert [most_dead(*ending) for ending in printed.values()] == [1, 2]
assert f"{most_dead(*printed[2023])} classes" == "2 classes"
assert math.isclose(loss_floor(0, 10, 1), math.log(2) / 10)
assert f"{printed[2023][0]}" == "0.563"
assert f"{accuracy_roof(2, 10):.0%}" == "80%"

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
assert sorted(ended_with) == [0, 0, 0, 0, 2]
assert f"{ended_with.count(0)} of {len(textbook)} runs" == "4 of 5 runs"
assert f"{max(ended_with)} classes" == "2 classes"
assert (min(after_one), max(after_one)) == (4, 9)
assert f"{max(after_one)} classes" == "9 classes"
assert all(run.epochs[0].test_loss > 2.29 for run in textbook)
alive = [run for run in textbook if run.last.dead_classes == 0]
(with_dead,) = (run for run in textbook if run.last.dead_classes)
assert f"{with_dead.last.test_accuracy:.1%}" == "28.5%"
assert f"{accuracy_roof(with_dead.last.dead_classes, 10):.0%}" == "80%"

# %% fig-lost
everyone = [run for group in small.values() for run in group]
lost = [run for run in everyone if run.never_predicted >= 2]
assert f"{len(lost)} of {len(everyone)} runs" == "8 of 45 runs"
assert f"{sum(run.last.dead_classes == 0 for run in lost)}" == "2"
under = [
    run for run in lost if accuracy_roof(run.never_predicted, 10) - run.last.test_accuracy < 0.02
]
assert len(under) == 3
assert all(run.outcome == "stuck" for run in under)
assert [run for run in everyone if run.outcome != "finished"] == under
for every_label, group in small.items():
    if every_label in ("no last ReLU", "repaired NiN"):
        continue
    for run in group:
        for epoch in run.epochs:
            assert epoch.test_loss >= loss_floor(epoch.dead_classes, 10)
            assert epoch.test_accuracy <= accuracy_roof(epoch.dead_classes, 10)
        assert run.last.test_loss >= loss_floor(run.last.dead_classes, 10, run.never_predicted)

# %% waiting
early = ends[ends["left in epoch"].isin(["1", "2", "3"])]["ended"]
late = ends[ends["left in epoch"] == "4"]["ended"]
never = ends[ends["left in epoch"] == "never"]["ended"]
assert (len(early), len(late), len(never)) == (6, 6, 3)
assert f"{len(ends)} runs" == "15 runs"
assert f"{len(early)} of {len(ends)} runs" == f"{len(late)} of {len(ends)} runs" == "6 of 15 runs"
at_smaller_rate = [
    run
    for label in (*as_textbook, "three steps to ten")
    for run in small[label]
    if left_plateau(run) == "4" and run.recipe.learning_rate < textbook[0].recipe.learning_rate
]
assert 2 * len(at_smaller_rate) == len(late)
assert f"{len(never)} runs" == "3 runs"
of_start = [run for label in (*as_textbook, "three steps to ten") for run in small[label]]
by_third, in_fourth = (
    [run for run in of_start if left_plateau(run) in when] for when in (("1", "2", "3"), ("4",))
)
assert (len(by_third), len(in_fourth)) == (len(early), len(late))
assert str(difference(by_third, in_fourth)) == "+15.5 (-7.6 to +38.5)"
never_left = [
    run.last.dead_classes
    for label in (*as_textbook, "three steps to ten")
    for run in small[label]
    if left_plateau(run) == "never"
]
assert sorted(never_left) == [6, 7, 8]
assert f"{max(never_left)} classes" == "8 classes"

# %% table-repairs
assert list(small)[:2] == ["textbook, rate 0.1", "textbook, rate 0.05"]
assert small["textbook, rate 0.1"] == textbook
last_rows = [architecture(group[0].network) for group in list(small.values())[-2:]]
assert f"last {len(last_rows)}" == "last 2"
assert [network.name for network in last_rows] == ["nin_julia_28", "nin_28"]


def mean_of(label):
    return f"{summary(small[label]).mean:.1%}"


assert mean_of("Kaiming, zero biases") == "83.4%"
assert mean_of("batch normalization") == "88.3%"
assert all(left_plateau(run) == "1" for run in small["zero biases"])
assert any(left_plateau(run) != "1" for run in small["no last ReLU"])
stuck_of = {
    label: f"{sum(run.outcome == 'stuck' for run in group)} of {len(group)} runs"
    for label, group in small.items()
    if any(run.outcome != "finished" for run in group)
}
assert list(stuck_of) == ["textbook, rate 0.05", "three steps to ten"]
assert list(stuck_of.values()) == ["2 of 5 runs", "1 of 5 runs"]
tried = {label: group for label, group in small.items() if label != "textbook, rate 0.1"}
at_once = confidence_of_rows(small)
gained = {label: difference(group, textbook, at_once) for label, group in tried.items()}
assert max(gained.values(), key=lambda apart: apart.mean) is gained["batch normalization"]
assert at_once == confidence_of_each(len(tried))
assert (f"{len(tried)} comparisons", f"{at_once:.3%}") == ("8 comparisons", "99.375%")
assert not any(apart.shown for apart in gained.values())
for ahead in (small["Kaiming, zero biases"], small["batch normalization"]):
    assert summary(ahead).least > summary(textbook).greatest
    assert math.comb(len(ahead) + len(textbook), len(textbook)) == 252
assert not difference(small["repaired NiN"], small["Kaiming, zero biases"]).shown
assert f"{len(everyone)} runs" == "45 runs"
slower = [left_plateau(run) for run in small["textbook, rate 0.05"]]
assert sorted(slower) == ["4", "4", "4", "never", "never"]
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
assert all(left_plateau(run) in ("4", "never") for run in small["textbook, rate 0.05"])
assert all(left_plateau(run) != "1" for run in textbook)

# %% table-relapses
assert f"{WINDOW_STEPS} {FACTOR} times {MARGIN}" == "20 1.5 times 0.2"
fell = {
    design: f"{relapsed(group)} of {len(group)} runs"
    for design, group in by_design(compact, "compact").items()
}
assert fell["batch normalization"] == "0 of 14 runs"
assert fell["three 1x1 layers a block"] == "3 of 3 runs"
assert fell["NiN, repaired"] == "2 of 5 runs"
assert f"{len(by_design(compact, 'compact')['batch normalization'])} runs" == "14 runs"

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
