"""How is a network trained? Everything but the network, the data and the seed, as data.

A `Recipe` holds the numbers of one training run. It is part of every run's record, so a
recipe read back from a record trains the same way again.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import NoReturn

from ninlab.errors import NinlabError, quoted
from ninlab.steps import OPTIMIZERS, Kernels, Optimizer, Precision, named

TRAINING_SPLIT_IMAGES = 60_000
"""Images of Fashion-MNIST that may be trained on."""

HELD_OUT_IMAGES = 5_000
"""Of those, how many are set apart where a recipe is judged on held-out images."""

TEST_SPLIT_IMAGES = 10_000
"""Images of Fashion-MNIST that may only be evaluated."""

MOST_EPOCHS = 10_000
"""Of a run: its record has a line of numbers for each."""

MOST_STEPS = 10_000_000
"""Of one run: days of work, and as much as the rates of all steps fit into memory before it."""

MOST_SEED = 2**63 - 1
"""The largest seed of a run: torch takes others for some of its generators only."""


class Schedule(StrEnum):
    """How the learning rate moves over the run."""

    CONSTANT = "constant"
    ONE_CYCLE = "one_cycle"  # straight up to the peak, straight down to 0


class Augmentation(StrEnum):
    """What happens to a training image before it is seen."""

    NONE = "none"
    FLIP = "flip"  # mirrored left to right, every second time


class EvaluationSet(StrEnum):
    """Which images measure the run; the training images are the rest of the training split."""

    TEST = "test"
    HELD_OUT = "held_out"  # training images, taken out before training


TRAINED = tuple(
    each
    for each, rule in OPTIMIZERS.items()
    if rule.is_capturable and each is not Optimizer.MOMENTUM
)
"""The optimizers that a recipe may name: those whose step a CUDA graph can take. Momentum is one
of SGD's numbers here."""

TRAINED_KERNELS = (Kernels.TORCH, Kernels.FUSED)
"""The kernels that a recipe may name. The chained ones wait for a GPU to show that they pay."""


