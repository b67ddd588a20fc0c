"""What can be wrong in a record's file: every kind of record, changed in every way that counts.

`faults` changes real records, one change each, the same ones for the same seed. Whatever it
gives must be refused by ``runs --validate``, in one sentence with the field and the rule.
``python -m tests.record_faults --count 2000`` tries that many and prints a table.

A change to a value that could as well have been measured cannot be found by looking at a record,
so none is made. `FREE` names the fields of which that holds; some of them are bound from one side,
and then the change goes beyond that bound. It also holds of

- null for what a device, a checkout or a tool may not tell (`MAY_BE_NULL`);
- zero, or any large number, for what has no such bound (`MAY_BE_ZERO`, `MAY_BE_HUGE`);
- a loss in its last digits: a curve and the epochs' means agree to six digits only;
- what is said of losses that a diverged run took, which no other number tells of;
- an entry more or less of what is listed as it comes (`ANY_LENGTH`), or two of them swapped;
- layout: blanks between the values, ``1e1`` for ``10.0``.
"""

from __future__ import annotations

import argparse
import copy
import json
import random
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ninlab import records
from ninlab.commands import validation
from ninlab.failures import Cause, FailureRecord
from ninlab.records import RunRecord
from tests.records import A_RECORD, a_profile

Place = tuple[str | int, ...]
Json = Any

FREE = {
    "training": r"""
        provenance\.(utc|command|commit|clean_tree)|software\..*
        device\.(name|memory_bytes|threads|driver|power_limit_watts)
        recipe\.(learning_rate|momentum|weight_decay|nesterov|optimizer|schedule|precision
            |augmentation|standardize|kernels)
        host\.(processor|cpu_capability|kernel_variables\.\w+|cores|own_cores|other_cores)
        execution|peak_\w+_bytes|learning_rate_from\[\]|weights_sha256|wall_seconds
        epochs\[\]\.(test_loss|dead_classes|seconds|evaluation_seconds|train_accuracy
            |test_accuracy)
    """,
    "memory": r"""
        provenance\.(utc|command|commit|clean_tree)|software\..*
        device\.(name|memory_bytes|threads|driver|power_limit_watts)
        measured\.(\w+_bytes|step_seconds\[\]|timed_steps)|predicted\.\w+
    """,
    "benchmark": r"""
        provenance\.(utc|command|commit|clean_tree)|software\..*
        device\.(name|memory_bytes|threads|driver|power_limit_watts)
        (peers|tools)\..*|steps\[\]\.\w+_bytes
        answers\[\]\.(macs|saved_bytes|peak_bytes|\w+_seconds|resident_growth_bytes)
    """,
    "memory_laws": r"""
        provenance\.(utc|command|commit|clean_tree)|software\..*|cudnn|measured_(on|with)\[\]
        cases\[\]\.(group|allocator|case\.(network|input_shape\[\]|batch_size|precision|mode)
            |measured\[\]|predicted\..*\[\])
    """,
    "profile": r"""
        provenance\.(utc|command|commit|clean_tree)|software\..*
        device\.(name|memory_bytes|threads|driver|power_limit_watts)
        profiled_steps|(called|graph)_seconds|operators\[\]\.(name|layer|calls|work\[\]\.\w+)
        operators\[\]\.kernels\[\]\.(name|calls)
    """,
    "failure": r"""
        provenance\.(utc|command|commit|clean_tree)|software\..*|cause|sentence|tried_eagerly|code
        device\.(name|memory_bytes|threads|driver|power_limit_watts)
    """,
}
"""Fields that may have another value of their type and range, by kind; indices are left out."""

