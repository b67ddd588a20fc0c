"""The scripts that say whether runs may be made by fused operators: nothing stops their rows."""

from __future__ import annotations

import json
import math
import re
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch

from benchmarks import fused_learning, fused_step
from ninlab import records
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
    there, both_ways = (
        rows[name]["gb_s"] * rows[name]["us"] for name in ("stem forward", "stem both ways, weight")
    )
    # the way back reads the images and what the way there wrote, and writes a weight's gradient
    assert both_ways == pytest.approx(2 * there)
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


README = Path(fused_learning.__file__).with_name("README.md").read_text()
LEARNED = records.runs_folder() / "probes" / "fused_learning.json"


def said_by_the_readme(made: Sequence[fused_learning.Run]) -> bool:
    table, sentence = fused_learning.in_a_table(made), fused_learning.in_a_sentence(made)
    return f"\n{table}\n" in README and sentence in " ".join(README.split())


def test_the_readme_tells_of_the_recorded_runs_and_draws_the_scripts_conclusion():
    recipe = plan("compact").by_path[fused_learning.ROW].recipe
    made = list(fused_learning.runs(recipe, 0))
    (line,) = re.findall(r"^\| fused operators \|(.*)\|$", README, re.M)
    for seed, cell in enumerate(line.split("|")):
        if cell.strip():
            accuracy = round(float(cell.strip().removesuffix("%")) / 100, 4)
            made.append(replace(made[0], kernels=Kernels.FUSED, seed=seed, accuracies=(accuracy,)))
    assert said_by_the_readme(made)


def test_the_readme_tells_what_the_check_of_learning_has_left():
    assert said_by_the_readme(fused_learning.read(LEARNED))
    left = json.loads(LEARNED.read_text())
    day, torch_version = left["provenance"]["utc"][:10], left["software"]["torch"]
    assert f"({day}, one core, torch {torch_version.partition('+')[0]};" in README


def test_a_file_of_learning_is_read_as_it_was_made_and_seeds_outside_the_range_are_named(tmp_path):
    recipe = plan("compact").by_path[fused_learning.ROW].recipe
    plain = list(fused_learning.runs(recipe, 0))
    made = plain + [
        replace(plain[0], kernels=Kernels.FUSED, seed=seed, accuracies=(accuracy,))
        for seed, accuracy in enumerate((1.0, 0.9999, 0.0))
    ]
    path = tmp_path / "learned.json"
    path.write_text(json.dumps({"rows": [asdict(run) for run in made]}))
    read = fused_learning.read(path)
    assert [run.kernels for run in read] == [run.kernels for run in made]
    said = fused_learning.in_a_sentence(read)
    assert said == fused_learning.in_a_sentence(made)
    assert "66.66%, lies outside" in said
    assert "seed 0 and seed 1 lie above it. Of the fused runs seed 2 lies below it." in said
