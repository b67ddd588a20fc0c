r"""How large does cuDNN say that each workspace is, asked on the device itself?

    python -m tools.ask_cudnn runs/probes --device cuda --deadline SECONDS --results RESULTS

cuDNN answers for a device that is only described (`tools/cudnn_workspaces.py`), but not always
as on the device: without one it refuses the engines that an H100 runs for most 1x1 convolutions.
So this asks torch's own cuDNN with a handle, as ATen does; then, on the same machine, without a
handle and by what the device says of itself, which shows what the handle is worth; and it runs
the most wanted calls under ATen and reads what they take. `agenda` is the order, the most wanted
calls first.

A JSON line a call is appended to FILE, or to workspaces-DEVICE-TORCH.jsonl in FILE where that is
a folder: who answers ("device", "described", "aten"), the call, its batch sizes, and for each
[engine, bytes of the workspace], the engine null under ATen, the bytes cuDNN's words where it has
no plan. Lines of "list" hold all plans that ATen would try for a call of one size. The first line
is the head: device, versions, cuDNN's own description. Whatever kills the process, at most one
line is lost; the next start goes on. --deadline is a moment in seconds since 1970. --results
takes up what an earlier machine handed over, and hands over what is new every 15 s.

The table comes from the file: `tools/cudnn_workspaces.py --answers FILE`.

On a CPU, a described H100 stands in for the device, and its answers are called "stand-in". That
is for trying it out: few calls, unless --whole asks for all.

Known limits: answers hold for tensors aligned as the caching allocator aligns them, and without
``cudnn.benchmark``. A call that makes the device unusable ends the process, is written down as
failed, and is passed over by the next start.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import torch

from ninlab import exits, records
from ninlab.architectures import ARCHITECTURES
from ninlab.commands.shared import handing_over
from ninlab.cudnn import (
    Cudnn,
    CudnnError,
    OnDevice,
    Oracle,
    Planner,
    device_properties,
    installed,
    modes,
    site_of_this_environment,
    wheel_version,
)
from ninlab.devices import DEVICES
from ninlab.environment import arithmetic, describe_device, describe_software, parse_device
from ninlab.errors import NinlabError
from ninlab.steps import Precision
from ninlab.workspaces import ConvCall, Direction
from tools.cudnn_workspaces import (
    ATEN,
    BATCH_SIZES,
    DATA_SHEET,
    DESCRIBED,
    DEVICE,
    SERIALIZED,
    WRONG_CONTENT,
    convolutions,
)

LIST = "list"
STAND_IN = "stand-in"
TORCHVISION = Path(__file__).with_name("torchvision_calls.json")
WANTED = ("tf32 contiguous", "bf16 contiguous")
BOOKS_BATCH = 128
LISTED = "nin"
"""The network of whose 1x1 convolutions all plans are wanted: each plan takes time to build."""
MEASURED = {
    **{"resnet18": 32, "resnet50": 32, "mobilenet_v2": 32, "vit_b_16": 32, "densenet121": 32},
    **{"efficientnet_b0": 32, "convnext_tiny": 32, "squeezenet1_1": 128, "vgg16_bn": 32},
    **{"shufflenet_v2_x1_0": 128, "swin_t": 16, "regnet_y_400mf": 64, "mnasnet1_0": 64},
    **{"resnext50_32x4d": 16},
}
"""Batch size by network of torchvision: what `benchmarks/strangers.py` measures."""
SECONDS_BETWEEN_HANDOVERS = 15
_HEAD = b'{"device":'
"""How a file of answers begins, or does not yet."""

# ---------------------------------------------------------------- what is asked


class Question(NamedTuple):
    """One direction of a call in one mode, at several batch sizes."""

    call: ConvCall
    direction: Direction
    mode: str
    batch_sizes: tuple[int, ...]


Calls = Iterable[tuple[ConvCall, Direction]]


class Networks(NamedTuple):
    """Whose calls are asked for: the book's, and torchvision's by network."""

    book: Sequence[tuple[ConvCall, Direction]]
    torchvision: Mapping[str, Sequence[tuple[ConvCall, Direction]]]


def networks(book: Iterable[str], torchvision: Iterable[str] | None) -> Networks:
    """The calls of these networks; None means every one that torchvision_calls.json knows."""
    calls = dict.fromkeys(pair for name in book for pair in convolutions(ARCHITECTURES[name]))
    by_network: dict[str, list[tuple[ConvCall, Direction]]] = {}
    traced = json.loads(TORCHVISION.read_text(encoding="utf-8"))["calls"]
    for key, (directions, makers) in traced.items():
        for name in makers.split():
            of_network = by_network.setdefault(name, [])
            of_network += [(ConvCall.of(key), Direction(each)) for each in directions.split()]
    names = by_network if torchvision is None else torchvision
    return Networks(list(calls), {name: by_network[name] for name in names})


def questions(calls: Calls, of_modes: Iterable[str], batch_sizes: Sequence[int]) -> list[Question]:
    """Each call in each mode."""
    of_modes = list(of_modes)
    return [
        Question(call, direction, mode, tuple(batch_sizes))
        for call, direction in calls
        for mode in of_modes
    ]


def agenda(asked: Networks, all_modes: Iterable[str]) -> Iterator[tuple[str, Question]]:
    """(who answers, what is asked), the most wanted first. A question may come again."""
    every = {pair for calls in asked.torchvision.values() for pair in calls}
    others = sorted(every, key=lambda pair: (pair[0].key, pair[1]))
    both_formats = [*WANTED, *(mode.replace("contiguous", "channels_last") for mode in WANTED)]
    book = questions(asked.book, WANTED, [BOOKS_BATCH])
    measured = [
        question
        for name, batch_size in MEASURED.items()
        for question in questions(asked.torchvision.get(name, ()), both_formats, [batch_size])
    ]
    for part in (book, measured):
        for who in (DEVICE, DESCRIBED):
            yield from ((who, question) for question in part)
    listed = {call for call, _ in convolutions(ARCHITECTURES[LISTED]) if _is_1x1(call)}
    yield from ((LIST, question) for question in book if question.call in listed)
    yield from ((ATEN, question) for question in book)
    usual = questions(asked.book, WANTED, BATCH_SIZES) + questions(others, WANTED, [32, 64, 128])
    yield from ((DEVICE, question) for question in usual)
    yield from ((ATEN, question) for question in measured)
    yield from ((DESCRIBED, question) for question in usual)
    rest = questions(others, WANTED, [1, 8, 16, 256])
    rest += questions(asked.book, all_modes, BATCH_SIZES)
    yield from ((DEVICE, question) for question in rest)


def _is_1x1(call: ConvCall) -> bool:
    """Whether the call has a window of one pixel, and images of more."""
    return call.weight_shape[2:] == (1, 1) and call.input_shape[1:] != (1, 1)


# ---------------------------------------------------------------- who answers

Answer = Sequence[Any]
Answerer = Callable[[ConvCall, Direction, int, str], Answer]


def first_plan(planner: Planner) -> Answerer:
    """Answers [engine, bytes] of the plan that ATen would run."""

    def answer(call: ConvCall, direction: Direction, batch_size: int, mode: str) -> Answer:
        try:
            return planner.first(call, direction, batch_size, mode)
        except CudnnError as error:
            return [None, str(error)]

    return answer


def all_plans(planner: Planner) -> Answerer:
    """Answers [engine, bytes] of each plan that ATen would try, in its order."""

    def answer(call: ConvCall, direction: Direction, batch_size: int, mode: str) -> Answer:
        try:
            plans = planner.plans(call, direction, batch_size, mode)
            return [
                [plan.engine, plan.refusal if plan.bytes is None else plan.bytes] for plan in plans
            ]
        except CudnnError as error:
            return [[None, str(error)]]

    return answer


class DeviceLost(NinlabError):
    """No call works any more on the device."""


def under_aten(device: torch.device) -> Answerer:
    """Answers [null, bytes] that a call takes beside its operands and results.

    On a CPU, which tells no bytes, a call runs at batch size 1.
    """
    on_gpu = device.type == "cuda"

    def requested(which: str) -> int:
        return int(torch.cuda.memory_stats(device)[f"requested_bytes.all.{which}"])

    def taken(call: ConvCall, direction: Direction, batch_size: int, mode: str) -> int:
        precision, memory_format = mode.split()
        options: dict[str, Any] = {
            "device": device,
            "dtype": torch.bfloat16 if precision == Precision.BF16 else torch.float32,
        }
        layout = (
            torch.channels_last if memory_format == "channels_last" else torch.contiguous_format
        )
        batch_size = batch_size if on_gpu else 1
        images = torch.empty(batch_size, *call.input_shape, **options).to(memory_format=layout)
        weight = torch.empty(call.weight_shape, **options).to(memory_format=layout)
        geometry = (call.stride, call.padding, call.dilation, False, [0, 0], call.groups)

        def forward() -> tuple[torch.Tensor | None, ...]:
            return (torch.ops.aten.convolution(images, weight, None, *geometry),)

        def backward() -> tuple[torch.Tensor | None, ...]:
            mask = [direction == Direction.INPUT_GRADIENT, direction == Direction.WEIGHT_GRADIENT]
            results: tuple[torch.Tensor | None, ...] = torch.ops.aten.convolution_backward(
                gradient, images, weight, None, *geometry, [*mask, False]
            )
            return results

        (gradient,) = forward()
        run = forward if direction == Direction.FORWARD else backward
        run()  # finds the plan
        if not on_gpu:
            return 0
        torch.cuda.synchronize(device)
        before = requested("current")
        torch.cuda.reset_peak_memory_stats(device)
        results = run()
        torch.cuda.synchronize(device)
        held = sum(each.untyped_storage().nbytes() for each in results if each is not None)
        return requested("peak") - before - held

    def answer(call: ConvCall, direction: Direction, batch_size: int, mode: str) -> Answer:
        try:
            with torch.no_grad(), arithmetic(mode.split()[0], benchmark=False):
                return [None, taken(call, direction, batch_size, mode)]
        except RuntimeError as error:  # torch's, of memory too
            return [None, " ".join(str(error).split())[:200]]

    return answer


def check_device(device: torch.device) -> None:
    """Raises DeviceLost when the device answers no more."""
    try:
        if device.type == "cuda":
            torch.ones(1, device=device).item()
    except RuntimeError as error:
        raise DeviceLost(f"the device is lost: {' '.join(str(error).split())[:200]}") from error


class Here(NamedTuple):
    """Whom this machine can ask, and what the head says of them."""

    answerers: Mapping[str, Answerer]
    cudnn: str
    properties: Mapping[str, Any]
    properties_source: str


def here(device: torch.device) -> Here:
    """Whom to ask on that device. Raises NinlabError where cuDNN is missing or gives no handle."""
    if device.type == "cpu":
        cudnn = installed()
        if cudnn is None:
            raise NinlabError("this environment has no nvidia-cudnn wheel to rehearse with")
        properties, source = dict(DEVICES["h100"].described or {}), DATA_SHEET
        on_device: Planner = Oracle(cudnn, properties)
    else:
        torch.cuda.set_device(device.index or 0)
        torch.ones(1, device=device)  # makes the context that the handle belongs to
        torch.backends.cudnn.version()  # type: ignore[no-untyped-call]  # loads the library
        cudnn = Cudnn(None)
        properties, source = own_description(device)
        on_device = OnDevice(cudnn, cudnn.handle())
    answerers = {
        DEVICE: first_plan(on_device),
        DESCRIBED: first_plan(Oracle(cudnn, properties)),
        LIST: all_plans(on_device),
        ATEN: under_aten(device),
    }
    return Here(answerers, _version(cudnn), properties, source)


def own_description(device: torch.device) -> tuple[dict[str, Any], str]:
    """What cuDNN says of the device, and who says so: torch, of its version alone, where it fails.

    The handle is asked all the same then, and what is only described has no answers.
    """
    try:
        return device_properties(torch.cuda.current_device()), SERIALIZED
    except NinlabError as error:
        print(f"not described: {error}", file=sys.stderr)
        major, minor = torch.cuda.get_device_capability(device)
        return {"deviceVer": 100 * major + 10 * minor}, "torch"


def _version(cudnn: Cudnn) -> str:
    """The wheel's, to the build, where it is the library that torch has loaded."""
    site = site_of_this_environment()
    wheel = wheel_version(site) if site else None
    return wheel if wheel and wheel.startswith(f"{cudnn.version}.") else cudnn.version


