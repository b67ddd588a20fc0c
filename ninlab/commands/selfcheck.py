"""``selfcheck``: does everything that recording needs work on this device?"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ninlab import experiments, records
from ninlab import selfcheck as checking
from ninlab.commands.shared import DeviceName, RunsFolder, Threads, a_path, existing_folder
from ninlab.errors import RecordError
from ninlab.records import Device
from ninlab.steps import Kernels

if TYPE_CHECKING:
    from ninlab.measurement import Allocator, Case


def selfcheck(
    device: DeviceName = "auto",
    report: Annotated[
        Path | None,
        typer.Option(help="File for the results as JSON, rewritten after each.", **a_path()),
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option(help="Only the check of that name; repeatable.")
    ] = None,
    decisive: Annotated[
        bool, typer.Option("--decisive", help="Only what decides whether and how to record.")
    ] = False,
    threads: Threads = 1,
    folder: RunsFolder = None,
    allow_dirty: Annotated[
        bool, typer.Option(help="As for record: the code may differ from its commit.")
    ] = False,
    any_gpu: Annotated[
        bool, typer.Option("--any-gpu", help="Records of another GPU are said and are no failure.")
    ] = False,
) -> int:
    """Try once all that recording needs, a line each; nothing that fails stops the rest.

    With --decisive the checks end where another GPU's records are found: no other check matters
    before it is decided whether to record at all.

    Ends with 0 when all is well, 3 when nothing can be recorded, 4 when steps work only without
    a CUDA graph, 6 when another GPU's records are there, 1 when recording works but something
    else failed.
    """
    subject = checking.Subject(
        device_name=device,
        predicted_peaks=_predicted_peaks,
        folder=None if folder is None else existing_folder(folder),
        threads=threads,
        allow_dirty=allow_dirty,
        any_gpu=any_gpu,
    )
    there_are = checking.checks(subject.on_gpu, fused_planned=_fused_planned())
    todo = checking.chosen(there_are, only or (), decisive=decisive)
    made: list[checking.Result] = []
    name: str | None = None
    if report is not None:
        _write(report, name, made, None)  # a file that cannot be written is said before the work
    for result in checking.results(todo, subject, until_settled=decisive):
        made.append(result)
        typer.echo(result.lines)
        name = name or _device_name(subject)  # a device that is lost later keeps its name
        _rewrite(report, name, made, None)
    code, words = checking.verdict(made)
    if left := len(todo) - len(made):
        words += f"; not made after that: {left}"
    _rewrite(report, name, made, words)
    typer.echo(words)
    return code


def _fused_planned() -> bool:
    """Whether a run of any plan is by other kernels than torch's."""
    rows = (row for plan in experiments.PLANS.values() for row in plan.by_path.values())
    return any(row.recipe.kernels is not Kernels.TORCH for row in rows)


def _device_name(subject: checking.Subject) -> str | None:
    """What the device is called, None where it does not answer: then a check has said so."""
    try:
        return subject.about().name
    except Exception:
        return None


def _predicted_peaks(case: Case, allocator: Allocator, device: Device | None) -> Mapping[str, int]:
    """Imported late: what only the prediction needs must not be in the way of other checks."""
    from ninlab.predictions import predicted_peaks

    return predicted_peaks(case, allocator, device)


def _rewrite(
    report: Path | None, device: str | None, made: Sequence[checking.Result], words: str | None
) -> None:
    """Writes the report, if one is wanted; a disk that has filled up does not end the checks."""
    if report is None:
        return
    try:
        _write(report, device, made, words)
    except RecordError as error:
        print(f"error: {error}", file=sys.stderr)


def _write(
    report: Path, device: str | None, made: Sequence[checking.Result], words: str | None
) -> None:
    content = {
        "device": device,
        "checks": [result.to_json() for result in made],
        "verdict": words,  # null until the last check has ended
    }
    records.write_bytes(report, f"{json.dumps(content, indent=1)}\n".encode())
