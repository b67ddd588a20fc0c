"""Measured peaks stand beside their predictions, in words and rows that name the networks."""

from __future__ import annotations

from ninlab import memory
from ninlab.architectures import architecture
from ninlab.measurement import (
    PEAKS,
    Allocator,
    Case,
    CaseOutcome,
    Measured,
    MemoryRecord,
)
from ninlab.peers import Comparison
from ninlab.records import Device, Provenance, Software

PREDICTED = dict.fromkeys(PEAKS, 1000 * 2**20)


def step(
    network: str = "nin",
    measured: dict[str, int] | None = None,
    *,
    predicted: dict[str, int] | None = None,
    allocator: Allocator = Allocator.DEFAULT,
    outcome: CaseOutcome = CaseOutcome.FINISHED,
    device: str = "some GPU",
    **case: object,
) -> MemoryRecord:
    """A step of which every peak was predicted as 1,000 MiB and, by default, measured so."""
    measured = PREDICTED | (measured or {})
    predicted = PREDICTED if predicted is None else predicted
    settings = {"batch_size": 128, "precision": "tf32"} | case
    return MemoryRecord(
        case=Case(network, architecture(network).input_shape, **settings),
        network_digest=architecture(network).digest,
        allocator=allocator,
        measured=Measured(outcome, **{PEAKS[kind]: size for kind, size in measured.items()}),
        predicted={PEAKS[kind]: size for kind, size in predicted.items()},
        provenance=Provenance("2026-01-01T00:00:00Z", "test", None, False),
        device=Device(device.lower().replace(" ", "-"), device, 2**36),
        software=Software("3.12", "2.11.0", "0"),
    )


def lower(kind: str) -> dict[str, int]:
    """That peak at 800 MiB, so that it was predicted a quarter too high."""
    return {kind: 800 * 2**20}


def test_steps_of_a_gpu_are_those_that_it_finished() -> None:
    on_gpu = step()
    on_cpu = step(allocator=Allocator.CPU)
    steps = [on_gpu, on_cpu, step(outcome=CaseOutcome.OUT_OF_MEMORY)]
    assert [found.id for found in memory.on_gpu(steps)] == [on_gpu.id]
    assert [found.id for found in memory.on_cpu(steps)] == [on_cpu.id]


def test_the_tensor_peaks_of_steps_lie_by_network_and_batch() -> None:
    steps = [step(batch_size=8), step(), step("vgg11", lower("tensor"))]
    whole, less = 1000 * 2**20, 800 * 2**20
    assert memory.tensor_peaks(steps) == {"nin": {8: whole, 128: whole}, "vgg11": {128: less}}


def test_nothing_is_said_and_listed_of_no_step() -> None:
    assert memory.gpu_in_words([]) == memory.cpu_in_words([]) == ""
    assert memory.ranks_in_words([], "nin", "alexnet") == ""
    assert memory.needs_in_words([], "nin", "alexnet", 128) == ""
    assert memory.agreement_rows([]) == {}
    assert memory.reversed_rows([], "nin", "alexnet") == {}


# ---------------------------------------------------------------- on a CPU


def test_adams_step_counters_are_four_bytes_for_each_tensor_of_parameters() -> None:
    tensors = 2 * 12  # NiN has twelve convolutions
    assert memory.step_counter_bytes(step(mode="adam")) == 4 * tensors
    assert memory.step_counter_bytes(step(mode="sgd")) == 0


def test_steps_on_a_cpu_are_right_to_the_byte_or_off_by_the_counters() -> None:
    counters = memory.step_counter_bytes(step(mode="adam"))
    more = {"tensor": PREDICTED["tensor"] + counters}
    steps = [
        step(precision="fp32", allocator=Allocator.CPU),
        step("nin", more, precision="fp32", allocator=Allocator.CPU, mode="adam"),
        step("nin", more, precision="fp32", allocator=Allocator.CPU, batch_size=8),
        step("nin", lower("tensor")),  # on a GPU
    ]
    words = memory.cpu_in_words(steps)
    assert words.startswith("**1 of 3 recorded steps are as predicted, to the byte.** 1 more ")
    assert memory.cpu_in_words(steps[:1]) == (
        "**1 of 1 recorded steps are as predicted, to the byte.**"
    )


