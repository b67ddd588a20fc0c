"""Records made up for tests, each of a run that could have been, and what tests ask of a folder."""

import math
from dataclasses import replace
from pathlib import Path
from statistics import median

import pytest

from ninlab import records
from ninlab.architectures import architecture
from ninlab.devices import device
from ninlab.profiles import KernelTime, Setting, StepProfile, at_the_least, step_operators
from ninlab.recipes import Recipe
from ninlab.records import (
    DataSet,
    Device,
    EpochResult,
    Host,
    LossCurve,
    Outcome,
    Provenance,
    RunRecord,
    Software,
)

NOBODY = Provenance("2026-01-01T00:00:00Z", "a test", None, False)
H100 = Device("nvidia-h100", "NVIDIA H100", 80 * 10**9, driver="580.1")
H200 = Device("nvidia-h200", "NVIDIA H200", 141 * 10**9, driver="580.1")
A_HOST = Host("processor (a vendor, family 1)", "AVX512", {"MKL_CBWR": "AVX2"}, 2, 1.0, 0.05)
FASHION_MNIST = DataSet(
    "fashion-mnist",
    {
        "train-images-idx3-ubyte": (
            "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888"
        ),
        "train-labels-idx1-ubyte": (
            "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9"
        ),
        "t10k-images-idx3-ubyte": (
            "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b"
        ),
        "t10k-labels-idx1-ubyte": (
            "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34"
        ),
    },
    60_000,
    10_000,
)


def confusion_of(
    right: int, images: int = 10_000, classes: int = 10
) -> tuple[tuple[int, ...], ...]:
    """As many images of each class, so many of them judged rightly, the rest for the next class."""
    of_class = images // classes
    rows = []
    for label in range(classes):
        row = [0] * classes
        row[label] = min(right // classes + (label < right % classes), of_class)
        row[(label + 1) % classes] += of_class - row[label]
        rows.append(tuple(row))
    return tuple(rows)


def possible(run: RunRecord) -> RunRecord:
    """The run with those fields made to agree that a recorder computes from others.

    Of its epochs, accuracies become the nearest counts of images, and the last loss one of the
    outcome; outcome, recipe, images, seeds and names stand as they are.
    """
    batch, total = run.recipe.batch_size, run.data_set.evaluation_images
    steps_an_epoch = run.data_set.train_images // batch
    images = steps_an_epoch * batch
    epochs = tuple(
        replace(
            epoch,
            train_accuracy=round(epoch.train_accuracy * images) / images,
            test_accuracy=round(epoch.test_accuracy * total) / total,
        )
        for epoch in run.epochs
    )
    last = epochs[-1]
    if run.outcome is Outcome.DIVERGED:
        last = replace(last, train_loss=None)
    if run.outcome is Outcome.STUCK:
        last = replace(last, train_loss=records.finite(math.log(len(run.confusion))))
    epochs = (*epochs[:-1], last)
    confusion = run.confusion
    if sum(row[label] for label, row in enumerate(confusion)) / total != epochs[-1].test_accuracy:
        confusion = confusion_of(round(epochs[-1].test_accuracy * total), total)
    on_cpu = run.device.slug == "cpu"
    losses = [math.nan if e.train_loss is None else e.train_loss for e in epochs]
    took = sum(epoch.seconds + epoch.evaluation_seconds for epoch in epochs)
    return replace(
        run,
        epochs=epochs,
        confusion=confusion,
        loss=LossCurve.thinned([loss for loss in losses for _ in range(steps_an_epoch)]),
        images_per_second=images / median(epoch.seconds for epoch in epochs),
        wall_seconds=max(run.wall_seconds, took),
        software=run.software if on_cpu else replace(run.software, cuda="13.0", cudnn="91900"),
        peak_requested_bytes=None if on_cpu else run.peak_requested_bytes or 3 * 2**20,
        peak_allocated_bytes=None if on_cpu else run.peak_allocated_bytes or 4 * 2**20,
        peak_reserved_bytes=None if on_cpu else run.peak_reserved_bytes or 6 * 2**20,
    )


A_RECORD = possible(
    RunRecord(
        experiment="collapse",
        name="nin_28",
        seed=0,
        provenance=Provenance("2026-01-01T00:00:00Z", "python -m ninlab record", "c" * 40, True),
        network="nin_28",
        network_digest="0" * 12,
        input_shape=(1, 28, 28),
        parameters=39030,
        data_set=FASHION_MNIST,
        recipe=Recipe(0.1, 1),
        device=Device("cpu", "processor", 2**34, threads=1),
        software=Software("3.11", "2.11", "0.1"),
        execution="eager",
        outcome=Outcome.FINISHED,
        loss=LossCurve(1, (2.3,)),
        epochs=(EpochResult(1, 0.5, 1.2, 0.6, 1.1, 0, 4.0, 0.2),),
        confusion=confusion_of(6_000),
        images_per_second=1.0,
        wall_seconds=5.0,
        host=A_HOST,
    )
)


def a_profile(
    setting: Setting | None = None, on: Device = H100, slowdown: float = 2.0
) -> StepProfile:
    """A GPU's profile in which each operator takes so many times the H100's least time.

    Each has two kernels, of which the first takes three quarters.
    """
    setting = setting or Setting("nin_28", 8)
    precision = setting.precision
    operators = []
    for least in at_the_least(step_operators(setting), device("h100"), precision):
        parts = [0.75 * slowdown * least.seconds, 0.25 * slowdown * least.seconds]
        kernels = [KernelTime(f"{least.name}_kernel<{i}>", 1.0, s) for i, s in enumerate(parts)]
        operators.append(replace(least, seconds=sum(parts), kernels=tuple(kernels)))
    network, total = architecture(setting.network), math.fsum(one.seconds for one in operators)
    return StepProfile(
        setting=setting,
        network_digest=network.digest,
        input_shape=network.input_shape,
        profiled_steps=3,
        called_seconds=3 * total,
        graph_seconds=1.1 * total,
        device_seconds=total,
        operators=tuple(operators),
        provenance=NOBODY,
        device=on,
        software=Software("3.12", "2.11.0+cu130", "0.1", "13.0", "91900"),
    )


def lay_book(patch: pytest.MonkeyPatch, folder: Path) -> None:
    """The book's own records lie in that folder, for as long as the patch holds."""
    patch.setattr(records, "runs_folder", lambda: folder)
    patch.setattr(records.folders, "runs_folder", lambda: folder)


def files(folder: Path) -> set[str]:
    """Every file below a folder but the locks, by its path."""
    found = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return {path for path in found if not path.startswith(".claims/")}


def without_one_field(content):
    """(name, the JSON object without it) for each field of an object and of those in it."""
    inner = content if isinstance(content, dict) else dict(enumerate(content))
    for name, value in inner.items():
        if isinstance(content, dict):
            yield name, {key: content[key] for key in content if key != name}
        if isinstance(value, dict | list):
            for missing, rest in without_one_field(value):
                changed = content.copy()
                changed[name] = rest
                yield missing, changed
