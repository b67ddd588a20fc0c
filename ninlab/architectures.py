"""What is each network? Blocks and whole architectures as data.

An `Architecture` is a tuple of `layers` together with where it comes from and where it
differs from its source. Nothing here computes a cost or needs torch: `formulas` and `tape`
count these values on paper, `networks` turns them into modules. Every convolution of a NiN
is followed by a ReLU, the last one included, unless the architecture's deviations say
otherwise.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import partial
from string import ascii_lowercase
from typing import Any

from ninlab.errors import NinlabError, UnknownNameError, UnknownNetworkError
from ninlab.layers import (
    AvgPool,
    BatchNorm,
    Block,
    Branches,
    Conv,
    Dropout,
    Flatten,
    GlobalAvgPool,
    Layer,
    Leaf,
    Linear,
    MaxPool,
    ReLU,
    Sigmoid,
    named_leaves,
)
from ninlab.units import Shape

# ---------------------------------------------------------------- start


class Weights(StrEnum):
    """How the weights of convolutions and linear layers start."""

    TORCH_DEFAULT = "torch_default"  # uniform within 1 / sqrt(fan in)
    XAVIER_UNIFORM = "xavier_uniform"
    KAIMING_NORMAL = "kaiming_normal"  # fan in, gain for ReLU


class Biases(StrEnum):
    """How the biases of convolutions and linear layers start."""

    TORCH_DEFAULT = "torch_default"  # uniform within 1 / sqrt(fan in)
    ZERO = "zero"


@dataclass(frozen=True)
class Initialization:
    """Where training starts. Batch normalization always starts as the identity."""

    weights: Weights = Weights.TORCH_DEFAULT
    biases: Biases = Biases.TORCH_DEFAULT


XAVIER_WEIGHTS = Initialization(Weights.XAVIER_UNIFORM)
XAVIER_ZERO_BIASES = Initialization(Weights.XAVIER_UNIFORM, Biases.ZERO)
KAIMING_ZERO_BIASES = Initialization(Weights.KAIMING_NORMAL, Biases.ZERO)


_USUAL_SIZE = "224x224"  # of images; a title names any other, for costs go with it


@dataclass(frozen=True)
class Architecture:
    """A network as data, with its source and every known deviation from it.

    Networks of one family that read the same images differ in their variant. It is empty for
    the one that the others change, if there is such a one. A network without a family is related
    to no other. Family and variant are outside the digest.
    """

    name: str
    title: str
    input_shape: Shape
    num_classes: int
    layers: tuple[Layer, ...]
    source: str  # key of references.bib
    deviations: tuple[str, ...] = ()
    initialization: Initialization = Initialization()
    family: str = ""
    variant: str = ""

    @property
    def short_title(self) -> str:
        """The title without the size of the images, for where all networks read the same ones."""
        size = " at {1}x{2}".format(*self.input_shape)
        return self.title.replace(f",{size}", "").replace(size, "")

    def title_at(self, input_shape: Shape) -> str:
        """The title of the same network for other images: it names their size unless 224x224."""
        if input_shape == self.input_shape:
            return self.title
        size = "{1}x{2}".format(*input_shape)
        return self.short_title if size == _USUAL_SIZE else f"{self.short_title} at {size}"

    @property
    def digest(self) -> str:
        """12 hex digits that change when layers, input, classes or initialization change."""
        content = repr((self.input_shape, self.num_classes, self.layers, self.initialization))
        return hashlib.sha256(content.encode()).hexdigest()[:12]

    def named_leaves(self) -> Iterator[tuple[str, Leaf]]:
        """(dotted module path, layer) of every layer that computes, in order of execution."""
        yield from named_leaves(self.layers)


# ---------------------------------------------------------------- blocks


def conv_relu(conv: Conv, *, batch_norm: bool = False, relu: bool = True) -> tuple[Layer, ...]:
    """A convolution, batch normalization if asked for, and a ReLU unless not asked for."""
    return (conv, *((BatchNorm(),) if batch_norm else ()), *((ReLU(),) if relu else ()))


def nin_block(
    name: str,
    out_channels: int,
    kernel_size: int,
    stride: int = 1,
    padding: int = 0,
    *,
    one_by_one_layers: int = 2,
    inner_kernel_size: int = 1,
    reduction: tuple[int, ...] = (),
    last_relu: bool = True,
    batch_norm: bool = False,
) -> Block:
    """One convolution and then the "network in network": small convolutions at every pixel.

    inner_kernel_size 3 replaces the 1x1 layers by padded 3x3 ones. reduction gives the
    channels of the layers before the last, so ``reduction=(192, 96)`` reaches
    out_channels gradually; its length must equal one_by_one_layers. Without last_relu
    the last convolution stays linear and unnormalized. Raises NinlabError for another
    length, a number of 1x1 layers below 0 and an even inner_kernel_size.
    Source: Lin2013; the block of two 1x1 layers is Zhang2023, section 8.3.
    """
    if one_by_one_layers < 0:
        raise NinlabError(f"a block has 0 or more 1x1 layers, not {one_by_one_layers}")
    if inner_kernel_size % 2 == 0:
        raise NinlabError(
            f"windows of {inner_kernel_size} cannot be padded to keep the size of a map; "
            f"take {inner_kernel_size + 1}"
        )
    if reduction and len(reduction) != one_by_one_layers:
        raise NinlabError(
            f"reduction {reduction} needs one width for each of the {one_by_one_layers} layers "
            "before the last"
        )
    widths = (*reduction, out_channels) if reduction else (out_channels,) * (one_by_one_layers + 1)
    convs = [Conv(widths[0], kernel_size, stride, padding)]
    convs += [Conv(w, inner_kernel_size, padding=inner_kernel_size // 2) for w in widths[1:]]
    layers: list[Layer] = []
    for conv in convs:
        linear = conv is convs[-1] and not last_relu
        layers += conv_relu(conv, batch_norm=batch_norm and not linear, relu=not linear)
    return Block(name, tuple(layers))


def vgg_block(name: str, num_convs: int, out_channels: int, *, pool: bool = True) -> Block:
    """num_convs padded 3x3 convolutions with ReLU, then a 2x2 max pool. Source: Simonyan2014."""
    layers = [
        layer for _ in range(num_convs) for layer in conv_relu(Conv(out_channels, 3, padding=1))
    ]
    return Block(name, (*layers, *((MaxPool(2, 2),) if pool else ())))


def inception_block(
    name: str, c1: int, c2: tuple[int, int], c3: tuple[int, int], c4: int
) -> Branches:
    """The four branches of GoogLeNet: 1x1; 1x1-3x3; 1x1-5x5; pool-1x1. Source: Szegedy2014."""
    return Branches(
        name,
        (
            Block("branch1", conv_relu(Conv(c1, 1))),
            Block("branch2", (*conv_relu(Conv(c2[0], 1)), *conv_relu(Conv(c2[1], 3, padding=1)))),
            Block("branch3", (*conv_relu(Conv(c3[0], 1)), *conv_relu(Conv(c3[1], 5, padding=2)))),
            Block("branch4", (MaxPool(3, 1, padding=1), *conv_relu(Conv(c4, 1)))),
        ),
    )


def fully_connected_head(num_classes: int, hidden: Sequence[int], *, dropout: float = 0.5) -> Block:
    """Flatten, hidden layers with ReLU and dropout, if any, and one linear layer to the classes."""
    layers: list[Layer] = [Flatten()]
    for width in hidden:
        layers += [Linear(width), ReLU(), *([Dropout(dropout)] if dropout else [])]
    return Block("head", (*layers, Linear(num_classes)))


# ---------------------------------------------------------------- families


class Head(StrEnum):
    """What turns NiN's feature maps into class scores."""

    AVERAGE = "average"  # a block with one channel a class, then its mean
    LINEAR = "linear"  # the same block, flattened into one linear layer
    FULLY_CONNECTED = "fully_connected"  # no last block: two wide hidden layers, as in AlexNet


