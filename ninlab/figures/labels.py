"""How are lines told apart and named where they end, without a legend?

Imports nothing from the rest of ninlab.
Known limits: label widths are guessed, not measured: a label has about a quarter of the width.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import plotly.graph_objects as go

from ninlab.figures.layout import round_values

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
LABEL_SPACE = 0.36
"""Of the drawn range, free at the right for the labels of the lines."""
LINE_HEIGHT = 0.055
"""Of the height of a plot, for one line of a label."""


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
        sign = f'<span style="color:{self.color}">{SYMBOLS[self.symbol]}</span>'
        return f"{sign} {self.label.replace(', ', ',<br>')}"

    @property
    def lines(self) -> int:
        """How many lines the text has."""
        return 1 + self.text.count("<br>")


def label_ends(figure: go.Figure, ends: Sequence[End]) -> None:
    """Write each line's label beside its last point, moved apart where they would meet.

    The labels stand inside the plot, in room made for them: a margin of fixed width would
    leave a phone no plot.
    """
    drawn = [(x, y) for trace in figure.data for x, y in zip(trace.x, trace.y, strict=True)]
    xs = [x for x, _ in drawn]
    ys = [y for _, y in drawn if y == y] or [0.0]
    width, height = max(xs) - min(xs) or 1.0, max(ys) - min(ys) or 1.0
    bottom, top = min(ys) - 0.06 * height, max(ys) + 0.06 * height
    figure.update_xaxes(
        range=[min(xs) - 0.03 * width, max(xs) + LABEL_SPACE * width],
        tickvals=round_values(min(xs), max(xs)),
    )
    figure.update_yaxes(range=[bottom, top])
    ends = sorted(ends, key=lambda end: end.y)
    heights = [LINE_HEIGHT * (top - bottom) * end.lines for end in ends]
    places = moved_apart([end.y for end in ends], heights, top)
    for end, y in zip(ends, places, strict=True):
        figure.add_annotation(
            x=end.x, y=y, text=end.text, showarrow=False, xanchor="left", xshift=8, align="left"
        )


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
