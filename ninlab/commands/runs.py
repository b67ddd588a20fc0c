"""``train``, ``record`` and ``runs``: make measured runs, and look at those that exist."""

from __future__ import annotations

import csv
import json
import sys
from collections import Counter
from collections.abc import Container, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from ninlab import comparisons, experiments, records
from ninlab.commands.shared import Format, RunsFolder, existing_folder, typed_command, wide_console
from ninlab.errors import NinlabError, RecordError, UnknownNameError
from ninlab.recipes import Augmentation, Optimizer, Precision, Recipe, Schedule
from ninlab.records import RunRecord
from ninlab.units import format_seconds

if TYPE_CHECKING:
    from ninlab.recording import Status, Tally

SINGLE_RUNS = "single"
"""The experiment under which ``train`` files its runs."""


class Executor(StrEnum):
    """What spreads the runs."""

    PROCESS = "process"
    RAY = "ray"


# ---------------------------------------------------------------- train


def train(
    network: Annotated[str, typer.Argument(help="Name of a network; see the command networks.")],
    epochs: Annotated[int, typer.Option(help="Passes over the training images.")] = 1,
    learning_rate: Annotated[
        float, typer.Option(help="Learning rate, the peak's for one_cycle.")
    ] = 0.003,
    optimizer: Annotated[Optimizer, typer.Option(help="Optimizer.")] = Optimizer.ADAM,
    momentum: Annotated[float, typer.Option(help="Momentum of sgd.")] = 0.0,
    weight_decay: Annotated[float, typer.Option(help="L2 penalty.")] = 0.0,
    schedule: Annotated[Schedule, typer.Option(help="How the rate moves.")] = Schedule.ONE_CYCLE,
    batch_size: Annotated[int, typer.Option(help="Images a step.")] = 32,
    precision: Annotated[Precision, typer.Option(help="Arithmetic.")] = Precision.FP32,
    augmentation: Annotated[
        Augmentation, typer.Option(help="Changes to training images.")
    ] = Augmentation.NONE,
    standardize: Annotated[bool, typer.Option(help="Bring pixels to mean 0, variance 1.")] = False,
    train_images: Annotated[
        int | None, typer.Option(help="Use the first N training images.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of weights, order and dropout.")] = 0,
    device: Annotated[str, typer.Option(help="cpu, cuda, or auto.")] = "auto",
    threads: Annotated[int, typer.Option(help="CPU threads.")] = 1,
    name: Annotated[
        str | None, typer.Option(help="Name of the record; by default the network's.")
    ] = None,
    corrects: Annotated[
        str | None, typer.Option(help="Id of the record that this replaces.")
    ] = None,
    folder: RunsFolder = None,
    allow_dirty: Annotated[
        bool, typer.Option(help="Record although the code differs from its commit.")
    ] = False,
) -> None:
    """Train one network on Fashion-MNIST and write the run's record."""
    import torch

    from ninlab import recording, training
    from ninlab.architectures import architecture
    from ninlab.environment import describe_device, parse_device

    recipe = Recipe(
        learning_rate,
        epochs,
        batch_size=batch_size,
        optimizer=optimizer,
        momentum=momentum,
        weight_decay=weight_decay,
        schedule=schedule,
        precision=precision,
        augmentation=augmentation,
        standardize=standardize,
        train_images=train_images,
    )
    built = architecture(network)
    where = parse_device(device)
    target = existing_folder(folder)
    name = name or built.name
    records.check_slug("name", name)
    provenance = records.provenance(typed_command())
    recording.check_tree(provenance, allow_dirty)
    identifier = records.run_id(SINGLE_RUNS, name, seed, describe_device(where).slug)
    path = records.record_path(target, identifier)
    if corrects is not None and not records.record_path(target, corrects).exists():
        raise RecordError(f"{corrects!r} is no record in {target}; name one by its id")
    torch.set_num_threads(threads)
    with records.claim(target, identifier) as mine:
        if not mine or path.exists():
            what = "exists" if mine else "is being made by another process"
            raise RecordError(f"{path} {what}; choose another --name or --seed")
        with _progress() as progress:
            task = progress.add_task(f"{built.title}, seed {seed}", total=recipe.steps)
            run = training.train(
                built,
                recipe,
                seed=seed,
                device=where,
                on_step=lambda step: progress.update(task, completed=step),
            )
        record = run.record(
            experiment=SINGLE_RUNS, name=name, provenance=provenance, corrects=corrects
        )
        records.write(target, record)
    last = record.last
    typer.echo(
        f"{record.outcome}: test accuracy {last.test_accuracy:.4f}, "
        f"{last.dead_classes} dead classes, "
        f"{format_seconds(sum(e.seconds for e in record.epochs))} of training, "
        f"{record.images_per_second:,.0f} images/s"
    )
    typer.echo(f"record: {path}")


