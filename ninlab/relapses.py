"""Does a run keep what it has learned, or does its loss jump back?

Plain gradient descent at a constant rate is not monotone: in some runs the training loss leaps up
within a few steps and what was learned is lost, for a while or for good. Such a run has relapsed,
and how it ends says more about the leap than about the network.

The definition was made after a look at the first runs of a GPU, and is the same for all runs since.

Known limits: losses are kept as means over some steps, so that a shorter leap goes unseen. Nor can
a run be seen to fall back to guessing that never came below (ln 10 - 0.2) / 1.5 = 1.40 nats.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from math import inf
from statistics import fmean

from ninlab.records import LossCurve, Outcome, RunRecord

WINDOW_STEPS = 20
"""Over about how many steps a training loss is averaged: whole values of the stored curve."""

FACTOR, MARGIN = 1.5, 0.2
"""A relapse is a mean above FACTOR times the lowest mean so far, plus MARGIN nats."""


@dataclass(frozen=True)
class Relapse:
    """Where a run fell back for the first time. Losses are means of a window, in nats."""

    step: int  # the first of the window, counted from 0
    lowest: float  # mean training loss of any window before
    loss: float


def relapse(run: RunRecord) -> Relapse | None:
    """The first relapse of a run, or None.

    A loss that is not finite ends the search: such a run has diverged, and its outcome says so.
    """
    return _first_relapse(run.loss)


@lru_cache(maxsize=4096)
def _first_relapse(curve: LossCurve) -> Relapse | None:
    """The first relapse of a curve; every table and figure asks it anew of the same runs."""
    values = curve.values
    size = max(1, round(WINDOW_STEPS / curve.every))
    lowest = inf
    for start in range(0, len(values), size):
        window = [value for value in values[start : start + size] if value is not None]
        if len(window) < len(values[start : start + size]):
            return None
        mean = fmean(window)
        if mean > FACTOR * lowest + MARGIN:
            return Relapse(start * curve.every, lowest, mean)
        lowest = min(lowest, mean)
    return None


def relapsed(runs: Iterable[RunRecord]) -> int:
    """How many of the runs relapsed."""
    return sum(relapse(run) is not None for run in runs)


def failed(run: RunRecord) -> bool:
    """Whether a run diverged, got stuck or relapsed, so that its end tells nothing of a design.

    Such a run is counted, as one of a share, and is in no mean.
    """
    return relapse(run) is not None or run.outcome is not Outcome.FINISHED


def ending(run: RunRecord) -> str:
    """How a run ended: ``diverged``, ``stuck``, ``relapsed``, or ``finished`` if it held.

    One that relapsed and then diverged or got stuck is named by its end.
    """
    if run.outcome is Outcome.FINISHED and relapse(run):
        return "relapsed"
    return str(run.outcome)


def held(runs: Iterable[RunRecord]) -> list[RunRecord]:
    """The runs that did not fail: they learned something and kept it."""
    return [run for run in runs if not failed(run)]
