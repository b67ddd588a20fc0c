"""What was typed to start a benchmark, as its records state it?"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]


def command(module: str, words: Sequence[str], output: Path | None) -> str:
    """The command line, with these arguments behind ``python -m benchmarks.<module>``.

    A path of one machine says nothing elsewhere. So the output is named from the checkout on, and
    one outside of it by the name of the file alone.
    """
    return shlex.join(
        ["python", "-m", f"benchmarks.{module}", *(_anywhere(word, output) for word in words)]
    )


def _anywhere(word: str, output: Path | None) -> str:
    """An argument; the output, or an option that states it, without the machine's part."""
    option, equals, path = word.rpartition("=")
    if output is None or Path(path) != output:
        return word
    inside = output.resolve().is_relative_to(CHECKOUT)
    said = output.resolve().relative_to(CHECKOUT).as_posix() if inside else output.name
    return f"{option}{equals}{said}"
