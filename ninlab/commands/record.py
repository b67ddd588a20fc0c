"""``train`` and ``record``: make measured runs, one by one or those of a plan."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
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

from ninlab import experiments, records
from ninlab.commands.shared import RunsFolder, existing_folder, typed_command, wide_console
from ninlab.errors import RecordError
from ninlab.recipes import Augmentation, Optimizer, Precision, Recipe, Schedule
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
    chosen = chosen_plan(plan, only)
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


def chosen_plan(name: str, only: Sequence[str] | None) -> experiments.Plan:
    """The plan, or those of its experiments. Raises UnknownNameError for either name."""
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


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )
