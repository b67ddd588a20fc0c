"""How does a plan become records? Runs are claimed, made and written, one at a time or many.

Any number of recorders may share one runs folder: each claims a run before it starts it, so
none is made twice, and a recorder that is killed loses the run in hand and nothing else. What
is recorded is never made again, so the next start resumes.

Three ways to spread the work: this process alone, several processes on this machine, or a Ray
cluster. All three end in `make_run`.

Imports from ninlab: environment, experiments, records, training, errors. ray is imported
only where it is asked for.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

import torch

from ninlab import records
from ninlab.environment import describe_device
from ninlab.errors import NinlabError
from ninlab.experiments import Plan, PlannedRun, ready_recipe
from ninlab.records import Provenance, RunRecord
from ninlab.training import StepCallback, train, weights_bytes

_POLL_SECONDS = 1.0


class Status(StrEnum):
    """What became of a planned run when a recorder came to it."""

    RECORDED = "recorded"  # made and written, just now
    PRESENT = "present"  # recorded before
    CLAIMED = "claimed"  # another recorder is making it
    WAITING = "waiting"  # its learning rate's sweep is not recorded yet
    NO_TIME = "no_time"  # it would not end within the budget


@dataclass(frozen=True)
class Site:
    """Where runs are made and kept. Small and picklable: it travels to workers."""

    folder: Path
    device: str  # as torch names it
    provenance: Provenance
    threads: int | None = None  # of a CPU run; None leaves torch's own choice

    @property
    def device_slug(self) -> str:
        """What names the device in the ids of its records."""
        return describe_device(torch.device(self.device)).slug


@dataclass
class Tally:
    """What a recording did: status of every run of the plan, by id."""

    statuses: dict[str, Status] = field(default_factory=dict)
    seconds: float = 0.0

    def ids(self, *statuses: Status) -> list[str]:
        """The runs in one of those states, in the plan's order."""
        return [identifier for identifier, status in self.statuses.items() if status in statuses]


class Watcher(Protocol):
    """Told what a recording does; the command line draws its progress bars with it."""

    def run_started(self, run: PlannedRun, steps: int) -> None:
        """A run begins that will take that many steps."""

    def step_taken(self, step: int) -> None:
        """The run in hand has taken that many steps."""

    def run_ended(self, run: PlannedRun, status: Status) -> None:
        """The recorder is done with a run, for now or for good."""


class _Silent:
    """Told everything, says nothing."""

    def run_started(self, run: PlannedRun, steps: int) -> None:
        pass

    def step_taken(self, step: int) -> None:
        pass

    def run_ended(self, run: PlannedRun, status: Status) -> None:
        pass


def check_tree(provenance: Provenance, allow_dirty: bool) -> None:
    """Raises NinlabError unless the code is that of a commit, or a dirty tree is allowed."""
    if provenance.clean_tree or allow_dirty:
        return
    if provenance.commit is None:
        raise NinlabError(
            "this ninlab is no git checkout, so its records could not name their code; clone the "
            "repository, or record for yourself with --allow-dirty"
        )
    raise NinlabError(
        f"the working tree differs from commit {provenance.commit[:12]}; commit first, or record "
        "for yourself with --allow-dirty"
    )


def make_run(run: PlannedRun, site: Site, on_step: StepCallback | None = None) -> Status:
    """What became of the run: made and written, unless it is present, claimed or waiting.

    Raises DataError and RecordError; the run is then not recorded and can be made again.
    """
    slug = site.device_slug
    identifier = run.id(slug)
    path = records.record_path(site.folder, identifier)
    if path.exists():
        return Status.PRESENT
    with records.claim(site.folder, identifier) as mine:
        if not mine:
            return Status.CLAIMED
        if path.exists():  # written by another between the look and the claim
            return Status.PRESENT
        recipe = ready_recipe(run, _recorded(run.rate_sources(slug), site.folder), slug)
        if recipe is None:
            return Status.WAITING
        if site.threads is not None:
            torch.set_num_threads(site.threads)
        provenance = replace(site.provenance, utc=records.utc_now())
        result = train(
            run.variant.network, recipe, seed=run.seed, device=site.device, on_step=on_step
        )
        digest = None
        if run.keeps_weights:
            weights = weights_bytes(result.network)
            digest = hashlib.sha256(weights).hexdigest()
            records.write_bytes(records.weights_path(site.folder, identifier), weights)
        records.write(
            site.folder,
            result.record(
                experiment=run.experiment,
                name=run.variant.name,
                provenance=provenance,
                learning_rate_from=run.rate_sources(slug),
                weights_sha256=digest,
            ),
        )
    return Status.RECORDED


