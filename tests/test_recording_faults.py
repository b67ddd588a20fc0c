"""One run that fails, hangs or loses the device costs the others nothing, and is written down."""

import ctypes
import errno
import multiprocessing
import os
import random
import resource
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest
import torch

from ninlab import experiments, failures, handover, recording, records
from ninlab.__main__ import main
from ninlab.errors import NinlabError, RecordError
from ninlab.experiments import Experiment, Ready, Row
from ninlab.failures import Cause, FailureRecord
from ninlab.recording import DeviceLostError, cluster, keeping, making
from ninlab.recording.dispatch import Makers, dispatch
from ninlab.recording.tasks import Answer, Killed, Made, Refused, Task
from ninlab.records import Provenance
from ninlab.watching import Status, Watcher
from tests import recorder_faults
from tests.recorders import (
    PLAN,
    REAL_SERVE,
    SERVER,
    SHORT,
    output,
    site,
    start,
    train_at_once,
)  # fmt: skip
from tests.records import H100, NOBODY, files

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
    monkeypatch.setattr(making, "_has_graphs", lambda device: True)
    tries: list[bool] = []

    def train(network, recipe, **options):
        if network == VICTIM:
            tries.append(options["use_graph"])
            if options["use_graph"] or not with_a_graph_only:
                raise error
        return train_at_once(network, recipe, **options)

    monkeypatch.setattr(making, "train", train)
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
    monkeypatch.setattr(making, "train", train_at_once)
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

    monkeypatch.setattr(making, "train", train)
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
    assert not making._is_lost("cuda")
    monkeypatch.setattr(torch, "ones", broken)
    assert making._is_lost("cuda")
    assert not making._is_lost("cpu")


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
    monkeypatch.setattr(making, "_is_lost", lambda device: True)
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
    monkeypatch.setattr(making, "_is_lost", lambda device: True)
    for _ in range(2):  # with a graph, then without
        with pytest.raises(DeviceLostError):
            recording.record(THREE, committed(tmp_path))
    tally = recording.record(THREE, committed(tmp_path))
    assert (tally.ids(Status.FAILED), tally.ids(Status.RECORDED)) == ([LOST], [IDS[2]])
    assert [failure.cause for failure in failures.load(tmp_path)] == [Cause.DEVICE_LOST]