@dataclass(frozen=True)
class Recipe:
    """One way to train. Learning rate and momentum as in torch.optim.

    train_images limits training to that many images, the first of the split; None takes all.
    standardize shifts and scales pixels to mean 0 and variance 1 over the training images;
    without it pixels are divided by 255 only. kernels says whose compute the layers; each adds in
    an order of its own. Raises NinlabError when a number is out of range.
    """

    learning_rate: float
    epochs: int
    batch_size: int = 128
    optimizer: Optimizer = Optimizer.SGD
    momentum: float = 0.0
    nesterov: bool = False
    weight_decay: float = 0.0
    schedule: Schedule = Schedule.CONSTANT
    precision: Precision = Precision.FP32
    augmentation: Augmentation = Augmentation.NONE
    standardize: bool = False
    evaluation_set: EvaluationSet = EvaluationSet.TEST
    train_images: int | None = None
    kernels: Kernels = Kernels.TORCH

    def __post_init__(self) -> None:
        for name, kind in _ENUMS.items():
            object.__setattr__(self, name, named(kind, getattr(self, name)))
        self._check_numbers()
        self._check_combination()
        for name in _FLOATS:  # JSON tells 1 from 1.0, and a record reads back as it was
            object.__setattr__(self, name, float(getattr(self, name)))

    def _check_numbers(self) -> None:
        """Raises NinlabError for a number that is out of range, whatever the others are."""
        if not (_is_finite(self.learning_rate) and self.learning_rate >= 0):
            _refuse(
                "learning rate", self.learning_rate, "a finite number of at least 0, such as 0.05"
            )
        if not (_is_finite(self.momentum) and 0 <= self.momentum < 1):
            _refuse("momentum", self.momentum, "at least 0 and below 1")
        if not (_is_finite(self.weight_decay) and self.weight_decay >= 0):
            _refuse("weight decay", self.weight_decay, "a finite number of at least 0")
        most = self.train_split_images
        if not (
            self.train_images is None
            or (_is_whole(self.train_images) and 1 <= self.train_images <= most)
        ):
            _refuse(
                "number of training images",
                self.train_images,
                f"from 1 to {most}, or left out for all of them",
            )
        if not (_is_whole(self.batch_size) and 1 <= self.batch_size <= self.images):
            _refuse("batch size", self.batch_size, f"from 1 to {self.images}, the training images")
        most = min(MOST_EPOCHS, MOST_STEPS // self.steps_an_epoch)
        if not (_is_whole(self.epochs) and 1 <= self.epochs <= most):
            _refuse(
                "number of epochs",
                self.epochs,
                f"at least 1, and for {self.steps_an_epoch} steps an epoch at most {most}",
            )

    def _check_combination(self) -> None:
        """Raises NinlabError for numbers that do not go together."""
        if not (self.momentum > 0 or not self.nesterov):
            _refuse("momentum", self.momentum, "above 0 for Nesterov's variant")
        if self.optimizer is Optimizer.MOMENTUM:
            raise NinlabError("SGD with momentum is optimizer sgd with a momentum, such as 0.9")
        if self.optimizer not in TRAINED:
            raise NinlabError(
                f"torch takes no step of {self.optimizer} in a CUDA graph, as runs on a GPU do; "
                f"take one of {', '.join(TRAINED)}"
            )
        if self.kernels not in TRAINED_KERNELS:
            raise NinlabError(
                f"nobody trains with {self.kernels} kernels yet: no GPU has shown that they pay; "
                f"take one of {', '.join(TRAINED_KERNELS)}"
            )
        if not (self.momentum == 0 or self.optimizer is Optimizer.SGD):
            _refuse("momentum", self.momentum, f"0 for {self.optimizer}; it is SGD's")
        if not (self.weight_decay > 0 or self.optimizer is not Optimizer.ADAMW):
            _refuse(
                "weight decay", self.weight_decay, "above 0 for adamw, which is adam without it"
            )

    @property
    def counted_optimizer(self) -> Optimizer:
        """The optimizer as `steps` counts it, where SGD with momentum is one of its own."""
        return Optimizer.MOMENTUM if self.momentum else self.optimizer

    @property
    def images(self) -> int:
        """How many images an epoch draws from."""
        return self.train_split_images if self.train_images is None else self.train_images

    @property
    def train_split_images(self) -> int:
        """How many images may be trained on."""
        held_out = self.evaluation_set is EvaluationSet.HELD_OUT
        return TRAINING_SPLIT_IMAGES - (HELD_OUT_IMAGES if held_out else 0)

    @property
    def evaluation_images(self) -> int:
        """How many images are evaluated after each epoch."""
        held_out = self.evaluation_set is EvaluationSet.HELD_OUT
        return HELD_OUT_IMAGES if held_out else TEST_SPLIT_IMAGES

    @property
    def steps_an_epoch(self) -> int:
        """Optimizer steps of one epoch; its ragged last batch is dropped."""
        return self.images // self.batch_size

    @property
    def steps(self) -> int:
        """Optimizer steps of the whole run."""
        return self.epochs * self.steps_an_epoch

    @property
    def rate_in_words(self) -> str:
        """The learning rate in a heading: ``rate 0.1``, or ``peak rate 0.05`` if it moves."""
        peak = "" if self.schedule is Schedule.CONSTANT else "peak "
        return f"{peak}rate {self.learning_rate:g}"

    def learning_rate_at(self, step: int, steps: int) -> float:
        """The learning rate of that step (from 0) of a run of that many steps.

        The one-cycle schedule climbs for a fifth of the run. Source: Smith2018, with straight
        lines and without the momentum cycle.
        """
        if self.schedule is Schedule.CONSTANT:
            return self.learning_rate
        progress = (step + 0.5) / steps
        rise = 0.2
        factor = progress / rise if progress < rise else (1 - progress) / (1 - rise)
        return self.learning_rate * factor


def improved(plain: Recipe) -> Recipe:
    """The better recipe: with momentum, weight decay, a one-cycle schedule and mirrored images.

    The schedule's peak is the plain learning rate; pixels are brought to mean 0 and variance 1.
    """
    return replace(
        plain,
        momentum=0.9,
        nesterov=True,
        weight_decay=5e-4,
        schedule=Schedule.ONE_CYCLE,
        augmentation=Augmentation.FLIP,
        standardize=True,
    )


_FLOATS = ("learning_rate", "momentum", "weight_decay")

_ENUMS: dict[str, type[StrEnum]] = {
    "optimizer": Optimizer,
    "schedule": Schedule,
    "precision": Precision,
    "augmentation": Augmentation,
    "evaluation_set": EvaluationSet,
    "kernels": Kernels,
}


def _is_finite(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _refuse(what: str, value: object, rule: str) -> NoReturn:
    raise NinlabError(f"the {what} is {quoted(value)}, but must be {rule}")
