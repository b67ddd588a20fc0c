"""A plan becomes records: each run once, none in part, none lost, whoever dies on the way."""

import gzip
import json
import math
import os
import signal
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ninlab import (
    data,
    data_files,
    experiments,
    failures,
    fused,
    recording,
    records,
    training,
)
from ninlab.__main__ import main
from ninlab.commands import progress, validation
from ninlab.errors import NinlabError, RecordError
from ninlab.estimates import Estimates, RooflineCost
from ninlab.experiments import Experiment, Row
from ninlab.fused import tiles
from ninlab.recipes import Recipe
from ninlab.recording import making
from ninlab.records import Provenance
from ninlab.steps import Kernels
from ninlab.watching import Status, Watcher
from tests.recorders import IDS, JUDGES, PLAN, SERVER, SHORT, SWEEP, output, recorded, site, start
from tests.records import NOBODY, files

pytestmark = pytest.mark.usefixtures("few_judges")

ONE = PLAN.experiment("one_by_one")
FIRST = replace(PLAN, experiments=(replace(ONE, rows=ONE.rows[:1]),))
OWN_RATE = replace(PLAN, experiments=(PLAN.experiment("own_rate"),))


@pytest.fixture(scope="module")
def finished(few_judges, tmp_path_factory) -> Path:
    """A folder with the whole plan recorded, by one undisturbed recorder."""
    folder = tmp_path_factory.mktemp("finished")
    tally = recording.record(PLAN, site(folder))
    assert tally.ids(Status.RECORDED) == IDS
    return folder


# ---------------------------------------------------------------- what is recorded


def test_every_run_is_recorded_and_valid(finished):
    assert recorded(finished) == sorted(IDS)
    assert not list(records.problems(finished))
    assert not PLAN.missing(recorded(finished), "cpu")


def test_a_second_recording_makes_nothing_and_changes_nothing(finished):
    before = {path: (finished / path).read_bytes() for path in files(finished)}
    assert recording.record(PLAN, site(finished)).ids(Status.PRESENT) == IDS
    assert {path: (finished / path).read_bytes() for path in files(finished)} == before


def test_only_the_weights_that_chapters_need_are_kept(finished):
    assert [path for path in files(finished) if path.endswith(".safetensors")] == [
        "one_by_one/nin_28-seed0-cpu.safetensors"
    ]
    record = records.read(records.record_path(finished, "one_by_one/nin_28-seed0-cpu"))
    network = training.load_network(record, finished)
    result = training.evaluate(network, data.fashion_mnist()[1].take(slice(JUDGES)))
    assert result.accuracy == record.last.test_accuracy


def test_a_chosen_rate_names_the_runs_that_chose_it(finished):
    sweep = [run for run in records.load(finished) if run.experiment == experiments.SWEEP]
    run = records.read(records.record_path(finished, "own_rate/nin_28-seed0-cpu"))
    assert run.recipe.learning_rate == experiments.best_rate(sweep, run.network)
    assert set(run.learning_rate_from) == {of_sweep.id for of_sweep in sweep}
    assert run.data_set.evaluation_images == JUDGES


def test_a_budget_that_is_spent_starts_nothing(tmp_path):
    assert recording.record(PLAN, site(tmp_path), deadline=time.time()).ids(Status.NO_TIME) == IDS
    assert files(tmp_path) == set()


def test_a_run_too_long_for_the_budget_is_left_and_a_shorter_one_after_it_is_made(tmp_path):
    hours = replace(SHORT, epochs=10_000)
    rows = (Row("long", "nin_28", hours, 1), Row("short", "nin_28_no_1x1", SHORT, 1))
    plan = replace(PLAN, experiments=(Experiment("two", "Both?", rows),))
    tally = recording.record(plan, site(tmp_path), deadline=time.time() + 50)
    assert tally.statuses == {
        "two/long-seed0-cpu": Status.NO_TIME,
        "two/short-seed0-cpu": Status.RECORDED,
    }


