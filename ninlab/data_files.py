"""Where are the four files of Fashion-MNIST, are they the published ones, and how do they get here?

They are looked for in the folder that the environment variable NINLAB_DATA names, then where
Debian's package dataset-fashion-mnist puts them, then in the user's cache; only then are they
downloaded into that cache. Checksums are of the decompressed content, because distributions
compress the same bytes again.

Folders of others are only read: a wrong file there is named and left in place. The cache is ours:
what it lacks, or holds damaged, is downloaded. A file gets its name there last, when it has been
checked, so whatever ends a download leaves whole files alone, and the next one goes on with the
rest. One process downloads. The others wait, for a lock that ends with the process that holds it.

``python -m ninlab.data_files`` prints the folder, downloading where there is none yet;
``--find`` only looks, and exits with 1 where there is none. What is wrong is one sentence and 2.

Needs the standard library only, so that any Python can look; torchvision and filelock to download.
Known limit: Fashion-MNIST only.
"""

from __future__ import annotations

import argparse
import bz2
import gzip
import hashlib
import math
import os
import shutil
import socket
import sys
import tempfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import BinaryIO

from ninlab import exits
from ninlab.errors import DataError, one_sentence, quoted

FOLDER_VARIABLE = "NINLAB_DATA"
DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")
_TORCHVISION_SUBFOLDER = Path("FashionMNIST", "raw")
_LOCK = "download.lock"
_PART = "download-"
"""How the folders begin into which downloads go, beside the lock."""

_LONGEST_REASON = 120  # characters

_SUFFIXES = (".gz", ".bz2", "")
"""Of a file, compressed or not. A kit for a GPU machine has the smallest, those of bzip2."""

SILENCE_SECONDS = 60
"""After so long without a byte a mirror is given up."""


@dataclass(frozen=True)
class IdxFile:
    """One published file: sha256 of its decompressed bytes and the shape they hold."""

    sha256: str
    shape: tuple[int, ...]

    @property
    def header(self) -> bytes:
        """The bytes before the first value: type 8 = uint8, rank, then each size."""
        sizes = b"".join(size.to_bytes(4, "big") for size in self.shape)
        return bytes((0, 0, 8, len(self.shape))) + sizes

    @property
    def size(self) -> int:
        """How many bytes it has when it is not compressed."""
        return len(self.header) + math.prod(self.shape)


FILES: Mapping[str, IdxFile] = {
    "train-images-idx3-ubyte": IdxFile(
        "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888", (60000, 28, 28)
    ),
    "train-labels-idx1-ubyte": IdxFile(
        "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9", (60000,)
    ),
    "t10k-images-idx3-ubyte": IdxFile(
        "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b", (10000, 28, 28)
    ),
    "t10k-labels-idx1-ubyte": IdxFile(
        "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34", (10000,)
    ),
}
"""The published data set. Source: Xiao2017; tests/test_data_files.py holds its md5 sums too."""


# ---------------------------------------------------------------- finding


def user_cache() -> Path | None:
    """Where downloads go: XDG_CACHE_HOME/ninlab, by default ~/.cache/ninlab.

    None for a user who has no home folder. A relative XDG_CACHE_HOME counts as none, as the XDG
    Base Directory Specification has it.
    """
    base = os.environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(base):
        base = os.path.expanduser("~/.cache")
    return Path(base, "ninlab") if os.path.isabs(base) else None


def search_folders() -> tuple[Path, ...]:
    """The folders that may hold the data, in the order in which they are tried.

    Raises DataError when NINLAB_DATA names no folder.
    """
    cache = user_cache()
    known = (DEBIAN_FOLDER, *([cache / _TORCHVISION_SUBFOLDER] if cache else []))
    chosen = os.environ.get(FOLDER_VARIABLE)
    if not chosen:
        return known
    folder = Path(os.path.expanduser(chosen))
    if not os.path.isdir(folder):
        raise DataError(
            f"{FOLDER_VARIABLE} is {quoted(chosen)}, which is no folder; "
            "name the one that holds train-images-idx3-ubyte.gz, or unset it"
        )
    return (folder, folder / _TORCHVISION_SUBFOLDER, *known)


