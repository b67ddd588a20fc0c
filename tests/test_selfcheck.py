"""What does not work here is named, with what to do about it, and hides nothing else."""

import inspect
import json
import sys
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ninlab import environment, fused, networks, records, selfcheck
from ninlab.__main__ import main
from ninlab.data import LabeledImages
from ninlab.errors import NinlabError
from ninlab.measurement import CaseOutcome, Failed, Measured
from ninlab.recipes import Recipe
from ninlab.selfcheck import (
    ALL_WORKS,
    ANOTHER_GPU,
    GRAPHS_FAIL,
    NOTHING_WORKS,
    SOMETHING_FAILS,
    Check,
    Result,
    Subject,
    allowed,
    checks,
    stranger_to,
    verdict,
)
from ninlab.steps import Kernels, Precision
from tests.processes import python
from tests.records import A_RECORD, H100, H200, possible

A_MEASURED = Measured(CaseOutcome.FINISHED, 2**20, 2**20, timed_steps=2)
OF_H100 = possible(replace(A_RECORD, device=H100, input_shape=(1, 224, 224)))
CPU = Subject("cpu", predicted_peaks=lambda case, allocator, device: {})
EVERY_CHECK = [*checks(on_gpu=True), *checks(on_gpu=False)]


@pytest.fixture
def ended(tmp_path, capsys) -> Callable[..., tuple[int, list[str]]]:
    """(exit code, printed lines) of ``selfcheck`` on the CPU, with an empty runs folder."""
    runs = tmp_path / "runs"
    runs.mkdir()

    def run(*arguments: str) -> tuple[int, list[str]]:
        typed = ["selfcheck", "--device", "cpu", "--allow-dirty", "--runs", str(runs), *arguments]
        code = main(typed)
        return code, capsys.readouterr().out.splitlines()

    return run


def instead(monkeypatch, *stand_ins: Check) -> None:
    """Make ``selfcheck`` make these checks."""
    monkeypatch.setattr(selfcheck, "checks", lambda on_gpu, **_: stand_ins)


def fine(subject: Subject) -> str:
    return "fine"


def broken(subject: Subject) -> str:
    raise RuntimeError("no kernel image\nCompile with TORCH_USE_CUDA_DSA for more")


# ---------------------------------------------------------------- the list


@pytest.mark.parametrize("on_gpu", [True, False])
def test_every_check_has_a_name_of_its_own_and_one_sentence_of_advice(on_gpu):
    names = [check.name for check in checks(on_gpu)]
    assert len(set(names)) == len(names)
    for check in checks(on_gpu):
        assert check.advice.endswith(".")
        assert ". " not in check.advice, check.name


@pytest.mark.parametrize("check", EVERY_CHECK, ids=lambda check: check.name)
def test_a_check_needs_nothing_but_its_subject(check):
    inspect.signature(check.work).bind(CPU)


@pytest.mark.parametrize("on_gpu", [True, False])
def test_what_would_stop_recording_is_decided_before_the_first_capture(on_gpu):
    means = [check.means for check in checks(on_gpu)]
    stops = [check for check in checks(on_gpu) if check.means == NOTHING_WORKS]
    assert all(check.decisive for check in stops)
    if GRAPHS_FAIL in means:
        assert NOTHING_WORKS not in means[means.index(GRAPHS_FAIL) :]


@pytest.mark.parametrize("planned", [True, False])
def test_a_fused_step_decides_only_where_one_is_planned(planned):
    there_are = checks(True, fused_planned=planned)
    (check,) = [check for check in there_are if check.name == "a fused step of nin"]
    assert check.decisive is planned
    assert (check.means == NOTHING_WORKS) is planned
    first_capture = next(at for at, one in enumerate(there_are) if one.means == GRAPHS_FAIL)
    assert (there_are.index(check) < first_capture) is planned
    assert not any("fused" in one.name for one in checks(False, fused_planned=planned))


