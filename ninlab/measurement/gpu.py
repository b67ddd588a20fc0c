"""What does a step on a GPU allocate? The caching allocator's peaks, and a trace of it."""

from __future__ import annotations

import gc
import gzip
import json
from collections.abc import Container, Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from ninlab import records
from ninlab.environment import arithmetic
from ninlab.measurement.cases import Case, CaseOutcome, Measured
from ninlab.measurement.steps import WARM_STEPS, CaseStep, NetworkFactory, quartiles
from ninlab.torch_private import clear_cublas_workspaces, memory_history, record_memory_history


@dataclass(frozen=True, slots=True)
class GpuEvent:
    """One entry of the CUDA allocator's trace; bytes are what was requested."""

    allocates: bool
    address: int
    bytes: int
    is_scratch: bool  # no tensor owns the block; False at its release


@dataclass(frozen=True)
class TraceFromStart:
    """The allocator's trace from before the network is built to the end of the second step.

    The measured peaks are those of the second step. step_begins holds the index in events of the
    first event of each step; those before belong to building the network and moving it.
    """

    bytes_before: int  # requested and alive before the first event
    step_begins: tuple[int, int]
    events: Sequence[GpuEvent]
    segments: Sequence[tuple[int, bool, int, int]]
    """What the allocator took from the device or gave back: the index of the event before which
    it did, whether it took, address, bytes. With expandable segments these are mapped pages."""


def events_path(folder: Path, case: Case) -> Path:
    """The file of the trace of one warm step of that case."""
    return folder / f"{case.slug}.json.gz"


def from_start_path(events: Path) -> Path:
    """The file of the trace from the start, beside that of one warm step."""
    return events.with_name(f"{events.name.removesuffix('.json.gz')}-from-start.json.gz")


def measure_on_gpu(
    case: Case,
    device: torch.device,
    timed_steps: int,
    events: Path | None,
    build_network: NetworkFactory | None = None,
) -> Measured:
    """Peaks and duration of the case, in this process; events names a file for the trace.

    Beside it, at `from_start_path`, comes a JSON object with the fields of `TraceFromStart`.
    """
    with torch.cuda.device(device), arithmetic(case.precision, benchmark=False):
        try:
            measured, trace, from_start = _gpu_step(
                case, device, timed_steps, build_network, from_start=events is not None
            )
        except torch.OutOfMemoryError:
            return Measured(CaseOutcome.OUT_OF_MEMORY)
        finally:
            gc.collect()
            clear_cublas_workspaces()
            torch.cuda.empty_cache()
    if events is not None:
        _write(events, [astuple(event) for event in trace])
        _write(from_start_path(events), _content(from_start))
    return measured


def _write(path: Path, content: object) -> None:
    """Write the trace whole or not at all: a torn one would pass for one that is there."""
    records.write_bytes(path, gzip.compress(json.dumps(content).encode()))


def _content(trace: TraceFromStart) -> dict[str, Any]:
    return {**vars(trace), "events": [astuple(event) for event in trace.events]}


def _gpu_step(
    case: Case,
    device: torch.device,
    timed_steps: int,
    build_network: NetworkFactory | None,
    *,
    from_start: bool,
) -> tuple[Measured, list[GpuEvent], TraceFromStart]:
    """What one case takes, and the allocator's traces: of a warm step, and from the start.

    The second is empty unless it is wanted.
    """

    def wait() -> None:
        torch.cuda.synchronize(device)

    # Before this, the allocator has no statistics and records nothing.
    torch.cuda.init()  # type: ignore[no-untyped-call]
    before = torch.cuda.memory_stats(device)["requested_bytes.all.current"]
    # A history for each stage: torch finds the names of a history's functions, which takes
    # seconds, whenever it is read, and so finds those of each entry once.
    with _History(device, recorded=from_start) as history:
        step = CaseStep(case, device, build_network)
        built = history.entries()
    with _History(device, recorded=from_start) as history:
        step()  # makes the optimizer's state, cuDNN's plans and cuBLAS's workspaces
        wait()
        first = history.entries()
    with _History(device, recorded=from_start) as history:
        torch.cuda.reset_peak_memory_stats(device)
        step()
        wait()
        peaks = torch.cuda.memory_stats(device)
        free, total = torch.cuda.mem_get_info(device)
        overhead = total - free - torch.cuda.memory_reserved(device)
        second = history.entries()
    for _ in range(WARM_STEPS if timed_steps else 0):
        step()
    wait()
    seconds = quartiles(step, timed_steps, wait) if timed_steps else None
    clear_cublas_workspaces()  # kept ones are taken again, inside the trace
    tensors_before = torch.cuda.memory_stats(device)["requested_bytes.all.current"]
    with _History(device) as history:
        step()
        wait()
        trace = _events(history.entries())
    measured = Measured(
        outcome=CaseOutcome.FINISHED,
        requested_peak_bytes=peaks["requested_bytes.all.peak"],
        tensor_peak_bytes=tensor_peak(trace, tensors_before),
        allocated_peak_bytes=peaks["allocated_bytes.all.peak"],
        reserved_peak_bytes=peaks["reserved_bytes.all.peak"],
        overhead_bytes=overhead,
        step_seconds=seconds,
        timed_steps=timed_steps,
    )
    return measured, trace, _from_start(before, built, first, second)


