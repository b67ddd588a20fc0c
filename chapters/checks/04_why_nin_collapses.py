# The numbers of 04_why_nin_collapses, proved: each part runs behind the cell that it names.

# %% hidden-imports
from torchvision.models import squeezenet1_0

from ninlab.comparisons import difference
from ninlab.relapses import FACTOR, MARGIN, WINDOW_STEPS

# %% check-question
printed = {
    2021: (0.374, 0.842),
    2023: (0.563, 0.790),
}  # loss, test accuracy
assert [f"{accuracy:.1%}" for _, accuracy in printed.values()] == [
    "84.2%",
    "79.0%",
]
assert f"{math.log(10):.6f}" == "2.302585"
printed_recipe = answer("collapse", runs, "full").experiment.rows[0].recipe
assert f"{printed_recipe.epochs} epochs" == "10 epochs"
_, convolution, activation, _ = squeezenet1_0().classifier
assert isinstance(convolution, torch.nn.Conv2d)
assert isinstance(activation, torch.nn.ReLU)

# %% check-prediction
assert f"{accuracy_roof(3, 10):.0%}" == "70%"
assert f"3 of {architecture('nin').num_classes} classes" == "3 of 10 classes"
assert f"{architecture('nin').num_classes} classes" == "10 classes"
assert f"{loss_floor(3, 10):.2f}" == "0.69"
assert pairs[0] == (1, 16)
assert f"{expected[-1]:.2%}" == "0.50%"


# %% floors-text
def most_dead(loss, accuracy):
    return max(
        k for k in range(11) if loss_floor(k, 10) <= loss and accuracy <= accuracy_roof(k, 10)
    )


assert [most_dead(*ending) for ending in printed.values()] == [1, 2]
assert f"{most_dead(*printed[2023])} classes" == "2 classes"
assert math.isclose(loss_floor(0, 10, 1), math.log(2) / 10)
assert f"{printed[2023][0]}" == "0.563"
assert f"{loss_floor(2, 10):.2f} {accuracy_roof(2, 10):.0%}" == "0.46 80%"
full_pairs, _ = widths("nin")
assert full_pairs[0] == (1, 96)
assert f"{amplitudes(full_pairs)[-1]:.2%}" == "0.21%"
last_conv = build("nin_28_textbook", seed=0).classes.conv3
assert last_conv.in_channels == 10
assert last_conv.kernel_size == (1, 1)
assert f"{1 / math.sqrt(10):.2f}" == "0.32"
assert float(last_conv.bias.detach().abs().max()) <= 1 / math.sqrt(10)

# %% check-starts
assert f"{images.shape[0]}" == "128"
assert f"{len(found)} seeds" == "10 seeds"
quotients = [
    by_xavier / by_kaiming / predicted
    for by_xavier, by_kaiming, predicted in zip(
        left_over["zero biases"],
        left_over["Kaiming, zero biases"],
        expected,
        strict=True,
    )
]
assert f"{max(abs(q - 1) for q in quotients):.0%}" == "13%"


def in_common(maps):
    """Share of the power that does not tell the images apart."""
    return 1 - (maps.var(0).mean() / maps.square().mean()).item()


@torch.inference_mode()
def class_maps(seed):
    network = build("nin_28_textbook_kaiming", seed=seed).eval()
    parts = [name for name, _ in network.named_children()]
    return network[: parts.index("classes") + 1](images)


assert f"{in_common(images):.0%}" == "57%"
at_the_end = fmean(in_common(class_maps(seed)) for seed in range(10))
assert f"{at_the_end:.0%}" == "93%"
assert f"{left_over['textbook'][-1]:.1%}" == "0.2%"
assert f"{left_over['Kaiming, zero biases'][-1]:.0%}" == "47%"
assert started["textbook"]["dead: mean"] == "5.0"
assert started["textbook"]["dead: range"] == "3 to 7"
assert started["zero biases"]["dead: mean"] == "1.1"
assert started["Kaiming, zero biases"]["dead: mean"] == "1.3"
assert started["narrowing in three steps"]["dead: mean"] == "4.5"
assert started["no last ReLU"]["dead: mean"] == "0.0"
spreads = [float(started[label]["score spread"]) for label in ("textbook", "zero biases")]
assert max(spreads) < 0.0005
assert 0.32 / max(spreads) > 200

