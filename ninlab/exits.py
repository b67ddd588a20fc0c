"""How does a program of ninlab end, whatever goes wrong in it?

With 0 when all is done. What a reader did wrong, and what the system refuses, is one sentence on
stderr and the exit code of the error, 2 where it has none of its own: never a traceback. That holds
for the answer itself, too: one that does not fit on the disk is an error, and whoever reads it
through a pipe may stop reading. Ctrl-C ends a program at any moment with `INTERRUPTED`.

Known limit. A crash in C++ and ``os._exit`` end a process at once, and nothing can be said. The
code is then not ninlab's; after ``os._exit(0)`` in the file of a network it is 0, and the answer is
empty.

Nothing here takes time to import, so that a program can begin with it: what takes time is imported
inside what `run` runs.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from types import FrameType
from typing import Any, NoReturn, TextIO

from ninlab.errors import NinlabError, one_sentence

INTERRUPTED = 130
"""Exit code after Ctrl-C: 128 and the number of SIGINT, as shells have it."""


class UnwrittenError(NinlabError):
    """An answer that could not be written: no script may take what is there for whole."""


class NobodyReadsError(UnwrittenError):
    """The reader of a pipe has left, as ``head`` does when it has enough; nothing is to be said."""

    exit_code = 141  # 128 and the number of SIGPIPE, as shells have it


_IMPORTS = "<frozen importlib._bootstrap>"  # the file of the frames of an import
_SHOW_CURSOR = "\x1b[?25h"
_interrupted = False


def run(work: Callable[[], int | None]) -> NoReturn:
    """Do the work of this process and end it with the exit code that `exit_code_of` gives.

    What others print later, while Python ends, goes to stderr: the answer is whole by then.
    In a notebook, in IPython and with ``python -i`` the process goes on: its streams and what
    Ctrl-C does there stay as they are.
    """
    is_elsewhere = sys.stdout is not sys.__stdout__  # a notebook has streams of its own
    if is_elsewhere or sys.flags.inspect or hasattr(sys, "ps1"):
        sys.exit(exit_code_of(work))
    _keep_standard_streams()
    answer, beside = sys.stdout, sys.stderr
    # A shell lets what it starts in the background ignore Ctrl-C; that stays so.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupt)
        sys.unraisablehook = _interrupt_again
    code = exit_code_of(work)
    if signal.getsignal(signal.SIGINT) is _interrupt:
        signal.signal(signal.SIGINT, lambda *_: os._exit(code))  # all is done and said
    with suppress(UnwrittenError):  # what was printed before an error belongs to the answer
        answer.flush()
    os.dup2(beside.fileno(), answer.fileno())
    sys.stdout = sys.__stdout__  # which Python flushes once more; what it refused has been said
    sys.exit(code)


def exit_code_of(work: Callable[[], int | None]) -> int:
    """What the work returns, 0 for None, once all of its answer is written; errors are said.

    A NinlabError and what the system refuses are one sentence on stderr, and so is the wish of
    anyone else to end the process: no script may take half an answer for whole. Only argparse,
    which reads the arguments of a tool, ends it as it likes. Any other exception is a fault of
    ninlab and is raised.
    """
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")  # a file's name may be no text
    try:
        code = work() or 0
        sys.stdout.flush()
    except NobodyReadsError as error:
        return error.exit_code
    except NinlabError as error:
        _say(f"error: {one_sentence(error)}")
        return error.exit_code
    except OSError as error:
        file = "" if error.filename is None else f"{error.filename}: "
        _say(f"error: {one_sentence(f'{file}{error.strerror or error}')}")
        return NinlabError.exit_code
    except SystemExit as error:
        if _is_by_argparse(error):
            raise
        if not _interrupted:
            says = error.code
            if not isinstance(says, str):
                says = f"something else ended this program, with code {says or 0}"
            _say(f"error: {one_sentence(says)}")
            return NinlabError.exit_code
        code = INTERRUPTED
    except KeyboardInterrupt:
        code = INTERRUPTED
    except Exception:
        if not _interrupted:  # some libraries make an error of their own of Ctrl-C
            raise
        code = INTERRUPTED
    if code == INTERRUPTED:
        _say("interrupted")
    return code


def _is_by_argparse(error: SystemExit) -> bool:
    """Whether it ends the process for ``--help``, or after a sentence on what is wrong."""
    place = error.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    return place is not None and place.tb_frame.f_globals.get("__name__") == "argparse"


def _say(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)


# ---------------------------------------------------------------- the standard streams


class _Stream:
    """A standard stream, with a word of its own on what the system refuses to write there.

    It says that at every later attempt again: what only tries whether a stream can be written to
    drops the error.
    """

    def __init__(self, stream: TextIO, refused: Callable[[OSError], object]) -> None:
        self._stream = stream
        self._refused = refused
        self._error: OSError | None = None

    def __getattr__(self, name: str) -> Any:
        if name == "buffer":  # click writes there itself where the encoding is ASCII
            raise AttributeError("what is written goes through the stream, which says what fails")
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        self._try(partial(self._stream.write, text))
        return len(text)

    def flush(self) -> None:
        self._try(self._stream.flush)

    def _try(self, step: Callable[[], object]) -> None:
        try:
            step()
        except OSError as error:
            self._error = self._error or error
        if self._error is not None:
            self._refused(self._error)


def _keep_standard_streams() -> None:
    """Let no stream be closed, stderr never be in the way, and stdout say that it is full.

    The next file to be opened would get the number of a stream that whoever started this process
    has closed, and what a library prints would land in it. Ends the process where no answer can be
    given.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # takes the first free number
    errors = sys.stderr or open(os.devnull, "w")  # noqa: SIM115  open as long as the process
    sys.stderr = _Stream(errors, lambda error: None)  # no work ends for what it says on the way
    if sys.stdout is None:
        _say("error: standard output is closed, so that no answer can be given; leave it open")
        sys.exit(UnwrittenError.exit_code)
    sys.stdout = _Stream(_whole(sys.stdout), _unwritten)


