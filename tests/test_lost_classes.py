"""Lost classes bound what a run can reach, and every recorded run keeps within the bounds."""

import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ninlab import records
from ninlab.lost_classes import accuracy_roof, loss_floor, stopped_in_words
from tests.records import A_RECORD


def test_dead_class_floors_rise_from_nothing_to_guessing():
    floors = [loss_floor(dead, 10) for dead in range(11)]
    roofs = [accuracy_roof(dead, 10) for dead in range(11)]
    assert floors[0] == 0
    assert roofs[0] == 1
    assert floors[10] == pytest.approx(math.log(10))
    assert all(a < b for a, b in pairwise(floors))
    assert roofs[9] == roofs[10] == 0.1  # somebody is always guessed


@given(st.integers(0, 10), st.integers(0, 10))
def test_a_class_that_is_never_predicted_adds_less_to_the_floor_than_a_dead_one(dead, lost):
    floor = loss_floor(dead, 10, never_predicted=lost)
    assert loss_floor(dead, 10) <= floor <= loss_floor(max(dead, lost), 10)
    assert floor <= math.log(10)


@given(st.integers(2, 6), st.data())
def test_only_a_tie_lifts_a_network_over_the_roof_of_its_dead_classes_and_by_one_class(k, data):
    """Scores behind a ReLU, of some images of each class; torch's argmax is the judge."""
    each = data.draw(st.integers(1, 3))
    rows = st.lists(st.sampled_from([0.0, 0.0, 1.0, 2.0]), min_size=k, max_size=k)
    scores = torch.tensor(data.draw(st.lists(rows, min_size=k * each, max_size=k * each)))
    labels = torch.arange(k).repeat_interleave(each)
    predicted = scores.argmax(1)
    accuracy = (predicted == labels).double().mean().item()
    dead = int((scores == 0).all(0).sum())
    lost = k - len(predicted.unique())
    assert accuracy <= accuracy_roof(lost, k) + 1e-9
    if not (scores == 0).all(1).any():
        assert lost >= dead
    assert lost >= dead - 1
    assert accuracy <= accuracy_roof(max(dead - 1, 0), k) + 1e-9
    loss = torch.nn.functional.cross_entropy(scores.double(), labels).item()
    assert loss >= loss_floor(dead, k) - 1e-9


def test_every_recorded_run_respects_the_roof_and_the_floor_of_its_lost_classes():
    for run in records.load():
        sizes = sorted(sum(row) for row in run.confusion)
        roof = sum(sizes[run.never_predicted :]) / sum(sizes)
        assert run.last.test_accuracy <= roof + 1e-9, run.id
        if len(set(sizes)) == 1:  # held-out images are not equally many of each class
            assert roof == pytest.approx(accuracy_roof(run.never_predicted, 10))
            least = loss_floor(0, 10, run.never_predicted)
            assert run.last.test_loss is None or run.last.test_loss >= least, run.id


def ending(accuracy, lost, dead=()):
    """A run of ten classes that never predicts the last ones; dead: how many, by epoch."""
    alive = 10 - lost
    row = (1000 - alive + 1, *[1] * (alive - 1), *[0] * lost)
    last = replace(A_RECORD.last, test_accuracy=accuracy, test_loss=math.log(10))
    epochs = tuple(replace(last, epoch=i, dead_classes=k) for i, k in enumerate(dead or [0], 1))
    images = replace(A_RECORD.data_set, evaluation_images=10_000)
    recipe = replace(A_RECORD.recipe, epochs=len(epochs))
    return replace(A_RECORD, epochs=epochs, confusion=(row,) * 10, data_set=images, recipe=recipe)


@pytest.mark.parametrize(
    ("accuracy", "lost", "stands"), [(0.78, 2, True), (0.76, 2, False), (0.89, 1, False)]
)
def test_a_run_close_under_the_roof_of_two_lost_classes_is_named(accuracy, lost, stands):
    words = stopped_in_words({"row": [ending(accuracy, lost)]})
    assert (f"row, seed 0 at {accuracy:.1%} with {lost} lost" in words) == stands
    assert ("No run stands right under" in words) != stands


@given(st.lists(st.sampled_from([0, 9, 10]), min_size=2, max_size=5))
def test_a_run_is_lost_for_good_if_no_class_lives_after_several_epochs_the_last_included(dead):
    words = stopped_in_words({"row": [ending(0.1, 9, dead)]})
    buried = dead.count(10) > 1 and dead[-1] == 10
    assert ("Lost for good: row, seed 0: all 10 classes are dead" in words) == buried
    assert (f"after epoch {dead.index(10) + 1}, and" in words) if buried else "2.30259" not in words


def test_without_runs_nothing_is_said():
    assert stopped_in_words({}) == ""
