"""Which runs answer which question?

The plans as data: two scales of the same questions, ``full`` (the textbook's images at 224x224, for
a GPU) and ``compact`` (28x28, for one CPU core); ``middle``, which asks of the textbook's own
widths, at 96x96, what a CPU can answer in minutes; and a ``rehearsal`` that answers nothing.

How many seeds a row of the compact plan gets was decided beforehand, by what the first seeds
spread: `ninlab.power` says how many an interval needs to lie within a point, and the rows with
batch normalization get that many. Rows of plain SGD spread more: of the repaired network it
takes some 25 to 100 runs that hold, of the one that collapses thousands. They get 20, which tells
differences of one to two points, and how often a design fails. `runs --power compact` says so of
each comparison.

The full plan is made in stages, none longer than a quarter of an hour of an H100, which is how long
one can be had now and then. What its first stage showed shaped the others: seven of its 19 runs
relapsed, five of them after the third epoch. So rates are judged by the training loss of five
epochs, and the exercises are asked again under a recipe that should hold: batch normalization, and
a rate that ends at 0. Runs of one seed have nothing in common (over the compact rows the endings
correlate by less than 0.1), so seeds are never paired.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ninlab import recipes
from ninlab.architectures import architecture, normalized, variant_of
from ninlab.errors import UnknownNameError
from ninlab.estimates import LinearCost, RooflineCost
from ninlab.experiments.planning import Experiment, Plan, Row, Stage
from ninlab.experiments.rates import RateRule
from ninlab.recipes import EvaluationSet, Recipe
from ninlab.steps import Precision

SWEEP = "rate_sweep"
PEAK_SWEEP = "peak_sweep"


@dataclass(frozen=True)
class Exercise:
    """A question about the repaired network, and the variants of it that answer."""

    name: str
    question: str
    variants: tuple[str, ...]
    again: tuple[str, ...]  # those of the full scale under the better recipe, normalized
    compact: tuple[str, ...] = ()  # variants that only the compact scale can pay for


EXERCISES = (
    Exercise(
        "one_by_one",
        "How many 1x1 layers does a block need?",
        ("no_1x1", "one_1x1", "three_1x1"),
        again=("no_1x1", "three_1x1"),
    ),
    Exercise(
        "window",
        "What do 3x3 windows add in place of the 1x1 layers?",
        ("3x3",),
        again=("3x3",),
    ),
    Exercise(
        "head",
        "Does averaging the class maps learn better than a fully connected head?",
        ("linear_head", "fully_connected"),
        again=("linear_head", "fully_connected"),
    ),
    Exercise(
        "bottleneck",
        "Does it hurt to narrow to ten channels in one step, or so late?",
        ("gradual", "early_classes"),
        again=("gradual",),
    ),
    Exercise(
        "family",
        "Does NiN gain from depth as VGG does?",
        ("6_blocks", "8_blocks"),
        again=("8_blocks",),
        compact=("doubling", "8_blocks_doubling"),
    ),
)


Designs = Callable[[Exercise], tuple[str, ...]]
"""Which variants an exercise is asked of."""

AGAIN = tuple(f"{exercise.name}_improved" for exercise in EXERCISES)


def at_full_size(exercise: Exercise) -> tuple[str, ...]:
    """The variants of the textbook's recipe on a GPU."""
    return exercise.variants


def at_full_size_again(exercise: Exercise) -> tuple[str, ...]:
    """The variants of the better recipe on a GPU."""
    return exercise.again


def compact(exercise: Exercise) -> tuple[str, ...]:
    """The variants of the small networks, under either recipe."""
    return exercise.variants + exercise.compact


