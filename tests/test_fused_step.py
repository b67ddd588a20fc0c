"""The scripts that say whether runs may be made by fused operators: nothing stops their rows."""

from __future__ import annotations

import json
import math
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks import fused_learning, fused_step
from ninlab.experiments import plan
from ninlab.steps import Kernels

SIZE = fused_step.Size.of(torch.device("cpu"))
NAMES = [name for name, _ in fused_step.rows(SIZE)]


def written(output: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in output.read_text().splitlines()]


def test_a_rehearsal_makes_every_row(tmp_path):
    output = tmp_path / "rows.jsonl"
    assert fused_step.make_rows(0, SIZE, output, math.inf) == 0
    rows = {row.pop("row"): row for row in written(output)}
    assert [*rows] == NAMES
    for name, row in rows.items():
        assert ("refused" in row) == (name == "whole run by fused"), name
        for whose in ("error", "gradient_error"):
            assert row.get(whose, 0) < 1e-5  # float32 on a CPU
    kept = [rows[f"step by {kernels}"]["kept_mib"] for kernels in Kernels]
    assert kept == sorted(kept, reverse=True)
    assert len({*kept}) == 3
    torchs, fused = (rows[f"epoch by {one}, seed 0"]["losses"] for one in ("torch", "fused"))
    assert fused == pytest.approx(torchs, rel=1e-5)


def test_a_row_that_fails_is_a_row(tmp_path, monkeypatch):
    def fails() -> dict[str, object]:
        raise RuntimeError("no kernel\nimage")

    output = tmp_path / "rows.jsonl"
    works = [("one", fails), ("two", lambda: {"us": 1.0})]
    monkeypatch.setattr(fused_step, "rows", lambda size: works)
    assert fused_step.make_rows(0, SIZE, output, math.inf) == 1
    first, second = written(output)
    assert first == {"row": "one", "failed": "RuntimeError: no kernel image"}
    assert second == {"row": "two", "us": 1.0}
    assert fused_step.make_rows(0, SIZE, output, 0.0) == 0
    assert len(written(output)) == 2  # none begins after the deadline


@pytest.mark.parametrize(
    ("ends", "made", "code"),
    [
        ([(3, 0)], ["1", "2", "3", "4"], 0),  # rows that a process makes, and how it ends
        ([(2, -11), (1, 1)], ["1", "2", "died", "4"], 1),
        ([(2, fused_step.LOST), (2, 0)], ["1", "2", "3", "4"], 1),
        ([(1, fused_step.LOST)] * 4, ["1", "2", "3"], 1),
        ([(0, 139)] * 4, ["died"] * 3, 1),
    ],
)
def test_a_row_that_takes_its_process_along_leaves_the_others(
    ends, made, code, tmp_path, monkeypatch
):
    output = tmp_path / "rows.jsonl"
    output.write_text('{"kind": "probe"}\n')
    monkeypatch.setattr(fused_step, "rows", lambda size: [(name, dict) for name in "1234"])
    left = iter(ends)

    def run(command: list[str], check: bool) -> subprocess.CompletedProcess[bytes]:
        first = int(command[command.index("--from") + 1])
        count, ended = next(left)
        if ended in (0, 1):
            count = 4 - first
        for name in "1234"[first : first + count]:
            fused_step.put(name, {}, output)
        return subprocess.CompletedProcess(command, ended)

    monkeypatch.setattr(subprocess, "run", run)
    assert fused_step.make_all("cpu", output, math.inf) == code
    rows = written(output)[1:]
    assert ["died" if "failed" in row else row["row"] for row in rows] == made


def test_fused_runs_are_compared_with_the_recorded_ones_of_their_recipe():
    recipe = plan("compact").by_path[fused_learning.ROW].recipe
    found = list(fused_learning.runs(recipe, 0))
    assert [(run.kernels, run.seed) for run in found] == [(Kernels.TORCH, s) for s in range(5)]
    assert list(fused_learning.runs(replace(recipe, epochs=1), 0)) == []
    best = max(found, key=lambda run: run.accuracies[-1])
    fused = replace(best, kernels=Kernels.FUSED)
    assert fused_learning.is_within_the_spread([*found, fused])
    beyond = replace(fused, accuracies=(best.accuracies[-1] + 1e-4,))
    assert not fused_learning.is_within_the_spread([*found, beyond])
