"""What several commands need: forms of an answer, a console, the records, the command as typed."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Callable
from enum import StrEnum
from functools import partial
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from ninlab import handover, records
from ninlab.errors import NinlabError

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


NOT_A_TERMINAL_WIDTH = 240  # of a table that goes to a file or a pipe: no column is cut


class Format(StrEnum):
    """How an answer is written."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"


RunsFolder = Annotated[
    Path | None,
    typer.Option("--runs", help="Folder of the records; by default the book's own."),
]


def wide_console() -> Console:
    """As wide as the terminal; wide enough for every table where there is none.

    It prints what it is given: a layer that is called ``[bold]`` is no markup. What the encoding
    of the output lacks is written as its escape.
    """
    as_given = partial(Console, markup=False, emoji=False, highlight=False)
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    standard = as_given()
    return standard if standard.is_terminal else as_given(width=NOT_A_TERMINAL_WIDTH)


def existing_folder(chosen: Path | None) -> Path:
    """The folder that the reader chose with --runs, or the book's.

    Raises NinlabError when it is none, RecordError when this ninlab came without records.
    """
    if chosen is None:
        return records.runs_folder()
    if not chosen.is_dir():
        raise NinlabError(f"--runs {str(chosen)!r} is no folder; create it first")
    return chosen.resolve()


def typed_command() -> str:
    """This process's command line, as a reader would type it."""
    return shlex.join(["python", "-m", "ninlab", *sys.argv[1:]])


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
            typer.echo(f"not handed over: {' '.join(str(error).split())}", err=True)

    return again
