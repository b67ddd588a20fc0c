"""How does a plan become records? Runs are claimed, made and written, one at a time or many.

Any number of recorders may share one runs folder: each claims a run before it starts it, so
none is made twice, and a recorder that is killed loses the run in hand and nothing else. What
is recorded is never made again, so the next start resumes. A run that fails is tried once more
without a CUDA graph and then noted as failed; the rest goes on. A run that hangs or
crashes ends the process, and the next start notes it and goes on behind it.

Three ways to spread the work: this process alone, several processes on this machine, or a Ray
cluster. All three end in `make_run`.

ray is imported only where it is asked for.
"""

from __future__ import annotations

import faulthandler
import gc
import hashlib
import multiprocessing
import re
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import IO, Any

import torch

from ninlab import failures, records
from ninlab.environment import describe_device, describe_software
from ninlab.errors import NinlabError
from ninlab.experiments import Plan, PlannedRun, Ready, ready
from ninlab.failures import Cause, FailureRecord
from ninlab.records import Device, Provenance
from ninlab.training import TrainingRun, train, weights_bytes
from ninlab.watching import Status, Watcher

_POLL_SECONDS = 1.0
PATIENCE = 4.0
"""A run on a GPU has hung when it takes so many times its estimate, and a minute at least."""
_LEAST_PATIENCE_SECONDS = 60.0
_GUESSED = 2.5
"""How much more patience a run has before any run of the device has corrected the estimates."""
_EAGER_TRY = "a try without a graph\n"


class DeviceLostError(NinlabError):
    """The process cannot use its device any more; a new one may."""

    exit_code = 5


@dataclass(frozen=True)
class Site:
    """Where runs are made and kept. Small and picklable: it travels to workers.

    eager takes steps without a CUDA graph. patience is how many times its estimate a run may take
    before it counts as hung, where anything is known of the device; None waits for ever, as for a
    CPU that is merely slow.
    """

    folder: Path
    device: str  # as torch names it
    provenance: Provenance
    threads: int | None = None  # of a CPU run; None leaves torch's own choice
    eager: bool = False
    patience: float | None = None
    code: str | None = None  # `records.code_id` where it is that of a clean tree

    @cached_property
    def about(self) -> Device:
        """What a record says of the device."""
        return describe_device(torch.device(self.device))

    @property
    def device_slug(self) -> str:
        """What names the device in the ids of its records."""
        return self.about.slug

    def has_failed(self, identifier: str) -> bool:
        """Whether the run of that id came to nothing by this very code.

        Changed code may do better, and where nothing names it nobody knows whether it changed.
        """
        return self.code is not None and failures.has_failed(self.folder, identifier, self.code)


@dataclass
class Tally:
    """What a recording did: status of every run of the plan, by id."""

    statuses: dict[str, Status] = field(default_factory=dict)
    seconds: float = 0.0

    def ids(self, *statuses: Status) -> list[str]:
        """The runs in one of those states, in the plan's order."""
        return [identifier for identifier, status in self.statuses.items() if status in statuses]


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


# ---------------------------------------------------------------- one run


def make_run(
    run: PlannedRun,
    site: Site,
    watcher: Watcher | None = None,
    hangs_after: float | None = None,
) -> Status:
    """What became of the run: made and written, unless it is present, failed, claimed or waiting.

    A run that takes longer than hangs_after, in seconds, ends the process; the next call for the
    same run finds that out, and a crash of the process, too. Raises DataError and RecordError, with
    which the run is not recorded and can be made again, and DeviceLostError.
    """
    watcher = watcher or Watcher()
    identifier = run.id(site.device_slug)
    path = records.record_path(site.folder, identifier)
    if path.exists():
        return Status.PRESENT
    if site.has_failed(identifier):
        return Status.FAILED
    with records.claim(site.folder, identifier) as mine:
        if not mine:
            return Status.CLAIMED
        if path.exists():  # written by another between the look and the claim
            return Status.PRESENT
        sentence = take_note(identifier, site)
        if sentence is not None:
            watcher.run_stumbled(run, sentence)
            return Status.FAILED
        known = ready_here(run, site)
        if known is None:
            return Status.WAITING
        with _watched(_stack_file(site.folder, identifier), hangs_after) as stack:
            return _made(run, known, site, watcher, stack)


