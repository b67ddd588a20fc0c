"""A roofline: no step can be above the roof, and each mark is where its numbers are."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ninlab import figures
from ninlab.architectures import ARCHITECTURES, architecture
from ninlab.devices import DEVICES, Device
from ninlab.errors import NinlabError
from ninlab.figures.roofline import roofline
from ninlab.roofline import time_bound, training_operators
from tests.test_figures import SOURCE, drawing

NETWORKS = ("nin", "alexnet", "vgg11")
WITH_RATES = [
    (one, precision)
    for one in DEVICES.values()
    if one.bytes_per_second is not None
    for precision in one.flops_per_second
]
rated = st.sampled_from(WITH_RATES)
networks = st.lists(st.sampled_from(NETWORKS), min_size=1, unique=True)


def marks(figure: Any) -> dict[str, Any]:
    """The one mark of each trace that has one, by the trace's name."""
    return {trace.name: trace for trace in figure.data if trace.mode == "markers"}


def drawn(names: list[str], where: Device, precision: str, batch: int = 8, **more: Any) -> Any:
    steps = {n: training_operators(architecture(n), batch, "sgd", precision) for n in names}
    return roofline(steps, where, precision, provenance=SOURCE, **more)


@drawing
@given(networks, rated, st.integers(1, 512))
def test_no_step_is_above_the_roof(names, where, batch):
    device, precision = where
    found = marks(drawn(names, device, precision, batch))
    assert len(found) == len(names)
    for mark in found.values():
        (intensity,), (rate,) = mark.x, mark.y
        roof = min(device.peak(precision), intensity * device.bandwidth())
        assert rate <= roof * (1 + 1e-12)  # three roundings of floats


@drawing
@given(rated, st.floats(1e-3, 1e3))
def test_a_step_at_best_is_hollow_at_its_bound_and_a_measured_one_solid_at_its_time(where, seconds):
    device, precision = where
    found = marks(drawn(["nin"], device, precision, measured={"nin": seconds}))
    step = training_operators(architecture("nin"), 8, "sgd", precision)
    bound = time_bound(step, device, precision)
    hollow, solid = found["NiN"], found["NiN, measured"]
    assert hollow.marker.symbol == f"{solid.marker.symbol}-open"
    assert hollow.x == solid.x == (bound.flops / bound.bytes,)
    assert (hollow.y, solid.y) == ((bound.flops / bound.seconds,), (bound.flops / seconds,))


@pytest.mark.parametrize(("device", "precision"), WITH_RATES, ids=lambda one: str(one)[:12])
def test_the_roof_turns_at_the_ridge(device, precision):
    figure = drawn(["nin"], device, precision)
    (left, ridge, right), (start, top, end) = figure.data[0].x, figure.data[0].y
    assert left < ridge < right
    assert top == pytest.approx(end)
    assert end == device.peak(precision)
    assert start / left == pytest.approx(device.bandwidth())
    assert ridge == device.peak(precision) / device.bandwidth()


def test_a_roofline_needs_a_network_and_has_room_for_six():
    with pytest.raises(NinlabError, match="not 0"):
        drawn([], DEVICES["t4"], "fp32")
    with pytest.raises(NinlabError, match="not 7"):
        drawn(list(ARCHITECTURES)[:7], DEVICES["t4"], "fp32")


def test_a_device_without_rates_has_no_roof():
    with pytest.raises(NinlabError, match="peak rate"):
        drawn(["nin"], DEVICES["phone_512mb"], "fp32")


def test_a_narrow_column_has_a_legend_of_the_networks_in_place_of_their_names():
    figure = drawn(list(NETWORKS), DEVICES["h100"], "tf32", measured={"nin": 1.0})
    narrow = figure.layout.meta["narrow"]
    legend = {trace.name for trace in figure.data if trace.showlegend}
    assert legend == {architecture(name).title for name in NETWORKS}
    assert legend < {note.text for note in figure.layout.annotations}
    assert not legend & {note["text"] for note in narrow["annotations"]}
    assert figures.table(figure).shape[0] > len(NETWORKS)
