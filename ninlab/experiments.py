"""Which runs answer which question, and in which order?

The plan as data, at two scales of the same experiments: ``full`` (the textbook's images at
224x224, for a GPU) and ``compact`` (28x28, for one CPU core). Seed 0 of everything comes
before seed 1 of anything, so that a plan cut short still answers every question once.

Learning rates are chosen on held-out training images: a run may say that its rate is the best
of a sweep, and is then ready only when the sweep is recorded.

Imports from ninlab: architectures, formulas (for estimates), recipes, records, errors; no torch.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby

from ninlab import formulas
from ninlab.architectures import architecture
from ninlab.errors import NinlabError, UnknownNameError
from ninlab.recipes import Augmentation, EvaluationSet, Precision, Recipe, Schedule
from ninlab.records import Outcome, RunRecord, run_id


@dataclass(frozen=True)
class Variant:
    """One row of an experiment: a network, a recipe and how often to try.

    name makes the runs' file names. Where rate_from names variants of a sweep, the recipe's
    learning rate gives way to the best of theirs. Weights are kept of the first kept_seeds seeds,
    for what chapters look into.
    """

    name: str
    network: str
    recipe: Recipe
    seeds: int
    rate_from: tuple[str, ...] = ()
    kept_seeds: int = 0


@dataclass(frozen=True)
class Experiment:
    """A question, the chapter that asks it, and the runs that answer it.

    compare_with names variants of other experiments ("experiment/variant") that belong into the
    same table; they are not trained twice.
    """

    name: str
    question: str
    chapter: str
    variants: tuple[Variant, ...]
    compare_with: tuple[str, ...] = ()


@dataclass(frozen=True)
class StepCost:
    """How long a training step takes: a straight line in layers, parameters, MACs and kept bytes.

    Seconds, with the step's part of start and evaluation. Good to a factor of 1.5 on the machine
    it was fitted to; a recorder replaces it by what its own first runs took.
    """

    seconds_per_layer: float
    seconds_per_parameter: float
    seconds_per_mac: float  # and image
    seconds_per_saved_byte: float = 0.0  # and image, float32

    def step_seconds(self, network: str, batch_size: int) -> float:
        """Seconds of one step of that many images."""
        layers = architecture(network)
        return (
            self.seconds_per_layer * sum(1 for _ in layers.named_leaves())
            + self.seconds_per_parameter * formulas.parameters(layers)
            + self.seconds_per_mac * batch_size * formulas.macs(layers)
            + self.seconds_per_saved_byte * batch_size * formulas.saved_bytes(layers)
        )


@dataclass(frozen=True)
class PlannedRun:
    """One run of a plan: a variant with a seed."""

    experiment: str
    variant: Variant
    seed: int
    estimated_seconds: float

    def id(self, device_slug: str) -> str:
        """The id of its record, once it is made on that device."""
        return run_id(self.experiment, self.variant.name, self.seed, device_slug)

    @property
    def keeps_weights(self) -> bool:
        """Whether its weights are kept beside its record."""
        return self.seed < self.variant.kept_seeds

    def rate_sources(self, device_slug: str) -> tuple[str, ...]:
        """Ids of the records by which its learning rate is chosen; empty when it is given."""
        return tuple(run_id(SWEEP, name, 0, device_slug) for name in self.variant.rate_from)


@dataclass(frozen=True)
class Plan:
    """Experiments at one scale, and their runs in the order in which to make them."""

    name: str
    description: str
    experiments: tuple[Experiment, ...]
    step_cost: StepCost

    @cached_property
    def runs(self) -> tuple[PlannedRun, ...]:
        """Every run: by seed, then by experiment, then by variant."""
        return tuple(
            PlannedRun(experiment.name, variant, seed, self._estimate(variant))
            for seed in range(self._most_seeds())
            for experiment in self.experiments
            for variant in experiment.variants
            if seed < variant.seeds
        )

    @property
    def estimated_seconds(self) -> float:
        """Seconds of all runs one after the other."""
        return sum(run.estimated_seconds for run in self.runs)

    def experiment(self, name: str) -> Experiment:
        """The experiment of that name. Raises UnknownNameError."""
        for experiment in self.experiments:
            if experiment.name == name:
                return experiment
        raise UnknownNameError("experiment", name, [e.name for e in self.experiments])

    def missing(self, recorded: Iterable[str], device_slug: str) -> list[PlannedRun]:
        """The runs that have no record among these ids, in the plan's order."""
        recorded = set(recorded)
        return [run for run in self.runs if run.id(device_slug) not in recorded]

    def device_of(self, runs: Iterable[RunRecord]) -> str | None:
        """The slug of the device that made the most of the plan's runs, None if none made any."""
        planned = {(run.experiment, run.variant.name, run.seed) for run in self.runs}
        made = Counter(
            run.device.slug for run in runs if (run.experiment, run.name, run.seed) in planned
        )
        return max(sorted(made), key=made.__getitem__, default=None)

    def _most_seeds(self) -> int:
        return max(variant.seeds for e in self.experiments for variant in e.variants)

    def _estimate(self, variant: Variant) -> float:
        recipe = variant.recipe
        return recipe.steps * self.step_cost.step_seconds(variant.network, recipe.batch_size)


