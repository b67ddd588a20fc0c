"""A record is written whole or not at all, once, and says the same when it is read back."""

import errno
import hashlib
import json
import math
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import textwrap
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean, median

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ninlab
from ninlab import records
from ninlab.commands import validation
from ninlab.errors import NinlabError, RecordError
from ninlab.recipes import (
    MOST_SEED,
    TRAINED,
    TRAINED_KERNELS,
    Augmentation,
    EvaluationSet,
    Recipe,
    Schedule,
)
from ninlab.records import (
    DataSet,
    Device,
    EpochResult,
    LossCurve,
    Outcome,
    Provenance,
    RunRecord,
    Software,
    claims,
)
from ninlab.steps import Kernels, Precision
from ninlab.training import outcome as training_outcome
from tests.processes import python, run
from tests.records import A_RECORD, H100, files, possible, without_one_field

SLUGS = st.from_regex(r"[a-z0-9][a-z0-9_.-]{0,11}", fullmatch=True)
CLASSES = 3

recipes = st.builds(
    Recipe,
    learning_rate=st.floats(0, 1e6),
    epochs=st.integers(1, 4),
    batch_size=st.integers(1, 64),
    weight_decay=st.floats(0, 1),
    schedule=st.sampled_from(Schedule),
    precision=st.sampled_from(Precision),
    augmentation=st.sampled_from(Augmentation),
    standardize=st.booleans(),
    evaluation_set=st.sampled_from(EvaluationSet),
    train_images=st.none() | st.integers(512, 55_000),  # a batch at least, held-out ones left
)
updates = st.one_of(
    st.fixed_dictionaries(
        {"optimizer": st.sampled_from(TRAINED), "weight_decay": st.floats(1e-6, 1)}
    ),
    st.fixed_dictionaries({"momentum": st.floats(0.01, 0.99), "nesterov": st.booleans()}),
)


cores = st.floats(0, 2)
hosts = st.none() | st.builds(
    records.Host,
    processor=st.just("processor (a vendor, family 1)"),
    cpu_capability=st.sampled_from(["AVX2", "AVX512"]),
    kernel_variables=st.dictionaries(st.just("MKL_CBWR"), st.just("AVX2")),
    cores=st.just(2),
    own_cores=cores,
    other_cores=st.none() | cores,
)


@st.composite
def run_records(draw) -> RunRecord:
    """A run that could have been: what `training` computes from other numbers is computed here."""
    recipe = replace(draw(recipes), **draw(updates))
    diverged = draw(st.booleans())
    epochs = draw(st.integers(1, recipe.epochs)) if diverged else recipe.epochs
    train_images = draw(st.integers(recipe.batch_size, 200))
    steps = train_images // recipe.batch_size
    images = steps * recipe.batch_size
    losses = [draw(st.floats(0, 1e3)) for _ in range(epochs) for _ in range(steps)]
    if diverged:
        losses[-draw(st.integers(1, steps))] = draw(st.sampled_from([math.nan, math.inf]))
    rows = st.tuples(*[st.integers(0, 9)] * CLASSES)
    confusion = draw(st.tuples(*[rows] * CLASSES).filter(lambda rows: sum(map(sum, rows))))
    judges = sum(map(sum, confusion))
    right = [draw(st.integers(0, judges)) for _ in range(1, epochs)]
    right.append(sum(row[label] for label, row in enumerate(confusion)))
    seconds = [draw(st.floats(0.001, 1e4)) for _ in range(epochs)]
    on_gpu = draw(st.booleans())
    if on_gpu:  # a CPU has torch's kernels only
        recipe = replace(recipe, kernels=draw(st.sampled_from(TRAINED_KERNELS)))
    peaks = sorted(draw(st.tuples(*[st.integers(1, 10**11)] * 3))) if on_gpu else [None] * 3
    device = Device(f"gpu-{draw(SLUGS)}", "a GPU", 2**34, driver=draw(st.none() | st.just("580.1")))
    results = tuple(
        EpochResult(
            epoch=number + 1,
            train_accuracy=draw(st.integers(0, images)) / images,
            train_loss=records.finite(fmean(losses[number * steps : (number + 1) * steps])),
            test_accuracy=right[number] / judges,
            test_loss=draw(st.none() | st.floats(0, 1e6)),
            dead_classes=draw(st.integers(0, CLASSES)),
            seconds=seconds[number],
            evaluation_seconds=draw(st.floats(0.001, 1e4)),
        )
        for number in range(epochs)
    )
    took = sum(result.seconds + result.evaluation_seconds for result in results)
    experiment, name, seed = draw(SLUGS), draw(SLUGS), draw(st.integers(0, MOST_SEED))
    own = records.run_id(experiment, name, seed, device.slug if on_gpu else "cpu")
    others = run_ids().filter(lambda other: other != own)
    return RunRecord(
        experiment=experiment,
        name=name,
        seed=seed,
        provenance=Provenance("2026-01-01T00:00:00Z", "python -m ninlab record", None, False),
        network="nin_28",
        network_digest="0" * 12,
        input_shape=(1, 28, 28),
        parameters=draw(st.integers(1, 10**9)),
        data_set=DataSet("fashion-mnist", {"a": "b" * 64}, train_images, judges),
        recipe=recipe,
        device=device if on_gpu else Device("cpu", "processor", 2**34, threads=1),
        software=Software("3.11", "2.11", "0.1", *(["13.0", "91900"] if on_gpu else [])),
        execution=draw(st.sampled_from(["eager", "cuda_graph"])) if on_gpu else "eager",
        outcome=training_outcome(losses[-steps:], CLASSES),
        loss=LossCurve.thinned(losses),
        epochs=results,
        confusion=confusion,
        images_per_second=images / median(seconds),
        wall_seconds=took + draw(st.floats(0, 1e6)),
        **dict(zip(PEAKS, peaks, strict=True)),
        learning_rate_from=tuple(draw(st.lists(others, max_size=2, unique=True))),
        host=draw(hosts),
    )


