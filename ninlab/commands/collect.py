"""``collect``: bring records home from other machines, checked, and say what is new."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from ninlab import failures, handover, records
from ninlab.commands import validation
from ninlab.commands.shared import RunsFolder, existing_folder
from ninlab.errors import RecordError, UnknownNameError

PROBES = "probes"
"""The folder of what is no record: traces, profiles, what a device said of itself."""


@dataclass(frozen=True)
class Delivery:
    """What archives hold, by names below the runs folder. Weights lie where they were found."""

    records: Mapping[str, bytes]  # by their ids
    probes: Mapping[str, bytes]
    weights: Mapping[str, Path]  # of those records, by their ids
    others: Sequence[str]  # what is neither


def collect(
    results: Annotated[
        list[Path],
        typer.Argument(help="Folders into which records were handed over."),
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
    problems = list(_problems(new, came.weights, home))
    for problem in problems:
        typer.echo(problem)
    if problems:
        raise RecordError(
            f"{len(problems)} of the {len(new)} new records are not valid, see above, and nothing "
            f"was laid into {home}; leave one out with --skip ID"
        )
    contents = {identifier: json.loads(data) for identifier, data in new.items()}
    warning = _of_another_gpu(contents, home)
    for identifier, data in new.items():
        if identifier in came.weights:
            weights = came.weights[identifier].read_bytes()
            records.write_bytes(records.weights_path(home, identifier), weights)
        records.write_bytes(records.record_path(home, identifier), data)
    laid, refused = _lay_probes(came.probes, home)
    there = len(came.records) - len(new)
    typer.echo(f"new records: {len(new)}, there before: {there}, in {home}")
    _list(contents)
    if laid:
        typer.echo(f"{len(laid)} probes: {', '.join(laid)}")
    for name in refused:
        typer.echo(f"not laid over another file of that name: {name}")
    for name in came.others:
        typer.echo(f"left out, for it is neither a record nor a probe: {name}")
    if warning:
        typer.echo(warning)


# ---------------------------------------------------------------- what came


def gathered(results: Sequence[Path], skip: Sequence[str]) -> Delivery:
    """What the archives of these folders hold together, without the records to be skipped.

    Raises RecordError when one is missing or torn, when two hold different records of one id,
    and UnknownNameError for a record to be skipped that none holds.
    """
    found: dict[str, bytes] = {}
    read: set[str] = set()
    for folder in results:
        for name, data in handover.contents(folder / handover.ARCHIVE).items():
            read.add(name)
            before = found.get(name)
            if name in {f"{identifier}.json" for identifier in skip}:
                continue
            if before is None or (_is_probe(name) and _has_grown(before, data)):
                found[name] = data
            elif not _is_probe(name) and before != data:
                raise RecordError(
                    f"{name} of {folder} is another record than that of a folder before it; "
                    f"collect one folder alone, or leave it out with --skip {name[:-5]}"
                )
    made = {
        name.removesuffix(".json"): data
        for name, data in found.items()
        if name.count("/") == 1 and name.endswith(".json") and not _is_probe(name)
    }
    for identifier in skip:
        if f"{identifier}.json" not in read:
            raise UnknownNameError("record", identifier, sorted(made))
    probes = {name: data for name, data in found.items() if _is_probe(name)}
    known = {f"{identifier}.json" for identifier in made} | set(probes)
    weights = {
        identifier: path
        for identifier, data in made.items()
        for path in [_weights(results, identifier, data)]
        if path is not None
    }
    return Delivery(made, probes, weights, sorted(set(found) - known))


def _is_probe(name: str) -> bool:
    return name.startswith(f"{PROBES}/")


def _weights(results: Sequence[Path], identifier: str, record: bytes) -> Path | None:
    """The weights that the record names, or others under their name, or None."""
    paths = [folder / handover.weights_name(identifier) for folder in results]
    there = [path for path in paths if path.is_file()]
    for path in there:
        if hashlib.sha256(path.read_bytes()).hexdigest().encode() in record:
            return path
    return there[0] if there else None


def _new(found: Mapping[str, bytes], home: Path) -> dict[str, bytes]:
    """The records that home lacks. Raises RecordError for one that is another at home."""
    new = {}
    for identifier, data in found.items():
        path = records.record_path(home, identifier)
        if not path.exists():
            new[identifier] = data
        elif path.read_bytes() != data:
            raise RecordError(
                f"{path} is there and is another record, and records are never overwritten; "
                f"nothing was laid into {home}; leave it out with --skip {identifier}"
            )
    return new


# ---------------------------------------------------------------- is it sound?


def _problems(new: Mapping[str, bytes], weights: Mapping[str, Path], home: Path) -> Iterator[str]:
    """One sentence for every record that `runs --validate` would not pass at home."""
    readers = validation.readers()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch, handover.TOP)
        for identifier, data in new.items():
            records.write_bytes(records.record_path(folder, identifier), data)
            if identifier in weights:
                beside = records.weights_path(folder, identifier)
                beside.symlink_to(weights[identifier].resolve())
        _lay_corrected(new, folder, home)
        for problem in records.problems(folder, readers):
            yield problem.replace(f"{folder}/", "")
        for identifier, content in _readable(new):
            if content.get("kind") not in {records.TRAINING, *readers}:
                yield f"{identifier} is of kind {content.get('kind')!r}, which nothing here reads"
                continue
            name = content.get("network") or content.get("case", {}).get("network")
            digest = content.get("network_digest")
            if digest and (changed := validation.changed_network(identifier, name, digest)):
                yield changed


def _readable(new: Mapping[str, bytes]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The records that are JSON objects, by their ids; the others are problems already."""
    for identifier, data in new.items():
        try:
            content = json.loads(data)
        except ValueError:
            continue
        if isinstance(content, dict):
            yield identifier, content


