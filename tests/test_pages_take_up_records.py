"""The pages show a GPU's measurements, its training runs and the other tools' answers as soon as
records of them exist: nobody edits a chapter for it.

The plans are made up here as a GPU might leave them: not begun, begun with one network or one
experiment, at the exercises without the rivals, complete, and made by two GPUs. Endings are drawn
by lot, so that nothing that the compact runs show need hold for them. A chapter has to run through,
assertions included: its sentences must not lean on which runs there are. Cells that work long on
this machine and read no record of a GPU are left out, and so are the cells that need their results.

What a figure draws is what the page asserts beside it: both are found by watching which runs a cell
reads. Known limit: a figure whose numbers an earlier cell has read is not watched.
"""

from __future__ import annotations

import ast
import hashlib
import json
import math
import random
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import pandas as pd
import plotly.graph_objects as go
import pytest
from IPython.display import Markdown
from safetensors.torch import save

from ninlab import checks, failures, figures, formulas, peers, predictions, races, records
from ninlab.architectures import architecture
from ninlab.commands import validation
from ninlab.devices import device
from ninlab.experiments import PLANS, PlannedRun, ready
from ninlab.liveness import peak_bytes, timeline
from ninlab.measurement import (
    Allocator,
    Case,
    CaseOutcome,
    Measured,
    MemoryRecord,
    load_records,
)
from ninlab.networks import build
from ninlab.recipes import HELD_OUT_IMAGES, EvaluationSet, Recipe
from ninlab.records import (
    DataSet,
    Device,
    EpochResult,
    LossCurve,
    Provenance,
    RunRecord,
    Software,
)
from ninlab.roofline import TimeModel
from ninlab.steps import Kernels
from tests import book
from tests.records import A_RECORD, FASHION_MNIST, NOBODY, lay_book
from tools import set_repository

pytestmark = pytest.mark.slow

NETWORKS = ("nin", "alexnet", "vgg11_quarter", "vgg11", "googlenet")
GPU = Device("nvidia-h100-80gb-hbm3", "NVIDIA H100 80GB HBM3", 80 * 10**9)
STEPS = 2 * len(NETWORKS) + 1
SECONDS = 0.5  # longer than any bound of the networks above
SOFTWARE = Software("3.12.0", "2.11.0+cu130", "0.1.0", "13.0", "91900")
Shown = Callable[[str], dict[str, Any]]
OWN_WORK = {
    "03_training": {"train-by-hand", "train-by-library"},
    "04_why_nin_collapses": {"starts", "table-starts"},
    "05_how_many_1x1": {"field", "check-field"},
    "06_global_average_pooling": {"shifts", "stride-check"},
    "08_peak_memory": {"measure", "figure-measured", "check-exercise-inplace"},
    "09_bottleneck": {"readable-table"},
    "11_what_nin_sees": {"patches", "canvas-answers"},
    "14_fusion": {"figure-kept", "measure-difference"},
}
"""The cells of a chapter that measure something themselves and take their time."""
EXERCISES = (
    "05_how_many_1x1",
    "06_global_average_pooling",
    "09_bottleneck",
    "10_nin_family",
)
TRAINING = ("index", "03_training", "04_why_nin_collapses", *EXERCISES)
WITHOUT_RIVALS = ("collapse", "one_by_one", "window", "head", "bottleneck", "family")
"""What the first quarter of an hour of a GPU was spent on, by experiment; seed 0 of each."""
SECOND_GPU = replace(GPU, slug="nvidia-a100-sxm4-40gb", name="NVIDIA A100-SXM4-40GB")


# ---------------------------------------------------------------- what a GPU might leave


