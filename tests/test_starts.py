"""What an untrained network leaves of its images: the benchmark, and the reader of its file."""

from __future__ import annotations

import json
from dataclasses import replace
from math import inf, isclose
from statistics import fmean

import pytest
import torch

from benchmarks import starts as benchmark
from ninlab.architectures import architecture
from ninlab.data import LabeledImages, fashion_mnist, resize
from ninlab.errors import RecordError, UnknownNameError
from ninlab.networks import build
from ninlab.records import write_bytes
from ninlab.starting import start
from ninlab.starts import PATH, Starts, has_last_relu, signal_left, weighted_layers
from ninlab.steps import Precision
from ninlab.training import evaluate

SMALL = ("nin_28_textbook", "nin_28_textbook_zero_bias", "nin_28_textbook_kaiming", "alexnet_28")


@pytest.fixture(scope="module")
def images():
    return fashion_mnist()[1].images[:128] / 255


@pytest.mark.parametrize("network", SMALL)
def test_a_start_counts_the_dead_classes_that_an_evaluation_counts(network, images):
    tested = fashion_mnist()[1]
    labeled = LabeledImages(tested.images[: len(images)], tested.labels[: len(images)], 10)
    for seed in range(3):
        found = start(network, seed, images)
        module = build(network, seed=seed)
        counted = evaluate(module, labeled, Precision.FP32).dead_classes
        assert counted == (found.dead_classes or 0)
        with torch.inference_mode():
            scores = module.eval()(images).double().numpy()
        over_images = (scores.var(0, ddof=1).mean()) ** 0.5
        assert found.over_images == pytest.approx(over_images, rel=1e-4)
        assert found.between_classes == pytest.approx(scores.mean(0).std(ddof=1), rel=1e-4)
        assert found.predicted_classes == len(set(scores.argmax(1)))


@pytest.mark.parametrize("network", [name for name in SMALL if "textbook_" in name])
def test_without_biases_brighter_images_change_every_spread_alike(network, images):
    """Such a network is positively homogeneous: twice the image makes twice every value."""
    one, two = (start(network, 0, factor * images) for factor in (1, 2))
    assert two.left == pytest.approx(one.left, rel=1e-5)
    assert two.over_images == pytest.approx(2 * one.over_images, rel=1e-5)
    assert (two.dead_classes, two.predicted_classes) == (one.dead_classes, one.predicted_classes)
    assert two.heard == pytest.approx(one.heard, rel=1e-5)


def test_xaviers_start_fades_beside_kaimings_as_the_formula_says(images):
    faded, kept = (
        [start(f"nin_28_textbook_{rule}", seed, images).left for seed in range(10)]
        for rule in ("zero_bias", "kaiming")
    )
    quotients = [
        fmean(ours) / fmean(theirs)
        for ours, theirs in zip(zip(*faded, strict=True), zip(*kept, strict=True), strict=True)
    ]
    # the mean of ten draws of some dozen weights in the narrowest layers
    assert quotients == pytest.approx(signal_left(architecture("nin_28_textbook")), rel=0.15)


def test_the_formula_keeps_all_of_the_mean_square_in_a_linear_layer_of_equal_widths():
    network = architecture("alexnet")
    before, last = signal_left(network)[-2:]
    assert isclose((last / before) ** 2, 2 * 4096 / (4096 + network.num_classes))
    assert not has_last_relu(network)
    assert has_last_relu(architecture("nin"))


# ---------------------------------------------------------------- the file


@pytest.fixture
def made(tmp_path):
    """A file of two small networks and two seeds, as the benchmark leaves it."""
    path = tmp_path / PATH
    path.parent.mkdir()
    asked = ["--seeds", "2", "--images", "8", "--networks", *SMALL[:2], "--output", str(path)]
    assert benchmark.main(asked) == 0
    return tmp_path


def test_a_file_is_read_as_it_was_made(made):
    read = Starts.load(made)
    assert [(row.network, row.seed) for row in read.rows] == [
        (name, seed) for name in SMALL[:2] for seed in range(2)
    ]
    assert read.seeds == 2
    assert Starts.from_json(json.loads((made / PATH).read_text())) == read
    rows = read.of(SMALL[0])
    assert read.left(SMALL[0])[-1] == pytest.approx(fmean(row.left[-1] for row in rows))
    assert read.left_in_scores(SMALL[0])[0] == rows[0].over_images / read.image_spread
    with pytest.raises(UnknownNameError, match="nin_28_textbook"):
        read.of("nin")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda file: {"rows": file["rows"][1:]}, "one start of every seed"),
        (lambda file: {"rows": [file["rows"][0] | {"left": [0.5]}, *file["rows"][1:]]}, "left"),
        (lambda file: {"rows": [file["rows"][0] | {"dead_classes": None}, *file["rows"][1:]]},
         "ends in a ReLU"),
        (lambda file: {"rows": [file["rows"][0] | {"predicted_classes": 11}, *file["rows"][1:]]},
         "more classes"),
        (lambda file: {"rows": [file["rows"][0] | {"over_images": -1.0}, *file["rows"][1:]]},
         "over_images"),
        (lambda file: {"schema_version": 99}, "of version"),
        (lambda file: {"kind": "banana"}, "kind must be"),
        (lambda file: {"surprise": 1}, "surprise"),
    ],
)  # fmt: skip
def test_a_file_that_breaks_a_law_is_refused_with_the_field(made, change, said):
    content = json.loads((made / PATH).read_text())
    write_bytes(made / PATH, json.dumps(content | change(content)).encode())
    with pytest.raises(RecordError, match=said):
        Starts.load(made)


def test_a_file_states_the_command_that_was_typed(made):
    command = Starts.load(made).provenance.command
    assert command.startswith("python -m benchmarks.starts --seeds 2 --images 8 --networks")
    assert str(made) not in command


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--images", "1"], "one image has no spread"),
        (["--networks", "nin", "nin_28"], "of one size"),
    ],
)
def test_what_has_no_spread_or_several_is_refused(words, said, capsys):
    with pytest.raises(SystemExit):
        benchmark.main([*words, "--seeds", "1"])
    assert said in capsys.readouterr().err


def test_scores_that_the_image_alone_tells_apart_hear_it_infinitely_well(images):
    found = start(SMALL[0], 0, images)
    assert replace(found, between_classes=0.0).heard == inf
    assert replace(found, between_classes=0.0, over_images=0.0).heard == 0
    assert replace(found, over_images=0.0).heard == 0


def test_without_a_file_the_error_says_what_makes_it(tmp_path):
    with pytest.raises(RecordError, match=r"benchmarks/starts\.py"):
        Starts.load(tmp_path)


def test_the_recorded_starts_are_of_the_networks_as_they_are_and_from_a_clean_commit():
    recorded = Starts.load()
    assert recorded.provenance.clean_tree
    assert recorded.networks == {name: architecture(name).digest for name in benchmark.NETWORKS}
    assert all(
        len(row.left) == len(weighted_layers(architecture(row.network))) for row in recorded.rows
    )


def test_a_recorded_start_can_be_measured_again():
    recorded = Starts.load()
    first = recorded.of("nin")[0]
    images = resize(fashion_mnist()[1].images[: recorded.images], 224) / 255
    again = start("nin", first.seed, images)
    # the last digits of a float32 sum depend on the machine; what is left is a hundredth of a
    # percent of the values, so that they are the fourth digit of it
    assert again.left == pytest.approx(first.left, rel=0.02)
    assert again.dead_classes == first.dead_classes
