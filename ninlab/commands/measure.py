"""``measure``: what do steps really take here, beside what was predicted?"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, groupby
from pathlib import Path
from statistics import fmean
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.table import Table

from ninlab import measurement, records
from ninlab.architectures import architecture
from ninlab.commands.shared import (
    BATCH_SIZE,
    DeviceName,
    RunsFolder,
    Threads,
    a_path,
    existing_folder,
    finite_number,
    handing_over,
    one_of,
    typed_command,
    whole_number,
    wide_console,
)
from ninlab.devices import of_cuda_name
from ninlab.environment import describe_device, describe_software, parse_device
from ninlab.errors import NinlabError
from ninlab.measurement import (
    PEAKS,
    TOLERANCE,
    Allocator,
    Case,
    CaseOutcome,
    Failed,
    Measured,
    MemoryRecord,
)
from ninlab.predictions import (
    FITTED_NETWORKS,
    estimated_seconds,
    predicted,
    prediction_errors,
    time_model,
)
from ninlab.recording import check_tree
from ninlab.records import Device, Software
from ninlab.steps import Optimizer, Precision
from ninlab.units import format_bytes, format_seconds

BATCH_SIZES = (1, 16, 128)
DEFAULT_MODES = (measurement.INFERENCE, Optimizer.SGD, Optimizer.MOMENTUM, Optimizer.ADAM)
"""What is measured unless the reader says otherwise, in all precisions that there are."""


FAILED = 1
"""Exit code when a case failed."""


@dataclass(frozen=True)
class Row:
    """One case under one allocator setting, and where its record belongs."""

    case: Case
    allocator: Allocator
    path: Path


def measure(
    networks: Annotated[list[str], typer.Argument(help="Names of networks; see networks.")],
    batch_size: Annotated[
        list[int] | None,
        typer.Option(help="Images in one batch; repeatable. [1, 16, 128]", **BATCH_SIZE),
    ] = None,
    precision: Annotated[
        list[Precision] | None,
        typer.Option(help="Arithmetic; repeatable. [all there are]", **one_of(Precision)),
    ] = None,
    mode: Annotated[
        list[str] | None,
        typer.Option(
            help=f"{', '.join(measurement.MODES)}; repeatable. [{', '.join(DEFAULT_MODES)}]"
        ),
    ] = None,
    allocator: Annotated[
        list[Allocator] | None,
        typer.Option(help="Setting of the CUDA allocator; repeatable. [both]", **one_of(Allocator)),
    ] = None,
    device: DeviceName = "auto",
    timed_steps: Annotated[
        int,
        typer.Option(
            help="Steps that are timed, after the warm ones.", **whole_number(2, 1_000_000)
        ),
    ] = measurement.DEFAULT_TIMED_STEPS,
    threads: Threads = 1,
    folder: RunsFolder = None,
    events: Annotated[
        Path | None,
        typer.Option(
            help="Folder for two allocator traces a case, on a GPU; recorded cases that lack them "
            "there are traced, too.",
            **a_path(),
        ),
    ] = None,
    properties: Annotated[
        Path | None,
        typer.Option(
            help="File for cuDNN's own description of the GPU, unless it is there.", **a_path()
        ),
    ] = None,
    deadline: Annotated[
        float | None,
        typer.Option(
            help="Moment after which no case is begun, in seconds since 1970.", **finite_number(0)
        ),
    ] = None,
    results: Annotated[
        Path | None,
        typer.Option(
            help="Folder into which all that is new is handed over after every case, and from "
            "which an earlier machine's records are taken up first.",
            **a_path(),
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option(help="Print the cases and their estimated seconds.")
    ] = False,
    allow_dirty: Annotated[
        bool, typer.Option(help="Record although the code differs from its commit.")
    ] = False,
) -> None:
    """Measure peak bytes and step time of networks, beside the prediction, and record them.

    A case that is recorded already is not measured again, but for the traces that --events lacks
    of it. A case that fails is named on stderr, does not end those after it, and makes the exit
    code 1. On a CPU its step is measured.
    """
    where = parse_device(device)
    on_gpu = where.type == "cuda"
    precisions = precision or [p for p in Precision if on_gpu or p != Precision.TF32]
    for each in precisions:
        measurement.check_precision(each, where)
    settings = _settings(allocator, on_gpu)
    cases = [
        Case(name, architecture(name).input_shape, size, arithmetic, kind)
        for name in networks
        for size in batch_size or BATCH_SIZES
        for arithmetic in precisions
        for kind in mode or DEFAULT_MODES
    ]
    target, about, software = existing_folder(folder), describe_device(where), describe_software()
    asked = (
        Row(case, setting, target / f"{_id(case, setting, software, about)}.json")
        for setting in settings
        for case in cases
    )
    rows = [*dict.fromkeys(asked)]  # one record each, however often it was typed
    if dry_run:
        new, again = _to_do(rows, target, events if on_gpu else None)
        _print_plan(rows, new, again, where, timed_steps)
        return
    provenance = records.provenance(typed_command())
    check_tree(provenance, allow_dirty)
    if properties is not None and not on_gpu:
        raise NinlabError("--properties needs a GPU: cuDNN describes no CPU")
    if events is not None:
        events.mkdir(parents=True, exist_ok=True)
    hand_over = handing_over(target, results)
    new, again = _to_do(rows, target, events if on_gpu else None)
    to_describe = None if properties is None or properties.exists() else properties
    console = wide_console()
    made: list[MemoryRecord] = []
    answered = traced = 0
    take = partial(_measured, device=where, threads=threads, events=events, deadline=deadline)
    # A record is worth more than a trace, so that those come first.
    for row, measured in chain(take(new, timed_steps=timed_steps), take(again, timed_steps=0)):
        answered += 1
        if row in again and measured == Measured(CaseOutcome.OUT_OF_MEMORY):
            measured = Failed("out of memory this time")
        outcome = f"failed: {measured.sentence}" if isinstance(measured, Failed) else ""
        typer.echo(f"{answered}/{len(new + again)} {row.path.stem} {outcome}".rstrip(), err=True)
        if not isinstance(measured, Failed) and row in again:
            traced += 1
        elif not isinstance(measured, Failed):
            record = MemoryRecord(
                case=row.case,
                network_digest=architecture(row.case.network).digest,
                allocator=row.allocator,
                measured=measured,
                predicted=_predicted(row, about),
                provenance=provenance,
                device=about,
                software=software,
            )
            records.write(target, record)
            made.append(record)
        if to_describe is not None and answered == 1:
            _save_properties(to_describe, where)
        hand_over()
    if to_describe is not None and answered == 0:
        _save_properties(to_describe, where)
        hand_over()
    if made:
        console.print(comparison_table(made))
        print_agreement(console, made)
    counts = f"{len(made)} measured, {len(rows) - len(new)} were there already"
    console.print(f"{counts}, {traced} traced again: {target}" if again else f"{counts}: {target}")
    _print_time_models(console, target, about)
    if left := len(new + again) - answered:
        console.print(f"{left} cases left for want of time")
    if failed := answered - len(made) - traced:
        typer.echo(
            f"{failed} of {len(new + again)} cases failed; nothing is recorded for them", err=True
        )
        raise typer.Exit(FAILED)


def _to_do(rows: Sequence[Row], folder: Path, events: Path | None) -> tuple[list[Row], list[Row]]:
    """The rows that are not recorded, and the recorded ones of which events lacks a trace.

    A recorded case that ran out of memory has none. Raises RecordError for an invalid record.
    """
    new = [row for row in rows if not row.path.exists()]
    if events is None:
        return new, []
    finished = {
        records.record_path(folder, record.id)
        for record in measurement.load_records(folder)
        if record.measured.outcome is CaseOutcome.FINISHED
    }
    again = [row for row in rows if row.path in finished and not _is_traced(row, events)]
    return new, again


def _is_traced(row: Row, events: Path) -> bool:
    trace = measurement.events_path(_traces(events, row.allocator), row.case)
    return measurement.from_start_path(trace).exists()


def _traces(events: Path, setting: Allocator) -> Path:
    """Where traces under that setting lie; its cases have the same names as another's."""
    return events / setting


