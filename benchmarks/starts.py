"""How blind is an untrained network at full size, and is that NiN's fault or Xavier's?

The textbook starts NiN, AlexNet and VGG-11 alike: weights by Xavier's rule, biases as torch draws
them. Test images at 224x224 go through each of them, and through some of them with other starts,
before any training. Counted are the classes that score 0 on every image, and those that score
highest on any; measured is how far scores and inner values differ from image to image.

    python -m benchmarks.starts --output runs/probes/starts.json    # 20 minutes on one core

A row is a network and a seed. The file is written when all are made; `ninlab.starts` reads it.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from benchmarks import typed
from ninlab import records
from ninlab.architectures import architecture
from ninlab.data import fashion_mnist, resize
from ninlab.environment import arithmetic, describe_device, describe_software
from ninlab.machine import Watch
from ninlab.starting import spread, start
from ninlab.starts import Start, Starts
from ninlab.steps import Precision

NETWORKS = (
    *("nin", "alexnet", "vgg11"),
    *("nin_zero_bias", "alexnet_zero_bias", "vgg11_zero_bias"),
    *("nin_kaiming", "nin_fixed"),
)
"""The textbook's start in three networks, the same without biases, and NiN by Kaiming's rule."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a line a start, and write all of them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--networks", nargs="+", default=NETWORKS)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--output", type=Path, help="file for the starts as JSON")
    words = sys.argv[1:] if arguments is None else list(arguments)
    options = parser.parse_args(words)
    if options.images < 2:
        parser.error("--images must be 2 at least: one image has no spread")
    if len({architecture(name).input_shape for name in options.networks}) > 1:
        parser.error("--networks must read images of one size, whose spread the file states once")
    torch.set_num_threads(1)
    provenance = records.provenance(typed.command("starts", words, options.output))
    watch, rows = Watch(), []
    side = architecture(options.networks[0]).input_shape[-1]
    images = resize(fashion_mnist()[1].images[: options.images], side) / 255
    for network in options.networks:
        for seed in range(options.seeds):
            with arithmetic(Precision.FP32, benchmark=False):
                rows.append(start(network, seed, images))
            print(in_words(rows[-1]), flush=True)
    if options.output:
        made = Starts(
            provenance=provenance,
            device=describe_device(torch.device("cpu")),
            software=describe_software(),
            host=watch.host(),
            networks={name: architecture(name).digest for name in options.networks},
            images=len(images),
            image_spread=spread(images),
            rows=tuple(rows),
        )
        text = json.dumps({"id": made.id, **asdict(made)}, indent=1)
        records.write_bytes(options.output.resolve(), f"{text}\n".encode())
    return 0


def in_words(row: Start) -> str:
    """The start in a line."""
    dead = "" if row.dead_classes is None else f"{row.dead_classes} classes dead, "
    return (
        f"{row.network:14} seed {row.seed:2}: {dead}{row.predicted_classes} predicted, "
        f"{row.left[-1]:.3%} of the spread left, {row.heard:.2%} of that between classes"
    )


if __name__ == "__main__":
    sys.exit(main())
