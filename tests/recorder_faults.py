"""Faults thrown at recorders, and what is left of their work.

``python -m tests.recorder_faults --count 1000`` injects that many. A fault hits the command
``record`` on a plan of five runs that take no time. What it leaves is examined; then the command is
started again without a fault and must complete the plan. Fault i is the same in every call.
"""

import argparse
import errno
import fcntl
import multiprocessing
import os
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from random import Random
from typing import Any

from ninlab import experiments, failures, recording, records
from ninlab.__main__ import main
from ninlab.failures import FailureRecord
from ninlab.recording import making
from ninlab.recording.tasks import Answer, Made, Task
from tests.recorders import IDS, PLAN, REAL_SERVE, SERVER, train_at_once
from tests.records import NOBODY

BAD = ("lost", "half-written", "made twice", "silent", "tracebacks")
"""What must never happen."""

CALLS = ((os, "fchmod"), (os, "fsync"), (os, "link"), (os, "replace"), (os, "unlink"),
         (os, "open"), (fcntl, "flock"))  # fmt: skip
"""What a recorder asks of the system on a record's way to the disk."""

MEMORY = Path("/dev/shm")
"""A folder that waits for no disk, where the system has one."""

Action = Callable[[], object]


# ---------------------------------------------------------------- what goes wrong


def at_call(number: int | None, action: Action) -> None:
    """Do that before the call of that number, of all `CALLS` of this process; None for each."""
    made = 0

    def disturbed(call: Callable[..., object], *arguments: Any, **named: Any) -> object:
        nonlocal made
        made += 1
        if number in (made, None):
            action()
        return call(*arguments, **named)

    for module, name in CALLS:
        setattr(module, name, partial(disturbed, getattr(module, name)))


def in_run(number: int, action: Action) -> None:
    """Do that in the run of that number, counted by this process."""
    train, made = making.train, 0

    def troubled(*arguments: Any, **options: Any) -> object:
        nonlocal made
        made += 1
        if made == number:
            action()
        return train(*arguments, **options)

    making.train = troubled


REAL_MAKE = making.make


def in_worker(scene: "Scene", number: int, action: Action) -> None:
    """Do that in the run of that number of a worker process, in one of them and once."""
    fork = multiprocessing.get_context("fork")  # which is quick, and no GPU is near
    recording.apart.multiprocessing.get_context = lambda method: fork
    recording.apart._serve = partial(serve, scene, number, action)


def serve(scene: "Scene", number: int, action: Action, talk: Connection, stack: Connection) -> None:
    flag = scene.folder / "once"

    def once() -> None:
        if not flag.exists():
            flag.touch()
            action()

    scene.prepare()
    in_run(number, once)
    REAL_SERVE(talk, stack)


def be_killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def be_refused(code: int) -> None:
    raise OSError(code, os.strerror(code))


def fail(kind: type[Exception]) -> None:
    raise kind("a fault")


def refusal(chance: Random) -> Action:
    codes = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EACCES, errno.EROFS)
    return partial(be_refused, chance.choice(codes))


# ---------------------------------------------------------------- one recorder