PEAKS = ("peak_requested_bytes", "peak_allocated_bytes", "peak_reserved_bytes")


@st.composite
def run_ids(draw) -> str:
    return records.run_id(draw(SLUGS), draw(SLUGS), draw(st.integers(0, 9)), "cpu")


def in_process(program: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """What a Python of its own makes of the program; ``record`` in it is A_RECORD."""
    preamble = (
        "from tests.records import A_RECORD as record\n"
        "from ninlab import records\nfrom ninlab.errors import RecordError\n"
    )
    return python("-c", preamble + textwrap.dedent(program), *arguments)


# ---------------------------------------------------------------- the schema


@given(run_records())
def test_a_record_reads_back_as_it_was(record):
    text = json.dumps(record.to_json(), allow_nan=False)
    assert RunRecord.from_json(json.loads(text)) == record


def test_a_record_without_one_field_of_its_own_or_of_its_parts_is_refused():
    fields_only = replace(
        A_RECORD,
        data_set=replace(A_RECORD.data_set, sha256={}),
        host=replace(A_RECORD.host, kernel_variables={}),
    )
    content = json.loads(json.dumps(fields_only.to_json()))
    for field, rest in without_one_field(content):
        with pytest.raises(RecordError, match=rf"\b{field}\b"):
            RunRecord.from_json(rest)


def of_version_2(record):
    """The JSON object that a record's file had when nobody asked what machine it came from."""
    content = json.loads(json.dumps(record.to_json()))
    del content["host"]
    return content | {"schema_version": 2}


def of_version_1(record):
    """The JSON object that a record's file had when no run could have other kernels."""
    content = of_version_2(record)
    del content["recipe"]["kernels"]
    return content | {"schema_version": 1}


@given(run_records().filter(lambda record: record.recipe.kernels is Kernels.TORCH))
def test_a_record_from_before_there_were_other_kernels_is_one_of_torchs(record):
    assert RunRecord.from_json(of_version_1(record)) == replace(record, host=None)


@given(run_records())
def test_of_the_host_of_an_older_record_nothing_is_known(record):
    assert RunRecord.from_json(of_version_2(record)) == replace(record, host=None)
    with pytest.raises(RecordError, match="schema_version 2 is not a training run"):
        RunRecord.from_json(of_version_2(record) | {"host": record.to_json()["host"]})


@pytest.mark.parametrize("field", ["own_cores", "other_cores"])
def test_no_more_cores_are_busy_than_there_are(field):
    busy = replace(A_RECORD, host=replace(A_RECORD.host, **{field: 2.5}))
    with pytest.raises(RecordError, match=rf"host.{field} is 2.5, more than the 2 of host.cores"):
        RunRecord.from_json(busy.to_json())


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"schema_version": 2}, "recipe.kernels is missing"),
        ({"schema_version": True}, "schema_version is true"),
        ({"schema_version": 1.0}, "schema_version is 1.0"),
        ({"recipe": A_RECORD.to_json()["recipe"]}, "schema_version 1 is not a training run"),
        ({"recipe": "plain"}, "recipe is 'plain', but must be an object"),
    ],
)
def test_a_version_is_taken_at_its_word(change, complaint):
    with pytest.raises(RecordError, match=complaint):
        RunRecord.from_json(of_version_1(A_RECORD) | change)


