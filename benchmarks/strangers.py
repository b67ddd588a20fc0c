"""How well are networks predicted that the calculator was not made for?

    python benchmarks/strangers.py FILE --device cuda --events DIR --deadline SECONDS
    python benchmarks/strangers.py --join FILE...
    python benchmarks/strangers.py --correct FILE --events DIR

The first command measures torchvision's networks, untrained, with the step of
``ninlab measure``, and appends a JSON line a case to FILE: the case, what was measured, the
versions, the commit and the device. Where FILE is a folder, or a name without an ending, that is
the file strangers-DEVICE.jsonl in it. Cases that FILE holds of this device are passed over, so
that a start after a break goes on; --deadline is a moment in seconds since 1970 after which no
case is begun. --events takes the two allocator traces of each case. --results takes up what an
earlier machine handed over, and hands over what is new in the runs folder after each line, which
FILE should lie in. The exit code is 1 when a case failed, and 2 with one sentence on stderr for
what a reader did wrong or when the device seems gone. On a CPU, which is for trying it out, two
cases are measured.

The second one needs no GPU. It predicts every case of the files, with the workspaces of the
line's device and torch where a table knows them, and prints how far the peaks are off. --on
names the device of lines that do not.

The third one appends corrections of tensor peaks, found in the traces: older ones took results
that grow, those of depthwise convolutions and adaptive pools, for scratch. A correction is a
whole line of its case, whose "corrects" holds the value it replaces; the old line stays, and
whoever reads the file gets the new one.

Known limit: lines are told apart by their device, not by their torch; another torch needs
another FILE.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch
import torchvision

from ninlab import records
from ninlab.commands.measure import comparison_table, print_agreement
from ninlab.commands.shared import handing_over, wide_console
from ninlab.environment import describe_device, describe_software, parse_device, slug
from ninlab.errors import NinlabError
from ninlab.measurement import (
    Allocator,
    Case,
    Failed,
    MemoryRecord,
    errors_in_words,
    events_path,
    measure_in_process,
    measured_from_json,
    read_trace,
    tensor_peak,
    with_grown_results,
)
from ninlab.predictions import predicted_peaks
from ninlab.records import Device, Provenance, Software
from ninlab.workspaces import CUBLAS_RULES, minor_version

FACTORIES = "torchvision.models"
INPUT_SHAPE = (3, 224, 224)
TIMED_STEPS = 5
CORRECTS = "corrects"
"""Key of a line that replaces an earlier one of its case: what it corrects, with the old value."""

NETWORKS = {
    "resnet18": 32,
    "resnet50": 32,
    "mobilenet_v2": 32,
    "vit_b_16": 32,
    "densenet121": 32,
    "efficientnet_b0": 32,
    "convnext_tiny": 32,
    "squeezenet1_1": 128,
    "vgg16_bn": 32,
    "shufflenet_v2_x1_0": 128,
    "swin_t": 16,
    "regnet_y_400mf": 64,
    "mnasnet1_0": 64,
    "resnext50_32x4d": 16,
}
"""Batch size by factory: one network of each way of building them, each far below 80 GB."""

SETTINGS = (("tf32", "inference"), ("tf32", "adam"), ("bf16", "momentum"), ("tf32", "sgd"))
"""(precision, mode) of the cases; what was measured least so far comes first."""

ON_A_CPU = {"squeezenet1_1": 2, "resnet18": 2}


def cases_for(device: torch.device) -> list[Case]:
    """What is measured on that kind of device, in order."""
    on_gpu = device.type == "cuda"
    return [
        Case(name, INPUT_SHAPE, batch_size, precision, mode)
        for precision, mode in (SETTINGS if on_gpu else [("fp32", "sgd")])
        for name, batch_size in (NETWORKS if on_gpu else ON_A_CPU).items()
    ]


# ---------------------------------------------------------------- measuring


def measure(
    target: Path,
    device: torch.device,
    *,
    deadline: float | None = None,
    events: Path | None = None,
    results: Path | None = None,
    threads: int | None = None,
) -> int:
    """Appends what the target lacks; gives the number of cases that failed, each named on stderr.

    target is FILE. threads are those of the CPU, on which a GPU's networks are made, too: by
    default one of them measures a CPU, and as many as torch takes serve a GPU.
    """
    hand_over = handing_over(records.runs_folder(), results) if results else lambda: None
    here = describe_device(device)
    file = file_in(target, here)
    lines = read_lines(file) if file.exists() else []
    present = [case_of(line) for line in lines if _device(line, None).slug == here.slug]
    todo = [case for case in cases_for(device) if case not in present]
    on_gpu = device.type == "cuda"
    versions = {**asdict(describe_software()), "torchvision": torchvision.__version__}
    code = records.provenance("python benchmarks/strangers.py")
    about = {
        "commit": code.commit,
        "clean_tree": code.clean_tree,
        "device": asdict(here),
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    if events is not None:
        events.mkdir(parents=True, exist_ok=True)
    answers = measure_in_process(
        todo,
        device,
        Allocator.DEFAULT if on_gpu else Allocator.CPU,
        timed_steps=TIMED_STEPS,
        threads=threads or (torch.get_num_threads() if on_gpu else 1),
        events_folder=events,
        deadline=deadline,
        factories=FACTORIES,
    )
    answered = failed = 0
    started = time.monotonic()
    for case, answer in zip(todo, answers, strict=False):
        answered += 1
        took = time.monotonic() - started
        outcome = f"failed: {answer.sentence}" if isinstance(answer, Failed) else f"{took:.1f} s"
        print(f"{answered}/{len(todo)} {case.slug} {outcome}", file=sys.stderr, flush=True)
        if isinstance(answer, Failed):
            failed += 1
        else:
            append(file, {"case": asdict(case), "measured": asdict(answer), **versions, **about})
            hand_over()
        started = time.monotonic()
    print(f"{answered - failed} measured, {len(present)} were there already: {file}")
    if answered < len(todo):
        print(f"{len(todo) - answered} cases left for want of time")
    return failed


def file_in(target: Path, device: Device) -> Path:
    """The file for that device's lines: the target, or one in it where it is or means a folder."""
    if target.suffix and not target.is_dir():
        return target
    return target / f"strangers-{device.slug}.jsonl"


