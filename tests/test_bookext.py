"""How figures get into a page, when results are computed anew, and where the buttons point."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import nbformat
import plotly.graph_objects as go
import pytest
import yaml
from docutils import nodes
from hypothesis import given
from hypothesis import strategies as st

from ninlab import bookext
from tests import book

TEXT = st.text() | st.sampled_from(["</script>", "<!--", "<script>", "a & b", "\u2028"])


class Scripts(HTMLParser):
    """Collects the content of script elements as a browser delimits them."""

    def __init__(self) -> None:
        super().__init__()
        self.contents: list[str] = []
        self.inside = False

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.inside = tag == "script"

    def handle_endtag(self, tag: str) -> None:
        self.inside = False

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.contents.append(data)


@given(title=TEXT, labels=st.lists(TEXT, min_size=1))
def test_a_page_gives_back_every_figure_whatever_its_labels_say(
    title: str, labels: list[str]
) -> None:
    figure = {
        "data": [{"type": "bar", "x": labels}],
        "layout": {"title": {"text": title}, "template": {"layout": {"font": {"size": 9}}}},
    }
    parser = Scripts()
    parser.feed(f'<script type="application/json">{bookext.drawing(figure)}</script><p>rest</p>')
    parser.close()
    assert json.loads("".join(parser.contents)) == {
        "data": figure["data"],
        "layout": {"title": {"text": title}},
    }


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False)), st.integers())
def test_a_page_draws_numbers_to_seven_digits_and_whole_ones_exactly(
    values: list[float], whole: int
) -> None:
    drawn = json.loads(bookext.drawing({"data": [{"x": values, "y": [whole]}]}))["data"][0]
    assert drawn["x"] == pytest.approx(values, rel=1e-6)
    assert drawn["y"] == [whole]


def numbered(figure: go.Figure, caption: str) -> bookext.plotly_figure:
    """The figure's node, as myst-nb puts it beside its caption."""
    node = bookext.plotly_figure(figure=json.loads(figure.to_json()))
    nodes.figure("", node, nodes.caption(caption, caption))
    return node


def test_a_figure_is_called_by_the_conclusion_that_opens_its_caption() -> None:
    node = numbered(go.Figure(layout_title="Title"), "NiN has 1.99 M parameters. Bars: layers.")
    assert bookext.text_alternative(node) == "NiN has 1.99 M parameters."


def test_a_figure_without_a_caption_is_called_by_its_title() -> None:
    figure = go.Figure(layout_title="Title")
    node = bookext.plotly_figure(figure=json.loads(figure.to_json()))
    nodes.container("", node)
    assert bookext.text_alternative(node) == "Title"


def test_both_themes_leave_the_paper_to_the_page_and_set_their_own_ink() -> None:
    light, dark = (bookext.site_templates()[theme]["layout"] for theme in ("light", "dark"))
    assert light["paper_bgcolor"] == dark["paper_bgcolor"] == "rgba(0,0,0,0)"
    assert light["font"]["color"] != dark["font"]["color"]


def test_results_are_computed_anew_exactly_when_the_records_change(tmp_path: Path) -> None:
    runs = tmp_path / "runs" / "baselines"
    runs.mkdir(parents=True)
    empty = bookext.results_digest(tmp_path)
    record = runs / "nin-seed0-cpu.json"
    record.write_text('{"accuracy": 0.1}')
    first = bookext.results_digest(tmp_path)
    record.write_text('{"accuracy": 0.9}')
    second = bookext.results_digest(tmp_path)
    record.rename(runs / "nin-seed1-cpu.json")
    third = bookext.results_digest(tmp_path)
    assert len({empty, first, second, third}) == 4
    shutil.rmtree(runs)
    assert bookext.results_digest(tmp_path) == empty


def captioned(cell: str, name: str) -> dict[str, object]:
    """Metadata that make the comment at the head of a cell the caption of its figure."""
    head = cell.partition("\n")[0]
    if not head.startswith("# "):
        return {}
    return {"mystnb": {"figure": {"name": name, "caption": head.removeprefix("# ")}}}