def _save_properties(file: Path, device: torch.device) -> None:
    """Keeps cuDNN's description of the device; where that fails, says why and lets work go on."""
    try:
        text = json.dumps(measurement.describe_in_process(device), indent=1)
        records.write_bytes(file, f"{text}\n".encode())
    except (NinlabError, OSError, ValueError) as error:
        reason = Failed.of(error).sentence
        typer.echo(f"no description of the device is in {file}: {reason}", err=True)


def _predicted(row: Row, about: Device) -> dict[str, float]:
    """What was predicted of a case; nothing, and a line on stderr, where predicting it fails.

    What a device said in borrowed time is worth keeping without its prediction.
    """
    try:
        return predicted(row.case, row.allocator, about)
    except Exception as error:
        typer.echo(f"{row.path.stem} is not predicted: {Failed.of(error).sentence}", err=True)
        return {}


def _print_time_models(console: Console, folder: Path, device: Device) -> None:
    """The constants that the device's records give, and how they predict the other networks."""
    described = of_cuda_name(device.name)
    if described is None:
        return
    made = [
        record
        for record in measurement.load_records(folder)
        if record.device.slug == device.slug and record.allocator is Allocator.DEFAULT
    ]
    for precision in described.flops_per_second:
        try:
            model = time_model(made, described.name, precision)
        except NinlabError as error:
            console.print(f"{precision}: no prediction of time: {error}")
            continue
        text = f"{precision}: {model}, fitted on {' and '.join(FITTED_NETWORKS)}"
        errors = prediction_errors(model, made).values()
        if errors:
            mean = fmean(map(abs, errors))
            text += f"; mean error on {len(errors)} other cases {mean:.0%}"
        console.print(text)


