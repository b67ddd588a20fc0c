"""Random layers, shapes and small networks for the laws that hold for all of them."""

from hypothesis import strategies as st

from ninlab.architectures import Architecture
from ninlab.errors import ShapeError
from ninlab.formulas import output_shape
from ninlab.layers import (
    AvgPool,
    BatchNorm,
    Block,
    Branches,
    Conv,
    Dropout,
    Flatten,
    GlobalAvgPool,
    Linear,
    MaxPool,
    ReLU,
    Sigmoid,
)


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


pools = st.builds(
    lambda kind, kernel_size, stride, padded: kind(
        kernel_size, stride, kernel_size // 2 if padded else 0
    ),
    st.sampled_from([MaxPool, AvgPool]),
    st.integers(1, 3),
    st.integers(1, 3),
    st.booleans(),
)
shape_keeping = st.sampled_from([ReLU(), Sigmoid(), BatchNorm(), Dropout(0.5), Dropout(1)])


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
    single_group = convolutions(max_groups=1)
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
            layer = draw(st.one_of(single_group, pools, shape_keeping))
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
