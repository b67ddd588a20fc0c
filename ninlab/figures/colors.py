"""Which color does a network or a category of memory have in the whole book?

Text, paper and grid have none here: the site's templates choose them for light and dark.
Imports from ninlab: architectures, reports.
"""

from __future__ import annotations

from collections.abc import Mapping

from ninlab.architectures import ARCHITECTURES
from ninlab.reports import Category

NEUTRAL = "#788484"
"""What belongs to no network. Like every color here it has a contrast of at least 3 against
both pages, and is told from the others with each kind of color blindness."""

HOLLOW = 0.15
"""Opacity of the inside of what was counted."""

_FAMILY_COLORS = {
    "nin": "#d87818",
    "nin_fixed": "#786c24",
    "alexnet": "#1884fc",
    "vgg": "#009c60",
    "googlenet": "#a860a8",
    "lenet": NEUTRAL,
}
_REPAIRED_AT_28 = "nin_28"


def _family(name: str) -> str:
    """The family whose color a network has: the longest one its name begins with."""
    if name.startswith(_REPAIRED_AT_28) and not name.startswith(f"{_REPAIRED_AT_28}_textbook"):
        return "nin_fixed"
    return max((f for f in _FAMILY_COLORS if name.startswith(f)), key=len, default="")


NETWORK_COLORS: Mapping[str, str] = {name: _FAMILY_COLORS[_family(name)] for name in ARCHITECTURES}
"""The color of each network. Variants of one design share it and are told apart by their labels."""

CATEGORY_COLORS: Mapping[Category, str] = {
    Category.PARAMETER: "#1884fc",
    Category.GRADIENT: "#a860a8",
    Category.OPTIMIZER_STATE: "#786c24",
    Category.ACTIVATION: "#d87818",
    Category.TEMPORARY: "#009c60",
    Category.WORKSPACE: "#6e32fa",
    Category.INPUT: NEUTRAL,
}


def color_of(name: str, like: Mapping[str, str] | None = None) -> str:
    """The color of a network, or of the network that like gives a label; else the neutral one."""
    return NETWORK_COLORS.get((like or {}).get(name, name), NEUTRAL)


def faded(color: str, opacity: float) -> str:
    """The color ``#rrggbb`` with that opacity, as Plotly writes it."""
    red, green, blue = (int(color[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},{opacity})"
