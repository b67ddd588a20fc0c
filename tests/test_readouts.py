"""What a linear reader gets: the reader, the benchmark that trains for it, and its file."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks import readouts as benchmark
from ninlab import linear_readout
from ninlab.architectures import architecture
from ninlab.data import fashion_mnist
from ninlab.errors import NinlabError, RecordError, UnknownNameError
from ninlab.experiments import PLANS
from ninlab.linear_readout import BEFORE, fit, found
from ninlab.networks import build
from ninlab.readouts import PATH, Readouts
from ninlab.records import load, write_bytes
from ninlab.relapses import failed
from ninlab.training import Normalize

COMPACT = PLANS["compact"]
ROWS = ("collapse/nin_28", "one_by_one_batch_norm/nin_28_batch_norm")


@pytest.fixture(scope="module")
def images():
    return fashion_mnist()[0].take(slice(300))


# ---------------------------------------------------------------- the values


@pytest.mark.parametrize("name", ["nin_28", "nin_28_batch_norm", "nin_28_gradual"])
def test_values_are_those_that_the_network_hands_on(name, images):
    network, about = build(name, seed=0), architecture(name)
    values, scores = found(network, images.images)
    pixels = images.images / 255
    torch.testing.assert_close(scores, network(pixels))
    parts = [part for part, _ in network.named_children()]
    before = nn.Sequential(*list(network.children())[: parts.index("classes")])
    torch.testing.assert_close(values[BEFORE], before(pixels).flatten(1))
    for place, there in list(values.items())[1:]:
        layer = network.get_submodule(place)
        assert isinstance(layer, nn.Conv2d)
        assert (there >= 0).all()  # a ReLU gave them
        assert there.shape[1] % layer.out_channels == 0
    # one place a ReLU of the last block, in order, whatever lies between convolution and ReLU
    relus = [path for path, _ in about.named_leaves() if path.startswith("classes.relu")]
    assert [place[-1] for place in values if place != BEFORE] == [path[-1] for path in relus]


def test_what_a_last_relu_gives_are_the_maps_whose_average_is_the_score(images):
    values, scores = found(build("nin_28_textbook", seed=0), images.images)
    maps = list(values.values())[-1].unflatten(1, (scores.shape[1], -1))
    torch.testing.assert_close(maps.mean(2), scores)


def test_images_are_scaled_as_in_training(images):
    network = build("nin_28", seed=0)
    normalize = Normalize.of(images.images)
    _, scores = found(network, images.images, normalize)
    torch.testing.assert_close(scores, network(normalize(images.images)))


def test_a_network_without_a_last_block_is_refused(images):
    with pytest.raises(NinlabError, match="classes"):
        found(build("alexnet_28", seed=0), images.images)


# ---------------------------------------------------------------- the reader


def test_a_reader_solves_the_least_squares_problem_with_a_ridge():
    """numpy's solver gets the ridge as rows of its own, and no normal equations."""
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(50, 7, generator=generator)
    labels = torch.randint(0, 3, (50,), generator=generator)
    inputs = np.hstack([values.double().numpy(), np.ones((50, 1))])
    rows = np.vstack([inputs, linear_readout.RIDGE**0.5 * np.eye(8)])
    targets = np.vstack([np.eye(3)[labels.numpy()], np.zeros((8, 3))])
    expected = np.linalg.lstsq(rows, targets, rcond=None)[0]
    np.testing.assert_allclose(fit(values, labels, 3).numpy(), expected, rtol=1e-9, atol=1e-12)


def test_turning_the_values_changes_no_reading(images):
    """A reader sees no axes, only what is linearly there."""
    values = found(build("nin_28", seed=0), images.images).values[BEFORE].double()
    turn, _ = torch.linalg.qr(
        torch.randn(len(values[0]), len(values[0]), generator=torch.Generator().manual_seed(1))
        .double()
    )  # fmt: skip
    for there in (values, values @ turn):
        weights = fit(there, images.labels, 10)
        scores = there @ weights[:-1] + weights[-1]
        if there is values:
            expected = scores
    torch.testing.assert_close(scores, expected, rtol=1e-6, atol=1e-8)


def test_more_values_never_fit_worse(images):
    values = found(build("nin_28", seed=0), images.images).values[BEFORE].double()
    targets = torch.eye(10, dtype=torch.float64)[images.labels]
    errors = []
    for width in (1, 10, 100, values.shape[1]):
        weights = fit(values[:, :width], images.labels, 10)
        residual = values[:, :width] @ weights[:-1] + weights[-1] - targets
        ridge = linear_readout.RIDGE * weights.square().sum()
        errors.append(float(residual.square().sum() + ridge))
    assert errors == sorted(errors, reverse=True)


