"""The address of the repository: kept in one place, written from there wherever readers need it."""

from __future__ import annotations

import importlib.util
import shlex
from pathlib import Path

import nbformat
import pytest
import yaml
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config

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


# ---------------------------------------------------------------- the set-up cell

ADDRESS = "https://github.com/owner/name"
WHEEL = "ninlab-0.1.0-py3-none-any.whl"
HOSTS = ("COLAB_RELEASE_TAG", "KAGGLE_KERNEL_RUN_TYPE")
on_a_host = pytest.mark.parametrize("host", HOSTS)
with_and_without_address = pytest.mark.parametrize("url", ["", ADDRESS])


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty working folder of a machine that no host of notebooks lends."""
    for host in HOSTS:
        monkeypatch.delenv(host, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def without_ninlab(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Python that finds no ninlab."""
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "ninlab" else find(name)
    )


def installed_by(url: str, inputs: Path = Path("no folder")) -> list[str]:
    """What the set-up cell gives to pip, word by word; raises what the cell raises.

    inputs is the folder that stands for Kaggle's.
    """
    told: list[str] = []
    settings = Config({"HistoryManager": {"enabled": False}})
    shell = InteractiveShell(config=settings)
    shell.register_magic_function(lambda line: told.extend(shlex.split(line)), "line", "pip")
    cell = set_repository.setup_cell(url, "main").replace("/kaggle/input", str(inputs))
    shell.run_cell(cell).raise_error()
    return told


@with_and_without_address
@pytest.mark.usefixtures("without_ninlab", "elsewhere")
def test_the_set_up_cell_does_nothing_elsewhere(url: str) -> None:
    assert installed_by(url) == []


@on_a_host
@with_and_without_address
def test_the_set_up_cell_does_nothing_where_ninlab_is(
    monkeypatch: pytest.MonkeyPatch, elsewhere: Path, host: str, url: str
) -> None:
    monkeypatch.setenv(host, "any")
    (elsewhere / WHEEL).touch()
    assert installed_by(url) == []


@on_a_host
@pytest.mark.usefixtures("without_ninlab", "elsewhere")
def test_the_set_up_cell_installs_from_the_address(
    monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    monkeypatch.setenv(host, "any")
    assert installed_by(ADDRESS) == ["install", "--quiet", f"git+{ADDRESS}@main"]


@on_a_host
@with_and_without_address
@pytest.mark.usefixtures("without_ninlab")
def test_the_set_up_cell_installs_the_wheel_that_was_uploaded(
    monkeypatch: pytest.MonkeyPatch, elsewhere: Path, host: str, url: str
) -> None:
    monkeypatch.setenv(host, "any")
    (elsewhere / WHEEL).touch()
    assert installed_by(url) == ["install", "--quiet", WHEEL]


@pytest.mark.usefixtures("without_ninlab")
def test_the_set_up_cell_finds_a_wheel_among_the_inputs_of_kaggle(
    monkeypatch: pytest.MonkeyPatch, elsewhere: Path
) -> None:
    monkeypatch.setenv("KAGGLE_KERNEL_RUN_TYPE", "Interactive")
    wheel = elsewhere / "inputs" / "a data set" / WHEEL
    wheel.parent.mkdir(parents=True)
    wheel.touch()
    assert installed_by("", elsewhere / "inputs") == ["install", "--quiet", str(wheel)]


@on_a_host
@pytest.mark.usefixtures("without_ninlab", "elsewhere")
def test_the_set_up_cell_says_in_one_sentence_what_it_needs(
    monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    monkeypatch.setenv(host, "any")
    with pytest.raises(FileNotFoundError) as refused:
        installed_by("")
    sentence = str(refused.value)
    assert sentence.count(".") == 1
    assert sentence.endswith(".")
    for remedy in ("Upload the wheel", "run this cell again", "address into ADDRESS"):
        assert remedy in sentence


@with_and_without_address
def test_the_set_up_cell_is_as_narrow_as_a_notebook(url: str) -> None:
    assert max(map(len, set_repository.setup_cell(url, "main").splitlines())) <= 76
