"""How long did each operator of a training step take on a device, and how long at least?

`profiling` takes steps under torch's profiler; here its events are joined with the operators that
`roofline` counts, and what comes of it is kept: seconds, kernels, FLOPs and bytes of every
operator, one record for a network under one setting.

The join goes by name and order. The roofline lists the calls of a step in the order in which torch
makes them. So the third relu of the one is the third relu of the other, as long as both have the
same number, forward and on the way back. Where a device calls a name more often or less often than
the roofline does, nothing says which call is whose: the name keeps its seconds, and has neither
layer nor work.

Seconds are of the device: kernels and copies on a GPU, on a CPU the time inside of operators. Gaps,
in which the device waits for the host, are in none of them.

Known limits. Bytes are those that an operator must move, not those that its kernels did. Names of
kernels are cut at `LONGEST_NAME` characters; those alike up to there count as one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from itertools import chain
from math import fsum
from pathlib import Path
from typing import Annotated, Any

from ninlab.architectures import ARCHITECTURES, architecture
from ninlab.devices import DataSheet, of_cuda_name
from ninlab.errors import NinlabError, RecordError, shortened
from ninlab.records import (
    Device,
    Provenance,
    Software,
    check_origin,
    check_schema,
    check_slug,
    from_fields,
    load_kind,
)
from ninlab.records.schema import (
    Above0,
    Count,
    Digest,
    ImageShape,
    Name,
    NotEmpty,
    NotNegative,
    Positive,
    Text,
    shown,
)
from ninlab.reports import Phase
from ninlab.roofline import Operator, operator_seconds, training_operators
from ninlab.steps import Kernels, Optimizer, Precision
from ninlab.units import format_seconds

KIND = "profile"
"""The ``kind`` of these records, and the folder below runs/ in which they lie."""

SCHEMA_VERSION = 1
LONGEST_NAME = 200
"""Characters that are kept of a kernel's name, which may hold the types of whole templates."""

NO_OPERATOR = "kernels of no operator"
"""The name under which kernels are listed that no event of the host launched."""


class Place(StrEnum):
    """Where in the engine's step an operator is called."""

    COUNTED = "counted"  # the roofline has an operator of that name
    UNCOUNTED = "uncounted"  # between zero_grad and the update's end, and the roofline has none
    OUTSIDE = "outside"  # before or behind: the engine picks images and counts what is right


@dataclass(frozen=True)
class Work:
    """What the roofline counts of an operator, or of one half of a `convolution_backward`."""

    flops: Count
    bytes: Count


@dataclass(frozen=True)
class KernelTime:
    """A kernel of an operator, or a copy: how often a step ran it, and how long in all."""

    name: Text
    calls: Above0
    seconds: NotNegative


@dataclass(frozen=True)
class OperatorTime:
    """What an operator took in a step, in the mean over the profiled ones.

    It is one call where the roofline's operator is known: then it has a phase and its work, and,
    but for the optimizer's, a layer. Else it is all calls of the name in a step, which may be none.
    kernels are sorted by their seconds; on a CPU there are none.
    """

    name: Text  # torch's, without namespace and overload
    place: Place
    layer: Text | None
    phase: Phase | None
    calls: NotNegative
    seconds: NotNegative
    work: tuple[Work, ...]
    kernels: tuple[KernelTime, ...] = ()

    @property
    def flops(self) -> int | None:
        """FLOPs of the whole batch, None where nothing says whose call it was."""
        return sum(one.flops for one in self.work) if self.work else None

    @property
    def bytes(self) -> int | None:
        """Bytes that must move for the whole batch, None where nothing says whose call it was."""
        return sum(one.bytes for one in self.work) if self.work else None

    def least_seconds(self, device: DataSheet, precision: str) -> float | None:
        """The least time by the data sheet, None where no work or no rate is known."""
        if not self.work or not _has_rates(device, precision):
            return None
        return sum(
            operator_seconds(
                Operator("", Phase.FORWARD, self.name, one.flops, one.bytes), device, precision
            )
            for one in self.work
        )


