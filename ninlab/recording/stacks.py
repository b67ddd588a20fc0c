"""Where was a process when it hung or crashed? Its stack, written by faulthandler, says so."""

from __future__ import annotations

import faulthandler
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

from ninlab.failures import Cause

_EAGER_TRY = "a try without a graph\n"


@contextmanager
def watched(stack: IO[str], seconds: float | None) -> Iterator[None]:
    """Write the stack to that file if the process crashes in the block, or is in it for so long.

    The latter ends the process. Both watches are faulthandler's: they need no Python, so that they
    wake whatever the process is in.
    """
    watched_before = faulthandler.is_enabled()
    faulthandler.enable(stack)
    if seconds is not None:
        seconds = min(seconds, threading.TIMEOUT_MAX)
        faulthandler.dump_traceback_later(seconds, exit=True, file=stack)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()
        faulthandler.disable()
        if watched_before and sys.__stderr__ is not None:
            faulthandler.enable(sys.__stderr__)


def mark_try(stack: IO[str], eager: bool) -> None:
    """Note which try begins: what comes after it in the file is of that one."""
    stack.write(_EAGER_TRY if eager else "a try with a graph\n")
    stack.flush()


def was_tried_eagerly(stack: str) -> bool:
    """Whether the process that left this stack had begun a try without a graph."""
    return _EAGER_TRY in stack


def how_it_ended(stack: str) -> tuple[Cause, str] | None:
    """How the process ended that left this stack, and where; None if it only stopped."""
    frame = re.search(r'File "[^"]*(ninlab/[^"]+)", line (\d+) in (\w+)', stack)
    place = f", in {frame[3]} ({frame[1]}, line {frame[2]})" if frame else ""
    if timeout := re.search(r"Timeout \(([\d:.]+)\)", stack):
        return Cause.HUNG, f"it had not ended after {timeout[1]}{place}"
    if crash := re.search(r"Fatal Python error: (.+)", stack):
        return Cause.CRASHED, f"its process crashed: {crash[1]}{place}"
    return None
