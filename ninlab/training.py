"""How does one run go? A network, a recipe, images and a seed in; curves and an outcome out.

The whole data set lies on the device as uint8; a step picks its images by index, so that
nothing is copied from the host and nothing waits for the device before an epoch ends. On a
GPU the step is captured into one CUDA graph, and used only if one replay does what one eager
step does. The same code runs eagerly on the CPU, where the same seed gives the same losses on one
machine with one torch, and others elsewhere (`ninlab.machine` says why).

Where the recipe asks for fused kernels, the network that steps is another module with the same
parameters, and images are picked and scaled by one operator. `train`, which makes records, refuses
that where the kernels cannot run; `Engine` steps anywhere, on a CPU by their plain twins.

Known limits: the ragged last batch of an epoch is dropped (60,000 images at batch 128 are 468
steps); on a GPU runs are seeded, not bit-reproducible.
"""

from __future__ import annotations

import gc
import hashlib
import math
import statistics
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ninlab import data, data_files, fused, optimizers, records
from ninlab.architectures import Architecture, architecture
from ninlab.data import LabeledImages
from ninlab.environment import arithmetic, describe_device, describe_software
from ninlab.errors import DataError, KernelsError, NinlabError, RecordError, quoted
from ninlab.machine import Watch
from ninlab.networks import build
from ninlab.recipes import HELD_OUT_IMAGES, MOST_SEED, Augmentation, EvaluationSet, Recipe
from ninlab.records import STUCK_LOSS, DataSet, EpochResult, Host, LossCurve, Outcome, RunRecord
from ninlab.steps import Kernels, Precision
from ninlab.torch_private import clear_cublas_workspaces

_EVALUATION_BATCH = 500
_HISTOGRAM_BATCH = 1000  # images; the whole set at 224x224 has more than 2**31 pixels
_WARM_UP_STEPS = 3
_TRIAL_STEPS = 2

StepCallback = Callable[[int], None]
"""Called with the number of steps taken so far; must not read from the device."""


class PeakBytes(NamedTuple):
    """The most that CUDA's caching allocator had given out, the resident images included."""

    requested: int
    allocated: int
    reserved: int


@dataclass(frozen=True)
class TrainingRun:
    """What one run gave: the trained network and all that its record says of it."""

    network: nn.Module
    architecture: Architecture
    recipe: Recipe
    seed: int
    device: torch.device
    train_images: int
    evaluation_images: int
    execution: str
    outcome: Outcome
    losses: tuple[float, ...]  # one a step
    epochs: tuple[EpochResult, ...]
    confusion: Tensor  # (classes, classes) int64: [label][prediction] after the last epoch
    images_per_second: float
    wall_seconds: float
    peak_bytes: PeakBytes | None  # of one training step; None on the CPU
    host: Host

    def record(
        self,
        *,
        experiment: str,
        name: str,
        provenance: records.Provenance,
        learning_rate_from: tuple[str, ...] = (),
        weights_sha256: str | None = None,
        corrects: str | None = None,
    ) -> RunRecord:
        """The run as a record, still to be written."""
        requested, allocated, reserved = self.peak_bytes or (None,) * 3
        return RunRecord(
            experiment=experiment,
            name=name,
            seed=self.seed,
            provenance=provenance,
            network=self.architecture.name,
            network_digest=self.architecture.digest,
            input_shape=self.architecture.input_shape,
            parameters=sum(p.numel() for p in self.network.parameters()),
            data_set=DataSet(
                name="fashion-mnist",
                sha256={file: published.sha256 for file, published in data_files.FILES.items()},
                train_images=self.train_images,
                evaluation_images=self.evaluation_images,
            ),
            recipe=self.recipe,
            device=describe_device(self.device),
            software=describe_software(),
            execution=self.execution,
            outcome=self.outcome,
            loss=LossCurve.thinned(self.losses),
            epochs=self.epochs,
            confusion=tuple(tuple(row) for row in self.confusion.tolist()),
            images_per_second=self.images_per_second,
            wall_seconds=self.wall_seconds,
            peak_requested_bytes=requested,
            peak_allocated_bytes=allocated,
            peak_reserved_bytes=reserved,
            learning_rate_from=learning_rate_from,
            weights_sha256=weights_sha256,
            corrects=corrects,
            host=self.host,
        )


