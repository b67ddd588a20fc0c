"""What can go wrong, and how it is said.

Every error that a reader can cause is a `NinlabError`: one sentence that names
the value, the rule and the nearest valid choice. The command line prints it on
stderr and exits with code 2, or with the error's own.
"""

from collections.abc import Iterable
from difflib import get_close_matches


class NinlabError(ValueError):
    """A value that ninlab cannot work with; the message is one full sentence."""

    exit_code = 2  # of the command line


class ShapeError(NinlabError):
    """A shape that does not fit a layer or a network."""


class UnknownNameError(NinlabError):
    """A name that is not in the list it was looked up in."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        known = list(known)
        near = get_close_matches(str(name), known, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}? " if near else ""
        super().__init__(f"unknown {kind} {name!r}; {hint}known: {', '.join(known)}")


class UnknownNetworkError(UnknownNameError):
    """A network that neither ninlab nor the given module path defines."""

    def __init__(self, name: str, known: Iterable[str]) -> None:
        super().__init__("network", name, known)


class DataError(NinlabError):
    """A data set that is missing, truncated or not the published one."""


class RecordError(NinlabError):
    """A run record that is malformed, or that would overwrite another."""
