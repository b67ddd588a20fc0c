"""How does Fashion-MNIST reach the device?

`data_files` finds the four files, or downloads them. Images stay 8-bit: a whole split is one uint8
tensor that can live on the device (60,000 images at 224x224 are 3.0 GB), resized once, exactly as
Pillow would resize them one at a time.

Needs torch. Known limit: square grayscale images.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ninlab import data_files
from ninlab.errors import DataError

CLASS_NAMES = (
    "T-shirt",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
"""The ten garments, by label. Source: Xiao2017."""


def read_idx(folder: Path, name: str) -> Tensor:
    """The uint8 tensor of one of `data_files.FILES`, checked against the published checksum.

    Raises DataError, and leaves the file in place, when it is missing, damaged, or not the
    published one.
    """
    return _tensor(name, data_files.read(folder, name))


def _tensor(name: str, content: bytes) -> Tensor:
    published = data_files.FILES[name]
    values = np.frombuffer(content, np.uint8, offset=len(published.header))
    return torch.from_numpy(values.reshape(published.shape).copy())


# ---------------------------------------------------------------- images on a device


@dataclass(frozen=True)
class LabeledImages:
    """Images (n, channels, height, width) as uint8 and labels (n,) as int64, on one device.

    Raises DataError when it would be empty, when shapes or dtypes do not fit, or when a
    label lies outside 0..num_classes-1.
    """

    images: Tensor
    labels: Tensor
    num_classes: int = len(CLASS_NAMES)

    def __post_init__(self) -> None:
        if self.images.ndim != 4 or self.images.dtype != torch.uint8:
            raise DataError(
                "images must be uint8 of shape (n, channels, height, width), not "
                f"{self.images.dtype} of shape {tuple(self.images.shape)}"
            )
        if self.labels.shape != self.images.shape[:1] or self.labels.dtype != torch.int64:
            raise DataError(
                f"{len(self.images)} images need as many int64 labels, not {self.labels.dtype} of "
                f"shape {tuple(self.labels.shape)}"
            )
        if not len(self.images):
            raise DataError("the data set is empty; it needs at least one image")
        low, high = int(self.labels.min()), int(self.labels.max())
        if low < 0 or high >= self.num_classes:
            wrong = low if low < 0 else high
            raise DataError(
                f"label {wrong} is out of range; with {self.num_classes} classes labels are "
                f"0 to {self.num_classes - 1}"
            )

    def __len__(self) -> int:
        return len(self.images)

    def take(self, indices: Tensor | slice) -> LabeledImages:
        """The images and labels at those indices. Raises DataError when none is left."""
        return LabeledImages(self.images[indices], self.labels[indices], self.num_classes)

    def to(self, device: torch.device | str) -> LabeledImages:
        """The same images on that device."""
        return LabeledImages(self.images.to(device), self.labels.to(device), self.num_classes)

    def resized(self, size: int) -> LabeledImages:
        """The same images at size x size pixels, bit-equal to Pillow's bilinear resize."""
        return LabeledImages(resize(self.images, size), self.labels, self.num_classes)


@cache
def fashion_mnist() -> tuple[LabeledImages, LabeledImages]:
    """The 60,000 training and the 10,000 test images at 1x28x28, on the CPU.

    Found, or downloaded when no folder has it; read and checked once a process.
    Raises DataError when the data cannot be had or is not the published one.
    """
    _, contents = data_files.load()
    tensors = {name: _tensor(name, content) for name, content in contents.items()}

    def split(prefix: str) -> LabeledImages:
        images = tensors[f"{prefix}-images-idx3-ubyte"].unsqueeze(1)
        return LabeledImages(images, tensors[f"{prefix}-labels-idx1-ubyte"].long())

    return split("train"), split("t10k")


def held_out(
    train: LabeledImages, count: int, seed: int = 0
) -> tuple[LabeledImages, LabeledImages]:
    """(the rest, count images held out) of a training set, drawn without replacement.

    Learning rates are chosen on the held-out part, so the test set stays unseen. The same
    seed holds out the same images. Raises DataError when either part would be empty.
    """
    if not 0 < count < len(train):
        raise DataError(
            f"cannot hold out {count} of {len(train)} images; take 1 to {len(train) - 1}"
        )
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(seed))
    return train.take(order[count:]), train.take(order[:count])


