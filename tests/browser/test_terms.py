"""What a term means is shown where it stands: under the pointer, the focus and the finger."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from tests.browser.test_pages import barriers, sideways_pixels
from tests.test_bookext import build_book
from tests.test_pages import GLOSSARY, INDEX

pytestmark = pytest.mark.browser

MEANING = "Small enough for a processor; see repaired."
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small built book with a glossary, opened without a server."""
    folder = tmp_path_factory.mktemp("book")
    (folder / "index.md").write_text(INDEX)
    (folder / "glossary.md").write_text(GLOSSARY)
    build_book(folder, chapters="chapters:\n- file: glossary\n")
    return folder / "_build" / "html"


@contextmanager
def index(browser: Browser, folder: Path, **options: object) -> Iterator[Page]:
    """The page that uses terms; it needs nothing from another place."""
    context = browser.new_context(**options)
    page = context.new_page()
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.goto((folder / "index.html").as_uri())
    yield page
    assert [url for url in requests if not url.startswith((folder.as_uri(), "data:"))] == []
    context.close()


def shown(page: Page) -> list[str]:
    """The definitions that can be read now."""
    return [tip.strip() for tip in page.locator(".ninlab-tip:popover-open").all_inner_texts()]


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_pointer_shows_it_and_may_rest_on_it(
    browser: Browser, folder: Path, theme: str
) -> None:
    with index(browser, folder, color_scheme=theme) as page:
        assert shown(page) == []
        page.get_by_role("link", name="compact").first.hover()
        assert shown(page) == [MEANING]
        page.locator(".ninlab-tip:popover-open").hover()
        page.wait_for_timeout(500)
        assert shown(page) == [MEANING]
        assert barriers(page) == []
        page.mouse.move(0, 0)
        page.wait_for_function("() => !document.querySelector(':popover-open')")


def test_the_focus_shows_it_and_escape_hides_it(browser: Browser, folder: Path) -> None:
    with index(browser, folder) as page:
        term = page.get_by_role("link", name="compact").first
        term.focus()
        assert shown(page) == [MEANING]
        page.keyboard.press("Escape")
        assert shown(page) == []
        assert term.evaluate("(term) => term === document.activeElement")


def test_the_first_tap_shows_it_and_the_second_follows_the_link(
    browser: Browser, folder: Path
) -> None:
    with index(browser, folder, **PHONE) as page:
        term = page.get_by_role("link", name="Repaired")
        term.tap()
        assert shown(page)[0].startswith("Started by Kaiming’s rule.")
        assert sideways_pixels(page) <= 0
        box = page.locator(".ninlab-tip:popover-open").bounding_box()
        assert box is not None
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= PHONE["viewport"]["width"]
        term.tap()
        page.wait_for_url("**/glossary.html#term-repaired")


def test_a_tap_beside_it_hides_it(browser: Browser, folder: Path) -> None:
    with index(browser, folder, **PHONE) as page:
        page.get_by_role("link", name="compact").first.tap()
        assert shown(page) == [MEANING]
        page.locator("article h1").tap()
        assert shown(page) == []
