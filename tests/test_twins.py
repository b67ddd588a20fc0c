"""Two runs of one seed on processors with other instructions, and the figures of how they part."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ninlab import figures
from ninlab.errors import NinlabError
from ninlab.records import LossCurve, RunRecord
from ninlab.twins import farthest_apart, parting_step, twins
from tests.records import A_HOST
from tests.test_records import A_RECORD

losses = st.lists(st.floats(0, 10), min_size=1, max_size=30)


def made(instructions: str, seed: int = 0, curve: tuple[float | None, ...] = (2.0,)) -> RunRecord:
    """A single run by those instructions."""
    return replace(
        A_RECORD,
        experiment="single",
        name=f"a_{instructions.lower()}",
        seed=seed,
        host=replace(A_HOST, cpu_capability=instructions),
        loss=LossCurve(10, curve),
    )


def test_twins_share_network_recipe_and_seed_and_nothing_else_pairs_runs():
    wide = [made("AVX512", seed) for seed in (2, 0, 1)]
    narrow = [made("AVX2", seed) for seed in (0, 2, 5)]
    others = [
        replace(made("AVX2", 1), recipe=replace(A_RECORD.recipe, learning_rate=0.3)),
        replace(made("AVX2", 1), network="alexnet_28"),
        replace(made("AVX2", 1), host=None),
        replace(made("AVX2", 1), experiment="collapse"),
    ]
    found = twins([*others, *narrow, *wide], A_RECORD.network)
    assert found == [(wide[1], narrow[0]), (wide[0], narrow[1])]
    assert twins([*others, *wide], A_RECORD.network) == []


ELSEWHERE = [
    ("torch", lambda run: replace(run, software=replace(run.software, torch="2.99.0"))),
    ("threads", lambda run: replace(run, device=replace(run.device, threads=7))),
    ("processor", lambda run: replace(run, host=replace(run.host, processor="another"))),
]
"""Changes by which a run has other kernels, whatever its instructions."""


@pytest.mark.parametrize(("what", "moved"), ELSEWHERE)
def test_what_else_chooses_kernels_parts_no_twins(what, moved):
    one, other = made("AVX512"), made("AVX2")
    assert twins([one, moved(other)], A_RECORD.network) == []
    assert twins([moved(one), other, one, moved(other)], A_RECORD.network) == [
        (moved(one), moved(other)),
        (one, other),
    ]
    with pytest.raises(NinlabError, match=f"differ in {what}"):
        figures.twin_curves([(one, moved(other))])


def test_two_runs_of_one_seed_by_the_same_instructions_are_refused_and_named():
    one = made("AVX512")
    again = replace(one, name="again")
    with pytest.raises(NinlabError, match=f"{again.id} and {one.id}"):
        twins([one, made("AVX2"), again], A_RECORD.network)


@given(losses, losses)
def test_the_largest_distance_so_far_never_falls_and_ends_at_the_largest(ours, theirs):
    pair = made("AVX512", curve=tuple(ours)), made("AVX2", curve=tuple(theirs))
    apart = farthest_apart(pair)
    assert apart == sorted(apart)
    assert apart[-1] == max(abs(a - b) for a, b in zip(ours, theirs, strict=False))
    assert apart == farthest_apart(pair[::-1])


@given(losses, st.floats(0.001, 10))
def test_twins_part_at_the_first_step_of_the_first_loss_that_far_away(ours, nats):
    pair = made("AVX512", curve=tuple(ours)), made("AVX2", curve=tuple(0.0 for _ in ours))
    step = parting_step(pair, nats)
    before = ours if step is None else ours[: step // 10]
    assert all(loss < nats for loss in before)
    assert step is None or ours[step // 10] >= nats


def test_a_loss_that_is_not_finite_is_as_far_away_as_any():
    pair = made("AVX512", curve=(2.0, None)), made("AVX2", curve=(2.0, 2.0))
    assert parting_step(pair, 1e9) == 10


# ---------------------------------------------------------------- the figures

PAIRS = [
    (made("AVX512", seed, (2.0, 1.5, 1.0)), made("AVX2", seed, (2.0, 1.4, 1.3)))
    for seed in range(3)
]


def test_each_pair_has_a_panel_with_both_of_its_curves():
    figure = figures.twin_curves(PAIRS)
    assert [tuple(trace.y) for trace in figure.data] == [
        run.loss.values for pair in PAIRS for run in pair
    ]
    assert [note.text for note in figure.layout.annotations] == ["seed 0", "seed 1", "seed 2"]
    assert [trace.name for trace in figure.data if trace.showlegend] == ["AVX512", "AVX2"]
    assert [trace.xaxis for trace in figure.data[::2]] == ["x", "x2", "x3"]


def test_a_line_of_distances_begins_with_the_first_that_is_not_zero():
    figure = figures.growing_apart({"one": PAIRS[:2], "two": PAIRS[2:]})
    for trace, pair in zip(figure.data, PAIRS, strict=True):
        first, *others = farthest_apart(pair)
        assert first == 0
        assert list(trace.y) == others
        assert list(trace.x) == [15.0, 25.0]  # the middle of ten steps each
    assert [trace.name for trace in figure.data if trace.showlegend] == ["one", "two"]


def test_runs_that_are_no_twins_are_refused_with_what_differs():
    one, other = PAIRS[0]
    for wrong, said in (
        (replace(other, seed=1), "differ in seed"),
        (replace(other, network="alexnet_28"), "differ in network"),
        (one, "the same instructions"),
    ):
        with pytest.raises(NinlabError, match=said):
            figures.twin_curves([(one, wrong)])
        with pytest.raises(NinlabError, match=said):
            figures.growing_apart({"a": [(one, wrong)]})
