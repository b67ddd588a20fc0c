"""Other people's networks: measured once each, and joined with their predictions anywhere."""

import importlib.util
import json
import re
from pathlib import Path

import pytest
import torch

from ninlab import handover
from ninlab.measurement import Failed, Measured, Outcome

FINISHED = Measured(Outcome.FINISHED, 5 * 2**20, 4 * 2**20)
SCRIPT = Path(__file__).parent.parent / "benchmarks" / "strangers.py"


@pytest.fixture(scope="module")
def strangers():
    spec = importlib.util.spec_from_file_location("strangers", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def answered(strangers, monkeypatch):
    """Puts an answer in the measuring process's place; gives the cases that were asked for."""

    def install(answer):
        asked = []

        def answer_each(cases, *_, **__):
            for case in cases:
                asked.append(case)
                yield answer()

        monkeypatch.setattr(strangers, "measure_in_process", answer_each)
        return asked

    return install


@pytest.mark.slow
def test_a_broken_factory_is_said_and_the_network_behind_it_is_measured_and_joined(
    strangers, monkeypatch, tmp_path, capsys
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


def test_each_line_is_handed_over_when_it_is_there(strangers, answered, tmp_path, monkeypatch):
    runs, results = tmp_path / "runs", tmp_path / "results"
    file = runs / "probes" / "strangers.jsonl"
    monkeypatch.setattr(strangers.records, "runs_folder", lambda: runs)
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


def test_a_second_run_measures_only_what_the_file_lacks(strangers, answered, tmp_path, capsys):
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
    strangers, tmp_path, capsys
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


def test_every_stranger_is_measured_in_every_setting_on_a_gpu(strangers):
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
    ],
)
def test_a_readers_mistake_is_one_sentence_and_exit_code_2(
    strangers, tmp_path, capsys, text, arguments, said
):
    file = tmp_path / "strangers.jsonl"
    file.write_text(f"{text}\n" if text else "")
    assert strangers.main([str(file), *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(said, line)
