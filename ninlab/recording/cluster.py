"""How does a Ray cluster make runs? One task a run, each in a child process of Ray's worker.

No folder is shared: a task brings all that it needs, and its record and weights come back as a
value. Every machine has ninlab, at the recorder's commit, and the images. ray is imported only
where it is asked for.

Known limit: the machine of the recorder has a device of the kind that makes the runs.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from typing import Any

from ninlab import records
from ninlab.errors import NinlabError, one_sentence
from ninlab.recording.apart import Apart
from ninlab.recording.dispatch import Makers
from ninlab.recording.tasks import Answer, Refused, Task
from ninlab.records import Provenance

_of_this_worker = Apart()


def make_on_node(task: Task) -> Answer:
    """What a worker of the cluster does with a task. The record names the code of its machine."""
    asked, own = task.provenance, _own_provenance(task.provenance.command)
    if asked.clean_tree and (own.commit, own.clean_tree) != (asked.commit, True):
        has = "no commit" if own.commit is None else f"commit {own.commit[:12]}"
        changed = "" if own.clean_tree or own.commit is None else ", changed"
        return Refused(
            f"a machine of the cluster has ninlab of {has}{changed}, but the recorder is at "
            f"commit {asked.commit}; give all of them the same clean checkout"
        )
    return _of_this_worker.make(replace(task, provenance=own))


@cache
def _own_provenance(command: str) -> Provenance:
    return records.provenance(command)


@contextmanager
def ray_cluster(gpus_per_run: float) -> Iterator[Makers]:
    """The cluster that RAY_ADDRESS names, or one of this machine alone, which ends afterwards.

    A run has one CPU and that share of a GPU. Raises NinlabError when ray is not installed, for a
    share that is none, and when no machine has room for a single run.
    """
    if not 0 <= gpus_per_run < math.inf:
        raise NinlabError(f"{gpus_per_run:g} GPUs per run; take 0 or more")
    try:
        import ray
    except ImportError:
        raise NinlabError(
            "the executor ray needs the package ray; install it with pip install 'ninlab[ray]'"
        ) from None
    joined = ray.is_initialized()
    if not joined:
        _join(ray)
    try:
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        slots = sum(_slots(node, gpus_per_run) for node in nodes)
        if slots < 1:
            raise NinlabError(
                f"none of the cluster's {len(nodes)} machines has room for one run of 1 CPU and "
                f"{gpus_per_run:g} GPUs"
            )
        died = ray.exceptions
        deaths = (died.WorkerCrashedError, died.NodeDiedError, died.OutOfMemoryError,
                  died.ObjectLostError, died.LocalRayletDiedError)  # fmt: skip
        with _RayExecutor(ray, gpus_per_run) as executor:
            yield Makers(executor, make_on_node, slots, deaths)
    except ray.exceptions.RayError as error:  # such as a machine without ninlab
        last = str(error).strip().splitlines()[-1][:200]
        raise NinlabError(f"the Ray cluster cannot make runs: {last}") from error
    finally:
        if not joined:
            ray.shutdown()


def _join(ray: Any) -> None:
    """Join the cluster that RAY_ADDRESS names, or start one. Raises NinlabError."""
    try:
        ray.init(log_to_driver=False)
    except (Exception, SystemExit) as error:  # the latter when nobody answers there
        where = os.environ.get("RAY_ADDRESS")
        if where is None:
            raise NinlabError(
                f"a Ray cluster could not be started on this machine: {one_sentence(error, 150)}"
            ) from error
        raise NinlabError(
            f"there is no Ray cluster at RAY_ADDRESS ({where}); start one with ray start --head, "
            "or unset it for a cluster of this machine alone"
        ) from error


def _slots(resources: dict[str, float], gpus_per_run: float) -> int:
    """How many runs a machine has room for."""
    rooms = [resources.get("CPU", 0.0)]
    if gpus_per_run:
        rooms.append(resources.get("GPU", 0.0) / gpus_per_run)
    return int(min(rooms))


class _RayExecutor(Executor):
    """Ray's tasks in the shape of `concurrent.futures`. What still runs at its end is cancelled."""

    def __init__(self, ray: Any, gpus_per_run: float) -> None:
        self._ray = ray
        options = {"num_cpus": 1, "num_gpus": gpus_per_run, "max_retries": 0}
        self._remote = cache(ray.remote(**options))
        self._references: set[Any] = set()  # of what is not over: a result is kept no longer

    def submit(self, function: Callable[..., Any], /, *arguments: Any, **named: Any) -> Future[Any]:
        """The call as a task of the cluster."""
        reference = self._remote(function).remote(*arguments, **named)
        self._references.add(reference)
        future: Future[Any] = reference.future()
        future.add_done_callback(lambda _: self._references.discard(reference))
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Cancel what is not over: after an interrupt nobody waits for it."""
        for reference in list(self._references):
            self._ray.cancel(reference, force=True)