# %% check-gradients
assert dead.sum() > 0
assert last[dead].max() == 0
assert last[~dead].max() > 0
assert first > 0
cross_entropy(network(images), fashion_mnist()[1].labels[:128]).backward()
assert all(not weights.grad.any() for weights in network.parameters())

# %% check-records
ended_with = [run.last.dead_classes for run in textbook]
after_one = [run.epochs[0].dead_classes for run in textbook]
assert sorted(ended_with) == [0, 0, 0, 0, 2]
assert f"{len(textbook)} seeds" == "5 seeds"
assert f"{ended_with.count(0)} of {len(textbook)} runs" == "4 of 5 runs"
assert f"{max(ended_with)} classes" == "2 classes"
lost_at_end = sorted(run.never_predicted for run in textbook)
assert f"{', '.join(map(str, lost_at_end))}" == "0, 1, 1, 2, 6"
assert (min(after_one), max(after_one)) == (4, 9)
assert f"{max(after_one)} classes" == "9 classes"
assert all(run.epochs[0].test_loss > 2.29 for run in textbook)
alive = [run for run in textbook if run.last.dead_classes == 0]
ended = sorted(run.last.test_accuracy for run in alive)
assert f"{ended[0]:.1%} {ended[-1]:.1%}" == "61.2% 76.9%"
(with_dead,) = (run for run in textbook if run.last.dead_classes)
assert f"{with_dead.last.test_accuracy:.1%}" == "28.5%"
assert f"{accuracy_roof(with_dead.last.dead_classes, 10):.0%}" == "80%"
misleading = max(alive, key=lambda run: run.last.test_loss)
assert f"{misleading.last.test_loss:.2f} {misleading.last.test_accuracy:.1%}" == "1.09 61.2%"
assert (
    f"{most_dead(misleading.last.test_loss, misleading.last.test_accuracy)} classes" == "3 classes"
)

# %% hidden-lost
assert f"{other_rate:g}" == "0.05"

# %% table-lost
lost = [run for (run,) in that_lost(labeled).values()]
everyone = [run for group in small.values() for run in group]
assert f"{len(lost)} of {len(everyone)} runs" == "8 of 45 runs"
assert f"{sum(run.last.dead_classes == 0 for run in lost)}" == "2"
under = [
    run for run in lost if accuracy_roof(run.never_predicted, 10) - run.last.test_accuracy < 0.02
]
assert len(under) == 3
assert all(run.outcome == "stuck" for run in under)
assert [run for run in everyone if run.outcome != "finished"] == under

# %% waiting
assert f"{2.2}" == "2.2"
early = ends[ends["left"].isin([1, 2, 3])]["ended at"]
late = ends[ends["left"].isin([4, 5])]["ended at"]
never = ends[ends["left"] == "never"]["ended at"]
assert (len(early), len(late), len(never)) == (6, 6, 3)
assert f"{len(ends)} runs" == "15 runs"
assert (
    f"{3} epochs"
    == f"{max(left for left in ends['left'] if left in (1, 2, 3))} epochs"
    == "3 epochs"
)
assert f"{len(never)} runs" == "3 runs"
assert f"{early.mean():.0%} {late.mean():.0%}" == "68% 52%"
assert f"{late.min():.0%} {late.max():.0%}" == "24% 72%"
assert f"{never.min():.0%} {never.max():.0%}" == "10% 19%"
never_left = [
    run.last.dead_classes
    for suffix in unrepaired
    for run in small[f"nin_28_textbook{suffix}"]
    if epochs_to_leave(run) == "never"
]
assert sorted(never_left) == [6, 7, 8]
assert f"{max(never_left)} classes" == "8 classes"

# %% hidden-repairs
assert architecture("nin").input_shape == (1, 224, 224)
assert f"{len(list(labeled)[-2:])} rows" == "2 rows"


# %% check-repairs
def means(*suffixes):
    groups = (small[f"nin_28_textbook{suffix}"] for suffix in suffixes)
    return [f"{summary(group).mean:.1%}" for group in groups]


