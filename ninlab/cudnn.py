"""How large is the workspace of a convolution on a GPU, one that is here or one that is not?

cuDNN 9.8 and later plans for a device that is only described: a serialized
device-property descriptor stands in for the handle ("deviceless ahead-of-time
compilation" in its documentation). torch's CUDA wheels bring cuDNN along, so that it can be
asked on a machine without a GPU: `answering` lets it fill the gaps of a workspace table.
`OnDevice` asks with a handle, as ATen does; what it answers is not always the same.

It mirrors ATen's Conv_v8.cpp with ``torch.backends.cudnn.benchmark = False``: one
convolution per operation graph, tensors aligned to 32 bytes, the heuristics of mode
INSTANT and then its fallback list, engines that convert their inputs down dropped,
engines on tensor cores dropped for fp32 without TF32, and the first configuration
whose plan builds. ATen also drops a plan that fails when it runs, which no one can
see without the device, nor by asking alone.

Needs no torch.

Known limits. cuDNN loads in seconds and answers in about 2 ms a plan. ATen's choice for
depthwise convolutions in bfloat16 depends on rules of its own that differ between versions:
they are not answered for.
"""

from __future__ import annotations

import ctypes
import json
import re
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from enum import IntEnum
from functools import cache
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

from ninlab.errors import NinlabError
from ninlab.split_sums import Product, on_device
from ninlab.steps import Precision
from ninlab.workspaces import (
    MEMORY_FORMATS,
    PRODUCT_MODES,
    ConvCall,
    Direction,
    Source,
    Workspaces,
    product_bytes,
)

ALIGNMENT_BYTES = 32  # the most that ATen claims; the caching allocator gives 512
BFLOAT16_FROM = 800  # below sm_80 ATen computes bf16 convolutions without cuDNN, and TF32 is FP32


def modes(properties: Mapping[str, Any]) -> tuple[str, ...]:
    """Each "precision memory_format" that ATen gives to cuDNN on a device of these properties."""
    return tuple(
        f"{precision} {memory_format}"
        for memory_format in MEMORY_FORMATS
        for precision in Precision
        if precision != Precision.BF16 or properties["deviceVer"] >= BFLOAT16_FROM
    )


def site_of_this_environment() -> Path | None:
    """The site-packages folder of this interpreter that holds an nvidia-cudnn wheel, or None."""
    folders = map(Path, sys.path)
    return next((each for each in folders if (each / "nvidia" / "cudnn").is_dir()), None)


@cache
def installed() -> Cudnn | None:
    """The cuDNN of this environment, or None where there is none that loads."""
    site = site_of_this_environment()
    try:
        return None if site is None else Cudnn(site)
    except (NinlabError, OSError):  # another platform's library, or half of one
        return None


def answering(tables: Workspaces) -> Workspaces:
    """The tables, and for what they do not hold the cuDNN of this environment, if there is one.

    One of the tables' version answers as the tables do, another one as `Source.ANOTHER_CUDNN`.
    Without cuDNN they come back as they were.
    """
    site = site_of_this_environment()
    if site is None:
        return tables  # before a library is loaded for nothing
    same = wheel_version(site) == tables.cudnn
    source = Source.DESCRIBED if same else Source.ANOTHER_CUDNN
    return replace(tables, ask=_Answers(tables).workspace_bytes, ask_source=source)


class _Answers:
    """What an installed cuDNN says of the calls of any network, for the device of a table."""

    def __init__(self, tables: Workspaces) -> None:
        self._properties = tables.device_properties
        self._known: dict[tuple[ConvCall, Direction, int, str], int | None] = {}

    def workspace_bytes(
        self, call: ConvCall, direction: Direction, batch_size: int, mode: str
    ) -> int | None:
        """Bytes of the workspace, or None where no plan builds."""
        key = call, direction, batch_size, mode
        if key not in self._known:
            self._known[key] = self._asked(*key)
        return self._known[key]

    def _asked(
        self, call: ConvCall, direction: Direction, batch_size: int, mode: str
    ) -> int | None:
        cudnn = installed()
        if cudnn is None:
            return None
        try:
            return Oracle(cudnn, self._properties).workspace_bytes(
                call, direction, batch_size, mode
            )
        except CudnnError:
            return None


