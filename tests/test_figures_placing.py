"""A label lies on nothing that is drawn, and on no other label, wherever there is room."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations, pairwise, product

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ninlab import figures
from ninlab.figures import labels
from ninlab.figures.placing import MOST_TRIES, Box, LogPlot, Occupied
from tests.test_figures import drawing, run

pixels = st.integers(0, 100)  # whole numbers: then no corner lies on a line by rounding
points = st.tuples(pixels, pixels)
boxes = st.builds(
    lambda corner, width, height: Box(*corner, corner[0] + width, corner[1] + height),
    points,
    st.integers(1, 60),
    st.integers(1, 60),
)


def holds_a_point(box: Box, start: tuple[int, int], end: tuple[int, int]) -> bool:
    """Whether one of many points of a line lies in the box.

    Lines whose ends are whole numbers up to 100 share at least 1/100**2 of themselves with a box
    that they cross, and points are closer; a billionth keeps off those that touch a side.
    """
    share = np.linspace(0, 1, 40_001)
    x, y = (first + share * (last - first) for first, last in zip(start, end, strict=True))
    near = 1e-9
    across = (box.left + near < x) & (x < box.right - near)
    return bool((across & (box.bottom + near < y) & (y < box.top - near)).any())


@given(boxes, points, points)
@example(Box(0, 0, 10, 10), (5, -5), (5, 20))
@example(Box(0, 0, 10, 10), (0, -5), (0, 20))
@example(Box(0, 0, 10, 10), (3, 3), (3, 3))
def test_a_line_crosses_a_box_exactly_if_a_point_of_it_lies_inside(box, start, end):
    assert box.is_crossed_by(start, end) == holds_a_point(box, start, end)
    assert box.is_crossed_by(end, start) == box.is_crossed_by(start, end)


@given(boxes, boxes)
def test_boxes_meet_exactly_if_they_share_an_area(one, other):
    shared_width = min(one.right, other.right) - max(one.left, other.left)
    shared_height = min(one.top, other.top) - max(one.bottom, other.bottom)
    assert one.meets(other) == other.meets(one) == (min(shared_width, shared_height) > 0)
    assert one.holds(one)
    assert not (one.holds(other) and not one.meets(other))


some_choices = st.lists(st.lists(boxes, min_size=1, max_size=4), max_size=4)


@given(some_choices, st.lists(boxes, max_size=3), st.lists(st.tuples(points, points), max_size=3))
def test_labels_that_were_moved_meet_nothing(choices, taken, lines):
    occupied = Occupied(taken, lines)
    chosen = occupied.arranged(choices)
    moved = [of_label[i] for of_label, i in zip(choices, chosen, strict=True) if i]
    assert all(map(occupied.has_room_for, moved))
    assert not any(one.meets(other) for one, other in combinations(moved, 2))


@given(some_choices)
def test_labels_stay_where_they_are_best_if_all_of_them_can(choices):
    best = [boxes[0] for boxes in choices]
    if not any(one.meets(other) for one, other in combinations(best, 2)):
        assert Occupied().arranged(choices) == [0] * len(choices)


def test_a_label_makes_way_for_one_that_has_no_other_place():
    wide, left, right = Box(0, 0, 20, 10), Box(0, 0, 10, 10), Box(20, 0, 30, 10)
    assert Occupied().arranged([[wide], [left, right]]) == [0, 1]
    assert Occupied().arranged([[left, right], [wide]]) == [1, 0]
    assert Occupied([right]).arranged([[left, right], [wide]]) == [0, 0]  # no room in any order


def apart(boxes: Sequence[Box]) -> bool:
    return not any(one.meets(other) for one, other in combinations(boxes, 2))


@given(some_choices)
def test_labels_meet_nothing_if_any_choice_of_boxes_keeps_them_apart(choices):
    chosen = Occupied().arranged(choices)
    if any(map(apart, product(*choices))):
        assert apart([boxes[i] for boxes, i in zip(choices, chosen, strict=True)])


@pytest.mark.parametrize("labels", [9, 20])
def test_labels_that_cannot_all_have_room_cost_a_bounded_number_of_tries(labels, monkeypatch):
    """Where every order of the labels is tried, nine of them cost 362,880 orders."""
    compared = 0
    meets = Box.meets

    def counted(box: Box, other: Box) -> bool:
        nonlocal compared
        compared += 1
        return meets(box, other)

    monkeypatch.setattr(Box, "meets", counted)
    places = [Box(i, 0, i + 10, 10) for i in range(0, 10 * (labels - 1), 5)]  # one too few
    chosen = Occupied().arranged([places] * labels)
    assert compared <= MOST_TRIES * labels
    assert len({places[i] for i in chosen}) >= labels - 1


lattice = st.tuples(st.integers(1, 3), st.integers(1, 5))  # 120 and 61 pixels apart


@given(st.lists(lattice, min_size=1, max_size=6, unique=True))
def test_labels_of_dots_that_lie_apart_meet_nothing(places):
    plot = LogPlot((1, 1e4), (1, 1e6), 480, 366)
    dots = [(10.0**x, 10.0**y) for x, y in places]
    for x, y in dots:
        plot.add_dot(x, y, 10)
    notes = plot.labels({f"name {i}": [dot] for i, dot in enumerate(dots)})
    assert [note["x"] for note in notes] == [pytest.approx(x) for x, _ in places]
    assert len(plot.occupied.boxes) == 2 * len(dots)
    for one, other in combinations(plot.occupied.boxes, 2):
        assert not one.meets(other)


@drawing
@given(
    st.lists(st.tuples(st.integers(0, 50), st.integers(2, 6)), min_size=3, max_size=3),
)
def test_labels_of_lines_that_end_early_keep_off_the_others(lines):
    names = ("nin_28", "alexnet_28", "vgg11_28")
    runs = [
        replace(run(name, 0, [accuracy / 50] * epochs), network=name)
        for name, (accuracy, epochs) in zip(names, lines, strict=True)
    ]
    figure = figures.training_curves(runs)
    (left, right), (bottom, top) = figure.layout.xaxis.range, figure.layout.yaxis.range

    def pixels(x: float, y: float) -> tuple[float, float]:
        across, up = (x - left) / (right - left), (y - bottom) / (top - bottom)
        return across * labels.COLUMN_PIXELS, up * labels.PLOT_PIXELS

    boxes = []
    for note in figure.layout.annotations:
        label = note.text.rpartition("> ")[2].replace(",<br>", ", ")  # in two lines
        end = labels.End(0, 0, label, figures.NEUTRAL, "circle")
        x, y = pixels(note.x, note.y)
        height = end.height - 1e-6  # boxes may touch, and rounding must not make them meet
        boxes.append(Box.around((x + note.xshift + end.width / 2, y), end.width, height))
    drawn = [t for t in figure.data if t.mode == "lines+markers"]
    assert len(boxes) == len(drawn) == len(names)
    for one, other in combinations(boxes, 2):
        assert not one.meets(other)
    for trace in drawn:
        for start, stop in pairwise(zip(trace.x, trace.y, strict=True)):
            assert not any(box.is_crossed_by(pixels(*start), pixels(*stop)) for box in boxes)