@dataclass(frozen=True)
class Scale:
    """What differs between the scales: networks, their textbook rates, and how long."""

    textbook: str  # the network whose collapse is studied
    fixed: str  # the repaired network that the exercises start from
    rivals: Mapping[str, float]  # network and the rate of its textbook, AlexNet first
    textbook_rate: float
    other_rate: float  # of the textbook's other edition
    fixed_rate: float
    epochs: int
    improved_epochs: int
    sweep_epochs: int
    precision: Precision
    train_images: int | None = None

    def variant(self, variant: str) -> str:
        """The name of that variant of the repaired network."""
        return variant_of(self.fixed, variant).name

    def recipe(self, learning_rate: float) -> Recipe:
        """The textbook's recipe at that rate: plain SGD, batches of 128, pixels over 255."""
        return Recipe(
            learning_rate, self.epochs, precision=self.precision, train_images=self.train_images
        )

    def improved(self, peak: float) -> Recipe:
        """The better recipe, `recipes.improved`, to that peak of the rate."""
        return replace(recipes.improved(self.recipe(peak)), epochs=self.improved_epochs)

    def swept(self, recipe: Recipe) -> Recipe:
        """The recipe as it is tried before its rate is chosen: shorter, on held-out images."""
        return replace(recipe, epochs=self.sweep_epochs, evaluation_set=EvaluationSet.HELD_OUT)

    def row(self, network: str, recipe: Recipe | None = None, **choice: Any) -> Row:
        """The network under the recipe, by default the textbook's at the repaired one's rate."""
        return Row(network, network, recipe or self.recipe(self.fixed_rate), seeds=1, **choice)


def _at_its_rate(row: Row) -> Row:
    """The row with its rate in its name, where a network has several."""
    return replace(row, name=f"{row.network}_lr{row.recipe.learning_rate:g}")


def _with_seeds(
    experiments: Iterable[Experiment], seeds: Mapping[str, int], kept: Mapping[str, int]
) -> tuple[Experiment, ...]:
    """The experiments with the number of seeds of each row, and of how many weights are kept.

    seeds are looked up by "experiment/row", by the experiment's name, and by "", for all others;
    kept by "experiment/row".
    """
    return tuple(
        replace(
            experiment,
            rows=tuple(
                replace(
                    row,
                    seeds=seeds.get(path, seeds.get(experiment.name, seeds[""])),
                    kept_seeds=kept.get(path, 0),
                )
                for path, row in experiment.by_path.items()
            ),
        )
        for experiment in experiments
    )


# ---------------------------------------------------------------- experiments of both scales


def collapse(scale: Scale) -> Experiment:
    """The textbook's network and each of its repairs."""
    repairs = ("zero_bias", "linear_last", "kaiming", normalized(), "gradual", "julia")
    printed = scale.recipe(scale.textbook_rate)
    return Experiment(
        "collapse",
        "Why does the textbook's NiN end anywhere from 10 % to 87 %, and what repairs it?",
        (
            scale.row(scale.textbook, printed),
            _at_its_rate(scale.row(scale.textbook, scale.recipe(scale.other_rate))),
            *(scale.row(variant_of(scale.textbook, repair).name, printed) for repair in repairs),
            scale.row(scale.fixed),
        ),
    )


def baselines(scale: Scale) -> Experiment:
    """The rivals under the textbook's recipe."""
    # each once, whatever its width
    titles = dict.fromkeys(architecture(of).short_title.partition(",")[0] for of in scale.rivals)
    *others, last = titles
    do, named = ("do", f"{', '.join(others)} and {last}") if others else ("does", last)
    return Experiment(
        "baselines",
        f"How well {do} {named} learn under the textbook's recipe?",
        tuple(scale.row(name, scale.recipe(rate)) for name, rate in scale.rivals.items()),
        (f"collapse/{scale.textbook}", f"collapse/{scale.fixed}"),
        against=dict.fromkeys(scale.rivals, f"collapse/{scale.fixed}"),
    )


def exercises(scale: Scale, designs: Designs) -> Iterator[Experiment]:
    """Every exercise on the repaired network, asked of those designs."""
    for exercise in EXERCISES:
        rows = tuple(scale.row(scale.variant(variant)) for variant in designs(exercise))
        yield Experiment(exercise.name, exercise.question, rows, (f"collapse/{scale.fixed}",))


def exercises_again(scale: Scale, designs: Designs, **choice: Any) -> Iterator[Experiment]:
    """The exercises under the better recipe; choice says how their rate is chosen, if it is."""
    reference = f"improved/{scale.variant(normalized())}"
    for name, exercise in zip(AGAIN, EXERCISES, strict=True):
        yield Experiment(
            name,
            f"{exercise.question.removesuffix('?')}, under the better recipe?",
            tuple(
                scale.row(scale.variant(normalized(variant)), scale.improved(0.05), **choice)
                for variant in designs(exercise)
            ),
            (reference,),
        )


def rate_sweep(scale: Scale, tried: Iterable[tuple[str, float]]) -> Experiment:
    """Those networks at those rates of plain SGD."""
    return Experiment(
        SWEEP,
        "Which learning rate suits each network, judged on held-out training images?",
        tuple(
            _at_its_rate(scale.row(network, scale.swept(scale.recipe(rate))))
            for network, rate in tried
        ),
    )


