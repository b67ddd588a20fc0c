"""How does a file reach the disk whole or not at all?

Its bytes go to the disk under a hidden name, which then becomes its own in one step. Whatever
fails on the way, the old state lies there or the new one, and the error says which: up to that
step nothing was written, behind it the file is whole, though a disk may not have confirmed that its
name outlives a power cut. What a file system does not offer at all is no error: modes (vfat), hard
links (exFAT), and folders that can be synced (some that a network or a program provides).
"""

from __future__ import annotations

import errno
import json
import os
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from ninlab.errors import RecordError
from ninlab.records.folders import record_path


class Writable(Protocol):
    """A record of any kind that can be written and read."""

    @property
    def id(self) -> str:
        """Where the record lies below the runs folder, without ``.json``."""

    def to_json(self) -> dict[str, Any]:
        """The record as JSON values."""

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Any:
        """The record of a JSON object. Raises RecordError when it is not valid."""


def write(folder: Path, record: Writable) -> Path:
    """The path of the record's new file.

    Raises RecordError when it exists, cannot be written or, with the field, could not be read
    again: what is not valid is not written.
    """
    path = record_path(folder, record.id)
    content = record.to_json()
    try:
        record.from_json(content)
    except RecordError as error:
        raise RecordError(f"{path} is not written, for it would not be valid: {error}") from error
    write_json_once(path, content)
    return path


def write_json_once(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file whole or not at all, and never over another.

    The bytes reach the disk under a hidden name first and are then linked to their own, which
    fails when the name is taken. The file is readable by all (mode 0644). Raises RecordError
    when the file exists or the folder or the disk refuses it, and says what lies there then.
    """
    lines = (f'"{key}": {json.dumps(value, allow_nan=False)}' for key, value in content.items())
    text = "{\n" + ",\n".join(lines) + "\n}\n"  # one field a line: readable, and kind to git

    def refuse_to_overwrite(temporary: Path) -> None:
        try:
            os.link(temporary, path)
            return
        except OSError as error:
            if _is_same(temporary, path):  # a network has lost the answer of a link that was made
                return
            if not isinstance(error, FileExistsError) and error.errno not in _NO_HARD_LINKS:
                raise
        if path.exists():  # checked and renamed under the caller's claim, where links are not
            raise RecordError(
                f"{path} exists, and records are never overwritten; give a correction a new name"
            )
        os.rename(temporary, path)

    _publish(path, text.encode(), refuse_to_overwrite)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file whole or not at all; an older one is replaced.

    For the weights that belong to a record which is not written yet. Raises RecordError when
    the folder or the disk refuses it, and says what lies there then.
    """
    _publish(path, content, lambda temporary: os.replace(temporary, path))


def check_can_write(path: Path, size: int = 2**20) -> None:
    """Raises RecordError unless a file of that many bytes can be written under that name.

    To be asked before hours of work whose result goes there. It is found out by doing it, under a
    hidden name that is removed again: a name that is taken by a folder, a file where a folder must
    be, a folder without the right to write and a disk without room all look well until then.
    """
    if path.is_dir():
        raise RecordError(f"{path} is a folder, where a file is to be written; move it away")
    _publish(path, bytes(size), None)


def leftovers(folder: Path) -> Iterator[Path]:
    """What killed processes left half-written in a folder, under hidden names that nobody reads.

    A process of another machine counts as killed: its write takes less than a second.
    """
    for path in sorted(folder.glob(".*.tmp")):
        host, _, process = path.name.removesuffix(".tmp").rpartition(".")
        here = host.endswith(f".{socket.gethostname()}")
        if not (here and process.isdigit() and _is_running(int(process))):
            yield path


_NO_HARD_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV}
_CANNOT_SYNC = {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF}
"""What a file system answers that has no fsync of this kind of file: a property, no fault."""


def _publish(path: Path, content: bytes, give_name: Callable[[Path], object] | None) -> None:
    """Fill a file under a hidden name and give it its own; None only tries the first half."""
    temporary = path.with_name(f".{path.name}.{socket.gethostname()}.{os.getpid()}.tmp")
    known = path.parent.exists()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        made = _fill(temporary, content)
        if give_name is not None:
            try:
                give_name(temporary)
            except OSError:
                if not _is_file(path, made):  # it failed; else only its answer was lost
                    raise
    except OSError as error:
        left = "no file was left behind"
        if not _remove(temporary):
            left = f"only {temporary.name} was left behind, which nobody reads; remove it"
        raise RecordError(
            f"{path} could not be written: {error.strerror or error}; {left}"
        ) from error
    except BaseException:
        _remove(temporary)
        raise
    removed = _remove(temporary)  # where that fails behind a link, `leftovers` names it
    if give_name is None and not removed:
        raise RecordError(
            f"{temporary} was written and cannot be removed; choose a folder without such files"
        )
    try:
        _sync_folder(path.parent)
        if not known:  # its own name is new as well
            _sync_folder(path.parent.parent)
    except OSError as error:
        said = error.strerror or error
        if give_name is None:
            raise RecordError(
                f"{path.parent} cannot be written to safely: {said}; take another disk"
            ) from error
        raise RecordError(
            f"{path} is written, whole and readable, but the disk did not confirm that it survives "
            f"a power cut: {said}; copy it elsewhere"
        ) from error


def _fill(temporary: Path, content: bytes) -> os.stat_result:
    """Write the file to the disk and say what it is. Raises OSError."""
    with open(temporary, "wb") as file:
        with suppress(OSError):  # a file system without modes is no reason to lose a record
            os.fchmod(file.fileno(), 0o644)
        file.write(content)
        file.flush()
        try:
            os.fsync(file.fileno())
        except OSError as error:
            if error.errno not in _CANNOT_SYNC:
                raise
        return os.fstat(file.fileno())


def _sync_folder(folder: Path) -> None:
    """Make the names in a folder survive a power cut. Raises OSError where the disk does not."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _CANNOT_SYNC:
            raise
    finally:
        with suppress(OSError):  # nothing was written through it
            os.close(descriptor)


def _remove(temporary: Path) -> bool:
    """Whether nothing is left under that name, once it was tried."""
    try:
        os.unlink(temporary)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def _is_same(one: Path, other: Path) -> bool:
    """Whether two names are those of one file."""
    try:
        return os.path.samefile(one, other)
    except OSError:
        return False


def _is_file(path: Path, made: os.stat_result) -> bool:
    """Whether that very file lies there."""
    try:
        return os.path.samestat(os.stat(path), made)
    except OSError:
        return False


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OverflowError, PermissionError):  # of another user, so it runs
        pass
    return True