def append(file: Path, line: Mapping[str, Any]) -> None:
    """One more line, which is there as a whole or not at all: one write, small enough for that."""
    with file.open("ab", buffering=0) as opened:
        opened.write(f"{json.dumps(line)}\n".encode())


def read_lines(file: Path) -> list[dict[str, Any]]:
    """The lines of a file of measured cases; of a case that was corrected, the correction.

    Raises NinlabError for a line that is no measured case.
    """
    lines = []
    corrected = set()
    for number, text in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        try:
            line = json.loads(text)
            key = case_of(line), _device(line, None)
        except (KeyError, TypeError, ValueError) as error:
            raise NinlabError(
                f"line {number} of {file} is no measured case ({error}); remove it to go on"
            ) from None
        lines.append((key, line))
        if CORRECTS in line:
            corrected.add(key)
    return [line for key, line in lines if CORRECTS in line or key not in corrected]


def case_of(line: Mapping[str, Any]) -> Case:
    """What was measured in that line."""
    content = line["case"]
    return Case(**{**content, "input_shape": tuple(content["input_shape"])})


# ---------------------------------------------------------------- correcting


def correct(file: Path, events: Path) -> None:
    """Appends a correction of each case whose trace, kept in events, tells another tensor peak."""
    made = 0
    for line in read_lines(file):
        trace, old = events_path(events, case_of(line)), line["measured"]["tensor_peak_bytes"]
        if old is None or CORRECTS in line or not trace.exists():
            continue
        peak = peak_of_trace(trace, old, line["torch"])
        if peak != old:
            measured = line["measured"] | {"tensor_peak_bytes": peak}
            corrects = {"tensor_peak_bytes": old, "because": "results that grow are no scratch"}
            append(file, line | {"measured": measured, CORRECTS: corrects})
            made += 1
    print(f"{made} corrected: {file}")


