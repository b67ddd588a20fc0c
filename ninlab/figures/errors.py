"""How far are predictions off, one rule after the other: a dot for each case.

All dots are errors of predictions, none a measurement of its own; so they are hollow.

Known limit: a few dozen cases a panel; equal errors lie upon each other.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil, floor
from statistics import fmean

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from ninlab.figures.colors import NEUTRAL
from ninlab.figures.layout import axes_of_panels, finish, left_aligned_titles

_ROW_PIXELS, _AROUND_PIXELS = 25, 150
_SPACE = 0.07  # of the height, between two panels
_ROOM = 0.45  # of the errors' range, on its right, for the means


def errors_in_turn(
    panels: Mapping[str, Mapping[str, Mapping[str, float]]], *, error: str, provenance: str
) -> go.Figure:
    """Relative errors, {panel: {row: {case: error}}}: a dot for each case, the mean size beside.

    error says what the horizontal axis measures. Rows stand from the top in their order.
    """
    figure = make_subplots(
        rows=len(panels),
        cols=1,
        shared_xaxes=True,
        vertical_spacing=_SPACE,
        row_heights=[len(rows) for rows in panels.values()],
        subplot_titles=[f"<b>{title}</b>" for title in panels],
    )
    left_aligned_titles(figure)
    for title in list(figure.layout.annotations):
        figure.add_annotation(
            x=1, y=title.y, xref="paper", yref="paper", xanchor="right", yanchor="bottom",
            text="mean", showarrow=False,
        )  # fmt: skip
    values = [
        each for rows in panels.values() for cases in rows.values() for each in cases.values()
    ]
    low, high = min([0.0, *values]), max([0.0, *values])
    edge = high + _ROOM * (high - low)
    for number, (title, rows) in enumerate(panels.items(), start=1):
        for place, (row, cases) in enumerate(rows.items()):
            figure.add_scatter(
                x=list(cases.values()),
                y=[place] * len(cases),
                name=f"{title}, {row}",
                mode="markers",
                marker={"symbol": "circle-open", "size": 8, "color": NEUTRAL},
                showlegend=False,
                hovertext=[f"<b>{case}</b><br>{row}<br>{off:+.2%}" for case, off in cases.items()],
                row=number,
                col=1,
            )
            figure.add_annotation(
                x=edge, y=place, text=f"{fmean(map(abs, cases.values())):.1%}",
                showarrow=False, xanchor="right", row=number, col=1,
            )  # fmt: skip
        figure.update_yaxes(
            tickvals=list(range(len(rows))),
            ticktext=list(rows),
            range=[len(rows) - 0.4, -0.6],
            zeroline=False,
            row=number,
        )
    halves = [n / 2 for n in range(ceil(2 * low), floor(2 * high) + 1)]  # few, for a phone
    figure.update_xaxes(
        range=[low - 0.05 * (high - low), edge],
        tickvals=halves,
        ticktext=[f"{half:+.0%}" if half else "0" for half in halves],
        zeroline=True,
        zerolinewidth=1.5,
    )
    figure.update_xaxes(title=error, row=len(panels))
    count = sum(map(len, panels.values()))
    return finish(
        figure,
        height=_AROUND_PIXELS + _ROW_PIXELS * count,
        provenance=provenance,
        quantities={
            **axes_of_panels("x", [error] * len(panels)),
            **axes_of_panels("y", ["switched on"] * len(panels)),
        },
    )