def ready_here(run: PlannedRun, site: Site) -> Ready | None:
    """The run's recipe, or None while runs that choose its learning rate may still be made."""
    slug = site.device_slug
    sources = run.rate_sources(slug)
    if not sources:
        return ready(run, {}, slug)
    siblings = [replace(run, seed=seed).id(slug) for seed in range(run.row.seeds)]
    paths = {one: records.record_path(site.folder, one) for one in (*sources, *siblings)}
    recorded = {one: records.read(path) for one, path in paths.items() if path.exists()}
    return ready(run, recorded, slug, {source for source in sources if site.has_failed(source)})


def _made(run: PlannedRun, known: Ready, site: Site, watcher: Watcher, stack: IO[str]) -> Status:
    """The run made and recorded, or noted as failed."""
    identifier = run.id(site.device_slug)
    if site.threads is not None:
        torch.set_num_threads(site.threads)
    provenance = replace(site.provenance, utc=records.utc_now())
    lost_its_graph = records.claim_note(site.folder, identifier, "graph-lost-the-device")
    only_eager = site.eager or lost_its_graph.exists() or not _has_graphs(site.device)
    for eager in (True,) if only_eager else (False, True):
        stack.write(_EAGER_TRY if eager else "a try with a graph\n")
        stack.flush()
        try:
            result = train(
                run.row.network, known.recipe, seed=run.seed, device=site.device,
                use_graph=not eager, on_step=watcher.step_taken,
            )  # fmt: skip
            _write(run, result, known, site, provenance)
        except NinlabError:
            raise
        except Exception as error:  # one failing run never ends the rest
            sentence = f"{type(error).__name__}: {' '.join(str(error).split())}"[:500]
            cause = Cause.RAISED
            if isinstance(error, torch.OutOfMemoryError | MemoryError):
                cause = Cause.OUT_OF_MEMORY
        else:
            lost_its_graph.unlink(missing_ok=True)
            return Status.RECORDED
        watcher.run_stumbled(run, sentence)
        gc.collect()  # the error held the frames of the run, and they its tensors
        if _is_lost(site.device):
            if eager:
                _note(site, identifier, Cause.DEVICE_LOST, sentence, tried_eagerly=True)
            else:
                lost_its_graph.touch()  # the next start tries it without one
            raise DeviceLostError(f"the device {site.device} is lost since {run.title}: {sentence}")
    _note(site, identifier, cause, sentence, tried_eagerly=True)
    return Status.FAILED


def _write(
    run: PlannedRun, result: TrainingRun, known: Ready, site: Site, provenance: Provenance
) -> None:
    """Keep the run's weights, if its plan says so, and then its record."""
    slug = site.device_slug
    digest = None
    if run.keeps_weights:
        weights = weights_bytes(result.network)
        digest = hashlib.sha256(weights).hexdigest()
        records.write_bytes(records.weights_path(site.folder, run.id(slug)), weights)
    records.write(
        site.folder,
        result.record(
            experiment=run.experiment,
            name=run.row.name,
            provenance=provenance,
            learning_rate_from=known.chosen_by,
            weights_sha256=digest,
        ),
    )


def _note(site: Site, identifier: str, cause: Cause, sentence: str, *, tried_eagerly: bool) -> None:
    """Write down that the run came to nothing."""
    failure = FailureRecord(
        run=identifier,
        cause=cause,
        sentence=sentence,
        tried_eagerly=tried_eagerly,
        code=site.code,
        provenance=replace(site.provenance, utc=records.utc_now()),
        device=site.about,
        software=describe_software(),
    )
    path = records.record_path(site.folder, failure.id)
    if not path.exists():  # without code to tell them apart, the first failure stays
        records.write_json_once(path, failure.to_json())


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


def _stack_file(folder: Path, identifier: str) -> Path:
    """Where the stack is written of the process that makes this run, should it hang or crash."""
    return records.claim_note(folder, identifier, "stack")


@contextmanager
def _watched(stack: Path, seconds: float | None) -> Iterator[IO[str]]:
    """Write the stack to that file if the process crashes in the block, or is in it for so long.

    The latter ends the process. Both watches are faulthandler's: they need no Python, so that they
    wake whatever the process is in.
    """
    watched_before = faulthandler.is_enabled()
    with stack.open("w") as file:
        faulthandler.enable(file)
        if seconds is not None:
            faulthandler.dump_traceback_later(seconds, exit=True, file=file)
        try:
            yield file
        finally:
            faulthandler.cancel_dump_traceback_later()
            faulthandler.disable()
            if watched_before and sys.__stderr__ is not None:
                faulthandler.enable(sys.__stderr__)
            stack.unlink(missing_ok=True)


