"""Layers that compute what several of torch's do, with the same parameters under the same names.

Each stands where one of torch's stood. A convolution keeps its weight and its bias; who adds the
bias may be the pool behind it, which knows the convolution and does not own it.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import conv2d

from ninlab.fused import operators

FEW_CHANNELS = 8
"""Kernels for tensor cores pad fewer input channels to so many."""


class DoneElsewhere(nn.Module):
    """A ReLU, or a 1x1 layer with its parameters, that an operator of another layer computes."""

    def __init__(self, by: str, parameters_of: nn.Conv2d | None = None) -> None:
        super().__init__()
        self.by = by
        if parameters_of is not None:
            self.weight: Tensor = parameters_of.weight
            self.bias: Tensor = _bias_of(parameters_of)

    def forward(self, maps: Tensor) -> Tensor:
        """The maps as they came."""
        return maps

    def extra_repr(self) -> str:
        """Which layer does it."""
        return f"by {self.by}"


class Convolution(nn.Module):
    """The weight, the bias and the windows of one of torch's convolutions.

    An image of few channels is folded for a convolution that strides: a window of 11 at stride 4
    on one channel becomes one of 3 at stride 1 on 16. The products and their sums are the same,
    and tensor cores have 16 channels to multiply in place of 1.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.weight: Tensor = conv.weight
        self.bias: Tensor = _bias_of(conv)
        (self.kernel, _), (self.stride, _) = conv.kernel_size, conv.stride
        self.padding = int(conv.padding[0])
        self.fold = self.stride if self.stride > 1 and conv.in_channels < FEW_CHANNELS else 1

    def _convolved(self, images: Tensor) -> Tensor:
        """The convolution alone, without the bias."""
        if self.fold == 1:
            return conv2d(images, self.weight, None, self.stride, self.padding)
        windows = [
            (side + 2 * self.padding - self.kernel) // self.stride + 1 for side in images.shape[-2:]
        ]
        side = -(-self.kernel // self.fold) * self.fold
        height, width = ((count - 1) * self.stride + side for count in windows)
        folded = operators.fold(images, self.fold, self.padding, height, width)
        return conv2d(folded, operators.fold(self.weight, self.fold, 0, side, side))

    def extra_repr(self) -> str:
        """Its numbers as torch writes them."""
        outputs, inputs = self.weight.shape[:2]
        padded = f", padding={self.padding}" if self.padding else ""
        folded = f", folded by {self.fold}" if self.fold > 1 else ""
        return (
            f"{inputs}, {outputs}, kernel_size={self.kernel}, stride={self.stride}{padded}{folded}"
        )


class ConvBiasRelu(Convolution):
    """A convolution, then one pass in place that adds the bias and applies the ReLU."""

    def forward(self, images: Tensor) -> Tensor:
        """relu(convolution + bias)."""
        return operators.bias_relu(self._convolved(images), self.bias)


class ConvWithoutBias(Convolution):
    """A convolution whose bias and ReLU belong to the operator behind it."""

    def forward(self, images: Tensor) -> Tensor:
        """The convolution alone."""
        return self._convolved(images)


class ProductBiasRelu(Convolution):
    """A 1x1 layer and its ReLU as one matrix product."""

    def forward(self, maps: Tensor) -> Tensor:
        """relu(weight of each pixel + bias)."""
        return operators.product_bias_relu(maps, self.weight, self.bias)


class ProductWithoutBias(Convolution):
    """A 1x1 layer as one matrix product; bias and ReLU belong to the operator behind it."""

    def forward(self, maps: Tensor) -> Tensor:
        """The weight of each pixel."""
        return operators.product(maps, self.weight)


class Chain(Convolution):
    """ReLU, 1x1, ReLU, 1x1 of a NiN block in one operator, which never writes what is inside.

    Stands where the last 1x1 layer stood; its own bias belongs to the pool behind it.
    """

    def __init__(self, conv: nn.Conv2d, first: ConvWithoutBias, second: DoneElsewhere) -> None:
        super().__init__(conv)
        self._before = (first, second)  # in a tuple they stay what they are: somebody else's

    def forward(self, maps: Tensor) -> Tensor:
        """Maps of the first convolution without its bias, to those of the last without its."""
        first, second = self._before
        return operators.chain(maps, first.bias, second.weight, second.bias, self.weight)


class BiasReluMaxPool(nn.Module):
    """The bias and the ReLU of the convolution before it, and the maximum of each window.

    Keeps one byte a pooled value: where in its window the maximum lay.
    """

    def __init__(self, pool: nn.MaxPool2d, conv: Convolution) -> None:
        super().__init__()
        self.kernel, self.stride = _side(pool.kernel_size), _side(pool.stride)
        self.padding = _side(pool.padding)
        self._conv = (conv,)

    def forward(self, maps: Tensor) -> Tensor:
        """The maxima of relu(maps + bias)."""
        (conv,) = self._conv
        return operators.bias_relu_max_pool(maps, conv.bias, self.kernel, self.stride, self.padding)

    def extra_repr(self) -> str:
        """Its window as torch writes it."""
        return f"kernel_size={self.kernel}, stride={self.stride}, padding={self.padding}"


def _side(size: int | tuple[int, ...]) -> int:
    """One side of a square window."""
    return size if isinstance(size, int) else size[0]


def _bias_of(conv: nn.Conv2d) -> Tensor:
    """Its bias, which a convolution that is joined with another layer has."""
    assert conv.bias is not None
    return conv.bias