def own_rate(
    scale: Scale, rule: RateRule, tried: Mapping[str, Sequence[str]], question: str
) -> Experiment:
    """Networks at the rate that the rule chooses among the rows at which each was tried."""
    return Experiment(
        "own_rate",
        question,
        tuple(
            scale.row(network, rate_from=tuple(rows), rate_rule=rule)
            for network, rows in tried.items()
        ),
    )


def _tried(sweep: Experiment, network: str) -> list[str]:
    """Where a sweep tries that network: "experiment/row"."""
    return [path for path, row in sweep.by_path.items() if row.network == network]


def improved(scale: Scale, **choice: Any) -> Experiment:
    """NiN and AlexNet under the better recipe; choice says how NiN's rate is chosen, if it is."""
    alexnet = next(iter(scale.rivals))
    recipe = scale.improved(0.05)
    return Experiment(
        "improved",
        "How far do batch normalization, momentum, a schedule and mirroring carry?",
        (
            scale.row(scale.variant(normalized()), recipe, **choice),
            scale.row(alexnet, scale.improved(0.02)),
            scale.row(variant_of(alexnet, normalized()).name, recipe),
        ),
    )


def one_by_one_batch_norm(scale: Scale, designs: Iterable[str]) -> Experiment:
    """The number of 1x1 layers once more, with batch normalization under the textbook's recipe."""
    return Experiment(
        "one_by_one_batch_norm",
        "How many 1x1 layers does a block need when batch normalization carries the gradient?",
        tuple(scale.row(scale.variant(normalized(of))) for of in designs),
    )


# ---------------------------------------------------------------- the compact scale

COMPACT = Scale(
    textbook="nin_28_textbook",
    fixed="nin_28",
    rivals=dict.fromkeys(("alexnet_28", "vgg11_28", "vgg11_quarter_28", "googlenet_28"), 0.1),
    textbook_rate=0.1,
    other_rate=0.05,
    fixed_rate=0.1,
    epochs=5,
    improved_epochs=5,
    sweep_epochs=2,
    precision=Precision.FP32,
)


@dataclass(frozen=True)
class Pilot:
    """How far the first seeds of some rows spread, measured before the others were planned."""

    deviation: float  # of test accuracy between seeds, the same in all rows
    seeds: Mapping[str, int]  # how many first seeds of each row, "experiment/row"


NORMALIZED_PILOT = Pilot(
    0.0053,
    {
        "collapse/nin_28_textbook_batch_norm": 5,
        "one_by_one_batch_norm/nin_28_no_1x1_batch_norm": 3,
        "one_by_one_batch_norm/nin_28_one_1x1_batch_norm": 3,
        "one_by_one_batch_norm/nin_28_batch_norm": 3,
    },
)
"""Of the rows with batch normalization under the textbook's recipe."""

IMPROVED_PILOT = Pilot(
    0.0039, {"improved/nin_28_batch_norm": 3, "improved/alexnet_28_batch_norm": 3}
)
"""Of those under the better recipe. Six runs know a spread badly: it may be twice that."""

PLAIN_SEEDS = 20
"""Of a row of plain SGD without batch normalization."""

NORMALIZED_SEEDS, IMPROVED_SEEDS = 12, 10
"""Of a row with batch normalization, under the textbook's recipe and the better one: what
`power.seeds_for_equality` wants at the spread of the pilots, for as many rows as are compared with
one at once, and one more; tests/test_power.py derives them."""

WIDE_IMPROVED_SEEDS, WIDE_SEEDS = 5, 12
"""Of a row at the textbook's widths, by the better recipe and by plain SGD. Five were what there
was time for. Of the first five of plain SGD 4 failed with one step and none with three; the seven
that follow were planned then, to test that: they show it if 5 of 7 fail again, and again none."""

WIDE_PILOT = 5
"""Seeds of a row of plain SGD at the textbook's widths that raised the question."""