@dataclass(frozen=True)
class Evaluation:
    """How a network does on a set of images."""

    accuracy: float
    loss: float  # mean cross-entropy
    dead_classes: int  # classes whose score is exactly 0 on every image
    confusion: Tensor  # (classes, classes) int64 on the CPU: [label][prediction]


def train(
    network: Architecture | str,
    recipe: Recipe,
    *,
    seed: int,
    device: torch.device | str = "cpu",
    split: tuple[LabeledImages, LabeledImages] | None = None,
    use_graph: bool = True,
    on_step: StepCallback | None = None,
) -> TrainingRun:
    """One whole run of the recipe on Fashion-MNIST, resized to the network's input.

    split gives (training, evaluation) images in place of the ones that the recipe names. Without
    use_graph a GPU takes its steps one kernel at a time, as a CPU does.
    The seed decides initialization, order, dropout and augmentation. A run whose loss stops
    being finite ends after that epoch with the outcome diverged.
    Raises DataError when images and network do not fit, or when one batch is more than all images,
    NinlabError for a seed below 0 or above `recipes.MOST_SEED`, and KernelsError where the recipe's
    kernels cannot run or would join no layers.
    """
    if not 0 <= seed <= MOST_SEED:
        raise NinlabError(f"the seed is {quoted(seed)}, but must be from 0 to {MOST_SEED}")
    started, watch = time.perf_counter(), Watch()
    device = torch.device(device)
    if isinstance(network, str):
        network = architecture(network)
    check_kernels(network, recipe.kernels, device)
    training, evaluation = split or choose_split(recipe)
    if device.type == "cuda":
        with torch.cuda.device(device):
            _release_cached()  # so that a run's peaks do not depend on the runs before it
    training, evaluation = (_fitted(part.to(device), network) for part in (training, evaluation))
    module = build(network, seed=seed).to(device).to(memory_format=torch.channels_last)
    with arithmetic(recipe.precision, benchmark=True):
        engine = Engine(module, training, recipe, seed=seed, use_graph=use_graph)
        epochs: list[EpochResult] = []
        losses: list[float] = []
        confusion = torch.zeros(0)
        for epoch in range(1, recipe.epochs + 1):
            start = time.perf_counter()
            epoch_losses, train_accuracy = engine.epoch(on_step)
            trained = time.perf_counter()
            with arithmetic(recipe.precision, benchmark=False):  # too few batches to pay for trials
                result = evaluate(engine.stepping, evaluation, recipe.precision, engine.normalize)
            confusion = result.confusion
            losses += epoch_losses
            epochs.append(
                EpochResult(
                    epoch=epoch,
                    train_accuracy=train_accuracy,
                    train_loss=records.finite(statistics.fmean(epoch_losses)),
                    test_accuracy=result.accuracy,
                    test_loss=records.finite(result.loss),
                    dead_classes=result.dead_classes,
                    seconds=trained - start,
                    evaluation_seconds=time.perf_counter() - trained,
                )
            )
            if not all(map(math.isfinite, epoch_losses)):
                break
    images_an_epoch = engine.steps_an_epoch * recipe.batch_size
    return TrainingRun(
        network=module,
        architecture=network,
        recipe=recipe,
        seed=seed,
        device=device,
        train_images=len(training),
        evaluation_images=len(evaluation),
        execution="eager" if engine.graph is None else "cuda_graph",
        outcome=outcome(losses[-engine.steps_an_epoch :], network.num_classes),
        losses=tuple(losses),
        epochs=tuple(epochs),
        confusion=confusion,
        images_per_second=images_an_epoch / statistics.median(e.seconds for e in epochs),
        wall_seconds=time.perf_counter() - started,
        peak_bytes=engine.peak_bytes,
        host=watch.host(),
    )


