"""Where do records lie?"""

from __future__ import annotations

from pathlib import Path

from ninlab.errors import RecordError


def runs_folder() -> Path:
    """The folder of the book's own records: inside an installed ninlab, beside it in a checkout.

    Raises RecordError when neither exists.
    """
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "runs", package.parent / "runs"):
        if folder.is_dir():
            return folder
    raise RecordError("this copy of ninlab has no runs; install it from its repository")


def record_path(folder: Path, identifier: str) -> Path:
    """Where the record of that id lies in a runs folder."""
    return folder / f"{identifier}.json"


def weights_path(folder: Path, identifier: str) -> Path:
    """Where the weights of that run lie, if they were kept."""
    return folder / f"{identifier}.safetensors"
