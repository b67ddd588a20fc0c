"""Other people's networks: measured once each, and joined with their predictions anywhere."""

import gzip
import json
import re
from dataclasses import asdict

import pytest
import torch

from benchmarks import strangers
from ninlab import handover, records
from ninlab.measurement import CaseOutcome, Failed, Measured, events_path
from ninlab.workspaces import CUBLAS_RULES, minor_version
from tests.book import ROOT
from tests.records import H100, lay_book

FINISHED = Measured(CaseOutcome.FINISHED, 5 * 2**20, 4 * 2**20)


@pytest.fixture
def answered(monkeypatch):
    """Puts an answer in the measuring process's place; gives the cases that were asked for.

    The options of the call are the attribute of its function.
    """

    def install(answer):
        asked = []

        def answer_each(cases, *_, **options):
            install.options = options
            for case in cases:
                asked.append(case)
                yield answer()

        monkeypatch.setattr(strangers, "measure_in_process", answer_each)
        return asked

    return install


@pytest.mark.slow
def test_a_broken_factory_is_said_and_the_network_behind_it_is_measured_and_joined(
    monkeypatch, tmp_path, capsys
):
    (tmp_path / "some_factories.py").write_text(
        "from torchvision.models import resnet18\n"
        "def squeezenet1_1(): raise RuntimeError('no weights here')\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(strangers, "FACTORIES", "some_factories")
    file = tmp_path / "found" / "strangers.jsonl"
    assert strangers.main([str(file), "--device", "cpu"]) == 1
    printed = capsys.readouterr()
    assert "squeezenet1_1-b2-fp32-sgd failed: RuntimeError: no weights here" in printed.err
    assert "1 measured, 0 were there already" in printed.out
    (line,) = map(json.loads, file.read_text().splitlines())
    assert line["case"]["network"] == "resnet18"
    assert line["torch"] == torch.__version__
    assert line["device"]["slug"] == "cpu"
    assert {"commit", "torchvision", "measured"} <= set(line)
    assert strangers.main(["--join", str(file)]) == 0
    joined = " ".join(capsys.readouterr().out.split())
    # On the CPU too: without dropout, its tensors are those of a GPU.
    assert "tensor: 1 of 1 predictions within 1%, the worst +0.00%" in joined


def test_each_line_is_handed_over_when_it_is_there(answered, tmp_path, monkeypatch):
    runs, results = tmp_path / "runs", tmp_path / "results"
    runs.mkdir()
    file = runs / "probes" / "strangers.jsonl"
    lay_book(monkeypatch, runs)
    lines = []

    def answer():
        archive = results / handover.ARCHIVE
        lines.append(handover.contents(archive) if archive.exists() else {})
        return FINISHED

    answered(answer)
    assert strangers.main([str(file), "--device", "cpu", "--results", str(results)]) == 0
    assert [len(of.get("probes/strangers.jsonl", b"").splitlines()) for of in lines] == [0, 1]
    assert handover.contents(results / handover.ARCHIVE) == {
        "probes/strangers.jsonl": file.read_bytes()
    }


def test_cases_that_an_earlier_machine_handed_over_are_not_measured_again(
    answered, tmp_path, monkeypatch
):
    results = tmp_path / "results"
    answers = iter([FINISHED, Failed("lost"), FINISHED])
    asked = answered(lambda: next(answers))
    for name, code in (("one", 1), ("other", 0)):
        runs = tmp_path / name
        runs.mkdir()
        lay_book(monkeypatch, runs)
        arguments = [str(runs / "probes"), "--device", "cpu", "--results", str(results)]
        assert strangers.main(arguments) == code
    assert [case.network for case in asked] == ["squeezenet1_1", "resnet18", "resnet18"]
    kept = handover.contents(results / handover.ARCHIVE)["probes/strangers-cpu.jsonl"]
    assert len(kept.splitlines()) == 2


def test_results_that_cannot_be_written_stop_the_work_before_it_begins_and_not_later(
    answered, tmp_path, monkeypatch, capsys
):
    runs, results = tmp_path / "runs", tmp_path / "results"
    runs.mkdir()
    lay_book(monkeypatch, runs)
    arguments = [str(runs / "probes"), "--device", "cpu", "--results", str(results)]

    def answer():
        if results.is_dir():
            results.rename(tmp_path / "moved")
            results.write_text("in the way")
        return FINISHED

    asked = answered(answer)
    assert strangers.main(arguments) == 0
    lines = capsys.readouterr().err.splitlines()
    assert sum(line.startswith("not handed over: ") for line in lines) == len(asked) == 2
    (runs / "probes" / "strangers-cpu.jsonl").unlink()
    asked.clear()
    assert strangers.main(arguments) == 2
    assert asked == []


def test_in_a_folder_each_device_has_a_file(answered, tmp_path):
    answered(lambda: FINISHED)
    for folder in (tmp_path, tmp_path / "not_there_yet"):
        assert strangers.main([str(folder), "--device", "cpu"]) == 0
        assert [file.name for file in folder.glob("*.jsonl")] == ["strangers-cpu.jsonl"]
    assert strangers.file_in(tmp_path, H100) == tmp_path / "strangers-nvidia-h100.jsonl"
    assert strangers.file_in(tmp_path / "mine.jsonl", H100) == tmp_path / "mine.jsonl"


def test_lines_of_another_device_or_of_none_are_no_lines_of_this_one(answered, tmp_path):
    file = tmp_path / "strangers.jsonl"
    asked = answered(lambda: FINISHED)
    assert strangers.main([str(file), "--device", "cpu"]) == 0
    here, unknown = map(json.loads, file.read_text().splitlines())
    del unknown["device"]
    elsewhere = {**here, "device": asdict(H100)}
    file.write_text("".join(f"{json.dumps(line)}\n" for line in (elsewhere, unknown)))
    asked.clear()
    assert strangers.main([str(file), "--device", "cpu"]) == 0
    assert len(asked) == 2
    assert len(file.read_text().splitlines()) == 4


def test_threads_are_those_that_were_asked_for(answered, tmp_path):
    answered(lambda: FINISHED)
    for name, options, threads in (("one", ["--threads", "3"], 3), ("other", [], 1)):
        assert strangers.main([str(tmp_path / name), "--device", "cpu", *options]) == 0
        assert answered.options["threads"] == threads


def test_a_second_run_measures_only_what_the_file_lacks(answered, tmp_path, capsys):
    file = tmp_path / "strangers.jsonl"
    answers = iter([Failed("lost"), FINISHED, FINISHED])
    asked = answered(lambda: next(answers))
    assert strangers.main([str(file), "--device", "cpu"]) == 1
    assert [case.network for case in asked] == ["squeezenet1_1", "resnet18"]
    asked.clear()
    assert strangers.main([str(file), "--device", "cpu"]) == 0
    assert [case.network for case in asked] == ["squeezenet1_1"]
    asked.clear()
    assert strangers.main([str(file), "--device", "cpu"]) == 0
    assert asked == []
    assert "0 measured, 2 were there already" in capsys.readouterr().out


def test_a_line_of_a_gpu_is_joined_without_one_and_without_its_prediction_where_that_fails(
    tmp_path, capsys
):
    case = {"network": "squeezenet1_1", "input_shape": [3, 64, 64], "batch_size": 2}
    case |= {"precision": "tf32", "mode": "sgd"}
    measured = {"outcome": "finished", "requested_peak_bytes": 6, "tensor_peak_bytes": 5}
    measured |= {"allocated_peak_bytes": 7, "reserved_peak_bytes": 8, "overhead_bytes": 0}
    measured |= {"step_seconds": None, "timed_steps": 0}
    line = {"case": case, "measured": measured, "torch": "2.11.0+cu130", "torchvision": "0.26.0"}
    unknown = {**line, "case": {**case, "network": "no_such_network"}}
    file = tmp_path / "strangers.jsonl"
    file.write_text(f"{json.dumps(line)}\n{json.dumps(unknown)}\n")
    assert strangers.main(["--join", str(file), "--on", "h100"]) == 0
    printed = capsys.readouterr()
    assert "tensor: 0 of 1 predictions within 1%" in " ".join(printed.out.split())
    assert "no_such_network-b2-tf32-sgd is not predicted: AttributeError" in printed.err


def test_a_correction_stands_beside_the_line_that_it_names_and_readers_get_it(
    answered, tmp_path, capsys
):
    events, file = tmp_path / "events", tmp_path / "strangers.jsonl"
    answered(lambda: FINISHED)
    assert strangers.main([str(file), "--device", "cpu"]) == 0
    first, second = map(json.loads, file.read_text().splitlines())
    of_gpu = [line | {"torch": "2.11.0+cu130"} for line in (first, second)]
    file.write_text("".join(f"{json.dumps(line)}\n" for line in of_gpu))
    before = file.read_bytes()
    grown = [(True, 1, 2**20, True), (True, 2, 4, False), (False, 1, 2**20, False)]
    right = [(True, 1, 4, False), (True, 2, 2**20, True), (False, 2, 2**20, False)]
    for line, trace in ((first, grown), (second, right)):
        path = events_path(events, strangers.case_of(line))
        records.write_bytes(path, gzip.compress(json.dumps(trace).encode()))
    assert strangers.main(["--correct", str(file), "--events", str(events)]) == 0
    assert file.read_bytes().startswith(before)
    (correction,) = map(json.loads, file.read_bytes().removeprefix(before).splitlines())
    old = FINISHED.tensor_peak_bytes
    assert correction["corrects"]["tensor_peak_bytes"] == old
    new = correction["measured"]["tensor_peak_bytes"]
    assert new == old + 2**20
    peaks = [line["measured"]["tensor_peak_bytes"] for line in strangers.read_lines(file)]
    assert peaks == [old, new]
    file.write_text("".join(reversed(file.read_text().splitlines(keepends=True))))
    assert {line["measured"]["tensor_peak_bytes"] for line in strangers.read_lines(file)} == {
        *peaks
    }
    assert "1 corrected" in capsys.readouterr().out


def test_a_corrected_case_is_neither_corrected_nor_measured_again(tmp_path):
    (file,) = (ROOT / "runs" / "probes").glob("strangers-nvidia-h100-*.jsonl")
    copy = tmp_path / file.name
    copy.write_bytes(file.read_bytes())
    strangers.correct(copy, ROOT / "runs" / "probes" / "strangers")
    assert copy.read_bytes() == file.read_bytes()


def test_a_corrected_tensor_peak_is_what_is_predicted_and_all_that_was_requested_but_cublas():
    (file,) = (ROOT / "runs" / "probes").glob("strangers-nvidia-h100-*.jsonl")
    corrected = [line for line in strangers.read_lines(file) if strangers.CORRECTS in line]
    assert [line["case"]["network"] for line in corrected] == ["mobilenet_v2"]
    for line in corrected:
        peak = line["measured"]["tensor_peak_bytes"]
        rule = CUBLAS_RULES[minor_version(line["torch"])]
        kept = 2 * rule.large_bytes + rule.lt_bytes  # in forward and backward; Lt in forward alone
        assert peak == line["measured"]["requested_peak_bytes"] - kept
        assert strangers.joined(line, None).predicted["tensor_peak_bytes"] == peak


def test_every_stranger_is_measured_in_every_setting_on_a_gpu():
    cases = strangers.cases_for(torch.device("cuda"))
    assert len({case.slug for case in cases}) == len(cases) == 14 * 4
    assert {case.network for case in cases[:14]} == {case.network for case in cases}


@pytest.mark.parametrize(
    ("text", "arguments", "said"),
    [
        ('{"case": {"netw', [], "line 1 of .* is no measured case"),
        ("[]", ["--join"], "line 1 of .* is no measured case"),
        ("", ["another.jsonl"], "cases go into one FILE, not 2"),
        ("", ["--device", "tpu"], "unknown device 'tpu'"),
        ("", ["--threads", "0"], "--threads must be at least 1, not 0"),
    ],
)
def test_a_readers_mistake_is_one_sentence_and_exit_code_2(tmp_path, capsys, text, arguments, said):
    file = tmp_path / "strangers.jsonl"
    file.write_text(f"{text}\n" if text else "")
    assert strangers.main([str(file), *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(said, line)
