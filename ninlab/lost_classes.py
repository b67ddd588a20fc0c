"""What do lost classes predict of a run's loss and accuracy?

A class is lost if the network never predicts it, and dead if its score is 0 on every image.

Known limits: both bounds take the classes to be equal in their numbers of images.
"""

from __future__ import annotations

import math

from ninlab.comparisons import Groups
from ninlab.records import RunRecord

NEAR_ROOF = 0.03
"""Of accuracy: a run that ends closer to its roof than this is said to stand under it."""


def loss_floor(dead_classes: int, num_classes: int, never_predicted: int = 0) -> float:
    """The least mean cross-entropy of a network with lost classes, classes being equal.

    Scores after a last ReLU are at least 0, and a dead class scores 0: on its own images it gets
    a probability of at most 1 / num_classes. A class that is never predicted always has another
    beside it that scores no less: on its own images it gets at most 1 / 2. never_predicted counts
    both kinds; fewer of them than dead classes add nothing.
    """
    beaten = max(never_predicted - dead_classes, 0)
    return (dead_classes * math.log(num_classes) + beaten * math.log(2)) / num_classes


def accuracy_roof(lost_classes: int, num_classes: int) -> float:
    """The highest accuracy of a network that never predicts that many classes, these being equal.

    One class at least is always predicted, also where all scores are tied.
    """
    return max(num_classes - lost_classes, 1) / num_classes


def stopped_in_words(groups: Groups) -> str:
    """Which runs lost classes have stopped: sentences, empty without runs.

    Those that stand under the roof of two lost classes or more, and those all of whose classes
    were dead from some epoch to the end, so that no gradient was left.
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
        "The lost classes stop some runs by themselves. Right under their roof stand "
        f"{'; '.join(stopped)}."
        if stopped
        else "No run stands right under the roof of two lost classes."
    )
    return f"{words} Lost for good: {'; '.join(buried)}." if buried else words


def _roof_of(run: RunRecord) -> float:
    return accuracy_roof(run.never_predicted, len(run.confusion))


def _epochs_without_a_live_class(run: RunRecord) -> list[int]:
    return [e.epoch for e in run.epochs if e.dead_classes == len(run.confusion)]