# ---------------------------------------------------------------- on a GPU


def test_the_one_network_that_is_missed_is_named() -> None:
    steps = [step("nin", lower("requested")), step(batch_size=8), step("alexnet"), step("vgg11")]
    words = memory.gpu_in_words(steps)
    assert "The tensor peak is predicted to the byte in 4 of 4 steps." in words
    assert "The requested peak is predicted within 1% in 3 of 4 steps" in words
    assert "are NiN's: 1 of 2 of its steps are right, and 2 of 2 of all others." in words
    two = [*steps, step("alexnet", lower("requested"), batch_size=8)]
    assert "All misses" not in memory.gpu_in_words(two)


def test_a_row_counts_the_steps_of_its_network() -> None:
    steps = [step("nin", lower("reserved")), step(batch_size=8), step("vgg11")]
    rows = memory.agreement_rows(steps)
    assert list(rows) == ["NiN", "VGG-11"]
    assert list(rows["NiN"].values()) == ["2 of 2", "2 of 2", "2 of 2", "+0% to +25%"]
    assert list(rows["VGG-11"].values()) == ["1 of 1", "1 of 1", "1 of 1", "+0%"]


# ---------------------------------------------------------------- two networks


def test_a_wrong_order_is_listed_and_counted() -> None:
    other = {kind: size - 1 for kind, size in PREDICTED.items()}
    first = step("nin", lower("reserved"))
    second = step("alexnet", other, predicted=other)
    assert memory.ranks_in_words([first, second], "nin", "alexnet") == (
        "A case is one kind of peak under one setting. In 3 of 4 cases it was predicted correctly "
        "which of NiN and AlexNet needs more."
    )
    (row,) = memory.reversed_rows([first, second], "nin", "alexnet").items()
    assert row[0] == "reserved, 128 images, tf32, sgd"
    assert row[1]["measured"] == "800 MiB / 1000 MiB"


def test_who_needs_more_is_told_for_each_peak_of_the_asked_step() -> None:
    more = {kind: size + 2**30 for kind, size in PREDICTED.items()}
    steps = [step("nin", lower("reserved")), step("alexnet"), step("alexnet", more, mode="adam")]
    words = memory.needs_in_words(steps, "nin", "alexnet", 128)
    assert words == (
        "128 images, tf32, sgd: AlexNet needs more by the reserved (800 MiB / 1000 MiB) peak."
    )
    assert memory.needs_in_words(steps, "nin", "alexnet", 64) == ""


def test_rows_of_two_devices_name_them() -> None:
    other = {kind: size - 1 for kind, size in PREDICTED.items()}
    steps = [
        one
        for device in ("GPU A", "GPU B")
        for one in (
            step("nin", lower("reserved"), device=device),
            step("alexnet", other, predicted=other, device=device),
        )
    ]
    rows = memory.reversed_rows(steps, "nin", "alexnet")
    assert [row.split(", ")[-2] for row in rows] == ["GPU A", "GPU B"]


# ---------------------------------------------------------------- other tools


def compared() -> Comparison:
    """Two tools that were asked about NiN, one of which answers for the tensors alone."""
    said = {
        "macs": {},
        "saved_bytes": {},
        "peak_bytes": {
            "liveness": {("nin", 128): 900 * 2**20},
            "low": {("nin", 128): 500 * 2**20},
        },
    }
    return Comparison(
        "benchmarks/x", "2026-01-01", "some CPU", "2.11.0", {"liveness": "ours", "low": "low"}, {},
        said, {("nin", 128): 900 * 2**20},
    )  # fmt: skip


def test_tools_are_held_against_what_a_gpus_allocator_had_given_out() -> None:
    others = [step("vgg11"), step(mode="adam"), step(precision="bf16"), step(batch_size=8)]
    table = memory.tools_on_gpu(compared(), [step(), *others])
    assert table is not None
    assert dict(table["NiN, batch 128"]) == {
        "the truth": "1000 MiB",
        "ninlab, allocated": "equal",
        "ours, tensors": "-10%",
        "low": "-50%",
    }
    unpredicted = memory.tools_on_gpu(compared(), [step(predicted={})])
    assert unpredicted is not None
    assert "ninlab, allocated" not in unpredicted.index
    assert memory.tools_on_gpu(compared(), others) is None
