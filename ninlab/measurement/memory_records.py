"""How is a measured step kept, with what measured it?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ninlab.errors import RecordError
from ninlab.measurement.cases import PEAKS, Allocator, Case, CaseOutcome, Measured
from ninlab.records import (
    Device,
    Provenance,
    Software,
    check_origin,
    check_schema,
    check_slug,
    from_fields,
    load_kind,
    out_of_order,
)
from ninlab.records.schema import Digest, Quantity, shown

KIND = "memory"
"""The ``kind`` of these records, and the folder below runs/ in which they lie."""

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class MemoryRecord:
    """One measured case, with what measured it. The annotations are its schema.

    predicted holds what the calculator gave at the same commit, as far as it gave
    anything: peaks by the names of `Measured`, and bound_seconds, below which the step
    cannot be.
    """

    case: Case
    network_digest: Digest
    allocator: Allocator
    measured: Measured
    predicted: Mapping[str, Quantity]
    provenance: Provenance
    device: Device
    software: Software
    kind: str = KIND
    schema_version: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        check_schema(self, KIND, SCHEMA_VERSION, "a measured step")
        check_slug("network", self.case.network)
        check_slug("device slug", self.device.slug)

    @property
    def id(self) -> str:
        """Where the record lies below the runs folder, without ``.json``."""
        return record_id(self.case, self.allocator, self.software.torch, self.device.slug)

    def to_json(self) -> dict[str, Any]:
        """The record as JSON values."""
        return {"id": self.id, **asdict(self)}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> MemoryRecord:
        """The record of a JSON object.

        Raises RecordError, with the field and the rule, when it does not fit the schema or breaks
        a law.
        """
        record = from_fields(cls, content)
        check_origin(record.provenance, record.device, record.software)
        for problem in _broken(record):
            raise RecordError(problem)
        return record


_PREDICTED = (*PEAKS.values(), "bound_seconds")


def _broken(record: MemoryRecord) -> Iterator[str]:
    """The laws that a record breaks, one sentence each, with the fields."""
    measured, on_cpu = record.measured, record.device.slug == "cpu"
    if on_cpu != (record.allocator is Allocator.CPU):
        yield f"allocator is {record.allocator}, but device.slug is {shown(record.device.slug)}"
    finished = measured.outcome is CaseOutcome.FINISHED
    peaks = {f"measured.{field}": getattr(measured, field) for field in PEAKS.values()}
    caching = [f"measured.{PEAKS[kind]}" for kind in ("allocated", "reserved")]
    tensors = f"measured.{PEAKS['tensor']}"  # which a torch without names in its stacks lacks
    for field, peak in peaks.items():
        unknown = peak is None and field == tensors and not on_cpu
        if (peak is not None) != (finished and not (on_cpu and field in caching)) and not unknown:
            yield (
                f"{field} is {shown(peak)}, but measured.outcome is {measured.outcome} and "
                f"device.slug {shown(record.device.slug)}"
            )
    yield from out_of_order({field: peak for field, peak in peaks.items() if peak is not None})
    if measured.overhead_bytes is not None and (on_cpu or not finished):
        yield "measured.overhead_bytes is a number, but a CPU or a failed case tells none"
    seconds = measured.step_seconds
    if seconds is not None and list(seconds) != sorted(seconds):
        yield "measured.step_seconds are quartiles, but do not rise"
    if (seconds is None) != (measured.timed_steps == 0):
        yield (
            f"measured.timed_steps is {measured.timed_steps}, but measured.step_seconds is "
            f"{shown(seconds)}"
        )
    for field in record.predicted:
        if field not in _PREDICTED:
            yield f"predicted.{field} is none of {', '.join(_PREDICTED)}"
    predicted = {f: record.predicted[f] for f in PEAKS.values() if f in record.predicted}
    for field, peak in predicted.items():
        if not isinstance(peak, int):
            yield f"predicted.{field} is {peak!r}, but bytes are an integer"
    yield from out_of_order({f"predicted.{field}": peak for field, peak in predicted.items()})


def record_id(case: Case, allocator: Allocator, torch_version: str, device_slug: str) -> str:
    """``memory/<case>-<allocator>-torch<version>-<device>``."""
    release = torch_version.partition("+")[0]
    return f"{KIND}/{case.slug}-{allocator}-torch{release}-{device_slug}"


def load_records(folder: Path) -> list[MemoryRecord]:
    """Every measured step of a runs folder, sorted by id. Raises RecordError for an invalid one."""
    return load_kind(KIND, MemoryRecord.from_json, (folder / KIND).glob("*.json"))
