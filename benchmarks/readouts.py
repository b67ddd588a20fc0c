"""What does a linear reader get from 384 channels, and from the ten behind them?

Networks at the textbook's widths are trained by rows of the compact plan, as `ninlab record` trains
them: on the machine that recorded a row, the same seed is the same run. Their weights are too many
to be kept, so each network is read here, at the end of its training: before its last block, and
behind each ReLU of it. The seeds are the first of each row whose recorded run held: what a run that
diverged lets through says nothing about the design.

    python -m benchmarks.readouts --workers 2 --output runs/probes/readouts.json    # half an hour

A row of the file is a trained network. It is written when all are made; `ninlab.readouts` reads it.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import torch

from benchmarks import typed
from ninlab import linear_readout, records
from ninlab.answers import recorded_at
from ninlab.architectures import architecture
from ninlab.data import fashion_mnist
from ninlab.environment import describe_device, describe_software
from ninlab.errors import NinlabError
from ninlab.experiments import PLANS
from ninlab.machine import Watch
from ninlab.readouts import Readout, Readouts
from ninlab.records import Provenance
from ninlab.relapses import failed
from ninlab.training import Normalize, choose_split, train

ROWS = (
    "bottleneck_wide/nin_28_wide",
    "bottleneck_wide/nin_28_wide_gradual",
    "bottleneck_wide_improved/nin_28_wide_batch_norm",
    "bottleneck_wide_improved/nin_28_wide_gradual_batch_norm",
)
"""One step and three, under both recipes."""

_PLAN = PLANS["compact"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a line a network, and write all of them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", nargs="+", default=ROWS, choices=sorted(_PLAN.by_path))
    parser.add_argument("--seeds", type=int, default=3, help="of each row, the first that held")
    parser.add_argument("--images", type=int, default=20_000, help="to which readers are fitted")
    parser.add_argument("--workers", type=int, default=1, help="processes of one thread each")
    parser.add_argument("--output", type=Path, help="file for the readouts as JSON")
    words = sys.argv[1:] if arguments is None else list(arguments)
    options = parser.parse_args(words)
    torch.set_num_threads(1)
    provenance = records.provenance(typed.command("readouts", words, options.output))
    watch, rows = Watch(), []
    seeds = seeds_that_held(options.rows, options.seeds)
    asked = [(row, of_row[i]) for i in range(options.seeds) for row, of_row in seeds.items()]
    read_one = partial(read, images=options.images, provenance=provenance)
    with ProcessPoolExecutor(options.workers, get_context("spawn")) as pool:
        side_by_side = map if options.workers == 1 else pool.map
        for row in side_by_side(read_one, *zip(*asked, strict=True)):
            rows.append(row)
            print(in_words(row), flush=True)
    if options.output:
        made = Readouts(
            provenance=provenance,
            device=describe_device(torch.device("cpu")),
            software=describe_software(),
            host=watch.host(),
            networks={row.network: architecture(row.network).digest for row in rows},
            fitted_images=options.images,
            test_images=len(fashion_mnist()[1]),
            rows=tuple(rows),
        )
        text = json.dumps({"id": made.id, **asdict(made)}, indent=1)
        records.write_bytes(options.output.resolve(), f"{text}\n".encode())
    return 0


def seeds_that_held(rows: Sequence[str], wanted: int) -> dict[str, list[int]]:
    """The first so many seeds of each row whose recorded run on a CPU did not fail.

    Raises NinlabError for a row with fewer.
    """
    held: dict[str, list[int]] = {row: [] for row in rows}
    for run in sorted(recorded_at("compact"), key=lambda run: run.seed):
        if (row := f"{run.experiment}/{run.name}") in held and not failed(run):
            held[row].append(run.seed)
    for row, seeds in held.items():
        if len(seeds) < wanted:
            raise NinlabError(f"{row} has {len(seeds)} recorded runs that held, not {wanted}")
    return {row: seeds[:wanted] for row, seeds in held.items()}


def read(path: str, seed: int, images: int, provenance: Provenance) -> Readout:
    """Train the network of a row of the plan with that seed, and read it.

    Readers are fitted to the first training images and tested on all test images.
    """
    torch.set_num_threads(1)
    experiment, _, name = path.partition("/")
    row = _PLAN.by_path[path]
    result = train(row.network, row.recipe, seed=seed)
    training, tested = choose_split(row.recipe)
    normalize = Normalize.of(training.images) if row.recipe.standardize else Normalize()
    fitted = fashion_mnist()[0].take(slice(images))
    places = linear_readout.read(result.network, fitted, tested, normalize)
    run = result.record(experiment=experiment, name=name, provenance=provenance)
    return Readout(
        experiment=experiment,
        network=row.network,
        seed=seed,
        failed=failed(run),
        accuracy=run.last.test_accuracy,
        places=tuple(places),
    )


def in_words(row: Readout) -> str:
    """What was read, in a line."""
    places = ", ".join(
        f"{place.accuracy:.1%} of {place.values} values {place.name}" for place in row.places
    )
    how = " (failed)" if row.failed else ""
    return f"{row.row} seed {row.seed}{how}: {row.accuracy:.1%} by itself; read: {places}"


if __name__ == "__main__":
    sys.exit(main())