def _whole(stream: TextIO) -> TextIO:
    """The same file as a stream that takes any text, and all of it.

    With PYTHONUNBUFFERED Python writes once, and drops what the system has not taken. The name of
    a file may be no text; what is none is written with a backslash.
    """
    unbuffered = getattr(stream, "write_through", False)
    return open(
        stream.fileno(),
        "w",
        encoding=stream.encoding,
        errors="backslashreplace",
        buffering=1 if unbuffered or stream.line_buffering else -1,
        closefd=False,
    )


def _unwritten(error: OSError) -> NoReturn:
    """Raises UnwrittenError; the rest of the answer goes nowhere, when Python ends, too."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
    if isinstance(error, BrokenPipeError):
        raise NobodyReadsError("nobody reads the answer") from error
    raise UnwrittenError(f"the answer could not be written: {error.strerror}") from error


# ---------------------------------------------------------------- Ctrl-C


def _interrupt(signal_number: int, frame: FrameType | None) -> NoReturn:
    """What Ctrl-C does: raise KeyboardInterrupt, as ever, but end at once during an import.

    Libraries in C++ do not survive an exception in the middle of their import, and where modules
    are still loaded no work is lost.
    """
    global _interrupted
    _interrupted = True
    if not _is_importing(frame):
        raise KeyboardInterrupt
    _say("interrupted")
    if sys.stderr.isatty():
        print(_SHOW_CURSOR, end="", file=sys.stderr, flush=True)  # bars hide it
    os._exit(INTERRUPTED)


def _is_importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename == _IMPORTS:
            return True
        frame = frame.f_back
    return False


def _interrupt_again(unraisable: sys.UnraisableHookArgs) -> None:
    """Ctrl-C that met a finalizer, where Python drops every exception, comes once more after it."""
    if issubclass(unraisable.exc_type, KeyboardInterrupt):
        after = threading.Timer(0.01, os.kill, (os.getpid(), signal.SIGINT))
        after.daemon = True
        after.start()
    else:
        sys.__unraisablehook__(unraisable)
