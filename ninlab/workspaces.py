"""How much scratch do cuDNN and cuBLAS ask the CUDA allocator for?

A convolution on a GPU needs more than its operands: cuDNN allocates a workspace
around each call, and its size depends on the call, the precision, the device and
the cuDNN version. cuDNN's heuristics can be asked without a device, which
tools/cudnn_workspaces.py does; the answers are the tables beside this module. A
matrix product gets a workspace from ATen whose size and lifetime are rules of the
torch version.

Each answer says where it comes from, its `Source`. A table knows the calls, batch sizes and
precisions that it was made for. For every other one an installed cuDNN is asked (`ninlab.cudnn`),
then the rule of `product_bytes`; where that rule does not hold either, the answer is None, never
zero.

Known limits. A table holds for ``torch.backends.cudnn.benchmark = False`` and for the cuDNN and
torch versions in its name. The plan is the first one that cuDNN *builds*; ATen takes the first that
also *runs*. What cuDNN takes for batch normalization it says to a device only, and is
left out.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from importlib.resources import files
from typing import Any

from ninlab.errors import NinlabError, UnknownNameError
from ninlab.reports import Phase
from ninlab.steps import Precision, named
from ninlab.units import Shape, format_shape

MEMORY_FORMATS = ("contiguous", "channels_last")


class Direction(StrEnum):
    """Which of a convolution's three computations: `convolution_backward` makes the last two."""

    FORWARD = "fwd"
    INPUT_GRADIENT = "dgrad"  # not computed where the input needs no gradient: the first layer
    WEIGHT_GRADIENT = "wgrad"


class Source(StrEnum):
    """Who said how much scratch a convolution takes, from the best to the least."""

    DEVICE = "device"  # cuDNN, on that GPU
    DESCRIBED = "described"  # the same cuDNN, to which the GPU was only described
    OWN_KERNEL = "own_kernel"  # nobody has to: a kernel of ATen's own, which takes none
    ANOTHER_CUDNN = "another_cudnn"  # cuDNN of another version, to which the GPU was described
    RULE = "rule"  # `product_bytes`, where no cuDNN was asked whether it holds


@dataclass(frozen=True, slots=True)
class ConvCall:
    """One convolution, whatever its batch size: all that cuDNN's choice depends on."""

    input_shape: Shape  # (channels, height, width) of one image
    weight_shape: Shape  # (out_channels, in_channels / groups, height, width)
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1

    @property
    def key(self) -> str:
        """The call in one line, as the tables name it: ``1x28x28 6x1x5x5 1x1 2x2 1x1 1``."""
        sizes = (self.input_shape, self.weight_shape, self.stride, self.padding, self.dilation)
        return " ".join([*map(format_shape, sizes), str(self.groups)])

    @classmethod
    def of(cls, key: str) -> ConvCall:
        """The call of a key."""
        *sizes, groups = key.split()
        shapes: list[Any] = [tuple(map(int, size.split("x"))) for size in sizes]
        images, weight, stride, padding, dilation = shapes
        return cls(images, weight, stride, padding, dilation, int(groups))

    @property
    def is_depthwise(self) -> bool:
        """Whether each group has one input channel, which ATen may compute without cuDNN."""
        return 1 < self.groups == self.input_shape[0]

    @property
    def is_product(self) -> bool:
        """Whether it multiplies the channels of more than one pixel by one matrix, and no more."""
        return (
            self.weight_shape[2:] == (1, 1) == self.stride
            and self.padding == (0, 0)
            and self.groups == 1
            and self.input_shape[1:] != (1, 1)
        )

    @property
    def output_shape(self) -> Shape:
        """(channels, height, width) of one image."""
        size = (
            (extent + 2 * pad - step * (window - 1) - 1) // stride + 1
            for extent, window, stride, pad, step in zip(
                self.input_shape[1:],
                self.weight_shape[2:],
                self.stride,
                self.padding,
                self.dilation,
                strict=True,
            )
        )
        return (self.weight_shape[0], *size)