def find() -> Path | None:
    """The first folder that holds all four files, or None when there is none.

    Raises DataError when a folder of others holds some of them: a half-copied data set is never
    completed from elsewhere behind the reader's back. `download` completes the user's cache.
    """
    for folder in search_folders():
        missing = [name for name in FILES if path_in(folder, name) is None]
        if not missing:
            return folder
        if len(missing) < len(FILES) and not _is_ours(folder):
            raise DataError(
                f"{folder} lacks {', '.join(missing)}; copy the missing file there (.gz, .bz2 or "
                f"unpacked), or point {FOLDER_VARIABLE} to a whole copy"
            )
    return None


def path_in(folder: Path, name: str) -> Path | None:
    """Where that folder has one of FILES, compressed or not; None where it has not."""
    candidates = (folder / f"{name}{suffix}" for suffix in _SUFFIXES)
    return next((path for path in candidates if os.path.isfile(path)), None)


def _is_ours(folder: Path) -> bool:
    """Whether a folder is the cache's, by whatever name: a link may lead there."""
    cache = user_cache()
    ours = cache and os.path.realpath(cache / _TORCHVISION_SUBFOLDER)
    return os.path.realpath(folder) == ours


# ---------------------------------------------------------------- reading and checking


def _opened(path: Path) -> gzip.GzipFile | bz2.BZ2File | BinaryIO:
    match path.suffix:
        case ".gz":
            return gzip.open(path)
        case ".bz2":
            return bz2.open(path)
        case _:
            return path.open("rb")


