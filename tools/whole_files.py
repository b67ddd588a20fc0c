"""How are several files replaced, all of them or none?

Everything is written beside the files first; only then does each get its name. What fails before
that, a full disk or a folder that cannot be written, leaves the old files alone. A file keeps its
mode, and one that a link leads to is replaced where it lies.

Known limit: what stops between two of the names, as a machine may, leaves some files new and some
old. Where it is an error of the system, the sentence says which are new.
"""

from __future__ import annotations

import errno
import os
import shutil
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

_NOTHING = "nothing was changed"


def replace_files(contents: Mapping[Path, str | bytes]) -> None:
    """Write every file whole, or none; texts as UTF-8.

    Exits with a sentence that names the file that could not be written, and what has been replaced
    before it, if anything has.
    """
    replaced: list[str] = []
    with ExitStack() as leftovers:
        written: dict[Path, tuple[Path, Path]] = {}
        try:
            for path, content in contents.items():
                target = path.resolve()
                if target.is_dir():  # which would be found out only when others have their names
                    raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
                beside = target.with_name(f".{target.name}.{os.getpid()}.tmp")
                leftovers.callback(beside.unlink, missing_ok=True)
                beside.write_bytes(content.encode() if isinstance(content, str) else content)
                if target.exists():
                    shutil.copymode(target, beside)
                written[target] = path, beside
            for target, (path, beside) in written.items():
                beside.replace(target)
                replaced.append(str(path))
        except OSError as error:
            so_far = f"replaced before it: {', '.join(replaced)}" if replaced else _NOTHING
            sys.exit(f"{path} could not be written: {error.strerror or error}; {so_far}")
