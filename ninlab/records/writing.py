"""How does a file reach the disk whole or not at all?"""

from __future__ import annotations

import errno
import json
import os
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ninlab.errors import RecordError
from ninlab.records.folders import record_path
from ninlab.records.runs import RunRecord


def write(folder: Path, record: RunRecord) -> Path:
    """The path of the record's new file. Raises RecordError when it exists or cannot be written."""
    path = record_path(folder, record.id)
    write_json_once(path, record.to_json())
    return path


def write_json_once(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file whole or not at all, and never over another.

    The bytes reach the disk under a hidden name first and are then linked to their own, which
    fails when the name is taken. The file is readable by all (mode 0644). Raises RecordError,
    with nothing left behind, when the file exists or the folder or the disk refuses it.
    """
    lines = (f'"{key}": {json.dumps(value, allow_nan=False)}' for key, value in content.items())
    text = "{\n" + ",\n".join(lines) + "\n}\n"  # one field a line: readable, and kind to git

    def refuse_to_overwrite(temporary: Path) -> None:
        try:
            os.link(temporary, path)
            return
        except FileExistsError:
            taken = True
        except OSError as error:
            if error.errno not in _NO_HARD_LINKS:
                raise
            taken = path.exists()  # checked and renamed under the caller's claim
        if taken:
            raise RecordError(
                f"{path} exists, and records are never overwritten; give a correction a new name"
            )
        temporary.rename(path)

    _publish(path, text.encode(), refuse_to_overwrite)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file whole or not at all; an older one is replaced.

    For the weights that belong to a record which is not written yet. Raises RecordError when
    the folder or the disk refuses it.
    """
    _publish(path, content, lambda temporary: temporary.replace(path))


def check_can_write(path: Path, size: int = 2**20) -> None:
    """Raises RecordError unless a file of that many bytes can be written under that name.

    To be asked before hours of work whose result goes there. It is found out by doing it, under a
    hidden name that is removed again: a name that is taken by a folder, a file where a folder must
    be, a folder without the right to write and a disk without room all look well until then.
    """
    if path.is_dir():
        raise RecordError(f"{path} is a folder, where a file is to be written; move it away")
    _publish(path, bytes(size), lambda temporary: None)


_NO_HARD_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}


def _publish(path: Path, content: bytes, give_name: Callable[[Path], object]) -> None:
    temporary = path.with_name(f".{path.name}.{socket.gethostname()}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(temporary, "wb") as file:
                os.fchmod(file.fileno(), 0o644)
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            give_name(temporary)
        finally:
            temporary.unlink(missing_ok=True)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)  # the new name itself must survive a power cut
        finally:
            os.close(folder)
    except OSError as error:
        raise RecordError(
            f"{path} could not be written: {error.strerror or error}; nothing was left behind"
        ) from error
