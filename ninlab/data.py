"""Where is Fashion-MNIST, is it the published one, and how does it reach the device?

The four files are looked for in the folder that the environment variable
NINLAB_DATA names, then where Debian's package dataset-fashion-mnist puts them,
then in the user's cache; only then are they downloaded, through torchvision.
Checksums are of the decompressed content, because distributions compress the
same bytes again. A wrong file is named in the error and left in place.

Images stay 8-bit: a whole split is one uint8 tensor that can live on the
device (60,000 images at 224x224 are 3.0 GB), resized once, exactly as Pillow
would resize them one at a time.

Needs torch; torchvision only to download. Known limit: Fashion-MNIST only, square grayscale
images.
"""

from __future__ import annotations

import gzip
import hashlib
import math
import os
import sys
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

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

FOLDER_VARIABLE = "NINLAB_DATA"
DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")
_TORCHVISION_SUBFOLDER = Path("FashionMNIST", "raw")


@dataclass(frozen=True)
class IdxFile:
    """One published file: sha256 of its decompressed bytes and the shape they hold."""

    sha256: str
    shape: tuple[int, ...]

    @property
    def header(self) -> bytes:
        """The bytes before the first value: type 8 = uint8, rank, then each size."""
        sizes = b"".join(size.to_bytes(4, "big") for size in self.shape)
        return bytes((0, 0, 8, len(self.shape))) + sizes


FILES: Mapping[str, IdxFile] = {
    "train-images-idx3-ubyte": IdxFile(
        "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888", (60000, 28, 28)
    ),
    "train-labels-idx1-ubyte": IdxFile(
        "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9", (60000,)
    ),
    "t10k-images-idx3-ubyte": IdxFile(
        "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b", (10000, 28, 28)
    ),
    "t10k-labels-idx1-ubyte": IdxFile(
        "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34", (10000,)
    ),
}
"""The published data set. Source: Xiao2017; tests/test_data.py holds the published md5 sums too."""


# ---------------------------------------------------------------- finding and checking


def user_cache() -> Path:
    """Where downloads go: XDG_CACHE_HOME/ninlab, by default ~/.cache/ninlab."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "ninlab"


def search_folders() -> tuple[Path, ...]:
    """The folders that may hold the data, in the order in which they are tried.

    Raises DataError when NINLAB_DATA names no folder.
    """
    cached = user_cache() / _TORCHVISION_SUBFOLDER
    chosen = os.environ.get(FOLDER_VARIABLE)
    if not chosen:
        return (DEBIAN_FOLDER, cached)
    folder = Path(chosen).expanduser()
    if not folder.is_dir():
        raise DataError(
            f"{FOLDER_VARIABLE} is {chosen!r}, which is no folder; "
            "name the one that holds train-images-idx3-ubyte.gz, or unset it"
        )
    return (folder, folder / _TORCHVISION_SUBFOLDER, DEBIAN_FOLDER, cached)


def find() -> Path | None:
    """The first folder that holds all four files, or None when no folder holds any.

    Raises DataError when a folder holds some of them: a half-copied data set is
    never completed from elsewhere behind the reader's back.
    """
    for folder in search_folders():
        missing = [name for name in FILES if _path(folder, name) is None]
        if not missing:
            return folder
        if len(missing) < len(FILES):
            raise DataError(
                f"{folder} lacks {', '.join(missing)}; copy the missing file (.gz or unpacked) "
                f"there, or point {FOLDER_VARIABLE} to a whole copy"
            )
    return None


def download() -> Path:
    """The folder of the user's cache, with the data set freshly downloaded into it.

    torchvision fetches the published files with a progress bar and checks their md5.
    Raises DataError when the network does not answer.
    """
    from torchvision.datasets import FashionMNIST

    cache_folder = user_cache()
    print(f"Fashion-MNIST is on none of this machine's paths; downloading it to {cache_folder}",
          file=sys.stderr)  # fmt: skip
    try:
        FashionMNIST(str(cache_folder), download=True)
    except (OSError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise DataError(
            f"Fashion-MNIST could not be downloaded ({reason}); install Debian's "
            f"dataset-fashion-mnist or point {FOLDER_VARIABLE} to a folder with the four files"
        ) from error
    return cache_folder / _TORCHVISION_SUBFOLDER


def read_idx(folder: Path, name: str) -> Tensor:
    """The uint8 tensor of one of FILES, checked against the published checksum.

    Raises DataError, and leaves the file in place, when it is missing, damaged, or not the
    published one.
    """
    path = _path(folder, name)
    if path is None:
        raise DataError(f"{folder} holds neither {name}.gz nor {name}")
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read ({error}); replace it with a whole copy") from error
    published = FILES[name]
    digest = hashlib.sha256(content).hexdigest()
    if digest != published.sha256:
        raise DataError(
            f"{path} is not the published file: its content has sha256 {digest[:12]}…, expected "
            f"{published.sha256[:12]}…; it was left in place, replace it or move it away"
        )
    values = np.frombuffer(content, np.uint8, offset=len(published.header))
    return torch.from_numpy(values.reshape(published.shape).copy())


def _path(folder: Path, name: str) -> Path | None:
    candidates = (folder / f"{name}.gz", folder / name)
    return next((path for path in candidates if path.is_file()), None)


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
    folder = find() or download()

    def split(prefix: str) -> LabeledImages:
        images = read_idx(folder, f"{prefix}-images-idx3-ubyte").unsqueeze(1)
        return LabeledImages(images, read_idx(folder, f"{prefix}-labels-idx1-ubyte").long())

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
