"""What do lost classes predict of a run's loss and accuracy?

A class is lost if the network never predicts it, and dead if its score is 0 on every image. Where
all scores of an image are 0, the first class wins the tie: so the first one can be dead and not
lost, and then the roof of the dead classes is a class too low.

Known limits: both bounds take the classes to be equal in their numbers of images.
"""

from __future__ import annotations

import math

from ninlab.comparisons import Groups
from ninlab.records import RunRecord

NEAR_ROOF = 0.03
"""Of accuracy: a run that ends closer to its roof than this is said to stand under it."""


def loss_floor(dead_classes: int, num_classes: int, never_predicted: int = 0) -> float:
    """The least mean cross-entropy of a network with lost classes, with a last ReLU.

    Behind the ReLU no score is below 0, and a dead class scores 0: on its own images it gets a
    probability of at most 1 / num_classes. Where a class is never predicted, another class always
    scores at least as much: on its own images it gets at most 1 / 2. never_predicted counts dead
    classes too; a number below dead_classes adds nothing.
    """
    beaten = max(never_predicted - dead_classes, 0)
    return (dead_classes * math.log(num_classes) + beaten * math.log(2)) / num_classes


def accuracy_roof(lost_classes: int, num_classes: int) -> float:
    """The highest accuracy of a network that never predicts so many classes.

    At least one class is always predicted, even where all scores are equal.
    """
    return max(num_classes - lost_classes, 1) / num_classes


def stopped_in_words(groups: Groups) -> str:
    """Sentences that name the runs which their lost classes hold down; empty without runs.

    These are the runs that ended right under the roof of two lost classes or more, and those with
    all classes dead from some epoch to the end, so that no gradient was left.
    """
    if not groups:
        return ""
    labeled = [(f"{label}, seed {run.seed}", run) for label, g in groups.items() for run in g]
    stopped = [
        f"{label} at {run.last.test_accuracy:.1%} with {run.never_predicted} lost"
        for label, run in labeled
        if run.never_predicted >= 2 and _roof_of(run) - run.last.test_accuracy < NEAR_ROOF
    ]
    buried = [
        f"{label}: all {len(run.confusion)} classes are dead after epoch {dead[0]}, and no epoch "
        f"after that moved the test loss from {run.last.test_loss:.5f}"
        for label, run in labeled
        if len(dead := _epochs_without_a_live_class(run)) > 1 and dead[-1] == len(run.epochs)
    ]
    words = (
        f"Some runs stand right under the roof of their lost classes: {'; '.join(stopped)}."
        if stopped
        else "No run stands right under the roof of two lost classes."
    )
    return f"{words} Lost for good: {'; '.join(buried)}." if buried else words


def _roof_of(run: RunRecord) -> float:
    return accuracy_roof(run.never_predicted, len(run.confusion))


def _epochs_without_a_live_class(run: RunRecord) -> list[int]:
    return [e.epoch for e in run.epochs if e.dead_classes == len(run.confusion)]