def device_properties(index: int) -> dict[str, Any]:
    """What cuDNN itself says of the CUDA device of that number: what an `Oracle` is asked with.

    torch has loaded cuDNN. Raises NinlabError where it has not, or where cuDNN refuses.
    """
    cudnn = Cudnn(None)
    try:
        descriptor = cudnn.descriptor(Kind.DEVICE_PROPERTIES)
        descriptor.set(Attribute.DEVICE_ID, Type.INT32, [index]).finalize()
        length = descriptor.count(Attribute.DEVICE_JSON, Type.CHAR)
        text = b"".join(descriptor.get(Attribute.DEVICE_JSON, Type.CHAR, length))
    except CudnnError as error:
        raise NinlabError(
            f"cuDNN does not describe device {index}: {error}; that needs cuDNN 9.8 or later"
        ) from None
    properties: dict[str, Any] = json.loads(text.rstrip(b"\0"))
    return properties


# ---------------------------------------------------------------- cuDNN's backend


class Kind(IntEnum):
    """cudnnBackendDescriptorType_t."""

    CONVOLUTION = 1
    ENGINE = 2
    ENGINE_CONFIG = 3
    HEURISTICS = 4
    PLAN = 5
    KNOB_CHOICE = 7
    FORWARD = 10
    WEIGHT_GRADIENT = 11
    INPUT_GRADIENT = 12
    OPERATION_GRAPH = 15
    TENSOR = 17
    DEVICE_PROPERTIES = 38


class Type(IntEnum):
    """cudnnBackendAttributeType_t."""

    HANDLE = 0
    DATA_TYPE = 1
    BOOLEAN = 2
    INT64 = 3
    FLOAT = 4
    CONVOLUTION_MODE = 7
    HEURISTICS_MODE = 8
    KNOB_TYPE = 9
    NUMERICAL_NOTE = 11
    DESCRIPTOR = 15
    INT32 = 23
    CHAR = 24


C_TYPES: Mapping[Type, Any] = {
    Type.BOOLEAN: ctypes.c_bool,
    Type.INT64: ctypes.c_int64,
    Type.FLOAT: ctypes.c_float,
    Type.HANDLE: ctypes.c_void_p,
    Type.DESCRIPTOR: ctypes.c_void_p,
    Type.CHAR: ctypes.c_char,
}
"""What an attribute of each type is in memory; enumerations are C ints."""


class Knob(IntEnum):
    """cudnnBackendKnobType_t: what of an engine can be chosen, those that are read here."""

    TILE_SIZE = 2
    ROWS = 27  # CUDNN_KNOB_TYPE_TILE_CGA_M: of a group of multiprocessors
    COLUMNS = 28  # CUDNN_KNOB_TYPE_TILE_CGA_N


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
    CONFIG_KNOBS = 302
    PLAN_HANDLE = 400
    PLAN_CONFIG = 401
    PLAN_WORKSPACE = 402
    PLAN_DEVICE = 407
    KNOB_TYPE = 600
    KNOB_VALUE = 601
    FORWARD_ALPHA = 700
    INPUT_GRADIENT_ALPHA = 706
    WEIGHT_GRADIENT_ALPHA = 712
    GRAPH_HANDLE = 800
    GRAPH_OPERATIONS = 801
    TENSOR_ALIGNMENT = 900
    TENSOR_DATA_TYPE = 901
    TENSOR_DIMENSIONS = 902
    TENSOR_STRIDES = 903
    TENSOR_ID = 906
    TENSOR_IS_VIRTUAL = 907
    ENGINE_NUMBER = 1301
    ENGINE_NOTES = 1303
    DEVICE_ID = 2700
    DEVICE_JSON = 2702


FLOAT32, BFLOAT16 = 0, 9  # cudnnDataType_t
CROSS_CORRELATION = 1  # cudnnConvolutionMode_t
INSTANT, FALLBACK = 0, 2  # cudnnBackendHeurMode_t
TENSOR_CORE, DOWN_CONVERT_INPUTS = 0, 1  # cudnnBackendNumericalNote_t
MOST_KNOBS = 40  # CUDNN_KNOB_TYPE_COUNTS is 37 in cuDNN 9.8
INFORMATION = 8  # CUDNN_SEV_INFO_EN, a bit of cudnnSetCallback's mask

PRODUCT_ENGINES = {
    Direction.FORWARD: 58,
    Direction.INPUT_GRADIENT: 63,
    Direction.WEIGHT_GRADIENT: 62,
}
"""The global index of the engine that computes a 1x1 convolution as matrix products.

The same in cuDNN 9.19 and 9.26, and for every device of `ninlab.devices`. That a GPU runs it where
it is ranked first was seen on an H100 with cuDNN 9.19, in TF32 and bfloat16.
"""