def _has_rates(device: DataSheet, precision: str) -> bool:
    return precision in device.flops_per_second and device.bytes_per_second is not None


# ---------------------------------------------------------------- the join


@dataclass(frozen=True, slots=True)
class Event:
    """One event of a profiler, with those inside it, in their order.

    seconds and kernels, as (name, seconds), are of this one alone. On a GPU seconds are the sum of
    the kernels'.
    """

    name: str
    seconds: float
    kernels: tuple[tuple[str, float], ...] = ()
    children: tuple[Event, ...] = ()

    def all(self) -> Iterator[Event]:
        """This one and all inside it."""
        yield self
        for child in self.children:
            yield from child.all()


_BEGINS, _ENDS = "Optimizer.zero_grad#", "Optimizer.step#"
"""As torch calls the first and the last event of what the roofline counts."""

NAMESPACES = ("aten::", "ninlab::")
"""Of operators: events of other names are autograd's nodes, marks and calls of CUDA's runtime."""

_WAY_BACK = "autograd::engine::evaluate_function: "

_BY_OTHER_NAMES: Mapping[str, str] = {
    # The engine's update is fused: like the call on lists, it reads weights and gradients once and
    # writes weights once.
    "_fused_sgd_": "_foreach_add_",
}
_BY_OTHER_NAMES_ON_THE_WAY_BACK: Mapping[str, str] = {
    "add_": "add",  # a sum of gradients, in place or not: it reads two and writes one
}


def step_operators(setting: Setting) -> tuple[Operator, ...]:
    """What the engine calls in the setting's step, as the roofline counts it: with plain SGD.

    Raises UnknownNetworkError for a network that there is not.
    """
    return training_operators(
        architecture(setting.network),
        setting.batch_size,
        Optimizer.SGD,
        setting.precision,
        kernels=setting.kernels,
    )


def joined(
    operators: Iterable[Operator], steps: Sequence[Sequence[Event]]
) -> tuple[OperatorTime, ...]:
    """What each operator took, in the mean over steps, each given by its outermost events.

    First come the operators of the roofline, in their order, then names whose calls differ in
    number, then what else is called in a step, and what is called outside. Raises NinlabError
    without a step.
    """
    if not steps:
        raise NinlabError("no step was profiled; take one or more")
    expected: dict[str, list[_Call]] = {}
    for number, operator in enumerate(operators):
        calls = expected.setdefault(_plain(operator.name), [])
        if operator.calls:
            calls.append(_Call(number, [operator]))
        else:  # the second half of the call before it
            calls[-1].halves.append(operator)
    found = [_sorted_out(step, expected) for step in steps]
    called: dict[int, OperatorTime] = {}
    others: list[OperatorTime] = []
    for name, calls in expected.items():
        of_steps = [step.counted.get(name, []) for step in found]
        if not all(_are_those(calls, of_step) for of_step in of_steps):
            every = [one.events for one in chain(*of_steps)]
            others.append(_mean(name, Place.COUNTED, every, len(steps)))
            continue
        for call, same in zip(calls, zip(*of_steps, strict=True), strict=True):
            events = [one.events for one in same]
            called[call.number] = _mean(name, Place.COUNTED, events, len(steps), call.halves)
    rest: dict[tuple[Place, str], list[list[Event]]] = {}
    for step in found:
        for key, parts in step.rest.items():
            rest.setdefault(key, []).extend(parts)
    others += [
        _mean(name, place, rest[place, name], len(steps))
        for wanted in (Place.UNCOUNTED, Place.OUTSIDE)
        for place, name in rest
        if place is wanted
    ]
    return (*(called[number] for number in sorted(called)), *others)


@dataclass(frozen=True)
class _Call:
    """A call that the roofline counts: the number of its operator, and its one or two halves."""

    number: int
    halves: list[Operator]


@dataclass(frozen=True)
class _Called:
    """One call of a name of the roofline: its event, then all inside it."""

    events: list[Event]
    on_the_way_back: bool