def check_kernels(network: Architecture, kernels: Kernels, device: torch.device | str) -> None:
    """Raises KernelsError where a step of the network by the kernels would be none, and says why.

    They may be unable to run on the device, or have nothing to join in the network. There the step
    would be that of other kernels, and a record of it would say otherwise.
    """
    if kernels is Kernels.TORCH:
        return
    if (reason := fused.why_not(device)) is not None:
        raise KernelsError(reason)
    if not fused.joins(build(network, device="meta"), kernels):
        raise KernelsError(
            f"{network.name} has no layers that {kernels} kernels compute together; take "
            f"{Kernels.TORCH} kernels"
        )


def outcome(last_epoch_losses: list[float], num_classes: int) -> Outcome:
    """How a run ended, by the training losses of its last epoch, one a step."""
    if not all(map(math.isfinite, last_epoch_losses)):
        return Outcome.DIVERGED
    if statistics.fmean(last_epoch_losses) >= STUCK_LOSS * math.log(num_classes):
        return Outcome.STUCK
    return Outcome.FINISHED


def choose_split(recipe: Recipe) -> tuple[LabeledImages, LabeledImages]:
    """(training, evaluation) images of Fashion-MNIST as the recipe asks for them, on the CPU."""
    training, evaluation = data.fashion_mnist()
    if recipe.evaluation_set is EvaluationSet.HELD_OUT:
        training, evaluation = data.held_out(training, HELD_OUT_IMAGES)
    if recipe.train_images is not None:
        training = training.take(slice(recipe.train_images))
    return training, evaluation


# ---------------------------------------------------------------- the loop


