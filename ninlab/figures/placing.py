"""Where on a plot is there room for a label?

All lengths are pixels of a plot, from its lower left corner to the right and upwards. A label is
the box around its text.

Known limits: a plot is taken to be as wide as the narrowest one with labels; in a wider one the
marks lie farther apart, and the labels are as large. After `MOST_TRIES` boxes the best arrangement
found stands, and labels without room may lie on others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import log10
from typing import Any

LETTER_PIXELS = 6.4
"""Across a letter of a figure's text, about."""

LINE_PIXELS = 18
"""From a line of text to the next."""

MOST_TRIES = 1000
"""Boxes that are tried for the labels of a plot, all together."""

Point = tuple[float, float]

Side = tuple[int, int]
"""Where beside a point a label stands: 1 for the right or above, -1 for the left or below; 2 and 3
for a line or two farther up, -2 and -3 for as much farther down."""

OVER: Side = (0, 1)
OVER_LEFT: Side = (-1, 1)
OVER_RIGHT: Side = (1, 1)
SIDES: tuple[Side, ...] = (
    OVER, (1, 0), (-1, 0), OVER_RIGHT, OVER_LEFT, (1, -1), (-1, -1), (0, -1),
    (0, 2), (1, 2), (-1, 2), (1, -2), (-1, -2), (0, -2),
    (0, 3), (1, 3), (-1, 3), (1, -3), (-1, -3), (0, -3),
)  # fmt: skip
"""All around a point, the best first."""

_GAP = 6  # from a point to its label
_X_ANCHORS = {1: "left", 0: "center", -1: "right"}
_UP = {
    0: 0,
    **{lines: _GAP + (lines - 1) * LINE_PIXELS for lines in (1, 2, 3)},
    **{-lines: -_GAP - (lines - 1) * LINE_PIXELS for lines in (1, 2, 3)},
}


@dataclass(frozen=True)
class Box:
    """A rectangle."""

    left: float
    bottom: float
    right: float
    top: float

    @classmethod
    def around(cls, center: Point, width: float, height: float) -> Box:
        """The box of that size around a point."""
        x, y = center
        return cls(x - width / 2, y - height / 2, x + width / 2, y + height / 2)

    @property
    def middle(self) -> float:
        """Halfway up."""
        return (self.bottom + self.top) / 2

    def meets(self, other: Box) -> bool:
        """Whether they have an area in common."""
        return (
            self.left < other.right
            and other.left < self.right
            and self.bottom < other.top
            and other.bottom < self.top
        )

    def holds(self, other: Box) -> bool:
        """Whether the other one lies inside."""
        return (
            self.left <= other.left
            and other.right <= self.right
            and self.bottom <= other.bottom
            and other.top <= self.top
        )

    def is_crossed_by(self, start: Point, end: Point) -> bool:
        """Whether a part of the straight line from start to end lies inside.

        Source: Liang and Barsky 1984, who clip a line by the share of it between opposite sides.
        """
        enters, leaves = 0.0, 1.0
        sides = ((self.left, self.right), (self.bottom, self.top))
        for begin, stop, (low, high) in zip(start, end, sides, strict=True):
            if begin == stop:
                if not low < begin < high:
                    return False
                continue
            first, last = sorted(((low - begin) / (stop - begin), (high - begin) / (stop - begin)))
            enters, leaves = max(enters, first), min(leaves, last)
        return enters < leaves


