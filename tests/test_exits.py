"""A program ends with one line and the right exit code, whatever goes wrong in it."""

import argparse
import os
import signal
import subprocess
import sys
import textwrap

import pytest

from ninlab import exits
from ninlab.errors import DataError, NinlabError
from ninlab.exits import INTERRUPTED, NobodyReadsError, exit_code_of
from tests.book import ROOT
from tests.processes import python

LINES = 200
LINE = "x" * 1000
"""Together more than any buffer between two programs holds."""


def ends(program: str, shell: str = "", **options: object) -> subprocess.CompletedProcess[str]:
    """How a shell sees a program end that `exits.run` runs, with stdin, stdout and stderr as told.

    It has Ctrl-C as a program in the foreground has it.
    """
    preamble = (
        "import signal\nfrom ninlab import exits\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    )
    whole = preamble + textwrap.dedent(program)
    command = ["bash", "-o", "pipefail", "-c", f'"$0" -c "$1" {shell}', sys.executable, whole]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, **({"cwd": ROOT} | options)
    )


# ---------------------------------------------------------------- what the work says


def raising(error: BaseException):
    def work() -> None:
        raise error

    return work


class OwnCodeError(NinlabError):
    exit_code = 5


@pytest.mark.parametrize(
    ("work", "code", "said"),
    [
        (lambda: None, 0, ""),
        (lambda: 4, 4, ""),
        (raising(DataError("no\n  data")), 2, "error: no data\n"),
        (raising(OwnCodeError("lost")), 5, "error: lost\n"),
        (
            raising(FileNotFoundError(2, "No such file", "a\x1bb")),
            2,
            "error: a\\x1bb: No such file\n",
        ),
        (raising(OSError("odd")), 2, "error: odd\n"),
        (raising(KeyboardInterrupt()), INTERRUPTED, "interrupted\n"),
        (raising(NobodyReadsError("")), 141, ""),
        (raising(SystemExit("no\n  kit")), 2, "error: no kit\n"),
        *(
            (raising(SystemExit(code)), 2, f"error: something else ended this program, {of}\n")
            for code, of in ((None, "with code 0"), (0, "with code 0"), (7, "with code 7"))
        ),
    ],
)
def test_every_end_of_work_has_its_code_and_at_most_one_line(work, code, said, capsys):
    assert exit_code_of(work) == code
    assert capsys.readouterr().err == said


@pytest.mark.parametrize("error", [SystemExit(0), ImportError("initialization failed")])
def test_whatever_a_library_makes_of_ctrl_c_is_an_interruption(error, monkeypatch, capsys):
    monkeypatch.setattr(exits, "_interrupted", True)
    assert exit_code_of(raising(error)) == INTERRUPTED
    assert capsys.readouterr().err == "interrupted\n"


@pytest.mark.parametrize(("argument", "code"), [("--help", 0), ("--no-such-option", 2)])
def test_what_reads_the_arguments_of_a_tool_ends_it_as_it_likes(argument, code, capsys):
    with pytest.raises(SystemExit) as ended:
        exit_code_of(lambda: argparse.ArgumentParser().parse_args([argument]) and None)
    assert ended.value.code == code
    assert "something else" not in capsys.readouterr().err


def test_a_fault_of_ninlab_is_not_hidden():
    with pytest.raises(ZeroDivisionError):
        exit_code_of(raising(ZeroDivisionError()))


# ---------------------------------------------------------------- where the process goes on


class OutputOfANotebook:
    """All of a standard stream that the cells of a notebook have."""

    def __init__(self) -> None:
        self.written = ""

    def write(self, text: str) -> int:
        self.written += text
        return len(text)

    def flush(self) -> None:
        pass


def of_the_process():
    handler = signal.getsignal(signal.SIGINT)
    return sys.stdout, sys.stderr, sys.unraisablehook, handler


@pytest.mark.parametrize("place", ["a notebook", "IPython in a terminal"])
def test_a_program_that_runs_inside_another_leaves_it_as_it_was(place, monkeypatch):
    monkeypatch.setattr(sys, "stdout", OutputOfANotebook())
    if place == "IPython in a terminal":
        monkeypatch.setattr(sys, "__stdout__", sys.stdout)
        monkeypatch.setattr(sys, "ps1", "In : ", raising=False)
    before = of_the_process()
    with pytest.raises(SystemExit) as ended:
        exits.run(lambda: print("the answer") or 3)
    assert of_the_process() == before
    assert (ended.value.code, sys.stdout.written) == (3, "the answer\n")


# ---------------------------------------------------------------- where the answer goes

WAYS = {
    "print": f"exits.run(lambda: [print('{LINE}') for _ in range({LINES})] and None)",
    "a short answer": "exits.run(lambda: print('a line'))",
    "echo": f"""
        import typer
        exits.run(lambda: typer.echo('{LINE}\\n' * {LINES}))
    """,
    "table": f"""
        from ninlab.commands.shared import wide_console
        exits.run(lambda: wide_console().out('{LINE}\\n' * {LINES}, highlight=False))
    """,
    "csv": f"""
        from ninlab.commands.shared import write_csv
        exits.run(lambda: write_csv([{{'a': '{LINE}'}}] * {LINES}, ['a']))
    """,
}


