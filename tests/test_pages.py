"""What pages make of tables, of the code behind figures, and of terms."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nbformat
import pandas as pd
import pytest
from bs4 import BeautifulSoup, Tag
from hypothesis import given
from hypothesis import strategies as st

from ninlab.pages import tables
from tests.test_bookext import build_book

LONG = "a name that is as long as the names of runs are"
NARROW = pd.DataFrame({"points": ["1.5"], "shown": ["a gain"]}, index=["textbook"])
WORDS = st.text(st.sampled_from("ab 1/(%"), min_size=1).map(str.strip).filter(bool)


def fitted(frame: pd.DataFrame, **options: object) -> Tag:
    """The table that a page shows for a frame."""
    table = BeautifulSoup(tables.fitted(frame.to_html(**options)), "html.parser").table
    assert table is not None
    return table


def wide(columns: int = 6, rows: int = 2) -> pd.DataFrame:
    """A frame that no phone has room for."""
    cells = [[f"value{row}{column}" for column in range(columns)] for row in range(rows)]
    names = [f"column{column}" for column in range(columns)]
    return pd.DataFrame(cells, index=[f"row {row}" for row in range(rows)], columns=names)


def labels(table: Tag) -> list[str]:
    """The labels of a table's columns, as its style sheet finds them."""
    parts = str(table["style"]).split(";")
    return [part.partition(":")[2].strip("'") for part in parts]


def test_a_table_that_fits_on_a_phone_stays_a_plain_table() -> None:
    assert fitted(NARROW)["class"] == ["dataframe"]
    assert not fitted(NARROW).select("[role], [style]")


@pytest.mark.parametrize(
    ("columns", "expected"),
    [(6, ["ninlab-wide"]), (10, ["ninlab-wide", "ninlab-outset"]), (16, ["ninlab-cards"])],
)
def test_a_wider_table_becomes_cards_on_a_phone_and_a_very_wide_one_everywhere(
    columns: int, expected: list[str]
) -> None:
    table = fitted(wide(columns - 1))
    assert table["class"] == ["dataframe", *expected]
    assert labels(table) == list(wide(columns - 1))


def test_a_table_of_more_columns_than_labels_is_marked_as_one_that_scrolls() -> None:
    assert fitted(wide(tables.LABELED))["class"] == ["dataframe", tables.SCROLLS]


def test_every_part_of_a_table_that_becomes_cards_says_what_it_is() -> None:
    table = fitted(wide())
    assert table["role"] == "table"
    assert all(part.get("role") for part in table.select("thead, tbody, tr, th, td"))
    assert [name.get_text() for name in table.select("[role=rowheader]")] == ["row 0", "row 1"]


def test_without_an_index_the_first_cell_of_a_row_is_its_name() -> None:
    table = fitted(wide(), index=False)
    assert [name.get_text() for name in table.select("[role=rowheader]")] == ["value00", "value10"]
    assert labels(table) == list(wide())[1:]


def test_a_header_of_two_levels_labels_a_column_with_both() -> None:
    frame = wide(6)
    frame.columns = pd.MultiIndex.from_product([["compact", "full"], ["mean", "least", "most"]])
    frame.index.name = "design"
    frame.index = frame.index + " " + LONG
    assert labels(fitted(frame))[:4] == [
        "compact, mean",
        "compact, least",
        "compact, most",
        "full, mean",
    ]


def test_a_name_of_several_rows_heads_the_card_of_each() -> None:
    frame = wide(5, rows=4)
    frame.index = pd.MultiIndex.from_product([["NiN", "VGG"], ["bf16", "tf32"]])
    rows = fitted(frame).select("tbody > tr")
    names = [[name.get_text() for name in row.select("[role=rowheader]")] for row in rows]
    assert names == [["NiN", "bf16"], ["NiN", "tf32"], ["VGG", "bf16"], ["VGG", "tf32"]]
    hidden_at_a_desk = [len(row.select(".ninlab-again")) for row in rows]
    assert hidden_at_a_desk == [0, 1, 0, 1]
    assert {len(row.find_all(["th", "td"])) for row in rows} == {7}


@given(cells=st.lists(st.lists(WORDS, min_size=3, max_size=3), min_size=1, max_size=4))
def test_a_page_shows_every_cell_as_it_was_but_for_line_breaks(cells: list[list[str]]) -> None:
    frame = pd.DataFrame(cells, columns=["a", "b/word", LONG.replace(" ", "")])
    shown = [
        [cell.get_text().replace("\u00a0", " ") for cell in row.find_all("td")]
        for row in fitted(frame).select("tbody > tr")
    ]
    assert shown == cells