# ---------------------------------------------------------------- record


def record(
    plan: Annotated[str, typer.Option(help="Which plan: compact or full.")] = "compact",
    budget_seconds: Annotated[
        float | None, typer.Option(help="Start no run that would end later.")
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option("--experiment", help="Only this experiment; repeatable.")
    ] = None,
    workers: Annotated[int, typer.Option(help="Recorders on this machine.")] = 1,
    executor: Annotated[
        Executor, typer.Option(help="Processes of this machine, or a Ray cluster.")
    ] = Executor.PROCESS,
    gpus_per_run: Annotated[float, typer.Option(help="Share of a GPU a run gets from Ray.")] = 0.0,
    device: Annotated[str, typer.Option(help="cpu, cuda, or auto.")] = "auto",
    threads: Annotated[int, typer.Option(help="CPU threads of a run.")] = 1,
    folder: RunsFolder = None,
    dry_run: Annotated[
        bool, typer.Option(help="Print the runs, their order and estimated seconds.")
    ] = False,
    allow_dirty: Annotated[
        bool, typer.Option(help="Record although the code differs from its commit.")
    ] = False,
) -> None:
    """Make the runs of a plan that are not recorded yet, the most wanted first."""
    chosen = _chosen_plan(plan, only)
    if dry_run:
        _print_plan(chosen)
        return
    from ninlab import data, recording
    from ninlab.environment import parse_device

    provenance = records.provenance(typed_command())
    recording.check_tree(provenance, allow_dirty)
    data.fashion_mnist()  # a wrong data file is said before anything starts
    site = recording.Site(existing_folder(folder), str(parse_device(device)), provenance, threads)
    with _progress() as progress:
        watcher = _Bars(progress, len(chosen.runs))
        if executor is Executor.RAY:
            tally = recording.record_with_ray(
                chosen, site, budget_seconds=budget_seconds, watcher=watcher,
                gpus_per_run=gpus_per_run,
            )  # fmt: skip
        else:
            tally = recording.record_with_workers(
                chosen, site, workers=workers, budget_seconds=budget_seconds, watcher=watcher
            )
    _print_tally(tally, site.folder)


def _chosen_plan(name: str, only: Sequence[str] | None) -> experiments.Plan:
    plan = experiments.plan(name)
    if not only:
        return plan
    return replace(plan, experiments=tuple(plan.experiment(name) for name in only))


class _Bars:
    """One bar for the plan, one for the run in hand."""

    def __init__(self, progress: Progress, runs: int) -> None:
        self._progress = progress
        self._plan = progress.add_task("plan", total=runs)
        self._run: TaskID | None = None
        self._done: set[str] = set()

    def run_started(self, run: experiments.PlannedRun, steps: int) -> None:
        if self._run is not None:
            self._progress.remove_task(self._run)
        title = f"{run.experiment}/{run.variant.name} seed {run.seed}"
        self._run = self._progress.add_task(title, total=steps)

    def step_taken(self, step: int) -> None:
        if self._run is not None:
            self._progress.update(self._run, completed=step)

    def run_ended(self, run: experiments.PlannedRun, status: Status) -> None:
        if status in ("recorded", "present"):
            self._done.add(run.id(""))
            self._progress.update(self._plan, completed=len(self._done))


def _print_plan(plan: experiments.Plan) -> None:
    table = Table(title=f"plan {plan.name}: {plan.description}")
    for column in ("#", "experiment", "run", "seed", "learning rate"):
        table.add_column(column, overflow="fold")
    table.add_column("estimated", justify="right")
    table.add_column("from start", justify="right")
    total = 0.0
    for number, run in enumerate(plan.runs, start=1):
        total += run.estimated_seconds
        rate = (
            "best of its sweep"
            if run.variant.rate_from
            else f"{run.variant.recipe.learning_rate:g}"
        )
        table.add_row(
            str(number), run.experiment, run.variant.name, str(run.seed), rate,
            format_seconds(run.estimated_seconds), format_seconds(total),
        )  # fmt: skip
    console = wide_console()
    console.print(table)
    for experiment in plan.experiments:
        console.print(
            f"{experiment.name} ({experiment.chapter}): {experiment.question}", soft_wrap=True
        )