@given(factor=st.floats(0.01, 100))
def test_an_estimate_is_corrected_by_what_the_runs_before_it_took(finished, factor):
    run = PLAN.runs[0]
    clock = recording.Clock(PLAN, site(finished.parent / "nothing"), 0.0)
    made = replace(records.read(records.record_path(finished, IDS[0])), host=None)  # as if alone
    guess = PLAN.cost.seconds(made.network, made.recipe, len(made.epochs))
    assert clock.expected(run) == pytest.approx(guess)
    clock._estimates.add(replace(made, wall_seconds=factor * guess))
    assert clock.expected(run) == pytest.approx(factor * guess)


def test_what_a_device_recorded_before_corrects_the_estimates_of_the_next_start(finished):
    clock = recording.Clock(PLAN, site(finished), None)
    made = records.read(records.record_path(finished, IDS[0]))
    part = min(1.0, made.host.own_cores / made.device.threads)  # of the core, with all of which
    assert clock.expected(PLAN.runs[0]) == pytest.approx(part * made.wall_seconds)  # it had ended


def test_a_run_hangs_by_what_is_known_of_the_device(tmp_path, finished):
    """A guess for another machine may be an hour short on a GPU that nobody knows."""
    run = PLAN.runs[0]
    assert recording.Clock(PLAN, site(tmp_path), None).hangs_after(run, 4.0) is None
    clock = recording.Clock(PLAN, site(finished), None)
    assert clock.hangs_after(run, None) is None
    assert clock.hangs_after(run, 4.0) == 60  # the least
    assert clock.hangs_after(run, 10**6) == pytest.approx(10**6 * clock.expected(run))
    known = recording.Clock(PLAN, site(tmp_path), None)
    known._estimates = Estimates(RooflineCost("h100").on("NVIDIA H100"))
    assert known.hangs_after(run, 4.0) == 180
    assert known.hangs_after(run, 1000.0) == pytest.approx(2500 * known.expected(run))


def test_a_deadline_is_a_time_of_day_and_comes_nearer(tmp_path, monkeypatch):
    run, now = PLAN.runs[0], [1000.0]
    monkeypatch.setattr(recording.clock, "time", SimpleNamespace(time=lambda: now[0]))
    seconds = recording.Clock(PLAN, site(tmp_path), None).expected(run)
    clock = recording.Clock(PLAN, site(tmp_path), 1000.0 + 1.5 * seconds)
    unlimited = recording.Clock(PLAN, site(tmp_path), None)
    assert clock.left == pytest.approx(1.5 * seconds)
    assert clock.fits(run)
    now[0] += seconds
    assert clock.elapsed == pytest.approx(seconds)
    assert not clock.fits(run)
    assert unlimited.fits(run)


def test_a_run_waits_for_its_sweep_and_not_for_ever(tmp_path):
    tally = recording.record(OWN_RATE, site(tmp_path))
    assert tally.ids(Status.WAITING) == ["own_rate/nin_28-seed0-cpu"]


def test_a_run_in_other_hands_is_left_to_them(tmp_path):
    with records.claim(tmp_path, IDS[0]):
        assert recording.record(FIRST, site(tmp_path)).ids(Status.CLAIMED) == IDS[:1]
    assert recording.record(FIRST, site(tmp_path)).ids(Status.RECORDED) == IDS[:1]


# ---------------------------------------------------------------- deaths


def resumed(folder: Path, finished: Path) -> None:
    """Record what is left, and compare all of it with an undisturbed recording."""
    recording.record(PLAN, site(folder))
    assert recorded(folder) == sorted(IDS)
    assert not list(records.problems(folder))
    for mine, theirs in zip(records.load(folder), records.load(finished), strict=True):
        assert mine.loss == theirs.loss


class Killer(Watcher):
    """Ends its own process at the first step of the third run."""

    runs = 0

    def run_started(self, run, steps):
        self.runs += 1

    def step_taken(self, step):
        if self.runs == 3:
            os.kill(os.getpid(), signal.SIGKILL)


def dies_in_mid_run(folder: Path) -> None:
    recording.record(PLAN, site(folder), watcher=Killer())


