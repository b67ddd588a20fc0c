"""Records as a table. pandas is imported where a frame is asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from ninlab.records.runs import RunRecord

if TYPE_CHECKING:
    import pandas as pd


def to_frame(runs: Iterable[RunRecord]) -> pd.DataFrame:
    """One row a run, indexed by id: what was trained, how it ended, where and by which code."""
    import pandas as pd

    rows = [{name: value(run) for name, value in _COLUMNS.items()} for run in runs]
    return pd.DataFrame(rows, columns=list(_COLUMNS)).set_index("id")


# A new column comes last: who reads a file by position finds the others where they were.
_COLUMNS: Mapping[str, Callable[[RunRecord], Any]] = {
    "id": lambda run: run.id,
    "experiment": lambda run: run.experiment,
    "name": lambda run: run.name,
    "network": lambda run: run.network,
    "seed": lambda run: run.seed,
    "device": lambda run: run.device.name,
    "device_slug": lambda run: run.device.slug,
    "outcome": lambda run: str(run.outcome),
    "test_accuracy": lambda run: run.last.test_accuracy,
    "test_loss": lambda run: run.last.test_loss,
    "train_accuracy": lambda run: run.last.train_accuracy,
    "train_loss": lambda run: run.last.train_loss,
    "dead_classes": lambda run: run.last.dead_classes,
    "never_predicted": lambda run: run.never_predicted,
    "epochs": lambda run: len(run.epochs),
    "learning_rate": lambda run: run.recipe.learning_rate,
    "optimizer": lambda run: str(run.recipe.optimizer),
    "momentum": lambda run: run.recipe.momentum,
    "precision": lambda run: str(run.recipe.precision),
    "evaluation_set": lambda run: str(run.recipe.evaluation_set),
    "parameters": lambda run: run.parameters,
    "images_per_second": lambda run: run.images_per_second,
    "wall_seconds": lambda run: run.wall_seconds,
    "utc": lambda run: run.provenance.utc,
    "commit": lambda run: run.provenance.commit,
    "kernels": lambda run: str(run.recipe.kernels),
}
