"""What does each law buy that predicts the memory of a GPU?

benchmarks/memory_laws.py predicts the steps that an H100 measured with laws switched on and off.
Its file is read here: errors of the four peaks, by group of networks and by variant.
A variant is named by the law that was switched on last, by `ALL_LAWS`, or by `without` one.

Known limit: the file is of one card, one torch and one cuDNN, and the laws were found in the
traces of the steps that it judges.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median
from typing import Any

from ninlab import records
from ninlab.errors import RecordError

KIND = "memory_laws"
SCHEMA_VERSION = 1

LAWS: Mapping[str, str] = {
    "scratch": "cuDNN's first plans",
    "products": "1×1 layers as products",
    "split_sums": "sums split over the card",
    "memory_formats": "memory format of each call",
    "reductions": "scratch of reductions",
    "attention": "fused attention",
    "inner_tensors": "tensors inside operators",
    "late_cublas": "cuBLAS at its first product",
    "falling_segments": "falling segments",
}
"""The laws in the order in which they are switched on, in words."""
TENSORS = "tensors"
"""The variant without a law: tensors alone are allocated, in rising segments."""
ALL_LAWS = "all laws"
OWN, STRANGERS = "own", "strangers"
"""The networks of the book, and those of torchvision."""
PEAKS = ("tensor", "requested", "allocated", "reserved")
TOLERANCE = 0.01


def without(law: str) -> str:
    """The variant in which that law alone is switched off."""
    return f"without {law}"


@dataclass(frozen=True)
class JudgedStep:
    """One measured step: its peaks in bytes, and those that each variant predicts."""

    group: str
    network: str
    batch_size: int
    precision: str
    mode: str
    allocator: str
    measured: Mapping[str, int]
    predicted: Mapping[str, Mapping[str, int]]

    def error(self, variant: str, peak: str) -> float:
        """Predicted over measured, less one."""
        return self.predicted[variant][peak] / self.measured[peak] - 1


@dataclass(frozen=True)
class Summary:
    """How far a variant is off: absolute errors, the worst with its sign."""

    median: float
    mean: float
    worst: float
    right: int  # within `TOLERANCE`
    exact: int
    steps: int


@dataclass(frozen=True)
class MemoryLaws:
    """The file of the benchmark. cudnn is the version that was asked, torch the one that traced."""

    id: str
    utc: str
    device: str
    measured_with: str
    torch: str
    cudnn: str
    steps: Sequence[JudgedStep]

    @classmethod
    def load(cls, folder: Path | None = None) -> MemoryLaws:
        """That of a runs folder, by default the book's. Raises RecordError when there is none."""
        folder = records.runs_folder() if folder is None else folder
        path = folder / "benchmarks" / "memory-laws.json"
        if not path.is_file():
            raise RecordError(f"{path} does not exist; benchmarks/memory_laws.py makes it")
        (found,) = records.load_kind(KIND, cls.from_json, [path])
        return found

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> MemoryLaws:
        """The judgment of a JSON object. Raises RecordError when it does not fit the schema."""
        try:
            if (content["kind"], content["schema_version"]) != (KIND, SCHEMA_VERSION):
                raise ValueError(f"it is no {KIND} of schema version {SCHEMA_VERSION}")
            return cls(
                id=content["id"],
                utc=content["provenance"]["utc"],
                device=", ".join(content["measured_on"]),
                measured_with=", ".join(content["measured_with"]),
                torch=content["software"]["torch"],
                cudnn=content["cudnn"],
                steps=[_step(line) for line in content["cases"]],
            )
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise RecordError(f"the judgment does not fit its schema: {error!r}") from error

    @property
    def titles(self) -> dict[str, str]:
        """Every variant in words, in the order in which tables have them."""
        return {
            TENSORS: "tensors alone",
            **{law: f"+ {title}" for law, title in LAWS.items()},
            **{without(law): f"all but: {title}" for law, title in LAWS.items()},
        }

    def of(self, group: str) -> list[JudgedStep]:
        """The steps of that group."""
        return [step for step in self.steps if step.group == group]

    def errors(self, variant: str, group: str, peak: str) -> list[float]:
        """Predicted over measured, less one, of each step of the group."""
        return [step.error(variant, peak) for step in self.of(group)]

    def summary(self, variant: str, group: str, peak: str) -> Summary:
        """How far that variant is off in that peak of the group."""
        errors = self.errors(variant, group, peak)
        return Summary(
            median(map(abs, errors)),
            fmean(map(abs, errors)),
            max(errors, key=abs),
            sum(abs(error) <= TOLERANCE for error in errors),
            sum(error == 0 for error in errors),
            len(errors),
        )

    @property
    def source(self) -> str:
        """Where the numbers come from: the line under a figure."""
        return (
            f"Predicted: ninlab at {self.utc[:10]}, traced with torch {self.torch}, cuDNN "
            f"{self.cudnn} asked without a GPU. Measured: {len(self.steps)} steps on "
            f"{self.device}, torch {self.measured_with}; {self.id}."
        )


def _step(line: Mapping[str, Any]) -> JudgedStep:
    case = line["case"]
    return JudgedStep(
        line["group"],
        *(case["network"], case["batch_size"], case["precision"], case["mode"]),
        line["allocator"],
        measured=dict(zip(PEAKS, line["measured"], strict=True)),
        predicted={
            variant: dict(zip(PEAKS, peaks, strict=True))
            for variant, peaks in line["predicted"].items()
        },
    )
