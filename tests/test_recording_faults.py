"""One run that fails, hangs or loses the device costs the others nothing, and is written down."""

import ctypes
import os
import random
import resource
import shutil
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ninlab import experiments, failures, handover, recording, records, training
from ninlab.__main__ import main
from ninlab.errors import NinlabError, RecordError
from ninlab.experiments import Experiment, Row
from ninlab.failures import Cause, FailureRecord
from ninlab.recording import DeviceLostError
from ninlab.watching import Status, Watcher
from tests.recorders import PLAN, SHORT, output, site, start

pytestmark = pytest.mark.usefixtures("few_judges")

VICTIM = "nin_28_no_1x1"
NAMES = ("nin_28", VICTIM, "nin_28_linear_head")
THREE = replace(
    PLAN,
    experiments=(
        Experiment(
            "one_by_one", "How many?",
            tuple(Row(name, name, SHORT, 1) for name in NAMES),
        ),
    ),
)  # fmt: skip
IDS = [run.id("cpu") for run in THREE.runs]
LOST = IDS[1]
CODE = "c" * 40
REAL = training.train


class Stumbles(Watcher):
    """A watcher that keeps the sentences it was told."""

    def __init__(self) -> None:
        self.sentences: list[str] = []

    def run_stumbled(self, run, sentence):
        self.sentences.append(sentence)


def committed(folder: Path, **changes: object) -> recording.Site:
    return replace(site(folder), **{"code": CODE} | changes)


def failing(monkeypatch, error: Exception, *, with_a_graph_only: bool = False) -> list[bool]:
    """Let the victim raise; the list grows by whether each of its tries used a graph.

    The device is taken to have graphs.
    """
    monkeypatch.setattr(recording, "_has_graphs", lambda device: True)
    tries: list[bool] = []

    def train(network, recipe, **options):
        if network == VICTIM:
            tries.append(options["use_graph"])
            if options["use_graph"] or not with_a_graph_only:
                raise error
        return REAL(network, recipe, **options)

    monkeypatch.setattr(recording, "train", train)
    return tries


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate 2 GiB"),
         Cause.OUT_OF_MEMORY),
        (MemoryError("no more"), Cause.OUT_OF_MEMORY),
        (RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"), Cause.RAISED),
    ],
)  # fmt: skip
def test_a_run_that_raises_is_noted_with_its_sentence_and_the_rest_is_made(
    error, cause, tmp_path, monkeypatch
):
    tries, watcher = failing(monkeypatch, error), Stumbles()
    tally = recording.record(THREE, committed(tmp_path), watcher=watcher)
    assert tally.ids(Status.FAILED) == [LOST]
    assert tally.ids(Status.RECORDED) == [IDS[0], IDS[2]]
    assert tries == [True, False]  # once more without a graph
    (failure,) = failures.load(tmp_path)
    assert (failure.run, failure.cause, failure.tried_eagerly) == (LOST, cause, True)
    assert failure.sentence == f"{type(error).__name__}: {' '.join(str(error).split())}"
    assert watcher.sentences == 2 * [failure.sentence]
    assert not list(records.problems(tmp_path, {failures.KIND: FailureRecord.from_json}))


def test_a_run_that_failed_is_passed_over_until_the_code_changes(tmp_path, monkeypatch):
    tries = failing(monkeypatch, RuntimeError("always"))
    recording.record(THREE, committed(tmp_path))
    assert recording.record(THREE, committed(tmp_path)).ids(Status.FAILED) == [LOST]
    assert len(tries) == 2
    monkeypatch.setattr(recording, "train", REAL)
    mended = committed(tmp_path, code="d" * 40)
    assert recording.record(THREE, mended).ids(Status.RECORDED) == [LOST]
    assert len(failures.load(tmp_path)) == 1  # what failed once stays written down


def test_a_capture_that_raises_is_made_up_for_by_eager_steps(tmp_path, monkeypatch):
    tries = failing(monkeypatch, RuntimeError("operation not permitted"), with_a_graph_only=True)
    watcher = Stumbles()
    tally = recording.record(THREE, committed(tmp_path), watcher=watcher)
    assert tally.ids(Status.RECORDED) == IDS
    assert tries == [True, False]
    assert watcher.sentences == ["RuntimeError: operation not permitted"]
    assert failures.load(tmp_path) == []


def test_where_there_are_no_graphs_a_run_is_tried_once(tmp_path, monkeypatch):
    tries = []

    def train(network, recipe, **options):
        tries.append(options["use_graph"])
        raise RuntimeError("always")

    monkeypatch.setattr(recording, "train", train)
    recording.record(THREE, committed(tmp_path))
    assert tries == [False] * 3


