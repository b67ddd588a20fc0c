# The numbers of 03_training, proved: each part runs behind the cell that it names.

# %% hidden-imports
import math
from dataclasses import replace
from itertools import accumulate

import torch

from ninlab.comparisons import sampling_error

torch.set_num_threads(1)

# %% check-prediction
assert f"{100 * sampling_error(0.85, 10_000):.2f}" == "0.36"
assert f"{0.85:.0%} {0.86:.0%}" == "85% 86%"
nin_macs = formulas.macs(architecture("nin_28"))
assert f"{nin_macs / 1e6:.2f} M" == "1.22 M"
images = 5 * 60_000
assert f"{60_000:,} {10_000:,} {images:,}" == "60,000 10,000 300,000"
assert f"{6 * nin_macs * images / 1e12:.1f} T" == "2.2 T"
assert {architecture(n).input_shape for n in ("nin", "alexnet", "vgg11")} == {(1, 224, 224)}
assert f"{224}×{224}" == "224×224"
side = architecture("googlenet").input_shape[-1]
assert f"{side}×{side}" == "96×96"
assert f"{28}×{28}" == "28×28"
assert torch.iinfo(torch.uint8).max == 255
assert f"{sum(run.wall_seconds for run in compact) / 3600:.0f} h" == "2 h"

# %% count-table
assert f"{60_000 // 128} steps" == "468 steps"
assert 60_000 % 128 == 96
assert f"{5 * (60_000 // 128):,}" == "2,340"
assert len({architecture(n).initialization for n in names}) == 1
parameters = {n: formulas.parameters(architecture(n)) for n in names}
macs = {n: formulas.macs(architecture(n)) for n in names}
assert f"{parameters['alexnet_28'] / parameters['nin_28']:.0f} times" == "20 times"
assert f"{macs['alexnet_28'] / macs['nin_28']:.1f} times" == "1.8 times"
assert f"{parameters['vgg11_28'] / parameters['nin_28']:.0f} times" == "51 times"
assert f"{macs['vgg11_28'] / macs['nin_28']:.1f} times" == "2.8 times"

# %% hidden-baselines
assert {r.recipe.batch_size for g in chosen.values() for r in g} == {128}
assert {r.recipe.learning_rate for g in chosen.values() for r in g} == {0.1}
(epochs,) = {r.recipe.epochs for g in chosen.values() for r in g}
assert f"{epochs} epochs" == "5 epochs"
numbers = sorted({len(group) for group in chosen.values()})
assert [f"{number} seeds" for number in numbers] == ["3 seeds", "5 seeds"]

# %% difference
small = {n: summary(chosen[n]) for n in ("nin_28", "alexnet_28", "vgg11_28")}
assert [f"{s.mean:.1%}" for s in small.values()] == [
    "83.8%",
    "87.2%",
    "87.1%",
]
assert str(behind_alexnet) == "-3.4 (-5.0 to -1.8)"
others = [name for name in chosen if name != "nin_28"]
at_once = difference(
    chosen["nin_28"],
    chosen["alexnet_28"],
    confidence=1 - 0.05 / len(others),
)
assert (len(others), f"{1 - 0.05 / len(others):.0%}") == (5, "99%")
assert str(at_once) == "-3.4 (-5.9 to -0.9)"
assert str(behind_vgg) == "-3.4 (-5.0 to -1.8)"
assert behind_alexnet.shown
assert behind_vgg.shown
textbook = summary(chosen["nin_28_textbook"])
assert f"{textbook.mean:.1%}" == "62.2%"
assert f"{100 * textbook.deviation:.1f}" == "19.9"
assert f"{100 * small['alexnet_28'].deviation:.1f}" == "0.4"
assert not difference(chosen["googlenet_28"], chosen["nin_28"]).shown
assert f"{0.95:.0%}" == "95%"
for epoch in range(5):
    middle = {
        name: median(run.epochs[epoch].test_accuracy for run in chosen[name]) for name in small
    }
    assert min(middle, key=middle.get) == "nin_28"


# %% fig-training-time
def on_the_way(name):
    """Median seconds and accuracy after each epoch."""
    group = chosen[name]
    seconds = (accumulate(e.seconds for e in run.epochs) for run in group)
    accuracy = ([e.test_accuracy for e in run.epochs] for run in group)
    return [
        f"{median(s):.1f} s: {median(a):.1%}"
        for s, a in zip(
            zip(*seconds, strict=True),
            zip(*accuracy, strict=True),
            strict=True,
        )
    ]


def first_epoch(way):
    return float(way[0].split()[0])


