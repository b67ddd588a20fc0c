"""What do other calculators say of the same networks, and what do they add up?

benchmarks/peers.py asks the calculators that can be installed about the same networks and batches,
and takes real training steps. The answers are a record beside the measured runs. `latest` reads
the newest record that answers a question. `RULES` says in closed form what each tool adds up, so
that differences between two tools can be explained.

Known limits: the rules are those of the versions that were asked, for the layers that those
networks have. Tools that follow a step, such as MemTracker, have no rule for the peak: `liveness`
computes what they see.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, assert_never

from ninlab import formulas, records, shapes
from ninlab.architectures import ARCHITECTURES, Architecture, architecture
from ninlab.errors import RecordError
from ninlab.layers import (
    AvgPool,
    BatchNorm,
    Branches,
    Conv,
    Dropout,
    Flatten,
    GlobalAvgPool,
    Leaf,
    Linear,
    MaxPool,
    ReLU,
    Sigmoid,
    walk,
)
from ninlab.records import Device, Provenance, Software
from ninlab.records.schema import Count, Name, NotNegative, Positive, Text, Version, shown
from ninlab.shapes import joined_shape, leaf_shape
from ninlab.steps import SavedKind
from ninlab.units import Shape

if TYPE_CHECKING:
    import pandas as pd

KIND = "benchmark"
SCHEMA_VERSION = 1
QUANTITIES = ("macs", "saved_bytes", "peak_bytes")
"""What the tools were asked for, of a whole batch: MACs of the forward pass, bytes kept for the
backward pass, peak of one SGD step."""

Workload = tuple[str, int]
"""What the tools were asked of: a network's name and a batch size."""


# ---------------------------------------------------------------- what was said


@dataclass(frozen=True)
class Answer:
    """What one tool said of one case, in the file. None is a quantity that it does not tell."""

    tool: Text
    network: Name
    batch_size: Positive
    macs: Count | None
    saved_bytes: Count | None
    peak_bytes: Count | None
    start_up_seconds: NotNegative
    first_seconds: NotNegative
    again_seconds: NotNegative | None
    resident_growth_bytes: int


@dataclass(frozen=True)
class NoAnswer:
    """A case of which a tool gave no answer, and its last words."""

    tool: Text
    network: Name
    batch_size: Positive
    error: Text


@dataclass(frozen=True)
class RealStep:
    """What a real step of one case took, in the file."""

    network: Name
    batch_size: Positive
    tensor_peak_bytes: Positive
    requested_peak_bytes: Positive


@dataclass(frozen=True)
class ComparisonFile:
    """The file of a comparison. The annotations are its schema."""

    id: str
    kind: str
    schema_version: int
    provenance: Provenance
    device: Device
    software: Software
    peers: Mapping[str, Version]  # by package
    tools: Mapping[str, Text]  # titles, by the tool's key
    steps: tuple[RealStep, ...]
    answers: tuple[Mapping[str, Any], ...]  # each an `Answer` or a `NoAnswer`

    def __post_init__(self) -> None:
        records.check_schema(self, KIND, SCHEMA_VERSION, "a comparison")


