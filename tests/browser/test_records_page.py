"""The page of the records: it lists every run, and each link leads to the record that it names."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.parse import urljoin
from urllib.request import url2pathname

import pytest
from playwright.sync_api import Browser, Page

from ninlab.records import load
from tests import book
from tests.browser.test_pages import VIEWS, barriers, opened, sideways_pixels

pytestmark = pytest.mark.browser

PAGE = "chapters/records"


def unfold(page: Page) -> None:
    """Open every fold of the page, and let its script see that."""
    page.evaluate(
        """async () => {
            for (const fold of document.querySelectorAll('details')) fold.open = true;
            await new Promise((resume) => setTimeout(resume, 100));
        }"""
    )


def record_links(page: Page) -> list[str]:
    return page.eval_on_selector_all(
        "a[href*='/runs/']", "links => links.map((link) => link.getAttribute('href'))"
    )


def linked_file(link: str) -> Path:
    """The file of the built book that a link of the page leads to."""
    return Path(url2pathname(urljoin(f"{book.HTML.as_uri()}/{PAGE}.html", link)[len("file://") :]))


def test_every_training_run_has_a_link_to_its_record(browser: Browser, site: str) -> None:
    with opened(browser, site, PAGE, VIEWS[0]) as (page, _):
        links = record_links(page)
    listed = [json.loads(linked_file(link).read_text())["id"] for link in links]
    assert {run.id for run in load()} <= set(listed)
    assert len(listed) == len(set(listed))
    for link, identifier in zip(links, listed, strict=True):
        assert link.endswith(f"/runs/{identifier}.json")


@pytest.mark.parametrize("view", VIEWS, ids=str)
def test_the_open_tables_stay_inside_the_page_and_can_be_scrolled(
    browser: Browser, site: str, view: object
) -> None:
    with opened(browser, site, PAGE, view) as (page, _):
        unfold(page)
        assert sideways_pixels(page) == 0
        assert barriers(page) == []
