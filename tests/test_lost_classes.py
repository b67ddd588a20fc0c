"""Lost classes bound what a run can reach, and every recorded run keeps within the bounds."""

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ninlab import records
from ninlab.lost_classes import accuracy_roof, loss_floor


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


def test_every_recorded_run_respects_the_roof_and_the_floor_of_its_lost_classes():
    for run in records.load():
        sizes = sorted(sum(row) for row in run.confusion)
        roof = sum(sizes[run.never_predicted :]) / sum(sizes)
        assert run.last.test_accuracy <= roof + 1e-9, run.id
        if len(set(sizes)) == 1:  # held-out images are not equally many of each class
            assert roof == pytest.approx(accuracy_roof(run.never_predicted, 10))
            least = loss_floor(0, 10, run.never_predicted)
            assert run.last.test_loss is None or run.last.test_loss >= least, run.id
