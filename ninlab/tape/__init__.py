"""What does one training step do, operator by operator and tensor by tensor?

A step is played on paper, once, and everything that is asked of it is a fold over what was
written down: the memory events of `liveness`, the tensors that autograd keeps, the operators of
`roofline`. Each kind of layer says in `rules` what its operators read, write, make and keep,
forward and backward; `joined` says it of layers that one operator computes together; `writer`
knows who holds which tensor, and the way back through the graph. Sizes are affine in the batch,
``a + b * batch``, so that one tape serves every batch size. No weight is allocated and torch is
not needed.

The step is a warm one (the second or any later) in the textbook's order: zero_grad
(set_to_none), forward, cross-entropy, backward, optimizer step. The scores and the loss of
the step before are held by the caller until this one has returned its own; so are the scores
at prediction, which runs forward alone. Where torch decides by device, the decisions are
CUDA's: dropout masks of one byte, optimizers that work on lists of tensors (foreach), bf16
by autocast with its cached copies of the weights, batch norm by cuDNN. TF32 changes no size.

Known limits: only what tensors hold. Scratch of cuDNN and cuBLAS is `workspaces`, rounding
and fragmentation are `allocator`; a reserve that cuDNN's batch norm might keep is left out. Of
what lives and dies inside one operator, only copies are listed: of a gradient that is part of a
wider one, which the way back through branches makes for more than one image; and where layers are
joined, of what lies in another layout and of what is padded.
"""

from __future__ import annotations

from ninlab.architectures import Architecture
from ninlab.steps import Kernels, Optimizer, Precision, named
from ninlab.tape.joined import JoinedPlayer, roles
from ninlab.tape.rules import Player
from ninlab.tape.writer import Tape

__all__ = ["Tape", "record"]


def record(
    architecture: Architecture,
    optimizer: str = Optimizer.SGD,
    precision: str = Precision.FP32,
    *,
    training: bool = True,
    kernels: str = Kernels.TORCH,
) -> Tape:
    """The tape of one warm training step, or with ``training=False`` of one prediction.

    A prediction runs in evaluation mode, without gradients; the optimizer is then of no concern.
    Images come in float32. Where the kernels join layers of the network the step is one in
    channels_last, on images in the type in which it computes: so `training` picks them.
    Raises UnknownNameError for another optimizer, precision or kernels, ShapeError when a layer
    cannot read its input.
    """
    arithmetic, found = named(Precision, precision), roles(architecture, named(Kernels, kernels))
    player = (
        JoinedPlayer(arithmetic, found, training=training)
        if found
        else Player(arithmetic, training=training)
    )
    return player.play(architecture, named(Optimizer, optimizer)).tape()