def _print_tally(tally: Tally, folder: Path) -> None:
    from ninlab.recording import Status

    counts = {status: len(tally.ids(status)) for status in Status}
    typer.echo(
        f"{counts[Status.RECORDED]} runs recorded in {format_seconds(tally.seconds)}, "
        f"{counts[Status.PRESENT]} were there, {counts[Status.NO_TIME]} left for want of time, "
        f"{counts[Status.CLAIMED]} in other hands, {counts[Status.WAITING]} waiting for a sweep "
        f"(folder {folder})"
    )


# ---------------------------------------------------------------- runs


def runs(
    experiment: Annotated[str | None, typer.Option(help="Only this experiment.")] = None,
    network: Annotated[str | None, typer.Option(help="Only this network.")] = None,
    device: Annotated[
        str | None,
        typer.Option(help="Only this device, by its name in file names. [with --missing: cpu]"),
    ] = None,
    outcome: Annotated[records.Outcome | None, typer.Option(help="Only this outcome.")] = None,
    output: Annotated[Format, typer.Option("--format", help="table, json or csv.")] = Format.TABLE,
    summary: Annotated[
        bool, typer.Option("--summary", help="One row a variant and device, over its seeds.")
    ] = False,
    validate: Annotated[bool, typer.Option("--validate", help="Check every file instead.")] = False,
    missing: Annotated[
        str | None, typer.Option(help="List the runs of this plan that are not there instead.")
    ] = None,
    folder: RunsFolder = None,
) -> None:
    """List, export or check the training runs, or say which runs of a plan are missing."""
    where = existing_folder(folder)
    if validate:
        chosen = {"--experiment": experiment, "--network": network, "--device": device}
        shown = {"--outcome": outcome, "--summary": summary, "--missing": missing}
        _refuse("--validate checks every file", chosen | shown | _format(output))
        _validate(where)
        return
    found = records.load(where)
    if missing is not None:
        shown = {"--network": network, "--outcome": outcome, "--summary": summary}
        _refuse("--missing lists runs that have no record", shown | _format(output))
        plan = _chosen_plan(missing, [experiment] if experiment else None)
        for planned in plan.missing((run.id for run in found), device or "cpu"):
            typer.echo(planned.id(device or "cpu"))
        return
    _require_known("experiment", experiment, {run.experiment for run in found})
    _require_known("network", network, {run.network for run in found})
    _require_known("device", device, {run.device.slug for run in found})
    standing = {run.id for run in records.current(found)}
    selected = [
        run
        for run in found
        if experiment in (None, run.experiment)
        and network in (None, run.network)
        and device in (None, run.device.slug)
        and outcome in (None, run.outcome)
    ]
    if summary:
        _write_summary([run for run in selected if run.id in standing], output)
    else:
        _write_runs(selected, standing, output)


def _format(output: Format) -> dict[str, object]:
    return {"--format": output is not Format.TABLE}


def _refuse(what: str, options: Mapping[str, object]) -> None:
    """Raises NinlabError for an option that was given though it has no bearing on what is asked."""
    given = [name for name, value in options.items() if value]
    if given:
        raise NinlabError(f"{what} and takes no {', '.join(given)}; ask without")


def _require_known(kind: str, name: str | None, known: set[str]) -> None:
    if name is not None and known and name not in known:
        raise UnknownNameError(kind, name, sorted(known))


def _validate(folder: Path) -> None:
    """Say how many records are valid, or print every problem. Raises RecordError for one."""
    from ninlab import measurement  # the only part of this command that waits for torch
    from ninlab.architectures import ARCHITECTURES

    from_json = {measurement.KIND: measurement.MemoryRecord.from_json}
    found = list(records.problems(folder, from_json))
    if not found:
        digests = [(run.id, run.network, run.network_digest) for run in records.load(folder)]
        digests += [
            (step.id, step.case.network, step.network_digest)
            for step in measurement.load_records(folder)
        ]
        for identifier, name, digest in digests:
            network = ARCHITECTURES.get(name)
            if network is None or network.digest != digest:
                found.append(f"{identifier}: {name} is not the network it was; record a correction")
    for problem in found:
        typer.echo(problem)
    if found:
        raise RecordError(f"{len(found)} of the files in {folder} are not valid; see above")
    kinds = records.kinds(folder)
    checked = {kind: kinds.pop(kind, 0) for kind in (records.TRAINING, *from_json)}
    typer.echo(f"{sum(checked.values())} valid records in {folder}: {_by_kind(checked)}")
    if kinds:
        typer.echo(f"not checked, for only who made them can read them: {_by_kind(kinds)}")


