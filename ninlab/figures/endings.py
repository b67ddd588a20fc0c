"""Where did the runs of each variant end, and is the distance between two of them luck?

All of it is measured, and so solid; runs that failed are crosses. Each scale has a panel of its
own: between two scales more changes than the network, and no list may mix them.
Known limits: the intervals of one panel hold together, those of several figures do not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, count
from math import ceil
from textwrap import wrap

import plotly.graph_objects as go

from ninlab.comparisons import (
    CONFIDENCE,
    Groups,
    Scale,
    conditions,
    confidence_of_rows,
    difference,
    failures,
    scale_of,
    summary,
    told_apart,
)
from ninlab.errors import NinlabError
from ninlab.figures.colors import NEUTRAL, color_of
from ninlab.figures.labels import sign_of
from ninlab.figures.layout import NO_NUMBER, finish
from ninlab.figures.provenance import measured
from ninlab.figures.words import dead
from ninlab.records import RunRecord
from ninlab.relapses import ending

_ACCURACY = "test accuracy after the last epoch"
_LONGEST_LABEL = 48  # letters of a label on one line of a phone
_MARKER_PIXELS = 9
_MEAN_PIXELS = 15  # Plotly draws 1.4 times as much: just over the dots, and under the label
_SAME_PLACE = 0.002  # of accuracy: marks that are closer would hide each other
_STEP_ASIDE = 6  # pixels
_INTERVAL_PIXELS, _ARROW_PIXELS = 7, 10  # of its ends: one that is seen, one that lies beyond
_DASH = "5px,3px"  # Plotly's own are so long that a row has but one or two
_LINE_PIXELS = 16  # of each line of a label
_FREE = 4  # pixels between label, dots, interval and the next row
_HEAD_PIXELS, _TICKS_PIXELS, _TITLE_PIXELS = 14, 28, 20
_MARGIN = {"l": 8, "r": 16, "t": 8, "b": _TICKS_PIXELS + _TITLE_PIXELS}  # half a tick's label


_Frame = tuple[float, float]  # the accuracies at the left and at the right end of the plot


@dataclass(frozen=True)
class _Row:
    """The runs of one label, and where they are drawn: pixels, downward in the panel."""

    label: str
    runs: Sequence[RunRecord]
    top: int  # of the label

    @cached_property
    def asides(self) -> list[int]:
        """By how many pixels each dot steps out of the row, so that none hides another."""
        steps = _asides([run.last.test_accuracy for run in self.runs])
        return [_STEP_ASIDE * step for step in steps]

    @property
    def reach(self) -> float:
        """From the middle of the dots to the end of the outermost, above and below."""
        dots = max(map(abs, self.asides)) + _MARKER_PIXELS / 2
        return max(dots, 1.4 * _MEAN_PIXELS / 2)

    @cached_property
    def marks_top(self) -> float:
        """Where the label ends, and lines down the plot begin."""
        return self.top + _LINE_PIXELS * len(_lines(self.label, self.runs))

    @property
    def middle(self) -> float:
        """Where the dots are."""
        return self.marks_top + _FREE + self.reach

    @property
    def interval(self) -> float:
        """Where the interval is, under the dots."""
        return self.middle + self.reach + _FREE

    @property
    def bottom(self) -> int:
        """Where the lines down the plot end, and the next row begins."""
        return ceil(self.interval + _INTERVAL_PIXELS / 2) + _FREE


@dataclass(frozen=True)
class _Panel:
    """The groups of one scale, and where they are drawn."""

    number: int  # from 1, as Plotly counts axes
    parts: list[Groups]  # each compared with its own first group

    @property
    def x(self) -> str:
        """What Plotly calls the panel's axis of accuracies."""
        return "x" if self.number == 1 else f"x{self.number}"

    @property
    def y(self) -> str:
        """What Plotly calls the panel's axis of rows."""
        return self.x.replace("x", "y")

    @cached_property
    def rows_of_parts(self) -> list[list[_Row]]:
        """The rows of each part, from the top down."""
        top, parts = _HEAD_PIXELS + _LINE_PIXELS * len(self.heading), []
        for part in self.parts:
            rows = []
            for label, runs in part.items():
                rows.append(_Row(label, runs, top))
                top = rows[-1].bottom
            parts.append(rows)
        return parts

    @property
    def rows(self) -> list[_Row]:
        """All rows, from the top down."""
        return list(chain.from_iterable(self.rows_of_parts))

    @property
    def runs(self) -> list[RunRecord]:
        """All runs of the panel."""
        return [run for part in self.parts for runs in part.values() for run in runs]

    @cached_property
    def heading(self) -> list[str]:
        """What all rows have in common, in lines that a phone has room for."""
        groups = [runs for part in self.parts for runs in part.values()]
        common = conditions({f"{i}": runs for i, runs in enumerate(groups)})
        return wrap(common, _LONGEST_LABEL)

    @cached_property
    def confidence(self) -> float:
        """That of each interval with which all of the panel hold together."""
        return confidence_of_rows(*self.parts)

    @property
    def pixels(self) -> int:
        """How high the panel is, without the labels of its ticks."""
        return self.rows[-1].bottom


