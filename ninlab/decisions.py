"""What do several designs show, all at once, against the one that they were made from?

Comparing seven designs with one reference at 95 % each would show a difference that is not there
more often than once in twenty tables. These intervals hold all together. What one means was
written down before the runs that it judges: within a margin of one point either way the two are
equal for every purpose of this book; where it leaves 0 out, the design gains or loses; otherwise
nothing is shown, which is not to say that there is no difference.

Each interval is Welch's, with the confidence that Bonferroni's rule leaves it. Dunnett's, which are
made for many designs and one control, are narrower where all groups spread alike. Here one design's
seeds spread up to 40 times as far as another's, and then Dunnett's miss far more often than they
promise; tests/test_decisions.py simulates it. Known limit: the number of runs must not have been
chosen by looking at the intervals. Runs that diverged, got stuck or relapsed are in no mean, for
they say more about the failure than about the design: count them beside it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

from ninlab.comparisons import (
    CONFIDENCE,
    MARGIN,
    Difference,
    Verdict,
    check_margin,
    confidence_of_rows,
    difference,
    held_accuracies,
    images_of,
)
from ninlab.records import RunRecord


@dataclass(frozen=True)
class Decision:
    """What one design shows against the reference; difference is None for fewer than two runs."""

    runs: int  # of the design, those that held
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
    reference_runs = len(held_accuracies(reference))
    # by number: a design may go by any label
    groups = {str(i): runs for i, runs in enumerate([reference, *designs.values()])}
    of_each = confidence_of_rows(groups, confidence=confidence)
    found = {}
    for label, runs in designs.items():
        count = len(held_accuracies(runs))
        apart = difference(runs, reference, of_each) if min(count, reference_runs) > 1 else None
        verdict = Verdict.NOT_TESTED if apart is None else apart.verdict_within(margin)
        found[label] = Decision(count, reference_runs, apart, verdict)
    return found
