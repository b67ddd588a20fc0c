"""What has been measured: how far each plan has come, and what every record says.

The page of the records prints all of it; a notebook can ask for any part of it. Tables come as
HTML behind their titles, in which a run is a link to its record at ``../runs``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from html import escape
from pathlib import Path
from typing import Any

import pandas as pd

from ninlab import failures, profiles, records
from ninlab.estimates import Estimates
from ninlab.experiments import PLANS, Experiment, Plan, PlannedRun, plan
from ninlab.failures import FailureRecord
from ninlab.measurement import MemoryRecord, load_records
from ninlab.predictions import predicted_now
from ninlab.records import RunRecord
from ninlab.relapses import relapse
from ninlab.units import format_bytes, format_seconds

_FILED = {
    profiles.KIND: "Profiles of training steps, operator by operator",
    "benchmarks": "Comparisons with other tools, and of laws with each other",
}
"""What lies in a folder of runs, where that is neither runs nor measured steps."""


@dataclass(frozen=True)
class Inventory:
    """All records of a folder of runs, in the order of their files."""

    folder: Path
    runs: Sequence[RunRecord]
    steps: Sequence[MemoryRecord]
    failed: Sequence[FailureRecord]

    @classmethod
    def load(cls) -> Inventory:
        """The book's own records. Raises RecordError for one that cannot be read."""
        folder = records.runs_folder()
        return cls(folder, records.load(), load_records(folder), failures.load(folder))

    # ------------------------------------------------------------ the plans

    def planned(self, scale: str) -> dict[str, int]:
        """Number of planned runs, all seeds together, by experiment in the plan's order."""
        experiments = plan(scale).experiments
        return {_spaced(one.name): sum(row.seeds for row in one.rows) for one in experiments}

    def recorded(self, scale: str) -> dict[str, int]:
        """Number of planned runs that have a record, by experiment in the plan's order."""
        asked = plan(scale)
        return {
            _spaced(one.name): sum(map(self._is_made, asked.only([one.name]).runs))
            for one in asked.experiments
        }

    def runs_of(self, scale: str) -> list[RunRecord]:
        """The records of planned runs, on whichever device."""
        rows = {(one.name, row.name) for one in plan(scale).experiments for row in one.rows}
        return [run for run in self.runs if (run.experiment, run.name) in rows]

    def missing_at_full_size(self) -> str:
        """An HTML box that says how much of the full-size plan GPUs have recorded."""
        made, planned = sum(self.recorded("full").values()), sum(self.planned("full").values())
        steps = sum(step.device.slug != "cpu" for step in self.steps)
        measured = f"{steps} steps have" if steps != 1 else "1 step has"
        return (
            '<div class="admonition note"><p class="admonition-title">What GPUs have recorded</p>'
            f"<p>{made} of the {planned} full-size runs are recorded, and {measured} been measured "
            "on a GPU. Sentences that name no scale are about the compact runs. What is recorded "
            "at full size stands in panels and paragraphs of its own; where there is none, nothing "
            "of it is recorded yet.</p></div>"
        )

    def plans(self) -> str:
        """HTML: what of each plan is recorded, what is missing, and how long that should take."""
        by_experiment = (
            _folded(
                self._heading(scale),
                [self._coverage(scale, experiment) for experiment in plan(scale).experiments],
            )
            for scale in PLANS
        )
        stages = [self._stage(stage.name, stage.purpose) for stage in plan("full").stages]
        return "".join(by_experiment) + _folded("The full plan, stage by stage", stages)

    @cached_property
    def _made(self) -> set[tuple[str, str, int]]:
        return {(run.experiment, run.name, run.seed) for run in self.runs}

    @cached_property
    def _estimates(self) -> dict[str, Estimates]:
        return {
            scale: one.estimates(self.runs, one.made_on(self.runs)) for scale, one in PLANS.items()
        }

    def _is_made(self, run: PlannedRun) -> bool:
        return (run.experiment, run.row.name, run.seed) in self._made

    def _left(self, scale: str, asked: Iterable[PlannedRun]) -> str:
        """How many of these runs have no record and how long they should take; "" if all have."""
        left = [run for run in asked if not self._is_made(run)]
        seconds = sum(
            self._estimates[scale].seconds(run.row.network, run.row.recipe) for run in left
        )
        return f"{_counted(len(left), 'run')}, {format_seconds(seconds)}" if left else ""

    def _heading(self, scale: str) -> str:
        left = self._left(scale, plan(scale).runs)
        rest = f"left of it: {left}" if left else "nothing of it is left"
        return f"The {scale} plan, experiment by experiment; {rest}"

    def _coverage(self, scale: str, experiment: Experiment) -> dict[str, str]:
        asked = plan(scale).only([experiment.name])
        made = sum(map(self._is_made, asked.runs))
        return {
            "experiment": _spaced(experiment.name),
            "recorded": f"{made} of {len(asked.runs)}",
            "left": self._left(scale, asked.runs),
            "question": escape(experiment.question),
            "missing": self._missing(asked),
        }

    def _missing(self, asked: Plan) -> str:
        left = [run for run in asked.runs if not self._is_made(run)]
        if not left:
            return "nothing"
        if len(left) == len(asked.runs):
            return "everything"
        seeds: dict[str, list[str]] = {}
        for run in left:
            seeds.setdefault(run.row.name, []).append(str(run.seed))
        return escape("; ".join(f"{name}, seed {', '.join(s)}" for name, s in seeds.items()))

    def _stage(self, name: str, purpose: str) -> dict[str, str]:
        asked = [run for run in plan("full").runs if run.stage == name]
        return {
            "stage": name,
            "recorded": f"{sum(map(self._is_made, asked))} of {len(asked)}",
            "left": self._left("full", asked),
            "what for": escape(purpose),
        }

    # ------------------------------------------------------------ the records

    def summary(self) -> str:
        """Markdown: how many runs and steps there are, how runs ended, when and where."""
        outcomes = Counter(str(run.outcome) for run in self.runs)
        devices = Counter(run.device.name for run in self.runs)
        days = sorted(run.provenance.utc[:10] for run in self.runs)
        span = f"on {days[0]}" if days[0] == days[-1] else f"from {days[0]} to {days[-1]}"
        where = " and ".join(f"{name} ({count})" for name, count in devices.items())
        replaced = len(self.runs) - len(self._current)
        return (
            f"There are **{len(self.runs)} training runs**: {_listed(outcomes)}. They were "
            f"recorded {span}, on {where}. Later runs replace {replaced or 'none'} of them. "
            f"There are **{len(self.steps)} measured steps** of memory and time."
        )

    def every_run(self) -> str:
        """HTML: a table of the runs of each experiment."""
        by_experiment: dict[str, list[RunRecord]] = {}
        for run in sorted(self.runs, key=lambda run: run.experiment):
            by_experiment.setdefault(run.experiment, []).append(run)
        return "".join(
            _folded(
                f"<b>{_spaced(name)}</b>: {_listed(Counter(str(run.outcome) for run in group))}",
                [self._run(run) for run in group],
            )
            for name, group in by_experiment.items()
        )

    def every_step(self) -> str:
        """HTML: a table of the measured steps, each beside what is predicted of it now."""
        if not self.steps:
            return "<p>No step is recorded yet.</p>"
        return _folded(
            f"{len(self.steps)} steps", [_step(predicted_now(step)) for step in self.steps]
        )

    def others(self) -> str:
        """HTML: the runs that came to nothing, and links to all else, by what it is."""
        told = "<p>No run came to nothing.</p>"
        if self.failed:
            told = _folded("Runs that came to nothing", [_failure(one) for one in self.failed])
        known = {
            *(run.id for run in self.runs),
            *(step.id for step in self.steps),
            *(failure.id for failure in self.failed),
        }
        found = (
            path.relative_to(self.folder).with_suffix("").as_posix()
            for path in sorted(self.folder.glob("*/*.json"))
        )
        left: dict[str, list[str]] = {said: [] for said in _FILED.values()}
        for name in found:
            if name not in known:
                said = _FILED.get(name.partition("/")[0], "Other files")
                left.setdefault(said, []).append(_link(name, name))
        listed = (f"<p>{said}: {', '.join(links)}.</p>" for said, links in left.items() if links)
        return told + "".join(listed)

    @cached_property
    def _current(self) -> set[str]:
        return {run.id for run in records.current(self.runs)}

    def _run(self, run: RunRecord) -> dict[str, Any]:
        return {
            "run": _link(run.id, f"{run.name}, seed {run.seed}"),
            "outcome": str(run.outcome) + ("" if run.id in self._current else ", replaced"),
            "accuracy": f"{run.last.test_accuracy:.1%}",
            "judged on": _spaced(str(run.recipe.evaluation_set)),
            "dead classes": run.last.dead_classes,
            "never predicted": run.never_predicted,
            "relapsed": "yes" if relapse(run) else "",
            "epochs": len(run.epochs),
            "rate": f"{run.recipe.learning_rate:g}",
            "precision": str(run.recipe.precision),
            "kernels": str(run.recipe.kernels),
            "images/s": f"{run.images_per_second:,.0f}" if run.had_its_device else "",
        } | _made_by(run)


