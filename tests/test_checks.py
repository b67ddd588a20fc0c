"""Assertions beside a chapter: where they run, and that a reader without them misses nothing."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import nbformat
import pytest

from ninlab import checks
from ninlab.errors import NinlabError
from tests import book, origins
from tools import set_repository

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


TYPED_AGAIN = {"nin_block"}
"""What a reader types in every chapter that builds the network by hand, for each runs alone."""


class Anonymous(ast.NodeTransformer):
    """Calls what a function names by the order in which it names them."""

    def __init__(self, function: ast.FunctionDef) -> None:
        own = origins.bound(ast.Module(function.body, []))
        own |= {arg.arg for arg in ast.walk(function.args) if isinstance(arg, ast.arg)}
        named = (getattr(each, "arg", getattr(each, "id", "")) for each in ast.walk(function))
        in_order = dict.fromkeys(name for name in named if name in own)
        self.new = {name: f"_{place}" for place, name in enumerate(in_order)}

    def visit_arg(self, node: ast.arg) -> ast.arg:
        return ast.arg(self.new.get(node.arg, node.arg))

    def visit_Name(self, node: ast.Name) -> ast.Name:
        return ast.Name(self.new.get(node.id, node.id), node.ctx)


def bodies(source: str) -> Iterator[tuple[str, str]]:
    """(name, what it computes) of each function of a cell, whatever it calls its own names."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef):
            body = node.body[1:] if ast.get_docstring(node) else node.body
            program = Anonymous(node).visit(ast.Module(deepcopy(body), []))
            yield node.name, f"{len(node.args.args)} {ast.dump(program)}"


def repeated(sources: Iterable[str]) -> list[list[str]]:
    """The names of the functions that compute the same, in groups."""
    names: dict[str, list[str]] = {}
    for source in sources:
        for name, body in bodies(source):
            names.setdefault(body, []).append(name)
    return [group for group in names.values() if len(group) > 1]


def test_code_of_several_chapters_stands_in_the_module() -> None:
    sources = [
        cell.source
        for path in book.notebooks()
        for cell in checks.read(path).cells
        if cell.cell_type == "code" and not set_repository.is_setup_cell(cell)
    ]
    assert [set(group) for group in repeated(sources)] == [TYPED_AGAIN]
    copies = [source for source in sources if re.search(r"^def nin_block\(", source, re.M)]
    assert len(repeated(copies)[0]) == len(copies)  # a copy that is no other one's is in no group


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("def f(a, b):\n    return a - b", "def g(x, y):\n    return x - y", True),
        (
            'def f(a):\n    """Text."""\n    c = a\n    return c',
            "def g(a):\n    b = a\n    return b",
            True,
        ),
        (
            "def f():\n    a = 1\n    b = 2\n    return a - b",
            "def g():\n    y = 1\n    x = 2\n    return y - x",
            True,
        ),
        ("def f(a, b):\n    return a - b", "def g(x, y):\n    return y - x", False),
        ("def f(a):\n    return len(a)", "def g(a):\n    return max(a)", False),
    ],
)
def test_functions_compute_the_same_whatever_their_names_are(
    one: str, other: str, same: bool
) -> None:
    assert repeated([one, other]) == ([["f", "g"]] if same else [])


@every
def test_assertions_name_nothing_that_their_chapter_names(path: Path) -> None:
    of_chapter = bound(
        cell.source
        for cell in book.read(path).cells
        if cell.cell_type == "code" and "remove-cell" not in book.tags(cell)
    )
    of_checks = bound(source for _, source in checks.parts(checks.file_of(path).read_text()))
    assert of_chapter & of_checks == set()