# ---------------------------------------------------------------- moving and framing


def shifted(images: Tensor, right: int = 0, down: int = 0) -> Tensor:
    """The images (n, channels, height, width) moved by whole pixels; black moves in.

    Negative numbers move left and up. What leaves the frame is lost.
    """
    moved = torch.zeros_like(images)
    height, width = images.shape[-2:]
    rows, columns = max(height - abs(down), 0), max(width - abs(right), 0)
    moved[..., max(down, 0) : max(down, 0) + rows, max(right, 0) : max(right, 0) + columns] = (
        images[..., max(-down, 0) : max(-down, 0) + rows, max(-right, 0) : max(-right, 0) + columns]
    )
    return moved


def on_canvas(images: Tensor, size: int, right: int = 0, down: int = 0) -> Tensor:
    """The images on black size x size canvases, so many pixels off the top left corner.

    Raises DataError where an image would not lie wholly on its canvas.
    """
    height, width = images.shape[-2:]
    if min(right, down) < 0 or right + width > size or down + height > size:
        raise DataError(
            f"a {height}x{width} image does not fit at row {down}, column {right} of a "
            f"{size}x{size} canvas; keep both offsets between 0 and {size - max(height, width)}"
        )
    canvas = images.new_zeros(*images.shape[:-2], size, size)
    canvas[..., down : down + height, right : right + width] = images
    return canvas


# ---------------------------------------------------------------- resizing

_COEFFICIENT_BITS = 22  # Pillow's fixed point for 8-bit images: 32 bits less 8 and 2 of headroom
_RESIZE_CHUNK = 1000  # images; bounds the float64 intermediate to 0.4 GB at 224x224


def resize_matrix(size: int, new_size: int) -> Tensor:
    """Pillow's bilinear weights (new_size, size) in units of 2**-22, as whole float64 numbers.

    Each row is a triangle around its sample point, cut at the edges and normalized; when the
    image shrinks the triangle widens with the step, which is what suppresses aliasing.
    Source: Pillow's Resample.c; checked bit for bit by tests/test_data.py.
    """
    step = size / new_size
    support = max(step, 1.0)
    matrix = torch.zeros(new_size, size, dtype=torch.float64)
    for row in range(new_size):
        center = (row + 0.5) * step
        first = max(math.trunc(center - support + 0.5), 0)
        end = min(math.trunc(center + support + 0.5), size)
        weights = [
            max(0.0, 1.0 - abs((column - center + 0.5) / support)) for column in range(first, end)
        ]
        total = sum(weights)
        for column, weight in enumerate(weights, start=first):
            matrix[row, column] = math.floor(weight / total * 2**_COEFFICIENT_BITS + 0.5)
    return matrix


def resize(images: Tensor, size: int) -> Tensor:
    """Square uint8 images at size x size, bit-equal to Pillow's bilinear.

    images is (n, channels, height, width). Pillow resizes rows, rounds to 8 bits, then resizes
    columns and rounds again. Both passes are matrix products of whole numbers below 2**53,
    hence exact in float64 on any device.
    Raises DataError for a size under 1, and for images that are not square: there Pillow may
    take the columns first.
    """
    height, width = images.shape[-2:]
    if size < 1 or height != width:
        raise DataError(
            f"{height}x{width} images cannot be resized to {size} pixels; take square ones and a "
            "size of at least 1"
        )
    if size == height:
        return images
    matrix = resize_matrix(height, size).to(images.device)
    out = torch.empty(*images.shape[:-2], size, size, dtype=torch.uint8, device=images.device)
    for start in range(0, len(images), _RESIZE_CHUNK):
        chunk = slice(start, start + _RESIZE_CHUNK)
        wide = _fixed_point(images[chunk].double() @ matrix.T)
        out[chunk] = _fixed_point(matrix @ wide.double())
    return out


def _fixed_point(sums: Tensor) -> Tensor:
    """Sums in units of 2**-22, rounded half up to 8 bits."""
    return sums.mul_(2.0**-_COEFFICIENT_BITS).add_(0.5).floor_().clamp_(0, 255).to(torch.uint8)