def _are_those(calls: Sequence[_Call], found: Sequence[_Called]) -> bool:
    """Whether these are the roofline's calls of a name: as many, and as many on either way."""
    ways = [call.halves[0].phase is Phase.BACKWARD for call in calls]
    if len(set(ways)) == 1:  # the gradient of the loss itself is made before the way back begins
        return len(found) == len(calls)
    return [one.on_the_way_back for one in found] == ways


@dataclass(frozen=True)
class _Sorted:
    """A step's events: those of the roofline by name, all else by place and outermost event.

    Each item of rest is what is left of an outermost event without those of the roofline.
    """

    counted: dict[str, list[_Called]] = field(default_factory=dict)
    rest: dict[tuple[Place, str], list[list[Event]]] = field(default_factory=dict)


def _sorted_out(step: Iterable[Event], names: Iterable[str]) -> _Sorted:
    """The events of one step, by what they are."""
    known, found = set(names), _Sorted()
    place = Place.OUTSIDE
    for event in step:
        if event.name.startswith(_BEGINS):
            place = Place.UNCOUNTED
        left: list[Event] = []
        for name, called in _outermost(event, set() if place is Place.OUTSIDE else known):
            if name is None:
                left += called.events
            else:
                found.counted.setdefault(name, []).append(called)
        if any(one.seconds > 0 for one in left):
            found.rest.setdefault((place, _plain(event.name)), []).append(left)
        if event.name.startswith(_ENDS):
            place = Place.OUTSIDE
    return found


def _outermost(
    event: Event, names: set[str], *, on_the_way_back: bool = False
) -> Iterator[tuple[str | None, _Called]]:
    """The outermost events of these names, each with all inside it; unnamed and alone the rest."""
    on_the_way_back = on_the_way_back or event.name.startswith(_WAY_BACK)
    if event.name.startswith(NAMESPACES):
        name = _plain(event.name)
        name = _BY_OTHER_NAMES.get(name, name)
        if on_the_way_back:
            name = _BY_OTHER_NAMES_ON_THE_WAY_BACK.get(name, name)
        if name in names:
            yield name, _Called([*event.all()], on_the_way_back)
            return
    yield None, _Called([event], on_the_way_back)
    for child in event.children:
        yield from _outermost(child, names, on_the_way_back=on_the_way_back)


def _plain(name: str) -> str:
    """An operator's name without namespace; of autograd's nodes and torch's marks the last part."""
    return name.rpartition("::")[2].removeprefix(_WAY_BACK.rpartition("::")[2])


def _mean(
    name: str,
    place: Place,
    calls: Sequence[Sequence[Event]],
    steps: int,
    halves: Sequence[Operator] = (),
) -> OperatorTime:
    """The mean over so many steps of what these calls took, each given by its events.

    halves are those of the call of the roofline that it is one of in every step, if that is known.
    """
    events = [*chain(*calls)]
    seconds: dict[str, list[float]] = {}
    for kernel, took in chain.from_iterable(event.kernels for event in events):
        seconds.setdefault(shortened(kernel, LONGEST_NAME), []).append(took)
    kernels = [
        KernelTime(kernel, len(each) / steps, fsum(each) / steps)
        for kernel, each in seconds.items()
    ]
    return OperatorTime(
        name=_plain(calls[0][0].name) if halves else name,
        place=place,
        layer=(halves[0].layer or None) if halves else None,
        phase=halves[0].phase if halves else None,
        calls=len(calls) / steps,
        seconds=fsum(event.seconds for event in events) / steps,
        work=tuple(Work(half.flops, half.bytes) for half in halves),
        kernels=tuple(sorted(kernels, key=lambda kernel: -kernel.seconds)),
    )


