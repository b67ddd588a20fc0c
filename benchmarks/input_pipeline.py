"""How much faster does training go when its images lie on the device, not in a DataLoader?

One loop trains the same network on the same images, fed in turns by torchvision's FashionMNIST
with the textbook's transforms (resize, then to a tensor, one image after the other) in torch's
DataLoader, and by ninlab's resident set, which is resized once and picked from by index. A
third turn is ninlab's own loop. Medians over the turns, in milliseconds a step: on a CPU those
of one core, workers included and other work on the machine left out, on a GPU those of the
clock. Workers stay alive from turn to turn, so their start is not counted.

No input makes a network compute faster. With a loader that takes L and a step that computes
for C seconds on the same core, the ratio of the two loops is about 1 + L / C: three needs C of
about L / 2. The benchmark prints that expectation beside each ratio, and the one that the step's
products alone would leave at the rate of a wide convolution, timed in the same turns. Ratios are
of one process on one device and may be compared between machines; the milliseconds may not.

    python benchmarks/input_pipeline.py      # five minutes of one core
    python benchmarks/input_pipeline.py --device cuda --workers 0 4 16 nin@224 nin_28@28

A network is a name of the book, with @SIZE for images of another size; "linear" is a linear
classifier on the pixels, the smallest step that there is.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, Subset
from torchvision import transforms
from torchvision.datasets import FashionMNIST

from ninlab import data, data_files
from ninlab.architectures import Architecture, architecture
from ninlab.environment import describe_device, describe_software, parse_device
from ninlab.layers import Flatten, Linear
from ninlab.networks import build
from ninlab.recipes import Recipe
from ninlab.roofline import training_operators
from ninlab.shapes import at_input
from ninlab.training import Engine

LINEAR = Architecture("linear", "linear classifier", (1, 28, 28), 10, (Flatten(), Linear(10)), "")
NETWORKS = ("linear@28", "linear@224", "lenet@28", "nin_28@28", "googlenet_28@28", "nin@224")
LEARNING_RATE = 0.01
TARGET = 3

Batch = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Row:
    """Seconds of one step of that network under each feed, and what follows from them."""

    network: str
    batch_size: int
    workers: int
    steps_a_turn: int
    flops: int  # of one step: convolutions and products, forward and backward
    loader_input: float  # the DataLoader alone, without a network
    resident_input: float
    loader_loop: float
    resident_loop: float  # the same loop
    ninlab_loop: float  # the loop that makes the book's runs
    float32_rate: float  # FLOP/s of a wide convolution
    bfloat16_rate: float

    @property
    def compute(self) -> float:
        """What the loop takes beside its input."""
        return self.resident_loop - self.resident_input

    @property
    def ratio(self) -> float:
        """How many times the images per second of the loop that the DataLoader feeds."""
        return self.loader_loop / self.resident_loop

    @property
    def expected(self) -> float:
        """What the ratio should be, by the loader alone and the computation alone."""
        return 1 + self.loader_input / self.compute

    def expected_at(self, flops_per_second: float) -> float:
        """The same for a step that computes nothing but its products, at that rate."""
        return 1 + self.loader_input * flops_per_second / self.flops


# ---------------------------------------------------------------- feeds


def torchvision_loader(
    root: Path, images: int, size: int, batch_size: int, workers: int
) -> DataLoader[Batch]:
    """The textbook's loader: resize and convert each image, shuffle, and stack the batch."""
    transform = transforms.Compose([transforms.Resize((size, size)), transforms.ToTensor()])
    dataset = Subset(FashionMNIST(str(root), train=True, transform=transform), range(images))
    return DataLoader(
        dataset, batch_size, shuffle=True, num_workers=workers, persistent_workers=workers > 0
    )


def unpack(root: Path) -> None:
    """Lay the checked files out as torchvision expects them."""
    folder = root / "FashionMNIST" / "raw"
    folder.mkdir(parents=True)
    for name, content in data_files.load()[1].items():
        (folder / name).write_bytes(content)


# ---------------------------------------------------------------- one network