def test_no_run_of_a_cpu_is_recorded_as_one_of_fused_kernels():
    fused = replace(A_RECORD, recipe=replace(A_RECORD.recipe, kernels=Kernels.FUSED))
    with pytest.raises(RecordError, match=r"recipe.kernels is fused, but device.slug is a CPU's"):
        RunRecord.from_json(fused.to_json())
    RunRecord.from_json(possible(replace(fused, device=H100)).to_json())


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"schema_version": 99}, "schema_version 99"),
        ({"name": "../escape"}, "name is '../escape', but must be lower-case letters"),
        ({"outcome": "succeeded"}, "outcome is 'succeeded', but must be 'finished', 'diverged' or"),
        ({"seed": 7}, "the fields say 'collapse/nin_28-seed7-cpu'"),
        ({"seed": -3, "id": "collapse/nin_28-seed-3-cpu"}, "seed is -3, but must be at least 0"),
        ({"epochs": []}, "epochs of .* holds 0 epochs"),
        ({"confusion": [[1, 2], [3, 4]]}, "confusion of .* does not add up"),
        ({"unheard_of": 1}, "unheard_of is no field"),
    ],
)
def test_a_record_that_contradicts_itself_or_the_schema_is_refused(change, complaint):
    with pytest.raises(RecordError, match=complaint):
        RunRecord.from_json(A_RECORD.to_json() | change)


def test_only_a_diverged_run_may_end_early():
    recipe = replace(A_RECORD.recipe, epochs=3)
    replace(A_RECORD, recipe=recipe, outcome=Outcome.DIVERGED)
    with pytest.raises(RecordError, match="stopped early"):
        replace(A_RECORD, recipe=recipe)


@given(st.lists(st.floats(0, 10), min_size=1, max_size=400), st.integers(1, 50))
def test_a_thinned_curve_keeps_the_mean_of_every_whole_window(losses, points):
    curve = LossCurve.thinned(losses, points)
    assert len(curve.values) <= points
    assert (len(curve.values) - 1) * curve.every < len(losses) <= len(curve.values) * curve.every
    for index in range(len(losses) // curve.every):
        window = losses[index * curve.every : (index + 1) * curve.every]
        mean = sum(window) / len(window)
        # six digits are kept: half a unit in the sixth
        assert curve.values[index] == pytest.approx(mean, rel=5e-6, abs=1e-12)


def test_a_loss_that_is_not_finite_becomes_null():
    assert LossCurve.thinned([1.0, math.nan, math.inf]).values == (1.0, None, None)


# ---------------------------------------------------------------- recipes


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"learning_rate": math.nan}, "learning rate is nan"),
        ({"learning_rate": math.inf}, "learning rate is inf"),
        ({"learning_rate": -0.1}, "learning rate is -0.1"),
        ({"epochs": 0}, "epochs is 0"),
        ({"batch_size": 0}, "batch size is 0"),
        ({"momentum": 1.0}, "momentum is 1.0"),
        ({"momentum": -0.1}, "momentum is -0.1"),
        ({"weight_decay": -1e-4}, "weight decay is -0.0001"),
        ({"nesterov": True}, "Nesterov"),
        ({"optimizer": "sdg"}, "did you mean 'sgd'"),
        ({"precision": "fp16"}, "known: fp32, tf32, bf16"),
        ({"train_images": 0}, "training images is 0"),
    ],
)
def test_a_recipe_out_of_range_says_what_is_in_range(fields, complaint):
    with pytest.raises(NinlabError, match=complaint):
        Recipe(**{"learning_rate": 0.1, "epochs": 1} | fields)


