"""What does a network cost, asked in a page that has no Python and no network?

`Calculator` is an object that shows itself in a notebook and in the built book: the reader
chooses networks, image, batch, precision, optimizer and memory, and parameters, MACs, saved
bytes, peaks, the largest batch and a bound of the step time follow at once, equal to what
`formulas`, `liveness` and `roofline` return, to the byte.

How it stays exact. Those three modules run once per network with height and width left open
(`calculator.tracing`) and leave polynomials behind (`calculator.programs`); the page carries
them, compressed, and evaluates them. Weighed against that were Python itself in the page
(Pyodide: 13 MB and seconds to start, and a notebook's output cannot carry it), tables (no end
of image sizes and designs) and the formulas once more in JavaScript (two places to be wrong
in). All of it, script and styles included, is one piece of HTML that asks for nothing else: it
works in the book, from a folder, in JupyterLab and in an isolated frame. What it weighs,
`benchmarks/calculator_page.py` prints.
Where scripts do not run, and on paper, a table of the book's three networks stands instead.

Known limits: tensors only, without the scratch of cuDNN and cuBLAS and without the allocator's
rounding; browsers since 2023 (they must be able to inflate what was compressed).
"""

from __future__ import annotations

import json
import re
from base64 import b85encode
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from html import escape
from pathlib import Path
from typing import Any
from zlib import compress

from ninlab.architectures import (
    ARCHITECTURES,
    NIN,
    Architecture,
    Head,
    architecture,
    normalized,
)
from ninlab.calculator.programs import (
    CATEGORIES,
    INNER_KERNEL_SIZES,
    ONE_BY_ONE_LAYERS,
    PHASES,
    WIDTH_FACTORS,
    Design,
    block_widths,
    design_program,
    designs,
    network_program,
)
from ninlab.devices import DEVICES, DataSheet, device
from ninlab.errors import NinlabError
from ninlab.formulas import macs, parameters
from ninlab.liveness import peak_bytes, saved_lines, timeline
from ninlab.steps import OPTIMIZERS, Optimizer, Precision, named
from ninlab.units import format_bytes, format_count, format_shape

__all__ = ["Calculator", "menu"]

_NORMALIZED_IN_CHAPTERS = frozenset(map(normalized, ("", "no_1x1", "one_1x1")))
"""The variants with batch normalization that chapters speak of; the others are only planned."""

_STATIC = Path(__file__).parents[1] / "static" / "calculator"
_SCRIPTS = ("elements", "quantities", "counting", "curve", "snippets", "fields", "calculator")
_DEFAULT_TABLE = ("nin", "alexnet", "vgg11")
_COMMENT = re.compile(r"/\*.*?\*/|<!--.*?-->|(?<=\s)// [^\n]*", re.DOTALL)
_PLAIN = str.maketrans("<&", ",.")


@dataclass(frozen=True)
class Calculator:
    """A calculator that a notebook shows as the last value of a cell.

    The arguments are what it shows first; second may be None. A network that is not in the
    `menu` is added to that of this object. Raises NinlabError for a name that is not known
    and for a batch size under 1.
    """

    first: str = "nin"
    second: str | None = "alexnet"
    batch_size: int = 128
    optimizer: str = "sgd"
    precision: str = "fp32"
    memory: str = "h100"  # name of the device to fill

    def __post_init__(self) -> None:
        """Check every name."""
        for name in filter(None, (self.first, self.second)):
            architecture(name)
        device(self.memory)
        named(Optimizer, self.optimizer)
        named(Precision, self.precision)
        if self.batch_size < 1:
            raise NinlabError(f"the batch size must be at least 1, not {self.batch_size}")

    def _repr_html_(self) -> str:
        start = {
            "a-network": self.first,
            "b-network": self.second or "",
            "batch": self.batch_size,
            "optimizer": self.optimizer,
            "precision": self.precision,
            "memory": self.memory,
            "units": "binary",
        }
        return (
            f'<div class="ninlab-calculator" data-start="{escape(json.dumps(start))}">\n'
            f"{self._table()}\n"
            f"<template><style>{_file('calculator.css')}</style>{_file('calculator.html')}</template>\n"
            f'<script type="text/plain">{_packed(self._offered())}</script>\n'
            f"<script>{_script()}</script>\n"
            "</div>"
        )

    def _offered(self) -> tuple[str, ...]:
        wanted = {*menu(), self.first, self.second}
        return tuple(name for name in ARCHITECTURES if name in wanted)

    def _table(self) -> str:
        """What it shows on paper and without scripts: the networks of the book."""
        columns = ("network", "input", "parameters", "MACs", "saved", "training", "inference")
        rows = [self._row(architecture(name)) for name in _DEFAULT_TABLE]
        head = "".join(f'<th scope="col">{name}</th>' for name in columns)
        body = "".join(
            f'<tr><th scope="row">{title}</th>{"".join(f"<td>{cell}</td>" for cell in cells)}</tr>'
            for title, *cells in rows
        )
        state = f"Batch {self.batch_size}, {self.optimizer}, {self.precision}"
        return (
            "<p>On a screen, and with scripts, a calculator stands here in place of this table.</p>"
            f'<table class="dataframe"><caption style="text-align: start">{state}: what each '
            "network costs; saved for backward, and the peaks of training and inference.</caption>"
            f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
        )

    def _row(self, network: Architecture) -> tuple[str, ...]:
        training = timeline(network, self.optimizer, self.precision)
        inference = timeline(network, self.optimizer, self.precision, training=False)
        saved = sum(line.bytes(self.batch_size) for line in saved_lines(network, self.precision))
        return (
            network.title,
            format_shape(network.input_shape),
            format_count(parameters(network)),
            format_count(macs(network)),
            format_bytes(saved),
            format_bytes(peak_bytes(training, self.batch_size)),
            format_bytes(peak_bytes(inference, self.batch_size)),
        )


