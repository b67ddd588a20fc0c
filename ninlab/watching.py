"""What becomes of planned runs, and who is told while a recorder makes them?"""

from __future__ import annotations

from enum import StrEnum

from ninlab.experiments import PlannedRun


class Status(StrEnum):
    """What became of a planned run when a recorder came to it."""

    RECORDED = "recorded"  # made and written, just now
    PRESENT = "present"  # recorded before
    FAILED = "failed"  # it came to nothing by this code, now or before
    CLAIMED = "claimed"  # another recorder is making it
    WAITING = "waiting"  # its learning rate's sweep is not recorded yet
    NO_TIME = "no_time"  # it would not end before the deadline

    @property
    def is_over(self) -> bool:
        """Whether the recorder is done with the run for good."""
        return self in (Status.RECORDED, Status.PRESENT, Status.FAILED)


class Watcher:
    """Told what a recording does. This one does nothing with it; others do with what they want."""

    def run_started(self, run: PlannedRun, steps: int) -> None:
        """A run begins that will take that many steps."""

    def step_taken(self, step: int) -> None:
        """The run in hand has taken that many steps; told of runs in this process only."""

    def run_stumbled(self, run: PlannedRun, sentence: str) -> None:
        """A try of the run came to nothing, as the sentence says: it is tried again or given up."""

    def run_ended(self, run: PlannedRun, status: Status) -> None:
        """The recorder is done with a run, for now or for good."""


class Watchers(Watcher):
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
