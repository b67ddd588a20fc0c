"""Every kind of figure as the script of the book draws it, in the widths that its pages have."""

from __future__ import annotations

import json
from collections.abc import Iterator
from html import escape
from pathlib import Path
from shutil import copyfile

import plotly.io
import pytest
from playwright.sync_api import Browser, Page
from plotly.offline import get_plotlyjs

from ninlab import bookext
from ninlab.figures.themes import DIAGRAM_TEXT_PIXELS, TEXT_PIXELS
from tests.test_figures import ONE_OF_EACH

pytestmark = pytest.mark.browser

STATIC = Path(bookext.__file__).parent / "static"
PATIENCE = 60_000  # milliseconds, for a busy machine
COLUMNS = {1280: 672, 390: 342}
"""Pixels across the column of a page, by those across the window."""

SIZES = """() => [...document.querySelectorAll('.ninlab-figure')].flatMap((figure) =>
    [...figure.querySelectorAll('.main-svg text')]
        .filter((text) => text.textContent.trim() && getComputedStyle(text).opacity > 0)
        .map((text) => {
            const { a, b } = text.getScreenCTM();
            const pixels = parseFloat(getComputedStyle(text).fontSize) * Math.hypot(a, b);
            return [figure.id, text.textContent.trim(), pixels];
        }))"""
"""Of each text: its figure, what it says, and its size after all scaling."""


CROSSED = """() => [...document.querySelectorAll('.ninlab-figure')].flatMap((figure) => {
    const box = (element) => element.getBoundingClientRect();
    const broken = [...figure.querySelectorAll('.shapelayer path')].filter(
        (line) => line.style.strokeDasharray !== '' && line.style.strokeDasharray !== 'none');
    return [...figure.querySelectorAll('.main-svg text')]
        .filter((text) => text.textContent.trim() && getComputedStyle(text).opacity > 0)
        .filter((text) => broken.map(box).some(({ left, right, top, bottom }) =>
            left < box(text).right && box(text).left < right
            && top < box(text).bottom - 2 && box(text).top + 2 < bottom))
        .map((text) => `${figure.id}: ${text.textContent}`);
})"""
"""Texts on a dotted or dashed line. A box has room above and below its letters."""


@pytest.fixture(scope="module")
def sheet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page with one figure of each kind and with what a page of the book loads."""
    folder = tmp_path_factory.mktemp("figures")
    shared = folder / "ninlab"
    shared.mkdir()
    (shared / "plotly.min.js").write_text(get_plotlyjs(), encoding="utf-8")
    templates = plotly.io.json.to_json_plotly(bookext.site_templates())
    (shared / "templates.js").write_text(f"window.ninlabTemplates={templates};", encoding="utf-8")
    for name in ("figures.js", "ninlab.css"):
        copyfile(STATIC / name, folder / name)
    figures = {kind: json.loads(draw().to_json()) for kind, draw in ONE_OF_EACH.items()}
    boxes = "".join(
        f'<div class="ninlab-figure" id="{escape(kind)}" '
        f'style="min-height: {figure["layout"]["height"]}px">'
        f'<script type="application/json">{bookext.drawing(figure)}</script></div>'
        for kind, figure in figures.items()
    )
    page = folder / "sheet.html"
    page.write_text(
        '<!DOCTYPE html><html data-theme="light"><meta charset="utf-8">'
        f'<link rel="stylesheet" href="ninlab.css"><body style="margin: 0">{boxes}'
        '<script src="figures.js"></script></body></html>',
        encoding="utf-8",
    )
    return page


@pytest.fixture(scope="module", params=COLUMNS.values(), ids=COLUMNS)
def drawn(request: pytest.FixtureRequest, browser: Browser, sheet: Path) -> Iterator[Page]:
    """The page in a column of that width, with all figures drawn."""
    page = browser.new_page(viewport={"width": request.param, "height": 900})
    page.set_default_timeout(PATIENCE)
    page.goto(sheet.as_uri())
    page.wait_for_function(
        "() => !document.querySelector('.ninlab-figure:not([data-state=drawn])')"
    )
    yield page
    page.close()


def test_no_text_is_drawn_smaller_than_the_text_of_figures(drawn: Page) -> None:
    rounding = 0.01
    texts = drawn.evaluate(SIZES)
    assert {figure for figure, _, _ in texts} == set(ONE_OF_EACH)
    for figure, text, pixels in texts:
        least = DIAGRAM_TEXT_PIXELS if figure == "diagram" else TEXT_PIXELS
        assert pixels >= least - rounding, f"{figure}: {text}"


def test_no_dotted_or_dashed_line_crosses_a_text(drawn: Page) -> None:
    assert drawn.locator(".shapelayer path").count()
    assert drawn.evaluate(CROSSED) == []
