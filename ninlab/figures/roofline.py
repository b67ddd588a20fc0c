"""How much of a device's peak rate can a whole step of a network reach?

Known limits: one device, at most `MOST_LABELS` networks; what a bound leaves out, see
`ninlab.roofline`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import log10
from typing import Any

import plotly.graph_objects as go

from ninlab.devices import DataSheet
from ninlab.errors import NinlabError
from ninlab.figures.colors import NEUTRAL, color_of
from ninlab.figures.labels import (
    COLUMN_PIXELS,
    HOLLOW_SYMBOL,
    LEGEND,
    MOST_LABELS,
    PHONE_PIXELS,
    Symbols,
)
from ninlab.figures.layout import MARGIN, add_narrow, finish, log_axis
from ninlab.figures.placing import OVER, OVER_LEFT, LogPlot, Point
from ninlab.figures.words import title_of
from ninlab.roofline import Operator, TimeBound, time_bound
from ninlab.units import format_count, format_seconds

_HEIGHT = 430
_MARK = 11  # pixels across
_PLACES = 20  # along a side of the roof, for its label


def roofline(
    networks: Mapping[str, Sequence[Operator]],
    device: DataSheet,
    precision: str,
    *,
    provenance: str,
    measured: Mapping[str, float] | None = None,
) -> go.Figure:
    """The FLOPs that a step of each network does in a second, under the roof of a data sheet.

    The roof is what an operator with so many FLOPs a byte can reach: it rises with the bandwidth
    up to the ridge, and is the peak rate from there on. A hollow mark is a whole step in the
    least time that it can take, at the FLOPs and the bytes of all its operators together. It
    hangs below the roof as far as operators that wait for memory and operators that wait for
    arithmetic take turns. measured gives the seconds that a step really took: solid marks.
    Raises NinlabError where no document gives the device's rates, and for no network or more
    than `MOST_LABELS`.
    Source: Williams2009, who draws single operators.
    """
    if not 1 <= len(networks) <= MOST_LABELS:
        raise NinlabError(f"a roofline shows 1 to {MOST_LABELS} networks, not {len(networks)}")
    roof = _Roof(device, precision)
    steps = [
        _Step(name, time_bound(operators, device, precision), (measured or {}).get(name))
        for name, operators in networks.items()
    ]
    least, most = (one([roof.ridge, *(step.intensity for step in steps)]) for one in (min, max))
    x_range = (least / 4, 4 * most)  # room for the words on both sides of the ridge
    rates = [rate for step in steps for rate in step.rates.values()]
    y_range = (0.6 * min(roof.at(x_range[0]), *rates), 1.8 * roof.peak)
    figure = go.Figure()
    desk, phone = (
        LogPlot(x_range, y_range, width, _HEIGHT - MARGIN["t"] - MARGIN["b"])
        for width in (COLUMN_PIXELS, PHONE_PIXELS)
    )
    _add_roof(figure, roof, desk)
    symbols = Symbols()
    for step in steps:
        _add_step(figure, roof, step, symbols.next(color_of(step.name)))
    for plot in (desk, phone):
        _keep_off(plot, roof, steps)
    add_narrow(figure, showlegend=True, legend=LEGEND, annotations=_roof_labels(phone, roof))
    points = {
        title_of(step.name): [(step.intensity, rate) for rate in step.rates.values()]
        for step in steps
    }
    # Names first: those of the roof can move along it.
    for note in [*desk.labels(points), *_roof_labels(desk, roof), *_words(roof)]:
        figure.add_annotation(note)
    figure.update_xaxes(log_axis(x_range), title="FLOPs a byte (log scale)")
    figure.update_yaxes(log_axis(y_range), title="FLOP/s (log scale)")
    return finish(figure, height=_HEIGHT, provenance=provenance)


@dataclass(frozen=True)
class _Roof:
    """What a device can do with operators of so many FLOPs a byte."""

    device: DataSheet
    precision: str

    @property
    def peak(self) -> int:
        """The largest rate of all."""
        return self.device.peak(self.precision)

    @property
    def ridge(self) -> float:
        """The FLOPs a byte from which on an operator waits for arithmetic."""
        return self.peak / self.device.bandwidth()

    @property
    def slope_text(self) -> str:
        """The bandwidth."""
        return f"{self.device.bandwidth() / 1e9:,.0f} GB/s"

    @property
    def top_text(self) -> str:
        """The peak rate, in full: three digits would not be those of the data sheet."""
        size, unit = (1e12, "TFLOP/s") if self.peak >= 1e12 else (1e9, "GFLOP/s")
        return f"{self.peak / size:g} {unit}"

    def at(self, intensity: float) -> float:
        """The FLOP/s that an operator with so many FLOPs a byte can reach."""
        return min(self.peak, intensity * self.device.bandwidth())

    def corners(self, x_range: tuple[float, float]) -> list[Point]:
        """Where it begins, its ridge, and where it ends."""
        return [(x, self.at(x)) for x in (x_range[0], self.ridge, x_range[1])]


_BOUND, _MEASURED = "at best", "measured"


@dataclass(frozen=True)
class _Step:
    """A training step of one network."""

    name: str
    bound: TimeBound
    measured_seconds: float | None

    @property
    def intensity(self) -> float:
        """FLOPs a byte, of all operators together."""
        return self.bound.flops / self.bound.bytes

    @property
    def seconds(self) -> dict[str, float]:
        """How long it takes, at best and as measured."""
        measured = {} if self.measured_seconds is None else {_MEASURED: self.measured_seconds}
        return {_BOUND: self.bound.seconds, **measured}

    @property
    def rates(self) -> dict[str, float]:
        """Its FLOP/s, by the same words."""
        return {how: self.bound.flops / seconds for how, seconds in self.seconds.items()}


def _add_roof(figure: go.Figure, roof: _Roof, plot: LogPlot) -> None:
    """Draw the slope, the top and the ridge."""
    corners = roof.corners(plot.x_range)
    figure.add_scatter(
        x=[x for x, _ in corners],
        y=[rate for _, rate in corners],
        name=f"roof of {roof.device.title}, {roof.precision}",
        mode="lines",
        line={"color": NEUTRAL, "width": 2},
        showlegend=False,
        hovertext=f"<b>{roof.device.title}, {roof.precision}</b><br>{roof.slope_text}, "
        f"{roof.top_text}<br>ridge at {roof.ridge:.0f} FLOPs a byte",
    )
    figure.add_shape(
        type="line", name=f"ridge of {roof.device.title}", x0=roof.ridge, x1=roof.ridge,
        y0=plot.y_range[0], y1=roof.peak, line={"color": NEUTRAL, "width": 1},
    )  # fmt: skip


def _add_step(figure: go.Figure, roof: _Roof, step: _Step, symbol: str) -> None:
    """Draw a step at best, hollow, as measured, solid, and how far below the roof it is."""
    color, title, x = color_of(step.name), title_of(step.name), step.intensity
    figure.add_scatter(
        x=[x, x],
        y=[roof.at(x), min(step.rates.values())],
        name=f"{title}, from the roof down",
        mode="lines",
        line={"color": color, "width": 1, "dash": "dot"},
        showlegend=False,
        hoverinfo="skip",
    )
    for how, rate in step.rates.items():
        figure.add_scatter(
            x=[x],
            y=[rate],
            name=title if how == _BOUND else f"{title}, {how}",
            mode="markers",
            marker={
                "symbol": symbol + (HOLLOW_SYMBOL if how == _BOUND else ""),
                "size": _MARK,
                "color": color,
                "line": {"width": 2, "color": color},
            },
            showlegend=how == _BOUND,
            hovertext=f"<b>{title}, {how}</b><br>{format_count(step.bound.flops)}FLOPs in "
            f"{format_seconds(step.seconds[how])}: {format_count(rate)}FLOP/s"
            f"<br>{rate / roof.peak:.0%} of the peak rate, {rate / roof.at(x):.0%} of the roof"
            f"<br>{x:.3g} FLOPs a byte",
        )


def _keep_off(plot: LogPlot, roof: _Roof, steps: Sequence[_Step]) -> None:
    """Keep labels off everything that is drawn."""
    for line in pairwise(roof.corners(plot.x_range)):
        plot.add_line(*line)
    plot.add_line((roof.ridge, plot.y_range[0]), (roof.ridge, roof.peak))
    for step in steps:
        x, rates = step.intensity, step.rates.values()
        plot.add_line((x, roof.at(x)), (x, min(rates)))
        for rate in rates:
            plot.add_dot(x, rate, _MARK)


def _roof_labels(plot: LogPlot, roof: _Roof) -> list[dict[str, Any]]:
    """Bandwidth and peak rate, each at its side of the roof."""
    start, ridge, end = roof.corners(plot.x_range)
    return [
        *plot.labels({roof.slope_text: _between(start, ridge)}, [OVER_LEFT]),
        *plot.labels({roof.top_text: _between(ridge, end)}, [OVER]),
    ]


def _between(start: Point, end: Point) -> list[Point]:
    """Points on a straight line of two logarithmic axes, those in the middle first."""
    shares = sorted((i / _PLACES for i in range(_PLACES + 1)), key=lambda share: abs(share - 0.5))
    return [
        (
            start[0] ** (1 - share) * end[0] ** share,
            start[1] ** (1 - share) * end[1] ** share,
        )
        for share in shares
    ]


def _words(roof: _Roof) -> list[dict[str, Any]]:
    """What is the case on each side of the ridge."""
    return [
        {
            "x": log10(roof.ridge),
            "y": 0,
            "yref": "paper",
            "xanchor": anchor,
            "yanchor": "bottom",
            "text": text,
            "showarrow": False,
        }
        for text, anchor in (("waits for memory ", "right"), (" waits for arithmetic", "left"))
    ]
