"""Records come home checked, all of them or none, and what is there is never overwritten."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest

from ninlab import records
from ninlab.__main__ import main
from ninlab.architectures import ARCHITECTURES
from ninlab.failures import Cause, FailureRecord
from ninlab.handover import ARCHIVE, hand_over, weights_name
from ninlab.records import RunRecord
from tests.records import A_RECORD, H100, possible

RUN = replace(A_RECORD, network_digest=ARCHITECTURES["nin_28"].digest)
ON_GPU = possible(replace(RUN, device=H100))


@pytest.fixture
def away(tmp_path) -> Path:
    """A runs folder on another machine."""
    return made(tmp_path / "away")


@pytest.fixture
def home(tmp_path) -> Path:
    return made(tmp_path / "home")


@pytest.fixture
def results(tmp_path) -> Path:
    return tmp_path / "results"


def made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def files(folder: Path) -> dict[str, bytes]:
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def with_weights(run: RunRecord, folder: Path, weights: bytes) -> RunRecord:
    """The run's record in the folder, with its weights beside it."""
    run = replace(run, weights_sha256=hashlib.sha256(weights).hexdigest())
    records.write(folder, run)
    records.write_bytes(records.weights_path(folder, run.id), weights)
    return run


def lay_probes(folder: Path, probes: dict[str, bytes]) -> None:
    for name, data in probes.items():
        records.write_bytes(folder / "probes" / name, data)


def collected(home: Path, *arguments: object) -> int:
    return main(["collect", *map(str, arguments), "--runs", str(home)])


def test_records_come_home_to_the_byte_with_their_weights_and_probes(away, home, results, capsys):
    with_weights(ON_GPU, away, b"weights")
    failure = FailureRecord(
        run="head/b-seed0-nvidia-h100", cause=Cause.HUNG, sentence="it stood in step 7",
        tried_eagerly=True, code=None, provenance=RUN.provenance, device=H100,
        software=ON_GPU.software,
    )  # fmt: skip
    records.write_json_once(records.record_path(away, failure.id), failure.to_json())
    records.write_bytes(away / "probes" / "events" / "a.json.gz", b"trace")
    records.write_bytes(away / "probes" / "device.json", b"{}")
    hand_over(away, results)
    assert collected(home, results) == 0
    assert files(home) == files(away)
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith("new records: 2, there before: 0")
    assert "training: 1 of NVIDIA H100" in printed
    assert f"  {ON_GPU.id}: finished, test accuracy 0.6000" in printed
    assert "failure: 1 of NVIDIA H100" in printed
    assert f"  {failure.id}: hung, it stood in step 7" in printed
    assert "2 probes: probes/device.json, probes/events/a.json.gz" in printed


def test_what_is_there_already_is_passed_over(away, home, results, capsys):
    records.write(away, RUN)
    hand_over(away, results)
    assert collected(home, results) == 0
    records.write(away, replace(RUN, seed=1))
    hand_over(away, results)
    capsys.readouterr()
    assert collected(home, results) == 0
    assert "new records: 1, there before: 1" in capsys.readouterr().out
    assert files(home) == files(away)


def test_two_calls_on_one_machine_come_home_together(away, home, results, tmp_path):
    records.write(away, RUN)
    records.write_bytes(away / "probes" / "strangers.jsonl", b"one\n")
    hand_over(away, results)
    records.write(away, replace(RUN, seed=1))
    (away / "probes" / "strangers.jsonl").write_bytes(b"one\ntwo\n")
    hand_over(away, tmp_path / "second")
    assert collected(home, tmp_path / "second", results) == 0
    assert files(home) == files(away)


def test_of_a_record_that_home_has_and_that_was_made_again_that_of_home_stays(
    away, home, results, capsys
):
    records.write(home, RUN)
    before = files(home)
    records.write(away, replace(RUN, wall_seconds=6.0))
    records.write(away, replace(RUN, seed=1))
    hand_over(away, results)
    for new in (1, 0):
        assert collected(home, results) == 0
        printed = capsys.readouterr().out
        assert f"new records: {new}, there before: {2 - new}" in printed
        assert f"{RUN.id} was made twice; the first is kept, that of {home}" in printed
        assert files(home).items() >= before.items()
        assert set(files(home)) - set(before) == {f"{replace(RUN, seed=1).id}.json"}