@given(st.floats(1e-3, 1e3), st.integers(1, 1000))
def test_a_constant_rate_is_the_recipes_at_every_step(rate, steps):
    recipe = Recipe(rate, 1)
    assert {recipe.learning_rate_at(step, steps) for step in range(steps)} == {rate}


@given(st.floats(1e-3, 1e3), st.integers(1, 1000))
def test_one_cycle_climbs_to_its_peak_in_a_fifth_of_the_run_and_falls_to_nothing(peak, steps):
    recipe = Recipe(peak, 1, schedule=Schedule.ONE_CYCLE)
    middles = [(step + 0.5) / steps for step in range(steps)]  # a step has the rate of its middle
    expected = np.interp(middles, (0, 0.2, 1), (0, peak, 0))
    rates = [recipe.learning_rate_at(step, steps) for step in range(steps)]
    # The two float64 ways along a straight line differ in the last digits.
    assert rates == pytest.approx(expected, rel=1e-9)


# ---------------------------------------------------------------- writing and reading


def test_a_record_lies_where_its_id_says_and_all_may_read_it(tmp_path):
    path = records.write(tmp_path, A_RECORD)
    assert path == tmp_path / "collapse/nin_28-seed0-cpu.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert records.read(path) == A_RECORD
    assert records.load(tmp_path) == [A_RECORD]
    assert files(tmp_path) == {"collapse/nin_28-seed0-cpu.json"}


def test_records_come_in_the_order_of_their_ids_however_their_files_are_found(tmp_path):
    paths = [records.write(tmp_path, replace(A_RECORD, seed=seed)) for seed in range(4)]
    for found in (paths, paths[::-1]):
        runs = records.load_kind(records.TRAINING, RunRecord.from_json, found)
        assert [run.seed for run in runs] == [0, 1, 2, 3]


def test_a_record_is_never_overwritten(tmp_path):
    path = records.write(tmp_path, A_RECORD)
    before = path.read_bytes()
    with pytest.raises(RecordError, match="never overwritten"):
        records.write(tmp_path, replace(A_RECORD, wall_seconds=6.0))
    assert path.read_bytes() == before
    assert len(files(tmp_path)) == 1


def test_without_hard_links_a_record_is_written_and_never_overwritten_all_the_same(
    tmp_path, monkeypatch
):
    def refuse(*_):
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", refuse)
    test_a_record_is_never_overwritten(tmp_path)
    assert records.load(tmp_path) == [A_RECORD]


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"wall_seconds": math.nan}, "wall_seconds is nan, but must be"),
        ({"device": replace(A_RECORD.device, memory_bytes=0)}, "device.memory_bytes is 0"),
        ({"parameters": 0}, "parameters is 0, but must be at least 1"),
        ({"outcome": Outcome.STUCK}, "outcome is stuck"),
    ],
)
def test_what_could_not_be_read_again_is_not_written(change, complaint, tmp_path):
    with pytest.raises(RecordError, match=f"{A_RECORD.id}.json is not written.*{complaint}"):
        records.write(tmp_path, replace(A_RECORD, **change))
    assert files(tmp_path) == set()