OPERATIONS = {
    Direction.FORWARD: (Kind.FORWARD, Attribute.FORWARD_ALPHA, "wxy"),
    Direction.INPUT_GRADIENT: (Kind.INPUT_GRADIENT, Attribute.INPUT_GRADIENT_ALPHA, "wxy"),
    Direction.WEIGHT_GRADIENT: (Kind.WEIGHT_GRADIENT, Attribute.WEIGHT_GRADIENT_ALPHA, "wxy"),
}
"""Descriptor, the first of its six attributes (alpha, beta, convolution, then tensors), tensors."""


_LIBRARY = "libcudnn.so.9"


class CudnnError(NinlabError):
    """cuDNN refused a descriptor; the message is its own."""


class Cudnn:
    """The backend of one cuDNN library, found in a site-packages directory.

    Without a directory it is the library that torch has loaded into this process. Raises
    NinlabError where there is none.
    """

    def __init__(self, site: Path | None) -> None:
        self._library = self._loaded() if site is None else self._of_wheel(site)
        self._library.cudnnGetErrorString.restype = ctypes.c_char_p
        self._library.cudnnGetVersion.restype = ctypes.c_size_t
        number = self._library.cudnnGetVersion()
        self.version = f"{number // 10000}.{number // 100 % 100}.{number % 100}"
        if site is not None:
            self.version = self._checked_version(site)

    @staticmethod
    def _loaded() -> ctypes.CDLL:
        try:
            return ctypes.CDLL(_LIBRARY)
        except OSError as error:
            raise NinlabError(f"cuDNN is not loaded in this process: {error}") from None

    @staticmethod
    def _of_wheel(site: Path) -> ctypes.CDLL:
        library = site / "nvidia" / "cudnn" / "lib" / _LIBRARY
        if not library.exists():
            raise NinlabError(f"there is no cuDNN at {library}; install nvidia-cudnn-cu13")
        # cuDNN's own libraries look for these by name, and must find the ones they were built for.
        for name in ("libnvrtc.so.13", "libcublasLt.so.13", "libcublas.so.13"):
            dependency = site / "nvidia" / "cu13" / "lib" / name
            if dependency.exists():
                ctypes.CDLL(str(dependency), mode=ctypes.RTLD_GLOBAL)
        return ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)

    def _checked_version(self, site: Path) -> str:
        """Version of the wheel, to the build number, which the library itself does not know."""
        version = wheel_version(site)
        if version is None:
            raise NinlabError(f"{site} holds a cuDNN library but no nvidia-cudnn wheel")
        if not version.startswith(f"{self.version}."):
            raise NinlabError(
                f"the wheel in {site} is {version}, but the library that was loaded is "
                f"{self.version}.*; ask in a process that has not loaded another cuDNN"
            )
        return version

    def call(self, name: str, *arguments: object) -> None:
        """Calls a backend function; raises CudnnError when it does not succeed."""
        status = getattr(self._library, name)(*arguments)
        if status:
            raise CudnnError(self._library.cudnnGetErrorString(status).decode())

    def handle(self) -> ctypes.c_void_p:
        """A handle of the current CUDA device. Raises CudnnError where there is none."""
        handle = ctypes.c_void_p()
        self.call("cudnnCreate", ctypes.byref(handle))
        return handle

    def descriptor(self, kind: Kind) -> Descriptor:
        """An empty descriptor of that kind."""
        return Descriptor(self, kind)

    @contextmanager
    def refusals(self) -> Iterator[list[int]]:
        """The engines that cuDNN says it refused while the block runs, by their global index.

        It says so in messages that it hands to a callback, and nowhere else.
        """
        refused: list[int] = []

        def read(severity: int, user: int, debug: int, message: int) -> None:
            lines = _until_two_nulls(message)
            if b"support_checks" in lines:
                refused.extend(map(int, re.findall(rb'"engineId":(\d+)', lines)))

        callback = _CALLBACK(read)
        self.call("cudnnSetCallback", ctypes.c_uint(INFORMATION), None, callback)
        try:
            yield refused
        finally:
            self.call("cudnnSetCallback", ctypes.c_uint(0), None, None)


_CALLBACK = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)
"""cudnnCallback_t; the message comes as an address, for there are nulls between its lines."""


