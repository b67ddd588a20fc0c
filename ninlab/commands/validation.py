"""What makes a record of the runs folder valid, whatever its kind?"""

from __future__ import annotations

from typing import Any

from ninlab import failures, peers, records
from ninlab.architectures import ARCHITECTURES


def readers() -> dict[str, records.FromJson[Any]]:
    """How records are read that are no training runs, by their kind."""
    from ninlab import measurement  # waits for torch

    return {
        measurement.KIND: measurement.MemoryRecord.from_json,
        peers.KIND: peers.Comparison.from_json,
        failures.KIND: failures.FailureRecord.from_json,
    }


def changed_network(identifier: str, name: str, digest: str) -> str | None:
    """One sentence where the network of a record is not the one of that name any more."""
    network = ARCHITECTURES.get(name)
    if network is not None and network.digest == digest:
        return None
    return f"{identifier}: {name} is not the network of this checkout; record a correction"
