"""What do the fused operators compute, in plain torch?

One function an operator, both ways, for any device and any type. This is what the kernels of
`kernels` are held to, and what runs on a CPU. Maps are (batch, channels, height, width) in
channels_last, windows square.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ninlab.errors import NinlabError

CUT = 255
"""The code of a maximum that the ReLU cut: no gradient passes."""


def bias_relu_(maps: Tensor, bias: Tensor) -> None:
    """Turn maps into relu(maps + bias), in place. The bias is rounded to the maps' type first."""
    maps.add_(_of_channels(bias.to(maps.dtype))).relu_()


def relu_bias_backward(gradient: Tensor, result: Tensor) -> tuple[Tensor, Tensor]:
    """(gradient of the maps, float32 gradient of the bias) of `bias_relu_`, by its result.

    Nothing passes where the result is 0; NaN lets pass, as it does in torch.
    """
    passed = channels_last(torch.where(result <= 0, 0, gradient))
    return passed, _sum_of_channels(passed)


def bias_relu_max_pool(
    maps: Tensor, bias: Tensor, kernel: int, stride: int, padding: int, with_codes: bool
) -> tuple[Tensor, Tensor]:
    """(the pooled relu(maps + bias), uint8 codes of the same shape).

    A code is the place of the maximum in its window, row by row, the first where several are
    largest, and `CUT` where no value of the window is above 0. Without with_codes, as in a
    prediction, there are none: an empty tensor. A window has fewer than 255 places.
    """
    biased = maps + _of_channels(bias.to(maps.dtype))
    pooled, indices = F.max_pool2d(biased, kernel, stride, padding, return_indices=True)
    if with_codes:
        height, width = pooled.shape[-2:]
        rows = indices // maps.shape[-1] - _starts(height, stride, padding, maps.device)[:, None]
        columns = indices % maps.shape[-1] - _starts(width, stride, padding, maps.device)
        places = rows * kernel + columns
        codes = channels_last(torch.where(pooled <= 0, CUT, places).to(torch.uint8))
    else:
        codes = torch.empty(0, dtype=torch.uint8, device=maps.device)
    return channels_last(pooled.relu_()), codes


def bias_relu_max_pool_backward(
    gradient: Tensor,
    codes: Tensor,
    height: int,
    width: int,
    kernel: int,
    stride: int,
    padding: int,
) -> tuple[Tensor, Tensor]:
    """(gradient of the maps, float32 gradient of the bias) of `bias_relu_max_pool`.

    height and width are those of the maps. A position gathers the gradients of all windows
    that chose it.
    """
    rows = codes // kernel + _starts(codes.shape[-2], stride, padding, codes.device)[:, None]
    columns = codes % kernel + _starts(codes.shape[-1], stride, padding, codes.device)
    passes = codes != CUT
    passed = torch.where(passes, gradient, 0)
    positions = torch.where(passes, rows * width + columns, 0)
    batch, channels = gradient.shape[:2]
    maps = gradient.new_zeros(batch, channels, height * width, dtype=wide(gradient.dtype))
    maps.scatter_add_(2, positions.flatten(2), passed.flatten(2).to(maps.dtype))
    maps = maps.to(gradient.dtype).view(batch, channels, height, width)
    return channels_last(maps), _sum_of_channels(passed)


def chain(maps: Tensor, bias1: Tensor, weight2: Tensor, bias2: Tensor, weight3: Tensor) -> Tensor:
    """weight3 relu(weight2 relu(maps + bias1) + bias2): two 1x1 layers, the last without bias.

    Weights are (channels, channels, 1, 1), maps have as many channels.
    """
    return channels_last(F.conv2d(_inside(maps, bias1, weight2, bias2)[1], weight3))


