"""How is one run made? Trained, tried again without a CUDA graph, and given back as a value.

Nothing is written. The only module of the package that needs torch.
"""

from __future__ import annotations

import gc
import hashlib
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import IO

import torch

from ninlab import records
from ninlab.environment import (
    describe_device,
    describe_software,
    is_out_of_memory,
    parse_device,
)
from ninlab.errors import KernelsError, NinlabError, one_sentence
from ninlab.failures import Cause
from ninlab.recording.stacks import mark_try, watched
from ninlab.recording.tasks import Answer, Failed, Made, Task
from ninlab.records import Device
from ninlab.training import StepCallback, train, weights_bytes


def make_here(task: Task, stack: Path, on_step: StepCallback | None = None) -> Answer:
    """The run, made in this process, which leaves its stack in that file should it not survive."""
    try:
        with stack.open("w") as file:
            return make(task, file, on_step)
    finally:
        with suppress(OSError):  # left there it says nothing; the run must not be lost for it
            stack.unlink()


def make(task: Task, stack: IO[str], on_step: StepCallback | None = None) -> Answer:
    """The run, or how it came to nothing.

    A run that raises is tried once more without a CUDA graph. One that takes too long ends the
    process, as a crash does; either leaves its stack in that file. A lost device is a failure of
    that cause: the process is of no use any more. A run by kernels that cannot run has failed, too,
    for the plan's others may be by torch's, or smaller. Raises NinlabError where not the run is at
    fault: the data are missing, or the device is not the one for which the run is planned.
    """
    stumbles: list[str] = []
    with watched(stack, task.hangs_after):
        about = device_here(task)
        for eager in (True,) if task.eager or not _has_graphs(task.device) else (False, True):
            mark_try(stack, eager)
            try:
                return replace(_made(task, eager, on_step), stumbles=tuple(stumbles))
            except KernelsError as error:
                sentence, cause = str(error), Cause.RAISED
                break
            except NinlabError:
                raise
            except Exception as error:  # one failing run never ends the rest
                sentence = one_sentence(f"{type(error).__name__}: {error}", 500)
                cause = Cause.RAISED
                if is_out_of_memory(error):
                    cause = Cause.OUT_OF_MEMORY
            stumbles.append(sentence)
            gc.collect()  # the error held the frames of the run, and they its tensors
            if _is_lost(task.device):
                cause = Cause.DEVICE_LOST
                break
    failure = task.failure(cause, sentence, about, describe_software(), tried_eagerly=eager)
    return Failed(failure, tuple(stumbles))


def device_here(task: Task) -> Device:
    """What a record says of the device, with torch's threads set.

    Raises NinlabError when the device is not there, or is of another kind than the planned one.
    """
    if task.threads is not None:
        torch.set_num_threads(task.threads)
    try:
        about = describe_device(parse_device(task.device))
    except RuntimeError as error:  # as of a GPU that others have for themselves
        raise NinlabError(f"{task.device} cannot be used: {one_sentence(error, 150)}") from error
    if about.slug != task.device_slug:
        raise NinlabError(
            f"a worker has the device {about.name!r}, but its runs are planned for "
            f"{task.device_slug!r}; record with workers of one kind, for their results never mix"
        )
    return about


def _made(task: Task, eager: bool, on_step: StepCallback | None) -> Made:
    run = task.run
    provenance = replace(task.provenance, utc=records.utc_now())
    result = train(
        run.row.network, task.ready.recipe, seed=run.seed, device=task.device,
        use_graph=not eager, on_step=on_step,
    )  # fmt: skip
    weights = weights_bytes(result.network) if run.keeps_weights else None
    record = result.record(
        experiment=run.experiment,
        name=run.row.name,
        provenance=provenance,
        learning_rate_from=task.ready.chosen_by,
        weights_sha256=None if weights is None else hashlib.sha256(weights).hexdigest(),
    )
    return Made(record, weights)


def _has_graphs(device: str) -> bool:
    """Whether a step may be captured there, so that eager steps are another way to take it."""
    return torch.device(device).type == "cuda"


def _is_lost(device: str) -> bool:
    """Whether a GPU answers no more, be it for this process only; a CPU always answers."""
    if torch.device(device).type != "cuda":
        return False
    try:
        torch.cuda.empty_cache()
        torch.ones(2, device=device).sum().item()
    except torch.OutOfMemoryError:
        return False  # it is there, and full
    except RuntimeError:
        return True
    return False