def best_rate(sweep: Sequence[RunRecord]) -> float:
    """The learning rate with the highest held-out accuracy after the last epoch.

    Runs that did not finish are passed over; of equals the smaller rate wins. When none
    finished it is the smallest rate, so that the failure is recorded at its best. Raises
    NinlabError when one was measured on test images.
    """
    seen = [run.id for run in sweep if run.recipe.evaluation_set is EvaluationSet.TEST]
    if seen:
        raise NinlabError(f"{seen[0]} was measured on test images; choose rates on held-out ones")
    finished = [run for run in sweep if run.outcome is Outcome.FINISHED]
    if not finished:
        return min(run.recipe.learning_rate for run in sweep)
    best = max(finished, key=lambda run: (run.last.test_accuracy, -run.recipe.learning_rate))
    return best.recipe.learning_rate


def ready_recipe(
    run: PlannedRun, recorded: Mapping[str, RunRecord], device_slug: str
) -> Recipe | None:
    """The run's recipe with its rate chosen, or None while its sweep is not recorded."""
    sources = run.rate_sources(device_slug)
    if not sources:
        return run.variant.recipe
    if any(source not in recorded for source in sources):
        return None
    rate = best_rate([recorded[source] for source in sources])
    return replace(run.variant.recipe, learning_rate=rate)


# ---------------------------------------------------------------- the two scales


SWEEP = "rate_sweep"


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
    sweep_rates: tuple[float, ...]
    sweep_epochs: int
    epochs: int
    precision: Precision
    seeds: int
    textbook_seeds: int
    repair_seeds: int
    own_rate_seeds: int
    keep_all_weights: bool  # that chapters look into; else those of one repaired network alone
    other_precision: Precision | None = None

    def recipe(self, learning_rate: float) -> Recipe:
        """The textbook's recipe at that rate: plain SGD, batches of 128, pixels over 255."""
        return Recipe(learning_rate, self.epochs, precision=self.precision)

    def variant(self, network: str, *, rate: float | None = None, **changes: object) -> Variant:
        """The network under the textbook's recipe, by default at the repaired network's rate."""
        recipe = self.recipe(self.fixed_rate if rate is None else rate)
        return replace(Variant(network, network, recipe, self.seeds), **changes)  # type: ignore[arg-type]