def trained(run: PlannedRun, recipe: Recipe) -> RunRecord:
    """A run of the plan that ends somewhere between guessing and 95 %, got stuck or diverged."""
    lot = random.Random(run.id(GPU.slug))
    fate = lot.random()
    stuck, diverged = fate < 0.1, fate > 0.9
    end = 0.1 if stuck or diverged else lot.uniform(0.6, 0.95)
    outcome = records.Outcome.FINISHED
    if stuck or diverged:
        outcome = records.Outcome.STUCK if stuck else records.Outcome.DIVERGED
    every, steps = recipe.steps_an_epoch, recipe.steps
    images = every * recipe.batch_size
    losses = [2.303 if stuck else 2.3 - 2 * end * step / steps for step in range(steps)]
    held_out = recipe.evaluation_set is EvaluationSet.HELD_OUT
    of_a_class = (HELD_OUT_IMAGES if held_out else 10_000) // 10
    right = round(end * of_a_class)
    network = architecture(run.row.network)
    epochs = tuple(
        EpochResult(
            epoch=epoch,
            train_accuracy=round(end * epoch / recipe.epochs * images) / images,
            train_loss=records.finite(fmean(losses[(epoch - 1) * every : epoch * every])),
            test_accuracy=round(right * epoch / recipe.epochs) / of_a_class,
            test_loss=losses[epoch * every - 1],
            dead_classes=9 if stuck else lot.randrange(3),
            seconds=10.0,
            evaluation_seconds=1.0,
        )
        for epoch in range(1, recipe.epochs + 1)
    )
    if diverged:
        losses = [math.nan] * every
        right_at_once = right / of_a_class
        epochs = (replace(epochs[0], train_loss=None, test_accuracy=right_at_once, test_loss=None),)
    return RunRecord(
        experiment=run.experiment,
        name=run.row.name,
        seed=run.seed,
        provenance=Provenance("2026-12-24T12:00:00Z", "python -m ninlab record", "0" * 40, True),
        network=network.name,
        network_digest=network.digest,
        input_shape=network.input_shape,
        parameters=formulas.parameters(network),
        data_set=DataSet("fashion-mnist", FASHION_MNIST.sha256, recipe.images, 10 * of_a_class),
        recipe=recipe,
        device=GPU,
        software=SOFTWARE,
        execution="cuda_graph",
        outcome=outcome,
        loss=LossCurve.thinned(losses),
        epochs=epochs,
        confusion=tuple(
            tuple(
                right if i == j else of_a_class - right if i == (j + 1) % 10 else 0
                for j in range(10)
            )
            for i in range(10)
        ),
        images_per_second=images / 10.0,  # as the seconds say
        wall_seconds=11.0 * recipe.epochs,
        peak_requested_bytes=10**9,
        peak_allocated_bytes=10**9,
        peak_reserved_bytes=2 * 10**9,
        learning_rate_from=run.rate_sources(GPU.slug),
    )


@cache
def all_trained(plan: str) -> tuple[RunRecord, ...]:
    """A record of every run of a plan, in the plan's order."""
    made: dict[str, RunRecord] = {}
    for run in PLANS[plan].runs:
        known = ready(run, made, GPU.slug)
        assert known is not None, "the plan makes a sweep before the runs that need it"
        made[run.id(GPU.slug)] = trained(run, known.recipe)
    return tuple(made.values())


def recorded_at(state: str) -> list[RunRecord]:
    """The runs of the plans that GPUs have recorded at that state."""
    full = all_trained("full")
    first = [run for run in full if run.seed == 0 and run.experiment in WITHOUT_RIVALS]
    match state:
        case "not begun":
            return []
        case "one network":
            return [run for run in first if run.name == "nin_fixed"]
        case "one experiment":
            return [run for run in first if run.experiment == "collapse"]
        case "without rivals":
            return first
        case "both plans":
            return [*full, *all_trained("compact")]
        case "two GPUs":  # the second has more of some questions, and no start of others
            more = [
                replace(run, device=SECOND_GPU)
                for run in full
                if run.experiment in ("head", "window", "family")
                or (run.name == "nin_fixed" and run.seed == 0 and run.experiment == "collapse")
            ]
            return [*first, *more]
    raise ValueError(state)


STATES = ("not begun", "one network", "one experiment", "without rivals", "both plans", "two GPUs")