def test_a_fused_step_is_judged_by_torchs_distance_from_float32(monkeypatch):
    with pytest.raises(NinlabError, match="need a CUDA device"):
        selfcheck._fused(CPU, network="nin_28", batch_size=8)
    monkeypatch.setattr(fused, "why_not", lambda device: None)
    real = selfcheck.gradient_error
    errors = []

    def error(*arguments, **options):
        errors.append(real(*arguments, **options))
        return errors[-1]

    monkeypatch.setattr(selfcheck, "gradient_error", error)
    said = selfcheck._fused(CPU, network="nin_28", batch_size=8)
    # 8 bits of bfloat16, over a dozen layers, and ReLUs that rounding switches
    assert all(2**-9 < one < 0.1 for one in errors)
    assert said.endswith(f"{errors[1]:.2%} from float32's, torch's {errors[0]:.2%}")
    for wrong in (1.2 * errors[0], float("nan")):
        found = iter((errors[0], wrong))
        monkeypatch.setattr(selfcheck, "gradient_error", lambda *_, found=found, **__: next(found))
        with pytest.raises(Exception, match="gradients of a fused step of nin_28 are"):
            selfcheck._fused(CPU, network="nin_28", batch_size=8)


def test_in_float32_a_fused_step_has_torchs_gradients():
    for network in ("nin_28", "alexnet_28"):
        error = selfcheck.gradient_error(
            network, Kernels.FUSED, device=CPU.device(), precision=Precision.FP32, batch_size=8
        )
        assert error < 1e-6


def test_a_captured_step_is_asked_of_a_gpu_only():
    assert all(
        "graph" not in check.name and "captured" not in check.name for check in checks(False)
    )
    with pytest.raises(Exception, match="not captured"):
        selfcheck._captured(CPU, "nin_28", Recipe(0.05, 1, batch_size=8), steps=2)


# ---------------------------------------------------------------- a broken path


def test_a_broken_path_is_named_where_it_broke_and_the_rest_still_runs(ended, monkeypatch):
    def build(network, seed):
        if network == "alexnet_28":
            raise RuntimeError("no kernel image\nCompile with TORCH_USE_CUDA_DSA for more")
        return networks_build(network, seed=seed)

    networks_build = networks.build
    monkeypatch.setattr(networks, "build", build)
    names = [check.name for check in checks(False) if "steps" in check.name]
    code, lines = ended(*(word for name in names for word in ("--only", name)))
    (at,) = [i for i, line in enumerate(lines) if line.startswith("FAIL")]
    assert "repeated steps of alexnet_28 by adam: RuntimeError: no kernel image (at" in lines[at]
    assert "test_selfcheck.py" in lines[at]
    assert "selfcheck.py" in lines[at].rpartition(", from ")[2]
    assert "TORCH_USE" not in lines[at]
    (check,) = [check for check in checks(False) if "alexnet" in check.name]
    assert lines[at + 1].strip() == check.advice
    ok = [line for line in lines if line.startswith("ok ")]
    assert len(ok) == len(names) - 1
    assert code == SOMETHING_FAILS
    assert lines[-1].startswith("recording works; 1 of ")
    assert lines[-1].endswith(check.name)


def test_a_device_that_is_not_there_is_a_failed_check_and_no_bad_input(ended):
    code, lines = ended("--device", "cuda:99", "--only", "import and device", "--only", "images")
    assert code == NOTHING_WORKS
    assert "device 'cuda:99' is not there" in lines[0]
    assert lines[2].startswith("ok ")
    assert lines[-1].startswith("nothing can be recorded")


