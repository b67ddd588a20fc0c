"""Which runs answer which question?

The plans as data: two scales of the same questions, ``full`` (the textbook's images at 224x224, for
a GPU) and ``compact`` (28x28, for one CPU core), and a ``rehearsal`` that answers nothing.

The full plan is made in stages, none longer than a quarter of an hour of an H100, which is how long
one can be had now and then. What its first stage showed shaped the others: seven of its 19 runs
relapsed, five of them after the third epoch. So rates are judged by the training loss of five
epochs, and the exercises are asked again under a recipe that should hold: batch normalization, and
a rate that ends at 0. Runs of one seed have nothing in common (over the compact rows the endings
correlate by less than 0.1), so seeds are never paired.

Imports from ninlab: recipes, errors, estimates, `planning` and `rates`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from ninlab import recipes
from ninlab.errors import UnknownNameError
from ninlab.estimates import LinearCost, RooflineCost
from ninlab.experiments.planning import Experiment, Plan, Stage, Variant
from ninlab.experiments.rates import RateRule
from ninlab.recipes import EvaluationSet, Recipe
from ninlab.steps import Precision

SWEEP = "rate_sweep"
PEAK_SWEEP = "peak_sweep"

EXERCISES = {
    "one_by_one": ("How many 1x1 layers does a block need?", "05_how_many_1x1"),
    "window": ("What do 3x3 windows add in place of the 1x1 layers?", "05_how_many_1x1"),
    "head": (
        "Does averaging the class maps learn better than a fully connected head?",
        "06_global_average_pooling",
    ),
    "bottleneck": ("Does it hurt to narrow to ten channels in one step, or so late?",
                   "09_bottleneck"),
    "family": ("Does NiN gain from depth as VGG does?", "10_nin_family"),
}  # fmt: skip
"""The questions that are asked of the repaired network, and their chapters."""

DESIGNS = {
    "one_by_one": ("no_1x1", "one_1x1", "three_1x1"),
    "window": ("3x3",),
    "head": ("linear_head", "fully_connected"),
    "bottleneck": ("gradual", "early_classes"),
    "family": ("6_blocks", "8_blocks"),
}
"""What is changed for each of them, as it ends the name of the network."""


@dataclass(frozen=True)
class Scale:
    """What differs between the two scales: networks, their textbook rates, and how long."""

    textbook: str  # the network whose collapse is studied
    fixed: str  # the repaired network that the exercises start from
    julia: str
    rivals: Mapping[str, float]  # network and the rate of its textbook
    textbook_rate: float
    other_rate: float  # of the textbook's other edition
    fixed_rate: float
    epochs: int
    improved_epochs: int
    sweep_epochs: int
    precision: Precision
    seeds: int  # of an exercise's rows
    textbook_seeds: int
    other_rate_seeds: int
    repair_seeds: int
    rival_seeds: int
    own_rate_seeds: int
    keep_all_weights: bool  # that chapters look into; else those of one repaired network alone

    def recipe(self, learning_rate: float) -> Recipe:
        """The textbook's recipe at that rate: plain SGD, batches of 128, pixels over 255."""
        return Recipe(learning_rate, self.epochs, precision=self.precision)

    def improved(self, peak: float) -> Recipe:
        """The better recipe, `recipes.improved`, to that peak of the rate."""
        return replace(recipes.improved(self.recipe(peak)), epochs=self.improved_epochs)

    def swept(self, recipe: Recipe) -> Recipe:
        """The recipe as it is tried before its rate is chosen: shorter, on held-out images."""
        return replace(recipe, epochs=self.sweep_epochs, evaluation_set=EvaluationSet.HELD_OUT)

    def variant(self, network: str, *, rate: float | None = None, **changes: object) -> Variant:
        """The network under the textbook's recipe, by default at the repaired network's rate."""
        recipe = self.recipe(self.fixed_rate if rate is None else rate)
        return replace(Variant(network, network, recipe, self.seeds), **changes)  # type: ignore[arg-type]


