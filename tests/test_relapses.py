"""Which runs lost again what they had learned."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ninlab import records
from ninlab.records import LossCurve, Outcome
from ninlab.relapses import FACTOR, MARGIN, WINDOW_STEPS, failed, held, relapse, relapsed
from tests.records import A_RECORD

losses = st.lists(st.floats(0.01, 4), min_size=1, max_size=30)


def with_losses(values: list[float | None], every: int = WINDOW_STEPS):
    return replace(A_RECORD, loss=LossCurve(every, tuple(values)))


@given(losses)
def test_a_loss_that_only_falls_is_no_relapse(values):
    assert relapse(with_losses(sorted(values, reverse=True))) is None


@given(losses, st.floats(0.001, 3))
def test_a_relapse_is_a_mean_above_the_lowest_so_far_by_factor_and_margin(values, beyond):
    falling = sorted(values, reverse=True)
    limit = FACTOR * falling[-1] + MARGIN
    assert relapse(with_losses([*falling, limit - 0.0005])) is None
    found = relapse(with_losses([*falling, limit + beyond]))
    assert found is not None
    assert found.step == len(falling) * WINDOW_STEPS
    assert (found.lowest, found.loss) == pytest.approx((falling[-1], limit + beyond))


@given(losses)
def test_the_first_relapse_is_found_whatever_comes_later(values):
    spike = [2.3, 0.5, 1.9]
    assert relapse(with_losses([*spike, *values])) == relapse(with_losses(spike))


def test_a_finely_kept_curve_is_averaged_over_twenty_steps():
    one_bad_batch = [0.5] * 8 + [1.1] + [0.5] * 3  # 5 steps each, so that the mean is 0.65
    assert relapse(with_losses(one_bad_batch, every=5)) is None
    assert relapse(with_losses([0.5] * 8 + [1.1] * 4, every=5)) is not None


def test_a_loss_that_is_no_number_is_a_divergence_and_no_relapse():
    assert relapse(with_losses([2.3, 0.5, None, 2.3])) is None
    assert relapse(with_losses([None])) is None


def test_a_fall_from_above_the_limit_cannot_be_seen():
    highest = (2.302585 - MARGIN) / FACTOR
    assert f"{highest:.2f}" == "1.40"  # as the module says
    assert relapse(with_losses([2.3, highest + 0.01, 2.302585])) is None
    assert relapse(with_losses([2.3, highest - 0.01, 2.302585])) is not None


def test_normalized_runs_of_the_book_do_not_relapse():
    normalized = [run for run in records.load() if "batch_norm" in run.network]
    assert len(normalized) > 20
    assert relapsed(normalized) == 0


@given(st.lists(st.booleans(), max_size=6))
def test_relapsed_runs_are_counted(fell):
    values = {True: [0.5, 1.5], False: [0.5, 0.4]}
    assert relapsed(with_losses(values[one]) for one in fell) == sum(fell)


@given(st.lists(st.tuples(losses, st.sampled_from(Outcome)), max_size=6))
def test_every_run_held_or_failed_and_one_that_held_finished_and_kept_what_it_learned(ends):
    runs = [replace(with_losses(values), outcome=outcome) for values, outcome in ends]
    left = held(runs)
    assert len(left) + sum(map(failed, runs)) == len(runs)
    assert relapsed(left) == 0
    assert all(run.outcome is Outcome.FINISHED for run in left)
    lost = [run for run in runs if run.outcome is Outcome.FINISHED and failed(run)]
    assert relapsed(lost) == len(lost)
