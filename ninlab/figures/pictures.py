"""How do images and maps look side by side?

Imports nothing from the rest of ninlab.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from ninlab.figures.layout import finish, left_aligned_titles


@dataclass(frozen=True)
class Tile:
    """One small picture: an image of gray values up to 255, or a map of signed numbers."""

    title: str
    values: Sequence[Sequence[float]]  # rows from the top down
    number_format: str = ""  # of the numbers written into a map; an image has none

    @property
    def is_map(self) -> bool:
        """Whether it is a map, not an image."""
        return bool(self.number_format)


def tiles(rows: Sequence[Sequence[Tile]], *, provenance: str) -> go.Figure:
    """Images and maps side by side, each under its title, one line for each sequence of tiles.

    All maps share one scale, blue below 0 and red above. Lines have equally many tiles.
    """
    across = len(rows[0])
    figure = make_subplots(
        rows=len(rows),
        cols=across,
        subplot_titles=[tile.title for row in rows for tile in row],
        horizontal_spacing=0.05,
        vertical_spacing=0.25 / len(rows),
    )
    maps = [tile for row in rows for tile in row if tile.is_map]
    reach = max((abs(v) for tile in maps for line in tile.values for v in line), default=1.0)
    for place, tile in enumerate(tile for row in rows for tile in row):
        _add_tile(figure, divmod(place, across), tile, reach)
    figure.update_xaxes(visible=False, fixedrange=True, constrain="domain", constraintoward="left")
    figure.update_yaxes(
        visible=False, fixedrange=True, autorange="reversed", constrain="domain",
        constraintoward="top",
    )  # fmt: skip
    left_aligned_titles(figure)
    return finish(figure, height=150 * len(rows) + 40, provenance=provenance)


def _add_tile(figure: go.Figure, place: tuple[int, int], tile: Tile, reach: float) -> None:
    """Draw one tile there (line, column); reach is the largest number of all maps."""
    row, column = place[0] + 1, place[1] + 1
    written = [[f"{value:{tile.number_format or '.0f'}}" for value in line] for line in tile.values]
    figure.add_heatmap(
        z=[list(line) for line in tile.values],
        colorscale="RdBu_r" if tile.is_map else "gray",
        zmin=-reach if tile.is_map else 0,
        zmax=reach if tile.is_map else 255,
        showscale=False,
        text=written if tile.is_map else None,
        texttemplate="%{text}" if tile.is_map else None,
        hovertext=[
            [f"<b>{tile.title}</b><br>row {y}, column {x}: {v}" for x, v in enumerate(line)]
            for y, line in enumerate(written)
        ],
        hoverinfo="text",
        row=row,
        col=column,
    )
    square_pixels = figure.data[-1].xaxis
    figure.update_yaxes(scaleanchor=square_pixels, row=row, col=column)