def at_the_least(
    operators: Iterable[Operator], device: DataSheet, precision: str
) -> tuple[OperatorTime, ...]:
    """The calls of the roofline as if each took the least time that the data sheet allows.

    Raises NinlabError where no document gives the device's rates.
    """
    halves_of: list[list[Operator]] = []
    last: dict[str, list[Operator]] = {}
    for operator in operators:
        if operator.calls:
            last[operator.name] = [operator]
            halves_of.append(last[operator.name])
        else:
            last[operator.name].append(operator)
    return tuple(
        _mean(
            _plain(halves[0].name),
            Place.COUNTED,
            [
                [
                    Event(
                        halves[0].name,
                        fsum(operator_seconds(half, device, precision) for half in halves),
                    )
                ]
            ],
            1,
            halves,
        )
        for halves in halves_of
    )


# ---------------------------------------------------------------- the record


@dataclass(frozen=True)
class Setting:
    """What is profiled: the training step of a network, with plain SGD, in a precision."""

    network: Name
    batch_size: Positive = 128
    precision: Precision = Precision.BF16
    kernels: Kernels = Kernels.TORCH

    @property
    def slug(self) -> str:
        """The setting as part of a file name: ``nin-b128-bf16-torch``."""
        return f"{self.network}-b{self.batch_size}-{self.precision}-{self.kernels}"

    @property
    def in_words(self) -> str:
        """The setting in a heading: ``NiN, torch's kernels, 128 images, bf16``."""
        known = ARCHITECTURES.get(self.network)
        title = self.network if known is None else known.title
        own = self.kernels == Kernels.TORCH
        kernels = "torch's kernels" if own else f"{self.kernels} kernels"
        return f"{title}, {kernels}, {self.batch_size} images, {self.precision}"


@dataclass(frozen=True)
class StepProfile:
    """The profile of one network's training step under one setting. The annotations are its schema.

    called_seconds are a step's whose operators the host calls one by one, graph_seconds those of
    one that is replayed as a CUDA graph, None where none was captured. Both are without a profiler,
    gaps included. device_seconds are the sum over operators.
    """

    setting: Setting
    network_digest: Digest
    input_shape: ImageShape
    profiled_steps: Positive
    called_seconds: Above0
    graph_seconds: Above0 | None
    device_seconds: Above0
    operators: Annotated[tuple[OperatorTime, ...], NotEmpty]
    provenance: Provenance
    device: Device
    software: Software
    kind: str = KIND
    schema_version: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        check_schema(self, KIND, SCHEMA_VERSION, "a profiled step")
        check_slug("network", self.setting.network)
        check_slug("device slug", self.device.slug)

    @property
    def id(self) -> str:
        """Where the record lies below the runs folder, without ``.json``."""
        return record_id(self.setting, self.software.torch, self.device.slug)

    @property
    def seconds(self) -> float:
        """Of the step that a run takes: the replayed one where there is one."""
        return self.called_seconds if self.graph_seconds is None else self.graph_seconds

    @property
    def data_sheet(self) -> DataSheet | None:
        """What is known of the device, None where it has no data sheet here."""
        return of_cuda_name(self.device.name)

    @property
    def least_seconds(self) -> float | None:
        """The bound of the step by the roofline, None where no data sheet or not all work is known.

        What the roofline does not count takes no time in it.
        """
        if self.data_sheet is None:
            return None
        total = 0.0
        for one in self.operators:
            if one.place is Place.COUNTED:
                least = one.least_seconds(self.data_sheet, self.setting.precision)
                if least is None:
                    return None
                total += least
        return total

    @property
    def in_words(self) -> str:
        """What was profiled, how long its step takes and at least: a heading of a table."""
        bound = self.least_seconds
        least = "" if bound is None else f", at least {format_seconds(bound)} by its data sheet"
        replayed = ""
        if self.graph_seconds is not None:
            replayed = f" and {format_seconds(self.graph_seconds)} replayed as a graph"
        return (
            f"{self.setting.in_words}, {self.device.name}, torch {self.software.torch}. "
            f"The operators take {format_seconds(self.device_seconds)} of the device{least}. "
            f"A step takes {format_seconds(self.called_seconds)} called one by one{replayed}."
        )

    def kernels_by_share(self) -> tuple[KernelTime, ...]:
        """Every kernel of a step, whichever operator ran it: the longest in all first."""
        calls: dict[str, list[float]] = {}
        seconds: dict[str, list[float]] = {}
        for operator in self.operators:
            for kernel in operator.kernels:
                calls.setdefault(kernel.name, []).append(kernel.calls)
                seconds.setdefault(kernel.name, []).append(kernel.seconds)
        kernels = (KernelTime(name, fsum(calls[name]), fsum(seconds[name])) for name in calls)
        return tuple(sorted(kernels, key=lambda kernel: -kernel.seconds))

    def to_json(self) -> dict[str, Any]:
        """The record as JSON values."""
        return {"id": self.id, **asdict(self)}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> StepProfile:
        """The record of a JSON object.

        Raises RecordError, with the field and the rule, when it does not fit the schema or breaks
        a law.
        """
        record = from_fields(cls, content)
        check_origin(record.provenance, record.device, record.software)
        for problem in _broken(record):
            raise RecordError(problem)
        return record


