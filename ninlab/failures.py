"""Which planned runs came to nothing, and why?

A run that raises, hangs, crashes or loses the device leaves no training record. What it leaves is
one file ``failures/<experiment>--<name>-seed<k>-<device>-<code>.json``: a recorder of the same code
passes the run over, and changed code tries it again. Like every record it is written once and kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from ninlab import records
from ninlab.errors import RecordError
from ninlab.records import Device, Provenance, Software
from ninlab.records.schema import Commit, RunId, Text

KIND = "failure"
"""The ``kind`` of these records."""

FOLDER = "failures"
SCHEMA_VERSION = 1
_CODE_LETTERS = 12


class Cause(StrEnum):
    """In which way a run came to nothing."""

    OUT_OF_MEMORY = "out_of_memory"
    RAISED = "raised"  # any other error
    HUNG = "hung"  # it did not end within a multiple of its estimate
    CRASHED = "crashed"  # it ended its process, as a segmentation fault does
    DEVICE_LOST = "device_lost"  # the process could not use the device any more


@dataclass(frozen=True)
class FailureRecord:
    """One run that came to nothing. The annotations are its schema.

    sentence is what a person reads first: the error's own words, or where a hung run stood.
    tried_eagerly says whether it was also tried without a CUDA graph.
    """

    run: RunId  # the id that its record would have
    cause: Cause
    sentence: Text
    tried_eagerly: bool
    code: Commit | None  # `records.code_id` of what ran
    provenance: Provenance
    device: Device
    software: Software
    kind: str = KIND
    schema_version: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        records.check_schema(self, KIND, SCHEMA_VERSION, "a failed run")

    @property
    def id(self) -> str:
        """Where the record lies below the runs folder, without ``.json``."""
        return failure_id(self.run, self.code)

    def to_json(self) -> dict[str, Any]:
        """The record as JSON values."""
        return {"id": self.id, **asdict(self)}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> FailureRecord:
        """The record of a JSON object.

        Raises RecordError, with the field and the rule, when it does not fit the schema or breaks
        a law.
        """
        record = records.from_fields(cls, content)
        records.check_origin(record.provenance, record.device, record.software)
        if not record.run.endswith(f"-{record.device.slug}"):
            raise RecordError(f"run is {record.run}, which device.slug {record.device.slug} lacks")
        return record


def failure_id(run: str, code: str | None) -> str:
    """``failures/<run>-<code>``, the run's id in one part."""
    return f"{FOLDER}/{run.replace('/', '--')}-{(code or 'unknown')[:_CODE_LETTERS]}"


def load(folder: Path) -> list[FailureRecord]:
    """Every failed run of a runs folder, sorted by id. Raises RecordError for an invalid one."""
    return records.load_kind(KIND, FailureRecord.from_json, (folder / FOLDER).glob("*.json"))


def has_failed(folder: Path, run: str, code: str) -> bool:
    """Whether that run came to nothing by that code."""
    return records.record_path(folder, failure_id(run, code)).exists()
