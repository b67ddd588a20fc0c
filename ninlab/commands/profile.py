"""``profile``: which operators of a training step take longest here, and how fast are they?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.table import Table

from ninlab import data, profiling, records
from ninlab.architectures import architecture
from ninlab.commands.shared import (
    BATCH_SIZE,
    DeviceName,
    RunsFolder,
    Threads,
    a_path,
    existing_folder,
    handing_over,
    one_of,
    typed_command,
    whole_number,
    wide_console,
)
from ninlab.environment import describe_device, describe_software, parse_device
from ninlab.measurement import Failed, check_precision
from ninlab.profiles import COLUMNS, KernelTime, Setting, StepProfile, longest_rows, record_id
from ninlab.recording import check_tree
from ninlab.steps import Kernels, Precision
from ninlab.training import check_kernels
from ninlab.units import format_seconds

STEPS = 20
"""Of an epoch, unless the reader says otherwise: enough for a mean, few enough for a GPU's time."""

MOST_STEPS = 400
MOST_ROWS = 12
"""Of a printed table."""

FAILED = 1
"""Exit code when a setting failed."""


def profile(
    networks: Annotated[list[str], typer.Argument(help="Names of networks; see networks.")],
    batch_size: Annotated[int, typer.Option(help="Images in one batch.", **BATCH_SIZE)] = 128,
    precision: Annotated[
        list[Precision] | None,
        typer.Option(help="Arithmetic; repeatable. [bf16]", **one_of(Precision)),
    ] = None,
    kernels: Annotated[
        list[Kernels] | None,
        typer.Option(help="Which kernels; repeatable. [torch]", **one_of(Kernels)),
    ] = None,
    device: DeviceName = "auto",
    steps: Annotated[
        int,
        typer.Option(
            help="Steps of an epoch; all but the first are profiled.", **whole_number(2, MOST_STEPS)
        ),
    ] = STEPS,
    threads: Threads = 1,
    folder: RunsFolder = None,
    results: Annotated[
        Path | None,
        typer.Option(
            help="Folder into which all that is new is handed over after every profile, and from "
            "which an earlier machine's records are taken up first.",
            **a_path(),
        ),
    ] = None,
    allow_dirty: Annotated[
        bool, typer.Option(help="Record although the code differs from its commit.")
    ] = False,
) -> None:
    """Profile training steps, operator by operator, beside the roofline, and record them.

    A record is written as soon as a network is profiled. A setting that is recorded already is not
    profiled again. One that fails is named on stderr, does not end those after it, and makes the
    exit code 1.
    """
    where = parse_device(device)
    precisions = precision or [Precision.BF16]
    for each in precisions:
        check_precision(each, where)
    asked = (
        Setting(architecture(name).name, batch_size, arithmetic, kind)
        for name in networks
        for arithmetic in precisions
        for kind in kernels or [Kernels.TORCH]
    )
    settings = [*dict.fromkeys(asked)]  # one record each, however often it was typed
    target = existing_folder(folder)
    provenance = records.provenance(typed_command())
    check_tree(provenance, allow_dirty)
    hand_over = handing_over(target, results)
    torch.set_num_threads(threads)
    about, software = describe_device(where), describe_software()
    to_do = [
        setting
        for setting in settings
        if not records.record_path(target, record_id(setting, software.torch, about.slug)).exists()
    ]
    console = wide_console()
    made = 0
    for number, setting in enumerate(to_do, start=1):
        typer.echo(f"{number}/{len(to_do)} {setting.slug}", err=True)
        try:
            network = architecture(setting.network)
            check_kernels(network, setting.kernels, where)
            images = data.fashion_mnist()[0].take(slice(batch_size * steps)).to(where)
            found = profiling.profiled(setting, images, steps)
        except Exception as error:  # what one network cannot, the next one may
            typer.echo(f"{setting.slug} failed: {Failed.of(error).sentence}", err=True)
            continue
        record = StepProfile(
            setting=setting,
            network_digest=network.digest,
            input_shape=network.input_shape,
            profiled_steps=found.profiled_steps,
            called_seconds=found.called_seconds,
            graph_seconds=found.graph_seconds,
            device_seconds=found.device_seconds,
            operators=found.operators,
            provenance=provenance,
            device=about,
            software=software,
        )
        records.write(target, record)
        made += 1
        hand_over()
        print_profile(console, record)
    console.print(f"{made} profiled, {len(settings) - len(to_do)} were there already: {target}")
    if failed := len(to_do) - made:
        typer.echo(
            f"{failed} of {len(to_do)} profiles failed; nothing is recorded for them", err=True
        )
        raise typer.Exit(FAILED)


def print_profile(console: Console, record: StepProfile) -> None:
    """Print the operators that take longest, and on a GPU the kernels."""
    console.print(record.in_words)
    rows = longest_rows(record.operators, record.data_sheet, record.setting.precision, MOST_ROWS)
    table = Table(*COLUMNS)
    for row in rows:
        table.add_row(*(row[column] for column in COLUMNS))
    console.print(table)
    if by_share := record.kernels_by_share():
        console.print(_kernel_table(by_share[:MOST_ROWS], record.device_seconds))


def _kernel_table(kernels: Sequence[KernelTime], total: float) -> Table:
    table = Table("kernel", "calls", "time", "of the step")
    for kernel in kernels:
        table.add_row(
            kernel.name,
            f"{kernel.calls:g}",
            format_seconds(kernel.seconds),
            f"{kernel.seconds / total:.1%}",
        )
    return table