# ---------------------------------------------------------------- experiments of both scales


def collapse(scale: Scale) -> Experiment:
    """The textbook's network, seed by seed, and each of its repairs."""
    textbook = scale.textbook
    return Experiment(
        "collapse",
        "Why does the textbook's NiN end anywhere from 10 % to 87 %, and what repairs it?",
        "04_why_nin_collapses",
        (
            scale.variant(
                textbook,
                rate=scale.textbook_rate,
                seeds=scale.textbook_seeds,
                kept_seeds=scale.textbook_seeds if scale.keep_all_weights else 0,
            ),
            scale.variant(
                textbook,
                rate=scale.other_rate,
                name=f"{textbook}_lr{scale.other_rate:g}",
                seeds=scale.other_rate_seeds,
            ),
            *(
                scale.variant(
                    f"{textbook}_{repair}", rate=scale.textbook_rate, seeds=scale.repair_seeds
                )
                for repair in ("zero_bias", "linear_last", "kaiming", "batch_norm", "gradual")
            ),
            scale.variant(scale.julia, rate=scale.textbook_rate, seeds=scale.repair_seeds),
            scale.variant(
                scale.fixed,
                seeds=scale.repair_seeds,
                kept_seeds=scale.repair_seeds if scale.keep_all_weights else 1,
            ),
        ),
    )


def baselines(scale: Scale, most_seeds: Mapping[str, int]) -> Experiment:
    """The rivals under the textbook's recipe; most_seeds limits those of costly ones."""
    return Experiment(
        "baselines",
        "How well do AlexNet, VGG-11 and GoogLeNet learn under the textbook's recipe?",
        "03_training",
        tuple(
            scale.variant(
                network, rate=rate, seeds=most_seeds.get(network, scale.rival_seeds)
            )
            for network, rate in scale.rivals.items()
        ),
        (f"collapse/{scale.textbook}", f"collapse/{scale.fixed}"),
    )  # fmt: skip


def exercises(scale: Scale, keep: str = "") -> tuple[Experiment, ...]:
    """Every exercise on the repaired network; the weights of the design keep are kept."""

    def kept(design: str) -> int:
        return scale.seeds if scale.keep_all_weights and design == keep else 0

    return tuple(
        Experiment(
            name,
            question,
            chapter,
            tuple(
                scale.variant(f"{scale.fixed}_{design}", kept_seeds=kept(design))
                for design in DESIGNS[name]
            ),
            (f"collapse/{scale.fixed}",),
        )
        for name, (question, chapter) in EXERCISES.items()
    )


def rate_sweep(scale: Scale, rates: Iterable[tuple[str, float]]) -> Experiment:
    """Those networks at those rates of plain SGD, one seed each."""
    return Experiment(
        SWEEP,
        "Which learning rate suits each network, judged on held-out training images?",
        "03_training",
        tuple(
            scale.variant(
                network,
                name=f"{network}_lr{rate:g}",
                seeds=1,
                recipe=scale.swept(scale.recipe(rate)),
            )
            for network, rate in rates
        ),
    )


def own_rate(
    scale: Scale, rule: RateRule, tried: Mapping[str, Sequence[str]], question: str
) -> Experiment:
    """Networks at the rate that the rule chooses among the rows at which each was tried."""
    return Experiment(
        "own_rate",
        question,
        "03_training",
        tuple(
            scale.variant(
                network, seeds=scale.own_rate_seeds, rate_from=tuple(rows), rate_rule=rule
            )
            for network, rows in tried.items()
        ),
    )


def improved(scale: Scale, *, seeds: int, rival_seeds: int, **choice: Any) -> Experiment:
    """NiN and AlexNet under the better recipe; choice says how NiN's rate is chosen, if it is."""
    alexnet = next(iter(scale.rivals))
    row = partial(scale.variant, seeds=rival_seeds)
    return Experiment(
        "improved",
        "How far do batch normalization, momentum, a schedule and mirroring carry?",
        "03_training",
        (
            row(
                f"{scale.fixed}_batch_norm",
                recipe=scale.improved(0.05),
                seeds=seeds,
                **choice,
            ),
            row(alexnet, recipe=scale.improved(0.02)),
            row(f"{alexnet}_batch_norm", recipe=scale.improved(0.05)),
        ),
    )


