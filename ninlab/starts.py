"""What is left of the images in a network's scores before its first training step?

benchmarks/starts.py sends images through untrained networks of many seeds and writes a file, which
is read here. Three networks of one rule for the start tell what that rule does from what the
textbook's NiN makes of it; others have NiN's layers and another start.

Known limits: a class counts as dead if it scores 0 on the images of the file, of which there are
few. A network without a last ReLU has no such class, and says None.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import inf, sqrt
from pathlib import Path
from statistics import fmean
from typing import Annotated, Any

from ninlab import records
from ninlab.architectures import Architecture, architecture
from ninlab.errors import RecordError, UnknownNameError
from ninlab.layers import Conv, Linear, ReLU
from ninlab.records import Device, Host, Provenance, Software
from ninlab.records.schema import (
    Above0,
    Count,
    Digest,
    Name,
    NotEmpty,
    NotNegative,
    Positive,
    Seed,
)
from ninlab.shapes import placed_layers

KIND = "starts"
SCHEMA_VERSION = 1
PATH = Path("probes") / "starts.json"
"""Of the file in a runs folder."""


@dataclass(frozen=True)
class Start:
    """One untrained network. Spreads are standard deviations over images or over classes.

    left has for each convolution and linear layer the root mean square, over the values that it
    hands on, of their spread over images, as a share of that of the images. What it hands on is
    behind its ReLU, if it has one.
    """

    network: Name
    seed: Seed
    dead_classes: Count | None  # that score 0 on every image; None without a last ReLU
    predicted_classes: Positive  # that score highest for one image at least
    over_images: NotNegative  # spread of a class's score, root mean square over classes
    between_classes: NotNegative  # spread of the classes' mean scores
    left: Annotated[tuple[NotNegative, ...], NotEmpty]

    @property
    def heard(self) -> float:
        """How much of what tells scores apart comes from the image, and how much is fixed.

        The spread of a class's score over images, as a ratio to that of the mean scores over
        classes: infinite where the image alone tells them apart, 0 where all scores are equal.
        """
        if self.between_classes:
            return self.over_images / self.between_classes
        return inf if self.over_images else 0.0


@dataclass(frozen=True)
class Starts:
    """The file of the benchmark. The annotations are its schema."""

    provenance: Provenance
    device: Device
    software: Software
    host: Host
    networks: Mapping[str, Digest]
    images: Positive  # the first of the test set, resized to the network's input
    image_spread: Above0  # over images, root mean square over pixels, which are 0 to 1
    rows: Annotated[tuple[Start, ...], NotEmpty]
    kind: str = KIND
    schema_version: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        records.check_schema(self, KIND, SCHEMA_VERSION, "a file of starts")

    @classmethod
    def load(cls, folder: Path | None = None) -> Starts:
        """That of a runs folder, by default the book's.

        Raises RecordError when there is none, and as `from_json` does.
        """
        path = (records.runs_folder() if folder is None else folder) / PATH
        return records.load_file(KIND, cls.from_json, path, made_by="benchmarks/starts.py")

    @property
    def id(self) -> str:
        """Where the file lies in a runs folder, without ``.json``."""
        return PATH.with_suffix("").as_posix()

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Starts:
        """The starts of a JSON object.

        Raises RecordError, with the field and the rule, when it does not fit the schema or breaks
        a law.
        """
        file = records.from_fields(cls, content)
        records.check_origin(file.provenance, file.device, file.software)
        for problem in _broken(file):
            raise RecordError(problem)
        return file

    def of(self, network: str) -> list[Start]:
        """The starts of a network, in the order of their seeds.

        Raises UnknownNameError for a network that was not measured.
        """
        if network not in self.networks:
            raise UnknownNameError("measured start", network, self.networks)
        return sorted((row for row in self.rows if row.network == network), key=lambda r: r.seed)

    def left(self, network: str) -> list[float]:
        """What is left of the images behind each layer, in the mean over the seeds."""
        rows = [row.left for row in self.of(network)]
        return [fmean(of_layer) for of_layer in zip(*rows, strict=True)]

    def left_in_scores(self, network: str) -> list[float]:
        """The spread of a class's score over images, as a share of the images', of each seed."""
        return [row.over_images / self.image_spread for row in self.of(network)]

    @property
    def seeds(self) -> int:
        """How many starts each network has."""
        return len(self.rows) // len(self.networks)

    @property
    def source(self) -> str:
        """Where the numbers come from: the line under a figure."""
        return (
            f"Measured: {self.device.name}, {self.provenance.utc[:10]}, torch "
            f"{self.software.torch}, fp32, {self.images} test images, {self.seeds} seeds, no "
            f"training; {self.id}."
        )


def weighted_layers(network: Architecture) -> list[str]:
    """The paths of the convolutions and linear layers, in order of execution."""
    return [name for name, layer in network.named_leaves() if isinstance(layer, Conv | Linear)]


def handed_on(network: Architecture) -> list[str]:
    """Behind which layer the values of each of the `weighted_layers` are complete.

    That is the ReLU that follows at once, else the layer itself.
    """
    leaves = list(network.named_leaves())
    following = [*leaves[1:], ("", None)]
    return [
        behind if isinstance(next_layer, ReLU) else name
        for (name, layer), (behind, next_layer) in zip(leaves, following, strict=True)
        if isinstance(layer, Conv | Linear)
    ]


def has_last_relu(network: Architecture) -> bool:
    """Whether a ReLU makes the scores, so that a class can be dead."""
    return handed_on(network)[-1] != weighted_layers(network)[-1]


def signal_left(network: Architecture) -> list[float]:
    """The share of the signal that Xavier's weights and ReLUs leave behind each weighted layer.

    The share of a standard deviation, with biases of 0 and without the gain of maximum pooling: a
    layer with a ReLU behind it multiplies the mean square by in / (in + out), for windows cancel,
    and one without by twice that. Convolutions in groups are not covered.
    Source: Glorot2010 for the variance of the weights.
    """
    power, shares = 1.0, []
    rectified = dict(zip(weighted_layers(network), handed_on(network), strict=True))
    for at in placed_layers(network):
        if at.name in rectified:
            inputs, outputs = at.input_shape[0], at.output_shape[0]
            halves = 1 if rectified[at.name] != at.name else 2
            power *= halves * inputs / (inputs + outputs)
            shares.append(sqrt(power))
    return shares


def _broken(file: Starts) -> Iterator[str]:
    """The laws of a file that this one breaks, one sentence each, with the fields."""
    measured = [(row.network, row.seed) for row in file.rows]
    seeds = sorted({row.seed for row in file.rows})
    if sorted(measured) != sorted((name, seed) for name in file.networks for seed in seeds):
        yield "rows must have one start of every seed for each of networks"
    for number, row in enumerate(file.rows):
        network = architecture(row.network)
        if len(row.left) != len(weighted_layers(network)):
            yield (
                f"rows.{number}.left has {len(row.left)} values for the "
                f"{len(weighted_layers(network))} weighted layers of {row.network}"
            )
        if (row.dead_classes is None) == has_last_relu(network):
            yield f"rows.{number}.dead_classes is a number just where {row.network} ends in a ReLU"
        if max(row.dead_classes or 0, row.predicted_classes) > network.num_classes:
            yield f"rows.{number} counts more classes than {network.num_classes}"
