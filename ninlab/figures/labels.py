"""How are lines told apart, and named where they end?

Known limits: more than `MOST_LABELS` lines have a legend instead, and so has every line on a phone;
the width of a label is guessed from its letters; a label may lie on a band.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from math import log10

import plotly.graph_objects as go

from ninlab.errors import NinlabError
from ninlab.figures.layout import add_narrow, round_values
from ninlab.figures.placing import LETTER_PIXELS, LINE_PIXELS, Box, Occupied, Point
from ninlab.records import RunRecord
from ninlab.relapses import failed

SYMBOLS = {
    "circle": "●",
    "square": "■",
    "diamond": "◆",
    "triangle-up": "▲",
    "star": "★",
    "triangle-down": "▼",
}
"""Markers by which lines of one color are told apart, and the same signs as text."""

MOST_OF_ONE_COLOR = len(SYMBOLS)
"""Lines of one color that a figure tells apart."""

MOST_LABELS = 6
"""Lines that have room for labels beside them."""

COLUMN_PIXELS = 480
"""Across a plot on a desk."""

PHONE_PIXELS = 220
"""Across a plot on a phone."""

PLOT_PIXELS = 326
"""Down a plot whose lines have labels, in the lowest of those figures."""

HOLLOW_SYMBOL = "-open"
"""Behind the name of a marker, of what is not measured."""

LEGEND = {"orientation": "h", "x": 0, "y": 1, "xanchor": "left", "yanchor": "bottom"}
"""Over the plot: where a narrow column has what stands beside the marks of a wide one."""

DASHED = "dashed"
"""In place of a marker, for a line that has none."""

_HOLLOW_SIGNS = dict(zip(SYMBOLS, "○□◇△☆▽", strict=True))
_SIGNS = {
    **SYMBOLS,
    **{symbol + HOLLOW_SYMBOL: sign for symbol, sign in _HOLLOW_SIGNS.items()},
    DASHED: "– –",
}
_MOST_ROOM = 0.6  # of a plot, for labels
_GAP = 8  # pixels, from the end of a line to its label


@dataclass(frozen=True)
class Symbols:
    """Gives each line a marker that no earlier line of its color has."""

    _given: Counter[str] = field(default_factory=Counter)

    def next(self, color: str) -> str:
        """The marker of the next line of that color. Raises NinlabError when all are given."""
        if self._given[color] == MOST_OF_ONE_COLOR:
            raise NinlabError(
                f"a figure tells {MOST_OF_ONE_COLOR} lines of one color apart, and not one more; "
                "draw fewer, or several figures"
            )
        symbol = list(SYMBOLS)[self._given[color]]
        self._given[color] += 1
        return symbol


@dataclass(frozen=True)
class End:
    """Where a line ends, and how it is called there."""

    x: float
    y: float
    label: str
    color: str
    symbol: str

    @property
    def text(self) -> str:
        """The line's marker and label; a comma ends a line."""
        sign = f'<span style="color:{self.color}">{_SIGNS[self.symbol]}</span>'
        return f"{sign} {self.label.replace(', ', ',<br>')}"

    @property
    def height(self) -> float:
        """How many pixels the lines of the text are high."""
        return LINE_PIXELS * (1 + self.label.count(", "))

    @property
    def width(self) -> float:
        """About how many pixels the text is wide."""
        return LETTER_PIXELS * (4 + max(map(len, self.label.split(", "))))


def sign_of(run: RunRecord, symbol: str) -> str:
    """The marker of a run: a cross if it failed."""
    return "x" if failed(run) else symbol


