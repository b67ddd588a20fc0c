"""What is run by hand answers a hostile command line with a sentence, and harms no file."""

from __future__ import annotations

import ast
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ninlab.errors import NinlabError
from tests.book import ROOT
from tests.disks import disk_with_room_for
from tools import (
    ask_cudnn,
    chromium,
    cudnn_workspaces,
    gpu_kit,
    readme_figure,
    readme_page,
    torchvision_calls,
    update_constraints,
    write_references,
)
from tools.whole_files import replace_files


def files(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


# ---------------------------------------------------------------- several files, or none


def test_files_are_replaced_whole_and_keep_their_mode_and_their_links(tmp_path: Path) -> None:
    program, link = tmp_path / "program", tmp_path / "link"
    program.write_text("old")
    program.chmod(0o750)
    link.symlink_to(program)
    replace_files({link: "né", tmp_path / "new": b"\0"})
    assert link.is_symlink()
    assert files(tmp_path) == {link: b"n\xc3\xa9", program: b"n\xc3\xa9", tmp_path / "new": b"\0"}
    assert program.stat().st_mode & 0o777 == 0o750


@pytest.mark.parametrize("room", [0, 5, 15])
def test_on_a_full_disk_no_file_is_replaced_and_none_is_left(tmp_path: Path, room: int) -> None:
    small, large = tmp_path / "small", tmp_path / "large"
    for path in (small, large):
        path.write_text("old")
    with disk_with_room_for(room), pytest.raises(SystemExit, match="nothing was changed"):
        replace_files({small: "x" * 10, large: "x" * 20})
    assert files(tmp_path) == {small: b"old", large: b"old"}


def test_a_file_in_a_folder_that_is_none_is_named(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="nowhere/file could not be written: No such file"):
        replace_files({tmp_path / "file": "", tmp_path / "nowhere" / "file": ""})
    assert files(tmp_path) == {}


def test_a_file_whose_name_a_folder_has_stops_all_before_the_first_is_replaced(
    tmp_path: Path,
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.write_text("old")
    second.mkdir()
    with pytest.raises(SystemExit) as ended:
        replace_files({first: "new", second: "new"})
    assert ended.value.code == (
        f"{second} could not be written: Is a directory; nothing was changed"
    )
    assert files(tmp_path) == {first: b"old"}


def test_what_has_been_replaced_when_a_name_is_refused_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(beside: Path, target: Path) -> None:
        if target == second:
            raise PermissionError(1, "Operation not permitted")
        os.replace(beside, target)

    first, second, third = (tmp_path / name for name in ("first", "second", "third"))
    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(SystemExit) as ended:
        replace_files(dict.fromkeys((first, second, third), "new"))
    assert ended.value.code == (
        f"{second} could not be written: Operation not permitted; replaced before it: {first}"
    )
    assert files(tmp_path) == {first: b"new"}


# ---------------------------------------------------------------- tools that take no arguments


@pytest.mark.parametrize(
    "tool",
    [readme_figure, readme_page, torchvision_calls, update_constraints, write_references],
    ids=lambda tool: tool.__name__,
)
@pytest.mark.parametrize(("argument", "code"), [("--help", 0), ("--nonsense", 2), ("file", 2)])
def test_a_tool_without_arguments_does_nothing_when_it_is_given_one(
    tool: object, argument: str, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def replace(contents: object) -> None:
        raise AssertionError("it wrote")

    monkeypatch.setattr(tool, "replace_files", replace)
    monkeypatch.setattr(sys, "argv", ["tool", argument])
    with pytest.raises(SystemExit) as ended:
        tool.main()  # type: ignore[attr-defined]
    assert ended.value.code == code


def test_a_browser_that_is_named_and_not_there_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    for named in ("/no/such/browser", "\n", "-", str(ROOT)):
        monkeypatch.setenv(chromium.EXECUTABLE_VARIABLE, named)
        with pytest.raises(FileNotFoundError, match="NINLAB_CHROMIUM names no program"):
            chromium.executable()


# ---------------------------------------------------------------- the kit for a GPU machine


@pytest.mark.parametrize("folder", ["tools", ".", "ninlab", "runs"])
def test_a_folder_that_holds_more_than_a_kit_is_left_alone(folder: str) -> None:
    before = sorted((ROOT / folder).iterdir())
    with pytest.raises(SystemExit, match="holds other files"):
        gpu_kit.pack(ROOT / folder)
    assert sorted((ROOT / folder).iterdir()) == before


def test_a_kit_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "kit").write_text("a file")
    with pytest.raises(SystemExit, match="is no folder"):
        gpu_kit.pack(tmp_path / "kit")
    assert (tmp_path / "kit").read_text() == "a file"


def test_a_kit_stays_when_no_new_one_can_be_packed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(kit: Path) -> None:
        raise OSError("No space left on device")

    (tmp_path / "on_gpu.sh").write_text("an older one")
    monkeypatch.setattr(gpu_kit, "pack_commit", fail)
    monkeypatch.setattr(gpu_kit, "run", lambda *command: "")
    monkeypatch.setattr(sys, "argv", ["gpu_kit.py", str(tmp_path)])
    with pytest.raises(SystemExit, match="No space left on device; no kit was packed"):
        gpu_kit.main()
    assert files(tmp_path) == {tmp_path / "on_gpu.sh": b"an older one"}


# ---------------------------------------------------------------- tables of scratch memory

CONTENTS = (b"", b"{", b"[]\n", b'"a"\n', b"1\n", b"\xff\n", b"{}\n", b'{"how": "device"}\n')
MANY_LISTS = b"[" * 100_000 + b"\n"


def refused(main: Callable[[list[str]], object], *arguments: str) -> bool:
    """Whether a tool ends with exit code 2, be it returned or raised."""
    try:
        return main([*arguments]) == 2
    except SystemExit as ended:
        return ended.code == 2
    except NinlabError as error:
        return error.exit_code == 2


@pytest.mark.parametrize("content", [*CONTENTS, MANY_LISTS], ids=lambda content: repr(content[:20]))
@pytest.mark.parametrize("option", ["--answers", "--device-json"])
def test_a_file_that_is_something_else_makes_no_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str, content: bytes
) -> None:
    (tmp_path / "file").write_bytes(content)
    named = ["--device", "h100", "--torch", "2.11.0", "--output", str(tmp_path)]
    for file in ("file", "nowhere", "."):
        assert refused(cudnn_workspaces.main, *named, option, str(tmp_path / file))
        (said,) = (line for line in capsys.readouterr().err.splitlines() if "error: " in line)
        assert str(tmp_path / file) in said
    assert files(tmp_path) == {tmp_path / "file": content}


@pytest.mark.parametrize("name", ["../h100", "a/b", "", ".", "a b", "a\n", "x" * 300, "é"])
def test_a_table_has_a_name_that_stays_in_its_folder(tmp_path: Path, name: str) -> None:
    rest = ["--output", str(tmp_path), "--answers", "nowhere"]
    assert refused(cudnn_workspaces.main, f"--device={name}", "--torch=2.11.0", *rest)
    assert refused(cudnn_workspaces.main, "--device=h100", f"--torch={name}", *rest)


def test_a_folder_of_tables_that_is_none_is_refused_before_anything_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cudnn_workspaces, "made_here", None)
    named = ["--device", "h100", "--torch", "2.11.0"]
    assert refused(cudnn_workspaces.main, *named, "--output", str(tmp_path / "nowhere"))