def test_of_a_record_that_two_machines_made_the_first_comes_home_with_its_weights(
    away, home, results, tmp_path, capsys
):
    first = with_weights(RUN, away, b"weights")
    hand_over(away, results)
    other = made(tmp_path / "other")
    with_weights(replace(RUN, wall_seconds=6.0), other, b"others!")
    records.write(other, replace(RUN, seed=1))
    second = tmp_path / "second"
    hand_over(other, second)
    assert collected(home, results, second) == 0
    assert records.read(records.record_path(home, RUN.id)) == first
    assert list(records.problems(home)) == []
    assert {run.seed for run in records.load(home)} == {RUN.seed, 1}
    said = (
        f"{RUN.id} was made twice; the first is kept, that of {results}, and not that of {second}"
    )
    assert said in capsys.readouterr().out


def test_a_record_that_two_machines_handed_into_one_folder_comes_home_once(
    away, home, results, tmp_path, capsys
):
    records.write(away, RUN)
    hand_over(away, results)
    other = made(tmp_path / "other")
    records.write(other, replace(RUN, wall_seconds=6.0))
    hand_over(other, results)
    assert collected(home, results) == 0
    assert files(home) == files(away)
    assert f"{RUN.id} was made twice" in capsys.readouterr().out


@pytest.mark.parametrize("first", [0, 1])
def test_a_record_that_was_made_twice_and_once_is_not_valid_is_refused(
    away, home, results, tmp_path, capsys, first
):
    records.write(away, RUN)
    hand_over(away, results)
    other, second = made(tmp_path / "other"), tmp_path / "second"
    path = records.record_path(other, RUN.id)
    path.parent.mkdir()
    path.write_text(json.dumps(RUN.to_json() | {"outcome": "grand"}))
    hand_over(other, second)
    folders = [results, second] if first == 0 else [second, results]
    assert collected(home, *folders) == 2
    printed = capsys.readouterr()
    assert "outcome is 'grand', but must be" in printed.out
    assert "1 of the 2 new records are not valid" in printed.err
    assert files(home) == {}
    assert collected(home, *folders, "--skip", RUN.id) == 0
    assert files(home) == {}


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"outcome": "grand"}, "outcome is 'grand', but must be"),
        ({"kind": "training2"}, "kind is 'training2', but must be one of"),
        ({"network_digest": "0" * 12}, "'000000000000' is not the network of this checkout"),
        ({"parameters": 7}, "parameters is 7, but nin_28 has 39030"),
        ({"weights_sha256": "0" * 64}, "weights_sha256 is of weights that cannot be read"),
        ({"corrects": "head/b-seed0-cpu"}, "corrects is 'head/b-seed0-cpu', which is no record"),
        ({"corrects": "../../b-seed0-cpu"}, "corrects is '../../b-seed0-cpu', but must be"),
        ({"seed": 5}, "id is 'collapse/nin_28-seed0-cpu', but the fields say"),
    ],
)
def test_a_record_that_is_not_valid_is_named_and_nothing_is_laid_in(
    away, home, results, capsys, change, complaint
):
    records.write(away, replace(RUN, seed=1))
    path = records.record_path(away, RUN.id)
    path.write_text(json.dumps(RUN.to_json() | change))
    hand_over(away, results)
    assert collected(home, results) == 2
    printed = capsys.readouterr()
    assert complaint in printed.out
    assert RUN.id in printed.out
    assert "1 of the 2 new records are not valid" in printed.err
    assert files(home) == {}


def test_weights_that_are_not_those_of_the_record_are_refused(away, home, results, capsys):
    run = with_weights(RUN, away, b"weights")
    hand_over(away, results)
    (results / weights_name(run.id)).write_bytes(b"others!")
    assert collected(home, results) == 2
    assert "weights_sha256 is not the sum of" in capsys.readouterr().out
    assert files(home) == {}


