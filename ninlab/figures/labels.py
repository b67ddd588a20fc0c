"""How are lines told apart and named where they end, without a legend?

Imports from ninlab: records.
Known limits: the width of a label is guessed from its letters.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import log10

import plotly.graph_objects as go

from ninlab.figures.layout import add_narrow, round_values
from ninlab.records import Outcome, RunRecord

SYMBOLS = {
    "circle": "●",
    "square": "■",
    "diamond": "◆",
    "triangle-up": "▲",
    "star": "★",
    "triangle-down": "▼",
}
"""Markers by which lines of one color are told apart, and the same signs as text."""

MOST_SERIES = len(SYMBOLS)
LINE_HEIGHT = 0.055
"""Of the height of a plot, for one line of a label."""

COLUMN_PIXELS = 480
"""Across a plot on a desk."""

LEGEND = {"orientation": "h", "x": 0, "y": 1, "xanchor": "left", "yanchor": "bottom"}
"""Over the plot: where a narrow column has what stands beside the marks of a wide one."""

DASHED = "dashed"
"""In place of a marker, for a line that has none."""

_SIGNS = {**SYMBOLS, DASHED: "– –"}
_LETTER_PIXELS = 6.4
_MOST_ROOM = 0.6  # of a plot, for labels


@dataclass(frozen=True)
class Symbols:
    """Gives each line a marker that no earlier line of its color has."""

    _given: Counter[str] = field(default_factory=Counter)

    def next(self, color: str) -> str:
        """The marker of the next line of that color."""
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
    def lines(self) -> int:
        """How many lines the text has."""
        return 1 + self.label.count(", ")

    @property
    def width(self) -> float:
        """About how many pixels the text is wide."""
        return _LETTER_PIXELS * (4 + max(map(len, self.label.split(", "))))


def sign_of(run: RunRecord, symbol: str) -> str:
    """The marker of a run: a cross if it failed."""
    return symbol if run.outcome is Outcome.FINISHED else "x"


def label_ends(figure: go.Figure, ends: Sequence[End]) -> None:
    """Write each line's label beside its last point, moved apart where they would meet.

    The labels stand inside the plot, in room made for them. A column too narrow for that has a
    legend over the plot in their place. The axes may be logarithmic; annotations that are no
    labels of lines have to be there before.
    """
    x_of, y_of = (_scale(axis.type) for axis in (figure.layout.xaxis, figure.layout.yaxis))
    drawn = [(x, y) for trace in figure.data for x, y in zip(trace.x, trace.y, strict=True)]
    xs = [x_of(x) for x, _ in drawn]
    ys = [y_of(y) for _, y in drawn if y == y] or [0.0]
    width, height = max(xs) - min(xs) or 1.0, max(ys) - min(ys) or 1.0
    room = min(_MOST_ROOM, max((end.width for end in ends), default=0.0) / COLUMN_PIXELS)
    left, right = min(xs) - 0.03 * width, max(xs) + 0.03 * width
    bottom, top = min(ys) - 0.06 * height, max(ys) + 0.06 * height
    figure.update_xaxes(
        range=[left, left + (right - left) / (1 - room)], tickvals=round_values(min(xs), max(xs))
    )
    figure.update_yaxes(range=[bottom, top])
    add_narrow(
        figure,
        showlegend=True,
        legend=LEGEND,
        xaxis={"range": [left, right]},
        annotations=[annotation.to_plotly_json() for annotation in figure.layout.annotations],
    )
    ends = sorted(ends, key=lambda end: y_of(end.y))
    heights = [LINE_HEIGHT * (top - bottom) * end.lines for end in ends]
    places = moved_apart([y_of(end.y) for end in ends], heights, top)
    for end, y in zip(ends, places, strict=True):
        figure.add_annotation(
            x=x_of(end.x), y=y, text=end.text, showarrow=False, xanchor="left", xshift=8,
            align="left",
        )  # fmt: skip


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
