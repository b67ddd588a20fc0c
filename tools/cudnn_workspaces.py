r"""How large is the workspace of each convolution on a GPU that is not here?

cuDNN 9.8 and later plans for a device that is only described: a serialized
device-property descriptor stands in for the handle ("deviceless ahead-of-time
compilation" in its documentation). This tool asks, for every convolution of every
architecture of ninlab, which plan PyTorch would run on such a device, and writes
the plans' workspace sizes as a table that `ninlab.workspaces` reads.

It mirrors ATen's Conv_v8.cpp with ``torch.backends.cudnn.benchmark = False``: one
convolution per operation graph, tensors aligned to 32 bytes, the heuristics of mode
INSTANT and then its fallback list, engines that convert their inputs down dropped,
engines on tensor cores dropped for fp32 without TF32, and the first configuration
whose plan builds. ATen also drops a plan that fails when it runs, which no one can
see without the device.

A table holds for one cuDNN version; another version differs in about one size of
four. Ask the version that a torch release pins::

    pip install --target SITE --no-deps nvidia-cudnn-cu13==9.19.0.56 \
        nvidia-cublas==13.1.0.3 nvidia-cuda-nvrtc==13.0.88
    python tools/cudnn_workspaces.py --device h100 --torch 2.11.0 --site SITE
    python tools/cudnn_workspaces.py --device h100 --torch 2.15.0

Without ``--site`` the cuDNN of this environment answers. The library loads in
seconds and answers in about 2 ms a plan. The devices below carry public data-sheet
figures; ``--device-json`` takes what a real device serialized of itself, as
``python -m ninlab measure`` stores it.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import IntEnum
from functools import cache
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

from ninlab.architectures import ARCHITECTURES, Architecture, BatchNorm, Conv, Linear
from ninlab.formulas import placed_layers
from ninlab.workspaces import MEMORY_FORMATS, PRECISIONS, ConvCall, Direction

BATCH_SIZES = (1, 8, 16, 32, 64, 96, 128, 192, 256)
TABLES = Path(__file__).resolve().parents[1] / "ninlab" / "tables"
ALIGNMENT_BYTES = 32  # the most that ATen claims; the caching allocator gives 512

# ---------------------------------------------------------------- devices

DATA_SHEET = "public data-sheet and programming-guide figures, not serialized by a device"

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
DEVICES: Mapping[str, Mapping[str, Any]] = {
    # CUDA C++ Programming Guide, technical specifications of compute capability 9.0; H100 SXM5
    # data sheet.
    "h100": _COMMON
    | {
        "deviceName": "NVIDIA H100 80GB HBM3",
        "deviceVer": 900,
        "multiProcessorCount": 132,
        "maxSharedMemoryPerBlockOptin": 232448,
        "reservedSharedMemoryPerBlock": 1024,
        "maxCtasPerSM": 32,
        "maxThreadsPerSM": 2048,
        "totalGlobalMem": 84942979072,
        "smClockRateKHz": 1980000,
        "memClockRateKHz": 2619000,
        "l2CacheSize": 52428800,
    },
    # As the H100 but for its memory (141 GB of HBM3e) and its second-level cache; H200 data sheet.
    "h200": _COMMON
    | {
        "deviceName": "NVIDIA H200",
        "deviceVer": 900,
        "multiProcessorCount": 132,
        "maxSharedMemoryPerBlockOptin": 232448,
        "reservedSharedMemoryPerBlock": 1024,
        "maxCtasPerSM": 32,
        "maxThreadsPerSM": 2048,
        "totalGlobalMem": 143771 * 2**20,
        "smClockRateKHz": 1980000,
        "memClockRateKHz": 3201000,
        "l2CacheSize": 62914560,
    },
    # The same guide, compute capability 8.0; A100 data sheet, SXM4 with 40 GB.
    "a100": _COMMON
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
    # The same guide, compute capability 8.9; L4 data sheet.
    "l4": _COMMON
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
    # The same guide, compute capability 7.5; T4 data sheet.
    "t4": _COMMON
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
}
BFLOAT16_FROM = 800  # below sm_80 ATen computes bf16 convolutions without cuDNN


def modes(properties: Mapping[str, Any]) -> tuple[str, ...]:
    """Each "precision memory_format" that ATen gives to cuDNN on that device."""
    return tuple(
        f"{precision} {memory_format}"
        for memory_format in MEMORY_FORMATS
        for precision in PRECISIONS
        if precision != "bf16" or properties["deviceVer"] >= BFLOAT16_FROM
    )


# ---------------------------------------------------------------- cuDNN's backend


class Kind(IntEnum):
    """cudnnBackendDescriptorType_t."""

    CONVOLUTION = 1
    ENGINE = 2
    ENGINE_CONFIG = 3
    HEURISTICS = 4
    PLAN = 5
    FORWARD = 10
    WEIGHT_GRADIENT = 11
    INPUT_GRADIENT = 12
    OPERATION_GRAPH = 15
    TENSOR = 17
    DEVICE_PROPERTIES = 38


class Type(IntEnum):
    """cudnnBackendAttributeType_t."""

    DATA_TYPE = 1
    BOOLEAN = 2
    INT64 = 3
    FLOAT = 4
    CONVOLUTION_MODE = 7
    HEURISTICS_MODE = 8
    NUMERICAL_NOTE = 11
    DESCRIPTOR = 15
    CHAR = 24


C_TYPES: Mapping[Type, Any] = {
    Type.BOOLEAN: ctypes.c_bool,
    Type.INT64: ctypes.c_int64,
    Type.FLOAT: ctypes.c_float,
    Type.DESCRIPTOR: ctypes.c_void_p,
    Type.CHAR: ctypes.c_char,
}
"""What an attribute of each type is in memory; enumerations are C ints."""


class Attribute(IntEnum):
    """cudnnBackendAttributeName_t."""

    CONVOLUTION_COMPUTE_TYPE = 100
    CONVOLUTION_MODE = 101
    CONVOLUTION_DILATIONS = 102
    CONVOLUTION_STRIDES = 103
    CONVOLUTION_POST_PADDINGS = 104
    CONVOLUTION_PRE_PADDINGS = 105
    CONVOLUTION_SPATIAL_DIMS = 106
    HEURISTICS_MODE = 200
    HEURISTICS_GRAPH = 201
    HEURISTICS_RESULTS = 202
    HEURISTICS_DEVICE = 204
    CONFIG_ENGINE = 300
    PLAN_CONFIG = 401
    PLAN_WORKSPACE = 402
    PLAN_DEVICE = 407
    FORWARD_ALPHA = 700
    INPUT_GRADIENT_ALPHA = 706
    WEIGHT_GRADIENT_ALPHA = 712
    GRAPH_OPERATIONS = 801
    TENSOR_ALIGNMENT = 900
    TENSOR_DATA_TYPE = 901
    TENSOR_DIMENSIONS = 902
    TENSOR_STRIDES = 903
    TENSOR_ID = 906
    TENSOR_IS_VIRTUAL = 907
    ENGINE_NOTES = 1303
    DEVICE_JSON = 2702


FLOAT32, BFLOAT16 = 0, 9  # cudnnDataType_t
CROSS_CORRELATION = 1  # cudnnConvolutionMode_t
INSTANT, FALLBACK = 0, 2  # cudnnBackendHeurMode_t
TENSOR_CORE, DOWN_CONVERT_INPUTS = 0, 1  # cudnnBackendNumericalNote_t

OPERATIONS = {
    Direction.FORWARD: (Kind.FORWARD, Attribute.FORWARD_ALPHA, "wxy"),
    Direction.INPUT_GRADIENT: (Kind.INPUT_GRADIENT, Attribute.INPUT_GRADIENT_ALPHA, "wxy"),
    Direction.WEIGHT_GRADIENT: (Kind.WEIGHT_GRADIENT, Attribute.WEIGHT_GRADIENT_ALPHA, "wxy"),
}
"""Descriptor, the first of its six attributes (alpha, beta, convolution, then tensors), tensors."""


class CudnnError(RuntimeError):
    """cuDNN refused a descriptor; the message is its own."""


class Cudnn:
    """The backend of one cuDNN library, found in a site-packages directory."""

    def __init__(self, site: Path) -> None:
        library = site / "nvidia" / "cudnn" / "lib" / "libcudnn.so.9"
        if not library.exists():
            raise SystemExit(f"no cuDNN at {library}; see --site in this tool's documentation")
        # cuDNN's own libraries look for these by name, and must find the ones they were built for.
        for name in ("libnvrtc.so.13", "libcublasLt.so.13", "libcublas.so.13"):
            dependency = site / "nvidia" / "cu13" / "lib" / name
            if dependency.exists():
                ctypes.CDLL(str(dependency), mode=ctypes.RTLD_GLOBAL)
        self._library = ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)
        self._library.cudnnGetErrorString.restype = ctypes.c_char_p
        self._library.cudnnGetVersion.restype = ctypes.c_size_t
        self.version = self._wheel_version(site)

    def _wheel_version(self, site: Path) -> str:
        """Version of the wheel, to the build number, which the library itself does not know."""
        number = self._library.cudnnGetVersion()
        expected = f"{number // 10000}.{number // 100 % 100}.{number % 100}."
        for distribution in distributions(path=[str(site)]):
            if distribution.name.startswith("nvidia-cudnn-cu"):
                if not distribution.version.startswith(expected):
                    raise SystemExit(
                        f"the wheel in {site} is {distribution.version}, "
                        f"but the library that was loaded is {expected}*"
                    )
                return distribution.version
        raise SystemExit(f"{site} holds a cuDNN library but no nvidia-cudnn wheel")

    def call(self, name: str, *arguments: object) -> None:
        """Calls a backend function; raises CudnnError when it does not succeed."""
        status = getattr(self._library, name)(*arguments)
        if status:
            raise CudnnError(self._library.cudnnGetErrorString(status).decode())

    def descriptor(self, kind: Kind) -> Descriptor:
        """An empty descriptor of that kind."""
        return Descriptor(self, kind)


@dataclass
class Descriptor:
    """One cuDNN backend descriptor; destroyed with the object."""

    cudnn: Cudnn
    kind: Kind
    pointer: ctypes.c_void_p = field(default_factory=ctypes.c_void_p)
    _referenced: list[Descriptor] = field(default_factory=list)  # cuDNN keeps pointers to them

    def __post_init__(self) -> None:
        self.cudnn.call(
            "cudnnBackendCreateDescriptor", ctypes.c_int(self.kind), ctypes.byref(self.pointer)
        )

    def __del__(self) -> None:
        self.cudnn.call("cudnnBackendDestroyDescriptor", self.pointer)

    def set(self, attribute: int, kind: Type, values: Sequence[Any] | bytes) -> Descriptor:
        """Sets one attribute; returns the descriptor, so that calls can be chained."""
        element = C_TYPES.get(kind, ctypes.c_int)
        self.cudnn.call(
            "cudnnBackendSetAttribute",
            self.pointer,
            ctypes.c_int(attribute),
            ctypes.c_int(kind),
            ctypes.c_int64(len(values)),
            (element * len(values))(*values),
        )
        return self

    def refer(self, attribute: int, descriptor: Descriptor) -> Descriptor:
        """Sets one attribute to a finalized descriptor, which stays alive with this one."""
        self._referenced.append(descriptor)
        return self.set(attribute, Type.DESCRIPTOR, [descriptor.pointer.value])

    def finalize(self) -> Descriptor:
        """Checks the descriptor and makes it immutable."""
        self.cudnn.call("cudnnBackendFinalize", self.pointer)
        return self

    def get(self, attribute: int, kind: Type, most: int = 1) -> list[Any]:
        """The values of one attribute, at most that many."""
        element = C_TYPES.get(kind, ctypes.c_int)
        return self._read(attribute, kind, (element * most)())

    def get_descriptors(self, attribute: int, kind: Kind, most: int) -> list[Descriptor]:
        """The descriptors that one attribute holds, at most that many."""
        out = [self.cudnn.descriptor(kind) for _ in range(most)]
        pointers = (ctypes.c_void_p * most)(*[one.pointer.value for one in out])
        return out[: len(self._read(attribute, Type.DESCRIPTOR, pointers))]

    def count(self, attribute: int) -> int:
        """How many descriptors one attribute holds."""
        count = ctypes.c_int64()
        self.cudnn.call(
            "cudnnBackendGetAttribute",
            self.pointer,
            ctypes.c_int(attribute),
            ctypes.c_int(Type.DESCRIPTOR),
            ctypes.c_int64(0),
            ctypes.byref(count),
            None,
        )
        return count.value

    def _read(self, attribute: int, kind: Type, buffer: Any) -> list[Any]:
        count = ctypes.c_int64()
        self.cudnn.call(
            "cudnnBackendGetAttribute",
            self.pointer,
            ctypes.c_int(attribute),
            ctypes.c_int(kind),
            ctypes.c_int64(len(buffer)),
            ctypes.byref(count),
            buffer,
        )
        return list(buffer)[: count.value]


# ---------------------------------------------------------------- one plan


@dataclass(frozen=True)
class Oracle:
    """cuDNN's answers for one described device."""

    cudnn: Cudnn
    properties: Mapping[str, Any]

    def workspace_bytes(
        self, call: ConvCall, direction: Direction, batch_size: int, mode: str
    ) -> int:
        """Workspace of the plan that ATen would run; mode is one of `modes`.

        Raises CudnnError when no plan builds.
        """
        precision, memory_format = mode.split()
        graph = self._graph(
            call, direction, batch_size, precision == "bf16", memory_format == "channels_last"
        )
        dropped = {DOWN_CONVERT_INPUTS} | ({TENSOR_CORE} if precision == "fp32" else set())
        refusals = []
        for heuristics_mode in (INSTANT, FALLBACK):
            for config in self._configs(graph, heuristics_mode):
                (engine,) = config.get_descriptors(Attribute.CONFIG_ENGINE, Kind.ENGINE, 1)
                notes = engine.get(Attribute.ENGINE_NOTES, Type.NUMERICAL_NOTE, 16)
                if dropped.intersection(notes):
                    continue
                plan = self.cudnn.descriptor(Kind.PLAN)
                plan.refer(Attribute.PLAN_CONFIG, config)
                plan.refer(Attribute.PLAN_DEVICE, self._device)
                try:
                    plan.finalize()
                except CudnnError as refusal:
                    refusals.append(str(refusal))
                    continue
                (size,) = plan.get(Attribute.PLAN_WORKSPACE, Type.INT64)
                return int(size)
        raise CudnnError(f"no plan builds for {direction} {call.key} {mode}: {refusals}")

    @property
    def _device(self) -> Descriptor:
        return _device_descriptor(self.cudnn, json.dumps(self.properties))

    def _configs(self, graph: Descriptor, mode: int) -> list[Descriptor]:
        heuristics = self.cudnn.descriptor(Kind.HEURISTICS)
        heuristics.refer(Attribute.HEURISTICS_GRAPH, graph)
        heuristics.set(Attribute.HEURISTICS_MODE, Type.HEURISTICS_MODE, [mode])
        heuristics.refer(Attribute.HEURISTICS_DEVICE, self._device)
        heuristics.finalize()
        most = heuristics.count(Attribute.HEURISTICS_RESULTS)
        return heuristics.get_descriptors(Attribute.HEURISTICS_RESULTS, Kind.ENGINE_CONFIG, most)

    def _graph(
        self, call: ConvCall, direction: Direction, batch_size: int, bf16: bool, channels_last: bool
    ) -> Descriptor:
        convolution = self.cudnn.descriptor(Kind.CONVOLUTION)
        convolution.set(Attribute.CONVOLUTION_COMPUTE_TYPE, Type.DATA_TYPE, [FLOAT32])
        convolution.set(Attribute.CONVOLUTION_MODE, Type.CONVOLUTION_MODE, [CROSS_CORRELATION])
        convolution.set(Attribute.CONVOLUTION_SPATIAL_DIMS, Type.INT64, [len(call.stride)])
        convolution.set(Attribute.CONVOLUTION_STRIDES, Type.INT64, call.stride)
        convolution.set(Attribute.CONVOLUTION_PRE_PADDINGS, Type.INT64, call.padding)
        convolution.set(Attribute.CONVOLUTION_POST_PADDINGS, Type.INT64, call.padding)
        convolution.set(Attribute.CONVOLUTION_DILATIONS, Type.INT64, call.dilation)
        convolution.finalize()
        shapes = {
            "x": (batch_size, *call.input_shape),
            "w": call.weight_shape,
            "y": (batch_size, *call.output_shape),
        }
        kind, alpha, names = OPERATIONS[direction]
        operation = self.cudnn.descriptor(kind)
        operation.set(alpha, Type.FLOAT, [1.0])
        operation.set(alpha + 1, Type.FLOAT, [0.0])
        operation.refer(alpha + 2, convolution)
        for offset, name in enumerate(names, start=3):
            tensor = self._tensor(ord(name), shapes[name], bf16, channels_last)
            operation.refer(alpha + offset, tensor)
        graph = self.cudnn.descriptor(Kind.OPERATION_GRAPH)
        graph.refer(Attribute.GRAPH_OPERATIONS, operation.finalize())
        return graph.finalize()

    def _tensor(
        self, identifier: int, shape: tuple[int, ...], bf16: bool, channels_last: bool
    ) -> Descriptor:
        _, channels, height, width = shape
        image = channels * height * width
        strides = (
            (image, 1, width * channels, channels)
            if channels_last
            else (image, height * width, width, 1)
        )
        tensor = self.cudnn.descriptor(Kind.TENSOR)
        tensor.set(Attribute.TENSOR_ID, Type.INT64, [identifier])
        tensor.set(Attribute.TENSOR_DATA_TYPE, Type.DATA_TYPE, [BFLOAT16 if bf16 else FLOAT32])
        tensor.set(Attribute.TENSOR_DIMENSIONS, Type.INT64, shape)
        tensor.set(Attribute.TENSOR_STRIDES, Type.INT64, strides)
        tensor.set(Attribute.TENSOR_ALIGNMENT, Type.INT64, [ALIGNMENT_BYTES])
        tensor.set(Attribute.TENSOR_IS_VIRTUAL, Type.BOOLEAN, [False])
        return tensor.finalize()


