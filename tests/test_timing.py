"""Measured steps stand beside their bounds, and those of two networks predict the others."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from ninlab import records
from ninlab.architectures import architecture
from ninlab.comparisons import Groups
from ninlab.devices import device
from ninlab.errors import NinlabError
from ninlab.formulas import macs
from ninlab.measurement import Allocator, Case, CaseOutcome, Measured, MemoryRecord
from ninlab.predictions import bound, case_operators, prediction_errors, time_model
from ninlab.records import Device, Provenance, Software
from ninlab.roofline import TimeModel, time_bound, training_operators
from ninlab.steps import Kernels
from ninlab.timing import (
    bound_of_run,
    bounds_in_words,
    models_in_words,
    newest,
    on_gpu,
    orders_in_words,
    pairs,
    ratio_rows,
    rows_against_bounds,
    step_times,
    training_in_words,
    training_rates,
)
from tests.records import A_RECORD

H100 = Device("nvidia-h100", "NVIDIA H100 80GB HBM3", 80 * 10**9)
TRUTH = TimeModel(device("h100"), "tf32", 0.6, 0.8, 1e-5)


def case(network: str, batch_size: int, precision: str = "tf32", mode: str = "sgd") -> Case:
    return Case(network, architecture(network).input_shape, batch_size, precision, mode)


def step(of: Case, seconds: float | None) -> MemoryRecord:
    quartiles = None if seconds is None else (seconds,) * 3
    return MemoryRecord(
        case=of,
        network_digest=architecture(of.network).digest,
        allocator=Allocator.DEFAULT,
        measured=Measured(CaseOutcome.FINISHED, step_seconds=quartiles),
        predicted={},
        provenance=Provenance("2026-01-01T00:00:00Z", "test", None, False),
        device=H100,
        software=Software("3.12", "2.11.0", "0"),
    )


def timed(networks: Sequence[str], batch_sizes: Sequence[int]) -> list[MemoryRecord]:
    """Steps that take just what the true constants say."""
    cases = [case(network, size) for network in networks for size in batch_sizes]
    return [step(one, TRUTH.seconds(case_operators(one))) for one in cases]


USED_FOR_THE_FIT = [*timed(["vgg11"], [32, 64, 128]), *timed(["lenet"], [1, 16])]


def test_records_of_two_networks_give_the_constants_that_made_all_their_times():
    model = time_model([*USED_FOR_THE_FIT, step(case("lenet", 2), None)], "h100", "tf32")
    # The search stops at a relative step of 1e-4 in the ratio of the two efficiencies.
    assert model.compute_efficiency == pytest.approx(0.6, rel=1e-3)
    assert model.bandwidth_efficiency == pytest.approx(0.8, rel=1e-3)
    assert model.seconds_per_call == pytest.approx(1e-5, rel=1e-3)


def test_other_networks_and_other_precisions_do_not_move_the_constants():
    slow = [step(case("nin", 128), 1.0), step(case("vgg11", 16, "bf16"), 1.0)]
    assert time_model([*USED_FOR_THE_FIT, *slow], "h100", "tf32") == time_model(
        USED_FOR_THE_FIT, "h100", "tf32"
    )


def test_a_model_is_judged_on_the_steps_that_it_has_not_seen():
    others = timed(["nin", "alexnet"], [16, 128])
    unseen = [*others, *USED_FOR_THE_FIT, step(case("nin", 64, "bf16"), 1.0)]
    unseen.append(step(case("nin", 1), None))
    errors = prediction_errors(TRUTH, unseen)
    assert errors == pytest.approx({one.id: 0 for one in others})
    (late,) = prediction_errors(TRUTH, [step(case("nin", 32), 1.0)]).values()
    assert late < 0  # predicted too short


def test_the_words_on_a_model_say_its_constants_and_judge_it_on_other_networks():
    words = models_in_words([*USED_FOR_THE_FIT, *timed(["nin"], [16, 128])], "h100")
    assert (
        "VGG-11 and LeNet at 28x28 alone (tf32: 60% of the peak rate, 80% of the bandwidth" in words
    )
    assert words.endswith("10.0 µs a call) predict the 2 other steps with a mean error of 0%.")
    assert models_in_words(USED_FOR_THE_FIT, "h100").endswith("wait for steps of other networks.")
    assert models_in_words(USED_FOR_THE_FIT[:2], "h100") == ""


def test_a_bound_is_there_where_the_device_and_its_rate_are_described():
    t4, cpu = Device("t4", "Tesla T4", 10**9), Device("cpu", "AMD EPYC", 10**9)
    assert bound(case("lenet", 16, "bf16"), H100).seconds > 0
    assert bound(case("lenet", 16, "bf16"), t4) is None  # no bf16 rate
    assert bound(case("lenet", 16, "bf16"), cpu) is None


@pytest.mark.parametrize("mode", ["sgd", "momentum", "adam"])
def test_a_prediction_calls_less_than_a_training_step(mode):
    forward, training = (case_operators(case("nin", 8, mode=m)) for m in ("inference", mode))
    assert sum(one.calls for one in forward) < sum(one.calls for one in training)


# ---------------------------------------------------------------- two networks


def test_a_pair_has_the_ratios_of_its_two_steps():
    first, second = step(case("nin", 128), 0.3), step(case("alexnet", 128), 0.2)
    (pair,) = pairs([second, first], ("nin", "alexnet"))
    assert pair.steps == (first, second)
    least = [bound(one.case, H100) for one in pair.steps]
    assert pair.flops == pytest.approx(least[0].flops / least[1].flops)
    assert pair.least == pytest.approx(least[0].seconds / least[1].seconds)
    assert pair.measured == pytest.approx(1.5)
    assert pair.flops < 1 < pair.least
    assert pair.has_the_order_of(pair.least)
    assert not pair.has_the_order_of(pair.flops)


def test_turning_a_pair_around_changes_no_order():
    steps = [*timed(["nin", "alexnet", "vgg11"], [64, 128])]
    there = pairs(steps, ("nin", "alexnet", "vgg11"))
    back = pairs(steps, ("vgg11", "alexnet", "nin"))
    assert len(there) == len(back) == 2 * 3
    mirrored = {tuple(one.id for one in pair.steps): pair for pair in back}
    for pair in there:
        other = mirrored[tuple(one.id for one in reversed(pair.steps))]
        assert pair.measured * other.measured == pytest.approx(1)
        for kind in ("flops", "least"):
            assert pair.has_the_order_of(getattr(pair, kind)) == other.has_the_order_of(
                getattr(other, kind)
            )


@pytest.mark.parametrize(
    "other",
    [
        step(case("alexnet", 64), 0.1),
        step(case("alexnet", 128, "bf16"), 0.1),
        step(case("alexnet", 128, mode="adam"), 0.1),
        step(case("alexnet", 128), None),
        replace(step(case("alexnet", 128), 0.1), allocator=Allocator.EXPANDABLE_SEGMENTS),
        replace(step(case("alexnet", 128), 0.1), device=Device("abacus", "Abacus", 10)),
    ],
    ids=["batch", "precision", "mode", "not timed", "allocator", "device"],
)
def test_steps_of_two_settings_are_no_pair(other):
    assert pairs([step(case("nin", 128), 0.1), other]) == []


def test_the_words_on_orders_count_all_pairs_and_the_rows_have_those_against_their_bounds():
    cases = [case(network, 128) for network in ("nin", "alexnet", "vgg11")]
    steps = [step(one, 3 * bound(one, H100).seconds) for one in cases]
    words = orders_in_words(pairs(steps))
    assert words.startswith("Of 3 pairs of networks")
    assert "3 took their times in the order of their bounds, and 2 in the order of their" in words
    assert rows_against_bounds(pairs(steps)) == {}
    steps[0] = step(cases[0], 1.0)
    assert "2 took their times in the order of their bounds" in orders_in_words(pairs(steps))
    (row,) = rows_against_bounds(pairs(steps)).items()
    assert row[0] == "NiN / VGG-11, sgd, tf32, 128 images"
    assert row[1]["least time"] == "0.15"
    assert float(row[1]["measured time"]) > 1
    assert orders_in_words([]) == ""


# ---------------------------------------------------------------- training runs


def trained(network: str, rate: float, device: Device = H100) -> Groups:
    """One run that trained so many images in a second."""
    run = replace(
        A_RECORD,
        network=network,
        input_shape=architecture(network).input_shape,
        device=device,
        images_per_second=rate,
        recipe=replace(A_RECORD.recipe, precision="bf16", batch_size=128),
    )
    return {network: [run]}


def test_a_run_has_the_bound_of_its_own_step():
    (run,) = trained("nin", 1.0)["nin"]
    assert bound_of_run(run) == bound(case("nin", 128, "bf16"), H100)
    with_momentum = replace(run, recipe=replace(run.recipe, momentum=0.9))
    assert bound_of_run(with_momentum) == bound(case("nin", 128, "bf16", "momentum"), H100)


def test_a_fused_run_has_the_bound_of_fused_operators():
    (run,) = trained("nin", 1.0)["nin"]
    fused = replace(run, recipe=replace(run.recipe, kernels=Kernels.FUSED))
    operators = training_operators(architecture("nin"), 128, "sgd", "bf16", kernels="fused")
    found = bound_of_run(fused)
    assert found == time_bound(operators, device("h100"), "bf16")
    assert found.seconds < bound_of_run(run).seconds  # which no fused step is held against
    for table in (step_times, training_rates):
        assert [*table({"NiN": [run], "joined": [fused]})] == ["NiN", "joined, fused kernels"]


def test_times_of_steps_stand_against_the_first_row():
    rows = step_times(trained("nin", 12_800.0) | trained("nin_fixed_3x3", 6_400.0))
    assert rows["nin"]["measured, ms"] == "10.00"
    assert rows["nin_fixed_3x3"]["measured, ms"] == "20.00"
    assert rows["nin_fixed_3x3"]["measured"] == "×2.00"
    more = macs(architecture("nin_fixed_3x3")) / macs(architecture("nin"))
    assert rows["nin_fixed_3x3"]["MACs"] == f"×{more:.2f}"
    least = [bound_of_run(trained(name, 1.0)[name][0]) for name in rows]
    assert rows["nin_fixed_3x3"]["least"] == f"×{least[1].seconds / least[0].seconds:.2f}"
    assert set(rows["nin"].values()) >= {"×1.00"}


def test_without_a_data_sheet_a_time_has_no_bound_and_without_runs_there_is_no_row():
    unknown = Device("abacus", "Abacus", 10)
    assert list(step_times(trained("nin", 1.0, unknown))["nin"]) == [
        "MACs", "measured, ms", "measured",
    ]  # fmt: skip
    assert step_times({}) == {}


def test_the_rates_of_training_are_shares_of_the_data_sheet():
    groups = trained("nin", 12_800.0)
    (row,) = training_rates(groups).values()
    (run,) = groups["nin"]
    least = bound_of_run(run)
    assert (row["images/s"], row["step, ms"]) == ("12,800", "10.00")
    assert row["least, ms"] == f"{1e3 * least.seconds:.2f}"
    h100 = device("h100")
    assert row["peak rate"] == f"{least.flops / 0.01 / h100.peak('bf16'):.0%}"
    assert row["memory rate"] == f"{least.bytes / 0.01 / h100.bandwidth():.0%}"
    at_the_bound = training_rates(trained("nin", 128 / least.seconds))["nin"]
    assert int(at_the_bound["memory rate"].rstrip("%")) <= 100


def test_the_time_of_training_is_that_of_runs_that_came_to_the_end():
    (run,) = trained("nin", 12_800.0)["nin"]
    epochs = tuple(replace(run.epochs[0], epoch=epoch, seconds=2.0) for epoch in (1, 2, 3))
    whole = replace(run, epochs=epochs, recipe=replace(run.recipe, epochs=3))
    cut = replace(whole, epochs=epochs[:1], outcome=records.Outcome.DIVERGED)
    assert training_rates({"NiN": [whole, cut]})["NiN"]["3 epochs"] == "6.00 s"
    assert training_rates({"NiN": [cut]})["NiN"]["3 epochs"] == ""


# ---------------------------------------------------------------- which steps, and their words


def test_steps_of_a_gpu_are_those_that_a_known_one_finished_with_the_default_allocator():
    here = step(case("nin", 128), 1.0)
    others = [
        replace(here, allocator=Allocator.EXPANDABLE_SEGMENTS),
        replace(here, measured=Measured(CaseOutcome.OUT_OF_MEMORY)),
        replace(here, device=Device("some-gpu", "Some GPU", 1)),
    ]
    assert on_gpu([here, *others]) == [here]


def test_the_newest_steps_are_of_one_device_and_one_torch():
    old = step(case("nin", 128), 1.0)
    new = replace(
        step(case("alexnet", 128), 1.0),
        provenance=replace(old.provenance, utc="2026-02-01T00:00:00Z"),
        software=replace(old.software, torch="2.12.0"),
    )
    elsewhere = replace(new, device=Device("tesla-t4", "Tesla T4", 1))
    assert newest([old, new, elsewhere], "h100") == [new]
    assert newest([old], "t4") == newest([], "h100") == []


def test_steps_that_keep_their_bounds_are_counted_and_large_ones_have_a_factor():
    def after(of: Case, factor: float) -> MemoryRecord:
        return step(of, factor * bound(of, H100).seconds)

    small, large = case("nin", 1), case("nin", 128)
    steps = [after(small, 0.5), after(small, 9.0), after(large, 2.0), after(large, 4.0)]
    assert bounds_in_words(steps) == (
        "3 of 4 steps took at least their bound. Training steps of 64 images and more took "
        "3.0 times their bound in the median."
    )
    assert bounds_in_words(steps[:2]) == "1 of 2 steps took at least their bound."
    assert bounds_in_words([]) == ""


def test_two_networks_stand_beside_each_other_in_a_row_and_in_a_sentence():
    steps = [step(case("nin", 128), 2.0), step(case("alexnet", 128), 1.0)]
    others = [step(replace(one.case, mode="adam"), 1.0) for one in steps]
    two = pairs([*steps, *others], ("nin", "alexnet"))
    rows = ratio_rows(two)
    assert rows["sgd, tf32, 128 images"] == {
        "FLOPs": "0.81",
        "least time": "1.33",
        "measured time": "2.00",
    }
    assert training_in_words(two, 128, "H100") == (
        "On an H100 NiN's training step took 2.00 times as long as AlexNet's in TF32, where the "
        "bounds say 1.33."
    )
    assert training_in_words(two, 64, "H100") == training_in_words([], 128, "H100") == ""


def test_no_table_sets_the_speed_of_a_run_beside_that_of_another_load():
    on_cpu = Device("cpu", "a CPU", 2**34, threads=1)
    busy = replace(A_RECORD.host, other_cores=1.0)
    idle = trained("nin_28", 100.0, on_cpu) | trained("vgg11_28", 50.0, on_cpu)
    loaded = idle | {"vgg11_28": [replace(idle["vgg11_28"][0], host=busy)]}
    for table in (step_times, training_rates):
        assert [*table(idle)] == ["nin_28", "vgg11_28"]
        with pytest.raises(NinlabError, match="do not compare: 1 shared"):
            table(loaded)
        assert table({}) == {}