class Engine:
    """Trains one network epoch by epoch, on the device that holds network and images.

    graph is the captured step, None where steps run eagerly. peak_bytes are those of one
    eager step on a GPU, taken before training: evaluation, which takes larger batches, and
    the trials by which cuDNN chooses its kernels are not in them. normalize turns uint8
    images into what the network reads, for evaluation too. stepping is what computes, for
    evaluation too: the network, or with fused kernels another module of the same parameters.
    kernels, for who measures, may be others than the recipe's. What cannot train a record may
    step: on a CPU, plain torch stands in for fused kernels.
    """

    def __init__(
        self,
        network: nn.Module,
        training: LabeledImages,
        recipe: Recipe,
        *,
        seed: int,
        use_graph: bool = True,
        kernels: Kernels | None = None,
    ) -> None:
        if len(training) < recipe.batch_size:
            raise DataError(
                f"a batch of {recipe.batch_size} is more than the {len(training)} training images; "
                f"take a batch size of at most {len(training)}"
            )
        kernels = recipe.kernels if kernels is None else kernels
        self.network = network
        self.stepping = fused.fuse(network, kernels)
        self.training = training
        self.recipe = recipe
        self.steps_an_epoch = len(training) // recipe.batch_size
        self.steps = self.steps_an_epoch * recipe.epochs
        normalize = Normalize.of(training.images) if recipe.standardize else Normalize()
        joins = self.stepping is not network  # else torch's layers cast float32 images
        self.normalize = normalize.by(kernels, recipe.precision if joins else Precision.FP32)
        device = training.images.device
        self._order = torch.Generator().manual_seed(seed)
        self._step = 0
        self._indices = torch.zeros(recipe.batch_size, dtype=torch.int64, device=device)
        self._losses = torch.zeros(self.steps_an_epoch, device=device)
        self._correct = torch.zeros((), dtype=torch.int64, device=device)
        self._slot = torch.zeros(1, dtype=torch.int64, device=device)
        self._rates = torch.tensor(
            [recipe.learning_rate_at(step, self.steps) for step in range(self.steps)],
            dtype=torch.float32,
            device=device,
        )
        self._rate = self._rates[0].clone()  # the optimizer reads it; a graph sees it change
        self._optimizer = _optimizer(network, recipe, self._rate)
        self.stepping.train()
        self.graph: torch.cuda.CUDAGraph | None = None
        self.peak_bytes: PeakBytes | None = None
        if device.type == "cuda":
            with torch.cuda.device(device):
                self._prepare(use_graph)
        torch.manual_seed(seed)  # dropout and augmentation

    def epoch(self, on_step: StepCallback | None = None) -> tuple[list[float], float]:
        """(the loss of each step, the accuracy over them) of one shuffled pass.

        Both are taken before the step that they cause. This is the one place that waits for
        the device, at the end.
        """
        self.stepping.train()
        self._correct.zero_()
        self._slot.zero_()
        images = self.steps_an_epoch * self.recipe.batch_size
        order = torch.randperm(len(self.training), generator=self._order)[:images]
        for batch in order.to(self._indices.device).view(-1, self.recipe.batch_size):
            self._indices.copy_(batch)
            self._rate.copy_(self._rates[self._step])
            if self.graph is None:
                self._train_step()
            else:
                self.graph.replay()
            self._step += 1
            if on_step is not None:
                on_step(self._step)
        return self._losses.tolist(), int(self._correct) / images

    def _train_step(self) -> None:
        """One step on the images at self._indices; reads and writes device memory only."""
        images = self.normalize(self.training.images, self._indices)
        labels = self.training.labels.index_select(0, self._indices)
        if self.recipe.augmentation is Augmentation.FLIP:
            mirrored = torch.rand(len(images), 1, 1, 1, device=images.device) < 0.5
            images = torch.where(mirrored, images.flip(-1), images)
        self._optimizer.zero_grad(set_to_none=True)
        with autocast(images.device, self.recipe.precision):
            scores = self.stepping(images)
        loss = F.cross_entropy(scores.float(), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
        self._losses.index_copy_(0, self._slot, loss.detach().view(1))
        self._slot += 1
        self._correct += (scores.argmax(1) == labels).sum()

    def _prepare(self, use_graph: bool) -> None:
        """Warm up on the current GPU, take the peaks of a step, and capture it if asked to.

        The graph is kept if its replay does what an eager step does; a step that waits for
        the GPU is not captured. All of this trains the network, so everything that a step
        changes is put back.
        """
        before = self._state()
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):  # cuDNN chooses its kernels, the optimizer makes its state
            for _ in range(_WARM_UP_STEPS):
                self._slot.zero_()  # an epoch may have fewer steps than the warm-up
                self._train_step()
            self._slot.zero_()
            can_be_captured = use_graph and not self._waits()
        torch.cuda.current_stream().wait_stream(side)
        self._optimizer.zero_grad(set_to_none=True)
        _release_cached()  # the warm-up and cuDNN's trials took more than a step does
        torch.cuda.reset_peak_memory_stats()
        eager = self._trial(self._train_step, before)
        self.peak_bytes = _peak_bytes()
        if can_be_captured:
            self._optimizer.zero_grad(set_to_none=True)  # gradients are born in the graph's pool
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                self._train_step()
            if _alike(eager, self._trial(graph.replay, before)):
                self.graph = graph
        self._restore(before)
        self._optimizer.zero_grad(set_to_none=True)

    def _waits(self) -> bool:
        """Whether a step waits for the GPU. Asked first: a failed capture cannot be undone."""
        mode = torch.cuda.get_sync_debug_mode()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch says that it does not notice every wait
            torch.cuda.set_sync_debug_mode("error")
        try:
            self._train_step()
        except RuntimeError:
            return True
        finally:
            torch.cuda.set_sync_debug_mode(mode)
        return False

    def _trial(self, step: Callable[[], object], before: _State) -> list[Tensor]:
        """How far a few steps from before move each parameter, on the host."""
        self._restore(before)
        self._optimizer.zero_grad(set_to_none=True)
        torch.manual_seed(0)
        images = torch.arange(_TRIAL_STEPS * self.recipe.batch_size) % len(self.training)
        for number, batch in enumerate(images.view(_TRIAL_STEPS, -1)):
            self._indices.copy_(batch)  # other images at another rate each time
            self._rate.copy_(self._rates[(number + 1) * (self.steps - 1) // _TRIAL_STEPS])
            self._slot.zero_()
            step()
        return [
            parameter.detach().cpu() - before.weights[name]
            for name, parameter in self.network.named_parameters()
        ]

    def _state(self) -> _State:
        """What a step changes, on the host: on the device it would count into the peaks."""

        def kept(tensor: Tensor) -> Tensor:
            return tensor.detach().to("cpu", copy=True)

        weights = {name: kept(tensor) for name, tensor in self.network.state_dict().items()}
        return _State(weights, kept(self._losses), kept(self._correct))

    def _restore(self, state: _State) -> None:
        """Put everything that a step changes back, in place: a graph holds the addresses."""
        self.network.load_state_dict(state.weights)
        self._losses.copy_(state.losses)
        self._correct.copy_(state.correct)
        self._slot.zero_()
        for parameter_state in self._optimizer.state.values():
            for value in parameter_state.values():
                if isinstance(value, Tensor):
                    value.zero_()  # momentum, moments and step counts all start at 0


@dataclass(frozen=True)
class _State:
    weights: dict[str, Tensor]  # buffers too
    losses: Tensor
    correct: Tensor


def _alike(one: list[Tensor], other: list[Tensor]) -> bool:
    """Whether two trials moved the parameters the same way.

    Kernels add in no fixed order, which moves them apart by far less than a sixteenth of the
    way; other images, masks or rates move them apart by as much as the way itself.
    """
    apart = sum(float((a - b).square().sum()) for a, b in zip(one, other, strict=True))
    way = sum(float(a.square().sum()) for a in one)
    return apart <= way / 16**2


@dataclass(frozen=True)
class Normalize:
    """uint8 images to float32: (pixel / 255 - mean) / deviation."""

    mean: float = 0.0
    deviation: float = 1.0

    @classmethod
    def of(cls, images: Tensor) -> Normalize:
        """What brings these uint8 images to mean 0 and variance 1, over all pixels."""
        histograms = [
            torch.bincount(images[start : start + _HISTOGRAM_BATCH].flatten(), minlength=256)
            for start in range(0, len(images), _HISTOGRAM_BATCH)
        ]
        counts = torch.stack(histograms).sum(0).double().cpu()
        values = torch.arange(256, dtype=torch.float64) / 255
        mean = (counts * values).sum() / counts.sum()
        variance = (counts * (values - mean).square()).sum() / counts.sum()
        return cls(float(mean), float(variance.sqrt()) or 1.0)

    def by(self, kernels: Kernels, precision: Precision) -> Normalize:
        """The same, as these kernels do it for a network that computes in that precision."""
        if kernels is Kernels.TORCH:
            return self
        dtype = torch.bfloat16 if precision.autocasts else torch.float32
        return FusedNormalize(self.mean, self.deviation, dtype)

    def __call__(self, images: Tensor, indices: Tensor | None = None) -> Tensor:
        """The images, or those at the indices, as the network reads them."""
        if indices is not None:
            images = images.index_select(0, indices)
        pixels = images.float().div_(255)
        if self.mean or self.deviation != 1.0:
            pixels.sub_(self.mean).div_(self.deviation)
        return pixels


@dataclass(frozen=True)
class FusedNormalize(Normalize):
    """Picked and scaled in one operator, to the type in which the first convolution computes."""

    dtype: torch.dtype = torch.float32

    def __call__(self, images: Tensor, indices: Tensor | None = None) -> Tensor:
        """The images, or those at the indices, as the network reads them."""
        if indices is None:
            indices = torch.arange(len(images), device=images.device)
        picked: Tensor = fused.pick(images, indices, self.mean, self.deviation, self.dtype)
        return picked


def _optimizer(network: nn.Module, recipe: Recipe, rate: Tensor) -> torch.optim.Optimizer:
    """The recipe's optimizer, fused where it can be, with its learning rate in a tensor."""
    options = {
        "lr": rate,
        "momentum": recipe.momentum,
        "nesterov": recipe.nesterov,
        "weight_decay": recipe.weight_decay,
        "fused": True,
        "capturable": rate.is_cuda,
    }
    known = optimizers.known_options(recipe.optimizer, options)
    return optimizers.TORCH[recipe.optimizer](network.parameters(), **known)


# ---------------------------------------------------------------- evaluation


@torch.no_grad()
def evaluate(
    network: nn.Module,
    images: LabeledImages,
    precision: Precision = Precision.FP32,
    normalize: Normalize | None = None,
) -> Evaluation:
    """Accuracy, mean loss, dead classes and confusion of a network on images of its device.

    The network is left in evaluation mode.
    """
    network.eval()
    normalize = normalize or Normalize()
    classes, device = images.num_classes, images.images.device
    confusion = torch.zeros(classes * classes, dtype=torch.int64, device=device)
    loss = torch.zeros((), dtype=torch.float64, device=device)
    alive = torch.zeros(classes, dtype=torch.bool, device=device)
    for start in range(0, len(images), _EVALUATION_BATCH):
        pixels = images.images[start : start + _EVALUATION_BATCH]
        labels = images.labels[start : start + _EVALUATION_BATCH]
        with autocast(device, precision):
            scores = network(normalize(pixels))
        scores = scores.float()
        loss += F.cross_entropy(scores, labels, reduction="sum")
        alive |= (scores != 0).any(0)
        confusion += torch.bincount(labels * classes + scores.argmax(1), minlength=classes**2)
    confusion = confusion.view(classes, classes).cpu()
    return Evaluation(
        accuracy=int(confusion.trace()) / len(images),
        loss=float(loss) / len(images),
        dead_classes=int((~alive).sum()),
        confusion=confusion,
    )


def autocast(device: torch.device, precision: Precision) -> torch.autocast:
    """bfloat16 convolutions and products inside the block, if the precision says so.

    Casts are not cached: a cached cast would outlive the CUDA graph that it was made in.
    """
    enabled = precision.autocasts
    return torch.autocast(device.type, torch.bfloat16, enabled=enabled, cache_enabled=False)


# ---------------------------------------------------------------- weights


def weights_bytes(network: nn.Module) -> bytes:
    """The network's parameters and buffers as a safetensors file."""
    from safetensors.torch import save

    return save({name: t.detach().cpu().contiguous() for name, t in network.state_dict().items()})


def load_network(record: RunRecord, folder: Path | None = None) -> nn.Module:
    """The trained network of a record that kept its weights, in evaluation mode, on the CPU.

    It is torch's plain network whatever kernels trained it: the parameters are the same ones.
    Raises RecordError when no weights were kept, or when they or the network have changed since.
    """
    from safetensors.torch import load

    folder = records.runs_folder() if folder is None else folder
    if record.weights_sha256 is None:
        raise RecordError(f"no weights were kept of {record.id}")
    path = records.weights_path(folder, record.id)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise RecordError(f"the weights {path} cannot be read: {error.strerror}") from error
    if hashlib.sha256(content).hexdigest() != record.weights_sha256:
        raise RecordError(f"{path} does not hold the weights that {record.id} was evaluated with")
    network = architecture(record.network)
    if network.digest != record.network_digest:
        raise RecordError(
            f"{record.network} has changed since {record.id}: its digest is {network.digest}, the "
            f"record's {record.network_digest}"
        )
    module = build(network, seed=record.seed)
    module.load_state_dict(load(content))
    return module.eval()


def _fitted(images: LabeledImages, network: Architecture) -> LabeledImages:
    """The images at the network's input size. Raises DataError when they cannot be."""
    channels, height, width = network.input_shape
    if height != width or channels != images.images.shape[1]:
        raise DataError(
            f"{network.name} reads {channels}x{height}x{width} images; Fashion-MNIST has square "
            "images of one channel"
        )
    if images.num_classes != network.num_classes:
        raise DataError(
            f"{network.name} tells {network.num_classes} classes apart; the images have "
            f"{images.num_classes}"
        )
    return images.resized(height)


def _release_cached() -> None:
    """Give back what nobody uses of the current GPU's memory."""
    gc.collect()
    clear_cublas_workspaces()
    torch.cuda.empty_cache()


def _peak_bytes() -> PeakBytes:
    stats = torch.cuda.memory_stats()
    return PeakBytes(*(stats[f"{kind}_bytes.all.peak"] for kind in PeakBytes._fields))
