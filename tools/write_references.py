"""How do the notebooks name works and figures? Writes each reference anew, with the right words.

    python tools/write_references.py

A reference may be written as a role, ``{cite:p}`Lin2013```, or as the link that every viewer
shows (`ninlab.pages.references`). This tool leaves links only. The numbers of figures follow
_toc.yml, so that it has to run again when a figure or a chapter has moved.
"""

import argparse
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import yaml
from pybtex.database import Entry, parse_file

from ninlab import exits
from ninlab.pages.references import Figure, Work, with_links, with_roles
from tools.notebooks import read_notebook
from tools.whole_files import replace_files

ROOT = Path(__file__).resolve().parents[1]


def works(book: Path = ROOT) -> dict[str, Work]:
    """How each work of references.bib is named where it is cited."""
    return {
        key: _named(entry) for key, entry in parse_file(book / "references.bib").entries.items()
    }


def _named(entry: Entry) -> Work:
    people = entry.persons.get("author") or entry.persons.get("editor") or []
    names = [" ".join(one.prelast_names + one.last_names).strip("{}") for one in people]
    if len(names) > 2:
        names = [f"{names[0]} et al."]
    return Work(" and ".join(names) or entry.key, entry.fields.get("year", "n.d."))


def figures(book: Path = ROOT) -> dict[str, tuple[Path, str]]:
    """(notebook, number) of each figure, as the build numbers them.

    Chapters of the parts with ``numbered`` are counted through, and their figures within them;
    figures of all other pages are counted through the whole book.
    """
    found: dict[str, tuple[Path, str]] = {}
    chapter, unnumbered = 0, 0
    for page, is_numbered in _pages(yaml.safe_load((book / "_toc.yml").read_text())):
        path = book / f"{page}.ipynb"
        chapter += is_numbered
        if not path.exists():
            continue
        for place, label in enumerate(labels(read_notebook(path)), start=1):
            unnumbered += not is_numbered
            found[label] = path, f"{chapter}.{place}" if is_numbered else str(unnumbered)
    return found


def labels(notebook: Any) -> list[str]:
    """The labels of a notebook's figures, in order."""
    options = (cell.metadata.get("mystnb", {}).get("figure") for cell in notebook.cells)
    return [figure["name"] for figure in options if figure]


def _pages(contents: Any) -> Iterator[tuple[str, bool]]:
    yield contents["root"], False
    for part in contents["parts"]:
        for chapter in part["chapters"]:
            yield chapter["file"], "numbered" in part


def written(path: Path, book: Path = ROOT) -> Any:
    """The notebook with a link for each of its references. Raises KeyError for an unknown one.

    Exits with a sentence where the file is no notebook.
    """
    notebook = read_notebook(path)
    known = works(book)
    seen_from_here = {
        label: Figure(number, "" if page == path else os.path.relpath(page, path.parent))
        for label, (page, number) in figures(book).items()
    }
    glossary = os.path.relpath(book / "chapters" / "glossary.md", path.parent)
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = with_links(with_roles(cell.source), known, seen_from_here, glossary)
    return notebook


def main(book: Path = ROOT) -> None:
    """Write the notebooks of the book, and say which of them changed."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    changed = {}
    for path in sorted([*book.glob("*.ipynb"), *(book / "chapters").glob("*.ipynb")]):
        try:
            text = f"{nbformat.writes(written(path, book))}\n"
        except KeyError as error:
            sys.exit(f"{path.name} refers to {error}, which is nowhere; nothing was changed")
        if text != path.read_text(encoding="utf-8"):
            changed[path] = text
    replace_files(changed)
    names = ", ".join(path.name for path in changed)
    print(f"references written: {names or 'all were right'}")


if __name__ == "__main__":
    exits.run(main)
