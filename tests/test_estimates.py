"""Estimates are right to a fourth where a family has been trained, and follow the runs."""

import statistics
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ninlab import records
from ninlab.architectures import architecture
from ninlab.devices import device
from ninlab.estimates import Estimates, LinearCost, RooflineCost, kin
from ninlab.experiments import PLANS
from ninlab.recipes import EvaluationSet, Recipe
from ninlab.roofline import time_bound, training_operators
from ninlab.steps import Kernels, Optimizer, Precision
from tests.records import A_HOST, A_RECORD
from tests.records import H100 as H100_DEVICE

H100 = "nvidia-h100-80gb-hbm3"
PLAIN = Recipe(0.05, 10, precision=Precision.BF16)
COST = RooflineCost("h100")


def first_runs_of_the_h100():
    """Those of the full plan's first stage that went to their end; they stay what they are."""
    first = {run.id(H100) for run in PLANS["full"].runs if run.stage == "first"}
    return [
        run for run in records.load() if run.id in first and len(run.epochs) == run.recipe.epochs
    ]


def test_the_guess_is_short_by_up_to_eight_tenths_and_never_long():
    runs = first_runs_of_the_h100()
    assert len(runs) == 18
    for run in runs:
        ratio = run.wall_seconds / COST.seconds(run.network, run.recipe, run.recipe.epochs)
        assert 1.0 < ratio < 1.8, run.id


def test_a_network_that_was_never_trained_is_estimated_to_a_fourth_by_its_family():
    """Each network of the H100's first runs, from the runs of the others alone."""
    runs = first_runs_of_the_h100()
    for run in runs:
        others = [other for other in runs if other.network != run.network]
        estimate = Estimates(COST, others).seconds(run.network, run.recipe)
        assert 0.75 < estimate / run.wall_seconds < 1.25, run.id


def test_a_network_that_was_trained_is_estimated_by_its_own_runs():
    runs = first_runs_of_the_h100()
    for run in runs:
        own = [other for other in runs if other.network == run.network]
        ratios = [
            other.wall_seconds / COST.seconds(other.network, other.recipe, other.recipe.epochs)
            for other in own
        ]
        guess = COST.seconds(run.network, run.recipe, run.recipe.epochs)
        estimate = Estimates(COST, runs).seconds(run.network, run.recipe)
        assert estimate == pytest.approx(statistics.median(ratios) * guess)


def test_vgg11_is_guessed_by_the_data_sheet_while_only_nin_has_been_trained():
    """Outside oracle: 28.719 ms a step of 128, as the H100 took in its first minute."""
    estimates = PLANS["full"].estimates(
        first_runs_of_the_h100(), first_runs_of_the_h100()[0].device
    )
    assert estimates.seconds("vgg11", PLAIN) / (PLAIN.steps * 0.028719) == pytest.approx(1, abs=0.1)


def test_the_compact_guess_is_that_of_the_machine_to_which_it_was_fitted():
    # LinearCost promises a factor of 1.5; single runs had to share their core with other work.
    plan = PLANS["compact"]
    ratios = [
        sum(epoch.seconds for epoch in run.epochs)
        / plan.cost.seconds(run.network, run.recipe, len(run.epochs))
        for run in records.load()
        if run.device.name == "AMD EPYC"
    ]
    assert 1 / 1.5 < statistics.median(ratios) < 1.5


@pytest.mark.parametrize("network", ["nin", "alexnet", "googlenet", "nin_fixed_8_blocks"])
@pytest.mark.parametrize("precision", [Precision.BF16, Precision.TF32])
def test_no_step_is_guessed_to_be_faster_than_its_bound(network, precision):
    recipe = replace(PLAIN, precision=precision)
    operators = training_operators(architecture(network), 128, "sgd", str(precision))
    bound = time_bound(operators, device("h100"), str(precision))
    assert COST.step_seconds(network, recipe) > bound.seconds


def test_a_known_gpu_is_guessed_by_its_own_rates_and_an_unknown_one_by_the_plans():
    def seconds(name):
        return COST.on(name).seconds("nin", PLAIN, 10)

    assert seconds("NVIDIA H100 80GB HBM3") == seconds("some GPU") == COST.seconds("nin", PLAIN, 10)
    assert seconds("NVIDIA A100-SXM4-40GB") > 1.5 * seconds("NVIDIA H100 80GB HBM3")
    assert seconds("Tesla T4") > 10 * seconds("NVIDIA H100 80GB HBM3")  # without bfloat16 units


@pytest.mark.parametrize("cost", [COST, PLANS["compact"].cost], ids=["roofline", "linear"])
def test_more_epochs_more_images_and_more_layers_take_longer(cost):
    seconds = cost.seconds("nin_fixed", PLAIN, 10)
    start = getattr(cost, "start_seconds", 0.0)
    assert cost.seconds("nin_fixed", PLAIN, 20) - start == pytest.approx(2 * (seconds - start))
    held_out = replace(PLAIN, evaluation_set=EvaluationSet.HELD_OUT)
    assert cost.seconds("nin_fixed", held_out, 10) < seconds
    assert cost.seconds("nin_fixed_8_blocks", PLAIN, 10) > seconds