def _settings(chosen: Sequence[Allocator] | None, on_gpu: bool) -> list[Allocator]:
    of_cuda = [Allocator.DEFAULT, Allocator.EXPANDABLE_SEGMENTS]
    settings = list(chosen or (of_cuda if on_gpu else [Allocator.CPU]))
    wrong = [setting for setting in settings if (setting in of_cuda) is not on_gpu]
    if wrong:
        known = ", ".join(of_cuda if on_gpu else [Allocator.CPU])
        where = "a GPU" if on_gpu else "the CPU"
        raise NinlabError(f"the allocator '{wrong[0]}' is not {where}'s; known there: {known}")
    return settings


def _id(case: Case, setting: Allocator, software: Software, device: Device) -> str:
    return measurement.record_id(case, setting, software.torch, device.slug)


def _measured(
    rows: Sequence[Row],
    *,
    device: torch.device,
    timed_steps: int,
    threads: int,
    events: Path | None,
    deadline: float | None,
) -> Iterator[tuple[Row, Measured | Failed]]:
    """Each case with its answer; the last ones are missing where the deadline came before them."""
    for setting, of_one in groupby(rows, key=lambda row: row.allocator):
        mine = list(of_one)
        traces = None if events is None else _traces(events, setting)
        results = measurement.measure_in_process(
            [row.case for row in mine],
            device,
            setting,
            timed_steps=timed_steps,
            threads=threads,
            events_folder=traces,
            deadline=deadline,
        )
        yield from zip(mine, results, strict=False)


def _print_plan(
    rows: Sequence[Row],
    new: Sequence[Row],
    again: Sequence[Row],
    device: torch.device,
    timed_steps: int,
) -> None:
    rates = {p: measurement.probe_rate(device, p) for p in {row.case.precision for row in rows}}
    table = Table(title="estimated from the arithmetic alone, at the rate of one convolution here")
    for column in ("network", "batch", "precision", "mode", "allocator"):
        table.add_column(column)
    table.add_column("estimated", justify="right")
    total = 0.0
    for row in rows:
        case = row.case
        cost = "recorded"
        if row in new or row in again:
            timed = timed_steps if row in new else 0
            seconds = estimated_seconds(case, timed, rates[case.precision])
            total += seconds
            cost = format_seconds(seconds) if row in new else f"traces, {format_seconds(seconds)}"
        table.add_row(
            case.network, str(case.batch_size), case.precision, case.mode, row.allocator, cost
        )
    console = wide_console()
    console.print(table)
    count = len([*new, *again])
    console.print(f"{count} of {len(rows)} cases to measure, at least {format_seconds(total)}")


def comparison_table(made: Sequence[MemoryRecord]) -> Table:
    """The measured peaks and step time of each record, with the errors of the predictions."""
    table = Table(title="measured, and how far the prediction is from it")
    for column in ("network", "batch", "precision", "mode", "allocator"):
        table.add_column(column)
    for column in ("tensors", "requested", "allocated", "reserved", "step", "at least"):
        table.add_column(column, justify="right")
    for record in made:
        case, measured = record.case, record.measured
        cells = [case.network, str(case.batch_size), case.precision, case.mode, record.allocator]
        if measured.outcome is CaseOutcome.OUT_OF_MEMORY:
            table.add_row(*cells, "out of memory", *[""] * 5)
            continue
        cells += [
            _compared(getattr(measured, peak), record.predicted.get(peak))
            for peak in PEAKS.values()
        ]
        for seconds in (measured.median_seconds, record.predicted.get("bound_seconds")):
            cells.append("" if seconds is None else format_seconds(seconds))
        table.add_row(*cells)
    return table


def print_agreement(console: Console, made: Sequence[MemoryRecord]) -> None:
    """For each peak, how many predictions are within `TOLERANCE`, and the worst of them."""
    for peak in PEAKS:
        errors = measurement.relative_errors(made, peak)
        if errors:
            worst = max(errors, key=lambda identifier: abs(errors[identifier]))
            close = sum(abs(error) <= TOLERANCE for error in errors.values())
            console.print(
                f"{peak}: {close} of {len(errors)} predictions within {TOLERANCE:.0%}, the worst "
                f"{errors[worst]:+.2%} ({worst})"
            )


def _compared(measured: int | None, predicted: float | None) -> str:
    """The measured bytes, and the relative error of the prediction where there is one."""
    if measured is None:
        return ""
    text = format_bytes(measured)
    if predicted is None:
        return text
    return f"{text} exact" if predicted == measured else f"{text} {predicted / measured - 1:+.2%}"
