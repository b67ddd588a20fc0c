"""The table of a figure holds every number that the figure draws, as it is, with its unit."""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Iterable
from itertools import chain
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ninlab import figures
from ninlab.figures.layout import NO_NUMBER
from tests.test_figures import ONE_OF_EACH, drawing, each

NO_QUANTITIES = ("series", "written", "note")
numbers = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**53), 2**53)


def from_csv(table: pd.DataFrame) -> dict[str, list[float | str]]:
    """The cells of each column that pandas reads from the file of a table, empty ones left out."""
    cells = pd.read_csv(io.StringIO(table.to_csv(index=False)), dtype=str, keep_default_na=False)
    return {name: [number_or_text(cell) for cell in cells[name] if cell] for name in cells.columns}


def number_or_text(cell: str) -> float | str:
    """A cell as Python reads it: not every parser of pandas keeps the last digit of a number."""
    try:
        return float(cell)
    except ValueError:
        return cell


def marks_of_numbers(figure: go.Figure) -> list[Any]:
    """The traces of a figure without its arrows."""
    return [trace for trace in figure.data if trace.meta != NO_NUMBER]


def drawn(figure: go.Figure) -> Iterable[float]:
    """Every number of a mark of one of the book's figures, each mark with both of its own."""
    for trace in marks_of_numbers(figure):
        if trace.type == "heatmap":
            if trace.texttemplate:
                yield from (value for line in trace.z for value in line)
            continue
        for letter in "xy":
            number = (getattr(trace, f"{letter}axis") or letter)[1:]
            axis = figure.layout[f"{letter}axis{number}"]
            ticks, values = axis.tickvals, getattr(trace, letter)
            named = axis.ticktext and tuple(ticks) == tuple(range(len(ticks)))
            if values is not None and axis.visible is not False and not named:
                yield from values


@each
def test_every_number_that_a_figure_draws_is_in_the_file_of_its_table(draw) -> None:
    figure = draw()
    columns = from_csv(figures.table(figure))
    quantities = (cells for name, cells in columns.items() if name not in NO_QUANTITIES)
    assert not Counter(map(float, drawn(figure))) - Counter(chain.from_iterable(quantities))


@each
def test_every_mark_is_a_row(draw) -> None:
    figure = draw()
    marks = sum(
        (np.size(trace.z) if trace.texttemplate else 0) if trace.type == "heatmap" else len(trace.y)
        for trace in marks_of_numbers(figure)
    )
    lines = {(shape.name, shape.x0, shape.y0) for shape in figure.layout.shapes if shape.name}
    assert marks <= len(figures.table(figure)) <= marks + len(lines)


@each
def test_every_column_of_a_figure_of_the_book_is_named_by_what_it_measures(draw) -> None:
    assert not {"x", "y"} & {name.rstrip("0123456789") for name in figures.table(draw()).columns}


@each
def test_the_table_of_a_figure_is_that_of_its_json(draw) -> None:
    figure = draw()
    pd.testing.assert_frame_equal(
        figures.table(figure), figures.table(json.loads(figure.to_json()))
    )


@drawing
@given(st.lists(st.tuples(numbers, numbers), min_size=1), st.booleans())
def test_numbers_keep_every_digit_however_plotly_writes_them(points, typed) -> None:
    x, y = zip(*points, strict=True)
    arrays = [np.array(values, dtype=float) if typed else list(values) for values in (x, y)]
    figure = go.Figure(go.Scatter(x=arrays[0], y=arrays[1]))
    figure.update_layout(xaxis_title="time, s (log scale)", yaxis_title="loss, nats")
    columns = from_csv(figures.table(json.loads(figure.to_json())))
    assert columns == {"time, s": list(map(float, x)), "loss, nats": list(map(float, y))}


@drawing
@given(st.sampled_from(["i1", "u1", "i2", "u2", "i4", "u4", "f4", "f8"]), st.data())
def test_typed_arrays_of_every_kind_are_read(dtype: str, data) -> None:
    values = np.array(data.draw(st.lists(st.integers(0, 127), min_size=1)), dtype=dtype)
    table = figures.table(json.loads(go.Figure(go.Bar(y=values)).to_json()))
    assert table["y"].to_list() == values.tolist()


def test_what_is_not_finite_is_not_drawn_and_no_row() -> None:
    figure = go.Figure(go.Scatter(x=[1, 2, 3], y=[0.5, float("nan"), None], name="run"))
    assert figures.table(figure).to_dict("records") == [{"series": "run", "x": 1, "y": 0.5}]


def test_names_take_the_place_of_the_positions_of_bars() -> None:
    quantity = figures.Quantity("Kept", {"nin": 5, "other": 7}, "bytes")
    table = figures.table(figures.bars(quantity, provenance="Counted: paper."))
    assert table[["name", "Kept, bytes"]].to_dict("records") == [
        {"name": "other", "Kept, bytes": 7},
        {"name": "NiN", "Kept, bytes": 5},
    ]


def test_a_share_says_that_it_is_a_fraction() -> None:
    figure = go.Figure(go.Scatter(x=[1], y=[0.25]))
    figure.update_layout(xaxis_title="epoch", yaxis={"title": "accuracy", "tickformat": ".0%"})
    assert list(figures.table(figure).columns) == ["epoch", "accuracy, as a fraction"]


def test_a_named_line_across_a_panel_is_one_row_however_many_parts_it_has() -> None:
    figure = ONE_OF_EACH["endings"]()
    column = "test accuracy after the last epoch, as a fraction"
    table = figures.table(figure)
    assert table[table["series"] == "guessing"][column].to_list() == [0.1]


def test_a_figure_of_pictures_has_an_empty_table() -> None:
    pictures = [[figures.Tile("one", [[0, 255]]), figures.Tile("other", [[9, 9]])]]
    assert figures.table(figures.tiles(pictures, provenance="Measured: here.")).empty


@pytest.mark.parametrize("separator", ["<br>", "<br/>"])
def test_a_note_is_one_line_without_tags(separator: str) -> None:
    hover = f"<b>a &lt; b</b>{separator}<span style='color:red'>second</span>"
    figure = go.Figure(go.Bar(y=[1], hovertext=hover))
    assert figures.table(figure)["note"].to_list() == ["a < b; second"]


def as_rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    return table.to_dict("records")


def test_tiles_of_one_title_in_two_lines_are_told_apart() -> None:
    lines = [[figures.Tile(name, [[0]]), figures.Tile("map", [[1.0]], ".0f")] for name in "ab"]
    rows = as_rows(figures.table(figures.tiles(lines, provenance="Measured: here.")))
    assert [row["series"] for row in rows] == ["a, map", "b, map"]
