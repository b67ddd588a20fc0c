"""Where in a network do its costs sit, and how does its map shrink? Bars layer by layer.

Everything here is counted by the closed forms, and so hollow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from ninlab.architectures import Architecture, architecture
from ninlab.figures.bar_panels import MARGIN_OF_BARS, add_bars
from ninlab.figures.colors import color_of
from ninlab.figures.layout import axes_of_panels, finish, left_aligned_titles
from ninlab.figures.words import times
from ninlab.layers import Flatten
from ninlab.shapes import PlacedLayer, layer_macs, layer_parameters, output_shape, placed_layers
from ninlab.units import Shape, format_count

_ROOM_FOR_TEXT = 1.5  # width of a panel, in lengths of its longest bar: two share a phone's width

_COUNTS: Mapping[str, Callable[[Any, Shape], int]] = {
    "parameters": layer_parameters,
    "MACs": layer_macs,
}


def shares_by_layer(names: Sequence[str], *, provenance: str) -> go.Figure:
    """For each network, the share of its parameters and of its MACs in each layer that has any.

    One row of panels a network; the layers run from the top down in order of execution. Shares are
    of one network alone, so that titles go without the size of the images.
    """
    splits = [[_Split.of(architecture(name), unit) for unit in _COUNTS] for name in names]
    rows = [len(row[0].layers) for row in splits]
    figure = make_subplots(
        rows=len(names),
        cols=len(_COUNTS),
        row_heights=rows,
        shared_yaxes=True,
        horizontal_spacing=0.04,
        vertical_spacing=0.08,
        subplot_titles=[
            f"<b>{'' if column else split.network.short_title}</b>"
            f"<br>{format_count(split.total)} {split.unit}"
            for row in splits
            for column, split in enumerate(row)
        ],
    )
    largest_share = max(max(split.values) / split.total for row in splits for split in row)
    for row, of_network in enumerate(splits, start=1):
        for column, split in enumerate(of_network, start=1):
            add_bars(
                figure,
                (row, column),
                [at.name for at in split.layers],
                [value / split.total for value in split.values],
                text=[format_count(value) for value in split.values],
                hover=split.hover,
                colors=[color_of(split.network.name)] * len(split.layers),
                name=split.network.title,
                longest=largest_share,  # one scale for all panels
                room=_ROOM_FOR_TEXT,
            )
    left_aligned_titles(figure)
    return finish(
        figure,
        height=17 * sum(rows) + 70 * len(names),
        provenance=provenance,
        quantities=axes_of_panels(
            "x", [f"share of the {split.unit}" for row in splits for split in row]
        )
        | axes_of_panels("y", ["layer" for row in splits for _ in row]),
        bargap=0.25,
        margin=MARGIN_OF_BARS | {"t": 48},
    )


@dataclass(frozen=True)
class _Split:
    """One count of one network, layer by layer."""

    network: Architecture
    unit: str
    layers: tuple[PlacedLayer, ...]  # those with weights
    values: tuple[int, ...]

    @classmethod
    def of(cls, network: Architecture, unit: str) -> _Split:
        layers = tuple(
            at for at in placed_layers(network) if layer_parameters(at.layer, at.input_shape)
        )
        values = tuple(_COUNTS[unit](at.layer, at.input_shape) for at in layers)
        return cls(network, unit, layers, values)

    @property
    def total(self) -> int:
        return sum(self.values)

    @property
    def hover(self) -> list[str]:
        return [
            f"<b>{self.network.title}, {at.name}</b><br>{at.layer}"
            f"<br>{value:,} {self.unit}, {value / self.total:.1%} of the network"
            for at, value in zip(self.layers, self.values, strict=True)
        ]


def shape_funnel(name: str, *, provenance: str) -> go.Figure:
    """The side of the map and the number of channels after each stage of one network.

    A stage is a layer or block of the top level that changes the shape. Values per image,
    channels x height x width, are in the hover text.
    """
    network = architecture(name)
    stages = [("input", network.input_shape), *_stages(network)]
    sides = [shape[1] if len(shape) == 3 else 1 for _, shape in stages]
    channels = [shape[0] for _, shape in stages]
    hover = [
        f"<b>{stage}</b><br>{times(shape)}: {prod(shape):,} values an image"
        for stage, shape in stages
    ]
    figure = make_subplots(
        rows=1,
        cols=2,
        shared_yaxes=True,
        horizontal_spacing=0.03,
        subplot_titles=["side, pixels", "channels"],
    )
    for column, values in enumerate((sides, channels), start=1):
        add_bars(
            figure,
            (1, column),
            [stage for stage, _ in stages],
            values,
            text=[str(value) for value in values],
            hover=hover,
            colors=[color_of(name)] * len(stages),
            room=_ROOM_FOR_TEXT,
        )
    left_aligned_titles(figure)
    return finish(
        figure,
        height=26 * len(stages) + 42,
        provenance=provenance,
        quantities={"x": "side, pixels", "x2": "channels", "y": "stage", "y2": "stage"},
        bargap=0.3,
        margin=MARGIN_OF_BARS,
    )


def _stages(network: Architecture) -> Iterable[tuple[str, Shape]]:
    """(what it is, shape after it) of each top-level layer or block that changes the shape."""
    shape = network.input_shape
    for layer in network.layers:
        after = output_shape(layer, shape)
        if after != shape and not isinstance(layer, Flatten):
            yield str(layer), after
        shape = after
