"""``networks``: which networks does the book know, and where do they come from?"""

from __future__ import annotations

import json
from enum import StrEnum
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from ninlab import formulas
from ninlab.architectures import ARCHITECTURES
from ninlab.units import format_count, format_shape


class Format(StrEnum):
    """How the list is written."""

    TABLE = "table"
    JSON = "json"


def networks(
    output: Annotated[
        Format, typer.Option("--format", help="How to write the list.")
    ] = Format.TABLE,
) -> None:
    """List every network by name, with its input, parameters, MACs and source."""
    if output is Format.JSON:
        typer.echo(
            json.dumps(
                {
                    "networks": [
                        {
                            "network": network.name,
                            "title": network.title,
                            "input_shape": list(network.input_shape),
                            "num_classes": network.num_classes,
                            "parameters": formulas.parameters(network),
                            "macs": formulas.macs(network),
                            "source": network.source,
                            "deviations": list(network.deviations),
                            "digest": network.digest,
                        }
                        for network in ARCHITECTURES.values()
                    ]
                },
                indent=2,
            )
        )
        return
    table = Table("network", "title", "input", "parameters", "MACs", "source")
    for column in table.columns[2:5]:
        column.justify = "right"
    for network in ARCHITECTURES.values():
        table.add_row(
            network.name,
            network.title,
            format_shape(network.input_shape),
            format_count(formulas.parameters(network)),
            format_count(formulas.macs(network)),
            network.source,
        )
    Console().print(table)
