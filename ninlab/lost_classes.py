"""What do lost classes predict of a run's loss and accuracy?

A class is lost if the network never predicts it, and dead if its score is 0 on every image.

Known limits: both bounds take the classes to be equal in their numbers of images.
"""

from __future__ import annotations

import math


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
