"""How does a plan become records? Runs are claimed, made and written, one at a time or many.

Any number of recorders may share one runs folder: each claims a run before it starts it, so
none is made twice, and a recorder that is killed loses the runs in hand and nothing else. What
is recorded is never made again, so the next start resumes. A run that fails is tried once more
without a CUDA graph and then noted as failed; the rest goes on. So it does when a run hangs or
crashes in a process of its own; in the recorder's, that ends it, and the next start notes it and
goes on behind that run.

Three ways to spread the work: this process alone, several processes on this machine, or a Ray
cluster. They differ in who makes a run (`making` in the end, `apart` in a child process, `cluster`
far away); one loop (`dispatch`) chooses the runs and one `keeping` writes what comes back.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any

from ninlab.errors import NinlabError
from ninlab.experiments import Plan
from ninlab.recording.apart import Apart, processes
from ninlab.recording.clock import PATIENCE, Clock
from ninlab.recording.cluster import ray_cluster
from ninlab.recording.dispatch import Makers, dispatch
from ninlab.recording.keeping import Keeper, stack_file
from ninlab.recording.site import DeviceLostError, Site, Tally, check_tree
from ninlab.recording.tasks import Answer, Made, Task
from ninlab.watching import Watcher

__all__ = [
    "PATIENCE",
    "Clock",
    "DeviceLostError",
    "InTurn",
    "Keeper",
    "Made",
    "Site",
    "Tally",
    "check_tree",
    "record",
    "record_with_ray",
    "record_with_workers",
]


def record(
    plan: Plan, site: Site, *, deadline: float | None = None, watcher: Watcher | None = None
) -> Tally:
    """Make every run of the plan that is not recorded, in order, in this process.

    What `dispatch.dispatch` says of deadlines and of errors holds for all three ways. Raises
    DeviceLostError when the device is lost, what was recorded before being safe.
    """
    from ninlab.recording.making import make_here

    watcher = watcher or Watcher()

    def work(task: Task) -> Answer:
        return make_here(task, stack_file(site.folder, task.identifier), watcher.step_taken)

    return dispatch(plan, site, Makers(InTurn(), work), deadline=deadline, watcher=watcher)


def record_with_workers(
    plan: Plan,
    site: Site,
    *,
    workers: int,
    deadline: float | None = None,
    watcher: Watcher | None = None,
) -> Tally:
    """Make the plan's runs in that many processes on this machine; a single one is this process.

    Raises NinlabError for fewer than one worker.
    """
    if workers < 1:
        raise NinlabError(f"{workers} workers cannot record; take at least 1")
    if workers == 1:
        return record(plan, site, deadline=deadline, watcher=watcher)
    apart = Apart()
    with processes(apart, workers) as executor:
        makers = Makers(executor, apart.make, workers)
        return dispatch(plan, site, makers, deadline=deadline, watcher=watcher or Watcher())


def record_with_ray(
    plan: Plan,
    site: Site,
    *,
    deadline: float | None = None,
    watcher: Watcher | None = None,
    gpus_per_run: float = 0.0,
) -> Tally:
    """Make the plan's runs as tasks of a Ray cluster: one CPU and that share of a GPU a run.

    Raises NinlabError when ray is not installed or the cluster has no room for a single run.
    """
    with ray_cluster(gpus_per_run) as makers:
        return dispatch(plan, site, makers, deadline=deadline, watcher=watcher or Watcher())


class InTurn(Executor):
    """Runs what it is given at once, in the caller's thread."""

    def submit(self, function: Callable[..., Any], /, *arguments: Any, **named: Any) -> Future[Any]:
        """A future that is over."""
        future: Future[Any] = Future()
        try:
            future.set_result(function(*arguments, **named))
        except Exception as error:
            future.set_exception(error)
        return future
