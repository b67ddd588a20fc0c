"""In which colors does a figure draw its text, its paper and its grid?

One template for light paper and one for dark. The site has both, on its own paper, and follows the
reader's switch. A notebook keeps the template that a figure was made with. No kernel can ask its
front end for the theme, so the figure takes the one that JupyterLab has written into its settings,
and paints its paper: after a switch of the theme its text can still be read.

Known limits: in a notebook a figure changes its theme when its cell is run again; a JupyterLab that
follows the system's theme, and every other front end, has light figures.
"""

from __future__ import annotations

import os
import re
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any, Literal

import plotly.graph_objects as go
import plotly.io

Theme = Literal["light", "dark"]

TEXT_PIXELS = 12
"""The size of a figure's text, on a desk and on a phone. The templates have it, and no figure
names a smaller one; titles of axes are larger."""

DIAGRAM_TEXT_PIXELS = 13
"""The size of the text in a diagram, which is read and not glanced at."""

THEMES: tuple[Theme, ...] = ("light", "dark")

_KINDS = ("bar", "heatmap", "scatter")
"""The kinds of traces that the book's figures have."""

_ELSEWHERE = ("geo", "map", "mapbox", "polar", "scene", "smith", "ternary")
"""Where Plotly draws what has no pair of straight axes: no figure of the book does."""

_NAMES: dict[Theme, str] = {"light": "plotly_white", "dark": "plotly_dark"}
_FONT = {"family": "system-ui, sans-serif", "size": TEXT_PIXELS}
_SETTING = Path("@jupyterlab", "apputils-extension", "themes.jupyterlab-settings")
_COMMENT = re.compile(r"^\s*//.*$|/\*.*?\*/", re.MULTILINE)
_CHOSEN = re.compile(r'"theme"\s*:\s*"([^"]*)"')


def template(theme: Theme) -> dict[str, Any]:
    """The Plotly template of a theme, as JSON values, with its own paper.

    Of Plotly's own it has what the book's figures use: every figure of a notebook carries a copy,
    through which Plotly looks each time.
    """
    whole: dict[str, Any] = deepcopy(plotly.io.templates[_NAMES[theme]].to_plotly_json())
    layout = {name: part for name, part in whole["layout"].items() if name not in _ELSEWHERE}
    layout["font"] |= _FONT
    return {"data": {kind: whole["data"][kind] for kind in _KINDS}, "layout": layout}


def notebook_template() -> go.layout.Template:
    """The template of figures in a notebook."""
    return _validated(notebook_theme())


@cache  # Plotly takes a fifth of a second to look through a template
def _validated(theme: Theme) -> go.layout.Template:
    return go.layout.Template(template(theme))


def notebook_theme() -> Theme:
    """The theme that JupyterLab's settings name; light where they name none.

    Source: JupyterLab's guide "Directories" for the folder, which the server hands to its kernels
    in their environment.
    """
    config = os.environ.get("JUPYTER_CONFIG_DIR") or Path.home() / ".jupyter"
    folder = os.environ.get("JUPYTERLAB_SETTINGS_DIR") or Path(config, "lab", "user-settings")
    try:
        settings = Path(folder, _SETTING).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return "light"
    chosen = _CHOSEN.search(_COMMENT.sub("", settings))
    return "dark" if chosen and "dark" in chosen[1].casefold() else "light"
