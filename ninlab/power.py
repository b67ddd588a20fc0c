"""How many seeds does a comparison need, and what can it show with those that it gets?

To be asked before the runs. A comparison that ends with "not shown" has wasted its runs where its
interval could not have become narrow enough; so the plan takes the number of seeds from how much
seeds spread (`pooled_deviation`, of a few first runs), how much is to count as equal (the margin of
`comparisons`), how many comparisons are made at once, and how often the answer may be missed.

An answer is an interval that `comparisons` and `decisions` would take for one: equal, where all of
it lies within the margin; a gain or a loss, where it leaves 0 out. Several comparisons share the
confidence by Bonferroni's rule (`comparisons.confidence_of_each`). Each comparison has the power on
its own; that all get their answer is less probable.

Sources: of two one-sided tests, K. F. Phillips, Journal of Pharmacokinetics and Biopharmaceutics 18
(1990), doi 10.1007/BF01063556; of a difference, Student's noncentral t, as in S.-C. Chow, J. Shao,
H. Wang and Y. Lokhnygina, Sample Size Calculations in Clinical Research, 3rd edition (2017),
chapter 3.

Groups either spread alike, by one deviation, or each has its own. With one, an interval has the
degrees of freedom of all seeds together. With several it is Welch's, whose degrees of freedom are
taken from the deviations that are given (Welch1947): an approximation, which simulated groups of
five seeds and more keep to within two in a hundred.

Known limits: groups are taken to spread as a normal distribution does. Where one deviation is given
and they do not spread alike after all, the answer is off, the more so where the seeds differ in
number, too. A deviation of few runs is known badly: of four degrees of freedom, the true one may be
twice as large. Seeds are those of runs that hold: a row of which every third run fails needs half
as many more.
"""

from __future__ import annotations

import statistics
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from itertools import chain
from math import fsum, sqrt
from typing import Any

from ninlab.comparisons import (
    CONFIDENCE,
    MARGIN,
    check_margin,
    confidence_of_each,
    held_accuracies,
    images_of,
)
from ninlab.errors import NinlabError
from ninlab.records import RunRecord

POWER = 0.9
"""How probable an answer should be at least."""

Deviation = float | Sequence[float]
"""Of test accuracy between seeds: one for all groups, or one of each."""

_NODES, _IMPOSSIBLE = 100, 1e-12
"""Points of the Gauss-Legendre sum over the spreads that runs may happen to have, and the chance of
those that are left out at each end. tests/test_power.py compares it with an adaptive integration
the other way round, to eight decimals."""


def pooled_deviation(groups: Iterable[Sequence[RunRecord]]) -> float | None:
    """The standard deviation of test accuracy between seeds, taken to be the same in all groups.

    Of the runs that held. None where no group has two. Raises NinlabError as
    `comparisons.kernels_of` does, and as `comparisons.images_of` does for all runs together:
    networks that see fewer images spread otherwise.
    """
    groups = list(groups)
    images_of([*chain.from_iterable(groups)])
    samples = [sample for sample in map(held_accuracies, groups) if len(sample) > 1]
    if not samples:
        return None
    squares = sum(statistics.variance(sample) * (len(sample) - 1) for sample in samples)
    return sqrt(squares / sum(len(sample) - 1 for sample in samples))


def chance_of_equality(
    deviation: Deviation,
    *seeds: int,
    margin: float = MARGIN,
    comparisons: int = 1,
    confidence: float = CONFIDENCE,
) -> float:
    """How probable it is that groups of so many seeds are found equal, if they are.

    seeds are those of each group: of two for a difference, of four for an interaction. Groups are
    found equal where the whole interval lies within the margin. The chance is the mean over the
    spreads that runs may happen to have, for these say how wide the interval is. Raises NinlabError
    for a deviation that accuracies cannot have, for fewer than two groups or seeds of one, for a
    number of deviations that is not that of the groups, and for a margin or a confidence that is
    not between 0 and 1.
    """
    check_margin(margin)
    error, degrees = _error(deviation, seeds)
    quantile = _quantile(degrees, comparisons, confidence)
    if not error:
        return 1.0
    from scipy.integrate import fixed_quad
    from scipy.stats import chi, norm

    # of the runs, over the true one, as far as is not next to impossible
    spread = chi(degrees, scale=degrees**-0.5)
    least, most = float(spread.ppf(_IMPOSSIBLE)), float(spread.isf(_IMPOSSIBLE))

    def found_equal(times: Any) -> Any:  # of arrays
        return spread.pdf(times) * (2 * norm.cdf(margin / error - quantile * times) - 1)

    narrow_enough = min(most, margin / error / quantile)
    if narrow_enough <= least:
        return 0.0
    return float(fixed_quad(found_equal, least, narrow_enough, n=_NODES)[0])