def one_by_one_batch_norm(scale: Scale, seeds: int) -> Experiment:
    """The number of 1x1 layers once more, with batch normalization under the textbook's recipe."""
    return Experiment(
        "one_by_one_batch_norm",
        "How many 1x1 layers does a block need when batch normalization carries the gradient?",
        "05_how_many_1x1",
        tuple(
            scale.variant(f"{scale.fixed}_{design}batch_norm", seeds=seeds)
            for design in ("no_1x1_", "one_1x1_", "")
        ),
    )


# ---------------------------------------------------------------- the compact scale

COMPACT = Scale(
    textbook="nin_28_textbook",
    fixed="nin_28",
    julia="nin_julia_28",
    rivals=dict.fromkeys(("alexnet_28", "vgg11_28", "vgg11_quarter_28", "googlenet_28"), 0.1),
    textbook_rate=0.1,
    other_rate=0.05,
    fixed_rate=0.1,
    epochs=5,
    improved_epochs=5,
    sweep_epochs=2,
    precision=Precision.FP32,
    seeds=3,
    textbook_seeds=5,
    other_rate_seeds=5,
    repair_seeds=5,
    rival_seeds=3,
    own_rate_seeds=3,
    keep_all_weights=True,
)


def compact_experiments(scale: Scale) -> tuple[Experiment, ...]:
    """Every experiment of the small networks, the most wanted first."""
    # whose answer a shared rate would decide: the shallowest, the deepest, and the other heads
    extremes = ("no_1x1", "three_1x1", "8_blocks", "linear_head", "fully_connected")
    nets = (scale.fixed, *(f"{scale.fixed}_{design}" for design in extremes), *scale.rivals)
    tried = [(network, rate) for network in nets for rate in (0.025, 0.05, 0.1, 0.2)]
    return (
        collapse(scale),
        baselines(scale, {}),
        *exercises(scale, keep="linear_head"),
        rate_sweep(scale, tried),
        own_rate(
            scale,
            RateRule.BEST,
            {
                network: [f"{SWEEP}/{name}_lr{rate:g}" for name, rate in tried if name == network]
                for network in nets
            },
            "How do the networks compare when each trains at its own best rate?",
        ),
        improved(scale, seeds=scale.own_rate_seeds, rival_seeds=scale.own_rate_seeds),
        one_by_one_batch_norm(scale, scale.own_rate_seeds),
    )


# ---------------------------------------------------------------- the full scale

FULL = Scale(
    textbook="nin",
    fixed="nin_fixed",
    julia="nin_julia",
    rivals={"alexnet": 0.01, "vgg11_quarter": 0.01, "googlenet": 0.1, "vgg11": 0.01},
    textbook_rate=0.05,
    other_rate=0.1,
    fixed_rate=0.05,
    epochs=10,
    improved_epochs=6,
    sweep_epochs=5,
    precision=Precision.BF16,
    seeds=1,  # at a rate at which half of the rows relapse, more of the same answers nothing
    textbook_seeds=10,
    other_rate_seeds=6,
    repair_seeds=2,
    rival_seeds=2,
    own_rate_seeds=3,
    keep_all_weights=False,  # 8 MB a NiN travel in every wheel, and to every GPU
)

LOWER_RATES = {
    0.025: ("no_1x1", "", "three_1x1", "3x3", "linear_head", "fully_connected", "gradual",
            "6_blocks", "8_blocks"),
    0.0125: ("three_1x1", "fully_connected", "6_blocks", "8_blocks"),  # that failed worst at 0.05
    0.1: ("no_1x1", "3x3", "linear_head"),  # that held at 0.05
}  # fmt: skip
"""Rates beside the first stage's 0.05, and the designs that are tried at them."""

