"""Which run is made next, by whom, and what becomes of it? The one loop of every recorder.

It keeps an executor of `concurrent.futures` busy: with the first run of the plan that is not there,
has not failed, is in no other recorder's hands, knows its learning rate and fits into the time that
is left. The recorder claims a run before it submits it and writes what comes back; who makes the
run writes nothing.

An error stops the submitting, not the runs in flight: they are awaited and written first.
"""

from __future__ import annotations

import time
from collections import Counter
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace

from ninlab import records
from ninlab.errors import NinlabError, RecordError, one_sentence
from ninlab.experiments import Plan, PlannedRun, Ready, ready
from ninlab.failures import Cause, FailureRecord
from ninlab.recording.clock import Clock
from ninlab.recording.keeping import Keeper, lost_its_graph, stack_file, take_note
from ninlab.recording.site import DeviceLostError, Site, Tally
from ninlab.recording.tasks import Answer, Failed, Killed, Made, Refused, Task, Work
from ninlab.records import RunRecord
from ninlab.watching import Status, Watcher

_POLL_SECONDS = 1.0
_MOST_KILLS = 2


@dataclass(frozen=True)
class Makers:
    """Who makes runs: an executor, what it is to do with a task, and how many at a time.

    deaths are the exceptions of its futures that mean that a worker was killed.
    """

    executor: Executor
    work: Work
    slots: int = 1
    deaths: tuple[type[Exception], ...] = ()


def dispatch(
    plan: Plan, site: Site, makers: Makers, *, deadline: float | None, watcher: Watcher
) -> Tally:
    """What became of every run of the plan, when all that can be made is made.

    deadline is a time of day in seconds since 1970. A run is not started when its estimate,
    corrected by what earlier runs took, goes beyond it; a shorter one after it may still fit. While
    other recorders hold the sweep that a run waits for, this one waits too. A run whose worker was
    killed is made once more. Raises NinlabError for the first thing that went wrong with the
    recording itself, what was made being safe.
    """
    return _Dispatch(plan, site, makers, deadline, watcher).finish()


