"""A figure in a notebook has the theme of JupyterLab, and can be read on the paper that it has."""

from __future__ import annotations

from pathlib import Path

import pytest

from ninlab import bookext, figures
from ninlab.figures.themes import THEMES, notebook_theme, template

PAPER = {"light": "white", "dark": "rgb(17,17,17)"}  # of JupyterLab: --jp-layout-color0

WRITTEN = (
    '{"theme": "%s"}',
    """{
    // Theme
    // The theme of the application. "theme": "JupyterLab Dark"
    "theme": "%s",
    "adaptive-theme": false
}""",
)


def choose(theme: str, settings: Path, written: str) -> None:
    """Write the file that JupyterLab writes when its reader chooses a theme."""
    folder = settings / "@jupyterlab" / "apputils-extension"
    folder.mkdir(parents=True)
    (folder / "themes.jupyterlab-settings").write_text(written % theme, encoding="utf-8")


@pytest.fixture(autouse=True)
def nothing_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home without settings."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for variable in ("JUPYTER_CONFIG_DIR", "JUPYTERLAB_SETTINGS_DIR"):
        monkeypatch.delenv(variable, raising=False)
    return tmp_path


@pytest.mark.parametrize(
    ("chosen", "theme"),
    [("JupyterLab Dark", "dark"), ("JupyterLab Light", "light"), ("Solarized dark", "dark")],
)
@pytest.mark.parametrize("written", WRITTEN, ids=["alone", "in comments"])
@pytest.mark.parametrize("variable", ["", "JUPYTER_CONFIG_DIR", "JUPYTERLAB_SETTINGS_DIR"])
def test_a_notebook_has_the_theme_that_its_reader_chose_wherever_settings_lie(
    chosen: str,
    theme: str,
    variable: str,
    written: str,
    nothing_chosen: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = nothing_chosen / (variable or ".jupyter")
    if variable:
        monkeypatch.setenv(variable, str(folder))
    home = folder if "SETTINGS" in variable else folder.joinpath("lab", "user-settings")
    choose(chosen, home, written)
    assert notebook_theme() == theme
    bars = figures.bars(figures.Quantity("Parameters", {"nin": 1}), provenance="Counted.")
    layout = bars.layout.template.layout
    assert layout.paper_bgcolor == layout.plot_bgcolor == PAPER[theme]
    assert layout.font == type(layout.font)(bookext.site_templates()[theme]["layout"]["font"])


def test_a_notebook_is_light_where_nothing_was_chosen() -> None:
    assert notebook_theme() == "light"


@pytest.mark.parametrize("theme", THEMES)
def test_a_notebook_and_the_site_differ_in_paper_and_margin_only(theme: str) -> None:
    site = bookext.site_templates()[theme]
    own = template("dark" if theme == "dark" else "light")
    of_the_page = {"paper_bgcolor", "plot_bgcolor", "margin"}
    assert site["data"] == own["data"]
    assert {key for key in site["layout"] if site["layout"][key] != own["layout"].get(key)} <= (
        of_the_page
    )
    assert site["layout"]["paper_bgcolor"] == "rgba(0,0,0,0)"
