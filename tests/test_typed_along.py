"""A reader types what a page shows, in order, and it works.

What is open on the page needs nothing else. The code of a figure stands behind a link: it may also
use what other figures named, but nothing that is open may need it. Assertions and the sentences
that code writes are not typed.
"""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
import pytest

from tests import book

pytestmark = pytest.mark.slow


def run(source: str, where: str, names: dict[str, Any]) -> Any:
    """What the last line of a cell gives; None where it is a statement."""
    program = ast.parse(source)
    last = program.body.pop() if isinstance(program.body[-1], ast.Expr) else None
    exec(compile(program, where, "exec"), names)
    if isinstance(last, ast.Expr):
        return eval(compile(ast.Expression(last.value), where, "eval"), names)
    return None


@pytest.mark.parametrize("path", book.notebooks(), ids=lambda path: path.stem)
def test_what_a_page_shows_works_when_it_is_typed_in_order(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(path.parent)  # where Jupyter runs it
    shown: dict[str, Any] = {"__name__": "__main__"}
    of_figures: dict[str, Any] = {}
    for cell in book.typed(path):
        where = f"{path.stem}: {cell.id}"
        if "hide-input" not in book.tags(cell):
            run(cell.source, where, shown)
            continue
        names = of_figures | shown
        value = run(cell.source, where, names)
        of_figures |= {name: names[name] for name in names.keys() - shown.keys()}
        if "figure" in cell.metadata.get("mystnb", {}):
            assert isinstance(value, go.Figure), where