def test_a_record_of_no_device_comes_home_too(away, home, results, capsys):
    laws = records.runs_folder() / "benchmarks" / "memory-laws.json"
    records.write_bytes(away / "benchmarks" / laws.name, laws.read_bytes())
    hand_over(away, results)
    assert collected(home, results) == 0
    assert "memory_laws: 1 of no device" in capsys.readouterr().out


def test_a_correction_of_a_record_at_home_is_taken_in(away, home, results):
    with_weights(RUN, home, b"weights")
    records.write(away, replace(RUN, name="nin_28_again", corrects=RUN.id))
    hand_over(away, results)
    assert collected(home, results) == 0
    assert list(records.problems(home)) == []


def test_a_probe_never_overwrites_another_and_lines_are_added_to_lines(away, home, results, capsys):
    lay_probes(home, {"device.json": b"{}", "a.jsonl": b"one\n", "b.jsonl": b"one\ntwo\n"})
    lay_probes(
        away, {"device.json": b"[]", "a.jsonl": b"one\ntwo\n", "b.jsonl": b"three\none\nthree\n"}
    )
    hand_over(away, results)
    for _ in range(2):  # what is there already is not laid in again
        assert collected(home, results) == 0
        assert files(home / "probes") == {
            "device.json": b"{}",
            "device.json.2": b"[]",
            "a.jsonl": b"one\ntwo\n",
            "b.jsonl": b"one\ntwo\nthree\n",
        }
    said = capsys.readouterr().out
    assert said.count("that one is now probes/device.json.2") == 1


def test_of_two_folders_no_probe_is_lost(away, home, results, tmp_path, capsys):
    lay_probes(away, {"device.json": b"{}", "lines.jsonl": b"one\ntwo\n", "a.jsonl": b"one\n"})
    hand_over(away, results)
    other, second = made(tmp_path / "other"), tmp_path / "second"
    lay_probes(other, {"device.json": b"[]", "lines.jsonl": b"two\nthree", "a.jsonl": b"two\n"})
    hand_over(other, second)
    hand_over(away, second)  # which then holds two versions of each
    assert collected(home, results, second) == 0
    assert files(home / "probes") == {
        "device.json": b"{}",
        "device.json.2": b"[]",
        "lines.jsonl": b"one\ntwo\nthree\n",
        "a.jsonl": b"one\ntwo\n",
    }
    assert "that one is now probes/device.json.2" in capsys.readouterr().out


def test_what_is_neither_record_nor_probe_is_left_out_and_said(away, home, results, capsys):
    records.write_bytes(away / "collapse" / "notes.txt", b"mind the gap")
    hand_over(away, results)
    assert collected(home, results) == 0
    assert files(home) == {}
    assert "collapse/notes.txt" in capsys.readouterr().out


def test_that_runs_of_another_gpu_come_home_is_said_first(away, home, results, capsys):
    records.write(home, RUN)
    records.write(home, ON_GPU)
    records.write(away, replace(ON_GPU, device=replace(H100, slug="nvidia-h200"), seed=1))
    hand_over(away, results)
    assert collected(home, results) == 0
    said = capsys.readouterr().out
    assert said.startswith("the runs of nvidia-h200 never join those of nvidia-h100 ")
    again = made(home.parent / "again")
    records.write(again, RUN)
    assert collected(again, results) == 0
    assert "never join" not in capsys.readouterr().out


@pytest.mark.parametrize("archive", [None, b"torn"])
def test_a_torn_or_missing_archive_is_one_sentence_and_code_2(home, results, capsys, archive):
    if archive is not None:
        records.write_bytes(results / ARCHIVE, archive)
    assert collected(home, results) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert said.count("\n") == 1
    assert str(results / ARCHIVE) in said


def test_a_record_to_leave_out_that_did_not_come_is_named(away, home, results, capsys):
    records.write(away, RUN)
    hand_over(away, results)
    assert collected(home, results, "--skip", "collapse/nin_28-seed0-gpu") == 2
    assert f"did you mean '{RUN.id}'?" in capsys.readouterr().err