@dataclass(frozen=True)
class Comparison:
    """What each tool said of each case, by quantity and the tool's key.

    A case that a tool did not answer is missing there. peaks has the tensors' peak of the real
    steps, titles what the tools are called, and versions those of the packages that had to be
    installed.
    """

    id: str
    utc: str
    device: str
    torch: str
    titles: Mapping[str, str]
    versions: Mapping[str, str]
    said: Mapping[str, Mapping[str, Mapping[Workload, int]]]
    peaks: Mapping[Workload, int]

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Comparison:
        """The comparison of a JSON object.

        Raises RecordError, with the field and the rule, when it does not fit the schema or breaks
        a law.
        """
        file = records.part(ComparisonFile, content)
        answers = [_answer(number, each) for number, each in enumerate(file.answers)]
        for problem in _broken(file, answers):
            raise RecordError(problem)
        said: dict[str, dict[str, dict[Workload, int]]] = {name: {} for name in QUANTITIES}
        for answer in answers:
            for quantity, told in said.items():
                count = getattr(answer, quantity, None)
                if count is not None:
                    told.setdefault(answer.tool, {})[answer.network, answer.batch_size] = count
        return cls(
            id=file.id,
            utc=file.provenance.utc,
            device=file.device.name,
            torch=file.software.torch,
            titles=file.tools,
            versions={
                package: version
                for package, version in file.peers.items()
                if package.endswith(tuple(file.tools.values()))  # torch-kitsune is kitsune's
            },
            said=said,
            peaks={(step.network, step.batch_size): step.tensor_peak_bytes for step in file.steps},
        )

    def errors(self, quantity: str, true: Mapping[Workload, int]) -> pd.DataFrame:
        """Said less true: a row for each tool that answered all of these cases, the best first.

        Rows are titles of tools, in the order of their largest relative error; columns are the
        cases, with the levels network and batch_size.
        """
        import pandas as pd

        truth = pd.Series(dict(true)).rename_axis(["network", "batch_size"])
        rows = {
            self.titles[tool]: {case: answers[case] - true[case] for case in true}
            for tool, answers in self.said[quantity].items()
            if answers.keys() >= true.keys()
        }
        apart = pd.DataFrame(rows).T.reindex(columns=truth.index)
        worst = (apart / truth).abs().max(axis=1)
        return apart.loc[worst.sort_values(kind="stable").index]

    def beside(
        self,
        quantity: str,
        true: Mapping[Workload, int],
        write: Callable[[int, int], str],
        write_true: Callable[[int], str],
    ) -> pd.DataFrame:
        """The truth in the first row, below it what each tool said, the best first, as text.

        write makes text of what was said and of what is true. Columns are the titles of the
        networks, with the batch where the workloads have more than one; tools as `errors` has them.
        """
        import pandas as pd

        sizes = {size for _, size in true}
        titles = [
            architecture(name).title + (f", {size} images" if len(sizes) > 1 else "")
            for name, size in true
        ]
        tools = {title: tool for tool, title in self.titles.items()}
        rows = {"the truth": [write_true(count) for count in true.values()]} | {
            title: [
                write(self.said[quantity][tools[title]][workload], count)
                for workload, count in true.items()
            ]
            for title in self.errors(quantity, true).index
        }
        return pd.DataFrame(rows, index=titles).T

    def by_rule(self, quantity: str) -> dict[str, dict[Workload, int]]:
        """What the rules say of the cases that the tools answered, as far as a tool has a rule."""
        rules = RULES[quantity]
        return {
            tool: {case: rules[tool](architecture(case[0]), case[1]) for case in answers}
            for tool, answers in self.said[quantity].items()
            if tool in rules
        }

    @property
    def source(self) -> str:
        """Which record, of which day, of which versions: the end of a sentence on the answers."""
        return f"{self.utc[:10]}, torch {self.torch}; record {self.id}"


def _answer(number: int, content: Mapping[str, Any]) -> Answer | NoAnswer:
    """The answer of that number in the file. Raises RecordError, with its place."""
    try:
        if "error" in content:
            return records.part(NoAnswer, content)
        return records.part(Answer, content)
    except RecordError as error:
        raise RecordError(f"answers[{number}].{error}") from error


def _broken(file: ComparisonFile, answers: Sequence[Answer | NoAnswer]) -> Iterator[str]:
    """The laws that a comparison breaks, one sentence each, with the fields."""
    records.check_origin(file.provenance, file.device, file.software)
    day, slug = file.provenance.utc[:10], file.device.slug
    if not (file.id.startswith(f"benchmarks/peers-{day}") and file.id.endswith(f"-{slug}")):
        yield (
            f"id is {shown(file.id)}, but provenance.utc and device.slug say "
            f"benchmarks/peers-{day}-{slug}"
        )
    places: dict[tuple[str, ...], str] = {}
    for number, answer in enumerate(answers):
        place = f"answers[{number}]"
        if answer.tool not in file.tools:
            yield f"{place}.tool is {shown(answer.tool)}, which is not among tools"
        yield from _of_case(place, ("answers", answer.tool), answer, places)
    asked = Counter((answer.network, answer.batch_size) for answer in answers)
    for (network, batch_size), tools in asked.items():
        if tools < 2 <= len(file.tools):
            yield f"answers: network {network} with batch_size {batch_size} is of one tool only"
    for number, step in enumerate(file.steps):
        place = f"steps[{number}]"
        yield from _of_case(place, ("steps",), step, places)
        if (step.network, step.batch_size) not in asked:
            yield f"{place}.network and batch_size are a case that is not among answers"
        if step.tensor_peak_bytes > step.requested_peak_bytes:
            yield f"{place}.tensor_peak_bytes is more than {place}.requested_peak_bytes"