def _until_two_nulls(address: int) -> bytes:
    """A message of cuDNN's, whose lines end with a null and whose end are two."""
    length = 256
    while (end := ctypes.string_at(address, length).find(b"\0\0")) < 0:
        length *= 2
    return ctypes.string_at(address, end)


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

    def knobs(self) -> dict[int, int]:
        """What an engine's configuration chooses: values by `Knob`, and by other such numbers."""
        choices = self.get_descriptors(Attribute.CONFIG_KNOBS, Kind.KNOB_CHOICE, MOST_KNOBS)
        return {
            choice.get(Attribute.KNOB_TYPE, Type.KNOB_TYPE)[0]: choice.get(
                Attribute.KNOB_VALUE, Type.INT64
            )[0]
            for choice in choices
        }

    def count(self, attribute: int, kind: Type) -> int:
        """How many values one attribute holds."""
        count = ctypes.c_int64()
        self.cudnn.call(
            "cudnnBackendGetAttribute",
            self.pointer,
            ctypes.c_int(attribute),
            ctypes.c_int(kind),
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


# ---------------------------------------------------------------- plans


@dataclass(frozen=True, slots=True)
class Plan:
    """One of the plans that ATen tries for a call, in its order."""

    engine: int  # cuDNN's number of the engine, which each direction counts anew
    bytes: int | None  # of its workspace; None where it does not build
    refusal: str = ""  # cuDNN's words where it does not build
    config: Descriptor | None = field(default=None, repr=False, compare=False)  # the engine's


@dataclass(frozen=True)
class Planner(ABC):
    """cuDNN's answers for one device, which a subclass names."""

    cudnn: Cudnn

    @abstractmethod
    def _tell_device(self, descriptor: Descriptor) -> None:
        """Set the device in a new descriptor, if one of its kind wants to know it."""

    def workspace_bytes(
        self, call: ConvCall, direction: Direction, batch_size: int, mode: str
    ) -> int:
        """Workspace of the plan that ATen would run; mode is one of `modes`.

        Raises CudnnError when no plan builds.
        """
        return self.first(call, direction, batch_size, mode)[1]

    def first(
        self, call: ConvCall, direction: Direction, batch_size: int, mode: str
    ) -> tuple[int, int]:
        """(engine, bytes of the workspace) of the plan that ATen would run.

        mode is one of `modes`. Raises CudnnError when no plan builds.
        """
        refusals = []
        for plan in self.plans(call, direction, batch_size, mode):
            if plan.bytes is not None:
                return plan.engine, plan.bytes
            refusals.append(plan.refusal)
        raise CudnnError(f"no plan builds for {direction} {call.key} {mode}: {refusals}")

    def plans(
        self, call: ConvCall, direction: Direction, batch_size: int, mode: str
    ) -> Iterator[Plan]:
        """What ATen tries until one runs; each plan is built when it is asked for."""
        graph = self._graph(call, direction, batch_size, mode)
        dropped = {DOWN_CONVERT_INPUTS} | (
            {TENSOR_CORE} if mode.startswith(Precision.FP32) else set()
        )
        for heuristics_mode in (INSTANT, FALLBACK):
            for config in self._configs(graph, heuristics_mode):
                (engine,) = config.get_descriptors(Attribute.CONFIG_ENGINE, Kind.ENGINE, 1)
                notes = engine.get(Attribute.ENGINE_NOTES, Type.NUMERICAL_NOTE, 16)
                if dropped.intersection(notes):
                    continue
                (number,) = engine.get(Attribute.ENGINE_NUMBER, Type.INT64)
                plan = self._descriptor(Kind.PLAN)
                plan.refer(Attribute.PLAN_CONFIG, config)
                try:
                    plan.finalize()
                except CudnnError as refusal:
                    yield Plan(number, None, str(refusal), config)
                    continue
                (size,) = plan.get(Attribute.PLAN_WORKSPACE, Type.INT64)
                yield Plan(number, int(size), config=config)

    def _descriptor(self, kind: Kind) -> Descriptor:
        descriptor = self.cudnn.descriptor(kind)
        self._tell_device(descriptor)
        return descriptor

    def _configs(self, graph: Descriptor, mode: int, most: int | None = None) -> list[Descriptor]:
        heuristics = self._descriptor(Kind.HEURISTICS)
        heuristics.refer(Attribute.HEURISTICS_GRAPH, graph)
        heuristics.set(Attribute.HEURISTICS_MODE, Type.HEURISTICS_MODE, [mode])
        heuristics.finalize()
        if most is None:
            most = heuristics.count(Attribute.HEURISTICS_RESULTS, Type.DESCRIPTOR)
        return heuristics.get_descriptors(Attribute.HEURISTICS_RESULTS, Kind.ENGINE_CONFIG, most)

    def _graph(
        self, call: ConvCall, direction: Direction, batch_size: int, mode: str
    ) -> Descriptor:
        precision, memory_format = mode.split()
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
            tensor = self._tensor(
                *(ord(name), shapes[name]),
                *(precision == Precision.BF16, memory_format == "channels_last"),
            )
            operation.refer(alpha + offset, tensor)
        graph = self._descriptor(Kind.OPERATION_GRAPH)
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


@dataclass(frozen=True)
class Oracle(Planner):
    """cuDNN's answers for one described device."""

    properties: Mapping[str, Any]

    def first(
        self, call: ConvCall, direction: Direction, batch_size: int, mode: str
    ) -> tuple[int, int]:
        """(engine, bytes of the workspace) of the plan that ATen would run on that device.

        mode is one of `modes`. Raises CudnnError when no plan builds.
        """
        engine = PRODUCT_ENGINES[direction]
        if (
            call.is_product
            and mode in PRODUCT_MODES
            and self.properties["deviceVer"] >= BFLOAT16_FROM
            and self._ranks_first(engine, self._graph(call, direction, batch_size, mode))
        ):
            return engine, product_bytes(call, direction, batch_size)
        return super().first(call, direction, batch_size, mode)

    def plans(
        self, call: ConvCall, direction: Direction, batch_size: int, mode: str
    ) -> Iterator[Plan]:
        """What ATen tries, each with what it takes on the described device's multiprocessors."""
        for plan in super().plans(call, direction, batch_size, mode):
            yield self._on_device(plan, call, direction, batch_size, mode)

    def _on_device(
        self, plan: Plan, call: ConvCall, direction: Direction, batch_size: int, mode: str
    ) -> Plan:
        """The plan as `split_sums` has it: cuDNN assumes too few multiprocessors."""
        if plan.bytes is None or plan.config is None:
            return plan
        knobs = plan.config.knobs()
        if not knobs.keys() >= {Knob.TILE_SIZE, Knob.ROWS, Knob.COLUMNS}:
            return plan
        group = knobs[Knob.ROWS], knobs[Knob.COLUMNS]
        product = Product(
            *(call, direction, batch_size, mode),
            *(plan.engine, knobs[Knob.TILE_SIZE], group),
        )
        size = on_device(plan.bytes, product, self.properties["multiProcessorCount"])
        return replace(plan, bytes=size)

    def _ranks_first(self, engine: int, graph: Descriptor) -> bool:
        """Whether a refused engine comes before every one that can be planned with here."""
        with self.cudnn.refusals() as refused:
            self._configs(graph, INSTANT, most=1)
        return engine in refused

    def _tell_device(self, descriptor: Descriptor) -> None:
        wanted = {
            Kind.HEURISTICS: Attribute.HEURISTICS_DEVICE,
            Kind.PLAN: Attribute.PLAN_DEVICE,
        }
        if attribute := wanted.get(descriptor.kind):
            device = _device_descriptor(self.cudnn, json.dumps(self.properties))
            descriptor.refer(attribute, device)


@dataclass(frozen=True)
class OnDevice(Planner):
    """cuDNN's answers for the CUDA device of a handle, which `Cudnn.handle` makes."""

    handle: ctypes.c_void_p

    def _tell_device(self, descriptor: Descriptor) -> None:
        wanted = {
            Kind.OPERATION_GRAPH: Attribute.GRAPH_HANDLE,
            Kind.PLAN: Attribute.PLAN_HANDLE,
        }
        if attribute := wanted.get(descriptor.kind):
            descriptor.set(attribute, Type.HANDLE, [self.handle.value])


@cache
def wheel_version(site: Path) -> str | None:
    """The version of the nvidia-cudnn wheel in that folder, to the build; None without one."""
    for distribution in distributions(path=[str(site)]):
        if distribution.name.startswith("nvidia-cudnn-cu"):
            return distribution.version
    return None


@cache
def _device_descriptor(cudnn: Cudnn, properties: str) -> Descriptor:
    descriptor = cudnn.descriptor(Kind.DEVICE_PROPERTIES)
    return descriptor.set(Attribute.DEVICE_JSON, Type.CHAR, properties.encode()).finalize()
