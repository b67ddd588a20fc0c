"""One calculator on one network, in a process of its own.

    python benchmarks/calculators.py TOOL NETWORK BATCH_SIZE

prints one JSON object: what the tool says of MACs, of the bytes kept for backward and
of the peak of one SGD step, and what the analysis itself took. The tool is imported and
asked about LeNet first, because most of them import the last of torch on first use.
Then come the call that counts and the median of a few more; a tool that remembers
answers is quicker in those. Seconds are the processor's in one thread, so that work
beside it does not count. Memory is the largest resident set during the call above the
one before it, with the network built.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ninlab.architectures import ARCHITECTURES, Architecture
from ninlab.networks import build

PEERS = Path(__file__).parent / ".peers"
START_UP = "lenet"  # asked about first, because most tools import the last of torch on first use
AGAIN = 5  # calls after the first one
AGAIN_UNDER_SECONDS = 5.0  # a first call that takes longer is not repeated


@dataclass(frozen=True)
class Claim:
    """What a tool says of a batch; None is what it says nothing about."""

    macs: int | None = None
    saved_bytes: int | None = None
    peak_bytes: int | None = None


@dataclass(frozen=True)
class Tool:
    """A calculator: what it is called, where its network lies, how it is asked."""

    title: str
    device: str  # "meta" where the tool takes tensors without memory
    ask: Callable[[nn.Module, Architecture, int], Claim]
    module: str = ""  # imported before the clock starts


def images(network: Architecture, batch_size: int, device: str) -> Tensor:
    """A batch of ones."""
    return torch.ones(batch_size, *network.input_shape, device=device)


# ---------------------------------------------------------------- ninlab


def ninlab_profile(module: nn.Module, network: Architecture, batch_size: int) -> Claim:
    """Counts, saved bytes and both peaks from the operators of a step."""
    from ninlab.resources import profile

    cost = profile(module, network.input_shape, batch_size=batch_size, optimizer="sgd")
    return Claim(cost.macs * batch_size, cost.saved_bytes, cost.training.tensor_peak_bytes)


def ninlab_liveness(module: nn.Module, network: Architecture, batch_size: int) -> Claim:
    """The peak on paper, played anew; saved bytes and MACs are on the same tape."""
    from ninlab.liveness import peak_bytes, timeline

    timeline.cache_clear()
    return Claim(peak_bytes=peak_bytes(timeline(network, "sgd"), batch_size))


# ---------------------------------------------------------------- torch


def torch_mem_tracker(module: nn.Module, network: Architecture, batch_size: int) -> Claim:
    """The second of two SGD steps under torch's own, private tracker."""
    from torch.distributed._tools.mem_tracker import MemTracker

    batch = images(network, batch_size, "meta")
    labels = torch.zeros(batch_size, dtype=torch.long, device="meta")
    module.train()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1, foreach=True)
    tracker = MemTracker()
    tracker.track_external(module, optimizer, batch, labels)

    def step() -> tuple[Tensor, Tensor]:
        optimizer.zero_grad(set_to_none=True)
        scores = module(batch)
        loss = nn.functional.cross_entropy(scores, labels)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return scores, loss

    with tracker:
        held = step()
        tracker.reset_mod_stats()
        held = step()
    del held
    (snapshot,) = tracker.get_tracker_snapshot("peak").values()
    return Claim(peak_bytes=snapshot["Total"])


def torch_saved_tensors(module: nn.Module, network: Architecture, batch_size: int) -> Claim:
    """What autograd really keeps of one forward pass and loss, parameters left out."""
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage  # held, so that no address comes twice
        return tensor

    module.train()
    labels = torch.zeros(batch_size, dtype=torch.long)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = nn.functional.cross_entropy(module(images(network, batch_size, "cpu")), labels)
    own = {parameter.untyped_storage().data_ptr() for parameter in module.parameters()}
    del loss
    return Claim(saved_bytes=sum(s.nbytes() for address, s in kept.items() if address not in own))


