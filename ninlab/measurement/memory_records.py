"""How is a measured step kept, with what measured it?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ninlab.measurement.cases import Allocator, Case, Measured, measured_from_json
from ninlab.records import (
    Device,
    Provenance,
    Software,
    check_schema,
    check_slug,
    from_fields,
    load_kind,
    whole,
)

KIND = "memory"
"""The ``kind`` of these records, and the folder below runs/ in which they lie."""

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class MemoryRecord:
    """One measured case, with what measured it. `to_json` and `from_json` are the schema.

    predicted holds what the calculator gave at the same commit, as far as it gave
    anything: peaks by the names of `Measured`, and bound_seconds, below which the step
    cannot be.
    """

    case: Case
    network_digest: str
    allocator: Allocator
    measured: Measured
    predicted: Mapping[str, float]
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
        """The record of a JSON object. Raises RecordError when it does not fit the schema."""
        return from_fields(
            cls,
            content,
            case=lambda value: whole(Case)(value | {"input_shape": tuple(value["input_shape"])}),
            allocator=Allocator,
            measured=measured_from_json,
            provenance=whole(Provenance),
            device=whole(Device),
            software=whole(Software),
        )


def record_id(case: Case, allocator: Allocator, torch_version: str, device_slug: str) -> str:
    """``memory/<case>-<allocator>-torch<version>-<device>``."""
    release = torch_version.partition("+")[0]
    return f"{KIND}/{case.slug}-{allocator}-torch{release}-{device_slug}"


def load_records(folder: Path) -> list[MemoryRecord]:
    """Every measured step of a runs folder, sorted by id. Raises RecordError for an invalid one."""
    return load_kind(KIND, MemoryRecord.from_json, (folder / KIND).glob("*.json"))