class Scene:
    """A runs folder, and what became of the recorders that worked on it."""

    def __init__(self, folder: Path, calls: int = 0) -> None:
        self.folder, self.calls = folder, calls  # of an undisturbed recorder
        self.runs, self.spare = folder / "runs", folder / "spare"
        self.runs.mkdir()
        self.spare.mkdir()
        self.bad: Counter[str] = Counter()
        self.said = ""
        self.in_hand = 0
        """How many runs were in the hands of recorders and workers that did not end well."""

    def start(self, *disturb: Action, workers: int = 1) -> list[int]:
        """Exit codes of as many recorders at the same time as there are disturbances."""
        processes = [
            SERVER.Process(target=self.record, args=(self.folder / f"said-{n}", one, workers))
            for n, one in enumerate(disturb)
        ]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        codes = [process.exitcode or 0 for process in processes]
        self.said = "".join((self.folder / f"said-{n}").read_text() for n in range(len(disturb)))
        self.bad["tracebacks"] += "Traceback" in self.said
        self.in_hand += workers * sum(code != 0 for code in codes)
        return codes

    def record(self, said: Path, disturb: Action, workers: int) -> None:
        """Be a recorder, which prints into that file."""
        with said.open("w") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        tempfile.tempdir = str(self.spare)
        experiments.plans.PLANS = {"tiny": PLAN}
        records.provenance = lambda command: NOBODY
        self.prepare()
        disturb()
        arguments = ["record", "--plan", "tiny", "--device", "cpu", "--allow-dirty"]
        sys.exit(main([*arguments, "--runs", str(self.runs), "--workers", str(workers)]))

    def prepare(self) -> None:
        """Runs of this process take no time and are written down, once each."""
        making.train = train_at_once
        making.make = lambda task, *rest: self._watch(task, REAL_MAKE(task, *rest))

    def _watch(self, task: Task, answer: Answer) -> Answer:
        if isinstance(answer, Made):
            with open(self.folder / "made", "a") as file:
                file.write(f"{task.identifier}\n")
        return answer

    def made(self) -> list[str]:
        """The runs that were made, each as often, whether they were written or not."""
        path = self.folder / "made"
        return path.read_text().splitlines() if path.exists() else []

    def recorded(self) -> set[str]:
        return {run.id for run in records.load(self.runs)}

    def laid_aside(self) -> set[str]:
        return {run.id for folder in self.spare.iterdir() for run in records.load(folder)}

    def failed(self) -> set[str]:
        return {failure.run for failure in failures.load(self.runs)}

    def some_call(self, chance: Random) -> int:
        """The number of one of the calls that a recorder makes."""
        return chance.randint(1, self.calls)

    def problems(self) -> list[str]:
        readers = {failures.KIND: FailureRecord.from_json}
        folders = (self.runs, *self.spare.iterdir())
        return [one for folder in folders for one in records.problems(folder, readers)]


# ---------------------------------------------------------------- one fault


def killed_at_a_call(scene: Scene, chance: Random) -> list[int]:
    return scene.start(partial(at_call, scene.some_call(chance), be_killed))


def refused_a_call(scene: Scene, chance: Random) -> list[int]:
    return scene.start(partial(at_call, scene.some_call(chance), refusal(chance)))


def killed_in_a_run(scene: Scene, chance: Random) -> list[int]:
    return scene.start(partial(in_run, chance.randint(1, len(IDS)), be_killed))


def raises_in_a_run(scene: Scene, chance: Random) -> list[int]:
    error = chance.choice((RuntimeError, MemoryError, OSError))
    return scene.start(partial(in_run, chance.randint(1, len(IDS)), partial(fail, error)))


def two_recorders_work_side_by_side(scene: Scene, chance: Random) -> list[int]:
    return scene.start(in_peace, in_peace)


def one_of_two_recorders_is_killed(scene: Scene, chance: Random) -> list[int]:
    return scene.start(partial(at_call, scene.some_call(chance), be_killed), in_peace)


def one_of_two_recorders_is_refused_a_call(scene: Scene, chance: Random) -> list[int]:
    return scene.start(partial(at_call, scene.some_call(chance), refusal(chance)), in_peace)


def killed_beside_a_claim_and_torn_files(scene: Scene, chance: Random) -> list[int]:
    tear(scene.runs, chance)
    waited_for_by_none = (IDS[0], IDS[1], IDS[-1])
    with records.claim(scene.runs, chance.choice(waited_for_by_none)):
        return killed_at_a_call(scene, chance)


def refused_a_call_beside_torn_files(scene: Scene, chance: Random) -> list[int]:
    tear(scene.runs, chance)
    return refused_a_call(scene, chance)


def a_worker_is_killed(scene: Scene, chance: Random) -> list[int]:
    scene.in_hand += 1
    return scene.start(partial(in_worker, scene, chance.randint(1, 2), be_killed), workers=2)


def a_recorder_with_workers_is_killed(scene: Scene, chance: Random) -> list[int]:
    return scene.start(partial(killed_with_workers, scene, scene.some_call(chance)), workers=2)


