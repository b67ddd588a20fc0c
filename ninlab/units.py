"""How are bytes, counts, seconds and shapes written and read?

Quantities are stored as integers in the unit of their name (bytes, MACs) and
rounded here only, when a person reads them. Bytes use binary prefixes
(1 MiB = 1024**2 bytes), counts decimal ones (1 M = 10**6).
"""

import math
import re

from ninlab.errors import NinlabError, ShapeError

Shape = tuple[int, ...]
"""(channels, height, width) of one image, or (features,) after flattening."""

BYTE_UNITS = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
_DECIMAL_BYTE_UNITS = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_COUNT_UNITS = ((10**12, "T"), (10**9, "G"), (10**6, "M"), (10**3, "k"))
_SHAPE = re.compile(r"\d+(x\d+)*")
_BYTES = re.compile(r"(\d+(?:\.\d+)?)\s*([A-Za-z]+)")


def format_bytes(count: int, unit: str | None = None) -> str:
    """Bytes as text with four significant digits at most: ``format_bytes(1536) == "1.50 KiB"``.

    unit is one of `BYTE_UNITS`; without it the largest unit is used in which the
    value, as written, is at least one.
    Raises NinlabError for an unknown unit.
    """
    if unit is None:
        large = (u for u, size in reversed(BYTE_UNITS.items()) if _reaches(count, size, 1024))
        unit = next(large, "B")
    if unit not in BYTE_UNITS:
        raise NinlabError(f"unknown unit {unit!r}; known: {', '.join(BYTE_UNITS)}")
    if unit == "B":
        return f"{count} B"
    return f"{_three_digits(count / BYTE_UNITS[unit])} {unit}"


def parse_bytes(text: str) -> int:
    """Bytes of a size such as ``16GiB``, ``512 MB`` or ``1.5GiB``, rounded down.

    Raises NinlabError when the text is no size above zero.
    """
    units = BYTE_UNITS | _DECIMAL_BYTE_UNITS
    by_lower = {name.lower(): size for name, size in units.items()}
    match = _BYTES.fullmatch(text.strip())
    if not match or match[2].lower() not in by_lower:
        raise NinlabError(f"{text!r} is no memory size; write for example 16GiB or 512MB")
    size = int(float(match[1]) * by_lower[match[2].lower()])
    if size < 1:
        raise NinlabError(f"the memory size {text!r} must be at least one byte")
    return size


def format_count(count: float) -> str:
    """A count with a decimal prefix: ``format_count(1_992_166) == "1.99 M"``."""
    for size, prefix in _COUNT_UNITS:
        if _reaches(count, size, 1000):
            return f"{_three_digits(count / size)} {prefix}"
    return f"{count:g}"


def format_seconds(seconds: float) -> str:
    """Seconds as text, in the unit that leaves one to three digits before the point."""
    if not math.isfinite(seconds):
        return str(seconds)
    if seconds >= 120:
        minutes, rest = divmod(round(seconds), 60)
        return f"{minutes} min {rest} s"
    for size, unit in ((1, "s"), (1e-3, "ms"), (1e-6, "µs")):
        if _reaches(seconds, size, 1000):
            return f"{_three_digits(seconds / size)} {unit}"
    return f"{_three_digits(seconds / 1e-9)} ns"


def parse_shape(text: str) -> Shape:
    """(channels, height, width) of a text such as ``3x224x224``.

    Raises ShapeError when the text is not three whole numbers above zero.
    """
    if not _SHAPE.fullmatch(text):
        raise ShapeError(f"{text!r} is no input shape; write channels x height x width: 3x224x224")
    shape = tuple(int(part) for part in text.split("x"))
    if len(shape) != 3 or min(shape) < 1:
        raise ShapeError(
            f"input shape {text!r} must be three numbers of at least 1, as in 3x224x224"
        )
    return shape


def format_shape(shape: Shape) -> str:
    """A shape as it is typed on the command line: ``format_shape((1, 28, 28)) == "1x28x28"``."""
    return "x".join(str(size) for size in shape)


def _reaches(value: float, size: float, step: int) -> bool:
    """Whether a value is written as one of a unit or more, not as 1000 or 1024 of the one below.

    size is the unit's, step how many of the unit below make one of it.
    """
    return round(abs(value) / (size / step)) >= step


def _three_digits(value: float) -> str:
    decimals = 0 if abs(value) >= 99.95 else 1 if abs(value) >= 9.995 else 2
    return f"{value:.{decimals}f}"
