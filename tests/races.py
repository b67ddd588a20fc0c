"""Races made up for tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ninlab.architectures import ARCHITECTURES
from ninlab.races import Lane, Race, Step
from tests.records import A_RECORD


def raced(
    seconds: Mapping[str, Sequence[float]], batch_size: int = 128, step: Step = Step.TRAINING
) -> Race:
    """A race of one kind of steps, with the seconds of each network's rounds."""
    lanes = tuple(
        Lane(
            name,
            step,
            ARCHITECTURES[name].input_shape if name in ARCHITECTURES else (1, 28, 28),
            tuple(taken),
        )
        for name, taken in seconds.items()
    )
    return Race(
        A_RECORD.provenance,
        A_RECORD.device,
        A_RECORD.software,
        A_RECORD.host,
        batch_size,
        10,
        lanes,
    )
