"""What does a linear reader get from a trained network before a narrow layer, and behind it?

benchmarks/readouts.py trains networks whose weights are too many to be kept, asks each of them with
`linear_readout`, and writes a file, which is read here.

Known limits: what a linear reader misses may still be there for another one. A place with many
values lets the reader overfit to the images it was fitted on; the file says how many of both there
were.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from ninlab import records
from ninlab.errors import RecordError, UnknownNameError
from ninlab.records import Device, Host, Provenance, Software
from ninlab.records.schema import Digest, Name, NotEmpty, Positive, Seed, Share

KIND = "readouts"
SCHEMA_VERSION = 1
PATH = Path("probes") / "readouts.json"
"""Of the file in a runs folder."""


@dataclass(frozen=True)
class Place:
    """What a linear reader gets from the values at one place."""

    name: Name
    values: Positive  # of an image
    accuracy: Share  # on the test images


@dataclass(frozen=True)
class Readout:
    """One trained network, read at several places, in order of execution."""

    experiment: Name  # its recipe is that of this row of the compact plan
    network: Name
    seed: Seed
    failed: bool  # the training, as `relapses.failed` has it
    accuracy: Share  # of the network itself, on the test images
    places: Annotated[tuple[Place, ...], NotEmpty]

    @property
    def row(self) -> str:
        """The row of the plan: "experiment/network"."""
        return f"{self.experiment}/{self.network}"


@dataclass(frozen=True)
class Readouts:
    """The file of the benchmark. The annotations are its schema."""

    provenance: Provenance
    device: Device
    software: Software
    host: Host
    networks: Mapping[str, Digest]
    fitted_images: Positive  # the first training images, to which the readers were fitted
    test_images: Positive
    rows: Annotated[tuple[Readout, ...], NotEmpty]
    kind: str = KIND
    schema_version: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        records.check_schema(self, KIND, SCHEMA_VERSION, "a file of readouts")

    @classmethod
    def load(cls, folder: Path | None = None) -> Readouts:
        """That of a runs folder, by default the book's.

        Raises RecordError when there is none, and as `from_json` does.
        """
        path = (records.runs_folder() if folder is None else folder) / PATH
        return records.load_file(KIND, cls.from_json, path, made_by="benchmarks/readouts.py")

    @property
    def id(self) -> str:
        """Where the file lies in a runs folder, without ``.json``."""
        return PATH.with_suffix("").as_posix()

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Readouts:
        """The readouts of a JSON object.

        Raises RecordError, with the field and the rule, when it does not fit the schema or breaks
        a law.
        """
        file = records.from_fields(cls, content)
        records.check_origin(file.provenance, file.device, file.software)
        for problem in _broken(file):
            raise RecordError(problem)
        return file

    def of(self, row: str) -> list[Readout]:
        """The trained networks of a row of the plan ("experiment/network"), by their seeds.

        Raises UnknownNameError for a row that was not read.
        """
        known = dict.fromkeys(readout.row for readout in self.rows)
        if row not in known:
            raise UnknownNameError("readout", row, known)
        return sorted((one for one in self.rows if one.row == row), key=lambda one: one.seed)

    @property
    def source(self) -> str:
        """Where the numbers come from: the line under a figure or a table."""
        return (
            f"Measured: {self.device.name}, {self.provenance.utc[:10]}, torch "
            f"{self.software.torch}, fp32, readers fitted to {self.fitted_images:,} training "
            f"images, {self.test_images:,} test images; {self.id}."
        )


def _broken(file: Readouts) -> Iterator[str]:
    """The laws of a file that this one breaks, one sentence each, with the fields."""
    twice = [key for key, n in Counter((one.row, one.seed) for one in file.rows).items() if n > 1]
    if twice:
        row, seed = twice[0]
        yield f"rows has {row} of seed {seed} more than once"
    if {one.network for one in file.rows} != set(file.networks):
        yield "networks must be those of rows"
    for number, one in enumerate(file.rows):
        names = [place.name for place in one.places]
        if len(set(names)) < len(names):
            yield f"rows.{number}.places names one place more than once"
        # an accuracy is a number of images, over all of them
        for share in (one.accuracy, *(place.accuracy for place in one.places)):
            if abs(share * file.test_images - round(share * file.test_images)) > 1e-6:
                yield f"rows.{number} has an accuracy of {share}, of {file.test_images} images"