def build(folder: Path, *cells: str, url: str = "") -> tuple[str, str]:
    """(log, page) of a book of one chapter with those cells, built with this book's configuration.

    A cell that puts out a figure bears a caption when it begins with a comment: that comment.
    """
    notebook = nbformat.v4.new_notebook(
        cells=[
            nbformat.v4.new_markdown_cell("# Title"),
            *(
                nbformat.v4.new_code_cell(cell, metadata=captioned(cell, f"fig-{number}"))
                for number, cell in enumerate(cells, start=1)
            ),
        ],
        metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}},
    )
    nbformat.write(notebook, folder / "index.ipynb")
    return build_book(folder, url), (folder / "_build" / "html" / "index.html").read_text()


def build_book(folder: Path, url: str = "", chapters: str = "") -> str:
    """The log of building the pages in a folder, index the first, as this book is built.

    chapters is what _toc.yml says of further pages.
    """
    settings = yaml.safe_load((book.ROOT / "_config.yml").read_text())
    settings["repository"] = {"url": url, "branch": "1.10#%b"}
    settings["bibtex_bibfiles"] = [str(book.ROOT / "references.bib")]
    settings["html"] = {}
    settings["sphinx"]["local_extensions"] = {"ninlab.bookext": str(book.ROOT)}
    (folder / "_config.yml").write_text(yaml.safe_dump(settings))
    (folder / "_toc.yml").write_text(f"format: jb-book\nroot: index\n{chapters}")
    jupyter_book = Path(sys.executable).with_name("jupyter-book")
    command = [jupyter_book, "build", "-n", folder]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    return run.stdout + run.stderr


NAMELESS = "import plotly.graph_objects as go\ngo.Figure(go.Bar(y=[1]))"
BARS = "# Half.\nimport plotly.graph_objects as go\ngo.Figure(go.Bar(x=['a'], y=[0.5]))"
PICTURE = "# Dark.\nimport plotly.graph_objects as go\ngo.Figure(go.Heatmap(z=[[0, 1]]))"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, str]:
    """(folder, log, page) of a book without an address."""
    folder = tmp_path_factory.mktemp("book")
    return folder, *build(folder, BARS, PICTURE, NAMELESS)


@pytest.mark.slow
def test_without_an_address_no_button_points_anywhere(built: tuple[Path, str, str]) -> None:
    _, _, page = built
    assert "github.com" not in page
    assert "colab.research" not in page


@pytest.mark.slow
def test_with_an_address_the_buttons_point_to_the_branchs_chapter_and_the_repository(
    tmp_path: Path,
) -> None:
    _, page = build(tmp_path, "1 + 1", url="https://github.com/Owner/name")
    colab = "https://colab.research.google.com/github/Owner/name/blob"
    assert f'href="{colab}/1.10%23%25b/index.ipynb"' in page
    assert 'href="https://github.com/Owner/name/issues/new' in page
    assert '<link rel="canonical" href="https://owner.github.io/name/index.html"' in page


@pytest.mark.slow
def test_a_figure_that_nobody_could_name_is_a_warning_of_the_build(
    built: tuple[Path, str, str],
) -> None:
    _, log, _ = built
    assert log.count("WARNING: a Plotly figure has neither a caption nor a title") == 1


@pytest.mark.slow
def test_a_figure_offers_its_numbers_and_a_figure_of_pictures_offers_none(
    built: tuple[Path, str, str],
) -> None:
    folder, _, page = built
    assert page.count("Data (csv)") == page.count('href="_downloads/data/fig-1.csv"') == 1
    downloads = folder / "_build" / "html" / "_downloads" / "data"
    assert [file.name for file in downloads.iterdir()] == ["fig-1.csv"]
    assert (downloads / "fig-1.csv").read_text() == "x,y\na,0.5\n"


@pytest.mark.slow
def test_a_page_is_executed_before_pages_are_read_and_only_then(
    built: tuple[Path, str, str],
) -> None:
    _, log, _ = built
    assert "Using cached notebook" in log
    assert "Executed notebook in" not in log


@pytest.mark.slow
def test_a_cell_that_fails_fails_the_build_with_its_error(tmp_path: Path) -> None:
    with pytest.raises(subprocess.CalledProcessError) as failed:
        build(tmp_path, "1 + 1", "1 / 0")
    assert "ZeroDivisionError" in failed.value.stderr
