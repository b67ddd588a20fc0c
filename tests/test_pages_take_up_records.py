"""The pages show a GPU's measurements, and the other tools' answers, as soon as records of them
exist: nobody edits a chapter for it.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Collection, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
import pytest

from ninlab import records
from ninlab.architectures import architecture
from ninlab.liveness import peak_bytes, timeline
from ninlab.measurement import (
    Allocator,
    Case,
    Measured,
    MemoryRecord,
    Outcome,
    load_records,
)
from ninlab.records import Device, Provenance, Software
from tests import book

NETWORKS = ("nin", "alexnet", "vgg11_quarter", "vgg11", "googlenet")
GPU = Device("nvidia-h100-80gb-hbm3", "NVIDIA H100 80GB HBM3", 80 * 10**9)
SECONDS = 0.5  # longer than any bound of the networks above
OWN_MEASUREMENT = {"measure", "predict", "measured-pairs", "figure-measured", "measured-sentence"}
"""Cells of the memory chapter that measure this machine's CPU: no record takes part in them."""


def measured_step(network: str, precision: str) -> MemoryRecord:
    """A step on a GPU whose peaks are exactly 2 % above their prediction."""
    case = Case(network, architecture(network).input_shape, 128, precision, "sgd")
    predicted = peak_bytes(timeline(architecture(network), "sgd", precision), case.batch_size)
    peak = predicted * 102 // 100
    return MemoryRecord(
        case=case,
        network_digest=architecture(network).digest,
        allocator=Allocator.DEFAULT,
        measured=Measured(
            Outcome.FINISHED, peak, peak, peak, 2 * peak, 10**8, (SECONDS, SECONDS, SECONDS), 20
        ),
        predicted={"tensor_peak_bytes": predicted, "allocated_peak_bytes": predicted},
        provenance=Provenance("2026-12-24T12:00:00Z", "python -m ninlab measure", "0" * 40, True),
        device=GPU,
        software=Software("3.12.0", "2.11.0+cu130", "0.1.0", "13.0", "91900"),
    )


def comparison() -> dict[str, Any]:
    """A comparison of two tools, one of them right and one a quarter too low."""
    true = peak_bytes(timeline(architecture("nin")), 8)
    asked = {"network": "nin", "batch_size": 8}
    return {
        "id": "benchmarks/peers-2026-12-24-cpu",
        "kind": "benchmark",
        "provenance": {"utc": "2026-12-24T12:00:00Z"},
        "device": {"name": "some CPU"},
        "software": {"torch": "2.15.0"},
        "tools": {"right": "the right one", "low": "the low one", "silent": "the silent one"},
        "steps": [{**asked, "tensor_peak_bytes": true}],
        "answers": [
            {**asked, "tool": "right", "peak_bytes": true},
            {**asked, "tool": "low", "peak_bytes": true * 3 // 4},
            {**asked, "tool": "silent", "error": "no idea"},
        ],
    }


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The book's folder of runs for the time of a test: the real ones, and those above."""
    for path in records.runs_folder().glob("*/*.json"):
        copy = tmp_path / path.parent.name / path.name
        copy.parent.mkdir(exist_ok=True)
        copy.symlink_to(path)
    steps = [measured_step(n, precision) for n in NETWORKS for precision in ("fp32", "tf32")]
    found = {step.id: step.to_json() for step in steps}
    for identifier, content in (found | {comparison()["id"]: comparison()}).items():
        path = records.record_path(tmp_path, identifier)
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(content))
    monkeypatch.setattr(records, "runs_folder", lambda: tmp_path)
    return tmp_path


def shown_by(chapter: str, left_out: Collection[str] = ()) -> dict[str, Any]:
    """What the last line of each cell of a chapter gives, by the id of the cell."""
    return dict(_results(chapter, left_out))


def _results(chapter: str, left_out: Collection[str]) -> Iterator[tuple[str, Any]]:
    names: dict[str, Any] = {"__name__": "__main__"}
    for cell in book.read(book.ROOT / "chapters" / f"{chapter}.ipynb").cells:
        if cell.cell_type != "code" or cell.id in left_out:
            continue
        program = ast.parse(cell.source)
        ends_in_value = bool(program.body) and isinstance(program.body[-1], ast.Expr)
        last = program.body.pop() if ends_in_value else None
        exec(compile(program, f"{chapter}: {cell.id}", "exec"), names)
        if isinstance(last, ast.Expr):
            expression = ast.Expression(last.value)
            yield cell.id, eval(compile(expression, f"{chapter}: {cell.id}", "eval"), names)


def traces(figure: go.Figure, mode: str) -> list[Any]:
    return [trace for trace in figure.data if getattr(trace, "mode", None) == mode]


def test_the_memory_chapter_takes_up_a_gpus_peaks_and_the_other_tools(runs: Path) -> None:
    shown = shown_by("08_peak_memory", OWN_MEASUREMENT)
    figure = shown["figure-by-batch"]
    dots = {trace.name: trace for trace in traces(figure, "markers")}
    nin = measured_step("nin", "fp32").measured.tensor_peak_bytes
    assert list(dots["NiN, measured"].y) == [nin]
    assert GPU.name in figure.layout.meta["provenance"]
    sentence = shown["gpu-sentence"].data
    assert GPU.name in sentence
    assert f"in 0 of {2 * len(NETWORKS)} steps" in sentence
    assert "the worst by +2.0%" in sentence
    assert "record benchmarks/peers-2026-12-24-cpu" in shown["show-tools"].data


def test_the_chapter_on_time_takes_up_a_gpus_seconds(runs: Path) -> None:
    shown = shown_by("13_flops_are_not_time")
    figure = shown["figure-order"]
    assert [note.text for note in figure.layout.annotations][-1] == "Measured on an H100, TF32"
    assert all(value == SECONDS * 1e6 for value in figure.data[-1].x)
    assert GPU.name in figure.layout.meta["provenance"]
    sentence = shown["gpu-sentence"].data
    assert f"{2 * len(NETWORKS)} of {2 * len(NETWORKS)} steps took at least their bound" in sentence


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