@pytest.mark.parametrize(
    ("way", "settings"), [*((way, {}) for way in WAYS), ("echo", {"PYTHONIOENCODING": "ascii"})]
)
def test_an_answer_that_does_not_fit_is_an_error_in_one_sentence(way, settings):
    ended = ends(WAYS[way], "> /dev/full", env=os.environ | settings)
    said = "error: the answer could not be written: No space left on device\n"
    assert (ended.returncode, ended.stderr) == (2, said)


@pytest.mark.parametrize(
    ("way", "settings"),
    [
        *((way, {}) for way in ("print", "echo", "table", "csv")),
        ("echo", {"PYTHONUNBUFFERED": "1"}),
        ("echo", {"PYTHONIOENCODING": "ascii"}),
    ],
)
def test_a_reader_who_has_enough_ends_the_program_without_a_word(way, settings):
    ended = ends(WAYS[way], "| head -n 1 | cut -c 1", env=os.environ | settings)
    assert (ended.returncode, ended.stderr) == (141, "")
    assert len(ended.stdout) == 2


def test_no_work_begins_where_no_answer_can_be_given(tmp_path):
    work = f"exits.run(lambda: open({str(tmp_path / 'worked')!r}, 'w').close())"
    ended = ends(work, ">&-")
    assert ended.returncode == 2
    assert ended.stderr.startswith("error: standard output is closed")
    assert not (tmp_path / "worked").exists()


@pytest.mark.parametrize("shell", ["2>&-", "2> /dev/full", "<&- 2>&-"])
def test_no_work_ends_for_what_cannot_be_said_and_no_file_gets_it(shell, tmp_path):
    program = f"""
        import os, sys
        def work():
            with open({str(tmp_path / "record")!r}, "w") as file:
                print("on the way", file=sys.stderr, flush=True)
                os.write(2, b"a library") if {"full" not in shell} else None
                print("whole", file=file)
            print("answer")
        exits.run(work)
    """
    ended = ends(program, shell)
    assert (ended.returncode, ended.stdout) == (0, "answer\n")
    assert (tmp_path / "record").read_text() == "whole\n"


def test_what_others_print_while_python_ends_is_no_part_of_the_answer():
    program = """
        import atexit, os
        def work():
            atexit.register(print, "printed late")
            atexit.register(os.system, "echo run late")
            print("the answer")
            raise exits.NinlabError("an error")
        exits.run(work)
    """
    ended = ends(program)
    assert (ended.returncode, ended.stdout) == (2, "the answer\n")
    assert ended.stderr == "error: an error\nrun late\nprinted late\n"


def test_a_name_that_is_no_text_can_be_an_answer():
    ended = ends("exits.run(lambda: print('net\\udcff.py'))")
    assert (ended.returncode, ended.stdout) == (0, "net\\udcff.py\n")


def test_a_command_says_that_its_answer_does_not_fit():
    command = f"{sys.executable} -m ninlab networks --format csv > /dev/full"
    ended = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert ended.returncode == 2
    assert ended.stderr.splitlines() == [
        "error: the answer could not be written: No space left on device"
    ]


# ---------------------------------------------------------------- Ctrl-C

INTERRUPTIONS = {
    "work": """
        def work():
            signal.raise_signal(signal.SIGINT)
    """,
    "a library that makes an error of its own of it": """
        def work():
            try:
                signal.raise_signal(signal.SIGINT)
            except KeyboardInterrupt as error:
                raise ImportError("initialization failed") from error
    """,
    "a finalizer": """
        class Freed:
            def __del__(self):
                signal.raise_signal(signal.SIGINT)
        def work():
            freed = Freed()
            del freed
            while True:
                pass
    """,
    "an import that catches everything": """
        def work():
            import careless
            print("no end")
    """,
}


@pytest.mark.parametrize("program", INTERRUPTIONS.values(), ids=INTERRUPTIONS)
def test_ctrl_c_ends_a_program_with_one_line_wherever_it_is(program, tmp_path):
    (tmp_path / "careless.py").write_text(
        textwrap.dedent("""
        import signal
        try:
            signal.raise_signal(signal.SIGINT)
        except BaseException:
            pass
    """)
    )
    path = f"import sys\nsys.path.append({str(tmp_path)!r})\n"
    ended = ends(f"{path}{textwrap.dedent(program)}\nexits.run(work)")
    assert (ended.returncode, ended.stdout, ended.stderr) == (INTERRUPTED, "", "interrupted\n")


def test_a_program_in_the_background_goes_on_ignoring_ctrl_c():
    program = """
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        exits.run(lambda: signal.raise_signal(signal.SIGINT))
    """
    assert ends(program).returncode == 0


def test_what_a_program_needs_to_end_well_imports_nothing_that_takes_time():
    slow = "{'typer', 'rich', 'torch', 'numpy', 'pydantic', 'pandas'}"
    ended = python("-c", f"import sys, ninlab.exits; print({slow} & set(sys.modules))")
    assert ended.stdout == "set()\n"