assert means("", "_zero_bias", "_linear_last", "_kaiming", "_batch_norm") == [
    "62.2%",
    "75.4%",
    "79.7%",
    "83.4%",
    "88.3%",
]
assert means("_lr0.05", "_gradual") == ["50.6%", "64.3%"]
stuck_at = {
    suffix: sum(run.outcome == "stuck" for run in small[f"nin_28_textbook{suffix}"])
    for suffix in ("_lr0.05", "_gradual")
}
assert [f"{count} of 5 runs" for count in stuck_at.values()] == [
    "2 of 5 runs",
    "1 of 5 runs",
]
assert len(small["nin_28_textbook_lr0.05"]) == 5
assert f"{repaired.mean:.1%} {repaired.least:.1%} {repaired.greatest:.1%}" == "83.8% 82.1% 85.6%"
assert (f"{repaired.runs} runs", repaired.failed) == ("5 runs", 0)
helped = {
    name for name in small if name != "nin_28_textbook" and difference(small[name], textbook).shown
}
assert helped == {"nin_28_textbook_batch_norm"}
by_kaiming = small["nin_28_textbook_kaiming"]
by_norm = small["nin_28_textbook_batch_norm"]
assert str(difference(by_kaiming, textbook)) == "+21.2 (-3.5 to +45.8)"
assert str(difference(by_norm, textbook)) == "+26.1 (+1.4 to +50.8)"
repairs_tried = [name for name in small if name != "nin_28_textbook"]
at_once = 1 - 0.05 / len(repairs_tried)
assert (len(repairs_tried), f"{at_once:.3%}") == (8, "99.375%")
assert not any(
    difference(small[name], textbook, confidence=at_once).shown for name in repairs_tried
)
both = difference(small["nin_28"], small["nin_28_textbook_kaiming"])
assert not both.shown
assert f"{100 * both.low:.1f} {100 * both.high:.1f}" == "-2.6 3.4"
failed = sum(summary(group).failed for group in small.values())
assert failed == sum(stuck_at.values()) == 3
assert f"{sum(map(len, small.values()))} runs" == "45 runs"
assert f"{len(too_fast)} runs" == "7 runs"
assert {run.last.dead_classes for run in too_fast} == {0}
assert {architecture(r.network).initialization for r in too_fast} == {
    architecture("nin_28").initialization
}
assert {f"{run.recipe.learning_rate:g}" for run in too_fast} == {
    "0.1",
    "0.2",
}
assert f"{0.95:.0%} {0.05:g}" == "95% 0.05"
slower = [epochs_to_leave(run) for run in small["nin_28_textbook_lr0.05"]]
assert slower.count("never") == 2
assert min(left for left in slower if left != "never") == 4

# %% table-relapses
assert f"{WINDOW_STEPS} {FACTOR} times {MARGIN}" == "20 1.5 times 0.2"
how_often = {label: row["relapsed"] for label, row in relapses(small_designs).items()}
assert how_often["batch normalization"] == "0 of 14 (0% to 23%)"
assert how_often["three 1×1 layers"].startswith("3 of 3 ")
assert how_often["no third pool"].startswith("3 of 3 ")
assert how_often["two 1×1 layers (NiN, repaired)"].startswith("2 of 5 ")
assert f"{2} of {len(small_designs['two 1×1 layers (NiN, repaired)'])} runs" == ("2 of 5 runs")
assert f"{len(small_designs['batch normalization'])} runs" == "14 runs"
never_did = ("no 1×1 layer", "one 1×1 layer", "windows of 3×3")
assert all(how_often[label].startswith("0 of 3 ") for label in never_did)

# %% limits
assert f"{everyone[0].recipe.epochs} epochs" == "5 epochs"
assert f"{(math.log(10) - MARGIN) / FACTOR:.2f} {math.log(10):.2f}" == ("1.40 2.30")

# %% ex-floor
classes, gone = 100, 30
assert f"{classes} classes, {gone}" == "100 classes, 30"
assert f"{gone / classes:.1f}" == "0.3"
assert f"{loss_floor(gone, classes):.2f}" == "1.38"
assert f"{accuracy_roof(gone, classes):.0%}" == "70%"

# %% ex-log
assert most_dead(1.10, 0.60) == 4
assert f"{1.10:.2f} {loss_floor(4, 10):.2f}" == "1.10 0.92"
assert f"{accuracy_roof(4, 10):.0%} {accuracy_roof(5, 10):.0%}" == "60% 50%"

# %% ex-stem
kept = [into / (into + out) for into, out in full_pairs]
assert min(kept) == kept[0] == 1 / 97
assert 96 + 1 == 97
assert f"{math.sqrt(kept[0]):.0%}" == "10%"
assert f"{amplitudes(full_pairs)[-1] * math.sqrt(97):.1%}" == "2.0%"
assert sum(into == out for into, out in full_pairs) == 8
assert 2 ** (8 // 2) == 16
