"""How long is one step of the book's loop, how far from the device's limits, and what takes it?

Each network takes the steps of the full plan's recipe (or another precision's) on Fashion-MNIST
at its own input, first called operator by operator and then, on a GPU, replayed as one graph.
Seconds a step are those of the fastest of a few short epochs. Beside them stand two floors from
the data sheet: the time of the step's arithmetic at the peak rate and that of its bytes at the full
bandwidth; a share of 100 % would be a perfect kernel. A profile of the called step then names the
operators that take longest, by the shapes that they were given, which is to say by the layer.

    python benchmarks/training_step.py --device cuda --output runs/probes/training_step-h100.json
    python benchmarks/training_step.py --device cpu nin_28 --batch-size 64 --steps 4

The JSON file holds what is printed, with device, versions and commit.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from ninlab import data, records
from ninlab.architectures import architecture
from ninlab.data import LabeledImages
from ninlab.devices import of_cuda_name
from ninlab.environment import arithmetic, describe_device, describe_software, parse_device
from ninlab.networks import build
from ninlab.recipes import Recipe
from ninlab.roofline import time_bound, training_operators
from ninlab.steps import Precision
from ninlab.training import Engine

NETWORKS = ("nin_fixed", "nin_batch_norm", "alexnet", "vgg11_quarter", "googlenet", "vgg11")
EPOCHS = 3
PROFILED_STEPS = 3
OPERATORS = 8


@dataclass(frozen=True)
class Operator:
    """An operator on operands of these shapes, over the profiled steps."""

    name: str
    shapes: str
    calls: float  # a step
    seconds: float  # a step, of the device alone


@dataclass(frozen=True)
class Row:
    """What one network's step takes. A graph's fields are None where none was captured."""

    network: str
    precision: str
    batch_size: int
    eager_seconds: float
    graph_seconds: float | None
    prepare_seconds: float  # warm-up, trials and capture, before the first step of a run
    compute_floor_seconds: float | None  # None for a device without a data sheet here
    memory_floor_seconds: float | None
    operators: tuple[Operator, ...]  # the longest first

    @property
    def seconds(self) -> float:
        """Of the step that a run takes."""
        return self.eager_seconds if self.graph_seconds is None else self.graph_seconds


def measure(
    name: str, precision: Precision, batch_size: int, steps: int, images: LabeledImages
) -> Row:
    """One network's row; images lie on the device at their own size."""
    network = architecture(name)
    training = images.resized(network.input_shape[-1])
    recipe = Recipe(0.01, EPOCHS + 1, batch_size=batch_size, precision=precision)
    device = training.images.device

    def engine(use_graph: bool) -> Engine:
        module = build(name, seed=0).to(device).to(memory_format=torch.channels_last)
        return Engine(module, training, recipe, seed=0, use_graph=use_graph)

    def fastest(running: Engine) -> float:
        running.epoch()
        seconds = []
        for _ in range(EPOCHS):
            start = time.perf_counter()
            running.epoch()
            seconds.append(time.perf_counter() - start)
        return min(seconds) / steps

    with arithmetic(precision, benchmark=True):
        eager = engine(False)
        eager_seconds = fastest(eager)
        operators = longest_operators(eager)
        del eager
        start = time.perf_counter()
        captured = engine(True)
        prepare_seconds = time.perf_counter() - start
        graph_seconds = None if captured.graph is None else fastest(captured)
    compute_floor, memory_floor = floors(name, precision, batch_size, device)
    return Row(
        name, precision, batch_size, eager_seconds, graph_seconds, prepare_seconds,
        compute_floor, memory_floor, operators,
    )  # fmt: skip


def longest_operators(engine: Engine) -> tuple[Operator, ...]:
    """The operators of a called step that keep the device busy for longest."""
    on_gpu = engine.training.images.is_cuda
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    with profile(activities=activities, record_shapes=True) as profiled:
        for _ in range(PROFILED_STEPS):
            engine._slot.zero_()
            engine._train_step()
        if on_gpu:
            torch.cuda.synchronize()
    field = "self_device_time_total" if on_gpu else "self_cpu_time_total"
    found = sorted(
        profiled.key_averages(group_by_input_shape=True),
        key=lambda average: getattr(average, field),
        reverse=True,
    )
    return tuple(
        Operator(
            average.key,
            " ".join("x".join(map(str, shape)) for shape in average.input_shapes if shape),
            average.count / PROFILED_STEPS,
            getattr(average, field) / 1e6 / PROFILED_STEPS,
        )
        for average in found[:OPERATORS]
    )


def floors(
    name: str, precision: Precision, batch_size: int, device: torch.device
) -> tuple[float, float] | tuple[None, None]:
    """(seconds of the arithmetic alone, seconds of the bytes alone) by the data sheet."""
    described = of_cuda_name(describe_device(device).name)
    if described is None or precision not in described.flops_per_second:
        return None, None
    step = training_operators(architecture(name), batch_size, "sgd", precision)
    bound = time_bound(step, described, precision)
    return bound.flops / described.peak(precision), bound.bytes / described.bandwidth()


def in_words(row: Row) -> str:
    """The row in a line, and its operators in a line each."""

    def share(floor: float | None) -> str:
        return "unknown" if floor is None else f"{floor / row.seconds:.0%}"

    graph = "none" if row.graph_seconds is None else f"{1e3 * row.graph_seconds:.2f} ms"
    text = (
        f"{row.network:16} {row.precision:5} eager {1e3 * row.eager_seconds:8.2f} ms, graph "
        f"{graph:>9}, {row.batch_size / row.seconds:9,.0f} images/s; floors: arithmetic "
        f"{share(row.compute_floor_seconds)}, bytes {share(row.memory_floor_seconds)} of the time; "
        f"{row.prepare_seconds:.1f} s to prepare"
    )
    return "\n".join(
        [
            text,
            *(
                f"    {1e3 * one.seconds:7.3f} ms {one.calls:5.0f} x {one.name} {one.shapes}"
                for one in row.operators
            ),
        ]
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a row a network, and write them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("networks", nargs="*", default=NETWORKS)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", type=Precision, nargs="+", default=[Precision.BF16])
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--steps", type=int, default=40, help="of each timed epoch")
    parser.add_argument("--output", type=Path, help="file for the rows as JSON")
    options = parser.parse_args(arguments)
    device = parse_device(options.device)
    if device.type == "cpu":
        torch.set_num_threads(1)
    images = data.fashion_mnist()[0].take(slice(options.batch_size * options.steps)).to(device)
    rows = []
    for precision in options.precision:
        for name in options.networks:
            row = measure(name, precision, options.batch_size, options.steps, images)
            print(in_words(row), flush=True)
            rows.append(row)
    if options.output:
        content = {
            "kind": "probe",
            "provenance": asdict(records.provenance("python benchmarks/training_step.py")),
            "device": asdict(describe_device(device)),
            "software": asdict(describe_software()),
            "rows": [asdict(row) for row in rows],
        }
        options.output.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
