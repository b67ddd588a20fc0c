"""A small plan for the tests of recording, and processes of their own in which it is recorded.

A run takes two steps; nearly all of its time would go into judging it by thousands of images.
"""

import multiprocessing
import os
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch

from ninlab import experiments, recording, records, training
from ninlab.data import LabeledImages
from ninlab.estimates import LinearCost
from ninlab.experiments import Experiment, Plan, Row
from ninlab.recipes import EvaluationSet, Recipe
from ninlab.recording import Site
from tests.records import NOBODY

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


JUDGES = 200
"""Of 10,000 test images; held-out ones are half as many, as always."""
REAL_SPLIT = training.choose_split


def judged_by_few(recipe: Recipe) -> tuple[LabeledImages, LabeledImages]:
    """`training.choose_split` with a fiftieth of the images that judge; it trains on the same."""
    images, judges = REAL_SPLIT(recipe)
    return images, judges.take(slice(len(judges) // 50))


def work_judged_by_few(plan: Plan, site: Site, deadline: float | None) -> None:
    """What a worker is to do in place of `recording._work`."""
    training.choose_split = judged_by_few
    recording._work(plan, site, deadline)


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
