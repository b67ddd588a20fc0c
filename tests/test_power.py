"""How many seeds: held against simulated runs, and against the same chances found another way."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import integrate, stats

from ninlab import records
from ninlab.comparisons import MARGIN, Verdict, equivalence, interaction, share, shares_differ
from ninlab.errors import NinlabError
from ninlab.experiments import PLANS
from ninlab.experiments.plans import (
    IMPROVED_PILOT,
    NORMALIZED_PILOT,
    PLAIN_SEEDS,
    WIDE_PILOT,
    WIDE_SEEDS,
    Pilot,
)
from ninlab.power import (
    POWER,
    chance_of_equality,
    pooled_deviation,
    seeds_for_equality,
    smallest_shown,
)
from ninlab.records import Outcome, RunRecord
from tests.test_comparisons import group

DRAWS = 20_000
deviations = st.floats(0.001, 0.1)
seed_counts = st.integers(2, 60)
at_once = st.integers(1, 12)
powers = st.floats(0.2, 0.99)


def level(comparisons: int) -> float:
    """What is left of the confidence for each of several comparisons, by Bonferroni."""
    return 0.05 / comparisons


def likely(chance: float, draws: int = DRAWS) -> float:
    """How far a share of draws may lie from its chance: four standard deviations."""
    return 4 * math.sqrt(chance * (1 - chance) / draws) + 1 / draws


# ---------------------------------------------------------------- how probable an answer is


@given(deviations, seed_counts, st.floats(0.002, 0.1), at_once)
def test_the_chance_of_equality_is_the_same_integral_taken_over_the_difference(
    deviation, seeds, margin, comparisons
):
    """Over which difference runs happen to have, each time with the chance of a small spread."""
    degrees = 2 * (seeds - 1)
    error = deviation * math.sqrt(2 / seeds)
    quantile = stats.t.isf(level(comparisons) / 2, degrees)

    def density(difference: float) -> float:
        room = (margin - difference) / (quantile * error)
        small = stats.chi2.cdf(degrees * room**2, degrees)
        return float(2 * stats.norm.pdf(difference, scale=error) * small)

    far = min(margin, 9 * error)
    expected, _ = integrate.quad(density, 0, far, limit=200, epsabs=1e-10)
    found = chance_of_equality(
        deviation, seeds, seeds, margin=margin, comparisons=comparisons, confidence=0.95
    )
    assert found == pytest.approx(expected, abs=1e-8)


@pytest.mark.parametrize(("seeds", "comparisons"), [(4, 1), (9, 1), (12, 3)])
def test_simulated_groups_are_found_equal_as_often_as_is_foretold(seeds, comparisons):
    deviation = 0.0053
    random = np.random.default_rng(0)
    ours, theirs = random.normal(0.9, deviation, (2, DRAWS, seeds))
    shares = {}
    for pooled in (True, False):
        test = stats.ttest_ind(ours, theirs, axis=1, equal_var=pooled)
        ends = test.confidence_interval(1 - level(comparisons))
        shares[pooled] = np.mean((ends.low > -MARGIN) & (ends.high < MARGIN))
    chance = chance_of_equality(deviation, seeds, seeds, comparisons=comparisons)
    assert shares[True] == pytest.approx(chance, abs=likely(chance))
    # Welch's interval does not know that both spread alike, and pays for that with width: at most
    # as if both together had the degrees of freedom of one.
    as_of_one = (seeds + 1) // 2
    assert shares[False] < chance + likely(chance)
    assert shares[False] > chance_of_equality(
        deviation * math.sqrt(as_of_one / seeds), as_of_one, as_of_one, comparisons=comparisons
    ) - likely(chance)


def test_runs_are_found_equal_and_without_interaction_as_often_as_is_foretold():
    """By the functions that judge recorded runs."""
    draws, seeds, deviation = 250, 12, 0.005
    random = np.random.default_rng(1)
    equal = alone = 0
    for _ in range(draws):
        both, first, second, neither = (
            group(list(random.normal(0.9, deviation, seeds))) for _ in range(4)
        )
        equal += equivalence(both, first).verdict is Verdict.EQUAL
        square = interaction(both=both, first=first, second=second, neither=neither)
        alone += square.verdict_within(MARGIN) is Verdict.EQUAL
    for found, groups in ((equal, 2), (alone, 4)):
        chance = chance_of_equality(deviation, *[seeds] * groups)
        assert found / draws == pytest.approx(chance, abs=likely(chance, draws))


@given(deviations, st.lists(seed_counts, min_size=2, max_size=4), at_once, powers)
def test_the_smallest_difference_is_shown_with_the_power(deviation, seeds, comparisons, power):
    """Outside oracle: the upper tail of the noncentral t beyond the interval's half-width."""
    found = smallest_shown(deviation, *seeds, comparisons=comparisons, power=power)
    degrees = sum(seeds) - len(seeds)
    distance = found / (deviation * math.sqrt(sum(1 / one for one in seeds)))
    quantile = stats.t.isf(level(comparisons) / 2, degrees)
    # both find a noncentral t by sums that are cut off
    assert stats.nct.sf(quantile, degrees, distance) == pytest.approx(power, abs=1e-5)


