"""What was measured, on what, by which code? One JSON file a run, written once.

A record is the only way in which a measured number enters the book. It is written whole
or not at all, never changed and never overwritten: a correction is a new record that
names the old one in ``corrects``. Failed runs stay.

`claim` makes sure that two recorders on one folder never do the same run twice. It holds a
kernel file lock, which dies with its process: a killed recorder leaves nothing that another
would have to judge stale. On a folder shared between machines that needs a file system with
POSIX locks (NFS version 4 has them).

pandas is imported where a frame is asked for. Known limit: recording needs a POSIX system; reading
does not.
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import re
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, ClassVar, Protocol, TypeVar

from ninlab.errors import NinlabError, RecordError
from ninlab.recipes import Recipe
from ninlab.units import Shape

if TYPE_CHECKING:
    import pandas as pd
    from _typeshed import DataclassInstance

SCHEMA_VERSION = 1
TRAINING = "training"
"""The ``kind`` of a training run's record; other measurements may lie in the same folder."""

_SLUG = re.compile(r"[a-z0-9][a-z0-9_.-]*")
_CLAIMS_FOLDER = ".claims"


class Outcome(StrEnum):
    """How a run ended."""

    FINISHED = "finished"
    DIVERGED = "diverged"  # a loss that is not a finite number; the run stops after that epoch
    STUCK = "stuck"  # the last epoch's training loss is no better than a guess's


# ---------------------------------------------------------------- the schema


@dataclass(frozen=True)
class DataSet:
    """Which images were seen. Sums are sha256 of the decompressed files."""

    name: str
    sha256: Mapping[str, str]
    train_images: int
    evaluation_images: int


@dataclass(frozen=True)
class Device:
    """What the run ran on. slug names it in file names; driver and power limit are a GPU's."""

    slug: str
    name: str
    memory_bytes: int
    threads: int | None = None  # of a CPU run
    driver: str | None = None
    power_limit_watts: float | None = None


@dataclass(frozen=True)
class Software:
    """The versions that computed the run."""

    python: str
    torch: str
    ninlab: str
    cuda: str | None = None
    cudnn: str | None = None


@dataclass(frozen=True)
class Provenance:
    """Which code was called how and when. commit is None outside a git checkout."""

    utc: str
    command: str
    commit: str | None
    clean_tree: bool


@dataclass(frozen=True)
class LossCurve:
    """Training loss, thinned: values[i] is the mean over steps [i * every, (i + 1) * every).

    A value is None where the loss was not finite. Six significant digits are kept.
    """

    every: int
    values: tuple[float | None, ...]

    @classmethod
    def thinned(cls, losses: Sequence[float], points: int = 256) -> LossCurve:
        """The curve of these losses in at most that many points."""
        every = max(1, math.ceil(len(losses) / points))
        chunks = (losses[i : i + every] for i in range(0, len(losses), every))
        return cls(every, tuple(finite(sum(chunk) / len(chunk)) for chunk in chunks))


@dataclass(frozen=True)
class EpochResult:
    """One pass over the training images, and the evaluation after it.

    train_accuracy and train_loss are means over the epoch, taken before each step with
    dropout on. dead_classes counts the classes whose score is exactly 0 on every evaluated
    image. A loss is None where it was not finite. seconds is training, without evaluation.
    """

    epoch: int  # from 1
    train_accuracy: float
    train_loss: float | None
    test_accuracy: float
    test_loss: float | None
    dead_classes: int
    seconds: float
    evaluation_seconds: float