COMPACT_SEEDS = {
    "": PLAIN_SEEDS,
    SWEEP: 1,
    # a rate of its own that is the common one would repeat the runs of another experiment
    **dict.fromkeys(
        (
            f"own_rate/{network}"
            for network in ("nin_28", "nin_28_three_1x1", "nin_28_linear_head", "alexnet_28",
                            "vgg11_28")
        ),
        3,
    ),
    "collapse/nin_28_textbook_batch_norm": NORMALIZED_SEEDS,
    "one_by_one_batch_norm": NORMALIZED_SEEDS,
    **dict.fromkeys(("improved", *AGAIN, "one_by_one_and_head_improved"), IMPROVED_SEEDS),
    "bottleneck_wide": WIDE_SEEDS,
    "bottleneck_wide_improved": WIDE_IMPROVED_SEEDS,
}  # fmt: skip
COMPACT_KEPT = {
    "collapse/nin_28_textbook": 5,
    "collapse/nin_28": 5,
    "head/nin_28_linear_head": 3,
}
"""The weights that chapters look into."""


def compact_experiments(scale: Scale) -> Iterator[Experiment]:
    """Every experiment of the small networks, the most wanted first."""
    # whose answer a shared rate would decide: the shallowest, the deepest, and the other heads
    extremes = ("", "no_1x1", "three_1x1", "8_blocks", "linear_head", "fully_connected")
    networks = (*map(scale.variant, extremes), *scale.rivals)
    rates = (0.025, 0.05, 0.1, 0.2)
    sweep = rate_sweep(scale, [(network, rate) for network in networks for rate in rates])
    yield collapse(scale)
    yield baselines(scale)
    yield from exercises(scale, compact)
    yield sweep
    yield own_rate(
        scale,
        RateRule.BEST,
        {network: _tried(sweep, network) for network in networks},
        "How do the networks compare when each trains at its own best rate?",
    )
    yield improved(scale)
    yield one_by_one_batch_norm(scale, ("no_1x1", "one_1x1", "", "three_1x1"))
    yield dropout(scale)
    yield from one_by_one_and_head(scale)
    yield from exercises_again(scale, compact)
    yield from bottleneck_wide(replace(scale, fixed="nin_28_wide", train_images=20_000))


def dropout(scale: Scale) -> Experiment:
    """The textbook's network and the repaired one without dropout."""
    with_it = (scale.textbook, scale.fixed)
    rates = (scale.textbook_rate, scale.fixed_rate)
    without = [variant_of(network, "no_dropout").name for network in with_it]
    beside = tuple(f"collapse/{network}" for network in with_it)
    return Experiment(
        "dropout",
        "Does dropout take part in the collapse?",
        tuple(
            scale.row(network, scale.recipe(rate))
            for network, rate in zip(without, rates, strict=True)
        ),
        beside,
        against=dict(zip(without, beside, strict=True)),
    )


def one_by_one_and_head(scale: Scale) -> Iterator[Experiment]:
    """The fourth corner of a square: no 1x1 layer and AlexNet's head, under both recipes."""
    corner = "no_1x1_fully_connected"
    question = "Does averaging pay only where there are 1x1 layers?"
    others = ("no_1x1", "fully_connected")
    found = {variant: exercise.name for exercise in EXERCISES for variant in exercise.variants}
    yield Experiment(
        "one_by_one_and_head",
        question,
        (scale.row(scale.variant(corner)),),
        (
            f"collapse/{scale.fixed}",
            *(f"{found[other]}/{scale.variant(other)}" for other in others),
        ),
        is_corner=True,
    )
    yield Experiment(
        "one_by_one_and_head_improved",
        f"{question.removesuffix('?')}, under the better recipe?",
        (scale.row(scale.variant(normalized(corner)), scale.improved(0.05)),),
        (
            f"improved/{scale.variant(normalized())}",
            *(f"{found[other]}_improved/{scale.variant(normalized(other))}" for other in others),
        ),
        is_corner=True,
    )


def bottleneck_wide(scale: Scale) -> Iterator[Experiment]:
    """The bottleneck at the textbook's widths, under both recipes; by the scale's images."""
    variants = ("", "gradual", "early_classes")
    question = "Does it hurt to narrow from 384 channels to ten in one step, or so late"
    yield Experiment(
        "bottleneck_wide",
        f"{question}?",
        tuple(scale.row(scale.variant(variant)) for variant in variants),
    )
    yield Experiment(
        "bottleneck_wide_improved",
        f"{question}, under the better recipe?",
        tuple(
            scale.row(scale.variant(normalized(variant)), scale.improved(0.05))
            for variant in variants
        ),
    )


# ---------------------------------------------------------------- the middle scale