def experiments(scale: Scale) -> tuple[Experiment, ...]:
    """Every experiment of the book at that scale, the most wanted first."""
    textbook, fixed = scale.textbook, scale.fixed
    # whose answer a shared rate would decide: the shallowest, the deepest, and the other heads
    extremes = (f"{fixed}_{suffix}" for suffix in
                ("no_1x1", "three_1x1", "8_blocks", "linear_head", "fully_connected"))  # fmt: skip
    nets = (fixed, *extremes, *scale.rivals)
    repairs = (
        scale.variant(textbook, rate=scale.other_rate, name=f"{textbook}_lr{scale.other_rate:g}"),
        *(
            scale.variant(f"{textbook}_{repair}", rate=scale.textbook_rate)
            for repair in ("zero_bias", "linear_last", "kaiming", "batch_norm", "gradual")
        ),
        scale.variant(scale.julia, rate=scale.textbook_rate),
        scale.variant(fixed, kept_seeds=scale.repair_seeds if scale.keep_all_weights else 1),
    )
    sweep = tuple(
        scale.variant(
            network,
            name=f"{network}_lr{rate:g}",
            seeds=1,
            recipe=replace(
                scale.recipe(rate),
                epochs=scale.sweep_epochs,
                evaluation_set=EvaluationSet.HELD_OUT,
            ),
        )
        for network in nets
        for rate in scale.sweep_rates
    )
    improved = replace(
        scale.recipe(0.05),
        momentum=0.9,
        nesterov=True,
        weight_decay=5e-4,
        schedule=Schedule.ONE_CYCLE,
        augmentation=Augmentation.FLIP,
        standardize=True,
    )
    alexnet = next(iter(scale.rivals))

    def exercise(
        name: str, question: str, chapter: str, *suffixes: str, keep: str = ""
    ) -> Experiment:
        variants = tuple(
            scale.variant(
                f"{fixed}_{suffix}",
                kept_seeds=scale.seeds if scale.keep_all_weights and suffix == keep else 0,
            )
            for suffix in suffixes
        )
        return Experiment(name, question, chapter, variants, (f"collapse/{fixed}",))

    return (
        Experiment(
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
                *(replace(variant, seeds=scale.repair_seeds) for variant in repairs),
            ),
        ),
        Experiment(
            "baselines",
            "How well do AlexNet, VGG-11 and GoogLeNet learn under the textbook's recipe?",
            "03_training",
            tuple(scale.variant(network, rate=rate) for network, rate in scale.rivals.items()),
            (f"collapse/{textbook}", f"collapse/{fixed}"),
        ),
        exercise("one_by_one", "How many 1x1 layers does a block need?", "05_how_many_1x1",
                 "no_1x1", "one_1x1", "three_1x1"),
        exercise("window", "What do 3x3 windows add in place of the 1x1 layers?",
                 "05_how_many_1x1", "3x3"),
        exercise("head", "Does averaging the class maps learn better than a fully connected head?",
                 "06_global_average_pooling", "linear_head", "fully_connected", keep="linear_head"),
        exercise("bottleneck", "Does it hurt to narrow to ten channels in one step, or so late?",
                 "09_bottleneck", "gradual", "early_classes"),
        exercise("family", "Does NiN gain from depth as VGG does?",
                 "10_nin_family", "6_blocks", "8_blocks"),
        Experiment(
            SWEEP,
            "Which learning rate suits each network, judged on held-out training images?",
            "03_training",
            sweep,
        ),
        Experiment(
            "own_rate",
            "How do the networks compare when each trains at its own best rate?",
            "03_training",
            tuple(
                scale.variant(
                    network,
                    seeds=scale.own_rate_seeds,
                    rate_from=tuple(v.name for v in sweep if v.network == network),
                )
                for network in nets
            ),
        ),
        Experiment(
            "improved",
            "How far do batch normalization, momentum, a schedule and mirroring carry?",
            "03_training",
            (
                scale.variant(f"{fixed}_batch_norm", recipe=improved),
                scale.variant(
                    alexnet,
                    recipe=replace(improved, learning_rate=0.02),
                    seeds=scale.own_rate_seeds,
                ),
                scale.variant(
                    f"{alexnet}_batch_norm", recipe=improved, seeds=scale.own_rate_seeds
                ),
            ),
        ),
        Experiment(
            "one_by_one_batch_norm",
            "How many 1x1 layers does a block need when batch normalization carries the gradient?",
            "05_how_many_1x1",
            tuple(
                scale.variant(f"{fixed}_{suffix}batch_norm", seeds=scale.own_rate_seeds)
                for suffix in ("no_1x1_", "one_1x1_", "")
            ),
        ),
        *_precision(scale),
    )  # fmt: skip


def _precision(scale: Scale) -> tuple[Experiment, ...]:
    if scale.other_precision is None:
        return ()
    recipe = replace(scale.recipe(scale.fixed_rate), precision=scale.other_precision)
    return (
        Experiment(
            "precision",
            f"Does {scale.precision} arithmetic cost accuracy against {scale.other_precision}?",
            "13_flops_are_not_time",
            (scale.variant(scale.fixed, name=f"{scale.fixed}_{recipe.precision}", recipe=recipe),),
            (f"collapse/{scale.fixed}",),
        ),
    )


