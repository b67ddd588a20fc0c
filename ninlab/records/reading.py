"""Which records does a folder hold, and is each of them sound?

`problems` looks at every file of a runs folder, so that none is passed over in silence: a record
whose ``kind`` is misspelt would otherwise vanish from the book. Hidden files are nobody's records,
and ``probes/`` holds what is no record.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from ninlab.errors import NinlabError, RecordError, printable
from ninlab.records import folders
from ninlab.records.folders import record_path, weights_path
from ninlab.records.runs import TRAINING, RunRecord
from ninlab.records.schema import FromJson, Record, parse, shown

LARGEST_BYTES = 16 * 2**20
"""More than any record has; a run of ten thousand epochs has a seventh of it."""

_PROBES = "probes"


def read(path: Path) -> RunRecord:
    """The training run of one file. Raises RecordError, naming the file, when it is not valid."""
    return _filed(path, _read_json(path), RunRecord.from_json)


def load(folder: Path | None = None, experiment: str | None = None) -> list[RunRecord]:
    """Every training run of a runs folder (by default the book's), sorted by id.

    Records of other kinds are passed over. Raises RecordError for the first invalid file.
    """
    folder = folders.runs_folder() if folder is None else folder
    paths = (path for path in _records(folder) if experiment in (None, path.parent.name))
    return load_kind(TRAINING, RunRecord.from_json, paths)


def load_kind(kind: str, from_json: FromJson[Record], paths: Iterable[Path]) -> list[Record]:
    """The records of one kind among these files, sorted by path; other kinds are passed over.

    Raises RecordError, naming the file, for the first that is not valid.
    """
    visible = (path for path in sorted(paths) if not path.name.startswith("."))
    contents = ((path, _read_json(path)) for path in visible)
    return [
        _filed(path, content, from_json)
        for path, content in contents
        if content.get("kind") == kind
    ]


def load_file(kind: str, from_json: FromJson[Record], path: Path, *, made_by: str) -> Record:
    """The record of that kind in a file of its own, which made_by writes.

    Raises RecordError when there is no such file, it is of another kind, or it is not valid.
    """
    if not path.is_file():
        raise RecordError(f"{path} does not exist; {made_by} makes it")
    found = load_kind(kind, from_json, [path])
    if not found:
        raise RecordError(f"{path}: kind must be {kind!r}")
    return found[0]


def current(runs: Iterable[RunRecord]) -> list[RunRecord]:
    """The runs without those that a later record corrects."""
    runs = list(runs)
    replaced = {run.corrects for run in runs}
    return [run for run in runs if run.id not in replaced]


def kinds(folder: Path) -> Counter[str]:
    """How many readable files of each kind a runs folder holds; a file without one counts as ""."""
    counts: Counter[str] = Counter()
    for path in _records(folder):
        with suppress(RecordError):
            counts[str(_read_json(path).get("kind", ""))] += 1
    return counts


def problems(
    folder: Path,
    other_kinds: Mapping[str, FromJson[Any]] | None = None,
    contradictions: Callable[[Any], Iterable[str]] = lambda record: (),
) -> Iterator[str]:
    """One sentence for every file of a runs folder that is no valid record, or lies wrong.

    other_kinds says how records are read that are no training runs; a file of any other kind is a
    problem. contradictions gives what a record says that cannot be, by what is known beside it; it
    is not asked of a record that a later one corrects. Files are named from the folder on.
    """
    readers: dict[str, FromJson[Any]] = {TRAINING: RunRecord.from_json, **(other_kinds or {})}
    found: dict[str, Any] = {}
    for path, depth in _files(folder):
        try:
            record = _record(path, depth, folder, readers)
        except RecordError as error:
            yield _from(folder, str(error))
            continue
        if record is not None:
            found[record.id] = record
    runs = [record for record in found.values() if isinstance(record, RunRecord)]
    for run in runs:
        if run.weights_sha256 is None and weights_path(folder, run.id).exists():
            yield f"{run.id}: weights_sha256 is null, but weights lie beside the record"
    replaced = {run.corrects for run in runs}
    for run in runs:
        if run.corrects and not isinstance(found.get(run.corrects), RunRecord):
            yield f"{run.id}: corrects is {shown(run.corrects)}, which is no record of a run"
        if _corrects_itself(run, found):
            yield f"{run.id}: corrects leads back to the record itself"
        if run.weights_sha256:
            yield from (_from(folder, problem) for problem in _problems_of_weights(folder, run))
    for identifier, record in found.items():
        if identifier not in replaced:
            yield from (f"{identifier}: {problem}" for problem in contradictions(record))


def _corrects_itself(run: RunRecord, found: Mapping[str, Any]) -> bool:
    """Whether the records that a record corrects, one after the other, lead back to it."""
    seen: set[str] = set()
    target = run.corrects
    while target is not None and target not in seen:
        if target == run.id:
            return True
        seen.add(target)
        target = getattr(found.get(target), "corrects", None)
    return False


def _records(folder: Path) -> Iterator[Path]:
    """The files of records in a runs folder. Raises RecordError where a folder cannot be read."""
    for path, depth in _files(folder):
        if depth == 2 and path.suffix == ".json":
            yield path
        elif path.suffix not in _FILES and path.is_dir():
            raise RecordError(f"{_named(path)} {_UNREAD}")


_FILES = (".json", ".safetensors")
_UNREAD = "is a folder that cannot be read, or a link to one where no link leads on"


def _files(folder: Path, depth: int = 1) -> Iterator[tuple[Path, int]]:
    """(path, how many names below) of what is neither hidden nor a probe in a runs folder, sorted.

    A folder is among it where it is called like a file or cannot be read. A link to a folder is
    followed in the place of an experiment's; further below it might lead back up.
    """
    try:
        names = sorted(os.listdir(folder))
    except FileNotFoundError:
        return
    except OSError:
        yield folder, depth - 1
        return
    for name in names:
        if name.startswith(".") or (depth == 1 and name == _PROBES):
            continue
        path = folder / name
        if name.endswith(_FILES) or not path.is_dir() or (depth > 1 and path.is_symlink()):
            yield path, depth
        else:
            yield from _files(path, depth + 1)


def _record(path: Path, depth: int, folder: Path, readers: Mapping[str, FromJson[Any]]) -> Any:
    """The record that the file holds, None for weights that one names and for what is no record's.

    Raises RecordError, naming the file, when it is not valid or lies wrong.
    """
    name = _named(path)
    if path.suffix not in _FILES and path.is_dir():
        raise RecordError(f"{name} {_UNREAD}")
    if depth == 1 and path.suffix not in _FILES:
        return None  # beside the folders of records, where a person may explain them
    if path.is_symlink() and not path.exists():
        raise RecordError(f"{name} is a link to nothing; lay the file itself there")
    if depth != 2:
        raise RecordError(
            f"{name} lies where nobody reads it; records and weights lie in <experiment>/<name>"
        )
    if path.suffix == ".safetensors":
        if not record_path(folder, "/".join(path.with_suffix("").parts[-2:])).exists():
            raise RecordError(f"{name} holds the weights of no record; make its run again")
        return None
    if path.suffix != ".json":
        raise RecordError(
            f"{name} is neither a record (.json) nor weights (.safetensors); move it away"
        )
    content = _read_json(path)
    kind = content.get("kind")
    if not isinstance(kind, str) or kind not in readers:
        said = f"kind is {shown(kind)}" if "kind" in content else "kind is missing"
        raise RecordError(f"{name}: {said}, but must be one of {', '.join(sorted(readers))}")
    return _filed(path, content, readers[kind])


def _problems_of_weights(folder: Path, record: RunRecord) -> Iterator[str]:
    path = weights_path(folder, record.id)
    try:
        kept = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        said = error.strerror or error
        yield f"{record.id}: weights_sha256 is of weights that cannot be read: {path}: {said}"
    else:
        if kept != record.weights_sha256:
            yield f"{record.id}: weights_sha256 is not the sum of {path}"


def _named(path: Path) -> str:
    """The path in a sentence: a file may be called by what cannot be printed."""
    return printable(str(path))


def _from(folder: Path, sentence: str) -> str:
    """The sentence with files named from that folder on."""
    return sentence.replace(f"{_named(folder)}/", "")


def _at_once(path: str, flags: int) -> int:
    """Open a file without waiting for whoever writes into it, as a pipe's reader does."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _read_json(path: Path) -> dict[str, Any]:
    try:
        with open(path, "rb", buffering=0, opener=_at_once) as file:
            about = os.fstat(file.fileno())
            if not stat.S_ISREG(about.st_mode):
                raise RecordError("it is no readable record: it is no regular file")
            if about.st_size > LARGEST_BYTES:
                raise RecordError("it is no readable record: it is larger than 16 MiB")
            return parse(file.readall())
    except OSError as error:
        raise RecordError(f"{_named(path)}: it is no readable record: {error.strerror}") from error
    except RecordError as error:
        raise RecordError(f"{_named(path)}: {error}") from error


def _filed(path: Path, content: Mapping[str, Any], from_json: FromJson[Record]) -> Record:
    """The record in a file. Raises RecordError, naming the file, also where the file lies wrong."""
    try:
        record = from_json(content)
    except NinlabError as error:
        raise RecordError(f"{_named(path)}: {error}") from error
    if f"{path.parent.name}/{path.name}" != f"{record.id}.json":
        raise RecordError(
            f"{_named(path)} holds the record of id {shown(record.id)}; "
            f"it belongs in {record.id}.json"
        )
    return record
