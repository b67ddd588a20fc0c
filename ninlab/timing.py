"""How long did measured steps take, compared with their bounds and with each other?

`predictions` knows what was predicted of a step, `measurement` keeps what it took; here both are
put into words and into rows of tables.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, combinations
from statistics import fmean, median

from ninlab.architectures import architecture
from ninlab.comparisons import Groups, check_speeds, step_seconds, told_apart
from ninlab.devices import device, of_cuda_name
from ninlab.errors import NinlabError
from ninlab.formulas import macs
from ninlab.measurement import Allocator, CaseOutcome, MemoryRecord, setting
from ninlab.predictions import FITTED_NETWORKS, bound, prediction_errors, time_model
from ninlab.records import RunRecord
from ninlab.roofline import TimeBound, time_bound, training_operators
from ninlab.steps import Optimizer
from ninlab.units import format_seconds

_LARGE_BATCH = 64
"""Images from which on a step of the book's networks keeps a GPU busy."""


def on_gpu(steps: Iterable[MemoryRecord]) -> list[MemoryRecord]:
    """Those of the steps that a GPU with a data sheet finished, under the allocator's default."""
    return [
        step
        for step in steps
        if step.measured.outcome is CaseOutcome.FINISHED
        and step.allocator is Allocator.DEFAULT
        and of_cuda_name(step.device.name) is not None
    ]


def newest(steps: Iterable[MemoryRecord], device_name: str) -> list[MemoryRecord]:
    """The steps of that device in `ninlab.devices` under the torch of its newest record."""
    wanted = device(device_name)
    own = [step for step in steps if of_cuda_name(step.device.name) is wanted]
    if not own:
        return []
    release = max(own, key=lambda step: step.provenance.utc).software.torch
    return [step for step in own if step.software.torch == release]


def bounds_in_words(steps: Iterable[MemoryRecord]) -> str:
    """How long steps took, compared with their bounds; empty where no timed step has one."""
    over = [
        (step.case, seconds / least.seconds)
        for step in steps
        if (least := bound(step.case, step.device)) is not None
        and (seconds := step.measured.median_seconds) is not None
    ]
    if not over:
        return ""
    kept = sum(factor >= 1 for _, factor in over)
    words = f"{kept} of {len(over)} steps took at least their bound."
    large = [
        factor
        for case, factor in over
        if case.batch_size >= _LARGE_BATCH and case.mode == Optimizer.SGD
    ]
    if large:
        words += (
            f" Training steps of {_LARGE_BATCH} images and more took {median(large):.1f} times "
            "their bound in the median."
        )
    return words


def models_in_words(steps: Sequence[MemoryRecord], device_name: str) -> str:
    """What the constants fitted to steps of one device are, and how well they predict the others.

    A sentence for each precision whose steps leave no constant open; empty without one.
    """
    sentences = []
    for precision in device(device_name).flops_per_second:
        try:
            model = time_model(steps, device_name, precision)
        except NinlabError:  # too few steps to fit
            continue
        unseen = prediction_errors(model, steps).values()
        learned_from = " and ".join(architecture(name).title for name in FITTED_NETWORKS)
        outcome = (
            f"predict the {len(unseen)} other steps with a mean error of "
            f"{fmean(map(abs, unseen)):.0%}"
            if unseen
            else "wait for steps of other networks"
        )
        sentences.append(
            f"Three constants fitted to {learned_from} alone ({precision}: {model}) {outcome}."
        )
    return " ".join(sentences)


# ---------------------------------------------------------------- two networks


@dataclass(frozen=True)
class Pair:
    """Measured steps of two networks under one setting. Ratios are first over second."""

    steps: tuple[MemoryRecord, MemoryRecord]
    bounds: tuple[TimeBound, TimeBound]
    measured_seconds: tuple[float, float]

    @property
    def flops(self) -> float:
        """Ratio of the arithmetic."""
        return self.bounds[0].flops / self.bounds[1].flops

    @property
    def least(self) -> float:
        """Ratio of the bounds."""
        return self.bounds[0].seconds / self.bounds[1].seconds

    @property
    def measured(self) -> float:
        """Ratio of the times."""
        return self.measured_seconds[0] / self.measured_seconds[1]

    @property
    def conditions(self) -> str:
        """What the two steps have in common, for the row of a table."""
        case = self.steps[0].case
        return f"{case.mode}, {case.precision}, {case.batch_size} images"

    def has_the_order_of(self, ratio: float) -> bool:
        """Whether the step that takes longer is the one of which that ratio says so."""
        return (self.measured > 1) == (ratio > 1)


def pairs(steps: Iterable[MemoryRecord], networks: Sequence[str] | None = None) -> list[Pair]:
    """Every two measured steps of one setting on a device with a data sheet.

    networks says of which networks, and which of two comes first; by default all, by name.
    """
    steps = list(steps)
    order = sorted({step.case.network for step in steps}) if networks is None else list(networks)
    by_setting: dict[object, list[tuple[MemoryRecord, TimeBound, float]]] = {}
    for step in sorted(
        (step for step in steps if step.case.network in order),
        key=lambda step: order.index(step.case.network),
    ):
        least, seconds = bound(step.case, step.device), step.measured.median_seconds
        if least is not None and seconds is not None:
            by_setting.setdefault(setting(step), []).append((step, least, seconds))
    return [
        Pair((one, other), (of_one, of_other), (first, second))
        for alike in by_setting.values()
        for (one, of_one, first), (other, of_other, second) in combinations(alike, 2)
    ]


