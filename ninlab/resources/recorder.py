"""Which storages come and go while torch runs, and what ran?

A dispatch mode sees every operator, a weak reference to every storage sees it die. What the
step is doing, and what was there before, `timeline` tells it.
"""

from __future__ import annotations

import gc
import weakref
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ninlab.reductions import Reduction
from ninlab.reports import Category, MemoryEvent, Phase, SavedTensor
from ninlab.resources import operators
from ninlab.resources.layers import LayerStack
from ninlab.resources.loss import tensors_of
from ninlab.resources.observer import BackwardPass
from ninlab.resources.partial_sums import partial_sums
from ninlab.resources.reduced import reductions_of
from ninlab.resources.saved import LayerMarks, saved_tensors
from ninlab.resources.shortcuts import result_on_meta
from ninlab.resources.temporaries import (
    INSIDE,
    Scratch,
    Temporary,
    as_on_cuda,
    attention_scratch,
    convolution_format,
    course,
    format_of,
)
from ninlab.steps import LOSS
from ninlab.torch_private import (
    DispatchMode,
    OpOverload,
    are_saved_tensors_hooked,
    qualified_name,
    running_node,
    storage_key,
)
from ninlab.workspaces import GEMM_OPERATORS, ConvCall, Direction


@dataclass(frozen=True, slots=True)
class KernelCall:
    """One call that takes scratch memory on CUDA: a convolution, a matrix product, a reduction.

    event is the place in the events where the call begins; a convolution gives
    one result for each of its directions (and then the bias gradient, if there is one), each
    computed in a memory format of its own. reductions says of each result what is reduced for it,
    None where nothing is. scratch_bytes is what the call itself tells, as fused attention does, or
    None where nobody knows; it is taken behind the first result and let go of behind the one of
    number scratch_until.
    """

    event: int
    operator: str
    phase: Phase
    layer: str
    convolution: ConvCall | None = None
    directions: tuple[Direction, ...] = ()
    memory_formats: tuple[str, ...] = ()  # of `workspaces.MEMORY_FORMATS`, one a direction
    reductions: tuple[Reduction | None, ...] = ()
    scratch_bytes: int | None = 0
    scratch_until: int = 0
    places: tuple[int, ...] = ()

    def place(self, result: int) -> int:
        """The event behind which comes the scratch of the call's result of that number.

        That is the result, or a temporary tensor that its kernel needs beside it.
        """
        return self.places[result] if result < len(self.places) else self.event + result


@dataclass(slots=True, eq=False)
class _Block:
    """One storage, from its allocation to its release."""

    bytes: int
    category: Category
    layer: str
    operator: str = ""
    born: int = 0  # number of the operator that allocated it; 0 before the step
    died: int | None = None  # number of the last operator before its release
    of: Tensor | None = None  # the parameter that a gradient or state belongs to


@dataclass(slots=True)
class _Change:
    """One allocation or release, and where the step stood."""

    allocates: bool
    block: _Block
    phase: Phase
    layer: str
    operator: str


_CONTAINERS = (dict, list, tuple)
_TO_COPY = torch.ops.aten._to_copy.default
_CONVOLUTION = torch.ops.aten.convolution.default
_BATCH_NORM = torch.ops.aten.native_batch_norm.default
_CONVOLUTION_BACKWARD = torch.ops.aten.convolution_backward.default


