"""What does the maker of a run get, and what does it give back? Values that travel."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from ninlab import records
from ninlab.experiments import PlannedRun, Ready
from ninlab.failures import Cause, FailureRecord
from ninlab.records import Device, Provenance, RunRecord, Software


@dataclass(frozen=True)
class Task:
    """One run to make. It knows no folder: its maker writes nothing, and may be far away.

    device_slug names the device for which the run is planned; a maker that has another one
    refuses. hangs_after is in seconds, None for a run that may take for ever.
    """

    run: PlannedRun
    ready: Ready
    device: str  # as torch names it
    device_slug: str
    provenance: Provenance
    code: str | None
    threads: int | None = None
    eager: bool = False
    hangs_after: float | None = None

    @property
    def identifier(self) -> str:
        """The id of the run's record."""
        return self.run.id(self.device_slug)

    def failure(
        self, cause: Cause, sentence: str, about: Device, software: Software, *, tried_eagerly: bool
    ) -> FailureRecord:
        """The record of a run that came to nothing on that device."""
        return FailureRecord(
            run=self.identifier,
            cause=cause,
            sentence=sentence,
            tried_eagerly=tried_eagerly,
            code=self.code,
            provenance=replace(self.provenance, utc=records.utc_now()),
            device=about,
            software=software,
        )


@dataclass(frozen=True)
class Made:
    """A run that is made, and its weights where they are kept.

    stumbles are the sentences of the tries before the last one, here and in `Failed`.
    """

    record: RunRecord
    weights: bytes | None = None
    stumbles: tuple[str, ...] = ()


@dataclass(frozen=True)
class Failed:
    """A run that came to nothing."""

    failure: FailureRecord
    stumbles: tuple[str, ...] = ()


@dataclass(frozen=True)
class Refused:
    """A run that this maker cannot make, and no other like it: a mistake of the caller."""

    sentence: str


@dataclass(frozen=True)
class Killed:
    """Others ended the maker in the middle of the run, which is not the run's fault."""

    sentence: str


Answer = Made | Failed | Refused | Killed

Work = Callable[[Task], Answer]
"""What makes a run."""
