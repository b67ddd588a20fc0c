"""What tests of several modules ask for by name."""

from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def folder(tmp_path) -> Path:
    """An empty folder for records, with room beside it."""
    path = tmp_path / "runs"
    path.mkdir()
    return path


@pytest.fixture
def tiny_plan(monkeypatch) -> None:
    """Lets the command line know the plan of the recording tests."""
    from ninlab import experiments
    from tests.recorders import PLAN

    monkeypatch.setattr(experiments.plans, "PLANS", {"tiny": PLAN})


@pytest.fixture(scope="module")
def few_judges() -> Iterator[None]:
    """Runs of this process, and those of its workers, are judged by few images."""
    from ninlab import recording, training
    from tests.recorders import judged_by_few, work_judged_by_few

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "choose_split", judged_by_few)
        patch.setattr(recording, "_work", work_judged_by_few)
        yield
