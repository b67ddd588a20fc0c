"""Which records does a folder hold, and is each of them sound?"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from ninlab.errors import NinlabError, RecordError
from ninlab.records import folders
from ninlab.records.folders import weights_path
from ninlab.records.runs import TRAINING, RunRecord
from ninlab.records.schema import FromJson, Record


def read(path: Path) -> RunRecord:
    """The training run of one file. Raises RecordError, naming the file, when it is not valid."""
    return _filed(path, _read_json(path), RunRecord.from_json)


def load(folder: Path | None = None, experiment: str | None = None) -> list[RunRecord]:
    """Every training run of a runs folder (by default the book's), sorted by id.

    Records of other kinds are passed over. Raises RecordError for the first invalid file.
    """
    folder = folders.runs_folder() if folder is None else folder
    return load_kind(TRAINING, RunRecord.from_json, folder.glob(f"{experiment or '*'}/*.json"))


def load_kind(kind: str, from_json: FromJson[Record], paths: Iterable[Path]) -> list[Record]:
    """The records of one kind among these files, sorted by path; other kinds are passed over.

    Raises RecordError, naming the file, for the first that is not valid.
    """
    contents = ((path, _read_json(path)) for path in sorted(paths))
    return [
        _filed(path, content, from_json)
        for path, content in contents
        if content.get("kind") == kind
    ]


def current(runs: Iterable[RunRecord]) -> list[RunRecord]:
    """The runs without those that a later record corrects."""
    runs = list(runs)
    replaced = {run.corrects for run in runs}
    return [run for run in runs if run.id not in replaced]


def kinds(folder: Path) -> Counter[str]:
    """How many readable files of each kind a runs folder holds; a file without one counts as ""."""
    counts: Counter[str] = Counter()
    for path in folder.glob("*/*.json"):
        with suppress(RecordError):
            counts[str(_read_json(path).get("kind", ""))] += 1
    return counts


def problems(folder: Path, other_kinds: Mapping[str, FromJson[Any]] | None = None) -> Iterator[str]:
    """One sentence for every file of a runs folder that is no valid record, or lies wrong.

    other_kinds says how records are read that are no training runs; kinds that it does not
    name are passed over.
    """
    readers: dict[str, FromJson[Any]] = {TRAINING: RunRecord.from_json, **(other_kinds or {})}
    known: set[str] = set()
    corrections: list[tuple[str, str]] = []
    for path in sorted(folder.glob("*/*.json")):
        try:
            content = _read_json(path)
            if content.get("kind") not in readers:
                continue
            record = _filed(path, content, readers[content["kind"]])
        except RecordError as error:
            yield str(error)
            continue
        known.add(record.id)
        if not isinstance(record, RunRecord):
            continue
        if record.corrects:
            corrections.append((record.id, record.corrects))
        if record.weights_sha256:
            yield from _problems_of_weights(folder, record)
    for identifier, corrected in corrections:
        if corrected not in known:
            yield f"{identifier} corrects {corrected!r}, which is no record"


def _problems_of_weights(folder: Path, record: RunRecord) -> Iterator[str]:
    path = weights_path(folder, record.id)
    if not path.is_file():
        yield f"{record.id} keeps weights, but {path} is missing"
    elif hashlib.sha256(path.read_bytes()).hexdigest() != record.weights_sha256:
        yield f"{path} does not hold the weights that {record.id} names by their sha256"


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RecordError(f"{path} is no readable record: {error}") from error
    if not isinstance(content, dict):
        raise RecordError(f"{path} is no readable record: it holds no JSON object")
    return content


def _filed(path: Path, content: Mapping[str, Any], from_json: FromJson[Record]) -> Record:
    """The record in a file. Raises RecordError, naming the file, also where the file lies wrong."""
    try:
        record = from_json(content)
    except NinlabError as error:
        raise RecordError(f"{path}: {error}") from error
    if path.parts[-2:] != Path(f"{record.id}.json").parts:
        raise RecordError(f"{path} holds the record {record.id!r}; it belongs in {record.id}.json")
    return record
