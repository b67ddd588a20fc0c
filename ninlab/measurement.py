"""What did a device really do: peak bytes and seconds of one step?

The step is the one that the calculator predicts: a warm one in the textbook's order
(zero_grad, forward, cross-entropy, backward, step), or one forward pass without
gradients. On a GPU the caching allocator is asked for its peaks, and a trace of it
tells tensors from scratch; on the CPU torch's profiler lists every allocation. Cases
run in a fresh process for each allocator setting, because the allocator reads its
setting once.

On a GPU, "without scratch" leaves out each block that no tensor owns: cuDNN and
cuBLAS take theirs from the allocator directly. On the CPU it leaves out each block
that lives and dies inside one ATen call, which is oneDNN's and has no counterpart in a
count of tensors.

Imports from ninlab: errors, networks, records and units.

Known limits. cuDNN chooses by heuristics (``benchmark`` off), as the workspace tables
assume. Bytes outside the allocator (the CUDA context, kernels' modules) are counted
for the whole device, other processes included. CPU totals change with the number of
threads; without scratch they do not, and hold Adam's step counters, 4 bytes a
parameter tensor, which a training step on a GPU keeps on the host.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import gzip
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, astuple, dataclass
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ninlab.environment import arithmetic
from ninlab.errors import NinlabError, RecordError, UnknownNameError
from ninlab.networks import build
from ninlab.records import Device, Provenance, Software, check_slug, from_fields, load_kind
from ninlab.units import Shape

KIND = "memory"
"""The ``kind`` of these records, and the folder below runs/ in which they lie."""

SCHEMA_VERSION = 1
PRECISIONS = ("fp32", "tf32", "bf16")
MODES = ("inference", "sgd", "momentum", "adam")
"""What is measured: one forward pass, or a training step with that optimizer."""

WARM_STEPS = 3
DEFAULT_TIMED_STEPS = 20


class Allocator(StrEnum):
    """How the device's memory is handed out. The first two are settings of the CUDA allocator."""

    DEFAULT = "default"
    EXPANDABLE_SEGMENTS = "expandable_segments"
    CPU = "cpu"


class Outcome(StrEnum):
    """How a case ended."""

    FINISHED = "finished"
    OUT_OF_MEMORY = "out_of_memory"


@dataclass(frozen=True)
class Case:
    """One thing to measure. Raises NinlabError for a value that cannot be measured."""

    network: str
    input_shape: Shape
    batch_size: int
    precision: str = "fp32"
    mode: str = "sgd"

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise UnknownNameError("precision", self.precision, PRECISIONS)
        if self.mode not in MODES:
            raise UnknownNameError("mode", self.mode, MODES)
        if self.batch_size < 1:
            raise NinlabError(f"the batch size must be at least 1, not {self.batch_size}")

    @property
    def slug(self) -> str:
        """The case as part of a file name: ``nin-b128-tf32-sgd``."""
        return f"{self.network}-b{self.batch_size}-{self.precision}-{self.mode}"


@dataclass(frozen=True)
class Measured:
    """What one case took. Bytes are of the whole batch; None is what a device does not tell.

    requested_peak_bytes counts what was asked for, scratch included, and
    tensor_peak_bytes the same without scratch; allocated and reserved are the CUDA
    caching allocator's. overhead_bytes is device memory in use outside the allocator.
    step_seconds holds the three quartiles over timed_steps steps.
    """

    outcome: Outcome
    requested_peak_bytes: int | None = None
    tensor_peak_bytes: int | None = None
    allocated_peak_bytes: int | None = None
    reserved_peak_bytes: int | None = None
    overhead_bytes: int | None = None
    step_seconds: tuple[float, float, float] | None = None
    timed_steps: int = 0

    @property
    def median_seconds(self) -> float | None:
        """The middle quartile of the step's duration."""
        return None if self.step_seconds is None else self.step_seconds[1]


# ---------------------------------------------------------------- the step


