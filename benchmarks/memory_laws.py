"""What does each law buy that predicts the memory of a GPU?

    python -m benchmarks.memory_laws --site SITE     # writes runs/benchmarks/memory-laws.json
    python -m benchmarks.memory_laws --table         # the file's errors as Markdown tables

Every step that an H100 measured, of the book's networks and of torchvision's, is predicted with
all laws, with each law switched off alone, and with the laws switched on one after the other, from
none. The switches are here and not in the calculator. SITE holds the cuDNN that the H100 ran, as
tools/cudnn_workspaces.py has it; another process asks it (cudnn_laws.py). It takes a minute, and
needs no GPU. Run it again when a law has changed: tests/test_memory_laws.py fails then.
"""

from __future__ import annotations

import argparse
import importlib
import json
import subprocess
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

from torch import nn

from benchmarks import strangers
from ninlab import memory_laws, records
from ninlab.allocator import CachingAllocator
from ninlab.environment import describe_software
from ninlab.errors import NinlabError
from ninlab.measurement import (
    INFERENCE,
    PEAKS,
    Allocator,
    Case,
    Measured,
    load_records,
    measured_from_json,
)
from ninlab.memory_laws import (
    ID,
    KIND,
    LAWS,
    OWN,
    SCHEMA_VERSION,
    STRANGERS,
    TENSORS,
    MemoryLaws,
    without,
)
from ninlab.records import Device
from ninlab.reports import MemoryEvent, MemoryReport
from ninlab.resources import StepTimeline, cuda, load, temporaries, trace_step, with_scratch
from ninlab.steps import Optimizer, Precision
from ninlab.workspaces import ConvCall, Direction, Source, Workspaces, minor_version

DEVICE, TORCH = "h100", "2.11"
Laws = frozenset[str]
TRACED: Laws = frozenset({"attention", "inner_tensors"})
"""The laws that tracing follows; the others are about what is made of it."""
Question = tuple[str, str, int, str]
"""A convolution's key, its direction, the batch size and the mode."""


# ---------------------------------------------------------------- what was measured


@dataclass(frozen=True)
class Step:
    """A measured step of a network of either group."""

    group: str
    case: Case
    allocator: Allocator
    measured: Measured
    device: Device
    torch: str

    @property
    def peaks(self) -> list[int | None]:
        """The measured peaks, in the order of `PEAKS`."""
        return [getattr(self.measured, field) for field in PEAKS.values()]


def measured_steps(folder: Path) -> list[Step]:
    """All that an H100 has measured under that torch: first the book's networks."""
    steps = [
        Step(OWN, one.case, one.allocator, one.measured, one.device, one.software.torch)
        for one in load_records(folder)
    ]
    for file in sorted((folder / "probes").glob("strangers-*.jsonl")):
        steps += [
            Step(
                STRANGERS,
                *(strangers.case_of(line), Allocator.DEFAULT),
                measured_from_json(line["measured"]),
                *(Device(**line["device"]), line["torch"]),
            )
            for line in strangers.read_lines(file)
        ]
    return [one for one in steps if DEVICE in one.device.slug and one.torch.startswith(TORCH)]


# ---------------------------------------------------------------- the switches


def variants() -> dict[str, Laws]:
    """Which laws are on, by the name of a variant: none to all of them, then all but one."""
    return {name: frozenset(laws) for name, laws in memory_laws.variants().items()}


def network_of(step: Step) -> nn.Module | str:
    """The module that was measured, or its name among the book's."""
    if step.group == OWN:
        return step.case.network
    module: nn.Module = getattr(importlib.import_module(strangers.FACTORIES), step.case.network)()
    return module


@cache
def traced(step: Step, laws: Laws) -> StepTimeline:
    """The step of that case on tensors without data."""
    case, training = step.case, step.case.mode != INFERENCE
    with switched(laws):
        return trace_step(
            load(network_of(step), case.input_shape),
            case.batch_size,
            case.mode if training else Optimizer.SGD,
            autocast=Precision(case.precision).autocasts,
            training=training,
        )


