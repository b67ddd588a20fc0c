"""How do quantities of networks compare? Horizontal bars, one panel a quantity.

Counted bars are hollow, measured ones solid; a measurement beside its prediction is a dot.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from ninlab.figures.colors import HOLLOW, NEUTRAL, color_of, faded
from ninlab.figures.layout import axes_of_panels, finish, left_aligned_titles
from ninlab.figures.words import title_of
from ninlab.units import format_bytes, format_count

MARGIN_OF_BARS = {"l": 8, "r": 8, "t": 34, "b": 8}
"""No axis is labeled under bars."""

_ROOM_FOR_TEXT = 1.42  # width of a panel, in lengths of its longest bar
_ROOM_FOR_TEXT_IN_A_PART = 1.45  # the same where panels share the width
_ROOM_FOR_COMPARISON = 2.3  # the same where the text says how far off a prediction is
_ROWS = "name"  # what a table calls the labels of bars
_MISSING = "no record yet"  # in place of a bar


def add_bars(
    figure: go.Figure,
    place: tuple[int, int],
    labels: Sequence[str],
    values: Sequence[float | None],
    *,
    text: Sequence[str],
    hover: Sequence[str],
    colors: Sequence[str],
    name: str = "",
    measured: bool = False,
    longest: float | None = None,
    room: float = _ROOM_FOR_TEXT,
) -> None:
    """Draw horizontal bars into one panel, from the top down, each with its value beside it.

    Solid when measured, hollow when counted. name is that of their series. longest is the value
    that fills the panel; by default it is the largest of its own; room is how much wider the
    panel is, for the text. A value of None is a row without a bar.
    """
    row, column = place
    figure.add_bar(
        y=list(range(len(labels))),  # places, not labels: two rows may bear the same label
        x=list(values),
        name=name,
        orientation="h",
        text=list(text),
        textposition="outside",
        cliponaxis=False,
        constraintext="none",  # else Plotly scales it down to the height of its bar
        marker={
            "color": [color if measured else faded(color, HOLLOW) for color in colors],
            "line": {"color": list(colors), "width": 1.5},
        },
        hovertext=list(hover),
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
        range=[0, room * (longest or max((v for v in values if v is not None), default=0) or 1)],
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

    @property
    def untold_unit(self) -> str:
        """The unit, where the title has none."""
        return "" if self.unit.casefold() in self.title.casefold() else self.unit

    @property
    def measures(self) -> str:
        """What the values are, with their unit."""
        return f"{self.title}, {self.untold_unit}" if self.untold_unit else self.title

    def said(self, value: int) -> str:
        """One value, unrounded."""
        return f"{self.title}: {value:,} {self.untold_unit}".rstrip()


def bars(
    *quantities: Quantity,
    provenance: str,
    like: Mapping[str, str] | None = None,
    titles: Mapping[str, str] | None = None,
    side_by_side: bool = False,
) -> go.Figure:
    """One panel a quantity, one bar a network, each labeled with its value.

    The first quantity sorts the bars, in all panels alike; where another one lacks a value, its
    panel says so in place of the bar. like gives labels that are no networks the color of one:
    ``{"NiN block": "nin"}``; titles gives networks other titles than their own. Panels lie below
    one another, or side_by_side where there is the width.
    """
    order = sorted(quantities[0].values, key=lambda name: -quantities[0].values[name])
    labels = [(titles or {}).get(name, title_of(name)) for name in order]
    across = len(quantities) if side_by_side else 1
    down = len(quantities) // across
    figure = make_subplots(
        rows=down,
        cols=across,
        shared_yaxes=True,
        subplot_titles=[quantity.title for quantity in quantities],
        vertical_spacing=0.32 / down,
        horizontal_spacing=0.03,
    )
    places = [(number // across + 1, number % across + 1) for number in range(len(quantities))]
    for place, quantity in zip(places, quantities, strict=True):
        values = [quantity.values.get(name) for name in order]
        add_bars(
            figure,
            place,
            labels,
            values,
            text=["" if value is None else quantity.write(value) for value in values],
            hover=[
                "" if value is None else f"<b>{label}</b><br>{quantity.said(value)}"
                for label, value in zip(labels, values, strict=True)
            ],
            colors=[color_of(quantity.like or name, like) for name in order],
            measured=quantity.measured,
            room=_ROOM_FOR_TEXT_IN_A_PART if side_by_side else _ROOM_FOR_TEXT,
        )
    left_aligned_titles(figure)
    for (row, column), quantity in zip(places, quantities, strict=True):
        for level, name in enumerate(order):
            if name not in quantity.values:
                figure.add_annotation(
                    x=0, y=level, text=f" {_MISSING}", xanchor="left", showarrow=False,
                    row=row, col=column,
                )  # fmt: skip
    return finish(
        figure,
        height=down * (30 * len(order) + 40),
        provenance=provenance,
        quantities=axes_of_panels("x", [quantity.measures for quantity in quantities])
        | axes_of_panels("y", [_ROWS] * len(quantities)),
        bargap=0.35,
        margin=MARGIN_OF_BARS,
    )


@dataclass(frozen=True)
class Pair:
    """Bytes, predicted and measured. like is the network whose color it has."""

    label: str
    predicted: int
    measured: int
    like: str


def predicted_and_measured(pairs: Sequence[Pair], *, provenance: str) -> go.Figure:
    """A hollow bar for each prediction, a solid dot for its measurement, and how far off it is."""
    figure = make_subplots(rows=1, cols=1)
    apart = [pair.measured - pair.predicted for pair in pairs]
    hover = [
        f"<b>{pair.label}</b><br>predicted: {pair.predicted:,} bytes"
        f"<br>measured: {pair.measured:,} bytes<br>measured − predicted: {difference:,} bytes"
        for pair, difference in zip(pairs, apart, strict=True)
    ]
    text = [
        f"  {format_bytes(pair.measured)}, "
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
        name="predicted",
        longest=max(max(pair.predicted, pair.measured) for pair in pairs),
        room=_ROOM_FOR_COMPARISON,
    )
    figure.add_scatter(
        x=[pair.measured for pair in pairs],
        y=list(range(len(pairs))),
        name="measured",
        mode="markers",
        marker={"size": 9, "color": colors},
        hovertext=hover,
    )
    return finish(
        figure,
        height=26 * len(pairs) + 24,
        provenance=provenance,
        quantities={"x": "bytes", "y": _ROWS},
        bargap=0.3,
        margin=MARGIN_OF_BARS | {"t": 8},
    )


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
            name="recorded" if is_recorded else "planned",
            measured=is_recorded,
            longest=1.3 * max(planned.values()),  # for three digits of each on a phone
        )
    return finish(
        figure,
        height=26 * len(names) + 24,
        provenance=provenance,
        quantities={"x": "runs", "y": "experiment"},
        bargap=0.3,
        barmode="overlay",
        margin=MARGIN_OF_BARS | {"t": 8},
    )