@dataclass(frozen=True)
class Occupied:
    """What lies on a plot: boxes, and straight lines between two points."""

    boxes: list[Box] = field(default_factory=list)
    lines: list[tuple[Point, Point]] = field(default_factory=list)

    def has_room_for(self, box: Box) -> bool:
        """Whether the box meets nothing."""
        return not any(box.meets(other) for other in self.boxes) and not any(
            box.is_crossed_by(*line) for line in self.lines
        )

    def arranged(self, choices: Sequence[Sequence[Box]]) -> list[int]:
        """Which of its boxes each label gets, as a position among them.

        Gives a free box to as many labels as possible. Earlier labels and earlier boxes are
        preferred. Stops after `MOST_TRIES`. A label without a free box gets its first one.
        """
        free = [[i for i, box in enumerate(boxes) if self.has_room_for(box)] for boxes in choices]
        hoped_for = [sum(map(bool, free[label:])) for label in range(len(choices) + 1)]
        most: dict[int, int] = {}
        tries = 0

        def arrange(label: int, chosen: dict[int, int]) -> None:
            """Choose for this label and those after it, the ones before it having chosen."""
            nonlocal most, tries
            most = max(most, chosen, key=len)
            for i in (*free[label], None) if label < len(choices) else ():
                if len(chosen) + hoped_for[label] <= len(most) or tries == MOST_TRIES:
                    return
                if i is None:
                    arrange(label + 1, chosen)
                    continue
                tries += 1
                box = choices[label][i]
                if not any(box.meets(choices[other][j]) for other, j in chosen.items()):
                    arrange(label + 1, {**chosen, label: i})

        arrange(0, {})
        return [most.get(label, 0) for label in range(len(choices))]


@dataclass(frozen=True)
class LogPlot:
    """A plot with two logarithmic axes, and what lies on it: points are in units of the axes."""

    x_range: tuple[float, float]
    y_range: tuple[float, float]
    width: float
    height: float
    occupied: Occupied = field(default_factory=Occupied)

    def pixels(self, x: float, y: float) -> Point:
        """Where on the plot a point is."""
        (left, right), (bottom, top) = (map(log10, ends) for ends in (self.x_range, self.y_range))
        return (
            self.width * (log10(x) - left) / (right - left),
            self.height * (log10(y) - bottom) / (top - bottom),
        )

    def add_dot(self, x: float, y: float, size: float) -> None:
        """Keep labels off a dot so many pixels across."""
        self.occupied.boxes.append(Box.around(self.pixels(x, y), size, size))

    def add_line(self, start: Point, end: Point) -> None:
        """Keep labels off a line."""
        self.occupied.lines.append((self.pixels(*start), self.pixels(*end)))

    def labels(
        self,
        texts: Mapping[str, Sequence[Point]],
        sides: Sequence[Side] = SIDES,
    ) -> list[dict[str, Any]]:
        """An annotation for each text, beside the first of its points where there is room.

        The room that it takes is taken.
        """
        frame = Box(0, 0, self.width, self.height + LINE_PIXELS)  # nothing is over a plot
        places: list[list[tuple[Box, Point, Side]]] = []
        for text, points in texts.items():
            around = [
                (self._beside(point, side, LETTER_PIXELS * len(text)), point, side)
                for point in points
                for side in sides
            ]
            places.append([place for place in around if frame.holds(place[0])] or around)
        chosen = self.occupied.arranged([[box for box, *_ in around] for around in places])
        notes = []
        for text, around, i in zip(texts, places, chosen, strict=True):
            box, (x, y), (right, up) = around[i]
            self.occupied.boxes.append(box)
            note = {
                "text": text,
                "x": log10(x),
                "y": log10(y),
                "showarrow": False,
                "xanchor": _X_ANCHORS[right],
                "yanchor": "bottom" if up > 0 else "top" if up < 0 else "middle",
                "xshift": right * _GAP,
                "yshift": _UP[up],
            }
            notes.append(note)
        return notes

    def _beside(self, point: Point, side: Side, width: float) -> Box:
        """The box of a text of that width on that side of a point."""
        (x, y), (right, up) = self.pixels(*point), side
        nearest = y + _UP[up] + (up > 0) * LINE_PIXELS / 2 - (up < 0) * LINE_PIXELS / 2
        return Box.around((x + right * (_GAP + width / 2), nearest), width, LINE_PIXELS)