MAY_BE_NULL = r"""
    device\.(driver|power_limit_watts)|software\.(cudnn)|epochs\[\]\.test_loss
    measured\.(tensor_peak_bytes|overhead_bytes)
    answers\[\]\.(macs|saved_bytes|peak_bytes|again_seconds)|graph_seconds
"""
MAY_BE_ZERO = r"""
    recipe\.(learning_rate|momentum|weight_decay)|epochs\[\]\.(test_loss|dead_classes)
    epochs\[\]\.(train|test)_accuracy|measured\.overhead_bytes
    answers\[\]\.(macs|saved_bytes|peak_bytes|\w+_seconds|resident_growth_bytes)|seed
    operators\[\]\.work\[\]\.\w+
"""
MAY_BE_HUGE = r"""
    device\.(memory_bytes|threads|power_limit_watts)|recipe\.(learning_rate|weight_decay)
    epochs\[\]\.test_loss|wall_seconds|peak_reserved_bytes|predicted\.bound_seconds
    measured\.(overhead_bytes|timed_steps|step_seconds\[\])
    (predicted|measured)\.(reserved|requested)_peak_bytes|predicted\.tensor_peak_bytes
    answers\[\]\.(macs|saved_bytes|peak_bytes|\w+_seconds|resident_growth_bytes)
    steps\[\]\.requested_peak_bytes|cases\[\]\.case\.(input_shape\[\]|batch_size)
    cases\[\]\.(measured|predicted\..*)\[\]|profiled_steps|(called|graph)_seconds
    operators\[\]\.(calls|work\[\]\.\w+|kernels\[\]\.calls)
"""
MAY_BE_NEGATIVE = r"answers\[\]\.resident_growth_bytes"
ANY_LENGTH = (
    r"steps|answers|cases|learning_rate_from|measured_(on|with)|peers|tools|predicted"
    r"|operators\[\]\.work"
)
IN_IDS = ("batch_size", "seed", "run", "code")
"""Fields that the schema bounds from one side only, and the record's id from the other."""
WORD = re.compile("[A-Za-z0-9]+")
LOSSES = r"loss\.values\[\]|epochs\[\]\.train_loss"


@dataclass(frozen=True)
class Fault:
    """One changed file. fields are names of which the refusal must say one at least."""

    change: str
    path: str  # below the runs folder, where the file lies
    field: str
    data: bytes
    fields: tuple[str, ...]


@dataclass(frozen=True)
class Original:
    """A real record."""

    path: str
    data: bytes
    content: Json

    @property
    def kind(self) -> str:
        return str(self.content["kind"])

    @property
    def diverged(self) -> bool:
        return self.content.get("outcome") == "diverged"


def originals() -> list[Original]:
    """The book's own, and what it has none of: a failed run, a profile, a run of this version."""
    folder = records.runs_folder()
    files = {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.glob("*/*.json")
        if path.parent.name != "probes"  # which are no records
    }
    failed = FailureRecord(
        run="head/nin_28-seed0-cpu", cause=Cause.HUNG, sentence="it stood in step 7",
        tried_eagerly=True, code="c" * 40, provenance=A_RECORD.provenance,
        device=A_RECORD.device, software=A_RECORD.software,
    )  # fmt: skip
    of_this_version = replace(
        RunRecord.from_json(json.loads(files["collapse/nin_28-seed0-cpu.json"])),
        seed=99, weights_sha256=None,
    )  # fmt: skip
    for made_up in (failed, a_profile(), of_this_version):
        files[f"{made_up.id}.json"] = json.dumps(made_up.to_json()).encode()
    return [Original(path, data, json.loads(data)) for path, data in sorted(files.items())]


def faults(seed: int = 0) -> Iterator[Fault]:
    """Changed records without end: kinds of records and of changes in turn, the rest by chance."""
    chance = random.Random(seed)
    by_kind: dict[str, list[Original]] = {}
    for original in originals():
        by_kind.setdefault(original.kind, []).append(original)
    kinds = [*by_kind, "training", "training"]
    while True:
        for change in CHANGES:
            original = chance.choice(by_kind[chance.choice(kinds)])
            yield from CHANGES[change](change, original, chance)


# ---------------------------------------------------------------- one change each


def at(content: Json, place: Place) -> Json:
    for step in place:
        content = content[step]
    return content


def leaves(content: Json, place: Place = ()) -> Iterator[Place]:
    """The places of all values that hold no others."""
    if isinstance(content, dict | list) and content:
        steps = content if isinstance(content, dict) else range(len(content))
        for step in steps:
            yield from leaves(content[step], (*place, step))
    else:
        yield place


def objects(content: Json, place: Place = ()) -> Iterator[Place]:
    """The places of all JSON objects."""
    if isinstance(content, dict):
        yield place
    if isinstance(content, dict | list):
        for step in content if isinstance(content, dict) else range(len(content)):
            yield from objects(content[step], (*place, step))


