"""``collect``: bring records home from other machines, checked, and say what is new."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

from ninlab import failures, handover, records
from ninlab.commands import validation
from ninlab.commands.shared import RunsFolder, a_path, existing_folder
from ninlab.errors import NinlabError, RecordError, UnknownNameError
from ninlab.records.schema import parse

LINES = ".jsonl"
"""How files are called to which lines are added, in any order."""


class Version(NamedTuple):
    """A record, and the folder where it was found."""

    data: bytes
    folder: Path


@dataclass(frozen=True)
class Delivery:
    """What archives hold, by names below the runs folder. Weights lie where they were found."""

    records: Mapping[str, Sequence[Version]]  # by their ids; more than one where they differ
    probes: Mapping[str, bytes]
    weights: Mapping[str, Path]  # of the first of those records, by their ids
    others: Sequence[str]  # what is neither


def collect(
    results: Annotated[
        list[Path],
        typer.Argument(help="Folders into which records were handed over.", **a_path("RESULTS")),
    ],
    skip: Annotated[
        list[str] | None, typer.Option(help="Leave the record of this id out; repeatable.")
    ] = None,
    folder: RunsFolder = None,
) -> None:
    """Bring records home: check them all, lay them into the runs folder, list what is new."""
    home = existing_folder(folder)
    came = gathered(results, skip or [])
    new = _new(came.records, home)
    again = list(_made_again(came.records, home))
    problems = [*_problems(new, came.weights, home), *_problems_of_others(again, home)]
    for problem in problems:
        typer.echo(problem)
    if problems:
        raise RecordError(
            f"{len(problems)} of the {len(new) + len(again)} new records are not valid, see above, "
            f"and nothing was laid into {home}; leave one out with --skip ID"
        )
    contents = {identifier: json.loads(data) for identifier, data in new.items()}
    warning = _of_another_gpu(contents, home)
    if warning:
        typer.echo(warning)
    for identifier, data in new.items():
        if contents[identifier].get("weights_sha256"):
            weights = came.weights[identifier].read_bytes()
            records.write_bytes(records.weights_path(home, identifier), weights)
        records.write_bytes(records.record_path(home, identifier), data)
    laid, renamed = _lay_probes(came.probes, home)
    there = len(came.records) - len(new)
    typer.echo(f"new records: {len(new)}, there before: {there}, in {home}")
    _list(contents)
    for identifier, version, kept in again:
        typer.echo(
            f"{identifier} was made twice; the first is kept, that of {kept}, "
            f"and not that of {version.folder}"
        )
    if laid:
        typer.echo(f"{len(laid)} probes: {', '.join(laid)}")
    for name, first in renamed.items():
        typer.echo(f"{first} is another file than one that came; that one is now {name}")
    for name in came.others:
        typer.echo(f"left out, for it is neither a record nor a probe: {name}")


# ---------------------------------------------------------------- what came


def gathered(results: Sequence[Path], skip: Sequence[str]) -> Delivery:
    """What the archives of these folders hold together, without the records to be skipped.

    Raises RecordError when one is missing or torn, and UnknownNameError for a record to be
    skipped that none holds.
    """
    made: dict[str, list[Version]] = {}
    probes: dict[str, bytes] = {}
    others: set[str] = set()
    for folder in results:
        archive = handover.contents(folder / handover.ARCHIVE)
        for name, data in archive.items():
            first = handover.original(name, archive)
            if handover.is_probe(name):
                target, whole = _beside(first, data, probes.get)
                probes[target] = whole
            elif first.count("/") == 1 and first.endswith(".json"):
                versions = made.setdefault(first.removesuffix(".json"), [])
                if data not in [version.data for version in versions]:
                    versions.append(Version(data, folder))
            else:
                others.add(name)
    for identifier in skip:
        if identifier not in made:
            raise UnknownNameError("record", identifier, sorted(made))
    for identifier in set(skip):
        del made[identifier]
    weights = {
        identifier: path
        for identifier, versions in made.items()
        for path in [_weights(results, identifier, versions[0].data)]
        if path is not None
    }
    return Delivery(made, probes, weights, sorted(others))


def _beside(name: str, data: bytes, there: Callable[[str], bytes | None]) -> tuple[str, bytes]:
    """Where a probe belongs beside those that are there, and what that file then holds.

    Files of lines become one; of others, each is kept. name has no number of `handover.place`.
    """
    if name.endswith(LINES):
        return name, merged(there(name) or b"", data)
    target, adds = handover.place(name, data, there)
    return target, data if adds else there(target) or b""


def merged(before: bytes, now: bytes) -> bytes:
    """The lines of a file, then those that only the other one has, each once."""
    if handover.has_grown(before, now):
        return now
    known = {b"", *before.split(b"\n")}
    added = [line for line in dict.fromkeys(now.split(b"\n")) if line not in known]
    if not added:
        return before
    end = b"" if before.endswith(b"\n") else b"\n"
    return before + end + b"".join(line + b"\n" for line in added)


def _weights(results: Sequence[Path], identifier: str, record: bytes) -> Path | None:
    """The weights that the record names, or others under their name, or None."""
    paths = [folder / handover.weights_name(identifier) for folder in results]
    there = [path for path in paths if path.is_file()]
    for path in there:
        if hashlib.sha256(path.read_bytes()).hexdigest().encode() in record:
            return path
    return there[0] if there else None


def _new(found: Mapping[str, Sequence[Version]], home: Path) -> dict[str, bytes]:
    """The records that home lacks."""
    return {
        identifier: versions[0].data
        for identifier, versions in found.items()
        if not records.record_path(home, identifier).exists()
    }


def _made_again(
    found: Mapping[str, Sequence[Version]], home: Path
) -> Iterator[tuple[str, Version, Path]]:
    """(id, version, kept) of records that are not laid in, for those of the folder kept were first.

    Two machines that did not know of each other make the same run. A record is never overwritten.
    """
    for identifier, versions in found.items():
        path = records.record_path(home, identifier)
        kept = Version(path.read_bytes(), home) if path.exists() else versions[0]
        for version in versions:
            if version.data != kept.data:
                yield identifier, version, kept.folder


# ---------------------------------------------------------------- is it sound?


def _problems(new: Mapping[str, bytes], weights: Mapping[str, Path], home: Path) -> Iterator[str]:
    """One sentence for every record that `runs --validate` would not pass at home."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch, handover.TOP)
        for identifier, data in new.items():
            records.write_bytes(records.record_path(folder, identifier), data)
            if identifier in weights:
                beside = records.weights_path(folder, identifier)
                beside.symlink_to(weights[identifier].resolve())
        _lay_corrected(new, folder, home)
        yield from validation.problems(folder)


