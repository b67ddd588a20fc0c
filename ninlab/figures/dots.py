"""How does one quantity scatter over the seeds of several networks? One dot a seed, a row a label.

All of it is measured, and so solid.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil, floor, log10
from statistics import median

import plotly.graph_objects as go

from ninlab.errors import NinlabError
from ninlab.figures.colors import color_of
from ninlab.figures.layout import finish

_LABEL_PIXELS, _FREE_PIXELS = 18, 6  # of a row's label, and around its dots
_MARGIN_PIXELS = 74
_MARKER_PIXELS, _MEDIAN_PIXELS = 8, 12
_STEP_PIXELS = 7  # by which a dot steps aside
_BEYOND = 0.1  # of a power of ten, at either end of the axis
_ALIKE = 0.025  # of the width of the plot: dots that are closer would hide each other


def dots_by_row(
    rows: Mapping[str, Sequence[float]],
    *,
    axis: str,
    like: Mapping[str, str],
    provenance: str,
    notes: Mapping[str, str] | None = None,
) -> go.Figure:
    """The values of each label above 0 on a logarithmic axis of shares, with a line at the median.

    axis says what the values are, like gives the network whose color a label has, notes what
    stands behind a label. A value is written into the hover text with the number of its seed,
    which is its place in the row. Raises NinlabError without rows, for a row without values, and
    for a value that is not above 0.
    """
    if not rows or not all(rows.values()):
        raise NinlabError("dots are drawn in rows of one value at least; give a value for each row")
    values = [value for row in rows.values() for value in row]
    if min(values) <= 0:
        raise NinlabError(f"a logarithmic axis has values above 0 only, not {min(values)}")
    ends = floor(log10(min(values))), ceil(log10(max(values)))
    shown = ends[0] - _BEYOND, ends[1] + _BEYOND
    figure = go.Figure()
    top = 0.0
    for label, row in rows.items():
        color = color_of(label, like)
        asides = [_STEP_PIXELS * aside for aside in _asides(row, _ALIKE * (shown[1] - shown[0]))]
        reach = max(*map(abs, asides), _MEDIAN_PIXELS) + _FREE_PIXELS
        middle_y = top + _LABEL_PIXELS + reach
        figure.add_scatter(
            x=list(row),
            y=[middle_y + aside for aside in asides],
            name=label,
            mode="markers",
            marker={"color": color, "size": _MARKER_PIXELS, "opacity": 0.85},
            hovertext=[
                f"<b>{label}</b>, seed {seed}<br>{axis}: {value:.2%}"
                for seed, value in enumerate(row)
            ],
        )
        middle = median(row)
        figure.add_scatter(
            x=[middle],
            y=[middle_y],
            name=f"{label}, median",
            mode="markers",
            marker={
                "symbol": "line-ns",
                "size": _MEDIAN_PIXELS,
                "line": {"color": color, "width": 2},
            },
            hovertext=f"<b>{label}</b><br>median of {len(row)}: {middle:.2%}",
        )
        figure.add_annotation(
            x=0, xref="paper", y=top, yanchor="top", xanchor="left",
            showarrow=False, align="left", text=f"{label}{(notes or {}).get(label, '')}",
        )  # fmt: skip
        top = middle_y + reach
    exponents = range(ends[0], ends[1] + 1)
    figure.update_xaxes(
        type="log",
        range=shown,
        title=f"{axis} (log scale)",
        tickvals=[10.0**exponent for exponent in exponents],
        ticktext=[f"{10.0**exponent:.{max(0, -exponent - 2)}%}" for exponent in exponents],
    )
    figure.update_yaxes(visible=False, range=[top, 0])
    return finish(figure, height=ceil(top) + _MARGIN_PIXELS, provenance=provenance)


def _asides(row: Sequence[float], alike: float) -> list[int]:
    """How many steps each dot goes out of its row, so that none hides another."""
    asides: list[int] = []
    for i, value in enumerate(row):
        taken = {
            aside
            for other, aside in zip(row[:i], asides, strict=True)
            if abs(log10(value / other)) < alike
        }
        free = (step // 2 * (-1) ** step for step in range(1, 2 * len(row) + 2))
        asides.append(next(aside for aside in free if aside not in taken))
    return asides
