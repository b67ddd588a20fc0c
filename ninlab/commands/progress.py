"""How is a recording watched? Bars on a terminal, lines in a log, files handed over.

Each class is a `ninlab.recording.Watcher`.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

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
from ninlab.errors import RecordError
from ninlab.experiments import PlannedRun

if TYPE_CHECKING:
    from ninlab.recording import Status, Watcher

OVER = ("recorded", "present", "failed")
"""Statuses with which the recorder is done with a run."""


def progress_bars() -> Progress:
    """Bars on stderr; nothing of them is seen where that is no terminal."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )


class Watchers:
    """Tells several watchers the same, in their order."""

    def __init__(self, *watchers: Watcher) -> None:
        self._watchers = watchers

    def run_started(self, run: PlannedRun, steps: int) -> None:
        """Passed on."""
        for watcher in self._watchers:
            watcher.run_started(run, steps)

    def step_taken(self, step: int) -> None:
        """Passed on."""
        for watcher in self._watchers:
            watcher.step_taken(step)

    def run_stumbled(self, run: PlannedRun, sentence: str) -> None:
        """Passed on."""
        for watcher in self._watchers:
            watcher.run_stumbled(run, sentence)

    def run_ended(self, run: PlannedRun, status: Status) -> None:
        """Passed on."""
        for watcher in self._watchers:
            watcher.run_ended(run, status)


class Bars:
    """One bar for the plan, one for the run in hand."""

    def __init__(self, progress: Progress, runs: int) -> None:
        self._progress = progress
        self._plan = progress.add_task("plan", total=runs)
        self._run: TaskID | None = None
        self._done: set[str] = set()

    def run_started(self, run: PlannedRun, steps: int) -> None:
        """The second bar is this run's from now on."""
        if self._run is not None:
            self._progress.remove_task(self._run)
        self._run = self._progress.add_task(run.title, total=steps)

    def step_taken(self, step: int) -> None:
        """The second bar grows."""
        if self._run is not None:
            self._progress.update(self._run, completed=step)

    def run_stumbled(self, run: PlannedRun, sentence: str) -> None:
        """Said above the bars."""
        self._progress.console.print(f"{run.title}: {sentence}", markup=False)

    def run_ended(self, run: PlannedRun, status: Status) -> None:
        """The first bar grows when the run is over."""
        if status in OVER:
            self._done.add(run.id(""))
            self._progress.update(self._plan, completed=len(self._done))


class Lines:
    """A line for each run that was made or failed, written at once, for a log."""

    def __init__(self, folder: Path, device_slug: str) -> None:
        self._folder = folder
        self._slug = device_slug
        self._began = 0.0

    def run_started(self, run: PlannedRun, steps: int) -> None:
        """Its seconds count from here."""
        self._began = time.monotonic()

    def step_taken(self, step: int) -> None:
        """Not worth a line."""

    def run_stumbled(self, run: PlannedRun, sentence: str) -> None:
        """A line that says why."""
        self._print(run, f"stumbled: {sentence}")

    def run_ended(self, run: PlannedRun, status: Status) -> None:
        """A line with how the run went, or that it failed before."""
        if status == "recorded":
            made = records.read(records.record_path(self._folder, run.id(self._slug)))
            self._print(
                run,
                f"{made.outcome}, {made.last.test_accuracy:.4f}, "
                f"{made.never_predicted} classes never predicted, "
                f"{made.images_per_second:,.0f} images/s, {made.execution}",
            )
        elif status == "failed":
            self._print(run, "failed: not tried again by this code")

    def _print(self, run: PlannedRun, what: str) -> None:
        seconds = time.monotonic() - self._began
        print(f"{seconds:6.1f} s  {run.title}: {what}", flush=True)


class HandsOver:
    """Hands over what is new after each run that was made or failed.

    A folder of results that cannot be written for a moment, as on a mounted drive, is said and
    tried again after the next run.
    """

    def __init__(self, hand_over: Callable[[], object]) -> None:
        self._hand_over = hand_over

    def run_started(self, run: PlannedRun, steps: int) -> None:
        """Nothing to do yet."""

    def step_taken(self, step: int) -> None:
        """Nothing to do yet."""

    def run_stumbled(self, run: PlannedRun, sentence: str) -> None:
        """Nothing to do yet."""

    def run_ended(self, run: PlannedRun, status: Status) -> None:
        """The time has come, unless nothing is new."""
        if status in ("recorded", "failed"):
            self.now()

    def now(self) -> None:
        """Hand over whatever is new."""
        try:
            self._hand_over()
        except RecordError as error:
            print(f"not handed over yet: {error}", file=sys.stderr, flush=True)