PEAKS = {
    "": (0.05, 0.1, 0.2),
    "8_blocks_": (0.05, 0.1),
    "no_1x1_": (0.1,),
    "fully_connected_": (0.1,),
    "three_1x1_": (0.1,),
}
"""Peaks of the one-cycle schedule at which designs with batch normalization are tried. The design
that all others are compared with decides by its accuracy; the others rule out from which rate on
they are harmed, as far as they were tried."""

IMPROVED_DESIGNS = {
    "one_by_one": ("no_1x1", "three_1x1"),
    "window": ("3x3",),
    "head": ("linear_head", "fully_connected"),
    "bottleneck": ("gradual",),
    "family": ("8_blocks",),
}
"""The designs that are compared under the better recipe, with batch normalization."""

_COSTLY = "vgg11"
REFERENCE_SEEDS = 7
"""Of the row that seven others are compared with, which have two or three each: comparing k rows
with one control, seeds are best spent with the square root of k times as many on the control
(Dunnett, doi 10.1080/01621459.1955.10501294). `ninlab.decisions` says what they then show."""


def _named(network: str, design: str) -> str:
    return f"{network}_{design}" if design else network


def full_experiments(scale: Scale) -> tuple[Experiment, ...]:
    """Every experiment of the textbook's networks."""
    tried = [
        (_named(scale.fixed, design), rate)
        for rate, designs in LOWER_RATES.items()
        for design in designs
    ]
    peaks = _peak_sweep(scale)
    chosen = {
        "rate_from": tuple(peaks.rows),
        "rate_judge": f"{scale.fixed}_batch_norm",  # with which all designs are compared
    }
    return (
        collapse(scale),
        *exercises(scale),
        rate_sweep(scale, tried),
        peaks,
        _precision(scale, Precision.TF32),
        improved(scale, seeds=REFERENCE_SEEDS, rival_seeds=3, **chosen),
        *_improved_exercises(scale, chosen),
        own_rate(
            scale,
            RateRule.SAFE,
            _where_tried(scale, tried, ("", "no_1x1", "three_1x1", "3x3", "linear_head")),
            "How do the networks compare when each trains at the highest rate that it bears?",
        ),
        baselines(scale, {_COSTLY: 1}),
        one_by_one_batch_norm(scale, 1),
    )


def _peak_sweep(scale: Scale) -> Experiment:
    """The designs with batch normalization at their peaks."""
    return Experiment(
        PEAK_SWEEP,
        "Up to which rate may the better recipe climb, judged on held-out training images?",
        "03_training",
        tuple(
            scale.variant(
                f"{scale.fixed}_{design}batch_norm",
                name=f"{scale.fixed}_{design}batch_norm_lr{peak:g}",
                seeds=1,
                recipe=scale.swept(scale.improved(peak)),
            )
            for design, of_design in PEAKS.items()
            for peak in of_design
        ),
    )


def _improved_exercises(scale: Scale, chosen: Mapping[str, Any]) -> Iterator[Experiment]:
    """The exercises under the better recipe; chosen says how their rate is chosen."""
    for name, designs in IMPROVED_DESIGNS.items():
        question, chapter = EXERCISES[name]
        yield Experiment(
            f"{name}_improved",
            f"{question.removesuffix('?')}, under the better recipe?",
            chapter,
            tuple(
                scale.variant(
                    f"{scale.fixed}_{design}_batch_norm",
                    seeds=3,
                    recipe=scale.improved(0.05),
                    **chosen,
                )
                for design in designs
            ),
            (f"improved/{scale.fixed}_batch_norm",),
        )


def _where_tried(
    scale: Scale, swept: Sequence[tuple[str, float]], designs: Iterable[str]
) -> dict[str, list[str]]:
    """The rows in which each design is trained by plain SGD: its exercise's, and the sweep's."""
    exercise = {design: name for name, of_name in DESIGNS.items() for design in of_name}
    return {
        network: [
            f"{exercise.get(design, 'collapse')}/{network}",
            *(f"{SWEEP}/{name}_lr{rate:g}" for name, rate in swept if name == network),
        ]
        for design in designs
        for network in [_named(scale.fixed, design)]
    }