@contextmanager
def switched(laws: Laws) -> Iterator[None]:
    """Tracing without fused attention and without the tensors inside operators, unless they are on.

    Attention is its plain formula then, and of an operator only the results are seen, in order.
    """
    with ExitStack() as off:
        if "attention" not in laws:
            off.enter_context(patch.object(cuda, "_fits_fused_attention", lambda *_: False))
        if "inner_tensors" not in laws:
            off.enter_context(patch.object(temporaries, "RULES", {}))
        yield


def events_of(step: Step, laws: Laws, tables: Workspaces) -> tuple[MemoryEvent, ...]:
    """What the step allocates and frees under those laws; tables has their workspaces."""
    timeline = traced(step, laws & TRACED)
    if "scratch" not in laws:
        return timeline.events
    calls = timeline.calls
    if "memory_formats" not in laws:
        calls = tuple(
            replace(call, memory_formats=("contiguous",) * len(call.directions)) for call in calls
        )
    if "reductions" not in laws:
        calls = tuple(replace(call, reductions=()) for call in calls)
    made = with_scratch(replace(timeline, calls=calls), tables, step.case.precision)
    if made is None:
        raise NinlabError(f"nobody knows the scratch of {step.case.slug}")
    events, _ = made
    if "late_cublas" not in laws:
        events = tuple(event._replace(first_at=None) for event in events)
    return events


def predicted(step: Step, laws: Laws, tables: Workspaces) -> MemoryReport:
    """The peaks of the step under those laws."""
    events = events_of(step, laws, tables)
    allocator = CachingAllocator(
        expandable_segments=step.allocator is Allocator.EXPANDABLE_SEGMENTS,
        segments_fall="falling_segments" in laws,
    )
    return allocator.replay(events, step.case.batch_size)


# ---------------------------------------------------------------- cuDNN


def tables_of(ask: Callable[[ConvCall, Direction, int, str], int | None]) -> Workspaces:
    """Workspaces of which each is what ask says, and none is looked up."""
    table = Workspaces.load(DEVICE, torch=TORCH)
    return replace(table, rows={}, ask=ask, ask_source=Source.DESCRIBED)


def questions(steps: Iterable[Step], of: Iterable[Laws]) -> list[Question]:
    """All that cuDNN has to be asked for these variants."""
    found: dict[Question, None] = {}

    def note(call: ConvCall, direction: Direction, batch_size: int, mode: str) -> int:
        found[call.key, str(direction), batch_size, mode] = None
        return 0

    of = {laws & (TRACED | {"scratch", "memory_formats"}) for laws in of}
    for step in steps:
        for laws in of:
            events_of(step, laws, tables_of(note))
    return list(found)