def test_lines_do_not_break_within_an_interval_or_before_a_unit() -> None:
    points, most = "−11.6 (−58.4 to +35.2)", "predicted 330 MiB / 534 MiB"
    frame = pd.DataFrame({"points": [points], "most": [most]})
    shown = [cell.get_text().split(" ") for cell in fitted(frame).select("td")]
    assert shown[0] == ["−11.6", "(−58.4\u00a0to\u00a0+35.2)"]
    assert shown[1] == ["predicted", "330\u00a0MiB", "/", "534\u00a0MiB"]


def test_what_is_not_a_table_of_results_stays_byte_for_byte() -> None:
    around = "<p>a &nbsp; b<br></p>{}<table class=other><tr><td>1 (2 3)</table>"
    assert tables.fitted(around.format("")) == around.format("")
    fitted_alone = tables.fitted(NARROW.to_html())
    assert tables.fitted(around.format(NARROW.to_html())) == around.format(fitted_alone)


GLOSSARY = """# Glossary

:::{glossary}
compact
  Small enough for a *processor*; see {term}`repaired`.

repaired
  Started by Kaiming's rule.

  It learns.
:::
"""
INDEX = """# Title

A {term}`compact` run, another {term}`compact` one, and {term}`Repaired <repaired>`.
"""
FIGURE = "import plotly.graph_objects as go\ngo.Figure(go.Bar(x=['a'], y=[0.5]))"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], BeautifulSoup]:
    """The pages of a book with a glossary, by name."""
    folder = tmp_path_factory.mktemp("book")
    captioned = {"mystnb": {"figure": {"name": "fig-1", "caption": "Half."}}}
    cells = [
        nbformat.v4.new_markdown_cell(INDEX),
        *(
            nbformat.v4.new_code_cell(source, metadata={"tags": tags, **more})
            for source, tags, more in (
                (FIGURE, ["hide-input"], captioned),
                ("'no caption'", ["hide-input"], {}),
                ("silent = 1", ["hide-input"], {}),
                ("'shown'", [], {}),
            )
        ),
    ]
    metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}
    notebook = nbformat.v4.new_notebook(cells=cells, metadata=metadata)
    nbformat.write(notebook, folder / "index.ipynb")
    (folder / "glossary.md").write_text(GLOSSARY)
    log = build_book(folder, chapters="chapters:\n- file: glossary\n")
    assert "WARNING: " not in log, log
    html = folder / "_build" / "html"
    return lambda name: BeautifulSoup(Path(html, f"{name}.html").read_text(), "html.parser")


@pytest.mark.slow
def test_the_code_of_a_figure_is_behind_a_word_at_the_end_of_its_caption(
    site: Callable[[str], BeautifulSoup],
) -> None:
    (fold,) = site("index").select("figure#fig-1 > figcaption details.ninlab-code")
    assert fold.summary is not None
    assert fold.summary.get_text() == "Code"
    assert "go.Bar" in fold.get_text()
    assert not fold.has_attr("open")


@pytest.mark.slow
def test_without_a_caption_it_is_below_what_the_cell_put_out(
    site: Callable[[str], BeautifulSoup],
) -> None:
    (fold,) = site("index").select(".cell > .cell_output + details.ninlab-code")
    assert "no caption" in fold.get_text()


@pytest.mark.slow
def test_no_bar_stands_above_an_output_and_shown_code_stays_shown(
    site: Callable[[str], BeautifulSoup],
) -> None:
    page = site("index")
    bars = page.select("details.hide")
    assert ["silent" in bar.get_text() for bar in bars] == [True]
    (shown,) = page.select(".cell > .cell_input")
    assert "'shown'" in shown.get_text()


@pytest.mark.slow
def test_every_link_to_a_term_is_described_by_its_definition_once_on_the_page(
    site: Callable[[str], BeautifulSoup],
) -> None:
    page = site("index")
    links = page.select("a[aria-describedby]")
    assert [link["href"] for link in links] == [
        "glossary.html#term-compact",
        "glossary.html#term-compact",
        "glossary.html#term-repaired",
    ]
    tips = {tip["id"]: tip for tip in page.select("[popover][role=tooltip]")}
    assert {link["aria-describedby"] for link in links} == set(tips)
    definition = tips["tip-compact"]
    assert definition.get_text().strip() == "Small enough for a processor; see repaired."
    assert definition.em is not None
    assert definition.a is None, "a link in a tip cannot be reached"
    assert len(tips["tip-repaired"].select("p")) == 2


@pytest.mark.slow
def test_the_glossary_describes_its_own_terms_too(site: Callable[[str], BeautifulSoup]) -> None:
    (link,) = site("glossary").select("a[aria-describedby]")
    assert (link["href"], link["aria-describedby"]) == ("#term-repaired", "tip-repaired")
