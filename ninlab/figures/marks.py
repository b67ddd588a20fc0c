"""Which numbers does a figure draw? A table made from nothing but the figure's own JSON.

One row a mark. The first column names its series; then each axis that measures something has a
column, called as ``layout.meta["quantities"]`` says or by the axis's title; ``value`` is that of
a cell of a map; ``written`` is the text beside a mark; ``note`` is what pointing at it shows.

- Where the ticks 0, 1, 2, ... of an axis bear names, its column holds the names.
- An axis that nobody sees and nothing names is only a place on the screen: it has no column.
- A line across a panel is a row if it has a name.
- A trace whose ``meta`` is `NO_NUMBER` has none, an arrow at the edge of a plot for example.
- A heat map that writes no numbers is a picture, and has no rows.

Known limits: the traces of this book (bars, scatter, heat maps); error bars are not read.
"""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from ninlab.figures.layout import NO_NUMBER

_LOG_SCALE = " (log scale)"
_LINE_BREAK = re.compile(r"<br\s*/?>")
_TAG = re.compile(r"<[^<>]*>")
_LAST = ("value", "written", "note")

_Row = dict[str, Any]


def table(figure: go.Figure | Mapping[str, Any]) -> pd.DataFrame:
    """The marks of a figure, one a row, with every number as it is drawn and unrounded.

    Takes a figure or its JSON values. The frame is empty for a figure of pictures only.
    """
    content = figure.to_plotly_json() if isinstance(figure, go.Figure) else figure
    layout = content.get("layout", {})
    axes = _Axes(layout)
    rows = [row for trace in content.get("data", ()) for row in _marks(trace, axes)]
    for line in _reference_lines(layout.get("shapes") or (), axes):
        if line not in rows:  # a line may be drawn in parts
            rows.append(line)
    names = dict.fromkeys(name for row in rows for name, cell in row.items() if cell != "")
    measured = [name for name in names if name not in ("series", *_LAST)]
    measured.sort(key=lambda name: not any(isinstance(row.get(name), str) for row in rows))
    order = [
        *(name for name in ("series",) if name in names),
        *measured,
        *(name for name in _LAST if name in names),
    ]
    return pd.DataFrame(rows, columns=order, dtype=object).convert_dtypes()


@dataclass(frozen=True)
class _Axes:
    """What the axes of a layout measure. They are called as traces call them: x, x2, ..., y."""

    layout: Mapping[str, Any]

    def _settings(self, axis: str) -> Mapping[str, Any]:
        settings: Mapping[str, Any] = self.layout.get(f"{axis[0]}axis{axis[1:]}") or {}
        return settings

    def column(self, axis: str) -> str:
        """What the axis measures, or nothing for a mere place on the screen."""
        meta = self.layout.get("meta") or {}
        if named := (meta.get("quantities") or {}).get(axis):
            return str(named)
        settings = self._settings(axis)
        title = settings.get("title") or {}
        text = _plain(title if isinstance(title, str) else title.get("text") or "")
        if text:
            share = str(settings.get("tickformat") or "").endswith("%")
            return text.removesuffix(_LOG_SCALE) + (", as a fraction" if share else "")
        return "" if settings.get("visible") is False else axis

    def cells(self, axis: str, places: Sequence[Any]) -> list[Any]:
        """What stands in the axis's column for marks at those places."""
        settings = self._settings(axis)
        names = [_plain(name) for name in settings.get("ticktext") or ()]
        if names and _values(settings.get("tickvals")) == list(range(len(names))):
            return [names[at] if at in range(len(names)) else at for at in places]
        return list(places)


def _marks(trace: Mapping[str, Any], axes: _Axes) -> Iterator[_Row]:
    if trace.get("meta") == NO_NUMBER:
        return
    if trace.get("type") == "heatmap":
        yield from _map_cells(trace)
        return
    series = _plain(trace.get("name") or "")
    xs, ys = (_values(trace.get(axis)) for axis in "xy")
    number = max(len(xs or ()), len(ys or ()))
    xs, ys = (values if values is not None else list(range(number)) for values in (xs, ys))
    x_axis, y_axis = trace.get("xaxis") or "x", trace.get("yaxis") or "y"
    x_cells, y_cells = axes.cells(x_axis, xs), axes.cells(y_axis, ys)
    written, notes = (_texts(trace.get(key), number) for key in ("text", "hovertext"))
    for i, (x, y) in enumerate(zip(xs, ys, strict=True)):
        if not (_is_missing(x) or _is_missing(y)):
            row = {
                "series": series,
                axes.column(x_axis): x_cells[i],
                axes.column(y_axis): y_cells[i],
                "written": written[i],
                "note": notes[i],
            }
            yield {name: cell for name, cell in row.items() if name}


def _map_cells(trace: Mapping[str, Any]) -> Iterator[_Row]:
    if not trace.get("texttemplate"):
        return
    for y, line in enumerate(_values(trace.get("z")) or ()):
        for x, value in enumerate(line):
            yield {"series": _plain(trace.get("name") or ""), "row": y, "column": x, "value": value}


def _reference_lines(shapes: Sequence[Mapping[str, Any]], axes: _Axes) -> Iterator[_Row]:
    for shape in shapes:
        if shape.get("type") != "line" or not shape.get("name"):
            continue
        for letter in "xy":
            place = shape.get(f"{letter}0")
            axis = str(shape.get(f"{letter}ref") or letter)
            if place == shape.get(f"{letter}1") and axis.isalnum() and axis != "paper":
                yield {"series": _plain(shape["name"]), axes.column(axis): place}


def _values(array: Any) -> list[Any] | None:
    """The values of an array of Plotly's JSON, which may be a list or typed and in base 64."""
    if array is None:
        return None
    if isinstance(array, Mapping):
        flat = np.frombuffer(base64.b64decode(array["bdata"]), dtype=f"<{array['dtype']}")
        shape = str(array.get("shape") or flat.size)
        return list(flat.reshape([int(size) for size in shape.split(",")]).tolist())
    return list(array.tolist() if isinstance(array, np.ndarray) else array)


def _texts(text: Any, number: int) -> list[str]:
    """One text for each mark, from one for all or one for each."""
    texts = [text or ""] * number if isinstance(text, str | None) else list(text)
    return [_plain(one or "") for one in texts]


def _plain(text: str) -> str:
    """A text without Plotly's tags, on one line."""
    return html.unescape(_TAG.sub("", _LINE_BREAK.sub("; ", text))).strip()


def _is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and value != value)
