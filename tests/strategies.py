"""Random layers, shapes and small networks for the laws that hold for all of them."""

from dataclasses import fields
from typing import get_args

from hypothesis import strategies as st

from ninlab.architectures import Architecture
from ninlab.errors import ShapeError
from ninlab.layers import (
    AvgPool,
    BatchNorm,
    Block,
    Branches,
    Conv,
    Dropout,
    Flatten,
    GlobalAvgPool,
    Leaf,
    Linear,
    MaxPool,
    Pool,
    ReLU,
    Sigmoid,
)
from ninlab.shapes import output_shape


def image_shapes(max_channels: int = 12, max_size: int = 24) -> st.SearchStrategy:
    size = st.integers(1, max_size)
    return st.tuples(st.integers(1, max_channels), size, size)


@st.composite
def convolutions(draw, max_groups: int = 3) -> Conv:
    count = draw(st.integers(1, max_groups))
    return Conv(
        out_channels=count * draw(st.integers(1, 6)),
        kernel_size=draw(st.integers(1, 5)),
        stride=draw(st.integers(1, 3)),
        padding=draw(st.integers(0, 2)),
        groups=count,
        bias=draw(st.booleans()),
    )


FIELDS = {
    "out_channels": st.integers(1, 6),
    "kernel_size": st.integers(1, 3),
    "stride": st.integers(1, 3),
    "padding": st.integers(0, 1),
    "groups": st.just(1),
    "bias": st.booleans(),
    "probability": st.sampled_from([0.5, 1]),
}
"""What a field of a layer may be, by its name: whoever adds a field to a layer adds it here."""


def of_kind(kind: type[Leaf]) -> st.SearchStrategy:
    """Layers of that kind, whichever it is."""
    return st.builds(kind, **{each.name: FIELDS[each.name] for each in fields(kind)})


pools = st.one_of(map(of_kind, get_args(Pool)))
on_maps = st.one_of(
    of_kind(kind) for kind in get_args(Leaf) if kind not in (Linear, Flatten, GlobalAvgPool)
)
"""Every kind of layer that reads maps and puts out maps."""


def reads(layer, shape) -> bool:
    """Whether the layer can work on an image of that shape."""
    try:
        output_shape(layer, shape)
    except ShapeError:
        return False
    return True


@st.composite
def architectures(draw) -> Architecture:
    """A random classifier: convolutions, pools, branches, and either kind of head."""
    input_shape = draw(image_shapes(max_channels=3, max_size=16))
    shape = input_shape
    layers = []
    for step in range(draw(st.integers(1, 5))):
        if draw(st.integers(0, 4)) == 0:
            branches = tuple(
                Block(
                    f"branch{number}",
                    (Conv(draw(st.integers(1, 4)), size, padding=size // 2), ReLU()),
                )
                for number, size in enumerate(
                    draw(st.lists(st.sampled_from([1, 3, 5]), min_size=2, max_size=3))
                )
            )
            candidate = (Branches(f"mix{step}", branches),)
        else:
            layer = draw(on_maps)
            candidate = (layer, ReLU()) if isinstance(layer, Conv) else (layer,)
        block = Block(f"block{step}", candidate)
        if reads(block, shape):
            layers.append(block)
            shape = output_shape(block, shape)
    num_classes = draw(st.integers(2, 10))
    if draw(st.booleans()):
        layers += [Conv(num_classes, 1), GlobalAvgPool(), Flatten()]
    else:
        layers += [
            Flatten(),
            Linear(draw(st.integers(1, 16))),
            ReLU(),
            Dropout(0.5),
            Linear(num_classes),
        ]
    return Architecture("random", "Random", input_shape, num_classes, tuple(layers), source="none")


@st.composite
def joinable(draw) -> Architecture:
    """A random classifier of layers that one operator computes together, and of some between them.

    No filter is a single number: behind such a one torch cannot tell layouts apart.
    """
    windows = draw(st.lists(st.sampled_from([2, 3, 4]), min_size=1, max_size=4))
    input_shape = shape = draw(st.tuples(st.sampled_from([1, 3, 8]), *[st.integers(4, 18)] * 2))
    layers = []
    for step, window in enumerate(windows):
        width = draw(st.sampled_from([3, 8, 16]))
        one = Conv(width, 1 if shape[0] > 1 else window)
        spatial = Conv(width, window, draw(st.integers(1, 4)), draw(st.integers(0, 1)))
        pool = draw(st.sampled_from([MaxPool(3, 2, 1), MaxPool(2, 2), AvgPool(2, 2)]))
        flat = MaxPool(3, 1, 1)
        rows = [(one,), (one, ReLU()), (one, ReLU(), flat), (flat, one, ReLU())]
        rows += [(Dropout(0.5),)] if shape[0] > 1 else []
        branches = [
            Block(f"branch{number}", draw(st.sampled_from(rows)))
            for number in range(draw(st.integers(2, 3)))
        ]
        candidates = [
            (spatial, ReLU()),
            (spatial, ReLU(), pool),
            (Conv(width, 3, 1, 1), *(ReLU(), Conv(width, 1)) * 2, ReLU(), pool),
            (one, ReLU(), pool),
            (Branches("mix", tuple(branches)),),
            (spatial, draw(st.sampled_from([Dropout(0.5), BatchNorm(), Sigmoid(), pool]))),
        ]
        block = Block(f"block{step}", draw(st.sampled_from(candidates)))
        if reads(block, shape):
            layers.append(block)
            shape = output_shape(block, shape)
    heads = [
        (Conv(3, 3, padding=1), GlobalAvgPool(), Flatten()),
        (Conv(8, 3, padding=1), ReLU(), GlobalAvgPool(), Flatten(), Linear(3)),
        (Flatten(), Linear(4), ReLU(), Linear(3)),
    ]
    layers += draw(st.sampled_from(heads))
    return Architecture("joined", "Joined", input_shape, 3, tuple(layers), source="none")
