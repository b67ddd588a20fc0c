"""Which assertions prove the numbers of a chapter, and where do they run?

A chapter is read and typed along without them: they stand in a file of the chapter's name under
``chapters/checks``. Each part of it begins with a line that names a cell of the chapter,

    # %% the-cells-id
    assert f"{share:.0%}" == "93%"

and runs behind that cell whenever the book is built, in the kernel of the chapter, so that it
sees what a reader has at that point. A part may name things of its own, but none that the chapter
names: the page that is built is the page that a reader gets who has no such file.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat

from ninlab.errors import NinlabError

FOLDER = "checks"
TAG = "remove-cell"
_CHAPTERS = "chapters"
_PART = re.compile(r"^# %% +(\S+) *\n", re.M)


def file_of(notebook: Path) -> Path:
    """Where the assertions of a notebook stand; there need not be such a file."""
    chapters = notebook.parent
    if chapters.name != _CHAPTERS:  # the first page lies above its chapters
        chapters = chapters / _CHAPTERS
    return chapters / FOLDER / f"{notebook.stem}.py"


def parts(text: str) -> Iterator[tuple[str, str]]:
    """(id of a cell, what runs behind it) for each part of a file of assertions, in its order."""
    _, *found = _PART.split(text)
    for anchor, source in zip(found[::2], found[1::2], strict=True):
        yield anchor, source.strip("\n")


def join(notebook: Any, text: str) -> Any:
    """The notebook with each part of a file of assertions as a cell that no page shows.

    Raises NinlabError where a part names no cell of the notebook, or one that another part names.
    """
    behind: dict[str, Any] = {}
    for anchor, source in parts(text):
        if anchor in behind:
            raise NinlabError(f"two parts run behind the cell {anchor!r}; make them one")
        cell = nbformat.v4.new_code_cell(source, id=f"check-{anchor}"[:64])
        cell.metadata.tags = [TAG]
        behind[anchor] = cell
    cells = []
    for cell in notebook.cells:
        cells.append(cell)
        if check := behind.pop(cell.id, None):
            cells.append(check)
    if behind:
        known = ", ".join(cell.id for cell in notebook.cells)
        raise NinlabError(f"no cell is called {next(iter(behind))!r}; there are {known}")
    notebook.cells = cells
    return notebook


def read(path: str | Path) -> Any:
    """A notebook (nbformat 4) with its assertions; one without such a file as it is."""
    file = file_of(Path(path))
    notebook = nbformat.read(path, as_version=4)
    return join(notebook, file.read_text()) if file.exists() else notebook
