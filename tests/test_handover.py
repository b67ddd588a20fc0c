"""Records leave a machine whole at any moment, and nothing is lost or misplaced on the way."""

from __future__ import annotations

import gzip
import io
import os
import random
import signal
import socket
import subprocess
import sys
import tarfile
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ninlab import handover
from ninlab.errors import RecordError
from ninlab.handover import ARCHIVE, TORN_ARCHIVE, contents, hand_over, take_up, weights_name

MEBIBYTE = 1024**2


@pytest.fixture
def runs(tmp_path) -> Path:
    """A runs folder outside every checkout."""
    folder = tmp_path / "made_here"
    lay(folder, {"collapse/a-seed0-cpu.json": b"{}", "probes/events/trace.json.gz": b"trace"})
    return folder


@pytest.fixture
def results(tmp_path) -> Path:
    return tmp_path / "results"


def lay(folder: Path, files: dict[str, bytes]) -> None:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)


def pack(archive: Path, *members: tarfile.TarInfo) -> None:
    archive.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(archive, "w:gz") as opened:
        for member in members:
            opened.addfile(member, io.BytesIO(b"x" * member.size))


def file_named(name: str, kind: bytes = tarfile.REGTYPE) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, "elsewhere"
    member.size = 1 if kind == tarfile.REGTYPE else 0
    return member