@given(st.lists(st.floats(0.1, 10), min_size=1, max_size=5), st.integers(1, 50))
def test_what_a_device_took_is_what_the_next_run_is_expected_to_take(slower, epochs):
    """A run that diverged early counts by the epochs that it had."""
    cost = LinearCost(1e-4, 7e-9, 3e-11)
    recipe = replace(A_RECORD.recipe, epochs=epochs)
    estimates = Estimates(cost)
    for factor in slower:
        guess = cost.seconds(A_RECORD.network, A_RECORD.recipe, len(A_RECORD.epochs))
        estimates.add(replace(A_RECORD, wall_seconds=factor * guess))
    guess = cost.seconds(A_RECORD.network, recipe, epochs)
    expected = statistics.median(slower) * guess
    assert estimates.seconds(A_RECORD.network, recipe) == pytest.approx(expected)


@given(st.floats(0.05, 1.2), st.sampled_from([1, 2, 4]))
def test_a_run_under_load_teaches_what_it_would_have_taken_alone(share, threads):
    on = replace(A_RECORD, device=replace(A_RECORD.device, threads=threads), wall_seconds=100.0)
    alone, loaded = (
        replace(on, host=replace(A_HOST, own_cores=part * threads), wall_seconds=seconds)
        for part, seconds in ((1.0, 100.0), (share, 100.0 / min(share, 1.0)))
    )
    older = replace(on, host=None)  # tells nothing of its load
    expected, *others = (
        Estimates(PLANS["compact"].cost, [run]).seconds(on.network, on.recipe)
        for run in (alone, loaded, older)
    )
    assert others == pytest.approx([expected, expected])


def test_a_gpus_run_waits_for_its_cpu_and_is_taken_at_its_word():
    run = replace(A_RECORD, device=H100_DEVICE)
    busy, idle = (replace(run, host=replace(A_HOST, own_cores=own)) for own in (0.3, 1.0))
    both = {Estimates(COST, [one]).seconds("nin", PLAIN) for one in (busy, idle)}
    assert len(both) == 1


def test_the_correction_is_the_networks_own_else_its_familys_else_everyones():
    cost = LinearCost(1e-4, 7e-9, 3e-11)

    def slow(network, factor):
        run = replace(A_RECORD, network=network)
        guess = cost.seconds(network, run.recipe, len(run.epochs))
        return replace(run, wall_seconds=factor * guess)

    estimates = Estimates(cost, [slow("nin_28", 2.0), slow("nin_28_no_1x1", 4.0),
                                 slow("alexnet_28", 10.0)])  # fmt: skip

    def correction(network):
        return estimates.seconds(network, A_RECORD.recipe) / cost.seconds(
            network, A_RECORD.recipe, A_RECORD.recipe.epochs
        )

    assert correction("nin_28") == pytest.approx(2.0)
    assert correction("nin_28_3x3") == pytest.approx(3.0)
    assert correction("vgg11_28") == pytest.approx(4.0)  # this guess is of another machine
    assert Estimates(cost).seconds("vgg11_28", PLAIN) == cost.seconds("vgg11_28", PLAIN, 10)


def test_fused_runs_and_torchs_correct_each_others_estimates_in_nothing():
    fused = replace(PLAIN, kernels=Kernels.FUSED)
    (torchs, *_) = first_runs_of_the_h100()
    estimates = Estimates(COST, [torchs])
    assert estimates.is_corrected(Kernels.TORCH)
    assert not estimates.is_corrected(Kernels.FUSED)
    guess = COST.seconds(torchs.network, fused, fused.epochs)
    assert guess < COST.seconds(torchs.network, PLAIN, PLAIN.epochs)  # by its own operators
    assert estimates.seconds(torchs.network, fused) == guess
    before = estimates.seconds(torchs.network, PLAIN)
    own = replace(torchs, recipe=fused, wall_seconds=3 * guess)
    estimates.add(own)
    assert estimates.seconds(torchs.network, fused) == pytest.approx(3 * guess)
    assert estimates.seconds(torchs.network, PLAIN) == before


def test_families_are_those_of_the_papers():
    assert [kin(name) for name in ("nin_28_3x3", "vgg11_quarter", "vgg19", "lenet")] == [
        "nin", "vgg", "vgg", "lenet",
    ]  # fmt: skip


def test_an_optimizer_is_named_as_the_counters_name_it():
    assert PLAIN.counted_optimizer == "sgd"
    assert replace(PLAIN, momentum=0.9).counted_optimizer == "momentum"
    assert replace(PLAIN, optimizer=Optimizer.ADAM).counted_optimizer == "adam"