def _by_kind(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} of kind {kind!r}" for kind, count in counts.items())


def _write_runs(found: Sequence[RunRecord], standing: Container[str], output: Format) -> None:
    """A run that another replaces is marked in the table; its record says nothing of it."""
    if output is Format.JSON:
        typer.echo(json.dumps({"runs": [run.to_json() for run in found]}, indent=1))
        return
    if output is Format.CSV:
        typer.echo(records.to_frame(found).to_csv(), nl=False)
        return
    table = Table()
    for column in ("run", "outcome"):
        table.add_column(column, overflow="fold")
    for column in ("test accuracy", "train loss", "dead", "images/s"):
        table.add_column(column, justify="right")
    for run in found:
        last = run.last
        loss = "not finite" if last.train_loss is None else f"{last.train_loss:.3f}"
        table.add_row(
            run.id, str(run.outcome) + ("" if run.id in standing else ", replaced"),
            f"{last.test_accuracy:.4f}", loss, str(last.dead_classes),
            f"{run.images_per_second:,.0f}",
        )  # fmt: skip
    _print_table(table)


@dataclass(frozen=True)
class Variant:
    """The runs of one variant on one device, whatever their outcome, over the last epochs."""

    experiment: str
    name: str
    device_slug: str
    network: str
    runs: int
    accuracy_mean: float
    accuracy_deviation: float | None  # between seeds; None for one run, which has none
    accuracy_lowest: float
    accuracy_highest: float
    most_dead_classes: int
    finished: int
    diverged: int
    stuck: int

    @classmethod
    def of(cls, runs: Sequence[RunRecord]) -> Variant:
        """The summary of runs that differ in their seed only."""
        ended = comparisons.summary(runs)
        outcomes = Counter(run.outcome for run in runs)
        return cls(
            experiment=runs[0].experiment,
            name=runs[0].name,
            device_slug=runs[0].device.slug,
            network=runs[0].network,
            runs=ended.runs,
            accuracy_mean=ended.mean,
            accuracy_deviation=ended.deviation if ended.runs > 1 else None,
            accuracy_lowest=ended.least,
            accuracy_highest=ended.greatest,
            most_dead_classes=max(run.last.dead_classes for run in runs),
            **{str(outcome): outcomes[outcome] for outcome in records.Outcome},
        )


def _write_summary(found: Sequence[RunRecord], output: Format) -> None:
    groups: dict[tuple[str, str, str], list[RunRecord]] = {}
    for run in found:
        groups.setdefault((run.experiment, run.name, run.device.slug), []).append(run)
    variants = [Variant.of(group) for group in groups.values()]
    if output is Format.JSON:
        rows = [asdict(variant) for variant in variants]
        typer.echo(json.dumps({"variants": rows}, indent=1))
    elif output is Format.CSV:
        columns = [field.name for field in fields(Variant)]
        writer = csv.DictWriter(sys.stdout, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(variant) for variant in variants)
    else:
        _print_variants(variants)


def _print_variants(variants: Sequence[Variant]) -> None:
    table = Table()
    for column in ("variant", "device"):
        table.add_column(column, overflow="fold")
    for column in ("n", "accuracy, mean", "lowest", "highest", "most dead", "outcomes"):
        table.add_column(column, justify="right")
    for variant in variants:
        counts = ((getattr(variant, outcome), outcome) for outcome in records.Outcome)
        table.add_row(
            f"{variant.experiment}/{variant.name}", variant.device_slug, str(variant.runs),
            f"{variant.accuracy_mean:.4f}", f"{variant.accuracy_lowest:.4f}",
            f"{variant.accuracy_highest:.4f}", str(variant.most_dead_classes),
            ", ".join(f"{count} {outcome}" for count, outcome in counts if count),
        )  # fmt: skip
    _print_table(table)


def _print_table(table: Table) -> None:
    if table.row_count:
        wide_console().print(table)
    else:
        typer.echo("no run is like that; `python -m ninlab record` makes those of a plan")


# ---------------------------------------------------------------- shared


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )
