"""Which recorded runs are of which scale, and which answer an experiment, in which rows?

A row of a plan has its network's name; where a network has several rows, the others have behind it
what tells them apart.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple

from ninlab import records
from ninlab.architectures import architecture, variant_of
from ninlab.errors import NinlabError, UnknownNameError
from ninlab.experiments import Experiment, Plan, plan, plans
from ninlab.recipes import Recipe
from ninlab.records import RunRecord

_COUNTERPARTS = {
    name: {plans.FULL.textbook: scale.textbook, plans.FULL.fixed: scale.fixed}
    for name, scale in (("compact", plans.COMPACT), ("middle", plans.MIDDLE))
}
"""Which network of a smaller scale stands for a full-size one, for those whose variants are
compared."""

_SIDES = {"compact": 28, "middle": 96}
"""How large the images of the scales are that a CPU trains."""


class Recorded(NamedTuple):
    """The book's runs at the two scales of most chapters; either list may be empty."""

    compact: list[RunRecord]
    full: list[RunRecord]

    def compare(
        self, names: Sequence[str], labels: Mapping[str, str]
    ) -> tuple[dict[str, list[RunRecord]], dict[str, list[RunRecord]]]:
        """What `comparison` finds at either scale: compact, then full. Raises as that does."""
        small, large = (
            comparison(names, labels, runs, scale)
            for scale, runs in zip(self._fields, self, strict=True)
        )
        return small, large


def recorded() -> Recorded:
    """The book's runs without those that a later one corrects.

    Each scale as `recorded_at` has it.
    """
    runs = records.current(records.load())
    return Recorded(compact=_of_scale("compact", runs), full=_of_scale("full", runs))


def recorded_at(scale: str) -> list[RunRecord]:
    """The book's runs of one scale without those that a later one corrects.

    The compact ones are those of networks for 28x28 on a CPU, the middle ones those for 96x96. The
    full-size ones are all of one device, the one that made the most of the full plan: a second
    device would repeat its seeds. Raises UnknownNameError for a scale.
    """
    return _of_scale(scale, records.current(records.load()))


def _of_scale(scale: str, runs: Sequence[RunRecord]) -> list[RunRecord]:
    if scale in _SIDES:
        return [run for run in runs if run.scale == (_SIDES[scale], "cpu")]
    device = plan(scale).device_of(runs)
    return [run for run in runs if run.device.slug == device]


def runs_of(experiment: Experiment, runs: Iterable[RunRecord]) -> dict[str, list[RunRecord]]:
    """The recorded runs of each row of an experiment, in order of their seeds, by the row's name.

    The rows that compare_with names come first, then the experiment's own; a row without a record
    is left out. All runs are of one device, because a second one would repeat its seeds: of the
    device with the most of the experiment's own rows, then the most runs.
    """
    borrowed = [tuple(path.split("/")) for path in experiment.compare_with]
    wanted = [*borrowed, *((experiment.name, row.name) for row in experiment.rows)]
    by_device: dict[str, list[RunRecord]] = {}
    for run in runs:
        if (run.experiment, run.name) in wanted:
            by_device.setdefault(run.device.slug, []).append(run)
    if not by_device:
        return {}

    def own_rows_and_runs(slug: str) -> tuple[int, int]:
        own = {run.name for run in by_device[slug] if run.experiment == experiment.name}
        return len(own), len(by_device[slug])

    chosen = by_device[max(sorted(by_device), key=own_rows_and_runs)]
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
    """The runs that are recorded for one experiment at one scale, by the row's name."""

    plan: Plan
    experiment: Experiment
    runs: Mapping[str, list[RunRecord]]

    @property
    def titled(self) -> dict[str, list[RunRecord]]:
        """The same runs by the title of their network; `_distinct` says what tells rows apart."""
        titles = [architecture(runs[0].network).title for runs in self.runs.values()]
        return _distinct(zip(titles, self.runs.values(), strict=True))

    def labeled(self, labels: Sequence[str]) -> dict[str, list[RunRecord]]:
        """The same runs by a reader's label; `_distinct` says what tells rows apart.

        labels are those of the experiment's own rows, in its order, which is the same at every
        scale. What is compared with them is left out. Raises NinlabError where labels are
        missing or left over.
        """
        rows = [row.name for row in self.experiment.rows]
        if len(labels) != len(rows):
            raise NinlabError(
                f"{len(labels)} labels for {len(rows)} rows of {self.experiment.name}: "
                + ", ".join(rows)
            )
        return _distinct(
            (label, self.runs[row])
            for label, row in zip(labels, rows, strict=True)
            if row in self.runs
        )


