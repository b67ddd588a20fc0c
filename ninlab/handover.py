"""How do new records leave a machine that may vanish at any moment, and how are they read again?

`hand_over` writes everything new of a runs folder into one archive in a folder of results, which a
notebook mounts, a batch system copies or a person downloads. The archive is whole at any moment:
whoever kills the process finds the one before or the new one. Kept weights lie beside it, once
each, because they are large and never change. What an archive once held stays in it, so that a
second machine may hand over into the same folder: where both have made a file, the second one's
is called ``<name>.2``, unless one of them only goes on where the other ends.

`contents` reads an archive, `take_up` lays it into a runs folder that has lost it, so that a
recorder on a new machine goes on behind the last one; ``python -m ninlab collect`` checks the
records first, for the book. A shell hands over with ``python -m ninlab.handover RUNS RESULTS``.

Known limits: one machine at a time may hand over into a folder, and an archive unpacks to
`LARGEST_BYTES` at most.
"""

from __future__ import annotations

import gzip
import io
import itertools
import re
import subprocess
import sys
import tarfile
import time
import zlib
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath

from ninlab import exits, records
from ninlab.errors import NinlabError, RecordError
from ninlab.units import format_bytes

ARCHIVE = "records.tar.gz"
TORN_ARCHIVE = "records-torn.tar.gz"
"""Where an archive that cannot be read is put aside, for a person to look at."""

LARGEST_BYTES = 2**28
"""What an archive may unpack to: a hundred times what the book's records and probes have."""

TOP = "runs"
"""The first folder of every name in an archive, whatever the runs folder is called."""

PROBES = "probes"
"""The folder of what is no record: traces, profiles, what a device said of itself."""

WEIGHTS = ".safetensors"


# ---------------------------------------------------------------- out of the machine


def hand_over(folder: Path, results: Path) -> None:
    """Bring everything new of a runs folder into the folder of results, which is made if need be.

    New is what git neither tracks nor ignores, and a probe that differs from the commit; where git
    is missing, or ignores the folder or knows nothing of it, every file is. Hidden files never
    are. Raises RecordError when a folder cannot be read or written, when the results lie in the
    runs folder, or when an archive would unpack to more than `LARGEST_BYTES`; the archive is whole
    then, too: the one before, unless the sentence says that the new one is written.
    """
    if not folder.is_dir():
        raise RecordError(f"{folder} is no folder; name the runs folder that records are made in")
    if results.resolve().is_relative_to(folder.resolve()):
        raise RecordError(
            f"{results} lies in the runs folder, so that each archive would hold the one before; "
            "name a folder of results outside of it"
        )
    new: dict[str, bytes] = {}
    light: dict[str, bytes] = {}
    try:
        results.mkdir(parents=True, exist_ok=True)
        for half_written in records.leftovers(results):
            half_written.unlink(missing_ok=True)
        for name in new_files(folder):
            if not name.endswith(WEIGHTS):
                new[name] = (folder / name).read_bytes()
                continue
            beside = results / weights_name(name.removesuffix(WEIGHTS))
            if not beside.is_file() or beside.stat().st_size != (folder / name).stat().st_size:
                records.write_bytes(beside, (folder / name).read_bytes())
        archive = results / ARCHIVE  # last: the weights that it names lie beside it already
        if archive.exists():
            try:
                light = contents(archive)
            except RecordError:
                archive.replace(_free(results / TORN_ARCHIVE))
    except OSError as error:
        raise RecordError(
            f"the records of {folder} could not be brought to {results}: {error}"
        ) from error
    for name, data in new.items():
        target, adds = place(original(name, new), data, light.get)
        if adds:
            light[target] = data
    records.write_bytes(archive, _packed(light))


def take_up(folder: Path, results: Path) -> int:
    """How many files of the archive in results were laid into the runs folder, which lacked them.

    0 where there is no archive. A probe that the folder has the beginning of goes on as in the
    archive; nothing else that is there is changed. Raises RecordError when the archive cannot be
    read or the folder cannot be written.
    """
    archive = results / ARCHIVE
    if not archive.exists():
        return 0
    try:
        lost = {
            name: data
            for name, data in contents(archive).items()
            if not (folder / name).exists()
            or (is_probe(name) and has_grown((folder / name).read_bytes(), data))
        }
    except OSError as error:
        raise RecordError(f"{folder} cannot be compared with {archive}: {error}") from error
    for name, data in lost.items():
        records.write_bytes(folder / name, data)
    return len(lost)


