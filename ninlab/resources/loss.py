"""The loss of a training step on the meta device: cross-entropy of scores against labels."""

from __future__ import annotations

from collections.abc import Iterator
from functools import reduce
from operator import add
from typing import Any

import torch
from torch import Tensor, nn

from ninlab.errors import NinlabError


def scores_of(output: Any) -> list[Tensor]:
    """The score tensors, (batch, classes, ...), that a network put out, in its order.

    A tuple or dict of scores, as of a network with side classifiers, is a list of losses
    to add. Raises NinlabError when there is no score to learn from.
    """
    scores = [each for each in tensors_of(output) if each.is_floating_point() and each.dim() >= 2]
    if not scores:
        raise NinlabError(
            f"the network puts out {type(output).__name__} without class scores; a training step "
            "needs a tensor of shape (batch, classes, ...)"
        )
    return scores


def tensors_of(output: Any) -> Iterator[Tensor]:
    """Every tensor in a network's output, in its order."""
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, dict):
        yield from tensors_of(list(output.values()))
    elif isinstance(output, list | tuple):
        for each in output:
            yield from tensors_of(each)


def labels_for(scores: list[Tensor]) -> list[Tensor]:
    """int64 labels, (batch, ...), for each score tensor; equal shapes share one tensor."""
    labels: dict[torch.Size, Tensor] = {}
    for each in scores:
        shape = torch.Size((each.shape[0], *each.shape[2:]))
        labels.setdefault(shape, torch.empty(shape, dtype=torch.int64, device=each.device))
    return [labels[torch.Size((each.shape[0], *each.shape[2:]))] for each in scores]


def cross_entropy(scores: list[Tensor], labels: list[Tensor]) -> Tensor:
    """Mean cross-entropy of the scores; several are added."""
    losses = [
        nn.functional.cross_entropy(each, target)
        for each, target in zip(scores, labels, strict=True)
    ]
    return reduce(add, losses)
