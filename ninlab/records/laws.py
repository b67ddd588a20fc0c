"""Does what a record says of a run agree with itself?

A schema looks at one field at a time. These laws hold between fields, because `ninlab.training`
computes one from the other: an accuracy is a count over images, the throughput is that of the
median epoch, the curve has as many points as the run had steps. They hold to the last digit where
no rounding lies between. So a digit that was changed by hand or by a disk is found as long as
another field tells of it.

They are checked whenever a record is read or written, not whenever one is made.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from itertools import pairwise
from statistics import median
from typing import TYPE_CHECKING, cast

from ninlab.errors import RecordError
from ninlab.records.schema import shown
from ninlab.steps import Kernels

if TYPE_CHECKING:
    from ninlab.records.runs import Device, Host, Provenance, RunRecord, Software

STUCK_LOSS = 0.99
"""A run is stuck when its last epoch's mean training loss is at least this share of
ln(classes), the loss of guessing: it has learned less than a hundredth of what there is."""

CURVE_POINTS = 256
"""How many points a curve of losses has at most."""

_ROUNDED = 5e-6
"""How far six significant digits may be from the number that they stand for, relative to it."""
_SUMMED = 1e-9
"""How far two sums of the same float64 may be apart, relative to them, added in two orders."""


def steps_a_point(steps: int, points: int = CURVE_POINTS) -> int:
    """How many steps each point of a curve of so many steps is the mean of."""
    return max(1, math.ceil(steps / points))


def check_run(run: RunRecord) -> None:
    """Raises RecordError for the first law that a run's record breaks, with the fields of it."""
    for problem in _broken(run):
        raise RecordError(problem)


def check_origin(provenance: Provenance, device: Device | None, software: Software) -> None:
    """Raises RecordError when what a record says of code, device or software cannot be.

    device is None where a record is of none.
    """
    for problem in _of_origin(provenance, device, software):
        raise RecordError(problem)


def _broken(run: RunRecord) -> Iterator[str]:
    yield from _of_origin(run.provenance, run.device, run.software)
    yield from _of_names(run)
    yield from _of_confusion(run)
    steps_an_epoch = run.data_set.train_images // run.recipe.batch_size
    if not steps_an_epoch:
        yield (
            f"data_set.train_images is {run.data_set.train_images}, less than one batch of "
            f"recipe.batch_size {run.recipe.batch_size}"
        )
        return
    yield from _of_epochs(run, steps_an_epoch * run.recipe.batch_size)
    yield from _of_losses(run, steps_an_epoch)
    yield from _of_device(run)


def _of_origin(provenance: Provenance, device: Device | None, software: Software) -> Iterator[str]:
    try:
        datetime.fromisoformat(provenance.utc)
    except ValueError:
        yield f"provenance.utc is {shown(provenance.utc)}, which is no day or no time of day"
    if provenance.clean_tree and provenance.commit is None:
        yield "provenance.clean_tree is true, but provenance.commit names no commit"
    if device is None:
        return
    on_cpu = device.slug == "cpu"
    if on_cpu and device.threads is None:
        yield "device.threads is null, but device.slug is a CPU's"
    if not on_cpu and device.threads is not None:
        yield f"device.threads is {device.threads}, but device.slug is no CPU's"
    for field in ("driver", "power_limit_watts"):
        if on_cpu and getattr(device, field) is not None:
            yield f"device.{field} is a GPU's, but device.slug is a CPU's"
    if device.driver is not None and software.cuda is None:
        yield "software.cuda is null, but device.driver is one of CUDA's"


def _of_names(run: RunRecord) -> Iterator[str]:
    if run.corrects == run.id:
        yield "corrects names the record itself"
    sources = run.learning_rate_from
    if len(set(sources)) < len(sources) or run.id in sources:
        yield "learning_rate_from names a run twice, or the run itself"


def _of_confusion(run: RunRecord) -> Iterator[str]:
    classes = len(run.confusion)
    if classes < 2:
        yield f"confusion has {classes} rows, but a network tells at least 2 classes apart"
    for label, row in enumerate(run.confusion):
        if len(row) != classes:
            yield f"confusion[{label}] has {len(row)} columns, but confusion has {classes} rows"
            return
    right = sum(row[label] for label, row in enumerate(run.confusion))
    if run.last.test_accuracy != right / run.data_set.evaluation_images:
        yield (
            f"epochs[{len(run.epochs) - 1}].test_accuracy is {run.last.test_accuracy!r}, but "
            f"confusion has {right} of {run.data_set.evaluation_images} images on its diagonal"
        )