def killed_with_workers(scene: Scene, call: int) -> None:
    in_worker(scene, len(IDS) + 1, in_peace)
    at_call(call, be_killed)


def in_peace() -> None:
    pass


KINDS = (
    killed_at_a_call,
    refused_a_call,
    killed_in_a_run,
    raises_in_a_run,
    two_recorders_work_side_by_side,
    one_of_two_recorders_is_killed,
    one_of_two_recorders_is_refused_a_call,
    killed_beside_a_claim_and_torn_files,
    refused_a_call_beside_torn_files,
    a_worker_is_killed,
    a_recorder_with_workers_is_killed,
)


def tear(runs: Path, chance: Random) -> None:
    """Lay down what recorders that were killed before may have left, and worse."""
    for path in (
        runs / f"{IDS[1]}.safetensors",
        runs / "one_by_one" / ".nin_28-seed0-cpu.json.host.1.tmp",
        records.claim_note(runs, IDS[0], "lock"),
        records.claim_note(runs, IDS[2], "stack"),
    ):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"a try without a graph\nFile"[: chance.randint(0, 30)])


def examine(scene: Scene, codes: list[int]) -> None:
    """Count what is bad right after the fault."""
    # Weights come before their record: what was ended between them makes that run again.
    waiting = "the weights of no record"
    scene.bad["half-written"] += sum(waiting not in problem for problem in scene.problems())
    survived = [code for code in codes if code >= 0]
    gone = set(scene.made()) - scene.recorded() - scene.laid_aside()
    if len(survived) == len(codes):  # what was made is there, be it laid aside
        scene.bad["lost"] += len(gone)
    else:  # who was killed had no more than this in hand
        scene.bad["lost"] += max(0, len(gone) - scene.in_hand)
    scene.bad["silent"] += any(survived) and "error: " not in scene.said
    missing = set(IDS) - scene.recorded() - scene.failed()
    says_so = "0 in other hands, 0 waiting" not in scene.said
    scene.bad["silent"] += codes == [0] and bool(missing) and not says_so


def examine_all(scene: Scene) -> None:
    """Start again, and count what is bad when the plan should be complete."""
    before = {path: path.read_bytes() for path in scene.runs.glob("*/*.json")}
    scene.bad["lost"] += scene.start(in_peace) != [0]
    scene.bad["lost"] += len(set(IDS) - scene.recorded() - scene.failed())
    scene.bad["lost"] += sum(path.read_bytes() != was for path, was in before.items())
    scene.bad["half-written"] += len(scene.problems())
    made = scene.made()
    scene.bad["made twice"] += max(0, len(made) - len(set(made)) - scene.in_hand)


def count_calls() -> int:
    """How many `CALLS` an undisturbed recorder makes."""
    where = MEMORY if MEMORY.is_dir() else None
    with tempfile.TemporaryDirectory(dir=where) as name:
        scene = Scene(Path(name))
        log = scene.folder / "calls"
        scene.start(partial(at_call, None, partial(count_one, log)))
        return log.stat().st_size


def count_one(log: Path) -> None:
    with log.open("ab") as file:
        file.write(b".")


def inject(count: int, report: Callable[[int, str, Counter[str]], object]) -> Counter[str]:
    """How often each kind of bad happened in so many faults, which are reported one by one."""
    bad: Counter[str] = Counter()
    where = MEMORY if MEMORY.is_dir() else None
    calls = count_calls()
    for number in range(count):
        kind = KINDS[number % len(KINDS)]
        with tempfile.TemporaryDirectory(dir=where) as name:
            scene = Scene(Path(name), calls)
            examine(scene, kind(scene, Random(number)))
            examine_all(scene)
        bad += scene.bad
        report(number, kind.__name__, +scene.bad)
    return bad


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=100)
    asked = parser.parse_args().count

    def tell(number: int, kind: str, bad: Counter[str]) -> None:
        if bad:
            print(f"fault {number}, {kind}: {dict(bad)}", flush=True)

    found = inject(asked, tell)
    print(f"{asked} faults: " + ", ".join(f"{found[kind]} {kind}" for kind in BAD))
    sys.exit(bool(found.total()))
