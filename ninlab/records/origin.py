"""Which code is running, and when?"""

from __future__ import annotations

import subprocess
from datetime import UTC, datetime
from pathlib import Path

from ninlab.records.runs import Provenance


def provenance(command: str) -> Provenance:
    """Which code is running, and when. The tree is clean when nothing but runs/ differs."""
    checkout = Path(__file__).resolve().parents[2]
    tracked = _git(checkout, "ls-files", "--error-unmatch", __file__)
    if not tracked:  # installed, possibly inside somebody else's repository
        return Provenance(utc_now(), command, None, False)
    commit = _git(checkout, "rev-parse", "HEAD")
    changes = _git(checkout, "status", "--porcelain", "--", ".", ":(exclude)runs")
    return Provenance(utc_now(), command, commit, changes == "")


def code_id() -> str | None:
    """What names the package's code as committed, whatever else a commit holds: git's tree id.

    None outside a git checkout.
    """
    package = Path(__file__).resolve().parents[1]
    return _git(package, "rev-parse", "HEAD:./")


def utc_now() -> str:
    """This moment as records write it: ``2026-01-31T12:00:00Z``."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _git(folder: Path, *arguments: str) -> str | None:
    """What git answers, or None where git or the repository is missing.

    Without optional locks: one that a killed recorder leaves behind stops every later git command.
    """
    git = ["git", "--no-optional-locks", "-C", str(folder)]
    try:
        answer = subprocess.run([*git, *arguments], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return answer.stdout.strip()