def dies_in_mid_write(folder: Path) -> None:
    """Is killed when the second record's temporary file is whole, before it has its name."""
    link, calls = os.link, []

    def dying(*arguments):
        calls.append(arguments)
        if len(calls) == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        link(*arguments)

    os.link = dying
    recording.record(PLAN, site(folder))


def tells_what_it_recorded(folder: Path) -> None:
    tally = recording.record(PLAN, site(folder))
    print(json.dumps(tally.ids(Status.RECORDED)), flush=True)


@pytest.mark.slow
def test_killed_in_mid_run_loses_that_run_only(folder, finished):
    process = start(dies_in_mid_run, folder)
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert recorded(folder) == sorted(IDS[:2])
    assert records.claim_holders(folder) == {}
    resumed(folder, finished)


@pytest.mark.slow
def test_killed_in_mid_write_loses_that_run_only(folder, finished):
    process = start(dies_in_mid_write, folder)
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert recorded(folder) == IDS[:1]
    resumed(folder, finished)


@pytest.mark.slow
def test_two_recorders_at_once_make_every_run_once(folder, finished):
    both = [start(tells_what_it_recorded, folder) for _ in range(2)]
    made = []
    for process in both:
        process.join()
        assert process.exitcode == 0, output(folder, "stderr", process.pid).read_text()
        made += json.loads(output(folder, "stdout", process.pid).read_text())
    assert sorted(made) == sorted(IDS)  # no run twice
    resumed(folder, finished)


@pytest.mark.slow
def test_two_workers_record_the_whole_plan(tmp_path, finished):
    tally = recording.record_with_workers(PLAN, site(tmp_path), workers=2)
    assert tally.ids(Status.RECORDED) == IDS
    resumed(tmp_path, finished)


@pytest.fixture
def forked(monkeypatch) -> None:
    """Workers that have torch loaded already; a test above starts them as a recording does."""
    monkeypatch.setattr(recording.apart.multiprocessing, "get_context", lambda method: SERVER)


@pytest.mark.slow
@pytest.mark.usefixtures("forked")
def test_workers_keep_to_the_budget(tmp_path):
    tally = recording.record_with_workers(PLAN, site(tmp_path), workers=2, deadline=time.time())
    assert tally.ids(Status.NO_TIME) == IDS
    assert files(tmp_path) == set()


def with_a_share(folder: Path, share: float) -> None:
    recording.record_with_ray(PLAN, site(folder), gpus_per_run=share)


@pytest.mark.parametrize(
    ("nonsense", "sentence"),
    [
        (lambda folder: recording.record_with_workers(PLAN, site(folder), workers=0), "0 workers"),
        (lambda folder: recording.record(PLAN, site(folder), deadline=math.nan), "deadline of nan"),
        (lambda folder: replace(site(folder), threads=0), "0 threads"),
        (lambda folder: replace(site(folder), threads=10**11), "take 1 to 1024"),
        (lambda folder: replace(site(folder), patience=math.nan), "patience of nan"),
        *(
            (partial(with_a_share, share=share), f"{share:g} GPUs per run")
            for share in (-1.0, math.nan, math.inf)
        ),
    ],
)
def test_a_number_that_nobody_can_work_with_is_refused_before_a_run(nonsense, sentence, tmp_path):
    with pytest.raises(NinlabError, match=sentence):
        nonsense(tmp_path)
    assert files(tmp_path) == set()


# ---------------------------------------------------------------- who watches


def test_each_run_in_hand_has_a_bar_of_its_own():
    drawn = progress.progress_bars()
    bars, (one, other) = progress.Bars(drawn, len(PLAN.runs)), PLAN.runs[:2]

    def shown() -> list[tuple[str, float]]:
        return [(task.description, task.completed) for task in drawn.tasks]

    bars.run_started(one, 2)
    bars.run_started(other, 2)
    bars.step_taken(1)
    assert shown() == [("plan", 0), (one.title, 0), (other.title, 1)]
    bars.run_ended(one, Status.RECORDED)
    assert shown() == [("plan", 1), (other.title, 1)]
    bars.run_started(other, 2)  # its worker was killed
    assert shown() == [("plan", 1), (other.title, 0)]


