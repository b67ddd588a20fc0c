"""What do several designs show, all at once, against the one that they were made from?

Comparing seven designs with one reference at 95 % each would show a difference that is not there
more often than once in twenty tables. Dunnett's intervals hold all together. What one means was
written down before the runs that it judges: within a margin of one point either way the two are
equal for every purpose of this book; where it leaves 0 out, the design gains or loses; otherwise
nothing is shown, which is not to say that there is no difference.

Source: C. W. Dunnett, Journal of the American Statistical Association 50 (1955), doi
10.1080/01621459.1955.10501294. Known limits: the groups are taken to spread alike, and the number
of runs must not have been chosen by looking at the intervals. scipy finds an interval's level by
random points: what is asked to be 95 % is between 94.5 and 95.5 %. Runs that diverged, got stuck
or relapsed are in no mean, for they say more about the failure than about the design: count them
beside it.

Where groups do not spread alike, such as one that collapses beside one that does not, ask
`comparisons.equivalence` of each pair, with the confidence that `comparisons.confidence_of_each`
gives it. Its verdicts are made by the same rule; only the intervals are Welch's.
"""

from __future__ import annotations

import statistics
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

from ninlab.comparisons import (
    CONFIDENCE,
    MARGIN,
    Difference,
    Verdict,
    check_margin,
    held_accuracies,
    images_of,
)
from ninlab.records import RunRecord


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

    A design with fewer than two runs that held is not tested, and no design is where the reference
    has fewer. Raises NinlabError for a margin that is not between 0 and 1, as
    `comparisons.kernels_of` does, and as `comparisons.images_of` does for all runs together.
    """
    check_margin(margin)
    images_of([*reference, *chain.from_iterable(designs.values())])
    control = held_accuracies(reference)
    samples = {label: held_accuracies(runs) for label, runs in designs.items()}
    tested = [label for label, sample in samples.items() if min(len(sample), len(control)) > 1]
    intervals = _intervals(control, [samples[label] for label in tested], confidence)
    found = dict(zip(tested, intervals, strict=True))
    return {
        label: Decision(
            runs=len(sample),
            reference_runs=len(control),
            difference=found.get(label),
            verdict=found[label].verdict_within(margin) if label in found else Verdict.NOT_TESTED,
        )
        for label, sample in samples.items()
    }


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
