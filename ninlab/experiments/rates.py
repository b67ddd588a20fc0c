"""At which learning rate is a network trained, when other runs decide it?

No rule here looks at a test image. Both were written down before the runs that they judge.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import StrEnum

from ninlab.errors import NinlabError
from ninlab.recipes import EvaluationSet
from ninlab.records import Outcome, RunRecord
from ninlab.relapses import failed


class RateRule(StrEnum):
    """How a learning rate is chosen among runs that differ in it."""

    BEST = "best"
    SAFE = "safe"

    def rate(self, sweep: Sequence[RunRecord], judged: str) -> float:
        """The rate that the rule chooses; see `best_rate` and `safe_rate`."""
        return best_rate(sweep, judged) if self is RateRule.BEST else safe_rate(sweep)


def best_rate(sweep: Sequence[RunRecord], judged: str) -> float:
    """The learning rate with the highest held-out accuracy after the last epoch.

    That of the judged network, by its name, decides. Its runs that did not finish are passed over,
    and so is every rate from the lowest on at which another network of the sweep did not finish or
    relapsed; of equals the smaller rate wins. When nothing is left it is the judged network's
    smallest rate, so that the failure is recorded at its best. Raises NinlabError when a run was
    measured on test images, without a run of the judged network, and for runs of several kernels.
    """
    _check_kernels(sweep)
    seen = [run.id for run in sweep if run.recipe.evaluation_set is EvaluationSet.TEST]
    if seen:
        raise NinlabError(f"{seen[0]} was measured on test images; choose rates on held-out ones")
    own = [run for run in sweep if run.network == judged]
    if not own:
        raise NinlabError(f"no run of {judged} is in the sweep that its accuracy should decide")
    harmful = [run.recipe.learning_rate for run in sweep if run not in own and failed(run)]
    left = [
        run
        for run in own
        if run.outcome is Outcome.FINISHED
        and run.recipe.learning_rate < min(harmful, default=math.inf)
    ]
    if not left:
        return min(run.recipe.learning_rate for run in own)
    best = max(left, key=lambda run: (run.last.test_accuracy, -run.recipe.learning_rate))
    return best.recipe.learning_rate


def safe_rate(sweep: Sequence[RunRecord]) -> float:
    """The highest learning rate up to which every run finished without a relapse.

    The smallest rate where even that one did not hold. Only training losses decide, so that runs
    that were measured on test images may be among them. Raises NinlabError for runs of several
    kernels.
    """
    _check_kernels(sweep)
    rates = sorted({run.recipe.learning_rate for run in sweep})
    broken = {run.recipe.learning_rate for run in sweep if failed(run)}
    safe = [rate for rate in rates if not any(b <= rate for b in broken)]
    return safe[-1] if safe else rates[0]


def _check_kernels(sweep: Sequence[RunRecord]) -> None:
    """Raises NinlabError where runs of the sweep differ in more than network and rate."""
    kernels = sorted({run.recipe.kernels for run in sweep})
    if len(kernels) > 1:
        raise NinlabError(
            f"a rate is chosen among runs of the same kernels, not of {' and '.join(kernels)}"
        )
