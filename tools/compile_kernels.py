"""What do the fused operators' kernels become on an H100, without one?

    python -m tools.compile_kernels

starts every kernel as a training step of NiN does, at batch size 128 in bfloat16 and float32, short
of the launch: Triton compiles it for sm_90 with its own ptxas. Printed are registers a thread,
bytes that did not fit into them and are spilled to memory, shared memory a program, and how many
bytes of each map one load takes. It ends with exit code 1 where anything is spilled, or where a
load takes less than it could: 16 bytes of the widest map, or what divides a pixel's channels, and
as many values of the others.

Run it when a kernel or a size of a tile has changed. It needs Triton, and takes half a minute.
Known limit: nothing is launched, so it says nothing of time. Loads of biases and weights, which a
program reads once, are not looked at.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import gcd
from pathlib import Path
from typing import Any

import torch
import triton
from torch import Tensor, nn
from triton.backends.compiler import GPUTarget
from triton.runtime.jit import JITFunction

from ninlab import exits
from ninlab.fused import fuse, kernels
from ninlab.fused.layers import BiasReluMaxPool, ConvBiasRelu, ProductBiasRelu
from ninlab.fused.matching import CHAINED_CHANNELS
from ninlab.fused.reference import new_maps
from ninlab.networks import on_meta

BATCH_SIZE = 128
TYPES = (torch.bfloat16, torch.float32)
MAPS = ("codes", "gradient", "images", "maps", "picked", "result")
"""What kernels call the arguments of which they read tiles, or write the widest."""

_USAGE = {key: re.compile(rf"{key}:(\d+)") for key in ("REG", "STACK")}
_BINARIES = Path(triton.__file__).parent / "backends/nvidia/bin"
_ARGUMENT = re.compile(r"ld\.param\.\w+\s+(%rd\d+), \[\w+_param_(\d+)\]")
_ADDRESS = re.compile(r"^\s*(?!ld|@)\S+\s+(%rd\d+), (.+);", re.M)  # computed, not loaded
_LOAD = re.compile(
    r"\bld\.global[\w.:]*?(?:\.v(\d))?\.[busf](\d+)\s.*\[ ?(%rd\d+)"
    r"|\bcp\.async.*\[ ?(%rd\d+).*?(0x\w+)"
)


@dataclass(frozen=True)
class Compiled:
    """What became of one kernel."""

    name: str
    registers: int  # of a thread
    spilled_bytes: int  # of a thread
    shared_bytes: int  # of a program
    load_bytes: Mapping[str, int]  # the narrowest load of each map
    element_bytes: Mapping[str, int]
    channels: int | None = None  # of a pixel, where the kernel reads maps

    def faults(self) -> Iterator[str]:
        """A sentence for each thing that costs time and need not be."""
        if self.spilled_bytes:
            yield f"{self.name} spills {self.spilled_bytes} bytes a thread"
        if not self.load_bytes:
            yield f"{self.name} loads nothing that this program finds"
        widest = max(self.element_bytes.values())
        most = 16 if self.channels is None else gcd(16, self.channels * widest)
        for name, taken in self.load_bytes.items():
            possible = most * self.element_bytes[name] // widest
            if taken < possible:
                yield f"{self.name} loads {taken} bytes of {name} at once, not {possible}"

    def __str__(self) -> str:
        """Its line of the table."""
        loads = ", ".join(f"{taken} of {name}" for name, taken in self.load_bytes.items())
        return (
            f"{self.name:58} {self.registers:4} {self.spilled_bytes:5} "
            f"{self.shared_bytes:7}  {loads}"
        )


class H100:
    """Stands where Triton looks for a GPU, and is none."""

    def get_current_device(self) -> int:
        """The only one."""
        return 0

    def get_current_stream(self, device: int) -> int:
        """The default one."""
        return 0

    def get_current_target(self) -> GPUTarget:
        """What is compiled for."""
        return GPUTarget("cuda", 90, 32)

    def get_active_torch_device(self) -> torch.device:
        """Where tensors are without a GPU."""
        return torch.device("meta")


# ---------------------------------------------------------------- what is compiled


def fused_layers() -> list[tuple[nn.Module, torch.Size, torch.Size]]:
    """The joined layers of NiN with kernels of ours: what each reads and what it makes."""
    network, shape = on_meta("nin")
    fused, found = fuse(network), []
    for module in fused.modules():
        if isinstance(module, BiasReluMaxPool | ConvBiasRelu | ProductBiasRelu):
            module.register_forward_hook(
                lambda layer, inputs, made: found.append((layer, inputs[0].shape, made.shape))
            )
    fused(torch.empty(BATCH_SIZE, *shape, device="meta"))
    return found


def start_all(dtype: torch.dtype) -> None:
    """Start every kernel that a step of NiN starts, chained where it may be, on no data."""
    like = torch.empty(0, dtype=dtype, device="meta")
    images = like.new_empty(60_000, 1, 224, 224, dtype=torch.uint8)
    kernels.pick(images, like.new_empty(BATCH_SIZE, dtype=torch.int64), 0.25, 0.5, dtype)
    for layer, read, made in fused_layers():
        bias = like.new_empty(made[1], dtype=torch.float32)
        if isinstance(layer, BiasReluMaxPool):
            start_pool(layer, new_maps(like, *read), bias)
            continue
        maps = new_maps(like, *made)
        if isinstance(layer, ConvBiasRelu):  # of a product cuBLAS adds the bias
            kernels.bias_relu_(maps, bias)
        kernels.relu_bias_backward(maps, maps)


def start_pool(pool: BiasReluMaxPool, maps: Tensor, bias: Tensor) -> None:
    """Start the kernels of a pool, and of the chain that may stand before it."""
    window = pool.kernel, pool.stride, pool.padding
    channels, height, width = maps.shape[1:]
    if channels <= CHAINED_CHANNELS:
        weight = maps.new_empty(channels, channels, 1, 1)
        kernels.chain(maps, bias, weight, bias, weight)
        kernels.chain_backward(maps, maps, bias, weight, bias, weight)
    kernels.bias_relu_max_pool(maps, bias, *window, False)
    pooled, codes = kernels.bias_relu_max_pool(maps, bias, *window, True)
    kernels.bias_relu_max_pool_backward(pooled, codes, height, width, *window)


# ---------------------------------------------------------------- what became of it


def compiled_kernels() -> list[Compiled]:
    """Each kernel in the order in which they are started."""
    seen: dict[str, Compiled] = {}

    def compile_only(self: Any, *arguments: Any, grid: Any, warmup: bool, **options: Any) -> Any:
        kernel = start(self, *arguments, grid=grid, warmup=True, **options)
        named = dict(zip(self.arg_names, arguments, strict=False)) | options
        if kernel.hash not in seen:
            seen[kernel.hash] = read(f"{self.__name__} {described(named)}", kernel, named)
        return kernel

    start = JITFunction.run
    triton.runtime.driver.set_active(H100())
    JITFunction.run = compile_only
    with tempfile.TemporaryDirectory() as cache:  # nothing of another day's
        os.environ["TRITON_CACHE_DIR"] = cache
        for dtype in TYPES:
            start_all(dtype)
    return list(seen.values())


def described(arguments: Mapping[str, Any]) -> str:
    """The type and the shape of the first maps of a kernel, and the choices it was given."""
    maps = next(each for each in arguments.values() if isinstance(each, Tensor))
    shape = "x".join(map(str, maps.shape))
    chosen = [name.lower() for name, value in arguments.items() if value is True]
    return " ".join([str(maps.dtype).removeprefix("torch."), shape, *chosen])


def read(name: str, kernel: Any, arguments: Mapping[str, Any]) -> Compiled:
    """What Triton's tools say of a compiled kernel."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        Path(file.name).write_bytes(kernel.asm["cubin"])
        usage = subprocess.run(
            [_BINARIES / "cuobjdump", "-res-usage", file.name],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    registers, spilled = (int(_USAGE[key].findall(usage)[0]) for key in ("REG", "STACK"))
    maps = {each: arguments[each].element_size() for each in MAPS if each in arguments}
    loads = load_bytes(kernel.asm["ptx"], list(arguments))
    return Compiled(
        name,
        registers,
        spilled,
        kernel.metadata.shared,
        {each: loads[each] for each in maps if each in loads},
        maps,
        arguments.get("C"),
    )


def load_bytes(ptx: str, arguments: Sequence[str]) -> dict[str, int]:
    """The narrowest load of each argument in the code of a kernel of those arguments."""
    sources: dict[str, set[str]] = {}
    for register, operands in _ADDRESS.findall(ptx):
        sources.setdefault(register, set()).update(re.findall(r"%rd\d+", operands))
    begins = {register: arguments[int(number)] for register, number in _ARGUMENT.findall(ptx)}
    narrowest: dict[str, int] = {}
    for count, bits, loaded, copied, width in _LOAD.findall(ptx):
        taken = int(width, 16) if copied else int(count or 1) * int(bits) // 8
        for register in reached(loaded or copied, sources) & begins.keys():
            name = begins[register]
            narrowest[name] = min(taken, narrowest.get(name, taken))
    return narrowest


def reached(register: str, sources: Mapping[str, set[str]]) -> set[str]:
    """The register and all from which its address is computed."""
    found, waiting = set(), {register}
    while waiting:
        found |= waiting
        waiting = {each for one in waiting for each in sources.get(one, ())} - found
    return found


def main() -> int:
    """Print a line for each kernel and each fault; 1 where there is a fault."""
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    print(f"{'kernel':58} regs spill  shared  bytes a load")
    compiled = compiled_kernels()
    faults = [fault for each in compiled for fault in each.faults()]
    print(*compiled, *faults, sep="\n")
    return 1 if faults else 0


if __name__ == "__main__":
    exits.run(main)
