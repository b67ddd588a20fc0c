"""The page of the records: it lists every record, and each link leads to the one that it names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit
from urllib.request import url2pathname

import pytest
from playwright.sync_api import Browser, Page

from ninlab.records import runs_folder
from tests import book
from tests.browser.test_pages import (
    BOTH_WIDTHS,
    VIEWS,
    barriers,
    cut_off,
    opened,
    sideways_pixels,
)

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


def shorten(page: Page, rows: int = 6) -> None:
    """Leave each table its first rows."""
    page.evaluate(
        """rows => document.querySelectorAll('table').forEach(
            table => [...table.rows].slice(rows).forEach(row => row.remove()))""",
        rows,
    )


def record_links(page: Page) -> list[tuple[str, str]]:
    """Each link to a record, and what its row and the line above its table say: "" outside."""
    return page.eval_on_selector_all(
        "a[href*='/runs/']",
        """links => links.map(link => [
            link.getAttribute('href'),
            [link.closest('tr'), link.closest('details')?.querySelector('p')]
                .map(part => part?.textContent ?? '').join(' ').replaceAll('\u00a0', ' ').trim(),
        ])""",
    )


def linked_record(link: str) -> dict[str, Any]:
    """The record in the built book that a link of the page leads to."""
    address = urljoin(f"{book.HTML.as_uri()}/{PAGE}.html", link)
    return json.loads(Path(url2pathname(urlsplit(address).path)).read_text())


def test_every_file_of_the_runs_has_one_link_that_leads_to_it(browser: Browser, site: str) -> None:
    with opened(browser, site, PAGE, VIEWS[0]) as (page, _):
        links = [link for link, _ in record_links(page)]
    folder = runs_folder()
    there = [path.relative_to(folder).with_suffix("") for path in folder.glob("*/*.json")]
    linked = [link.rpartition("/runs/")[2].removesuffix(".json") for link in links]
    assert sorted(linked) == sorted(map(Path.as_posix, there))
    for link, name in zip(links, linked, strict=True):
        content = linked_record(link)
        assert content.get("id", name) == name
        assert "id" in content or name.startswith("probes/")  # which are no records


def test_a_name_that_is_longer_than_a_phone_is_wide_breaks_on_its_card(
    browser: Browser, site: str
) -> None:
    _, phone = BOTH_WIDTHS
    with opened(browser, site, PAGE, phone) as (page, _):
        unfold(page)
        assert cut_off(page) == []
        page.evaluate(
            """() => {
                const card = document.querySelector('table.ninlab-wide td:last-child');
                card.textContent = 'a_network_of_many_changes_'.repeat(4);
            }"""
        )
        assert cut_off(page) == []
        assert sideways_pixels(page) <= 0


def test_the_row_of_a_run_has_the_device_the_software_and_the_date_of_its_record(
    browser: Browser, site: str
) -> None:
    with opened(browser, site, PAGE, VIEWS[0]) as (page, _):
        rows = [(linked_record(link), text) for link, text in record_links(page) if text]
    assert rows
    for record, text in rows:
        assert record["device"]["name"] in text
        assert f"torch {record['software']['torch']}" in text
        assert record["provenance"]["utc"][:10] in text


@pytest.mark.parametrize("view", BOTH_WIDTHS, ids=str)
def test_the_open_tables_stay_inside_the_page_and_can_be_scrolled(
    browser: Browser, site: str, view: object
) -> None:
    with opened(browser, site, PAGE, view) as (page, _):
        unfold(page)
        assert sideways_pixels(page) == 0
        shorten(page)  # one function wrote all rows of a table; axe-core takes its time for each
        assert barriers(page) == []