def _precision(scale: Scale, other: Precision) -> Experiment:
    recipe = replace(scale.recipe(scale.fixed_rate), precision=other)
    return Experiment(
        "precision",
        f"Does {scale.precision} arithmetic cost accuracy against {other}?",
        "13_flops_are_not_time",
        (scale.variant(scale.fixed, name=f"{scale.fixed}_{other}", recipe=recipe),),
        (f"collapse/{scale.fixed}",),
    )


_IMPROVED_EXERCISES = tuple(f"{name}_improved" for name in IMPROVED_DESIGNS)
_REFERENCE = f"improved/{FULL.fixed}_batch_norm"
FULL_STAGES = (
    Stage(
        "first",
        "every design once, at the textbook's rate",
        dict.fromkeys(("collapse", *EXERCISES), 1),
    ),
    Stage(
        "rates",
        "which rates do the designs bear, and is bfloat16 to blame for what they do not?",
        {SWEEP: 1, PEAK_SWEEP: 1, "precision": 1, f"collapse/{FULL.textbook}": 3},
    ),
    Stage(
        "exercises",
        "the exercises under the better recipe, with batch normalization",
        {_REFERENCE: REFERENCE_SEEDS, **dict.fromkeys(_IMPROVED_EXERCISES, 2)},
    ),
    Stage(
        "seeds",
        "a third seed of those, and how often the textbook's network collapses",
        {
            **dict.fromkeys(_IMPROVED_EXERCISES, 3),
            f"collapse/{FULL.textbook}": FULL.textbook_seeds,
            f"collapse/{FULL.textbook}_lr{FULL.other_rate:g}": FULL.other_rate_seeds,
        },
    ),
    Stage("plain", "the exercises under plain SGD, at rates that hold", {"own_rate": 3}),
    Stage(
        "rivals",
        "the other networks, under the textbook's recipe and the better one",
        {**{f"baselines/{name}": 2 for name in FULL.rivals if name != _COSTLY}, "improved": 3},
    ),
    Stage("costly", "a single run of VGG-11, which takes minutes", {f"baselines/{_COSTLY}": 1}),
)

# ---------------------------------------------------------------- a rehearsal

REHEARSAL = Plan(
    "rehearsal",
    "three runs of a few steps, to try a machine and the way home of its records",
    (
        Experiment(
            "rehearsal",
            "Does what is recorded here arrive?",
            "records",
            tuple(
                Variant(name, name, Recipe(0.05, 1, batch_size=64, train_images=640), seeds=1)
                for name in ("nin_28", "nin_28_no_1x1", "nin_28_linear_head")
            ),
        ),
    ),
    LinearCost(seconds_per_layer=1.0e-3, seconds_per_parameter=7e-9, seconds_per_mac=3.3e-11),
)

PLANS: Mapping[str, Plan] = {
    "compact": Plan(
        "compact",
        "28x28 images and small networks, for one CPU core",
        compact_experiments(COMPACT),
        # fitted to 12 networks at batch 128 on one core of an AMD EPYC with AVX-512
        LinearCost(seconds_per_layer=1.0e-4, seconds_per_parameter=6.9e-9, seconds_per_mac=3.3e-11),
    ),
    "full": Plan(
        "full",
        "224x224 images and the textbook's networks, for one GPU",
        full_experiments(FULL),
        RooflineCost("h100"),
        FULL_STAGES,
    ),
}
"""The two plans that answer something, by name."""


def plan(name: str) -> Plan:
    """The plan of that name, the rehearsal too. Raises UnknownNameError, which lists the names."""
    known = {**PLANS, REHEARSAL.name: REHEARSAL}
    try:
        return known[name]
    except KeyError:
        raise UnknownNameError("plan", name, known) from None
