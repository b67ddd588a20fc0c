"""Which machine and which software is this process running on?

Fills in the `Device` and `Software` of a record, and sets torch's arithmetic for a while.
Needs torch; asks the driver through nvidia-smi where there is a GPU.
"""

from __future__ import annotations

import os
import platform
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch

import ninlab
from ninlab.errors import NinlabError, quoted
from ninlab.machine import processor_name
from ninlab.records import Device, Software
from ninlab.steps import Precision
from ninlab.torch_private import empty_cache_between_trials, is_cache_emptied_between_trials
from ninlab.units import parse_device_name


def is_out_of_memory(error: Exception) -> bool:
    """Whether it says that memory ran out, a GPU's or the host's, for which torch has no type."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


def parse_device(name: str) -> torch.device:
    """The torch device of that name; "auto" takes the GPU where there is one.

    Raises NinlabError for a device that torch does not know or this machine does not have.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise NinlabError(f"unknown device {quoted(name)}; write cpu, cuda or cuda:0") from None
    if device.type not in ("cpu", "cuda"):
        raise NinlabError(f"runs are not made on {quoted(name)}; write cpu, cuda or cuda:0")
    parse_device_name(name)  # torch takes cpu:5 for a device
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise NinlabError(
            f"device {name!r} is not there: torch sees {torch.cuda.device_count()} GPUs; write cpu"
        )
    return device


def describe_device(device: torch.device) -> Device:
    """What a record says of the device."""
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        driver, power_limit = _ask_driver(device)
        return Device(
            slug=slug(properties.name),
            name=properties.name,
            memory_bytes=properties.total_memory,
            driver=driver,
            power_limit_watts=power_limit,
        )
    pages, page_bytes = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    return Device(
        slug="cpu",
        name=processor_name(),
        memory_bytes=pages * page_bytes,
        threads=torch.get_num_threads(),
    )


def describe_software() -> Software:
    """The versions that a record names."""
    cudnn = torch.backends.cudnn.version() if torch.cuda.is_available() else None  # type: ignore[no-untyped-call]
    return Software(
        python=platform.python_version(),
        torch=str(torch.__version__),  # its own class would ask every reader for torch
        ninlab=ninlab.__version__,
        cuda=torch.version.cuda if torch.cuda.is_available() else None,
        cudnn=None if cudnn is None else str(cudnn),
    )


def slug(name: str) -> str:
    """A device's name as part of a file name: ``slug("NVIDIA H100") == "nvidia-h100"``."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


@cache
def _ask_driver(device: torch.device) -> tuple[str | None, float | None]:
    """(driver version, power limit in watts) as nvidia-smi tells them, None where it does not.

    Asked once a process, although every record names them.
    """
    uuid = torch.cuda.get_device_properties(device).uuid
    query = ["nvidia-smi", f"--id=GPU-{uuid}", "--query-gpu=driver_version,power.limit",
             "--format=csv,noheader,nounits"]  # fmt: skip
    try:
        answer = subprocess.run(query, capture_output=True, text=True, check=True).stdout
        driver, watts = (field.strip() for field in answer.split(","))
    except (OSError, subprocess.CalledProcessError, ValueError):
        return None, None
    try:
        return driver, float(watts)
    except ValueError:  # "[N/A]" on cards without a limit
        return driver, None


@contextmanager
def arithmetic(precision: str, *, benchmark: bool) -> Iterator[None]:
    """float32 products on TF32 units inside the block when the precision is "tf32", else not.

    benchmark lets cuDNN choose its kernels by trial; without it, by its heuristics, whose
    workspaces can be predicted. Between the trials of two convolutions the allocator keeps what is
    free, where torch lets it, in place of asking the driver again. torch's settings are put back
    afterwards.
    """
    backends: tuple[Any, ...] = (torch.backends.cuda.matmul, torch.backends.cudnn.conv)  # type: ignore[attr-defined]
    before = [backend.fp32_precision for backend in backends]
    benchmark_before = torch.backends.cudnn.benchmark
    for backend in backends:
        backend.fp32_precision = "tf32" if precision == Precision.TF32 else "ieee"
    torch.backends.cudnn.benchmark = benchmark
    empties = is_cache_emptied_between_trials()
    empty_cache_between_trials(not benchmark and empties)
    try:
        yield
    finally:
        empty_cache_between_trials(empties)
        for backend, value in zip(backends, before, strict=True):
            backend.fp32_precision = value
        torch.backends.cudnn.benchmark = benchmark_before
