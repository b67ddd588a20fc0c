"""The sources of the book: what every chapter has in common, and that nothing points nowhere."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from pybtex.database import parse_file

from ninlab.architectures import ARCHITECTURES
from tests import book
from tools import set_repository

LONGEST_CELL = 28  # lines that fit on a screen beside their explanation
LONGEST_CHAPTER = 160  # visible lines of code
WIDEST_LINE = 76  # columns of code that a page shows without scrolling
LABEL = re.compile(r"^\(([\w-]+)\)=", re.M)
DIRECTIVE_LABEL = re.compile(r"^\s*:(?:label|name): ([\w-]+)", re.M)
EQUATION_LABEL = re.compile(r"^\s*\$\$ \(([\w-]+)\)", re.M)
REFERENCE = re.compile(r"\{(?:numref|ref|eq|prf:ref)\}`(?:[^`<]*<)?([\w-]+)>?`")
CITATION = re.compile(r"\{cite(?::\w+)?\}`([^`]+)`")
EXERCISE = re.compile(r"\{exercise(?:-start)?\}.*\n\s*:label: ([\w-]+)")
SOLUTION = re.compile(r"\{solution(?:-start)?\} ([\w-]+)\n((?:\s*:\w+:.*\n)*)")

chapters = pytest.mark.parametrize("path", book.notebooks(), ids=lambda path: path.stem)


def code_cells(path: Path) -> list[Any]:
    return [cell for cell in book.read(path).cells if cell.cell_type == "code"]


def markdown(path: Path) -> str:
    """The text of a page without the captions of its figures."""
    if path.suffix == ".md":
        return path.read_text()
    cells = book.read(path).cells
    return "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")


def captions(path: Path) -> Iterator[str]:
    """The captions of the figures that the cells of a page draw."""
    if path.suffix == ".ipynb":
        for cell in book.read(path).cells:
            if figure := cell.metadata.get("mystnb", {}).get("figure"):
                yield figure["caption"]


def prose(path: Path) -> str:
    """What is written in a page: its text and its captions."""
    return "\n\n".join((markdown(path), *captions(path)))


def pages() -> list[Path]:
    return [book.source(document) for document in book.documents()]


def labels() -> list[str]:
    """Every label of the book, as often as it is set."""
    patterns = (LABEL, DIRECTIVE_LABEL, EQUATION_LABEL)
    found = [label for page in pages() for form in patterns for label in form.findall(prose(page))]
    for page in pages():
        if page.suffix == ".ipynb":
            found += book.figure_labels(page)
    return found


def test_every_entry_of_the_contents_exists_and_every_chapter_is_an_entry() -> None:
    listed = {page.name for page in pages()}
    written = {path.name for path in (book.ROOT / "chapters").glob("*.md")}
    assert listed == written | {path.name for path in book.notebooks()}


@chapters
def test_a_chapter_is_kept_without_outputs(path: Path) -> None:
    for cell in code_cells(path):
        assert cell.outputs == []
        assert cell.execution_count is None


@chapters
def test_a_chapter_runs_on_the_kernel_that_everybody_has(path: Path) -> None:
    assert book.read(path).metadata.kernelspec.name == "python3"


@chapters
def test_a_chapter_begins_with_its_title(path: Path) -> None:
    first = book.read(path).cells[0]
    assert first.cell_type == "markdown"
    assert re.search(r"^# ", first.source, re.M)


@chapters
def test_the_first_code_of_a_chapter_sets_up_colab_for_the_books_address(path: Path) -> None:
    first = code_cells(path)[0]
    expected = set_repository.setup_cell(*set_repository.repository())
    assert first.source == expected, "run `python tools/set_repository.py`"
    assert set_repository.SETUP_TAG in book.tags(first)


@chapters
def test_visible_code_is_short(path: Path) -> None:
    lengths = [len(cell.source.splitlines()) for cell in book.shown(path)]
    assert max(lengths, default=0) <= LONGEST_CELL
    assert sum(lengths) <= LONGEST_CHAPTER


@chapters
def test_what_a_page_hides_is_hidden_in_jupyterlab_and_colab_too(path: Path) -> None:
    for cell in code_cells(path):
        hidden = bool(book.tags(cell) & book.HIDDEN_SOURCE)
        assert bool(cell.metadata.get("jupyter", {}).get("source_hidden")) == hidden, cell.id
        # On Colab the set-up stays open: it may ask a reader for an address.
        folded = hidden and not set_repository.is_setup_cell(cell)
        assert (cell.metadata.get("cellView") == "form") == folded, cell.id


@chapters
def test_no_cell_but_the_set_up_of_hosts_is_kept_from_a_reader(path: Path) -> None:
    removed = [cell for cell in code_cells(path) if "remove-cell" in book.tags(cell)]
    assert all(set_repository.is_setup_cell(cell) for cell in removed)


@chapters
def test_no_line_of_code_is_wider_than_the_page(path: Path) -> None:
    lines = [line for cell in book.typed(path) for line in cell.source.splitlines()]
    assert [line for line in lines if len(line) > WIDEST_LINE] == []


@chapters
def test_no_cell_hides_its_errors(path: Path) -> None:
    notebook = book.read(path)
    assert not notebook.metadata.get("execution", {}).get("allow_errors")
    for cell in notebook.cells:
        assert not book.tags(cell) & {"raises-exception", "skip-execution"}


@chapters
def test_every_figure_has_a_label_and_a_caption_and_is_referred_to(path: Path) -> None:
    referred = set(REFERENCE.findall(markdown(path)))
    for cell in code_cells(path):
        if figure := cell.metadata.get("mystnb", {}).get("figure"):
            assert figure["name"].startswith("fig-")
            assert figure["caption"].strip()
            assert figure["name"] in referred, f"no sentence refers to {figure['name']}"


@chapters
def test_every_image_in_prose_has_alternative_text(path: Path) -> None:
    assert not re.findall(r"!\[\s*\]\(", prose(path))


@chapters
def test_every_exercise_has_a_folded_solution(path: Path) -> None:
    text = prose(path)
    solutions = SOLUTION.findall(text)
    assert [exercise for exercise, _ in solutions] == EXERCISE.findall(text)
    assert all("dropdown" in options for _, options in solutions)


def test_a_label_is_set_once() -> None:
    assert sorted(labels()) == sorted(set(labels()))


def test_every_reference_has_its_label() -> None:
    known = set(labels())
    for page in pages():
        assert set(REFERENCE.findall(prose(page))) <= known, page.name


def test_every_citation_has_its_entry() -> None:
    known = set(parse_file(book.ROOT / "references.bib").entries)
    for page in pages():
        keys = chain.from_iterable(keys.split(",") for keys in CITATION.findall(prose(page)))
        assert {key.strip() for key in keys} <= known, page.name


def test_the_source_of_every_network_is_in_the_bibliography() -> None:
    known = set(parse_file(book.ROOT / "references.bib").entries)
    assert {network.source for network in ARCHITECTURES.values()} <= known


def test_every_work_in_the_bibliography_can_be_looked_up() -> None:
    for key, entry in parse_file(book.ROOT / "references.bib").entries.items():
        assert {"doi", "eprint", "url"} & set(entry.fields), (
            f"{key} has no DOI, arXiv id or address"
        )
