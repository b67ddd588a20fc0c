"""The files of Fashion-MNIST are found in the stated order, are the published ones, and come whole
into the cache, whatever happens to a download.
"""

import bz2
import errno
import fcntl
import gzip
import hashlib
import os
import signal
import subprocess
import sys
import time
import tracemalloc
from collections import Counter
from collections.abc import Iterator
from contextlib import redirect_stderr
from pathlib import Path

import pytest
import torch
from torchvision.datasets import FashionMNIST

from ninlab import data, data_files
from ninlab.errors import DataError
from tests import download_faults
from tests.download_faults import CONTENTS, PACKED, SHAPES, Mirror, ending, in_a_child

# The md5 sums under which the unpacked files are known; several public libraries check them.
PUBLISHED_MD5 = {
    "train-images-idx3-ubyte": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
    "train-labels-idx1-ubyte": "9018921c3c673c538a1fc5bad174d6f9",
    "t10k-images-idx3-ubyte": "8181f5470baa50b63fa0f6fddb340f0a",
    "t10k-labels-idx1-ubyte": "15d484375f8d13e6eb1aabb0c3f46965",
}


@pytest.fixture(scope="session")
def published() -> Path:
    """A folder that holds the real files, compressed or not."""
    data.fashion_mnist()
    folder = data_files.find()
    assert folder is not None
    return folder


@pytest.fixture
def nowhere(monkeypatch, tmp_path) -> Path:
    """A machine without the data: an empty NINLAB_DATA, no Debian package, an empty cache."""
    chosen = tmp_path / "chosen"
    chosen.mkdir()
    monkeypatch.setenv(data_files.FOLDER_VARIABLE, str(chosen))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(data_files, "DEBIAN_FOLDER", tmp_path / "debian")
    return tmp_path


@pytest.fixture
def mirror() -> Mirror:
    """Small files for the published ones, and how the mirror answers."""
    return Mirror()


@pytest.fixture
def bare(mirror, tmp_path) -> Iterator[Path]:
    """The cache of a machine that has no data and can download the small files."""
    with download_faults.machine(tmp_path, mirror) as cache:
        yield cache


