"""What does each law buy that predicts the memory of a GPU?

benchmarks/memory_laws.py predicts the steps that an H100 measured with laws switched on and off.
Its file is read here: errors of the four peaks, by group of networks and by variant.
A variant is named by the law that was switched on last, by `ALL_LAWS`, or by `without` one.

Known limit: the file is of one card, one torch and one cuDNN, and the laws were found in the
traces of the steps that it judges.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median
from typing import TYPE_CHECKING, Annotated, Any

from ninlab import records
from ninlab.errors import RecordError
from ninlab.records import Provenance, Software
from ninlab.records.schema import Form, ImageShape, Name, NotEmpty, Positive, Text, Version, shown
from ninlab.steps import Optimizer, Precision

if TYPE_CHECKING:
    import pandas as pd

KIND = "memory_laws"
ID = "benchmarks/memory-laws"
"""Of the only file of that kind."""
SCHEMA_VERSION = 1

LAWS: Mapping[str, str] = {
    "scratch": "cuDNN's plans",
    "products": "1×1 as products",
    "split_sums": "sums split",
    "memory_formats": "memory formats",
    "reductions": "reductions",
    "attention": "fused attention",
    "inner_tensors": "inner tensors",
    "late_cublas": "late cuBLAS",
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
UNTRACED = "not known: no trace was kept"
CAUSES: Mapping[tuple[str, str], str] = {
    ("vgg11", "bf16"): "bfloat16 sums, shared by groups",
    ("resnet18", "bf16"): "bfloat16 sums, shared by groups",
    ("resnet18", "tf32"): "another plan of a strided convolution",
    ("vgg16_bn", "tf32"): "segments in holes among the addresses",
    ("convnext_tiny", "bf16"): "another plan of depthwise gradients",
}
"""Why a reserved peak is off, by network and precision. Which calls take other scratch was seen in
the trace of the step, block by block; why they do is inferred (`split_sums` on groups, the tests of
traces on addresses)."""


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

    @property
    def title(self) -> str:
        """The step in a row of a table."""
        segments = ", expandable" if self.allocator == "expandable_segments" else ""
        return f"{self.network}, {self.batch_size} images, {self.precision}, {self.mode}{segments}"

    @property
    def cause(self) -> str:
        """Why its reserved peak is off, as far as that is known."""
        return CAUSES.get((self.network, self.precision), UNTRACED)

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
        return records.load_file(KIND, cls.from_json, path, made_by="benchmarks/memory_laws.py")

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> MemoryLaws:
        """The judgment of a JSON object.

        Raises RecordError, with the field and the rule, when it does not fit the schema or breaks
        a law.
        """
        file = records.part(LawsFile, content)
        records.check_origin(file.provenance, None, file.software)
        for problem in _broken(file):
            raise RecordError(problem)
        return cls(
            id=file.id,
            utc=file.provenance.utc,
            device=", ".join(file.measured_on),
            measured_with=", ".join(file.measured_with),
            torch=file.software.torch,
            cudnn=file.cudnn,
            steps=[_step(line) for line in file.cases],
        )

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

    def best_factor(self, group: str, peak: str) -> float:
        """The factor of the tensors' measured peak that makes the mean error the least.

        An error is that of the factor's product, relative to the measured peak. The mean of their
        sizes is least at a factor that makes one of them nothing.
        """
        ratios = [step.measured[peak] / step.measured["tensor"] for step in self.of(group)]
        return min(ratios, key=lambda factor: fmean(abs(factor / each - 1) for each in ratios))

    def factor_error(self, group: str, peak: str) -> float:
        """The mean error of that best factor."""
        factor, steps = self.best_factor(group, peak), self.of(group)
        return fmean(abs(factor * s.measured["tensor"] / s.measured[peak] - 1) for s in steps)

    def errors_in_turn(self, group: str, peak: str) -> dict[str, dict[str, float]]:
        """{row: {step: error}}: the tensors times `best_factor`, alone, and then law by law."""
        steps, factor = self.of(group), self.best_factor(group, peak)
        rows = {
            f"tensors × {factor:.2f}": {
                s.title: factor * s.measured["tensor"] / s.measured[peak] - 1 for s in steps
            }
        }
        for variant in (TENSORS, *LAWS):
            title = f"+ {LAWS[variant]}" if variant in LAWS else "tensors alone"
            rows[title] = {s.title: s.error(variant, peak) for s in steps}
        return rows

    def table(self) -> pd.DataFrame:
        """How far each peak is off with all laws, as text: a row for each step."""
        import pandas as pd

        rows = {step.title: {peak: _written(step, peak) for peak in PEAKS} for step in self.steps}
        return pd.DataFrame(rows).T

    def by_network(self) -> pd.DataFrame:
        """The worst error of each peak with all laws, as text: a row for each network."""
        import pandas as pd

        steps: dict[str, list[JudgedStep]] = {}
        for step in self.steps:
            steps.setdefault(step.network, []).append(step)

        def worst(of: Sequence[JudgedStep], peak: str) -> str:
            return _written(max(of, key=lambda step: abs(step.error(ALL_LAWS, peak))), peak)

        rows = {
            network: {"steps": len(of)} | {peak: worst(of, peak) for peak in PEAKS}
            for network, of in steps.items()
        }
        return pd.DataFrame(rows).T

    def missed(self) -> list[JudgedStep]:
        """The steps whose reserved peak is off by more than `TOLERANCE` with all laws."""
        return [s for s in self.steps if abs(s.error(ALL_LAWS, "reserved")) > TOLERANCE]

    @property
    def source(self) -> str:
        """Where the numbers come from: the line under a figure."""
        return (
            f"Predicted: {self.utc[:10]}, traced with torch {self.torch}, cuDNN {self.cudnn} asked "
            f"without a GPU. Measured: {len(self.steps)} steps on "
            f"{self.device}, torch {self.measured_with}; {self.id}."
        )


def _written(step: JudgedStep, peak: str) -> str:
    """An error with all laws: equal, in bytes where it is tiny, else in percent."""
    error = step.error(ALL_LAWS, peak)
    if abs(error) < 0.0005:
        off = step.predicted[ALL_LAWS][peak] - step.measured[peak]
        return f"{off:+,} B" if off else "equal"
    return f"{error:+.1%}"


def _step(line: JudgedLine) -> JudgedStep:
    case = line.case
    return JudgedStep(
        line.group,
        *(case.network, case.batch_size, case.precision, case.mode),
        line.allocator,
        measured=dict(zip(PEAKS, line.measured, strict=True)),
        predicted={
            variant: dict(zip(PEAKS, peaks, strict=True))
            for variant, peaks in line.predicted.items()
        },
    )


# ---------------------------------------------------------------- the file

FourPeaks = tuple[Positive, Positive, Positive, Positive]
"""In the order of `PEAKS`."""


@dataclass(frozen=True)
class JudgedCase:
    """Which step it was."""

    network: Name
    input_shape: ImageShape
    batch_size: Positive
    precision: Precision
    mode: Annotated[str, Form("|".join(("inference", *Optimizer)), "inference or an optimizer")]


@dataclass(frozen=True)
class JudgedLine:
    """One step in the file."""

    group: Annotated[str, Form(f"{OWN}|{STRANGERS}", f"{OWN} or {STRANGERS}")]
    case: JudgedCase
    allocator: Annotated[str, Form("default|expandable_segments", "a setting of CUDA's allocator")]
    measured: FourPeaks
    predicted: Mapping[str, FourPeaks]  # by variant


@dataclass(frozen=True)
class LawsFile:
    """The file of the benchmark. The annotations are its schema."""

    id: str
    kind: str
    schema_version: int
    provenance: Provenance
    software: Software
    measured_on: Annotated[tuple[Text, ...], NotEmpty]
    measured_with: Annotated[tuple[Version, ...], NotEmpty]
    cudnn: Version
    variants: Mapping[str, tuple[str, ...]]  # the laws of each that are on
    cases: Annotated[tuple[JudgedLine, ...], NotEmpty]

    def __post_init__(self) -> None:
        records.check_schema(self, KIND, SCHEMA_VERSION, "a judgment of laws")


def variants() -> dict[str, tuple[str, ...]]:
    """Which laws are on, by the name of a variant: none to all of them, then all but one."""
    every = tuple(LAWS)
    return {
        TENSORS: (),
        **{law: every[: number + 1] for number, law in enumerate(every)},
        ALL_LAWS: every,
        **{without(law): tuple(other for other in every if other != law) for law in every},
    }


def _broken(file: LawsFile) -> Iterator[str]:
    """The laws of a file that this one breaks, one sentence each, with the fields."""
    if file.id != ID:
        yield f"id is {shown(file.id)}, but there is one such file, {ID}"
    right = variants()
    for name in sorted(right.keys() | file.variants.keys()):
        if file.variants.get(name) != right.get(name):
            yield f"variants.{name} are not the laws that are on in that variant of this ninlab"
    seen: dict[object, int] = {}
    for number, line in enumerate(file.cases):
        first = seen.setdefault((line.group, line.case, line.allocator), number)
        if first != number:
            yield f"cases[{number}]: group, case and allocator are those of cases[{first}]"
        for name in sorted(line.predicted.keys() ^ right.keys()):
            yield f"cases[{number}].predicted.{name} is missing, or is none of variants"
        for field, peaks in {"measured": line.measured, **line.predicted}.items():
            place = field if field == "measured" else f"predicted[{field}]"
            named = {f"cases[{number}].{place}[{i}]": peak for i, peak in enumerate(peaks)}
            yield from records.out_of_order(named)