def test_an_unreadable_record_is_named(tmp_path):
    path = records.write(tmp_path, A_RECORD)
    whole = path.read_text()
    for text in (whole[: len(whole) // 2], "", "[]", "\0"):
        path.write_text(text)
        with pytest.raises(RecordError, match=re.escape(str(path))):
            records.read(path)
        assert [f"{A_RECORD.id}.json" in said for said in records.problems(tmp_path)] == [True]


def test_a_record_in_the_wrong_place_is_a_problem(tmp_path):
    path = records.write(tmp_path, A_RECORD)
    path.rename(path.with_name("other-seed0-cpu.json"))
    assert "belongs in" in "".join(records.problems(tmp_path))


def test_records_that_correct_each_other_or_no_run_are_a_problem(tmp_path):
    other = replace(A_RECORD, name="nin_28_again", corrects=A_RECORD.id)
    records.write(tmp_path, other)
    records.write(tmp_path, replace(A_RECORD, corrects=other.id))
    assert "".join(records.problems(tmp_path)).count("leads back to the record itself") == 2


def test_loading_and_checking_look_at_the_same_files(tmp_path):
    records.write(tmp_path, A_RECORD)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / A_RECORD.experiment).rename(tmp_path / "elsewhere" / A_RECORD.experiment)
    folder = tmp_path / "runs"
    (folder / "probes").mkdir(parents=True)
    (folder / A_RECORD.experiment).symlink_to(tmp_path / "elsewhere" / A_RECORD.experiment)
    for unread in ("probes/lines.json", f"{A_RECORD.experiment}/._hidden.json"):
        (folder / unread).write_text("[1]")
    assert records.load(folder) == [A_RECORD]
    assert list(records.problems(folder)) == []
    (folder / A_RECORD.experiment / "misspelt.json").write_text('{"kind": "trainin"}')
    (problem,) = records.problems(folder)
    assert "misspelt.json: kind is" in problem


def test_a_correction_replaces_its_record_in_what_is_current(tmp_path):
    correction = replace(A_RECORD, name="nin_28_again", corrects=A_RECORD.id)
    assert records.current([A_RECORD, correction]) == [correction]
    records.write(tmp_path, correction)
    assert "which is no record" in "".join(records.problems(tmp_path))
    records.write(tmp_path, A_RECORD)
    assert not list(records.problems(tmp_path))


def test_kept_weights_that_are_missing_or_others_are_a_problem(tmp_path):
    kept = b"weights"
    records.write(tmp_path, replace(A_RECORD, weights_sha256=hashlib.sha256(kept).hexdigest()))
    assert "weights_sha256 is of weights that cannot be read" in "".join(records.problems(tmp_path))
    records.write_bytes(records.weights_path(tmp_path, A_RECORD.id), b"others")
    assert "weights_sha256 is not the sum of" in "".join(records.problems(tmp_path))
    records.write_bytes(records.weights_path(tmp_path, A_RECORD.id), kept)
    assert not list(records.problems(tmp_path))


@dataclass(frozen=True)
class StepRecord:
    """A record of another kind than a training run."""

    network: str
    seconds: tuple[float, ...]
    kind: str = "step"

    @property
    def id(self) -> str:
        return f"steps/{self.network}-h100"

    @classmethod
    def from_json(cls, content):
        return records.from_fields(cls, content)


STEP = {"step": StepRecord.from_json}


def test_records_of_another_kind_are_passed_over_by_whoever_asks_for_one(tmp_path):
    step = StepRecord("nin", (0.1, 0.2))
    content = {"id": step.id, **asdict(step)}
    records.write(tmp_path, A_RECORD)
    records.write_json_once(records.record_path(tmp_path, step.id), content)
    assert records.load(tmp_path) == [A_RECORD]
    assert records.kinds(tmp_path) == {"training": 1, "step": 1}
    steps = records.load_kind("step", StepRecord.from_json, tmp_path.glob("*/*.json"))
    assert steps == [step]
    assert not list(records.problems(tmp_path, STEP))
    records.write_json_once(records.record_path(tmp_path, "steps/wrong"), content)
    (problem,) = records.problems(tmp_path, STEP)
    assert problem.startswith("steps/wrong.json holds")
    assert "belongs in steps/nin-h100.json" in problem


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"seconds": None}, "seconds is null, but must be an array"),
        ({"seconds": [0.1, "0.2"]}, r"seconds\[1\] is '0.2', but must be a number"),
        ({"id": "steps/alexnet-h100"}, "id is 'steps/alexnet-h100', but the fields say"),
        ({"unit": "s"}, "unit is no field"),
    ],
)
def test_an_object_that_does_not_fit_its_schema_is_refused(change, complaint):
    content = {"id": "steps/nin-h100", "network": "nin", "seconds": [0.1], "kind": "step"}
    assert StepRecord.from_json(content) == StepRecord("nin", (0.1,))
    with pytest.raises(RecordError, match=complaint):
        StepRecord.from_json(content | change)
    for name in content:
        with pytest.raises(RecordError, match=name):
            StepRecord.from_json({key: content[key] for key in content if key != name})


@pytest.mark.parametrize("content", [[], [1], [["id", 1]], None, 3, "text", True])
def test_what_is_no_object_is_no_record_of_any_kind(content):
    for reader in (RunRecord.from_json, *validation.readers().values()):
        with pytest.raises(RecordError, match=r"^it is .*, but must be an object"):
            reader(content)


def test_the_books_own_records_are_valid_and_from_clean_commits():
    folder = records.runs_folder()
    assert not list(validation.problems(folder))
    runs = records.load(folder)
    assert runs
    assert all(run.provenance.clean_tree and run.provenance.commit for run in runs)


