"""Where did the runs of each variant end, and is the distance between two of them luck?

All of it is measured, and so solid; runs that failed are crosses. Each scale has a panel of its
own: between two scales more changes than the network, and no list may mix them.
Known limits: the intervals are not corrected for the number of comparisons that a reader makes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, count
from textwrap import wrap

import plotly.graph_objects as go

from ninlab.comparisons import (
    CONFIDENCE,
    Groups,
    conditions,
    difference,
    failures,
    scale_of,
    summary,
)
from ninlab.errors import NinlabError
from ninlab.figures.colors import NEUTRAL, color_of
from ninlab.figures.labels import sign_of
from ninlab.figures.layout import finish
from ninlab.figures.provenance import measured
from ninlab.figures.words import dead
from ninlab.records import RunRecord
from ninlab.relapses import relapsed

_ACCURACY = "test accuracy after the last epoch"
_LONGEST_LABEL = 48  # letters of a label on one line of a phone
_MARKER_PIXELS = 9
_MEAN_PIXELS = 15  # Plotly draws 1.4 times as much: just over the dots, and under the label
_SAME_PLACE = 0.002  # of accuracy: marks that are closer would hide each other
_STEP_ASIDE = 0.11  # of a row
_INTERVAL_BELOW = 0.27  # of a row, under the dots
_ROW = (-0.2, 0.5)  # of a row: where lines run, which must not cross the labels above the dots
_ROW_PIXELS, _LINE_PIXELS = 34, 14  # of a row without its label, and of each line of that
_HEAD_PIXELS, _TICKS_PIXELS, _TITLE_PIXELS = 14, 28, 20
_MARGIN = {"l": 8, "r": 16, "t": 8, "b": _TICKS_PIXELS + _TITLE_PIXELS}  # half a tick's label


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

    @property
    def rows(self) -> list[tuple[str, Sequence[RunRecord]]]:
        """The label and the runs of each row, from the top down."""
        return [row for part in self.parts for row in part.items()]

    @property
    def runs(self) -> list[RunRecord]:
        """All runs of the panel."""
        return list(chain.from_iterable(runs for _, runs in self.rows))

    @property
    def heading(self) -> list[str]:
        """What all rows have in common, in lines that a phone has room for."""
        common = conditions({f"{i}": runs for i, (_, runs) in enumerate(self.rows)})
        return wrap(common, _LONGEST_LABEL)

    @property
    def row_pixels(self) -> int:
        """How high a row is, for the longest label of the panel."""
        return _ROW_PIXELS + _LINE_PIXELS * max(len(_lines(*row)) for row in self.rows)

    @property
    def heading_pixels(self) -> int:
        """What the heading takes over the rows, whose first label reaches out of its row."""
        return _HEAD_PIXELS + _LINE_PIXELS * (len(self.heading) + 1)

    @property
    def pixels(self) -> int:
        """How high the panel is, without the labels of its ticks."""
        return self.heading_pixels + self.row_pixels * len(self.rows)


def endings(*groups: Groups, chance: float | None = None, intervals: bool = False) -> go.Figure:
    """Where the runs of each group ended: one dot a seed, a line at the mean of two and more.

    Runs that diverged or got stuck are crosses and in no mean; those whose loss relapsed are
    counted in the label. Each scale has its panel, under a heading that says what its runs have
    in common; arguments of one scale share it. Each argument is compared with itself only: with
    intervals, a dashed line goes down from the mean of its first group, and under the dots of
    every other group lies the 95 % interval of its distance from there, if both have two runs that
    finished. An interval that crosses the line shows no difference; one wider than the dots goes
    on beyond the plot. chance draws a line at the accuracy of guessing.
    Raises NinlabError without runs, and for an argument that holds runs of two scales.
    """
    panels = _panels([part for part in groups if part])
    if not panels:
        raise NinlabError("no record was given; a measured figure needs at least one")
    runs = [run for panel in panels for run in panel.runs]
    figure = go.Figure()
    drawn = [run.last.test_accuracy for run in runs] + ([] if chance is None else [chance])
    beyond = 0.04 * (max(drawn) - min(drawn))
    height = sum(panel.pixels for panel in panels) + _TICKS_PIXELS * (len(panels) - 1)
    top = 0
    for panel in panels:
        ends = [1 - at / height for at in (top + panel.pixels, top)]
        _add_panel(figure, panel, (max(ends[0], 0.0), ends[1]), chance, intervals)
        figure.update_layout(
            {
                f"xaxis{panel.x[1:]}": {
                    "title": _ACCURACY if panel is panels[-1] else None,
                    "tickformat": ".0%",
                    "range": [min(drawn) - beyond, max(drawn) + beyond],
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
    panels: dict[tuple[int, str], _Panel] = {}
    for part in groups:
        scale = scale_of(list(chain.from_iterable(part.values())))
        panels.setdefault(scale, _Panel(len(panels) + 1, [])).parts.append(part)
    return list(panels.values())


def _add_panel(
    figure: go.Figure,
    panel: _Panel,
    domain: tuple[float, float],
    chance: float | None,
    intervals: bool,
) -> None:
    """Draw the rows of one scale under their heading."""
    for place, (label, runs) in enumerate(panel.rows):
        _add_endings(figure, panel, place, label, runs)
        if chance is not None:
            _add_line_down(figure, panel, chance, place, "guessing", "dot")
    if intervals:
        place = 0
        for part in panel.parts:
            _add_intervals(figure, panel, place, part)
            place += len(part)
    above = panel.heading_pixels / panel.row_pixels  # in rows
    figure.add_annotation(
        x=0, xref="paper", y=domain[1], yref="paper", showarrow=False, xanchor="left",
        yanchor="top", align="left", text=f"<b>{'<br>'.join(panel.heading)}</b>",
    )  # fmt: skip
    figure.update_layout(
        {
            f"yaxis{panel.y[1:]}": {
                "range": [len(panel.rows) - 0.5, -0.5 - above],
                "visible": False,
                "domain": domain,
                "anchor": panel.x,
            }
        }
    )


def _lines(label: str, runs: Sequence[RunRecord]) -> list[str]:
    """A row's label: its name, the mean of the runs that finished, and how many did what."""
    ended, failed = summary(runs), failures(runs)
    mean = "" if ended.mean is None else f" {ended.mean:.1%},"
    fallen = relapsed(runs)
    counts = [f"n = {ended.runs}", *failed.split(", "), f"{fallen} relapsed" if fallen else ""]
    told = ", ".join(count.replace(" ", "\N{NO-BREAK SPACE}") for count in counts if count)
    return wrap(f"{label}:{mean} {told}", _LONGEST_LABEL)


