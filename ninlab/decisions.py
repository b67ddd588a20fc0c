"""What do several designs show, all at once, against the one that they were made from?

Comparing seven designs with one reference at 95 % each would show a difference that is not there
more often than once in twenty tables. Dunnett's intervals hold all together. What one means was
written down before the runs that it judges: within a margin of one point either way the two are
equal for every purpose of this book; where it leaves 0 out, the design gains or loses; otherwise
the question is open, which is not to say that there is no difference.

Source: C. W. Dunnett, Journal of the American Statistical Association 50 (1955), doi
10.1080/01621459.1955.10501294. Known limits: the groups are taken to spread alike, and the number
of runs must not have been chosen by looking at the intervals. scipy finds an interval's level by
random points: what is asked to be 95 % is between 94.5 and 95.5 %. Runs that diverged, got stuck
or relapsed are in no mean, for they say more about the failure than about the design: count them
beside it.
"""

from __future__ import annotations

import statistics
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from ninlab.comparisons import CONFIDENCE, Difference, kernels_of
from ninlab.errors import NinlabError
from ninlab.records import Outcome, RunRecord
from ninlab.relapses import relapse

MARGIN = 0.01
"""By how much accuracies may differ and count as equal: a point, three times the sampling error of
10,000 test images at 90 %."""


class Verdict(StrEnum):
    """What an interval shows."""

    EQUAL = "equal to a point"  # all of it lies within the margin, 0 in it or not
    GAIN = "gain"
    LOSS = "loss"
    OPEN = "open"


@dataclass(frozen=True)
class Decision:
    """What one design shows against the reference; difference is None for fewer than two runs."""

    runs: int  # of the design, those that finished and did not relapse
    reference_runs: int
    difference: Difference | None
    verdict: Verdict


def decide(
    reference: Sequence[RunRecord],
    designs: Mapping[str, Sequence[RunRecord]],
    *,
    margin: float = MARGIN,
    confidence: float = CONFIDENCE,
) -> dict[str, Decision]:
    """What each design shows against the reference, intervals holding together, by its label.

    A design with fewer than two runs that held is open, and so are all where the reference has
    fewer. Raises NinlabError for a margin that is not above 0, and as `comparisons.kernels_of`.
    """
    if margin <= 0:
        raise NinlabError(f"the margin is {margin}, but must be above 0, such as {MARGIN}")
    control = _accuracies(reference)
    samples = {label: _accuracies(runs) for label, runs in designs.items()}
    tested = [label for label, sample in samples.items() if min(len(sample), len(control)) > 1]
    intervals = _intervals(control, [samples[label] for label in tested], confidence)
    found = dict(zip(tested, intervals, strict=True))
    return {
        label: Decision(
            runs=len(sample),
            reference_runs=len(control),
            difference=found.get(label),
            verdict=_verdict(found.get(label), margin),
        )
        for label, sample in samples.items()
    }


def _verdict(difference: Difference | None, margin: float) -> Verdict:
    if difference is None:
        return Verdict.OPEN
    if -margin < difference.low and difference.high < margin:
        return Verdict.EQUAL
    if difference.shown:
        return Verdict.GAIN if difference.mean > 0 else Verdict.LOSS
    return Verdict.OPEN


def _intervals(
    control: Sequence[float], samples: Sequence[Sequence[float]], confidence: float
) -> list[Difference]:
    """The differences in mean, with intervals that hold together."""
    means = [statistics.fmean(sample) - statistics.fmean(control) for sample in samples]
    if all(len(set(sample)) == 1 for sample in (control, *samples)):
        return [Difference(mean, mean, mean) for mean in means]  # no spread, no interval
    if not samples:
        return []
    from scipy import stats  # takes its time to import

    # scipy integrates by random points: the same ones every time give the same intervals
    test = stats.dunnett(*samples, control=control, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of a level that is off by a tenth of 5 %
        both = test.confidence_interval(confidence)
    return [
        Difference(mean, max(float(low), -1.0), min(float(high), 1.0))
        for mean, low, high in zip(means, both.low, both.high, strict=True)
    ]


def _accuracies(runs: Sequence[RunRecord]) -> list[float]:
    kernels_of(runs)
    return [
        run.last.test_accuracy
        for run in runs
        if run.outcome is Outcome.FINISHED and relapse(run) is None
    ]