def test_a_torch_that_cannot_be_imported_is_a_failed_check(ended, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    code, lines = ended("--only", "import and device", "--only", "runs folder")
    assert code == NOTHING_WORKS
    assert lines[0].startswith("FAIL")
    assert "import of torch halted" in lines[0]
    assert lines[2].startswith("ok ")


def test_a_device_that_resizes_otherwise_is_found(monkeypatch):
    assert "of the CPU" in selfcheck._resized(CPU, images=3, side=40)

    def inverted(images: LabeledImages, device: torch.device) -> LabeledImages:
        return replace(images, images=255 - images.images)

    monkeypatch.setattr(LabeledImages, "to", inverted)
    with pytest.raises(Exception, match="of 4,800 pixels differ"):
        selfcheck._resized(CPU, images=3, side=40)


def test_a_dirty_tree_stops_recording_unless_it_is_allowed(ended, monkeypatch, capsys):
    dirty = replace(A_RECORD.provenance, clean_tree=False)
    monkeypatch.setattr(records, "provenance", lambda command: dirty)
    assert ended("--only", "commit")[0] == ALL_WORKS
    code, lines = ended("--only", "commit", "--no-allow-dirty")
    assert code == NOTHING_WORKS
    assert "--allow-dirty" in lines[1]


def test_nothing_is_left_in_the_runs_folder(ended, tmp_path):
    code, lines = ended("--only", "runs folder")
    assert code == ALL_WORKS
    assert str(tmp_path / "runs") in lines[0]
    assert not any((tmp_path / "runs").iterdir())


def test_a_case_that_cannot_be_measured_or_is_off_its_prediction_fails(monkeypatch):
    def measured(*arguments, **options):
        yield answer

    monkeypatch.setattr("ninlab.measurement.measure_in_process", measured)
    case = {"network": "lenet", "batch_size": 2, "precision": "fp32", "allocator": "cpu"}
    answer = Failed("RuntimeError: the driver is too old")
    with pytest.raises(Exception, match="driver is too old"):
        selfcheck._measured(CPU, **case)
    subject = replace(CPU, predicted_peaks=lambda *_: {"tensor_peak_bytes": 2**20})
    answer = A_MEASURED
    assert "(+0.00% predicted)" in selfcheck._measured(subject, **case)
    answer = replace(A_MEASURED, tensor_peak_bytes=2**21)
    with pytest.raises(Exception, match=r"took 2\.00 MiB, but 1\.00 MiB were predicted"):
        selfcheck._measured(subject, **case)


def test_steps_are_taken_with_trials_and_evaluated_without_as_in_a_run(monkeypatch):
    from ninlab import training

    tried = {"step": set(), "evaluation": set()}

    def watched(what, function):
        def call(*arguments, **options):
            tried[what].add(torch.backends.cudnn.benchmark)
            return function(*arguments, **options)

        return call

    monkeypatch.setattr(training, "evaluate", watched("evaluation", training.evaluate))
    monkeypatch.setattr(training.Engine, "epoch", watched("step", training.Engine.epoch))
    trial = selfcheck._Trial(Recipe(0.01, 1, batch_size=4), steps=1, test_images=4, passes=1)
    selfcheck._steps(CPU, "lenet", trial, use_graph=False)
    assert tried == {"step": {True}, "evaluation": {False}}


# ---------------------------------------------------------------- losses of a graph


@given(st.floats(0, 10), st.sampled_from(Precision))
def test_a_graph_may_differ_from_eager_steps_by_what_these_differ_from_themselves(noise, precision):
    assert allowed(noise, precision) >= noise


@given(st.floats(-2, 2))
def test_eager_trials_that_agree_do_not_forbid_a_graph_to_round_one_score_otherwise(score):
    rounded = torch.tensor(score, dtype=torch.float64).bfloat16().item()
    assert abs(rounded - score) <= allowed(0.0, Precision.BF16) < 0.01


@pytest.mark.parametrize(
    ("again", "graph", "precision", "holds"),
    [
        (2.0, 2.0, "bf16", True),
        (2.0, 2.0001, "bf16", True),
        (2.0, 2.01, "bf16", False),
        (2.01, 2.02, "bf16", True),
        (2.0, 2.0001, "tf32", True),
        (2.0, 2.1, "tf32", False),
        (2.0, float("nan"), "tf32", False),
        (float("nan"), 2.0, "tf32", False),
    ],
)
def test_losses_of_a_graph_are_held_against_two_eager_trials(
    again, graph, precision, holds, monkeypatch
):
    eager = iter([torch.tensor([2.5, 2.0]), torch.tensor([2.5, again])])

    def losses(subject, network, recipe, *, steps, use_graph):
        return torch.tensor([2.5, graph]) if use_graph else next(eager)

    monkeypatch.setattr(selfcheck, "_losses", losses)
    recipe = Recipe(0.05, 1, precision=precision)
    if holds:
        selfcheck._captured(CPU, "nin_28", recipe, steps=2)
    else:
        with pytest.raises(Exception, match="differ by"):
            selfcheck._captured(CPU, "nin_28", recipe, steps=2)


def test_eager_steps_that_do_not_repeat_are_found(monkeypatch):
    losses = iter([torch.tensor([2.5]), torch.tensor([2.5001])])
    monkeypatch.setattr(selfcheck, "_losses", lambda *_, **__: next(losses))
    with pytest.raises(Exception, match=r"differ by 1\.0e-04"):
        selfcheck._repeated(CPU, "nin_28", Recipe(0.05, 1), steps=1)


# ---------------------------------------------------------------- exit codes


CODES = (SOMETHING_FAILS, NOTHING_WORKS, GRAPHS_FAIL, ANOTHER_GPU)


@given(st.lists(st.tuples(st.booleans(), st.sampled_from(CODES)), min_size=1, max_size=6))
def test_the_exit_code_is_the_worst_that_a_failure_means(endings):
    made = [
        Result(Check(f"check{number}", fine, "Do this.", means), ok, 0.1, "so")
        for number, (ok, means) in enumerate(endings)
    ]
    failed = {result.check.means for result in made if not result.ok}
    code, words = verdict(made)
    assert code in (failed or {ALL_WORKS})
    assert (code == ALL_WORKS) == (not failed)
    assert (code == NOTHING_WORKS) == (NOTHING_WORKS in failed)
    assert (code == ANOTHER_GPU) == (ANOTHER_GPU in failed and NOTHING_WORKS not in failed)
    assert (code == GRAPHS_FAIL) == (
        GRAPHS_FAIL in failed and not failed & {NOTHING_WORKS, ANOTHER_GPU}
    )
    assert (code == SOMETHING_FAILS) == (failed == {SOMETHING_FAILS})
    for result in made:
        assert (result.check.name in words) == (not result.ok)


@pytest.mark.parametrize("means", CODES)
def test_the_command_ends_with_the_exit_code_of_its_verdict(means, ended, monkeypatch):
    instead(monkeypatch, Check("one", fine, "Do this."), Check("two", broken, "Do that.", means))
    code, lines = ended()
    assert code == means
    made = [
        Result(Check("one", fine, ""), True, 0.1, ""),
        Result(Check("two", fine, "", means), False, 0.1, ""),
    ]
    assert lines[-1] == verdict(made)[1]


def test_decisive_checks_are_made_alone_where_they_are_asked_for(ended, monkeypatch):
    instead(monkeypatch, Check("one", fine, "Do this.", decisive=True),
            Check("two", broken, "Do that."))  # fmt: skip
    assert ended()[0] == SOMETHING_FAILS
    code, lines = ended("--decisive")
    assert code == ALL_WORKS
    assert len(lines) == 2


def test_a_failed_check_that_settles_what_to_do_is_the_last_decisive_one(ended, monkeypatch):
    settling = Check("two", broken, "Do that.", ANOTHER_GPU, decisive=True, settles=True)
    instead(monkeypatch, Check("one", fine, "Do this.", decisive=True), settling,
            Check("three", fine, "Do this.", decisive=True))  # fmt: skip
    code, lines = ended("--decisive")
    assert code == ANOTHER_GPU
    assert [line.split()[3].rstrip(":") for line in lines if line[:4] in ("ok  ", "FAIL")] == [
        *("one", "two"),
    ]
    assert lines[-1].endswith("1 of 2 checks failed: two; not made after that: 1")
    code, lines = ended()
    assert code == ANOTHER_GPU
    assert lines[-1].endswith("1 of 3 checks failed: two")


def test_only_the_records_of_another_gpu_settle_what_to_do():
    for on_gpu in (True, False):
        assert [check.name for check in checks(on_gpu) if check.settles] == [
            "records of this device"
        ]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--device", "cdua"), "unknown device 'cdua'; write cpu"),
        (("--only", "import"), "did you mean"),
        (("--only", "images", "--decisive"), "give one of them"),
        (("--threads", "0"), "--threads"),
        (("--runs", "nowhere"), "'nowhere' is no folder"),
        (("--report", "nowhere/below/a/file/"), "nowhere"),
    ],
)
def test_bad_input_is_one_sentence_before_any_check(
    arguments, said, refusal, tmp_path, monkeypatch
):
    (tmp_path / "nowhere").write_text("a file, in whose place no folder can be made")
    monkeypatch.chdir(tmp_path)
    assert said in refusal("selfcheck", "--device", "cpu", *arguments)


