"""Which module is meant, and what does it look like without its weights?

Everything that `resources` counts, it counts on a copy on the meta device: tensors
with a shape, a layout and a dtype but no memory. The reader's module is read, never
run: its weights, buffers, mode, hooks, attributes and torch's random state stay as
they were.

Known limits. Forward hooks belong to a module's behavior: they are copied with it and
run on the copy, so a hook that writes to an outer list writes meta tensors there. Hooks on
the gradients of parameters are not; `StepTimeline.unmodeled` tells of them. A network whose
control flow reads tensor values cannot run without values; it is refused with the operator's
name. Every weight and buffer of the copy has a storage of its own, as after ``module.to`` of
a GPU: views of one storage share none, and what was expanded is dense.
"""

from __future__ import annotations

import copy
import inspect
import random
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy as waits_for_shape
from torch.overrides import TorchFunctionMode

from ninlab import networks
from ninlab.errors import NinlabError, ShapeError
from ninlab.fused import fuse
from ninlab.resources import sources
from ninlab.resources.strangers import at_work, quoted, said
from ninlab.torch_private import has_gradient_hooks, uncompiled
from ninlab.units import Shape, format_shape

PROBED_SIZES = (28, 32, 64, 96, 128, 224, 227, 256, 299, 384, 512, 1024)
"""Heights and widths tried, after doubling, to name an input that a network can read."""


@dataclass(frozen=True)
class Subject:
    """A network on the meta device, and the images it is to read."""

    name: str
    module: nn.Module
    input_shape: Shape
    gradient_hooks: int = 0  # parameters whose gradients have hooks, which are not copied
    memory_format: torch.memory_format = torch.contiguous_format  # of its images
    is_joined: bool = False  # layers of it are computed together

    def images(self, batch_size: int, *, autocast: bool = False) -> Tensor:
        """A batch of (channels, height, width) images without memory.

        In float32; for joined layers under bfloat16 autocast in bfloat16, as `training` picks them.
        """
        dtype = torch.bfloat16 if autocast and self.is_joined else torch.float32
        images = torch.empty(batch_size, *self.input_shape, dtype=dtype, device="meta")
        return images.contiguous(memory_format=self.memory_format)


def load(module_or_name: nn.Module | str | Subject, input_shape: Shape | None = None) -> Subject:
    """The network on the meta device, ready to run on images of input_shape.

    module_or_name is a module, the name of a network of the book, ``package.module:factory``
    or ``path.py:factory``, where factory is a module or makes one without arguments.
    Networks of the book bring their own input shape, all others need one. Each call imports and
    builds anew; a subject, which has been loaded, comes back as it is.
    Raises UnknownNetworkError, NinlabError for what cannot be imported, built or run, and
    ShapeError for an input that the network cannot read, with one that it can.
    """
    if input_shape is not None:
        input_shape = _checked(input_shape)
    if isinstance(module_or_name, Subject):
        if input_shape in (None, module_or_name.input_shape):
            return module_or_name
        raise ShapeError(
            f"{module_or_name.name} is loaded for {format_shape(module_or_name.input_shape)}, not "
            f"for {format_shape(input_shape)}; load it again for that"
        )
    if not isinstance(module_or_name, str):
        name = type(module_or_name).__name__
        with at_work(name):
            return _subject(name, module_or_name, input_shape)
    name = module_or_name
    with at_work(name):
        if sources.names_a_source(name):
            return _subject(name, sources.build(name), input_shape)
        return Subject(name, *networks.on_meta(name, input_shape))


def joined(subject: Subject, kernels: str) -> Subject:
    """The subject with those layers joined that these kernels compute together (`ninlab.fused`).

    It is laid out in channels_last then, as joined layers leave their maps, and reads images in
    the type in which it computes. The subject itself where nothing is joined. Raises
    UnknownNameError for other kernels.
    """
    twin = fuse(subject.module, kernels)
    if twin is subject.module:
        return subject
    is_of_maps = len(subject.input_shape) == 3
    return replace(
        subject,
        module=in_channels_last(meta_copy(twin)),
        memory_format=torch.channels_last if is_of_maps else torch.contiguous_format,
        is_joined=True,
    )