class Step:
    """A network with what its step needs, on its device; calling it takes one step.

    Scores and loss of a step are held until the next one has returned its own.
    """

    def __init__(self, case: Case, device: torch.device) -> None:
        self._case = case
        self._network: nn.Module = build(case.network, seed=0).to(device)
        self._images = torch.zeros(case.batch_size, *case.input_shape, device=device)
        self._held: tuple[Tensor, ...] = ()
        self._optimizer: torch.optim.Optimizer | None = None
        if case.mode == "inference":
            self._network.eval()
            return
        self._labels = torch.zeros(case.batch_size, dtype=torch.int64, device=device)
        if case.mode == "adam":
            self._optimizer = torch.optim.Adam(self._network.parameters(), foreach=True)
        else:
            momentum = 0.9 if case.mode == "momentum" else 0.0
            self._optimizer = torch.optim.SGD(
                self._network.parameters(), lr=0.01, momentum=momentum, foreach=True
            )

    def __call__(self) -> None:
        """Take one step; it may still run on the device when this returns."""
        self._held = self._predict() if self._optimizer is None else self._train(self._optimizer)

    def _train(self, optimizer: torch.optim.Optimizer) -> tuple[Tensor, Tensor]:
        optimizer.zero_grad(set_to_none=True)
        with self._autocast():
            scores = self._network(self._images)
            loss = F.cross_entropy(scores, self._labels)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return scores, loss

    def _predict(self) -> tuple[Tensor]:
        with torch.no_grad(), self._autocast():
            return (self._network(self._images),)

    def _autocast(self) -> contextlib.AbstractContextManager[object]:
        if self._case.precision != "bf16":
            return contextlib.nullcontext()
        return torch.autocast(self._images.device.type, torch.bfloat16)


def measure(
    case: Case,
    device: torch.device,
    timed_steps: int = DEFAULT_TIMED_STEPS,
    events: Path | None = None,
) -> Measured:
    """Peaks and duration of that case on that device, in this process.

    With ``timed_steps=0`` only the bytes are measured. events names a file (.json.gz) for
    the allocator's trace of one step on a GPU: a list with the fields of `GpuEvent`.
    Raises NinlabError for TF32 on a CPU, which has none.
    """
    if device.type == "cuda":
        return _measure_on_gpu(case, device, timed_steps, events)
    if case.precision == "tf32":
        raise NinlabError("tf32 is arithmetic of NVIDIA GPUs; measure fp32 or bf16 on a CPU")
    return _measure_on_cpu(case, device, timed_steps)


def _quartiles(
    step: Callable[[], None], count: int, wait: Callable[[], None]
) -> tuple[float, float, float]:
    """(quarter, median, three quarters) of the seconds of so many steps, waited for one by one."""
    seconds = []
    for _ in range(count):
        start = time.perf_counter()
        step()
        wait()
        seconds.append(time.perf_counter() - start)
    quarter, median, three_quarters = statistics.quantiles(seconds, n=4, method="inclusive")
    return quarter, median, three_quarters


# ---------------------------------------------------------------- CPU


@dataclass(frozen=True, slots=True)
class _CpuEvent:
    nanoseconds: int
    address: int
    bytes: int  # negative where the block is freed
    call: int | None  # which ATen call it happened in
    in_step: bool


def _measure_on_cpu(case: Case, device: torch.device, timed_steps: int) -> Measured:
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    ) as profiler:
        step = Step(case, device)  # inside, so that every block's birth is seen
        step()
        with torch.profiler.record_function(_MEASURED_STEP):
            step()
    results: Any = profiler.profiler
    events = sorted(
        _cpu_events(results.kineto_results.experimental_event_tree()),
        key=lambda event: event.nanoseconds,
    )
    return Measured(
        outcome=Outcome.FINISHED,
        requested_peak_bytes=_peak(events),
        tensor_peak_bytes=_peak(_without_scratch(events)),
        step_seconds=_quartiles(step, timed_steps, lambda: None) if timed_steps else None,
        timed_steps=timed_steps,
    )


_MEASURED_STEP = "ninlab: measured step"