def link_all(source: Path, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in data_files.FILES:
        path = data_files.path_in(source, name)
        (folder / path.name).symlink_to(path)


# ---------------------------------------------------------------- finding


def test_the_content_is_the_published_one(published):
    for name, md5 in PUBLISHED_MD5.items():
        path = data_files.path_in(published, name)
        content = path.read_bytes()
        content = gzip.decompress(content) if path.suffix == ".gz" else content
        assert hashlib.md5(content).hexdigest() == md5
        assert hashlib.sha256(content).hexdigest() == data_files.FILES[name].sha256
        assert content.startswith(data_files.FILES[name].header)


def test_folders_are_tried_in_the_stated_order(nowhere, published):
    assert data_files.find() is None
    order = [
        nowhere / "cache/ninlab/FashionMNIST/raw",
        nowhere / "debian",
        nowhere / "chosen/FashionMNIST/raw",
        nowhere / "chosen",
    ]
    for folder in order:  # each new one is tried before all that were there
        link_all(published, folder)
        assert data_files.find() == folder


def test_a_chosen_folder_that_is_none_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv(data_files.FOLDER_VARIABLE, str(tmp_path / "nothing"))
    with pytest.raises(DataError, match=r"nothing.*is no folder"):
        data_files.find()


@pytest.mark.parametrize("chosen", ["a" * 5000, "~nobody-of-this-name/data", "~", "a\nb"])
def test_a_chosen_folder_that_no_file_system_could_have_is_named_in_one_short_line(
    monkeypatch, tmp_path, chosen
):
    monkeypatch.setenv("HOME", str(tmp_path / "no home"))
    monkeypatch.setenv(data_files.FOLDER_VARIABLE, chosen)
    with pytest.raises(DataError, match="is no folder") as refused:
        data_files.find()
    assert f"NINLAB_DATA is {chosen[:9]!r}"[:-1] in str(refused.value)
    assert len(str(refused.value)) < 300
    assert "\n" not in str(refused.value)


def test_a_cache_folder_that_is_relative_counts_as_none(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    for base in ("", "cache", "./cache"):
        monkeypatch.setenv("XDG_CACHE_HOME", base)
        assert data_files.user_cache() == tmp_path / ".cache" / "ninlab"


def test_a_user_without_a_home_folder_finds_the_data_and_cannot_download(nowhere, monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # as it does for such a user
    assert data_files.find() is None
    with pytest.raises(DataError, match=r"without a home folder.*NINLAB_DATA.*XDG_CACHE_HOME"):
        data_files.download()


def test_a_half_copied_data_set_is_not_completed_from_elsewhere(nowhere, published):
    link_all(published, nowhere / "chosen")
    next((nowhere / "chosen").glob("t10k-labels*")).unlink()
    link_all(published, nowhere / "debian")
    with pytest.raises(DataError, match="chosen lacks t10k-labels-idx1-ubyte;"):
        data_files.find()


@pytest.mark.parametrize("packed", [gzip, bz2])
@pytest.mark.parametrize("damage", ["truncated", "other content", "no gzip at all", "empty"])
def test_a_wrong_file_is_named_and_left_in_place(tmp_path, damage, packed):
    name = "t10k-labels-idx1-ubyte"
    path = tmp_path / f"{name}.{'gz' if packed is gzip else 'bz2'}"
    whole = packed.compress(b"\0" * 10008)
    content = {"truncated": whole[:-20], "other content": whole,
               "no gzip at all": b"<html>404</html>", "empty": b""}[damage]  # fmt: skip
    path.write_bytes(content)
    with pytest.raises(DataError, match=str(path)):
        data.read_idx(tmp_path, name)
    assert path.read_bytes() == content


def test_a_file_that_is_not_there_is_named_packed_and_unpacked(tmp_path):
    with pytest.raises(DataError, match=r"neither t10k-labels-idx1-ubyte.gz nor t10k-labels"):
        data.read_idx(tmp_path, "t10k-labels-idx1-ubyte")


def test_a_file_that_unpacks_to_more_is_refused_without_being_unpacked(bare, tmp_path):
    name = "t10k-labels-idx1-ubyte"
    (tmp_path / f"{name}.gz").write_bytes(gzip.compress(bytes(2**25), 1, mtime=0))
    tracemalloc.start()
    with pytest.raises(DataError, match=r"larger than the published file, which has 11 bytes"):
        data_files.read(tmp_path, name)
    assert tracemalloc.get_traced_memory()[1] < 2**20  # a buffer of zlib's, not the file
    tracemalloc.stop()


def test_a_file_that_goes_on_after_the_published_content_is_refused(bare, tmp_path):
    name = "t10k-labels-idx1-ubyte"
    (tmp_path / name).write_bytes(CONTENTS[name] + b"\0")
    with pytest.raises(DataError, match="larger than the published file"):
        data_files.read(tmp_path, name)


def test_an_unpacked_file_is_as_good_as_a_packed_one(tmp_path, published):
    name = "t10k-labels-idx1-ubyte"
    packed = data.read_idx(published, name)
    values = packed.numpy().tobytes()
    (tmp_path / name).write_bytes(data_files.FILES[name].header + values)
    assert torch.equal(data.read_idx(tmp_path, name), packed)


# ---------------------------------------------------------------- downloading


def raw(cache: Path) -> Path:
    return cache / "FashionMNIST" / "raw"


def child(errors: Path) -> int:
    """A process that starts on this machine, and writes to that file what it says."""

    def start() -> None:
        with errors.open("w", buffering=1) as file, redirect_stderr(file):
            data_files.load()

    return in_a_child(start)


def wait_until(happened) -> None:
    deadline = time.monotonic() + download_faults.SECONDS
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_a_machine_without_the_data_downloads_it_into_the_cache(bare, mirror, capfd):
    assert data_files.find() is None
    folder, contents = data_files.load()
    assert folder == data_files.find() == raw(bare)
    assert contents == CONTENTS
    assert {path.name for path in folder.iterdir()} == {f"{name}.gz" for name in SHAPES}
    captured = capfd.readouterr()
    assert "100%" in captured.err  # a progress bar was drawn
    assert captured.out == ""


def test_what_is_there_and_whole_is_not_downloaded_again(bare, mirror):
    data_files.load()
    mirror.asked.clear()
    data_files.load()
    data_files.download()
    assert mirror.asked == []
    (raw(bare) / "t10k-labels-idx1-ubyte.gz").unlink()
    assert data_files.load()[1] == CONTENTS
    assert mirror.asked == ["t10k-labels-idx1-ubyte"]


def test_a_download_that_fails_says_what_else_can_be_done(bare, mirror):
    mirror.answer = lambda name, packed: packed if name.startswith("train") else None
    with pytest.raises(DataError, match=r"could not be downloaded.*dataset-fashion-mnist"):
        data_files.download()
    mirror.answer = lambda name, packed: packed
    mirror.asked.clear()
    assert data_files.load()[1] == CONTENTS
    assert set(mirror.asked) == {name for name in SHAPES if name.startswith("t10k")}


def test_content_that_only_torchvisions_sums_fit_does_not_get_into_the_cache(
    bare, mirror, monkeypatch
):
    others = {name: gzip.compress(bytes(len(CONTENTS[name])), mtime=0) for name in SHAPES}
    sums = [(f"{name}.gz", hashlib.md5(packed).hexdigest()) for name, packed in others.items()]
    monkeypatch.setattr(FashionMNIST, "resources", sums)
    monkeypatch.setattr(download_faults, "PACKED", others)
    with pytest.raises(DataError, match="gives another file than the published one"):
        data_files.load()
    assert list(raw(bare).iterdir()) == []


def test_another_mirror_is_asked_when_one_fails(bare, mirror, monkeypatch):
    (works,) = FashionMNIST.mirrors
    monkeypatch.setattr(FashionMNIST, "mirrors", ["http://127.0.0.1:1/", "ftp:/", "x:", works])
    assert data_files.load()[1] == CONTENTS


def test_a_mirror_that_falls_silent_is_given_up(bare, mirror, monkeypatch):
    monkeypatch.setattr(data_files, "SILENCE_SECONDS", 0.05)
    mirror.open.clear()
    with pytest.raises(DataError, match="timed out"):
        data_files.load()
    mirror.open.set()
    assert data_files.load()[1] == CONTENTS


@pytest.mark.parametrize("place", ["cache", "cache/ninlab", "cache/ninlab/FashionMNIST"])
def test_a_cache_that_cannot_be_written_is_named(bare, mirror, tmp_path, place):
    (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / place).write_text("a file in the way")
    with pytest.raises(DataError, match=f"could not be downloaded to {raw(bare)}"):
        data_files.load()
    assert (tmp_path / place).read_text() == "a file in the way"


def test_a_system_that_has_no_locks_left_is_not_waited_for(bare, mirror, monkeypatch):
    def refuse(descriptor, operation):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(DataError, match=r"could not be downloaded.*No locks available"):
        data_files.download()
    assert mirror.asked == []


def test_the_cache_is_ours_by_whatever_name_it_is_chosen(bare, mirror, monkeypatch, tmp_path):
    (tmp_path / "link").symlink_to(raw(bare))
    data_files.download()
    name, *_ = data_files.FILES
    for chosen in (tmp_path / "link", raw(bare) / ".." / "raw"):
        monkeypatch.setenv(data_files.FOLDER_VARIABLE, str(chosen))
        (raw(bare) / f"{name}.gz").unlink()
        assert data_files.load() == (raw(bare), CONTENTS)
        (raw(bare) / f"{name}.gz").write_bytes(b"damaged")
        assert data_files.load() == (raw(bare), CONTENTS)


def test_a_damaged_file_of_others_is_not_replaced(bare, mirror, monkeypatch, tmp_path):
    others = tmp_path / "others"
    others.mkdir()
    for name, packed in PACKED.items():
        (others / f"{name}.gz").write_bytes(packed[:-1])
    monkeypatch.setenv(data_files.FOLDER_VARIABLE, str(others))
    with pytest.raises(DataError, match=str(others)):
        data_files.load()
    assert mirror.asked == []
    assert {path.stem: path.read_bytes() for path in others.iterdir()} == {
        name: packed[:-1] for name, packed in PACKED.items()
    }


def test_of_three_processes_at_once_one_downloads_and_the_others_wait(bare, mirror, tmp_path):
    mirror.open.clear()
    said = [tmp_path / f"{number}.txt" for number in range(3)]
    processes = [child(errors) for errors in said]

    def who_waits() -> list[bool]:
        sentence = f"waiting for it (it holds {bare / 'download.lock'})"
        return sorted(sentence in path.read_text() for path in said if path.exists())

    wait_until(lambda: who_waits() == [False, True, True])
    mirror.open.set()
    assert [ending(process) for process in processes] == [0, 0, 0]
    assert Counter(mirror.asked) == dict.fromkeys(SHAPES, 1)
    assert data_files.find() == raw(bare)


def test_who_waits_takes_over_from_a_process_that_is_killed(bare, mirror, tmp_path):
    def hold_the_second(name: str, packed: bytes) -> bytes:
        if len(mirror.asked) == 2:
            mirror.open.clear()
            mirror.open.wait(download_faults.SECONDS)
        return packed

    mirror.answer = hold_the_second
    killed = child(tmp_path / "killed.txt")
    wait_until(lambda: len(mirror.asked) == 2)
    heir = child(tmp_path / "heir.txt")
    heirs_words = tmp_path / "heir.txt"
    wait_until(lambda: heirs_words.exists() and "waiting" in heirs_words.read_text())
    os.kill(killed, signal.SIGKILL)
    assert ending(killed) == -signal.SIGKILL
    mirror.open.set()
    assert ending(heir) == 0
    assert Counter(mirror.asked).total() == len(SHAPES) + 1  # only what was cut comes again
    assert [path.name for path in bare.iterdir() if path.is_dir()] == ["FashionMNIST"]


def test_nothing_that_stops_a_download_blocks_the_next_start(tmp_path):
    for place, fault in enumerate(download_faults.spread(36)):
        outcome = download_faults.try_one(fault, tmp_path / str(place))
        assert outcome.is_sound, (fault, outcome)


# ---------------------------------------------------------------- for a shell


def test_the_module_prints_where_the_data_is_and_its_exit_code_says_that_it_is_nowhere(
    bare, mirror, capsys, monkeypatch
):
    assert data_files.main(["--find"]) == 1
    assert capsys.readouterr().out == ""
    assert data_files.main([]) == 0
    assert data_files.main(["--find"]) == 0
    assert capsys.readouterr().out == f"{raw(bare)}\n" * 2


def test_the_module_refuses_in_one_sentence_and_never_as_if_the_data_were_nowhere(nowhere):
    def started(folder, stdout):
        return subprocess.Popen(
            [sys.executable, "-m", "ninlab.data_files", "--find"],
            env={**os.environ, data_files.FOLDER_VARIABLE: str(folder)},
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
        )

    for name in data_files.FILES:
        (nowhere / "chosen" / name).touch()
    with open("/dev/full", "w") as full:
        refused = {
            "NINLAB_DATA is": started(nowhere / "no folder", None),
            "the answer could not be written": started(nowhere / "chosen", full),
        }
    for reason, process in refused.items():
        (said,) = process.communicate()[1].splitlines()
        assert process.returncode == 2
        assert said.startswith(f"error: {reason}")
