"""What is recorded of a training run?"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Annotated, Any

from ninlab.errors import RecordError
from ninlab.recipes import Recipe
from ninlab.records import laws
from ninlab.records.laws import CURVE_POINTS, steps_a_point
from ninlab.records.schema import (
    Above0,
    Commit,
    Count,
    Digest,
    Form,
    ImageShape,
    Moment,
    Name,
    NotEmpty,
    NotNegative,
    Positive,
    RunId,
    Seed,
    Sha256,
    Share,
    Text,
    Version,
    an_object,
    check_schema,
    check_slug,
    from_fields,
)
from ninlab.steps import Kernels

SCHEMA_VERSION = 3
"""2 states recipe.kernels, 3 the host. Records of 1 came before there was a choice: torch's kernels
computed all of them. Of the host of records of 1 and 2 nothing is known."""

IDLE_CORES = 0.1
"""A machine is idle beside a run if all others keep less of its cores busy, on average."""

TRAINING = "training"
"""The ``kind`` of a training run's record; other measurements may lie in the same folder."""


class Outcome(StrEnum):
    """How a run ended."""

    FINISHED = "finished"
    DIVERGED = "diverged"  # a loss that is not a finite number; the run stops after that epoch
    STUCK = "stuck"  # the last epoch's training loss is no better than a guess's


@dataclass(frozen=True)
class DataSet:
    """Which images were seen. Sums are sha256 of the decompressed files."""

    name: Text
    sha256: Mapping[str, Sha256]
    train_images: Positive
    evaluation_images: Positive


@dataclass(frozen=True)
class Device:
    """What the run ran on. slug names it in file names; driver and power limit are a GPU's."""

    slug: Name
    name: Text
    memory_bytes: Positive
    threads: Positive | None = None  # of a CPU run
    driver: Text | None = None
    power_limit_watts: Above0 | None = None


@dataclass(frozen=True)
class Host:
    """The machine that a run was made on, and how busy it was meanwhile.

    Two machines with other processors or kernel_variables compute two runs of one seed, and the
    speeds of two runs compare where others left the machine idle. Cores are means over the run;
    other_cores is None where the system does not tell.
    """

    processor: Text
    cpu_capability: Text  # the instructions of torch's CPU kernels, as torch names them
    kernel_variables: Mapping[str, Text]  # those set by which libraries take other kernels
    cores: Positive
    own_cores: NotNegative  # that the run's process kept busy
    other_cores: NotNegative | None  # that all other processes kept busy

    @property
    def kernels(self) -> tuple[str, str, tuple[tuple[str, str], ...]]:
        """What must be equal for one seed to be one run, as far as the processor decides."""
        return self.processor, self.cpu_capability, tuple(sorted(self.kernel_variables.items()))

    @property
    def was_idle(self) -> bool:
        """Whether all others together left the machine to the run, so that its speed is its own."""
        return self.other_cores is not None and self.other_cores <= IDLE_CORES


@dataclass(frozen=True)
class Software:
    """The versions that computed the run."""

    python: Version
    torch: Version
    ninlab: Version
    cuda: Version | None = None
    cudnn: Version | None = None


@dataclass(frozen=True)
class Provenance:
    """Which code was called how and when. commit is None outside a git checkout."""

    utc: Moment
    command: Text
    commit: Commit | None
    clean_tree: bool


@dataclass(frozen=True)
class LossCurve:
    """Training loss, thinned: values[i] is the mean over steps [i * every, (i + 1) * every).

    A value is None where the loss was not finite. Six significant digits are kept.
    """

    every: Positive
    values: Annotated[tuple[NotNegative | None, ...], NotEmpty]

    @classmethod
    def thinned(cls, losses: Sequence[float], points: int = CURVE_POINTS) -> LossCurve:
        """The curve of these losses in at most that many points."""
        every = steps_a_point(len(losses), points)
        chunks = (losses[i : i + every] for i in range(0, len(losses), every))
        return cls(every, tuple(finite(sum(chunk) / len(chunk)) for chunk in chunks))


@dataclass(frozen=True)
class EpochResult:
    """One pass over the training images, and the evaluation after it.

    train_accuracy and train_loss are means over the epoch, taken before each step with
    dropout on. dead_classes counts the classes whose score is exactly 0 on every evaluated
    image. A loss is None where it was not finite. seconds is training, without evaluation.
    """

    epoch: Positive  # from 1
    train_accuracy: Share
    train_loss: NotNegative | None
    test_accuracy: Share
    test_loss: NotNegative | None
    dead_classes: Count
    seconds: Above0
    evaluation_seconds: Above0


