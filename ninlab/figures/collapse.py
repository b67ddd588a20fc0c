"""How does a deep network lose its signal, and where do its loss and its accuracy stand still?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import count
from math import floor, log, log10
from textwrap import wrap
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from ninlab.comparisons import Groups, conditions, told_apart
from ninlab.errors import NinlabError
from ninlab.figures.colors import NEUTRAL, color_of
from ninlab.figures.labels import HOLLOW_SYMBOL, End, Symbols, label_ends, sign_of
from ninlab.figures.layout import axes_of_panels, finish, left_aligned_titles
from ninlab.figures.provenance import measured
from ninlab.figures.words import dead
from ninlab.lost_classes import accuracy_roof, loss_floor
from ninlab.records import RunRecord
from ninlab.relapses import ending

_CLASSES = 10  # of the one data set that runs are recorded of


def fading_signal(
    predicted_ratios: Sequence[float],
    measured_ratios: Mapping[str, Sequence[float]],
    *,
    layers: Sequence[str],
    provenance: str,
    like: Mapping[str, str] | None = None,
) -> go.Figure:
    """How much of the difference between images is left behind each layer, as a ratio.

    The prediction is dashed and hollow, each measurement solid, with the color of the network
    that like gives its label. Raises NinlabError for a series that has not one ratio a layer, and
    for more than six of one color.
    """
    figure = go.Figure()
    symbols = Symbols()
    ends: list[End] = []
    for label, ratios in {"predicted": predicted_ratios, **measured_ratios}.items():
        if len(ratios) != len(layers):
            raise NinlabError(f"{label!r} has {len(ratios)} ratios for {len(layers)} layers")
        color, solid = color_of(label, like), label in measured_ratios
        symbol = symbols.next(color) + ("" if solid else HOLLOW_SYMBOL)
        x, y = list(range(1, len(layers) + 1)), list(ratios)
        figure.add_scatter(
            x=x,
            y=y,
            name=label,
            mode="lines+markers",
            line={"color": color, "width": 2, "dash": "solid" if solid else "dash"},
            marker={"color": color, "size": 7, "symbol": symbol},
            hovertext=[
                f"<b>{label}</b><br>behind {layer}: {ratio:.2%}"
                for layer, ratio in zip(layers, ratios, strict=True)
            ],
        )
        ends.append(End(x[-1], y[-1], label, color, symbol))
    figure.update_yaxes(type="log")
    label_ends(figure, ends)
    exponents = range(floor(log10(min(min(trace.y) for trace in figure.data))), 1)
    figure.update_xaxes(title="convolutions passed")
    figure.update_yaxes(
        title="share of the signal left (log scale)",
        tickvals=[10.0**exponent for exponent in exponents],
        ticktext=[f"{10.0**exponent:.{max(0, -exponent - 2)}%}" for exponent in exponents],
    )
    return finish(figure, height=420, provenance=provenance)


def plateaus(runs: Sequence[RunRecord]) -> go.Figure:
    """Training loss, test loss and the floor under it, one seed at a time, chosen by a slider.

    Losses are measured and solid; the hollow squares are the `loss_floor` of the classes that are
    dead after that epoch, with their number where it changes. A single run has no slider. Raises
    NinlabError without runs.
    """
    provenance = measured(runs, "each")
    figure = go.Figure()
    for place, run in enumerate(runs):
        _add_losses(figure, run, shown=place == 0)
        _add_floors(figure, run, shown=place == 0)
    if len(runs) > 1:
        figure.update_layout(sliders=[_seeds(runs, traces=len(figure.data) // len(runs))])
    guess = log(_CLASSES)
    figure.add_hline(
        y=guess, name="guessing", line={"color": NEUTRAL, "width": 1, "dash": "dot"},
        annotation={"text": "guessing", "xanchor": "right", "yanchor": "bottom", "yshift": 4},
    )  # fmt: skip
    most = max(len(run.epochs) for run in runs)
    figure.update_xaxes(title="epoch", range=[0, 1.1 * most])  # room for the last label
    figure.update_yaxes(title="loss, nats", range=[-0.32, 1.12 * guess])
    return finish(figure, height=460, provenance=provenance)


def _add_losses(figure: go.Figure, run: RunRecord, *, shown: bool) -> None:
    """Draw the training loss of one run as a line, its test losses as dots."""
    color = color_of(run.network)
    steps = run.recipe.steps / run.recipe.epochs
    figure.add_scatter(
        x=[(i + 0.5) * run.loss.every / steps for i in range(len(run.loss.values))],
        y=run.loss.values,
        name=f"seed {run.seed}, training loss",
        mode="lines",
        visible=shown,
        line={"color": color, "width": 1},
        hoverinfo="skip",
    )
    losses = [float("nan") if e.test_loss is None else e.test_loss for e in run.epochs]
    figure.add_scatter(
        x=[result.epoch for result in run.epochs],
        y=losses,
        name=f"seed {run.seed}, test loss",
        mode="markers",
        visible=shown,
        marker={"color": color, "size": 9},
        hovertext=[
            f"<b>seed {run.seed}</b>, epoch {result.epoch}<br>test loss "
            f"{value:.3f}, test accuracy {result.test_accuracy:.1%}"
            for result, value in zip(run.epochs, losses, strict=True)
        ],
    )


def _add_floors(figure: go.Figure, run: RunRecord, *, shown: bool) -> None:
    """Draw the least loss that the dead classes of each epoch leave."""
    floors = [loss_floor(result.dead_classes, _CLASSES) for result in run.epochs]
    figure.add_scatter(
        x=[result.epoch for result in run.epochs],
        y=floors,
        name=f"seed {run.seed}, floor of the dead classes",
        mode="markers+text",
        visible=shown,
        marker={
            "color": color_of(run.network),
            "size": 9,
            "symbol": "square-open",
            "line": {"width": 2},
        },
        text=_where_it_changes([f"{result.dead_classes} dead" for result in run.epochs]),
        textposition="bottom center",
        hovertext=[
            f"<b>seed {run.seed}</b>, epoch {result.epoch}<br>{dead(result.dead_classes)}: "
            f"test loss at least {value:.3f}"
            for result, value in zip(run.epochs, floors, strict=True)
        ],
    )


def _where_it_changes(texts: Sequence[str]) -> list[str]:
    """The first of each row of equal texts; the others are empty, or they would cover it."""
    return [text if i == 0 or text != texts[i - 1] else "" for i, text in enumerate(texts)]


def _seeds(runs: Sequence[RunRecord], traces: int) -> dict[str, Any]:
    """The slider that shows the traces of one run at a time."""
    return {
        "active": 0,
        "currentvalue": {"prefix": "seed "},
        "pad": {"t": 44},
        "steps": [
            {
                "label": str(run.seed),
                "method": "restyle",
                "args": ["visible", [at // traces == place for at in range(traces * len(runs))]],
            }
            for place, run in enumerate(runs)
        ],
    }


_DOT_PIXELS = (8, 6, 5)  # across; the first with which all dots stay at their class, or the last
_BESIDE = 0.07  # of a class, between the largest dots that end alike
_ALIKE = 0.02  # of accuracy: largest dots that are closer would hide each other
_ASIDE = 0.45  # of a class, how far a dot may step out of its place
_PANEL_PIXELS = 250
_LONGEST_HEADING = 40  # letters of a line beside the ticks of a phone


def lost_classes(*scales: Groups) -> go.Figure:
    """Where each run ended against how many classes it never predicts, one panel a scale.

    Dots are runs, measured and solid: squares where a class is dead as well, crosses for runs that
    failed. The dashed steps are the `accuracy_roof` of the classes never predicted. Raises
    NinlabError without runs, and for an argument that holds runs of two scales.
    """
    shown = [told_apart(groups) for groups in scales if groups]
    runs = [run for groups in shown for group in groups.values() for run in group]
    provenance = measured(runs, "each")
    figure = make_subplots(
        rows=len(shown),
        cols=1,
        subplot_titles=[
            "<br>".join(wrap(conditions(groups), _LONGEST_HEADING)) for groups in shown
        ],
        vertical_spacing=0.26 / len(shown),
    )
    for row, groups in enumerate(shown, start=1):
        _add_roofs(figure, row)
        _add_lost(figure, row, groups)
    figure.update_xaxes(
        tickvals=list(range(_CLASSES)), range=[-0.75, _CLASSES - 0.4], zeroline=False
    )
    figure.update_xaxes(title="classes never predicted", row=len(shown), col=1)
    figure.update_yaxes(title="test accuracy at the end", tickformat=".0%", range=[0, 1.06])
    left_aligned_titles(figure)
    axes = axes_of_panels("x", ["classes never predicted"] * len(shown))
    return finish(
        figure,
        height=_PANEL_PIXELS * len(shown) + 80,
        provenance=provenance,
        quantities=axes,
        margin={"l": 8, "r": 8, "t": 44, "b": 40},
    )


def _add_roofs(figure: go.Figure, row: int) -> None:
    """Draw the highest accuracy that each number of lost classes allows, as steps."""
    figure.add_scatter(
        x=[lost + side for lost in range(_CLASSES) for side in (-0.5, 0.5)],
        y=[accuracy_roof(lost, _CLASSES) for lost in range(_CLASSES) for _ in range(2)],
        name="roof",
        mode="lines",
        line={"color": NEUTRAL, "width": 1.5, "dash": "dash"},
        hoverinfo="skip",
        row=row,
        col=1,
    )


def _add_lost(figure: go.Figure, row: int, groups: Groups) -> None:
    """Draw the runs of one scale; those that end alike stand side by side."""
    runs = [run for group in groups.values() for run in group]
    for pixels in _DOT_PIXELS:
        places = _places(runs, pixels)
        if all(abs(x - run.never_predicted) < _ASIDE for x, run in zip(places, runs, strict=True)):
            break
    at = iter(places)
    for label, group in groups.items():
        color = color_of(group[0].network)
        figure.add_scatter(
            x=[next(at) for _ in group],
            y=[run.last.test_accuracy for run in group],
            name=label,
            mode="markers",
            marker={
                "color": color,
                "size": pixels,
                "opacity": 0.85,
                "symbol": [
                    sign_of(run, "square" if run.last.dead_classes else "circle") for run in group
                ],
            },
            hovertext=[
                f"<b>{label}</b>, seed {run.seed}<br>{run.never_predicted} never predicted, "
                f"{dead(run.last.dead_classes)}<br>test accuracy {run.last.test_accuracy:.1%}, "
                f"{ending(run)}"
                for run in group
            ],
            row=row,
            col=1,
        )


def _places(runs: Sequence[RunRecord], pixels: int) -> list[float]:
    """For each run the nearest place at its classes where no other dot of like accuracy is."""
    beside, alike = (room * pixels / _DOT_PIXELS[0] for room in (_BESIDE, _ALIKE))
    placed: list[tuple[float, float]] = []
    for run in runs:
        lost, accuracy = run.never_predicted, run.last.test_accuracy
        placed.append(
            next(
                (x, accuracy)
                for aside in count()
                for x in (lost - aside * beside, lost + aside * beside)
                if all(abs(x - at) > beside / 2 or abs(accuracy - y) > alike for at, y in placed)
            )
        )
    return [x for x, _ in placed]
