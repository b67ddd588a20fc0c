"""``train`` and ``record``: make measured runs, one by one or those of a plan."""

from __future__ import annotations

import time
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from ninlab import experiments, failures, records
from ninlab.commands.progress import AfterEach, Bars, Lines, progress_bars
from ninlab.commands.shared import (
    DeviceName,
    RunsFolder,
    Threads,
    a_path,
    any_number,
    deadline_of,
    existing_folder,
    finite_number,
    handing_over,
    one_of,
    typed_command,
    whole_number,
    wide_console,
)
from ninlab.errors import NinlabError, RecordError, quoted
from ninlab.recipes import (
    MOST_SEED,
    TRAINED,
    TRAINED_KERNELS,
    Augmentation,
    Recipe,
    Schedule,
)
from ninlab.records import Device, RunRecord
from ninlab.steps import Kernels, Optimizer, Precision
from ninlab.units import format_seconds
from ninlab.watching import Status, Watchers

if TYPE_CHECKING:
    from ninlab.recording import Site, Tally

SINGLE_RUNS = "single"
"""The experiment under which ``train`` files its runs."""

LONGEST_NAME = 100
"""Characters of a name that ``train`` is given: seed and device come behind it in a file's name."""

MOST_WORKERS = 128  # each takes file descriptors, of which 1,024 are usual


class Executor(StrEnum):
    """What spreads the runs."""

    PROCESS = "process"
    RAY = "ray"


# ---------------------------------------------------------------- train


