"""Is the difference between two groups of runs more than the luck of their seeds?

A group is the runs of one variant, one a seed. `summary` says how the group ended, failures
included; `difference` says how far two groups lie apart and how well that is known. An interval
that holds 0 means that these runs show no difference, not that there is none. `effects` and
`in_words` say the same of several groups, as a table and as a sentence, whatever was recorded.

Imports from ninlab: records and errors. Known limits: the interval is that of the seeds alone;
all runs see the same test images, whose choice adds `sampling_error`. Intervals are not corrected
for the number of comparisons that a reader makes.
"""

from __future__ import annotations

import statistics
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt

from ninlab.errors import NinlabError
from ninlab.records import Outcome, RunRecord

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Summary:
    """How one group of runs ended: test accuracy after the last epoch, of all its runs."""

    runs: int
    failed: int  # diverged or stuck; their accuracy counts all the same
    mean: float
    least: float
    greatest: float
    deviation: float  # between seeds, with n - 1; 0 for a single run

    def __str__(self) -> str:
        spread = f"{self.least:.1%} to {self.greatest:.1%}, n = {self.runs}"
        return f"{self.mean:.1%} ({spread})" + (f", {self.failed} failed" if self.failed else "")


@dataclass(frozen=True)
class Difference:
    """Mean accuracy of one group less that of another, with its confidence interval."""

    mean: float
    low: float
    high: float

    @property
    def shown(self) -> bool:
        """Whether the interval leaves 0 out."""
        return self.low > 0 or self.high < 0

    @property
    def verdict(self) -> str:
        """What the interval shows: "a gain", "a loss" or "no difference"."""
        if not self.shown:
            return "no difference"
        return "a gain" if self.mean > 0 else "a loss"

    def __str__(self) -> str:
        """In points: hundredths of accuracy."""
        mean, low, high = (
            f"{round(100 * share, 1) or 0.0:+.1f}" for share in (self.mean, self.low, self.high)
        )
        return f"{mean} ({low} to {high})"


def summary(runs: Sequence[RunRecord]) -> Summary:
    """How the runs ended. Raises NinlabError without a run."""
    accuracies = _accuracies(runs)
    return Summary(
        runs=len(runs),
        failed=sum(run.outcome is not Outcome.FINISHED for run in runs),
        mean=statistics.fmean(accuracies),
        least=min(accuracies),
        greatest=max(accuracies),
        deviation=statistics.stdev(accuracies) if len(runs) > 1 else 0.0,
    )


def difference(
    runs: Sequence[RunRecord], baseline: Sequence[RunRecord], confidence: float = CONFIDENCE
) -> Difference:
    """How much more accurate the runs are than the baseline, failures included.

    The interval is Welch's, which lets the groups spread differently, as far as accuracies can
    differ at all. Source: Welch1947.
    Raises NinlabError when a group has fewer than two runs, for one run has no spread, and
    for a confidence that is not between 0 and 1.
    """
    if not 0 < confidence < 1:
        raise NinlabError(f"a confidence lies between 0 and 1, as 0.95 does, not {confidence}")
    # scipy takes its time to import, which readers of counts need not wait for
    from scipy import stats

    ours, theirs = _accuracies(runs), _accuracies(baseline)
    if min(len(ours), len(theirs)) < 2:
        raise NinlabError(
            f"a difference needs at least two runs in each group, not {len(ours)} and {len(theirs)}"
        )
    mean = statistics.fmean(ours) - statistics.fmean(theirs)
    if len(set(ours)) == len(set(theirs)) == 1:
        return Difference(mean, mean, mean)
    with warnings.catch_warnings():
        # Runs that got stuck end alike to the last digit, and scipy doubts a variance of nothing.
        warnings.simplefilter("ignore", RuntimeWarning)
        test = stats.ttest_ind(ours, theirs, equal_var=False)
    interval = test.confidence_interval(confidence)
    # No accuracies differ by more than 1: what lies beyond covers nothing.
    return Difference(mean, max(float(interval.low), -1.0), min(float(interval.high), 1.0))


_ONE_RUN = "nothing, for want of a second run,"
_VERDICTS = ("a gain", "a loss", "no difference", _ONE_RUN)


def effects(
    groups: Mapping[str, Sequence[RunRecord]], confidence: float = CONFIDENCE
) -> dict[str, dict[str, str]]:
    """How each group ended, and what that shows against the first of them: a table's rows.

    By label: the difference from the first group in points, with its interval; whether that
    shows a gain, a loss or nothing; the mean accuracy; the number of runs, and of those that
    failed. A group of one run has a difference and no interval. Empty without groups.
    """
    rows = {}
    for label, group in groups.items():
        ended = summary(group)
        failed = f", {ended.failed} failed" if ended.failed else ""
        points, verdict = _against_first(group, groups, confidence)
        rows[label] = {
            "points": points,
            "shown": "nothing" if verdict in _VERDICTS[2:] else verdict,
            "mean": f"{ended.mean:.1%}",
            "runs": f"{ended.runs}{failed}",
        }
    return rows


def in_words(groups: Mapping[str, Sequence[RunRecord]], confidence: float = CONFIDENCE) -> str:
    """A sentence that says what the groups show against the first of them, and on which device.

    It says that nothing is recorded where there are not two groups.
    """
    if len(groups) < 2:
        return "No run of it is recorded yet."
    first, *others = groups
    devices = sorted({run.device.name for group in groups.values() for run in group})
    found = {label: _against_first(groups[label], groups, confidence) for label in others}
    answers = []
    for verdict in _VERDICTS:
        named = []
        for label, (points, shown) in found.items():
            mean, space, interval = points.partition(" ")
            if shown == verdict:
                named.append(f"{label}, {mean} points{space}{interval}")
        if named:
            answers.append(f"{verdict} for {' and for '.join(named)}")
    return f"Against {first}, the runs on {' and '.join(devices)} show {'; '.join(answers)}."


def _against_first(
    group: Sequence[RunRecord], groups: Mapping[str, Sequence[RunRecord]], confidence: float
) -> tuple[str, str]:
    """The difference from the first group in points, and what it shows; nothing of itself."""
    first = next(iter(groups.values()))
    if group is first:
        return "", ""
    if min(len(group), len(first)) < 2:
        points, verdict = f"{100 * (summary(group).mean - summary(first).mean):+.1f}", _ONE_RUN
    else:
        apart = difference(group, first, confidence)
        points, verdict = str(apart), apart.verdict
    return points.replace("-", "\N{MINUS SIGN}"), verdict


def sampling_error(accuracy: float, images: int) -> float:
    """Standard deviation of an accuracy measured on that many images drawn at random."""
    return sqrt(accuracy * (1 - accuracy) / images)


def _accuracies(runs: Sequence[RunRecord]) -> list[float]:
    if not runs:
        raise NinlabError("no run was given; a group needs at least one")
    return [run.last.test_accuracy for run in runs]