nin_way, alexnet_way, vgg_way = map(on_the_way, ("nin_28", "alexnet_28", "vgg11_28"))
assert vgg_way[0] == "15.6 s: 76.6%"
assert nin_way[2] == "13.6 s: 81.9%"
assert nin_way[-1] == "23.0 s: 83.6%"
assert alexnet_way[1:3] == ["15.4 s: 82.9%", "25.9 s: 85.9%"]
assert min(nin_way, alexnet_way, vgg_way, key=first_epoch) is nin_way
took = [sum(e.seconds for e in run.epochs) for run in chosen["nin_28"]]
assert f"{min(took):.0f} {max(took):.0f} s" == "17 27 s"

# %% hidden-sweep
small_own = answer("own_rate", compact).runs

# %% fig-rates
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
by_name = {run.name: run.last.test_accuracy for run in small_sweep}
assert f"{by_name['googlenet_28_lr0.05']:.0%}" == "75%"
assert f"{by_name['googlenet_28_lr0.2']:.0%}" == "43%"
assert f"{0.01} {0.05}" == "0.01 0.05"
assert f"{5_000:,} {55_000:,}" == "5,000 55,000"
assert {run.data_set.train_images for run in small_sweep} == {55_000}
(epochs,) = {run.recipe.epochs for run in small_sweep}
assert f"{epochs} epochs" == "2 epochs"

# %% fig-own-rate
kept = ("nin_28", "alexnet_28", "vgg11_28")
for name in kept:
    before = {run.seed: run.loss.values for run in chosen[name]}
    assert all(run.loss.values == before[run.seed] for run in small_own[name])
moved = ("googlenet_28", "vgg11_quarter_28")
assert [f"{summary(rows[n]).mean:.1%}" for n in moved for rows in (chosen, small_own)] == [
    "83.0%",
    "82.4%",
    "79.6%",
    "80.8%",
]
assert all(summary(chosen["nin_28"]).mean > summary(small_own[n]).mean for n in moved)
kept_nin = summary(small_own["nin_28"])
assert f"{kept_nin.mean:.1%}" == "83.2%"
repeated = f"{kept_nin.runs} of {len(chosen['nin_28'])} seeds"
assert repeated == "3 of 5 seeds"

# %% table-better
improved = answer("improved", compact).runs
by_nin, *by_alexnet = (
    improved[name] for name in ("nin_28_batch_norm", "alexnet_28_batch_norm", "alexnet_28")
)
ends = [f"{summary(group).mean:.1%}" for group in (by_nin, *by_alexnet)]
assert ends == ["89.7%", "89.7%", "88.6%"]
gaps = [difference(group, by_nin) for group in by_alexnet]
assert list(map(str, gaps)) == [
    "+0.0 (-1.1 to +1.0)",
    "-1.1 (-1.6 to -0.6)",
]
assert [gap.shown for gap in gaps] == [False, True]
(by_both,) = {
    run.recipe for name in ("nin_28_batch_norm", "alexnet_28_batch_norm") for run in improved[name]
}
assert by_both.learning_rate == 0.05
assert by_both.momentum
assert by_both.weight_decay
assert by_both.standardize
assert (by_both.schedule, by_both.augmentation) == ("one_cycle", "flip")
(of_third,) = {run.recipe for run in improved["alexnet_28"]}
assert replace(of_third, learning_rate=0.05) == by_both
assert f"{0.05} {of_third.learning_rate}" == "0.05 0.02"
assert f"{by_both.epochs} epochs" == "5 epochs"
assert f"{len(by_nin)} seeds" == "3 seeds"
assert {len(group) for group in by_alexnet} == {len(by_nin)}
carried = answer("one_by_one_batch_norm", compact).runs["nin_28_batch_norm"]
assert f"{summary(carried).mean:.1%}" == "87.3%"
by_plain = {run.recipe for run in chosen["nin_28"]}
assert {run.recipe for run in carried} == by_plain

# %% live-cell
assert f"{12_800:,}" == "12,800"
assert accuracy > 0.5
assert f"{0.5:.0%} {0.1:.0%}" == "50% 10%"
assert abs(first - math.log(10)) < 1

# %% live-text
assert f"{math.log(10):.1f}" == "2.3"
assert len(live.losses) == 100

# %% exercises
assert f"{round(0.9 * 0.1 / 0.001**2):,}" == "90,000"
assert math.isclose(sampling_error(0.9, 90_000), 0.001)
assert f"{0.9:.0%}" == "90%"
assert f"{100 * 0.001:.1f} {0.9} {0.001}" == "0.1 0.9 0.001"

# %% ex-steps
assert 60_000 // 64 == 937
assert f"{5 * (60_000 // 64):,}" == "4,685"
assert 128 // 2 == 64

# %% ex-budget
assert f"{5 * macs['vgg11_28'] / macs['nin_28']:.1f}" == "13.8"

# %% ex-noise
googlenet = difference(chosen["googlenet_28"], chosen["nin_28"])
assert not googlenet.shown
assert str(googlenet) == "-0.8 (-2.8 to +1.2)"