FULL_SCALE = Scale(
    textbook="nin",
    fixed="nin_fixed",
    julia="nin_julia",
    rivals={"alexnet": 0.01, "vgg11_quarter": 0.01, "googlenet": 0.1, "vgg11": 0.01},
    textbook_rate=0.05,
    other_rate=0.1,
    fixed_rate=0.05,
    sweep_rates=(0.01, 0.03, 0.1),
    sweep_epochs=3,
    epochs=10,
    precision=Precision.BF16,
    seeds=2,
    textbook_seeds=5,
    repair_seeds=2,
    own_rate_seeds=1,
    keep_all_weights=False,  # 8 MB a NiN travel in every wheel, and to every GPU
    other_precision=Precision.TF32,
)
COMPACT_SCALE = Scale(
    textbook="nin_28_textbook",
    fixed="nin_28",
    julia="nin_julia_28",
    rivals=dict.fromkeys(("alexnet_28", "vgg11_28", "vgg11_quarter_28", "googlenet_28"), 0.1),
    textbook_rate=0.1,
    other_rate=0.05,
    fixed_rate=0.1,
    sweep_rates=(0.025, 0.05, 0.1, 0.2),
    sweep_epochs=2,
    epochs=5,
    precision=Precision.FP32,
    seeds=3,
    textbook_seeds=5,
    repair_seeds=5,
    own_rate_seeds=3,
    keep_all_weights=True,
)

PLANS: Mapping[str, Plan] = {
    "compact": Plan(
        "compact",
        "28x28 images and small networks, for one CPU core",
        experiments(COMPACT_SCALE),
        # fitted to 12 networks at batch 128 on one core of an AMD EPYC with AVX-512
        StepCost(seconds_per_layer=1.0e-4, seconds_per_parameter=6.9e-9, seconds_per_mac=3.3e-11),
    ),
    "full": Plan(
        "full",
        "224x224 images and the textbook's networks, for one GPU",
        experiments(FULL_SCALE),
        # fitted to the whole seconds of the 18 runs of an H100 that went to their end, and to its
        # bf16 steps of AlexNet and VGG-11: these 20 within a fifth
        StepCost(
            seconds_per_layer=8.8e-5,
            seconds_per_parameter=3.1e-11,
            seconds_per_mac=1.5e-14,
            seconds_per_saved_byte=2.2e-12,
        ),
    ),
}
"""Both plans by name."""


def plan(name: str) -> Plan:
    """The plan of that name. Raises UnknownNameError, which lists the names."""
    try:
        return PLANS[name]
    except KeyError:
        raise UnknownNameError("plan", name, PLANS) from None


def runs_of(experiment: Experiment, runs: Iterable[RunRecord]) -> dict[str, list[RunRecord]]:
    """Variant name to its recorded runs, by seed: the experiment's own and those beside it.

    Variants come in the experiment's order, those of compare_with first; a variant without a
    record is left out. All runs are of one device, for a second one repeats seeds and adds none:
    of the one with the most of the experiment's own variants, then the most runs.
    """
    borrowed = [tuple(path.split("/")) for path in experiment.compare_with]
    wanted = [*borrowed, *((experiment.name, variant.name) for variant in experiment.variants)]
    by_device: dict[str, list[RunRecord]] = {}
    for run in runs:
        if (run.experiment, run.name) in wanted:
            by_device.setdefault(run.device.slug, []).append(run)
    if not by_device:
        return {}

    def own_variants_and_runs(slug: str) -> tuple[int, int]:
        own = {run.name for run in by_device[slug] if run.experiment == experiment.name}
        return len(own), len(by_device[slug])

    chosen = by_device[max(sorted(by_device), key=own_variants_and_runs)]
    by_row = {
        row: sorted(found, key=lambda run: run.seed)
        for row, found in groupby(
            sorted(chosen, key=lambda run: (run.experiment, run.name)),
            key=lambda run: (run.experiment, run.name),
        )
    }
    return {row[1]: by_row[row] for row in wanted if row in by_row}


