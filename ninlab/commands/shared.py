"""What several commands need: numbers and names as options, forms of an answer, the records."""

from __future__ import annotations

import csv
import math
import shlex
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from ninlab import handover, records
from ninlab.errors import NinlabError, one_sentence, printable, quoted
from ninlab.steps import Named, named
from ninlab.units import format_range, parse_device_name, parse_number, parse_whole

_begun = time.time()


def begin() -> None:
    """A command begins now: what it may take counts from here, its imports included."""
    global _begun
    _begun = time.time()


def deadline_of(deadline: float | None, budget_seconds: float | None) -> float | None:
    """Until when a command may work, in seconds since 1970; None without a limit.

    That is the earlier of the deadline and so many seconds after the command began.
    """
    given = [deadline] if deadline is not None else []
    if budget_seconds is not None:
        given.append(_begun + budget_seconds)
    return min(given, default=None)


# ---------------------------------------------------------------- what options take


def one_of(kind: type[Named], shown: Iterable[str] | None = None) -> dict[str, Any]:
    """The arguments of typer.Option for a member of kind; the help shows all, or those of shown."""
    members = "|".join(kind if shown is None else shown)
    return _read_by(lambda text: named(kind, text, "value"), f"[{members}]")


def whole_number(least: float = -math.inf, most: float = math.inf) -> dict[str, Any]:
    """The arguments of typer.Option for a whole number of that range."""
    return _read_by(lambda text: parse_whole(text, least, most), _number("int", least, most))


def finite_number(least: float, most: float = math.inf) -> dict[str, Any]:
    """The arguments of typer.Option for a finite number of that range."""
    return _read_by(lambda text: parse_number(text, least, most), _number("float", least, most))


def _number(kind: str, least: float, most: float) -> str:
    """What the help shows in the place of a number: ``<int from 1 to 256>``."""
    return f"<{kind}{format_range(least, most)}>"


def any_number() -> dict[str, Any]:
    """The arguments of typer.Option for a number that others judge."""
    return _read_by(parse_number, "<float>")


def a_path(shown: str = "<path>") -> dict[str, Any]:
    """The arguments of typer.Option for a file or folder, there or not."""
    return _read_by(_path, shown)


def _path(text: str) -> Path:
    if not text:  # a variable of a script that is not set; Python takes it for this folder
        raise NinlabError("an empty path names no file and no folder; write . for this folder")
    return Path(text)


def _read_by(parse: Callable[[str], Any], shown: str) -> dict[str, Any]:
    """How typer reads a value, or a default, with the words of ninlab where it is refused."""

    def read(value: object) -> Any:
        try:
            return parse(str(value))
        except NinlabError as error:
            raise typer.BadParameter(str(error)) from error

    return {"parser": read, "metavar": shown}


class Format(StrEnum):
    """How an answer is written."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"


MOST_IMAGES = 2**31 - 1
"""In one batch; torch cannot say how many bytes far larger ones have."""

MOST_THREADS = 1024
"""Where the system has no more threads to give, torch ends the process without a word of why."""

Output = Annotated[
    Format,
    typer.Option(
        "--format",
        help="How to write it. In csv a text that begins as a formula does has an apostrophe "
        "before it.",
        **one_of(Format),
    ),
]
BATCH_SIZE = whole_number(1, MOST_IMAGES)
DeviceName = Annotated[
    str,
    typer.Option("--device", help="cpu, cuda, or auto.", **_read_by(parse_device_name, "<str>")),
]
Threads = Annotated[int, typer.Option(help="CPU threads.", **whole_number(1, MOST_THREADS))]
RunsFolder = Annotated[
    Path | None,
    typer.Option("--runs", help="Folder of the records; by default the book's own.", **a_path()),
]


# ---------------------------------------------------------------- forms of an answer

NOT_A_TERMINAL_WIDTH = 240  # of a table that goes to a file or a pipe: no column is cut


def wide_console() -> Console:
    """As wide as the terminal; wide enough for every table where there is none.

    It prints what it is given: a layer that is called ``[bold]`` is no markup.
    """
    as_given = partial(Console, markup=False, emoji=False, highlight=False)
    standard = as_given()
    return standard if standard.is_terminal else as_given(width=NOT_A_TERMINAL_WIDTH)


_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\0", "'")
"""With what a cell begins that a spreadsheet may carry out: OWASP's ASVS 5.0, 1.2.10. The
apostrophe, which says that text follows, is among them so that reading can take off just one."""


def write_csv(rows: Iterable[Mapping[str, Any]], columns: Sequence[str]) -> None:
    """Print rows as CSV below the names of the columns.

    A text that a spreadsheet would take for a formula has an apostrophe before it: others have
    chosen the names of files, layers and networks. Numbers stay numbers. A reader who takes one
    apostrophe off every text that begins with one has what was written.
    """
    writer = csv.DictWriter(_Lines(), columns, lineterminator=_Lines.end)
    writer.writeheader()
    writer.writerows({name: _harmless(cell) for name, cell in row.items()} for row in rows)


class _Lines:
    """Prints what a csv writer makes with lines that end as elsewhere.

    Before Python 3.13 the writer quotes a carriage return only where its own lines end with one.
    """

    end = "\r\n"

    def write(self, line: str) -> None:
        sys.stdout.write(f"{line.removesuffix(self.end)}\n")


def _harmless(cell: object) -> object:
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(_FORMULA) else cell


# ---------------------------------------------------------------- records and time


def existing_folder(chosen: Path | None) -> Path:
    """The folder that the reader chose with --runs, or the book's.

    Raises NinlabError when it is none, RecordError when this ninlab came without records.
    """
    if chosen is None:
        return records.runs_folder()
    if not chosen.is_dir():
        raise NinlabError(f"--runs {quoted(str(chosen))} is no folder; create it first")
    return chosen.resolve()


def typed_command() -> str:
    """This process's command line, as a reader would type it; what is no character is escaped."""
    return printable(shlex.join(["python", "-m", "ninlab", *sys.argv[1:]]))


def handing_over(folder: Path, results: Path | None) -> Callable[[], None]:
    """What brings all that is new to the results: once now, and whenever it is called.

    What an earlier machine handed over is taken up first: it is not made again. A folder that
    cannot be read or written is a RecordError now, before any work; later on it is a line on
    stderr, because the next call, or the next start, brings what that one did not. Without results
    nothing is done.
    """
    if results is None:
        return lambda: None
    handover.take_up(folder, results)
    handover.hand_over(folder, results)

    def again() -> None:
        try:
            handover.hand_over(folder, results)
        except (NinlabError, OSError) as error:
            typer.echo(f"not handed over: {one_sentence(error)}", err=True)

    return again
