"""One run: it repeats itself, steps as torch's plain loop does, and says how it ended."""

import hashlib
import math
import statistics
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from ninlab import data, fused, records, training
from ninlab.architectures import ARCHITECTURES, architecture
from ninlab.comparisons import sampling_error
from ninlab.data import LabeledImages
from ninlab.errors import DataError, KernelsError, NinlabError, RecordError, UnknownNetworkError
from ninlab.liveness import timeline
from ninlab.lost_classes import accuracy_roof, loss_floor
from ninlab.networks import build
from ninlab.recipes import Augmentation, EvaluationSet, Recipe, Schedule
from ninlab.records import Outcome
from ninlab.reports import Category
from ninlab.resources import joined, load
from ninlab.steps import Kernels, Optimizer, Precision
from ninlab.training import Engine, Normalize, _alike, evaluate, train
from tests.records import A_RECORD, H100, NOBODY, possible

SMALL = Recipe(0.05, 2, batch_size=32)


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # two threads on a shared machine wait for each other
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def split() -> tuple[LabeledImages, LabeledImages]:
    train_images, test_images = data.fashion_mnist()
    return train_images.take(slice(400)), test_images.take(slice(200))


def noise(count: int = 64, size: int = 8, classes: int = 10) -> LabeledImages:
    generator = torch.Generator().manual_seed(count)
    images = torch.randint(0, 256, (count, 1, size, size), dtype=torch.uint8, generator=generator)
    labels = torch.arange(count) % classes
    return LabeledImages(images, labels, classes)


def numbered(labels: torch.Tensor, classes: int = 10) -> LabeledImages:
    """Images of one pixel, which holds their number."""
    count = len(labels)
    return LabeledImages(
        torch.arange(count, dtype=torch.uint8).view(count, 1, 1, 1), labels, classes
    )


# ---------------------------------------------------------------- a run


def test_the_same_seed_gives_the_same_losses_and_weights(split):
    first, second = (train("nin_28", SMALL, seed=3, split=split) for _ in range(2))
    assert first.losses == second.losses
    assert [e.test_loss for e in first.epochs] == [e.test_loss for e in second.epochs]
    for a, b in zip(first.network.parameters(), second.network.parameters(), strict=True):
        assert torch.equal(a, b)


def test_another_seed_gives_other_losses(split):
    assert (
        train("nin_28", SMALL, seed=0, split=split).losses
        != train("nin_28", SMALL, seed=1, split=split).losses
    )


def test_a_run_leaves_torchs_settings_as_they_were(split):
    before = (torch.backends.cuda.matmul.fp32_precision, torch.backends.cudnn.benchmark)
    train("nin_28", replace(SMALL, precision=Precision.TF32), seed=0, split=split)
    after = (torch.backends.cuda.matmul.fp32_precision, torch.backends.cudnn.benchmark)
    assert after == before