def _file(name: str) -> str:
    """The text of a file without what no page has to carry: its indentation and its comments."""
    text = _COMMENT.sub("", (_STATIC / name).read_text(encoding="utf-8"))
    return "\n".join(filter(None, map(str.strip, text.splitlines()))) + "\n"


def _script() -> str:
    """All scripts in one function: nothing of theirs is seen by the page around."""
    scripts = "\n".join(_file(f"{name}.js") for name in _SCRIPTS)
    return f'(() => {{\n"use strict";\n{scripts}}})();'


def menu() -> tuple[str, ...]:
    """The networks that every calculator offers, by name.

    All but the designs with batch normalization that are planned runs and that no chapter speaks
    of. A network is offered from the moment when it is registered.
    """
    return tuple(
        name
        for name, each in ARCHITECTURES.items()
        if each.variant in _NORMALIZED_IN_CHAPTERS or not each.variant.endswith(normalized())
    )


@lru_cache
def _packed(networks: tuple[str, ...]) -> str:
    """All that the page's script knows of these networks and of the rest, as text.

    In base 85, which is a sixteenth shorter than base 64, with no letter that has a meaning in a
    page: a comma stands for < and a point for &.
    """
    text = json.dumps(knowledge(networks), separators=(",", ":"))
    return b85encode(compress(text.encode(), level=9)).decode().translate(_PLAIN)


def knowledge(networks: Sequence[str]) -> dict[str, Any]:
    """These networks, and all designs, programs and devices, as the page's script reads them."""
    offered = [architecture(name) for name in networks]
    # Networks that differ only in their start, or in the size of the image, share a program.
    distinct = {_shared(each): each for each in offered}
    programs = {key: network_program(each) for key, each in distinct.items()}
    programs |= {design.key: design_program(design) for design in designs()}
    # Neighbors with the same layers, and columns in place of rows, compress to less.
    order = sorted(programs, key=lambda key: programs[key]["layers"])
    place = {key: number for number, key in enumerate(order)}
    columns = programs[order[0]].keys()
    default = Design()
    return {
        "networks": [
            {
                "name": each.name,
                "title": each.title,
                "input_shape": each.input_shape,
                "program": place[_shared(each)],
            }
            for each in offered
        ],
        "designs": {design.key: place[design.key] for design in designs()},
        "programs": {column: [programs[key][column] for key in order] for column in columns},
        "own": {
            "input_shape": NIN.input_shape,
            "knobs": {
                "layers": default.one_by_one_layers,
                "kernel": default.inner_kernel_size,
                "head": default.head,
                "factor": f"{1:g}",
                "classes": NIN.num_classes,
                "channels": NIN.input_shape[0],
            },
        },
        "one_by_one_layers": ONE_BY_ONE_LAYERS,
        "inner_kernel_sizes": INNER_KERNEL_SIZES,
        "heads": tuple(Head),
        "block_widths": {f"{factor:g}": block_widths(factor) for factor in WIDTH_FACTORS},
        "optimizers": {name: rule.title for name, rule in OPTIMIZERS.items()},
        "element_bytes": {each: each.element_bytes for each in Precision},
        "categories": CATEGORIES,
        "phases": PHASES,
        "devices": [_without_source(each) for each in DEVICES.values()],
    }


def _without_source(device: DataSheet) -> dict[str, Any]:
    """A device as the page reads it, which knows no scratch; sources stand in the book."""
    unread = ("source", "described")
    return {name: value for name, value in asdict(device).items() if name not in unread}


def _shared(network: Architecture) -> object:
    return network.input_shape[0], network.layers