class Recorder(DispatchMode):
    """Writes down when storages come and go while it is entered."""

    def __init__(self, *, count_host: bool, before: Recorder | None = None) -> None:
        super().__init__()
        self.devices = ("meta", "cpu") if count_host else ("meta",)
        self._is_on_cuda = not count_host
        self.phase = Phase.SETUP
        self.layer = ""
        self.operator = ""
        self.layers = LayerStack()
        self.marks = LayerMarks()
        self.blocks: dict[int, _Block] = {}  # the living, by the address of their storage
        self.saved: tuple[SavedTensor, ...] = ()
        self.flops: Counter[Phase] = Counter()
        self.unmodeled: Counter[str] = Counter()
        self._references: dict[int, weakref.ref[torch.UntypedStorage]] = {}
        self._last: list[tuple[weakref.ref[torch.UntypedStorage], _Block]] = []
        self._before = before
        self._setup: list[_Block] = []
        self._log: list[_Change | KernelCall] = []
        self._operators = 0
        self._is_paused = False
        self._backward: BackwardPass | None = None  # while it runs

    def __enter__(self) -> Recorder:
        """Begin; what the step before left and nobody has adopted yet exists as well."""
        for reference, block in self._before._last if self._before else ():
            storage = reference()
            if storage is not None and storage_key(storage) not in self.blocks:
                kept = _Block(block.bytes, block.category, block.layer, block.operator)
                self._setup.append(kept)
                self._follow(storage, kept)
        super().__enter__()
        return self

    def __exit__(self, *exception: Any) -> None:
        """Leave; what is still alive is followed no longer."""
        super().__exit__(*exception)
        self._last = [
            (weakref.ref(storage), self.blocks[key])
            for key, reference in self._references.items()
            if (storage := reference()) is not None
        ]
        self._references.clear()

    # ------------------------------------------------ what the step tells

    def enter_layer(self, layer: str) -> None:
        """What follows in the forward pass is that layer's."""
        self.layer = layer
        self.marks.mark(layer)

    def adopt_module(self, module: nn.Module) -> None:
        """Parameters, buffers, and tensors in other attributes exist before the step."""
        for name, own in _in_order_of_moving(module):
            self.adopt(own, Category.PARAMETER, name)
        for name, each in module.named_modules():
            for value in vars(each).values():
                if isinstance(value, Tensor):
                    self.adopt(value, Category.PARAMETER, name)
                elif isinstance(value, _CONTAINERS) and value:
                    for own in tensors_of(value):
                        self.adopt(own, Category.PARAMETER, name)

    def adopt(
        self, value: object, category: Category, layer: str = "", *, of: Tensor | None = None
    ) -> None:
        """A tensor, if it is one, that exists before the step."""
        if not isinstance(value, Tensor) or value.device.type not in self.devices:
            return
        storage = value.untyped_storage()
        if storage_key(storage) not in self.blocks and storage.nbytes():
            block = _Block(storage.nbytes(), category, layer, of=of)
            self._setup.append(block)
            self._follow(storage, block)

    def leaves_what_it_found(self) -> bool:
        """Whether the next step would find blocks of the same sizes as this one did."""
        found = _sizes(self._setup)
        if found == _sizes(self._left()):
            return True
        gc.collect()  # what only a cycle of references holds, Python takes away now and then
        return found == _sizes(self._left())

    def _left(self) -> list[_Block]:
        return [block for reference, block in self._last if reference() is not None]

    def let_go(self, before: list[Any], like: Iterable[Tensor]) -> None:
        """The training loop drops what it held of the step before.

        If none was recorded, that was tensors like those that this step leaves.
        """
        if before:
            before.clear()
            return
        storages = dict.fromkeys(storage_key(each.untyped_storage()) for each in like)
        for block in [self.blocks[key] for key in storages if key in self.blocks]:
            if block.born:  # and not the module's own
                old = _Block(block.bytes, block.category, block.layer, block.operator)
                self._setup.append(old)
                self._log.append(_Change(False, old, self.phase, "", ""))

    def forget(self, parameter: Tensor) -> None:
        """The parameter never took part: it has no gradient and no state."""
        self._setup = [block for block in self._setup if block.of is not parameter]
        self._last = [(at, block) for at, block in self._last if block.of is not parameter]
        self._log = [
            entry
            for entry in self._log
            if isinstance(entry, KernelCall) or entry.block.of is not parameter
        ]

    def is_gradient(self, value: Tensor) -> None:
        """The tensor turned out to be the gradient of a parameter, or of its cast."""
        if block := self.blocks.get(storage_key(value.untyped_storage())):
            block.category = Category.GRADIENT

    @contextmanager
    def paused(self) -> Iterator[None]:
        """What is done here is no part of the step."""
        self._is_paused = True
        yield
        self._is_paused = False

    def backward(self, loss: Tensor, module: nn.Module) -> None:
        """Read what the forward pass left for it, then run the backward pass."""
        with self.paused():
            self.saved = saved_tensors(loss, module, self.marks, self.devices)
        self.phase, self.layer = Phase.BACKWARD, LOSS
        self._backward = BackwardPass(loss)
        loss.backward()  # type: ignore[no-untyped-call]
        self._backward = None

    def events_and_calls(self) -> tuple[tuple[MemoryEvent, ...], tuple[KernelCall, ...]]:
        """The setup, then every change in order, blocks numbered as they appear; and the calls."""
        numbers: dict[int, int] = {}
        events: list[MemoryEvent] = []
        calls: list[KernelCall] = []
        setup = (_Change(True, block, Phase.SETUP, block.layer, "") for block in self._setup)
        for entry in (*setup, *self._log):
            if isinstance(entry, KernelCall):
                here = len(events)
                places = tuple(here + offset for offset in entry.places)
                calls.append(replace(entry, event=here, places=places))
                continue
            block = entry.block
            temporary = block.category is Category.ACTIVATION and 0 < block.born == block.died
            events.append(
                MemoryEvent(
                    allocates=entry.allocates,
                    block=numbers.setdefault(id(block), len(numbers)),
                    constant_bytes=block.bytes,
                    bytes_per_image=0,
                    category=Category.TEMPORARY if temporary else block.category,
                    phase=entry.phase,
                    layer=entry.layer,
                    operator=entry.operator,
                )
            )
        return tuple(events), tuple(calls)

    # ------------------------------------------------ what the operators tell

    def __torch_dispatch__(
        self,
        func: OpOverload,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if self._is_paused:
            return func(*args, **kwargs)
        self._operators += 1
        self.operator = operators.base_name(func)
        if self.phase is Phase.FORWARD and are_saved_tensors_hooked():
            self.unmodeled["saved_tensors_hooks"] += 1
        if self._backward is not None:
            node = running_node()
            if node is not None:
                self.layer = self._layer_of(node)
                if self._backward.works_in_place(node, func, args):
                    if func in INSIDE:
                        self._see_results(INSIDE[func], args, args[0])
                    return args[0]
                if func is _TO_COPY and _makes_weight_gradient(node):
                    self.is_gradient(args[0])
        result = result_on_meta(func, args)
        if result is NotImplemented:
            result = func(*args, **kwargs)
        reductions = reductions_of(func, args, kwargs)
        noted = len(self._log)
        if func is _CONVOLUTION or func is _CONVOLUTION_BACKWARD:
            result = _laid_out_by_cudnn(func, args, result)
            convolution, directions = _convolution(func, args)
            formats = _memory_formats(func, args)
            self._note_call(convolution, directions, formats, reductions)
        elif self._is_on_cuda and (partial := partial_sums(func, args)):
            if partial.bytes is None:
                self.unmodeled[qualified_name(func)] += 1
            self._note_call(
                reductions=partial.sums, scratch_bytes=partial.bytes, scratch_until=partial.last
            )
        elif reductions or self.operator in GEMM_OPERATORS:
            self._note_call(reductions=reductions)
        elif self._is_on_cuda and (scratch := attention_scratch(func, args)):
            self._note_call(scratch_bytes=scratch)
        elif func is _BATCH_NORM and "cpu" in self.devices and not args[5]:
            # By the averages of training: the CPU puts out no statistics, CUDA has room for them.
            result = (result[0], *(each.new_empty(0) for each in result[1:]))
        self.flops[self.phase] += operators.torch_flops(func, args, kwargs, result) or 0
        if self._is_on_cuda:
            result = as_on_cuda(func, result)
        places = self._see_results(func, args, result)
        if places and len(self._log) > noted and isinstance(call := self._log[noted], KernelCall):
            self._log[noted] = replace(call, places=places)
        return result

    def _note_call(
        self,
        convolution: ConvCall | None = None,
        directions: tuple[Direction, ...] = (),
        memory_formats: tuple[str, ...] = (),
        reductions: tuple[Reduction | None, ...] = (),
        scratch_bytes: int | None = 0,
        scratch_until: int = 0,
    ) -> None:
        # Where its results come among the events is known when all of them are.
        self._log.append(
            KernelCall(
                event=-1,
                operator=self.operator,
                phase=self.phase,
                layer=self.layer,
                convolution=convolution,
                directions=directions,
                memory_formats=memory_formats,
                reductions=reductions,
                scratch_bytes=scratch_bytes,
                scratch_until=scratch_until,
            )
        )

    def _see_results(self, func: OpOverload, args: tuple[Any, ...], result: Any) -> tuple[int, ...]:
        """Write down what the call made, with what it made and dropped on CUDA.

        Where its rule is known, the events behind which its results' scratch comes are returned,
        counted from its own first one.
        """
        steps = course(func, args, result) if self._is_on_cuda else None
        if steps is None:
            for value in operators.flatten((result,)):
                self._see_tensor(value)
            return ()
        results = (result,) if isinstance(result, Tensor) else result
        first, behind = len(self._log), {}
        taken: dict[Temporary, _Block] = {}
        for step in steps:
            if isinstance(step, Temporary):
                block = taken.pop(step, None)
                allocates = block is None
                if block is None:
                    block = _Block(step.bytes, Category.TEMPORARY, self.layer, self.operator)
                    taken[step] = block
                self._log.append(_Change(allocates, block, self.phase, self.layer, self.operator))
            elif isinstance(step, Scratch):
                behind[step.result] = len(self._log) - first - 1
            else:
                self._see_tensor(results[step])
                behind[step] = len(self._log) - first - 1
        return tuple(behind[place] for place in sorted(behind))

    def _see_tensor(self, value: object) -> None:
        if isinstance(value, Tensor) and value.device.type in self.devices:
            self._see(value.untyped_storage())

    def _see(self, storage: torch.UntypedStorage) -> None:
        if storage_key(storage) in self.blocks or not storage.nbytes():
            return
        category = Category.TEMPORARY if self.phase is Phase.STEP else Category.ACTIVATION
        block = _Block(storage.nbytes(), category, self.layer, self.operator, self._operators)
        self._log.append(_Change(True, block, self.phase, self.layer, self.operator))
        self._follow(storage, block)
        if self._backward is not None:
            self._backward.made(storage)

    def _follow(self, storage: torch.UntypedStorage, block: _Block) -> None:
        key = storage_key(storage)
        self.blocks[key] = block
        self._references[key] = weakref.ref(storage, partial(self._release, key))

    def _release(self, key: int, _: object) -> None:
        block = self.blocks.pop(key)
        block.died = self._operators
        del self._references[key]
        self._log.append(_Change(False, block, self.phase, self.layer, self.operator))

    def _layer_of(self, node: Any) -> str:
        if node.next_functions:
            return self.marks.layer_of(node)
        parameter = node.variable  # only the accumulators of gradients lead nowhere
        block = self.blocks.get(storage_key(parameter.untyped_storage()))
        return block.layer if block else ""


# ---------------------------------------------------------------- small matters


def _in_order_of_moving(module: nn.Module, name: str = "") -> Iterator[tuple[str, Tensor]]:
    """Parameters and buffers with the layer they belong to, as ``Module.to`` makes them anew.

    A module's children come first, then its own parameters, then its own buffers.
    """
    for child_name, child in module.named_children():
        yield from _in_order_of_moving(child, f"{name}.{child_name}".lstrip("."))
    for own in (*module.parameters(recurse=False), *module.buffers(recurse=False)):
        yield name, own


def _sizes(blocks: Iterable[_Block]) -> Counter[int]:
    """How many blocks there are of each size, the batch aside."""
    return Counter(block.bytes for block in blocks if block.category is not Category.INPUT)


def _makes_weight_gradient(node: Any) -> bool:
    """Whether the node's one output is the gradient of a parameter."""
    following = [each for each, _ in node.next_functions if each is not None]
    return len(following) == 1 and not following[0].next_functions


_MIRRORED = {
    Direction.FORWARD: Direction.INPUT_GRADIENT,
    Direction.INPUT_GRADIENT: Direction.FORWARD,
    Direction.WEIGHT_GRADIENT: Direction.WEIGHT_GRADIENT,
}
"""What a transposed convolution computes, as directions of the one that it is a gradient of."""


def _convolution(
    func: OpOverload, args: tuple[Any, ...]
) -> tuple[ConvCall | None, tuple[Direction, ...]]:
    """The convolution that cuDNN is given, and its directions: one a result of the call.

    1-d images have height 1 there. A transposed convolution is the input gradient of
    another one, which reads what it returns. None for 3-d and for grouped transposed ones.
    """
    if func is _CONVOLUTION:
        images, weight, _, stride, padding, dilation, transposed, more, groups = args
        directions: tuple[Direction, ...] = (Direction.FORWARD,)
    else:
        _, images, weight, _, stride, padding, dilation, transposed, more, groups, wanted = args
        both = (Direction.INPUT_GRADIENT, Direction.WEIGHT_GRADIENT)
        directions = tuple(each for each, want in zip(both, wanted, strict=False) if want)
    flat = images.dim() == 3

    def pair(values: Sequence[int], beside: int) -> tuple[int, int]:
        first, second = (beside, *values) if flat else (*values, *values)[:2]
        return first, second

    steps, pads, spread, more = pair(stride, 1), pair(padding, 0), pair(dilation, 1), pair(more, 0)
    reaches_over = any(extra >= step for extra, step in zip(more, steps, strict=True))
    if images.dim() not in (3, 4) or (transposed and (groups > 1 or reaches_over)):
        return None, directions
    image, window = tuple(images.shape[1:]), tuple(weight.shape)
    if flat:
        image, window = (image[0], 1, image[1]), (*window[:2], 1, window[2])
    if transposed:
        extents = (
            (extent - 1) * step - 2 * pad + wide * (size - 1) + extra + 1
            for extent, step, pad, wide, size, extra in zip(
                image[1:], steps, pads, spread, window[2:], more, strict=True
            )
        )
        image = (window[1], *extents)
        directions = tuple(_MIRRORED[each] for each in directions)
    return ConvCall(image, window, steps, pads, spread, groups), directions


def _memory_formats(func: OpOverload, args: tuple[Any, ...]) -> tuple[str, ...]:
    """In which memory format cuDNN computes each result: channels_last if one operand of it is.

    The gradient that comes in is brought into the format of the images first. Source:
    ``cudnn_conv_suggest_memory_format`` of ATen's ConvUtils.h and its calls in ConvShared.cpp.
    """
    images, weight = args[:2] if func is _CONVOLUTION else args[1:3]
    of_both = convolution_format(images, weight)
    if func is _CONVOLUTION:
        formats = [of_both]
    else:
        each = (of_both, convolution_format(images, images))
        formats = [one for one, want in zip(each, args[-1], strict=False) if want]
    last = torch.channels_last
    return tuple("channels_last" if one is last else "contiguous" for one in formats)


def _is_channels_last(value: Tensor) -> bool:
    return value.dim() == 4 and format_of(value) is torch.channels_last


def _laid_out_by_cudnn(func: OpOverload, args: tuple[Any, ...], result: Any) -> Any:
    """The result of a convolution in channels_last if one operand is; meta keeps to the input."""
    operands = args[:2] if func is _CONVOLUTION else args[1:3]
    if not any(map(_is_channels_last, operands)):
        return result
    if isinstance(result, Tensor):
        return torch.empty_like(result, memory_format=torch.channels_last)
    return tuple(
        torch.empty_like(each, memory_format=torch.channels_last)
        if isinstance(each, Tensor) and each.dim() == 4
        else each
        for each in result
    )