def endings(*groups: Groups, chance: float | None = None, intervals: bool = False) -> go.Figure:
    """Where the runs of each group ended: one dot a seed, a line at the mean of two and more.

    Runs that failed are crosses and in no mean; the label says how they did. Each scale has its
    panel, under a heading that says what its runs have in common; arguments of one scale share it.
    Each argument is compared with itself only: with intervals, a dashed line goes down from the
    mean of its first group, and under the dots of every other group lies the interval of its
    distance from there, if two runs of both held. The intervals of a panel hold together with a
    confidence of 95 %, as those of a table do. Where one crosses the line, no difference is shown;
    the dots decide what is in the plot, and an interval that goes on beyond it ends in an arrow
    there. chance draws a line at the accuracy of guessing.
    Raises NinlabError without runs, and for an argument that holds runs of two scales.
    """
    panels = _panels([part for part in groups if part])
    if not panels:
        raise NinlabError("no record was given; a measured figure needs at least one")
    runs = [run for panel in panels for run in panel.runs]
    figure = go.Figure()
    drawn = [run.last.test_accuracy for run in runs] + ([] if chance is None else [chance])
    beyond = 0.04 * (max(drawn) - min(drawn))
    frame = (min(drawn) - beyond, max(drawn) + beyond)
    height = sum(panel.pixels for panel in panels) + _TICKS_PIXELS * (len(panels) - 1)
    top = 0
    for panel in panels:
        ends = [1 - at / height for at in (top + panel.pixels, top)]
        _add_panel(figure, panel, (max(ends[0], 0.0), ends[1]), chance)
        if intervals:
            for rows in panel.rows_of_parts:
                _add_intervals(figure, panel, rows, frame)
        figure.update_layout(
            {
                f"xaxis{panel.x[1:]}": {
                    "title": _ACCURACY if panel is panels[-1] else None,
                    "tickformat": ".0%",
                    "range": frame,
                    "anchor": panel.y,
                },
            }
        )
        top += panel.pixels + _TICKS_PIXELS
    return finish(
        figure,
        height=height + _MARGIN["t"] + _MARGIN["b"],
        provenance=measured(runs, "mean"),
        quantities={panel.x: f"{_ACCURACY}, as a fraction" for panel in panels},
        margin=_MARGIN,
    )


def _panels(groups: Sequence[Groups]) -> list[_Panel]:
    """A panel for each scale; its rows name the kernels that its heading does not."""
    parts: dict[Scale, list[Groups]] = {}
    for part in groups:
        parts.setdefault(scale_of(list(chain.from_iterable(part.values()))), []).append(part)
    return [
        _Panel(number, [told_apart(part, among=of_scale) for part in of_scale])
        for number, of_scale in enumerate(parts.values(), start=1)
    ]


def _add_panel(
    figure: go.Figure, panel: _Panel, domain: tuple[float, float], chance: float | None
) -> None:
    """Draw the rows of one scale under their heading."""
    for row in panel.rows:
        _add_endings(figure, panel, row)
        if chance is not None:
            _add_line_down(figure, panel, chance, row, "guessing", "dot")
    figure.add_annotation(
        x=0, xref="paper", y=domain[1], yref="paper", showarrow=False, xanchor="left",
        yanchor="top", align="left", text=f"<b>{'<br>'.join(panel.heading)}</b>",
    )  # fmt: skip
    figure.update_layout(
        {
            f"yaxis{panel.y[1:]}": {
                "range": [panel.pixels, 0],
                "visible": False,
                "domain": domain,
                "anchor": panel.x,
            }
        }
    )


def _lines(label: str, runs: Sequence[RunRecord]) -> list[str]:
    """A row's label: its name, the mean of the runs that held, and how many did what."""
    ended = summary(runs)
    mean = "" if ended.mean is None else f" {ended.mean:.1%},"
    counts = [f"n = {ended.runs}", *failures(runs).split(", ")]
    told = ", ".join(count.replace(" ", "\N{NO-BREAK SPACE}") for count in counts if count)
    return wrap(f"{label}:{mean} {told}", _LONGEST_LABEL)


