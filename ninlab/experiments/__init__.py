"""Which runs answer which question, in which order, and what is recorded of them?

`planning` says what an experiment, a stage and a plan are, `plans` holds the plans as data, and
`rates` chooses learning rates by runs. `ninlab.answers` finds what is recorded of them.
"""

from __future__ import annotations

from ninlab.experiments.planning import (
    REST,
    Experiment,
    Plan,
    PlannedRun,
    Ready,
    Row,
    Square,
    Stage,
    ready,
)
from ninlab.experiments.plans import PEAK_SWEEP, PLANS, REHEARSAL, SWEEP, plan
from ninlab.experiments.rates import RateRule, best_rate, safe_rate

__all__ = [
    "PEAK_SWEEP",
    "PLANS",
    "REHEARSAL",
    "REST",
    "SWEEP",
    "Experiment",
    "Plan",
    "PlannedRun",
    "RateRule",
    "Ready",
    "Row",
    "Square",
    "Stage",
    "best_rate",
    "plan",
    "ready",
    "safe_rate",
]