def train(
    network: Annotated[str, typer.Argument(help="Name of a network; see the command networks.")],
    epochs: Annotated[
        int, typer.Option(help="Passes over the training images.", **whole_number())
    ] = 1,
    learning_rate: Annotated[
        float, typer.Option(help="Learning rate, the peak's for one_cycle.", **any_number())
    ] = 0.003,
    optimizer: Annotated[
        Optimizer, typer.Option(help="Whose steps are taken.", **one_of(Optimizer, TRAINED))
    ] = Optimizer.ADAM,
    momentum: Annotated[float, typer.Option(help="Momentum of sgd.", **any_number())] = 0.0,
    weight_decay: Annotated[
        float, typer.Option(help="Weight decay, as torch has it.", **any_number())
    ] = 0.0,
    schedule: Annotated[
        Schedule, typer.Option(help="How the rate moves.", **one_of(Schedule))
    ] = Schedule.ONE_CYCLE,
    batch_size: Annotated[int, typer.Option(help="Images a step.", **whole_number())] = 32,
    precision: Annotated[
        Precision, typer.Option(help="Arithmetic.", **one_of(Precision))
    ] = Precision.FP32,
    kernels: Annotated[
        Kernels,
        typer.Option(
            help="Whose compute the layers; fused join some, on a GPU.",
            **one_of(Kernels, TRAINED_KERNELS),
        ),
    ] = Kernels.TORCH,
    augmentation: Annotated[
        Augmentation, typer.Option(help="Changes to training images.", **one_of(Augmentation))
    ] = Augmentation.NONE,
    standardize: Annotated[bool, typer.Option(help="Bring pixels to mean 0, variance 1.")] = False,
    train_images: Annotated[
        int | None, typer.Option(help="Use the first N training images.", **whole_number())
    ] = None,
    seed: Annotated[
        int, typer.Option(help="Of weights, order and dropout.", **whole_number(0, MOST_SEED))
    ] = 0,
    device: DeviceName = "auto",
    threads: Threads = 1,
    eager: Annotated[
        bool, typer.Option("--eager", help="Take steps without a CUDA graph.")
    ] = False,
    name: Annotated[
        str | None,
        typer.Option(help="Name of the record. [the network's, and kernels that are not torch's]"),
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
    # The numbers of a recipe are judged by Recipe, whoever makes one. All that could keep the
    # record from being written is found out before the training.
    import torch

    from ninlab import recording, training
    from ninlab.architectures import architecture
    from ninlab.environment import describe_device, is_out_of_memory, parse_device

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
        kernels=kernels,
    )
    built = architecture(network)
    where = parse_device(device)
    training.check_kernels(built, kernels, where)
    target = existing_folder(folder)
    if name is None:
        name = built.name if kernels is Kernels.TORCH else f"{built.name}_{kernels}"
    records.check_slug("name", name)
    if len(name) > LONGEST_NAME:
        raise NinlabError(
            f"the name {quoted(name)} has {len(name)} characters; take at most {LONGEST_NAME}"
        )
    identifier = records.run_id(SINGLE_RUNS, name, seed, describe_device(where).slug)
    path = records.record_path(target, identifier)
    if corrects is not None:
        _check_corrected(target, corrects)
    provenance = records.provenance(typed_command())
    recording.check_tree(provenance, allow_dirty)
    torch.set_num_threads(threads)
    with records.claim(target, identifier) as mine:
        if not mine or path.exists():
            what = "exists" if mine else "is being made by another process"
            raise RecordError(f"{path} {what}; choose another --name or --seed")
        records.check_can_write(path)  # before the work, as all else that could lose it
        split = training.choose_split(recipe)
        with progress_bars() as progress:
            task = progress.add_task(f"{built.title}, seed {seed}", total=recipe.steps)
            try:
                run = training.train(
                    built,
                    recipe,
                    seed=seed,
                    device=where,
                    split=split,
                    use_graph=not eager,
                    on_step=lambda step: progress.update(task, completed=step),
                )
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                raise NinlabError(
                    f"{where} has not the memory for batches of {batch_size} images; take a "
                    "smaller --batch-size"
                ) from error
            record = run.record(
                experiment=SINGLE_RUNS, name=name, provenance=provenance, corrects=corrects
            )
            recording.Keeper(target).keep(recording.Made(record))  # drawing the last bar may fail
    last = record.last
    typer.echo(
        f"{record.outcome}: test accuracy {last.test_accuracy:.4f}, "
        f"{last.dead_classes} dead classes, "
        f"{format_seconds(sum(e.seconds for e in record.epochs))} of training, "
        f"{record.images_per_second:,.0f} images/s"
    )
    typer.echo(f"record: {path}")


def _check_corrected(folder: Path, identifier: str) -> None:
    """Raises RecordError unless a training run of that id is in the folder."""
    path = records.record_path(folder, identifier)
    if not path.is_file() or records.read(path).id != identifier:  # it may lead out of the folder
        raise RecordError(
            f"{quoted(identifier)} is no record of a run in {folder}; name one by its id, as "
            "`python -m ninlab runs` lists them"
        )


# ---------------------------------------------------------------- record


def record(
    plan: Annotated[str, typer.Option(help="Which plan: compact, middle or full.")] = "compact",
    budget_seconds: Annotated[
        float | None,
        typer.Option(
            help="Start no run that would end more seconds after this command began.",
            **finite_number(0),
        ),
    ] = None,
    deadline: Annotated[
        float | None,
        typer.Option(
            help="Start no run that would end after that time, in seconds since 1970.",
            **finite_number(0),
        ),
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option("--experiment", help="Only this experiment; repeatable.")
    ] = None,
    workers: Annotated[
        int, typer.Option(help="Recorders on this machine.", **whole_number(1, MOST_WORKERS))
    ] = 1,
    executor: Annotated[
        Executor,
        typer.Option(help="Processes of this machine, or a Ray cluster.", **one_of(Executor)),
    ] = Executor.PROCESS,
    gpus_per_run: Annotated[
        float, typer.Option(help="Share of a GPU a run gets from Ray.", **finite_number(0, 1))
    ] = 0.0,
    device: DeviceName = "auto",
    threads: Threads = 1,
    eager: Annotated[
        bool, typer.Option("--eager", help="Take steps without a CUDA graph.")
    ] = False,
    patience: Annotated[
        float | None,
        typer.Option(
            help="A run that takes so many times its estimate has hung and ends the process; the "
            "next start goes on behind it. [4 on a GPU, no end on a CPU]",
            **finite_number(1),
        ),
    ] = None,
    results: Annotated[
        Path | None,
        typer.Option(
            help="Folder into which all that is new is handed over after every run, and from which "
            "an earlier machine's runs are taken up first.",
            **a_path(),
        ),
    ] = None,
    folder: RunsFolder = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            help="Print the runs, their order and estimated seconds, and what fits the budget."
        ),
    ] = False,
    allow_dirty: Annotated[
        bool, typer.Option(help="Record although the code differs from its commit.")
    ] = False,
) -> None:
    """Make the runs of a plan that are not recorded yet, the most wanted first.

    A run that fails is tried once more without a CUDA graph, then noted as failed, and the rest
    goes on. A lost device ends the command with exit code 5.
    """
    chosen = chosen_plan(plan, only)
    where = existing_folder(folder)
    ends = deadline_of(deadline, budget_seconds)
    if dry_run:
        _print_plan(chosen, where, None if ends is None else max(ends - time.time(), 0.0))
        return
    from ninlab import data, recording
    from ninlab.environment import parse_device

    provenance = records.provenance(typed_command())
    recording.check_tree(provenance, allow_dirty)
    data.fashion_mnist()  # a wrong data file is said before anything starts
    on = parse_device(device)
    if patience is None and on.type == "cuda":
        patience = recording.PATIENCE
    if patience is not None:  # estimates are those of a run that has the device for itself
        patience *= workers / (gpus_per_run or 1.0)
    code = records.code_id() if provenance.clean_tree else None
    site = recording.Site(where, str(on), provenance, threads, eager, patience, code)
    warn_of_another_gpu(where, site.about)
    hand_over = handing_over(where, results)
    with progress_bars() as progress:
        shown = (
            Bars(progress, len(chosen.runs))
            if progress.console.is_terminal
            else Lines(where, site.device_slug)
        )
        watcher = Watchers(shown, AfterEach(hand_over))
        try:
            if executor is Executor.RAY:
                tally = recording.record_with_ray(
                    chosen, site, deadline=ends, watcher=watcher, gpus_per_run=gpus_per_run
                )
            else:
                tally = recording.record_with_workers(
                    chosen, site, workers=workers, deadline=ends, watcher=watcher
                )
        finally:
            hand_over()  # the note on a lost device comes after the last run
    _print_tally(tally, site)