MIDDLE = Scale(
    textbook="nin_96_textbook",
    fixed="nin_96",
    rivals={"alexnet_96": 0.1},
    textbook_rate=0.1,
    other_rate=0.05,
    fixed_rate=0.1,
    epochs=10,
    improved_epochs=10,
    sweep_epochs=5,
    precision=Precision.FP32,
    train_images=20_000,
)
MIDDLE_SEEDS = {"": 3, "collapse/nin_96_textbook": 5, "collapse/nin_96": 5}


def middle_experiments(scale: Scale) -> Iterator[Experiment]:
    """The collapse of the textbook's own network, and AlexNet from the same start at one rate."""
    printed = scale.recipe(scale.textbook_rate)
    yield Experiment(
        "collapse",
        "Does the network collapse at the textbook's widths, too?",
        (
            scale.row(scale.textbook, printed),
            scale.row(scale.fixed),
            scale.row(variant_of(scale.textbook, normalized()).name, printed),
            _at_its_rate(scale.row(scale.textbook, scale.recipe(scale.other_rate))),
        ),
    )
    yield baselines(scale)


# ---------------------------------------------------------------- the full scale

FULL = Scale(
    textbook="nin",
    fixed="nin_fixed",
    rivals={"alexnet": 0.01, "vgg11_quarter": 0.01, "googlenet": 0.1, "vgg11": 0.01},
    textbook_rate=0.05,
    other_rate=0.1,
    fixed_rate=0.05,
    epochs=10,
    improved_epochs=6,
    sweep_epochs=5,
    precision=Precision.BF16,
)
REFERENCE = "improved/nin_fixed_batch_norm"
COSTLY = "baselines/vgg11"
FULL_SEEDS = {
    "": 1,  # at a rate at which half of the rows relapse, more of the same answers nothing
    "collapse": 2,
    "collapse/nin": 10,
    "collapse/nin_lr0.1": 6,
    "baselines": 2,
    COSTLY: 1,
    "own_rate": 3,
    "improved": 3,
    REFERENCE: 7,
    **dict.fromkeys(AGAIN, 3),
}
"""The reference is compared with seven rows, which have two or three seeds each: comparing k rows
with one control, seeds are best spent with the square root of k times as many on the control
(Dunnett, doi 10.1080/01621459.1955.10501294). `ninlab.decisions` says what they then show."""
FULL_KEPT = {"collapse/nin_fixed": 1}
"""Of one run: 8 MB a NiN travel in every wheel, and to every GPU."""

LOWER_RATES = {
    0.025: ("no_1x1", "", "three_1x1", "3x3", "linear_head", "fully_connected", "gradual",
            "6_blocks", "8_blocks"),
    0.0125: ("three_1x1", "fully_connected", "6_blocks", "8_blocks"),  # that failed worst at 0.05
    0.1: ("no_1x1", "3x3", "linear_head"),  # that held at 0.05
}  # fmt: skip
"""Rates beside the first stage's 0.05, and the designs that are tried at them."""

PEAKS = {
    "": (0.05, 0.1, 0.2),
    "8_blocks": (0.05, 0.1),
    "no_1x1": (0.1,),
    "fully_connected": (0.1,),
    "three_1x1": (0.1,),
}
"""Peaks of the one-cycle schedule at which designs with batch normalization are tried. The design
that all others are compared with decides by its accuracy; the others rule out from which rate on
they are harmed, as far as they were tried."""


def full_experiments(scale: Scale) -> Iterator[Experiment]:
    """Every experiment of the textbook's networks."""
    designs = [
        (scale.variant(design), rate) for rate, of_rate in LOWER_RATES.items() for design in of_rate
    ]
    asked = list(exercises(scale, at_full_size))
    sweep, peaks = rate_sweep(scale, designs), peak_sweep(scale)
    plain = (collapse(scale), *asked, sweep)
    chosen = {
        "rate_from": tuple(peaks.by_path),
        "rate_judge": scale.variant(normalized()),  # with which all designs are compared
    }
    yield from plain
    yield peaks
    yield precision(scale, Precision.TF32)
    yield improved(scale, **chosen)
    yield from exercises_again(scale, at_full_size_again, **chosen)
    yield own_rate(
        scale,
        RateRule.SAFE,
        {
            network: [path for one in plain for path in _tried(one, network)]
            for network in map(scale.variant, ("", "no_1x1", "three_1x1", "3x3", "linear_head"))
        },
        "How do the networks compare when each trains at the highest rate that it bears?",
    )
    yield baselines(scale)
    yield one_by_one_batch_norm(scale, ("no_1x1", "one_1x1", ""))


