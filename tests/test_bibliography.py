"""The bibliography: each work can be found, and each is cited.

That a citation has its entry, and an entry an identifier, is held in test_book_sources.py; that
what a chapter names is cited there, in test_chapters.py.
"""

from __future__ import annotations

import re
from itertools import chain
from pathlib import Path

import pytest
from pybtex.database import Entry, parse_file

from tests import book
from tests.test_book_sources import CITATION, pages, prose

ENTRIES: dict[str, Entry] = dict(parse_file(book.ROOT / "references.bib").entries)
FORMS = {
    "doi": re.compile(r"10\.\d{4,9}/[^\s{}]+"),
    "eprint": re.compile(r"\d{4}\.\d{4,5}"),
    "url": re.compile(r"https://[^\s{}]+"),
}
PLACE = {"article": "journal", "book": "publisher", "inproceedings": "booktitle"}
"""The field that says where a work of that type appeared."""

every_entry = pytest.mark.parametrize("key", ENTRIES)


def cited(path: Path) -> set[str]:
    return {key.strip() for keys in CITATION.findall(prose(path)) for key in keys.split(",")}


def test_every_work_in_the_bibliography_is_cited() -> None:
    assert set(ENTRIES) == set(chain.from_iterable(map(cited, pages())))


@every_entry
def test_a_work_has_a_title_a_year_and_all_its_authors(key: str) -> None:
    entry = ENTRIES[key]
    assert entry.fields["title"]
    assert re.fullmatch(r"(19|20)\d\d|n\.d\.", entry.fields["year"])
    assert entry.persons["author"]
    assert "others" not in map(str, entry.persons["author"])


@every_entry
def test_a_published_work_says_where_it_appeared(key: str) -> None:
    entry = ENTRIES[key]
    assert entry.type == "misc" or entry.fields[PLACE[entry.type]]


@every_entry
def test_the_identifiers_of_a_work_are_well_formed(key: str) -> None:
    fields = ENTRIES[key].fields
    for name, form in FORMS.items():
        assert name not in fields or form.fullmatch(fields[name]), f"{name} = {fields[name]}"
    assert ("eprint" in fields) == (fields.get("archiveprefix") == "arXiv")


def test_no_identifier_belongs_to_two_works() -> None:
    for name in FORMS:
        known = [entry.fields[name] for entry in ENTRIES.values() if name in entry.fields]
        assert len(known) == len(set(known))


def test_the_works_that_the_code_names_are_in_the_bibliography() -> None:
    key = re.compile(r"\b[A-Z][a-z]+(?:19|20)\d\d\b")
    for path in sorted((book.ROOT / "ninlab").rglob("*.py")):
        assert set(key.findall(path.read_text())) <= set(ENTRIES), path.name