def warn_of_another_gpu(folder: Path, device: Device) -> None:
    """Say on stderr, before any work, that the folder's runs are of another GPU than this one."""
    from ninlab.selfcheck import stranger_to

    if device.slug == "cpu":
        return
    stranger = stranger_to(records.load(folder), device)
    if stranger is not None:
        typer.echo(stranger, err=True)


def chosen_plan(name: str, only: Sequence[str] | None) -> experiments.Plan:
    """The plan, or those of its experiments. Raises UnknownNameError for either name."""
    plan = experiments.plan(name)
    return plan.only(only) if only else plan


def _print_plan(plan: experiments.Plan, folder: Path, budget_seconds: float | None) -> None:
    """Every run with its estimate, what is recorded, and what the budget leaves complete."""
    found = records.load(folder)
    device = device_of_plan(plan, found)
    slug = device.slug if device is not None else "cpu"
    code = records.code_id()
    recorded = {run.id for run in found}
    failed = {one.run for one in failures.load(folder) if code is not None and one.code == code}
    estimates = plan.estimates(found, device)
    ahead = plan.fitting(recorded, slug, estimates, budget_seconds, failed)
    on = device.name if device is not None else "a device of which no run is recorded"
    table = Table(title=f"plan {plan.name}: {plan.description}; estimated for {on}")
    for column in ("#", "stage", "experiment", "run", "seed", "learning rate"):
        table.add_column(column, overflow="fold")
    for column in ("estimated", "from now", "state"):
        table.add_column(column, justify="right")
    total = 0.0
    for number, run in enumerate(plan.runs, start=1):
        seconds = estimates.seconds(run.row.network, run.row.recipe)
        fits = run in ahead
        total += seconds if fits else 0.0
        state = (
            "recorded" if run.id(slug) in recorded
            else "fits" if fits
            else "failed" if run.id(slug) in failed
            else "no time"
        )  # fmt: skip
        rate = f"{run.row.recipe.learning_rate:g}"
        table.add_row(
            str(number), run.stage, run.experiment, run.row.name, str(run.seed),
            f"{run.row.rate_rule} of its sweep" if run.row.rate_from else rate,
            format_seconds(seconds), format_seconds(total) if fits else "", state,
        )  # fmt: skip
    console = wide_console()
    console.print(table)
    for experiment in plan.experiments:
        console.print(f"{experiment.name}: {experiment.question}", soft_wrap=True)
    missing = plan.missing(recorded, slug)
    left = sum(estimates.seconds(run.row.network, run.row.recipe) for run in missing)
    console.print(
        f"{len(missing)} of {len(plan.runs)} runs are missing on {on}: {format_seconds(left)}",
        soft_wrap=True,
    )
    if budget_seconds is not None:
        after = recorded | {run.id(slug) for run in ahead}
        complete = [
            one.name for one in plan.experiments if not plan.only([one.name]).missing(after, slug)
        ]
        console.print(
            f"within {format_seconds(budget_seconds)}: {len(ahead)} runs, "
            f"{format_seconds(total)}; complete then: {', '.join(complete) or 'nothing'}",
            soft_wrap=True,
        )


def device_of_plan(plan: experiments.Plan, found: Sequence[RunRecord]) -> Device | None:
    """The device that made the most of the whole plan of that name, be it asked for a part."""
    return experiments.plan(plan.name).made_on(found)


def _print_tally(tally: Tally, site: Site) -> None:
    counts = {status: len(tally.ids(status)) for status in Status}
    typer.echo(
        f"{counts[Status.RECORDED]} runs recorded in {format_seconds(tally.seconds)}, "
        f"{counts[Status.PRESENT]} were there, {counts[Status.FAILED]} failed, "
        f"{counts[Status.NO_TIME]} left for want of time, "
        f"{counts[Status.CLAIMED]} in other hands, {counts[Status.WAITING]} waiting for a sweep "
        f"(folder {site.folder})"
    )
    failed = set(tally.ids(Status.FAILED))
    for failure in failures.load(site.folder) if failed else ():
        if failure.run in failed and failure.code == site.code:
            path = records.record_path(site.folder, failure.id)
            typer.echo(f"failed: {failure.run}: {failure.sentence} (remove {path} to try it again)")
