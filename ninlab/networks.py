"""An `Architecture` as an ``nn.Module``.

Submodules carry the names of `Architecture.named_leaves`, so a cost counted on
paper and one counted on the module meet under the same dotted path.
"""

from __future__ import annotations

from typing import assert_never

import torch
from torch import Tensor, nn

from ninlab import architectures, layers
from ninlab.architectures import Architecture, Biases, Initialization, Weights
from ninlab.layers import Leaf, named_layers
from ninlab.shapes import at_input, placed_layers
from ninlab.units import Shape


class JoinedBranches(nn.Module):
    """Runs every child on the same input and joins the outputs along the channels."""

    def forward(self, images: Tensor) -> Tensor:
        """(batch, channels, height, width) to (batch, sum of the channels, height, width)."""
        return torch.cat([branch(images) for branch in self.children()], dim=1)


def build(
    architecture: Architecture | str,
    *,
    seed: int | None = None,
    device: torch.device | str | None = None,
) -> nn.Sequential:
    """The network as a module in training mode, initialized as its architecture says.

    It maps (batch, channels, height, width) float images to (batch, num_classes) scores.
    With a seed the weights depend on nothing else and torch's global random state is
    left as it was. device is by default torch's own default, as for torch's modules. On
    the meta device nothing is allocated and nothing initialized.
    Raises UnknownNetworkError for a name that no architecture has, ShapeError when the
    layers cannot read the architecture's input.
    """
    if isinstance(architecture, str):
        architecture = architectures.architecture(architecture)
    device = torch.get_default_device() if device is None else torch.device(device)
    with torch.random.fork_rng(enabled=seed is not None):
        if seed is not None:
            torch.manual_seed(seed)
        with torch.device(device):
            network = _network(architecture)  # fails before anything is allocated
        if device.type != "meta":
            initialize(network, architecture.initialization)
    return network


def initialize(network: nn.Module, initialization: Initialization) -> None:
    """Draw the weights and biases of every convolution and linear layer anew, in place.

    What stays at torch's default keeps the values that building the module drew.
    Sources: Glorot2010 (Xavier), He2015 (Kaiming).
    """
    for module in network.modules():
        if not isinstance(module, nn.Conv2d | nn.Linear):
            continue
        match initialization.weights:
            case Weights.XAVIER_UNIFORM:
                nn.init.xavier_uniform_(module.weight)
            case Weights.KAIMING_NORMAL:
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        if initialization.biases is Biases.ZERO and module.bias is not None:
            nn.init.zeros_(module.bias)


def _network(architecture: Architecture) -> nn.Sequential:
    network = nn.Sequential()
    placed = {at.name: at for at in placed_layers(architecture)}
    for path, layer in named_layers(architecture.layers):
        parent, _, name = path.rpartition(".")
        match layer:
            case layers.Block():
                module: nn.Module = nn.Sequential()
            case layers.Branches():
                module = JoinedBranches()
            case _:
                module = _module(layer, placed[path].input_shape)
        network.get_submodule(parent).add_module(name, module)
    return network


def _module(layer: Leaf, shape: Shape) -> nn.Module:
    match layer:
        case layers.Conv():
            return nn.Conv2d(
                shape[0],
                layer.out_channels,
                layer.kernel_size,
                stride=layer.stride,
                padding=layer.padding,
                groups=layer.groups,
                bias=layer.bias,
            )
        case layers.Linear():
            return nn.Linear(shape[0], layer.out_features, bias=layer.bias)
        case layers.BatchNorm():
            return nn.BatchNorm2d(shape[0])
        case layers.ReLU():
            return nn.ReLU()
        case layers.Sigmoid():
            return nn.Sigmoid()
        case layers.MaxPool():
            return nn.MaxPool2d(layer.kernel_size, layer.stride, layer.padding)
        case layers.AvgPool():
            return nn.AvgPool2d(layer.kernel_size, layer.stride, layer.padding)
        case layers.GlobalAvgPool():
            return nn.AdaptiveAvgPool2d(1)
        case layers.Dropout():
            return nn.Dropout(layer.probability)
        case layers.Flatten():
            return nn.Flatten()
        case _:
            assert_never(layer)


def on_meta(name: str, input_shape: Shape | None = None) -> tuple[nn.Sequential, Shape]:
    """The named network without memory, and the shape of the images it reads.

    input_shape replaces the network's own: linear layers adapt to it, channels must agree.
    Raises UnknownNetworkError, and ShapeError with an input that works.
    """
    architecture = architectures.architecture(name)
    if input_shape is not None:
        architecture = at_input(architecture, input_shape)
    return build(architecture, device="meta"), architecture.input_shape