# ---------------------------------------------------------------- what is written


class Log:
    """The file of answers, to which whole lines are added.

    Raises NinlabError, and leaves the file alone, where it holds anything else.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        file.parent.mkdir(parents=True, exist_ok=True)
        text = file.read_bytes() if file.exists() else b""
        whole = text[: text.rfind(b"\n") + 1]  # a line that a lost machine tore is asked again
        try:
            lines = [json.loads(line) for line in whole.splitlines()]
            self.has_head = any("properties" in line for line in lines)
            self._known = {
                (line["how"], line["call"], line["direction"], line["mode"], batch_size)
                for line in lines
                if "how" in line
                for batch_size in line["batch_sizes"]
            }
            if not self.has_head and (lines or not _HEAD.startswith(text[: len(_HEAD)])):
                raise ValueError("it has no head")
        except WRONG_CONTENT as error:
            raise NinlabError(
                f"{file} is not what an earlier start wrote ({error!r}); name another one"
            ) from error
        if whole != text:
            file.write_bytes(whole)

    def unasked(self, how: str, question: Question) -> tuple[int, ...]:
        """The batch sizes of the question that were not answered in that way."""
        call, direction, mode, batch_sizes = question
        return tuple(
            size
            for size in batch_sizes
            if (how, call.key, direction.value, mode, size) not in self._known
        )

    def add(self, how: str, question: Question, answers: Sequence[Answer]) -> None:
        """Write the answers at the question's batch sizes."""
        call, direction, mode, batch_sizes = question
        about = {"how": how, "call": call.key, "direction": direction.value, "mode": mode}
        self.write(about | {"batch_sizes": batch_sizes, "answers": answers})
        self._known |= {(how, call.key, direction.value, mode, size) for size in batch_sizes}

    def write(self, line: Mapping[str, Any]) -> None:
        """One more line, in one write."""
        with self.file.open("ab", buffering=0) as opened:
            opened.write(f"{json.dumps(line, separators=(',', ':'))}\n".encode())