PRODUCT_MODES = ("tf32 contiguous", "bf16 contiguous")
"""The "precision memory_format" in which `product_bytes` was seen to hold. In FP32 ATen may drop
what needs tensor cores."""


def product_bytes(call: ConvCall, direction: Direction, batch_size: int) -> int:
    """Bytes of scratch of a 1x1 convolution that cuDNN computes as one matrix product an image.

    The weight gradient is a sum over images: each has its own in float32 before they are added.
    The other two take at most 400 B, which count as none. Holds for ``call.is_product``, where
    cuDNN ranks that way first (`ninlab.cudnn`); which ways it has, it says in its messages alone.
    In the traces of an H100 it held to those 400 B in 277 of 277 such calls in TF32 and bfloat16.
    """
    if direction is not Direction.WEIGHT_GRADIENT:
        return 0
    out_channels, in_channels = call.weight_shape[:2]
    return batch_size * out_channels * in_channels * 4


@dataclass(frozen=True, slots=True)
class ConvScratch:
    """The workspace of one convolution, and who said so."""

    bytes: int
    source: Source


@dataclass(frozen=True, slots=True)
class GemmScratch:
    """One block that ATen allocates for a matrix product.

    owner is None where the block is freed as soon as the call returns. Otherwise it
    names the handle that keeps the block until the process ends: the first call of
    that owner allocates it, later calls reuse it, so in a warm step it is there from
    the start.
    """

    bytes: int
    owner: str | None


@dataclass(frozen=True)
class CublasRule:
    """What one torch version allocates for matrix products.

    kept: one cuBLAS workspace for each thread that calls (forward and backward run in
    two threads), and one of cuBLASLt beside it, both never freed. Otherwise each call
    allocates its own and frees it.

    large_on holds the compute capabilities on which cuBLAS is given large_bytes; on the others
    among `COMPUTE_CAPABILITIES` it is given other_bytes, its own default.

    Kept blocks belong to every step but the first, from its beginning: a prediction of
    VGG-16 peaks in a convolution, and on an H100 holds 33 MiB there for linear layers that
    come later, because the prediction before has run them. A network of convolutions alone,
    such as NiN, never asks ATen for a product and holds none.
    """

    kept: bool
    large_on: frozenset[int]
    large_bytes: int = 32 * 2**20
    other_bytes: int = 2 * 4096 * 2**10 + 8 * 16 * 2**10  # :4096:2:16:8
    lt_bytes: int = 2**20

    def gemm(self, operator: str, phase: Phase, compute_capability: int) -> tuple[GemmScratch, ...]:
        """The blocks of one call of that ATen operator in that phase.

        Raises NinlabError for a compute capability of which nobody looked up what it is given.
        """
        if compute_capability not in COMPUTE_CAPABILITIES:
            raise NinlabError(
                f"what cuBLAS is given on a device of compute capability {compute_capability} is "
                f"not known; known: {', '.join(map(str, COMPUTE_CAPABILITIES))}"
            )
        main = self.large_bytes if compute_capability in self.large_on else self.other_bytes
        thread = "autograd" if phase is Phase.BACKWARD else "main"
        through_lt = operator in _WITH_EPILOGUE
        if not self.kept:
            return (GemmScratch(self.lt_bytes if through_lt else main, None),)
        blocks = [GemmScratch(main, f"cublas.{thread}")]
        if through_lt:
            blocks.append(GemmScratch(self.lt_bytes, f"cublaslt.{thread}"))
        return tuple(blocks)


COMPUTE_CAPABILITIES = (70, 75, 80, 86, 89, 90, 100, 103, 110, 120, 121)
"""Those of NVIDIA's GPUs from Volta to Blackwell: 90, which is Hopper, is sm_90."""

