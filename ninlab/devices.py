"""What can a device hold, compute and move?

Memory, peak arithmetic rate and memory bandwidth of the devices that the book
speaks of, each with the document it is from. Rates are dense: where a data sheet
prints the rate with 2:4 sparsity, half of it stands here. All quantities are
integers in bytes, FLOP/s and bytes/s.

Known limits. Memory is what the data sheet promises, one GB being 10**9 bytes;
what a driver leaves to a program differs by about 1 %, and the CUDA context and the
kernels of cuDNN and cuBLAS take hundreds of MiB of it. Peak rates are never reached:
use them for bounds.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from ninlab.errors import NinlabError, UnknownNameError
from ninlab.units import format_bytes

GIGA = 10**9
TERA = 10**12


@dataclass(frozen=True)
class DataSheet:
    """One device. flops_per_second is by precision: "fp32", "tf32", "bf16".

    described holds the properties that cuDNN asks of a device. With them `ninlab.cudnn` answers for
    it on other machines; empty, its scratch is not known.
    """

    name: str
    title: str
    memory_bytes: int
    source: str  # document, and where in it
    bytes_per_second: int | None = None
    flops_per_second: Mapping[str, int] = field(default_factory=dict)
    described: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def fits(self, needed_bytes: int) -> bool:
        """Whether that many bytes are at most the device's memory."""
        return needed_bytes <= self.memory_bytes

    def peak(self, precision: str) -> int:
        """Dense FLOP/s at that precision. Raises NinlabError where the device has no such rate."""
        if precision not in self.flops_per_second:
            known = ", ".join(self.flops_per_second) or "none"
            raise NinlabError(
                f"{self.title} has no sourced peak rate in {precision!r}; precisions with one: "
                f"{known}"
            )
        return self.flops_per_second[precision]

    def bandwidth(self) -> int:
        """Bytes/s to and from memory. Raises NinlabError where no document gives them."""
        if self.bytes_per_second is None:
            raise NinlabError(
                f"{self.title} has no sourced memory bandwidth; it is here for its "
                f"{format_bytes(self.memory_bytes)} of memory"
            )
        return self.bytes_per_second


def _by_name(*devices: DataSheet) -> Mapping[str, DataSheet]:
    table: dict[str, DataSheet] = {}
    for one in devices:
        if one.name in table:
            raise NinlabError(f"two devices are called {one.name!r}; name each once")
        table[one.name] = one
    return MappingProxyType(table)


# As cuDNN serializes a device's properties: what these have in common.
_COMMON = {
    "warpSize": 32,
    "maxSharedMemoryPerBlock": 49152,
    "oversizedSharedMemoryPerBlock": 0,
    "maxRegistersPerSM": 65536,
    "regsPerBlock": 65536,
    "maxThreadsPerBlock": 1024,
    "maxBlockSize": [1024, 1024, 64],
    "maxGridSize": [2147483647, 65535, 65535],
    "supportCoopLaunch": 1,
    "pciDeviceId": 0,
    "isTccDriver": 0,
    "cudaDeviceId": 0,
    "driverVer": 13000,
}
# CUDA C++ Programming Guide, specifications of compute capability 9.0; H100 SXM5 data sheet.
_HOPPER = _COMMON | {
    "deviceVer": 900,
    "multiProcessorCount": 132,
    "maxSharedMemoryPerBlockOptin": 232448,
    "reservedSharedMemoryPerBlock": 1024,
    "maxCtasPerSM": 32,
    "maxThreadsPerSM": 2048,
    "smClockRateKHz": 1980000,
}