def take_note(identifier: str, site: Site) -> str | None:
    """Write down that a process hung or crashed in this run, and say where; None if none did.

    To be called by who has claimed the run.
    """
    path = _stack_file(site.folder, identifier)
    try:
        stack = path.read_text()
    except FileNotFoundError:
        return None
    ended = _how_it_ended(stack)
    if ended is None:  # the process was killed by others
        return None
    cause, sentence = ended
    _note(site, identifier, cause, sentence, tried_eagerly=_EAGER_TRY in stack)
    path.unlink()
    return sentence


def _how_it_ended(stack: str) -> tuple[Cause, str] | None:
    """How the process ended that left this stack, and where; None if it only stopped."""
    frame = re.search(r'File "[^"]*(ninlab/[^"]+)", line (\d+) in (\w+)', stack)
    place = f", in {frame[3]} ({frame[1]}, line {frame[2]})" if frame else ""
    if timeout := re.search(r"Timeout \(([\d:.]+)\)", stack):
        return Cause.HUNG, f"it had not ended after {timeout[1]}{place}"
    if crash := re.search(r"Fatal Python error: (.+)", stack):
        return Cause.CRASHED, f"its process crashed: {crash[1]}{place}"
    return None


# ---------------------------------------------------------------- in this process


def record(
    plan: Plan, site: Site, *, deadline: float | None = None, watcher: Watcher | None = None
) -> Tally:
    """Make every run of the plan that is not recorded, in order, in this process.

    deadline is a time of day in seconds since 1970. A run is not started when its estimate,
    corrected by what earlier runs took, goes beyond it; a shorter one after it may still fit. While
    other recorders hold the sweep that a run waits for, this one waits too. Raises DeviceLostError
    when the device is lost, what was recorded before being safe.
    """
    watcher = watcher or Watcher()
    clock = Clock(plan, site, deadline)
    tally = Tally()
    slug = site.device_slug
    while True:
        for run in plan.runs:
            before = tally.statuses.get(run.id(slug))
            if before in (Status.RECORDED, Status.PRESENT, Status.FAILED):
                continue
            path = records.record_path(site.folder, run.id(slug))
            if not path.exists() and not site.has_failed(run.id(slug)) and not clock.fits(run):
                status = Status.NO_TIME
            else:
                watcher.run_started(run, run.row.recipe.steps)
                status = make_run(run, site, watcher, clock.hangs_after(run, site.patience))
                if status is Status.RECORDED:
                    clock.learn(path)
            tally.statuses[run.id(slug)] = status
            watcher.run_ended(run, status)
        tally.seconds = clock.elapsed
        blocked = tally.ids(Status.WAITING)
        if not blocked or not _others_make(plan, blocked, site, clock):
            return tally


def _others_make(plan: Plan, blocked: Sequence[str], site: Site, clock: Clock) -> bool:
    """Whether the blocked runs may still become ready, after a pause: others are at work."""
    slug = site.device_slug
    waiting = [run for run in plan.runs if run.id(slug) in blocked]
    if any(ready_here(run, site) is not None for run in waiting):
        return True
    sources = {source for run in waiting for source in run.rate_sources(slug)}
    missing = {s for s in sources if not records.record_path(site.folder, s).exists()}
    if not missing & set(records.claim_holders(site.folder)) or clock.left <= 0:
        return False
    time.sleep(_POLL_SECONDS)
    return True


class Clock:
    """How much time is left, and whether a run fits into it.

    Estimates are corrected by all runs that this device has made, before and since.
    """

    def __init__(self, plan: Plan, site: Site, deadline: float | None) -> None:
        self._start = time.time()
        self._deadline = float("inf") if deadline is None else deadline
        self._estimates = plan.estimates(records.load(site.folder), site.about)

    @property
    def elapsed(self) -> float:
        """Seconds since the recording began."""
        return time.time() - self._start

    @property
    def left(self) -> float:
        """Seconds to the deadline; infinite without one."""
        return self._deadline - time.time()

    def expected(self, run: PlannedRun) -> float:
        """Seconds that the run should take."""
        return self._estimates.seconds(run.row.network, run.row.recipe)

    def hangs_after(self, run: PlannedRun, patience: float | None) -> float | None:
        """Seconds after which the run has hung, for somebody of that patience.

        A guess by the device's own data sheet is given more of it. None where no run of the device
        and no data sheet tells how long a run may take.
        """
        if patience is None or not self._estimates.of_the_device:
            return None
        if not self._estimates.corrected:
            return max(_GUESSED * patience * self.expected(run), 3 * _LEAST_PATIENCE_SECONDS)
        return max(patience * self.expected(run), _LEAST_PATIENCE_SECONDS)

    def fits(self, run: PlannedRun) -> bool:
        """Whether the run should end before the deadline."""
        return self.expected(run) <= self.left

    def learn(self, path: Path) -> None:
        """Correct what is expected by the record of a run that was just made."""
        self._estimates.add(records.read(path))