def _step(step: MemoryRecord) -> dict[str, Any]:
    """A CPU has no allocator to ask: there the peak of the tensors is compared."""
    found = step.measured
    kind = "allocated_peak_bytes" if found.allocated_peak_bytes else "tensor_peak_bytes"
    peak: int | None = getattr(found, kind)
    predicted = int(step.predicted[kind]) if kind in step.predicted else None
    median = found.median_seconds
    return {
        "step": _link(step.id, step.case.slug),
        "outcome": str(found.outcome),
        "predicted": format_bytes(predicted) if predicted else "",
        "measured": format_bytes(peak) if peak else "",
        "difference": f"{peak - predicted:+,} B" if peak and predicted else "",
        "median time": "" if median is None else format_seconds(median),
        "allocator": _spaced(str(step.allocator)),
    } | _made_by(step)


def _failure(failure: FailureRecord) -> dict[str, str]:
    return {
        "run": _link(failure.id, failure.run),
        "cause": _spaced(str(failure.cause)),
        "in words": escape(failure.sentence),
    } | _made_by(failure)


def _made_by(record: RunRecord | MemoryRecord | FailureRecord) -> dict[str, str]:
    """Device, software, date and commit of a record; a star marks a tree with changes."""
    software, provenance = record.software, record.provenance
    versions = {
        "torch": software.torch,
        "Python": software.python,
        "CUDA": software.cuda,
        "cuDNN": software.cudnn,
        "driver": record.device.driver,
    }
    star = "" if provenance.clean_tree else "*"
    return {
        "device": record.device.name,
        "software": ", ".join(f"{name} {version}" for name, version in versions.items() if version),
        "date": provenance.utc[:10],
        "commit": f"{(provenance.commit or 'unknown')[:7]}{star}",
    }


def _folded(title: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """A table behind its title; what all rows have in common is said once, above it."""
    frame = pd.DataFrame(rows)
    same = [name for name in frame.columns[1:] if len(frame) > 1 and frame[name].nunique() == 1]
    said = "; ".join(f"{name} {frame[name].iloc[0]}" for name in same if frame[name].iloc[0] != "")
    table = frame.drop(columns=same).to_html(escape=False, index=False, border=0)
    common = f"<p>In every row: {said}.</p>" if said else ""
    return f"<details><summary>{title}</summary>{common}{table}</details>"


def _link(identifier: str, text: str) -> str:
    return f'<a href="../runs/{identifier}.json">{text}</a>'


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {kind}" for kind, count in counts.items())


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" + "s" * (number != 1)


def _spaced(name: str) -> str:
    """A name of code as a reader writes it."""
    return name.replace("_", " ")