@dataclass(frozen=True)
class Stem:
    """The spatial layers of a NiN: its blocks, and the pool after each.

    Each block is (out_channels, kernel_size, stride, padding).
    """

    blocks: tuple[tuple[int, int, int, int], ...]
    pool: MaxPool
    hidden_features: int  # width of the fully connected head that replaces the average

    def widths(self, *, doubling: bool = False) -> tuple[int, ...]:
        """The channels of each block; with doubling twice as many as in the block before."""
        own = tuple(out_channels for out_channels, *_ in self.blocks)
        return tuple(own[0] * 2**stage for stage in range(len(own))) if doubling else own


TEXTBOOK_STEM = Stem(((96, 11, 4, 0), (256, 5, 1, 2), (384, 3, 1, 1)), MaxPool(3, 2), 4096)
SMALL_STEM = Stem(((16, 5, 2, 2), (32, 5, 1, 2), (48, 3, 1, 1)), MaxPool(3, 2, 1), 1024)
WIDE_STEM = Stem(((96, 5, 2, 2), (256, 5, 1, 2), (384, 3, 1, 1)), MaxPool(3, 2, 1), 4096)
"""The small windows with the textbook's widths, for what its widths decide."""


def nin_layers(
    stem: Stem = TEXTBOOK_STEM,
    num_classes: int = 10,
    *,
    one_by_one_layers: int = 2,
    inner_kernel_size: int = 1,
    width_factor: float = 1.0,
    doubling: bool = False,
    head: Head = Head.AVERAGE,
    reduction: tuple[int, ...] = (),
    last_relu: bool = True,
    last_pool: bool = True,
    repeats: tuple[int, ...] = (),
    batch_norm: bool = False,
    dropout: float = 0.5,
) -> tuple[Layer, ...]:
    """The layers of a NiN with the design knobs that the exercises turn.

    repeats puts that many blocks into each stage (VGG's first rule; extra blocks are 3x3 at
    stride 1). With doubling a stage is twice as wide as the one before (VGG's second rule), the
    first as wide as in the stem: the textbook's second stage becomes narrower by that, and the
    third of the small copy wider. Without last_pool the class maps keep the resolution before
    the last pool. reduction concerns the last block only. dropout 0 leaves that layer out.
    Raises NinlabError when repeats has not one count of at least 1 for each stage, and for what
    `nin_block` refuses.
    Source: Lin2013 and Zhang2023, section 8.3; repeats after Simonyan2014.
    """
    block = partial(
        nin_block,
        one_by_one_layers=one_by_one_layers,
        inner_kernel_size=inner_kernel_size,
        batch_norm=batch_norm,
    )
    layers: list[Layer] = []
    repeats = repeats or (1,) * len(stem.blocks)
    if len(repeats) != len(stem.blocks) or min(repeats) < 1:
        raise NinlabError(
            f"repeats {repeats} needs a count of at least 1 for each of the {len(stem.blocks)} "
            "stages"
        )
    widths = stem.widths(doubling=doubling)
    for stage, (width, (_, kernel_size, stride, padding), count) in enumerate(
        zip(widths, stem.blocks, repeats, strict=True), start=1
    ):
        width = max(1, round(width * width_factor))
        layers.append(block(f"block{stage}", width, kernel_size, stride, padding))
        layers += [
            block(f"block{stage}{ascii_lowercase[extra]}", width, 3, 1, 1)
            for extra in range(1, count)
        ]
        if last_pool or stage < len(stem.blocks):
            layers.append(stem.pool)
    if dropout:
        layers.append(Dropout(dropout))
    if head is Head.FULLY_CONNECTED:
        hidden = (stem.hidden_features,) * 2
        return (*layers, fully_connected_head(num_classes, hidden, dropout=dropout))
    layers.append(block("classes", num_classes, 3, 1, 1, last_relu=last_relu, reduction=reduction))
    if head is Head.LINEAR:
        return (*layers, fully_connected_head(num_classes, ()))
    return (*layers, GlobalAvgPool(), Flatten())


