# The numbers of copy_and_original, proved: each part runs behind the cell that it names.

# %% sizes
from math import comb

import torch

from ninlab.comparisons import (
    CONFIDENCE,
    confidence_of_rows,
    difference,
    share_of_failures,
    shares_differ,
    summary,
)
from ninlab.data import fashion_mnist
from ninlab.layers import Dropout
from ninlab.networks import build
from ninlab.relapses import ending
from ninlab.twins import PARTED_NATS, farthest_apart
from ninlab.units import format_shape

assert {
    len([at for at in weighted(name) if isinstance(at.layer, Conv)]) for name in sizes.values()
} == {12}
assert format_shape(architecture("nin_96_textbook").input_shape) == "1x96x96"
assert format_shape(architecture("nin").input_shape) == "1x224x224"
assert size("nin_96_textbook")["channels"] == size("nin")["channels"]
assert macs(architecture("nin")) > 600 * macs(architecture("nin_28_textbook"))

# %% count-starts
assert {architecture(name).initialization for name in same_start.values()} == {
    architecture("nin_28_textbook").initialization
}
assert [len(weighted(name)) for name in same_start.values()] == [12, 8, 11]
assert f"{counted['NiN']['left']:.2%}" == "0.21%"
assert f"{counted['AlexNet']['left']:.1%}" == "1.4%"
assert f"{counted['AlexNet']['left'] / counted['NiN']['left']:.0f}" == "7"
assert f"{counted['NiN']['bias'] / counted['AlexNet']['bias']:.0f}" == "20"
assert f"{counted['NiN']['bias']:.2f} {counted['VGG-11']['bias']:.3f}" == "0.32 0.016"
assert counted["AlexNet"]["bias"] == counted["VGG-11"]["bias"]
assert f"{weighted('alexnet')[-1].input_shape[0]:,}" == "4,096"
assert weighted("nin")[-1].input_shape[0] == 10
assert counted["AlexNet"]["left / bias"] > 100 * counted["NiN"]["left / bias"]
assert min(counted, key=lambda label: counted[label]["left"]) == "NiN"

# %% starts
assert f"{starts.images} test images" == "64 test images"
assert f"{starts.seeds} seeds" == "20 seeds"

# %% starts-table
assert format_shape(tuple(images.shape[1:])) == "1x28x28"
dead_of = {
    "copy": [one.dead_classes for one in copies],
    **{
        label: [one.dead_classes for one in measured[label]]
        for label in ("NiN", "NiN, zero biases")
    },
}
assert f"{min(dead_of['NiN'])} to {max(dead_of['NiN'])}" == "2 to 7"
assert f"{max(dead_of['NiN'])} classes" == "7 classes"
assert (min(dead_of["copy"]), max(dead_of["copy"])) == (
    min(dead_of["NiN"]),
    max(dead_of["NiN"]),
)
assert f"{fmean(dead_of['NiN']):.1f} {fmean(dead_of['copy']):.1f}" == "4.5 4.6"
assert f"{fmean(dead_of['NiN, zero biases']):.1f} classes" == "1.2 classes"
hearing = {label: median(one.heard for one in found) for label, found in measured.items()}
against = {label: hearing[label] / hearing["NiN"] for label in ("AlexNet", "VGG-11")}
by_count = {
    label: counted[label]["left / bias"] / counted["NiN"]["left / bias"] for label in against
}
assert f"{against['AlexNet']:.0f} times" == "135 times"
assert f"{against['VGG-11']:.0f} times" == "51 times"
assert all(abs(by_count[label] / against[label] - 1) < 0.1 for label in against)
assert min(against.values()) >= 50
silent = [hearing[f"{label}, zero biases"] for label in same_start]
assert max(silent) < 2 * min(silent)
louder = [now / hearing[label] for now, label in zip(silent, same_start, strict=True)]
assert [f"{louder[0]:.0f} times", *(f"{factor:.1f} times" for factor in louder[1:])] == [
    "185 times",
    "1.8 times",
    "6.6 times",
]
for start_of in same_start:
    faint_as_before = [
        median(one.over_images for one in measured[of])
        for of in (start_of, f"{start_of}, zero biases")
    ]
    assert 0.8 < faint_as_before[1] / faint_as_before[0] < 1.25
