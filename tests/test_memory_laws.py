"""The benchmark of the laws judges every measured step, and what it says is of today's laws."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import pytest

from benchmarks import memory_laws as benchmark
from ninlab import memory_laws
from ninlab.errors import RecordError
from ninlab.measurement import PEAKS
from ninlab.memory_laws import ALL_LAWS, LAWS, OWN, STRANGERS, TENSORS, MemoryLaws, without
from ninlab.predictions import predicted_peaks
from ninlab.records import runs_folder

AGAIN = "run benchmarks/memory_laws.py again: a law has changed since the file was made"
COMPARED = {
    (OWN, "vgg11", "tf32", "sgd", "default"),
    (OWN, "nin", "bf16", "sgd", "default"),
    (OWN, "alexnet", "tf32", "adam", "expandable_segments"),
    (OWN, "alexnet", "tf32", "inference", "default"),
    (STRANGERS, "resnet18", "bf16", "momentum", "default"),
    (STRANGERS, "squeezenet1_1", "tf32", "sgd", "default"),
    (STRANGERS, "convnext_tiny", "tf32", "sgd", "default"),
    (STRANGERS, "vit_b_16", "bf16", "momentum", "default"),
}


@cache
def laws() -> MemoryLaws:
    return MemoryLaws.load()


def steps() -> list[tuple[benchmark.Step, memory_laws.JudgedStep]]:
    """Each measured step with its line of the file."""
    return list(zip(benchmark.measured_steps(runs_folder()), laws().steps, strict=True))


def test_every_measured_step_is_judged() -> None:
    for measured, judged in steps():
        case = measured.case
        assert (measured.group, case.network, case.batch_size, case.precision, case.mode) == (
            *(judged.group, judged.network, judged.batch_size, judged.precision, judged.mode),
        )
        assert measured.allocator == judged.allocator
        assert measured.peaks == [judged.measured[peak] for peak in PEAKS]
    assert len(laws().of(OWN)) == 22
    assert len(laws().of(STRANGERS)) == 11


def test_what_all_laws_predict_is_what_the_calculator_predicts_today() -> None:
    compared = set()
    for measured, judged in steps():
        case = measured.case
        key = (judged.group, case.network, case.precision, case.mode, str(measured.allocator))
        if key not in COMPARED:
            continue
        compared.add(key)
        peaks = predicted_peaks(
            *(case, measured.allocator, measured.device),
            network=benchmark.network_of(measured),
            torch_version=measured.torch,
        )
        assert judged.predicted[ALL_LAWS] == {
            peak: peaks[field] for peak, field in PEAKS.items()
        }, f"{key}: {AGAIN}"
    assert compared == COMPARED


def test_the_laws_are_switched_on_one_after_the_other_and_off_alone() -> None:
    on = benchmark.variants()
    assert set(on) == set(laws().titles) | {ALL_LAWS}
    assert on[TENSORS] == frozenset()
    assert [len(on[law]) for law in LAWS] == list(range(1, len(LAWS) + 1))
    assert on[next(reversed(LAWS))] == on[ALL_LAWS] == set(LAWS)
    assert all(on[ALL_LAWS] - on[without(law)] == {law} for law in LAWS)


def test_the_last_law_that_is_switched_on_completes_them() -> None:
    last = next(reversed(LAWS))
    for step in laws().steps:
        assert step.predicted[last] == step.predicted[ALL_LAWS]
        assert set(step.predicted) == set(laws().titles) | {ALL_LAWS}


def test_tensors_alone_request_what_they_take_and_no_law_but_theirs_changes_it() -> None:
    for step in laws().steps:
        assert step.predicted[TENSORS]["requested"] == step.predicted[TENSORS]["tensor"]
        tensors = {laws: peaks["tensor"] for laws, peaks in step.predicted.items()}
        for law in set(LAWS) - benchmark.TRACED:
            assert tensors[without(law)] == tensors[ALL_LAWS]


@pytest.mark.parametrize("group", [OWN, STRANGERS])
def test_a_summary_is_of_the_errors_of_its_group(group: str) -> None:
    errors = laws().errors(ALL_LAWS, group, "reserved")
    found = laws().summary(ALL_LAWS, group, "reserved")
    assert found.steps == len(errors)
    assert found.exact <= found.right <= found.steps
    assert found.worst in errors
    assert abs(found.worst) == max(map(abs, errors)) >= found.mean
    assert found.median <= abs(found.worst)


def test_every_step_that_is_missed_says_why_or_that_nobody_knows() -> None:
    traced = {path.name for path in (runs_folder() / "probes").rglob("*.json.gz")}
    for step in laws().missed():
        name = f"{step.network}-b{step.batch_size}-{step.precision}-{step.mode}.json.gz"
        assert (step.cause == memory_laws.UNTRACED) == (name not in traced)
    missed = {(step.network, step.precision) for step in laws().missed()}
    assert set(memory_laws.CAUSES) <= missed


def test_the_best_factor_is_better_than_others() -> None:
    for group in (OWN, STRANGERS):
        best = laws().best_factor(group, "reserved")
        least = laws().factor_error(group, "reserved")
        for factor in (0.9 * best, 1.1 * best, 1.2):
            errors = [
                factor * step.measured["tensor"] / step.measured["reserved"] - 1
                for step in laws().of(group)
            ]
            assert sum(map(abs, errors)) / len(errors) >= least


def test_errors_are_written_in_bytes_where_they_are_tiny() -> None:
    cells = set(laws().table().to_numpy().ravel())
    assert "equal" in cells
    assert any(cell.endswith(" B") for cell in cells)
    assert not cells & {"+0.0%", "-0.0%"}
    worst = laws().by_network()
    assert worst["steps"].sum() == len(laws().steps)


def test_the_table_that_is_shown_is_that_of_the_file() -> None:
    shown = Path(benchmark.__file__).with_name("README.md").read_text()
    assert benchmark.table(laws()) in shown, "python -m benchmarks.memory_laws --table prints it"


def test_a_missing_file_and_one_of_another_schema_are_named(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="does not exist"):
        MemoryLaws.load(tmp_path)
    path = runs_folder() / "benchmarks" / "memory-laws.json"
    content = json.loads(path.read_text())
    with pytest.raises(RecordError, match="schema_version 0"):
        MemoryLaws.from_json(content | {"schema_version": 0})
    with pytest.raises(RecordError, match=r"cases\[0\]\.group is missing"):
        MemoryLaws.from_json(content | {"cases": [{}]})