VGG_CONVOLUTIONS = {
    "vgg11": ((1, 64), (1, 128), (2, 256), (2, 512), (2, 512)),
    "vgg13": ((2, 64), (2, 128), (2, 256), (2, 512), (2, 512)),
    "vgg16": ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512)),
    "vgg19": ((2, 64), (2, 128), (4, 256), (4, 512), (4, 512)),
}
"""(convolutions, channels) of each VGG block. Source: Simonyan2014, table 1."""


def vgg_layers(
    convolutions: Sequence[tuple[int, int]],
    num_classes: int = 10,
    *,
    hidden_features: int = 4096,
    divide_widths_by: int = 1,
    last_pool: bool = True,
) -> tuple[Layer, ...]:
    """The layers of a VGG; divide_widths_by thins the convolutions, not the head.

    Source: Simonyan2014, table 1 (`VGG_CONVOLUTIONS`); thinned as in Zhang2023, section 8.2.
    """
    blocks = [
        vgg_block(
            f"block{i}", count, width // divide_widths_by, pool=last_pool or i < len(convolutions)
        )
        for i, (count, width) in enumerate(convolutions, start=1)
    ]
    return (*blocks, fully_connected_head(num_classes, (hidden_features,) * 2))


def googlenet_layers(num_classes: int = 10, *, divide_widths_by: int = 1) -> tuple[Layer, ...]:
    """The layers of GoogLeNet without local response normalization and side classifiers.

    Source: Szegedy2014, table 1, as built in Zhang2023, section 8.4.
    """

    def w(width: int) -> int:
        return width // divide_widths_by

    def inception(
        name: str, c1: int, c2: tuple[int, int], c3: tuple[int, int], c4: int
    ) -> Branches:
        return inception_block(name, w(c1), (w(c2[0]), w(c2[1])), (w(c3[0]), w(c3[1])), w(c4))

    return (
        Block("stem1", (*conv_relu(Conv(w(64), 7, stride=2, padding=3)), MaxPool(3, 2, 1))),
        Block(
            "stem2",
            (
                *conv_relu(Conv(w(64), 1)),
                *conv_relu(Conv(w(192), 3, padding=1)),
                MaxPool(3, 2, 1),
            ),
        ),
        inception("inception3a", 64, (96, 128), (16, 32), 32),
        inception("inception3b", 128, (128, 192), (32, 96), 64),
        MaxPool(3, 2, 1),
        inception("inception4a", 192, (96, 208), (16, 48), 64),
        inception("inception4b", 160, (112, 224), (24, 64), 64),
        inception("inception4c", 128, (128, 256), (24, 64), 64),
        inception("inception4d", 112, (144, 288), (32, 64), 64),
        inception("inception4e", 256, (160, 320), (32, 128), 128),
        MaxPool(3, 2, 1),
        inception("inception5a", 256, (160, 320), (32, 128), 128),
        inception("inception5b", 384, (192, 384), (48, 128), 128),
        GlobalAvgPool(),
        Flatten(),
        Linear(num_classes),
    )


