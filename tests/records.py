"""Records made up for tests, and what tests ask of a folder of records."""

from pathlib import Path

import pytest

from ninlab import records
from ninlab.recipes import Recipe
from ninlab.records import (
    DataSet,
    Device,
    EpochResult,
    LossCurve,
    Outcome,
    Provenance,
    RunRecord,
    Software,
)

NOBODY = Provenance("2026-01-01T00:00:00Z", "a test", None, False)
H100 = Device("nvidia-h100", "NVIDIA H100", 80 * 10**9, driver="580.1")
H200 = Device("nvidia-h200", "NVIDIA H200", 141 * 10**9, driver="580.1")
A_RECORD = RunRecord(
    experiment="collapse",
    name="nin_28",
    seed=0,
    provenance=Provenance("2026-01-01T00:00:00Z", "python -m ninlab record", "c" * 40, True),
    network="nin_28",
    network_digest="0" * 12,
    input_shape=(1, 28, 28),
    parameters=39030,
    data_set=DataSet("fashion-mnist", {}, 60000, 3),
    recipe=Recipe(0.1, 1),
    device=Device("cpu", "processor", 2**34, threads=1),
    software=Software("3.11", "2.11", "0.1"),
    execution="eager",
    outcome=Outcome.FINISHED,
    loss=LossCurve(1, (2.3,)),
    epochs=(EpochResult(1, 0.5, 1.2, 0.6, 1.1, 0, 4.0, 0.2),),
    confusion=((1, 0), (1, 1)),
    images_per_second=15000.0,
    wall_seconds=5.0,
)


def lay_book(patch: pytest.MonkeyPatch, folder: Path) -> None:
    """The book's own records lie in that folder, for as long as the patch holds."""
    patch.setattr(records, "runs_folder", lambda: folder)
    patch.setattr(records.folders, "runs_folder", lambda: folder)


def files(folder: Path) -> set[str]:
    """Every file below a folder but the locks, by its path."""
    found = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return {path for path in found if not path.startswith(".claims/")}


def without_one_field(content):
    """(name, the JSON object without it) for each field of an object and of those in it."""
    inner = content if isinstance(content, dict) else dict(enumerate(content))
    for name, value in inner.items():
        if isinstance(content, dict):
            yield name, {key: content[key] for key in content if key != name}
        if isinstance(value, dict | list):
            for missing, rest in without_one_field(value):
                changed = content.copy()
                changed[name] = rest
                yield missing, changed