@dataclass(frozen=True)
class RunRecord:
    """One training run, whole. `to_json` and `from_json` are the schema."""

    experiment: str
    name: str
    seed: int
    provenance: Provenance
    network: str  # name in ninlab.architectures
    network_digest: str
    input_shape: Shape
    parameters: int
    data_set: DataSet
    recipe: Recipe
    device: Device
    software: Software
    execution: str  # "eager" or "cuda_graph"
    outcome: Outcome
    loss: LossCurve
    epochs: tuple[EpochResult, ...]
    confusion: tuple[tuple[int, ...], ...]  # [label][prediction], counts after the last epoch
    images_per_second: float  # training, median over the epochs
    wall_seconds: float
    peak_requested_bytes: int | None = None  # None on the CPU
    peak_allocated_bytes: int | None = None
    peak_reserved_bytes: int | None = None
    learning_rate_from: tuple[str, ...] = ()  # ids of the runs by which the rate was chosen
    weights_sha256: str | None = None  # of <id>.safetensors, where weights were kept
    corrects: str | None = None  # id of the record that this one replaces
    kind: str = TRAINING
    schema_version: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        check_schema(self, TRAINING, SCHEMA_VERSION, "a training run")
        for what, text in (("experiment", self.experiment), ("name", self.name),
                           ("device slug", self.device.slug)):  # fmt: skip
            check_slug(what, text)
        if [result.epoch for result in self.epochs] != list(range(1, len(self.epochs) + 1)):
            raise RecordError(f"the epochs of {self.id} are not numbered from 1 upwards")
        if not self.epochs or len(self.epochs) > self.recipe.epochs:
            raise RecordError(
                f"{self.id} holds {len(self.epochs)} epochs, but its recipe asks for "
                f"{self.recipe.epochs}"
            )
        if self.outcome is not Outcome.DIVERGED and len(self.epochs) != self.recipe.epochs:
            raise RecordError(f"{self.id} stopped early, but its outcome is {self.outcome}")
        if sum(map(sum, self.confusion)) != self.data_set.evaluation_images:
            raise RecordError(f"the confusion matrix of {self.id} does not add up to its images")

    @property
    def id(self) -> str:
        """``<experiment>/<name>-seed<k>-<device>``, which is also where its file lies."""
        return run_id(self.experiment, self.name, self.seed, self.device.slug)

    @property
    def scale(self) -> tuple[int, str]:
        """Side of an image and slug of the device: runs of two scales are not compared."""
        return self.input_shape[-1], self.device.slug

    @property
    def last(self) -> EpochResult:
        """The last epoch: the one that is reported, never the best."""
        return self.epochs[-1]

    @property
    def never_predicted(self) -> int:
        """How many classes the network named for no evaluated image after the last epoch.

        Counted in the confusion matrix. A dead class is among them, but where all scores are 0; a
        class that is never predicted need not be dead.
        """
        return sum(not any(column) for column in zip(*self.confusion, strict=True))

    def to_json(self) -> dict[str, Any]:
        """The record as JSON values."""
        return {"id": self.id, **asdict(self)}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> RunRecord:
        """The record of a JSON object. Raises RecordError when it does not fit the schema."""
        return from_fields(
            cls,
            content,
            provenance=whole(Provenance),
            input_shape=tuple,
            data_set=whole(DataSet),
            recipe=whole(Recipe),
            device=whole(Device),
            software=whole(Software),
            outcome=Outcome,
            loss=lambda value: LossCurve(value["every"], tuple(value["values"])),
            epochs=lambda value: tuple(map(whole(EpochResult), value)),
            confusion=lambda value: tuple(map(tuple, value)),
            learning_rate_from=tuple,
        )


def finite(value: float) -> float | None:
    """The value to six significant digits, None when it is not finite: JSON has no NaN."""
    return float(f"{value:.6g}") if math.isfinite(value) else None


class _Versioned(Protocol):
    @property
    def kind(self) -> str: ...

    @property
    def schema_version(self) -> int: ...


def check_schema(record: _Versioned, kind: str, version: int, what: str) -> None:
    """Raises RecordError unless the record is of that kind and schema version; what names it."""
    if (record.kind, record.schema_version) != (kind, version):
        raise RecordError(
            f"kind {record.kind!r} of schema version {record.schema_version} is not {what} of "
            f"version {version}; read it with the ninlab that wrote it"
        )


def check_slug(what: str, text: str) -> None:
    """Raises RecordError unless text can be part of a record's file name."""
    if not _SLUG.fullmatch(text):
        raise RecordError(
            f"the {what} {text!r} cannot be part of a file name; use lower-case letters, digits, "
            "'_', '-' and '.', beginning with a letter or digit"
        )


def run_id(experiment: str, name: str, seed: int, device_slug: str) -> str:
    """The id of the run, which is its path below the runs folder without ``.json``."""
    return f"{experiment}/{name}-seed{seed}-{device_slug}"


# ---------------------------------------------------------------- records of any kind


