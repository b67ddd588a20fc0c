"""How long does each operator of the training loop's step take here? torch's profiler, read.

Some epochs of a few steps are timed without a profiler, called operator by operator and, on a GPU,
replayed as one graph. A last epoch of called steps is profiled. Its first step is left out, because
what belongs to the whole epoch is called around it.

On a GPU the time of an operator is that of the kernels and copies that it launched; on a CPU it is
the time inside of it. `profiles` joins the events with the roofline and keeps what comes of it.

Known limits. A replayed graph calls no operators, so that only called steps have a profile. Their
kernels are the same. Who profiles several networks in one process times all but the first when the
profiler has been used there before.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from math import fsum

import torch
from torch.autograd.profiler_util import FunctionEvent
from torch.profiler import record_function

from ninlab.architectures import architecture
from ninlab.data import LabeledImages
from ninlab.environment import arithmetic
from ninlab.errors import NinlabError, shortened
from ninlab.networks import build
from ninlab.profiles import (
    LONGEST_NAME,
    NAMESPACES,
    NO_OPERATOR,
    Event,
    KernelTime,
    OperatorTime,
    Place,
    Setting,
    joined,
    step_operators,
)
from ninlab.recipes import Recipe
from ninlab.torch_private import is_whole, profile_of_operators, seen_by_profilers
from ninlab.training import Engine

TIMED_EPOCHS = 3
"""Of which the fastest counts: other work on the machine disturbed it least."""

_LEARNING_RATE = 0.01  # of plain SGD; no kernel takes longer for another one
_STEP_TAKEN = "ninlab: a step is taken"
_OWN = "ninlab"  # the namespace of fused operators


@dataclass(frozen=True)
class Profile:
    """What a step takes; `profiles.StepProfile` says what each number is."""

    profiled_steps: int
    called_seconds: float
    graph_seconds: float | None
    operators: tuple[OperatorTime, ...]

    @property
    def device_seconds(self) -> float:
        """Of all operators together."""
        return fsum(operator.seconds for operator in self.operators)


def profiled(setting: Setting, images: LabeledImages, steps: int) -> Profile:
    """The profile of a training step, in epochs of so many steps on the device of the images.

    images are at their own size. On a CPU plain torch stands in for fused kernels. Raises
    NinlabError for a network that there is not, for fewer than two steps, for more than there are
    images for, and where the profiler sees no kernel of a GPU.
    """
    batch_size, precision = setting.batch_size, setting.precision
    if steps < 2:
        raise NinlabError(f"an epoch of {steps} step has none after its first; take 2 or more")
    if len(images) < steps * batch_size:
        raise NinlabError(
            f"{steps} steps take {steps * batch_size:,} images, but there are {len(images):,}; "
            "take fewer steps or a smaller batch"
        )
    network = architecture(setting.network)
    operators = step_operators(setting)
    training = images.take(slice(steps * batch_size)).resized(network.input_shape[-1])
    epochs = TIMED_EPOCHS + 2  # one before them and one after
    recipe = Recipe(_LEARNING_RATE, epochs, batch_size=batch_size, precision=precision)
    device = training.images.device

    def engine(*, use_graph: bool) -> Engine:
        module = build(network, seed=0).to(device).to(memory_format=torch.channels_last)
        return Engine(
            module, training, recipe, seed=0, use_graph=use_graph, kernels=setting.kernels
        )

    with arithmetic(precision, benchmark=True):
        called = engine(use_graph=False)
        called_seconds = _fastest(called)
        graph_seconds = None
        if device.type == "cuda":
            replayed = engine(use_graph=True)
            graph_seconds = None if replayed.graph is None else _fastest(replayed)
            del replayed
        events = _profiled_epoch(called)  # last: what a profiler leaves behind may take time
    of_steps = [*_steps(events)]
    return Profile(
        profiled_steps=len(of_steps),
        called_seconds=called_seconds,
        graph_seconds=graph_seconds,
        operators=(*joined(operators, of_steps), *_of_no_operator(events, steps)),
    )


def _fastest(engine: Engine) -> float:
    """Seconds of a step in the fastest of the timed epochs, which an untimed one comes before."""
    engine.epoch()
    seconds = []
    for _ in range(TIMED_EPOCHS):
        start = time.perf_counter()
        engine.epoch()
        seconds.append(time.perf_counter() - start)
    return min(seconds) / engine.steps_an_epoch


def _profiled_epoch(engine: Engine) -> list[FunctionEvent]:
    """What torch's profiler saw of one epoch, with a mark behind each step.

    Raises NinlabError where it saw nothing of a GPU.
    """
    on_gpu = engine.training.images.is_cuda

    def mark(_: int) -> None:
        with record_function(_STEP_TAKEN):
            pass

    with seen_by_profilers(_OWN), profile_of_operators(on_gpu=on_gpu) as watched:
        engine.epoch(mark)  # which waits for the device before it returns
    events = [*watched.events()]
    if on_gpu and not any(map(_is_of_a_gpu, events)):
        raise NinlabError(
            "torch's profiler saw no kernel of the GPU; it needs CUPTI, and the right to use it"
        )
    return events


# ---------------------------------------------------------------- torch's events


def _steps(events: Sequence[FunctionEvent]) -> Iterator[list[Event]]:
    """The outermost events of each step but the first, in order: those between two marks.

    They may be of several threads: on a GPU autograd's own thread calls the operators of the way
    back while the one that called it waits.
    """
    on_gpu = any(map(_is_of_a_gpu, events))
    outermost = [event for event in events if _is_of_the_host(event) and event.cpu_parent is None]
    step: list[Event] | None = None  # before the first mark there is none
    for event in sorted(outermost, key=lambda event: event.time_range.start):
        if event.name == _STEP_TAKEN:
            if step is not None:
                yield step
            step = []
        elif step is not None:
            step.append(_event(event, on_gpu=on_gpu))


def _event(event: FunctionEvent, *, on_gpu: bool) -> Event:
    """The event with all inside it, and of the device's time what is its own.

    Inside an operator with kernels of its own is nothing: what those call belongs to it, as it does
    for the roofline.
    """
    kernels = tuple(
        (kernel.name, kernel.duration / 1e6)
        for kernel in event.kernels
        if kernel.name != event.name  # the span of torch's own mark on the device's timeline
    )
    own = fsum(seconds for _, seconds in kernels)
    if not on_gpu:
        own = max(0.0, event.self_cpu_time_total / 1e6)
    inside = tuple(_event(child, on_gpu=on_gpu) for child in event.cpu_children)
    operator = f"{event.name}.{event.overload_name or ''}".rstrip(".")
    if not (event.name.startswith(NAMESPACES) and is_whole(operator)):
        return Event(event.name, own, kernels, inside)
    parts = [one for child in inside for one in child.all()]
    return Event(
        event.name,
        fsum([own, *(one.seconds for one in parts)]),
        (*kernels, *chain.from_iterable(one.kernels for one in parts)),
    )


def _of_no_operator(events: Sequence[FunctionEvent], steps: int) -> Iterator[OperatorTime]:
    """The kernels of an epoch of so many steps that no event of the host launched, if any did."""
    ran = Counter(
        (event.name, event.time_range.end - event.time_range.start)
        for event in filter(_is_of_a_gpu, events)
    )
    ran -= Counter(
        (kernel.name, kernel.duration)
        for event in filter(_is_of_the_host, events)
        for kernel in event.kernels
    )
    took: defaultdict[str, list[float]] = defaultdict(list)
    for name, microseconds in ran.elements():
        took[shortened(name, LONGEST_NAME)].append(microseconds / 1e6)
    kernels = [
        KernelTime(name, len(each) / steps, fsum(each) / steps) for name, each in took.items()
    ]
    if kernels:
        yield OperatorTime(
            NO_OPERATOR, Place.UNCOUNTED, layer=None, phase=None,
            calls=fsum(kernel.calls for kernel in kernels),
            seconds=fsum(kernel.seconds for kernel in kernels),
            work=(),
            kernels=tuple(sorted(kernels, key=lambda kernel: -kernel.seconds)),
        )  # fmt: skip


def _is_of_the_host(event: FunctionEvent) -> bool:
    """Whether it is an operator, a node of autograd, a mark or a call of CUDA's runtime."""
    return event.device_type.name == "CPU" and not event.is_async


def _is_of_a_gpu(event: FunctionEvent) -> bool:
    """Whether it is a kernel or a copy."""
    return event.device_type.name == "CUDA" and not event.is_user_annotation