@pytest.mark.parametrize(("seeds", "reference_seeds"), [(5, 5), (3, 7)])
def test_simulated_differences_of_that_size_are_shown_as_often_as_is_foretold(
    seeds, reference_seeds
):
    difference = smallest_shown(0.01, seeds, reference_seeds, comparisons=2)
    random = np.random.default_rng(2)
    ours = random.normal(0.7 + difference, 0.01, (DRAWS, seeds))
    theirs = random.normal(0.7, 0.01, (DRAWS, reference_seeds))
    test = stats.ttest_ind(ours, theirs, axis=1)
    shown = np.mean(test.confidence_interval(1 - level(2)).low > 0)
    assert shown == pytest.approx(POWER, abs=likely(POWER))


# ---------------------------------------------------------------- groups that spread differently


@given(st.floats(0.001, 0.1), seed_counts, st.integers(2, 4), at_once, powers)
def test_groups_of_as_many_seeds_that_spread_alike_may_each_say_so(
    deviation, seeds, groups, comparisons, power
):
    alike, each = [seeds] * groups, [deviation] * groups
    for asked, how in ((smallest_shown, {"power": power}), (chance_of_equality, {})):
        expected = asked(deviation, *alike, comparisons=comparisons, **how)
        assert asked(each, *alike, comparisons=comparisons, **how) == pytest.approx(expected)
    assert seeds_for_equality(each) == seeds_for_equality(deviation, groups=groups)


UNLIKE = [([0.002, 0.01], [20, 5]), ([0.01, 0.002], [20, 5]), ([0.02, 0.004], [6, 12])]


@pytest.mark.parametrize(("spread", "seeds"), UNLIKE)
def test_unlike_groups_show_a_difference_as_often_as_is_foretold(spread, seeds):
    """By Welch's interval of simulated runs."""
    apart = smallest_shown(spread, *seeds, comparisons=2)
    random = np.random.default_rng(3)
    ours, theirs = (
        random.normal(mean, deviation, (DRAWS, n))
        for mean, deviation, n in zip((0.5 + apart, 0.5), spread, seeds, strict=True)
    )
    test = stats.ttest_ind(ours, theirs, axis=1, equal_var=False)
    shown = np.mean(test.confidence_interval(1 - level(2)).low > 0)
    assert shown == pytest.approx(POWER, abs=0.02)
    # as if all spread alike, the answer is that of another experiment
    together = math.sqrt(sum(d**2 * (n - 1) for d, n in zip(spread, seeds, strict=True))
                         / (sum(seeds) - 2))  # fmt: skip
    assert abs(smallest_shown(together, *seeds, comparisons=2) / apart - 1) > 0.1


