"""What is packed for a GPU machine without a network records there, whatever happens, and the
runbook of CONTRIBUTING.md brings its records home.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import re
import shlex
import signal
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from ninlab import data_files, handover, records
from ninlab.architectures import ARCHITECTURES
from ninlab.commands import validation
from ninlab.experiments import plan
from tests.book import ROOT
from tests.records import A_RECORD
from tools import gpu_kit

MOST_BYTES = 60 * 2**20
"""Of the kit and the tracked files together. 64 MiB can be sent to a GPU machine at once; the rest
is for what is built beside them."""

MACHINES_PACKAGES = (
    *("torch", "torchvision", "pandas", "typer", "rich", "scipy", "safetensors"),
    *("triton", "pytest", "hypothesis"),
)
"""Beyond the kit's, the packages that the runbook asks the GPU machine to have.

triton comes with torch there, and only the part tests needs pytest and hypothesis.
"""

WEIGHTS = b"weights"
UNCOMMITTED = replace(
    A_RECORD,
    experiment="single",
    seed=7,
    network_digest=ARCHITECTURES["nin_28"].digest,
    weights_sha256=hashlib.sha256(WEIGHTS).hexdigest(),
)

PROBE = "probes/lines.jsonl"
"""Committed with one line, to which another was added since."""

pytestmark = pytest.mark.slow


def section() -> str:
    """CONTRIBUTING's section on measured runs."""
    text = (ROOT / "CONTRIBUTING.md").read_text()
    return text.partition("## Measured runs\n")[2].partition("\n## ")[0]


def runbook() -> list[list[str]]:
    """The commands that the section gives first, word by word."""
    block = section().split("```")[1]
    return [shlex.split(line, comments=True) for line in block.strip().splitlines()]


@pytest.fixture(scope="module")
def clone(tmp_path_factory) -> Path:
    """A clean checkout of the committed project; below runs, one record and a line are new."""
    folder = tmp_path_factory.mktemp("clone") / "ninlab"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(folder)], check=True)
    git = ["git", "-C", str(folder), "-c", "user.name=n", "-c", "user.email=n@localhost"]
    records.write_bytes(folder / "runs" / PROBE, b"one\n")
    subprocess.run([*git, "add", f"runs/{PROBE}"], check=True)
    subprocess.run([*git, "commit", "--quiet", "-m", "a probe"], check=True)
    records.write_bytes(folder / "runs" / PROBE, b"one\ntwo\n")
    records.write(folder / "runs", UNCOMMITTED)
    records.write_bytes(records.weights_path(folder / "runs", UNCOMMITTED.id), WEIGHTS)
    return folder


@pytest.fixture(scope="module")
def kit(clone) -> Path:
    """Packed by the runbook's first command, into which make installs nothing here."""
    outside = {name: text for name, text in os.environ.items() if name != "MAKEFLAGS"}
    installed = ["-o", ".venv/.book", f"BIN={Path(sys.executable).parent}"]
    subprocess.run(
        [*runbook()[0], *installed], cwd=clone, check=True, env=outside | {"PYTHONPATH": str(clone)}
    )
    return clone / "dist" / "gpu"


@pytest.fixture(scope="module")
def site(kit, tmp_path_factory) -> Path:
    """The kit's Python packages, unpacked."""
    folder = tmp_path_factory.mktemp("site")
    with tarfile.open(kit / gpu_kit.SITE) as archive:
        archive.extractall(folder, filter="data")
    return folder


def environment(**changes: object) -> dict[str, str]:
    """Of a call on a machine whose ninlab and images are those of the kit."""
    kept = {name: text for name, text in os.environ.items() if name != "PYTHONPATH"}
    changes = {"DEVICE": "cpu", "PYTHON": sys.executable, "NINLAB_DATA": "/nowhere"} | changes
    return kept | {name: str(value) for name, value in changes.items()}


# ---------------------------------------------------------------- what is in it


def test_kit_and_tracked_files_are_small_enough_to_be_sent_together(clone, kit):
    names = subprocess.check_output(["git", "ls-files", "-z"], cwd=clone, text=True)
    tracked = [clone / name for name in names.split("\0") if name]
    packed = [path for path in kit.rglob("*") if path.is_file()]
    size = sum(path.stat().st_size for path in [*tracked, *packed])
    assert size < MOST_BYTES, "commit fewer kept weights: they are what grows"