def _distinct(rows: Iterable[tuple[str, list[RunRecord]]]) -> dict[str, list[RunRecord]]:
    """The runs by their label; where rows share one, behind it the rate or the kernels."""
    rows = list(rows)
    alike: dict[str, list[Recipe]] = {}
    for label, runs in rows:
        alike.setdefault(label, []).append(runs[0].recipe)
    return {f"{label}{_apart(runs[0].recipe, alike[label])}": runs for label, runs in rows}


def _apart(recipe: Recipe, alike: Sequence[Recipe]) -> str:
    """What tells the recipe from others, itself among them, as the end of a label; "" for one."""
    by_kernels = len({one.kernels for one in alike}) > 1
    by_rate = len({one.rate_in_words for one in alike}) > 1 or not by_kernels
    rate = f", {recipe.rate_in_words}" if by_rate and len(alike) > 1 else ""
    return rate + (f", {recipe.kernels} kernels" if by_kernels else "")


def answer(name: str, runs: Iterable[RunRecord], scale: str = "compact") -> Answer:
    """The runs that are recorded for an experiment at one scale; none where none are.

    Runs of another scale never take their place, because the sentences beside them speak of one
    scale. Raises UnknownNameError for an experiment or a scale.
    """
    asked = plan(scale)
    experiment = asked.experiment(name)
    return Answer(asked, experiment, runs_of(experiment, runs))


def comparison(
    names: Sequence[str], labels: Mapping[str, str], runs: Sequence[RunRecord], scale: str
) -> dict[str, list[RunRecord]]:
    """The runs of a network and of its variants at one scale, by labels for readers.

    names are those of the experiments that trained them. The network is that of the first row of
    the first experiment, or of what that experiment is compared with. labels gives a label for
    each variant, in the order of the rows: "" is the network itself, "no_1x1" one of its variants.
    A variant that was also trained at its own best rate has a second row, which names the rate;
    there is none where that is the common rate, because its runs repeat the others.

    A variant without a run has no row. All rows are of one device, which has runs of the first
    label: of the one with the most rows, then the most runs. Empty without such a device. Raises
    UnknownNameError for an experiment, a scale or a variant.
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


def labeled_runs(
    wanted: Mapping[str, tuple[str, str]], runs: Iterable[RunRecord], scale: str
) -> dict[str, list[RunRecord]]:
    """The runs of single rows of several experiments at one scale, by labels for readers.

    wanted gives (experiment, network) of each label, the network by its name at full size: at a
    smaller scale the runs of its counterpart are taken. A row without a run is left out. All are
    of the scale's device, as those of `recorded_at`. Raises UnknownNameError for an
    experiment, a scale, a network of another family or a variant that the scale has not,
    UnknownNetworkError for any other.
    """
    of_scale = _of_scale(scale, list(runs))
    rows = {}
    for label, (experiment, name) in wanted.items():
        network = architecture(name)
        if counterparts := _COUNTERPARTS.get(scale):
            if network.family not in counterparts:
                raise UnknownNameError(
                    f"family with {scale} counterparts", network.family, counterparts
                )
            network = variant_of(counterparts[network.family], network.variant)
        if group := answer(experiment, of_scale, scale).runs.get(network.name):
            rows[label] = group
    return rows


def _rows(
    asked: Sequence[Experiment], labels: Mapping[str, str], runs: Sequence[RunRecord], scale: str
) -> dict[str, list[RunRecord]]:
    """The rows of a comparison that one device has recorded; none without the first label's."""
    beside = [path for one in asked for path in one.compare_with]
    first, *_ = (*beside, *(path for one in asked for path in one.by_path))
    compared = plan(scale).by_path[first].network
    found = {name: group for one in asked for name, group in runs_of(one, runs).items()}
    own = answer("own_rate", runs, scale).runs
    rows = {}
    for variant, label in labels.items():
        name = variant_of(compared, variant).name
        if (group := found.get(name)) is None:
            continue
        rows[label] = group
        at_own = own.get(name, group)
        if at_own[0].recipe != group[0].recipe:
            rates = _apart(at_own[0].recipe, [at_own[0].recipe, group[0].recipe])
            rows[f"{label}{rates}"] = at_own
    return rows if next(iter(labels.values()), None) in rows else {}