CUBLAS_RULES: Mapping[str, CublasRule] = {
    # getCUDABlasLtWorkspace of the 2.11.0+cu130 wheel shares the cuBLAS block only on request;
    # its parseChosenWorkspaceSize compares the device with 9.0 and with nothing else.
    "2.11": CublasRule(kept=True, large_on=frozenset({90})),
    # isCUDABlasWorkspaceCachingEnabled() of the 2.15.0+cu132 wheel answers false; its
    # parseChosenWorkspaceSize takes the major versions 9 to 12, Hopper and Blackwell.
    "2.15": CublasRule(kept=False, large_on=frozenset({90, 100, 103, 110, 120, 121})),
}
"""By torch's major.minor version, read in the machine code of its wheel for CUDA. Versions between
the two were not looked into."""

DEPTHWISE_BY_ATEN = frozenset({"2.11"})
"""Versions of torch whose ``use_cudnn_depthwise`` in ATen's Convolution.cpp gives contiguous
depthwise convolutions to cuDNN in float16 alone, so that those in bfloat16 run without scratch."""

_WITH_EPILOGUE = frozenset({"addmm", "_addmm_activation"})
"""Products whose bias is added, and whose ReLU is applied, by cuBLASLt's epilogue.

Both are one function of ATen's cuda/Blas.cpp, addmm_out_cuda_impl, and ask for the same workspace.
"""

GEMM_OPERATORS = _WITH_EPILOGUE | {"mm", "bmm", "baddbmm", "addmv", "mv"}
"""ATen operators, without overload, that run in cuBLAS."""


@dataclass(frozen=True)
class Workspaces:
    """The scratch of one device under one torch version.

    Answers for the calls of one committed table; `load` finds it. ask answers for calls and
    batch sizes that the table does not hold, in a mode that it has; ask_source says who that is.
    """

    device: str
    cudnn: str  # version of the wheel, e.g. "9.19.0.56"
    torch: str  # the torch release that pins it
    compute_capability: int  # 90 for sm_90
    batch_sizes: tuple[int, ...]
    modes: tuple[str, ...]  # "precision memory_format"
    rows: Mapping[str, Mapping[str, Sequence[Sequence[int | None]]]]  # call, direction, mode, batch
    cublas: CublasRule
    device_properties: Mapping[str, Any]  # as cuDNN describes a device
    source: Source  # of the rows: the device, or a cuDNN to which it was described
    ask: Callable[[ConvCall, Direction, int, str], int | None] | None = None
    ask_source: Source = Source.DESCRIBED

    @classmethod
    def load(cls, device: str, torch: str | None = None, cudnn: str | None = None) -> Workspaces:
        """The table of that device, of the newest cuDNN unless torch or cudnn says which.

        torch and cudnn may be given to any precision: "2.11" finds "2.11.0".
        Raises UnknownNameError when no table is that device's or that version's.
        """
        tables = available()
        of_device = [table for table in tables if table.device == device]
        if not of_device:
            raise UnknownNameError(
                "device with a workspace table", device, sorted({t.device for t in tables})
            )
        for kind, wanted, versions in (
            ("torch version", torch, [t.torch for t in of_device]),
            ("cuDNN version", cudnn, [t.cudnn for t in of_device]),
        ):
            if wanted is None:
                continue
            keep = [i for i, version in enumerate(versions) if _is_prefix(wanted, version)]
            if not keep:
                raise UnknownNameError(f"{kind} of a {device} workspace table", wanted, versions)
            of_device = [of_device[i] for i in keep]
        return _read(max(of_device, key=lambda table: _numbers(table.cudnn)).file)

    def convolution(
        self,
        call: ConvCall,
        direction: Direction,
        batch_size: int,
        precision: str = Precision.FP32,
        memory_format: str = "contiguous",
    ) -> ConvScratch | None:
        """What is allocated around that call, or None where nobody knows.

        precision is one of `steps.Precision`, memory_format one of `MEMORY_FORMATS`. None also
        where ATen does not give the call to cuDNN, as bf16 on a T4.
        Raises UnknownNameError for a precision or format that does not exist.
        """
        named(Precision, precision)
        if memory_format not in MEMORY_FORMATS:
            raise UnknownNameError("memory format", memory_format, MEMORY_FORMATS)
        mode = f"{precision} {memory_format}"
        if mode not in self.modes:
            return None
        is_atens = call.is_depthwise and memory_format == "contiguous"
        row = self.rows.get(call.key, {}).get(direction)
        # Of ATen's kernel a device knows what it took, and cuDNN that it would take otherwise.
        if is_atens and self.source is not Source.DEVICE:
            row = None
        if row is not None and batch_size in self.batch_sizes:
            tabled = row[self.modes.index(mode)][self.batch_sizes.index(batch_size)]
            if tabled is not None:  # a device was not asked for everything
                return ConvScratch(tabled, self.source)
        if is_atens:
            return self._of_atens_depthwise_kernel(precision)
        asked = None if self.ask is None else self.ask(call, direction, batch_size, mode)
        if asked is not None:
            return ConvScratch(asked, self.ask_source)
        if call.is_product and mode in PRODUCT_MODES and self.compute_capability >= 80:
            return ConvScratch(product_bytes(call, direction, batch_size), Source.RULE)
        return None

    def _of_atens_depthwise_kernel(self, precision: str) -> ConvScratch | None:
        """None in bfloat16 under a torch of which nobody looked up whether cuDNN is asked."""
        if precision == Precision.BF16 and minor_version(self.torch) not in DEPTHWISE_BY_ATEN:
            return None
        return ConvScratch(0, Source.OWN_KERNEL)

    def convolution_bytes(self, *call: Any) -> int | None:
        """The bytes alone of what `convolution` answers for the same arguments."""
        scratch = self.convolution(*call)
        return None if scratch is None else scratch.bytes

    def gemm(self, operator: str, phase: Phase) -> tuple[GemmScratch, ...]:
        """The blocks that one matrix product allocates; () for any other ATen operator."""
        if operator not in GEMM_OPERATORS:
            return ()
        return self.cublas.gemm(operator, phase, self.compute_capability)


