"""What do figures call a network, a layer, a shape?

Imports from ninlab: architectures, units.
"""

from __future__ import annotations

from ninlab.architectures import (
    ARCHITECTURES,
    AvgPool,
    BatchNorm,
    Block,
    Branches,
    Conv,
    Dropout,
    Flatten,
    GlobalAvgPool,
    Layer,
    Linear,
    MaxPool,
    ReLU,
    Sigmoid,
)
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


def describe(layer: Layer) -> str:
    """A layer in a few words: ``describe(Conv(96, 11, stride=4)) == "11×11 conv 96 /4"``.

    ``/4`` is the stride. Padding is left out: shapes tell it.
    """
    match layer:
        case Conv(out_channels=channels, kernel_size=size, stride=stride, groups=groups):
            several = f" in {groups} groups" if groups > 1 else ""
            return f"{size}×{size} conv {channels}{_by(stride)}{several}"
        case MaxPool(kernel_size=size, stride=stride):
            return f"{size}×{size} max pool{_by(stride)}"
        case AvgPool(kernel_size=size, stride=stride):
            return f"{size}×{size} mean{_by(stride)}"
        case Linear(out_features=features):
            return f"linear {features}"
        case GlobalAvgPool():
            return "global average"
        case Dropout(probability=probability):
            return f"dropout {probability:g}"
        case BatchNorm():
            return "batch norm"
        case ReLU():
            return "ReLU"
        case Sigmoid():
            return "sigmoid"
        case Flatten():
            return "flatten"
        case Block(name=name) | Branches(name=name):
            return name


def _by(stride: int) -> str:
    return f" /{stride}" if stride > 1 else ""
