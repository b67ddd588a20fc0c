"""The figure of one quantity over the seeds of several networks."""

from __future__ import annotations

from itertools import combinations
from math import log10
from statistics import median

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ninlab import figures
from ninlab.errors import NinlabError

values = st.lists(st.floats(1e-5, 1), min_size=1, max_size=20)


def drawn(rows, **more):
    return figures.dots_by_row(rows, axis="share", like={}, provenance="Measured: here.", **more)


@given(st.dictionaries(st.sampled_from("abcd"), values, min_size=1))
@example({"a": [1.0, 1.0]})  # an axis without a whole power of ten
@settings(max_examples=30, deadline=None)
def test_every_value_is_a_dot_in_the_row_of_its_label_and_hides_no_other(rows):
    figure = drawn(rows)
    span = figure.layout.xaxis.range
    below = 0.0
    for label in rows:
        (dots,) = (trace for trace in figure.data if trace.name == label)
        assert list(dots.x) == rows[label]
        assert min(dots.y) > below
        below = max(dots.y)
        for (x, y), (other_x, other_y) in combinations(zip(dots.x, dots.y, strict=True), 2):
            far = abs(log10(x / other_x)) > 0.02 * (span[1] - span[0])
            assert far or abs(y - other_y) > 6
        (line,) = (trace for trace in figure.data if trace.name == f"{label}, median")
        assert list(line.x) == [median(rows[label])]
    assert all(span[0] < log10(x) < span[1] for trace in figure.data for x in trace.x)


def test_a_note_stands_behind_its_label_alone():
    figure = drawn({"a": [0.1], "b": [0.2]}, notes={"b": ": faint"})
    assert [note.text for note in figure.layout.annotations] == ["a", "b: faint"]


@pytest.mark.parametrize("rows", [{}, {"a": []}, {"a": [0.1], "b": [0.0]}])
def test_rows_without_values_and_values_of_nothing_are_refused(rows):
    with pytest.raises(NinlabError):
        drawn(rows)