def weights_name(identifier: str) -> str:
    """What the weights of that run are called beside the archive: one flat, plain file name."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", f"{TOP}--{identifier.replace('/', '--')}{WEIGHTS}")


def new_files(folder: Path) -> Iterator[str]:
    """The new files of a runs folder, as `hand_over` means it, by their names below the folder."""
    untracked = _git(folder, "ls-files", "-z", "--others", "--exclude-standard")
    # Lines are added to probes that are committed; a record is written once.
    changed = _git(folder, "ls-files", "-z", "--modified", "--", PROBES) or ""
    ignores_the_folder = _git(folder, "check-ignore", "--quiet", ".") is not None
    if untracked is None or ignores_the_folder:
        names = [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*"))]
    else:
        names = f"{untracked}{changed}".split("\0")
    for name in names:
        hidden = any(part.startswith(".") for part in name.split("/"))
        if name and not hidden and (folder / name).is_file():
            yield name


def _git(folder: Path, *arguments: str) -> str | None:
    """What git answers in the folder, None where it fails or is missing."""
    with suppress(OSError, subprocess.CalledProcessError):
        command = ["git", "-C", str(folder), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return None


def _free(path: Path) -> Path:
    """The path, or the first of its kind with a number, under which nothing lies."""
    name, dot, rest = path.name.partition(".")
    others = (path.with_name(f"{name}-{number}{dot}{rest}") for number in itertools.count(2))
    return next(one for one in itertools.chain([path], others) if not one.exists())


def _packed(files: Mapping[str, bytes]) -> bytes:
    now = int(time.time())
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=6) as archive:
        for name, data in sorted(files.items()):
            member = tarfile.TarInfo(f"{TOP}/{name}")
            member.size, member.mtime = len(data), now
            archive.addfile(member, io.BytesIO(data))
        if archive.offset + tarfile.RECORDSIZE > LARGEST_BYTES:
            raise RecordError(
                f"{len(files)} files are too many for one archive, which unpacks to "
                f"{format_bytes(LARGEST_BYTES)} at most; name another folder of results"
            )
    return buffer.getvalue()


# ---------------------------------------------------------------- two files of one name


def is_probe(name: str) -> bool:
    """Whether that file below a runs folder is a probe, not a record."""
    return name.startswith(f"{PROBES}/")


def has_grown(before: bytes, now: bytes) -> bool:
    """Whether something was added to the end of a file, and nothing else was done to it."""
    return len(now) > len(before) and now.startswith(before)


def place(name: str, data: bytes, there: Callable[[str], bytes | None]) -> tuple[str, bool]:
    """(name, adds): where a file belongs beside those that are there, and if it adds anything.

    That is the first of ``name``, ``name.2``, ``name.3`` ... which is free, or has the same data,
    or a beginning of it, or more than it: no file is lost. there gives what a name holds, None
    for nothing.
    """
    names = itertools.chain([name], (f"{name}.{number}" for number in itertools.count(2)))
    while True:
        target = next(names)
        before = there(target)
        if before is None or has_grown(before, data):
            return target, True
        if before.startswith(data):
            return target, False


def original(name: str, names: Container[str]) -> str:
    """The name that `place` found taken when it chose this one; this one itself if it did not."""
    before = re.sub(r"\.\d+$", "", name)
    return before if before in names else name


# ---------------------------------------------------------------- out of the archive


def contents(archive: Path) -> dict[str, bytes]:
    """The files of an archive, by their names below the runs folder.

    Raises RecordError when it is missing or torn, when it unpacks to more than `LARGEST_BYTES`,
    and for a name or a link that could lead outside a runs folder; nothing of such an archive is
    given, and no more of it than that is unpacked.
    """
    try:
        with gzip.open(archive) as packed:
            unpacked = _Bounded(archive, packed)
            with tarfile.open(fileobj=unpacked, mode="r|") as opened:
                files = {
                    _name_below_runs(archive, member): _read(opened, member)
                    for member in opened
                    if not member.isdir()
                }
            while unpacked.read(2**20):  # to the end, where the checksum stands
                pass
            return files
    except FileNotFoundError as error:
        raise RecordError(
            f"{archive} is missing; name the folder of results into which it was handed over"
        ) from error
    except (OSError, EOFError, zlib.error, tarfile.TarError) as error:
        raise RecordError(
            f"{archive} cannot be read ({error}); fetch it again, nothing was taken from it"
        ) from error


class _Bounded(io.BufferedIOBase):
    """What a packed file unpacks to. Raises RecordError where that is more than LARGEST_BYTES."""

    def __init__(self, path: Path, packed: io.BufferedIOBase) -> None:
        self._path, self._packed = path, packed
        self._left = LARGEST_BYTES

    def read(self, size: int | None = -1) -> bytes:
        """The next bytes, as many as that at most, or all; none at the end."""
        all_and_one = self._left + 1
        wanted = all_and_one if size is None or size < 0 else min(size, all_and_one)
        data = self._packed.read(wanted)
        self._left -= len(data)
        if self._left < 0:
            raise RecordError(
                f"{self._path} unpacks to more than {format_bytes(LARGEST_BYTES)}, which no "
                "records do; nothing was taken from it"
            )
        return data


def _read(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = archive.extractfile(member)
    return file.read() if file else b""


def _name_below_runs(archive: Path, member: tarfile.TarInfo) -> str:
    top, *below = PurePosixPath(member.name).parts or ("",)
    # A name that no file can have, such as one with a NUL, is none that was handed over.
    hidden = any(part.startswith(".") for part in below) or not member.name.isprintable()
    # A sparse file is larger than what is read of it, as much as its maker likes.
    if top != TOP or not below or hidden or not member.isreg() or member.issparse():
        raise RecordError(
            f"{archive} holds {member.name[:80]!r}, but only visible, regular files below {TOP}/ "
            "are handed over; nothing was taken from it"
        )
    return "/".join(below)


# ---------------------------------------------------------------- for a shell


def main(arguments: Sequence[str]) -> int:
    """Hand over or take up, as a shell asks for it: 0 done, 2 with one sentence on stderr."""
    return exits.exit_code_of(lambda: _carried_out(arguments))


def _carried_out(arguments: Sequence[str]) -> int:
    match arguments:
        case [folder, results]:
            hand_over(Path(folder), Path(results))
        case ["--take-up", folder, results]:
            take_up(Path(folder), Path(results))
        case _:
            print("usage: python -m ninlab.handover [--take-up] RUNS RESULTS", file=sys.stderr)
            return NinlabError.exit_code
    return 0


if __name__ == "__main__":
    exits.run(lambda: _carried_out(sys.argv[1:]))