@dataclass(frozen=True)
class Answer:
    """The runs that are recorded for one experiment at one scale, by variant name."""

    plan: Plan
    experiment: Experiment
    runs: Mapping[str, list[RunRecord]]

    @property
    def titled(self) -> dict[str, list[RunRecord]]:
        """The same runs by the title of their network, with the rate where two rows share one."""
        titles = {name: architecture(runs[0].network).title for name, runs in self.runs.items()}
        shared = {title for title, count in Counter(titles.values()).items() if count > 1}
        return {
            f"{title}, rate {runs[0].recipe.learning_rate:g}" if title in shared else title: runs
            for title, (name, runs) in zip(titles.values(), self.runs.items(), strict=True)
        }


def answer(name: str, runs: Iterable[RunRecord], scale: str = "compact") -> Answer:
    """What is recorded for the experiment of that name at one scale, be it nothing.

    No other scale takes its place because there is more of it: what a page shows beside its
    sentences is of the scale that these speak of. Raises UnknownNameError for an experiment or a
    scale.
    """
    asked = plan(scale)
    experiment = asked.experiment(name)
    return Answer(asked, experiment, runs_of(experiment, runs))


def comparison(
    names: Sequence[str], labels: Mapping[str, str], runs: Sequence[RunRecord], scale: str
) -> dict[str, list[RunRecord]]:
    """The runs of some experiments at one scale, by labels for readers.

    labels gives, in the order of the rows, a label for what a variant's name adds to that of
    the network compared with: "" for that network, "_no_1x1" for ``nin_28_no_1x1``. A network
    that was also trained at its own best rate has a second row, which names the rate; where
    that is the common rate those runs repeat the others, and there is one row.

    A variant without a run has no row. All rows are of one device: of the one with the most rows,
    then the most runs, among those with a run of the first label's variant, with which the others
    are compared. Empty without such a device. Raises UnknownNameError for an experiment or a scale.
    """
    asked = [plan(scale).experiment(name) for name in names]
    by_device: dict[str, list[RunRecord]] = {}
    for run in runs:
        by_device.setdefault(run.device.slug, []).append(run)
    return max(
        (_rows(asked, labels, by_device[slug], scale) for slug in sorted(by_device)),
        key=lambda rows: (len(rows), sum(map(len, rows.values()))),
        default={},
    )


def _rows(
    asked: Sequence[Experiment], labels: Mapping[str, str], runs: Sequence[RunRecord], scale: str
) -> dict[str, list[RunRecord]]:
    """The rows of a comparison that one device has recorded; none without the first label's."""
    found = {name: group for one in asked for name, group in runs_of(one, runs).items()}
    wanted = [
        *(path.partition("/")[2] for one in asked for path in one.compare_with),
        *(variant.name for one in asked for variant in one.variants),
    ]
    own = answer("own_rate", runs, scale).runs
    rows = {}
    for added, label in labels.items():
        if (group := found.get(wanted[0] + added)) is None:
            continue
        rows[label] = group
        at_own = own.get(wanted[0] + added, group)
        if at_own[0].recipe != group[0].recipe:
            rows[f"{label}, rate {at_own[0].recipe.learning_rate:g}"] = at_own
    return rows if next(iter(labels.values()), None) in rows else {}


# ---------------------------------------------------------------- what lost classes predict


def loss_floor(dead_classes: int, num_classes: int, never_predicted: int = 0) -> float:
    """The least mean cross-entropy of a network with lost classes, classes being equal.

    Scores after a last ReLU are at least 0, and a dead class scores 0: on its own images it gets
    a probability of at most 1 / num_classes. A class that is never predicted always has another
    beside it that scores no less: on its own images it gets at most 1 / 2. never_predicted counts
    both kinds; fewer of them than dead classes add nothing.
    """
    beaten = max(never_predicted - dead_classes, 0)
    return (dead_classes * math.log(num_classes) + beaten * math.log(2)) / num_classes


def accuracy_roof(lost_classes: int, num_classes: int) -> float:
    """The highest accuracy of a network that never predicts that many classes, these being equal.

    One class at least is always predicted, also where all scores are tied.
    """
    return max(num_classes - lost_classes, 1) / num_classes
