"""Which machine is under a run, and how busy was it meanwhile?

A seed does not fix a run. torch and the libraries under it choose their kernels by what the
processor can do, each kernel adds in an order of its own, and after some hundred steps the same
seed is another run. Nor does a run's time say anything where others kept the machine busy. So a
record holds both: what chose the kernels, and how many cores the run and all others kept busy.

Needs torch. Reads ``/proc`` where there is one; elsewhere what others did is unknown, and so
recorded.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Mapping
from pathlib import Path

import torch

from ninlab.records import Host

KERNEL_VARIABLES = (
    "ATEN_CPU_CAPABILITY",
    *("DNNL_MAX_CPU_ISA", "ONEDNN_MAX_CPU_ISA", "DNNL_CPU_ISA_HINTS", "ONEDNN_CPU_ISA_HINTS"),
    *("DNNL_DEFAULT_FPMATH_MODE", "ONEDNN_DEFAULT_FPMATH_MODE"),
    *("MKL_CBWR", "MKL_DEBUG_CPU_TYPE", "MKL_ENABLE_INSTRUCTIONS", "OPENBLAS_CORETYPE"),
    *("NVIDIA_TF32_OVERRIDE", "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE"),
)
"""Variables of the environment by which torch, oneDNN, BLAS and cuDNN take other kernels.

oneDNN reads each of its own with either prefix.
"""

_CPUINFO = Path("/proc/cpuinfo")
_STAT = Path("/proc/stat")
_NUMBERS = {
    "cpu family": "family",
    "model": "model",
    "stepping": "stepping",
    "CPU implementer": "implementer",
    "CPU variant": "variant",
    "CPU part": "part",
    "CPU revision": "revision",
}
"""What ``/proc/cpuinfo`` says beside a name, or in its place, as an ARM processor has none there.

The fields of x86, then those of ARM.
"""
_IDLE = (3, 4)
"""Where ``/proc/stat`` counts idle time and time that waits for a disk. Source: proc(5)."""
_GUEST = slice(0, 8)
"""Time of guests, which comes behind, is counted as a user's already."""


class Watch:
    """Watches a machine from the moment when it is made."""

    def __init__(self) -> None:
        self._wall = time.perf_counter()
        self._own = time.process_time()
        self._busy = _busy_seconds()

    def host(self) -> Host:
        """The machine, and how busy it has been since."""
        wall = time.perf_counter() - self._wall
        own = time.process_time() - self._own
        busy = _busy_seconds()
        cores = os.cpu_count() or 1
        others = None
        if busy is not None and self._busy is not None:
            others = min(max(busy - self._busy - own, 0.0) / wall, float(cores))
        return Host(
            processor=processor(),
            cpu_capability=torch.backends.cpu.get_cpu_capability(),
            kernel_variables=kernel_variables(),
            cores=cores,
            own_cores=min(own / wall, float(cores)),
            other_cores=others,
        )


def processor_name() -> str:
    """What the processor calls itself; a virtual machine may call several alike."""
    name = _cpuinfo().get("model name")
    return name or platform.processor() or platform.machine() or "unknown"


def processor() -> str:
    """The processor's name with what tells it from others of that name, where the system says it.

    As in ``AMD EPYC (AuthenticAMD, family 26, model 2, stepping 1)``, or ``aarch64 (implementer
    0x41, variant 0x3, part 0xd0c, revision 1)``.
    """
    about = _cpuinfo()
    told = [about.get("vendor_id", "")]
    told += [f"{said} {about[field]}" for field, said in _NUMBERS.items() if about.get(field)]
    listed = ", ".join(filter(None, told))
    return f"{processor_name()} ({listed})" if listed else processor_name()


def kernel_variables() -> Mapping[str, str]:
    """Those `KERNEL_VARIABLES` that are set for this process."""
    return {name: os.environ[name] for name in KERNEL_VARIABLES if os.environ.get(name, "").strip()}


def _cpuinfo() -> dict[str, str]:
    """What Linux says of the first processor, by field; empty elsewhere."""
    try:
        lines = _CPUINFO.read_text().partition("\n\n")[0].splitlines()
    except OSError:
        return {}
    return {field.strip(): value.strip() for field, _, value in (x.partition(":") for x in lines)}


def _busy_seconds() -> float | None:
    """Seconds that all cores together were busy since the machine started; None where unknown."""
    try:
        total = _STAT.read_text().partition("\n")[0].split()
        ticks = [int(field) for field in total[1:]][_GUEST]
        idle = sum(ticks[place] for place in _IDLE)
        return (sum(ticks) - idle) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):
        return None
