"""Which bytes are alive when, in one training step of any module?

A whole step (zero_grad, forward, cross-entropy, backward, optimizer) runs on the meta
device, while `recorder` writes down every allocation and release. The engine, autograd and
the optimizer are torch's own; nothing is modeled but what depends on the device, which
`cuda` imposes. The step is a warm one: optimizer state and the gradients of the step before
exist when it begins, and the scores and the loss of the step before are held by the training
loop until this one has returned its own. One run of the step tells all of that, unless the
module itself keeps tensors from step to step, such as its last attention map: then the step
is run once more, and finds them.

Known limits. A timeline sees tensors, those inside CUDA's operators as far as `temporaries`
knows them. It does not see scratch, which `scratch` adds. Storages that are resized in place keep
their first size. A module
that runs otherwise from call to call, by chance or by a count of its own, is recorded in one
of its courses. `StepTimeline.unmodeled` names operators whose CUDA implementation allocates
otherwise, hooks on saved tensors, with which activations are recomputed or moved away, hooks
on gradients, which are not run, and chance. Scalars that an optimizer keeps on the host are
not counted for CUDA.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ninlab.errors import NinlabError
from ninlab.optimizers import make
from ninlab.reports import Category, MemoryEvent, Phase, SavedTensor
from ninlab.resources.cuda import FUSED_ATTENTION, as_on_cuda
from ninlab.resources.loss import cross_entropy, labels_for, scores_of, tensors_of
from ninlab.resources.modules import Subject, in_channels_last, in_mode, meta_copy, refusal
from ninlab.resources.observer import counts_of_sole_owner
from ninlab.resources.recorder import KernelCall, Recorder
from ninlab.resources.shortcuts import Shortcuts
from ninlab.resources.strangers import at_work, quoted
from ninlab.steps import LOSS, Optimizer, named
from ninlab.torch_private import check
from ninlab.units import format_shape

OptimizerFactory = Callable[[list[nn.Parameter]], torch.optim.Optimizer]
Choices = Callable[..., AbstractContextManager[Counter[str]]]

GRADIENT_HOOKS = "gradient_hooks"
CHANCE = "random_numbers_of_the_host"
"""What can make a step other than the traced one, beside operators: see `StepTimeline`."""


@dataclass(frozen=True)
class StepTimeline:
    """One warm step at one batch size: every allocation and release, in order.

    saved is what autograd keeps between forward and backward, calls are the convolutions,
    matrix products and reductions, flops is by phase what torch's own formulas count (2 a MAC,
    whole batch), unmodeled the calls of operators that allocate otherwise on CUDA, the parameters
    with hooks on their gradients, and whether the module drew random numbers on the host.
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
    weight_decay: float | None = None,
    channels_last: bool = False,
    on_cuda: bool = True,
) -> StepTimeline:
    """The timeline of one warm training step, or of one prediction without gradients.

    optimizer is one of `steps.Optimizer`, with torch's own weight decay unless one is given, or
    makes an optimizer of the parameters. With
    on_cuda the choices are CUDA's and host memory is left out; without it they are the
    CPU's, without autocast, so that the step can be compared with a real one. Images are those of
    `Subject.images`.
    Raises UnknownNameError for another optimizer, and NinlabError for a step that the module
    cannot take, with one that it can if one is near, and where this torch lacks what tracing needs.
    """
    decay: dict[str, Any] = {} if weight_decay is None else {"weight_decay": weight_decay}
    make_optimizer = (
        partial(make, named(Optimizer, optimizer), **decay)
        if isinstance(optimizer, str)
        else optimizer
    )
    check()
    counts_of_sole_owner()  # read once, before anything is recorded
    chance = _random_state()
    choices = partial(_choices, on_cuda=on_cuda, autocast=autocast)
    with (
        at_work(subject.name),
        _explained(subject, batch_size, autocast=autocast, training=training),
    ):
        module, memory_format = _laid_out(subject, channels_last=channels_last)
        with in_mode(module, training=training), _gradients_of(module):
            images = subject.images(batch_size, autocast=autocast and on_cuda)
            images = images.contiguous(memory_format=memory_format)
            take: Callable[..., list[Any]] = partial(_predict, module, images, choices)
            if training:
                warm = _warm_optimizer(module, make_optimizer)
                take = partial(_train, module, images, choices, *warm)
            recorder = _record(take, subject.name, count_host=not on_cuda)
            unmodeled = recorder.unmodeled + Counter(
                {GRADIENT_HOOKS: subject.gradient_hooks, CHANCE: int(_random_state() != chance)}
            )
    events, calls = recorder.events_and_calls()
    return StepTimeline(
        batch_size=batch_size,
        events=events,
        saved=recorder.saved,
        calls=calls,
        flops=dict(recorder.flops),
        unmodeled=dict(unmodeled),
    )


# ---------------------------------------------------------------- the step


