"""``resources``: what do these networks cost?"""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from enum import StrEnum
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from ninlab.reports import NetworkCost
from ninlab.resources import OPTIMIZERS, PRECISIONS, profile
from ninlab.units import format_bytes, format_count, format_shape, parse_shape

NOT_A_TERMINAL_WIDTH = 240  # of a table that goes to a file or a pipe: no column is cut


class Format(StrEnum):
    """How the answer is written."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"


def resources(
    networks: Annotated[
        list[str],
        typer.Argument(
            help="Names of networks, package.module:factory, or path.py:factory.",
            show_default=False,
        ),
    ],
    batch_size: Annotated[int, typer.Option(help="Images in one batch.")] = 1,
    input_shape: Annotated[
        str | None,
        typer.Option(
            "--input",
            help="Channels x height x width, as 3x224x224; the book's networks have one.",
        ),
    ] = None,
    optimizer: Annotated[str, typer.Option(help=f"One of {', '.join(OPTIMIZERS)}.")] = "sgd",
    precision: Annotated[str, typer.Option(help=f"One of {', '.join(PRECISIONS)}.")] = "fp32",
    device: Annotated[
        str | None, typer.Option(help="Add the scratch memory of that device, as h100.")
    ] = None,
    layers: Annotated[bool, typer.Option("--layers", help="One row a layer.")] = False,
    output: Annotated[
        Format, typer.Option("--format", help="How to write the answer.")
    ] = Format.TABLE,
) -> None:
    """Count what networks cost: parameters, computation, and memory for training and prediction."""
    shape = None if input_shape is None else parse_shape(input_shape)
    costs = [
        profile(network, shape, batch_size, optimizer, precision, device) for network in networks
    ]
    if output is Format.JSON:
        typer.echo(json.dumps({"networks": [_to_json(cost, layers) for cost in costs]}, indent=2))
    elif output is Format.CSV:
        _write_csv(_flat_layers(costs) if layers else map(_flat, costs))
    else:
        _print_tables(costs, layers)


def _to_json(cost: NetworkCost, layers: bool) -> dict[str, Any]:
    content = cost.to_json()
    if layers:
        content["layers"] = [
            row | {"output_shape": list(row["output_shape"])} for row in _layer_rows(cost)
        ]
    return content


def _flat(cost: NetworkCost) -> dict[str, Any]:
    """The JSON object as one row: ``training.at`` for what is nested."""
    row: dict[str, Any] = {}
    for name, value in cost.to_json().items():
        if name in ("training", "inference"):
            row |= {f"{name}.{key}": count for key, count in value.items()}
        elif name == "input_shape":
            row[name] = format_shape(cost.input_shape)
        elif name == "unsupported_operators":
            row[name] = " ".join(value)
        else:
            row[name] = value
    return row


def _layer_rows(cost: NetworkCost) -> list[dict[str, Any]]:
    return [asdict(layer) | {"flops": layer.flops} for layer in cost.layer_costs]


def _flat_layers(costs: Iterable[NetworkCost]) -> Iterable[dict[str, Any]]:
    for cost in costs:
        for row in _layer_rows(cost):
            shape = format_shape(row["output_shape"])
            yield {"network": cost.network, **row, "output_shape": shape}


def _write_csv(rows: Iterable[Mapping[str, Any]]) -> None:
    rows = list(rows)
    writer = csv.DictWriter(sys.stdout, rows[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)


def _print_tables(costs: list[NetworkCost], layers: bool) -> None:
    console = Console()
    if not console.is_terminal:
        console = Console(width=NOT_A_TERMINAL_WIDTH)
    first = costs[0]
    console.print(
        f"batch {first.batch_size}, {first.optimizer}, {first.precision}; counts are of one image, "
        "bytes of the whole batch"
    )
    console.print(_summary(costs))
    if layers:
        for cost in costs:
            console.print(_layer_table(cost))
    for cost in costs:
        if cost.unsupported_operators:
            calls = ", ".join(
                f"{name} ({count}x)" for name, count in cost.unsupported_operators.items()
            )
            console.print(f"{cost.network}: no rule for {calls}; their cost is missing above")


def _summary(costs: list[NetworkCost]) -> Table:
    table = Table("network", "input")
    for name in (
        "parameters",
        "MACs",
        "FLOPs",
        "kept for backward",
        "training peak",
        "inference peak",
    ):
        table.add_column(name, justify="right")
    table.add_column("training peak at")
    for cost in costs:
        table.add_row(
            cost.network,
            format_shape(cost.input_shape),
            format_count(cost.parameters),
            format_count(cost.macs),
            format_count(cost.flops),
            format_bytes(cost.saved_bytes),
            _bytes_or_dash(cost.training.tensor_peak_bytes),
            _bytes_or_dash(cost.inference.tensor_peak_bytes),
            cost.training.at or "–",
        )
    return table


def _layer_table(cost: NetworkCost) -> Table:
    table = Table("layer", "kind", "output", title=cost.network, title_justify="left")
    for name in ("parameters", "MACs", "kept for backward"):
        table.add_column(name, justify="right")
    for layer in cost.layer_costs:
        table.add_row(
            layer.name,
            layer.kind,
            format_shape(layer.output_shape),
            format_count(layer.parameters),
            format_count(layer.macs),
            format_bytes(layer.saved_bytes),
        )
    return table


def _bytes_or_dash(count: int | None) -> str:
    return "–" if count is None else format_bytes(count)
