"""What is packed for a GPU machine without a network runs there from the kit alone."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from tests.book import ROOT

A_RECORD = "runs/single/nin_28-seed7-cpu.json"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def clone(tmp_path_factory) -> Path:
    """A clean checkout of the committed project, beside it one record that is not committed."""
    folder = tmp_path_factory.mktemp("clone") / "ninlab"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(folder)], check=True)
    record = folder / A_RECORD
    record.parent.mkdir(exist_ok=True)
    record.write_text("{}\n")
    return folder


@pytest.fixture(scope="module")
def kit(clone, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("kit")
    tool = [sys.executable, "tools/gpu_kit.py", str(folder)]
    subprocess.run(tool, cwd=clone, check=True, env=os.environ | {"PYTHONPATH": str(clone)})
    return folder


@pytest.mark.parametrize("arguments", [[], ["results", "60"], ["results", "60", "chek"]])
def test_a_part_that_does_not_exist_is_answered_with_those_that_do(kit, tmp_path, arguments):
    script = ["bash", str(kit / "on_gpu.sh"), *arguments]
    ended = subprocess.run(script, cwd=tmp_path, capture_output=True, text=True)
    assert ended.returncode == 2
    assert ended.stderr.startswith("usage: bash on_gpu.sh RESULTS SECONDS PART...")
    assert "  check  " in ended.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_kit_measures_in_its_own_clean_clone_and_hands_over_every_new_record(kit, tmp_path):
    script = ["bash", str(kit / "on_gpu.sh"), str(tmp_path / "results"), "32", "record"]
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "records.tar.gz.07").write_text("of a call before this one")
    environment = {name: text for name, text in os.environ.items() if name != "PYTHONPATH"}
    subprocess.run(
        script, cwd=tmp_path, check=True,
        env=environment | {"PYTHON": sys.executable, "DEVICE": "cpu", "NINLAB_DATA": "/nowhere"},
    )  # fmt: skip
    log = (tmp_path / "results" / "log.txt").read_text()
    assert "differs from commit" not in log, log
    assert "-m ninlab record --plan full --device cpu" in log, log
    parts = sorted((tmp_path / "results").glob("records.tar.gz.*"))
    whole = tmp_path / "records.tar.gz"
    whole.write_bytes(b"".join(part.read_bytes() for part in parts))
    with tarfile.open(whole) as archive:
        assert A_RECORD in archive.getnames()