def label_ends(figure: go.Figure, ends: Sequence[End]) -> None:
    """Write each line's label beside its last point, moved apart where they would meet.

    The labels stand inside the plot, in room made for them. Where lines end one before the other,
    a label also keeps off the lines that go on. A column too narrow for labels has a legend over
    the plot in their place, and so has every column where they are more than `MOST_LABELS`. The
    axes may be logarithmic; annotations that are no labels of lines have to be there before.
    """
    if len(ends) > MOST_LABELS:
        figure.update_layout(showlegend=True, legend=LEGEND)
        ends = []
    x_of, y_of = (_scale(axis.type) for axis in (figure.layout.xaxis, figure.layout.yaxis))
    left, right = _widened([x_of(x) for trace in figure.data for x in trace.x], 0.03)
    bottom, top = _widened([y_of(y) for trace in figure.data for y in trace.y if y == y], 0.06)
    room = min(_MOST_ROOM, max((end.width for end in ends), default=0.0) / COLUMN_PIXELS)
    across, down = (right - left) / (1 - room), top - bottom
    figure.update_xaxes(range=[left, left + across], tickvals=round_values(left, right))
    figure.update_yaxes(range=[bottom, top])
    add_narrow(
        figure,
        showlegend=True,
        legend=LEGEND,
        xaxis={"range": [left, right]},
        annotations=[annotation.to_plotly_json() for annotation in figure.layout.annotations],
    )

    def pixels(x: float, y: float) -> Point:
        return (
            COLUMN_PIXELS * (x_of(x) - left) / across,
            PLOT_PIXELS * (y_of(y) - bottom) / down,
        )

    ends = sorted(ends, key=lambda end: y_of(end.y))
    points = [pixels(end.x, end.y) for end in ends]
    if len({end.x for end in ends}) == 1:
        places = moved_apart([y for _, y in points], [end.height for end in ends], PLOT_PIXELS)
    else:
        places = _off_the_lines(ends, points, list(_drawn_lines(figure, pixels)))
    for end, y in zip(ends, places, strict=True):
        figure.add_annotation(
            x=x_of(end.x), y=bottom + down * y / PLOT_PIXELS, text=end.text, showarrow=False,
            xanchor="left", xshift=_GAP, align="left",
        )  # fmt: skip


def _drawn_lines(
    figure: go.Figure, pixels: Callable[[float, float], Point]
) -> Iterator[tuple[Point, Point]]:
    """The straight lines of a figure's visible lines; the edges of a band are not visible."""
    for trace in figure.data:
        if "lines" in trace.mode and trace.line.width:
            points = [pixels(x, y) for x, y in zip(trace.x, trace.y, strict=True) if y == y]
            yield from pairwise(points)


def _off_the_lines(
    ends: Sequence[End], points: Sequence[Point], lines: list[tuple[Point, Point]]
) -> list[float]:
    """How high labels stand beside these points: as near as they can, meeting nothing."""
    nearer = [step * LINE_PIXELS / 4 for step in range(4 * MOST_LABELS)]
    order = sorted(range(len(ends)), key=lambda i: -points[i][0])  # the last has the most room
    choices = []
    for end, (x, y) in ((ends[i], points[i]) for i in order):
        middle = x + _GAP + end.width / 2
        heights = [y + sign * away for away in nearer for sign in (1, -1)]
        choices.append(
            [Box.around((middle, at), end.width, end.height) for at in heights
             if 0 <= at <= PLOT_PIXELS]
        )  # fmt: skip
    chosen = Occupied(lines=lines).arranged(choices)
    places = {i: boxes[at].middle for i, boxes, at in zip(order, choices, chosen, strict=True)}
    return [places[i] for i in range(len(ends))]


def _widened(values: Sequence[float], share: float) -> tuple[float, float]:
    """The least and the greatest value, moved apart by that share of their distance each."""
    least, greatest = min(values, default=0.0), max(values, default=0.0)
    more = share * (greatest - least or 1.0)
    return least - more, greatest + more


def _scale(axis_type: str | None) -> Callable[[float], float]:
    """Where on an axis a value lies, in the units of its range."""
    return log10 if axis_type == "log" else float


def moved_apart(wanted: Sequence[float], heights: Sequence[float], top: float) -> list[float]:
    """Centers of boxes of those heights near the wanted ones (ascending), none meeting another.

    The uppermost box ends at the top at most; boxes may go below any bottom.
    """
    places: list[float] = []
    for center, height in zip(wanted, heights, strict=True):
        if places:
            center = max(center, places[-1] + (heights[len(places) - 1] + height) / 2)
        places.append(center)
    limit = top
    for i in reversed(range(len(places))):
        places[i] = min(places[i], limit - heights[i] / 2)
        limit = places[i] - heights[i] / 2
    return places
