"""The figures of a signal that fades and of losses that stand still."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ninlab import figures
from ninlab.errors import NinlabError
from ninlab.experiments import loss_floor
from tests.test_figures import run

LAYERS = ("conv1", "conv2", "conv3")
RUNS = [run("a", seed, [0.5, 0.8, 0.9]) for seed in (0, 1, 4)]


def test_a_predicted_signal_is_hollow_and_dashed_and_a_measured_one_solid() -> None:
    figure = figures.fading_signal(
        (0.5, 0.25, 0.125), {"nin": (0.4, 0.2, 0.1)}, layers=LAYERS, provenance="Measured: here."
    )
    predicted, measured = figure.data
    assert predicted.line.dash == "dash"
    assert predicted.marker.symbol.endswith("-open")
    assert measured.line.dash == "solid"
    assert not measured.marker.symbol.endswith("-open")
    signs = {note.text.partition("</span>")[0][-1] for note in figure.layout.annotations}
    assert signs == {"○", "●"}


def test_a_signal_needs_one_ratio_a_layer() -> None:
    with pytest.raises(NinlabError, match="2 ratios for 3 layers"):
        figures.fading_signal((0.5, 0.25), {}, layers=LAYERS, provenance="Predicted: here.")


def test_the_slider_shows_one_seed_at_a_time_and_every_seed_once() -> None:
    figure = figures.plateaus(RUNS, loss_floor)
    (slider,) = figure.layout.sliders
    assert [step.label for step in slider.steps] == ["0", "1", "4"]
    shown = [step.args[1] for step in slider.steps]
    assert [sum(of_a_seed) for of_a_seed in zip(*shown, strict=True)] == [1] * len(figure.data)
    assert [trace.visible for trace in figure.data] == list(shown[0])


def test_a_floor_is_hollow_and_that_of_the_dead_classes_of_its_epoch() -> None:
    epochs = tuple(
        replace(e, epoch=i + 1, dead_classes=7 - i) for i, e in enumerate(RUNS[0].epochs)
    )
    figure = figures.plateaus([replace(RUNS[0], epochs=epochs)], loss_floor)
    (floors,) = (trace for trace in figure.data if trace.marker.symbol == "square-open")
    assert list(floors.y) == [loss_floor(dead, 10) for dead in (7, 6, 5)]


def test_plateaus_need_a_run() -> None:
    with pytest.raises(NinlabError):
        figures.plateaus([], loss_floor)