def _of_case(
    place: str,
    of: tuple[str, ...],
    case: Answer | NoAnswer | RealStep,
    places: dict[tuple[str, ...], str],
) -> Iterator[str]:
    """What is wrong with network and batch_size, and with telling of them twice."""
    if case.network not in ARCHITECTURES:
        yield f"{place}.network is {shown(case.network)}, which is no network of the book"
    first = places.setdefault((*of, case.network, str(case.batch_size)), place)
    if first != place:
        yield f"{place}: network and batch_size (and tool) are those of {first}"


def latest(quantity: str, folder: Path | None = None) -> Comparison:
    """The newest comparison of a runs folder, by default the book's, in which that was answered.

    Raises RecordError when there is none.
    """
    folder = records.runs_folder() if folder is None else folder
    paths = (folder / "benchmarks").glob("peers-*.json")
    found = records.load_kind(KIND, Comparison.from_json, paths)
    answering = [comparison for comparison in found if comparison.said[quantity]]
    if not answering:
        raise RecordError(
            f"no comparison in {folder / 'benchmarks'} answers for {quantity}; "
            "benchmarks/peers.py records one"
        )
    return max(answering, key=lambda comparison: comparison.utc)


def format_error(error: float) -> str:
    """A relative error as a reader sees it: equal, +0.4%, -20%, and ×53 for more than double."""
    if error > 1:
        factor = 1 + error
        return f"×{factor:,.{0 if factor >= 10 else 1}f}"
    digits = 0 if abs(error) >= 0.01 else 1
    return f"{error:+.{digits}%}" if error else "equal"


# ---------------------------------------------------------------- what the tools add up


def put_out(network: Architecture, *kinds: type) -> int:
    """Values that the layers of these kinds put out for one image; without a kind, all layers."""
    return sum(
        prod(at.output_shape)
        for at in shapes.placed_layers(network)
        if isinstance(at.layer, kinds or object)
    )


def joined(network: Architecture) -> int:
    """Values of one image in the maps that branches are joined to, which no layer puts out."""
    sums: list[int] = []

    def join(path: str, branches: Branches, ends: Sequence[Shape]) -> Shape:
        shape = joined_shape(path, branches, ends)
        sums.append(prod(shape))
        return shape

    walk(network.layers, network.input_shape, lambda _, *at: leaf_shape(*at), join)
    return sum(sums)


def _averaged(network: Architecture) -> int:
    """Values that the global average reads."""
    placed = shapes.placed_layers(network)
    return sum(prod(at.input_shape) for at in placed if isinstance(at.layer, GlobalAvgPool))


def _averaged_in_windows(network: Architecture) -> int:
    """Operations of the mean pools: one for each value of a window, and one more."""
    return sum(
        (at.layer.kernel_size**2 + 1) * prod(at.output_shape)
        for at in shapes.placed_layers(network)
        if isinstance(at.layer, AvgPool)
    )


def _linear_macs(network: Architecture) -> int:
    placed = shapes.placed_layers(network)
    return sum(
        shapes.layer_macs(at.layer, at.input_shape) for at in placed if isinstance(at.layer, Linear)
    )