def orders_in_words(pairs: Sequence[Pair]) -> str:
    """How many of the pairs took their times in the order of their bounds, and of their FLOPs.

    Empty without a pair; `rows_against_bounds` has the pairs that took the other order.
    """
    if not pairs:
        return ""
    by_bounds = sum(pair.has_the_order_of(pair.least) for pair in pairs)
    by_flops = sum(pair.has_the_order_of(pair.flops) for pair in pairs)
    return (
        f"Of {len(pairs)} pairs of networks measured under one setting, {by_bounds} took their "
        f"times in the order of their bounds, and {by_flops} in the order of their FLOPs."
    )


def rows_against_bounds(pairs: Iterable[Pair]) -> dict[str, dict[str, str]]:
    """The pairs whose longer step is not the one with the longer bound: a table's rows.

    First over second in least and in measured time, and the calls of both steps, by the titles of
    the networks and the conditions.
    """
    return {
        f"{' / '.join(architecture(step.case.network).title for step in pair.steps)}, "
        f"{pair.conditions}": {
            "least time": f"{pair.least:.2f}",
            "measured time": f"{pair.measured:.2f}",
            "calls": " / ".join(str(least.calls) for least in pair.bounds),
        }
        for pair in pairs
        if not pair.has_the_order_of(pair.least)
    }


def ratio_rows(pairs: Iterable[Pair]) -> dict[str, dict[str, str]]:
    """First over second in arithmetic, least time and measured time, by the conditions."""
    return {
        pair.conditions: {
            "FLOPs": f"{pair.flops:.2f}",
            "least time": f"{pair.least:.2f}",
            "measured time": f"{pair.measured:.2f}",
        }
        for pair in pairs
    }


def training_in_words(pairs: Iterable[Pair], batch_size: int, device_title: str) -> str:
    """What the first network's SGD step took against the second's, and what the bounds say.

    Of the pairs with that batch, one clause a precision; empty without one.
    """
    asked = [
        pair
        for pair in pairs
        for case in [pair.steps[0].case]
        if (case.mode, case.batch_size) == (Optimizer.SGD, batch_size)
    ]
    if not asked:
        return ""
    first, second = (architecture(step.case.network).title for step in asked[0].steps)
    clauses = [
        f"{pair.measured:.2f} times as long as {second}'s in "
        f"{pair.steps[0].case.precision.replace('tf32', 'TF32')}, where the bounds say "
        f"{pair.least:.2f}"
        for pair in asked
    ]
    return f"On an {device_title} {first}'s training step took {', and '.join(clauses)}."


# ---------------------------------------------------------------- training runs


def bound_of_run(run: RunRecord) -> TimeBound | None:
    """The least that one training step of the run can take, None where no data sheet says so.

    It is that of the operators which the run's kernels are.
    """
    recipe, described = run.recipe, of_cuda_name(run.device.name)
    precision = str(recipe.precision)
    if described is None or precision not in described.flops_per_second:
        return None
    operators = training_operators(
        architecture(run.network),
        recipe.batch_size,
        recipe.counted_optimizer,
        precision,
        kernels=recipe.kernels,
    )
    return time_bound(operators, described, precision)


def step_times(groups: Groups) -> dict[str, dict[str, str]]:
    """What a step of each group costs, compared with the first: MACs, least time and measured time.

    By label, a table's rows: MACs as a multiple of the first group's; the bound of a training step
    and the measured median, in milliseconds, each with its multiple. Empty without groups. Raises
    NinlabError where the speeds of the runs do not compare, as `comparisons.check_speeds` has it.
    """
    if groups:
        check_speeds(chain.from_iterable(groups.values()))
    costs = {}
    for label, group in told_apart(groups, rates=False).items():
        least = bound_of_run(group[0])
        costs[label] = (
            macs(architecture(group[0].network)),
            least.seconds if least else None,
            step_seconds(group),
        )
    rows = {}
    first_macs, first_bound, first_seconds = next(iter(costs.values()), (1, None, 1.0))
    for label, (count, bound_seconds, seconds) in costs.items():
        rows[label] = {"MACs": f"×{count / first_macs:.2f}"}
        if bound_seconds is not None and first_bound is not None:
            rows[label]["least, ms"] = f"{1e3 * bound_seconds:.2f}"
            rows[label]["least"] = f"×{bound_seconds / first_bound:.2f}"
        rows[label]["measured, ms"] = f"{1e3 * seconds:.2f}"
        rows[label]["measured"] = f"×{seconds / first_seconds:.2f}"
    return rows


def training_rates(groups: Groups) -> dict[str, dict[str, str]]:
    """How fast the runs of each label trained, and which share of a device's rates that is.

    A table's rows: the median time of all epochs, over the runs that finished them; images a
    second; the milliseconds of a step, and of its bound; and which shares of the peak rate and of
    the bandwidth a step reaches, by the arithmetic and the bytes of its bound. Raises NinlabError
    as `step_times` does.
    """
    if groups:
        check_speeds(chain.from_iterable(groups.values()))
    rows = {}
    for label, group in told_apart(groups, rates=False).items():
        first, seconds = group[0], step_seconds(group)
        epochs = first.recipe.epochs
        whole = [sum(e.seconds for e in run.epochs) for run in group if len(run.epochs) == epochs]
        rows[label] = {
            f"{epochs} epochs": format_seconds(median(whole)) if whole else "",
            "images/s": f"{first.recipe.batch_size / seconds:,.0f}",
            "step, ms": f"{1e3 * seconds:.2f}",
        }
        least, on = bound_of_run(first), of_cuda_name(first.device.name)
        if least is not None and on is not None:
            arithmetic = least.flops / on.peak(str(first.recipe.precision))
            rows[label] |= {
                "least, ms": f"{1e3 * least.seconds:.2f}",
                "peak rate": f"{arithmetic / seconds:.0%}",
                "memory rate": f"{least.bytes / on.bandwidth() / seconds:.0%}",
            }
    return rows
