"""What tests of several modules ask for by name."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ninlab.__main__ import main


@pytest.fixture
def printed(capsys) -> Callable[..., str]:
    """What a command of ninlab prints, which must end well."""

    def run(*arguments: object) -> str:
        assert main([*map(str, arguments)]) == 0
        return capsys.readouterr().out

    return run


@pytest.fixture
def refusal(capsys) -> Callable[..., str]:
    """The one sentence with which a command of ninlab refuses what a reader asks."""

    def run(*arguments: object) -> str:
        assert main([*map(str, arguments)]) == 2
        written = capsys.readouterr()
        assert written.out == ""
        (sentence,) = written.err.splitlines()
        assert sentence.startswith("error: ")
        return sentence

    return run


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
    from ninlab import training
    from ninlab.recording import apart
    from tests.recorders import judged_by_few, serve_judged_by_few

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "choose_split", judged_by_few)
        patch.setattr(apart, "_serve", serve_judged_by_few)
        yield
