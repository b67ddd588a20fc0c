"""Sums that cuDNN splits over multiprocessors, by plans that it answers for 18 of them."""

import random
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ninlab import cudnn
from ninlab.devices import DEVICES
from ninlab.split_sums import (
    ASSUMED_PROCESSORS,
    BOOKKEEPING_BYTES,
    SPLITTING,
    TILES,
    Product,
    on_device,
)
from ninlab.workspaces import MEMORY_FORMATS, ConvCall, Direction

BLOCK5 = ConvCall((512, 14, 14), (512, 512, 3, 3), padding=(1, 1))  # of VGG
WEIGHTS = Product(
    *(BLOCK5, Direction.WEIGHT_GRADIENT, 32, "tf32 contiguous"), engine=68, tile=0, group=(1, 1)
)


def products():
    """Convolutions with padding that keeps the size, as the engines of `SPLITTING` compute them."""

    def product(asked, memory_format, sizes, window, batch_size, tile, group):
        (direction, precision), (engine, tiles) = asked
        in_channels, out_channels, side = sizes
        pad = (window // 2, window // 2)
        call = ConvCall(
            (in_channels, side, side), (out_channels, in_channels, window, window), padding=pad
        )
        tile = sorted(tiles)[tile % len(tiles)]
        mode = f"{precision} {memory_format}"
        return Product(call, direction, batch_size, mode, engine, tile, group)

    return st.builds(
        product,
        st.sampled_from(sorted(SPLITTING.items())),
        st.sampled_from(MEMORY_FORMATS),
        st.tuples(st.integers(1, 600), st.integers(1, 600), st.integers(2, 60)),
        st.sampled_from([1, 3, 5]),
        st.integers(1, 128),
        st.integers(0, len(TILES)),
        st.sampled_from([(1, 1), (1, 2), (2, 1)]),
    )


@given(product=products(), processors=st.integers(2, 200))
def test_partial_sums_never_take_more_tiles_than_there_are_multiprocessors(product, processors):
    assert 0 <= product.partial_tiles(processors) <= processors


@given(product=products(), rounds=st.integers(1, 5))
def test_nothing_is_split_where_the_last_round_is_full(product, rounds):
    for processors in range(2, 200, 2):
        if product.tiles() % processors == 0:
            assert product.partial_tiles(processors) == 0


@given(product=products(), rest=st.integers(0, BOOKKEEPING_BYTES - 1))
def test_a_device_of_the_assumed_size_needs_what_cudnn_answered(product, rest):
    scratch = product.partial_tiles(ASSUMED_PROCESSORS) * product.tile_bytes
    answer = product.copy_bytes() + scratch + rest
    assert on_device(answer, product, ASSUMED_PROCESSORS) == answer


@given(product=products(), answer=st.integers(0, 2**32), processors=st.integers(2, 200))
def test_an_answer_that_the_rule_does_not_explain_comes_back(product, answer, processors):
    copies = product.copy_bytes()
    scratch = product.partial_tiles(ASSUMED_PROCESSORS) * product.tile_bytes
    explained = any(0 <= answer - copies - s < BOOKKEEPING_BYTES for s in (0, scratch))
    if not explained:
        assert on_device(answer, product, processors) == answer


@pytest.mark.parametrize(
    "change",
    [{"engine": 48}, {"tile": 18}, {"group": (1, 3)}, {"mode": "fp32 contiguous"}],
    ids=lambda change: next(iter(change)),
)
def test_other_plans_are_left_as_they_are(change):
    answer = WEIGHTS.copy_bytes()
    assert on_device(answer, WEIGHTS, 132) > answer
    assert on_device(answer, replace(WEIGHTS, **change), 132) == answer


def test_twelve_tiles_too_many_are_shared_by_all_multiprocessors_of_an_h100():
    tiles = 4 * 4 * 9  # 512 by 512 channels in tiles of 128 by 128, for each place of the window
    assert WEIGHTS.tiles() == tiles == 132 + 12
    assert WEIGHTS.partial_tiles(132) == 12 * 11
    assert WEIGHTS.partial_tiles(18) == 0  # eight full rounds


def test_the_rule_explains_most_of_what_cudnn_answers_without_a_device():
    """Of weight gradients in TF32 at random, by the cuDNN of this environment."""
    library = cudnn.installed() if torch.version.cuda else None
    if library is None:
        pytest.skip("a CPU build of torch brings no cuDNN")
    drawn = random.Random(1)
    asked = Asked(library, DEVICES["h100"].described)
    for _ in range(150):
        in_channels, out_channels = drawn.choices((64, 128, 192, 256, 384, 512), k=2)
        side, window = drawn.choice((7, 8, 10, 14, 16, 20, 28)), drawn.choice((1, 3, 3, 5))
        call = ConvCall(
            (in_channels, side, side),
            (out_channels, in_channels, window, window),
            padding=(window // 2, window // 2),
        )
        batch_size = drawn.choice((8, 16, 32, 64))
        cudnn.Planner.first(asked, call, Direction.WEIGHT_GRADIENT, batch_size, "tf32 contiguous")
    split = [(size, product) for size, product in asked.seen if product.is_split]
    explained = [
        0 <= size - product.copy_bytes() - tiles * product.tile_bytes < BOOKKEEPING_BYTES
        for size, product in split
        for tiles in [product.partial_tiles(ASSUMED_PROCESSORS)]
    ]
    assert len(split) > 50
    assert sum(explained) > 0.8 * len(explained)
    assert any(product.partial_tiles(ASSUMED_PROCESSORS) for _, product in split)


class Asked(cudnn.Oracle):
    """Writes down what cuDNN answered, and of which product, before the rule is asked."""

    def __init__(self, *described):
        super().__init__(*described)
        object.__setattr__(self, "seen", [])

    def _on_device(self, plan, call, direction, batch_size, mode):
        if plan.bytes is not None:
            knobs = plan.config.knobs()
            group = knobs.get(cudnn.Knob.ROWS, 1), knobs.get(cudnn.Knob.COLUMNS, 1)
            tile = knobs.get(cudnn.Knob.TILE_SIZE, -1)
            product = Product(call, direction, batch_size, mode, plan.engine, tile, group)
            self.seen.append((plan.bytes, product))
        return plan