# ---------------------------------------------------------------- the networks of the book

_FASHION = (1, 224, 224)
_SMALL = (1, 28, 28)
_GRAYSCALE = "one input channel and 10 classes, for Fashion-MNIST"
_AT_96 = "96x96 images, of which the last maps keep one value"
_REPAIRED = ("Kaiming weights and zero biases", "no ReLU after the last convolution")

ARCHITECTURES: dict[str, Architecture] = {}
"""Every network of the book by name, in the order in which the book meets them."""


def register(architecture: Architecture) -> Architecture:
    """The architecture itself, findable by name from now on.

    Raises NinlabError when the name is taken, and when the family has a network of that variant
    for the same images.
    """
    if architecture.name in ARCHITECTURES:
        raise NinlabError(f"the network name {architecture.name!r} is taken; choose another")
    same = _related(architecture).get(architecture.variant)
    if same is not None:
        raise NinlabError(
            f"the variant {architecture.variant!r} of family {architecture.family!r} for images "
            f"{architecture.input_shape} is {same.name!r}; choose another variant, or no family"
        )
    ARCHITECTURES[architecture.name] = architecture
    return architecture


def architecture(name: str) -> Architecture:
    """The architecture of that name. Raises UnknownNetworkError, which lists the names."""
    try:
        return ARCHITECTURES[name]
    except KeyError:
        raise UnknownNetworkError(name, ARCHITECTURES) from None


def variant_of(name: str, variant: str) -> Architecture:
    """The network of that one's family that reads the same images and has that variant.

    A network without a family has no variant but its own. Raises UnknownNetworkError for the name,
    UnknownNameError for the variant.
    """
    asked = architecture(name)
    related = _related(asked) or {asked.variant: asked}
    try:
        return related[variant]
    except KeyError:
        raise UnknownNameError(f"variant of {name}", variant, related) from None


def _related(asked: Architecture) -> dict[str, Architecture]:
    """The networks of its family that read the same images, by variant; none without a family."""
    return {
        other.variant: other
        for other in ARCHITECTURES.values()
        if asked.family and (other.family, other.input_shape) == (asked.family, asked.input_shape)
    }


def normalized(variant: str = "") -> str:
    """What the variant with batch normalization, too, is called."""
    return f"{variant}_batch_norm" if variant else "batch_norm"


