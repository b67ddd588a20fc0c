"""How much scratch does cuDNN take to split the sums of a convolution over a GPU?

A convolution is a product of two matrices, and each result is a sum: over input channels and
window, over output channels and window, or, for a weight's gradient, over all pixels of the batch.
For Hopper cuDNN has engines that compute such a product tile by tile, a multiprocessor each. When
tiles are too few for the last round, each of that round is given to several multiprocessors: every
one sums a share, and leaves its tile of partial sums in scratch. This way is called stream-K (Osama
and others, "Stream-K: Work-centric Parallel Decomposition for Dense Matrix-Matrix Multiplication on
the GPU", 2023).

To a cuDNN without a device every GPU has 18 multiprocessors, whatever its description says. Here
the same plan is followed at both numbers: `on_device` takes what it would need on 18 out of an
answer, and puts in what it needs on all.

The rule was read off the answers that cuDNN 9.19 gives for 18 multiprocessors, to plans drawn at
random: which tiles are split at all, and how few steps a share may have. No GPU was asked for it.
That it holds on one is judged by the traces of an H100 (`tests/test_workspaces_of_traces.py`).

Known limits. Of plans whose multiprocessors work in groups of more than two, which those in
bfloat16 mostly are, only the device knows how many groups run at once: they are left as they are,
and so is a plan whose answer this rule does not explain. Of sums of fewer than 100 steps the number
of shares may be off.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil, prod

from ninlab.steps import Precision
from ninlab.workspaces import ConvCall, Direction

ASSUMED_PROCESSORS = 18
"""Multiprocessors that cuDNN 9.19 and 9.26 plan for where they see no device."""

TILES: Mapping[int, tuple[int, int]] = {
    0: (128, 128),
    1: (128, 64),
    3: (256, 128),
    4: (256, 64),
    5: (64, 64),
    7: (64, 128),
}
"""Rows and columns of a tile of the product, by cuDNN's number of its size."""

SPLITTING: Mapping[tuple[Direction, str], tuple[int, frozenset[int]]] = {
    (Direction.FORWARD, Precision.TF32): (67, frozenset({0, 3})),
    (Direction.INPUT_GRADIENT, Precision.TF32): (71, frozenset({3})),
    (Direction.WEIGHT_GRADIENT, Precision.TF32): (68, frozenset(TILES)),
    (Direction.WEIGHT_GRADIENT, Precision.BF16): (65, frozenset(TILES)),
}
"""The engine, by cuDNN's global index, and those of its tiles whose sums it splits."""

LARGEST_GROUP = 2  # multiprocessors; an H100 has an even number of them in each of its parts
ACCUMULATOR_BYTES = 4  # sums are float32 in either precision
BYTES_OF_A_STEP = 128  # of a row of either matrix
FEWEST_STEPS, FEWEST_STEPS_OF_FEW_TILES = 8, 24
"""Steps that a share of a sum has at the least, the second where no round of tiles is full."""
BOOKKEEPING_BYTES = 2048  # at most: locks and headers beside tiles and copies


@dataclass(frozen=True, slots=True)
class Product:
    """A convolution as an engine computes it.

    tile is cuDNN's number of the tile's size, group how many multiprocessors work together along
    rows and along columns.
    """

    call: ConvCall
    direction: Direction
    batch_size: int
    mode: str  # "precision memory_format", with a precision of tf32 or bf16
    engine: int  # cuDNN's global index
    tile: int
    group: tuple[int, int]

    @property
    def is_split(self) -> bool:
        """Whether it is of a kind that splits sums, in groups that always fill the device."""
        precision = self.mode.split()[0]
        engine, tiles = SPLITTING.get((self.direction, precision), (None, frozenset()))
        return self.engine == engine and self.tile in tiles and prod(self.group) <= LARGEST_GROUP

    @property
    def tile_bytes(self) -> int:
        """Bytes of one tile of partial sums."""
        return prod(TILES[self.tile]) * ACCUMULATOR_BYTES

    @property
    def element_bytes(self) -> int:
        """Bytes of a value that is read."""
        return 2 if self.mode.startswith(Precision.BF16) else 4

    def tiles(self) -> int:
        """How many tiles the product has, as many on each side as whole groups have."""
        out_channels, in_channels, *window = self.call.weight_shape
        rows, columns = TILES[self.tile]
        if self.direction is Direction.WEIGHT_GRADIENT:
            counts = ceil(out_channels / rows), ceil(in_channels / columns) * prod(window)
        elif self.direction is Direction.FORWARD:
            pixels = self.batch_size * prod(self.call.output_shape[1:])
            counts = ceil(pixels / rows), ceil(out_channels / columns)
        else:
            pixels = self.batch_size * prod(self.call.input_shape[1:])
            counts = ceil(pixels / rows), ceil(in_channels / columns)
        return prod(_up(count, side) for count, side in zip(counts, self.group, strict=True))

    def steps(self) -> int:
        """In how many steps a tile is summed."""
        out_channels, in_channels, *window = self.call.weight_shape
        values = BYTES_OF_A_STEP // self.element_bytes
        if self.direction is Direction.WEIGHT_GRADIENT:
            return ceil(self.batch_size * prod(self.call.output_shape[1:]) / values)
        summed = in_channels if self.direction is Direction.FORWARD else out_channels
        return ceil(summed / values) * prod(window)

    def partial_tiles(self, processors: int) -> int:
        """How many tiles of partial sums it leaves in scratch on so many multiprocessors."""
        processors -= processors % prod(self.group)
        tiles = self.tiles()
        in_last_round = tiles % processors
        if not in_last_round:
            return 0
        fewest = FEWEST_STEPS if tiles > processors else FEWEST_STEPS_OF_FEW_TILES
        shares = min(processors // in_last_round, self.steps() // fewest)
        return in_last_round * shares if shares > 1 else 0

    def copy_bytes(self) -> int:
        """Bytes of images, maps and weights as these engines read and write them.

        Channels come last in them, filled up to 16 bytes a pixel. Weights with a 1x1 window lie
        that way in any case. 0 where all lie so already.
        """
        if self.mode.endswith("channels_last"):
            return 0
        in_channels, *image = self.call.input_shape
        out_channels, *maps = self.call.output_shape
        per_pixel = 16 // self.element_bytes
        inputs, outputs = _up(in_channels, per_pixel), _up(out_channels, per_pixel)
        window = prod(self.call.weight_shape[2:])
        values = self.batch_size * (inputs * prod(image) + outputs * prod(maps))
        if window > 1:
            values += out_channels * inputs * window
        return values * self.element_bytes


def on_device(answer: int, product: Product, processors: int) -> int:
    """Bytes of the workspace on a device with so many multiprocessors.

    answer is what a cuDNN without a device says of that product. It comes back as it is where the
    rule does not explain it.
    """
    if not product.is_split:
        return answer
    copies = product.copy_bytes()
    for tiles in {product.partial_tiles(ASSUMED_PROCESSORS), 0}:  # some last rounds are not split
        rest = answer - tiles * product.tile_bytes
        if 0 <= rest - copies < BOOKKEEPING_BYTES:
            return rest + product.partial_tiles(processors) * product.tile_bytes
    return answer


def _up(count: int, multiple: int) -> int:
    return -(-count // multiple) * multiple