_SUMMED = 1e-9
"""How far two sums of the same float64 may be apart, relative to them, added in two orders."""


def _differ(one: float, other: float) -> bool:
    return abs(one - other) > _SUMMED * max(one, other)


def _broken(record: StepProfile) -> Iterator[str]:
    """The laws that a record breaks, one sentence each, with the fields."""
    on_cpu = record.device.slug == "cpu"
    if on_cpu and record.graph_seconds is not None:
        yield "graph_seconds is a number, but device.slug is a CPU's, which has no graphs"
    total = fsum(operator.seconds for operator in record.operators)
    if _differ(record.device_seconds, total):
        yield (
            f"device_seconds is {record.device_seconds!r}, but operators' seconds add up to "
            f"{total!r}"
        )
    for number, operator in enumerate(record.operators):
        for problem in _broken_operator(operator, on_cpu=on_cpu):
            yield f"operators[{number}].{problem}"
    if not any(operator.work for operator in record.operators):
        yield "operators have no work, but a step has operators that the roofline counts"


def _broken_operator(operator: OperatorTime, *, on_cpu: bool) -> Iterator[str]:
    """The laws that an operator breaks, one sentence each, from its first field on."""
    known = operator.phase is not None
    if known is not bool(operator.work):
        yield (
            f"phase is {shown(operator.phase)}, but work has {len(operator.work)} parts: the "
            "roofline gives both or neither"
        )
    has_layer = known and operator.phase is not Phase.STEP
    if (operator.layer is not None) is not has_layer:
        yield f"layer is {shown(operator.layer)}, but phase is {shown(operator.phase)}"
    if known and (operator.calls, operator.place) != (1, Place.COUNTED):
        yield (
            f"calls is {operator.calls:g} and place {operator.place}, but an operator with a phase "
            "is one call of the roofline"
        )
    if operator.calls == 0 and operator.seconds > 0:
        yield f"calls is 0, but seconds is {operator.seconds!r}"
    if on_cpu and operator.kernels:
        yield "kernels are a GPU's, but device.slug is a CPU's"
    in_kernels = fsum(kernel.seconds for kernel in operator.kernels)
    if not on_cpu and _differ(operator.seconds, in_kernels):
        yield f"seconds is {operator.seconds!r}, but kernels' seconds add up to {in_kernels!r}"
    took = [kernel.seconds for kernel in operator.kernels]
    if took != sorted(took, reverse=True):
        yield "kernels are not sorted by their seconds, the longest first"


def record_id(setting: Setting, torch_version: str, device_slug: str) -> str:
    """``profile/<network>-b<batch>-<precision>-<kernels>-torch<version>-<device>``."""
    return f"{KIND}/{setting.slug}-torch{torch_version.partition('+')[0]}-{device_slug}"


def load_records(folder: Path) -> list[StepProfile]:
    """Every profile of a runs folder, sorted by id. Raises RecordError for an invalid one."""
    return load_kind(KIND, StepProfile.from_json, (folder / KIND).glob("*.json"))