# ---------------------------------------------------------------- several processes


def record_with_workers(
    plan: Plan,
    site: Site,
    *,
    workers: int,
    deadline: float | None = None,
    watcher: Watcher | None = None,
) -> Tally:
    """Make the plan's runs with that many recorders on this machine, one process each.

    Raises NinlabError for fewer than one worker, and when a worker failed.
    """
    if workers < 1:
        raise NinlabError(f"{workers} workers cannot record; take at least 1")
    if workers == 1:
        return record(plan, site, deadline=deadline, watcher=watcher)
    watcher = watcher or Watcher()
    started = time.monotonic()
    slug = site.device_slug
    before = {
        r.id(slug) for r in plan.runs if records.record_path(site.folder, r.id(slug)).exists()
    }
    context = multiprocessing.get_context("spawn")  # a forked CUDA context does not work
    processes = [context.Process(target=_work, args=(plan, site, deadline)) for _ in range(workers)]
    for process in processes:
        process.start()
    tally = Tally()
    while True:
        running = any(process.is_alive() for process in processes)
        for run in plan.runs:
            identifier = run.id(slug)
            if identifier in tally.statuses:
                continue
            if records.record_path(site.folder, identifier).exists():
                known = identifier in before
                tally.statuses[identifier] = Status.PRESENT if known else Status.RECORDED
            elif site.has_failed(identifier):
                tally.statuses[identifier] = Status.FAILED
            else:
                continue
            watcher.run_ended(run, tally.statuses[identifier])
        if not running:
            break
        time.sleep(_POLL_SECONDS)
    tally.seconds = time.monotonic() - started
    if any(process.exitcode == DeviceLostError.exit_code for process in processes):
        raise DeviceLostError("a worker lost the device, as printed above; start again to resume")
    if any(process.exitcode for process in processes):
        raise NinlabError("a worker stopped with an error, printed above; start again to resume")
    for run in plan.runs:
        tally.statuses.setdefault(run.id(slug), Status.NO_TIME)
    return tally


def _work(plan: Plan, site: Site, deadline: float | None) -> None:
    """What a worker does; an error is printed, and its exit code is the error's."""
    try:
        record(plan, site, deadline=deadline)
    except NinlabError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


# ---------------------------------------------------------------- a Ray cluster


def record_with_ray(
    plan: Plan,
    site: Site,
    *,
    deadline: float | None = None,
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
    watcher = watcher or Watcher()
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
        return _dispatch(plan, site, Clock(plan, site, deadline), watcher, slots, ray, task)
    finally:
        if not joined:
            ray.shutdown()


def _dispatch(
    plan: Plan, site: Site, clock: Clock, watcher: Watcher, slots: int, ray: Any, task: Any
) -> Tally:
    """Keep every slot busy with the first run that is ready, until none is left or fits."""
    slug = site.device_slug
    tally = Tally({run.id(slug): Status.NO_TIME for run in plan.runs})
    queue = list(plan.runs)
    flying: dict[Any, PlannedRun] = {}
    while True:
        for run in list(queue):
            if len(flying) == slots:
                break
            if ready_here(run, site) is None:
                tally.statuses[run.id(slug)] = Status.WAITING
            elif clock.fits(run):
                queue.remove(run)
                watcher.run_started(run, run.row.recipe.steps)
                flying[task.remote(run, site, None, clock.hangs_after(run, site.patience))] = run
            else:
                tally.statuses[run.id(slug)] = Status.NO_TIME
        if not flying:
            tally.seconds = clock.elapsed
            return tally
        done, _ = ray.wait(list(flying), num_returns=1)
        for reference in done:
            run = flying.pop(reference)
            try:
                status = ray.get(reference)
            except ray.exceptions.WorkerCrashedError:
                with records.claim(site.folder, run.id(slug)) as mine:
                    sentence = take_note(run.id(slug), site) if mine else None
                if sentence is None:
                    raise NinlabError(
                        f"the worker of {run.title} was killed; start again to resume"
                    ) from None
                watcher.run_stumbled(run, sentence)
                status = Status.FAILED
            if status is Status.RECORDED:
                clock.learn(records.record_path(site.folder, run.id(slug)))
            tally.statuses[run.id(slug)] = status
            watcher.run_ended(run, status)