@pytest.mark.parametrize("content", [*CONTENTS[2:], MANY_LISTS, b"my only copy", b"a\nb"])
def test_a_file_of_others_gets_no_answers(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "mine.txt"
    file.write_bytes(content)
    assert refused(ask_cudnn.main, str(file), "--device", "cpu", "--deadline", "0")
    assert file.read_bytes() == content


def test_a_head_that_a_lost_machine_tore_is_written_again(tmp_path: Path) -> None:
    file = tmp_path / "answers.jsonl"
    for torn in (b"", b'{"dev', b'{"device":{"name'):
        file.write_bytes(torn)
        assert not ask_cudnn.Log(file).has_head
        assert file.read_bytes() == b""


@pytest.mark.parametrize("moment", ["nan", "inf", "-inf", "soon", "", "1" * 5000])
def test_a_deadline_that_no_time_is_after_is_refused(tmp_path: Path, moment: str) -> None:
    assert refused(ask_cudnn.main, str(tmp_path), "--device=cpu", f"--deadline={moment}")
    assert files(tmp_path) == {}


# ---------------------------------------------------------------- how they end


@pytest.mark.parametrize("path", sorted((ROOT / "tools").glob("*.py")), ids=lambda path: path.stem)
def test_a_tool_ends_as_every_program_of_ninlab_does(path: Path) -> None:
    started = ast.parse(path.read_text(encoding="utf-8")).body[-1:]
    runs = [ast.unparse(each) for each in started if isinstance(each, ast.If)]
    assert runs in ([], ["if __name__ == '__main__':\n    exits.run(main)"])