def asked(site: Path, wanted: Sequence[Question]) -> tuple[str, dict[str, dict[Question, Any]]]:
    """The version of cuDNN, and its answers by the rules that it was asked with.

    Raises NinlabError where it is another cuDNN than that of the table.
    """
    table = Workspaces.load(DEVICE, torch=TORCH)
    text = {"site": str(site), "properties": dict(table.device_properties), "questions": wanted}
    told = subprocess.run(
        [sys.executable, "-m", "benchmarks.cudnn_laws"],
        input=json.dumps(text),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    answer = json.loads(told.stdout)
    if answer["cudnn"] != table.cudnn:
        raise NinlabError(f"SITE holds cuDNN {answer['cudnn']}; the H100 ran {table.cudnn}")
    return answer["cudnn"], {
        rules: dict(zip(wanted, sizes, strict=True)) for rules, sizes in answer["answers"].items()
    }


def answering(answers: Mapping[str, Mapping[Question, Any]], laws: Collection[str]) -> Workspaces:
    """The workspaces that cuDNN named, with the rules among those laws."""
    of = answers[" ".join(law for law in ("products", "split_sums") if law in laws)]
    return tables_of(lambda call, *rest: of[(call.key, *rest)])


# ---------------------------------------------------------------- the record


def judge(site: Path, folder: Path) -> None:
    """Predicts all and writes the file."""
    provenance = records.provenance("python -m benchmarks.memory_laws --site SITE")
    steps, on = measured_steps(folder), variants()
    version, answers = asked(site, questions(steps, on.values()))
    devices = {one.device.name for one in steps}
    content = {
        "id": ID,
        "kind": KIND,
        "schema_version": SCHEMA_VERSION,
        "provenance": asdict(provenance),
        "software": asdict(describe_software()),
        "measured_on": sorted(devices),
        "measured_with": sorted({minor_version(one.torch) for one in steps}),
        "cudnn": version,
        "variants": {name: [law for law in LAWS if law in laws] for name, laws in on.items()},
    }
    lines = [f" {json.dumps(key)}: {json.dumps(value)}," for key, value in content.items()]
    cases = list(judged(steps, on, answers))
    MemoryLaws.from_json(content | {"cases": cases})  # what the book cannot read is not written
    body = ",\n".join("  " + json.dumps(line) for line in cases)
    text = "\n".join(["{", *lines, ' "cases": [', body, " ]", "}"]) + "\n"
    path = records.record_path(folder, ID)
    records.write_bytes(path, text.encode())
    print(f"{len(steps)} steps, {len(on)} variants: {path}", file=sys.stderr)


def judged(
    steps: Iterable[Step], on: Mapping[str, Laws], answers: Mapping[str, Mapping[Question, Any]]
) -> Iterator[dict[str, Any]]:
    """A line of the file for each step: its peaks, measured and predicted by every variant."""
    for step in steps:
        peaks = {}
        for name, laws in on.items():
            report = predicted(step, laws, answering(answers, laws))
            peaks[name] = [getattr(report, field) for field in PEAKS.values()]
        yield {
            "group": step.group,
            "case": asdict(step.case),
            "allocator": step.allocator,
            "measured": step.peaks,
            "predicted": peaks,
        }


# ---------------------------------------------------------------- the tables

NAMED = {OWN: "the book's networks", STRANGERS: "torchvision's networks"}

COLUMNS = (
    "switched on in turn",
    "allocated: mean error",
    "within 1 %",
    "exact",
    "reserved: median",
    "mean",
    "worst",
    "within 1 %",
    "exact",
    "without this law alone: median",
    "mean",
)


def table(laws: MemoryLaws) -> str:
    """The errors as Markdown, a table for each group of networks and a row for each law."""
    parts = []
    for group in (OWN, STRANGERS):
        parts += [
            f"{len(laws.of(group))} steps of {NAMED[group]}:",
            "",
            f"| {' | '.join(COLUMNS)} |",
            f"| :-- |{' --: |' * (len(COLUMNS) - 1)}",
        ]
        for law in (TENSORS, *LAWS):
            allocated, reserved = (laws.summary(law, group, f) for f in ("allocated", "reserved"))
            row = [
                LAWS.get(law, "tensors alone"),
                *(f"{allocated.mean:.2%}", allocated.right, allocated.exact),
                *(f"{reserved.median:.2%}", f"{reserved.mean:.2%}", f"{reserved.worst:+.1%}"),
                *(reserved.right, reserved.exact),
            ]
            if law in LAWS:
                off = laws.summary(without(law), group, "reserved")
                row += [f"{off.median:.2%}", f"{off.mean:.2%}"]
            else:
                row += ["", ""]
            parts.append(f"| {' | '.join(map(str, row))} |")
        parts.append("")
    return "\n".join(parts)


def main() -> int:
    """Exit code: 0 done, 2 a reader's mistake."""
    parser = argparse.ArgumentParser(description="Judge each law of a GPU's memory.")
    doing = parser.add_mutually_exclusive_group(required=True)
    doing.add_argument("--site", type=Path, help="directory that holds nvidia/cudnn")
    doing.add_argument("--table", action="store_true", help="print the file's errors")
    parser.add_argument("--runs", type=Path, default=records.runs_folder(), help="runs folder")
    chosen = parser.parse_args()
    try:
        if chosen.site:
            judge(chosen.site, chosen.runs)
        else:
            print(table(MemoryLaws.load(chosen.runs)))
    except NinlabError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
