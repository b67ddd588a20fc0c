"""What can go wrong, and how it is said.

Every error that a reader can cause is a `NinlabError`: one sentence that names
the value, the rule and the nearest valid choice. The command line prints it on
stderr and exits with code 2, or with the error's own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from itertools import accumulate

LONGEST_SENTENCE = 280
"""Characters of a sentence on a command line, whatever was typed; ``error:`` comes before it."""

LONGEST_VALUE = 60
"""Characters of a value that is repeated in a sentence."""

_LONGEST_LIST = 100  # characters of all names that there are
_NAMED = 5  # of a longer list


def printable(text: str) -> str:
    """The text on one line, as any terminal may show it.

    What is not to be printed, such as a new line or the beginning of a terminal's command, is
    written with a backslash.
    """
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else repr(each)[1:-1] for each in text)


def shortened(text: str, limit: int) -> str:
    """The `printable` text in at most limit characters. Of a longer text the middle is left out."""
    shown = printable(text)
    if len(shown) <= limit:
        return shown
    end = (limit - 1) // 2
    return f"{shown[: limit - 1 - end]}…{shown[len(shown) - end :]}"


def quoted(value: object, limit: int = LONGEST_VALUE) -> str:
    """The value as Python writes it, in at most limit characters: what a sentence repeats."""
    try:
        text = repr(value)
    except ValueError:  # Python writes no decimal number of more than some thousand digits
        text = f"{value:#x}"
    return shortened(text, limit)


def one_sentence(error: object, limit: int = LONGEST_SENTENCE) -> str:
    """What an error says, or its type where it says nothing, on one line of so many characters."""
    return shortened(" ".join(str(error).split()) or type(error).__name__, limit)


class NinlabError(ValueError):
    """A value that ninlab cannot work with; the message is one full sentence."""

    exit_code = 2  # of the command line


class ShapeError(NinlabError):
    """A shape that does not fit a layer or a network."""


class UnknownNameError(NinlabError):
    """A name that is not in the list it was looked up in.

    also says what the names are called elsewhere, in lower case and without signs. Of a long list
    only the names are said that are nearest to this one, and the command that prints all.
    """

    def __init__(
        self,
        kind: str,
        name: object,
        known: Iterable[str],
        *,
        also: Mapping[str, str] | None = None,
        printed_by: str | None = None,
    ) -> None:
        known = [str(each) for each in known]
        near = _nearest(str(name), known, also or {})
        hint = f"did you mean {quoted(near[0])}? " if near else ""
        super().__init__(f"unknown {kind} {quoted(name)}; {hint}{_listed(known, near, printed_by)}")


class UnknownNetworkError(UnknownNameError):
    """A network that neither ninlab nor the given module path defines."""

    def __init__(self, name: str, known: Iterable[str]) -> None:
        super().__init__("network", name, known, printed_by="python -m ninlab networks")


class DataError(NinlabError):
    """A data set that is missing, truncated or not the published one."""


class KernelsError(NinlabError):
    """Kernels that cannot run: on a device, on maps of that size, or for want of what they join."""


class RecordError(NinlabError):
    """A run record that is malformed, or that would overwrite another."""


def _nearest(name: str, known: list[str], also: Mapping[str, str]) -> list[str]:
    """The names that were meant, the most likely first: case and signs matter little."""
    name = name[:LONGEST_VALUE]  # to compare texts takes time
    plain: dict[str, str] = {}
    for each in known:
        plain.setdefault(_plain(each), each)
    found = [also[_plain(name)]] if _plain(name) in also else []
    found += [plain[each] for each in get_close_matches(_plain(name), plain, _NAMED, cutoff=0.5)]
    return list(dict.fromkeys(found))


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _listed(known: list[str], near: list[str], printed_by: str | None) -> str:
    """All names if they are few, else the nearest, how many more there are, and where they are."""
    known, near = ([shortened(each, LONGEST_VALUE) for each in names] for names in (known, near))
    if len(everything := ", ".join(known)) <= _LONGEST_LIST:
        return f"known: {everything or 'none'}"
    some = [*dict.fromkeys([*near, *known])][:_NAMED]
    fitting = [few for few in accumulate(some, "{}, {}".format) if len(few) <= _LONGEST_LIST]
    rest = f"known: {fitting[-1]} and {len(known) - len(fitting)} more"
    return rest if printed_by is None else f"{rest}; `{printed_by}` lists them"