def peak_of_trace(path: Path, recorded: int, torch_version: str) -> int:
    """The most bytes of tensors in that trace, where results that grew are tensors, too.

    recorded is the peak of the trace as it stands: it tells what was alive before.
    """
    rule = CUBLAS_RULES[minor_version(torch_version)]
    kept = (rule.large_bytes, rule.other_bytes, rule.lt_bytes) if rule.kept else ()
    trace = read_trace(path)
    before = recorded - (tensor_peak(trace, 0) or 0)
    return tensor_peak(with_grown_results(trace, kept), before) or 0


# ---------------------------------------------------------------- joining


def joined(line: Mapping[str, Any], on: str | None) -> MemoryRecord:
    """The line as a record, with what is predicted of its case.

    A case whose prediction fails is named on stderr and keeps none.
    """
    case, measured = case_of(line), measured_from_json(line["measured"])
    device = _device(line, on)
    allocator = Allocator.CPU if device.slug == "cpu" else Allocator.DEFAULT
    try:
        predicted = predicted_peaks(
            case,
            allocator,
            None if allocator is Allocator.CPU else device,
            network=getattr(importlib.import_module(FACTORIES), case.network)(),
            torch_version=line["torch"],
        )
    except Exception as error:
        print(f"{case.slug} is not predicted: {Failed.of(error).sentence}", file=sys.stderr)
        predicted = {}
    return MemoryRecord(
        case=case,
        network_digest=f"torchvision {line['torchvision']}",  # its release says what it is
        allocator=allocator,
        measured=measured,
        predicted=predicted,
        provenance=Provenance("", "", line.get("commit"), clean_tree=line.get("clean_tree", False)),
        device=device,
        software=Software(**{field.name: line.get(field.name, "") for field in fields(Software)}),
    )


def _device(line: Mapping[str, Any], on: str | None) -> Device:
    if "device" in line:
        return Device(**line["device"])
    return Device(slug(on or "unknown"), on or "unknown", 0)


def join(files: Sequence[Path], on: str | None) -> None:
    """Prints every case of the files beside its prediction, and how many are right."""
    made = [joined(line, on) for file in files for line in read_lines(file)]
    console = wide_console()
    console.print(comparison_table(made))
    print_agreement(console, made)
    if sentence := errors_in_words(made, "tensor"):
        console.print(sentence)
    on_gpu = [record for record in made if record.allocator is not Allocator.CPU]
    unknown = sum("allocated_peak_bytes" not in record.predicted for record in on_gpu)
    if unknown:
        console.print(
            f"{unknown} of {len(on_gpu)} cases on a GPU have calls that no workspace table knows; "
            "their tensors alone are predicted"
        )


# ---------------------------------------------------------------- the command line


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 0 done, 1 a case failed, 2 a reader's mistake or a lost device."""
    parser = argparse.ArgumentParser(description="Measure and predict torchvision's networks.")
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE")
    parser.add_argument("--join", action="store_true", help="predict and compare; measure nothing")
    parser.add_argument("--correct", action="store_true", help="append what the traces correct")
    parser.add_argument("--on", help="device of lines that name none, such as h100")
    parser.add_argument("--device", default="auto", help="cpu, cuda, or auto")
    parser.add_argument("--deadline", type=float, help="in seconds since 1970")
    parser.add_argument("--events", type=Path, help="folder for the traces, on a GPU")
    parser.add_argument("--results", type=Path, help="folder into which new lines are handed over")
    parser.add_argument("--threads", type=int, help="of the CPU")
    chosen = parser.parse_args(arguments)
    try:
        if chosen.join:
            join(chosen.files, chosen.on)
            return 0
        if len(chosen.files) > 1:
            raise NinlabError(f"cases go into one FILE, not {len(chosen.files)}; name one")
        if chosen.threads is not None and chosen.threads < 1:
            raise NinlabError(f"--threads must be at least 1, not {chosen.threads}")
        (target,) = chosen.files
        if chosen.correct:
            if chosen.events is None:
                raise NinlabError("--correct needs the folder of the traces; name it by --events")
            correct(target, chosen.events)
            return 0
        failed = measure(
            target,
            parse_device(chosen.device),
            deadline=chosen.deadline,
            events=chosen.events,
            results=chosen.results,
            threads=chosen.threads,
        )
    except (NinlabError, OSError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