class _Dispatch:
    def __init__(
        self, plan: Plan, site: Site, makers: Makers, deadline: float | None, watcher: Watcher
    ) -> None:
        self._plan, self._site, self._makers, self._watcher = plan, site, makers, watcher
        self._clock = Clock(plan, site, deadline)
        self._keeper = Keeper(site.folder)
        self._statuses: dict[str, Status] = {}
        self._recorded: dict[str, RunRecord] = {}  # read already: a record never changes
        self._flying: dict[Future[Answer], tuple[PlannedRun, ExitStack]] = {}
        self._kills: Counter[str] = Counter()
        self._error: Exception | None = None
        self._stopped = False

    def finish(self) -> Tally:
        try:
            self._check_kernels_of_all()
            self._check_room_of_all()
            while True:
                self._submit()
                if self._flying:
                    self._land()
                elif self._stopped or not self._others_make_what_is_missing():
                    break
        finally:
            for _, claim in self._flying.values():
                claim.close()
        if self._error is not None:
            raise self._error
        ids = [self._id(run) for run in self._plan.runs]
        return Tally({one: self._statuses[one] for one in ids}, self._clock.elapsed)

    def _id(self, run: PlannedRun) -> str:
        return run.id(self._site.device_slug)

    def _is_over(self, run: PlannedRun) -> Status | None:
        """Recorded or failed, be it by others; else None."""
        identifier = self._id(run)
        if records.record_path(self._site.folder, identifier).exists():
            return Status.PRESENT
        return Status.FAILED if self._site.has_failed(identifier) else None

    # ------------------------------------------------------------ before runs

    def _check_kernels_of_all(self) -> None:
        """Raises NinlabError for a row whose recorded seeds have other kernels than it plans."""
        slug = self._site.device_slug
        missing = {
            (run.experiment, run.row.name): run
            for run in self._plan.runs
            if self._is_over(run) is None
        }
        for run in missing.values():
            for seed in range(run.row.seeds):
                made = self._read(replace(run, seed=seed).id(slug))
                if made is not None and made.recipe.kernels is not run.row.recipe.kernels:
                    raise NinlabError(
                        f"{made.id} is recorded with {made.recipe.kernels} kernels and cannot "
                        f"share its row with {run.row.recipe.kernels} ones; give them a row of "
                        "their own"
                    )

    def _check_room_of_all(self) -> None:
        """Every experiment's folder is tried by writing to it: not hours later."""
        missing = [run for run in self._plan.runs if self._is_over(run) is None]
        for run in {run.experiment: run for run in missing if self._clock.fits(run)}.values():
            self._keeper.check_room(run, self._site.device_slug)

    def _submit(self) -> None:
        """Give every free slot a run, as far as there are runs that can be made."""
        try:
            for run in self._plan.runs:
                if self._stopped or len(self._flying) == self._makers.slots:
                    return
                if self._is_done_with(run):
                    continue
                status = self._submitted(run)
                if status is not None:
                    self._set(run, status)
        except Exception as error:
            self._stop(error)

    def _is_done_with(self, run: PlannedRun) -> bool:
        """Whether it is in flight, over, or given up."""
        identifier = self._id(run)
        status = self._statuses.get(identifier)
        return (
            any(run is one for one, _ in self._flying.values())
            or (status is not None and status.is_over)
            or self._kills[identifier] == _MOST_KILLS
        )

    def _submitted(self, run: PlannedRun) -> Status | None:
        """None if the run is in flight now, else why it is not."""
        site, identifier = self._site, self._id(run)
        over = self._is_over(run)
        if over is not None:
            return over
        if not self._clock.fits(run):
            return Status.NO_TIME
        known = self._ready(run)
        if known is None:
            return Status.WAITING
        with ExitStack() as claim:
            if not claim.enter_context(records.claim(site.folder, identifier)):
                return Status.CLAIMED
            over = self._is_over(run)  # by others, between the look and the claim
            if over is not None:
                return over
            task = self._task(run, known)
            failure = take_note(task, site)
            if failure is not None:
                self._watcher.run_stumbled(run, failure.sentence)
                return self._noted(failure)
            self._keeper.check_room(run, self._site.device_slug)
            self._watcher.run_started(run, run.row.recipe.steps)
            future = self._makers.executor.submit(self._makers.work, task)
            self._flying[future] = run, claim.pop_all()
        return None

    def _task(self, run: PlannedRun, known: Ready) -> Task:
        site = self._site
        return Task(
            run,
            known,
            device=site.device,
            device_slug=site.device_slug,
            provenance=site.provenance,
            code=site.code,
            threads=site.threads,
            eager=site.eager or lost_its_graph(site.folder, self._id(run)).exists(),
            hangs_after=self._clock.hangs_after(run, site.patience),
        )

    def _ready(self, run: PlannedRun) -> Ready | None:
        """The run's recipe, or None while runs that choose its rate may still be made."""
        slug = self._site.device_slug
        sources = run.rate_sources(slug)
        if not sources:
            return ready(run, {}, slug)
        siblings = [replace(run, seed=seed).id(slug) for seed in range(run.row.seeds)]
        recorded = {one: record for one in (*sources, *siblings) if (record := self._read(one))}
        return ready(run, recorded, slug, {one for one in sources if self._site.has_failed(one)})

    def _read(self, identifier: str) -> RunRecord | None:
        if identifier not in self._recorded:
            path = records.record_path(self._site.folder, identifier)
            if not path.exists():
                return None
            self._recorded[identifier] = records.read(path)
        return self._recorded[identifier]

    def _others_make_what_is_missing(self) -> bool:
        """Whether runs that wait may still become ready, after a pause: others are at work."""
        waiting = [
            run
            for run in self._plan.runs
            if self._statuses.get(self._id(run)) is Status.WAITING and not self._is_done_with(run)
        ]
        if any(self._ready(run) is not None for run in waiting):
            return True
        slug, folder = self._site.device_slug, self._site.folder
        sources = {source for run in waiting for source in run.rate_sources(slug)}
        missing = {one for one in sources if not records.record_path(folder, one).exists()}
        if not missing & set(records.claim_holders(folder)) or self._clock.left <= 0:
            return False
        time.sleep(_POLL_SECONDS)
        return True

    # ------------------------------------------------------------ after runs

    def _land(self) -> None:
        """Wait until a run ends, or others may have ended what a free slot waits for."""
        has_room = len(self._flying) < self._makers.slots and not self._stopped
        timeout = _POLL_SECONDS if has_room else None
        for future in wait(self._flying, timeout, FIRST_COMPLETED).done:
            run, claim = self._flying.pop(future)
            try:
                with claim:
                    status = self._kept(run, future)
                if status is not None:
                    self._set(run, status)
            except Exception as error:  # whatever it is, the other runs in flight are kept
                self._stop(error, run)

    def _kept(self, run: PlannedRun, future: Future[Answer]) -> Status | None:
        """What became of the run, once it is written; None if it is to be made again."""
        try:
            answer = future.result()
        except self._makers.deaths as error:
            answer = Killed(one_sentence(f"{type(error).__name__}: {error}", 200))
        if isinstance(answer, Refused):
            raise NinlabError(answer.sentence)
        if isinstance(answer, Killed):
            self._count_kill(run, answer.sentence)
            return None
        for sentence in answer.stumbles:
            self._watcher.run_stumbled(run, sentence)
        graph_note = lost_its_graph(self._site.folder, self._id(run))
        if isinstance(answer, Made):
            self._keeper.keep(answer)
            graph_note.unlink(missing_ok=True)
            self._recorded[self._id(run)] = answer.record
            self._clock.learn(answer.record)
            return Status.RECORDED
        return self._failed(run, answer)

    def _failed(self, run: PlannedRun, answer: Failed) -> Status:
        failure = answer.failure
        if failure.cause in (Cause.HUNG, Cause.CRASHED):
            self._watcher.run_stumbled(run, failure.sentence)
        if failure.cause is not Cause.DEVICE_LOST:
            return self._noted(failure)
        with suppress(OSError):  # that the device is lost weighs more
            if failure.tried_eagerly:
                self._noted(failure)
            else:  # the next start tries it without a graph
                lost_its_graph(self._site.folder, failure.run).touch()
        raise DeviceLostError(
            f"the device {self._site.device} is lost since {run.title}: {failure.sentence}"
        )

    def _noted(self, failure: FailureRecord) -> Status:
        self._keeper.note(failure)
        stack_file(self._site.folder, failure.run).unlink(missing_ok=True)
        return Status.FAILED

    def _count_kill(self, run: PlannedRun, sentence: str) -> None:
        """Once is bad luck. A run that is killed again is left, and then the recording failed."""
        self._watcher.run_stumbled(run, sentence)
        self._kills[self._id(run)] += 1
        if self._kills[self._id(run)] == _MOST_KILLS:
            self._error = self._error or NinlabError(
                f"the worker of {run.title} was killed twice: {sentence}; start again to resume"
            )

    def _stop(self, error: Exception, run: PlannedRun | None = None) -> None:
        """Submit nothing more. The first error is raised in the end, later ones are told."""
        self._stopped = True
        if isinstance(error, OSError):  # of a lock's or a stack's file, or of a log
            error = RecordError(f"recording into {self._site.folder} stopped: {error}")
        if self._error is None:
            self._error = error
        elif run is not None:
            self._watcher.run_stumbled(run, str(error))

    def _set(self, run: PlannedRun, status: Status) -> None:
        if self._statuses.get(self._id(run)) is not status:
            self._statuses[self._id(run)] = status
            self._watcher.run_ended(run, status)