def _lay_corrected(new: Mapping[str, bytes], folder: Path, home: Path) -> None:
    """Lay the records of home that new ones correct beside them, with the weights of those."""
    for _, content in _readable(new):
        corrected = str(content.get("corrects") or "")
        for path_of in (records.weights_path, records.record_path):
            source, target = path_of(home, corrected), path_of(folder, corrected)
            if corrected and source.is_file() and not target.exists():
                records.write_bytes(target, source.read_bytes())


def _of_another_gpu(contents: Mapping[str, Mapping[str, Any]], home: Path) -> str | None:
    """One sentence when runs of one GPU come home to those of another."""
    here = {run.device.slug for run in records.load(home)} - {"cpu"}
    came = {
        content["device"]["slug"]
        for content in contents.values()
        if content["kind"] == records.TRAINING
    } - {"cpu"}
    others = here - came
    if not came or not others:
        return None
    return (
        f"the runs of {', '.join(sorted(came))} never join those of {', '.join(sorted(others))} "
        "that are here: figures and tests compare runs of one device"
    )


# ---------------------------------------------------------------- laying in and listing


def _lay_probes(probes: Mapping[str, bytes], home: Path) -> tuple[list[str], list[str]]:
    """The probes that were laid in, and those that another file kept out."""
    laid, kept_out = [], []
    for name, data in probes.items():
        path = home / name
        if not path.exists() or _has_grown(path.read_bytes(), data):
            records.write_bytes(path, data)
            laid.append(name)
        elif path.read_bytes() != data:
            kept_out.append(name)
    return laid, kept_out


def _has_grown(before: bytes, now: bytes) -> bool:
    """Whether lines were added to a file, and nothing else was done to it."""
    return len(now) > len(before) and now.startswith(before)


def _list(contents: Mapping[str, Mapping[str, Any]]) -> None:
    """How many records of each kind are of which device, and a line for each."""
    for kind in sorted({content["kind"] for content in contents.values()}):
        of_kind = {i: content for i, content in contents.items() if content["kind"] == kind}
        devices = Counter(content["device"]["name"] for content in of_kind.values())
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
