"""How does a program of ninlab end, whatever happens to it?

With 0 when all is done. What a reader did wrong, and what the system refuses, is one sentence on
stderr and the exit code of the error, 2 where it has none of its own: never a traceback. That holds
for the answer itself, too: one that does not fit on the disk is an error, and whoever reads it
through a pipe may stop reading. Ctrl-C ends a program at any moment with `INTERRUPTED`.

Nothing here takes time to import, so that a program can begin with it: what takes time is imported
inside what `run` runs.
"""

from __future__ import annotations

import io
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Any, NoReturn

from ninlab.errors import NinlabError, one_sentence

INTERRUPTED = 130
"""Exit code after Ctrl-C: 128 and the number of SIGINT, as shells have it."""

NOBODY_READS = 141
"""Exit code when the reader of a pipe has left, as ``head`` does: 128 and the number of SIGPIPE."""

UNWRITTEN = NinlabError.exit_code
"""Exit code when the answer could not be written: no script may take what is there for whole."""

_interrupted = False


def run(work: Callable[[], int | None]) -> NoReturn:
    """Do the work of this process and end it with the exit code that `exit_code_of` gives."""
    _keep_standard_streams()
    # A shell lets what it starts in the background ignore Ctrl-C; that stays so.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupt)
        sys.unraisablehook = _interrupt_again
    code = exit_code_of(work)
    if signal.getsignal(signal.SIGINT) is _interrupt:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # nothing is left that a second one spoils
    sys.exit(code)


def exit_code_of(work: Callable[[], int | None]) -> int:
    """What the work returns, 0 for None, once all of its answer is written; errors are said.

    A NinlabError and what the system refuses are one sentence on stderr. Any other exception is a
    fault of ninlab and is raised.
    """
    try:
        code = work() or 0
        _flush()
    except NinlabError as error:
        _say(f"error: {one_sentence(error)}")
        return error.exit_code
    except KeyboardInterrupt:
        code = INTERRUPTED
    except OSError as error:
        return _of_system_error(error)
    except Exception:
        if not _interrupted:  # some libraries make an error of their own of Ctrl-C
            raise
        code = INTERRUPTED
    if code == INTERRUPTED:
        _say("interrupted")
    return code


def _of_system_error(error: OSError) -> int:
    """The exit code for what the system refused, be it the answer or another file; it is said."""
    refusal = _refusal_of_stdout()
    if refusal is None:
        what = "" if error.filename is None else f"{error.filename}: "
        _say(f"error: {one_sentence(f'{what}{error.strerror or error}')}")
        return NinlabError.exit_code
    _discard_stdout()
    if isinstance(refusal, BrokenPipeError):
        return NOBODY_READS
    _say(f"error: the answer could not be written: {one_sentence(refusal.strerror or refusal)}")
    return UNWRITTEN


# ---------------------------------------------------------------- the standard streams


class _NeverInTheWay:
    """stderr, for whom what cannot be said is lost: no work ends for it."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        with suppress(OSError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError):
            self._stream.flush()


def _keep_standard_streams() -> None:
    """Take the places of streams that whoever started this process has closed.

    The next file to be opened would get the number of a closed one, and what a library prints
    would land in it. Ends the process where no answer can be given.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # takes the first free number
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115  open as long as the process
    sys.stderr = _NeverInTheWay(sys.stderr)
    if sys.stdout is None:
        _say("error: standard output is closed, so that no answer can be given; leave it open")
        sys.exit(UNWRITTEN)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a file's name may be no text


def _flush() -> None:
    if sys.stdout is not None:
        sys.stdout.flush()


def _refusal_of_stdout() -> OSError | None:
    """Why stdout takes no more: what it could not write it tries again. None if it takes all."""
    try:
        _flush()
    except OSError as error:
        return error
    return None


def _discard_stdout() -> None:
    """Let the rest of the answer go nowhere, or Python would try once more when it ends."""
    with suppress(OSError, ValueError, AttributeError):  # what a test puts in its place has none
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _say(sentence: str) -> None:
    with suppress(OSError):
        print(sentence, file=sys.stderr, flush=True)


# ---------------------------------------------------------------- Ctrl-C


def _interrupt(signal_number: int, frame: FrameType | None) -> NoReturn:
    global _interrupted
    _interrupted = True
    raise KeyboardInterrupt


def _interrupt_again(unraisable: sys.UnraisableHookArgs) -> None:
    """Ctrl-C that met a finalizer, in which Python drops every exception, comes once more."""
    if issubclass(unraisable.exc_type, KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    else:
        sys.__unraisablehook__(unraisable)