# ---------------------------------------------------------------- the report


def test_the_report_on_the_disk_is_whole_after_each_line(ended, tmp_path, monkeypatch):
    path = tmp_path / "selfcheck.json"
    seen = []

    def look(subject: Subject) -> str:
        seen.append(json.loads(path.read_text()))
        return f"report {len(seen)}"

    def look_and_break(subject: Subject) -> str:
        look(subject)
        raise NinlabError("this cannot be")

    instead(monkeypatch, Check("one", look, "Do this."), Check("two", look_and_break, "Do that."),
            Check("three", look, "Do this too."))  # fmt: skip
    code, lines = ended("--report", str(path))
    last = json.loads(path.read_text())
    assert code == SOMETHING_FAILS
    assert [[row["name"] for row in report["checks"]] for report in [*seen, last]] == [
        [], ["one"], ["one", "two"], ["one", "two", "three"],
    ]  # fmt: skip
    assert [report["verdict"] for report in seen] == [None, None, None]  # cut short there
    assert last["verdict"] == lines[-1]
    assert last["device"] == environment.describe_device(torch.device("cpu")).name
    assert [row["ok"] for row in last["checks"]] == [True, False, True]
    assert [row["advice"] for row in last["checks"]] == [None, "Do that.", None]
    assert "this cannot be" in last["checks"][1]["answer"]
    assert [file.name for file in tmp_path.iterdir() if file.is_file()] == ["selfcheck.json"]