NIN = register(
    Architecture(
        "nin",
        "NiN",
        _FASHION,
        10,
        nin_layers(),
        source="Zhang2023",
        deviations=(_GRAYSCALE, "AlexNet's window sizes in place of the paper's CIFAR-10 network"),
        initialization=XAVIER_WEIGHTS,
        family="nin",
    )
)
NIN_FIXED = register(
    replace(
        NIN,
        name="nin_fixed",
        title="NiN, repaired",
        layers=nin_layers(last_relu=False),
        deviations=(*NIN.deviations, *_REPAIRED),
        initialization=KAIMING_ZERO_BIASES,
        family="nin_fixed",
    )
)
NIN_JULIA = register(
    replace(
        NIN,
        name="nin_julia",
        title="NiN, Julia version",
        layers=nin_layers(one_by_one_layers=1),
        source="D2LJulia2025",
        deviations=(
            *NIN.deviations,
            "one 1x1 layer a block",
            "cross-entropy on the scores in place of a softmax inside the network",
        ),
        initialization=XAVIER_ZERO_BIASES,
        variant="julia",
    )
)
NIN_CIFAR10 = register(
    Architecture(
        "nin_cifar10",
        "NiN at 32x32, CIFAR-10",
        (3, 32, 32),
        10,
        (
            nin_block("block1", 96, 5, padding=2, reduction=(192, 160)),
            MaxPool(3, 2, 1),
            Dropout(),
            nin_block("block2", 192, 5, padding=2),
            MaxPool(3, 2, 1),
            Dropout(),
            nin_block("classes", 10, 3, padding=1, reduction=(192, 192)),
            AvgPool(8, 8),
            Flatten(),
        ),
        source="LinFiles",
        deviations=("layers as in the author's definition file; the paper prints them in part",),
        family="nin",
        variant="cifar10",
    )
)
NIN_CIFAR10_STRIDED = register(
    Architecture(
        "nin_cifar10_strided",
        "NiN at 32x32, strided stem",
        (3, 32, 32),
        10,
        (
            nin_block("block1", 64, 3, stride=2, padding=1),
            MaxPool(2, 2),
            nin_block("block2", 192, 3, padding=1),
            MaxPool(2, 2),
            nin_block("block3", 256, 3, padding=1, reduction=(384, 384)),
            AvgPool(4, 4),
            fully_connected_head(10, ()),
        ),
        source="Aiqianji",
        deviations=("strided 3x3 stem", "a linear layer after the average"),
        family="nin",
        variant="cifar10_strided",
    )
)
NIN_IMAGENET = register(
    Architecture(
        "nin_imagenet",
        "NiN, ImageNet",
        (3, 224, 224),
        1000,
        (
            nin_block("block1", 96, 11, stride=4),
            MaxPool(3, 2),
            nin_block("block2", 256, 5, padding=2),
            MaxPool(3, 2),
            nin_block("block3", 384, 3, padding=1),
            MaxPool(3, 2),
            Dropout(),
            nin_block("classes", 1000, 3, padding=1, reduction=(1024, 1024)),
            GlobalAvgPool(),
            Flatten(),
        ),
        source="Lin2014",
        deviations=("layer sizes as in the authors' published model; the paper has no table",),
        family="nin",
        variant="imagenet",
    )
)


def _widths_said(widths: Iterable[int]) -> str:
    """The channels of each block as a deviation."""
    return f"widths {', '.join(map(str, widths))}"


NIN_28 = register(
    replace(
        NIN_FIXED,
        name="nin_28",
        title="NiN at 28x28, repaired",
        input_shape=_SMALL,
        layers=nin_layers(SMALL_STEM, last_relu=False),
        deviations=(
            "28x28 input: smaller windows, pools padded by one",
            _widths_said(SMALL_STEM.widths()),
            *_REPAIRED,
        ),
    )
)
NIN_28_TEXTBOOK = register(
    replace(
        NIN_28,
        name="nin_28_textbook",
        title="NiN at 28x28, textbook start",
        layers=nin_layers(SMALL_STEM),
        deviations=NIN_28.deviations[: -len(_REPAIRED)],
        initialization=XAVIER_WEIGHTS,
        family=NIN.family,
    )
)
NIN_JULIA_28 = register(
    replace(
        NIN_28,
        name="nin_julia_28",
        title="NiN, Julia version, at 28x28",
        layers=nin_layers(SMALL_STEM, one_by_one_layers=1),
        source="D2LJulia2025",
        deviations=(*NIN_28_TEXTBOOK.deviations, *NIN_JULIA.deviations[-2:]),
        initialization=XAVIER_ZERO_BIASES,
        family=NIN_JULIA.family,
        variant=NIN_JULIA.variant,
    )
)


