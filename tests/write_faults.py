"""What can fail while a file is written, and whether the error then says what lies there.

`faults` names every call that `ninlab.records.writing` makes of the system, with the errors that it
may answer: before it did anything, or behind it, as a network does that loses an answer. None in
place of an error is Ctrl-C. `tried` lets one of them fail and says what came of it.
``python -m tests.write_faults`` tries all and prints a table.
"""

from __future__ import annotations

import errno
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from unittest.mock import patch

from ninlab.errors import RecordError
from ninlab.records import check_can_write, write_bytes, write_json_once, writing

OLD, NEW = b"old", b'{\n"kind": "new"\n}\n'

FEW = (errno.EIO, errno.EPERM, errno.ENOTSUP, None)
MANY = (
    *(*FEW, errno.ENOSPC, errno.EINVAL, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.ENOSYS),
    *(errno.EBADF, errno.EXDEV, errno.EMLINK, errno.ESTALE, errno.ENOENT, errno.ENAMETOOLONG),
    errno.EBUSY,
)

CALLS = (
    *("mkdir", "open", "fchmod", "write", "flush", "fsync of the file", "fstat", "close"),
    *("link", "rename", "replace", "unlink", "open of the folder", "fsync of the folder"),
    "close of the folder",
)
"""In the order in which they are made."""

NO_FAULT = {
    "fchmod": set(MANY),
    "fsync of the file": writing._CANNOT_SYNC,
    "fsync of the folder": writing._CANNOT_SYNC,
    "close of the folder": set(MANY),
    "unlink": set(MANY),
    "link": writing._NO_HARD_LINKS,
}
"""What is no reason to call a file unwritten: what a file system does not have, and what comes
behind the last thing that matters."""


@dataclass(frozen=True)
class Fault:
    """One call that fails, with that error, or is interrupted."""

    call: str
    error: int | None
    is_done: bool  # the call did its work all the same
    case: str  # of `CASES`

    def __str__(self) -> str:
        error = "Ctrl-C" if self.error is None else errno.errorcode[self.error]
        return f"{self.case}: {self.call}, {error}{', done' if self.is_done else ''}"


CASES: dict[str, tuple[bytes | None, Callable[[Path], object]]] = {
    "a record": (None, lambda path: write_json_once(path, {"kind": "new"})),
    "a record that exists": (OLD, lambda path: write_json_once(path, {"kind": "new"})),
    "weights": (None, lambda path: write_bytes(path, NEW)),
    "an archive that is replaced": (OLD, lambda path: write_bytes(path, NEW)),
    "a trial": (None, lambda path: check_can_write(path, 100)),
    "a record without hard links": (None, lambda path: write_json_once(path, {"kind": "new"})),
}
"""What lies there before, and what is done."""


def faults(errors: tuple[int | None, ...] = FEW) -> Iterator[Fault]:
    """Every call, error and case."""
    for case in CASES:
        for call in CALLS:
            for error in errors:
                for is_done in (False, True):
                    impossible = (call, error) == ("unlink", errno.ENOENT) and not is_done
                    if not impossible:
                        yield Fault(call, error, is_done, case)


@dataclass(frozen=True)
class Outcome:
    """What came of a fault: the error's sentence, and what lies there."""

    happened: bool  # the call was made
    sentence: str | None  # of a RecordError; None without an error
    interrupted: bool
    content: bytes | None
    hidden: tuple[str, ...]


def tried(fault: Fault, folder: Path) -> Outcome:
    """What comes of it, in an empty folder."""
    path = folder / "runs" / "record.json"
    before, act = CASES[fault.case]
    if before is not None:
        path.parent.mkdir()
        path.write_bytes(before)
    happened: list[bool] = []
    sentence, interrupted = None, False
    with failing(fault, happened):
        try:
            act(path)
        except RecordError as error:
            sentence = str(error)
        except KeyboardInterrupt:
            interrupted = True
    content = path.read_bytes() if path.exists() else None
    hidden = tuple(each.name for each in path.parent.glob(".*")) if path.parent.exists() else ()
    return Outcome(bool(happened), sentence, interrupted, content, hidden)


