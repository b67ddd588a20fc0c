# The numbers of 03_training, proved: each part runs behind the cell that it names.

# %% setup
import math
from dataclasses import replace

torch.set_num_threads(1)

# %% train-by-hand
assert f"{len(order):,} {len(batch)}" == "12,800 128"
assert f"{len(losses)} steps" == "100 steps"
assert f"{min(accuracy, 0.5):.0%} {1 / test.num_classes:.0%}" == "50% 10%"  # "more than" 50%
assert f"{math.log(test.num_classes):.1f}" == "2.3"
assert abs(losses[0] - math.log(10)) < 1

# %% train-by-library
assert losses == list(by_library.losses)
assert accuracy == by_library.epochs[-1].test_accuracy
assert len(by_library.losses) == 100


def first_losses(**options):
    """The losses of ten steps of the loop, with other options of Adam."""
    another = compact_nin(seed=0)
    adam = torch.optim.Adam(another.parameters(), **options)
    torch.manual_seed(0)
    taken = []
    for chosen in order.split(128)[:10]:
        error = cross_entropy(another(training.images[chosen] / 255), training.labels[chosen])
        adam.zero_grad()
        error.backward()
        adam.step()
        taken.append(error.item())
    return taken


assert first_losses(lr=rate, fused=True) == losses[:10]
assert first_losses(lr=0.003, fused=True) != losses[:10]
assert first_losses(lr=rate) != losses[:10]

# %% count-table
from ninlab.comparisons import (
    CONFIDENCE,
    confidence_of_each,
    confidence_of_rows,
    interaction,
    sampling_error,
    share_of_failures,
    shares_differ,
)
from ninlab.data_files import FILES
from ninlab.decisions import MARGIN as EQUAL_WITHIN
from ninlab.experiments import PLANS
from ninlab.relapses import relapsed
from ninlab.units import format_shape

assert f"{100 * sampling_error(0.85, 10_000):.2f}" == "0.36"
told_apart = [0.85 + sign * sampling_error(0.85, 10_000) for sign in (0, 2)]
assert [f"{accuracy:.0%}" for accuracy in told_apart] == ["85%", "86%"]
drawn_from = FILES["train-images-idx3-ubyte"].shape[0]
plain = PLANS["compact"].experiment("baselines").rows[0].recipe
assert (plain.images, plain.evaluation_images) == (drawn_from, len(test)) == (60_000, 10_000)
assert f"{plain.epochs * plain.images:,}" == "300,000"
nin_macs = formulas.macs(architecture("nin_28"))
assert f"{nin_macs / 1e6:.2f} M" == "1.22 M"
assert f"{6 * nin_macs * 300_000 / 1e12:.1f} T" == "2.2 T"
assert {architecture(n).input_shape for n in ("nin", "alexnet", "vgg11")} == {(1, 224, 224)}
sides = [architecture(n).input_shape[-1] for n in ("nin", "googlenet")]
assert [f"{side}×{side}" for side in sides] == ["224×224", "96×96"]
assert format_shape(architecture("nin_28").input_shape[1:]) == "28x28"
assert f"{plain.steps_an_epoch} steps, {plain.batch_size}" == "468 steps, 128"
assert plain.images - plain.steps_an_epoch * plain.batch_size == 96
assert f"{plain.steps:,}" == "2,340"
compared = ("nin_28", "alexnet_28", "vgg11_28", "googlenet_28")
assert len({architecture(n).initialization for n in compared}) == 1
parameters = {n: formulas.parameters(architecture(n)) for n in compared}
macs_of = {n: formulas.macs(architecture(n)) for n in compared}
assert f"{parameters['alexnet_28'] / parameters['nin_28']:.0f} times" == "20 times"
assert f"{macs_of['alexnet_28'] / macs_of['nin_28']:.1f} times" == "1.8 times"
assert f"{parameters['vgg11_28'] / parameters['nin_28']:.0f} times" == "51 times"
assert f"{macs_of['vgg11_28'] / macs_of['nin_28']:.1f} times" == "2.8 times"

# %% table-baselines
groups = baselines.runs
assert {r.recipe for g in groups.values() for r in g} == {plain}
assert f"{plain.epochs} epochs" == "5 epochs"
assert {f"{len(group)} seeds" for group in groups.values()} == {"20 seeds"}
assert 8 < sum(run.wall_seconds for run in compact) / 3600 < 24
assert architecture("vgg11_quarter_28").title in baselines.titled
assert architecture("nin_28").initialization != architecture("nin_28_textbook").initialization