def dotted(place: Place, *, indices: bool = True) -> str:
    steps = (
        (f"[{step}]" if indices else "[]") if isinstance(step, int) else f".{step}"
        for step in place
    )
    return "".join(steps).removeprefix(".")


def is_one_of(place: Place, patterns: str) -> bool:
    """Whether one of the patterns, which lines part, is the place without its indices."""
    joined = re.sub(r"\s*\n\s*\|", "|", patterns.strip())
    alternatives = "|".join(line.strip() for line in joined.splitlines())
    return re.fullmatch(f"(?:{alternatives})", dotted(place, indices=False)) is not None


def is_free(original: Original, place: Place) -> bool:
    unbound = original.diverged and is_one_of(place, LOSSES + r"|recipe\.epochs")
    return unbound or is_one_of(place, FREE[original.kind])


def changed(original: Original, place: Place, value: Json) -> bytes:
    content = copy.deepcopy(original.content)
    at(content, place[:-1])[place[-1]] = value
    return json.dumps(content).encode()


def names(original: Original, place: Place = ()) -> tuple[str, ...]:
    """What a refusal of that place says: its own name, or any field's where a law finds it."""
    own = [str(step) for step in place if isinstance(step, str)]
    if own:
        return (own[-1], "id") if own[-1] in IN_IDS else (own[-1],)
    return tuple({step for p in leaves(original.content) for step in p if isinstance(step, str)})


def put(value: Callable[[Json], Json], fits: Callable[[Original, Place, Json], bool]) -> Any:
    """A change of one leaf to what value makes of it, where it fits; the leaf's name is said."""

    def change(what: str, original: Original, chance: random.Random) -> Iterator[Fault]:
        places = [p for p in leaves(original.content) if fits(original, p, at(original.content, p))]
        if not places:
            return
        # by name first, so that a curve of 256 points does not take all the turns
        name = chance.choice(sorted({dotted(p, indices=False) for p in places}))
        place = chance.choice([p for p in places if dotted(p, indices=False) == name])
        data = changed(original, place, value(at(original.content, place)))
        yield Fault(what, original.path, dotted(place), data, names(original, place))

    return change