@cache
def measured_step(network: str, precision: str, batch_size: int = 128) -> MemoryRecord:
    """A step on a GPU whose peaks are 2 % above what is predicted now, and not what once was."""
    case = Case(network, architecture(network).input_shape, batch_size, precision, "sgd")
    peaks = {
        name: peak * 102 // 100
        for name, peak in predictions.predicted_peaks(
            case, Allocator.DEFAULT, GPU, torch_version=SOFTWARE.torch
        ).items()
    }
    return MemoryRecord(
        case=case,
        network_digest=architecture(network).digest,
        allocator=Allocator.DEFAULT,
        measured=Measured(
            CaseOutcome.FINISHED,
            **peaks,
            overhead_bytes=10**8,
            step_seconds=(SECONDS, SECONDS, SECONDS),
            timed_steps=20,
        ),
        predicted=dict.fromkeys(peaks, 1),
        provenance=Provenance("2026-12-24T12:00:00Z", "python -m ninlab measure", "0" * 40, True),
        device=GPU,
        software=SOFTWARE,
    )


def comparison() -> dict[str, Any]:
    """A comparison of two tools, one of them right and one a quarter too low."""
    true = peak_bytes(timeline(architecture("nin")), 8)
    asked = {"network": "nin", "batch_size": 8}
    took = {"start_up_seconds": 1.0, "first_seconds": 1.0, "again_seconds": None}
    told = {**asked, **took, "macs": None, "saved_bytes": None, "resident_growth_bytes": 0}
    return {
        "id": "benchmarks/peers-2026-12-24-cpu",
        "kind": peers.KIND,
        "schema_version": peers.SCHEMA_VERSION,
        "provenance": asdict(replace(NOBODY, utc="2026-12-24T12:00:00Z")),
        "device": asdict(A_RECORD.device),
        "software": asdict(replace(A_RECORD.software, torch="2.15.0")),
        "peers": {},
        "tools": {"right": "the right one", "low": "the low one", "silent": "the silent one"},
        "steps": [{**asked, "tensor_peak_bytes": true, "requested_peak_bytes": true}],
        "answers": [
            {**told, "tool": "right", "peak_bytes": true},
            {**told, "tool": "low", "peak_bytes": true * 3 // 4},
            {**asked, "tool": "silent", "error": "no idea"},
        ],
    }


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The book's folder of runs for the time of a test: its records, and a GPU's steps."""
    steps = [measured_step(n, precision) for n in NETWORKS for precision in ("fp32", "tf32")]
    steps.append(measured_step("nin", "tf32", 8))
    fill(tmp_path, [step.to_json() for step in steps] + [comparison()])
    lay_book(monkeypatch, tmp_path)
    return tmp_path


def fill(folder: Path, contents: Sequence[dict[str, Any]]) -> None:
    """Put what the book has measured on a CPU into a folder, and these records beside it."""
    book = records.runs_folder()
    for path in [*book.glob("*/*-cpu*"), book / races.FILE]:
        copy = folder / path.relative_to(book)
        copy.parent.mkdir(exist_ok=True)
        if copy != path:  # a folder may be filled a second time
            copy.symlink_to(path)
    for content in contents:
        path = records.record_path(folder, content["id"])
        path.parent.mkdir(exist_ok=True)
        path.unlink(missing_ok=True)  # writing through a link would change the book's own record
        path.write_text(json.dumps(content))


# ---------------------------------------------------------------- what a page makes of it


class Read(NamedTuple):
    """A run that a cell has read."""

    id: str
    scale: tuple[int, str]  # side of an image, slug of the device


@dataclass(frozen=True)
class Page:
    """What a chapter shows and reads, by the id of the cell, in the order of the cells."""

    shown: dict[str, Any]  # what the last line gives, where there is one
    read: dict[str, frozenset[Read]]  # runs whose results the cell read
    asserting: frozenset[str]
    hidden: frozenset[str]

    def drawn(self) -> dict[str, frozenset[Read]]:
        """The runs that each figure draws, of the figures that read runs themselves."""
        return {
            cell: self.read[cell]
            for cell, value in self.shown.items()
            if isinstance(value, go.Figure) and self.read[cell]
        }

    def asserted_beside(self, figure: str) -> frozenset[Read]:
        """Runs that are asserted on between the figures before and after that one."""
        cells = list(self.read)
        others = [cells.index(cell) for cell in self.drawn() if cell != figure]
        at = cells.index(figure)
        after = max((place for place in others if place < at), default=-1)
        before = min((place for place in others if place > at), default=len(cells))
        near = self.asserting & set(cells[after + 1 : before])
        return frozenset().union(*(self.read[cell] for cell in near))

    def told(self) -> frozenset[Read]:
        """Runs that the page asserts on, or makes sentences and tables of."""
        telling = self.asserting | (set(self.shown) - set(self.drawn()) - self.hidden)
        return frozenset().union(*(self.read[cell] for cell in telling))


def shown_by(chapter: str) -> dict[str, Any]:
    """What the last line of each cell of a chapter gives, by the id of the cell."""
    return played(chapter).shown


def played(chapter: str) -> Page:
    """The chapter, run from top to bottom without the cells of `OWN_WORK`."""
    page = chapter if chapter == "index" else f"chapters/{chapter}"
    cells = [
        cell
        for cell in checks.read(book.source(page)).cells
        if cell.cell_type == "code" and not set_repository.is_setup_cell(cell)
    ]
    left_out = OWN_WORK.get(chapter, set())
    assert left_out <= {cell.id for cell in cells}
    names: dict[str, Any] = {"__name__": "__main__"}
    unknown: set[str] = set()  # what the cells that are left out would have named
    shown: dict[str, Any] = {}
    read: dict[str, frozenset[Read]] = {}
    for cell in cells:
        program = ast.parse(cell.source)
        if cell.id in left_out:
            unknown |= set(_named_in(program))
            read[cell.id] = frozenset()
            continue
        ends_in_value = bool(program.body) and isinstance(program.body[-1], ast.Expr)
        last = program.body.pop() if ends_in_value else None
        with watched() as seen:
            try:
                exec(compile(program, f"{chapter}: {cell.id}", "exec"), names)
                if isinstance(last, ast.Expr):
                    expression = ast.Expression(last.value)
                    value = eval(compile(expression, f"{chapter}: {cell.id}", "eval"), names)
                    shown[cell.id] = value
            except NameError as error:
                if error.name not in unknown:
                    raise
                unknown |= set(_named_in(program)) - set(names)
        read[cell.id] = frozenset(seen)
    return Page(
        shown,
        read,
        frozenset(cell.id for cell in cells if re.search(r"^\s*assert ", cell.source, re.M)),
        frozenset(cell.id for cell in cells if "remove-cell" in book.tags(cell)),
    )


RESULTS = {"loss", "epochs", "confusion", "images_per_second", "wall_seconds"}
"""The fields of a run that say how it went; who only counts outcomes has not told of a run."""


@contextmanager
def watched() -> Iterator[set[Read]]:
    """The runs whose results are read until the block ends; loading them is no reading."""
    seen: set[Read] = set()
    plain, load = object.__getattribute__, records.load

    def spy(run: RunRecord, name: str) -> Any:
        if name in RESULTS:
            seen.add(Read(run.id, run.scale))
        return plain(run, name)

    def silent(*args: Any, **options: Any) -> list[RunRecord]:
        with pytest.MonkeyPatch.context() as unwatched:
            unwatched.setattr(RunRecord, "__getattribute__", plain)
            return load(*args, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RunRecord, "__getattribute__", spy)
        patch.setattr(records, "load", silent)
        yield seen


def _named_in(program: ast.Module) -> Iterator[str]:
    for node in ast.walk(program):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.FunctionDef):
            yield node.name


def provenances(shown: dict[str, Any]) -> dict[str, str]:
    """Where the figures of a page say that they come from, by the id of their cell."""
    return {
        name: value.layout.meta["provenance"]
        for name, value in shown.items()
        if isinstance(value, go.Figure)
    }


def traces(figure: go.Figure, mode: str) -> list[Any]:
    return [trace for trace in figure.data if getattr(trace, "mode", None) == mode]


def test_the_page_of_the_records_names_the_runs_that_came_to_nothing(runs: Path) -> None:
    assert "No run came to nothing." in shown_by("records")["others"].data
    failure = failures.FailureRecord(
        run=f"family/nin_fixed_8_blocks-seed0-{GPU.slug}",
        cause=failures.Cause.OUT_OF_MEMORY,
        sentence="OutOfMemoryError: no room for <2 GiB>",
        tried_eagerly=True,
        code="d" * 40,
        provenance=Provenance("2026-12-24T12:00:00Z", "a test", "c" * 40, True),
        device=GPU,
        software=SOFTWARE,
    )
    records.write_json_once(records.record_path(runs, failure.id), failure.to_json())
    told = shown_by("records")["others"].data
    assert f"../runs/{failure.id}.json" in told
    assert failure.run in told
    assert "out of memory" in told
    assert "no room for &lt;2 GiB&gt;" in told
    tools = told.partition("Comparisons with other tools")[2]
    assert "failures/" not in tools
    assert "benchmarks/" in tools


def test_the_memory_chapter_takes_up_a_gpus_peaks(runs: Path) -> None:
    shown = shown_by("08_peak_memory")
    figure = shown["figure-by-batch"]
    dots = {trace.name: trace for trace in traces(figure, "markers")}
    nin = measured_step("nin", "fp32").measured.tensor_peak_bytes
    assert nin in list(dots["NiN, measured"].y)
    assert GPU.name in figure.layout.meta["provenance"]
    sentence = shown["gpu-sentence"].data
    assert GPU.name in sentence
    assert f"requested peak is predicted within 1% in 0 of {STEPS} steps" in sentence
    assert "the worst -2.0%" in sentence
    for column in ("tensors, to the byte", "requested, to 1%", "allocated, to 1%"):
        assert set(shown["gpu-networks"][column]) == {"0 of 2", "0 of 3"}
    assert "NiN needs more" in shown["conclusion-gpu"].data


def test_the_page_of_other_tools_takes_up_their_answers_and_a_gpus_peaks(runs: Path) -> None:
    shown = shown_by("other_tools")
    told = shown["gpu-tools"]
    assert list(told.columns) == ["NiN, batch 8"]
    tensors = peak_bytes(timeline(architecture("nin")), 8)
    allocated = measured_step("nin", "tf32", 8).measured.allocated_peak_bytes
    assert allocated is not None
    assert dict(told["NiN, batch 8"].iloc[1:]) == {
        "ninlab, allocated": "-2%",
        "the right one": peers.format_error(tensors / allocated - 1),
        "the low one": peers.format_error(tensors * 3 // 4 / allocated - 1),
    }
    assert "record benchmarks/peers-2026-12-24-cpu" in shown["source-peaks"].data


def test_the_chapter_on_time_takes_up_a_gpus_seconds(runs: Path) -> None:
    shown = shown_by("13_flops_are_not_time")
    figure = shown["figure-order"]
    assert [note.text for note in figure.layout.annotations][-1] == "Measured on an H100, TF32"
    assert all(value == SECONDS * 1e6 for value in figure.data[-1].x)
    assert GPU.name in figure.layout.meta["provenance"]
    assert GPU.name in shown["figure-roofline"].layout.meta["provenance"]
    sentence = shown["gpu-sentence"].data
    assert f"{STEPS} of {STEPS} steps took at least their bound" in sentence


def test_the_chapter_on_time_predicts_networks_that_the_constants_were_not_fitted_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    truth = TimeModel(device("h100"), "tf32", 0.6, 0.8, 1e-5)
    steps = []
    for network, sizes in (("vgg11", (32, 64, 128)), ("lenet", (1, 16)), ("nin", (16, 128))):
        for size in sizes:
            step = measured_step(network, "tf32", size)
            seconds = truth.seconds(predictions.case_operators(step.case))
            measured = replace(step.measured, step_seconds=(seconds,) * 3)
            steps.append(replace(step, measured=measured))
    fill(tmp_path, [step.to_json() for step in steps])
    lay_book(monkeypatch, tmp_path)
    sentence = shown_by("13_flops_are_not_time")["gpu-sentence"].data
    assert "tf32: 60% of the peak rate, 80% of the bandwidth, 10.0 µs a call" in sentence
    assert "predict the 2 other steps with a mean error of 0%." in sentence


def test_the_chapter_on_fusion_takes_up_runs_by_their_kernels_and_length(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (stock,) = recorded_at("one network")
    fused = replace(
        stock, name="nin_fixed_fused", recipe=replace(stock.recipe, kernels=Kernels.FUSED)
    )
    (sweep, *_) = (
        run
        for run in all_trained("full")
        if run.experiment == "rate_sweep" and run.network == "nin_fixed"
    )
    lay_book(monkeypatch, tmp_path)
    long, short = stock.recipe.epochs, sweep.recipe.epochs
    assert long > short
    for runs, told in (
        ([], []),
        ([stock], [("torch", long)]),
        ([stock, sweep], [("torch", long), ("torch", short)]),
        ([stock, sweep, fused], [("torch", long), ("torch", short), ("fused", long)]),
    ):
        fill(tmp_path, [run.to_json() for run in runs])
        sentence = shown_by("14_fusion")["gpu-sentence"].data
        step = r"With (\w+) kernels a step of the repaired NiN took"
        found = re.findall(rf"{step}.*?A whole run of (\d+) epochs", sentence)
        assert [(kernels, int(epochs)) for kernels, epochs in found] == told
        assert sentence.count(GPU.name) == len(runs)
        assert bool(NOTHING.search(sentence)) == (fused not in runs)


NOTHING = re.compile(
    r"No GPU has|Not measured yet|No recorded run|No (step|run)[^.]*recorded yet|"
    r"Nothing of it is recorded|Nothing to compare is recorded"
)
"""How pages say that there is no record."""


def texts(shown: dict[str, Any]) -> list[str]:
    """The sentences that a page writes, and the lines under its figures."""
    written = [value.data for value in shown.values() if isinstance(value, Markdown)]
    return [*written, *provenances(shown).values()]


def test_the_first_page_takes_up_measured_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path, [run.to_json() for run in recorded_at("both plans")])
    lay_book(monkeypatch, tmp_path)
    assert shown_by("index")["memory-on-gpu"] is None
    for network in ("nin", "alexnet"):
        step = measured_step(network, "tf32").to_json()
        path = records.record_path(tmp_path, step["id"])
        path.write_text(json.dumps(step))
    drawn = [line for line in provenances(shown_by("index")).values() if GPU.name in line]
    assert any(re.search(r"\d records of memory", line) for line in drawn)


OF_A_GPU = ("gpu-", "conclusion-gpu")
"""How the cells are called that write of a GPU alone."""


@pytest.mark.parametrize("chapter", ["08_peak_memory", "13_flops_are_not_time", "other_tools"])
def test_a_page_on_steps_speaks_of_a_gpu_once_its_steps_are_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chapter: str
) -> None:
    fill(tmp_path, [])
    lay_book(monkeypatch, tmp_path)
    without = shown_by(chapter)
    assert not [text for text in texts(without) if NOTHING.search(text) or GPU.name in text]
    silent = {cell for cell, value in without.items() if cell.startswith(OF_A_GPU)}
    assert silent
    assert {cell for cell in silent if without[cell] is not None} == set()
    for network in ("nin", "alexnet"):
        step = measured_step(network, "tf32").to_json()
        records.record_path(tmp_path, step["id"]).write_text(json.dumps(step))
    shown = shown_by(chapter)
    told = [text for text in texts(shown) if GPU.name in text]
    assert any(re.search(r"\d records of memory", text) for text in told)
    assert [cell for cell in silent if shown[cell] is not None]


@pytest.mark.parametrize("chapter", TRAINING)
def test_no_page_but_that_of_the_records_says_that_nothing_is_recorded(
    state: str, shown_at: Shown, chapter: str
) -> None:
    assert [text for text in texts(shown_at(chapter)) if NOTHING.search(text)] == []


@pytest.mark.parametrize("chapter", TRAINING[1:])
def test_a_chapter_writes_nothing_of_a_scale_that_is_not_recorded(
    state: str, shown_at: Shown, chapter: str
) -> None:
    shown = shown_at(chapter)
    if state == "not begun":
        assert texts(shown) == [*provenances(shown).values()]
        tables = (value for value in shown.values() if isinstance(value, figures.Tables))
        assert all("224×224" not in heading for table in tables for heading in table.frames)
    elif state == "both plans":
        assert any(isinstance(value, Markdown) for value in shown.values())


def test_the_page_of_records_lists_measured_steps_and_whatever_else_there_is(runs: Path) -> None:
    shown = shown_by("records")
    for step in (measured_step("nin", "tf32"), measured_step("vgg11", "fp32")):
        assert f'href="../runs/{step.id}.json"' in shown["every-step"].data
    assert 'href="../runs/benchmarks/peers-2026-12-24-cpu.json"' in shown["others"].data
    assert f"**{len(load_records(runs))} measured steps**" in shown["summary"].data


def test_a_fixture_is_what_a_recorder_would_write(runs: Path) -> None:
    step = measured_step("nin", "tf32")
    content = json.loads(records.record_path(runs, step.id).read_text())
    assert MemoryRecord.from_json(content) == step
    assert content["device"] == asdict(GPU)


# ---------------------------------------------------------------- training runs


@pytest.fixture(scope="module", params=STATES)
def state(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """A state of the plans; the book has its records for as long as it is asked about."""
    folder = tmp_path_factory.mktemp("runs")
    fill(folder, [run.to_json() for run in recorded_at(request.param)])
    with pytest.MonkeyPatch.context() as patch:
        lay_book(patch, folder)
        yield request.param


@pytest.fixture(scope="module")
def played_at(state: str) -> Callable[[str], Page]:
    """A chapter at that state; each runs once."""
    return cache(played)


@pytest.fixture(scope="module")
def shown_at(played_at: Callable[[str], Page]) -> Shown:
    """What a chapter shows at that state."""
    return lambda chapter: played_at(chapter).shown


@pytest.mark.parametrize("chapter", TRAINING)
def test_a_chapter_runs_through_at_every_state_of_the_plans_and_names_the_device(
    state: str, shown_at: Shown, chapter: str
) -> None:
    named = [
        place
        for place, line in provenances(shown_at(chapter)).items()
        if GPU.name in line or SECOND_GPU.name in line
    ]
    assert bool(named) == (state != "not begun")


@pytest.mark.parametrize("chapter", TRAINING)
def test_what_a_page_asserts_beside_a_figure_is_of_the_scales_that_the_figure_draws(
    state: str, played_at: Callable[[str], Page], chapter: str
) -> None:
    page = played_at(chapter)
    assert page.drawn()
    for figure, runs in page.drawn().items():
        asserted = page.asserted_beside(figure)
        assert asserted & runs, figure
        assert {run.scale for run in asserted} <= {run.scale for run in runs}, figure


@pytest.mark.parametrize("chapter", TRAINING)
def test_every_run_that_a_figure_draws_is_asserted_on_or_told_of(
    state: str, played_at: Callable[[str], Page], chapter: str
) -> None:
    page = played_at(chapter)
    for figure, runs in page.drawn().items():
        assert {run.id for run in runs - page.told()} == set(), figure


@pytest.mark.parametrize(
    "chapter",
    ["03_training", "04_why_nin_collapses", *EXERCISES[1:]],  # those with any
)
def test_a_table_that_is_not_split_by_scale_is_of_one_scale(
    state: str, played_at: Callable[[str], Page], chapter: str
) -> None:
    page = played_at(chapter)
    plain = {
        cell
        for cell, value in page.shown.items()
        if isinstance(value, pd.DataFrame | pd.Series) and cell not in page.hidden
    }
    assert plain
    for cell in plain:
        assert len({run.scale for run in page.read[cell]}) <= 1, cell


@pytest.mark.parametrize("chapter", EXERCISES)
def test_an_exercise_keeps_its_compact_panel_and_adds_one_of_the_full_scale(
    state: str, shown_at: Shown, chapter: str
) -> None:
    (endings,) = (value for name, value in shown_at(chapter).items() if "endings" in name)
    headings = [note.text for note in endings.layout.annotations if note.text[:3] == "<b>"]
    assert [re.search(r"\d+×\d+", heading)[0] for heading in headings] == (
        ["28×28"] if state == "not begun" else ["28×28", "224×224"]
    )


@pytest.mark.parametrize("chapter", EXERCISES)
def test_an_exercise_says_what_the_full_scale_shows(
    state: str, shown_at: Shown, chapter: str
) -> None:
    value = shown_at(chapter)["at-full-scale"]
    if state == "not begun":
        assert value is None
        return
    sentence = value.data
    match state:
        case "one network" | "one experiment":
            assert "ended at" in sentence
            assert "Not recorded yet: " in sentence
        case "without rivals":
            assert "H100, bf16, rate 0.05, 10 epochs, one seed" in sentence
            assert re.search("Not tested, (for want of a second seed|as no run held): ", sentence)
            assert "the runs show" not in sentence
        case "two GPUs":
            assert "ended at" in sentence
        case "both plans":
            tested = re.search(r"points \([+−].* to [+−].*\)", sentence)
            assert tested or re.search(
                "Not tested, as (a single run|no run|no run of the first one) held: ", sentence
            )


OTHER_RECIPES = [
    ("05_how_many_1x1", "table-normalized"),
    *((chapter, "table-better") for chapter in EXERCISES),
]


@pytest.mark.parametrize(("chapter", "table"), OTHER_RECIPES)
def test_what_another_recipe_gave_stands_beside_its_own_reference(
    state: str, shown_at: Shown, chapter: str, table: str
) -> None:
    small, *large = shown_at(chapter)[table].frames.items()
    assert "28×28" in small[0]
    for _, frame in (small, *large):
        first, *others = frame["points"]
        assert first == ""
        assert all(others)
        assert frame.index[0] == small[1].index[0]
    assert bool(large) == (state == "both plans")


@pytest.mark.parametrize("chapter", EXERCISES)
def test_a_caption_over_runs_says_that_it_concludes_from_the_compact_ones(
    state: str, shown_at: Shown, chapter: str
) -> None:
    measured = [
        place for place, line in provenances(shown_at(chapter)).items() if line[:8] == "Measured"
    ]
    cells = {cell.id: cell for cell in book.read(book.ROOT / "chapters" / f"{chapter}.ipynb").cells}
    assert measured
    for place in measured:
        conclusion = cells[place].metadata["mystnb"]["figure"]["caption"].split(". ")[0]
        assert re.search(r"compact (runs|networks)", conclusion), place


@pytest.mark.parametrize("chapter", ["13_flops_are_not_time", "records"])
def test_pages_that_read_all_runs_bear_those_of_a_gpu(
    state: str, shown_at: Shown, chapter: str
) -> None:
    shown = shown_at(chapter)
    if chapter == "records":
        recorded = [run for run in recorded_at(state) if run.device == GPU]
        if recorded:
            assert f"{GPU.name} ({len(recorded)})" in shown["summary"].data
            assert GPU.name in shown["figure-full"].layout.meta["provenance"]
    elif state == "not begun":
        assert shown["gpu-runs"] is None
    else:
        table = shown["gpu-runs"]
        named = ["nin", "nin_fixed", "alexnet", "vgg11_quarter", "googlenet", "vgg11"]
        if state != "both plans":
            named = ["nin_fixed"] if state == "one network" else ["nin", "nin_fixed"]
        assert list(table.index) == [f"{architecture(name).title}, bf16" for name in named]
        assert set(table["10 epochs"]) == {"100 s"}  # ten of ten seconds
        for column in ("peak rate", "memory rate"):
            assert all(0 < int(share.rstrip("%")) <= 100 for share in table[column]), column
        asked = "Does bf16 arithmetic cost accuracy against tf32?"
        complete = state == "both plans"
        assert any(asked in text for text in texts(shown)) == complete


def test_the_chapter_on_class_maps_asks_the_full_network_once_its_weights_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (run,) = (run for run in all_trained("full") if run.id.startswith("collapse/nin_fixed-seed0"))
    weights = save(build(run.network, seed=0).state_dict())
    kept = replace(run, weights_sha256=hashlib.sha256(weights).hexdigest())
    fill(tmp_path, [kept.to_json()])
    records.weights_path(tmp_path, kept.id).write_bytes(weights)
    lay_book(monkeypatch, tmp_path)
    assert GPU.name in shown_by("11_what_nin_sees")["full-size-sentence"].data


def test_the_made_up_runs_are_what_a_recorder_would_write(tmp_path: Path) -> None:
    fill(tmp_path, [run.to_json() for run in recorded_at("both plans")])
    assert list(validation.problems(tmp_path)) == []