heard_by_copy = median(one.heard for one in copies)
assert 0.4 < hearing["NiN"] / heard_by_copy < 0.6
of_maps = fmean(one.left[-1] for one in copies)  # in front of the average, as chapter 4
assert of_maps > median(one.over_images for one in copies) / spread(images)
faint, zero, kaiming, of_alexnet = (
    median(one.over_images for one in measured[label])
    for label in ("NiN", "NiN, zero biases", "NiN, Kaiming, zero biases", "AlexNet")
)
assert abs(zero / faint - 1) < 0.5
assert f"{counted['AlexNet']['left'] / counted['NiN']['left']:.0f}" == "7"
assert f"{of_alexnet / faint:.0f}" == "22"
fixed = {label: median(one.between_classes for one in measured[label]) for label in same_start}
assert f"{fixed['NiN'] / fixed['AlexNet']:.0f}" == "7"
assert of_alexnet / faint > fixed["NiN"] / fixed["AlexNet"]
in_front = median(one.left[-1] for one in measured["NiN"])
assert faint / starts.image_spread < in_front < counted["NiN"]["left"]
assert kaiming > 200 * zero
assert abs(hearing["NiN, Kaiming, zero biases"] / hearing["NiN, zero biases"] - 1) < 0.1

# %% twin-table
both = [run for of_label in pairs.values() for pair in of_label for run in pair]
assert len({run.host.processor for run in both}) == 1
assert [run.host.cpu_capability for run in pairs["textbook"][0]] == [
    "AVX512",
    "AVX2",
]
assert len({run.software for run in both}) == 1
parted = {label: [parting_step(pair) for pair in of_label] for label, of_label in pairs.items()}
assert f"{max(parted['repaired NiN'])} {min(parted['textbook'])}" == "40 540"
assert f"{PARTED_NATS}" == "0.01"
assert f"{len(pairs['textbook'][0])} runs" == "2 runs"
after_two = [run.epochs[1].dead_classes for run in pairs["textbook"][0]]
assert pairs["textbook"][0][0].seed == 0
assert after_two == [0, 6]
assert f"{after_two[1]} dead classes" == "6 dead classes"
points = [
    abs(first.last.test_accuracy - second.last.test_accuracy)
    for of_label in pairs.values()
    for first, second in of_label
]
assert f"{100 * min(points):.1f} {100 * max(points):.1f}" == "0.6 2.1"
for ours, theirs in (pair for of_label in pairs.values() for pair in of_label):
    assert ours.loss.every == 10
    assert f"{ours.loss.values[0]:.3f}" == f"{theirs.loss.values[0]:.3f}"
last_digit = 1e-5  # of a stored loss between 1 and 10
assert all(
    farthest_apart(pair)[-1] > 10_000 * last_digit
    for of_label in pairs.values()
    for pair in of_label
)


def falls(run, nats):
    """The first step of the first stored loss below so many nats."""
    return next(i for i, loss in enumerate(run.loss.values) if loss < nats) * run.loss.every


def waits_longer(pair, nats):
    first, second = (falls(run, nats) for run in pair)
    return abs(first - second)


assert all(waits_longer(pair, 2.2) < 100 for pair in pairs["textbook"])
assert [waits_longer(pair, 1.6) > 200 for pair in pairs["textbook"]] == [True, False, False]

# %% middle-runs
assert {run.data_set.train_images for run in wide} == {20_000}
assert f"{max(run.data_set.train_images for run in wide):,}" == "20,000"
assert f"{min(len(run.epochs) for run in of_textbook)} epochs" == "10 epochs"
assert f"{fashion_mnist()[0].images.shape[0]:,}" == "60,000"
assert {at.output_shape[1:] for at in weighted("nin_96_textbook")[-3:]} == {(1, 1)}

# %% middle-table
assert {f"{len(group)} runs" for group in middle.values()} == {"3 runs"}
assert {f"{len(group)} seeds" for group in middle.values()} == {"3 seeds"}
of_repaired, of_normalized, of_alexnet = (
    middle[label] for label in ("repaired NiN", "batch normalization", "AlexNet, same start")
)
assert {run.recipe for run in of_alexnet} == {run.recipe for run in of_textbook}
assert architecture("alexnet_96").initialization == architecture("nin_96_textbook").initialization


