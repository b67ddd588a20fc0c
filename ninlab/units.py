"""How are bytes, counts, seconds, shapes, numbers and names of devices written and read?

Quantities are stored as integers in the unit of their name (bytes, MACs) and
rounded here only, when a person reads them. Bytes use binary prefixes
(1 MiB = 1024**2 bytes), counts decimal ones (1 M = 10**6).
"""

import math
import re
from fractions import Fraction

from ninlab.errors import NinlabError, ShapeError, UnknownNameError, quoted

Shape = tuple[int, ...]
"""(channels, height, width) of one image, or (features,) after flattening."""

BYTE_UNITS = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
_DECIMAL_BYTE_UNITS = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_COUNT_UNITS = ((10**12, "T"), (10**9, "G"), (10**6, "M"), (10**3, "k"))
_DIGITS = re.compile(r"[0-9]{1,40}")  # Python itself reads some thousand at most
_WHOLE = re.compile(rf"[+-]?{_DIGITS.pattern}")
_BYTES = re.compile(r"([0-9]{1,40}(?:\.[0-9]{1,40})?)\s*([A-Za-z]+)")

_DEVICE = re.compile(r"auto|cpu(:0)?|cuda(:[0-9]{1,3})?")

MOST_BYTES = 2**63 - 1
"""What 64 bits with a sign can count, as torch counts bytes."""


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
        raise UnknownNameError("unit", unit, BYTE_UNITS)
    if unit == "B":
        return f"{count} B"
    return f"{_three_digits(count / BYTE_UNITS[unit])} {unit}"


def parse_bytes(text: str) -> int:
    """Bytes of a size such as ``16GiB``, ``512 MB`` or ``1.5GiB``, rounded down.

    Raises NinlabError when the text is no size above zero, or more than `MOST_BYTES`.
    """
    units = BYTE_UNITS | _DECIMAL_BYTE_UNITS
    by_lower = {name.lower(): size for name, size in units.items()}
    match = _BYTES.fullmatch(text.strip())
    if not match or match[2].lower() not in by_lower:
        raise NinlabError(f"{quoted(text)} is no memory size; write for example 16GiB or 512MB")
    size = int(Fraction(match[1]) * by_lower[match[2].lower()])
    if not 1 <= size <= MOST_BYTES:
        raise NinlabError(
            f"the memory size {quoted(text)} must be at least one byte, and below 2^63 bytes"
        )
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


def parse_whole(text: str, least: float = -math.inf, most: float = math.inf) -> int:
    """The whole number that the text writes, of at most 40 decimal digits, in that range.

    A sign before it and space around it are allowed, as float allows them. Raises NinlabError for
    all else.
    """
    if not _WHOLE.fullmatch(text.strip()) or not least <= int(text) <= most:
        raise NinlabError(f"{quoted(text)} is no whole number{format_range(least, most)}")
    return int(text)


def parse_number(text: str, least: float | None = None, most: float = math.inf) -> float:
    """The number that the text writes: a finite one in that range, or without one any, NaN too.

    Raises NinlabError for all else.
    """
    try:
        number = float(text)
    except ValueError:
        raise NinlabError(f"{quoted(text)} is no number") from None
    if least is not None and not (math.isfinite(number) and least <= number <= most):
        raise NinlabError(f"{quoted(text)} is no finite number{format_range(least, most)}")
    return number


def format_range(least: float, most: float) -> str:
    """`` from 1 to 256`` or `` of at least 1``, as it follows a noun; nothing without a bound."""
    if math.isinf(most):
        return "" if math.isinf(least) else f" of at least {least}"
    return f" from {least} to {most}"


def parse_shape(text: str) -> Shape:
    """(channels, height, width) of a text such as ``3x224x224``.

    Raises ShapeError when the text is not three whole numbers above zero, or when the float32
    numbers of such an image are more than `MOST_BYTES`.
    """
    parts = text.split("x")
    if not all(map(_DIGITS.fullmatch, parts)):
        raise ShapeError(
            f"{quoted(text)} is no input shape; write channels x height x width: 3x224x224"
        )
    shape = tuple(map(int, parts))
    if len(shape) != 3 or min(shape) < 1:
        raise ShapeError(
            f"input shape {quoted(text)} must be three numbers of at least 1, as in 3x224x224"
        )
    if math.prod(shape) > MOST_BYTES // 4:
        raise ShapeError(
            f"an image of {quoted(text)} is larger than 2^63 bytes; take a smaller one"
        )
    return shape


def format_shape(shape: Shape) -> str:
    """A shape as it is typed on the command line: ``format_shape((1, 28, 28)) == "1x28x28"``."""
    return "x".join(str(size) for size in shape)


def parse_device_name(text: str) -> str:
    """The text, which names a device as torch does, or is "auto"; whether it is there is not asked.

    Raises NinlabError for all else.
    """
    if not _DEVICE.fullmatch(text):
        raise NinlabError(f"unknown device {quoted(text)}; write cpu, cuda, cuda:0 or auto")
    return text


def _reaches(value: float, size: float, step: int) -> bool:
    """Whether a value is written as one of a unit or more, not as 1000 or 1024 of the one below.

    size is the unit's, step how many of the unit below make one of it.
    """
    return round(abs(value) / (size / step)) >= step


def _three_digits(value: float) -> str:
    decimals = 0 if abs(value) >= 99.95 else 1 if abs(value) >= 9.995 else 2
    return f"{value:.{decimals}f}"