@pytest.mark.parametrize(("spread", "seeds"), UNLIKE)
def test_unlike_groups_are_found_equal_as_often_as_is_foretold(spread, seeds):
    random = np.random.default_rng(4)
    ours, theirs = (
        random.normal(0.5, deviation, (DRAWS, n))
        for deviation, n in zip(spread, seeds, strict=True)
    )
    ends = stats.ttest_ind(ours, theirs, axis=1, equal_var=False).confidence_interval(0.95)
    for margin in (0.01, 0.02):
        equal = np.mean((ends.low > -margin) & (ends.high < margin))
        chance = chance_of_equality(spread, *seeds, margin=margin)
        assert equal == pytest.approx(chance, abs=0.02)


@pytest.mark.parametrize("spread", [[], [0.1], [0.1, 0.1, 0.1]])
def test_each_group_has_one_deviation(spread):
    for asked in (chance_of_equality, smallest_shown):
        with pytest.raises(NinlabError, match="2 groups have one deviation together or 2"):
            asked(spread, 5, 5)


# ---------------------------------------------------------------- how many seeds


@given(st.floats(0.0005, 0.3), st.sampled_from([2, 4]), at_once, powers)
def test_as_many_seeds_suffice_and_one_less_does_not(deviation, groups, comparisons, power):
    needed = seeds_for_equality(deviation, groups=groups, comparisons=comparisons, power=power)

    def chance(seeds: int) -> float:
        return chance_of_equality(deviation, *[seeds] * groups, comparisons=comparisons)

    assert chance(needed) >= power
    assert needed == 2 or chance(needed - 1) < power


@given(deviations, deviations, at_once, at_once, powers, powers, st.floats(0.005, 0.1))
def test_more_seeds_are_needed_of_more_spread_more_comparisons_and_more_power(
    one, other, few, many, low, high, margin
):
    assume(len({one, other}) == 2)
    (one, other), (few, many), (low, high) = (
        sorted((one, other)),
        sorted((few, many)),
        sorted((low, high)),
    )

    def needed(deviation: float, comparisons: int, power: float, margin: float = margin) -> int:
        return seeds_for_equality(deviation, comparisons=comparisons, power=power, margin=margin)

    base = needed(one, few, low)
    assert base <= min(needed(other, few, low), needed(one, many, low), needed(one, few, high))
    assert needed(one, few, low, 2 * margin) <= base


def test_many_seeds_are_the_textbooks_number_for_a_spread_that_is_known():
    """Of which half the power may be missed on each side."""
    deviation = 0.2
    both = stats.norm.isf(0.025) + stats.norm.isf((1 - POWER) / 2)
    textbooks = 2 * (deviation / MARGIN * both) ** 2
    assert seeds_for_equality(deviation) == pytest.approx(textbooks, rel=1e-3)
    apart = (stats.norm.isf(0.025) + stats.norm.ppf(POWER)) * deviation * math.sqrt(2 / 10_000)
    assert smallest_shown(deviation, 10_000, 10_000) == pytest.approx(apart, rel=1e-3)


def test_groups_that_do_not_spread_need_two_seeds_and_show_everything():
    assert seeds_for_equality(0) == 2
    assert chance_of_equality(0, 2, 2) == 1
    assert smallest_shown(0, 2, 2) == 0
    assert smallest_shown(0.01, 5, 5, power=level(1) / 4) == 0  # a chance that luck has


@pytest.mark.parametrize("deviation", [-0.1, 1.0, math.inf, math.nan])
def test_a_spread_that_accuracies_cannot_have_is_refused(deviation):
    with pytest.raises(NinlabError, match="deviation"):
        seeds_for_equality(deviation)


@pytest.mark.parametrize("seeds", [(), (5,), (1, 5), (5, 0)])
def test_fewer_than_two_groups_or_seeds_compare_nothing(seeds):
    for asked in (chance_of_equality, smallest_shown):
        with pytest.raises(NinlabError, match="at least two"):
            asked(0.01, *seeds)


@pytest.mark.parametrize("power", [0, 1, 90])
def test_a_power_is_a_share(power):
    with pytest.raises(NinlabError, match=f"not {power}"):
        seeds_for_equality(0.01, power=power)
    with pytest.raises(NinlabError, match=f"not {power}"):
        smallest_shown(0.01, 3, 3, power=power)


# ---------------------------------------------------------------- measured spreads, and the plan