def test_a_line_tells_the_seconds_of_its_own_run(tmp_path, monkeypatch, capsys):
    now = [0.0]
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: now[0]))
    lines, (one, other) = progress.Lines(tmp_path, "cpu"), PLAN.runs[:2]
    lines.run_started(one, 2)
    now[0] = 5.0
    lines.run_started(other, 2)
    now[0] = 7.0
    lines.run_ended(one, Status.FAILED)
    lines.run_ended(PLAN.runs[2], Status.FAILED)
    told = [line.partition(" s  ")[0].strip() for line in capsys.readouterr().out.splitlines()]
    assert told == ["7.0", "0.0"]


# ---------------------------------------------------------------- the command line


@pytest.mark.usefixtures("tiny_plan")
def test_a_truncated_data_file_is_named_before_a_run_begins(tmp_path, monkeypatch, capsys):
    source = data_files.find()
    broken = tmp_path / "data"
    broken.mkdir()
    for name in data_files.FILES:
        path = data_files.path_in(source, name)
        (broken / path.name).symlink_to(path)
    victim = broken / "t10k-images-idx3-ubyte.gz"
    whole = victim.read_bytes() if victim.exists() else gzip.compress(b"")
    victim.unlink(missing_ok=True)
    victim.write_bytes(whole[: len(whole) // 2])
    monkeypatch.setenv(data_files.FOLDER_VARIABLE, str(broken))
    data.fashion_mnist.cache_clear()
    runs = tmp_path / "runs"
    runs.mkdir()
    assert main(["record", "--plan", "tiny", "--runs", str(runs), "--allow-dirty"]) == 2
    stderr = capsys.readouterr().err
    assert str(victim) in stderr
    assert stderr.count("\n") == 1
    assert victim.stat().st_size == len(whole) // 2
    assert files(runs) == set()
    data.fashion_mnist.cache_clear()


def test_a_dirty_tree_is_refused_unless_allowed():
    dirty = Provenance("2026-01-01T00:00:00Z", "a test", "c" * 40, False)
    with pytest.raises(NinlabError, match="differs from commit cccccccccccc; commit first"):
        recording.check_tree(dirty, allow_dirty=False)
    with pytest.raises(NinlabError, match="no git checkout"):
        recording.check_tree(NOBODY, allow_dirty=False)
    recording.check_tree(dirty, allow_dirty=True)


@pytest.mark.usefixtures("tiny_plan")
def test_missing_lists_the_runs_without_a_record(tmp_path, finished, printed):
    assert printed("runs", "--missing", "tiny", "--runs", finished) == ""
    assert printed("runs", "--missing", "tiny", "--runs", tmp_path).split() == IDS


def test_exports_hold_every_run_and_filters_hold_some(finished, printed):
    exported = json.loads(printed("runs", "--format", "json", "--runs", finished))["runs"]
    assert [run["id"] for run in exported] == sorted(IDS)
    chosen = ["--format", "csv", "--experiment", "own_rate", "--network", "nin_28"]
    header, *rows = printed("runs", *chosen, "--runs", finished).strip().splitlines()
    assert header.startswith("id,")
    assert [line.partition(",")[0] for line in rows] == [i for i in sorted(IDS) if "own_rate" in i]
    assert "own_rate/nin_28-seed0-cpu" in printed("runs", "--runs", finished)


def test_validation_names_a_broken_record_and_fails(tmp_path, finished, capsys, monkeypatch):
    monkeypatch.setattr(validation, "_of_images", lambda run: ())  # few judges are no published set
    assert main(["runs", "--validate", "--runs", str(finished)]) == 0
    assert f"{len(IDS)} valid records" in capsys.readouterr().out
    path = records.record_path(tmp_path, IDS[0])
    path.parent.mkdir()
    path.write_text(records.record_path(finished, IDS[0]).read_text()[:-20])
    assert main(["runs", "--validate", "--runs", str(tmp_path)]) == 2
    assert f"{IDS[0]}.json" in capsys.readouterr().out


def test_a_dry_run_prints_every_run_with_its_estimate(printed):
    for name, plan in experiments.PLANS.items():
        told = printed("record", "--plan", name, "--dry-run")
        assert f"│ {len(plan.runs)} " in told
        assert all(row.name in told for e in plan.experiments for row in e.rows)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["train", "nin_27"], "unknown network 'nin_27'; did you mean 'nin_28'"),
        (["train", "nin_28", "--learning-rate", "nan"], "learning rate is nan"),
        (["train", "nin_28", "--batch-size", "0"], "batch size is 0"),
        (["train", "nin_28", "--batch-size", "70000"], "must be from 1 to 60000"),
        (["train", "nin_28", "--train-images", "60001"], "training images is 60001"),
        (["train", "nin_28", "--device", "tpu"], "unknown device 'tpu'"),
        (["train", "nin_28", "--device", "cuda:64"], "'cuda:64' is not there"),
        (["train", "nin_28", "--name", "a/b"], "cannot be part of a file name"),
        (["train", "nin_28", "--corrects", "no/such"], "'no/such' is no record"),
        (["train", "nin_28", "--runs", "no/such/folder"], "is no folder"),
        (["train", "nin_imagenet"], "nin_imagenet reads 3x224x224"),
        (["record", "--plan", "compcat"], "did you mean 'compact'"),
        (["record", "--experiment", "colapse"], "did you mean 'collapse'"),
        (["record", "--workers", "0", "--allow-dirty"], "'0' is no whole number from 1"),
        (["runs", "--experiment", "none"], "unknown experiment 'none'"),
        (["runs", "--missing", "tiny"], "unknown plan 'tiny'"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(arguments, complaint, tmp_path, capsys):
    if arguments[0] == "train":
        arguments = [*arguments, "--allow-dirty"]
        if "--runs" not in arguments:
            arguments += ["--runs", str(tmp_path)]
    assert main(arguments) == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("error: ")
    assert complaint in last
    assert not list(tmp_path.glob("*/*.json"))


def test_training_writes_a_record_and_refuses_to_make_it_again(tmp_path, capsys):
    short = ["train", "nin_28", "--train-images", "128", "--device", "cpu"]
    short += ["--runs", str(tmp_path), "--allow-dirty"]
    assert main(short) == 0
    assert "record: " in capsys.readouterr().out
    assert recorded(tmp_path) == ["single/nin_28-seed0-cpu"]
    assert main(short) == 2
    assert "exists; choose another --name or --seed" in capsys.readouterr().err
    assert main([*short, "--name", "nin_28_again", "--corrects", "single/nin_28-seed0-cpu"]) == 0
    assert [run.id for run in records.current(records.load(tmp_path))] == [
        "single/nin_28_again-seed0-cpu"
    ]


def test_every_option_of_train_reaches_the_record(tmp_path):
    recipe = Recipe(
        0.02, 2, batch_size=16, optimizer="sgd", momentum=0.8, weight_decay=0.001,
        schedule="constant", precision="bf16", augmentation="flip", standardize=True,
        train_images=64,
    )  # fmt: skip
    options = [
        "--learning-rate=0.02", "--epochs=2", "--batch-size=16", "--optimizer=sgd",
        "--momentum=0.8", "--weight-decay=0.001", "--schedule=constant", "--precision=bf16",
        "--augmentation=flip", "--standardize", "--train-images=64", "--seed=3", "--name=asked",
        "--device=cpu",
    ]  # fmt: skip
    assert main(["train", "nin_28", *options, "--runs", str(tmp_path), "--allow-dirty"]) == 0
    (run,) = records.load(tmp_path)
    assert run.recipe == recipe
    assert run.id == "single/asked-seed3-cpu"
    assert (run.network, run.device.threads) == ("nin_28", 1)


def test_fused_kernels_are_refused_on_a_cpu_before_any_work(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(training, "choose_split", lambda recipe: pytest.fail("work began"))
    asked = ["train", "nin_28", "--kernels", "fused", "--device", "cpu"]
    assert main([*asked, "--runs", str(tmp_path), "--allow-dirty"]) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith("error: fused kernels need a CUDA device, not 'cpu'")
    assert files(tmp_path) == set()


def test_a_network_with_nothing_to_join_is_refused_before_any_work(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(fused, "why_not", lambda device: None)
    monkeypatch.setattr(training, "choose_split", lambda recipe: pytest.fail("work began"))
    asked = ["train", "lenet", "--kernels", "fused", "--device", "cpu"]
    assert main([*asked, "--runs", str(tmp_path), "--allow-dirty"]) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert said == (
        "error: lenet has no layers that fused kernels compute together; take torch kernels"
    )
    assert files(tmp_path) == set()


def test_a_fused_run_has_a_name_of_its_own(tmp_path, capsys, monkeypatch):
    """As it is on a GPU: here nothing but the refusal is a CPU's."""
    monkeypatch.setattr(training, "check_kernels", lambda *_: None)
    path = tmp_path / "single" / "nin_28_fused-seed0-cpu.json"
    records.write_bytes(path, b"{}")
    asked = ["train", "nin_28", "--kernels", "fused", "--device", "cpu"]
    assert main([*asked, "--runs", str(tmp_path), "--allow-dirty"]) == 2
    assert f"{path} exists; choose another --name" in capsys.readouterr().err


FUSED_FIRST = Experiment(
    "two",
    "Both?",
    (
        Row("nin_28_fused", "nin_28", replace(SHORT, kernels="fused"), 1),
        Row("nin_28", "nin_28", SHORT, 1),
    ),
)


def test_a_run_by_kernels_that_cannot_run_here_is_noted_and_the_rest_goes_on(tmp_path):
    plan = replace(PLAN, experiments=(FUSED_FIRST,))
    tally = recording.record(plan, site(tmp_path))
    assert tally.statuses == {
        "two/nin_28_fused-seed0-cpu": Status.FAILED,
        "two/nin_28-seed0-cpu": Status.RECORDED,
    }
    (failure,) = failures.load(tmp_path)
    assert failure.sentence.startswith("fused kernels need a CUDA device")


def test_a_run_whose_maps_are_too_large_for_its_kernels_fails_alone(tmp_path, monkeypatch):
    def train(network, recipe, **options):
        if recipe.kernels is Kernels.FUSED:
            tiles.check(2**31)
        return training.train(network, recipe, **options)

    monkeypatch.setattr(making, "train", train)
    plan = replace(PLAN, experiments=(FUSED_FIRST,))
    tally = recording.record(plan, site(tmp_path))
    assert [*tally.statuses.values()] == [Status.FAILED, Status.RECORDED]
    (failure,) = failures.load(tmp_path)
    assert "fewer than 2**31 values" in failure.sentence


def test_a_row_is_never_continued_by_other_kernels(tmp_path, finished):
    made = records.read(records.record_path(finished, IDS[0]))
    records.write(tmp_path, replace(made, weights_sha256=None))
    (row,) = FIRST.experiments[0].rows
    by_fused = replace(row, recipe=replace(row.recipe, kernels="fused"), seeds=row.seeds + 1)
    plan = replace(FIRST, experiments=(replace(FIRST.experiments[0], rows=(by_fused,)),))
    with pytest.raises(NinlabError, match=f"{IDS[0]} is recorded with torch kernels and cannot"):
        recording.record(plan, site(tmp_path))
    assert recorded(tmp_path) == IDS[:1]


def test_an_unreadable_record_of_a_sweep_is_named_not_guessed(tmp_path, finished):
    source = f"{experiments.SWEEP}/{SWEEP[0].name}-seed0-cpu"
    for row in SWEEP:
        records.write(tmp_path, records.read(records.record_path(
            finished, f"{experiments.SWEEP}/{row.name}-seed0-cpu"
        )))  # fmt: skip
    records.record_path(tmp_path, source).write_text("{")
    with pytest.raises(RecordError, match=SWEEP[0].name):
        recording.record(OWN_RATE, site(tmp_path))