@dataclass(frozen=True, order=True)
class TableName:
    """Which table: its device, the cuDNN that was asked and the torch release that pins it."""

    device: str
    cudnn: str
    torch: str
    file: str


@cache
def available() -> tuple[TableName, ...]:
    """Every committed table, by device and cuDNN version."""
    names = []
    for entry in files("ninlab").joinpath("tables").iterdir():
        if entry.name.startswith("cudnn-") and entry.name.endswith(".json"):
            stem = entry.name.removeprefix("cudnn-").removesuffix(".json")
            cudnn, torch, device = stem.split("-")
            names.append(TableName(device, cudnn, torch.removeprefix("torch"), entry.name))
    return tuple(sorted(names, key=lambda name: (name.device, _numbers(name.cudnn))))


def has_table(device: str, torch_version: str) -> bool:
    """Whether a table is of that device and that torch, of which only major.minor counts.

    torch_version may carry a build, as in "2.11.0+cu130".
    """
    return any(
        table.device == device and minor_version(table.torch) == minor_version(torch_version)
        for table in available()
    )


@cache
def _read(file: str) -> Workspaces:
    table: Mapping[str, Any] = json.loads(
        files("ninlab").joinpath("tables", file).read_text(encoding="utf-8")
    )
    rule = CUBLAS_RULES.get(minor_version(table["torch"]))
    if rule is None:
        raise NinlabError(
            f"{file} is for torch {table['torch']}, whose cuBLAS rule is not in CUBLAS_RULES "
            f"(known: {', '.join(CUBLAS_RULES)})"
        )
    return Workspaces(
        device=table["device"],
        cudnn=table["cudnn"],
        torch=table["torch"],
        compute_capability=table["device_properties"]["deviceVer"] // 10,
        batch_sizes=tuple(table["batch_sizes"]),
        modes=tuple(table["modes"]),
        rows=table["rows"],
        cublas=rule,
        device_properties=table["device_properties"],
        source=Source(table["source"]),
    )


def minor_version(version: str) -> str:
    """Major and minor of a torch version: "2.11" of "2.11.0+cu130"."""
    return ".".join(version.split(".")[:2])


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def _is_prefix(wanted: str, version: str) -> bool:
    return f"{version}.".startswith(f"{wanted}.")