def is_number(value: Json) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_int(value: Json) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def other(value: Json) -> Json:
    """Another value of that type, and far from it."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    if isinstance(value, float):
        return value * 1.5 + 0.01
    if isinstance(value, str):
        middle = len(value) // 2
        letter = "0" if value[middle] != "0" else "1"
        return value[:middle] + letter + value[middle + 1 :]
    return [[1]]


def anything(_: Original, __: Place, value: Json) -> bool:
    return True


def of(test: Callable[[Json], bool], exempt: str = "") -> Callable[[Original, Place, Json], bool]:
    def fits(original: Original, place: Place, value: Json) -> bool:
        return test(value) and not (exempt and is_one_of(place, exempt))

    return fits


def other_value(what: str, original: Original, chance: random.Random) -> Iterator[Fault]:
    """Another value where another field tells of it; any field of the law may be named."""
    content = original.content
    places = [
        p for p in leaves(content) if not is_free(original, p) and at(content, p) not in (None, [])
    ]
    name = chance.choice(sorted({dotted(p, indices=False) for p in places}))
    place = chance.choice([p for p in places if dotted(p, indices=False) == name])
    data = changed(original, place, other(at(content, place)))
    yield Fault(what, original.path, dotted(place), data, names(original))


def deleted(what: str, original: Original, chance: random.Random) -> Iterator[Fault]:
    places = [
        (*place, name)
        for place in objects(original.content)
        for name in at(original.content, place)
        if not (place and is_one_of(place, ANY_LENGTH))
    ]
    place = chance.choice(places)
    content = copy.deepcopy(original.content)
    del at(content, place[:-1])[place[-1]]
    data = json.dumps(content).encode()
    yield Fault(what, original.path, dotted(place), data, names(original, place))


def misspelt(what: str, original: Original, chance: random.Random) -> Iterator[Fault]:
    places = [
        (*place, name)
        for place in objects(original.content)
        for name in at(original.content, place)
        if not (place and is_one_of(place, "peers"))
    ]
    place = chance.choice(places)
    content = copy.deepcopy(original.content)
    holder = at(content, place[:-1])
    holder[chance.choice([f"{place[-1]}s", f" {place[-1]}"])] = holder.pop(place[-1])
    data = json.dumps(content).encode()
    yield Fault(what, original.path, dotted(place), data, names(original, place) + names(original))


def added(what: str, original: Original, chance: random.Random) -> Iterator[Fault]:
    places = [p for p in objects(original.content) if not is_one_of(p, "peers|tools")]
    place = chance.choice(places)
    content = copy.deepcopy(original.content)
    at(content, place)["unheard_of"] = chance.choice([1, None, "x", {}])
    named = ("unheard_of", *map(str, place))
    yield Fault(what, original.path, dotted(place), json.dumps(content).encode(), named)


def twice(what: str, original: Original, chance: random.Random) -> Iterator[Fault]:
    """A name that an object states twice, the second time with another value."""
    place = chance.choice(list(objects(original.content)))
    name = chance.choice(list(at(original.content, place)))
    marked = copy.deepcopy(original.content)
    at(marked, place)["\0"] = None
    again = f"{json.dumps(name)}: {chance.choice(['null', '0', '[]'])}"
    data = json.dumps(marked).replace(f"{json.dumps(chr(0))}: null", again).encode()
    yield Fault(what, original.path, dotted((*place, name)), data, (name,))


def swapped(what: str, original: Original, chance: random.Random) -> Iterator[Fault]:
    """Two entries of a list that has an order."""
    if original.kind in ("benchmark", "failure"):
        return
    content = copy.deepcopy(original.content)
    field = {"training": "epochs", "memory": "step_seconds"}.get(original.kind, "variants")
    if field == "epochs" and len(content["epochs"]) < 2:
        return
    if original.kind == "profile":
        field = "kernels"
        unequal = (one[field] for one in content["operators"] if is_ranked(one[field]))
        listed = next(unequal, None)
        if listed is None:  # as on a CPU, where there are no kernels
            return
        listed.reverse()
    elif field == "variants":
        laws = content["variants"]["all laws"]
        laws[0], laws[1] = laws[1], laws[0]
    else:
        listed = content["measured"][field] if original.kind == "memory" else content[field]
        listed[0], listed[-1] = listed[-1], listed[0]
    yield Fault(what, original.path, field, json.dumps(content).encode(), (field,))


def is_ranked(kernels: Json) -> bool:
    return len(kernels) > 1 and kernels[0]["seconds"] > kernels[-1]["seconds"]


def shorter(what: str, original: Original, chance: random.Random) -> Iterator[Fault]:
    """A list without its last entry, or with it twice."""
    content = copy.deepcopy(original.content)
    places = {p[:i] for p in leaves(content) for i in range(1, len(p)) if isinstance(p[i], int)}
    places = {p for p in places if not is_one_of(p, ANY_LENGTH)}
    if not places:
        return
    place = chance.choice(sorted(places, key=dotted))
    listed = at(content, place)
    if chance.random() < 0.5:
        listed.pop()
    else:
        listed.append(listed[-1])
    yield Fault(what, original.path, dotted(place), json.dumps(content).encode(), names(original))


def renamed_kind(what: str, original: Original, chance: random.Random) -> Iterator[Fault]:
    kind = chance.choice(
        ["trainin", "Training", "training ", "", "memory_law", None, 1, ["memory"]]
    )
    data = changed(original, ("kind",), kind)
    yield Fault(what, original.path, "kind", data, ("kind",))


def another_kind(what: str, original: Original, chance: random.Random) -> Iterator[Fault]:
    kinds = {"training", "memory", "benchmark", "memory_laws", "profile", "failure"} - {
        original.kind
    }
    data = changed(original, ("kind",), chance.choice(sorted(kinds)))
    yield Fault(what, original.path, "kind", data, ("missing", "field"))


def moved(what: str, original: Original, chance: random.Random) -> Iterator[Fault]:
    """A record under another name, in another folder, or too deep."""
    folder, name = original.path.split("/")
    path = chance.choice([
        f"{folder}/x{name}", f"x{folder}/{name}", f"{folder}/deep/{name}", name,
        f"{folder}/{name.upper().replace('.JSON', '.json')}", f"{folder}/{name}.2",
    ])  # fmt: skip
    yield Fault(what, path, "", original.data, ("id", "lies", "belongs", "neither"))


def only_training(change: Callable[[Json, random.Random], str]) -> Any:
    """A change of a training run's content, which says the field that it changed."""

    def made(what: str, original: Original, chance: random.Random) -> Iterator[Fault]:
        if original.kind == "training":
            content = copy.deepcopy(original.content)
            field = change(content, chance)
            if content != original.content:
                data = json.dumps(content).encode()
                yield Fault(what, original.path, field, data, names(original))

    return made