def _recorded(identifiers: Sequence[str], folder: Path) -> dict[str, RunRecord]:
    paths = {i: records.record_path(folder, i) for i in identifiers}
    return {i: records.read(path) for i, path in paths.items() if path.exists()}


# ---------------------------------------------------------------- in this process


def record(
    plan: Plan, site: Site, *, budget_seconds: float | None = None, watcher: Watcher | None = None
) -> Tally:
    """Make every run of the plan that is not recorded, in order, in this process.

    A run is not started when its estimate, corrected by what earlier runs took, goes beyond the
    budget; a shorter one after it may still fit. While other recorders hold the sweep that a run
    waits for, this one waits too.
    """
    watcher = watcher or _Silent()
    clock = _Clock(budget_seconds)
    tally = Tally()
    slug = site.device_slug
    while True:
        for run in plan.runs:
            before = tally.statuses.get(run.id(slug))
            if before in (Status.RECORDED, Status.PRESENT):
                continue
            if not records.record_path(site.folder, run.id(slug)).exists() and not clock.fits(run):
                status = Status.NO_TIME
            else:
                watcher.run_started(run, run.variant.recipe.steps)
                started = time.monotonic()
                status = make_run(run, site, watcher.step_taken)
                if status is Status.RECORDED:
                    clock.took(run, time.monotonic() - started)
            tally.statuses[run.id(slug)] = status
            watcher.run_ended(run, status)
        tally.seconds = clock.elapsed
        blocked = tally.ids(Status.WAITING)
        if not blocked or not _others_make(plan, blocked, site, clock):
            return tally


def _others_make(plan: Plan, blocked: Sequence[str], site: Site, clock: _Clock) -> bool:
    """Whether the blocked runs may still become ready, after a pause: others are at work."""
    slug = site.device_slug
    sources = {s for run in plan.runs if run.id(slug) in blocked for s in run.rate_sources(slug)}
    missing = {s for s in sources if not records.record_path(site.folder, s).exists()}
    if not missing:
        return True
    if not missing & set(records.claim_holders(site.folder)) or clock.left <= 0:
        return False
    time.sleep(_POLL_SECONDS)
    return True


class _Clock:
    """How much of the budget is left, and whether a run fits into it."""

    def __init__(self, budget_seconds: float | None) -> None:
        self._start = time.monotonic()
        self._budget = float("inf") if budget_seconds is None else budget_seconds
        self._estimated = self._measured = 0.0

    @property
    def elapsed(self) -> float:
        return time.monotonic() - self._start

    @property
    def left(self) -> float:
        return self._budget - self.elapsed

    def fits(self, run: PlannedRun) -> bool:
        correction = self._measured / self._estimated if self._estimated else 1.0
        return run.estimated_seconds * correction <= self.left

    def took(self, run: PlannedRun, seconds: float) -> None:
        self._estimated += run.estimated_seconds
        self._measured += seconds


# ---------------------------------------------------------------- several processes