# %% difference
rivals = [name for name in groups if name != "nin_28"]
assert f"{-100 * difference(nin, alexnet).mean:.1f}" == "3.4"
assert f"{-100 * difference(nin, vgg11).mean:.1f}" == "3.9"
assert difference(nin, alexnet).shown
assert difference(nin, vgg11).shown
assert f"{relapsed(nin)} of {len(nin)} runs" == "9 of 20 runs"
fails = [share_of_failures(group) for group in (nin, alexnet)]
assert [one.count for one in fails] == [relapsed(nin), 0]
assert shares_differ(*fails) < (1 - CONFIDENCE) / len(rivals)
confidence = confidence_of_each(len(rivals))
assert (len(rivals), f"{confidence:.0%}", f"{CONFIDENCE:.0%}") == (5, "99%", "95%")
assert difference(nin, alexnet, confidence=confidence).shown
assert difference(nin, vgg11, confidence=confidence).shown
assert not difference(groups["googlenet_28"], nin, confidence).shown
assert f"{100 * summary(groups['nin_28_textbook']).deviation:.1f}" == "18.2"
assert f"{100 * summary(alexnet).deviation:.1f}" == "0.5"

# %% fig-training-curves
assert {run.scale for run in drawn} == {(28, "cpu")}
assert all(run.outcome in ("finished", "stuck") and run.epochs for run in drawn)

# %% fig-training-time
from statistics import median

lengths = {name: race.ratio(name, "nin_28").median for name in ("alexnet_28", "vgg11_28")}
assert [f"{length:.1f} times" for length in lengths.values()] == ["1.8 times", "3.3 times"]
assert {run.recipe.batch_size for run in drawn} == {race.batch_size}


def on_the_way(runs):
    """Time in epochs of NiN and median accuracy after each epoch."""
    each = race.ratio(runs[0].network, "nin_28").median
    right = zip(*([e.test_accuracy for e in r.epochs] for r in runs), strict=True)
    return [(each * epoch, median(at)) for epoch, at in enumerate(right, 1)]


nin_way, alexnet_way, vgg_way = map(on_the_way, (nin, alexnet, vgg11))
assert nin_way[2][0] < vgg_way[0][0]  # three epochs in the time of one
assert nin_way[2][1] > vgg_way[0][1]
assert vgg_way[1][1] > nin_way[-1][1]  # behind at first only
for time, ahead in alexnet_way:
    assert ahead > max(behind for moment, behind in nin_way if moment <= time)

# %% fig-rates
small_sweep = [run for runs_of_one in swept for run in runs_of_one]
best = {}
for run in small_sweep:
    if run.network not in best or run.last.test_accuracy > best[run.network].last.test_accuracy:
        best[run.network] = run
rates = {name: run.recipe.learning_rate for name, run in best.items()}
assert [rates[n] for n in ("nin_28", "alexnet_28", "vgg11_28")] == [0.1] * 3
assert [rates[n] for n in ("vgg11_quarter_28", "googlenet_28")] == [0.05] * 2
assert sorted({run.recipe.learning_rate for run in small_sweep}) == [
    0.025,
    0.05,
    0.1,
    0.2,
]
failed = [run for run in small_sweep if run.outcome != "finished"]
assert {run.network for run in failed} == {"vgg11_28", "vgg11_quarter_28"}
assert f"{min(run.recipe.learning_rate for run in failed):g}" == "0.2"
at_rate = {
    rate: sorted(
        (run for run in small_sweep if run.recipe.learning_rate == rate),
        key=lambda run: (run.outcome == "finished", run.last.test_accuracy),
    )
    for rate in (0.1, 0.2)
}
assert at_rate[0.1][-2].network == "vgg11_28"
assert {run.network for run in at_rate[0.2] if run.outcome != "finished"} == {
    "vgg11_28",
    "vgg11_quarter_28",
}
orders = [
    [
        run.network
        for run in sorted(small_sweep, key=lambda run: run.last.test_accuracy)
        if run.recipe.learning_rate == rate
    ]
    for rate in (0.05, 0.1)
]
assert orders[0] != orders[1]
by_name = {run.name: run.last.test_accuracy for run in small_sweep}
assert f"{by_name['googlenet_28_lr0.05']:.0%}" == "75%"
assert f"{by_name['googlenet_28_lr0.2']:.0%}" == "43%"
assert {run.data_set.train_images for run in small_sweep} == {60_000 - 5_000}
assert {run.recipe.evaluation_images for run in small_sweep} == {5_000}
of_textbook = {
    (row.network, row.recipe.learning_rate)
    for name in ("baselines", "collapse")
    for row in PLANS["full"].experiment(name).rows
}
assert of_textbook >= {("nin", 0.05), ("nin", 0.1)}
(for_alexnet,) = {rate for network, rate in of_textbook if network == "alexnet"}
assert f"{for_alexnet}" == "0.01"
(swept_epochs,) = {run.recipe.epochs for run in small_sweep}
assert f"{swept_epochs} epochs" == "2 epochs"

