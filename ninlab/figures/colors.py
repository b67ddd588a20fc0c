"""Which color does a network or a category of memory have in the whole book?

Text, paper and grid have none here: the site's templates choose them for light and dark.
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

FAMILY_COLORS: Mapping[str, str] = {
    "nin": "#d87818",
    "nin_fixed": "#786c24",
    "alexnet": "#1884fc",
    "vgg": "#009c60",
    "googlenet": "#a860a8",
}
"""The color of each family that is compared with others; its variants are told apart by labels."""

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
    """The color of a network's family, be it the network that like gives a label.

    The neutral one for a family without a color, and for what is no network.
    """
    network = ARCHITECTURES.get((like or {}).get(name, name))
    return FAMILY_COLORS.get(network.family, NEUTRAL) if network else NEUTRAL


def faded(color: str, opacity: float) -> str:
    """The color ``#rrggbb`` with that opacity, as Plotly writes it."""
    red, green, blue = (int(color[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},{opacity})"
