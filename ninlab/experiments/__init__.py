"""Which runs answer which question, in which order, and what is recorded of them?

`planning` says what an experiment, a stage and a plan are, `plans` holds the plans as data, `rates`
chooses learning rates by runs, `answers` finds what is recorded, and `lost_classes` bounds what a
run with lost classes can reach.

Imports from ninlab: architectures, estimates, recipes, records, relapses, errors; no torch.
"""

from __future__ import annotations

from ninlab.experiments.answers import Answer, answer, comparison, runs_of
from ninlab.experiments.lost_classes import accuracy_roof, loss_floor
from ninlab.experiments.planning import (
    REST,
    Experiment,
    Plan,
    PlannedRun,
    Ready,
    Stage,
    Variant,
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
    "Answer",
    "Experiment",
    "Plan",
    "PlannedRun",
    "RateRule",
    "Ready",
    "Stage",
    "Variant",
    "accuracy_roof",
    "answer",
    "best_rate",
    "comparison",
    "loss_floor",
    "plan",
    "ready",
    "runs_of",
    "safe_rate",
]
