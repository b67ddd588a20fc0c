"""``networks``: which networks does the book know, and where do they come from?"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from rich.table import Table

from ninlab import formulas
from ninlab.architectures import ARCHITECTURES, Architecture, architecture
from ninlab.commands.shared import Format, Output, wide_console, write_csv
from ninlab.units import format_count, format_shape


def networks(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            help="Only these, with what they differ in from their source.", show_default=False
        ),
    ] = None,
    output: Output = Format.TABLE,
) -> None:
    """List networks by name, with their input, parameters, MACs and source."""
    listed = [architecture(name) for name in names] if names else list(ARCHITECTURES.values())
    if output is Format.JSON:
        typer.echo(json.dumps({"networks": [_as_json(network) for network in listed]}, indent=2))
        return
    if output is Format.CSV:
        rows = [_flat(network) for network in listed]
        write_csv(rows, list(rows[0]))
        return
    console = wide_console()
    console.print(_table(listed))
    for network in listed if names else ():
        console.print(f"{network.name} differs from {network.source}:")
        for deviation in network.deviations:
            console.print(f"  - {deviation}")


def _as_json(network: Architecture) -> dict[str, Any]:
    return {
        "network": network.name,
        "title": network.title,
        "input_shape": list(network.input_shape),
        "num_classes": network.num_classes,
        "parameters": formulas.parameters(network),
        "macs": formulas.macs(network),
        "source": network.source,
        "deviations": list(network.deviations),
        "initialization": {
            "weights": network.initialization.weights,
            "biases": network.initialization.biases,
        },
        "digest": network.digest,
    }


def _flat(network: Architecture) -> dict[str, Any]:
    """The JSON object as one row."""
    start = network.initialization
    return {
        **_as_json(network),
        "input_shape": format_shape(network.input_shape),
        "deviations": "; ".join(network.deviations),
        "initialization": f"{start.weights} weights, {start.biases} biases",
    }


def _table(listed: Sequence[Architecture]) -> Table:
    table = Table("network", "title", "input", "parameters", "MACs", "source")
    for column in table.columns[2:5]:
        column.justify = "right"
    for network in listed:
        table.add_row(
            network.name,
            network.title,
            format_shape(network.input_shape),
            format_count(formulas.parameters(network)),
            format_count(formulas.macs(network)),
            network.source,
        )
    return table