def test_a_lost_device_has_an_exit_code_of_its_own(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(experiments.plans, "PLANS", {"three": THREE})
    failing(monkeypatch, RuntimeError("unspecified launch failure"))
    monkeypatch.setattr(making, "_is_lost", lambda device: True)
    runs, results = tmp_path / "runs", tmp_path / "results"
    runs.mkdir()
    arguments = ["record", "--plan", "three", "--runs", str(runs), "--results", str(results)]
    assert main([*arguments, "--allow-dirty", "--device", "cpu"]) == DeviceLostError.exit_code == 5
    assert "the device cpu is lost since" in capsys.readouterr().err
    assert set(handover.contents(results / handover.ARCHIVE)) == {f"{IDS[0]}.json"}


@pytest.mark.usefixtures("tiny_plan")
def test_a_new_machine_takes_up_what_the_one_before_has_handed_over(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(making, "train", train_at_once)
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
    monkeypatch.setattr(making, "train", train_at_once)
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
        return train_at_once(network, recipe, **options)

    monkeypatch.setattr(making, "train", train)
    recording.record(PLAN, committed(tmp_path))
    run = records.read(records.record_path(tmp_path, "own_rate/nin_28-seed0-cpu"))
    assert run.recipe.learning_rate == swept[1].recipe.learning_rate
    assert run.learning_rate_from == (f"{experiments.SWEEP}/{swept[1].name}-seed0-cpu",)


# ---------------------------------------------------------------- processes that die


def hangs_in_the_second_run(folder: Path) -> None:
    recording.clock._LEAST_PATIENCE_SECONDS = 1.0

    def train(network, recipe, **options):
        if network == VICTIM:
            time.sleep(1000)
        return train_at_once(network, recipe, **options)

    making.train = train
    recording.record(THREE, committed(folder, patience=1.0))


def crashes_in_the_second_run(folder: Path) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

    def train(network, recipe, **options):
        if network == VICTIM:
            ctypes.string_at(0)
        return train_at_once(network, recipe, **options)

    making.train = train
    recording.record(THREE, committed(folder))


def dies_in_the_second_run(folder: Path) -> None:
    def train(network, recipe, **options):
        if network == VICTIM:
            os.kill(os.getpid(), signal.SIGKILL)
        return train_at_once(network, recipe, **options)

    making.train = train
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
    assert ", in _made (ninlab/recording/making.py, line " in failure.sentence
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
        "its process crashed: Segmentation fault, in _made (ninlab/recording/making.py, line "
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
    """The command, in a process whose runs take a hundredth of a second."""
    making.train = train_at_once
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


# ---------------------------------------------------------------- runs in processes of their own


def hang() -> None:
    time.sleep(1000)


def crash() -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    ctypes.string_at(0)


def be_killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def raise_an_error() -> None:
    raise RuntimeError("always")


def lose_the_device() -> None:
    making._is_lost = lambda device: True
    raise RuntimeError("unspecified launch failure")


def serve(trouble: Callable[[], object], once: Path | None, talk: Connection, stack: Connection):
    """A child process that has trouble with the victim: always, or only until `once` is there."""

    def train(network, recipe, **options):
        if network == VICTIM and not (once is not None and once.exists()):
            if once is not None:
                once.touch()
            trouble()
        return train_at_once(network, recipe, **options)

    making.train = train
    REAL_SERVE(talk, stack)


@pytest.fixture
def troubled(monkeypatch, tmp_path) -> Callable[..., recording.Tally]:
    """Records THREE with two processes that have that trouble with the victim."""
    monkeypatch.setattr(recording.apart.multiprocessing, "get_context", lambda method: SERVER)

    def record(trouble: Callable[[], object], *, once: Path | None = None, **options: Any):
        # on a busy machine a process may take seconds to begin
        seconds = 1.0 if trouble is hang else 60.0
        monkeypatch.setattr(recording.Clock, "hangs_after", lambda *_: seconds)
        monkeypatch.setattr(recording.apart, "_serve", partial(serve, trouble, once))
        return recording.record_with_workers(THREE, committed(tmp_path), workers=2, **options)

    return record


@pytest.mark.slow
@pytest.mark.parametrize(
    ("trouble", "cause", "sentence"),
    [
        (hang, Cause.HUNG, "it had not ended after 0:00:01"),
        (crash, Cause.CRASHED, "its process crashed: Segmentation fault"),
        (raise_an_error, Cause.RAISED, "RuntimeError: always"),
    ],
)
def test_trouble_in_a_process_costs_one_run_and_is_noted_at_once(
    trouble, cause, sentence, troubled, tmp_path
):
    watcher = Stumbles()
    tally = troubled(trouble, watcher=watcher)
    assert (tally.ids(Status.FAILED), tally.ids(Status.RECORDED)) == ([LOST], [IDS[0], IDS[2]])
    (failure,) = failures.load(tmp_path)
    assert (failure.run, failure.cause, failure.tried_eagerly) == (LOST, cause, True)
    assert failure.sentence.startswith(sentence)
    assert watcher.sentences == [failure.sentence]
    assert failure.device.name == site(tmp_path).about.name
    assert multiprocessing.active_children() == []


@pytest.mark.slow
def test_a_process_that_lost_its_device_ends_the_recording_when_the_others_are_kept(
    troubled, tmp_path
):
    with pytest.raises(DeviceLostError, match="the device cpu is lost since one_by_one/"):
        troubled(lose_the_device)
    assert IDS[0] in {run.id for run in records.load(tmp_path)}
    assert [failure.cause for failure in failures.load(tmp_path)] == [Cause.DEVICE_LOST]
    assert multiprocessing.active_children() == []


@pytest.mark.slow
def test_a_run_whose_process_was_killed_is_made_once_more(troubled, tmp_path):
    watcher = Stumbles()
    tally = troubled(be_killed, once=tmp_path / "killed", watcher=watcher)
    assert tally.ids(Status.RECORDED) == IDS
    assert watcher.sentences == [f"its process ended with {-signal.SIGKILL}"]
    assert failures.load(tmp_path) == []


@pytest.mark.slow
def test_a_run_whose_process_is_always_killed_is_no_failure_and_the_recording_no_success(
    troubled, tmp_path
):
    with pytest.raises(NinlabError, match=f"one_by_one/{VICTIM} seed 0 was killed twice"):
        troubled(be_killed)
    assert {run.id for run in records.load(tmp_path)} == {IDS[0], IDS[2]}
    assert failures.load(tmp_path) == []
    assert records.claim_holders(tmp_path) == {}


@pytest.mark.slow
def test_a_process_that_was_killed_while_it_had_nothing_to_do_costs_no_run(tmp_path, monkeypatch):
    monkeypatch.setattr(recording.apart.multiprocessing, "get_context", lambda method: SERVER)
    monkeypatch.setattr(recording.apart, "_serve", partial(serve, hang, tmp_path))
    here, apart = committed(tmp_path), recording.apart.Apart()
    task = Task(THREE.runs[0], Ready(SHORT), here.device, "cpu", NOBODY, CODE, threads=1)
    for _ in range(2):
        assert isinstance(apart.make(task), Made)
        for child in multiprocessing.active_children():
            child.kill()
            child.join()
    apart.close()


class Interrupted(Watcher):
    """A reader who presses Ctrl-C when two runs are in flight."""

    runs = 0

    def run_started(self, run, steps):
        self.runs += 1
        if self.runs == 2:
            raise KeyboardInterrupt


@pytest.mark.slow
def test_an_interrupted_recorder_leaves_no_process_and_no_claim(troubled, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        troubled(hang, watcher=Interrupted())
    assert multiprocessing.active_children() == []
    assert records.claim_holders(tmp_path) == {}


def serve_and_say_who(folder: Path, talk: Connection, stack: Connection) -> None:
    """A child process whose runs never end."""
    (folder.parent / f"child-{os.getpid()}").touch()
    making.train = lambda *_, **__: hang()
    REAL_SERVE(talk, stack)


def hangs_in_two_processes(folder: Path) -> None:
    fork = multiprocessing.get_context("fork")
    recording.apart.multiprocessing.get_context = lambda method: fork
    recording.apart._serve = partial(serve_and_say_who, folder)
    recording.record_with_workers(THREE, committed(folder), workers=2)


def runs(pid: int) -> bool:
    """Whether the process is there, and not only its exit code."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.slow
def test_the_processes_of_a_killed_recorder_end_with_it(folder):
    recorder = start(hangs_in_two_processes, folder)
    while len(children := list(folder.parent.glob("child-*"))) < 2:
        assert recorder.is_alive()
        time.sleep(0.01)
    assert len(records.claim_holders(folder)) == 2
    recorder.kill()
    recorder.join()
    while any(runs(int(child.name.removeprefix("child-"))) for child in children):
        time.sleep(0.01)
    assert records.claim_holders(folder) == {}


class Lost(Exception):
    """What an executor of another machine raises when that machine is gone."""


def made_unless(troubled: Callable[[Task], bool], trouble: Callable[[], Answer], folder: Path):
    """Makers of this process that answer with trouble for some runs."""

    def work(task: Task) -> Answer:
        if troubled(task):
            return trouble()
        return making.make_here(task, folder / "stack")

    return Makers(recording.InTurn(), work, deaths=(Lost,))


def raise_lost() -> Answer:
    raise Lost("the machine is gone")


@pytest.mark.parametrize("trouble", [raise_lost, lambda: Killed("Lost: the machine is gone")])
def test_a_run_of_which_no_worker_comes_back_is_tried_twice_and_left(
    trouble, tmp_path, monkeypatch
):
    monkeypatch.setattr(making, "train", train_at_once)
    watcher, here = Stumbles(), committed(tmp_path)
    makers = made_unless(lambda task: task.run.experiment == "own_rate", trouble, tmp_path)
    with pytest.raises(NinlabError, match="own_rate/nin_28 seed 0 was killed twice"):
        dispatch(PLAN, here, makers, deadline=None, watcher=watcher)
    assert watcher.sentences == 2 * ["Lost: the machine is gone"]
    assert len(records.load(tmp_path)) == len(PLAN.runs) - 1
    assert records.claim_holders(tmp_path) == {}


def test_a_log_that_cannot_be_written_stops_the_recording_in_one_sentence(tmp_path, monkeypatch):
    class FullLog(Watcher):
        def run_ended(self, run, status):
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(making, "train", train_at_once)
    with pytest.raises(RecordError, match=r"stopped: \[Errno 28\] No space left on device"):
        recording.record(THREE, committed(tmp_path), watcher=FullLog())
    assert [run.id for run in records.load(tmp_path)] == IDS[:1]


def test_an_error_of_one_run_loses_none_of_those_in_flight(tmp_path, monkeypatch):
    """Whatever the error is: here the program is wrong."""
    monkeypatch.setattr(making, "train", train_at_once)
    both = Barrier(2)

    def work(task: Task) -> Answer:
        both.wait()  # two runs are in flight
        if task.run.row.name == VICTIM:
            raise AssertionError("a mistake in the program")
        return making.make_here(task, tmp_path / "stack")

    (all_of_them,) = THREE.experiments
    two = replace(THREE, experiments=(replace(all_of_them, rows=all_of_them.rows[:2]),))
    with ThreadPoolExecutor(2) as threads:
        makers = Makers(threads, work, 2)
        with pytest.raises(AssertionError, match="a mistake"):
            dispatch(two, committed(tmp_path), makers, deadline=None, watcher=Watcher())
    assert [run.id for run in records.load(tmp_path)] == IDS[:1]


@pytest.mark.slow
def test_a_fault_costs_the_runs_in_hand_and_nothing_else():
    """One of each kind; ``python -m tests.recorder_faults`` injects as many as one likes."""
    bad = {}

    def report(number: int, kind: str, found: Counter[str]) -> None:
        if found:
            bad[f"fault {number}, {kind}"] = found

    recorder_faults.inject(len(recorder_faults.KINDS), report)
    assert bad == {}


# ---------------------------------------------------------------- what is checked, what is kept


def test_what_cannot_be_written_is_said_before_a_run_is_made(tmp_path, monkeypatch):
    monkeypatch.setattr(making, "train", lambda *_, **__: pytest.fail("a run was made"))
    (tmp_path / "own_rate").write_text("a file where the folder of the last runs must be")
    for way in (recording.record, partial(recording.record_with_workers, workers=2)):
        with pytest.raises(RecordError, match="own_rate"):
            way(PLAN, committed(tmp_path))
    assert records.load(tmp_path) == []


def test_the_room_that_is_asked_for_holds_what_is_written(tmp_path, monkeypatch):
    asked = {}
    monkeypatch.setattr(making, "train", train_at_once)
    monkeypatch.setattr(records, "check_can_write", lambda path, size: asked.update({path: size}))
    recording.record(PLAN, committed(tmp_path))
    written = {tmp_path / path: (tmp_path / path).stat().st_size for path in files(tmp_path)}
    assert set(written) == set(asked)
    assert all(asked[path] >= size for path, size in written.items())


class FullDisk:
    """`records.write`, but for a disk that is full from the second record on."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.write, self.written = folder, records.write, 0

    def __call__(self, folder: Path, record: records.RunRecord) -> Path:
        if folder == self.folder:
            self.written += 1
            if self.written > 1:
                raise RecordError(f"{record.id} could not be written: no space left")
        return self.write(folder, record)


@pytest.mark.usefixtures("tiny_plan")
def test_a_run_that_cannot_be_written_is_laid_aside_whole(tmp_path, monkeypatch, capsys):
    runs, spare = tmp_path / "runs", tmp_path / "spare"
    runs.mkdir()
    spare.mkdir()
    arguments = ["record", "--plan", "tiny", "--device", "cpu", "--allow-dirty"]
    with monkeypatch.context() as patch:
        patch.setattr(making, "train", train_at_once)
        patch.setattr(records, "write", FullDisk(runs))
        patch.setattr(keeping.tempfile, "mkdtemp", lambda prefix: str(spare))
        assert main([*arguments, "--runs", str(runs)]) == 2
    assert f"no space left; the run is kept in {spare}" in capsys.readouterr().err
    second = PLAN.runs[1].id("cpu")
    assert files(spare) == {f"{second}.json", f"{second}.safetensors"}
    assert not list(records.problems(spare))
    shutil.copytree(spare, runs, dirs_exist_ok=True)
    monkeypatch.setattr(making, "train", train_at_once)
    assert recording.record(PLAN, site(runs)).ids(Status.PRESENT) == [
        run.id("cpu") for run in PLAN.runs[:2]
    ]
    assert not list(records.problems(runs))


@pytest.mark.parametrize("torn", [False, True], ids=["by a law that is wrong", "by a torn file"])
def test_a_run_that_is_refused_is_laid_aside(torn, tmp_path, monkeypatch):
    def refuse(folder, record):
        path = records.record_path(folder, record.id)
        if torn:
            path.parent.mkdir(exist_ok=True)
            path.write_text("{")
        raise RecordError(f"{path} is not written")

    spare = tmp_path / "spare"
    spare.mkdir()
    monkeypatch.setattr(making, "train", train_at_once)
    monkeypatch.setattr(records, "write", refuse)
    monkeypatch.setattr(keeping.tempfile, "mkdtemp", lambda prefix: str(spare))
    with pytest.raises(RecordError, match="is not written; the run is kept in"):
        recording.record(THREE, committed(tmp_path))
    assert [run.id for run in records.load(spare)] == IDS[:1]


def test_a_run_that_can_be_kept_nowhere_is_said_to_be_lost(tmp_path, monkeypatch):
    monkeypatch.setattr(making, "train", train_at_once)

    def full(*_):
        raise RecordError("no space left")

    monkeypatch.setattr(records, "write", full)
    monkeypatch.setattr(records, "write_json_once", full)
    with pytest.raises(RecordError, match="the run is lost, for it could not be laid aside either"):
        recording.record(THREE, committed(tmp_path))


def test_a_worker_with_another_device_refuses_the_run(tmp_path, monkeypatch):
    here = site(tmp_path)
    assert here.device_slug == "cpu"
    monkeypatch.setattr(making, "describe_device", lambda device: H100)
    with pytest.raises(NinlabError, match="'NVIDIA H100', but its runs are planned for 'cpu'"):
        recording.record(THREE, here)
    assert files(tmp_path) == set()


@pytest.mark.parametrize("own", [Provenance("", "", "a" * 40, True), NOBODY])
def test_a_machine_with_other_code_refuses_the_run(own, monkeypatch):
    monkeypatch.setattr(cluster, "_own_provenance", lambda command: own)
    asked = Provenance("", "", "c" * 40, True)
    run = THREE.runs[0]
    task = Task(run, Ready(SHORT), "cpu", "cpu", asked, CODE)
    answer = cluster.make_on_node(task)
    assert isinstance(answer, Refused)
    assert f"the recorder is at commit {'c' * 40}" in answer.sentence
