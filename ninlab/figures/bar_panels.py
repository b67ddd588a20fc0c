"""How do quantities of networks compare? Horizontal bars, one panel a quantity.

Counted bars are hollow, measured ones solid; a measurement beside its prediction is a dot.
Imports from ninlab: units.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from ninlab.figures.colors import HOLLOW, NEUTRAL, color_of, faded
from ninlab.figures.layout import finish, left_aligned_titles
from ninlab.figures.words import title_of
from ninlab.units import format_bytes, format_count

_ROOM_FOR_TEXT = 1.28  # width of a panel, in lengths of its longest bar


def add_bars(
    figure: go.Figure,
    place: tuple[int, int],
    labels: Sequence[str],
    values: Sequence[float],
    *,
    text: Sequence[str],
    hover: Sequence[str],
    colors: Sequence[str],
    measured: bool = False,
    longest: float | None = None,
    room: float = _ROOM_FOR_TEXT,
) -> None:
    """Draw horizontal bars into one panel, from the top down, each with its value beside it.

    Solid when measured, hollow when counted. longest is the value that fills the panel; by
    default it is the largest of its own; room is how much wider the panel is, for the text.
    """
    row, column = place
    figure.add_bar(
        y=list(range(len(labels))),  # places, not labels: two rows may bear the same label
        x=list(values),
        orientation="h",
        text=list(text),
        textposition="outside",
        cliponaxis=False,
        marker={
            "color": [color if measured else faded(color, HOLLOW) for color in colors],
            "line": {"color": list(colors), "width": 1.5},
        },
        hovertext=list(hover),
        hoverinfo="text",
        row=row,
        col=column,
    )
    figure.update_yaxes(
        autorange="reversed",
        tickvals=list(range(len(labels))),
        ticktext=[f"{label} " for label in labels],  # the space keeps them off the bars
        showgrid=False,
        row=row,
        col=column,
    )
    figure.update_xaxes(
        range=[0, room * (longest or max(values, default=0) or 1)],
        showticklabels=False,
        showgrid=False,
        row=row,
        col=column,
    )


@dataclass(frozen=True)
class Quantity:
    """One panel of bars: a value for each network (by name) or other thing (by label)."""

    title: str  # what is shown, for example "MACs of one image"
    values: Mapping[str, int]
    unit: str = ""  # of the unrounded value in the hover text, where the title has none
    write: Callable[[int], str] = format_count
    measured: bool = False
    like: str = ""  # the network whose color all bars of the panel have; by default each its own


def bars(
    *quantities: Quantity, provenance: str, like: Mapping[str, str] | None = None
) -> go.Figure:
    """One panel a quantity, one bar a network, each labeled with its value.

    The first quantity sorts the bars, in all panels alike. like gives labels that are no
    networks the color of one: ``{"NiN block": "nin"}``.
    """
    order = sorted(quantities[0].values, key=lambda name: -quantities[0].values[name])
    figure = make_subplots(
        rows=len(quantities),
        cols=1,
        shared_yaxes=True,
        subplot_titles=[quantity.title for quantity in quantities],
        vertical_spacing=0.32 / len(quantities),
    )
    for row, quantity in enumerate(quantities, start=1):
        values = [quantity.values[name] for name in order]
        add_bars(
            figure,
            (row, 1),
            [title_of(name) for name in order],
            values,
            text=[quantity.write(value) for value in values],
            hover=[
                f"<b>{title_of(name)}</b><br>{quantity.title}: {value:,} {quantity.unit}".strip()
                for name, value in zip(order, values, strict=True)
            ],
            colors=[color_of(quantity.like or name, like) for name in order],
            measured=quantity.measured,
        )
    left_aligned_titles(figure)
    height = len(quantities) * (30 * len(order) + 40) + 30
    return finish(figure, height=height, provenance=provenance, bargap=0.35)


@dataclass(frozen=True)
class Pair:
    """One quantity, predicted and measured. like is the network whose color it has."""

    label: str
    predicted: int
    measured: int
    like: str


def predicted_and_measured(
    pairs: Sequence[Pair],
    *,
    provenance: str,
    write: Callable[[int], str] = format_bytes,
    unit: str = "bytes",
) -> go.Figure:
    """A hollow bar for each prediction, a solid dot for its measurement, and how far off it is."""
    figure = make_subplots(rows=1, cols=1)
    apart = [pair.measured - pair.predicted for pair in pairs]
    hover = [
        f"<b>{pair.label}</b><br>predicted: {pair.predicted:,} {unit}"
        f"<br>measured: {pair.measured:,} {unit}<br>measured − predicted: {difference:,} {unit}"
        for pair, difference in zip(pairs, apart, strict=True)
    ]
    text = [
        f"  {write(pair.measured)}, "
        + (f"{difference / pair.predicted:+.1%}" if difference else "equal")
        for pair, difference in zip(pairs, apart, strict=True)
    ]
    colors = [color_of(pair.like) for pair in pairs]
    add_bars(
        figure,
        (1, 1),
        [pair.label for pair in pairs],
        [pair.predicted for pair in pairs],
        text=text,
        hover=hover,
        colors=colors,
        longest=1.35 * max(max(pair.predicted, pair.measured) for pair in pairs),
    )
    figure.add_scatter(
        x=[pair.measured for pair in pairs],
        y=list(range(len(pairs))),
        mode="markers",
        marker={"size": 9, "color": colors},
        hovertext=hover,
        hoverinfo="text",
    )
    return finish(figure, height=26 * len(pairs) + 60, provenance=provenance, bargap=0.3)


def coverage(
    planned: Mapping[str, int], recorded: Mapping[str, int], *, provenance: str
) -> go.Figure:
    """How much of a plan is recorded: a hollow bar of the runs planned, a solid one in it.

    Both are by experiment, in the order of the plan.
    """
    figure = make_subplots(rows=1, cols=1)
    names = list(planned)
    for counts, is_recorded in ((planned, False), (recorded, True)):
        add_bars(
            figure,
            (1, 1),
            names,
            [counts[name] for name in names],
            text=[""] * len(names)
            if is_recorded
            else [f"{recorded[name]} of {planned[name]}" for name in names],
            hover=[
                f"<b>{name}</b><br>{recorded[name]} of {planned[name]} runs recorded"
                for name in names
            ],
            colors=[NEUTRAL] * len(names),
            measured=is_recorded,
            longest=1.1 * max(planned.values()),
        )
    return finish(
        figure,
        height=26 * len(names) + 60,
        provenance=provenance,
        bargap=0.3,
        barmode="overlay",
    )
