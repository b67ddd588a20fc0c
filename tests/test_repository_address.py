"""The address of the repository: kept in one place, written from there wherever readers need it."""

from __future__ import annotations

import ast
import importlib.util
import shlex
import subprocess
from pathlib import Path
from urllib.parse import unquote, urlsplit

import nbformat
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config

from tests import book
from tests.disks import disk_with_room_for
from tools import set_repository, write_references

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
    set_repository.main(["owner/name", "--branch=1.10"], copy)
    before = [path.read_bytes() for path in files]
    set_repository.main([], copy)
    assert [path.read_bytes() for path in files] == before


def files(copy: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in sorted(copy.rglob("*")) if path.is_file()}


def refusal(copy: Path, *arguments: str) -> str:
    """What the command says when it refuses, which changes nothing."""
    before = files(copy)
    with pytest.raises(SystemExit) as refused:
        set_repository.main([*arguments], copy)
    assert files(copy) == before
    sentence = str(refused.value)
    assert sentence.count("\n") == 0
    assert len(sentence) <= 300
    return sentence


NO_REPOSITORIES = (
    *("name", "owner/", "https://example.org/owner/name", "a b/c", "owner/..", "owner/."),
    *("_/name", "owner/na\\1me", 'owner/"', "owner/name\n", "owner/name/more", "", "x" * 5000),
)


@pytest.mark.parametrize("wrong", NO_REPOSITORIES)
def test_what_is_no_repository_is_refused_and_changes_nothing(copy: Path, wrong: str) -> None:
    assert "OWNER/NAME" in refusal(copy, wrong)


# ---------------------------------------------------------------- branches

BRANCHES = (
    *(
        "main",
        "v1.0",
        "1.10",
        "1e3",
        "0x1f",
        "0o7",
        "null",
        "Null",
        "true",
        "no",
        "y",
        "=",
    ),
    *("c#d", "#c", "'", '"', 'a"b', "$HOME", "`id`", "$(id)", "{HOME}", "a%20b", "%", "!"),
    *("&a", "|", ">", "a;b", "<<", "a@b", "100%", "feature/one", "refs/heads/x", "2026-11-27"),
    *("é", "\x85", "\u2028", "\ufeff", "\U0001f600", "a.lock.b", "{", "}", "a-b", "b" * 300),
)
"""What git takes for a branch, though YAML, a shell or Python could read something else."""

NO_BRANCHES = (
    *(
        "",
        " ",
        "a b",
        "a\tb",
        "a\nb",
        "main\n",
        "\x01",
        "\x7f",
        "a..b",
        "..",
        ".",
        ".a",
        "a.",
        "a/.b",
    ),
    *(
        "a.lock",
        "a.lock/b",
        "/a",
        "a/",
        "a//b",
        "/",
        "@",
        "@{-1}",
        "a@{1}",
        "HEAD",
        "-x",
        "-",
        "--",
    ),
    *("~", "a~1", "a^", "a:b", "a?", "a*", "[a]", "a[", "\\", "\\1", "a\\g<0>", "\udcff"),
)


def git_takes(name: str, folder: Path) -> bool:
    """Whether git calls that a branch, of just that name."""
    command = ["git", "check-ref-format", "--branch", name]
    ended = subprocess.run(command, cwd=folder, capture_output=True, check=False)
    return ended.returncode == 0 and ended.stdout == f"{name}\n".encode()


@pytest.mark.parametrize("name", [*BRANCHES, *NO_BRANCHES])
def test_a_branch_is_what_git_takes_for_one(name: str, tmp_path: Path) -> None:
    assert set_repository.is_branch(name) == (name in BRANCHES)
    if name not in ("@", "\udcff"):  # a commit to all other commands; no text
        assert set_repository.is_branch(name) == git_takes(name, tmp_path)


PIECES = [
    "a",
    "b",
    "1",
    "é",
    "@",
    "{",
    ".",
    "/",
    ".lock",
    "HEAD",
    "-",
    "~",
    "\\",
    "#",
    '"',
    " ",
    "\n",
]


