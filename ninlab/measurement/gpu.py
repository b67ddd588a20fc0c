"""What does a step on a GPU allocate? The caching allocator's peaks, and a trace of it.

Imports from ninlab: environment, errors, `cases` and `steps`.
"""

from __future__ import annotations

import ctypes
import gc
import gzip
import json
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import torch

from ninlab.environment import arithmetic
from ninlab.errors import NinlabError
from ninlab.measurement.cases import Case, Measured, Outcome
from ninlab.measurement.steps import WARM_STEPS, NetworkFactory, Step, quartiles


@dataclass(frozen=True, slots=True)
class GpuEvent:
    """One entry of the CUDA allocator's trace; bytes are what was requested."""

    allocates: bool
    address: int
    bytes: int
    is_scratch: bool  # no tensor owns the block; False at its release


def measure_on_gpu(
    case: Case,
    device: torch.device,
    timed_steps: int,
    events: Path | None,
    build_network: NetworkFactory | None = None,
) -> Measured:
    """Peaks and duration of the case, in this process; events names a file for the trace."""
    with torch.cuda.device(device), arithmetic(case.precision, benchmark=False):
        try:
            measured, trace = _gpu_step(case, device, timed_steps, build_network)
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
    case: Case, device: torch.device, timed_steps: int, build_network: NetworkFactory | None
) -> tuple[Measured, list[GpuEvent]]:
    """What one case takes, and the allocator's trace of one warm step of it."""

    def wait() -> None:
        torch.cuda.synchronize(device)

    step = Step(case, device, build_network)
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
    seconds = quartiles(step, timed_steps, wait) if timed_steps else None
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
        step_seconds=seconds,
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