# ---------------------------------------------------------------- a folder


@pytest.mark.parametrize(
    ("name", "data", "complaint"),
    [
        ("collapse/other.json", b'{"kind": "trainin"}', "kind is 'trainin', but must be one of"),
        ("collapse/other.json", b'{"kind": ["training"]}', r"kind is \['training'\]"),
        ("collapse/other.json", b"{}", "kind is missing"),
        ("beside.json", b"{}", "lies where nobody reads it"),
        ("a/deep/record.json", b"{}", "lies where nobody reads it"),
        ("collapse/record.json.2", b"{}", "neither a record"),
        ("collapse/record.safetensors", b"", "weights of no record"),
        ("collapse/Nin_28-seed0-cpu.json", None, "it belongs in collapse/nin_28-seed0-cpu.json"),
        ("collapse/folder.json/x", b"{}", "Is a directory"),
    ],
)
def test_what_lies_wrong_in_a_runs_folder_is_named(name, data, complaint, tmp_path):
    record = records.write(tmp_path, A_RECORD)
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(record.read_bytes() if data is None else data)
    (found,) = records.problems(tmp_path)
    assert re.search(rf"^{name.removesuffix('/x')}.*{complaint}", found)


def test_a_file_called_by_what_cannot_be_printed_is_named_in_one_line(tmp_path):
    (tmp_path / "collapse").mkdir()
    for name in (b"a\n\x1b[31m.json", b"\xff.json"):
        (tmp_path / "collapse" / os.fsdecode(name)).write_text("{}")
    found = sorted(records.problems(tmp_path))
    assert [problem.partition(": ")[0] for problem in found] == [
        r"collapse/\udcff.json",
        r"collapse/a\n\x1b[31m.json",
    ]


@pytest.mark.parametrize("probe", ["race.jsonl", "starts.json", "readouts.json"])
def test_a_probe_that_pages_read_is_validated_with_the_records(tmp_path, probe):
    book, copy = records.runs_folder() / "probes" / probe, tmp_path / "probes" / probe
    copy.parent.mkdir()
    copy.write_bytes(book.read_bytes())
    assert list(validation.problems(tmp_path)) == []
    copy.write_bytes(book.read_bytes().replace(b'"own_cores"', b'"own_dogs"', 1))
    (problem,) = validation.problems(tmp_path)
    assert problem.startswith(f"probes/{probe}")
    assert "own_" in problem


def test_hidden_files_probes_and_words_on_the_folder_are_no_problem(tmp_path):
    records.write(tmp_path, A_RECORD)
    for name in (".claims/a.lock", "collapse/.x.json.tmp", "probes/a/b.json", "README.md"):
        records.write_bytes(tmp_path / name, b"")
    assert not list(records.problems(tmp_path))


def test_a_pipe_is_named_and_not_waited_for(tmp_path):
    (tmp_path / "collapse").mkdir()
    os.mkfifo(tmp_path / "collapse/pipe.json")
    (problem,) = records.problems(tmp_path)
    assert problem.endswith("pipe.json: it is no readable record: it is no regular file")


def test_a_link_to_nothing_is_named(tmp_path):
    (tmp_path / "collapse").mkdir()
    (tmp_path / "collapse/gone.json").symlink_to(tmp_path / "nothing.json")
    (problem,) = records.problems(tmp_path)
    assert problem.startswith("collapse/gone.json is a link to nothing")


def test_what_killed_writers_left_is_found_and_what_living_ones_write_is_not(tmp_path):
    host, dead = socket.gethostname(), subprocess.Popen(["true"])
    dead.wait()
    for writer in (f"{host}.{os.getpid()}", f"{host}.{dead.pid}", f"elsewhere.{os.getpid()}"):
        (tmp_path / f".a.json.{writer}.tmp").write_text("")
    found = [path.name for path in records.leftovers(tmp_path)]
    assert found == [f".a.json.elsewhere.{os.getpid()}.tmp", f".a.json.{host}.{dead.pid}.tmp"]


def test_a_frame_has_a_row_a_run():
    assert records.to_frame([A_RECORD]).loc[A_RECORD.id, "test_accuracy"] == 0.6


