"""What does every kind of record have in common? An id, a kind, a version, a reader of its JSON."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeVar

from ninlab.errors import RecordError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


_SLUG = re.compile(r"[a-z0-9][a-z0-9_.-]*")


class _Versioned(Protocol):
    @property
    def kind(self) -> str: ...

    @property
    def schema_version(self) -> int: ...


class Recorded(Protocol):
    """A frozen dataclass that is filed under its id, which is no field of its own."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def id(self) -> str:
        """Where the record lies below the runs folder, without ``.json``."""


Record = TypeVar("Record", bound=Recorded)

Part = TypeVar("Part", bound="DataclassInstance")

FromJson = Callable[[Mapping[str, Any]], Record]


def check_schema(record: _Versioned, kind: str, version: int, what: str) -> None:
    """Raises RecordError unless the record is of that kind and schema version; what names it."""
    if (record.kind, record.schema_version) != (kind, version):
        raise RecordError(
            f"kind {record.kind!r} of schema version {record.schema_version} is not {what} of "
            f"version {version}; read it with the ninlab that wrote it"
        )


def check_slug(what: str, text: str) -> None:
    """Raises RecordError unless text can be part of a record's file name."""
    if not _SLUG.fullmatch(text):
        raise RecordError(
            f"the {what} {text!r} cannot be part of a file name; use lower-case letters, digits, "
            "'_', '-' and '.', beginning with a letter or digit"
        )


def whole(kind: type[Part]) -> Callable[[Mapping[str, Any]], Part]:
    """What makes a dataclass of a JSON object that states every field: defaults are for writers.

    It raises KeyError with the fields that are missing, TypeError for one that there is not.
    """

    def read(values: Mapping[str, Any]) -> Part:
        missing = {field.name for field in fields(kind)} - set(values)
        if missing:
            raise KeyError(*sorted(missing))
        return kind(**values)

    return read


def from_fields(
    kind: type[Record], content: Mapping[str, Any], **readers: Callable[[Any], Any]
) -> Record:
    """The record of a JSON object that states its id and every field.

    readers make the values of fields for which JSON has no type. Raises RecordError when the
    object does not fit the schema, or states another id than its fields do.
    """
    try:
        values = dict(content)
        stated_id = values.pop("id")
        record = whole(kind)(values | {name: read(values[name]) for name, read in readers.items()})
    except RecordError:
        raise
    except (KeyError, TypeError, ValueError) as error:
        raise RecordError(f"the record does not fit its schema: {error!r}") from error
    if stated_id != record.id:
        raise RecordError(f"the record's id is {stated_id!r}, but its fields say {record.id!r}")
    return record