@dataclass(frozen=True)
class RunRecord:
    """One training run, whole. The annotations are its schema; what holds between them is a law.

    Laws of the record's name and of its epochs hold for any; the rest, which `laws` has, for
    what is written and read.
    """

    experiment: Name
    name: Name
    seed: Seed
    provenance: Provenance
    network: Name  # name in ninlab.architectures
    network_digest: Digest
    input_shape: ImageShape
    parameters: Positive
    data_set: DataSet
    recipe: Recipe
    device: Device
    software: Software
    execution: Annotated[str, Form("eager|cuda_graph", "eager or cuda_graph")]
    outcome: Outcome
    loss: LossCurve
    epochs: tuple[EpochResult, ...]
    confusion: tuple[tuple[Count, ...], ...]  # [label][prediction], after the last epoch
    images_per_second: Above0  # training, median over the epochs
    wall_seconds: Above0
    peak_requested_bytes: Positive | None = None  # None on the CPU
    peak_allocated_bytes: Positive | None = None
    peak_reserved_bytes: Positive | None = None
    learning_rate_from: tuple[RunId, ...] = ()  # ids of the runs by which the rate was chosen
    weights_sha256: Sha256 | None = None  # of <id>.safetensors, where weights were kept
    corrects: RunId | None = None  # id of the record that this one replaces
    host: Host | None = None  # None in records of version 1 and 2
    kind: str = TRAINING
    schema_version: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        check_schema(self, TRAINING, SCHEMA_VERSION, "a training run")
        for what, text in (("experiment", self.experiment), ("name", self.name),
                           ("device slug", self.device.slug)):  # fmt: skip
            check_slug(what, text)
        if [result.epoch for result in self.epochs] != list(range(1, len(self.epochs) + 1)):
            raise RecordError(f"epochs: epoch of {self.id} is not numbered from 1 upwards")
        if not self.epochs or len(self.epochs) > self.recipe.epochs:
            raise RecordError(
                f"epochs of {self.id} holds {len(self.epochs)} epochs, but recipe.epochs asks for "
                f"{self.recipe.epochs}"
            )
        if self.outcome is not Outcome.DIVERGED and len(self.epochs) != self.recipe.epochs:
            raise RecordError(
                f"epochs of {self.id} stopped early, after {len(self.epochs)} of the "
                f"{self.recipe.epochs} of recipe.epochs, but its outcome is {self.outcome}"
            )
        if sum(map(sum, self.confusion)) != self.data_set.evaluation_images:
            raise RecordError(
                f"confusion of {self.id} does not add up to data_set.evaluation_images"
            )

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
    def had_its_device(self) -> bool:
        """Whether nothing else used what the run computed on, as far as its record tells.

        Others may use a CPU beside a run: there the host must have been idle, and of the hosts of
        older records nothing is known. Of a GPU it is taken for granted. Known limit: no record
        says whether runs shared one, as they do with several workers or with parts of a GPU each.
        """
        return self.device.slug != "cpu" or (self.host is not None and self.host.was_idle)

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
        """The record of a JSON object; one of an older version becomes what it would be of this.

        Raises RecordError, with the field and the rule, when it does not fit the schema or breaks
        a law.
        """
        run = from_fields(cls, _of_this_version(an_object(content)))
        laws.check_run(run)
        return run


def _of_this_version(content: Mapping[str, Any]) -> Mapping[str, Any]:
    """The JSON object of a record of an older version with what it did not state.

    It stays one of its own version where it states what that version did not know, or has none.
    """
    version, recipe = content.get("schema_version"), content.get("recipe")
    if version == SCHEMA_VERSION:
        return content
    stated = {"host": None, **content}
    is_older = type(version) is int and version in (1, 2) and "host" not in content  # not true, 1.0
    if version != 2 and isinstance(recipe, dict):
        stated["recipe"] = {"kernels": str(Kernels.TORCH), **recipe}
        is_older = is_older and "kernels" not in recipe
    return {**stated, "schema_version": SCHEMA_VERSION} if is_older else stated


def finite(value: float) -> float | None:
    """The value to six significant digits, None when it is not finite: JSON has no NaN."""
    return float(f"{value:.6g}") if math.isfinite(value) else None


def run_id(experiment: str, name: str, seed: int, device_slug: str) -> str:
    """The id of the run, which is its path below the runs folder without ``.json``."""
    return f"{experiment}/{name}-seed{seed}-{device_slug}"