DEVICES = _by_name(
    DataSheet(
        "h200",
        "NVIDIA H200 SXM 141 GB",
        141 * GIGA,
        "NVIDIA H200 Tensor Core GPU data sheet, specifications, column H200 SXM "
        "(tensor rates printed with sparsity)",
        4800 * GIGA,
        {"fp32": 67 * TERA, "tf32": 989 * TERA // 2, "bf16": 1979 * TERA // 2},
        # Its memory (141 GB of HBM3e) and its second-level cache are larger; H200 data sheet.
        _HOPPER
        | {
            "deviceName": "NVIDIA H200",
            "totalGlobalMem": 143771 * 2**20,
            "memClockRateKHz": 3201000,
            "l2CacheSize": 62914560,
        },
    ),
    DataSheet(
        "h100",
        "NVIDIA H100 SXM5 80 GB",
        80 * GIGA,
        "NVIDIA H100 Tensor Core GPU data sheet, specifications, column H100 SXM "
        "(tensor rates printed with sparsity)",
        3350 * GIGA,
        {"fp32": 67 * TERA, "tf32": 989 * TERA // 2, "bf16": 1979 * TERA // 2},
        _HOPPER
        | {
            "deviceName": "NVIDIA H100 80GB HBM3",
            "totalGlobalMem": 84942979072,
            "memClockRateKHz": 2619000,
            "l2CacheSize": 52428800,
        },
    ),
    DataSheet(
        "a100",
        "NVIDIA A100 SXM4 40 GB",
        40 * GIGA,
        "NVIDIA A100 Tensor Core GPU data sheet, specifications, column A100 40GB SXM",
        1555 * GIGA,
        {"fp32": 195 * TERA // 10, "tf32": 156 * TERA, "bf16": 312 * TERA},
        # The same guide as for Hopper, compute capability 8.0; A100 data sheet, SXM4 with 40 GB.
        _COMMON
        | {
            "deviceName": "NVIDIA A100-SXM4-40GB",
            "deviceVer": 800,
            "multiProcessorCount": 108,
            "maxSharedMemoryPerBlockOptin": 166912,
            "reservedSharedMemoryPerBlock": 1024,
            "maxCtasPerSM": 32,
            "maxThreadsPerSM": 2048,
            "totalGlobalMem": 40 * 2**30,
            "smClockRateKHz": 1410000,
            "memClockRateKHz": 1215000,
            "l2CacheSize": 41943040,
        },
    ),
    DataSheet(
        "l4",
        "NVIDIA L4 24 GB",
        24 * GIGA,
        "NVIDIA L4 Tensor Core GPU data sheet, specifications (tensor rates printed with sparsity)",
        300 * GIGA,
        {"fp32": 303 * TERA // 10, "tf32": 120 * TERA // 2, "bf16": 242 * TERA // 2},
        # The same guide as for Hopper, compute capability 8.9; L4 data sheet.
        _COMMON
        | {
            "deviceName": "NVIDIA L4",
            "deviceVer": 890,
            "multiProcessorCount": 58,
            "maxSharedMemoryPerBlockOptin": 101376,
            "reservedSharedMemoryPerBlock": 1024,
            "maxCtasPerSM": 24,
            "maxThreadsPerSM": 1536,
            "totalGlobalMem": 23034 * 2**20,
            "smClockRateKHz": 2040000,
            "memClockRateKHz": 6251000,
            "l2CacheSize": 50331648,
        },
    ),
    DataSheet(
        "t4",
        "NVIDIA T4 16 GB",
        16 * GIGA,
        "NVIDIA Turing GPU Architecture whitepaper, table comparing Tesla P4 and Tesla T4; "
        "Turing's tensor cores know neither TF32 nor bfloat16",
        320 * GIGA,
        {"fp32": 81 * TERA // 10},
        # The same guide as for Hopper, compute capability 7.5; T4 data sheet.
        _COMMON
        | {
            "deviceName": "Tesla T4",
            "deviceVer": 750,
            "multiProcessorCount": 40,
            "maxSharedMemoryPerBlockOptin": 65536,
            "reservedSharedMemoryPerBlock": 0,
            "maxCtasPerSM": 16,
            "maxThreadsPerSM": 1024,
            "totalGlobalMem": 15828320256,
            "smClockRateKHz": 1590000,
            "memClockRateKHz": 5001000,
            "l2CacheSize": 4194304,
        },
    ),
    DataSheet(
        "phone_8gb",
        "phone with 8 GB (Snapdragon 8 Gen 2)",
        8 * GIGA,
        "Zhang2023, section 8.3, for the 8 GB of a high-end phone; Snapdragon 8 Gen 2 product "
        "brief for the clocks and the four 16-bit channels of LPDDR5X at 4200 MHz; Arm's software "
        "optimization guides of Cortex-X3 (four 128-bit FMLA a cycle), A715 and A710 (two)",
        4200 * 10**6 * 2 * 4 * 16 // 8,
        # One Cortex-X3, two A715 and two A710, each FMLA being four multiplications and additions.
        {"fp32": 3200 * 10**6 * 4 * 4 * 2 + 4 * 2800 * 10**6 * 2 * 4 * 2},
    ),
    DataSheet(
        "phone_512mb",
        "phone with 512 MB (iPhone 4S, when VGG was young)",
        512 * 10**6,
        "Zhang2023, section 8.3",
    ),
)
"""By name, from the largest to the smallest memory."""


def device(name: str) -> DataSheet:
    """The device of that name. Raises UnknownNameError with the names there are."""
    if name not in DEVICES:
        raise UnknownNameError("device", name, DEVICES)
    return DEVICES[name]


def of_cuda_name(cuda_name: str) -> DataSheet | None:
    """The device that CUDA calls so, or None: "NVIDIA H100 80GB HBM3" is the h100."""
    words = re.split(r"[^a-z0-9]+", cuda_name.lower())
    return next((one for name, one in DEVICES.items() if name in words), None)