def test_code_that_nothing_names_is_tried_again_every_time(tmp_path, monkeypatch):
    tries = failing(monkeypatch, RuntimeError("always"))
    for _ in range(2):
        tally = recording.record(THREE, committed(tmp_path, code=None))
        assert tally.ids(Status.FAILED) == [LOST]
    assert len(tries) == 4
    assert len(failures.load(tmp_path)) == 1


def test_a_full_gpu_is_not_a_lost_one(monkeypatch):
    def full(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory")

    def broken(*_, **__):
        raise RuntimeError("CUDA error: unspecified launch failure")

    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    monkeypatch.setattr(torch, "ones", full)
    assert not recording._is_lost("cuda")
    monkeypatch.setattr(torch, "ones", broken)
    assert recording._is_lost("cuda")
    assert not recording._is_lost("cpu")


def test_whoever_asks_for_eager_steps_gets_no_graph(tmp_path, monkeypatch):
    tries = failing(monkeypatch, RuntimeError("never raised"), with_a_graph_only=True)
    recording.record(THREE, committed(tmp_path, eager=True))
    assert tries == [False]


def test_a_mistake_of_the_caller_is_no_failed_run(tmp_path, monkeypatch):
    failing(monkeypatch, RecordError("the disk is full"))
    with pytest.raises(RecordError, match="the disk is full"):
        recording.record(THREE, committed(tmp_path))
    assert failures.load(tmp_path) == []


def test_a_device_lost_to_a_graph_ends_the_process_and_the_next_start_goes_without(
    tmp_path, monkeypatch
):
    tries = failing(monkeypatch, RuntimeError("unspecified launch failure"), with_a_graph_only=True)
    monkeypatch.setattr(recording, "_is_lost", lambda device: True)
    with pytest.raises(DeviceLostError, match=f"is lost since one_by_one/{VICTIM} seed 0: Runtime"):
        recording.record(THREE, committed(tmp_path))
    assert [run.id for run in records.load(tmp_path)] == IDS[:1]
    assert recording.record(THREE, committed(tmp_path)).ids(Status.RECORDED) == IDS[1:]
    assert tries == [True, False]
    assert not list((tmp_path / ".claims").glob("*.graph-lost-the-device"))


def test_a_device_lost_without_a_graph_is_the_runs_fault_and_it_is_passed_over(
    tmp_path, monkeypatch
):
    failing(monkeypatch, RuntimeError("unspecified launch failure"))
    monkeypatch.setattr(recording, "_is_lost", lambda device: True)
    for _ in range(2):  # with a graph, then without
        with pytest.raises(DeviceLostError):
            recording.record(THREE, committed(tmp_path))
    tally = recording.record(THREE, committed(tmp_path))
    assert (tally.ids(Status.FAILED), tally.ids(Status.RECORDED)) == ([LOST], [IDS[2]])
    assert [failure.cause for failure in failures.load(tmp_path)] == [Cause.DEVICE_LOST]


def test_a_lost_device_has_an_exit_code_of_its_own(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(experiments.plans, "PLANS", {"three": THREE})
    failing(monkeypatch, RuntimeError("unspecified launch failure"))
    monkeypatch.setattr(recording, "_is_lost", lambda device: True)
    runs, results = tmp_path / "runs", tmp_path / "results"
    runs.mkdir()
    arguments = ["record", "--plan", "three", "--runs", str(runs), "--results", str(results)]
    assert main([*arguments, "--allow-dirty", "--device", "cpu"]) == DeviceLostError.exit_code == 5
    assert "the device cpu is lost since" in capsys.readouterr().err
    assert set(handover.contents(results / handover.ARCHIVE)) == {f"{IDS[0]}.json"}


@pytest.mark.usefixtures("tiny_plan")
def test_a_new_machine_takes_up_what_the_one_before_has_handed_over(tmp_path, capsys):
    results = tmp_path / "results"
    for machine in ("first", "second"):
        (tmp_path / machine).mkdir()
        arguments = ["record", "--plan", "tiny", "--device", "cpu", "--allow-dirty"]
        arguments += ["--runs", str(tmp_path / machine), "--results", str(results)]
        assert main(arguments) == 0
    first, second = capsys.readouterr().out.strip().splitlines()[-2:]
    assert first.startswith("5 runs recorded in ")
    assert second.startswith("0 runs recorded in ")


@pytest.mark.usefixtures("tiny_plan")
def test_a_drive_that_cannot_be_written_for_a_while_ends_no_recording(
    tmp_path, monkeypatch, capsys
):
    runs, results = tmp_path / "runs", tmp_path / "results"
    runs.mkdir()
    calls, hand_over = [], handover.hand_over

    def sometimes(folder, to):
        calls.append(to)
        if len(calls) == 2:  # after the first run
            raise RecordError("the drive is away")
        hand_over(folder, to)

    monkeypatch.setattr(handover, "hand_over", sometimes)
    arguments = ["record", "--plan", "tiny", "--device", "cpu", "--allow-dirty"]
    assert main([*arguments, "--runs", str(runs), "--results", str(results)]) == 0
    assert "not handed over: the drive is away" in capsys.readouterr().err
    brought = handover.contents(results / handover.ARCHIVE)
    assert {f"{run.id}.json" for run in records.load(runs)} == set(brought)
    monkeypatch.setattr(handover, "hand_over", hand_over)
    (tmp_path / "file").write_text("")
    assert main([*arguments, "--runs", str(runs), "--results", str(tmp_path / "file")]) == 2


def test_a_plan_goes_on_though_a_run_of_its_sweep_failed(tmp_path, monkeypatch):
    swept = PLAN.experiment(experiments.SWEEP).rows

    def train(network, recipe, **options):
        if recipe == swept[0].recipe:
            raise RuntimeError("always")
        return REAL(network, recipe, **options)

    monkeypatch.setattr(recording, "train", train)
    recording.record(PLAN, committed(tmp_path))
    run = records.read(records.record_path(tmp_path, "own_rate/nin_28-seed0-cpu"))
    assert run.recipe.learning_rate == swept[1].recipe.learning_rate
    assert run.learning_rate_from == (f"{experiments.SWEEP}/{swept[1].name}-seed0-cpu",)


# ---------------------------------------------------------------- processes that die


def hangs_in_the_second_run(folder: Path) -> None:
    recording._LEAST_PATIENCE_SECONDS = 1.0

    def train(network, recipe, **options):
        if network == VICTIM:
            time.sleep(1000)
        return REAL(network, recipe, **options)

    recording.train = train
    recording.record(THREE, committed(folder, patience=1.0))


def crashes_in_the_second_run(folder: Path) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

    def train(network, recipe, **options):
        if network == VICTIM:
            ctypes.string_at(0)
        return REAL(network, recipe, **options)

    recording.train = train
    recording.record(THREE, committed(folder))


def dies_in_the_second_run(folder: Path) -> None:
    def train(network, recipe, **options):
        if network == VICTIM:
            os.kill(os.getpid(), signal.SIGKILL)
        return REAL(network, recipe, **options)

    recording.train = train
    recording.record(THREE, committed(folder))


@pytest.mark.slow
def test_a_run_that_hangs_ends_the_process_and_the_next_start_goes_on_behind_it(folder):
    process = start(hangs_in_the_second_run, folder)
    process.join()
    assert process.exitcode == 1, output(folder, "stderr", process.pid).read_text()
    watcher = Stumbles()
    tally = recording.record(THREE, committed(folder), watcher=watcher)
    assert tally.ids(Status.PRESENT) == IDS[:1]
    assert tally.ids(Status.FAILED) == [LOST]
    assert tally.ids(Status.RECORDED) == IDS[2:]
    (failure,) = failures.load(folder)
    assert (failure.run, failure.cause) == (LOST, Cause.HUNG)
    assert failure.sentence.startswith("it had not ended after 0:00:0")
    assert ", in _made (ninlab/recording.py, line " in failure.sentence
    assert watcher.sentences == [failure.sentence]
    assert not list((folder / ".claims").glob("*.stack"))


@pytest.mark.slow
def test_a_run_that_crashes_its_process_is_passed_over_by_the_next_start(folder):
    process = start(crashes_in_the_second_run, folder)
    process.join()
    assert process.exitcode == -signal.SIGSEGV
    tally = recording.record(THREE, committed(folder))
    assert (tally.ids(Status.FAILED), tally.ids(Status.RECORDED)) == ([LOST], IDS[2:])
    (failure,) = failures.load(folder)
    assert failure.cause is Cause.CRASHED
    assert failure.sentence.startswith(
        "its process crashed: Segmentation fault, in _made (ninlab/recording.py, line "
    )


@pytest.mark.slow
def test_a_run_that_was_killed_from_outside_did_not_hang(folder):
    process = start(dies_in_the_second_run, folder)
    process.join()
    assert process.exitcode == -signal.SIGKILL
    tally = recording.record(THREE, committed(folder))
    assert tally.ids(Status.RECORDED) == IDS[1:]
    assert failures.load(folder) == []


KILLS = 20
MANY = replace(
    PLAN,
    experiments=(
        Experiment(
            "one_by_one", "How many?",
            tuple(Row(f"row{i}", "nin_28", SHORT, 1, kept_seeds=i % 2) for i in range(500)),
        ),
    ),
)  # fmt: skip


def wait_for_more(archive: Path) -> None:
    """Until the archive holds more than it does now."""

    def held() -> int:
        return len(handover.contents(archive)) if archive.exists() else 0

    before = held()
    while held() == before:
        time.sleep(0.01)


def records_and_is_killed_again_and_again(folder: Path) -> None:
    """The command, in a process whose runs take a few hundredths of a second."""
    experiments.plans.PLANS = {"many": MANY}
    arguments = ["record", "--plan", "many", "--device", "cpu", "--allow-dirty"]
    arguments += ["--runs", str(folder), "--results", str(folder.parent / "results")]
    moment = random.Random(24)
    for attempt in range(KILLS):
        child = os.fork()
        if child == 0:
            main(arguments)
            os._exit(0)
        if attempt % 2:  # else it may not have come further than its start
            wait_for_more(folder.parent / "results" / handover.ARCHIVE)
        time.sleep(moment.uniform(0, 0.3))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        for name in ("runs", "results"):
            left, kept = folder.parent / name, folder.parent / f"{name}-{attempt}"
            shutil.copytree(left, kept) if left.exists() else kept.mkdir()


@pytest.mark.slow
def test_killed_at_any_moment_at_most_the_run_in_hand_is_lost(folder):
    process = start(records_and_is_killed_again_and_again, folder)
    process.join()
    assert process.exitcode == 0, output(folder, "stderr", process.pid).read_text()
    handed_over = [0]
    for attempt in range(KILLS):
        results = folder.parent / f"results-{attempt}"
        archive = results / handover.ARCHIVE
        brought = handover.contents(archive) if archive.exists() else {}
        out = {name.removesuffix(".json") for name in brought}
        made = {run.id for run in records.load(folder.parent / f"runs-{attempt}")}
        assert out <= made
        assert len(made - out) <= 1, attempt  # written, and not yet handed over
        home = folder.parent / f"home-{attempt}"
        for name, content in brought.items():
            records.write_bytes(home / name, content)
        for identifier in out:
            weights = results / handover.weights_name(identifier)
            if weights.exists():
                records.write_bytes(records.weights_path(home, identifier), weights.read_bytes())
        assert not list(records.problems(home)), attempt
        handed_over.append(len(out))
    assert handed_over == sorted(handed_over)
    assert len(set(handed_over)) > KILLS / 2  # every second kill hit a recorder at work


def loses_the_device(folder: Path) -> None:
    def train(network, recipe, **options):
        raise RuntimeError("unspecified launch failure")

    recording.train = train
    recording._is_lost = lambda device: True
    recording._work(THREE, committed(folder), None)


@pytest.mark.slow
def test_a_workers_exit_code_says_that_the_device_is_lost(folder):
    process = start(loses_the_device, folder)
    process.join()
    assert process.exitcode == DeviceLostError.exit_code
    assert output(folder, "stderr", process.pid).read_text().startswith("error: the device cpu is")


class CrashingRay:
    """As much of ray as a recording asks for; the worker of the victim crashes."""

    class exceptions:
        class WorkerCrashedError(Exception):
            pass

    def __init__(self, site: recording.Site, stack: str) -> None:
        self.site, self.stack = site, stack

    def remote(self, run, *arguments):
        return run

    def wait(self, references, num_returns):
        return references[:num_returns], references[num_returns:]

    def get(self, run):
        if run.row.name == VICTIM:
            path = recording._stack_file(self.site.folder, run.id("cpu"))
            path.parent.mkdir(exist_ok=True)
            path.write_text(self.stack)
            raise self.exceptions.WorkerCrashedError
        return recording.make_run(run, self.site)


def dispatched(site: recording.Site, stack: str) -> recording.Tally:
    ray = CrashingRay(site, stack)
    clock = recording.Clock(THREE, site, None)
    return recording._dispatch(THREE, site, clock, Stumbles(), 2, ray, ray)


def test_a_worker_of_ray_that_hangs_costs_the_others_nothing(tmp_path):
    tally = dispatched(committed(tmp_path), "a try without a graph\nTimeout (0:04:00)!\n")
    assert (tally.ids(Status.FAILED), tally.ids(Status.RECORDED)) == ([LOST], [IDS[0], IDS[2]])
    (failure,) = failures.load(tmp_path)
    assert (failure.cause, failure.tried_eagerly) == (Cause.HUNG, True)


def test_a_worker_of_ray_that_was_killed_is_said(tmp_path):
    with pytest.raises(NinlabError, match=f"the worker of one_by_one/{VICTIM} seed 0 was killed"):
        dispatched(committed(tmp_path), "a try with a graph\n")
    assert failures.load(tmp_path) == []
