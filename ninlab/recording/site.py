"""Where are runs made and kept, and what became of them?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from ninlab import failures
from ninlab.errors import NinlabError
from ninlab.records import Device, Provenance
from ninlab.watching import Status

_MOST_THREADS = 1024


class DeviceLostError(NinlabError):
    """The process cannot use its device any more; a new one may."""

    exit_code = 5


@dataclass(frozen=True)
class Site:
    """Where a recorder keeps its runs, and how it has them made.

    eager takes steps without a CUDA graph. patience is how many times its estimate a run may take
    before it counts as hung, where anything is known of the device; None waits for ever, as for a
    CPU that is merely slow. Raises NinlabError for a number that nobody can work with.
    """

    folder: Path
    device: str  # as torch names it
    provenance: Provenance
    threads: int | None = None  # of a CPU run; None leaves torch's own choice
    eager: bool = False
    patience: float | None = None
    code: str | None = None  # `records.code_id` where it is that of a clean tree

    def __post_init__(self) -> None:
        if self.threads is not None and not 1 <= self.threads <= _MOST_THREADS:
            raise NinlabError(
                f"{self.threads} threads cannot make a run; take 1 to {_MOST_THREADS}"
            )
        if self.patience is not None and not self.patience > 0:
            raise NinlabError(f"patience of {self.patience:g} times an estimate; take more than 0")

    @cached_property
    def about(self) -> Device:
        """What a record says of the device."""
        import torch

        from ninlab.environment import describe_device

        return describe_device(torch.device(self.device))

    @property
    def device_slug(self) -> str:
        """What names the device in the ids of its records."""
        return self.about.slug

    def has_failed(self, identifier: str) -> bool:
        """Whether the run of that id came to nothing by this very code.

        Changed code may do better, and where nothing names it nobody knows whether it changed.
        """
        return self.code is not None and failures.has_failed(self.folder, identifier, self.code)


@dataclass
class Tally:
    """What a recording did: status of every run of the plan, by id."""

    statuses: Mapping[str, Status] = field(default_factory=dict)
    seconds: float = 0.0

    def ids(self, *statuses: Status) -> list[str]:
        """The runs in one of those states, in the plan's order."""
        return [identifier for identifier, status in self.statuses.items() if status in statuses]


def check_tree(provenance: Provenance, allow_dirty: bool) -> None:
    """Raises NinlabError unless the code is that of a commit, or a dirty tree is allowed."""
    if provenance.clean_tree or allow_dirty:
        return
    if provenance.commit is None:
        raise NinlabError(
            "this ninlab is no git checkout, so its records could not name their code; clone the "
            "repository, or record for yourself with --allow-dirty"
        )
    raise NinlabError(
        f"the working tree differs from commit {provenance.commit[:12]}; commit first, or record "
        "for yourself with --allow-dirty"
    )