def peak_sweep(scale: Scale) -> Experiment:
    """The designs with batch normalization at their peaks."""
    return Experiment(
        PEAK_SWEEP,
        "Up to which rate may the better recipe climb, judged on held-out training images?",
        tuple(
            _at_its_rate(scale.row(scale.variant(normalized(design)), scale.swept(recipe)))
            for design, of_design in PEAKS.items()
            for recipe in map(scale.improved, of_design)
        ),
    )


def precision(scale: Scale, other: Precision) -> Experiment:
    """The repaired network once more, in another arithmetic."""
    recipe = replace(scale.recipe(scale.fixed_rate), precision=other)
    row = replace(scale.row(scale.fixed, recipe), name=f"{scale.fixed}_{other}")
    return Experiment(
        "precision",
        f"Does {scale.precision} arithmetic cost accuracy against {other}?",
        (row,),
        (f"collapse/{scale.fixed}",),
    )


FULL_STAGES = (
    Stage(
        "first",
        "every design once, at the textbook's rate",
        dict.fromkeys(("collapse", *(exercise.name for exercise in EXERCISES)), 1),
    ),
    Stage(
        "rates",
        "which rates do the designs bear, and is bfloat16 to blame for what they do not?",
        {SWEEP: 1, PEAK_SWEEP: 1, "precision": 1, "collapse/nin": 3},
    ),
    Stage(
        "exercises",
        "the exercises under the better recipe, with batch normalization",
        {REFERENCE: FULL_SEEDS[REFERENCE], **dict.fromkeys(AGAIN, 2)},
    ),
    Stage(
        "seeds",
        "a third seed of those, and how often the textbook's network collapses",
        {name: FULL_SEEDS[name] for name in (*AGAIN, "collapse/nin", "collapse/nin_lr0.1")},
    ),
    Stage(
        "plain",
        "the exercises under plain SGD, at rates that hold",
        {"own_rate": FULL_SEEDS["own_rate"]},
    ),
    Stage(
        "rivals",
        "the other networks, under the textbook's recipe and the better one",
        {
            **{
                path: FULL_SEEDS["baselines"]
                for path in (f"baselines/{rival}" for rival in FULL.rivals)
                if path != COSTLY
            },
            "improved": FULL_SEEDS["improved"],
        },
    ),
    Stage("costly", "a single run of VGG-11, which takes minutes", {COSTLY: 1}),
)

# ---------------------------------------------------------------- a rehearsal

REHEARSAL = Plan(
    "rehearsal",
    "three runs of a few steps, to try a machine and the way home of its records",
    (
        Experiment(
            "rehearsal",
            "Does what is recorded here arrive?",
            tuple(
                Row(name, name, Recipe(0.05, 1, batch_size=64, train_images=640), seeds=1)
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
        _with_seeds(compact_experiments(COMPACT), COMPACT_SEEDS, COMPACT_KEPT),
        # fitted to 12 networks at batch 128 on one core of an AMD EPYC with AVX-512
        LinearCost(seconds_per_layer=1.0e-4, seconds_per_parameter=6.9e-9, seconds_per_mac=3.3e-11),
    ),
    "middle": Plan(
        "middle",
        "96x96 images and the textbook's widths, for one CPU core",
        _with_seeds(middle_experiments(MIDDLE), MIDDLE_SEEDS, {}),
        # fitted to NiN with and without batch normalization and AlexNet on such a core
        LinearCost(seconds_per_layer=0.0, seconds_per_parameter=9.0e-9, seconds_per_mac=2.4e-11),
    ),
    "full": Plan(
        "full",
        "224x224 images and the textbook's networks, for one GPU",
        _with_seeds(full_experiments(FULL), FULL_SEEDS, FULL_KEPT),
        RooflineCost("h100"),
        FULL_STAGES,
    ),
}
"""The plans that answer something, by name."""


def plan(name: str) -> Plan:
    """The plan of that name, the rehearsal too. Raises UnknownNameError, which lists the names."""
    known = {**PLANS, REHEARSAL.name: REHEARSAL}
    try:
        return known[name]
    except KeyError:
        raise UnknownNameError("plan", name, known) from None
