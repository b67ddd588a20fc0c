"""Fashion-MNIST on a device: split, held out, moved, and resized as by Pillow."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from ninlab import data, recipes
from ninlab.data import LabeledImages
from ninlab.errors import DataError
from ninlab.recipes import EvaluationSet, Recipe


def test_a_split_has_the_published_size_and_ten_equal_classes():
    for split, count in zip(data.fashion_mnist(), (60000, 10000), strict=True):
        assert split.images.shape == (count, 1, 28, 28)
        assert split.labels.bincount().tolist() == [count // 10] * 10


def test_recipes_count_the_images_that_there_are():
    training, _ = data.fashion_mnist()
    assert Recipe(0.1, 1).images == len(training) == recipes.TRAINING_SPLIT_IMAGES
    assert Recipe(0.1, 1, batch_size=7, train_images=7).images == 7
    recipe = Recipe(0.1, 3, batch_size=128, evaluation_set=EvaluationSet.HELD_OUT)
    kept, _ = data.held_out(training, recipes.HELD_OUT_IMAGES)
    assert len(kept) == recipe.images
    assert recipe.steps == 3 * (len(kept) // 128)


# ---------------------------------------------------------------- labeled images


def pictures(count: int, size: int = 4) -> torch.Tensor:
    return torch.zeros(count, 1, size, size, dtype=torch.uint8)


@given(st.integers(), st.integers(1, 20))
def test_a_label_out_of_range_is_an_error_that_names_it(label, num_classes):
    label = max(min(label, 2**62), -(2**62))
    images, labels = pictures(2), torch.tensor([0, label])
    if 0 <= label < num_classes:
        assert len(LabeledImages(images, labels, num_classes)) == 2
    else:
        with pytest.raises(DataError, match=f"label {label} is out of range"):
            LabeledImages(images, labels, num_classes)


def test_an_empty_split_is_an_error():
    with pytest.raises(DataError, match="empty"):
        LabeledImages(pictures(0), torch.zeros(0, dtype=torch.int64))
    with pytest.raises(DataError, match="empty"):
        data.fashion_mnist()[0].take(slice(0))


def test_images_and_labels_must_fit():
    with pytest.raises(DataError, match="as many int64 labels"):
        LabeledImages(pictures(3), torch.zeros(2, dtype=torch.int64))
    with pytest.raises(DataError, match="uint8"):
        LabeledImages(pictures(3).float(), torch.zeros(3, dtype=torch.int64))


@given(st.integers(2, 60), st.integers(0, 1000), st.data())
def test_holding_out_splits_a_set_into_two_parts(total, seed, draw):
    count = draw.draw(st.integers(1, total - 1))
    whole = LabeledImages(pictures(total, 1), torch.arange(total), num_classes=total)
    rest, held = data.held_out(whole, count, seed)
    assert len(held) == count
    assert sorted(rest.labels.tolist() + held.labels.tolist()) == list(range(total))
    assert torch.equal(held.labels, data.held_out(whole, count, seed)[1].labels)


@pytest.mark.parametrize("count", [0, 3, 4])
def test_holding_out_nothing_or_everything_is_an_error(count):
    whole = LabeledImages(pictures(3), torch.zeros(3, dtype=torch.int64))
    with pytest.raises(DataError, match=f"cannot hold out {count} of 3"):
        data.held_out(whole, count)


# ---------------------------------------------------------------- resizing and moving


def pillow(images: torch.Tensor, size: int) -> np.ndarray:
    resized = (
        Image.fromarray(image.numpy()).resize((size, size), Image.Resampling.BILINEAR)
        for image in images[:, 0]
    )
    return np.stack([np.asarray(image) for image in resized])


def test_test_images_at_224_equal_pillows_bit_for_bit():
    images = data.fashion_mnist()[1].images[:300]
    assert np.array_equal(data.resize(images, 224)[:, 0].numpy(), pillow(images, 224))


@given(
    seed=st.integers(0, 2**32 - 1),
    pixels=st.integers(1, 40),
    size=st.integers(1, 96),
)
def test_any_resize_of_a_square_equals_pillows_bit_for_bit(seed, pixels, size):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (2, 1, pixels, pixels), dtype=torch.uint8, generator=generator)
    assert np.array_equal(data.resize(images, size)[:, 0].numpy(), pillow(images, size))


def test_resized_images_keep_their_labels():
    small = data.fashion_mnist()[1].take(slice(20))
    for size in (28, 40):
        assert torch.equal(small.resized(size).images, data.resize(small.images, size))
        assert torch.equal(small.resized(size).labels, small.labels)


def test_a_size_under_one_and_an_oblong_image_are_errors():
    with pytest.raises(DataError, match="0 pixels"):
        data.resize(pictures(1), 0)
    with pytest.raises(DataError, match="3x4 images"):
        data.resize(pictures(1)[..., :3, :], 8)


@given(st.integers(-6, 6), st.integers(-6, 6))
def test_what_stays_in_the_frame_moves_and_what_leaves_is_lost(right, down):
    images = torch.arange(1, 26, dtype=torch.uint8).view(1, 1, 5, 5)
    moved = data.shifted(images, right, down)
    for row in range(5):
        for column in range(5):
            y, x = row - down, column - right
            inside = 0 <= y < 5 and 0 <= x < 5
            assert moved[0, 0, row, column] == (images[0, 0, y, x] if inside else 0)


def test_images_that_are_told_to_go_nowhere_stay_in_their_corner():
    images = torch.arange(1, 26, dtype=torch.uint8).view(1, 1, 5, 5)
    assert torch.equal(data.shifted(images), images)
    assert torch.equal(data.on_canvas(images, 9), data.on_canvas(images, 9, 0, 0))


@given(st.integers(-2, 7), st.integers(-2, 7))
def test_a_canvas_keeps_every_pixel(right, down):
    images = torch.arange(1, 26, dtype=torch.uint8).view(1, 1, 5, 5)
    if min(right, down) < 0 or max(right, down) > 4:
        with pytest.raises(DataError, match="does not fit"):
            data.on_canvas(images, 9, right, down)
    else:
        canvas = data.on_canvas(images, 9, right, down)
        assert torch.equal(canvas[..., down : down + 5, right : right + 5], images)
        assert canvas.long().sum() == images.long().sum()
