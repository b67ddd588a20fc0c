"""What does a step cost when an operator computes several layers at once?

An operator of a GPU reads its maps from memory and writes what it makes. Adding a bias, cutting
at 0 and taking the largest of nine are no work: all the time goes into reading and writing. So
who does the three in one operator reads and writes once in place of three times, and keeps for
the backward pass what one operator needs in place of three.

`fuse` gives a network whose layers are joined so, with the same parameters under the same names:

- a convolution, its ReLU: the convolution, then one pass in place;
- a 1x1 layer, its ReLU: one matrix product that ends with both;
- a convolution, its ReLU, a max pool: the convolution, then one pass that makes the pooled map
  alone, and one byte for each of its values;
- with `Kernels.CHAINED` the 1x1 layers of a narrow NiN block, too, in one operator: the block is a
  small network on each pixel, so that its inner maps never need to exist. That holds in 16 bits;
  a chain in float32 is computed by plain torch, map by map.

Sums come in another order than in torch's layers, and peaks and times are others: so it is
asked for by name, and a run's record says it.
"""

from __future__ import annotations

from torch import nn

from ninlab.fused import layers
from ninlab.fused.matching import rebuilt, replaced
from ninlab.fused.operators import pick, why_not
from ninlab.steps import Kernels, named

__all__ = ["fuse", "joins", "pick", "why_not"]


def fuse(network: nn.Module, kernels: str = Kernels.FUSED) -> nn.Module:
    """The network with layers joined as the kernels say; the network itself for `Kernels.TORCH`.

    Layers are joined inside of ``nn.Sequential`` and of our own branches. A network of another kind
    calls its layers as it likes, so that it comes back itself; rows in it can be joined one by one,
    as with ``alexnet.features = fuse(alexnet.features)``.
    Both have the same parameters, so that training either trains the other; the network is not
    changed. On a CUDA device passes over maps and, in 16 bits, chains run by Triton, products and
    convolutions by torch. On a CPU all runs by plain torch: slower than torch's own layers, and
    there to check. Raises UnknownNameError for other kernels.
    """
    kernels = named(Kernels, kernels)
    return network if kernels is Kernels.TORCH else rebuilt(network, replaced(network, kernels))


def joins(network: nn.Module, kernels: str) -> bool:
    """Whether a step of the network by these kernels is one of its own kind.

    By torch's it always is. By `Kernels.FUSED` it is where layers are joined, by `Kernels.CHAINED`
    where a block is chained: else the step would be that of the kernels that join less. Raises
    UnknownNameError for other kernels.
    """
    kernels = named(Kernels, kernels)
    if kernels is Kernels.TORCH:
        return True
    made = replaced(network, kernels).values()
    return any(kernels is Kernels.FUSED or isinstance(one, layers.Chain) for one in made)