@cache
def _device_descriptor(cudnn: Cudnn, properties: str) -> Descriptor:
    descriptor = cudnn.descriptor(Kind.DEVICE_PROPERTIES)
    return descriptor.set(Attribute.DEVICE_JSON, Type.CHAR, properties.encode()).finalize()


# ---------------------------------------------------------------- the book's convolutions


def convolutions(architecture: Architecture) -> Iterator[tuple[ConvCall, Direction]]:
    """Every convolution that one training step of the network computes.

    The input gradient is left out where nothing before the layer has parameters: the
    images need no gradient.
    """
    learns_before = False
    for placed in placed_layers(architecture):
        if isinstance(placed.layer, Conv):
            conv = placed.layer
            channels = placed.input_shape[0]
            window = (conv.kernel_size, conv.kernel_size)
            call = ConvCall(
                input_shape=placed.input_shape,
                weight_shape=(conv.out_channels, channels // conv.groups, *window),
                stride=(conv.stride, conv.stride),
                padding=(conv.padding, conv.padding),
                groups=conv.groups,
            )
            yield call, Direction.FORWARD
            yield call, Direction.WEIGHT_GRADIENT
            if learns_before:
                yield call, Direction.INPUT_GRADIENT
        learns_before = learns_before or isinstance(placed.layer, Conv | Linear | BatchNorm)


def table_rows(oracle: Oracle, batch_sizes: Sequence[int]) -> dict[str, Any]:
    """{call: {direction: [a list over batch_sizes for each mode]}} over all architectures."""
    wanted = dict.fromkeys(
        pair for architecture in ARCHITECTURES.values() for pair in convolutions(architecture)
    )
    rows: dict[str, Any] = {}
    for call, direction in wanted:
        rows.setdefault(call.key, {})[direction.value] = [
            [
                oracle.workspace_bytes(call, direction, batch_size, mode)
                for batch_size in batch_sizes
            ]
            for mode in modes(oracle.properties)
        ]
    return dict(sorted(rows.items()))


def write_table(path: Path, head: Mapping[str, Any], rows: Mapping[str, Any]) -> None:
    """One JSON object, its rows one a line, so that two versions can be compared by eye."""
    lines = [f" {json.dumps(key)}: {json.dumps(value)}," for key, value in head.items()]
    body = ",\n".join(
        f"  {json.dumps(key)}: {json.dumps(value, separators=(',', ':'))}"
        for key, value in rows.items()
    )
    text = "\n".join(["{", *lines, ' "rows": {', body, " }", "}"]) + "\n"
    path.write_text(text, encoding="utf-8")


def main() -> None:
    """Writes one table; see the module's documentation."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=_Raw)
    parser.add_argument("--device", required=True, help=f"name of the table: {', '.join(DEVICES)}")
    parser.add_argument("--torch", required=True, help="torch release that pins this cuDNN: 2.11.0")
    parser.add_argument("--site", type=Path, help="directory that holds nvidia/cudnn")
    parser.add_argument("--device-json", type=Path, help="properties a real device serialized")
    parser.add_argument("--output", type=Path, default=TABLES, help="directory of the tables")
    arguments = parser.parse_args()
    if arguments.device_json:
        properties = json.loads(arguments.device_json.read_text(encoding="utf-8"))
        source = "serialized by the device"
    elif arguments.device in DEVICES:
        properties, source = dict(DEVICES[arguments.device]), DATA_SHEET
    else:
        parser.error(f"{arguments.device!r} needs --device-json; described: {', '.join(DEVICES)}")
    cudnn = Cudnn(arguments.site or site_of_this_environment())
    started = time.perf_counter()
    rows = table_rows(Oracle(cudnn, properties), BATCH_SIZES)
    options = [f"--device {arguments.device}", f"--torch {arguments.torch}"]
    options += ["--site SITE"] if arguments.site else []
    options += [f"--device-json {arguments.device_json.name}"] if arguments.device_json else []
    head = {
        "device": arguments.device,
        "cudnn": cudnn.version,
        "torch": arguments.torch,
        "generated": datetime.now(UTC).date().isoformat(),
        "command": " ".join(["python tools/cudnn_workspaces.py", *options]),
        "device_properties_source": source,
        "device_properties": properties,
        "modes": modes(properties),
        "batch_sizes": BATCH_SIZES,
    }
    path = arguments.output / "-".join(
        ["cudnn", cudnn.version, f"torch{arguments.torch}", f"{arguments.device}.json"]
    )
    write_table(path, head, rows)
    sizes = sum(len(sizes) for row in rows.values() for mode in row.values() for sizes in mode)
    seconds = time.perf_counter() - started
    print(f"{path.name}: {len(rows)} convolutions, {sizes} sizes, {seconds:.0f} s", file=sys.stderr)


def site_of_this_environment() -> Path:
    """The site-packages directory of this interpreter that holds an nvidia-cudnn wheel."""
    for entry in map(Path, sys.path):
        if (entry / "nvidia" / "cudnn").is_dir():
            return entry
    raise SystemExit("this environment has no nvidia-cudnn wheel; name one with --site")


class _Raw(argparse.RawDescriptionHelpFormatter):
    """Keeps the line breaks of the module's documentation."""


if __name__ == "__main__":
    main()