def _problems_of_others(again: Sequence[tuple[str, Version, Path]], home: Path) -> Iterator[str]:
    """One sentence for every record that is not valid among those that were made twice.

    They are not laid in, so weights and the record that one corrects need not be there.
    """
    for identifier, version, _ in again:
        alone = version.data
        for _, content in _readable({identifier: version.data}):
            needs = {"weights_sha256": None, "corrects": None}
            alone = json.dumps({**content, **{k: needs[k] for k in needs if k in content}}).encode()
        for problem in _problems({identifier: alone}, {}, home):
            yield f"{problem} (that of {version.folder})"


def _readable(new: Mapping[str, bytes]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The records that are JSON objects, by their ids; the others are problems already."""
    for identifier, data in new.items():
        with suppress(RecordError):
            yield identifier, parse(data)


def _lay_corrected(new: Mapping[str, bytes], folder: Path, home: Path) -> None:
    """Lay the records of home that new ones correct beside them, with the weights of those."""
    runs = []
    for _, content in _readable(new):
        with suppress(NinlabError):
            runs.append(records.RunRecord.from_json(content))
    for corrected in (run.corrects for run in runs if run.corrects):
        for path_of in (records.weights_path, records.record_path):
            source, target = path_of(home, corrected), path_of(folder, corrected)
            if source.is_file() and not target.exists():
                records.write_bytes(target, source.read_bytes())


def _of_another_gpu(contents: Mapping[str, Mapping[str, Any]], home: Path) -> str | None:
    """One sentence when runs come home of a GPU that has none there, and others have."""
    here = {run.device.slug for run in records.load(home)} - {"cpu"}
    came = {
        content["device"]["slug"]
        for content in contents.values()
        if content["kind"] == records.TRAINING
    } - {"cpu"}
    strangers = came - here
    if not strangers or not here:
        return None
    return (
        f"the runs of {', '.join(sorted(strangers))} never join those of {', '.join(sorted(here))} "
        "that are here: figures and tests compare runs of one device"
    )


# ---------------------------------------------------------------- laying in and listing


def _lay_probes(probes: Mapping[str, bytes], home: Path) -> tuple[list[str], dict[str, str]]:
    """The probes that were laid in, and of those that found their name taken, that name."""

    def there(name: str) -> bytes | None:
        path = home / name
        return path.read_bytes() if path.exists() else None

    laid, renamed = [], {}
    for name, data in probes.items():
        first = handover.original(name, probes)
        target, whole = _beside(first, data, there)
        if there(target) != whole:
            records.write_bytes(home / target, whole)
            laid.append(target)
            if target != first:
                renamed[target] = first
    return laid, renamed


def _list(contents: Mapping[str, Mapping[str, Any]]) -> None:
    """How many records of each kind are of which device, and a line for each."""
    for kind in sorted({content["kind"] for content in contents.values()}):
        of_kind = {i: content for i, content in contents.items() if content["kind"] == kind}
        devices = Counter(
            content["device"]["name"] if "device" in content else "no device"
            for content in of_kind.values()
        )
        counts = ", ".join(f"{count} of {device}" for device, count in devices.items())
        typer.echo(f"{kind}: {counts}")
        for identifier, content in of_kind.items():
            typer.echo(f"  {identifier}: {_ENDS.get(kind, _origin)(content)}")


def _end_of_run(content: Mapping[str, Any]) -> str:
    last = content["epochs"][-1]
    return f"{content['outcome']}, test accuracy {last['test_accuracy']:.4f}"


def _end_of_failure(content: Mapping[str, Any]) -> str:
    return f"{content['cause']}, {content['sentence']}"


def _origin(content: Mapping[str, Any]) -> str:
    """When a record was made, and by which code."""
    made = content["provenance"]
    return f"{made['utc']}, commit {(made.get('commit') or 'unknown')[:12]}"


_ENDS: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    records.TRAINING: _end_of_run,
    failures.KIND: _end_of_failure,
}