def one_class(content: Json, _: random.Random) -> str:
    content["confusion"] = [[content["data_set"]["evaluation_images"]]]
    return "confusion"


def moved_in_confusion(content: Json, chance: random.Random) -> str:
    """An image that was judged rightly is judged wrongly: all sums stay."""
    rows = content["confusion"]
    label = chance.choice([label for label, row in enumerate(rows) if row[label]])
    rows[label][label] -= 1
    rows[label][label - 1] += 1
    return f"confusion[{label}]"


def two_fewer_rows(content: Json, _: random.Random) -> str:
    content["confusion"] = [row[:-2] for row in content["confusion"][:-2]]
    content["data_set"]["evaluation_images"] = sum(map(sum, content["confusion"]))
    return "confusion"


def other_accuracy(content: Json, chance: random.Random) -> str:
    """Not a count of images."""
    number = chance.randrange(len(content["epochs"]))
    field = chance.choice(["test_accuracy", "train_accuracy"])
    content["epochs"][number][field] = 0.123456789
    return f"epochs[{number}].{field}"


def other_last_accuracy(content: Json, _: random.Random) -> str:
    last = content["epochs"][-1]
    last["test_accuracy"] = 0.5 if last["test_accuracy"] != 0.5 else 0.25
    return "epochs[-1].test_accuracy"


def fewer_epochs(content: Json, _: random.Random) -> str:
    content["epochs"].pop()
    return "epochs"


def other_outcome(content: Json, chance: random.Random) -> str:
    outcomes = {"finished", "stuck", "diverged"} - {content["outcome"]}
    content["outcome"] = chance.choice(sorted(outcomes))
    return "outcome"


def other_median(content: Json, _: random.Random) -> str:
    for epoch in content["epochs"]:
        epoch["seconds"] *= 0.5
    return "epochs[].seconds"


def too_short_wall(content: Json, _: random.Random) -> str:
    content["wall_seconds"] = content["epochs"][0]["seconds"] * 0.5
    return "wall_seconds"


def too_many_dead(content: Json, _: random.Random) -> str:
    content["epochs"][-1]["dead_classes"] = len(content["confusion"]) + 1
    return "epochs[-1].dead_classes"


def losses_in_null(content: Json, chance: random.Random) -> str:
    values = content["loss"]["values"]
    values[0] = (
        None if len(content["epochs"]) > 1 or content["outcome"] != "diverged" else values[0]
    )
    return "loss.values[0]"


def coarser_curve(content: Json, _: random.Random) -> str:
    curve = content["loss"]
    curve["every"] *= 2
    curve["values"] = curve["values"][::2]
    return "loss"


def on_another_device(content: Json, _: random.Random) -> str:
    content["device"]["threads"] = 1 if content["device"]["threads"] is None else None
    return "device.threads"


def peaks_out_of_order(content: Json, _: random.Random) -> str:
    content["peak_requested_bytes"] = (content["peak_reserved_bytes"] or 0) + 1
    return "peak_requested_bytes"


def commit_in_null(content: Json, _: random.Random) -> str:
    content["provenance"]["commit"] = None
    return "provenance.commit"


def no_such_day(content: Json, chance: random.Random) -> str:
    content["provenance"]["utc"] = chance.choice(
        ["2026-13-01T00:00:00Z", "2026-02-30T12:00:00Z", "2026-01-01T25:00:00Z", "yesterday",
         "2026-01-01T00:00:00", "2026-01-01"]
    )  # fmt: skip
    return "provenance.utc"


def corrects_nothing(content: Json, chance: random.Random) -> str:
    content["corrects"] = chance.choice(
        ["head/none-seed0-cpu", content["id"], "../../etc/passwd", ""]
    )
    return "corrects"


# ---------------------------------------------------------------- bytes


def bytes_of(change: Callable[[bytes, random.Random], bytes]) -> Any:
    """A change of the file's bytes that leaves no JSON, or none that is a record."""

    def made(what: str, original: Original, chance: random.Random) -> Iterator[Fault]:
        yield Fault(what, original.path, "", change(original.data, chance), ("readable", "kind"))

    return made