def test_labels_that_the_values_spell_out_are_read_without_a_fault(images):
    spelled = torch.eye(10)[images.labels]
    weights = fit(spelled, images.labels, 10)
    assert linear_readout.accuracy(weights, spelled, images.labels) == 1
    wrong = (images.labels + 1) % 10
    assert linear_readout.accuracy(weights, spelled, wrong) == 0


# ---------------------------------------------------------------- the benchmark and its file


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A runs folder with a file of two rows and two seeds, trained for a moment."""
    folder = tmp_path_factory.mktemp("runs")
    rows = {
        path: replace(
            row, recipe=replace(row.recipe, epochs=1, train_images=256, standardize=path == ROWS[1])
        )
        for path, row in COMPACT.by_path.items()
    }
    path = folder / PATH
    path.parent.mkdir()
    asked = ["--rows", *ROWS, "--seeds", "2", "--images", "200", "--output", str(path)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(benchmark, "_PLAN", SimpleNamespace(by_path=rows))
        assert benchmark.main(asked) == 0
    return folder


def test_a_file_is_read_as_it_was_made(made):
    file = Readouts.load(made)
    assert Readouts.from_json(json.loads((made / PATH).read_text())) == file
    held = benchmark.seeds_that_held(ROWS, 2)
    assert [(one.row, one.seed) for one in file.rows] == [
        (r, held[r][i]) for i in (0, 1) for r in ROWS
    ]
    assert [one.seed for one in file.of(ROWS[0])] == held[ROWS[0]]
    assert (file.fitted_images, file.test_images) == (200, 10_000)
    plain = file.of(ROWS[0])[0]
    assert [place.values for place in plain.places] == [192, 40, 40]
    assert plain.failed  # two steps teach nothing
    assert "200 training images" in file.source
    assert str(made) not in file.provenance.command
    with pytest.raises(UnknownNameError, match="nin_28"):
        file.of("collapse/nin")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda file: {"rows": [*file["rows"], file["rows"][0]]}, "more than once"),
        (lambda file: {"networks": {"nin_28": "0" * 12}}, "networks must be"),
        (lambda file: {"rows": [file["rows"][0] | {"accuracy": 0.12345}, *file["rows"][1:]]},
         "of 10000 images"),
        (lambda file: {"rows": [file["rows"][0] | {"accuracy": 1.5}, *file["rows"][1:]]},
         "accuracy"),
        (lambda file: {"rows": [file["rows"][0] | {"places": 2 * file["rows"][0]["places"]},
                                *file["rows"][1:]]}, "one place more than once"),
        (lambda file: {"schema_version": 99}, "of version"),
        (lambda file: {"kind": "banana"}, "kind must be"),
        (lambda file: {"surprise": 1}, "surprise"),
    ],
)  # fmt: skip
def test_a_file_that_breaks_a_law_is_refused_with_the_field(made, tmp_path, change, said):
    content = json.loads((made / PATH).read_text())
    write_bytes(tmp_path / PATH, json.dumps(content | change(content)).encode())
    with pytest.raises(RecordError, match=said):
        Readouts.load(tmp_path)


def test_without_a_file_the_error_says_what_makes_it(tmp_path):
    with pytest.raises(RecordError, match=r"benchmarks/readouts\.py"):
        Readouts.load(tmp_path)


def test_the_seeds_are_the_first_of_a_row_whose_recorded_run_held():
    held = benchmark.seeds_that_held(benchmark.ROWS, 3)
    assert [*held] == [*benchmark.ROWS]
    for row, seeds in held.items():
        runs = {run.seed: run for run in load() if f"{run.experiment}/{run.name}" == row}
        assert len(seeds) == 3
        assert [seed for seed in range(seeds[-1] + 1) if not failed(runs[seed])] == seeds
    with pytest.raises(NinlabError, match=rf"{ROWS[0]} has \d+ recorded runs that held, not 1000"):
        benchmark.seeds_that_held([ROWS[0]], 1000)


def test_what_the_benchmark_trains_is_planned():
    assert set(benchmark.ROWS) <= set(COMPACT.by_path)


def test_the_books_file_was_made_by_the_planned_rows_and_agrees_with_their_records():
    file = Readouts.load()
    assert file.provenance.clean_tree
    read = {row: [one.seed for one in file.of(row)] for row in benchmark.ROWS}
    assert read == benchmark.seeds_that_held(benchmark.ROWS, 3)
    assert len(file.rows) == 3 * len(benchmark.ROWS)
    assert file.networks == {one.network: architecture(one.network).digest for one in file.rows}
    recorded = {
        (f"{run.experiment}/{run.name}", run.seed): run
        for run in load()
        if run.device.slug == "cpu"
    }
    for one in file.rows:
        run = recorded[one.row, one.seed]
        assert run.host is not None
        assert (run.host.processor, run.software) == (file.host.processor, file.software)
        assert (one.accuracy, one.failed) == (run.last.test_accuracy, failed(run))