def torch_flop_counter(module: nn.Module, network: Architecture, batch_size: int) -> Claim:
    """FLOPs of convolutions and matrix products, halved."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module(images(network, batch_size, "meta"))
    return Claim(counter.get_total_flops() // 2)


# ---------------------------------------------------------------- packages


def fvcore(module: nn.Module, network: Architecture, batch_size: int) -> Claim:
    """Its "flops" are MACs; its activations are elements put out by convolutions and products."""
    from fvcore.nn import ActivationCountAnalysis, FlopCountAnalysis

    batch = images(network, batch_size, "cpu")
    return Claim(
        int(FlopCountAnalysis(module, batch).total()),
        4 * int(ActivationCountAnalysis(module, batch).total()),
    )


def torchinfo(module: nn.Module, network: Architecture, batch_size: int) -> Claim:
    """Forward/backward pass size, and the estimated total size."""
    from torchinfo import summary

    said = summary(module, input_size=(batch_size, *network.input_shape), verbose=0, device="meta")
    total = said.total_input + said.total_output_bytes + said.total_param_bytes
    return Claim(said.total_mult_adds, said.total_output_bytes, total)


def ptflops(module: nn.Module, network: Architecture, batch_size: int) -> Claim:
    """MACs by its aten backend."""
    from ptflops import get_model_complexity_info

    macs, _ = get_model_complexity_info(
        module,
        network.input_shape,
        as_strings=False,
        print_per_layer_stat=False,
        backend="aten",
        input_constructor=lambda _: {"input": images(network, batch_size, "meta")},
    )
    return Claim(int(macs))


def thop(module: nn.Module, network: Architecture, batch_size: int) -> Claim:
    """MACs by ultralytics-thop."""
    from thop import profile

    macs, _ = profile(module, inputs=(images(network, batch_size, "meta"),), verbose=False)
    return Claim(int(macs))


def torchprofile(module: nn.Module, network: Architecture, batch_size: int) -> Claim:
    """MACs of the traced graph."""
    from torchprofile import profile_macs

    return Claim(int(profile_macs(module, images(network, batch_size, "cpu"))))


def torchscan(module: nn.Module, network: Architecture, batch_size: int) -> Claim:
    """Its operator FLOPs, halved."""
    from torchscan import crawl_module

    totals = crawl_module(module, args=(images(network, batch_size, "meta"),))["totals"]
    return Claim(totals["operator_flops"]["known_value"] // 2)


def torchmeter(module: nn.Module, network: Architecture, batch_size: int) -> Claim:
    """Cost of feature maps, and its total memory cost."""
    from torchmeter import Meter

    meter = Meter(module, device="cpu")
    meter(images(network, batch_size, "cpu"))
    return Claim(
        int(meter.cal.Macs.val), int(meter.mem.OutputCost.val), int(meter.mem.TotalCost.val)
    )


def kitsune(module: nn.Module, network: Architecture, batch_size: int) -> Claim:
    """Activations, and the predicted total for SGD."""
    from kitsune.predict import predict_memory

    said = predict_memory(
        module,
        input_shape=network.input_shape,
        batch_size=batch_size,
        optimizer="sgd",
        training=True,
    )
    return Claim(None, said.activation_bytes, said.total_bytes)


def vram_check(module: nn.Module, network: Architecture, batch_size: int) -> Claim:
    """Activations, and the total for SGD."""
    from vram_check import analyze

    said = analyze(module, batch_size=batch_size, dtype="fp32", optimizer="sgd")["estimate"]
    return Claim(None, said.activations_bytes, said.total_bytes)


def alloc(module: nn.Module, network: Architecture, batch_size: int) -> Claim:
    """Activations, and the total of its ghost report for SGD, both printed in GiB."""
    from alloc import ghost

    said = ghost(module, batch_size=batch_size, optimizer_type="SGD")
    return Claim(None, round(said.activations_gb * 2**30), round(said.total_gb * 2**30))


TOOLS: Mapping[str, Tool] = {
    "ninlab": Tool("ninlab", "meta", ninlab_profile, "ninlab.resources"),
    "liveness": Tool("ninlab liveness", "meta", ninlab_liveness, "ninlab.liveness"),
    "mem_tracker": Tool(
        "torch MemTracker", "meta", torch_mem_tracker, "torch.distributed._tools.mem_tracker"
    ),
    "flop_counter": Tool(
        "torch FlopCounterMode", "meta", torch_flop_counter, "torch.utils.flop_counter"
    ),
    "saved_tensors": Tool("torch saved_tensors_hooks", "cpu", torch_saved_tensors, "torch"),
    "fvcore": Tool("fvcore", "cpu", fvcore, "fvcore.nn"),
    "torchinfo": Tool("torchinfo", "meta", torchinfo, "torchinfo"),
    "ptflops": Tool("ptflops", "meta", ptflops, "ptflops"),
    "thop": Tool("ultralytics-thop", "meta", thop, "thop"),
    "torchprofile": Tool("torchprofile", "cpu", torchprofile, "torchprofile"),
    "torchscan": Tool("torchscan", "meta", torchscan, "torchscan"),
    "torchmeter": Tool("torchmeter", "cpu", torchmeter, "torchmeter"),
    "kitsune": Tool("kitsune", "cpu", kitsune, "kitsune.predict"),
    "vram_check": Tool("vram-check", "cpu", vram_check, "vram_check"),
    "alloc": Tool("alloc", "cpu", alloc, "alloc"),
}


# ---------------------------------------------------------------- the process


def resident_bytes(field: str) -> int:
    """VmRSS or VmHWM of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith(field)))


def restart_high_water_mark() -> None:
    """Lets VmHWM begin again at what is resident now."""
    Path("/proc/self/clear_refs").write_text("5")


def run(tool: Tool, network: Architecture, batch_size: int) -> dict[str, Any]:
    """What the tool says and what asking it took."""
    __import__(tool.module)
    start_up = ARCHITECTURES[START_UP]
    started = time.process_time()
    tool.ask(build(start_up, seed=0, device=tool.device), start_up, 1)
    start_up_seconds = time.process_time() - started
    module = build(network, seed=0, device=tool.device)
    restart_high_water_mark()
    before = resident_bytes("VmRSS")
    started = time.process_time()
    claim = tool.ask(module, network, batch_size)
    first = time.process_time() - started
    growth = resident_bytes("VmHWM") - before
    again: list[float] = []
    while first < AGAIN_UNDER_SECONDS and len(again) < AGAIN:
        module = build(network, seed=0, device=tool.device)
        started = time.process_time()
        tool.ask(module, network, batch_size)
        again.append(time.process_time() - started)
    return asdict(claim) | {
        "start_up_seconds": start_up_seconds,
        "first_seconds": first,
        "again_seconds": statistics.median(again) if again else None,
        "resident_growth_bytes": growth,
    }


def main() -> None:
    """Prints the JSON of one tool, one network and one batch size."""
    key, name, batch_size = sys.argv[1:]
    sys.path.append(str(PEERS))
    torch.set_num_threads(1)
    said = io.StringIO()
    with contextlib.redirect_stdout(said), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        answer = run(TOOLS[key], ARCHITECTURES[name], int(batch_size))
    print(json.dumps(answer))


if __name__ == "__main__":
    os.environ["OMP_NUM_THREADS"] = "1"
    main()
