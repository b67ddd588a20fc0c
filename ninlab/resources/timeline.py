"""Which bytes are alive when, in one training step of any module?

A whole step (zero_grad, forward, cross-entropy, backward, optimizer) runs on the meta
device, while `recorder` writes down every allocation and release. The engine, autograd and
the optimizer are torch's own; nothing is modeled but what depends on the device, which
`cuda` imposes. The step is a warm one: optimizer state and the gradients of the step before
exist when it begins, and the scores and the loss of the step before are held by the training
loop until this one has returned its own.

Imports from ninlab: errors and reports.

Known limits. A timeline sees tensors. It does not see what a kernel allocates and frees
inside one operator: scratch (`workspaces` adds it), copies that make an input contiguous,
buffers of reductions. Storages that are resized in place keep their first size.
`StepTimeline.unmodeled` names operators whose CUDA implementation allocates otherwise, and
hooks on saved tensors, with which activations are recomputed or moved away. Scalars that
an optimizer keeps on the host are not counted for CUDA.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from ninlab.errors import UnknownNameError
from ninlab.reports import Category, MemoryEvent, Phase, SavedTensor
from ninlab.resources.cuda import FUSED_ATTENTION, as_on_cuda
from ninlab.resources.loss import cross_entropy, labels_for, scores_of, tensors_of
from ninlab.resources.modules import Subject, in_mode, meta_copy
from ninlab.resources.observer import counts_of_sole_owner
from ninlab.resources.recorder import KernelCall, Recorder
from ninlab.resources.saved import LOSS

OptimizerFactory = Callable[[list[nn.Parameter]], torch.optim.Optimizer]

# CUDA's default is the implementation on lists of tensors; on meta it has to be asked for.
OPTIMIZERS: Mapping[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": partial(torch.optim.SGD, lr=0.1, foreach=True),
    "momentum": partial(torch.optim.SGD, lr=0.1, momentum=0.9, foreach=True),
    "adam": partial(torch.optim.Adam, lr=1e-3, foreach=True),
}
"""The optimizers by name; each takes the parameters and, if wanted, weight_decay."""


@dataclass(frozen=True)
class StepTimeline:
    """One warm step at one batch size: every allocation and release, in order.

    saved is what autograd keeps between forward and backward, calls are the convolutions
    and matrix products, flops is by phase what torch's own formulas count (2 a MAC, whole
    batch), unmodeled the calls of operators that allocate otherwise on CUDA.
    """

    batch_size: int
    events: tuple[MemoryEvent, ...]
    saved: tuple[SavedTensor, ...]
    calls: tuple[KernelCall, ...]
    flops: Mapping[Phase, int]
    unmodeled: Mapping[str, int]


def trace_step(
    subject: Subject,
    batch_size: int,
    optimizer: str | OptimizerFactory = "sgd",
    *,
    autocast: bool = False,
    training: bool = True,
    weight_decay: float = 0.0,
    channels_last: bool = False,
    on_cuda: bool = True,
) -> StepTimeline:
    """The timeline of one warm training step, or of one prediction without gradients.

    optimizer is a name of `OPTIMIZERS` or makes an optimizer of the parameters. With
    on_cuda the choices are CUDA's and host memory is left out; without it they are the
    CPU's, so that the step can be compared with a real one.
    Raises UnknownNameError for another optimizer.
    """
    if isinstance(optimizer, str):
        if optimizer not in OPTIMIZERS:
            raise UnknownNameError("optimizer", optimizer, OPTIMIZERS)
        make_optimizer: OptimizerFactory = partial(OPTIMIZERS[optimizer], weight_decay=weight_decay)
    else:
        make_optimizer = optimizer
    module, images = subject.module, subject.images(batch_size)
    if channels_last:
        module = meta_copy(module).to(memory_format=torch.channels_last)
        images = images.contiguous(memory_format=torch.channels_last)
    counts_of_sole_owner()  # read once, before anything is recorded
    recorder = Recorder(count_host=not on_cuda)
    choices = partial(_choices, on_cuda=on_cuda, autocast=autocast)
    with in_mode(module, training=training), _gradients_of(module):
        if training:
            _train(module, images, make_optimizer, recorder, choices)
        else:
            _predict(module, images, recorder, choices)
    events, calls = recorder.events_and_calls()
    return StepTimeline(
        batch_size=batch_size,
        events=events,
        saved=recorder.saved,
        calls=calls,
        flops=dict(recorder.flops),
        unmodeled=dict(recorder.unmodeled),
    )


# ---------------------------------------------------------------- the step


def _train(
    module: nn.Module,
    images: Tensor,
    make_optimizer: OptimizerFactory,
    recorder: Recorder,
    choices: Callable[..., AbstractContextManager[Counter[str]]],
) -> None:
    learning = [own for own in module.parameters() if own.requires_grad]
    optimizer = make_optimizer(learning) if learning else None
    for parameter in learning:
        parameter.grad = torch.empty_like(parameter)
    if optimizer is not None:
        optimizer.step()  # makes the state that a warm step finds
    recorder.adopt_module(module)
    recorder.adopt(images, Category.INPUT)
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            owner = name.rpartition(".")[0]
            recorder.adopt(parameter.grad, Category.GRADIENT, owner, of=parameter)
            for state in optimizer.state[parameter].values() if optimizer else ():
                recorder.adopt(state, Category.OPTIMIZER_STATE, owner, of=parameter)
    with recorder:
        recorder.phase = Phase.ZERO_GRAD
        if optimizer is not None:
            optimizer.zero_grad(set_to_none=True)
        with choices() as recorder.unmodeled:
            recorder.phase = Phase.FORWARD
            with recorder.layers.watch(module, recorder.enter_layer):
                output = module(images)
            recorder.phase = Phase.LOSS
            recorder.enter_layer(LOSS)
            with recorder.paused():
                scores = scores_of(output)
                labels = labels_for(scores)
            for target in {id(each): each for each in labels}.values():
                recorder.adopt(target, Category.INPUT)
            loss = cross_entropy(scores, labels)
        if loss.requires_grad:
            with choices(backward=True):
                recorder.backward(loss, module)
        recorder.phase = Phase.STEP
        recorder.enter_layer("")
        if optimizer is not None:
            optimizer.step()
        recorder.inherit((*tensors_of(output), loss))
    for parameter in learning:
        if parameter.grad is None:  # takes no part in this step, so never had a gradient or state
            recorder.forget(parameter)
        else:
            recorder.is_gradient(parameter.grad)


def _predict(
    module: nn.Module,
    images: Tensor,
    recorder: Recorder,
    choices: Callable[..., AbstractContextManager[Counter[str]]],
) -> None:
    recorder.adopt_module(module)
    recorder.adopt(images, Category.INPUT)
    with recorder, torch.no_grad():
        recorder.phase = Phase.FORWARD
        with (
            choices() as recorder.unmodeled,
            recorder.layers.watch(module, recorder.enter_layer),
        ):
            output = module(images)
        recorder.inherit(tensors_of(output))
    if torch.backends.mha.get_fastpath_enabled():
        fused = sum(isinstance(each, nn.MultiheadAttention) for each in module.modules())
        recorder.unmodeled += Counter({FUSED_ATTENTION: fused})


@contextmanager
def _gradients_of(module: nn.Module) -> Iterator[None]:
    """Take the gradients off the copy again when the step is over."""
    try:
        yield
    finally:
        for parameter in module.parameters():
            parameter.grad = None


def _choices(
    *, on_cuda: bool, autocast: bool, backward: bool = False
) -> AbstractContextManager[Counter[str]]:
    """The device's choices; yields the calls of operators that it makes otherwise."""
    if not on_cuda:
        return nullcontext(Counter[str]())
    return as_on_cuda(autocast=autocast, backward=backward)
