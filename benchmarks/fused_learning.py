"""Does a network learn as well by fused operators as by torch's layers?

Sums in another order change the last digits of a step, and after some hundred steps the whole run,
as another seed does. So no single runs are compared, but groups of seeds. The repaired small NiN
learns on a CPU by the plain twins of the fused operators, which compute what the kernels do on a
GPU, with the compact plan's recipe. Beside it stand the book's recorded runs of that recipe, by
torch's layers. The law: the mean accuracy of the fused runs lies within the spread of the others.

    python benchmarks/fused_learning.py --output runs/probes/fused_learning.json    # 6 minutes
    python benchmarks/fused_learning.py --images 6400 --epochs 2    # makes torch's runs, too

A run is a row of the JSON file, written as soon as it has ended. Seconds are not kept: the twins
are there to check. At the end stand the table and the sentence that ``benchmarks/README.md`` has.
Exit code 1 where the law does not hold.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from ninlab import records
from ninlab.environment import arithmetic, describe_device, describe_software
from ninlab.experiments import plan
from ninlab.networks import build
from ninlab.recipes import Recipe
from ninlab.records import RunRecord
from ninlab.steps import Kernels
from ninlab.training import Engine, choose_split, evaluate

ROW = "collapse/nin_28"
"""The row of the compact plan whose network and recipe are taken."""

RECORDED = 5
"""Of how many seeds the recorded runs are taken, from 0 on: those that the file was made beside."""


@dataclass(frozen=True)
class Run:
    """How one run went, epoch by epoch. Losses are mean cross-entropies, None if not finite."""

    kernels: Kernels
    seed: int
    train_losses: tuple[float | None, ...]
    test_losses: tuple[float | None, ...]
    accuracies: tuple[float, ...]

    @classmethod
    def of(cls, record: RunRecord) -> Run:
        """What a record says of a run."""
        return cls(
            kernels=record.recipe.kernels,
            seed=record.seed,
            train_losses=tuple(epoch.train_loss for epoch in record.epochs),
            test_losses=tuple(epoch.test_loss for epoch in record.epochs),
            accuracies=tuple(epoch.test_accuracy for epoch in record.epochs),
        )


def learn(network: str, recipe: Recipe, kernels: Kernels, seed: int) -> Run:
    """The run of those kernels and that seed, made on the CPU."""
    images, test = choose_split(recipe)
    module = build(network, seed=seed).to(memory_format=torch.channels_last)
    with arithmetic(recipe.precision, benchmark=False):
        engine = Engine(module, images, recipe, seed=seed, kernels=kernels)
        losses, results = [], []
        for _ in range(recipe.epochs):
            losses.append(records.finite(statistics.fmean(engine.epoch()[0])))
            results.append(evaluate(engine.stepping, test, recipe.precision, engine.normalize))
    return Run(
        kernels=kernels,
        seed=seed,
        train_losses=tuple(losses),
        test_losses=tuple(records.finite(result.loss) for result in results),
        accuracies=tuple(result.accuracy for result in results),
    )


def runs(recipe: Recipe, seeds: int) -> Iterator[Run]:
    """Torch's runs, recorded ones where the recipe is the plan's, and then the fused ones."""
    row = plan("compact").by_path[ROW]
    recorded = {
        run.seed: Run.of(run)
        for run in records.current(records.load())
        if f"{run.experiment}/{run.name}" == ROW and run.recipe == recipe
    }
    found = [recorded[seed] for seed in range(RECORDED) if seed in recorded]
    yield from found or (learn(row.network, recipe, Kernels.TORCH, s) for s in range(seeds))
    yield from (learn(row.network, recipe, Kernels.FUSED, s) for s in range(seeds))


def read(path: Path) -> list[Run]:
    """The runs that a file of this script holds."""
    rows = json.loads(path.read_text())["rows"]
    return [Run(**row | {"kernels": Kernels(row["kernels"])}) for row in rows]


def by_seed(made: Sequence[Run], kernels: Kernels) -> dict[int, float]:
    """The last accuracy of the runs of those kernels."""
    return {run.seed: run.accuracies[-1] for run in made if run.kernels is kernels}


def is_within_the_spread(made: Sequence[Run]) -> bool:
    """Whether the fused runs' mean accuracy lies between the worst and the best of torch's."""
    plain, fused = (by_seed(made, kernels).values() for kernels in (Kernels.TORCH, Kernels.FUSED))
    return min(plain) <= statistics.fmean(fused) <= max(plain)


def in_a_table(made: Sequence[Run]) -> str:
    """The last accuracies by kernels and seed, in Markdown."""
    seeds = sorted({run.seed for run in made})
    lines = [["accuracy by seed", *map(str, seeds)], [":--", *["--:"] * len(seeds)]]
    for label, kernels in (("torch's layers", Kernels.TORCH), ("fused operators", Kernels.FUSED)):
        found = by_seed(made, kernels)
        lines.append([label, *(f"{found[s]:.2%}" if s in found else "" for s in seeds)])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def in_a_sentence(made: Sequence[Run]) -> str:
    """Where the fused mean lies, and which of the fused runs lie outside torch's range."""
    plain, fused = (by_seed(made, kernels) for kernels in (Kernels.TORCH, Kernels.FUSED))
    worst, best = min(plain.values()), max(plain.values())
    said = (
        f"The mean of the {len(fused)} fused runs, {statistics.fmean(fused.values()):.2%}, lies "
        f"{'within' if is_within_the_spread(made) else 'outside'} the range of torch's "
        f"{len(plain)} single runs, {worst:.2%} to {best:.2%}."
    )
    outside = {
        "above": [seed for seed, accuracy in fused.items() if accuracy > best],
        "below": [seed for seed, accuracy in fused.items() if accuracy < worst],
    }
    for where, seeds in outside.items():
        if seeds:
            listed = " and ".join(f"seed {seed}" for seed in seeds)
            said += (
                f" Of the fused runs {listed} {'lies' if len(seeds) == 1 else 'lie'} {where} it."
            )
    return said


def in_words(run: Run) -> str:
    """The run in a line."""
    first, last, test = (
        "not finite" if loss is None else f"{loss:.4f}"
        for loss in (run.train_losses[0], run.train_losses[-1], run.test_losses[-1])
    )
    return (
        f"{run.kernels:6} seed {run.seed}: training loss {first} to {last}, test loss {test}, "
        f"accuracy {run.accuracies[-1]:.2%}"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a line a run, write them, and say by the exit code whether the law holds."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, help="by default the recipe's")
    parser.add_argument("--images", type=int, help="training images, by default the recipe's")
    parser.add_argument("--output", type=Path, help="file for the runs as JSON")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    row = plan("compact").by_path[ROW]
    recipe = replace(
        row.recipe, epochs=options.epochs or row.recipe.epochs, train_images=options.images
    )
    made: list[Run] = []
    for run in runs(recipe, options.seeds):
        print(in_words(run), flush=True)
        made.append(run)
        if options.output:
            content = {
                "kind": "probe",
                "provenance": asdict(records.provenance("python benchmarks/fused_learning.py")),
                "device": asdict(describe_device(torch.device("cpu"))),
                "software": asdict(describe_software()),
                "network": row.network,
                "recipe": asdict(recipe),
                "rows": [asdict(one) for one in made],
            }
            text = f"{json.dumps(content, indent=1)}\n"
            records.write_bytes(options.output.resolve(), text.encode())
    print(f"\n{in_a_table(made)}\n\n{in_a_sentence(made)}")
    return 0 if is_within_the_spread(made) else 1


if __name__ == "__main__":
    sys.exit(main())