NIN_96 = register(
    replace(
        NIN_FIXED,
        name="nin_96",
        title="NiN at 96x96, repaired",
        input_shape=(1, 96, 96),
        deviations=(_AT_96, *NIN_FIXED.deviations),
    )
)
NIN_96_TEXTBOOK = register(
    replace(
        NIN,
        name="nin_96_textbook",
        title="NiN at 96x96, textbook start",
        input_shape=(1, 96, 96),
        deviations=(_AT_96, *NIN.deviations),
    )
)
NIN_28_WIDE = register(
    replace(
        NIN_28,
        name="nin_28_wide",
        title="NiN at 28x28, textbook widths, repaired",
        layers=nin_layers(WIDE_STEM, last_relu=False),
        deviations=(
            "28x28 input: smaller windows and pools padded by one, at the textbook's widths",
            *_REPAIRED,
        ),
        family="nin_wide",
    )
)

_Change = tuple[str, str, dict[str, Any]]
"""What a changed network is called, in a name and in a title, and its arguments of `nin_layers`."""

_BATCH_NORM: _Change = (normalized(), "batch normalization", {"batch_norm": True})
_EARLY_CLASSES: _Change = ("early_classes", "no pool before the class maps", {"last_pool": False})


def _gradual(stem: Stem) -> _Change:
    last_width = stem.blocks[-1][0]
    widths = (last_width // 2, last_width // 4)
    return ("gradual", "last block narrows in three steps", {"reduction": widths})


def _register_changed(base: Architecture, stem: Stem, change: _Change, **kept: Any) -> None:
    """Register the network with one change; kept are arguments of `nin_layers` that stay."""
    variant, what, changed = change
    own, now = stem.widths(), stem.widths(doubling=changed.get("doubling", False))
    deviations = (
        _widths_said(now) if said == _widths_said(own) else said for said in base.deviations
    )
    register(
        replace(
            base,
            name=f"{base.name}_{variant}",
            title=f"{base.title}, {what}",
            layers=nin_layers(stem, **kept, **changed),
            deviations=(*deviations, what),
            variant=variant,
        )
    )


def _design_variants(base: Architecture, stem: Stem) -> None:
    """Register one changed design decision at a time, starting from the repaired network.

    Starting from the textbook's would mix every effect with the lottery of a bad start. Each is
    registered with batch normalization, too, for the better recipe.
    """
    designs: tuple[_Change, ...] = (
        ("no_1x1", "no 1x1 layer", {"one_by_one_layers": 0}),
        ("one_1x1", "one 1x1 layer a block", {"one_by_one_layers": 1}),
        ("three_1x1", "three 1x1 layers a block", {"one_by_one_layers": 3}),
        ("3x3", "3x3 in place of 1x1 layers", {"inner_kernel_size": 3}),
        ("linear_head", "class maps flattened into a linear layer", {"head": Head.LINEAR}),
        ("fully_connected", "AlexNet's head", {"head": Head.FULLY_CONNECTED}),
        (
            "no_1x1_fully_connected",
            "no 1x1 layer, AlexNet's head",
            {"one_by_one_layers": 0, "head": Head.FULLY_CONNECTED},
        ),
        _gradual(stem),
        _EARLY_CLASSES,
        ("6_blocks", "six blocks by VGG's rule", {"repeats": (1, 2, 2)}),
        ("8_blocks", "eight blocks by VGG's rule", {"repeats": (2, 2, 3)}),
        ("doubling", "widths that double", {"doubling": True}),
        (
            "8_blocks_doubling",
            "eight blocks by VGG's rule, widths that double",
            {"repeats": (2, 2, 3), "doubling": True},
        ),
    )
    _register_designs(base, stem, designs)


def _register_designs(base: Architecture, stem: Stem, designs: Iterable[_Change]) -> None:
    """Register designs of the repaired network, and then each with batch normalization."""
    designs = tuple(designs)
    _, also, batch_norm = _BATCH_NORM
    with_norms = (
        (normalized(variant), f"{what}, {also}", knobs | batch_norm)
        for variant, what, knobs in designs
    )
    for change in (*designs, _BATCH_NORM, *with_norms):
        _register_changed(base, stem, change, last_relu=False)


def _repairs(textbook: Architecture, stem: Stem) -> None:
    """Register each repair of the textbook's network, tried or true, on its own."""
    repairs: tuple[tuple[Initialization, _Change], ...] = (
        (XAVIER_ZERO_BIASES, ("zero_bias", "zero biases", {})),
        (KAIMING_ZERO_BIASES, ("kaiming", _REPAIRED[0], {})),
        (XAVIER_WEIGHTS, ("linear_last", _REPAIRED[1], {"last_relu": False})),
        (XAVIER_WEIGHTS, _BATCH_NORM),
        (XAVIER_WEIGHTS, _gradual(stem)),
    )
    for initialization, change in repairs:
        _register_changed(replace(textbook, initialization=initialization), stem, change)


for _base, _textbook, _stem in (
    (NIN_FIXED, NIN, TEXTBOOK_STEM),
    (NIN_28, NIN_28_TEXTBOOK, SMALL_STEM),
):
    _design_variants(_base, _stem)
    _repairs(_textbook, _stem)
for _base, _kept in ((NIN_28, {"last_relu": False}), (NIN_28_TEXTBOOK, {})):
    _register_changed(_base, SMALL_STEM, ("no_dropout", "no dropout", {"dropout": 0.0}), **_kept)
_register_designs(NIN_28_WIDE, WIDE_STEM, (_gradual(WIDE_STEM), _EARLY_CLASSES))
_register_changed(NIN_96_TEXTBOOK, TEXTBOOK_STEM, _BATCH_NORM)

LENET = register(
    Architecture(
        "lenet",
        "LeNet at 28x28",
        _SMALL,
        10,
        (
            Conv(6, 5, padding=2),
            Sigmoid(),
            AvgPool(2, 2),
            Conv(16, 5),
            Sigmoid(),
            AvgPool(2, 2),
            Flatten(),
            Linear(120),
            Sigmoid(),
            Linear(84),
            Sigmoid(),
            Linear(10),
        ),
        source="Zhang2023",
        deviations=("a linear layer in place of the Gaussian connections of LeCun1998",),
        initialization=XAVIER_WEIGHTS,
        family="lenet",
    )
)


def alexnet_layers(
    stem: Conv,
    widths: tuple[int, int, int, int],
    pool: MaxPool,
    hidden_features: int,
    second_kernel_size: int = 5,
    *,
    batch_norm: bool = False,
) -> tuple[Layer, ...]:
    """AlexNet's five convolutions, three pools and two wide hidden layers, in one tower.

    widths are the channels of the second to the fifth convolution; batch_norm follows each of the
    five with batch normalization. Source: Krizhevsky2012.
    """
    stage = partial(conv_relu, batch_norm=batch_norm)
    return (
        *stage(stem),
        pool,
        *stage(Conv(widths[0], second_kernel_size, padding=second_kernel_size // 2)),
        pool,
        *(layer for width in widths[1:] for layer in stage(Conv(width, 3, padding=1))),
        pool,
        fully_connected_head(10, (hidden_features,) * 2),
    )


_TEXTBOOK_ALEXNET = partial(
    alexnet_layers, Conv(96, 11, stride=4, padding=1), (256, 384, 384, 256), MaxPool(3, 2), 4096
)
_SMALL_ALEXNET = partial(
    alexnet_layers, Conv(16, 5, stride=2, padding=2), (32, 48, 48, 32), MaxPool(3, 2, 1), 784
)
ALEXNET = register(
    Architecture(
        "alexnet",
        "AlexNet",
        _FASHION,
        10,
        _TEXTBOOK_ALEXNET(),
        source="Zhang2023",
        deviations=(_GRAYSCALE, "one tower, no local response normalization"),
        initialization=XAVIER_WEIGHTS,
        family="alexnet",
    )
)
ALEXNET_96 = register(
    replace(
        ALEXNET,
        name="alexnet_96",
        title="AlexNet at 96x96",
        input_shape=(1, 96, 96),
        deviations=(_AT_96, *ALEXNET.deviations),
    )
)
ALEXNET_ONE_TOWER = register(
    Architecture(
        "alexnet_one_tower",
        "AlexNet, 2014",
        (3, 224, 224),
        1000,
        (
            *conv_relu(Conv(64, 11, stride=4, padding=2)),
            MaxPool(3, 2),
            *conv_relu(Conv(192, 5, padding=2)),
            MaxPool(3, 2),
            *conv_relu(Conv(384, 3, padding=1)),
            *conv_relu(Conv(256, 3, padding=1)),
            *conv_relu(Conv(256, 3, padding=1)),
            MaxPool(3, 2),
            Flatten(),
            Dropout(),
            Linear(4096),
            ReLU(),
            Dropout(),
            Linear(4096),
            ReLU(),
            Linear(1000),
        ),
        source="Krizhevsky2014",
        deviations=(
            "as torchvision builds it, without the adaptive pool that is the identity at 224",
        ),
        family="alexnet",
        variant="one_tower",
    )
)
for _name, _convolutions in VGG_CONVOLUTIONS.items():
    register(
        Architecture(
            _name,
            _name.upper().replace("VGG", "VGG-"),
            _FASHION,
            10,
            vgg_layers(_convolutions),
            source="Simonyan2014",
            deviations=(_GRAYSCALE,),
            initialization=XAVIER_WEIGHTS,
            family="vgg",
            variant=_name,
        )
    )
for _base in (ALEXNET, ARCHITECTURES["vgg11"]):  # whose fault a faint start is: the biases', too?
    register(
        replace(
            _base,
            name=f"{_base.name}_zero_bias",
            title=f"{_base.title}, zero biases",
            deviations=(*_base.deviations, "zero biases"),
            initialization=XAVIER_ZERO_BIASES,
            variant=f"{_base.variant}_zero_bias".lstrip("_"),
        )
    )
VGG11_QUARTER = register(
    replace(
        ARCHITECTURES["vgg11"],
        name="vgg11_quarter",
        title="VGG-11, quarter width",
        layers=vgg_layers(VGG_CONVOLUTIONS["vgg11"], divide_widths_by=4),
        source="Zhang2023",
        deviations=(
            _GRAYSCALE,
            "convolutions at a quarter of their width, as the textbook trains it",
        ),
        variant="vgg11_quarter",
    )
)
GOOGLENET = register(
    Architecture(
        "googlenet",
        "GoogLeNet at 96x96",
        (1, 96, 96),
        10,
        googlenet_layers(),
        source="Zhang2023",
        deviations=(
            "one input channel, 96x96 images and 10 classes, for Fashion-MNIST",
            "no local response normalization, no side classifiers, no dropout",
        ),
        initialization=XAVIER_WEIGHTS,
        family="googlenet",
    )
)

# Counterparts at 28x28 whose head holds the same share of the parameters as in the full
# network, by the choice of its hidden width; GoogLeNet's head has none. Of a network thinned
# evenly, weights between maps fall with the square of the widths and those of the head with the
# widths alone. tests/test_architectures.py recounts the shares.
ALEXNET_28 = register(
    replace(
        ALEXNET,
        name="alexnet_28",
        title="AlexNet at 28x28",
        input_shape=_SMALL,
        layers=_SMALL_ALEXNET(),
        deviations=(
            "28x28 input: 5x5 stem at stride 2, padded pools, a sixth to an eighth of the widths",
            "one tower, no local response normalization",
        ),
        initialization=KAIMING_ZERO_BIASES,
    )
)
for _base, _layers in ((ALEXNET, _TEXTBOOK_ALEXNET), (ALEXNET_28, _SMALL_ALEXNET)):
    register(
        replace(
            _base,
            name=f"{_base.name}_{normalized()}",
            title=f"{_base.title}, batch normalization",
            layers=_layers(batch_norm=True),
            deviations=(*_base.deviations, "batch normalization after each convolution"),
            variant=normalized(),
        )
    )
VGG11_28 = register(
    replace(
        ARCHITECTURES["vgg11"],
        name="vgg11_28",
        title="VGG-11 at 28x28",
        input_shape=_SMALL,
        layers=vgg_layers(
            VGG_CONVOLUTIONS["vgg11"], divide_widths_by=8, hidden_features=1320, last_pool=False
        ),
        deviations=("28x28 input: an eighth of the widths, no last pool",),
        initialization=KAIMING_ZERO_BIASES,
    )
)
VGG11_QUARTER_28 = register(
    replace(
        VGG11_28,
        name="vgg11_quarter_28",
        title="VGG-11 at 28x28, quarter width",
        layers=vgg_layers(
            VGG_CONVOLUTIONS["vgg11"], divide_widths_by=32, hidden_features=784, last_pool=False
        ),
        deviations=("28x28 input: a quarter of the widths of VGG-11 at 28x28, no last pool",),
        variant=VGG11_QUARTER.variant,
    )
)
GOOGLENET_28 = register(
    replace(
        GOOGLENET,
        name="googlenet_28",
        title="GoogLeNet at 28x28",
        input_shape=_SMALL,
        layers=googlenet_layers(divide_widths_by=8),
        deviations=(
            "28x28 input: an eighth of the widths",
            "the head holds about eight times as large a share of the parameters",
            *GOOGLENET.deviations[1:],
        ),
        initialization=KAIMING_ZERO_BIASES,
    )
)
