"""What limits the speed of a network, and how many images does it train in a second?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, floor, log10, sqrt
from typing import Any

import plotly.graph_objects as go

from ninlab.architectures import architecture
from ninlab.figures.colors import HOLLOW, NEUTRAL, color_of, faded
from ninlab.figures.labels import COLUMN_PIXELS, LEGEND, PHONE_PIXELS, Symbols
from ninlab.figures.layout import MARGIN, add_narrow, finish, log_axis
from ninlab.figures.placing import OVER_RIGHT, LogPlot, Point
from ninlab.figures.provenance import raced
from ninlab.figures.words import title_of
from ninlab.formulas import macs as network_macs
from ninlab.races import Race
from ninlab.roofline import Operator
from ninlab.shapes import at_input
from ninlab.units import format_count

_UNLABELED = 0.5  # opacity of the dots that have no label beside them
_LARGEST_DOT = 26  # pixels across the dot of all of a network's arithmetic
_DOT, _SMALL_DOT = 10, 6  # pixels across the dot of a network with a label, and without
_HEIGHT = 440  # pixels of the figure of rates
_PLACES = 40  # along a diagonal, for its label


def intensities(
    networks: Mapping[str, Sequence[Operator]], ridges: Mapping[str, float], *, provenance: str
) -> go.Figure:
    """The FLOPs that each operator does for every byte it moves, one row of dots a network.

    The area of a dot is the operator's share of its network's FLOPs; operators without any
    have none. ridges gives for each device the FLOPs it can do in the time that it moves one
    byte: left of its line an operator waits for memory, right of it for arithmetic.
    """
    figure = go.Figure()
    for row, (name, operators) in enumerate(networks.items()):
        _add_operators(figure, row, name, operators)
    for level, (device, ridge) in enumerate(sorted(ridges.items(), key=lambda item: item[1])):
        figure.add_vline(x=ridge, name=f"ridge of {device}", line={"color": NEUTRAL, "width": 1})
        figure.add_annotation(
            x=log10(ridge), y=1, yref="paper", yanchor="bottom", yshift=2 + 15 * (level % 2),
            text=device, showarrow=False,
        )  # fmt: skip
    everything = [x for trace in figure.data for x in trace.x]
    decades = range(floor(log10(min(everything))), ceil(log10(max(everything))) + 1)
    figure.update_xaxes(
        type="log", title="FLOPs a byte (log scale)", tickvals=[10**e for e in decades]
    )
    figure.update_yaxes(
        tickvals=list(range(len(networks))),
        ticktext=[f"{title_of(name)} " for name in networks],
        range=[len(networks) - 0.5, -0.5],
        showgrid=False,
        zeroline=False,
    )
    return finish(
        figure,
        height=44 * len(networks) + 130,
        provenance=provenance,
        quantities={"y": "network"},
        margin={"l": 8, "r": 8, "t": 44, "b": 40},
    )


def _add_operators(figure: go.Figure, row: int, name: str, operators: Sequence[Operator]) -> None:
    """Draw the operators of one network that compute anything."""
    total = sum(one.flops for one in operators)
    computing = [one for one in operators if one.flops]
    x = [one.flops / one.bytes for one in computing]
    figure.add_scatter(
        x=x,
        y=[row] * len(x),
        mode="markers",
        marker={
            "size": [_LARGEST_DOT * sqrt(one.flops / total) for one in computing],
            "sizemin": 3,
            "color": faded(color_of(name), HOLLOW),
            "line": {"color": color_of(name), "width": 1.5},
        },
        hovertext=[
            f"<b>{title_of(name)}, {one.layer}</b><br>{one.phase}: {one.name}"
            f"<br>{at:.3g} FLOPs a byte<br>{one.flops / total:.1%} of the step's FLOPs"
            for one, at in zip(computing, x, strict=True)
        ],
    )


def rate_by_macs(race: Race, labels: Mapping[str, str]) -> go.Figure:
    """Images trained in one second against the MACs of one image, a dot for each network of a race.

    The dot is at the median ratio of its step to that of the race's first network, and the line
    goes from one quartile over the rounds to the other: the rate of the first network alone is that
    of the machine and its load. MACs are those of the input that raced, and dashed
    diagonals join equal MACs in a second. labels gives what
    stands beside the lines of some networks; the others are small and pale.
    Raises NinlabError for more than six labels of one color.
    """
    first = race.networks[0]
    of_first = race.batch_size / race.seconds(first)
    ratios = {name: race.ratio(name, first) for name in race.networks}
    rates = {
        name: _Rate(of_first / ratio.median, of_first / ratio.high, of_first / ratio.low)
        for name, ratio in ratios.items()
    }
    macs = {
        name: network_macs(at_input(architecture(name), race.input_shape(name)))
        for name in race.networks
    }
    x_range = (0.65 * min(macs.values()), 2.2 * max(macs.values()))  # room for text at both ends
    y_range = (0.65 * min(r.low for r in rates.values()), 1.5 * max(r.high for r in rates.values()))
    figure = go.Figure()
    desk, phone = (
        LogPlot(x_range, y_range, width, _HEIGHT - MARGIN["t"] - MARGIN["b"])
        for width in (COLUMN_PIXELS, PHONE_PIXELS)
    )
    symbols = Symbols()
    diagonals = _add_diagonals(figure, x_range, y_range)
    for name in sorted(rates, key=lambda name: name in labels):  # those with a label on top
        symbol = symbols.next(color_of(name)) if name in labels else "circle"
        rate = rates[name]
        _add_rate(figure, name, macs[name], rate, labels.get(name, ""), symbol)
        for plot in (desk, phone):
            plot.add_dot(macs[name], rate.median, _DOT if name in labels else _SMALL_DOT)
            plot.add_line((macs[name], rate.high), (macs[name], rate.low))
    add_narrow(
        figure,
        showlegend=True,
        legend=LEGEND,
        annotations=_diagonal_labels(phone, diagonals, "/s"),
    )
    points = {
        labels[name]: [(macs[name], rates[name].median)]
        for name in sorted(rates, key=lambda name: macs[name])
        if name in labels
    }
    for note in [*_diagonal_labels(desk, diagonals, " MACs/s"), *desk.labels(points)]:
        figure.add_annotation(note)
    figure.update_xaxes(**log_axis(x_range), title="MACs of one image, forward (log scale)")
    figure.update_yaxes(**log_axis(y_range), title="images trained in a second (log scale)")
    return finish(figure, height=_HEIGHT, provenance=raced(race))


@dataclass(frozen=True)
class _Rate:
    """Images trained in a second: the median over the rounds, and the quartiles."""

    median: float
    low: float
    high: float


def _add_rate(
    figure: go.Figure, name: str, macs: int, rate: _Rate, label: str, symbol: str
) -> None:
    """Draw the median rate of one network as a dot on the line between its quartiles.

    A network without a label is small and pale.
    """
    title = title_of(name)
    color = color_of(name) if label else faded(color_of(name), _UNLABELED)
    figure.add_scatter(
        x=[macs] * 3,
        y=[rate.median, rate.high, rate.low],  # a legend shows the first marker
        name=label or title,
        mode="lines+markers",
        line={"color": color, "width": 2 if label else 1},
        marker={
            "color": color,
            "size": [_DOT if label else _SMALL_DOT, 0, 0],
            "opacity": 1,
            "symbol": symbol,
        },
        showlegend=bool(label),
        hovertext=[
            f"<b>{title}</b><br>{macs:,} MACs an image"
            f"<br>{which} of the rounds: {value:,.0f} images/s"
            for which, value in (
                ("median", rate.median),
                ("upper quartile", rate.high),
                ("lower quartile", rate.low),
            )
        ],
    )


_Diagonals = Mapping[float, tuple[Point, Point]]
"""The ends of lines of equal MACs in a second, by that rate."""


def _add_diagonals(
    figure: go.Figure, x_range: tuple[float, float], y_range: tuple[float, float]
) -> _Diagonals:
    """Draw x * y = 1 and 3 times each power of ten, dashed."""
    ends: dict[float, tuple[Point, Point]] = {}
    lowest, highest = (floor(log10(x_range[i] * y_range[i])) for i in (0, 1))
    for rate in (factor * 10**e for e in range(lowest, highest + 1) for factor in (1, 3)):
        left, right = max(x_range[0], rate / y_range[1]), min(x_range[1], rate / y_range[0])
        if left >= right:
            continue
        ends[rate] = (left, rate / left), (right, rate / right)
        figure.add_scatter(
            x=[left, right],
            y=[rate / left, rate / right],
            name=f"{format_count(rate)} MACs/s",
            mode="lines",
            line={"color": NEUTRAL, "width": 0.8, "dash": "dash"},
            showlegend=False,
            hoverinfo="skip",
        )
    return ends


def _diagonal_labels(plot: LogPlot, diagonals: _Diagonals, unit: str) -> list[dict[str, Any]]:
    """The rate of each diagonal over its lower end, or as near to that as there is room."""
    points = {
        format_count(rate) + unit: [
            (
                right * (left / right) ** (i / _PLACES),
                rate / right * (right / left) ** (i / _PLACES),
            )
            for i in range(_PLACES)
        ]
        for rate, ((left, _), (right, _)) in diagonals.items()
    }
    return plot.labels(points, [OVER_RIGHT])
