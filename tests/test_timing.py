"""Measured steps stand beside their bounds, and those of two networks predict the others."""

from collections.abc import Sequence

import pytest

from ninlab.architectures import architecture
from ninlab.devices import device
from ninlab.measurement import Allocator, Case, Measured, MemoryRecord, Outcome
from ninlab.records import Device, Provenance, Software
from ninlab.roofline import TimeModel
from ninlab.timing import bound, operators, prediction_errors, time_model

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
        measured=Measured(Outcome.FINISHED, step_seconds=quartiles),
        predicted={},
        provenance=Provenance("2026-01-01T00:00:00Z", "test", None, False),
        device=H100,
        software=Software("3.12", "2.11.0", "0"),
    )


def timed(networks: Sequence[str], batch_sizes: Sequence[int]) -> list[MemoryRecord]:
    """Steps that take just what the true constants say."""
    cases = [case(network, size) for network in networks for size in batch_sizes]
    return [step(one, TRUTH.seconds(operators(one))) for one in cases]


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


def test_a_bound_is_there_where_the_device_and_its_rate_are_described():
    t4, cpu = Device("t4", "Tesla T4", 10**9), Device("cpu", "AMD EPYC", 10**9)
    assert bound(case("lenet", 16, "bf16"), H100).seconds > 0
    assert bound(case("lenet", 16, "bf16"), t4) is None  # no bf16 rate
    assert bound(case("lenet", 16, "bf16"), cpu) is None


@pytest.mark.parametrize("mode", ["sgd", "momentum", "adam"])
def test_a_prediction_calls_less_than_a_training_step(mode):
    forward, training = (operators(case("nin", 8, mode=m)) for m in ("inference", mode))
    assert sum(one.calls for one in forward) < sum(one.calls for one in training)