def ask(
    target: Path,
    device: torch.device,
    asked: Networks,
    *,
    deadline: float | None = None,
    results: Path | None = None,
) -> None:
    """Asks what the file lacks, in the order of the agenda. target is FILE."""
    hand_over = handing_over(records.runs_folder(), results)
    description, software = describe_device(device), describe_software()
    release = software.torch.partition("+")[0]
    into_folder = target.is_dir() or not target.suffix
    name = f"workspaces-{description.slug}-torch{release}.jsonl"
    log = Log(target / name if into_folder else target)
    machine = here(device)
    if not log.has_head:
        code = records.provenance("python -m tools.ask_cudnn")
        log.write(
            {
                "device": asdict(description),
                **asdict(software),
                "cudnn": machine.cudnn,
                "commit": code.commit,
                "clean_tree": code.clean_tree,
                "properties_source": machine.properties_source,
                "properties": machine.properties,
            }
        )
    known_modes = modes(machine.properties)
    done: Counter[str] = Counter()
    left = 0
    started = handed_over = time.monotonic()
    for who, question in agenda(asked, known_modes):
        how = STAND_IN if who == DEVICE and device.type == "cpu" else who
        batch_sizes = log.unasked(how, question)
        if not batch_sizes or question.mode not in known_modes:
            continue
        if deadline is not None and time.time() > deadline:
            left += len(batch_sizes)
            continue
        question = question._replace(batch_sizes=batch_sizes)
        call, direction, mode, _ = question
        answers = [machine.answerers[who](call, direction, size, mode) for size in batch_sizes]
        log.add(how, question, answers)
        done[how] += len(batch_sizes)
        if who == ATEN:
            check_device(device)
        if time.monotonic() - handed_over > SECONDS_BETWEEN_HANDOVERS:
            hand_over()
            handed_over = time.monotonic()
    hand_over()
    of_each = ", ".join(f"{count} {how}" for how, count in done.items())
    seconds = time.monotonic() - started
    print(f"{done.total()} sizes asked in {seconds:.1f} s ({of_each}): {log.file}")
    if left:
        print(f"{left} sizes left for want of time")


def moment(text: str) -> float:
    """The seconds since 1970; a number that no time is after, such as nan, is none."""
    seconds = float(text)
    if not math.isfinite(seconds):
        raise ValueError(text)
    return seconds


def main(arguments: Sequence[str] | None = None) -> None:
    """Ask what FILE lacks. Raises NinlabError for a reader's mistake or a lost device."""
    parser = argparse.ArgumentParser(description="Ask cuDNN for workspaces on a device.")
    parser.add_argument("file", type=Path, metavar="FILE")
    parser.add_argument("--device", default="auto", help="cpu, cuda, or auto")
    parser.add_argument("--deadline", type=moment, help="in seconds since 1970")
    parser.add_argument("--results", type=Path, help="folder into which new lines are handed over")
    parser.add_argument("--whole", action="store_true", help="ask everything on a CPU, too")
    chosen = parser.parse_args(arguments)
    device = parse_device(chosen.device)
    few = device.type == "cpu" and not chosen.whole
    asked = networks(["lenet"], ["alexnet"]) if few else networks(ARCHITECTURES, None)
    ask(chosen.file, device, asked, deadline=chosen.deadline, results=chosen.results)


if __name__ == "__main__":
    exits.run(main)