def _add_endings(figure: go.Figure, panel: _Panel, row: _Row) -> None:
    """Draw the dots of one group, the mean of two and more, and the label."""
    label, runs = row.label, row.runs
    color, ended = color_of(runs[0].network), summary(runs)
    accuracies = [run.last.test_accuracy for run in runs]
    axes = {"xaxis": panel.x, "yaxis": panel.y}
    figure.add_scatter(
        x=accuracies,
        y=[row.middle + aside for aside in row.asides],
        name=label,
        mode="markers",
        marker={
            "color": color,
            "size": _MARKER_PIXELS,
            "symbol": [sign_of(run, "circle") for run in runs],
            "opacity": 0.85,
        },
        hovertext=[
            f"<b>{label}</b>, seed {run.seed}<br>test accuracy {run.last.test_accuracy:.1%}, "
            f"{ending(run)}, {dead(run.last.dead_classes)}, {run.never_predicted} never predicted"
            for run in runs
        ],
        **axes,
    )
    if ended.mean is not None and ended.held > 1:
        figure.add_scatter(
            x=[ended.mean],
            y=[row.middle],
            name=f"{label}, mean",
            mode="markers",
            marker={
                "color": color,
                "size": _MEAN_PIXELS,
                "symbol": "line-ns",
                "line": {"color": color, "width": 2},
            },
            hovertext=f"<b>{label}</b><br>mean of {ended.held}: {ended.mean:.1%}",
            **axes,
        )
    figure.add_annotation(
        x=0, xref="paper", y=row.marks_top, yref=panel.y, showarrow=False, xanchor="left",
        yanchor="bottom", align="left", text="<br>".join(_lines(label, runs)),
    )  # fmt: skip


def _asides(accuracies: Sequence[float]) -> list[int]:
    """How many steps each mark goes out of its row, so that none hides another at its place."""
    asides: list[int] = []
    for i, accuracy in enumerate(accuracies):
        neighbors = zip(accuracies[:i], asides, strict=True)
        taken = {aside for other, aside in neighbors if abs(accuracy - other) < _SAME_PLACE}
        free = (sign * step for step in count() for sign in (-1, 1))
        asides.append(next(aside for aside in free if aside not in taken))
    return asides


def _add_intervals(figure: go.Figure, panel: _Panel, rows: Sequence[_Row], frame: _Frame) -> None:
    """Draw how far each group may lie from the first one, where two runs of both held."""
    first, *others = rows
    if (reference := summary(first.runs)).held < 2 or reference.mean is None:
        return
    for row in others:
        if summary(row.runs).held > 1:
            _add_interval(figure, panel, row, first, reference.mean, frame)
    for row in rows:
        _add_line_down(figure, panel, reference.mean, row, f"mean of {first.label}", _DASH)


def _add_interval(
    figure: go.Figure, panel: _Panel, row: _Row, first: _Row, mean: float, frame: _Frame
) -> None:
    """Draw the interval of one group's distance from the first, with arrows where it goes on."""
    apart = difference(row.runs, first.runs, panel.confidence)
    color = color_of(row.runs[0].network)
    ends = (mean + apart.low, mean + apart.high)
    said = (
        f"<b>{row.label}</b><br>{apart} points from {first.label}, "
        f"with a confidence of {CONFIDENCE:.0%} that all intervals of the panel hold"
    )
    axes = {"xaxis": panel.x, "yaxis": panel.y}
    figure.add_scatter(
        x=ends,
        y=[row.interval] * 2,
        name=f"{row.label}, interval of the distance from {first.label}",
        mode="lines+markers",
        marker={
            "symbol": "line-ns",
            "size": _INTERVAL_PIXELS,
            "line": {"color": color, "width": 1.5},
        },
        line={"color": color, "width": 1.5},
        hovertext=said,
        **axes,
    )
    arrows = {}
    if ends[0] < frame[0]:
        arrows[frame[0]] = "triangle-left"
    if ends[1] > frame[1]:
        arrows[frame[1]] = "triangle-right"
    if arrows:
        figure.add_scatter(
            x=list(arrows),
            y=[row.interval] * len(arrows),
            name=f"{row.label}, goes on beyond the plot",
            mode="markers",
            marker={"symbol": list(arrows.values()), "size": _ARROW_PIXELS, "color": color},
            cliponaxis=False,
            meta=NO_NUMBER,
            hovertext=said,
            **axes,
        )


def _add_line_down(
    figure: go.Figure, panel: _Panel, x: float, row: _Row, name: str, dash: str
) -> None:
    """Draw the part of a vertical line that one row has, which does not cross its label."""
    figure.add_shape(
        type="line", name=name, x0=x, x1=x, y0=row.marks_top, y1=row.bottom,
        xref=panel.x, yref=panel.y, line={"color": NEUTRAL, "width": 1, "dash": dash},
    )  # fmt: skip