def _subject(name: str, module: object, input_shape: Shape | None) -> Subject:
    """A copy of a module of others that has run once. Raises as `load` does."""
    if not isinstance(module, nn.Module):
        raise NinlabError(
            f"{name!r} is a {type(module).__name__}, no torch.nn.Module; name a module, its class, "
            "or a function without arguments that returns one"
        )
    _check_kinds(name, module)
    if (original := uncompiled(module)) is not module:
        name, module = type(original).__name__, original
    if getattr(module.forward, "__func__", None) is nn.Module.forward:
        raise NinlabError(f"{name} has no forward method, so that there is nothing to count")
    for parameter in module.parameters():
        if parameter.is_floating_point() and parameter.dtype is not torch.float32:
            raise NinlabError(
                f"{name} has {str(parameter.dtype).removeprefix('torch.')} weights; give it "
                "float32 weights (module.float()) and choose the precision of the step instead"
            )
    if input_shape is None:
        raise ShapeError(f"{name} needs an input shape; for example 3x224x224")
    hooked = sum(map(has_gradient_hooks, module.parameters()))
    subject = Subject(name, meta_copy(module), input_shape, hooked)
    _check_that_it_runs(subject)
    return subject


def _check_kinds(name: str, module: nn.Module) -> None:
    """Raises NinlabError for a module inside that is none, or that hides its operators."""
    for path, each in module.named_modules():
        which = f"module {path!r} of {name}" if path else name
        if isinstance(each, torch.jit.ScriptModule):
            raise NinlabError(
                f"{which} is compiled by TorchScript, which hides its operators; give the module "
                "that it was made from"
            )
        if "_modules" not in vars(each):
            raise NinlabError(
                f"{which} has not called super().__init__(), which makes it a torch.nn.Module"
            )


def _checked(input_shape: Sequence[int]) -> Shape:
    """The shape as a tuple. Raises ShapeError where it is no list of numbers above zero."""
    if (
        isinstance(input_shape, Sequence)
        and input_shape
        and all(isinstance(size, int) and size > 0 for size in input_shape)
    ):
        return tuple(input_shape)
    raise ShapeError(
        f"input shape {input_shape!r} must be whole numbers of at least 1, as (3, 224, 224)"
    )


# ---------------------------------------------------------------- copies without memory