def git(folder: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=nobody", "-c", "user.email=nobody@localhost"]
    subprocess.run(["git", "-C", str(folder), *identity, *arguments], check=True)


# ---------------------------------------------------------------- what is handed over


def test_every_visible_file_outside_a_checkout_is_handed_over(runs, results):
    lay(runs, {".claims/a.lock": b"", "collapse/.b.json.host.1.tmp": b"half"})
    hand_over(runs, results)
    assert contents(results / ARCHIVE) == {
        "collapse/a-seed0-cpu.json": b"{}",
        "probes/events/trace.json.gz": b"trace",
    }
    with tarfile.open(results / ARCHIVE) as opened:
        assert all(name.startswith("runs/") for name in opened.getnames())


def test_what_a_checkout_tracks_or_ignores_is_not_handed_over(runs, results):
    git(runs.parent, "init", "--quiet")
    lay(runs.parent, {".gitignore": b"*.log\n"})
    git(runs.parent, "add", ".")
    git(runs.parent, "commit", "--quiet", "--message", "what is there before")
    lay(runs, {"head/b-seed0-cpu.json": b"new", "head/noise.log": b"ignored"})
    hand_over(runs, results)
    assert contents(results / ARCHIVE) == {"head/b-seed0-cpu.json": b"new"}


def test_a_probe_that_is_committed_is_handed_over_when_it_changes_and_a_record_never(runs, results):
    lay(runs, {"probes/lines.jsonl": b"one\n", "probes/same.json": b"{}", "probes/gone": b""})
    git(runs.parent, "init", "--quiet")
    git(runs.parent, "add", ".")
    git(runs.parent, "commit", "--quiet", "--message", "what is there before")
    lay(runs, {"probes/lines.jsonl": b"one\ntwo\n", "collapse/a-seed0-cpu.json": b"edited"})
    (runs / "probes" / "gone").unlink()
    hand_over(runs, results)
    assert contents(results / ARCHIVE) == {"probes/lines.jsonl": b"one\ntwo\n"}


def test_a_runs_folder_that_its_checkout_ignores_is_handed_over_whole(runs, results):
    git(runs.parent, "init", "--quiet")
    lay(runs.parent, {".gitignore": f"{runs.name}/\n".encode()})
    hand_over(runs, results)
    assert "collapse/a-seed0-cpu.json" in contents(results / ARCHIVE)


def test_weights_lie_beside_the_archive_and_are_copied_once(runs, results):
    lay(runs, {"collapse/a-seed0-cpu.safetensors": b"weights"})
    hand_over(runs, results)
    beside = results / "runs--collapse--a-seed0-cpu.safetensors"
    assert beside.name == weights_name("collapse/a-seed0-cpu")
    assert beside.read_bytes() == b"weights"
    assert not any(name.endswith(".safetensors") for name in contents(results / ARCHIVE))
    beside.write_bytes(b"stay as")  # of the same size
    hand_over(runs, results)
    assert beside.read_bytes() == b"stay as"
    beside.write_bytes(b"cut")
    hand_over(runs, results)
    assert beside.read_bytes() == b"weights"


def test_names_of_weights_hold_plain_letters_only():
    assert weights_name("a b/c%3a-seed0") == "runs--a_b--c_3a-seed0.safetensors"


def test_an_archive_keeps_what_another_machine_handed_over(runs, results, tmp_path):
    hand_over(runs, results)
    other = tmp_path / "other"
    lay(other, {"head/b-seed0-cpu.json": b"b", "probes/events/trace.json.gz": b"newer"})
    kept = {
        "collapse/a-seed0-cpu.json": b"{}",
        "head/b-seed0-cpu.json": b"b",
        "probes/events/trace.json.gz": b"trace",
        "probes/events/trace.json.gz.2": b"newer",
    }
    for _ in range(2):
        hand_over(other, results)
        assert contents(results / ARCHIVE) == kept


def test_lines_in_an_archive_are_never_fewer(runs, results, tmp_path):
    lines = "probes/lines.jsonl"
    lay(runs, {lines: b"one\ntwo\n"})
    hand_over(runs, results)
    other = tmp_path / "other"
    for written, kept in (
        (b"one\n", [b"one\ntwo\n"]),
        (b"one\ntwo\nthree\n", [b"one\ntwo\nthree\n"]),
        (b"four\n", [b"one\ntwo\nthree\n", b"four\n"]),
        (b"four\nfive\n", [b"one\ntwo\nthree\n", b"four\nfive\n"]),
    ):
        lay(other, {lines: written})
        hand_over(other, results)
        found = contents(results / ARCHIVE)
        assert [found[name] for name in sorted(found) if name.startswith(lines)] == kept


@given(versions=st.lists(st.text("ab", max_size=4).map(str.encode)))
def test_no_version_of_a_file_is_lost_and_none_is_kept_twice(versions):
    files: dict[str, bytes] = {}
    for data in versions:
        target, adds = handover.place("probes/a.json", data, files.get)
        if adds:
            files[target] = data
    for data in versions:
        assert any(kept.startswith(data) for kept in files.values())
        assert not handover.place("probes/a.json", data, files.get)[1]
    assert {handover.original(name, files) for name in files} <= {"probes/a.json"}


def test_an_archive_that_cannot_be_read_is_put_aside_and_not_lost(runs, results):
    for torn in (b"torn on its way", b"torn once more"):
        lay(results, {ARCHIVE: torn})
        hand_over(runs, results)
    assert (results / TORN_ARCHIVE).read_bytes() == b"torn on its way"
    assert (results / "records-torn-2.tar.gz").read_bytes() == b"torn once more"
    assert "collapse/a-seed0-cpu.json" in contents(results / ARCHIVE)


def test_what_a_quarter_of_an_hour_gives_comes_back_in_eight_files_below_16_mib(runs, results):
    """A hundred records, sixty traces, one kept network of 8 MB, a log and a report."""
    noise = random.Random(0)
    for number in range(100):
        lay(runs, {f"collapse/run{number}-seed0-gpu.json": noise.randbytes(8_000).hex().encode()})
    for number in range(60):
        lay(runs, {f"probes/events/case{number}.json.gz": noise.randbytes(20_000)})
    lay(runs, {"collapse/run0-seed0-gpu.safetensors": noise.randbytes(8_000_000)})
    lay(results, {"log.txt": b"", "selfcheck.json": b"{}"})
    hand_over(runs, results)
    handed_over = list(results.rglob("*"))
    assert len(handed_over) <= 8
    assert max(path.stat().st_size for path in handed_over) < 16 * MEBIBYTE
    assert (results / ARCHIVE).stat().st_size < 4 * MEBIBYTE


# ---------------------------------------------------------------- killed at any moment


def killed_at(moment: int, runs: Path, results: Path) -> bool:
    """Whether handing over was killed at its nth touch of a file in results; False: it ended."""
    child = os.fork()
    if child == 0:
        touched = 0

        def kill(event: str, arguments: tuple[object, ...]) -> None:
            nonlocal touched
            if event.startswith(("open", "os.")) and str(results) in str(arguments):
                touched += 1
                if touched == moment:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(kill)
        try:
            hand_over(runs, results)
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


def test_whoever_is_killed_at_any_moment_leaves_the_old_archive_or_the_new_one(runs, results):
    hand_over(runs, results)
    old = contents(results / ARCHIVE)
    added = {"head/b-seed0-cpu.json": b"{}", "head/b-seed0-cpu.safetensors": b"weights"}
    lay(runs, added)
    new = old | {"head/b-seed0-cpu.json": b"{}"}
    found, moment = [], 1
    while killed_at(moment, runs, results):
        found.append(contents(results / ARCHIVE))
        assert found[-1] in (old, new)
        weights = results / weights_name("head/b-seed0-cpu")
        if found[-1] == new:
            assert weights.read_bytes() == b"weights"
        weights.unlink(missing_ok=True)
        moment += 1
    assert old in found
    assert new in found
    assert contents(results / ARCHIVE) == new
    assert not list(results.glob(".*"))  # what the killed ones left was removed


def test_the_temporary_file_of_a_living_process_stays(runs, results):
    alive = f".{ARCHIVE}.{socket.gethostname()}.{os.getppid()}.tmp"
    lay(results, {alive: b"half", f".{ARCHIVE}.elsewhere.1.tmp": b"half"})
    hand_over(runs, results)
    assert [path.name for path in results.glob(".*")] == [alive]


# ---------------------------------------------------------------- what is read again


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_a_torn_archive_is_refused(runs, results, share):
    lay(runs, {"collapse/c-seed0-cpu.json": random.Random(1).randbytes(30_000)})
    hand_over(runs, results)
    whole = (results / ARCHIVE).read_bytes()
    (results / ARCHIVE).write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(RecordError, match=r"records.tar.gz (cannot be read|is missing)"):
        contents(results / ARCHIVE)


def test_a_changed_byte_of_an_archive_is_noticed(runs, results):
    lay(runs, {"collapse/c-seed0-cpu.json": random.Random(1).randbytes(30_000)})
    hand_over(runs, results)
    whole = bytearray((results / ARCHIVE).read_bytes())
    whole[len(whole) // 2] ^= 1
    (results / ARCHIVE).write_bytes(whole)
    with pytest.raises(RecordError, match="cannot be read"):
        contents(results / ARCHIVE)


def test_a_missing_archive_is_named(results):
    with pytest.raises(RecordError, match=r"results/records.tar.gz is missing"):
        contents(results / ARCHIVE)


@pytest.mark.parametrize(
    "member",
    [
        file_named("/runs/a/b.json"),
        file_named("runs/../b.json"),
        file_named("../runs/a/b.json"),
        file_named("ninlab/training.py"),
        file_named("runs"),
        file_named("runs/a/b\n.json"),
        file_named("runs/.claims/a.lock"),
        file_named("runs/a/b.json", tarfile.SYMTYPE),
        file_named("runs/a/b.json", tarfile.LNKTYPE),
        file_named("runs/a/b.json", tarfile.FIFOTYPE),
        file_named("runs/a/b.json", tarfile.GNUTYPE_SPARSE),
    ],
    ids=lambda member: f"{member.name} {member.type!r}",
)
def test_an_archive_that_could_write_elsewhere_is_refused(results, member):
    pack(results / ARCHIVE, file_named("runs/a/harmless.json"), member)
    with pytest.raises(RecordError, match="only visible, regular files below runs/"):
        contents(results / ARCHIVE)


def test_an_archive_that_unpacks_to_more_than_records_do_is_refused_before_it_is_unpacked(
    results, monkeypatch
):
    monkeypatch.setattr(handover, "LARGEST_BYTES", MEBIBYTE)
    harmless, bomb = file_named("runs/a/harmless.json"), file_named("runs/a/bomb.json")
    bomb.size = 32 * MEBIBYTE
    pack(results / ARCHIVE, harmless, bomb)
    tracemalloc.start()
    with pytest.raises(RecordError, match=r"unpacks to more than 1\.00 MiB"):
        contents(results / ARCHIVE)
    assert tracemalloc.get_traced_memory()[1] < 3 * MEBIBYTE
    tracemalloc.stop()


def test_an_archive_that_goes_on_after_its_files_is_refused(results, monkeypatch):
    monkeypatch.setattr(handover, "LARGEST_BYTES", MEBIBYTE)
    pack(results / ARCHIVE, file_named("runs/a/harmless.json"))
    with (results / ARCHIVE).open("ab") as file:
        file.write(gzip.compress(bytes(2 * MEBIBYTE)))
    with pytest.raises(RecordError, match="unpacks to more"):
        contents(results / ARCHIVE)


def test_nothing_is_handed_over_that_could_not_be_read_again(runs, results, monkeypatch):
    monkeypatch.setattr(handover, "LARGEST_BYTES", MEBIBYTE)
    lay(runs, {"probes/large.json": bytes(1000 * 1024)})
    hand_over(runs, results)
    before = contents(results / ARCHIVE)
    assert len(before["probes/large.json"]) == 1000 * 1024
    lay(runs, {"probes/large.json": bytes(MEBIBYTE)})
    with pytest.raises(RecordError, match=r"3 files are too many for one archive.*1.00 MiB"):
        hand_over(runs, results)
    assert contents(results / ARCHIVE) == before


def test_a_new_machine_takes_up_what_it_lacks_and_changes_nothing(runs, results, tmp_path):
    hand_over(runs, results)
    fresh = tmp_path / "fresh"
    lay(fresh, {"collapse/a-seed0-cpu.json": b"its own"})
    assert take_up(fresh, results) == 1
    assert (fresh / "collapse/a-seed0-cpu.json").read_bytes() == b"its own"
    assert (fresh / "probes/events/trace.json.gz").read_bytes() == b"trace"
    assert take_up(fresh, results) == 0


def test_a_new_machine_goes_on_with_a_probe_of_which_it_has_the_beginning(runs, results, tmp_path):
    written = {"probes/lines.jsonl": b"one\ntwo\n", "probes/a.jsonl": b"one\n"}
    lay(runs, {**written, "probes/b.jsonl": b"one\n"})
    hand_over(runs, results)
    fresh = tmp_path / "fresh"
    lay(fresh, {"probes/lines.jsonl": b"one\n", "probes/a.jsonl": b"one\ntwo\n"})
    lay(fresh, {"probes/b.jsonl": b"its own\n"})
    take_up(fresh, results)
    assert (fresh / "probes/lines.jsonl").read_bytes() == b"one\ntwo\n"
    assert (fresh / "probes/a.jsonl").read_bytes() == b"one\ntwo\n"
    assert (fresh / "probes/b.jsonl").read_bytes() == b"its own\n"


@pytest.mark.parametrize("inside", ["", "results", "x/../results"])
def test_an_archive_never_holds_itself(inside, runs):
    with pytest.raises(RecordError, match="lies in the runs folder"):
        hand_over(runs, runs / inside)


def test_nothing_is_taken_up_where_nothing_was_handed_over(runs, results):
    assert take_up(runs, results) == 0


# ---------------------------------------------------------------- for a shell


def test_a_shell_hands_over_and_takes_up(runs, results, tmp_path):
    fresh = tmp_path / "fresh"
    assert handover.main([str(runs), str(results)]) == 0
    assert handover.main(["--take-up", str(fresh), str(results)]) == 0
    assert (fresh / "collapse/a-seed0-cpu.json").is_file()


def test_what_cannot_be_handed_over_is_one_sentence_and_code_2(runs, results, capsys):
    lay(results.parent, {"results": b"a file"})
    assert handover.main([str(runs), str(results)]) == 2
    assert handover.main([str(runs / "nowhere"), str(results)]) == 2
    assert handover.main(["--take_up"]) == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 3
    assert "could not be brought to" in said[0]
    assert "is no folder" in said[1]
    assert said[2].startswith("usage: ")