def read(folder: Path, name: str) -> bytes:
    """The decompressed content of one of FILES, checked against the published checksum.

    Reads one byte more than the published file has, at most, whatever a file unpacks to. Raises
    DataError, and leaves the file in place, when it is missing, damaged, or not the published one.
    """
    path = path_in(folder, name)
    if path is None:
        raise DataError(f"{folder} holds neither {name}.gz nor {name}")
    published = FILES[name]
    try:
        with _opened(path) as file:
            content = file.read(published.size + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read ({error}); replace it with a whole copy") from error
    if len(content) > published.size:
        raise DataError(
            f"{path} is larger than the published file, which has {published.size:,} bytes; it was "
            "left in place, replace it or move it away"
        )
    digest = hashlib.sha256(content).hexdigest()
    if digest != published.sha256:
        raise DataError(
            f"{path} is not the published file: its content has sha256 {digest[:12]}…, expected "
            f"{published.sha256[:12]}…; it was left in place, replace it or move it away"
        )
    return content


def load() -> tuple[Path, Mapping[str, bytes]]:
    """(the folder of the four files, the decompressed content of each), all of them checked.

    They are downloaded where no folder has them, and again where the user's cache holds damaged
    ones. Raises DataError when they cannot be had, or a folder of others holds a wrong one.
    """
    folder = find() or download()
    try:
        return folder, {name: read(folder, name) for name in FILES}
    except DataError:
        if not _is_ours(folder):
            raise
    folder = download()
    return folder, {name: read(folder, name) for name in FILES}


# ---------------------------------------------------------------- downloading


def download() -> Path:
    """The folder of the user's cache, once it holds the whole data set.

    What is there and whole is kept; the rest comes from torchvision's mirrors, with a progress bar,
    its md5 sums and ours. Waits where another process is downloading. Raises DataError when the
    network does not answer or the folder cannot be written.
    """
    cache = user_cache()
    if cache is None:
        raise DataError(
            "Fashion-MNIST cannot be downloaded for a user without a home folder; name a folder "
            f"with the four files in {FOLDER_VARIABLE}, or one for downloads in XDG_CACHE_HOME"
        )
    folder = cache / _TORCHVISION_SUBFOLDER
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _only_here(cache / _LOCK):
            missing = [name for name in FILES if not _is_whole(folder, name)]
            if missing:
                _sweep(cache)
                print(f"downloading {', '.join(missing)} of Fashion-MNIST to {folder}",
                      file=sys.stderr)  # fmt: skip
                with tempfile.TemporaryDirectory(prefix=_PART, dir=cache) as part:
                    for name in missing:
                        _publish(_fetched(name, Path(part)), folder / f"{name}.gz")
    except OSError as error:
        reason = one_sentence(error, _LONGEST_REASON)
        raise DataError(
            f"Fashion-MNIST could not be downloaded to {folder}: {reason}; "
            f"point {FOLDER_VARIABLE} to a folder with the four files"
        ) from error
    return folder


@contextmanager
def _only_here(lock_file: Path) -> Iterator[None]:
    """Hold the lock, and say so where it must be awaited. It ends with this process at the latest.

    Its file is filelock's: whoever else removed it would let two processes hold two files of one
    name. Raises OSError where the system refuses a lock. Where a file system has none at all
    (ENOSYS), filelock may take the file itself for the lock. That one outlives a killed process;
    the sentence on waiting names the file to remove.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(lock_file)
    try:
        try:
            lock.acquire(timeout=0)
        except Timeout:
            print(f"another process downloads Fashion-MNIST, waiting for it (it holds {lock_file})",
                  file=sys.stderr)  # fmt: skip
            lock.acquire()
        except NotImplementedError as error:
            raise OSError(f"its file system has no locks ({error})") from error
        yield
    finally:
        lock.release()


def _is_whole(folder: Path, name: str) -> bool:
    try:
        read(folder, name)
    except DataError:
        return False
    return True


def _sweep(cache: Path) -> None:
    """Remove what killed processes have left; only one that holds the lock may ask for it."""
    for leftover in cache.glob(f"{_PART}*/"):
        shutil.rmtree(leftover, ignore_errors=True)


def _fetched(name: str, into: Path) -> Path:
    """The path of one of FILES, just downloaded into that folder and checked there.

    Raises DataError, with what the last mirror's was, when none gives it or it cannot be written.
    """
    from torchvision.datasets import FashionMNIST
    from torchvision.datasets.utils import download_url

    path = into / f"{name}.gz"
    md5 = dict(FashionMNIST.resources)[path.name]
    reason = "torchvision names no mirror"
    for mirror in FashionMNIST.mirrors:
        try:
            with _no_endless_silence():
                download_url(f"{mirror}{path.name}", str(into), path.name, md5)
            if _is_whole(into, name):
                return path
            reason = f"{mirror} gives another file than the published one"
        except (OSError, RuntimeError, ValueError, HTTPException) as error:
            reason = one_sentence(error, _LONGEST_REASON)
    raise DataError(
        f"Fashion-MNIST could not be downloaded ({path.name}: {reason}); install Debian's "
        f"dataset-fashion-mnist or point {FOLDER_VARIABLE} to a folder with the four files"
    )


@contextmanager
def _no_endless_silence() -> Iterator[None]:
    """Give up a connection that says nothing: torchvision sets no limit of its own."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(SILENCE_SECONDS)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _publish(path: Path, target: Path) -> None:
    """Give a file its name, under which there is nothing, or the older one, or all of it."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())
    path.replace(target)
    with suppress(OSError):  # where a folder has no fsync, a power cut may cost the download
        folder = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


# ---------------------------------------------------------------- for a shell


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the folder of the data set: 0 done, 1 where it is nowhere.

    Raises DataError where the folder of a reader is wrong, or the data cannot be had.
    """
    parser = argparse.ArgumentParser(
        prog="python -m ninlab.data_files", description="Print the folder of Fashion-MNIST."
    )
    parser.add_argument("--find", action="store_true", help="only look, and download nothing")
    folder = find() if parser.parse_args(arguments).find else load()[0]
    if folder is None:
        return 1
    print(folder)
    return 0


if __name__ == "__main__":
    exits.run(main)
