"""What the sources say the book should contain: the oracle of the tests of its pages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbformat
import yaml
from jupyter_cache import get_cache

from ninlab import checks
from ninlab.bookext import results_digest
from ninlab.pages.references import with_roles

ROOT = Path(__file__).resolve().parents[1]
HTML = ROOT / "_build" / "html"
PLOTLY_MIME = "application/vnd.plotly.v1+json"
SPHINX_PAGES = ("search",)
HIDDEN_SOURCE = {"hide-cell", "hide-input", "remove-cell", "remove-input"}
HIDDEN_OUTPUT = {"remove-cell", "remove-output"}


def _files(node: Any) -> list[str]:
    """Values of every ``file`` and ``root`` key below a node of _toc.yml, in order."""
    if isinstance(node, list):
        return [file for child in node for file in _files(child)]
    if isinstance(node, dict):
        own = [node[key] for key in ("root", "file") if key in node]
        return own + [file for child in node.values() for file in _files(child)]
    return []


def documents() -> list[str]:
    """The pages that _toc.yml names, without suffix, in reading order."""
    return _files(yaml.safe_load((ROOT / "_toc.yml").read_text()))


def source(document: str) -> Path:
    """The file of a page; raises FileNotFoundError for an entry of _toc.yml without one."""
    for suffix in (".ipynb", ".md"):
        path = ROOT / f"{document}{suffix}"
        if path.exists():
            return path
    raise FileNotFoundError(f"_toc.yml names {document}, but there is no such .ipynb or .md")


def notebooks() -> list[Path]:
    """Every page that is a notebook, whether or not _toc.yml names it."""
    return sorted([*ROOT.glob("*.ipynb"), *(ROOT / "chapters").glob("*.ipynb")])


def read(path: Path) -> Any:
    """A notebook without the assertions beside it, its references as the build reads them."""
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = with_roles(cell.source)
    return notebook


def shown(path: Path) -> list[Any]:
    """The code cells of a notebook that its page shows open, in order."""
    return [cell for cell in _code(path) if not tags(cell) & HIDDEN_SOURCE]


def typed(path: Path) -> list[Any]:
    """The code cells that a reader can see: open ones, and behind a link those of figures."""
    return [cell for cell in _code(path) if not tags(cell) & (HIDDEN_SOURCE - {"hide-input"})]


def _code(path: Path) -> list[Any]:
    return [cell for cell in read(path).cells if cell.cell_type == "code"]


def tags(cell: Any) -> set[str]:
    """The tags of a cell."""
    return set(cell.metadata.get("tags", ()))


def figure_labels(path: Path) -> list[str]:
    """Labels of the numbered figures that the cells of a notebook promise."""
    options = (cell.metadata.get("mystnb", {}).get("figure") for cell in read(path).cells)
    return [figure["name"] for figure in options if figure]


def executed(document: str) -> Any:
    """The notebook of a page, assertions included, with what its cells put out in the last build.

    Raises AssertionError where no build ran its cells as they, the module and the records stand.
    """
    built = ROOT / "_build" / f".jupyter_cache-{results_digest(ROOT)}"
    assert built.exists(), "the book is older than its sources; run `make book` first"
    try:
        return get_cache(str(built)).merge_match_into_notebook(checks.read(source(document)))[1]
    except KeyError:
        raise AssertionError(f"{document} was edited; run `make book` first") from None


def captioned_figures(document: str) -> dict[str, Any]:
    """The JSON of each captioned figure that the executed notebook of a page put out, by label."""
    return {
        cell.metadata.mystnb.figure.name: dict(output.data[PLOTLY_MIME])
        for cell in executed(document).cells
        if "figure" in cell.metadata.get("mystnb", {})
        for output in cell.outputs
        if PLOTLY_MIME in output.get("data", {})
    }


def figures_drawn_by(document: str) -> int:
    """How many Plotly figures the executed notebook of a page put out, hidden ones apart."""
    if source(document).suffix != ".ipynb":
        return 0
    return sum(
        PLOTLY_MIME in output.get("data", {})
        for cell in executed(document).cells
        if cell.cell_type == "code" and not tags(cell) & HIDDEN_OUTPUT
        for output in cell.outputs
    )