def _cpu_events(
    nodes: Sequence[Any], call: int | None = None, in_step: bool = False
) -> Iterator[_CpuEvent]:
    """Allocations and releases of the profiler's tree.

    call is the outermost ATen call that is no mere composition of others: what a count
    of operators sees as one.
    """
    from torch._C._profiler import _EventType

    for node in nodes:
        if node.tag == _EventType.Allocation:
            fields = node.extra_fields
            yield _CpuEvent(node.start_time_ns, fields.ptr, fields.alloc_size, call, in_step)
        inner = call
        if call is None and node.tag == _EventType.TorchOp and not _is_composed(node.name):
            inner = node.start_time_ns
        yield from _cpu_events(node.children, inner, in_step or node.name == _MEASURED_STEP)


@cache
def _is_composed(name: str) -> bool:
    """Whether that name is no ATen operator, or one that only calls others."""
    namespace, _, operator = name.partition("::")
    packet = getattr(torch.ops.aten, operator, None) if namespace == "aten" else None
    if packet is None:
        return True
    overloads = {f"{name}.{o}" if o != "default" else name for o in packet.overloads()}
    dispatched = overloads & _dispatched_operators()
    has_kernel: Any = torch._C._dispatch_has_kernel_for_dispatch_key
    return all(has_kernel(overload, "CompositeImplicitAutograd") for overload in dispatched)


@cache
def _dispatched_operators() -> frozenset[str]:
    """Every operator that torch's dispatcher knows; TorchScript knows a few more."""
    return frozenset(torch._C._dispatch_get_all_op_names())


def _without_scratch(events: Sequence[_CpuEvent]) -> list[_CpuEvent]:
    """The events of blocks that outlive the ATen call they were allocated in."""
    born: dict[int, int] = {}
    scratch: set[int] = set()
    for index, event in enumerate(events):
        if event.bytes > 0:
            born[event.address] = index
            continue
        birth = born.pop(event.address, None)
        if birth is not None and event.call is not None and events[birth].call == event.call:
            scratch |= {birth, index}
    return [event for index, event in enumerate(events) if index not in scratch]


def _peak(events: Sequence[_CpuEvent]) -> int:
    """Most bytes alive in the measured step."""
    alive = peak = 0
    for event in events:
        alive += event.bytes
        if event.in_step:
            peak = max(peak, alive)
    return peak


# ---------------------------------------------------------------- GPU


@dataclass(frozen=True, slots=True)
class GpuEvent:
    """One entry of the CUDA allocator's trace; bytes are what was requested."""

    allocates: bool
    address: int
    bytes: int
    is_scratch: bool  # no tensor owns the block; False at its release


def _measure_on_gpu(
    case: Case, device: torch.device, timed_steps: int, events: Path | None
) -> Measured:
    with torch.cuda.device(device), arithmetic(case.precision, benchmark=False):
        try:
            measured, trace = _gpu_step(case, device, timed_steps)
        except torch.OutOfMemoryError:
            return Measured(Outcome.OUT_OF_MEMORY)
        finally:
            gc.collect()
            torch._C._cuda_clearCublasWorkspaces()
            torch.cuda.empty_cache()
    if events is not None:
        with gzip.open(events, "wt", encoding="utf-8") as file:
            json.dump([astuple(event) for event in trace], file)
    return measured


def _gpu_step(
    case: Case, device: torch.device, timed_steps: int
) -> tuple[Measured, list[GpuEvent]]:
    """What one case takes, and the allocator's trace of one warm step of it."""

    def wait() -> None:
        torch.cuda.synchronize(device)

    step = Step(case, device)
    step()  # makes the optimizer's state, cuDNN's plans and cuBLAS's workspaces
    wait()
    torch.cuda.reset_peak_memory_stats(device)
    step()
    wait()
    peaks = torch.cuda.memory_stats(device)
    free, total = torch.cuda.mem_get_info(device)
    overhead = total - free - torch.cuda.memory_reserved(device)
    for _ in range(WARM_STEPS if timed_steps else 0):
        step()
    wait()
    quartiles = _quartiles(step, timed_steps, wait) if timed_steps else None
    torch._C._cuda_clearCublasWorkspaces()  # kept ones are taken again, inside the trace
    tensors_before = torch.cuda.memory_stats(device)["requested_bytes.all.current"]
    trace = _trace(step, device)
    measured = Measured(
        outcome=Outcome.FINISHED,
        requested_peak_bytes=peaks["requested_bytes.all.peak"],
        tensor_peak_bytes=tensor_peak(trace, tensors_before),
        allocated_peak_bytes=peaks["allocated_bytes.all.peak"],
        reserved_peak_bytes=peaks["reserved_bytes.all.peak"],
        overhead_bytes=overhead,
        step_seconds=quartiles,
        timed_steps=timed_steps,
    )
    return measured, trace