def test_a_run_reports_every_step_and_its_last_epoch(split):
    seen: list[int] = []
    run = train("nin_28", SMALL, seed=0, split=split, on_step=seen.append)
    steps = 2 * (400 // 32)  # the ragged last batch of each epoch is dropped
    assert seen == list(range(1, steps + 1))
    assert len(run.losses) == steps
    record = run.record(experiment="tests", name="nin_28", provenance=NOBODY)
    for number, epoch in enumerate(run.epochs):
        losses = run.losses[number * steps // 2 : (number + 1) * steps // 2]
        assert epoch.train_loss == pytest.approx(statistics.fmean(losses), rel=1e-5)  # six digits
    images_an_epoch = 32 * steps // 2
    seconds = [epoch.seconds for epoch in run.epochs]
    assert run.images_per_second == pytest.approx(images_an_epoch / statistics.median(seconds))
    assert run.wall_seconds >= sum(seconds) + sum(e.evaluation_seconds for e in run.epochs)
    assert (record.seed, record.execution) == (0, "eager")
    assert record.last.epoch == 2
    assert record.last.test_accuracy == run.confusion.trace() / 200
    assert record.parameters == 39030
    assert records.RunRecord.from_json(record.to_json()) == record


def test_kernels_are_tried_out_for_training_steps_only(split, monkeypatch):
    chosen_by_trial = {"step": set(), "evaluation": set()}
    real_step, real_evaluate = training.Engine._train_step, training.evaluate

    def step(engine):
        chosen_by_trial["step"].add(torch.backends.cudnn.benchmark)
        real_step(engine)

    def evaluation(*arguments):
        chosen_by_trial["evaluation"].add(torch.backends.cudnn.benchmark)
        return real_evaluate(*arguments)

    monkeypatch.setattr(training.Engine, "_train_step", step)
    monkeypatch.setattr(training, "evaluate", evaluation)
    training.train("nin_28", Recipe(0.05, 1, batch_size=64), seed=0, split=split)
    assert chosen_by_trial == {"step": {True}, "evaluation": {False}}


def test_bf16_arithmetic_stays_near_fp32(split):
    runs = [
        train("nin_28", replace(SMALL, precision=precision), seed=0, split=split)
        for precision in (Precision.FP32, Precision.BF16)
    ]
    # bfloat16 keeps 8 bits: the first loss agrees to a few times 2**-8
    assert runs[1].losses[0] == pytest.approx(runs[0].losses[0], rel=4 * 2**-8)
    assert runs[1].losses != runs[0].losses
    assert all(p.dtype == torch.float32 for p in runs[1].network.parameters())


def test_learning_beats_guessing_on_real_images():
    recipe = Recipe(
        0.003, 1, batch_size=32, optimizer="adam", schedule="one_cycle", train_images=8000
    )
    split = (training.choose_split(recipe)[0], data.fashion_mnist()[1].take(slice(1000)))
    run = train("nin_28", recipe, seed=0, split=split)
    assert run.outcome is Outcome.FINISHED
    assert run.epochs[-1].test_accuracy > 0.5  # guessing gives 0.1; 250 steps gave 0.66


# ---------------------------------------------------------------- one step


@pytest.mark.parametrize(
    "recipe",
    [
        Recipe(0.1, 2, batch_size=16),
        Recipe(0.1, 2, batch_size=16, momentum=0.9, nesterov=True, weight_decay=1e-3),
        Recipe(
            0.01,
            2,
            batch_size=16,
            optimizer=Optimizer.ADAM,
            weight_decay=1e-2,
            schedule=Schedule.ONE_CYCLE,
        ),
        Recipe(0.01, 2, batch_size=16, optimizer=Optimizer.ADAMW, weight_decay=1e-2),
        Recipe(0.001, 2, batch_size=16, optimizer=Optimizer.RMSPROP),
    ],
    ids=["sgd", "nesterov", "adam, one cycle", "adamw", "rmsprop"],
)
def test_epochs_take_the_steps_of_torchs_plain_loop(recipe):
    images = noise(80)

    def network() -> nn.Sequential:
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))

    ours, plain = network(), network()
    engine = Engine(ours, images, recipe, seed=5)
    classes = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "rmsprop": torch.optim.RMSprop}
    if recipe.optimizer in classes:
        optimizer = classes[recipe.optimizer](
            plain.parameters(), lr=1.0, weight_decay=recipe.weight_decay, foreach=False
        )
    else:
        optimizer = torch.optim.SGD(
            plain.parameters(), lr=1.0, momentum=recipe.momentum, nesterov=recipe.nesterov,
            weight_decay=recipe.weight_decay, foreach=False,
        )  # fmt: skip
    shuffle = torch.Generator().manual_seed(5)
    for epoch in range(2):
        losses, accuracy = engine.epoch()
        right = 0
        for step, batch in enumerate(torch.randperm(80, generator=shuffle).view(5, 16)):
            optimizer.param_groups[0]["lr"] = recipe.learning_rate_at(5 * epoch + step, 10)
            scores = plain(images.images[batch] / 255)
            right += int((scores.argmax(1) == images.labels[batch]).sum())
            loss = F.cross_entropy(scores, images.labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            # float32 rounds a fused step differently from a plain one
            assert losses[step] == pytest.approx(loss.item(), rel=1e-5)
        assert accuracy == right / 80
    for a, b in zip(ours.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


class Onlooker(nn.Module):
    """Learns nothing and keeps every image that it is shown."""

    def __init__(self) -> None:
        super().__init__()
        self.scores = nn.Parameter(torch.zeros(10))
        self.seen: list[torch.Tensor] = []

    def forward(self, images):
        self.seen += list(images)
        return self.scores.expand(len(images), 10)


def test_every_image_is_seen_once_an_epoch_in_a_new_order():
    onlooker = Onlooker()
    images = numbered(torch.zeros(48, dtype=torch.int64))
    engine = Engine(onlooker, images, Recipe(0.1, 2, batch_size=8), seed=0)
    engine.epoch()
    engine.epoch()
    order = [round(image.item() * 255) for image in onlooker.seen]
    first, second = order[:48], order[48:]
    assert sorted(first) == sorted(second) == list(range(48))
    assert first != second


def test_every_epoch_trains_although_evaluation_turns_training_off():
    onlooker, images = Onlooker(), numbered(torch.zeros(8, dtype=torch.int64))
    engine = Engine(onlooker, images, Recipe(0.1, 2, batch_size=8), seed=0)
    for _ in range(2):
        engine.epoch()
        assert onlooker.training
        evaluate(onlooker, images)
        assert not onlooker.training


def test_mirroring_shows_images_as_they_are_or_mirrored_and_both():
    picture = torch.arange(4, dtype=torch.uint8).view(1, 1, 2, 2)
    images = LabeledImages(picture.expand(64, 1, 2, 2), torch.zeros(64, dtype=torch.int64))
    recipe = Recipe(0.1, 1, batch_size=64, augmentation=Augmentation.FLIP)
    onlooker = Onlooker()
    Engine(onlooker, images, recipe, seed=0).epoch()
    plain = picture[0] / 255
    mirrored = sum(torch.equal(image, plain.flip(-1)) for image in onlooker.seen)
    as_is = sum(torch.equal(image, plain) for image in onlooker.seen)
    assert mirrored + as_is == 64
    assert min(mirrored, as_is) > 0


@given(st.integers(0, 2**32 - 1), st.integers(1, 256))
def test_standardized_pixels_have_mean_0_and_variance_1(seed, span):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, span, (4, 1, 6, 6), dtype=torch.uint8, generator=generator)
    pixels = Normalize.of(images)(images).double()
    assert pixels.mean().item() == pytest.approx(0, abs=1e-4)  # float32 over 144 pixels
    spread = pixels.square().mean().item()
    assert spread == pytest.approx(1 if images.unique().numel() > 1 else 0, abs=1e-3)


# ---------------------------------------------------------------- fused kernels

FUSED = replace(SMALL, kernels=Kernels.FUSED)


def stepped(kernels: Kernels, recipe: Recipe = SMALL) -> tuple[Engine, list[float]]:
    """(an engine that has taken an epoch of 30 steps, their losses), by plain torch on the CPU."""
    module = build("nin_28", seed=0).to(memory_format=torch.channels_last)
    images = data.fashion_mnist()[0].take(slice(30 * recipe.batch_size))
    engine = Engine(module, images, recipe, seed=0, kernels=kernels)
    return engine, engine.epoch()[0]


@pytest.mark.parametrize("kernels", [Kernels.FUSED, Kernels.CHAINED])
def test_fused_steps_are_torchs_but_for_the_order_of_sums(kernels, split):
    # a small rate: a large one carries the last digits of a step's sums to the first of a loss
    recipe = Recipe(0.01, 1, batch_size=16, momentum=0.9, augmentation="flip", standardize=True)
    (plain, losses), (engine, found) = (stepped(one, recipe) for one in (Kernels.TORCH, kernels))
    assert type(engine.stepping) is type(plain.stepping)
    assert engine.stepping is not engine.network
    assert plain.stepping is plain.network
    assert found == pytest.approx(losses, rel=1e-5)
    results = [evaluate(one.stepping, split[1], normalize=one.normalize) for one in (plain, engine)]
    assert results[1].loss == pytest.approx(results[0].loss, rel=1e-5)
    # the parameters are the plain network's, which anybody can go on with
    again = evaluate(engine.network, split[1], normalize=plain.normalize)
    assert again.loss == pytest.approx(results[1].loss, rel=1e-5)


class FirstOfRow(Onlooker):
    """Keeps every image and hands it on."""

    def forward(self, images):
        self.seen += list(images)
        return images


def a_row() -> nn.Sequential:
    """A classifier of two layers that can be joined, behind an onlooker."""
    return nn.Sequential(
        FirstOfRow(), nn.Conv2d(1, 10, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )


@pytest.mark.parametrize("precision", Precision)
def test_fused_steps_and_their_evaluation_read_the_images_of_torchs(precision):
    images = noise(80)
    seen: dict[Kernels, list[torch.Tensor]] = {}
    for kernels in (Kernels.TORCH, Kernels.FUSED):
        row = a_row()
        recipe = Recipe(
            0.1, 1, batch_size=16, precision=precision, standardize=True, augmentation="flip"
        )
        engine = Engine(row, images, recipe, seed=0, kernels=kernels)
        engine.epoch()
        evaluate(engine.stepping, images, precision, engine.normalize)
        seen[kernels] = row[0].seen
    kind = torch.bfloat16 if precision is Precision.BF16 else torch.float32
    assert len(seen[Kernels.FUSED]) == 160
    for picked, read in zip(seen[Kernels.FUSED], seen[Kernels.TORCH], strict=True):
        assert picked.dtype == kind
        assert torch.equal(picked, read.to(kind))


@pytest.mark.parametrize("kernels", Kernels)
@pytest.mark.parametrize("precision", [Precision.FP32, Precision.BF16])
@pytest.mark.parametrize("name", ["nin_28", "lenet"])  # in the second nothing is joined
def test_an_engine_reads_images_in_the_type_of_the_step_that_is_counted(name, precision, kernels):
    images, recipe = noise(16, 28), Recipe(0.1, 1, batch_size=16, precision=precision)
    engine = Engine(build(name, seed=0), images, recipe, seed=0, kernels=kernels)
    read = engine.normalize(images.images, torch.arange(16))
    traced = joined(load(name), kernels).images(16, autocast=precision.autocasts)
    assert (traced.dtype, traced.shape) == (read.dtype, read.shape)
    (on_paper,) = (
        event.bytes(16)
        for event in timeline(
            architecture(name), precision=precision, kernels=kernels, training=False
        )
        if event.category is Category.INPUT
    )
    assert on_paper == read.nbytes


def test_a_run_by_kernels_that_cannot_run_is_refused_before_anything_is_built(split, monkeypatch):
    monkeypatch.setattr(training, "build", lambda *_, **__: pytest.fail("work began"))
    with pytest.raises(NinlabError, match="need a CUDA device"):
        train("nin_28", FUSED, seed=0, split=split)


@pytest.mark.parametrize("kernels", Kernels)
def test_a_run_says_whose_kernels_its_step_is_of_or_is_refused(kernels, monkeypatch):
    """Its step is torch's where nothing is joined, and a fused one where nothing is chained."""
    monkeypatch.setattr(fused, "why_not", lambda device: None)
    less = {Kernels.FUSED: Kernels.TORCH, Kernels.CHAINED: Kernels.FUSED}.get(kernels)
    refused = {}
    for name, network in ARCHITECTURES.items():
        module = build(network, device="meta")
        step = [*map(type, fused.fuse(module, kernels).modules())]
        try:
            training.check_kernels(network, kernels, "cpu")
        except KernelsError as error:
            refused[name] = str(error)
        is_of_less = less is not None and step == [*map(type, fused.fuse(module, less).modules())]
        assert (name in refused) == is_of_less
    for name, said in refused.items():
        assert said.startswith(f"{name} has no layers that {kernels} kernels compute together")
    assert ("nin" in refused, "lenet" in refused) == (False, kernels is not Kernels.TORCH)
    assert ("vgg11" in refused) == (kernels is Kernels.CHAINED)
    if kernels is not Kernels.TORCH:
        with pytest.raises(KernelsError, match="take torch kernels"):
            train("lenet", replace(SMALL, kernels=Kernels.FUSED), seed=0)


# ---------------------------------------------------------------- evaluation


class Scores(nn.Module):
    """Answers each image with the scores that its first pixel numbers."""

    def __init__(self, scores: torch.Tensor) -> None:
        super().__init__()
        self.scores = scores

    def forward(self, images):
        return self.scores[(images[:, 0, 0, 0] * 255).round().long()]


@given(st.integers(0, 2**32 - 1))
def test_evaluation_equals_its_definitions(seed):
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(50, 10, generator=generator)
    labels = torch.randint(0, 10, (50,), generator=generator)
    result = evaluate(Scores(scores), numbered(labels))
    assert result.accuracy == (scores.argmax(1) == labels).double().mean()
    assert result.loss == pytest.approx(F.cross_entropy(scores, labels).item(), rel=1e-5)
    assert result.dead_classes == 0
    for label in range(10):
        for guess in range(10):
            pairs = (labels == label) & (scores.argmax(1) == guess)
            assert result.confusion[label, guess] == pairs.sum()


@given(st.integers(0, 2**32 - 1), st.sets(st.integers(0, 9), max_size=9), st.floats(0, 50))
def test_dead_classes_set_a_floor_under_the_loss_and_a_roof_over_accuracy(seed, dead, certainty):
    # The last ReLU leaves no score below 0; a dead class scores 0 on every image, a live one
    # more than 0 on these (where all ten score 0, class 0 would be guessed).
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(100) % 10
    scores = F.one_hot(labels, 10) * certainty + torch.rand(100, 10, generator=generator) + 0.1
    scores[:, sorted(dead)] = 0
    result = evaluate(Scores(scores), numbered(labels))
    assert result.dead_classes == len(dead)
    assert result.loss >= loss_floor(len(dead), 10)
    assert result.accuracy <= accuracy_roof(len(dead), 10)


@given(st.integers(2, 20).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_a_network_that_is_sure_of_its_live_classes_reaches_floor_and_roof(counts):
    dead, classes = counts
    labels = torch.arange(5 * classes) % classes
    scores = 100.0 * F.one_hot(labels, classes)
    scores[:, classes - dead :] = 0
    result = evaluate(Scores(scores), numbered(labels, classes))
    assert result.dead_classes == dead
    # float32 knows a logarithm to 7 digits
    assert result.loss == pytest.approx(loss_floor(dead, classes), rel=1e-6, abs=1e-9)
    assert result.accuracy == pytest.approx(accuracy_roof(dead, classes))


# ---------------------------------------------------------------- outcomes


@given(st.lists(st.floats(0, 100), min_size=1), st.integers(2, 100))
def test_a_run_is_stuck_exactly_when_it_is_no_better_than_a_guess(losses, classes):
    stuck = sum(losses) / len(losses) >= 0.99 * math.log(classes)
    expected = Outcome.STUCK if stuck else Outcome.FINISHED
    assert training.outcome(losses, classes) is expected


@given(st.lists(st.floats(0, 1), min_size=1), st.sampled_from([math.nan, math.inf]), st.data())
def test_one_loss_that_is_not_finite_makes_a_run_diverged(losses, bad, draw):
    losses.insert(draw.draw(st.integers(0, len(losses))), bad)
    assert training.outcome(losses, 10) is Outcome.DIVERGED


@pytest.mark.parametrize(
    ("rate", "outcomes"),
    [
        (0.0, {Outcome.STUCK}),
        # ReLUs may all die at the first step, which leaves ln 10, before the loss overflows
        (1e6, {Outcome.DIVERGED, Outcome.STUCK}),
        (1e38, {Outcome.DIVERGED}),
    ],
)
def test_a_senseless_rate_ends_in_a_record_that_says_so(split, tmp_path, rate, outcomes):
    run = train("nin_28", Recipe(rate, 3, batch_size=100), seed=0, split=split)
    record = run.record(experiment="tests", name="senseless", provenance=NOBODY)
    records.write(tmp_path, record)
    assert records.load(tmp_path)[0].outcome in outcomes
    if record.outcome is Outcome.DIVERGED:
        assert len(record.epochs) < 3
        assert record.last.train_loss is None


def test_a_rate_of_zero_changes_no_weight(split):
    run = train("nin_28", Recipe(0.0, 1, batch_size=100), seed=0, split=split)
    for a, b in zip(run.network.parameters(), build("nin_28", seed=0).parameters(), strict=True):
        assert torch.equal(a, b)


# ---------------------------------------------------------------- images and networks


def test_a_batch_larger_than_the_training_set_is_an_error(split):
    with pytest.raises(DataError, match="batch of 500 is more than the 400"):
        train("nin_28", Recipe(0.1, 1, batch_size=500), seed=0, split=split)


@pytest.mark.parametrize("name", ["nin_cifar10", "nin_imagenet"])
def test_a_network_for_other_images_is_refused(split, name):
    with pytest.raises(DataError, match=f"{name} reads 3x"):
        train(name, SMALL, seed=0, split=split)


def test_an_unknown_network_is_refused():
    with pytest.raises(UnknownNetworkError, match="did you mean 'nin_28'"):
        train("nin_27", SMALL, seed=0)


def test_images_are_resized_to_the_networks_input(split):
    small = replace(architecture("nin_28"), input_shape=(1, 20, 20))
    tiny = tuple(part.take(slice(64)) for part in split)
    run = train(small, Recipe(0.1, 1, batch_size=32), seed=0, split=tiny)
    assert run.architecture.input_shape == (1, 20, 20)
    resized = LabeledImages(data.resize(tiny[1].images, 20), tiny[1].labels)
    assert evaluate(run.network, resized).loss == pytest.approx(run.epochs[-1].test_loss, rel=1e-5)
    assert evaluate(run.network, tiny[1]).loss != pytest.approx(run.epochs[-1].test_loss, rel=1e-5)


def test_held_out_images_are_the_first_of_the_training_split_shuffled_by_seed_0():
    kept, held = training.choose_split(replace(SMALL, evaluation_set=EvaluationSet.HELD_OUT))
    whole = data.fashion_mnist()[0]
    order = torch.randperm(60000, generator=torch.Generator().manual_seed(0))
    # Every recorded sweep was judged on these images: others would not be comparable to it.
    assert torch.equal(held.images, whole.images[order[:5000]])
    assert torch.equal(torch.cat([held.labels, kept.labels]), whole.labels[order])


def test_more_training_images_than_there_are_is_an_error():
    with pytest.raises(NinlabError, match="training images is 60001, but must be from 1 to 60000"):
        replace(SMALL, train_images=60001)


# ---------------------------------------------------------------- weights


def test_kept_weights_give_the_recorded_accuracy_again(split, tmp_path):
    run = train("nin_28", SMALL, seed=0, split=split)
    content = training.weights_bytes(run.network)
    record = run.record(
        experiment="tests",
        name="nin_28",
        provenance=NOBODY,
        weights_sha256=hashlib.sha256(content).hexdigest(),
    )
    records.write_bytes(records.weights_path(tmp_path, record.id), content)
    network = training.load_network(record, tmp_path)
    assert evaluate(network, split[1]).accuracy == record.last.test_accuracy
    records.write_bytes(records.weights_path(tmp_path, record.id), content[:-1] + b"\0")
    with pytest.raises(RecordError, match="does not hold the weights"):
        training.load_network(record, tmp_path)
    with pytest.raises(RecordError, match="no weights were kept"):
        training.load_network(replace(record, weights_sha256=None), tmp_path)


def test_weights_that_fused_kernels_trained_are_those_of_torchs_network(tmp_path):
    engine, _ = stepped(Kernels.FUSED)
    content = training.weights_bytes(engine.network)
    assert content == training.weights_bytes(engine.stepping)
    record = possible(
        replace(
            A_RECORD,
            device=H100,
            recipe=replace(FUSED, epochs=1),
            network_digest=architecture("nin_28").digest,
            weights_sha256=hashlib.sha256(content).hexdigest(),
        )
    )
    records.write_bytes(records.weights_path(tmp_path, record.id), content)
    loaded = training.load_network(record, tmp_path)
    assert repr(loaded) == repr(build("nin_28", seed=0))
    for name, tensor in engine.network.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor)


@pytest.mark.slow
def test_the_books_kept_weights_give_their_recorded_accuracy():
    images = data.fashion_mnist()[1]
    kept = [run for run in records.load() if run.weights_sha256]
    assert {run.network for run in kept} >= {"nin_28", "nin_28_textbook", "nin_28_linear_head"}
    for run in kept:
        side = run.input_shape[-1]
        # another processor sums in another order, which may turn a close call: 5 images of 10,000
        seen, close = images, 5e-4
        if side != images.images.shape[-1]:  # a full-size network would take minutes for all
            seen = images.take(slice(200)).resized(side)
            close = 4 * sampling_error(run.last.test_accuracy, len(seen))
        result = evaluate(training.load_network(run), seen)
        assert result.accuracy == pytest.approx(run.last.test_accuracy, abs=close)
        assert result.dead_classes == run.last.dead_classes


# ---------------------------------------------------------------- whether a graph may be used


def moved(images: slice, rate: float = SMALL.learning_rate, steps: int = 1) -> list[torch.Tensor]:
    """How far some steps on those images move the parameters of one small network."""
    training = data.fashion_mnist()[0].take(images)
    module = build("lenet", seed=0)
    before = [parameter.detach().clone() for parameter in module.parameters()]
    engine = Engine(module, training, replace(SMALL, learning_rate=rate, epochs=steps), seed=0)
    for _ in range(steps):
        engine.epoch()
    return [p.detach() - b for p, b in zip(module.parameters(), before, strict=True)]


def test_a_step_is_like_itself_and_unlike_one_on_other_images_at_another_rate_or_twice():
    step = moved(slice(32))
    assert _alike(step, moved(slice(32)))
    rounding = [each * (1 + 2**-8 * torch.randn_like(each)) for each in step]
    assert _alike(step, rounding)
    for other in (
        moved(slice(32, 64)),
        moved(slice(32), rate=2 * SMALL.learning_rate),
        moved(slice(32), steps=2),
        [torch.zeros_like(each) for each in step],
    ):
        assert not _alike(step, other)