@given(st.lists(st.lists(st.floats(0.1, 0.95), min_size=1, max_size=5), min_size=1, max_size=4))
def test_a_pooled_deviation_is_that_of_all_runs_about_the_mean_of_their_group(samples):
    runs = [group(sample) for sample in samples]
    degrees = sum(len(sample) - 1 for sample in samples)
    found = pooled_deviation([*runs, group([0.1], Outcome.STUCK), []])
    if not degrees:
        assert found is None
        return
    squares = sum(float(np.sum((np.array(one) - np.mean(one)) ** 2)) for one in samples)
    assert found == pytest.approx(math.sqrt(squares / degrees), abs=1e-9)


def test_no_spread_is_pooled_over_runs_on_all_images_and_on_a_part_of_them():
    everything = group([0.8, 0.82])
    part = [replace(r, recipe=replace(r.recipe, train_images=20_000)) for r in everything]
    assert pooled_deviation([part]) == pooled_deviation([everything])
    for mixed in ([everything, part], [[everything[0], part[1]]]):
        with pytest.raises(NinlabError, match="on as many images"):
            pooled_deviation(mixed)


def first_runs(pilot: Pilot) -> list[list[RunRecord]]:
    standing = [run for run in records.current(records.load()) if run.device.slug == "cpu"]
    return [
        [run for run in standing if f"{run.experiment}/{run.name}" == row and run.seed < seeds]
        for row, seeds in pilot.seeds.items()
    ]


@pytest.mark.parametrize("pilot", [NORMALIZED_PILOT, IMPROVED_PILOT])
def test_a_pilot_is_the_spread_of_its_recorded_runs_rounded_up(pilot):
    runs = first_runs(pilot)
    assert list(map(len, runs)) == list(pilot.seeds.values())
    assert pilot.deviation == math.ceil(pooled_deviation(runs) * 1e4) / 1e4


@pytest.mark.parametrize(
    ("reference", "pilot"),
    [
        ("one_by_one_batch_norm/nin_28_no_1x1_batch_norm", NORMALIZED_PILOT),
        ("improved/nin_28_batch_norm", IMPROVED_PILOT),
    ],
)
def test_the_plan_has_one_seed_more_than_the_margin_needs_at_the_pilots_spread(reference, pilot):
    plan = PLANS["compact"]
    compared = [rows for first, rows in plan.comparisons if first == reference]
    assert compared
    needed = max(seeds_for_equality(pilot.deviation, comparisons=len(rows)) for rows in compared)
    planned = {plan.by_path[row].seeds for rows in compared for row in (reference, *rows)}
    assert planned == {needed + 1}


@pytest.mark.parametrize(
    ("row", "least", "most"),
    [("collapse/nin_28", 100, 1000), ("collapse/nin_28_textbook", 1000, 100_000)],
)
def test_no_affordable_number_of_seeds_would_do_for_plain_descent(row, least, most):
    first_seeds = 5
    deviation = pooled_deviation(first_runs(Pilot(math.nan, {row: first_seeds})))
    at_once = max(len(rows) for first, rows in PLANS["compact"].comparisons if first == row)
    needed = seeds_for_equality(deviation, comparisons=at_once)
    assert least < needed < most
    assert needed > 5 * PLAIN_SEEDS


def test_the_square_under_the_better_recipe_has_the_seeds_that_its_interaction_needs():
    plan = PLANS["compact"]
    corner = plan.experiment("one_by_one_and_head_improved")
    rows = [*corner.by_path, *corner.compare_with]
    needed = seeds_for_equality(IMPROVED_PILOT.deviation, groups=len(rows))
    assert len(rows) == 4
    assert min(plan.by_path[row].seeds for row in rows) >= needed


def test_five_failures_of_the_seven_seeds_behind_the_wide_pilot_would_show_a_difference():
    fresh = WIDE_SEEDS - WIDE_PILOT
    assert fresh == 7
    never = share([False] * fresh)

    def chance(failures: int) -> float:
        return shares_differ(share(seed < failures for seed in range(fresh)), never)

    one_step_beside_two_remedies = level(2)
    assert chance(5) < one_step_beside_two_remedies < chance(4)