def record_with_workers(
    plan: Plan,
    site: Site,
    *,
    workers: int,
    budget_seconds: float | None = None,
    watcher: Watcher | None = None,
) -> Tally:
    """Make the plan's runs with that many recorders on this machine, one process each.

    Raises NinlabError for fewer than one worker, and when a worker failed.
    """
    if workers < 1:
        raise NinlabError(f"{workers} workers cannot record; take at least 1")
    if workers == 1:
        return record(plan, site, budget_seconds=budget_seconds, watcher=watcher)
    watcher = watcher or _Silent()
    started = time.monotonic()
    slug = site.device_slug
    before = {
        r.id(slug) for r in plan.runs if records.record_path(site.folder, r.id(slug)).exists()
    }
    context = multiprocessing.get_context("spawn")  # a forked CUDA context does not work
    processes = [
        context.Process(target=record, args=(plan, site), kwargs={"budget_seconds": budget_seconds})
        for _ in range(workers)
    ]
    for process in processes:
        process.start()
    tally = Tally()
    while True:
        running = any(process.is_alive() for process in processes)
        for run in plan.runs:
            identifier = run.id(slug)
            if identifier not in tally.statuses and (
                records.record_path(site.folder, identifier).exists()
            ):
                known = identifier in before
                tally.statuses[identifier] = Status.PRESENT if known else Status.RECORDED
                watcher.run_ended(run, tally.statuses[identifier])
        if not running:
            break
        time.sleep(_POLL_SECONDS)
    tally.seconds = time.monotonic() - started
    if any(process.exitcode for process in processes):
        raise NinlabError("a worker stopped with an error, printed above; start again to resume")
    for run in plan.runs:
        tally.statuses.setdefault(run.id(slug), Status.NO_TIME)
    return tally


# ---------------------------------------------------------------- a Ray cluster


def record_with_ray(
    plan: Plan,
    site: Site,
    *,
    budget_seconds: float | None = None,
    watcher: Watcher | None = None,
    gpus_per_run: float = 0.0,
) -> Tally:
    """Make the plan's runs as Ray tasks: one CPU and that share of a GPU a run.

    Joins the cluster that RAY_ADDRESS names, or starts one on this machine. site.folder must be
    the same folder on every machine of it. Raises NinlabError when ray is not installed or the
    cluster has no room for a single run.
    """
    try:
        import ray
    except ImportError:
        raise NinlabError(
            "the executor ray needs the package ray; install it with pip install 'ninlab[ray]'"
        ) from None
    watcher = watcher or _Silent()
    joined = ray.is_initialized()
    if not joined:
        ray.init(log_to_driver=False)
    try:
        resources = ray.cluster_resources()
        rooms = [resources.get("CPU", 0.0)]
        if gpus_per_run:
            rooms.append(resources.get("GPU", 0.0) / gpus_per_run)
        slots = int(min(rooms))
        if slots < 1:
            raise NinlabError(
                f"the cluster has {resources.get('CPU', 0):g} CPUs and {resources.get('GPU', 0):g} "
                f"GPUs, too few for one run of 1 CPU and {gpus_per_run:g} GPUs"
            )
        task = ray.remote(num_cpus=1, num_gpus=gpus_per_run, max_retries=0)(make_run)
        return _dispatch(plan, site, _Clock(budget_seconds), watcher, slots, ray, task)
    finally:
        if not joined:
            ray.shutdown()


def _dispatch(
    plan: Plan, site: Site, clock: _Clock, watcher: Watcher, slots: int, ray: Any, task: Any
) -> Tally:
    """Keep every slot busy with the first run that is ready, until none is left or fits."""
    slug = site.device_slug
    tally = Tally({run.id(slug): Status.NO_TIME for run in plan.runs})
    queue = list(plan.runs)
    flying: dict[Any, tuple[PlannedRun, float]] = {}
    while True:
        for run in list(queue):
            if len(flying) == slots:
                break
            sources = _recorded(run.rate_sources(slug), site.folder)
            if ready_recipe(run, sources, slug) is None:
                tally.statuses[run.id(slug)] = Status.WAITING
            elif clock.fits(run):
                queue.remove(run)
                watcher.run_started(run, run.variant.recipe.steps)
                flying[task.remote(run, site)] = (run, time.monotonic())
            else:
                tally.statuses[run.id(slug)] = Status.NO_TIME
        if not flying:
            tally.seconds = clock.elapsed
            return tally
        done, _ = ray.wait(list(flying), num_returns=1)
        for reference in done:
            run, started = flying.pop(reference)
            status = ray.get(reference)
            if status is Status.RECORDED:
                clock.took(run, time.monotonic() - started)
            tally.statuses[run.id(slug)] = status
            watcher.run_ended(run, status)