def _of_epochs(run: RunRecord, images: int) -> Iterator[str]:
    """Laws of the epochs, each of which trains on so many images."""
    judges, classes = run.data_set.evaluation_images, len(run.confusion)
    for number, epoch in enumerate(run.epochs):
        for field, share, total in (
            ("train_accuracy", epoch.train_accuracy, images),
            ("test_accuracy", epoch.test_accuracy, judges),
        ):
            if round(share * total) / total != share:
                yield f"epochs[{number}].{field} is {share!r}, which is no count of {total} images"
        if epoch.dead_classes > classes:
            yield (
                f"epochs[{number}].dead_classes is {epoch.dead_classes}, more than the {classes} "
                "classes of confusion"
            )
    rate = images / median(epoch.seconds for epoch in run.epochs)
    if run.images_per_second != rate:
        yield (
            f"images_per_second is {run.images_per_second!r}, but data_set.train_images and the "
            f"median of epochs' seconds give {rate!r}"
        )
    took = sum(epoch.seconds + epoch.evaluation_seconds for epoch in run.epochs)
    if run.wall_seconds < took * (1 - _SUMMED):
        yield (
            f"wall_seconds is {run.wall_seconds!r}, less than the {took!r} of epochs' seconds and "
            "evaluation_seconds"
        )


def _of_losses(run: RunRecord, steps_an_epoch: int) -> Iterator[str]:
    diverged = run.outcome == "diverged"
    *before, last = [epoch.train_loss for epoch in run.epochs]
    if None in before:
        yield f"epochs[{before.index(None)}].train_loss is null, but the run went on"
    if (last is None) != diverged:
        yield (
            f"outcome is {run.outcome}, but epochs[{len(before)}].train_loss is {shown(last)}; a "
            "run has diverged when the losses of its last epoch are not all finite"
        )
    if last is not None:
        bound = STUCK_LOSS * math.log(len(run.confusion))
        is_stuck = last >= bound
        decided = abs(last - bound) > bound * _ROUNDED
        if decided and not diverged and is_stuck != (run.outcome == "stuck"):
            yield (
                f"outcome is {run.outcome}, but epochs[{len(before)}].train_loss is {last!r}, and "
                f"a run is stuck from {bound:.6g} upwards"
            )
    yield from _of_curve(run, steps_an_epoch)


def _of_curve(run: RunRecord, steps_an_epoch: int) -> Iterator[str]:
    steps = steps_an_epoch * len(run.epochs)
    every, values = run.loss.every, run.loss.values
    if every != steps_a_point(steps):
        yield f"loss.every is {every}, but a curve of {steps} steps has {steps_a_point(steps)}"
        return
    if len(values) != math.ceil(steps / every):
        yield (
            f"loss.values has {len(values)} points, but {steps} steps by {every} make "
            f"{math.ceil(steps / every)}"
        )
        return
    of_points, of_epochs = _sum(values), _sum([epoch.train_loss for epoch in run.epochs])
    if of_points is not None and of_epochs is not None and values[-1] is not None:
        beyond = every * len(values) - steps  # steps that the last point has fewer
        mean = (every * of_points - beyond * values[-1]) / steps
        of_epochs /= len(run.epochs)
        if abs(mean - of_epochs) > _ROUNDED * (mean + of_epochs):
            yield (
                f"loss.values have the mean {mean:.6g}, but epochs' train_loss have {of_epochs:.6g}"
            )
        return
    first = steps - steps_an_epoch  # of the last epoch: losses before it are finite
    for point, value in enumerate(values):
        if value is None and ((point + 1) * every <= first or of_epochs is not None):
            yield f"loss.values[{point}] is null, but train_loss of that epoch is finite"
            return
    if of_points is not None:
        yield "loss.values are all finite, but train_loss of the last epoch is null"


def _sum(values: Iterable[float | None]) -> float | None:
    """The sum, None where a value is: adding finds that out faster than looking for it."""
    try:
        return math.fsum(cast("Iterable[float]", values))
    except TypeError:
        return None


def _of_device(run: RunRecord) -> Iterator[str]:
    on_cpu = run.device.slug == "cpu"
    if on_cpu and run.execution != "eager":
        yield f"execution is {run.execution}, but device.slug is a CPU's, which has no graphs"
    if on_cpu and run.recipe.kernels is not Kernels.TORCH:
        yield (
            f"recipe.kernels is {run.recipe.kernels}, but device.slug is a CPU's, which has only "
            "torch's"
        )
    fields = ("peak_requested_bytes", "peak_allocated_bytes", "peak_reserved_bytes")
    peaks = {field: getattr(run, field) for field in fields}
    for field, peak in peaks.items():
        if on_cpu != (peak is None):
            whose = "a CPU's, which tells none" if on_cpu else "a GPU's, which tells it"
            yield f"{field} is {shown(peak)}, but device.slug is {whose}"
            return
    if not on_cpu:
        yield from out_of_order(peaks)
    if run.host is not None:
        yield from _of_host(run.host)


def _of_host(host: Host) -> Iterator[str]:
    for field in ("own_cores", "other_cores"):
        busy = getattr(host, field)
        if busy is not None and busy > host.cores:
            yield f"host.{field} is {busy}, more than the {host.cores} of host.cores"


def out_of_order(peaks: Mapping[str, float]) -> Iterator[str]:
    """One sentence for the first of these peaks that is more than the one behind it."""
    for less, more in pairwise(peaks):
        if peaks[less] > peaks[more]:
            yield f"{less} is {peaks[less]}, more than {more}, which is {peaks[more]}"
            return