# %% fig-own-rate
small_own = answer("own_rate", compact).runs
kept = ("nin_28", "alexnet_28", "vgg11_28")
for kept_name in kept:
    before = {run.seed: run.loss.values for run in groups[kept_name]}
    assert all(run.loss.values == before[run.seed] for run in small_own[kept_name])
moved = ("googlenet_28", "vgg11_quarter_28")
assert [f"{summary(rows[n]).mean:.1%}" for n in moved for rows in (groups, small_own)] == [
    "82.8%",
    "82.4%",
    "81.9%",
    "81.0%",
]
assert all(summary(groups["nin_28"]).mean > summary(small_own[n]).mean for n in moved)
assert {f"{len(small_own[name])} seeds" for name in kept} == {"3 seeds"}
assert {f"{len(runs)} seeds" for runs in own.values()} == {"20 seeds"}
assert {f"{len(small_own[name])} seeds" for name in moved} == {"20 seeds"}

# %% table-better
improved = answer("improved", compact).runs
by_nin, *by_alexnet = (
    improved[name] for name in ("nin_28_batch_norm", "alexnet_28_batch_norm", "alexnet_28")
)
ends = [f"{summary(group).mean:.1%}" for group in (by_nin, *by_alexnet)]
assert ends == ["89.5%", "89.7%", "88.6%"]
at_once = confidence_of_rows(better)
gaps = [difference(group, by_nin, at_once) for group in by_alexnet]
assert list(map(str, gaps)) == [
    "+0.2 (-0.1 to +0.6)",
    "-0.8 (-1.1 to -0.6)",
]
assert gaps[0].verdict_within(EQUAL_WITHIN) == "equal"
assert gaps[1].verdict == "a loss"
(by_both,) = {
    run.recipe for name in ("nin_28_batch_norm", "alexnet_28_batch_norm") for run in improved[name]
}
assert by_both.momentum
assert by_both.weight_decay
assert by_both.standardize
assert (by_both.schedule, by_both.augmentation) == ("one_cycle", "flip")
(of_third,) = {run.recipe for run in improved["alexnet_28"]}
assert replace(of_third, learning_rate=by_both.learning_rate) == by_both
assert f"{by_both.learning_rate} {of_third.learning_rate}" == "0.05 0.02"
assert f"{by_both.epochs} epochs" == "5 epochs"
assert f"{len(by_nin)} seeds" == "10 seeds"
assert {len(group) for group in by_alexnet} == {len(by_nin)}
changed = interaction(
    both=improved["alexnet_28_batch_norm"], first=alexnet, second=by_nin, neither=nin
)
assert str(changed) == "-3.1 (-3.9 to -2.4)"
carried = answer("one_by_one_batch_norm", compact).runs["nin_28_batch_norm"]
assert f"{summary(carried).mean:.1%}" == "87.4%"
assert {run.recipe for run in carried} == {plain}

# %% table-published
quoted = {row["test error"] for row in table.values() if row["source"] != "measured"}
assert quoted == {f"{reported.error_percent}%" for reported in NIN_ERRORS}
of_card = next(reported for reported in NIN_ERRORS if reported.source == "LinCard")
assert f"{100 - float(of_card.error_percent):.1f}%" == "89.6%"
of_paper = next(r for r in NIN_ERRORS if r.data_set == of_card.data_set)
assert f"{float(of_paper.error_percent):.1f}" == of_card.error_percent
assert len(table) == len(NIN_ERRORS) + 2

# %% exercises
of_one, of_many = (sampling_error(0.9, images) for images in (1, 90_000))
assert f"{of_many:.3f}, {100 * of_many:.1f} points" == "0.001, 0.1 points"
assert f"{(of_one / of_many) ** 2:,.0f}" == "90,000"
assert round((of_one / of_many) ** 2) == 9 * len(test)

# %% ex-steps
half = replace(plain, batch_size=plain.batch_size // 2)
assert (half.batch_size, half.steps_an_epoch) == (64, 937)
assert f"{half.steps:,}" == "4,685"

# %% ex-budget
assert f"{5 * macs_of['vgg11_28'] / macs_of['nin_28']:.1f}" == "13.8"

# %% ex-noise
googlenet = difference(groups["googlenet_28"], groups["nin_28"])
assert f"{100 * googlenet.mean:.1f} {100 * googlenet.low:.1f}" == "-1.0 -2.1"
assert -0.001 < googlenet.high < 0
assert not difference(groups["googlenet_28"], groups["nin_28"], confidence).shown
assert f"{len(rivals)} comparisons, {confidence:.0%}" == "5 comparisons, 99%"