def test_names_in_a_kit_survive_every_way_of_copying(kit):
    for path in kit.rglob("*"):
        assert re.fullmatch(r"[A-Za-z0-9._+-]+", path.name), path


def test_a_kit_holds_new_records_without_weights_and_probes_that_changed(kit):
    with tarfile.open(kit / handover.ARCHIVE) as archive:
        assert archive.getnames() == [f"runs/{UNCOMMITTED.id}.json", f"runs/{PROBE}"]


def test_images_that_are_there_in_both_forms_are_packed_once(monkeypatch, tmp_path):
    first, *rest = data_files.FILES
    content = {name: name.encode() for name in data_files.FILES}
    published = {
        name: data_files.IdxFile(hashlib.sha256(plain).hexdigest(), (len(plain),))
        for name, plain in content.items()
    }
    monkeypatch.setattr(data_files, "FILES", published)
    for name in (f"{first}.gz", first, *rest):
        plain = content[name.removesuffix(".gz")]
        packed = gzip.compress(plain, 1) if name.endswith(".gz") else plain
        records.write_bytes(tmp_path / "images" / name, packed)
    monkeypatch.setattr(data_files, "load", lambda: (tmp_path / "images", {}))
    gpu_kit.copy_images(tmp_path / "packed")
    assert {path.name for path in (tmp_path / "packed").iterdir()} == {
        f"{name}.bz2" for name in data_files.FILES
    }
    for name, plain in content.items():
        assert data_files.read(tmp_path / "packed", name) == plain


@pytest.mark.parametrize("found", [True, False])
def test_a_compiled_part_is_fetched_for_the_pythons_of_gpu_machines(
    found, monkeypatch, tmp_path, capsys
):
    (package,) = gpu_kit.COMPILED
    (tmp_path / package).mkdir()
    names = [f"{package}/core.cpython-{p.replace('.', '')}-x86_64.so" for p in gpu_kit.PYTHONS]

    def pip(command, **_):
        (into,) = (Path(word.partition("=")[2]) for word in command if word.startswith("--dest="))
        with zipfile.ZipFile(into / "some.whl", "w") as wheel:
            for name in (*names, f"{package}/__init__.py"):
                wheel.writestr(name, "")
        return subprocess.CompletedProcess(command, 0 if found else 1)

    monkeypatch.setattr(subprocess, "run", pip)
    gpu_kit.fetch_compiled_parts(package, tmp_path)
    laid = [path.relative_to(tmp_path).as_posix() for path in tmp_path.glob("*/*")]
    assert laid == (names if found else [])
    assert ("cannot use this kit" in capsys.readouterr().err) is not found


def test_the_runbook_asks_for_the_packages_that_recording_needs():
    asked = set(re.findall(r"[a-z]+", section()))
    assert asked >= {*MACHINES_PACKAGES}


def test_what_records_needs_no_package_but_the_machines_and_the_kits(clone, site):
    program = f"""
import importlib.abc, os, re, sys
from importlib import metadata

def plain(name):
    return re.sub("[-_.]+", "-", name).lower()

there, todo = set(), {list(MACHINES_PACKAGES)!r}
while todo:
    name = plain(todo.pop())
    if name not in there:
        there.add(name)
        try:
            needs = metadata.requires(name) or []
        except metadata.PackageNotFoundError:  # of another platform
            continue
        todo += [re.match("[\\w.-]+", need)[0] for need in needs if "extra ==" not in need]
modules = metadata.packages_distributions()
allowed = {{module for module, owners in modules.items() if there & set(map(plain, owners))}}
allowed |= {{"ninlab", *os.listdir({str(site)!r})}}

class Bare(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        top = name.partition(".")[0]
        if top in modules and top not in allowed:
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Bare())
from ninlab import resources, selfcheck
from ninlab.commands import collect, measure, profile, record
from ninlab import records
from benchmarks import fused_step
from tools import ask_cudnn
records.load()
import fvcore, pydantic_core
for package in fvcore, pydantic_core:
    assert package.__file__.startswith({str(site)!r}), package.__file__
try:
    import plotly
except ModuleNotFoundError:
    pass
else:
    raise AssertionError("the bare machine is not bare")
"""
    path = os.pathsep.join([str(clone), str(site)])
    command = [sys.executable, "-c", program]
    subprocess.run(command, check=True, env=os.environ | {"PYTHONPATH": path})


