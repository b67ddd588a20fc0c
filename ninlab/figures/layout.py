"""What do all figures of the book share: height, margins, axes, and what their axes measure?

In ``layout.meta``, which Plotly keeps and does not read, a figure carries what the book needs:
"provenance", the line under it; "quantities", what those axes measure that show no title
(by axis: x, x2, ..., y), for its table; "narrow", the parts of the layout that are to be others
in a column too narrow for labels beside the lines.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil, floor, log10
from typing import Any

import plotly.graph_objects as go

from ninlab.figures.themes import notebook_template
from ninlab.units import format_count

NO_NUMBER = "no number"
"""The meta of a trace whose marks stand for no number of their own: a table leaves them out."""

MARGIN = {"l": 8, "r": 8, "t": 34, "b": 40}
"""Pixels around a plot, as long as a figure asks for no others."""


def finish(
    figure: go.Figure,
    *,
    height: int,
    provenance: str,
    quantities: Mapping[str, str] | None = None,
    **layout: Any,
) -> go.Figure:
    """The figure with the book's layout; what depends on the theme is left to a template.

    The site puts its own in the place of the notebook's.

    Pointing at a mark shows its hover text, where its trace does not skip that. quantities names
    what the axes measure that show no title.
    """
    figure.update_traces(hoverinfo="text", selector=lambda trace: trace.hoverinfo is None)
    settings: dict[str, Any] = {
        "template": notebook_template(),
        "height": height,
        "margin": MARGIN,
        "showlegend": bool(figure.layout.showlegend),
        "hoverlabel": {"align": "left"},
        "dragmode": False,  # a finger that scrolls the page must not zoom the plot
        "meta": {
            **(figure.layout.meta or {}),
            "provenance": provenance,
            "quantities": dict(quantities or {}),
        },
    }
    figure.update_layout(settings | layout)
    figure.update_yaxes(automargin=True)
    return figure


def add_narrow(figure: go.Figure, **layout: Any) -> None:
    """Keep parts of the layout that are to be others in a narrow column."""
    meta = dict(figure.layout.meta or {})
    figure.update_layout(meta=meta | {"narrow": meta.get("narrow", {}) | layout})


def axes_of_panels(letter: str, names: Sequence[str]) -> dict[str, str]:
    """What the axes of those panels measure, by axis, in the order in which panels are numbered."""
    return {f"{letter}{n if n > 1 else ''}": name for n, name in enumerate(names, start=1)}


def left_aligned_titles(figure: go.Figure) -> None:
    """Put the titles that make_subplots centers over the left edge of their plots."""
    for annotation, axis in zip(figure.layout.annotations, figure.select_xaxes(), strict=True):
        annotation.update(x=axis.domain[0], xanchor="left", align="left", font={"size": None})


def log_axis(ends: tuple[float, float]) -> dict[str, Any]:
    """A logarithmic axis between those values, labeled at 1, 2 and 5 times powers of ten."""
    exponents = range(floor(log10(ends[0])), ceil(log10(ends[1])))
    values = [factor * 10**e for e in exponents for factor in (1, 2, 5)]
    return {
        "type": "log",
        "range": [log10(end) for end in ends],
        "tickvals": values,
        "ticktext": [format_count(value) for value in values],
    }


def round_values(low: float, high: float) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten from low to high, six at most."""
    exponent = floor(log10((high - low) or 1)) - 1
    for step in (factor * 10**e for e in (exponent, exponent + 1) for factor in (1, 2, 5)):
        values = [i * step for i in range(ceil(low / step), floor(high / step) + 1)]
        if len(values) <= 6:
            return values
    return [low, high]
