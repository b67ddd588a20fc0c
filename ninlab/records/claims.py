"""Who is making which run right now?

`claim` makes sure that two recorders on one folder never do the same run twice. It holds a kernel
file lock, which dies with its process: a killed recorder leaves nothing that another would have to
judge stale. On a folder shared between machines that needs a file system with POSIX locks (NFS
version 4 has them).
"""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from ninlab.errors import RecordError

_CLAIMS_FOLDER = ".claims"
_TRIES = 5
_PAUSE_SECONDS = 0.01


@contextmanager
def claim(folder: Path, identifier: str) -> Iterator[bool]:
    """Whether this process may do that run: True until the block ends, False if another does it.

    The lock file in ``.claims`` names its holder's host and process for people; the claim itself
    is the kernel's lock on it. The file stays, empty, when the claim ends: deleting it would let
    two processes lock two files of one name. Raises RecordError when the folder cannot be
    written or the file system has no locks.
    """
    path = claim_note(folder, identifier, "lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = open(path, "a+")  # noqa: SIM115  closed below, whether or not it could be locked
    except OSError as error:
        raise RecordError(
            f"runs cannot be claimed in {folder}: {error.strerror}; name a folder that this user "
            "may write to with --runs"
        ) from error
    with file:
        if not _lock_behind_pollers(file):
            yield False
            return
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        try:
            yield True
        finally:
            file.truncate(0)


def claim_note(folder: Path, identifier: str, kind: str) -> Path:
    """Where whoever makes that run may leave a file of that kind, which is no record."""
    return folder / _CLAIMS_FOLDER / f"{identifier.replace('/', '--')}.{kind}"


def claim_holders(folder: Path) -> dict[str, str]:
    """Run id to "process P on HOST" of every run that a recorder is doing right now."""
    holders = {}
    for path in sorted((folder / _CLAIMS_FOLDER).glob("*.lock")):
        with open(path) as file:
            if not _lock(file):
                holders[path.stem.replace("--", "/")] = file.read().strip()
    return holders


def _lock_behind_pollers(file: IO[str]) -> bool:
    """Lock the file, trying again while whoever has it leaves no name: `claim_holders` looks so."""
    for _ in range(_TRIES):
        if _lock(file):
            return True
        file.seek(0)
        if file.read():
            return False
        time.sleep(_PAUSE_SECONDS)
    return False


def _lock(file: IO[str]) -> bool:
    if sys.platform == "win32":
        raise RecordError("recording needs POSIX file locks, which Windows lacks; use WSL")
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise RecordError(
            f"{file.name} cannot be locked: {error.strerror}; record on a file system with locks"
        ) from error
    return True