class Recorded(Protocol):
    """A frozen dataclass that is filed under its id, which is no field of its own."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def id(self) -> str:
        """Where the record lies below the runs folder, without ``.json``."""


Record = TypeVar("Record", bound=Recorded)
Part = TypeVar("Part", bound="DataclassInstance")
FromJson = Callable[[Mapping[str, Any]], Record]


def whole(kind: type[Part]) -> Callable[[Mapping[str, Any]], Part]:
    """What makes a dataclass of a JSON object that states every field: defaults are for writers.

    It raises KeyError with the fields that are missing, TypeError for one that there is not.
    """

    def read(values: Mapping[str, Any]) -> Part:
        missing = {field.name for field in fields(kind)} - set(values)
        if missing:
            raise KeyError(*sorted(missing))
        return kind(**values)

    return read


def from_fields(
    kind: type[Record], content: Mapping[str, Any], **readers: Callable[[Any], Any]
) -> Record:
    """The record of a JSON object that states its id and every field.

    readers make the values of fields for which JSON has no type. Raises RecordError when the
    object does not fit the schema, or states another id than its fields do.
    """
    try:
        values = dict(content)
        stated_id = values.pop("id")
        record = whole(kind)(values | {name: read(values[name]) for name, read in readers.items()})
    except RecordError:
        raise
    except (KeyError, TypeError, ValueError) as error:
        raise RecordError(f"the record does not fit its schema: {error!r}") from error
    if stated_id != record.id:
        raise RecordError(f"the record's id is {stated_id!r}, but its fields say {record.id!r}")
    return record


# ---------------------------------------------------------------- where records lie


def runs_folder() -> Path:
    """The folder of the book's own records: inside an installed ninlab, beside it in a checkout.

    Raises RecordError when neither exists.
    """
    package = Path(__file__).resolve().parent
    for folder in (package / "runs", package.parent / "runs"):
        if folder.is_dir():
            return folder
    raise RecordError("this copy of ninlab has no runs; install it from its repository")


def record_path(folder: Path, identifier: str) -> Path:
    """Where the record of that id lies in a runs folder."""
    return folder / f"{identifier}.json"


def weights_path(folder: Path, identifier: str) -> Path:
    """Where the weights of that run lie, if they were kept."""
    return folder / f"{identifier}.safetensors"


# ---------------------------------------------------------------- reading


def read(path: Path) -> RunRecord:
    """The training run of one file. Raises RecordError, naming the file, when it is not valid."""
    return _filed(path, _read_json(path), RunRecord.from_json)


def load(folder: Path | None = None, experiment: str | None = None) -> list[RunRecord]:
    """Every training run of a runs folder (by default the book's), sorted by id.

    Records of other kinds are passed over. Raises RecordError for the first invalid file.
    """
    folder = runs_folder() if folder is None else folder
    return load_kind(TRAINING, RunRecord.from_json, folder.glob(f"{experiment or '*'}/*.json"))


def load_kind(kind: str, from_json: FromJson[Record], paths: Iterable[Path]) -> list[Record]:
    """The records of one kind among these files, sorted by path; other kinds are passed over.

    Raises RecordError, naming the file, for the first that is not valid.
    """
    contents = ((path, _read_json(path)) for path in sorted(paths))
    return [
        _filed(path, content, from_json)
        for path, content in contents
        if content.get("kind") == kind
    ]


def current(runs: Iterable[RunRecord]) -> list[RunRecord]:
    """The runs without those that a later record corrects."""
    runs = list(runs)
    replaced = {run.corrects for run in runs}
    return [run for run in runs if run.id not in replaced]


def kinds(folder: Path) -> Counter[str]:
    """How many readable files of each kind a runs folder holds; a file without one counts as ""."""
    counts: Counter[str] = Counter()
    for path in folder.glob("*/*.json"):
        with suppress(RecordError):
            counts[str(_read_json(path).get("kind", ""))] += 1
    return counts


def problems(folder: Path, other_kinds: Mapping[str, FromJson[Any]] | None = None) -> Iterator[str]:
    """One sentence for every file of a runs folder that is no valid record, or lies wrong.

    other_kinds says how records are read that are no training runs; kinds that it does not
    name are passed over.
    """
    readers: dict[str, FromJson[Any]] = {TRAINING: RunRecord.from_json, **(other_kinds or {})}
    known: set[str] = set()
    corrections: list[tuple[str, str]] = []
    for path in sorted(folder.glob("*/*.json")):
        try:
            content = _read_json(path)
            if content.get("kind") not in readers:
                continue
            record = _filed(path, content, readers[content["kind"]])
        except RecordError as error:
            yield str(error)
            continue
        known.add(record.id)
        if not isinstance(record, RunRecord):
            continue
        if record.corrects:
            corrections.append((record.id, record.corrects))
        if record.weights_sha256:
            yield from _problems_of_weights(folder, record)
    for identifier, corrected in corrections:
        if corrected not in known:
            yield f"{identifier} corrects {corrected!r}, which is no record"


def _problems_of_weights(folder: Path, record: RunRecord) -> Iterator[str]:
    path = weights_path(folder, record.id)
    if not path.is_file():
        yield f"{record.id} keeps weights, but {path} is missing"
    elif hashlib.sha256(path.read_bytes()).hexdigest() != record.weights_sha256:
        yield f"{path} does not hold the weights that {record.id} names by their sha256"


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RecordError(f"{path} is no readable record: {error}") from error
    if not isinstance(content, dict):
        raise RecordError(f"{path} is no readable record: it holds no JSON object")
    return content


def _filed(path: Path, content: Mapping[str, Any], from_json: FromJson[Record]) -> Record:
    """The record in a file. Raises RecordError, naming the file, also where the file lies wrong."""
    try:
        record = from_json(content)
    except NinlabError as error:
        raise RecordError(f"{path}: {error}") from error
    if path.parts[-2:] != Path(f"{record.id}.json").parts:
        raise RecordError(f"{path} holds the record {record.id!r}; it belongs in {record.id}.json")
    return record


# ---------------------------------------------------------------- writing


def write(folder: Path, record: RunRecord) -> Path:
    """The path of the record's new file. Raises RecordError when it exists or cannot be written."""
    path = record_path(folder, record.id)
    write_json_once(path, record.to_json())
    return path


def write_json_once(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file whole or not at all, and never over another.

    The bytes reach the disk under a hidden name first and are then linked to their own, which
    fails when the name is taken. The file is readable by all (mode 0644). Raises RecordError,
    with nothing left behind, when the file exists or the folder or the disk refuses it.
    """
    lines = (f'"{key}": {json.dumps(value, allow_nan=False)}' for key, value in content.items())
    text = "{\n" + ",\n".join(lines) + "\n}\n"  # one field a line: readable, and kind to git

    def refuse_to_overwrite(temporary: Path) -> None:
        try:
            os.link(temporary, path)
        except OSError as error:
            if error.errno not in _NO_HARD_LINKS:
                raise
            if path.exists():  # checked and renamed under the caller's claim
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST)) from error
            temporary.rename(path)

    _publish(path, text.encode(), refuse_to_overwrite)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file whole or not at all; an older one is replaced.

    For the weights that belong to a record which is not written yet. Raises RecordError when
    the folder or the disk refuses it.
    """
    _publish(path, content, lambda temporary: temporary.replace(path))


_NO_HARD_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}


def _publish(path: Path, content: bytes, give_name: Callable[[Path], object]) -> None:
    temporary = path.with_name(f".{path.name}.{socket.gethostname()}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(temporary, "wb") as file:
                os.fchmod(file.fileno(), 0o644)
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            give_name(temporary)
        finally:
            temporary.unlink(missing_ok=True)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)  # the new name itself must survive a power cut
        finally:
            os.close(folder)
    except FileExistsError as error:
        raise RecordError(
            f"{path} exists, and records are never overwritten; give a correction a new name"
        ) from error
    except OSError as error:
        raise RecordError(
            f"{path} could not be written: {error.strerror or error}; nothing was left behind"
        ) from error


@contextmanager
def claim(folder: Path, identifier: str) -> Iterator[bool]:
    """Whether this process may do that run: True until the block ends, False if another does it.

    The lock file in ``.claims`` names its holder's host and process for people; the claim itself
    is the kernel's lock on it. The file stays, empty, when the claim ends: deleting it would let
    two processes lock two files of one name. Raises RecordError when the folder cannot be
    written or the file system has no locks.
    """
    path = claim_note(folder, identifier, "lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = open(path, "a+")  # noqa: SIM115  closed below, whether or not it could be locked
    except OSError as error:
        raise RecordError(
            f"runs cannot be claimed in {folder}: {error.strerror}; name a folder that this user "
            "may write to with --runs"
        ) from error
    with file:
        if not _lock(file):
            yield False
            return
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        try:
            yield True
        finally:
            file.truncate(0)


def claim_note(folder: Path, identifier: str, kind: str) -> Path:
    """Where whoever makes that run may leave a file of that kind, which is no record."""
    return folder / _CLAIMS_FOLDER / f"{identifier.replace('/', '--')}.{kind}"


def claim_holders(folder: Path) -> dict[str, str]:
    """Run id to "process P on HOST" of every run that a recorder is doing right now."""
    holders = {}
    for path in sorted((folder / _CLAIMS_FOLDER).glob("*.lock")):
        with open(path) as file:
            if not _lock(file):
                holders[path.stem.replace("--", "/")] = file.read().strip()
    return holders


def _lock(file: IO[str]) -> bool:
    if sys.platform == "win32":
        raise RecordError("recording needs POSIX file locks, which Windows lacks; use WSL")
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise RecordError(
            f"{file.name} cannot be locked: {error.strerror}; record on a file system with locks"
        ) from error
    return True


# ---------------------------------------------------------------- provenance


def provenance(command: str) -> Provenance:
    """Which code is running, and when. The tree is clean when nothing but runs/ differs."""
    checkout = Path(__file__).resolve().parent.parent
    tracked = _git(checkout, "ls-files", "--error-unmatch", __file__)
    if not tracked:  # installed, possibly inside somebody else's repository
        return Provenance(utc_now(), command, None, False)
    commit = _git(checkout, "rev-parse", "HEAD")
    changes = _git(checkout, "status", "--porcelain", "--", ".", ":(exclude)runs")
    return Provenance(utc_now(), command, commit, changes == "")


def code_id() -> str | None:
    """What names the package's code as committed, whatever else a commit holds: git's tree id.

    None outside a git checkout.
    """
    package = Path(__file__).resolve().parent
    return _git(package, "rev-parse", "HEAD:./")


def utc_now() -> str:
    """This moment as records write it: ``2026-01-31T12:00:00Z``."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _git(folder: Path, *arguments: str) -> str | None:
    """What git answers, or None where git or the repository is missing.

    Without optional locks: one that a killed recorder leaves behind stops every later git command.
    """
    git = ["git", "--no-optional-locks", "-C", str(folder)]
    try:
        answer = subprocess.run([*git, *arguments], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return answer.stdout.strip()


# ---------------------------------------------------------------- frames


def to_frame(runs: Iterable[RunRecord]) -> pd.DataFrame:
    """One row a run, indexed by id: what was trained, how it ended, where and by which code."""
    import pandas as pd

    rows = [{name: value(run) for name, value in _COLUMNS.items()} for run in runs]
    return pd.DataFrame(rows, columns=list(_COLUMNS)).set_index("id")


_COLUMNS: Mapping[str, Callable[[RunRecord], Any]] = {
    "id": lambda run: run.id,
    "experiment": lambda run: run.experiment,
    "name": lambda run: run.name,
    "network": lambda run: run.network,
    "seed": lambda run: run.seed,
    "device": lambda run: run.device.name,
    "device_slug": lambda run: run.device.slug,
    "outcome": lambda run: str(run.outcome),
    "test_accuracy": lambda run: run.last.test_accuracy,
    "test_loss": lambda run: run.last.test_loss,
    "train_accuracy": lambda run: run.last.train_accuracy,
    "train_loss": lambda run: run.last.train_loss,
    "dead_classes": lambda run: run.last.dead_classes,
    "never_predicted": lambda run: run.never_predicted,
    "epochs": lambda run: len(run.epochs),
    "learning_rate": lambda run: run.recipe.learning_rate,
    "optimizer": lambda run: str(run.recipe.optimizer),
    "momentum": lambda run: run.recipe.momentum,
    "precision": lambda run: str(run.recipe.precision),
    "evaluation_set": lambda run: str(run.recipe.evaluation_set),
    "parameters": lambda run: run.parameters,
    "images_per_second": lambda run: run.images_per_second,
    "wall_seconds": lambda run: run.wall_seconds,
    "utc": lambda run: run.provenance.utc,
    "commit": lambda run: run.provenance.commit,
}