def flaw(fault: Fault, outcome: Outcome) -> str | None:
    """What is wrong with what came of it; None when nothing is lost and the sentence is true."""
    old = CASES[fault.case][0]
    new = old if fault.case in ("a trial", "a record that exists") else NEW
    said, content = outcome.sentence, outcome.content
    if content not in (old, new):
        return "a third state"
    harmless = outcome.hidden == () or fault.call == "unlink"
    if outcome.interrupted:
        return None if harmless else "a file was left behind"
    if said is None:
        if fault.case == "a record that exists":
            return "nothing was said"
        return None if content == new and harmless else "nothing was said"
    if "records are never overwritten" in said:
        return None if fault.case == "a record that exists" else "it says that there is one"
    if fault.error in NO_FAULT.get(fault.call, ()) and fault.case != "a trial":
        return "what is no fault is called one"
    if "is written, whole and readable" in said:
        return None if content == new and not outcome.hidden else "it says that it is written"
    if "could not be written" in said:
        if content != old:
            return "it says that it is not written"
        if "no file was left behind" in said:
            return None if not outcome.hidden else "it says that nothing was left behind"
        return None if outcome.hidden and outcome.hidden[0] in said else "it names no file"
    trial = "cannot be written to safely" in said or "cannot be removed" in said
    return None if trial and fault.case == "a trial" else "another sentence"


@contextmanager
def failing(fault: Fault, happened: list[bool]) -> Iterator[None]:
    """The calls of `writing`, of which the fault's fails the first time; happened notes that."""

    def fails(call: str, act: Callable[[], Any]) -> Any:
        if call != fault.call or happened:
            return act()
        happened.append(True)
        if fault.is_done:
            act()
        if fault.error is None:
            raise KeyboardInterrupt
        raise OSError(fault.error, os.strerror(fault.error))

    real = {
        name: getattr(os, name)
        for name in ("mkdir", "fchmod", "fstat", "link", "rename", "replace", "unlink", "close")
    }
    folders: set[int] = set()
    syncs: list[int] = []

    class File:
        """A file whose methods may fail."""

        def __init__(self, file: IO[bytes]) -> None:
            self._file = file

        def __enter__(self) -> File:
            return self

        def __exit__(self, *_: object) -> None:
            try:
                fails("close", self._file.close)
            finally:
                self._file.close()

        def write(self, content: bytes) -> None:
            fails("write", lambda: self._file.write(content))

        def flush(self) -> None:
            fails("flush", self._file.flush)

        def fileno(self) -> int:
            return self._file.fileno()

    def opened(path: Path, mode: str) -> File:
        made: list[File] = []

        def act() -> None:
            made.append(File(open(path, mode)))  # noqa: SIM115  closed by who asked for it

        try:
            fails("open", act)
        except BaseException:
            for file in made:
                file._file.close()
            raise
        return made[0]

    def open_folder(path: Path, flags: int) -> int:
        made: list[int] = []
        try:
            fails("open of the folder", lambda: made.append(os_open(path, flags)))
        except BaseException:
            for descriptor in made:
                real["close"](descriptor)
            raise
        folders.add(made[0])
        return made[0]

    def fsync(descriptor: int) -> None:
        syncs.append(descriptor)
        whose = "folder" if descriptor in folders else "file"
        fails(f"fsync of the {whose}", lambda: None)  # the disk is not what is tried here

    def close(descriptor: int) -> None:
        if descriptor not in folders:
            real["close"](descriptor)
            return
        folders.discard(descriptor)
        try:
            fails("close of the folder", lambda: real["close"](descriptor))
        except BaseException:
            if not fault.is_done:
                real["close"](descriptor)
            raise

    def passing(name: str) -> Callable[..., Any]:
        return lambda *values, **named: fails(name, lambda: real[name](*values, **named))

    def no_link(*_: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    os_open = os.open
    replaced: dict[str, Callable[..., Any]] = {
        name: passing(name)
        for name in ("mkdir", "fchmod", "fstat", "link", "rename", "replace", "unlink")
    }
    replaced |= {"open": open_folder, "fsync": fsync, "close": close}
    if fault.case == "a record without hard links":
        replaced["link"] = no_link
    with ExitStack() as patches:
        for name, stand_in in replaced.items():
            patches.enter_context(patch.object(os, name, stand_in))
        patches.enter_context(patch.object(writing, "open", opened, create=True))
        yield


def main() -> int:
    """Try all, and print what became of the calls."""
    counts: dict[str, Counter[str]] = {}
    for fault in faults(MANY):
        with tempfile.TemporaryDirectory() as folder:
            outcome = tried(fault, Path(folder))
        if not outcome.happened:
            continue
        wrong = flaw(fault, outcome)
        if wrong:
            print(f"{fault}: {wrong}: {outcome}")
        state = "new" if outcome.content == NEW else "old"
        counts.setdefault(fault.call, Counter()).update(["tried", state, wrong or "right"])
    columns = ("tried", "old", "new", "right")
    print(f"{'call':24}" + "".join(f"{column:>8}" for column in columns))
    total: Counter[str] = Counter()
    for call in CALLS:
        total += counts[call]
        print(f"{call:24}" + "".join(f"{counts[call][column]:8}" for column in columns))
    print(f"{'all':24}" + "".join(f"{total[column]:8}" for column in columns))
    return 0 if total["tried"] == total["right"] else 1


if __name__ == "__main__":
    sys.exit(main())
