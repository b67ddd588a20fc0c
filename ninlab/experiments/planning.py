"""What is an experiment, and in which order are a plan's runs made?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import NamedTuple

from ninlab.errors import UnknownNameError
from ninlab.estimates import Cost, Estimates
from ninlab.experiments.rates import RateRule
from ninlab.recipes import Recipe
from ninlab.records import Device, RunRecord, run_id

REST = "rest"
"""The stage of the runs that no stage of a plan names."""


@dataclass(frozen=True)
class Row:
    """One row of an experiment: a network, a recipe and how often to try.

    name makes the runs' file names. Where rate_from names other rows ("experiment/row"), the
    recipe's learning rate gives way to the one that rate_rule chooses among their runs of seed 0,
    by the accuracy of the network rate_judge, by default its own. Weights are kept of the first
    kept_seeds seeds, for what chapters look into.
    """

    name: str
    network: str
    recipe: Recipe
    seeds: int
    rate_from: tuple[str, ...] = ()
    rate_rule: RateRule = RateRule.BEST
    rate_judge: str = ""
    kept_seeds: int = 0


@dataclass(frozen=True)
class Experiment:
    """A question, and the runs that answer it.

    compare_with names rows of other experiments ("experiment/row") that belong into the
    same table; they are not trained twice. Where they are several, against says with which of them
    each row is compared, by its name; or the experiment has a single row, the fourth corner of a
    square: both of two changes, beside neither, the first and the second.
    """

    name: str
    question: str
    rows: tuple[Row, ...]
    compare_with: tuple[str, ...] = ()
    against: Mapping[str, str] = field(default_factory=dict)
    is_corner: bool = False

    @property
    def by_path(self) -> dict[str, Row]:
        """Its own rows by "experiment/row"."""
        return {f"{self.name}/{row.name}": row for row in self.rows}


class Square(NamedTuple):
    """Rows with both of two changes, one of them, and neither: "experiment/row"."""

    both: str
    first: str
    second: str
    neither: str


@dataclass(frozen=True)
class Stage:
    """Runs that come before those of later stages, and why.

    seeds says of how many seeds each row is recorded when the stage is over: of a row by
    "experiment/row", of all rows of an experiment by its name. The runs are made by seed, then
    in the order of seeds.
    """

    name: str
    purpose: str
    seeds: Mapping[str, int]


@dataclass(frozen=True)
class PlannedRun:
    """One run of a plan: a row with a seed, and the stage in which it is made."""

    experiment: str
    row: Row
    seed: int
    stage: str = REST

    def id(self, device_slug: str) -> str:
        """The id of its record, once it is made on that device."""
        return run_id(self.experiment, self.row.name, self.seed, device_slug)

    @property
    def title(self) -> str:
        """How a line of a log names it: ``head/nin_28_linear_head seed 0``."""
        return f"{self.experiment}/{self.row.name} seed {self.seed}"

    @property
    def keeps_weights(self) -> bool:
        """Whether its weights are kept beside its record."""
        return self.seed < self.row.kept_seeds

    def rate_sources(self, device_slug: str) -> tuple[str, ...]:
        """Ids of the records by which its learning rate is chosen; empty when it is given."""
        rows = (path.split("/") for path in self.row.rate_from)
        return tuple(run_id(experiment, name, 0, device_slug) for experiment, name in rows)


@dataclass(frozen=True)
class Plan:
    """Experiments at one scale, and their runs in the order in which to make them.

    What no stage names comes last. Without any stage seed 0 of everything comes before seed 1 of
    anything, so that a plan cut short still answers every question once.
    """

    name: str
    description: str
    experiments: tuple[Experiment, ...]
    cost: Cost
    stages: tuple[Stage, ...] = ()

    @cached_property
    def by_path(self) -> dict[str, Row]:
        """Every row by "experiment/row"."""
        return {path: row for one in self.experiments for path, row in one.by_path.items()}

    @cached_property
    def runs(self) -> tuple[PlannedRun, ...]:
        """Every run: by stage, then by seed, then in the order of the stage.

        Raises UnknownNameError where a stage names what is not there.
        """
        everything = Stage(REST, "", {path: row.seeds for path, row in self.by_path.items()})
        planned: dict[tuple[str, int], PlannedRun] = {}
        for stage in (*self.stages, everything):
            for run in self._of_stage(stage):
                planned.setdefault((f"{run.experiment}/{run.row.name}", run.seed), run)
        return tuple(planned.values())

    def _of_stage(self, stage: Stage) -> Iterator[PlannedRun]:
        """The runs of which the stage speaks, those of earlier stages among them."""
        seeds = {
            path: count
            for name, count in stage.seeds.items()
            for path in ([name] if "/" in name else self.experiment(name).by_path)
        }
        for seed in range(max(seeds.values(), default=0)):
            for path, count in seeds.items():
                row = self._row(path)
                if seed < count:
                    yield PlannedRun(path.partition("/")[0], row, seed, stage.name)

    def estimates(self, made: Iterable[RunRecord] = (), device: Device | None = None) -> Estimates:
        """How long its runs take on a device, corrected by the runs that it has made.

        Runs of other devices are passed over. Without a device it is the plan's own guess.
        """
        if device is None:
            return Estimates(self.cost)
        own = (run for run in made if run.device.slug == device.slug)
        return Estimates(self.cost.on(device.name), own)

    def experiment(self, name: str) -> Experiment:
        """The experiment of that name. Raises UnknownNameError."""
        for experiment in self.experiments:
            if experiment.name == name:
                return experiment
        raise UnknownNameError("experiment", name, [e.name for e in self.experiments])

    @property
    def comparisons(self) -> list[tuple[str, list[str]]]:
        """Each row with which others are compared, and all of these: "experiment/row".

        Experiments that are compared with one and the same row alone, under its recipe, are one
        comparison. One that is compared with no other is compared with its own first row, and one
        that says so with several, a comparison for each. A comparison of which no row has a second
        seed is left out; in another, a row of one seed stands and cannot be tested. The corner of
        a square is in `squares`. To be asked of a whole plan: raises UnknownNameError where rows
        that others are compared with are not in it.
        """
        found: dict[tuple[str, str], list[str]] = {}
        for experiment in self.experiments:
            if experiment.is_corner:
                continue
            first, *_ = experiment.by_path
            beside = experiment.compare_with
            shares = len(beside) == 1 and all(
                row.recipe == self._row(beside[0]).recipe for row in experiment.rows
            )
            for path, row in experiment.by_path.items():
                reference = experiment.against.get(row.name, (*beside, first)[0])
                if path != reference:
                    key = reference, "" if shares else experiment.name
                    found.setdefault(key, []).append(path)
        return [
            (reference, rows)
            for (reference, _), rows in found.items()
            if any(self._row(path).seeds > 1 for path in (reference, *rows))
        ]

    @property
    def squares(self) -> list[Square]:
        """Each square of two changes of which the interaction is asked."""
        found = []
        for one in self.experiments:
            if one.is_corner:
                (both,), (neither, first, second) = one.by_path, one.compare_with
                found.append(Square(both, first, second, neither))
        return found

    def _row(self, path: str) -> Row:
        if path not in self.by_path:
            raise UnknownNameError("row", path, self.by_path)
        return self.by_path[path]

    def only(self, names: Iterable[str]) -> Plan:
        """The same plan with those experiments alone. Raises UnknownNameError."""
        chosen = tuple(self.experiment(name) for name in names)
        stages = tuple(
            replace(stage, seeds={
                path: count for path, count in stage.seeds.items()
                if path.partition("/")[0] in {one.name for one in chosen}
            })
            for stage in self.stages
        )  # fmt: skip
        return replace(self, experiments=chosen, stages=stages)

    def missing(self, recorded: Iterable[str], device_slug: str) -> list[PlannedRun]:
        """The runs that have no record among these ids, in the plan's order."""
        recorded = set(recorded)
        return [run for run in self.runs if run.id(device_slug) not in recorded]

    def fitting(
        self,
        recorded: Collection[str],
        device_slug: str,
        estimates: Estimates,
        budget_seconds: float | None,
        failed: Collection[str] = (),
    ) -> list[PlannedRun]:
        """The missing runs that a recorder would make within the budget, in their order.

        One that does not fit is passed over, and a shorter one after it may still fit. A run
        waits for those by which its rate is chosen, and is left out where they do not fit. What
        failed is neither made nor waited for.
        """
        left = float("inf") if budget_seconds is None else budget_seconds
        made = {*recorded, *failed}
        fitting = []
        for run in self.missing(made, device_slug):
            seconds = estimates.seconds(run.row.network, run.row.recipe)
            if seconds <= left and made.issuperset(run.rate_sources(device_slug)):
                left -= seconds
                made.add(run.id(device_slug))
                fitting.append(run)
        return fitting

    def device_of(self, runs: Iterable[RunRecord]) -> str | None:
        """The slug of the device that made the most of the plan's runs, None if none made any."""
        device = self.made_on(runs)
        return None if device is None else device.slug

    def made_on(self, runs: Iterable[RunRecord]) -> Device | None:
        """The device that made the most of the plan's runs, None if none made any."""
        runs = list(runs)
        planned = {(run.experiment, run.row.name, run.seed) for run in self.runs}
        made = Counter(
            run.device.slug for run in runs if (run.experiment, run.name, run.seed) in planned
        )
        slug = max(sorted(made), key=made.__getitem__, default=None)
        return next((run.device for run in runs if run.device.slug == slug), None)


