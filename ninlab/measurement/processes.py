"""How are cases measured: here, or in a fresh process for each allocator setting?

``python -m ninlab.measurement`` is such a process: it reads a job on stdin and writes a result
a line.

Imports from ninlab: errors, `cases`, `cpu` and `gpu`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from ninlab.errors import NinlabError
from ninlab.measurement.cases import Allocator, Case, Measured, measured_from_json
from ninlab.measurement.cpu import measure_on_cpu
from ninlab.measurement.gpu import measure_on_gpu

DEFAULT_TIMED_STEPS = 20


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
        return measure_on_gpu(case, device, timed_steps, events)
    if case.precision == "tf32":
        raise NinlabError("tf32 is arithmetic of NVIDIA GPUs; measure fp32 or bf16 on a CPU")
    return measure_on_cpu(case, device, timed_steps)


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
            [sys.executable, "-m", "ninlab.measurement"],
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


def serve() -> None:
    """Measures the cases of the job on stdin; one JSON object a line on stdout."""
    job = json.load(sys.stdin)
    torch.set_num_threads(job["threads"])
    folder = job["events_folder"]
    for content in job["cases"]:
        case = Case(**content | {"input_shape": tuple(content["input_shape"])})
        events = Path(folder) / f"{case.slug}.json.gz" if folder else None
        measured = measure(case, torch.device(job["device"]), job["timed_steps"], events)
        print(json.dumps(asdict(measured)), flush=True)