def seeds_for_equality(
    deviation: Deviation,
    *,
    groups: int | None = None,
    margin: float = MARGIN,
    comparisons: int = 1,
    power: float = POWER,
    confidence: float = CONFIDENCE,
) -> int:
    """The fewest seeds of each group with which `chance_of_equality` reaches the power.

    There are two groups, or as many as have a deviation of their own, unless groups says
    otherwise. Raises NinlabError as that does, and for a power that is not between 0 and 1.
    """
    _check_power(power)
    if groups is None:
        groups = len(deviation) if isinstance(deviation, Sequence) else 2

    def chance(seeds: int) -> float:
        return chance_of_equality(
            deviation,
            *[seeds] * groups,
            margin=margin,
            comparisons=comparisons,
            confidence=confidence,
        )

    enough = 2
    while chance(enough) < power:
        enough *= 2
    return bisect_left(range(enough), power, lo=enough // 2, key=chance) if enough > 2 else 2


def smallest_shown(
    deviation: Deviation,
    *seeds: int,
    comparisons: int = 1,
    power: float = POWER,
    confidence: float = CONFIDENCE,
) -> float:
    """The smallest true difference in accuracy that so many seeds show with the power.

    That is, of which the interval leaves 0 out, on its side. seeds are those of each group, as in
    `chance_of_equality`. It may be above 1, as no difference is. Raises NinlabError as that does,
    and for a power that is not between 0 and 1.
    """
    from scipy.special import nctdtrinc

    _check_power(power)
    error, degrees = _error(deviation, seeds)
    quantile = _quantile(degrees, comparisons, confidence)
    # a power below the chance of an error is had without any difference
    return error * max(float(nctdtrinc(degrees, 1 - power, quantile)), 0.0)


def _error(deviation: Deviation, seeds: Sequence[int]) -> tuple[float, float]:
    """The standard error of means added and subtracted, and its degrees of freedom."""
    each = list(deviation) if isinstance(deviation, Sequence) else [deviation] * len(seeds)
    for one in each:
        if not 0 <= one < 1:
            raise NinlabError(f"accuracies have a deviation from 0 to below 1, not {one}")
    if len(seeds) < 2 or min(seeds) < 2:
        raise NinlabError(
            "a comparison needs at least two groups, and two seeds of each, not "
            + (", ".join(map(str, seeds)) or "none")
        )
    if len(each) != len(seeds):
        raise NinlabError(
            f"{len(seeds)} groups have one deviation together or {len(seeds)}, not {len(each)}"
        )
    of_means = [one**2 / n for one, n in zip(each, seeds, strict=True)]
    error = sqrt(fsum(of_means))
    if not isinstance(deviation, Sequence) or not error:
        return error, sum(seeds) - len(seeds)
    shares = [one / fsum(of_means) for one in of_means]
    return error, 1 / fsum(one**2 / (n - 1) for one, n in zip(shares, seeds, strict=True))


def _quantile(degrees: float, comparisons: int, confidence: float) -> float:
    """Half the width of an interval, in standard errors that runs happen to have."""
    from scipy.special import stdtrit

    return float(stdtrit(degrees, (1 + confidence_of_each(comparisons, confidence)) / 2))


def _check_power(power: float) -> None:
    if not 0 < power < 1:
        raise NinlabError(f"a power lies between 0 and 1, as {POWER} does, not {power}")