@dataclass(frozen=True)
class Ready:
    """A recipe that can be carried out, and the ids of the runs that chose its rate."""

    recipe: Recipe
    chosen_by: tuple[str, ...] = ()


def ready(
    run: PlannedRun,
    recorded: Mapping[str, RunRecord],
    device_slug: str,
    failed: Container[str] = (),
) -> Ready | None:
    """The run's recipe with its rate chosen, or None while its sweep is not recorded.

    recorded are runs by their ids, failed the ids of those that came to nothing, which are not
    waited for. Where another seed of the row is recorded, its rate stands, however the sweep has
    grown since. The recipe's own rate stands where all that could judge it came to nothing.
    """
    recipe, sources = run.row.recipe, run.rate_sources(device_slug)
    if not sources:
        return Ready(recipe)
    for seed in range(run.row.seeds):
        sibling = recorded.get(replace(run, seed=seed).id(device_slug))
        if sibling is not None:
            rate = sibling.recipe.learning_rate
            return Ready(replace(recipe, learning_rate=rate), sibling.learning_rate_from)
    if any(source not in recorded and source not in failed for source in sources):
        return None
    sweep = [recorded[source] for source in sources if source in recorded]
    judge = run.row.rate_judge or run.row.network
    if not any(one.network == judge for one in sweep):
        return Ready(recipe)
    rate = run.row.rate_rule.rate(sweep, judge)
    return Ready(replace(recipe, learning_rate=rate), tuple(one.id for one in sweep))
