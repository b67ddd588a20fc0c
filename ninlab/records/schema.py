"""What does every kind of record have in common? An id, a kind, a version, a reader of its JSON.

A record is a frozen dataclass, and its annotations are the schema: types, and beside them the
ranges (`Count`, `Share`, `Sha256`). pydantic reads JSON by it: strictly, so that no text
becomes a number; without defaults, which are for writers; and without fields that there are not.
What holds between fields is a law, in ``__post_init__`` or in `laws`.

pydantic is imported when the first record is read: who only names a kind does not wait for it.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from reprlib import Repr
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Protocol, TypeVar

from annotated_types import Ge, Gt, Interval, Len

from ninlab.errors import RecordError, one_sentence, shortened
from ninlab.recipes import MOST_SEED

if TYPE_CHECKING:
    from _typeshed import DataclassInstance
    from pydantic import GetCoreSchemaHandler
    from pydantic_core import CoreSchema, ErrorDetails, SchemaValidator


class _Versioned(Protocol):
    @property
    def kind(self) -> str: ...

    @property
    def schema_version(self) -> int: ...


class Recorded(Protocol):
    """A frozen dataclass that is filed under its id."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def id(self) -> str:
        """Where the record lies below the runs folder, without ``.json``."""


Record = TypeVar("Record", bound=Recorded)

Part = TypeVar("Part", bound="DataclassInstance")

FromJson = Callable[[Mapping[str, Any]], Record]


# ---------------------------------------------------------------- what a value may be


