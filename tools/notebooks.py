"""How is a notebook read that a hand, or a merge, may have torn?"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import nbformat

from ninlab.errors import one_sentence

_REFUSALS = (
    OSError,
    ValueError,
    nbformat.ValidationError,
    *(AttributeError, KeyError, TypeError),  # nbformat's, of a file that holds something else
    RecursionError,
)


def read_notebook(path: Path) -> Any:
    """The notebook of a file, in version 4. Exits with a sentence where the file is no notebook."""
    faults: dict[str, Exception] = {}
    try:
        notebook = nbformat.read(path, as_version=4, capture_validation_error=faults)
        for fault in faults.values():
            raise fault
    except _REFUSALS as error:
        sys.exit(f"{path} is no notebook ({one_sentence(error, 80)}); nothing was changed")
    return notebook
