"""How well does a linear reader tell classes apart by what a network has found on its way?

`found` takes the values at the places of a network's last block, `fit` makes a reader by least
squares, and `accuracy` tests it; `read` does all of it. `readouts` keeps what was measured in
networks that were trained for it. Needs torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot, pad

from ninlab.data import LabeledImages
from ninlab.errors import NinlabError
from ninlab.readouts import Place
from ninlab.training import Normalize

LAST_BLOCK = "classes"
"""The child of a NiN that makes the class maps."""

BEFORE = f"before_{LAST_BLOCK}"
"""The place where the last block reads; others are called by the layer whose ReLU gives them."""

RIDGE = 0.01
"""What is added to the squares of the values, so that the weights stay finite where values are
always zero."""

_BATCH = 1_000


class Found(NamedTuple):
    """What a network makes of images: values by place, in order of execution, and its scores."""

    values: Mapping[str, Tensor]  # each (images, values)
    scores: Tensor  # (images, classes)


@torch.no_grad()
def found(network: nn.Module, images: Tensor, normalize: Normalize | None = None) -> Found:
    """What the last block reads, what each of its ReLUs gives, and the scores.

    images are uint8, (n, channels, height, width); normalize scales them as they were in training,
    by default to 0 to 1. The network is left in evaluation mode. Raises NinlabError for a network
    without a last block, as AlexNet is.
    """
    normalize = normalize or Normalize()
    network.eval()
    parts = [_on_the_way(network, normalize(batch)) for batch in torch.split(images, _BATCH)]
    values = {place: torch.cat([part.values[place] for part in parts]) for place in parts[0].values}
    return Found(values, torch.cat([part.scores for part in parts]))


def _on_the_way(network: nn.Module, maps: Tensor) -> Found:
    values: dict[str, Tensor] = {}
    for name, child in network.named_children():
        if name != LAST_BLOCK:
            maps = child(maps)
            continue
        values[BEFORE] = maps.flatten(1)
        weighted = ""
        for path, layer in child.named_children():
            maps = layer(maps)
            if isinstance(layer, nn.Conv2d):
                weighted = f"{name}.{path}"
            if isinstance(layer, nn.ReLU):
                values[weighted] = maps.flatten(1)
    if not values:
        raise NinlabError(f"the network has no child {LAST_BLOCK!r}, whose values could be read")
    return Found(values, maps)


def fit(values: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Weights from values, (n, values), to classes by least squares, in float64.

    labels, (n,), are the classes' numbers. The last row is the bias: (values + 1, classes). A class
    is to score 1 on its own images and 0 on others.
    """
    inputs = _with_one(values)
    ridge = RIDGE * torch.eye(inputs.shape[1], dtype=torch.float64)
    targets = one_hot(labels.long(), classes).double()
    weights: Tensor = torch.linalg.solve(inputs.T @ inputs + ridge, inputs.T @ targets)
    return weights


def accuracy(weights: Tensor, values: Tensor, labels: Tensor) -> float:
    """Of how many images the reader gives the label the highest score, as a share from 0 to 1.

    weights are those of `fit`, (values + 1, classes); values are (n, values), labels (n,).
    """
    right = (_with_one(values) @ weights).argmax(1) == labels
    return int(right.sum()) / len(labels)


def _with_one(values: Tensor) -> Tensor:
    """The values of each image and a 1, whose weight is the bias."""
    return pad(values.double(), (0, 1), value=1.0)


def read(
    network: nn.Module,
    fitted: LabeledImages,
    tested: LabeledImages,
    normalize: Normalize | None = None,
) -> list[Place]:
    """What a linear reader gets at each place of a network, in order of execution.

    A reader is fitted to one set of images and tested on the other. Raises NinlabError as `found`
    does.
    """
    seen, new = (found(network, part.images, normalize) for part in (fitted, tested))
    places = []
    for name, values in new.values.items():
        weights = fit(seen.values[name], fitted.labels, fitted.num_classes)
        places.append(Place(name, values.shape[1], accuracy(weights, values, tested.labels)))
    return places
