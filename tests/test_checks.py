"""Assertions beside a chapter: where they run, and that a reader without them misses nothing."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import nbformat
import pytest

from ninlab import checks
from ninlab.errors import NinlabError
from tests import book, origins

every = pytest.mark.parametrize("path", book.notebooks(), ids=lambda path: path.stem)


def notebook(*sources: str) -> Any:
    """A notebook whose cells are called a, b, c ..."""
    return nbformat.v4.new_notebook(
        cells=[
            nbformat.v4.new_code_cell(source, id=chr(ord("a") + place))
            for place, source in enumerate(sources)
        ]
    )


def test_a_part_runs_behind_the_cell_that_it_names_and_no_page_shows_it() -> None:
    joined = checks.join(
        notebook("x = 1", "y = 2"), "# head\n\n# %% a\nassert x == 1\n\n# %% b\n1\n"
    )
    assert [cell.source for cell in joined.cells] == ["x = 1", "assert x == 1", "y = 2", "1"]
    assert [book.tags(cell) for cell in joined.cells] == [set(), {"remove-cell"}] * 2


@pytest.mark.parametrize("text", ["# %% c\nassert x\n", "# %% a\n1\n# %% a\n2\n"])
def test_a_part_without_a_cell_of_its_own_is_refused(text: str) -> None:
    with pytest.raises(NinlabError, match=r"'c'; there are a|behind the cell 'a'"):
        checks.join(notebook("x = 1"), text)


def test_the_first_page_and_the_chapters_keep_their_assertions_in_one_folder() -> None:
    book_folder = Path("book")
    of_chapter = checks.file_of(book_folder / "chapters" / "01_nin_blocks.ipynb")
    assert of_chapter == book_folder / "chapters" / "checks" / "01_nin_blocks.py"
    assert checks.file_of(book_folder / "index.ipynb") == of_chapter.with_name("index.py")


def test_every_file_of_assertions_belongs_to_a_notebook() -> None:
    written = set((book.ROOT / "chapters" / checks.FOLDER).glob("*.py"))
    assert written <= {checks.file_of(path) for path in book.notebooks()}


def bound(sources: Iterable[str]) -> set[str]:
    """What the cells of a notebook name."""
    return {name for source in sources for name in origins.bound(ast.parse(source))}


@every
def test_assertions_name_nothing_that_their_chapter_names(path: Path) -> None:
    of_chapter = bound(
        cell.source
        for cell in book.read(path).cells
        if cell.cell_type == "code" and "remove-cell" not in book.tags(cell)
    )
    of_checks = bound(source for _, source in checks.parts(checks.file_of(path).read_text()))
    assert of_chapter & of_checks == set()
