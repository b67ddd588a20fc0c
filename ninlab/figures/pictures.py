"""How do images and maps look side by side?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import plotly.graph_objects as go
from plotly.colors import sample_colorscale
from plotly.subplots import make_subplots

from ninlab.figures.layout import finish, left_aligned_titles

_SIDES = {1: 240, 2: 200}  # pixels of a line of so many tiles, its titles included
_SMALLEST_SIDE = 160
_MARGIN = {"l": 8, "r": 8, "t": 34, "b": 8}
_MAP_COLORS = sample_colorscale("RdBu_r", [0.3, 0.4, 0.5, 0.6, 0.7])
"""From blue to red, without the ends: on them the numbers written into a map could not be read."""


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

    def write(self, value: float) -> str:
        """A value as the tile shows it; what rounds to nothing is 0 without a minus."""
        text = f"{value:{self.number_format or '.0f'}}"
        return text if any(digit in text for digit in "123456789") else text.lstrip("+-")


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
    for row, line in enumerate(rows, start=1):
        for column, tile in enumerate(line, start=1):
            titles = dict.fromkeys((line[0].title, tile.title))
            _add_tile(figure, (row, column), tile, reach, name=", ".join(titles))
    figure.update_xaxes(visible=False, fixedrange=True, constrain="domain", constraintoward="left")
    figure.update_yaxes(
        visible=False, fixedrange=True, autorange="reversed", constrain="domain",
        constraintoward="top",
    )  # fmt: skip
    left_aligned_titles(figure)
    side = _SIDES.get(across, _SMALLEST_SIDE)
    return finish(figure, height=side * len(rows) + 8, provenance=provenance, margin=_MARGIN)


def _add_tile(
    figure: go.Figure, place: tuple[int, int], tile: Tile, reach: float, name: str
) -> None:
    """Draw one tile there (line, column); reach is the largest number of all maps.

    name tells it from tiles of the same title in other lines.
    """
    row, column = place
    written = [[tile.write(value) for value in line] for line in tile.values]
    figure.add_heatmap(
        name=name,
        z=[list(line) for line in tile.values],
        colorscale=_MAP_COLORS if tile.is_map else "gray",
        zmin=-reach if tile.is_map else 0,
        zmax=reach if tile.is_map else 255,
        showscale=False,
        text=written if tile.is_map else None,
        texttemplate="%{text}" if tile.is_map else None,
        # Written once a tile: a text for each pixel was most of the weight of a page.
        hovertemplate=f"<b>{tile.title}</b><br>row %{{y}}, column %{{x}}: "
        f"{'%{text}' if tile.is_map else '%{z:.0f}'}<extra></extra>",
        row=row,
        col=column,
    )
    square_pixels = figure.data[-1].xaxis
    figure.update_yaxes(scaleanchor=square_pixels, row=row, col=column)
