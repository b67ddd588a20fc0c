"""Where did the runs of each variant end, and is the distance between two of them luck?

All of it is measured, and so solid; runs that failed are crosses.
Imports from ninlab: comparisons, errors, records.
Known limits: the intervals are not corrected for the number of comparisons that a reader makes.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain, count
from textwrap import wrap

import plotly.graph_objects as go

from ninlab.comparisons import CONFIDENCE, difference
from ninlab.figures.colors import NEUTRAL, color_of
from ninlab.figures.labels import sign_of
from ninlab.figures.layout import finish
from ninlab.figures.provenance import measured
from ninlab.figures.words import dead
from ninlab.records import RunRecord

Groups = Mapping[str, Sequence[RunRecord]]
"""The runs of each label, drawn from the top down."""

_LONGEST_LABEL = 48  # letters of a label on one line of a phone
_MARKER_PIXELS = 9
_MEAN_PIXELS = 15  # Plotly draws 1.4 times as much: just over the dots, and under the label
_SAME_PLACE = 0.002  # of accuracy: marks that are closer would hide each other
_STEP_ASIDE = 0.11  # of a row
_INTERVAL_BELOW = 0.27  # of a row, under the dots
_ROW = (-0.2, 0.5)  # of a row: where lines run, which must not cross the labels above the dots


def endings(*scales: Groups, chance: float | None = None, intervals: bool = False) -> go.Figure:
    """Where the runs of each group ended: one dot a seed, a line at their mean.

    Runs that diverged or got stuck are crosses and count in the mean. Each of the scales is
    compared with itself only: with intervals, a dashed line goes down from the mean of its first
    group, and under the dots of every other group lies the 95 % interval of its distance from
    there. An interval that crosses the line shows no difference; one wider than the dots goes on
    beyond the plot. chance draws a line at the accuracy of guessing.
    Raises NinlabError without runs.
    """
    rows = [row for groups in scales for row in groups.items()]
    provenance = measured([run for _, runs in rows for run in runs], "mean")
    figure = go.Figure()
    for place, (label, runs) in enumerate(rows):
        _add_endings(figure, place, label, runs)
        if chance is not None:
            _add_line_down(figure, chance, place, "guessing", "dot")
    if intervals:
        place = 0
        for groups in scales:
            if groups:
                _add_intervals(figure, place, groups)
            place += len(groups)
    drawn = _accuracies(chain.from_iterable(runs for _, runs in rows))
    if chance is not None:
        drawn.append(chance)
    beyond = 0.04 * (max(drawn) - min(drawn))
    figure.update_yaxes(range=[len(rows) - 0.5, -0.8], visible=False)
    figure.update_xaxes(
        title="test accuracy after the last epoch",
        tickformat=".0%",
        range=[min(drawn) - beyond, max(drawn) + beyond],
    )
    lines = max(note.text.count("<br>") + 1 for note in figure.layout.annotations)
    return finish(
        figure,
        height=(34 + 14 * lines) * len(rows) + 60,
        provenance=provenance,
        margin={"l": 8, "r": 16, "t": 8, "b": 40},  # half of a tick's label on the right
    )


def _accuracies(runs: Iterable[RunRecord]) -> list[float]:
    return [run.last.test_accuracy for run in runs]


def _add_endings(figure: go.Figure, place: int, label: str, runs: Sequence[RunRecord]) -> None:
    """Draw the dots of one group, their mean and its label."""
    color = color_of(runs[0].network)
    accuracies = _accuracies(runs)
    mean = statistics.fmean(accuracies)
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
            f"{run.outcome}, {dead(run.last.dead_classes)}"
            for run in runs
        ],
        hoverinfo="text",
    )
    figure.add_scatter(
        x=[mean],
        y=[place],
        name=f"{label}, mean",
        mode="markers",
        marker={
            "color": color,
            "size": _MEAN_PIXELS,
            "symbol": "line-ns",
            "line": {"color": color, "width": 2},
        },
        hovertext=f"<b>{label}</b><br>mean of {len(runs)}: {mean:.1%}",
        hoverinfo="text",
    )
    figure.add_annotation(
        x=0, xref="paper", y=place - 0.24, showarrow=False, xanchor="left", yanchor="bottom",
        align="left", text="<br>".join(wrap(f"{label}: {mean:.1%}", _LONGEST_LABEL)),
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


def _add_intervals(figure: go.Figure, first_place: int, groups: Groups) -> None:
    """Draw how far each group may lie from the first one; nothing for groups of one run."""
    (first, baseline), *others = groups.items()
    mean = statistics.fmean(_accuracies(baseline))
    for place, (label, runs) in enumerate(others, first_place + 1):
        if min(len(baseline), len(runs)) < 2:
            continue
        apart, color = difference(runs, baseline), color_of(runs[0].network)
        figure.add_scatter(
            x=[mean + apart.low, mean + apart.high],
            y=[place + _INTERVAL_BELOW] * 2,
            name=f"{label}, interval of the distance from {first}",
            mode="lines+markers",
            marker={"symbol": "line-ns", "size": 7, "line": {"color": color, "width": 1.5}},
            line={"color": color, "width": 1.5},
            hovertext=f"<b>{label}</b><br>{apart} points from {first}, "
            f"with a confidence of {CONFIDENCE:.0%}",
            hoverinfo="text",
        )
    for place in range(first_place, first_place + len(groups)):
        _add_line_down(figure, mean, place, f"mean of {first}", "dash")


def _add_line_down(figure: go.Figure, x: float, place: int, name: str, dash: str) -> None:
    """Draw the part of a vertical line that one row has."""
    figure.add_shape(
        type="line", name=name, x0=x, x1=x, y0=place + _ROW[0], y1=place + _ROW[1],
        line={"color": NEUTRAL, "width": 1, "dash": dash},
    )  # fmt: skip