def newest(profiles: Iterable[StepProfile]) -> list[StepProfile]:
    """Of the profiles by GPUs the newest of each setting and model of GPU, sorted by id.

    An older one is of another torch.
    """
    found: dict[tuple[Setting, str], StepProfile] = {}
    for one in sorted(profiles, key=lambda one: one.provenance.utc):
        if one.device.slug != "cpu":
            found[one.setting, one.device.slug] = one
    return sorted(found.values(), key=lambda one: one.id)


# ---------------------------------------------------------------- what takes longest

RATES = ("GB/s", "TFLOP/s", "of the data sheet")
"""The columns of `longest_rows` that say how fast an operator was."""

COLUMNS = ("layer", "operator", "ms", "of the step", *RATES)
"""What `longest_rows` says of an operator."""

_LAYER_OF_THE_UPDATE = "update"
_OUTSIDE_OF_LAYERS = {
    Place.COUNTED: "several layers",
    Place.UNCOUNTED: "no layer",
    Place.OUTSIDE: "outside the network",
}
_ALL_OTHERS = "all others"


def longest_rows(
    operators: Sequence[OperatorTime], device: DataSheet | None, precision: str, most: int
) -> list[dict[str, str]]:
    """A table's rows, by `COLUMNS`: the operators that take longest, and a last row for the rest.

    Shares of the step are of the device's seconds. Rates are of the bytes and FLOPs that the
    roofline counts, and empty where it counts none. The last column compares them with the rate
    that limits the operator: the peak rate or that of memory, or both where the halves of a call
    differ. It is empty where no data sheet of the device has it.
    """
    total = fsum(operator.seconds for operator in operators)
    ranked = sorted(operators, key=lambda operator: -operator.seconds)
    rows = [_row(operator, total, device, precision) for operator in ranked[:most]]
    if left := ranked[most:]:
        seconds = fsum(operator.seconds for operator in left)
        rows.append(
            dict.fromkeys(COLUMNS, "")
            | {"layer": _ALL_OTHERS, "operator": f"{len(left)} more"}
            | _time(seconds, total)
        )
    return rows


def _row(
    operator: OperatorTime, total: float, device: DataSheet | None, precision: str
) -> dict[str, str]:
    layer = operator.layer or _OUTSIDE_OF_LAYERS[operator.place]
    if operator.phase is Phase.STEP:
        layer = _LAYER_OF_THE_UPDATE
    said = operator.phase is not Phase.BACKWARD or "backward" in operator.name
    row = dict.fromkeys(COLUMNS, "") | {
        "layer": layer,
        "operator": operator.name if said else f"{operator.name}, backward",
        **_time(operator.seconds, total),
    }
    if operator.bytes and operator.seconds:
        row["GB/s"] = _three_digits(operator.bytes / operator.seconds / 1e9)
    if operator.flops and operator.seconds:
        row["TFLOP/s"] = _three_digits(operator.flops / operator.seconds / 1e12)
    if device is not None and operator.seconds:
        row["of the data sheet"] = _reached(operator, device, precision)
    return row


def _time(seconds: float, total: float) -> dict[str, str]:
    return {"ms": f"{1e3 * seconds:.3f}", "of the step": f"{seconds / total:.1%}"}


def _three_digits(rate: float) -> str:
    return f"{rate:,.0f}" if rate >= 99.95 else f"{rate:.3g}"


def _reached(operator: OperatorTime, device: DataSheet, precision: str) -> str:
    """``62% memory``: the least time over that of the operator, and the rate that limits it."""
    least = operator.least_seconds(device, precision)
    if least is None:
        return ""
    waits = {
        one.bytes / device.bandwidth() >= one.flops / device.peak(precision)
        for one in operator.work
    }
    limit = "both" if len(waits) > 1 else "memory" if waits == {True} else "peak"
    return f"{least / operator.seconds:.0%} {limit}"