def flipped(what: str, original: Original, chance: random.Random) -> Iterator[Fault]:
    """One bit, wherever the result is no JSON or differs in a field that is not free."""
    for _ in range(50):
        data = bytearray(original.data)
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        try:
            content = json.loads(data.decode())
        except (ValueError, RecursionError):
            fields: tuple[str, ...] = ("readable",)
        else:
            places = difference(original.content, content)
            unbound = LOSSES + r"|predicted\..*"
            if not places or any(is_free(original, p) or is_one_of(p, unbound) for p in places):
                continue
            fields = names(original) + tuple(str(step) for p in places for step in p)
        yield Fault(what, original.path, "", bytes(data), fields)
        return


def difference(one: Json, two: Json, place: Place = ()) -> list[Place]:
    """The places at which two contents differ."""
    if isinstance(one, dict) and isinstance(two, dict):
        if one.keys() != two.keys():
            return [(*place, name) for name in sorted(one.keys() ^ two.keys())]
        return [p for name in one for p in difference(one[name], two[name], (*place, name))]
    if isinstance(one, list) and isinstance(two, list) and len(one) == len(two):
        pairs = enumerate(zip(one, two, strict=True))
        return [p for i, (a, b) in pairs for p in difference(a, b, (*place, i))]
    return [] if one == two and type(one) is type(two) else [place]


def constant(name: str) -> Any:
    """A number that JSON does not have, in place of one that it has."""

    def made(what: str, original: Original, chance: random.Random) -> Iterator[Fault]:
        places = [p for p in leaves(original.content) if is_number(at(original.content, p))]
        place = chance.choice(places)
        data = changed(original, place, "\0").replace(json.dumps("\0").encode(), name.encode())
        fields = (*names(original, place), "NaN", "Infinity")
        yield Fault(what, original.path, dotted(place), data, fields)

    return made


def deep(data: bytes, chance: random.Random) -> bytes:
    opening = chance.choice([b"[", b'{"a":'])
    return b'{"kind": "training", "id": ' + opening * 100_000


CHANGES: dict[str, Callable[[str, Original, random.Random], Iterator[Fault]]] = {
    "null": put(lambda _: None, lambda o, p, v: v is not None and not is_one_of(p, MAY_BE_NULL)),
    "a text for a number": put(str, of(is_number)),
    "words for a number": put(lambda _: "many", of(is_number)),
    "a number for a text": put(lambda _: 5, of(lambda v: isinstance(v, str))),
    "true for an integer": put(lambda _: True, of(is_int)),
    "true for a float": put(lambda _: True, of(lambda v: isinstance(v, float))),
    "a number for true": put(lambda v: int(v), of(lambda v: isinstance(v, bool))),
    "a text for true": put(lambda v: str(v).lower(), of(lambda v: isinstance(v, bool))),
    "a float for an integer": put(float, of(is_int)),
    "a fraction for an integer": put(lambda v: v + 0.5, of(is_int)),
    "a list for a value": put(lambda v: [v], of(lambda v: not isinstance(v, list))),
    "an object for a value": put(lambda v: {"value": v}, anything),
    "an empty text": put(lambda _: "", of(lambda v: isinstance(v, str))),
    "a blank text": put(lambda _: " \t", of(lambda v: isinstance(v, str))),
    "a lone surrogate": put(lambda _: "\ud800", of(lambda v: isinstance(v, str))),
    "a negative number": put(lambda v: -v - 1, of(is_number, MAY_BE_NEGATIVE)),
    "zero": put(lambda v: 0 * v, of(lambda v: is_number(v) and v != 0, MAY_BE_ZERO)),
    "a huge number": put(lambda v: v * 0 + 10**30, of(is_number, MAY_BE_HUGE)),
    "an accuracy of 8400": only_training(
        lambda content, _: content["epochs"][-1].update(test_accuracy=8400) or "test_accuracy"
    ),
    "NaN": constant("NaN"),
    "Infinity": constant("Infinity"),
    "-Infinity": constant("-Infinity"),
    "1e999": constant("1e999"),
    "5,000 digits": constant("1" * 5000),
    "another value": other_value,
    "another value, again": other_value,
    "a deleted field": deleted,
    "a misspelt field": misspelt,
    "a field too many": added,
    "a field twice": twice,
    "two entries swapped": swapped,
    "an entry more or less": shorter,
    "a misspelt kind": renamed_kind,
    "another kind": another_kind,
    "another place": moved,
    "one class": only_training(one_class),
    "an image judged otherwise": only_training(moved_in_confusion),
    "a smaller confusion": only_training(two_fewer_rows),
    "an accuracy of no count": only_training(other_accuracy),
    "another last accuracy": only_training(other_last_accuracy),
    "an epoch less": only_training(fewer_epochs),
    "another outcome": only_training(other_outcome),
    "half the seconds": only_training(other_median),
    "too short a run": only_training(too_short_wall),
    "too many dead classes": only_training(too_many_dead),
    "a loss of null": only_training(losses_in_null),
    "a coarser curve": only_training(coarser_curve),
    "another device's threads": only_training(on_another_device),
    "peaks out of order": only_training(peaks_out_of_order),
    "clean without a commit": only_training(commit_in_null),
    "no such day": only_training(no_such_day),
    "a correction of nothing": only_training(corrects_nothing),
    "cut off": bytes_of(lambda data, chance: data[: chance.randrange(len(data) - 3)]),
    "a flipped bit": flipped,
    "noise behind it": bytes_of(lambda data, _: data + b"\0"),
    "twice in one file": bytes_of(lambda data, _: data + data),
    "a byte that is no UTF-8": bytes_of(lambda data, _: data.replace(b":", b"\xff", 1)),
    "UTF-16": bytes_of(lambda data, _: data.decode().encode("utf-16")),
    "a byte order mark": bytes_of(lambda data, _: b"\xef\xbb\xbf" + data),
    "a list of it": bytes_of(lambda data, _: b"[" + data + b"]"),
    "nested too deeply": bytes_of(deep),
    "nothing": bytes_of(lambda *_: b""),
}