def processor_seconds() -> float:
    """What this process and its live workers have used: on one core, time but for other work."""
    ticks = 0
    for worker in multiprocessing.active_children():
        after_name = Path(f"/proc/{worker.pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(after_name[11]) + int(after_name[12])  # user and system
    return time.process_time() + ticks / os.sysconf("SC_CLK_TCK")


def compare(
    network: Architecture,
    root: Path,
    device: torch.device,
    *,
    batch_size: int,
    workers: int,
    turns: int,
    seconds_a_turn: float,
) -> Row:
    """Every feed of one network, in turns."""
    size = network.input_shape[-1]
    module = build(network, seed=0).to(device).to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(module.parameters(), lr=LEARNING_RATE, fused=True)

    def train(batches: Iterable[Batch]) -> None:
        for pixels, labels in batches:
            optimizer.zero_grad(set_to_none=True)
            F.cross_entropy(module(pixels), labels).backward()  # type: ignore[no-untyped-call]
            optimizer.step()

    def seconds(work: Callable[[], object]) -> float:
        clock = time.perf_counter if device.type == "cuda" else processor_seconds
        start = clock()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return clock() - start

    every_image = data.fashion_mnist()[0]
    trial = every_image.take(slice(batch_size)).resized(size)
    batch = (trial.images.to(device).float() / 255, trial.labels.to(device))
    train([batch])  # chooses kernels
    steps = int(seconds_a_turn / seconds(lambda: train([batch])))
    steps = max(1, min(steps, len(every_image) // batch_size))

    images = steps * batch_size
    resident_set = every_image.take(slice(images)).to(device).resized(size)
    recipe = Recipe(LEARNING_RATE, turns + 1, batch_size=batch_size)
    engine_module = build(network, seed=0).to(device).to(memory_format=torch.channels_last)
    engine = Engine(engine_module, resident_set, recipe, seed=0)
    loader = torchvision_loader(root, images, size, batch_size, workers)

    def loaded() -> Iterator[Batch]:
        for pixels, labels in loader:
            yield pixels.to(device), labels.to(device)

    def resident() -> Iterator[Batch]:
        for indices in torch.randperm(images).to(device).view(-1, batch_size):
            pixels = engine.normalize(resident_set.images.index_select(0, indices))
            yield pixels, resident_set.labels.index_select(0, indices)

    feeds: dict[str, Callable[[], object]] = {
        "loader_input": lambda: [None for _ in loaded()],
        "resident_input": lambda: [None for _ in resident()],
        "loader_loop": lambda: train(loaded()),
        "resident_loop": lambda: train(resident()),
        "ninlab_loop": engine.epoch,
    }
    convolutions = {
        "float32_rate": wide_convolutions(device, torch.float32),
        "bfloat16_rate": wide_convolutions(device, torch.bfloat16),
    }
    works = feeds | convolutions
    for work in works.values():
        work()  # starts workers, fills caches
    taken: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(turns):
        for name, work in works.items():
            taken[name].append(seconds(work))
    medians = {name: statistics.median(turn) for name, turn in taken.items()}
    return Row(
        network=f"{network.name}@{size}",
        batch_size=batch_size,
        workers=workers,
        steps_a_turn=steps,
        flops=sum(operator.flops for operator in training_operators(network, batch_size)),
        **{name: medians[name] / steps for name in feeds},
        **{name: WIDE_FLOPS / medians[name] for name in convolutions},
    )


WIDE_CHANNELS, WIDE_SIZE, WIDE_BATCH, WIDE_CALLS = 128, 28, 32, 10
WIDE_FLOPS = 2 * WIDE_CALLS * WIDE_BATCH * (WIDE_SIZE * WIDE_CHANNELS * 3) ** 2


def wide_convolutions(device: torch.device, dtype: torch.dtype) -> Callable[[], None]:
    """Computes a few 3x3 convolutions of a shape that processors do well with."""
    conv = torch.nn.Conv2d(WIDE_CHANNELS, WIDE_CHANNELS, 3, padding=1, bias=False)
    images = torch.randn(WIDE_BATCH, WIDE_CHANNELS, WIDE_SIZE, WIDE_SIZE)
    conv = conv.to(device, dtype).to(memory_format=torch.channels_last)
    images = images.to(device, dtype).to(memory_format=torch.channels_last)

    @torch.no_grad()
    def compute() -> None:
        for _ in range(WIDE_CALLS):
            conv(images)

    return compute


# ---------------------------------------------------------------- the report


def named(name: str) -> Architecture:
    """The network of a name of the book, or of "linear", at the size behind its @."""
    name, _, size = name.partition("@")
    network = LINEAR if name == LINEAR.name else architecture(name)
    return at_input(network, (1, int(size), int(size))) if size else network


def report(rows: list[Row]) -> str:
    """The table, and one sentence for each network on what its ratio can be."""
    groups = f"{'':26}  {'input alone, ms':^22}  {'whole loop, ms a step':^28}"
    columns = (
        f"{'network':18}{'workers':>8}  {'loader':>8}{'resident':>9}{'x':>5}  "
        f"{'loader':>9}{'resident':>10}{'ninlab':>9}  {'ratio':>6}  {'1 + L / C':>9}"
    )
    lines = [groups, columns]
    for row in rows:
        lines.append(
            f"{row.network:18}{row.workers:8}  {1e3 * row.loader_input:8.2f}"
            f"{1e3 * row.resident_input:9.2f}{row.loader_input / row.resident_input:5.0f}  "
            f"{1e3 * row.loader_loop:9.2f}{1e3 * row.resident_loop:10.2f}"
            f"{1e3 * row.ninlab_loop:9.2f}  {row.ratio:6.2f}  {row.expected:9.2f}"
        )
    lines.append("")
    for row in rows:
        reached = "reaches" if row.ratio >= TARGET else "does not reach"
        lines.append(
            f"{row.network} with {row.workers} workers {reached} {TARGET}: beside a loader that "
            f"takes {1e3 * row.loader_input:.2f} ms a step, {TARGET} needs a step that computes "
            f"for {1e3 * row.loader_input / (TARGET - 1):.2f} ms, and it computes for "
            f"{1e3 * row.compute:.2f} ms. Its products alone, {row.flops / 1e9:.3g} GFLOP, would "
            f"give {row.expected_at(row.float32_rate):.2f} at the {row.float32_rate / 1e9:.0f} "
            f"GFLOP/s of a wide float32 convolution, {row.expected_at(row.bfloat16_rate):.2f} at "
            f"the {row.bfloat16_rate / 1e9:.0f} of a bfloat16 one."
        )
    return "\n".join(lines)


def main() -> None:
    """Print the report, or one JSON object with everything that was measured."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("networks", nargs="*", default=NETWORKS)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument(
        "--workers", type=int, nargs="+", default=[0, 2], help="processes of the DataLoader"
    )
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--seconds-a-turn", type=float, default=1.0, help="of computation, about")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()

    warnings.filterwarnings("ignore", "This DataLoader will create")  # workers share the cores
    device = parse_device(options.device)
    torch.set_num_threads(1)
    if device.type == "cpu":
        os.sched_setaffinity(0, [max(os.sched_getaffinity(0))])
    with tempfile.TemporaryDirectory() as folder:
        unpack(Path(folder))
        rows = [
            compare(
                named(name),
                Path(folder),
                device,
                batch_size=options.batch_size,
                workers=workers,
                turns=options.turns,
                seconds_a_turn=options.seconds_a_turn,
            )
            for name in options.networks
            for workers in options.workers
        ]
    about = describe_device(device)
    software = describe_software()
    if not options.json:
        print(f"{about.name}, torch {software.torch}, float32, batches of {options.batch_size}")
        print(report(rows))
        return
    result: dict[str, Any] = {
        "device": asdict(about),
        "software": asdict(software),
        "rows": [asdict(row) | {"ratio": row.ratio, "expected": row.expected} for row in rows],
    }
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
