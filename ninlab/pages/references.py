"""How are references written, so that every viewer of a notebook shows them?

Sphinx has roles for them (``{cite:p}`Lin2013```), which JupyterLab, Colab and GitHub print as they
are or mark as faults. So a notebook has plain links, whose words are right in any viewer, and the
build reads them as the roles that they stand for:

    ([Lin et al., 2013](#cite-Lin2013))         {cite:p}`Lin2013`
    [Lin et al. (2013)](#cite-Lin2013)          {cite:t}`Lin2013`
    [Fig. 4.1](#fig-x)                          {numref}`fig-x`
    [Fig. 4.1](04_chapter.ipynb#fig-x)          {numref}`fig-x`
    [dead](glossary.md#term-dead)               {term}`dead`
    [dead class](glossary.md#term-dead)         {term}`dead class <dead>`

`with_roles` goes from left to right; `with_links` comes back, and is what tools/write_references.py
does to the notebooks.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

_WORDS = r"\[([^\[\]]+)\]"
_CITED = re.compile(rf"{_WORDS}\(#cite-([\w:-]+)\)")
_IN_BRACKETS = re.compile(rf"\(({_CITED.pattern}(?:; {_CITED.pattern})*)\)")
_FIGURE = re.compile(rf"{_WORDS}\((?:[\w./-]+\.ipynb)?#(fig-[\w-]+)\)")
_TERM = re.compile(rf"{_WORDS}\((?:[\w./-]+)?glossary\.md#term-([\w-]+)\)")

_CITE_ROLE = re.compile(r"\{cite:([pt])\}`([^`]+)`")
_NUMREF_ROLE = re.compile(r"\{numref\}`(fig-[\w-]+)`")
_TERM_ROLE = re.compile(r"\{term\}`([^`<]+?)(?: <([\w-]+)>)?`")


class Work(NamedTuple):
    """How a work is named where it is cited."""

    authors: str
    year: str


class Figure(NamedTuple):
    """Where a figure stands: its number, and its page seen from the one that refers to it."""

    number: str
    page: str


def with_roles(text: str) -> str:
    """The Markdown of a cell with a role for each link that stands for one."""

    def group(found: re.Match[str]) -> str:
        keys = [key for _, key in _CITED.findall(found[1])]
        return f"{{cite:p}}`{','.join(keys)}`"

    def term(found: re.Match[str]) -> str:
        words, key = found.groups()
        return f"{{term}}`{words}`" if words == key else f"{{term}}`{words} <{key}>`"

    text = _IN_BRACKETS.sub(group, text)
    text = _CITED.sub(r"{cite:t}`\2`", text)
    text = _FIGURE.sub(r"{numref}`\2`", text)
    return _TERM.sub(term, text)


def with_links(
    text: str,
    works: Mapping[str, Work],
    figures: Mapping[str, Figure],
    glossary: str = "glossary.md",
) -> str:
    """The Markdown of a cell with a link for each role.

    works and figures are by key and by label; glossary is the address of that page from this one.
    Raises KeyError for a work or a figure that is not there.
    """

    def cite(found: re.Match[str]) -> str:
        form, keys = found[1], [key.strip() for key in found[2].split(",")]
        if form == "t":
            return " and ".join(f"[{_in_text(works[key])}](#cite-{key})" for key in keys)
        return f"({'; '.join(f'[{_in_brackets(works[key])}](#cite-{key})' for key in keys)})"

    def figure(found: re.Match[str]) -> str:
        number, page = figures[found[1]]
        return f"[Fig. {number}]({page}#{found[1]})"

    def term(found: re.Match[str]) -> str:
        words, key = found.groups()
        return f"[{words}]({glossary}#term-{key or words})"

    changes: list[tuple[re.Pattern[str], Callable[[re.Match[str]], str]]] = [
        (_CITE_ROLE, cite),
        (_NUMREF_ROLE, figure),
        (_TERM_ROLE, term),
    ]
    for role, link in changes:
        text = role.sub(link, text)
    return text


def _in_text(work: Work) -> str:
    return f"{work.authors} ({work.year})"


def _in_brackets(work: Work) -> str:
    return f"{work.authors}, {work.year}"
