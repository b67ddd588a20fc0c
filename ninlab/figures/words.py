"""What do figures call a network, a layer, a shape?"""

from __future__ import annotations

from ninlab.architectures import ARCHITECTURES
from ninlab.units import Shape


def title_of(name: str) -> str:
    """A network's title; a label that is no network's name stays as it is."""
    return ARCHITECTURES[name].title if name in ARCHITECTURES else name


def times(shape: Shape) -> str:
    """A shape as ``384×5×5``."""
    return "×".join(map(str, shape))


def dead(classes: int) -> str:
    """That number of dead classes in words: ``1 dead class``."""
    return f"{classes} dead class" + ("" if classes == 1 else "es")