# ---------------------------------------------------------------- the driver, without torch

STAND_IN = """#!/usr/bin/env bash
case "$*" in
    *ninlab.handover*) exec "$REAL" "$@" ;;
    *selfcheck*) exit "$SMOKE" ;;
    *"ninlab record"*)
        echo "$*" >>"$CALLS"
        echo "$PYTHONPATH" >"$CALLS.path"
        read -ra steps <<<"$STEPS"
        step=${steps[$(wc -l <"$CALLS") - 1]}
        mkdir -p runs/rehearsal
        case $step in *+) echo '{}' >"runs/rehearsal/$(date +%N).json" ;; esac
        case $step in *s*) exec sleep 30 ;; esac
        exit "${step%+}" ;;
    *"ninlab profile"*)
        echo "$*" >>"$CALLS"
        case $* in *fused*) exit "$FUSED" ;; esac ;;
esac
"""
"""An interpreter whose recorder ends with these codes, after a new record where a + follows."""


class Call:
    """A call of on_gpu.sh with the stand-in, and what came of it."""

    def __init__(self, kit: Path, folder: Path, work: Path) -> None:
        self._kit, self._folder, self._work = kit, folder, work
        self.results = folder / "results"
        folder.joinpath("python").write_text(STAND_IN)
        folder.joinpath("python").chmod(0o755)

    def begin(self, *arguments: str, **changes: object) -> subprocess.Popen[bytes]:
        stand_in = {"PYTHON": self._folder / "python", "REAL": sys.executable, "SMOKE": 0}
        places = {"CALLS": self._folder / "calls", "WORK": self._work}
        return subprocess.Popen(
            ["bash", str(self._kit / "on_gpu.sh"), str(self.results), *arguments],
            env=environment(**(stand_in | places | changes)),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def ends_with(self, *arguments: str, **changes: object) -> int:
        return self.begin(*arguments, **changes).wait()

    @property
    def log(self) -> str:
        return (self.results / "log.txt").read_text()

    @property
    def made(self) -> list[Path]:
        """The records that the stand-in made, also in calls before this one."""
        return sorted((self._work / "ninlab" / "runs" / "rehearsal").glob("*.json"))

    @property
    def starts(self) -> list[str]:
        """The recorder's command lines."""
        calls = self._folder / "calls"
        return calls.read_text().splitlines() if calls.exists() else []

    @property
    def starts_path(self) -> str:
        """Where the recorder looks for modules."""
        return (self._folder / "calls.path").read_text().strip()


@pytest.fixture(scope="module")
def work(tmp_path_factory) -> Path:
    """Where all calls with the stand-in keep the checkout."""
    return tmp_path_factory.mktemp("machine") / "work"


@pytest.fixture
def call(kit, tmp_path, work) -> Call:
    return Call(kit, tmp_path, work)


@pytest.mark.parametrize(
    "arguments", [[], ["results", "60"], ["results", "60", "smok"], ["results", "1m", "smoke"],
                  ["results", "60", "smoke:fast"], ["results", "60", "smoke", "record:4"],
                  ["results", "60", "record:08"]]
)  # fmt: skip
def test_a_part_that_does_not_exist_is_answered_with_those_that_do(kit, tmp_path, arguments):
    script = ["bash", str(kit / "on_gpu.sh"), *arguments]
    ended = subprocess.run(script, cwd=tmp_path, capture_output=True, text=True)
    assert ended.returncode == 2
    assert ended.stderr.startswith("usage: bash on_gpu.sh RESULTS SECONDS PART[:SECONDS]...")
    assert "  smoke  " in ended.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("fused", [0, 1, 139])
def test_kernels_that_lose_the_device_take_no_profile_of_others_along(call, fused):
    code = call.ends_with("600", "profile", DEVICE="cuda", FUSED=fused)
    assert code == (1 if fused else 0)
    asked = [start.split() for start in call.starts]
    kernels = [words[words.index("--kernels") + 1] for words in asked]
    assert kernels == ["torch", "fused", "torch", "fused"]
    assert [words.count("--kernels") for words in asked] == [1] * 4
    networks = [{"nin", "alexnet", "vgg11_quarter", "googlenet"} & set(words) for words in asked]
    assert networks[0] == networks[1] == {"nin"}  # the most wanted come first
    assert networks[2] == networks[3] == {"alexnet", "vgg11_quarter", "googlenet"}


@pytest.mark.parametrize(
    ("steps", "code", "starts", "said"),
    [
        ("0 0", 0, 1, "record ended with 0"),
        ("1+ 139 0", 0, 3, "record ended with 139 after 0 new records; it goes on behind that run"),
        ("1 134 0", 1, 2, "record ended with 134 after"),
        ("1+ 1+ 1+ 1+ 1+ 0", 1, 5, "record ended with 1 after"),
        ("2 0", 1, 1, "record ended with 2"),
        ("5 5 0", 5, 2, "stopped: the device is lost"),
        ("5 5+ 0", 0, 3, "record ended with 0"),
        ("137+ 0", 0, 2, "record was killed after 1 new records; started again"),
    ],
)
def test_a_recorder_that_ends_is_started_again_while_that_leads_somewhere(
    call, steps, code, starts, said
):
    assert call.ends_with("600", "record", STEPS=steps) == code
    assert len(call.starts) == starts
    assert said in call.log


@pytest.mark.parametrize(
    ("smoke", "any_gpu", "code", "starts", "eager"),
    [
        (3, "", 3, 0, False),
        (4, "", 0, 1, True),
        (6, "", 6, 0, False),
        (6, "1", 6, 0, False),
        (0, "1", 0, 1, False),
        (1, "", 1, 1, False),
        (124, "", 0, 1, False),
    ],
)
def test_the_smoke_decides_whether_and_how_to_record(call, smoke, any_gpu, code, starts, eager):
    ended = call.ends_with("600", "smoke", "record", STEPS="0", SMOKE=smoke, ANY_GPU=any_gpu)
    assert ended == code
    assert [start.endswith(" --eager") for start in call.starts] == [eager] * starts
    assert ("--any-gpu" in call.log) == (any_gpu == "1")


def test_a_part_ends_at_its_cap_and_what_it_made_is_handed_over(call):
    assert call.ends_with("600", "record:5", "record", STEPS="s+ 0") == 0
    assert "== record cut at its cap of 5 s" in call.log
    deadlines = [int(start.partition("--deadline ")[2].split()[0]) for start in call.starts]
    assert deadlines[0] < time.time() < deadlines[1]  # the recorder knows of the cap, too
    assert handover.contents(call.results / handover.ARCHIVE)


def test_a_part_that_the_call_leaves_less_than_its_cap_is_cut_by_the_end_of_the_call(call):
    assert call.ends_with("18", "record:60", STEPS="s+") == 0
    assert "== record cut by the end of the call, after " in call.log
    assert "cut at its cap" not in call.log


def test_what_the_caller_has_on_the_path_stays_there(call):
    call.ends_with("600", "record", STEPS="0", PYTHONPATH="/a:/b")
    path = call.starts_path.split(":")
    assert path[-2:] == ["/a", "/b"]
    assert path[0].endswith("/ninlab")


def test_a_call_that_is_asked_to_end_hands_over(call):
    process = call.begin("600", "record", STEPS="s+")
    made = len(call.made)
    while not call.made[made:]:
        assert process.poll() is None, call.log
        time.sleep(0.05)
    process.terminate()
    assert process.wait() == 143
    assert "== ended with 143" in call.log
    archive = handover.contents(call.results / handover.ARCHIVE)
    assert {f"rehearsal/{path.name}" for path in call.made} <= archive.keys()


def test_a_torn_checkout_does_not_stand_in_the_way_of_the_next_call(kit, tmp_path):
    work = tmp_path / "work"
    torn = tmp_path / "work.7.part"
    torn.mkdir()
    call = Call(kit, tmp_path, work)
    assert call.ends_with("600", "record", STEPS="0") == 0
    assert not torn.exists()
    status = ["git", "-C", str(work / "ninlab"), "status", "--porcelain", "--", ".", ":!runs"]
    assert subprocess.check_output(status) == b""
    head = subprocess.check_output(["git", "-C", str(work / "ninlab"), "rev-parse", "HEAD"])
    assert head.decode() == (kit / "commit").read_text()
    assert not list(work.rglob("*.safetensors"))
    of_cpus = [path.stem for path in (work / "ninlab" / "runs").glob("*/*-cpu.json")]
    assert of_cpus == [Path(UNCOMMITTED.id).name]  # which is not in the commit


def test_a_checkout_of_another_commit_is_not_recorded_in(call, work, kit, tmp_path):
    other = tmp_path / "other"
    git = ["git", "-C", str(other / "ninlab"), "-c", "user.name=n", "-c", "user.email=n@localhost"]
    subprocess.run(["git", "init", "--quiet", str(other / "ninlab")], check=True)
    subprocess.run([*git, "commit", "--quiet", "--allow-empty", "-m", "another"], check=True)
    assert call.ends_with("600", "record", STEPS="0", WORK=other) == 2
    assert "holds another commit than the kit" in call.log
    assert call.starts == []


# ---------------------------------------------------------------- the rehearsal


def kill_session(leader: int) -> None:
    """SIGKILL to every process of the session: what a machine that is taken away does."""
    left = True
    while left:
        left = False
        for process in session(leader):
            left = True
            os.kill(process, signal.SIGKILL)
        time.sleep(0.05)


def session(leader: int) -> Iterator[int]:
    """The processes of that session that are not dead yet."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, its_session = stat.read_text().rpartition(") ")[2].split()[:4]
        except OSError:
            continue
        if int(its_session) == leader and state != "Z":
            yield int(stat.parent.name)


def recorded(results: Path) -> set[str]:
    """The rehearsal's runs in the archive, whole by the law of handing over."""
    archive = results / handover.ARCHIVE
    found = handover.contents(archive) if archive.exists() else {}
    return {name for name in found if name.startswith("rehearsal/")}


def test_the_runbook_brings_home_what_a_killed_call_and_the_next_one_recorded(kit, clone, tmp_path):
    pack, first, second, collect, missing = runbook()
    assert pack[:1] == ["make"]
    assert [words[-1] for words in (collect, missing)] == ["RESULTS", "full"]
    machine = environment(HOME=tmp_path)
    results = [tmp_path / "first", tmp_path / "second"]

    def on(folder: Path, words: list[str]) -> list[str]:
        return [str(folder) if word == "RESULTS" else word for word in words]

    lost = subprocess.Popen(on(results[0], first), cwd=clone, env=machine, start_new_session=True)
    while not recorded(results[0]):
        assert lost.poll() is None, (results[0] / "log.txt").read_text()
        time.sleep(0.02)
    kill_session(lost.pid)
    assert lost.wait() == -signal.SIGKILL
    before = recorded(results[0])
    first_log = (results[0] / "log.txt").read_text()
    for part in ("smoke", "fused"):
        assert f"== {part} ended with 0" in first_log

    checked = [word for word in second if word.startswith("smoke")]
    assert [word for word in first if word.startswith("smoke")] == checked != []
    no_smoke = [word for word in second if word not in checked]  # the first call passed it
    subprocess.run(on(results[1], no_smoke), cwd=clone, env=machine, check=True)
    log = (results[1] / "log.txt").read_text()
    assert "differs from commit" not in log
    there = re.search(r"(\d+) were there", log)
    assert there
    assert int(there[1]) >= len(before) > 0  # one may have been written and not handed over

    expected = {run.id("cpu") for run in plan("rehearsal").runs}
    new_machine = environment(HOME=tmp_path / "new")
    again = subprocess.check_output(on(results[1], no_smoke), cwd=clone, env=new_machine, text=True)
    assert re.search(rf"^0 runs recorded in .*, {len(expected)} were there", again, re.MULTILINE)

    home = [sys.executable, *collect[1:-1], *map(str, results)]
    printed = subprocess.check_output(home, cwd=clone, text=True)
    assert {run.id for run in records.load(clone / "runs", "rehearsal")} == expected
    for identifier in expected:
        assert identifier in printed
    assert "made twice" not in printed
    assert (clone / "runs" / PROBE).read_bytes() == b"one\ntwo\n"
    assert list(validation.problems(clone / "runs")) == []


def test_the_runbooks_table_quotes_what_the_programs_say():
    programs = [ROOT / "tools" / "on_gpu.sh", *(ROOT / "ninlab").rglob("*.py")]
    said = " ".join(" ".join(path.read_text().replace('"\n', "").split()) for path in programs)
    said = said.replace('" f"', "").replace('" "', "")
    rows = re.findall(r"^\| `([^`]+)`", section(), re.MULTILINE)
    assert len(rows) > 5
    for sentence in rows:
        assert sentence in said, sentence
