"""How do two runs of one seed part, where the processor adds up its sums in another order?

Both runs of a pair are measured, and so solid.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from ninlab.errors import NinlabError
from ninlab.figures.colors import color_of, faded
from ninlab.figures.labels import LEGEND
from ninlab.figures.layout import axes_of_panels, finish, left_aligned_titles
from ninlab.figures.provenance import measured
from ninlab.records import RunRecord
from ninlab.twins import Twins, farthest_apart, instructions, shared

_PANEL_PIXELS, _MARGIN_PIXELS = 140, 90
_HALO, _WIDE, _NARROW = 0.4, 6, 1.5
_LOSS, _STEP = "training loss, nats", "training step"


def twin_curves(pairs: Sequence[Twins]) -> go.Figure:
    """The training losses of both runs of each pair, one panel a pair.

    A wide pale line has the first run, a narrow one the second, so that they are seen as long as
    they lie on each other. Raises NinlabError without pairs, and for two runs that are no twins.
    """
    provenance = measured(_checked(pairs), "each")
    figure = make_subplots(
        rows=len(pairs),
        cols=1,
        shared_xaxes=True,
        subplot_titles=[f"seed {first.seed}" for first, _ in pairs],
        vertical_spacing=0.26 / len(pairs),
    )
    for row, pair in enumerate(pairs, start=1):
        color = color_of(pair[0].network)
        styles = ((faded(color, _HALO), _WIDE), (color, _NARROW))
        for run, (ink, width) in zip(pair, styles, strict=True):
            figure.add_scatter(
                x=_steps(run),
                y=run.loss.values,
                name=instructions(run),
                mode="lines",
                line={"color": ink, "width": width},
                showlegend=row == 1,
                hoverinfo="skip",
                row=row,
                col=1,
            )
    figure.update_xaxes(title=_STEP, row=len(pairs), col=1)
    figure.update_yaxes(rangemode="tozero")
    figure.update_yaxes(title="loss, nats", row=(len(pairs) + 1) // 2, col=1)
    left_aligned_titles(figure)
    figure.update_layout(showlegend=True, legend=LEGEND | {"y": 1.06})
    return finish(
        figure,
        height=_PANEL_PIXELS * len(pairs) + _MARGIN_PIXELS,
        provenance=provenance,
        quantities=axes_of_panels("x", [_STEP] * len(pairs))
        | axes_of_panels("y", [_LOSS] * len(pairs)),
        margin={"l": 8, "r": 8, "t": 60, "b": 40},
    )


def growing_apart(groups: Mapping[str, Sequence[Twins]]) -> go.Figure:
    """How far the losses of each pair have been apart so far, on a logarithmic axis.

    One line a pair, all of a label in the color of its network. A distance is that of the stored
    losses, means over some steps of which six digits are kept; a line begins where the first is
    not zero. Raises NinlabError without pairs, and for two runs that are no twins.
    """
    provenance = measured(_checked([*chain(*groups.values())]), "each")
    figure = go.Figure()
    for label, pairs in groups.items():
        for place, pair in enumerate(pairs):
            apart = {
                step: distance
                for step, distance in zip(_steps(pair[0]), farthest_apart(pair), strict=True)
                if distance  # a logarithm has no 0; the distance never falls back to it
            }
            figure.add_scatter(
                x=list(apart),
                y=list(apart.values()),
                name=label if place == 0 else f"{label}, seed {pair[0].seed}",
                mode="lines",
                line={"color": color_of(pair[0].network), "width": 1.5},
                showlegend=place == 0,
                hovertext=[
                    f"<b>{label}</b>, seed {pair[0].seed}<br>up to step {step:.0f}: "
                    f"at most {distance:.1g} nats apart"
                    for step, distance in apart.items()
                ],
            )
    figure.update_xaxes(title=_STEP)
    figure.update_yaxes(
        type="log",
        title="largest distance so far, nats (log scale)",
        tickvals=[10.0**exponent for exponent in range(-6, 2)],
        ticktext=["0.000001", "0.00001", "0.0001", "0.001", "0.01", "0.1", "1", "10"],
    )
    figure.update_layout(showlegend=True, legend=LEGEND)
    return finish(figure, height=360, provenance=provenance)


def _steps(run: RunRecord) -> list[float]:
    """Where the stored losses lie: in the middle of the steps that each is a mean of."""
    return [(i + 0.5) * run.loss.every for i in range(len(run.loss.values))]


def _checked(pairs: Sequence[Twins]) -> list[RunRecord]:
    """All runs of the pairs."""
    for first, second in pairs:
        ours, theirs = shared(first), shared(second)
        differ = [what for what in ours if ours[what] != theirs[what]]
        if differ or instructions(first) == instructions(second):
            raise NinlabError(
                f"{first.id} and {second.id} are no twins: "
                + (f"they differ in {differ[0]}" if differ else "the same instructions made both")
            )
    return [run for pair in pairs for run in pair]