def _record(take: Callable[..., list[Any]], name: str, *, count_host: bool) -> Recorder:
    """A warm step: the second one, if the module keeps tensors of the first."""
    recorder = Recorder(count_host=count_host)
    left = take(recorder, [])  # held until the next step is over, as the training loop does
    if recorder.leaves_what_it_found():
        return recorder
    recorder = Recorder(count_host=count_host, before=recorder)
    left = take(recorder, left)
    if recorder.leaves_what_it_found():
        return recorder
    raise NinlabError(
        f"{name} keeps other tensors after each step than it found before it, so that no two "
        "steps cost the same; let it drop what it kept"
    )


def _laid_out(subject: Subject, *, channels_last: bool) -> tuple[nn.Module, torch.memory_format]:
    """The module, or a copy of it in channels_last, and the memory format of its images."""
    if not channels_last:
        return subject.module, subject.memory_format
    if len(subject.input_shape) != 3:
        raise NinlabError(
            "channels_last is an order of images, (channels, height, width), and no order of "
            f"{format_shape(subject.input_shape)}"
        )
    return in_channels_last(meta_copy(subject.module)), torch.channels_last


def _warm_optimizer(
    module: nn.Module, make_optimizer: OptimizerFactory
) -> tuple[torch.optim.Optimizer | None, bool]:
    """The optimizer of what learns, with the gradients and the state that a warm step finds.

    And whether it had its state at once, before the first step. None where nothing learns.
    """
    learning = [own for own in module.parameters() if own.requires_grad]
    if not learning:
        return None, False
    optimizer = make_optimizer(learning)
    has_state_at_once = bool(optimizer.state)
    for parameter in learning:
        parameter.grad = torch.empty_like(parameter)
    with Shortcuts():
        optimizer.step()
    return optimizer, has_state_at_once


def _train(
    module: nn.Module,
    images: Tensor,
    choices: Choices,
    optimizer: torch.optim.Optimizer | None,
    has_state_at_once: bool,
    recorder: Recorder,
    before: list[Any],
) -> list[Any]:
    """Take a step; before is what the step before returned, its scores and loss, if there was one.

    It is let go of when this step is over.
    """
    learning = {name: own for name, own in module.named_parameters() if own.requires_grad}

    def adopt_state() -> None:
        for name, parameter in learning.items():
            for state in optimizer.state[parameter].values() if optimizer else ():
                owner = name.rpartition(".")[0]
                recorder.adopt(state, Category.OPTIMIZER_STATE, owner, of=parameter)

    recorder.adopt_module(module)
    if has_state_at_once:
        adopt_state()
    recorder.adopt(images, Category.INPUT)
    for name, parameter in learning.items():
        recorder.adopt(parameter.grad, Category.GRADIENT, name.rpartition(".")[0], of=parameter)
    if not has_state_at_once:
        adopt_state()
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
        recorder.let_go(before, like=(*tensors_of(output), loss))
    for parameter in learning.values():
        if parameter.grad is None:  # takes no part in this step, so never had a gradient or state
            recorder.forget(parameter)
        else:
            recorder.is_gradient(parameter.grad)
    return [output, loss]


def _predict(
    module: nn.Module,
    images: Tensor,
    choices: Choices,
    recorder: Recorder,
    before: list[Any],
) -> list[Any]:
    """Predict; before is what the prediction before returned, as for a training step."""
    recorder.adopt_module(module)
    recorder.adopt(images, Category.INPUT)
    with recorder, torch.no_grad():
        recorder.phase = Phase.FORWARD
        with (
            choices() as recorder.unmodeled,
            recorder.layers.watch(module, recorder.enter_layer),
        ):
            output = module(images)
        recorder.let_go(before, like=tensors_of(output))
    if torch.backends.mha.get_fastpath_enabled():
        fused = sum(isinstance(each, nn.MultiheadAttention) for each in module.modules())
        recorder.unmodeled += Counter({FUSED_ATTENTION: fused})
    return [output]


def _random_state() -> tuple[bytes, object]:
    """The state of the host's generators, which a module may ask whether to skip a layer."""
    return torch.get_rng_state().numpy().tobytes(), random.getstate()


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


# ---------------------------------------------------------------- steps that cannot be taken


@contextmanager
def _explained(
    subject: Subject, batch_size: int, *, autocast: bool, training: bool
) -> Iterator[None]:
    """Say what was tried when a step fails that one image in evaluation mode did not."""
    try:
        yield
    except NinlabError:
        raise
    except Exception as error:  # whatever a module of anybody's may raise
        raise refusal(subject, error) or NinlabError(
            f"{subject.name} cannot {'take a training step on' if training else 'predict'} "
            f"{batch_size} image(s) of {format_shape(subject.input_shape)} in "
            f"{'bf16' if autocast else 'fp32'}: {quoted(error)}"
            f"{_hint(subject, batch_size, autocast=autocast, training=training)}"
        ) from error


def _hint(subject: Subject, batch_size: int, *, autocast: bool, training: bool) -> str:
    """What to choose instead, found by trying: a second image, or another precision."""

    def works(batch_size: int, *, autocast: bool) -> bool:
        try:
            trace_step(subject, batch_size, autocast=autocast, training=training)
        except NinlabError:
            return False
        return True

    if batch_size == 1 and works(2, autocast=autocast):
        return "; a batch of 2 works"
    if autocast and works(batch_size, autocast=False):
        return "; fp32 works"
    return ""