# ---------------------------------------------------------------- what becomes of them


class Trial:
    """A runs folder that holds one changed record at a time, with the weights that it names."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def said(self, fault: Fault) -> list[str]:
        """What is said of the changed record, as ``runs --validate`` says it."""
        path = self.folder / fault.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(fault.data)
        real = (records.runs_folder() / fault.path).with_suffix(".safetensors")
        weights = path.with_suffix(".safetensors")
        if real.exists():
            weights.symlink_to(real)
        try:
            return list(validation.problems(self.folder))
        finally:
            path.unlink()
            weights.unlink(missing_ok=True)


def flaw(fault: Fault, said: Sequence[str]) -> str | None:
    """What is wrong with the refusal of a fault; None when it is as it must be."""
    if not said:
        return "passed"
    for sentence in said:
        if len(sentence) > 300 or "\n" in sentence or not sentence.isprintable():
            return "too long, or not one line"
    words = set(WORD.findall(" ".join(said)))  # a recipe says learning rate
    if not any(words.issuperset(WORD.findall(field)) for field in fault.fields):
        return "without the field"
    return None


def main() -> int:
    """Try many, and print what became of each kind of change."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    outcomes: dict[str, Counter[str]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        trial = Trial(Path(scratch, "runs"))
        for number, fault in enumerate(faults(arguments.seed)):
            if number == arguments.count:
                break
            try:
                said = trial.said(fault)
                wrong = flaw(fault, said)
            except Exception as error:
                said, wrong = [repr(error)], "traceback"
            outcomes.setdefault(fault.change, Counter())[wrong or "refused"] += 1
            if wrong:
                print(f"{wrong}: {fault.change} of {fault.field} in {fault.path}: {said}"[:400])
    columns = ("refused", "passed", "traceback", "too long, or not one line", "without the field")
    print(f"{'change':32}{'tried':>7}" + "".join(f"{column:>27}" for column in columns))
    total: Counter[str] = Counter()
    for change, counted in sorted(outcomes.items()):
        total += counted
        cells = "".join(f"{counted[column]:27}" for column in columns)
        print(f"{change:32}{counted.total():7}{cells}")
    print(f"{'all':32}{total.total():7}" + "".join(f"{total[column]:27}" for column in columns))
    return 0 if total.total() == total["refused"] else 1


if __name__ == "__main__":
    sys.exit(main())
