"""How are several files replaced, all of them or none?

Everything is written beside the files first; only then does each get its name. What fails before
that, a full disk or a folder that cannot be written, leaves the old files alone. A file keeps its
mode, and one that a link leads to is replaced where it lies.

Known limit: a machine that stops between two of the names leaves some files new and some old.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path


def replace_files(contents: Mapping[Path, str | bytes]) -> None:
    """Write every file whole, or none; texts as UTF-8. Exits with a sentence when one cannot be."""
    with ExitStack() as leftovers:
        written: dict[Path, Path] = {}
        try:
            for path, content in contents.items():
                target = path.resolve()
                beside = target.with_name(f".{target.name}.{os.getpid()}.tmp")
                leftovers.callback(beside.unlink, missing_ok=True)
                beside.write_bytes(content.encode() if isinstance(content, str) else content)
                if target.exists():
                    shutil.copymode(target, beside)
                written[target] = beside
            for target, beside in written.items():
                beside.replace(target)
        except OSError as error:
            sys.exit(f"{path} could not be written: {error.strerror or error}; nothing was changed")