def chain_backward(
    gradient: Tensor, maps: Tensor, bias1: Tensor, weight2: Tensor, bias2: Tensor, weight3: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of (maps, bias1, weight2, bias2, weight3) of `chain`; all but the first float32.

    What lies between is computed again: the forward pass kept nothing of it.
    """
    first, second = _inside(maps, bias1, weight2, bias2)
    to_second, to_bias2 = relu_bias_backward(_through(gradient, weight3), second)
    to_maps, to_bias1 = relu_bias_backward(_through(to_second, weight2), first)
    to_weight2, to_weight3 = _of_weight(to_second, first), _of_weight(gradient, second)
    return to_maps, to_bias1, to_weight2, to_bias2, to_weight3


def fold(maps: Tensor, factor: int, before: int, height: int, width: int) -> Tensor:
    """Each square of factor x factor pixels as one pixel of as many more channels.

    (batch, channels, rows, columns) becomes (batch, channels * factor**2, height / factor,
    width / factor). First before rows and columns of zeros are put before the maps, and so many
    behind that they are height x width; where that is less, rows and columns are cut off.
    """
    behind = height - maps.shape[2] - before, width - maps.shape[3] - before
    if before or any(behind):
        maps = F.pad(maps, (before, behind[1], before, behind[0]))
    batch, channels = maps.shape[:2]
    rows, columns = height // factor, width // factor
    squares = maps.reshape(batch, channels, rows, factor, columns, factor).permute(0, 2, 4, 1, 3, 5)
    folded = maps.new_empty(batch, rows, columns, channels * factor**2)  # never a view of the maps
    folded.view(squares.shape).copy_(squares)
    return folded.permute(0, 3, 1, 2)


def fold_backward(gradient: Tensor, factor: int, before: int, height: int, width: int) -> Tensor:
    """The gradient of the maps of `fold`, which were height x width."""
    batch, _, rows, columns = gradient.shape
    squares = gradient.permute(0, 2, 3, 1).reshape(batch, rows, columns, -1, factor, factor)
    squares = squares.permute(0, 1, 4, 2, 5, 3)
    pixels = gradient.new_empty(batch, rows * factor, columns * factor, squares.shape[-1])
    pixels.view(squares.shape).copy_(squares)
    maps = pixels.permute(0, 3, 1, 2)
    behind = height - maps.shape[2] + before, width - maps.shape[3] + before
    if before or any(behind):
        maps = F.pad(maps, (-before, behind[1], -before, behind[0]))
    return maps


def pick(
    images: Tensor, indices: Tensor, mean: float, deviation: float, dtype: torch.dtype
) -> Tensor:
    """(pixel / 255 - mean) / deviation of the uint8 images at those indices, in that type."""
    pixels = images.index_select(0, indices).to(torch.float32).div_(255)
    if mean or deviation != 1:
        pixels.sub_(mean).div_(deviation)
    return pixels.to(dtype)


# ---------------------------------------------------------------- parts


def channels_last(maps: Tensor) -> Tensor:
    """The maps with a pixel's channels side by side: themselves where they lie so.

    Raises NinlabError for what is no batch of maps, such as one image.
    """
    check_is_batch(maps)
    return maps.contiguous(memory_format=torch.channels_last)


def check_is_batch(maps: Tensor) -> None:
    """Raises NinlabError for another shape than (batch, channels, height, width)."""
    if maps.dim() != 4:
        shown = "x".join(map(str, maps.shape))
        raise NinlabError(
            f"fused layers read batches of maps, (batch, channels, height, width), not {shown}"
        )


def new_maps(like: Tensor, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
    """New maps in channels_last: on the device of those, and by default of their type."""
    return torch.empty(
        shape,
        dtype=dtype or like.dtype,
        device=like.device,
        memory_format=torch.channels_last,
    )


def wide(dtype: torch.dtype) -> torch.dtype:
    """In which type sums of that type are taken, and biases get their gradient."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def _inside(maps: Tensor, bias1: Tensor, weight2: Tensor, bias2: Tensor) -> tuple[Tensor, Tensor]:
    """The two maps inside of a chain, which it never keeps."""
    first = F.relu(maps + _of_channels(bias1.to(maps.dtype)))
    second = F.conv2d(first, weight2)
    bias_relu_(second, bias2)
    return first, second


def _through(gradient: Tensor, weight: Tensor) -> Tensor:
    """The gradient on the other side of a 1x1 layer."""
    return F.conv2d(gradient, weight.transpose(0, 1))


def _of_weight(gradient: Tensor, source: Tensor) -> Tensor:
    """The gradient of a 1x1 layer's weight."""
    kind = wide(gradient.dtype)
    rows = gradient.movedim(1, -1).flatten(0, -2).to(kind)
    return (rows.T @ source.movedim(1, -1).flatten(0, -2).to(kind))[:, :, None, None]


def _of_channels(bias: Tensor) -> Tensor:
    return bias.view(1, -1, 1, 1)


def _sum_of_channels(maps: Tensor) -> Tensor:
    return maps.sum((0, 2, 3), dtype=wide(maps.dtype))


def _starts(count: int, stride: int, padding: int, device: torch.device) -> Tensor:
    """Where the windows begin, along one side of the maps."""
    return torch.arange(count, device=device) * stride - padding
