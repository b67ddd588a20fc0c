"""References in notebooks: every viewer shows them, and the build finds what they point to."""

from __future__ import annotations

import re

import nbformat
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ninlab.pages.references import Figure, Work, with_links, with_roles
from tests import book
from tools import write_references

WORKS = {"Lin2013": Work("Lin et al.", "2013"), "He2016": Work("He and Sun", "2016")}
FIGURES = {"fig-here": Figure("4.1", ""), "fig-there": Figure("2.3", "02_model.ipynb")}
KEYS = st.lists(st.sampled_from(sorted(WORKS)), min_size=1).map(",".join)
ROLES = st.one_of(
    KEYS.map("{{cite:p}}`{}`".format),
    st.sampled_from(sorted(WORKS)).map("{{cite:t}}`{}`".format),
    st.sampled_from(sorted(FIGURES)).map("{{numref}}`{}`".format),
    st.sampled_from(["{term}`dead`", "{term}`dead class <dead>`", "`x[1](#y)` (so)", " and "]),
)

every = pytest.mark.parametrize("path", book.notebooks(), ids=lambda path: path.stem)


@given(st.lists(ROLES).map(" of ".join))
def test_a_role_becomes_a_link_and_the_link_the_same_role(text: str) -> None:
    links = with_links(text, WORKS, FIGURES)
    assert not re.search(r"\{(cite:[pt]|numref|term)\}", links)
    assert with_roles(links) == text


def test_a_link_says_in_words_what_it_leads_to() -> None:
    text = (
        "{cite:t}`Lin2013` {cite:p}`Lin2013,He2016` {numref}`fig-there` {term}`dead class <dead>`"
    )
    assert with_links(text, WORKS, FIGURES) == (
        "[Lin et al. (2013)](#cite-Lin2013) "
        "([Lin et al., 2013](#cite-Lin2013); [He and Sun, 2016](#cite-He2016)) "
        "[Fig. 2.3](02_model.ipynb#fig-there) [dead class](glossary.md#term-dead)"
    )


@pytest.mark.parametrize("role", ["{cite:p}`Nobody1900`", "{numref}`fig-nowhere`"])
def test_a_reference_to_nothing_is_refused(role: str) -> None:
    with pytest.raises(KeyError):
        with_links(role, WORKS, FIGURES)


@every
def test_a_notebook_names_works_and_figures_as_the_tool_writes_them(path) -> None:
    as_it_should_be = write_references.written(path)
    assert nbformat.read(path, as_version=4) == as_it_should_be, (
        "run `python tools/write_references.py`"
    )


@pytest.mark.browser  # for it needs the built book
def test_the_figures_have_the_numbers_that_the_notebooks_give_them() -> None:
    for label, (path, number) in write_references.figures().items():
        page = book.HTML / path.relative_to(book.ROOT).with_suffix(".html")
        caption = re.search(
            rf'<figure[^>]* id="{label}".*?<span class="caption-number">Fig\. ([\d.]+) ?</span>',
            page.read_text(),
            re.S,
        )
        assert caption, label
        assert caption[1] == number, label
