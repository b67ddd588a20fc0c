"""The address of the repository: kept in one place, written from there wherever readers need it."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
import yaml
from IPython.core.inputtransformer2 import TransformerManager

from tests import book
from tools import set_repository

TITLE = nbformat.v4.new_markdown_cell("# Title")
SUM = nbformat.v4.new_code_cell("1 + 1")


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A book with one chapter, which has no set-up cell yet."""
    (tmp_path / "chapters").mkdir()
    (tmp_path / "_config.yml").write_text((book.ROOT / "_config.yml").read_text())
    chapter = nbformat.v4.new_notebook(cells=[TITLE, SUM])
    nbformat.write(chapter, tmp_path / "chapters" / "01_chapter.ipynb")
    return tmp_path


def cells(copy: Path) -> list[nbformat.NotebookNode]:
    return book.read(copy / "chapters" / "01_chapter.ipynb").cells


def test_one_command_sets_the_address_in_the_configuration_and_in_every_chapter(copy: Path) -> None:
    set_repository.main(["owner/name", "--branch", "v1.0"], copy)
    assert set_repository.repository(copy) == ("https://github.com/owner/name", "v1.0")
    title, setup, rest = cells(copy)
    assert (title.source, rest.source) == (TITLE.source, SUM.source)
    assert "git+https://github.com/owner/name@v1.0" in setup.source
    assert set_repository.SETUP_TAG in book.tags(setup)


def test_setting_the_address_changes_nothing_else_in_the_configuration(copy: Path) -> None:
    before = yaml.safe_load((copy / "_config.yml").read_text())
    set_repository.main(["owner/name"], copy)
    after = yaml.safe_load((copy / "_config.yml").read_text())
    assert before | {"repository": after["repository"]} == after


def test_the_whole_address_is_as_good_as_owner_and_name(copy: Path) -> None:
    set_repository.main(["https://github.com/owner/name.git"], copy)
    assert set_repository.repository(copy)[0] == "https://github.com/owner/name"


def test_a_second_address_replaces_the_first(copy: Path) -> None:
    set_repository.main(["owner/first"], copy)
    set_repository.main(["owner/second"], copy)
    assert len(cells(copy)) == 3
    assert "owner/first" not in (copy / "_config.yml").read_text() + cells(copy)[1].source


def test_the_command_is_idempotent(copy: Path) -> None:
    files = (copy / "_config.yml", copy / "chapters" / "01_chapter.ipynb")
    set_repository.main(["owner/name"], copy)
    before = [path.read_bytes() for path in files]
    set_repository.main([], copy)
    assert [path.read_bytes() for path in files] == before


@pytest.mark.parametrize("wrong", ["name", "owner/", "https://example.org/owner/name", "a b/c"])
def test_what_is_no_repository_is_refused_and_changes_nothing(copy: Path, wrong: str) -> None:
    before = (copy / "_config.yml").read_text()
    with pytest.raises(SystemExit, match="OWNER/NAME"):
        set_repository.main([wrong], copy)
    assert (copy / "_config.yml").read_text() == before


@pytest.mark.parametrize("url", ["", "https://github.com/owner/name"])
def test_the_set_up_cell_does_nothing_outside_colab(url: str) -> None:
    cell = set_repository.setup_cell(url, "main")
    plain = TransformerManager().transform_cell(cell)
    exec(compile(plain, "set-up cell", "exec"), {})  # get_ipython is unknown: a magic would raise
