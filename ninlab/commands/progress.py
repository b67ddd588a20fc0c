"""How is a recording watched? Bars on a terminal, lines in a log, files handed over.

Each class is a `ninlab.watching.Watcher`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from ninlab import records
from ninlab.experiments import PlannedRun
from ninlab.watching import Status, Watcher


def progress_bars() -> Progress:
    """Bars on stderr; nothing of them is seen where that is no terminal."""
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True, markup=False, emoji=False),
    )


class Bars(Watcher):
    """One bar for the plan, one for each run in hand."""

    def __init__(self, progress: Progress, runs: int) -> None:
        self._progress = progress
        self._plan = progress.add_task("plan", total=runs)
        self._runs: dict[str, TaskID] = {}
        self._done: set[str] = set()

    def run_started(self, run: PlannedRun, steps: int) -> None:
        """The run has a bar from now on."""
        self._drop(run)  # of a worker that was killed
        self._runs[run.title] = self._progress.add_task(run.title, total=steps)

    def step_taken(self, step: int) -> None:
        """The run's bar grows; only a run of this process tells its steps, and it is the last."""
        self._progress.update(list(self._runs.values())[-1], completed=step)

    def run_stumbled(self, run: PlannedRun, sentence: str) -> None:
        """Said above the bars."""
        self._progress.console.print(f"{run.title}: {sentence}")

    def run_ended(self, run: PlannedRun, status: Status) -> None:
        """The run's bar goes, and the plan's grows when the run is over."""
        self._drop(run)
        if status.is_over:
            self._done.add(run.id(""))
            self._progress.update(self._plan, completed=len(self._done))

    def _drop(self, run: PlannedRun) -> None:
        if run.title in self._runs:
            self._progress.remove_task(self._runs.pop(run.title))


class Lines(Watcher):
    """A line for each run that was made or failed, written at once, for a log."""

    def __init__(self, folder: Path, device_slug: str) -> None:
        self._folder = folder
        self._slug = device_slug
        self._began: dict[str, float] = {}

    def run_started(self, run: PlannedRun, steps: int) -> None:
        """Its seconds count from here."""
        self._began[run.title] = time.monotonic()

    def run_stumbled(self, run: PlannedRun, sentence: str) -> None:
        """A line that says why."""
        self._print(run, f"stumbled: {sentence}")

    def run_ended(self, run: PlannedRun, status: Status) -> None:
        """A line with how the run went, or that it failed before."""
        if status is Status.RECORDED:
            made = records.read(records.record_path(self._folder, run.id(self._slug)))
            self._print(
                run,
                f"{made.outcome}, {made.last.test_accuracy:.4f}, "
                f"{made.never_predicted} classes never predicted, "
                f"{made.images_per_second:,.0f} images/s, {made.execution}",
            )
        elif status is Status.FAILED:
            self._print(run, "failed: not tried again by this code")

    def _print(self, run: PlannedRun, what: str) -> None:
        now = time.monotonic()
        seconds = now - self._began.get(run.title, now)  # it may have failed at an earlier start
        print(f"{seconds:6.1f} s  {run.title}: {what}", flush=True)


class AfterEach(Watcher):
    """Does something after each run that was made or failed, such as handing over its record."""

    def __init__(self, work: Callable[[], object]) -> None:
        self._work = work

    def run_ended(self, run: PlannedRun, status: Status) -> None:
        """The time has come, unless nothing is new."""
        if status in (Status.RECORDED, Status.FAILED):
            self._work()