class _MetaDeepCopy(TorchFunctionMode):
    """Lets ``copy.deepcopy`` copy the shape of a tensor in place of its values."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func is Tensor.__deepcopy__:
            tensor, memo = args
            return memo.setdefault(id(tensor), _meta_like(tensor))
        return func(*args, **(kwargs or {}))


def _meta_like(tensor: Tensor) -> Tensor:
    kind: Any = type(tensor)
    if waits_for_shape(tensor):
        grad = {"requires_grad": tensor.requires_grad} if isinstance(tensor, nn.Parameter) else {}
        lazy: Tensor = kind(**grad, device="meta", dtype=tensor.dtype)
        return lazy
    like = torch.empty_like(tensor, device="meta", requires_grad=False)
    if isinstance(tensor, nn.Parameter):
        return nn.Parameter(like, tensor.requires_grad)
    return like.requires_grad_(tensor.requires_grad)


def meta_copy(module: nn.Module) -> nn.Module:
    """The same module on the meta device, without the memory of its weights.

    Modules, names, mode, hooks and tied parameters are those of the original; lazy
    parameters stay lazy. Random generators are shared: on the meta device nothing is drawn.
    Raises NinlabError for a module that holds what Python cannot copy.
    """
    memo: dict[int, Any] = {id(own): _meta_like(own) for own in _tensors(module)}
    for each in module.modules():
        memo |= {id(own): own for own in vars(each).values() if isinstance(own, torch.Generator)}
    try:
        with _MetaDeepCopy():
            copied = copy.deepcopy(module, memo)
        if copied is module or not isinstance(copied, nn.Module):
            raise TypeError(f"its __deepcopy__ gives {type(copied).__name__}, no copy")
    except Exception as error:  # whatever a __deepcopy__ or __reduce__ of anybody's may raise
        raise NinlabError(
            f"{type(module).__name__} cannot be copied to the meta device: {quoted(error)}"
        ) from error
    return copied


def in_channels_last(module: nn.Module) -> nn.Module:
    """The module itself, in which all that is of maps, weights above all, lies in channels_last.

    ``Module.to`` would refuse a module that has weights in five dimensions, too.
    """
    for own in _tensors(module):
        if own.dim() == 4:
            # Not contiguous(): it takes the strides of a single channel for both layouts.
            own.data = own.data.to(memory_format=torch.channels_last)
    return module


def _tensors(module: nn.Module) -> Iterator[Tensor]:
    yield from module.parameters()
    yield from module.buffers()


def is_lazy(module: nn.Module) -> bool:
    """Whether the module still waits for its first input to know its shapes."""
    return any(waits_for_shape(own) for own in _tensors(module))


@contextmanager
def in_mode(module: nn.Module, *, training: bool) -> Iterator[None]:
    """The copy in training or evaluation mode.

    Afterwards each submodule is as it was, and so are the random states of the host.
    """
    before = [(each, each.training) for each in module.modules()]
    chance, python_chance = torch.get_rng_state(), random.getstate()
    module.train(training)
    try:
        yield
    finally:
        for each, mode in before:
            each.training = mode
        torch.set_rng_state(chance)
        random.setstate(python_chance)


# ---------------------------------------------------------------- inputs that do not fit


def _check_that_it_runs(subject: Subject) -> None:
    """Run the copy once on one image; this also gives lazy parameters their shapes."""
    try:
        _dry_run(subject.module, subject.input_shape)
    except NinlabError:
        raise
    except Exception as error:
        raise refusal(subject, error) or ShapeError(
            f"{subject.name} cannot read {format_shape(subject.input_shape)}: "
            f"{quoted(error)}{_hint(subject)}"
        ) from error
    if is_lazy(subject.module):
        _give_shapes_by_training(subject)


def _give_shapes_by_training(subject: Subject) -> None:
    """Run a copy that has lazy layers for training only. Raises NinlabError for unused ones."""
    try:
        with in_mode(subject.module, training=True):
            subject.module(subject.images(2))  # of one alone, batch normalization has no variance
    except Exception as error:
        raise refusal(subject, error) or NinlabError(
            f"{subject.name} has lazy layers that are used in training only, and cannot be run "
            f"in training: {quoted(error)}"
        ) from error
    for path, own in (*subject.module.named_parameters(), *subject.module.named_buffers()):
        if waits_for_shape(own):
            raise NinlabError(
                f"{subject.name} never uses {path!r}, which is lazy and so has no shape yet; "
                "give it one, or leave it out"
            )


def refusal(subject: Subject, error: Exception) -> NinlabError | None:
    """What the module does that cannot be done without values, if the error tells so."""
    says = said(error)
    for pattern, does, advice in _REFUSED:
        if re.search(pattern, says):
            return NinlabError(f"{subject.name} {does}: {quoted(error)}{advice}")
    if isinstance(error, NotImplementedError) or re.search(r"\bmeta\b", says):
        return NinlabError(
            f"{subject.name} cannot be counted without running it, because what it does "
            f"depends on values: {quoted(error)}"
        )
    return None


_REFUSED = (
    (
        "scalar types: Long, Int",
        "reads indices, and images are float32",
        "; give the part of it that follows the embedding",
    ),
    (
        "device meta!|on the same device|but got meta",
        "makes tensors elsewhere than its input is",
        "; make them with device=images.device, or register them: as buffers, parameters, modules",
    ),
    (
        "autocast device_type",
        "enters autocast for the device of its input, which is none here",
        "; let it do without, and choose the precision of the step instead",
    ),
    (
        "does not require grad",
        "takes gradients in its forward pass, and a prediction has none",
        "; let it take them in training only",
    ),
    ("set_data", "sets the data of a weight in its forward pass", "; let it copy_ into the weight"),
    ("SparseTensorImpl", "makes sparse tensors, whose memory depends on values", ""),
)
"""What torch says where a module cannot be counted, what the module does, and what helps."""


def _dry_run(module: nn.Module, input_shape: Shape) -> None:
    with torch.no_grad(), in_mode(module, training=False):
        output = module(torch.empty(1, *input_shape, device="meta"))
    if inspect.iscoroutine(output):
        output.close()  # or Python warns that nobody has awaited it
        raise NinlabError(f"the forward method of {type(module).__name__} is async; make it plain")


def _hint(subject: Subject) -> str:
    """What to write instead, found by trying: fewer or more channels, then other sizes."""
    channels, *size = subject.input_shape
    if is_lazy(subject.module):  # a failed try may have fixed some shapes and not others
        return ""
    for module in subject.module.modules():
        expected = vars(module).get("in_channels")
        if isinstance(expected, int):
            if expected != channels and _runs(subject.module, (expected, *size)):
                return (
                    f"; it reads {expected} channels, not {channels}: "
                    f"try {format_shape((expected, *size))}"
                )
            channels = expected
            break
    smallest = _smallest_size(subject.module, channels, min(size, default=1))
    return f"; the smallest input that works is {format_shape(smallest)}" if smallest else ""


def _smallest_size(module: nn.Module, channels: int, too_small: int) -> Shape | None:
    def runs(size: int) -> bool:
        return _runs(module, (channels, size, size))

    doubled = (too_small * 2**k for k in range(1, 12) if too_small * 2**k <= PROBED_SIZES[-1])
    works = next((size for size in (*doubled, *PROBED_SIZES) if runs(size)), None)
    if works is None:
        return None
    low, high = 0, works  # sizes below the smallest fail: windows do not fit, features do not match
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if runs(middle) else (middle, high)
    return (channels, high, high)


def _runs(module: nn.Module, input_shape: Shape) -> bool:
    try:
        with at_work(type(module).__name__):
            _dry_run(module, input_shape)
    except NinlabError:
        return False
    return True