@dataclass(frozen=True)
class Form:
    """Text of that pattern (a regular expression for all of it), which words describe."""

    pattern: str
    words: str

    def __get_pydantic_core_schema__(
        self, source: type[str], handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        """How pydantic checks it, and what it then says."""
        from pydantic_core import core_schema

        return core_schema.custom_error_schema(
            {**handler(source), "pattern": f"^(?:{self.pattern})$"},
            custom_error_type="form",
            custom_error_message=self.words,
        )


class _IntegerOrFloat:
    """Beside float: a number above 0 that stays an integer where it is one."""

    def __get_pydantic_core_schema__(self, *_: object) -> CoreSchema:
        from pydantic_core import core_schema

        return core_schema.custom_error_schema(
            core_schema.union_schema(
                [core_schema.int_schema(gt=0), core_schema.float_schema(gt=0)]
            ),
            custom_error_type="form",
            custom_error_message="a number above 0",
        )


Quantity = Annotated[float, _IntegerOrFloat()]
Count = Annotated[int, Ge(0)]
Positive = Annotated[int, Ge(1)]
Seed = Annotated[int, Interval(ge=0, le=MOST_SEED)]
"""What a run takes as a seed."""
Share = Annotated[float, Interval(ge=0, le=1)]
NotNegative = Annotated[float, Ge(0)]
Above0 = Annotated[float, Gt(0)]
NotEmpty = Len(1)
"""Beside a tuple: it has an item at least."""
ImageShape = Annotated[tuple[Positive, ...], Len(3, 3)]
"""(channels, height, width)."""

_NAME = r"[a-z0-9][a-z0-9_.-]*"
Text = Annotated[str, Form(r"(?s:.*\S.*)", "text that is not blank")]
Name = Annotated[str, Form(_NAME, "lower-case letters, digits, '_', '-' and '.'")]
RunId = Annotated[
    str,
    Form(
        rf"{_NAME}/{_NAME}-seed[0-9]+-{_NAME}",
        "the id of a run, <experiment>/<name>-seed<k>-<device>",
    ),
]
Digest = Annotated[str, Form("[0-9a-f]{12}", "12 hex digits")]
Sha256 = Annotated[str, Form("[0-9a-f]{64}", "64 hex digits")]
Commit = Annotated[str, Form("[0-9a-f]{40}", "40 hex digits")]
Version = Annotated[str, Form(r"[0-9]+(\.[0-9]+)*([.+a-zA-Z-][0-9a-zA-Z.+-]*)?", "a version")]
Moment = Annotated[
    str,
    Form(
        "[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z",
        "a moment of UTC such as 2026-01-31T12:00:00Z",
    ),
]


def check_schema(record: _Versioned, kind: str, version: int, what: str) -> None:
    """Raises RecordError unless the record is of that kind and schema version; what names it."""
    if (record.kind, record.schema_version) != (kind, version):
        raise RecordError(
            f"kind {shown(record.kind)} of schema_version {record.schema_version} is not {what} of "
            f"version {version}; read it with the ninlab that wrote it"
        )


def check_slug(what: str, text: str) -> None:
    """Raises RecordError unless text can be part of a record's file name."""
    if not re.fullmatch(_NAME, text):
        raise RecordError(
            f"the {what} {shown(text)} cannot be part of a file name; use lower-case letters, "
            "digits, '_', '-' and '.', beginning with a letter or digit"
        )


# ---------------------------------------------------------------- reading JSON


def parse(data: bytes) -> dict[str, Any]:
    """The JSON object that a file holds.

    Raises RecordError when it is none, or no UTF-8, and for a name that an object states twice, of
    which JSON readers make different things. NaN, Infinity and integers of thousands of digits
    are left to the schema, which knows the name of their field.
    """
    try:
        text = data.decode()
        try:
            content = _DECODER.decode(text)
        except json.JSONDecodeError:
            raise
        except ValueError:  # of a name stated twice, or of an integer that Python does not take
            content = _DECODER_OF_HUGE.decode(text)
    except RecursionError as error:
        raise RecordError("it is no readable record: its brackets are nested too deeply") from error
    except ValueError as error:
        raise RecordError(f"it is no readable record: {one_sentence(error, 100)}") from error
    if not isinstance(content, dict):
        raise RecordError("it is no readable record: it holds no JSON object")
    return content


def an_object(content: object) -> Mapping[str, Any]:
    """The content, if it is a JSON object. Raises RecordError if it is another value of JSON."""
    if not isinstance(content, Mapping):
        raise RecordError(f"it is {shown(content)}, but must be an object")
    return content


def from_fields(kind: type[Record], content: Mapping[str, Any]) -> Record:
    """The record of a JSON object that states its id and every field.

    Raises RecordError, with the field and the rule, when the content is no object, does not fit
    the schema, or states another id than its fields do.
    """
    values = dict(an_object(content))
    stated_id = values.pop("id", None)
    record = part(kind, values)
    if stated_id != record.id:
        raise RecordError(f"id is {shown(stated_id)}, but the fields say {shown(record.id)}")
    return record


def part(kind: type[Part], values: Mapping[str, Any]) -> Part:
    """The dataclass of a JSON object that states every field: defaults are for writers.

    Raises RecordError with the first field that does not fit, as a dotted path, and the rule.
    """
    from pydantic_core import ValidationError

    try:
        made: Part = _validator(kind).validate_python(values)
    except ValidationError as error:
        first, *others = error.errors(include_url=False)
        more = f" (and {len(others)} more)" if others else ""
        raise RecordError(_sentence(first) + more) from error
    except RecursionError as error:
        raise RecordError("its brackets are nested too deeply") from error
    return made


@cache
def _validator(kind: type[DataclassInstance]) -> SchemaValidator:
    from pydantic import TypeAdapter
    from pydantic_core import SchemaValidator

    return SchemaValidator(_strict(TypeAdapter(kind).core_schema))


def _strict(schema: Any) -> Any:
    """A schema of pydantic's in which nothing is converted, optional or unheard of.

    Only arrays become tuples and texts members of an enumeration, for which JSON has no type.
    """
    if isinstance(schema, list):
        return [_strict(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("type") == "default":
        return _strict(schema["schema"])
    tightened = {name: _strict(value) for name, value in schema.items()}
    return {**tightened, **_STRICT.get(str(schema.get("type")), {})}


_STRICT: Mapping[str, Mapping[str, Any]] = {
    "int": {"strict": True},
    "float": {"strict": True, "allow_inf_nan": False},
    "bool": {"strict": True},
    "str": {"strict": True},
    "dataclass-args": {"extra_behavior": "forbid"},
}


def _sentence(error: ErrorDetails) -> str:
    """The field that does not fit as a dotted path, what it is and what it must be."""
    path = dotted(error["loc"])
    what, context = error["type"], error.get("ctx", {})
    if what == "missing":
        return f"{path} is missing"
    if what == "unexpected_keyword_argument":
        return f"{path} is no field of this kind of record"
    if what == "value_error":  # of a law, which names its fields
        law = one_sentence(context["error"], 200)
        return f"{path}: {law}" if path else law
    rule = error["msg"] if what == "form" else error["msg"][:1].lower() + error["msg"][1:]
    if what in _RULES:
        bounds = {name: _as_integer(bound) for name, bound in context.items()}
        rule = _RULES[what].format(**bounds)
    return f"{path or 'it'} is {shown(error['input'])}, but must be {rule}"


def _as_integer(bound: Any) -> Any:
    """The bound without ``.0``."""
    return int(bound) if isinstance(bound, float) and bound.is_integer() else bound


_RULES: Mapping[str, str] = {
    "bool_type": "true or false",
    "dataclass_type": "an object",
    "dict_type": "an object",
    "mapping_type": "an object",
    "enum": "{expected}",
    "finite_number": "a finite number",
    "float_type": "a number",
    "greater_than": "above {gt}",
    "greater_than_equal": "at least {ge}",
    "int_type": "an integer",
    "less_than": "below {lt}",
    "less_than_equal": "at most {le}",
    "literal_error": "{expected}",
    "string_type": "text",
    "string_unicode": "text of valid characters",
    "too_long": "at most {max_length} items long",
    "too_short": "at least {min_length} items long",
    "tuple_type": "an array",
}


def dotted(path: Sequence[int | str]) -> str:
    """A place in JSON as a person writes it: ``epochs[2].test_accuracy``."""
    steps = (f"[{step}]" if isinstance(step, int) else f".{shortened(step, 100)}" for step in path)
    return "".join(steps).removeprefix(".")


def shown(value: object) -> str:
    """A value in a sentence: as JSON has it, and short."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    return one_sentence(_SHORT.repr(value), 80)


_SHORT = Repr()
_SHORT.maxlevel, _SHORT.maxlist, _SHORT.maxdict, _SHORT.maxtuple = 2, 2, 2, 2
_SHORT.maxstring = _SHORT.maxother = 60


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The object of these fields. Raises ValueError for a name that is there twice."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{dotted([twice])} is stated twice")
    return found


def _integer(digits: str) -> float:
    return int(digits) if len(digits) < 1_000 else math.copysign(math.inf, float(digits[:9]))


_DECODER = json.JSONDecoder(object_pairs_hook=_unique)
_DECODER_OF_HUGE = json.JSONDecoder(object_pairs_hook=_unique, parse_int=_integer)