def _trace(step: Step, device: torch.device) -> list[GpuEvent]:
    memory: Any = torch.cuda.memory
    memory._record_memory_history(
        enabled="all", context="alloc", stacks="all", max_entries=1_000_000
    )
    try:
        step()
        torch.cuda.synchronize(device)
        entries = memory._snapshot(device)["device_traces"][torch.cuda.current_device()]
    finally:
        memory._record_memory_history(enabled=None)
    return [
        GpuEvent(
            entry["action"] == "alloc",
            entry["addr"],
            entry["size"],
            entry["action"] == "alloc" and not _is_tensors(entry["frames"]),
        )
        for entry in entries
        if entry["action"] in ("alloc", "free_completed")
    ]


def _is_tensors(frames: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a block was allocated through the functions that every empty tensor comes from."""
    return any("at::detail::empty" in frame["name"] for frame in frames)


def tensor_peak(trace: Sequence[GpuEvent], tensors_before: int) -> int | None:
    """Most bytes of tensors alive in the traced step, given those alive before it.

    None where no allocation could be told to be a tensor's, because this build of torch
    names no functions in its stacks.
    """
    allocations = [event for event in trace if event.allocates]
    if allocations and all(event.is_scratch for event in allocations):
        return None
    alive = peak = tensors_before
    scratch: set[int] = set()
    for event in trace:
        if event.is_scratch:
            scratch.add(event.address)
        elif not event.allocates and event.address in scratch:
            scratch.remove(event.address)
        else:
            alive += event.bytes if event.allocates else -event.bytes
            peak = max(peak, alive)
    return peak


def cudnn_device_properties(device: torch.device) -> dict[str, Any]:
    """What cuDNN itself says of the device, as tools/cudnn_workspaces.py takes it.

    Needs cuDNN 9.8 or later. Raises NinlabError when the library is not there or refuses.
    """
    device_properties, device_id, as_json = 38, 2700, 2702  # cudnn_graph.h
    int32, char = 23, 24
    try:
        library = ctypes.CDLL("libcudnn.so.9")  # torch has loaded it: this finds the same one
    except OSError as error:
        raise NinlabError(f"cuDNN is not loaded in this process: {error}") from None

    def call(function: str, *arguments: object) -> None:
        status = getattr(library, function)(*arguments)
        if status:
            raise NinlabError(
                f"cuDNN answered {function} with status {status}; describing a device needs "
                "cuDNN 9.8 or later"
            )

    descriptor, length = ctypes.c_void_p(), ctypes.c_int64()
    index = ctypes.c_int32(device.index or 0)
    one = ctypes.c_int64(1)
    call("cudnnBackendCreateDescriptor", device_properties, ctypes.byref(descriptor))
    try:
        call("cudnnBackendSetAttribute", descriptor, device_id, int32, one, ctypes.byref(index))
        call("cudnnBackendFinalize", descriptor)
        get = ("cudnnBackendGetAttribute", descriptor, as_json, char)
        call(*get, ctypes.c_int64(0), ctypes.byref(length), None)
        text = ctypes.create_string_buffer(length.value)
        call(*get, length, ctypes.byref(length), text)
    finally:
        call("cudnnBackendDestroyDescriptor", descriptor)
    properties: dict[str, Any] = json.loads(text.raw.rstrip(b"\0"))
    return properties


# ---------------------------------------------------------------- one process an allocator


def measure_in_process(
    cases: Sequence[Case],
    device: torch.device,
    allocator: Allocator,
    *,
    timed_steps: int = DEFAULT_TIMED_STEPS,
    threads: int = 1,
    events_folder: Path | None = None,
) -> Iterator[Measured]:
    """Measures the cases one after the other in one fresh process with that allocator setting.

    Each result comes as soon as it is there. events_folder receives one trace a case on a
    GPU. Raises NinlabError with the process's last words when it ends early.
    """
    job = {
        "device": str(device),
        "timed_steps": timed_steps,
        "threads": threads,
        "events_folder": None if events_folder is None else str(events_folder),
        "cases": [asdict(case) for case in cases],
    }
    with tempfile.TemporaryFile("w+") as errors:
        with subprocess.Popen(
            [sys.executable, "-m", __name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=_environment(allocator),
            text=True,
        ) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(json.dumps(job))
            process.stdin.close()
            answered = 0
            try:
                for line in process.stdout:
                    answered += 1
                    yield measured_from_json(json.loads(line))
            finally:
                process.terminate()
        if answered < len(cases):
            errors.seek(0)
            words = errors.read().strip().splitlines() or ["it said nothing"]
            raise NinlabError(f"the measuring process ended at {cases[answered]}: {words[-1]}")


def _environment(allocator: Allocator) -> dict[str, str]:
    """This process's environment with that setting of the CUDA allocator, and no other."""
    names = ("PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF")
    environment = {key: value for key, value in os.environ.items() if key not in names}
    if allocator is Allocator.EXPANDABLE_SEGMENTS:
        environment[names[0]] = "expandable_segments:True"
    return environment


def _serve() -> None:
    """Measures the cases of the job on stdin; one JSON object a line on stdout."""
    job = json.load(sys.stdin)
    torch.set_num_threads(job["threads"])
    folder = job["events_folder"]
    for content in job["cases"]:
        case = Case(**content | {"input_shape": tuple(content["input_shape"])})
        events = Path(folder) / f"{case.slug}.json.gz" if folder else None
        measured = measure(case, torch.device(job["device"]), job["timed_steps"], events)
        print(json.dumps(asdict(measured)), flush=True)


def measured_from_json(content: Mapping[str, Any]) -> Measured:
    """The result that a JSON object holds. Raises RecordError when it does not fit."""
    try:
        seconds = content["step_seconds"]
        return Measured(
            **dict(content)
            | {
                "outcome": Outcome(content["outcome"]),
                "step_seconds": None if seconds is None else tuple(seconds),
            }
        )
    except (KeyError, TypeError, ValueError) as error:
        raise RecordError(f"no measured case: {error!r}") from error


def probe_rate(device: torch.device, precision: str) -> float:
    """FLOP/s of one convolution, forward and backward: enough to estimate a duration."""
    channels, size, batch_size = 64, 56, 8
    conv = nn.Conv2d(channels, channels, 3, padding=1).to(device)
    images = torch.zeros(batch_size, channels, size, size, device=device, requires_grad=True)
    enabled = precision == "bf16"

    def step() -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=enabled):
            scores = conv(images).sum()
        scores.backward()

    with arithmetic(precision, benchmark=False):
        step()
        wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
        _, median, _ = _quartiles(step, 3, wait)
    macs = batch_size * size**2 * channels**2 * 3**2
    return 3 * 2 * macs / median  # forward, and the gradients of images and weights


# ---------------------------------------------------------------- records


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
        if self.kind != KIND or self.schema_version != SCHEMA_VERSION:
            raise RecordError(
                f"kind {self.kind!r} of schema version {self.schema_version} is no measured step "
                f"of version {SCHEMA_VERSION}; read it with the ninlab that wrote it"
            )
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
            case=lambda value: Case(**value | {"input_shape": tuple(value["input_shape"])}),
            allocator=Allocator,
            measured=measured_from_json,
            provenance=lambda value: Provenance(**value),
            device=lambda value: Device(**value),
            software=lambda value: Software(**value),
        )


def record_id(case: Case, allocator: Allocator, torch_version: str, device_slug: str) -> str:
    """``memory/<case>-<allocator>-torch<version>-<device>``."""
    release = torch_version.partition("+")[0]
    return f"{KIND}/{case.slug}-{allocator}-torch{release}-{device_slug}"


def load_records(folder: Path) -> list[MemoryRecord]:
    """Every measured step of a runs folder, sorted by id. Raises RecordError for an invalid one."""
    return load_kind(KIND, MemoryRecord.from_json, (folder / KIND).glob("*.json"))


if __name__ == "__main__":
    _serve()
