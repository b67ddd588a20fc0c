"""How long does a step of each network take, where the networks take turns?

Two runs made one after the other, or beside other work, have speeds that do not compare: the
machine's load is in them. Here all networks train and infer in one process, round by round, in an
order that is shuffled anew for each round, some steps in each turn. So what disturbs one disturbs
all. Each takes a turn to warm up, which is not counted. Steps are those of the training loop
(`training.Engine`), on the first images of Fashion-MNIST, in float32 by plain SGD.

    python -m benchmarks.race nin_28 alexnet_28 --steps 10 --output runs/probes/race.jsonl
    python -m benchmarks.race nin_fixed nin_fixed_linear_head --batch-size 32 --steps 1

The race is printed, each network beside the first, and appended to the file as one line, which
`ninlab.races` reads. Leave the machine alone meanwhile: the line says how many cores others used.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import sys
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TypeVar

import torch

from benchmarks import typed
from ninlab import records
from ninlab.architectures import Architecture, architecture
from ninlab.data import LabeledImages, fashion_mnist
from ninlab.environment import arithmetic, describe_device, describe_software
from ninlab.machine import Watch
from ninlab.networks import build
from ninlab.races import Lane, Race, Step
from ninlab.recipes import Recipe
from ninlab.shapes import at_input
from ninlab.training import Engine, Normalize
from ninlab.units import format_seconds

RATE = 0.01
"""Learning rate of the steps, at which none of the book's networks diverges so soon."""

Turn = Callable[[], object]
Name = TypeVar("Name", bound=Hashable)


def in_turns(
    turns: Mapping[Name, Turn],
    rounds: int,
    *,
    budget_seconds: float = math.inf,
    shuffle: random.Random,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[Name, list[float]]:
    """Seconds of each one's turn, in each round.

    All take a first turn to warm up, which is not counted. Then each takes one turn in every
    round, in an order of its own. No round begins after the budget, but the first.
    """
    for turn in turns.values():
        turn()
    taken: dict[Name, list[float]] = {name: [] for name in turns}
    order, began = list(turns), clock()
    for number in range(rounds):
        if number and clock() - began >= budget_seconds:
            break
        shuffle.shuffle(order)
        for name in order:
            start = clock()
            turns[name]()
            taken[name].append(clock() - start)
    return taken


def images_for(network: str, side: int | None, count: int) -> LabeledImages:
    """The first images of Fashion-MNIST, at that side or at the network's own."""
    first = fashion_mnist()[0].take(slice(count))
    return first.resized(side or architecture(network).input_shape[-1])


def training_turn(network: str, images: LabeledImages, batch_size: int, rounds: int) -> Turn:
    """A turn of as many training steps as the images have batches."""
    module = build(_at_side(network, images), seed=0).to(memory_format=torch.channels_last)
    recipe = Recipe(RATE, epochs=rounds + 1, batch_size=batch_size)  # one more to warm up
    return Engine(module, images, recipe, seed=0).epoch


def inference_turn(network: str, images: LabeledImages, batch_size: int) -> Turn:
    """A turn of as many forward passes as the images have batches."""
    module = build(_at_side(network, images), seed=0).to(memory_format=torch.channels_last).eval()
    normalize = Normalize()

    @torch.inference_mode()
    def turn() -> None:
        for batch in torch.arange(len(images)).view(-1, batch_size):
            module(normalize(images.images, batch))

    return turn


def _at_side(network: str, images: LabeledImages) -> Architecture:
    return at_input(architecture(network), tuple(images.images.shape[1:]))


def race(
    networks: Sequence[str],
    *,
    steps: Sequence[Step] = tuple(Step),
    batch_size: int,
    steps_a_turn: int,
    rounds: int,
    budget_seconds: float = math.inf,
    side: int | None = None,
    seed: int = 0,
    command: str,
) -> Race:
    """The race of these networks on the CPU, in as many threads as torch has."""
    turns: dict[tuple[str, Step], Turn] = {}
    inputs: dict[str, LabeledImages] = {}
    for network in dict.fromkeys(networks):
        images = images_for(network, side, batch_size * steps_a_turn)
        inputs[network] = images
        if Step.TRAINING in steps:
            turns[network, Step.TRAINING] = training_turn(network, images, batch_size, rounds)
        if Step.INFERENCE in steps:
            turns[network, Step.INFERENCE] = inference_turn(network, images, batch_size)
    provenance = records.provenance(command)
    with arithmetic("fp32", benchmark=False):
        watch = Watch()
        taken = in_turns(turns, rounds, budget_seconds=budget_seconds, shuffle=random.Random(seed))
        host = watch.host()
    return Race(
        provenance=provenance,
        device=describe_device(torch.device("cpu")),
        software=describe_software(),
        host=host,
        batch_size=batch_size,
        steps_a_turn=steps_a_turn,
        lanes=tuple(
            Lane(
                network,
                step,
                tuple(inputs[network].images.shape[1:]),
                tuple(seconds / steps_a_turn for seconds in taken[network, step]),
                architecture(network).digest,
            )
            for network, step in turns
        ),
    )


def in_a_table(found: Race) -> str:
    """A line for each network and kind of step: seconds, and the ratio to the first network."""
    first, others = found.networks[0], found.host.other_cores
    busy = "unknown" if others is None else f"{others:.2f}"
    size = f"steps a turn: {found.steps_a_turn}, images a step: {found.batch_size}"
    lines = [f"rounds: {found.rounds}, {size}, cores that others kept busy: {busy}"]
    for lane in found.lanes:
        taken = format_seconds(found.seconds(lane.network, lane.step))
        ratio = found.ratio(lane.network, first, lane.step)
        lines.append(f"{lane.step:10} {lane.network:30} {taken:>9} {ratio}")
    return "\n".join(lines)


def append(found: Race, output: Path) -> None:
    """One line more in the file."""
    output.parent.mkdir(parents=True, exist_ok=True)
    with output.open("a", encoding="utf-8") as file:
        file.write(json.dumps(asdict(found)) + "\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the race, print it, and append it to the file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("networks", nargs="+", metavar="network")
    parser.add_argument("--step", type=Step, nargs="+", choices=list(Step), default=list(Step))
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--steps", type=int, default=10, help="in a turn")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument(
        "--budget-seconds", type=float, default=math.inf, help="after them no round begins"
    )
    parser.add_argument("--side", type=int, help="of the images; by default each network's own")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0, help="of the order of turns")
    parser.add_argument("--output", type=Path, help="file to which a line is appended")
    words = sys.argv[1:] if arguments is None else list(arguments)
    options = parser.parse_args(words)
    torch.set_num_threads(options.threads)
    found = race(
        options.networks,
        steps=options.step,
        batch_size=options.batch_size,
        steps_a_turn=options.steps,
        rounds=options.rounds,
        budget_seconds=options.budget_seconds,
        side=options.side,
        seed=options.seed,
        command=typed.command("race", words, options.output),
    )
    print(in_a_table(found))
    if options.output:
        append(found, options.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
