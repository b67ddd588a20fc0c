"""How long does the analysis of a module take, and how much memory?

For each network, in a process of its own: the first analysis (after one of LeNet, on which
torch loads its last modules), the median of later ones, which part of it goes where, and by
how much the resident set grew above what the imports take. A weight of VGG-19 is 558 MB: none
is allocated. Times are the processor's in one thread, so that other work on the machine is
left out.

Run it with ``python benchmarks/analysis_cost.py [network ...]``; a network is a name of the
book, or package.module:factory with 3x224x224 images.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import process_time

NETWORKS = (
    "lenet", "nin", "alexnet", "vgg11", "vgg19", "googlenet", "torchvision.models:resnet18",
    "torchvision.models:mobilenet_v2", "torchvision.models:densenet121",
)  # fmt: skip
BATCH_SIZE = 128
OPTIMIZER = "adam"  # the most expensive to trace
REPEATS = 7
PARTS = ("first", "later", "load", "count", "training", "inference")


def resident_bytes(which: str) -> int:
    """A line of the kernel's account of this process: VmRSS now, VmHWM at most."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(which)).split()[1])


def seconds(work: Callable[[], object]) -> float:
    """Processor time of one call."""
    start = process_time()
    work()
    return process_time() - start


def measure(name: str) -> dict[str, float]:
    """Seconds by part, and the growth of the resident set in bytes."""
    import torch

    from ninlab.resources import count, load, profile, trace_step

    torch.set_num_threads(1)
    shape = (3, 224, 224) if ":" in name else None
    profile("lenet", batch_size=BATCH_SIZE, optimizer=OPTIMIZER)
    if shape:
        load(name, shape)  # imports the package that the network is from

    def whole() -> object:
        return profile(name, shape, BATCH_SIZE, OPTIMIZER)

    before = resident_bytes("VmRSS")
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # begin a new maximum
    found = {"first": seconds(whole)}
    found["grown_bytes"] = resident_bytes("VmHWM") - before
    subject = load(name, shape)
    parts: dict[str, Callable[[], object]] = {
        "later": whole,
        "load": lambda: load(name, shape),
        "count": lambda: count(subject),
        "training": lambda: trace_step(subject, BATCH_SIZE, OPTIMIZER),
        "inference": lambda: trace_step(subject, BATCH_SIZE, training=False),
    }
    for part, work in parts.items():
        found[part] = median(seconds(work) for _ in range(REPEATS))
    return found


def main(names: list[str]) -> None:
    """Print the table, one process a network."""
    columns = ("network", *(f"{part}, ms" for part in PARTS), "grown, MB")
    rows = []
    for name in names:
        run = subprocess.run(
            [sys.executable, __file__, "--one", name], capture_output=True, text=True, check=True
        )
        found = json.loads(run.stdout)
        times = (f"{1e3 * found[part]:.0f}" for part in PARTS)
        rows.append((name, *times, f"{found['grown_bytes'] / 1e6:.0f}"))
    widths = [max(map(len, column)) for column in zip(columns, *rows, strict=True)]
    for cells in (columns, *rows):
        print("  ".join(cell.rjust(width) for cell, width in zip(cells, widths, strict=True)))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        print(json.dumps(measure(sys.argv[2])))
    else:
        main(sys.argv[1:] or list(NETWORKS))