def _torchmeter_operations(layer: Leaf) -> int:
    """What a value that the layer puts out takes in torchmeter's count, its MACs aside.

    A pool takes the steps from one value of its window to the next.
    """
    match layer:
        case ReLU():
            return 1
        case Sigmoid():
            return 2
        case MaxPool() | AvgPool():
            return layer.kernel_size**2 - 1
        case Conv() | Linear() | BatchNorm() | GlobalAvgPool() | Dropout() | Flatten():
            return 0
        case _:
            assert_never(layer)


def _torchmeter_macs(network: Architecture, batch_size: int) -> int:
    """As torchmeter counts the batch: a linear layer as if it were one image."""
    of_an_image = formulas.macs(network) + sum(
        _torchmeter_operations(at.layer) * prod(at.output_shape)
        for at in shapes.placed_layers(network)
    )
    return batch_size * of_an_image - (batch_size - 1) * _linear_macs(network)


def _in_hundredths_of_gib(count: float) -> int:
    return round(round(count / 2**30, 2) * 2**30)


def _weights(network: Architecture) -> int:
    return 4 * formulas.parameters(network)


def _with_margin(count: int) -> int:
    """Kitsune's 15 % for what it does not see."""
    return 115 * count // 100


def _on_cpu(network: Architecture, batch_size: int) -> int:
    """Dropout's masks take four bytes a value there, not the one of CUDA."""
    kept = formulas.saved_tensors(network, batch_size)
    return sum(
        tensor.bytes * (4 if tensor.kind == SavedKind.DROPOUT_MASK else 1) for tensor in kept
    )


Rule = Callable[[Architecture, int], int]


def _for_each_image(rule: Callable[[Architecture], int]) -> Rule:
    return lambda network, batch_size: batch_size * rule(network)


_macs = _for_each_image(formulas.macs)
_with_bias = _for_each_image(lambda n: formulas.macs(n) + put_out(n, Conv, Linear))

_all_outputs = _for_each_image(lambda n: 4 * put_out(n))
_all_outputs_and_joins = _for_each_image(lambda n: 4 * (put_out(n) + joined(n)))
_outputs_twice = _for_each_image(lambda n: 8 * put_out(n, Conv, Linear))

RULES: Mapping[str, Mapping[str, Rule]] = MappingProxyType(
    {
        "macs": {
            "ninlab": _macs,
            "flop_counter": _macs,
            "torchscan": _macs,
            "fvcore": _for_each_image(lambda n: formulas.macs(n) + _averaged(n)),
            "torchprofile": _for_each_image(
                lambda n: formulas.macs(n) + put_out(n, AvgPool, GlobalAvgPool)
            ),
            "thop": _for_each_image(
                lambda n: (
                    formulas.macs(n)
                    + _averaged(n)
                    + put_out(n, GlobalAvgPool)
                    + _averaged_in_windows(n)
                )
            ),
            "torchinfo": _with_bias,
            "ptflops": _with_bias,
            "torchmeter": _torchmeter_macs,
        },
        "saved_bytes": {
            "ninlab": formulas.saved_bytes,
            "saved_tensors": _on_cpu,
            "fvcore": _for_each_image(lambda n: 4 * put_out(n, Conv, Linear)),
            "torchinfo": _outputs_twice,
            "torchmeter": _all_outputs,
            "kitsune": _all_outputs_and_joins,
            "vram_check": _for_each_image(lambda n: 2 * _weights(n)),
            "alloc": lambda n, _: _in_hundredths_of_gib(_weights(n)),
        },
        "peak_bytes": {
            # 64 is what Python's object around the images' storage takes
            "torchinfo": lambda n, size: (
                4 * size * prod(n.input_shape) + 64 + _weights(n) + _outputs_twice(n, size)
            ),
            "torchmeter": lambda n, size: _weights(n) + _all_outputs(n, size),
            "kitsune": lambda n, size: _with_margin(
                2 * _weights(n) + _all_outputs_and_joins(n, size)
            ),
            "vram_check": lambda n, size: (3 + 2 * size) * _weights(n),
            "alloc": lambda n, _: _in_hundredths_of_gib(4.4 * _weights(n)),
        },
    }
)
"""What a tool says of a network and a batch size, by quantity and the tool's key in the record."""
