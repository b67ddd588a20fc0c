"""A small plan for the tests of recording, and processes of their own in which it is recorded.

A run takes two steps; nearly all of its time would go into judging it by thousands of images.
"""

import multiprocessing
import os
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch

from ninlab import experiments, records, training
from ninlab.architectures import architecture
from ninlab.data import LabeledImages
from ninlab.estimates import LinearCost
from ninlab.experiments import Experiment, Plan, Row
from ninlab.networks import build
from ninlab.recipes import EvaluationSet, Recipe
from ninlab.recording import Site, apart
from ninlab.records import EpochResult, Outcome
from ninlab.training import TrainingRun
from tests.records import A_HOST, NOBODY

SHORT = Recipe(0.05, 1, batch_size=64, train_images=128)
HELD_OUT = Recipe(0.05, 1, batch_size=64, train_images=128, evaluation_set=EvaluationSet.HELD_OUT)
SWEEP = tuple(
    Row(f"nin_28_lr{rate:g}", "nin_28", replace(HELD_OUT, learning_rate=rate), 1)
    for rate in (0.01, 0.05)
)
PLAN = Plan(
    "tiny",
    "small networks for two steps",
    (
        Experiment(
            "one_by_one", "How many?",
            (Row("nin_28_no_1x1", "nin_28_no_1x1", SHORT, 1),
             Row("nin_28", "nin_28", SHORT, 1, kept_seeds=1)),
        ),
        Experiment(experiments.SWEEP, "Which rate?", SWEEP),
        Experiment(
            "own_rate", "And then?",
            (Row("nin_28", "nin_28", SHORT, 1,
                 rate_from=tuple(f"{experiments.SWEEP}/{v.name}" for v in SWEEP)),),
        ),
    ),
    LinearCost(seconds_per_layer=1e-4, seconds_per_parameter=7e-9, seconds_per_mac=3e-11),
)  # fmt: skip
IDS = [run.id("cpu") for run in PLAN.runs]


def site(folder: Path) -> Site:
    return Site(folder, "cpu", NOBODY, threads=1)


def recorded(folder: Path) -> list[str]:
    return [run.id for run in records.load(folder)]


HALF_RIGHT = torch.eye(10, dtype=torch.int64).index_select(0, torch.arange(10) // 2 * 2)
"""A confusion matrix of one image a class: every second class is taken for the one before it."""

JUDGES = 200
"""Of 10,000 test images; held-out ones are half as many, as always."""
REAL_SPLIT = training.choose_split
REAL_SERVE = apart._serve


def judged_by_few(recipe: Recipe) -> tuple[LabeledImages, LabeledImages]:
    """`training.choose_split` with a fiftieth of the images that judge; it trains on the same."""
    images, judges = REAL_SPLIT(recipe)
    return images, judges.take(slice(len(judges) // 50))


def train_at_once(network: str, recipe: Recipe, **options: Any) -> TrainingRun:
    """`training.train` without the training: a run that the seed and the recipe decide.

    on_step is told of two steps, as with `SHORT`. Half of ten images are judged right.
    """
    if options["on_step"] is not None:
        for step in (1, 2):
            options["on_step"](step)
    layers = architecture(network)
    loss = 1.0 + recipe.learning_rate + options["seed"]
    return TrainingRun(
        network=build(layers, seed=options["seed"]),
        architecture=layers,
        recipe=recipe,
        seed=options["seed"],
        device=torch.device(options["device"]),
        train_images=128,
        evaluation_images=10,
        execution="eager",
        outcome=Outcome.FINISHED,
        losses=(loss, loss),
        epochs=(EpochResult(1, 0.5, loss, 0.5, loss, 0, 0.01, 0.01),),
        confusion=HALF_RIGHT,
        images_per_second=12800.0,
        wall_seconds=0.02,
        peak_bytes=None,
        host=A_HOST,
    )


def serve_judged_by_few(talk: Connection, stack: Connection) -> None:
    """What a child process is to do in place of `recording.apart._serve`."""
    training.choose_split = judged_by_few
    REAL_SERVE(talk, stack)


SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload([__name__, "tests.preloaded"])
"""Forks processes that have torch and the images loaded already: once for all of them."""


def start(program: Callable[[Path], object], folder: Path) -> BaseProcess:
    """A process of its own that runs the program on folder; what it prints goes to files there."""
    process = SERVER.Process(target=run_alone, args=(program, folder))
    process.start()
    return process


def run_alone(program: Callable[[Path], object], folder: Path) -> None:
    for stream, descriptor in (("stdout", 1), ("stderr", 2)):
        with output(folder, stream, os.getpid()).open("w") as file:
            os.dup2(file.fileno(), descriptor)
    torch.set_num_threads(1)
    training.choose_split = judged_by_few
    program(folder)


def output(folder: Path, stream: str, pid: int | None) -> Path:
    """Where the process of that id prints, beside the records."""
    return folder.parent / f"{stream}-{pid}"
