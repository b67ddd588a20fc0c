"""Which convolutions do torchvision's networks compute in a training step?

Traces each network on the meta device and writes its calls to torchvision_calls.json, one a line
with the directions and the networks that make it. `tools/ask_cudnn.py` reads it on a GPU machine,
where tracing would cost time. Run it when torchvision or `NETWORKS` has changed::

    python -m tools.torchvision_calls
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable

import torchvision

from ninlab import exits
from ninlab.resources import load, trace_step
from ninlab.workspaces import ConvCall, Direction
from tools.ask_cudnn import TORCHVISION
from tools.whole_files import replace_files

SIDES = {"inception_v3": 299}
"""Sides of the images that a network was made for, where these are not 224 pixels."""

NETWORKS = (
    *("alexnet", "vgg11", "vgg13", "vgg16", "vgg16_bn", "vgg19", "vgg19_bn"),
    *("squeezenet1_0", "squeezenet1_1", "googlenet", "inception_v3"),
    *("resnet18", "resnet34", "resnet50", "resnet101", "resnet152"),
    *("resnext50_32x4d", "resnext101_32x8d", "wide_resnet50_2"),
    *("densenet121", "densenet161", "densenet169", "densenet201"),
    *("mobilenet_v2", "mobilenet_v3_small", "mobilenet_v3_large"),
    *("mnasnet0_5", "mnasnet1_0", "shufflenet_v2_x0_5", "shufflenet_v2_x1_0"),
    *("regnet_y_400mf", "regnet_y_800mf", "regnet_y_3_2gf", "regnet_x_400mf", "regnet_x_3_2gf"),
    *("efficientnet_b0", "efficientnet_b1", "efficientnet_b2", "efficientnet_b3"),
    *("efficientnet_b4", "efficientnet_v2_s"),
    *("convnext_tiny", "convnext_small", "convnext_base"),
    *("vit_b_16", "vit_b_32", "vit_l_16", "swin_t", "swin_s", "swin_b", "swin_v2_t", "maxvit_t"),
)
"""Every family of its classifiers, in the sizes that people train."""


def calls_of(name: str) -> dict[ConvCall, list[Direction]]:
    """Every convolution of one training step of that network, with its directions."""
    side = SIDES.get(name, 224)
    auxiliary = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    network = getattr(torchvision.models, name)(weights=None, **auxiliary)
    calls: dict[ConvCall, list[Direction]] = {}
    for call in trace_step(load(network, (3, side, side)), batch_size=2).calls:
        if call.convolution is not None:
            known = calls.setdefault(call.convolution, [])
            known += [direction for direction in call.directions if direction not in known]
    return calls


def text_of(networks: Iterable[str]) -> str:
    """The file's content for these networks."""
    rows: dict[str, tuple[list[str], list[str]]] = {}
    for name in networks:
        for call, directions in calls_of(name).items():
            known, makers = rows.setdefault(call.key, ([], []))
            known += [str(direction) for direction in directions if direction not in known]
            makers.append(name)
    lines = [
        f"  {json.dumps(key)}: {json.dumps([' '.join(sorted(known)), ' '.join(makers)])}"
        for key, (known, makers) in sorted(rows.items())
    ]
    head = f' "torchvision": {json.dumps(torchvision.__version__.partition("+")[0])},'
    return "\n".join(["{", head, ' "calls": {', ",\n".join(lines), " }", "}"]) + "\n"


def main() -> None:
    """Write the calls of all networks to the list that asking cuDNN begins with."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    replace_files({TORCHVISION: text_of(NETWORKS)})


if __name__ == "__main__":
    exits.run(main)
