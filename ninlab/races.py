"""Which network takes longer, where all of them take turns on one machine?

Seconds of two runs say nothing of two networks: between the runs the machine had other work, or
another clock. In a race each network takes a turn in every round, so that whatever else goes on
disturbs all of them alike, and two networks are compared round by round. ``benchmarks/race.py``
runs a race and writes it as a line of ``runs/probes/race.jsonl``; here it is read.

Known limit: what others do still costs, and may cost a network that moves more bytes more. `Race`
says how busy others kept the machine.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from statistics import median, quantiles
from typing import Annotated, Any

from ninlab import records
from ninlab.architectures import architecture
from ninlab.errors import NinlabError, RecordError
from ninlab.records import Device, Host, Provenance, Software
from ninlab.records.schema import Above0, Digest, ImageShape, Name, NotEmpty, Positive, parse
from ninlab.units import format_shape

KIND = "race"
SCHEMA_VERSION = 2
"""2 states version and digests. Of the networks in lines of 1 only names and shapes are known."""
FILE = Path("probes") / "race.jsonl"
"""Below a runs folder: one race a line, the oldest first."""


class Step(StrEnum):
    """What is done with one batch."""

    TRAINING = "training"  # forward, backward and the update
    INFERENCE = "inference"  # forward alone


@dataclass(frozen=True)
class Lane:
    """One network's steps of one kind: seconds of a step in each round."""

    network: Name
    step: Step
    input_shape: ImageShape
    seconds: Annotated[tuple[Above0, ...], NotEmpty]
    network_digest: Digest | None = None  # None in lines of version 1


@dataclass(frozen=True)
class Ratio:
    """How many times as long one step takes as another: the median over rounds, and quartiles."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, rounds: Iterable[float]) -> Ratio:
        """That of the ratios of all rounds."""
        found = list(rounds)
        low, middle, high = (
            quantiles(found, n=4, method="inclusive") if len(found) > 1 else found * 3
        )
        return cls(middle, low, high)

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.low:.2f} to {self.high:.2f})"


@dataclass(frozen=True)
class Race:
    """Networks that took turns, round by round. In a turn a network takes steps_a_turn steps."""

    provenance: Provenance
    device: Device
    software: Software
    host: Host
    batch_size: Positive
    steps_a_turn: Positive
    lanes: Annotated[tuple[Lane, ...], NotEmpty]
    kind: str = KIND
    schema_version: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        records.check_schema(self, KIND, SCHEMA_VERSION, "a race")
        if len({len(lane.seconds) for lane in self.lanes}) > 1:
            raise RecordError("its lanes have different numbers of rounds; each takes part in all")
        if len({(lane.network, lane.step) for lane in self.lanes}) < len(self.lanes):
            raise RecordError("two of its lanes are of one network and one kind of step")

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Race:
        """The race of a JSON object; one of version 1 becomes what it would be of this.

        Raises RecordError, with the field and the rule, where it does not fit the schema.
        """
        race = records.part(cls, content if "schema_version" in content else _of_version_1(content))
        records.check_origin(race.provenance, race.device, race.software)
        return race

    @property
    def networks(self) -> list[str]:
        """Those of the race, in the order in which it names them."""
        return list(dict.fromkeys(lane.network for lane in self.lanes))

    @property
    def rounds(self) -> int:
        """How often each took its turn."""
        return len(self.lanes[0].seconds)

    def rounds_of(self, network: str, step: Step = Step.TRAINING) -> tuple[float, ...]:
        """Seconds of a step in each round. Raises NinlabError where it did not take part."""
        return self._lane(network, step).seconds

    def input_shape(self, network: str, step: Step = Step.TRAINING) -> tuple[int, ...]:
        """(channels, height, width) of what it read. Raises NinlabError as `rounds_of`."""
        return self._lane(network, step).input_shape

    def _lane(self, network: str, step: Step) -> Lane:
        for lane in self.lanes:
            if (lane.network, lane.step) == (network, step):
                return lane
        there = ", ".join(lane.network for lane in self.lanes if lane.step is step)
        raise NinlabError(f"no {step} steps of {network!r} are in the race; there are: {there}")

    def seconds(self, network: str, step: Step = Step.TRAINING) -> float:
        """Seconds of a step: the median over the rounds. Raises NinlabError as `rounds_of`."""
        return median(self.rounds_of(network, step))

    def ratio(self, network: str, to: str, step: Step = Step.TRAINING) -> Ratio:
        """How many times as long its step takes as that of another, round by round.

        Raises NinlabError as `rounds_of`.
        """
        pairs = zip(self.rounds_of(network, step), self.rounds_of(to, step), strict=True)
        return Ratio.of(own / other for own, other in pairs)


def load(folder: Path | None = None) -> list[Race]:
    """The races of a runs folder, by default the book's, the oldest first.

    Raises RecordError, with the line, for one that is not as `Race` says.
    """
    path = (records.runs_folder() if folder is None else folder) / FILE
    found = []
    lines = path.read_bytes().splitlines() if path.is_file() else []
    for number, line in enumerate(lines, 1):
        try:
            found.append(Race.from_json(parse(line)))
        except RecordError as error:
            raise RecordError(f"{path}, line {number}: {error}") from error
    return found


def newest(
    networks: Iterable[str],
    *,
    batch_size: int,
    input_shape: tuple[int, ...],
    folder: Path | None = None,
) -> Race:
    """The newest race of all these networks, in batches of that size of images of that shape.

    A race of networks that are other ones by now is passed over, where it states their digests.
    Raises NinlabError where there is none, and UnknownNetworkError for a network that there is not.
    """
    wanted = {name: architecture(name).digest for name in networks}
    for race in reversed(load(folder)):
        there = {
            lane.network
            for lane in race.lanes
            if lane.input_shape == input_shape
            and lane.network_digest in (None, wanted.get(lane.network))
        }
        if race.batch_size == batch_size and there >= set(wanted):
            return race
    listed = " ".join(sorted(wanted))
    raise NinlabError(
        f"these networks have not raced on {format_shape(input_shape)}; run benchmarks/race.py "
        f"{listed} --batch-size {batch_size} --side {input_shape[-1]}"
    )


def _of_version_1(content: Mapping[str, Any]) -> dict[str, Any]:
    """A line of version 1 with what it did not state."""
    lanes = content.get("lanes")
    if isinstance(lanes, list):
        lanes = [
            {"network_digest": None, **lane} if isinstance(lane, dict) else lane for lane in lanes
        ]
    return {**content, "lanes": lanes, "schema_version": SCHEMA_VERSION}