def test_the_report_of_a_device_that_is_lost_names_it_all_the_same(ended, tmp_path, monkeypatch):
    def lose(subject: Subject) -> str:
        monkeypatch.setattr(environment, "describe_device", broken)
        return subject.about().name

    monkeypatch.setattr(environment, "describe_device", lambda device: H200)
    instead(monkeypatch, Check("one", fine, "Do this."), Check("two", lose, "Do that."))
    assert ended("--report", str(tmp_path / "selfcheck.json"))[0] == SOMETHING_FAILS
    assert json.loads((tmp_path / "selfcheck.json").read_text())["device"] == H200.name


def test_a_report_that_can_be_written_no_longer_stops_no_check(ended, tmp_path, monkeypatch):
    folder = tmp_path / "reports"

    def move_away(subject: Subject) -> str:
        folder.rename(tmp_path / "moved")
        folder.write_text("in the way")
        return "moved"

    instead(monkeypatch, Check("one", move_away, "Do this."), Check("two", fine, "Do that."))
    code, lines = ended("--report", str(folder / "selfcheck.json"))
    assert code == ALL_WORKS
    assert len(lines) == 3


# ---------------------------------------------------------------- records of another GPU


def test_a_gpu_whose_like_has_made_none_of_the_full_scale_runs_is_a_stranger():
    more = replace(OF_H100, seed=1)
    assert stranger_to([OF_H100, more, A_RECORD], H200) == (
        "runs/ holds 2 runs of NVIDIA H100; those of this NVIDIA H200 would not join them"
    )
    assert "1 run of NVIDIA H100;" in stranger_to([OF_H100], H200)


def test_nobody_is_a_stranger_among_records_of_its_own_of_cpus_or_at_the_compact_scale():
    assert stranger_to([], H200) is None
    assert stranger_to([OF_H100], A_RECORD.device) is None  # a CPU is nobody's stranger
    assert stranger_to([OF_H100, replace(OF_H100, device=H200)], H200) is None
    assert stranger_to([replace(OF_H100, device=A_RECORD.device)], H200) is None
    assert stranger_to([replace(OF_H100, input_shape=(1, 28, 28))], H200) is None


def test_records_of_another_gpu_have_an_exit_code_of_their_own(ended, tmp_path, monkeypatch):
    arguments = ("--only", "records of this device")
    records.write(tmp_path / "runs", OF_H100)
    assert ended(*arguments)[0] == ALL_WORKS
    monkeypatch.setattr(environment, "describe_device", lambda device: H200)
    code, lines = ended(*arguments)
    assert code == ANOTHER_GPU
    assert "those of this NVIDIA H200 would not join them" in lines[0]
    code, lines = ended(*arguments, "--any-gpu")
    assert code == ALL_WORKS
    assert "those of this NVIDIA H200 would not join them, which was allowed" in lines[0]
    records.write(tmp_path / "runs", replace(OF_H100, device=H200))
    assert ended(*arguments)[0] == ALL_WORKS


def test_a_broken_record_is_no_sign_of_another_gpu(ended, tmp_path):
    broken = tmp_path / "runs/collapse/nin_28-seed0-cpu.json"
    broken.parent.mkdir()
    broken.write_text("{")
    code, lines = ended("--only", "records of this device")
    assert code == ALL_WORKS
    assert "not compared" in lines[0]
    assert str(broken) in lines[0]


# ---------------------------------------------------------------- in a process of its own


@pytest.mark.slow
def test_all_that_recording_needs_works_on_a_cpu(tmp_path):
    report = tmp_path / "selfcheck.json"
    asked = ("selfcheck", "--device", "cpu", "--allow-dirty", "--report", report)
    ended = python("-m", "ninlab", *asked)
    assert ended.returncode == ALL_WORKS, ended.stdout + ended.stderr
    *lines, words = ended.stdout.splitlines()
    assert len(lines) == len(checks(on_gpu=False))
    assert all(line.startswith("ok ") for line in lines)
    assert json.loads(report.read_text())["verdict"] == words