def _add_endings(
    figure: go.Figure, panel: _Panel, place: int, label: str, runs: Sequence[RunRecord]
) -> None:
    """Draw the dots of one group, the mean of two and more, and the label."""
    color, ended = color_of(runs[0].network), summary(runs)
    accuracies = [run.last.test_accuracy for run in runs]
    axes = {"xaxis": panel.x, "yaxis": panel.y}
    figure.add_scatter(
        x=accuracies,
        y=[place + aside for aside in _asides(accuracies)],
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
            f"{run.outcome}, {dead(run.last.dead_classes)}, {run.never_predicted} never predicted"
            for run in runs
        ],
        **axes,
    )
    if ended.mean is not None and ended.finished > 1:
        figure.add_scatter(
            x=[ended.mean],
            y=[place],
            name=f"{label}, mean",
            mode="markers",
            marker={
                "color": color,
                "size": _MEAN_PIXELS,
                "symbol": "line-ns",
                "line": {"color": color, "width": 2},
            },
            hovertext=f"<b>{label}</b><br>mean of {ended.finished}: {ended.mean:.1%}",
            **axes,
        )
    figure.add_annotation(
        x=0, xref="paper", y=place - 0.24, yref=panel.y, showarrow=False, xanchor="left",
        yanchor="bottom", align="left", text="<br>".join(_lines(label, runs)),
    )  # fmt: skip


def _asides(accuracies: Sequence[float]) -> list[float]:
    """How far each mark steps out of its row, so that none hides another at the same place."""
    asides: list[float] = []
    for i, accuracy in enumerate(accuracies):
        neighbors = zip(accuracies[:i], asides, strict=True)
        taken = {aside for other, aside in neighbors if abs(accuracy - other) < _SAME_PLACE}
        free = (sign * step * _STEP_ASIDE for step in count() for sign in (-1, 1))
        asides.append(next(aside for aside in free if aside not in taken))
    return asides


def _add_intervals(figure: go.Figure, panel: _Panel, first_place: int, groups: Groups) -> None:
    """Draw how far each group may lie from the first one, where both have two finished runs."""
    (first, baseline), *others = groups.items()
    if (reference := summary(baseline)).finished < 2 or reference.mean is None:
        return
    for place, (label, runs) in enumerate(others, first_place + 1):
        if summary(runs).finished < 2:
            continue
        apart, color = difference(runs, baseline), color_of(runs[0].network)
        figure.add_scatter(
            x=[reference.mean + apart.low, reference.mean + apart.high],
            y=[place + _INTERVAL_BELOW] * 2,
            name=f"{label}, interval of the distance from {first}",
            mode="lines+markers",
            marker={"symbol": "line-ns", "size": 7, "line": {"color": color, "width": 1.5}},
            line={"color": color, "width": 1.5},
            hovertext=f"<b>{label}</b><br>{apart} points from {first}, "
            f"with a confidence of {CONFIDENCE:.0%}",
            xaxis=panel.x,
            yaxis=panel.y,
        )
    for place in range(first_place, first_place + len(groups)):
        _add_line_down(figure, panel, reference.mean, place, f"mean of {first}", "dash")


def _add_line_down(
    figure: go.Figure, panel: _Panel, x: float, place: int, name: str, dash: str
) -> None:
    """Draw the part of a vertical line that one row has."""
    figure.add_shape(
        type="line", name=name, x0=x, x1=x, y0=place + _ROW[0], y1=place + _ROW[1],
        xref=panel.x, yref=panel.y, line={"color": NEUTRAL, "width": 1, "dash": dash},
    )  # fmt: skip