def at_guessing(run):
    """How many epochs end before the test loss has left that of guessing."""
    return next(i for i, epoch in enumerate(run.epochs) if epoch.test_loss < 2.2)


assert {f"{at_guessing(run)} epochs" for run in of_textbook} == {"2 epochs"}
first_dead = {run.epochs[0].dead_classes for run in of_textbook}
assert {f"{dead} of {len(run.confusion)} classes" for dead in first_dead for run in wide} == {
    "5 of 10 classes",
    "6 of 10 classes",
}
assert sorted(run.last.dead_classes for run in of_textbook) == [0, 0, 2]
assert sum(run.never_predicted > 0 for run in of_textbook) == 2
ends_of = {
    label: sorted(run.last.test_accuracy for run in group) for label, group in middle.items()
}
lowest, *_, highest = ends_of["textbook, rate 0.1"]
assert f"{lowest:.1%} {highest:.1%}" == "53.1% 77.5%"
assert {run.last.dead_classes for run in of_repaired} == {0}
assert weighted("nin_96")[-1].name == "classes.conv3"
assert "classes.relu3" not in {at.name for at in placed_layers(architecture("nin_96"))}
assert "classes.relu3" in {at.name for at in placed_layers(architecture("nin_96_textbook"))}
assert sorted(map(ending, of_repaired)) == ["diverged", "finished", "relapsed"]
(held,) = (run for run in of_repaired if not failed(run))
assert f"{at_guessing(held)} epochs" == "5 epochs"
assert {at_guessing(run) for run in (*of_alexnet, *of_normalized)} == {0}
above = ends_of["AlexNet, same start"], ends_of["batch normalization"]
assert f"{above[0][0]:.1%} {above[1][0]:.1%}" == "84.8% 85.4%"
below = [at for ends in ends_of.values() for at in ends if ends not in above]
assert len(below) == 9
assert min(min(ends) for ends in above) > max(below)
tested = [group for group in middle.values() if summary(group).held > 1]
assert len(tested) == 4
from_textbook = [difference(of, of_textbook, confidence_of_rows(middle)) for of in tested[1:]]
assert not any(apart.shown for apart in from_textbook)
assert 2 / comb(len(of_alexnet) + len(of_textbook), len(of_textbook)) == 1 / 10

# %% dropout-table
assert f"{CONFIDENCE:.0%}" == "95%"
for name in ("nin_28_textbook", "nin_28"):
    ours, theirs = (build(of, seed=0).state_dict() for of in (name, f"{name}_no_dropout"))
    assert all(torch.equal(a, b) for a, b in zip(ours.values(), theirs.values(), strict=True))
dropped = without["textbook"]["textbook, no dropout"]
assert any(run.epochs[0].test_loss > 2.29 for run in dropped)
lost_one = sum(run.never_predicted > 0 for run in dropped)
assert f"{lost_one} of {len(dropped)} runs" == "15 of 20 runs"
failures = {
    label: f"{sum(map(failed, group))} of {len(group)} runs"
    for rows_of in without.values()
    for label, group in rows_of.items()
}
assert failures["repaired NiN, no dropout"] == "11 of 20 runs"
assert failures["repaired NiN"] == "9 of 20 runs"
stuck = {
    label: [run for run in group if run.outcome == "stuck"]
    for label, group in without["repaired NiN"].items()
}
assert [f"{len(group)} runs" for group in stuck.values()] == ["0 runs", "2 runs"]
for have, have_not in (rows_of.values() for rows_of in without.values()):
    assert not difference(have_not, have, confidence_of_rows(*without.values())).shown
    assert shares_differ(*map(share_of_failures, (have, have_not))) > 0.5
(dropping,) = (
    at.layer
    for at in placed_layers(architecture("nin_28_textbook"))
    if isinstance(at.layer, Dropout)
)
assert dropping.probability == 0.5

# %% ex-inputs
widest = weighted("nin")[-3].input_shape[0]
assert widest == 384
assert f"{1 / sqrt(widest):.3f}" == "0.051"
assert f"{sqrt(widest / weighted('nin')[-1].input_shape[0]):.1f}" == "6.2"

# %% ex-predicted
assert all(row.heard < 1 for row in starts.rows)