def _from_start(bytes_before: int, *stages: Sequence[Mapping[str, Any]]) -> TraceFromStart:
    """The trace of the three stages, one behind the other: building, first step, second step."""
    built, first, _ = (len(_of_blocks(stage)) for stage in stages)
    entries = [entry for stage in stages for entry in stage]
    return TraceFromStart(
        bytes_before, (built, built + first), _events(entries), _segments(entries)
    )


class _History:
    """What the allocator did since the block began; nothing where it is not recorded.

    Recording changes no choice of the allocator. torch forgets what it recorded when recording is
    switched off, so that no history holds an entry of an earlier one.
    """

    def __init__(self, device: torch.device, *, recorded: bool = True) -> None:
        self._device = device
        self._recorded = recorded

    def __enter__(self) -> _History:
        if self._recorded:
            record_memory_history(on=True)
        return self

    def __exit__(self, *_: object) -> None:
        if self._recorded:
            record_memory_history(on=False)

    def entries(self) -> Sequence[Mapping[str, Any]]:
        """What torch recorded so far."""
        return memory_history(self._device) if self._recorded else ()


def _is_of_a_block(entry: Mapping[str, Any]) -> bool:
    """Whether a block was handed out or came back."""
    return entry["action"] in ("alloc", "free_completed")


def _of_blocks(entries: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return [entry for entry in entries if _is_of_a_block(entry)]


def _events(entries: Sequence[Mapping[str, Any]]) -> list[GpuEvent]:
    return [
        GpuEvent(
            entry["action"] == "alloc",
            entry["addr"],
            entry["size"],
            entry["action"] == "alloc" and not _is_tensors(entry["frames"]),
        )
        for entry in _of_blocks(entries)
    ]


def _segments(entries: Sequence[Mapping[str, Any]]) -> list[tuple[int, bool, int, int]]:
    """What was taken from the device or given back, as `TraceFromStart` has it."""
    segments = []
    blocks = 0  # entries of blocks so far
    for entry in entries:
        if entry["action"].startswith("segment_"):
            takes = entry["action"] in ("segment_alloc", "segment_map")
            segments.append((blocks, takes, entry["addr"], entry["size"]))
        blocks += _is_of_a_block(entry)
    return segments


_OF_STORAGES = ("at::detail::empty", "at::native::resize_bytes_cuda")
"""Through these functions alone ATen allocates storages: new ones, and those that grow.

A depthwise convolution and an adaptive pool begin with an empty result and let it grow. What
cuDNN, cuBLAS and reductions take as scratch is no storage: they ask the allocator itself.
"""


def _is_tensors(frames: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a block was allocated as the storage of a tensor."""
    return any(function in frame["name"] for frame in frames for function in _OF_STORAGES)


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


def with_grown_results(trace: Sequence[GpuEvent], kept: Container[int]) -> list[GpuEvent]:
    """The trace, in which blocks that outlive their operator are no scratch.

    Older traces took storages that grew for scratch, see `_OF_STORAGES`, and hold no names of
    functions any more. But scratch goes back before its operator returns: no tensor is allocated
    while it is there. kept are the sizes of blocks that cuBLAS keeps until the process ends.
    """
    told = list(trace)
    scratch: dict[int, int] = {}  # by address, where it was allocated in the trace
    outlived: set[int] = set()  # those of them that are there when a tensor is allocated
    for index, event in enumerate(trace):
        if event.is_scratch:
            scratch[event.address] = index
        elif event.allocates:
            outlived.update(scratch.values())
        else:
            scratch.pop(event.address, None)
    to_the_end = set(scratch.values())
    for index in outlived | to_the_end:
        if index not in to_the_end or trace[index].bytes not in kept:
            told[index] = replace(trace[index], is_scratch=False)
    return told
