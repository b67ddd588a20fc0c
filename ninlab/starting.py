"""What does an untrained network make of images, here and now?

One `Start` for a network and a seed. benchmarks/starts.py keeps those of networks at full size,
which `starts` reads; a page measures small ones itself. Needs torch.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ninlab.architectures import architecture
from ninlab.networks import build
from ninlab.starts import Start, handed_on, has_last_relu


def spread(values: Tensor) -> float:
    """The standard deviation over images, the first axis, as a root mean square over the rest."""
    return _rounded(float(values.double().var(0).mean().sqrt()))


@torch.inference_mode()
def start(network: str, seed: int, images: Tensor) -> Start:
    """What the untrained network of that seed makes of the images, in evaluation mode.

    images is (n, channels, height, width), of the network's input shape, with values from 0 to 1;
    two or more. Numbers are kept to six digits, as in records. Raises UnknownNetworkError for a
    network that there is not.
    """
    about = architecture(network)
    module = build(about, seed=seed).eval()
    of_images, left = spread(images), []

    def note(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        left.append(_rounded(spread(output) / of_images))

    for name in handed_on(about):
        module.get_submodule(name).register_forward_hook(note)
    scores = module(images)
    return Start(
        network=network,
        seed=seed,
        dead_classes=int((scores == 0).all(0).sum()) if has_last_relu(about) else None,
        predicted_classes=len(scores.argmax(1).unique()),
        over_images=spread(scores),
        between_classes=_rounded(float(scores.double().mean(0).std())),
        left=tuple(left),
    )


def _rounded(value: float) -> float:
    return float(f"{value:.6g}")