@settings(max_examples=60)
@given(name=st.lists(st.sampled_from(PIECES), min_size=1, max_size=4).map("".join))
def test_a_random_name_is_a_branch_when_git_says_so(
    tmp_path_factory: pytest.TempPathFactory, name: str
) -> None:
    if name != "@":
        folder = tmp_path_factory.getbasetemp()
        assert set_repository.is_branch(name) == git_takes(name, folder), name


@pytest.mark.parametrize("branch", BRANCHES)
def test_every_branch_comes_back_as_the_same_text(copy: Path, branch: str) -> None:
    before = {"title": "A book"}
    (copy / "_config.yml").write_text("title: A book\nrepository:\n  url: ''\n  branch: 'a'\n")
    set_repository.main(["owner/name", f"--branch={branch}"], copy)
    assert set_repository.repository(copy) == ("https://github.com/owner/name", branch)
    after = yaml.safe_load((copy / "_config.yml").read_text(encoding="utf-8"))
    assert before | {"repository": after["repository"]} == after


@pytest.mark.parametrize("branch", NO_BRANCHES)
def test_what_git_refuses_is_refused_and_changes_nothing(copy: Path, branch: str) -> None:
    assert "no name of a branch" in refusal(copy, "owner/name", f"--branch={branch}")


@pytest.mark.parametrize("branch", ["main", *BRANCHES])
def test_the_set_up_cell_holds_the_branch_as_pip_reads_it(branch: str) -> None:
    cell = set_repository.setup_cell(ADDRESS, branch).replace("%pip", "# %pip")
    (address,) = (
        node.value.value
        for node in ast.parse(cell).body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets) == "ADDRESS"
    )
    assert shlex.split(f'"{address}"') == [address]
    assert not set("$`\\") & set(address)  # which a shell reads within quotes, too
    path = urlsplit(address)
    assert (path.query, path.fragment) == ("", "")
    repository, _, revision = path.path.rpartition("@")  # as pip splits it
    assert (repository, unquote(revision)) == ("/owner/name", branch)


# ---------------------------------------------------------------- nothing by halves


def test_a_branch_that_a_hand_wrote_as_a_number_is_refused(copy: Path) -> None:
    config = copy / "_config.yml"
    config.write_text(config.read_text().replace('branch: "main"', "branch: 1.10"))
    assert "put it in quotes" in refusal(copy)


@pytest.mark.parametrize("text", ["", "title: a book\n", "a: [", "repository:\n  url: ''\n"])
def test_a_configuration_without_an_address_is_refused(copy: Path, text: str) -> None:
    (copy / "_config.yml").write_text(text)
    assert "_config.yml" in refusal(copy, "owner/name")


VERSION_4 = '"metadata": {}, "nbformat": 4, "nbformat_minor": 5'
NO_NOTEBOOKS = [
    *("", '{"cells": [', "[]", "null", "3", '"x"', '{"cells": [3]}', "[" * 100_000),
    f'{{"cells": [3], {VERSION_4}}}',
    f'{{"cells": [{{"cell_type": "code"}}], {VERSION_4}}}',
    f'{{"cells": [{{"cell_type": "raw", "id": "a", "metadata": {{}}, "source": 3}}], {VERSION_4}}}',
    f"{{{VERSION_4}}}",
    '{"nbformat": "4"}',
    '{"nbformat": 7}',
]


@pytest.mark.parametrize("content", NO_NOTEBOOKS, ids=lambda content: content[:40])
def test_a_file_that_is_no_notebook_is_named_and_nothing_is_changed(
    copy: Path, content: str
) -> None:
    torn = copy / "chapters" / "02_torn.ipynb"
    torn.write_text(content)
    assert "02_torn.ipynb is no notebook" in refusal(copy, "owner/name")
    with pytest.raises(SystemExit, match=r"02_torn.ipynb is no notebook .*; nothing was changed"):
        write_references.written(torn, copy)


@pytest.mark.parametrize("room", range(0, 4000, 800))
def test_a_full_disk_changes_nothing(copy: Path, room: int) -> None:
    with disk_with_room_for(room):
        said = refusal(copy, "owner/name", "--branch=" + "b" * 2500)
    assert "could not be written" in said


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