def test_a_frame_of_no_run_has_the_columns_of_one_that_has():
    empty = records.to_frame([])
    assert list(empty.columns) == list(records.to_frame([A_RECORD]).columns)
    assert len(empty) == 0


# ---------------------------------------------------------------- faults


def test_killed_between_write_and_link_leaves_no_record_and_no_obstacle(tmp_path):
    program = """
        import os, signal, sys
        from pathlib import Path
        os.link = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
        records.write(Path(sys.argv[1]), record)
    """
    assert in_process(program, tmp_path).returncode == -signal.SIGKILL
    assert records.load(tmp_path) == []
    (left,) = files(tmp_path)
    assert left.endswith(".tmp")  # whole bytes, but no name that anybody reads
    records.write(tmp_path, A_RECORD)
    assert records.load(tmp_path) == [A_RECORD]


def test_a_disk_that_refuses_bytes_leaves_nothing_behind(tmp_path):
    program = """
        import resource, sys
        from pathlib import Path
        resource.setrlimit(resource.RLIMIT_FSIZE, (200, 200))
        try:
            records.write(Path(sys.argv[1]), record)
        except RecordError as error:
            sys.exit(str(error))
    """
    ended = in_process(program, tmp_path)
    assert ended.returncode == 1
    assert "could not be written" in ended.stderr
    assert files(tmp_path) == set()


def private_mount(command: str, folder: Path, program: str) -> subprocess.CompletedProcess[str]:
    """What the program does where the shell command has mounted something on folder."""
    probe = subprocess.run(["unshare", "-rm", "true"], capture_output=True, check=False)
    if probe.returncode:
        pytest.skip("needs unprivileged mount namespaces")
    preamble = (
        "import sys\nfrom pathlib import Path\nfrom tests.records import A_RECORD\n"
        "from ninlab.errors import RecordError\n"
    )
    script = f'{command} && exec "$0" "$@"'
    return subprocess.run(
        ["unshare", "-rm", "sh", "-c", script, sys.executable, "-c",
         preamble + textwrap.dedent(program), str(folder)],
        capture_output=True, text=True, check=False, cwd=Path(__file__).parent.parent,
    )  # fmt: skip


def test_a_full_disk_is_said_and_recording_goes_on_when_there_is_room(tmp_path):
    program = """
        from ninlab import records
        folder = Path(sys.argv[1])
        filler = folder / "filler"
        try:
            with open(filler, "wb") as file:
                file.write(bytes(2**20))
        except OSError:
            pass
        try:
            records.write(folder, A_RECORD)
        except RecordError as error:
            print(error)
        assert not list(folder.rglob(".*.tmp")) and not list(folder.rglob("*.json"))
        filler.unlink()
        records.write(folder, A_RECORD)
        assert records.load(folder) == [A_RECORD]
    """
    ended = private_mount(f"mount -t tmpfs -o size=64k tmpfs {tmp_path}", tmp_path, program)
    assert ended.returncode == 0, ended.stderr
    assert "No space left on device; no file was left behind" in ended.stdout


def test_a_read_only_folder_is_said_before_a_run_is_made(tmp_path):
    program = """
        from ninlab import records
        for attempt in (lambda f: records.write(f, A_RECORD), claim):
            try:
                attempt(Path(sys.argv[1]))
            except RecordError as error:
                print(error)
    """
    claim = "def claim(folder):\n    with records.claim(folder, 'a/b'):\n        pass\n"
    ended = private_mount(
        f"mount -t tmpfs -o ro tmpfs {tmp_path}", tmp_path, claim + textwrap.dedent(program)
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.count("Read-only file system") == 2


def test_whether_a_file_can_be_written_is_known_before_it_is_made(tmp_path):
    path = tmp_path / "single" / "nin-seed0-cpu.json"
    records.check_can_write(path)
    assert files(tmp_path) == set()
    path.mkdir()
    with pytest.raises(RecordError, match="is a folder"):
        records.check_can_write(path)
    (tmp_path / "taken").write_text("")
    with pytest.raises(RecordError, match="could not be written"):
        records.check_can_write(tmp_path / "taken" / "nin.json")


# ---------------------------------------------------------------- claims


def test_a_claimed_run_is_not_claimed_again_until_it_is_released(tmp_path):
    with records.claim(tmp_path, "collapse/nin-seed0-cpu") as first:
        assert first
        assert list(records.claim_holders(tmp_path)) == ["collapse/nin-seed0-cpu"]
        assert str(os.getpid()) in records.claim_holders(tmp_path)["collapse/nin-seed0-cpu"]
        with records.claim(tmp_path, "collapse/nin-seed0-cpu") as second:
            assert not second
        with records.claim(tmp_path, "collapse/nin-seed1-cpu") as other:
            assert other
    (lock,) = (tmp_path / ".claims").glob("*seed0*")
    assert lock.read_text() == ""
    with records.claim(tmp_path, "collapse/nin-seed0-cpu") as again:
        assert again
    assert records.claim_holders(tmp_path) == {}


def test_who_asks_for_the_holders_of_claims_takes_none(tmp_path, monkeypatch):
    with records.claim(tmp_path, "collapse/nin-seed0-cpu"):
        pass
    path = tmp_path / ".claims" / "collapse--nin-seed0-cpu.lock"
    poller = path.open()
    claims._lock(poller)
    monkeypatch.setattr(claims.time, "sleep", lambda seconds: poller.close())  # it looked
    with records.claim(tmp_path, "collapse/nin-seed0-cpu") as mine:
        assert mine


def test_a_claim_dies_with_its_process(tmp_path):
    program = """
        import os, signal, sys
        from pathlib import Path
        with records.claim(Path(sys.argv[1]), "collapse/nin-seed0-cpu") as mine:
            assert mine
            os.kill(os.getpid(), signal.SIGKILL)
    """
    assert in_process(program, tmp_path).returncode == -signal.SIGKILL
    with records.claim(tmp_path, "collapse/nin-seed0-cpu") as mine:
        assert mine
        (holder,) = records.claim_holders(tmp_path).values()
        assert holder == f"process {os.getpid()} on {socket.gethostname()}"  # the dead one is gone


# ---------------------------------------------------------------- provenance


def test_a_record_names_the_second_of_utc_at_which_it_was_made_and_its_command():
    before = datetime.now(UTC).replace(microsecond=0)
    made = records.provenance("python -m ninlab record")
    assert before <= datetime.strptime(made.utc, "%Y-%m-%dT%H:%M:%S%z") <= datetime.now(UTC)
    assert made.utc.endswith("Z")
    assert made.command == "python -m ninlab record"


@pytest.fixture
def checkout(tmp_path) -> Path:
    """A committed copy of the package in a repository that ignores what this one ignores."""
    package = Path(ninlab.__file__).parent
    modules = shutil.ignore_patterns("__pycache__", "tables", "static")
    shutil.copytree(package, tmp_path / "ninlab", ignore=modules)
    (tmp_path / ".gitignore").write_bytes((package.parent / ".gitignore").read_bytes())
    identity = ("-c", "user.name=a", "-c", "user.email=a@b")
    for arguments in (("init", "-q"), ("add", "."), (*identity, "commit", "-q", "-m", "all")):
        subprocess.run(["git", "-C", tmp_path, *arguments], check=True)
    return tmp_path


def provenance_of(checkout: Path) -> tuple[str, bool]:
    program = (
        "from ninlab import records; p = records.provenance('x'); print(p.commit, p.clean_tree)"
    )
    commit, clean = run(program, cwd=checkout).split()
    return commit, clean == "True"


def test_a_tree_is_clean_until_something_but_runs_differs(checkout):
    commit, clean = provenance_of(checkout)
    assert re.fullmatch("[0-9a-f]{40}", commit)
    (checkout / "runs").mkdir()
    (checkout / "runs/new.json").write_text("{}")
    assert clean
    assert provenance_of(checkout) == (commit, True)
    (checkout / "ninlab/new.py").write_text("")
    assert provenance_of(checkout) == (commit, False)


def test_asking_for_the_commit_writes_nothing_that_a_killed_recorder_could_leave(checkout):
    """A lock of git's that is left behind stops every later command."""
    index = checkout / ".git" / "index"
    os.utime(checkout / "ninlab" / "recipes.py", (0, 0))  # which a plain status would note there
    before = index.read_bytes()
    assert provenance_of(checkout)[1]
    assert index.read_bytes() == before


def test_outside_a_checkout_there_is_no_commit_to_name(tmp_path, checkout):
    (checkout / ".git").rename(tmp_path / "elsewhere")
    assert provenance_of(checkout) == ("None", False)
