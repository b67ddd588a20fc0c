"""Which bytes are alive when, in one training step, as ``a + b * batch``?

A training step is played on paper: every tensor is a block with a size affine in the batch
and a count of who still holds it, namely the frames that run the network, autograd's nodes,
autocast's cache, the user. A block dies when nobody does. No weight is allocated and torch
is not needed; the list of events that comes out serves every batch size at once, and the
peak over the batch is a handful of straight lines.

The step is a warm one (the second or any later) in the textbook's order: zero_grad
(set_to_none), forward, cross-entropy, backward, optimizer step. The scores and the loss of
the step before are held by the caller until this one has returned its own; so are the scores
at prediction, which runs forward alone. Where torch decides by device, the decisions are
CUDA's: dropout masks of one byte, optimizers that work on lists of tensors (foreach), bf16
by autocast with its cached copies of the weights, batch norm by cuDNN. TF32 changes no size.

Known limits: only what tensors hold. Scratch of cuDNN and cuBLAS is `workspaces`, rounding
and fragmentation are `allocator`; what lives and dies inside one operator, and a reserve
that cuDNN's batch norm might keep, are left out.

Imports from ninlab: architectures, reports, units and errors; from formulas only what a layer
puts out and how wide a number is, no cost.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from heapq import heappop, heappush
from itertools import count
from math import prod
from typing import NamedTuple

from ninlab.architectures import (
    Architecture,
    AvgPool,
    BatchNorm,
    Block,
    Branches,
    Conv,
    Dropout,
    Flatten,
    GlobalAvgPool,
    Layer,
    Leaf,
    Linear,
    MaxPool,
    ReLU,
    Sigmoid,
    named_children,
)
from ninlab.errors import NinlabError, UnknownNameError
from ninlab.formulas import BOOL_BYTES, FLOAT32_BYTES, INT64_BYTES, output_shape
from ninlab.reports import Category, MemoryEvent, Phase, tensor_peak
from ninlab.units import Shape

OPTIMIZER_STATES = {"sgd": 0, "momentum": 1, "adam": 2}
"""Tensors of a parameter's size that each optimizer keeps from step to step."""

COMPUTE_BYTES = {"fp32": 4, "tf32": 4, "bf16": 2}
"""Bytes of one element in convolutions and linear layers, by precision."""

LOSS = "loss"
"""The layer under which the loss's own tensors are listed."""


class Line(NamedTuple):
    """One straight piece of a peak over the batch: ``constant_bytes + bytes_per_image * batch``.

    It holds from first_batch to the batch before the next line's.
    """

    constant_bytes: int
    bytes_per_image: int
    first_batch: int


@dataclass(frozen=True)
class SavedLine:
    """Bytes of one tensor kept for backward: ``constant_bytes + bytes_per_image * batch``."""

    layer: str  # dotted module path, or "loss"
    kind: str  # "input", "relu_result", "pool_indices", ...; as in `reports.SavedTensor`
    constant_bytes: int
    bytes_per_image: int


# ---------------------------------------------------------------- what can be asked


@lru_cache(maxsize=128)
def timeline(
    architecture: Architecture,
    optimizer: str = "sgd",
    precision: str = "fp32",
    *,
    training: bool = True,
) -> tuple[MemoryEvent, ...]:
    """Every allocation and release of one warm step, in order; sizes are affine in the batch.

    optimizer is a key of `OPTIMIZER_STATES`, precision one of `COMPUTE_BYTES`. With
    ``training=False`` one prediction in evaluation mode, without gradients; the optimizer
    is then of no concern. Raises UnknownNameError for another optimizer or precision,
    ShapeError when a layer cannot read its input.
    """
    return _Step(architecture, optimizer, precision, training).events()


def saved_lines(architecture: Architecture, precision: str = "fp32") -> tuple[SavedLine, ...]:
    """What autograd keeps from forward and loss for backward, parameters excluded.

    A tensor that several layers keep is listed once, under the first of them. Raises as
    `timeline` does.
    """
    return _Step(architecture, "sgd", precision, training=True).saved_lines()


def peak_bytes(events: Sequence[MemoryEvent], batch_size: int) -> int:
    """The largest sum of live tensors during the step, for the whole batch.

    Raises NinlabError for a batch size under 1.
    """
    if batch_size < 1:
        raise NinlabError(f"the batch size must be at least 1, not {batch_size}")
    peak = tensor_peak(events, batch_size).tensor_peak_bytes
    assert peak is not None
    return peak


def envelope(events: Sequence[MemoryEvent]) -> tuple[Line, ...]:
    """The peak as a function of the batch: exact for every whole batch size from 1 on.

    Where two lines tie the flatter one holds; first_batch of the first line is 1.
    """
    highest: dict[int, int] = {}
    for constant, per_image in _sums(events):
        if constant > highest.get(per_image, -1):
            highest[per_image] = constant
    lines: list[Line] = []
    for per_image in sorted(highest):
        constant = highest[per_image]
        first = 1
        while lines:
            flatter = lines[-1]
            lead = flatter.constant_bytes - constant
            first = max(1, lead // (per_image - flatter.bytes_per_image) + 1)
            if first > flatter.first_batch:
                break
            lines.pop()
            first = 1
        lines.append(Line(constant, per_image, first))
    return tuple(lines)


def breakdown(events: Sequence[MemoryEvent], line: Line) -> Mapping[Category, tuple[int, int]]:
    """Whose bytes a line of the envelope is made of: (constant, per image) by category.

    Taken where the step first reaches that line; the pairs add up to the line. Raises
    NinlabError when the step never does.
    """
    constants: Counter[Category] = Counter()
    per_images: Counter[Category] = Counter()
    for event, total in zip(events, _sums(events), strict=True):
        sign = 1 if event.allocates else -1
        if event.category is not Category.WORKSPACE:
            constants[event.category] += sign * event.constant_bytes
            per_images[event.category] += sign * event.bytes_per_image
        if total == line[:2]:
            return {
                category: (constants[category], per_images[category])
                for category in Category
                if constants[category] or per_images[category]
            }
    raise NinlabError(f"no moment of these events holds {line[0]} + {line[1]} * batch bytes")


def largest_batch(events: Sequence[MemoryEvent], available_bytes: int) -> int:
    """The largest batch whose tensors fit into that many bytes; 0 if one image does not fit.

    Without scratch and rounding. Raises NinlabError when the batch does not matter to these
    events, so that there is no largest.
    """
    limits = []
    for constant, per_image, _ in envelope(events):
        if constant + per_image > available_bytes:
            return 0
        if per_image > 0:
            limits.append((available_bytes - constant) // per_image)
    if not limits:
        raise NinlabError("no block of these events grows with the batch: every batch fits")
    return min(limits)


def crossing(first: Sequence[MemoryEvent], second: Sequence[MemoryEvent]) -> int | None:
    """The batch size from which on the first step always needs more memory than the second.

    1 if it always does; None if there is no such batch size.
    """
    ours, theirs = envelope(first), envelope(second)
    starts = sorted({line.first_batch for line in (*ours, *theirs)})
    last_without = 0  # the last batch size at which the first step needs no more
    for start, end in zip(starts, (*starts[1:], None), strict=True):
        mine, other = _line_at(ours, start), _line_at(theirs, start)
        constant = mine.constant_bytes - other.constant_bytes
        per_image = mine.bytes_per_image - other.bytes_per_image
        if end is None:
            if per_image < 0 or (per_image == 0 and constant <= 0):
                return None
        elif constant + per_image * (end - 1) <= 0:
            last_without = end - 1
            continue
        if constant + per_image * start <= 0:
            last_without = -constant // per_image
    return last_without + 1


def _line_at(lines: Sequence[Line], batch_size: int) -> Line:
    return next(line for line in reversed(lines) if line.first_batch <= batch_size)


def _sums(events: Sequence[MemoryEvent]) -> Iterator[tuple[int, int]]:
    """(constant, per image) of all live tensors after each event."""
    constant = per_image = 0
    for event in events:
        if event.category is not Category.WORKSPACE:
            if event.allocates:
                constant += event.constant_bytes
                per_image += event.bytes_per_image
            else:
                constant -= event.constant_bytes
                per_image -= event.bytes_per_image
        yield constant, per_image


# ---------------------------------------------------------------- blocks and their holders

_Size = tuple[int, int]  # (bytes, bytes per image)


@dataclass(slots=True, eq=False)
class _Block:
    """Memory of one tensor and of all its views."""

    number: int
    size: _Size
    category: Category
    holders: int = 1


class _Memory:
    """The events of one step: what it finds, and what it allocates and releases."""

    def __init__(self) -> None:
        self.found: list[MemoryEvent] = []
        self.during: list[MemoryEvent] = []
        self.phase = Phase.SETUP
        self.layer = ""
        self.operator = ""  # the one that ran last
        self._numbers = count(1)

    def find(self, category: Category, size: _Size, layer: str = "") -> _Block:
        """A block that is there when the step begins."""
        block = _Block(next(self._numbers), size, category)
        self.found.append(
            MemoryEvent(
                True, block.number, size[0], size[1], category, Phase.SETUP, layer, operator=""
            )
        )
        return block

    def allocate(self, operator: str, size: _Size, category: Category) -> _Block:
        """A new block, held by whoever asked for it."""
        block = _Block(next(self._numbers), size, category)
        self.operator = operator
        self._happens(True, block)
        return block

    def hold(self, block: _Block) -> _Block:
        """The block, with one holder more."""
        block.holders += 1
        return block

    def drop(self, block: _Block) -> None:
        """The block has one holder less; the last one releases it."""
        block.holders -= 1
        if block.holders == 0:
            self._happens(False, block)

    def _happens(self, allocates: bool, block: _Block) -> None:
        constant, per_image = block.size
        self.during.append(
            MemoryEvent(
                allocates,
                block.number,
                constant,
                per_image,
                block.category,
                self.phase,
                self.layer,
                self.operator,
            )
        )


# ---------------------------------------------------------------- autograd

_VIEW = "narrow"  # the gradient of one part of a joined tensor is a view and needs no memory


@dataclass(slots=True, eq=False)
class _Parameter:
    """A weight or a bias, where the way back ends."""

    layer: str
    block: _Block
    copy: _Value | None = None  # the narrow one in autocast's cache


@dataclass(slots=True, eq=False)
class _Value:
    """A tensor on its way forward; whoever is given one has a hold on its block."""

    block: _Block
    element_bytes: int
    source: _Node | _Parameter | None = None  # where its gradient goes; None: needs none


@dataclass(slots=True, eq=False)
class _Edge:
    """The gradient of one input of a node: where it goes and which operator makes it."""

    to: _Node | _Parameter | None  # None: made although nobody needs it
    operator: str
    size: _Size
    category: Category


@dataclass(slots=True, eq=False)
class _Node:
    """One operator of the forward pass, as autograd remembers it."""

    order: int  # of the nodes that are ready the latest runs first
    layer: str
    edges: list[_Edge]
    saved: list[tuple[_Block, str]]  # with its kind: "input", "relu_result", ...
    awaited: int = 0  # gradients still to come
    gradient: _Block | None = None
    is_view: bool = False  # the gradient is part of a wider one


class _Autograd:
    """The graph of one forward pass, what it keeps alive, and the way back through it."""

    def __init__(self, memory: _Memory) -> None:
        self.memory = memory
        self.nodes: list[_Node] = []

    def record(
        self,
        result: _Value,
        inputs: Iterable[tuple[_Value, str]],
        saved: Iterable[tuple[_Block, str]] = (),
        *,
        makes_all: bool = False,
    ) -> None:
        """Remember how result was made, if any of its inputs needs a gradient.

        Each input comes with the operator of its gradient, each saved block with its kind.
        Most operators make only the gradients that are needed; makes_all tells the others.
        """
        edges = []
        for value, operator in inputs:
            if value.source is None and not makes_all:
                continue
            of_parameter = value.block.size[1] == 0  # or of its low-precision copy
            category = Category.GRADIENT if of_parameter else Category.ACTIVATION
            if value.source is None:
                category = Category.TEMPORARY
            elif isinstance(value.source, _Node):
                value.source.awaited += 1
            edges.append(_Edge(value.source, operator, value.block.size, category))
        if any(edge.to for edge in edges):
            kept = [(self.memory.hold(block), kind) for block, kind in saved]
            result.source = _Node(len(self.nodes), self.memory.layer, edges, kept)
            self.nodes.append(result.source)

    def backward(self, loss: _Node, loss_size: _Size) -> None:
        """Run every node backward from the loss's, the latest that is ready first."""
        memory = self.memory
        root = memory.allocate("ones_like", loss_size, Category.ACTIVATION)
        loss.gradient = memory.hold(root)
        ready = [(-loss.order, loss)]
        while ready:
            _, node = heappop(ready)
            gradient = node.gradient
            assert gradient is not None
            memory.layer = node.layer
            made = [
                memory.hold(gradient)
                if edge.operator == _VIEW
                else memory.allocate(edge.operator, edge.size, edge.category)
                for edge in node.edges
            ]
            memory.drop(gradient)
            for block, _ in node.saved:
                memory.drop(block)
            for edge, block in zip(node.edges, made, strict=True):
                if edge.to is None:
                    memory.drop(block)
                elif isinstance(edge.to, _Node):  # while a parameter keeps what arrives
                    self._collect(edge, edge.to, block)
                    edge.to.awaited -= 1
                    if edge.to.awaited == 0:
                        heappush(ready, (-edge.to.order, edge.to))
        memory.layer = ""
        memory.drop(root)  # backward() itself held it for its caller

    def _collect(self, edge: _Edge, node: _Node, block: _Block) -> None:
        """Add a gradient to what the node has so far, in place where nobody else would see it."""
        before, is_view = node.gradient, edge.operator == _VIEW
        if before is None:
            node.gradient, node.is_view = block, is_view
        elif before.holders == 1 and not node.is_view:
            self.memory.drop(block)
        elif block.holders == 1 and not is_view:
            self.memory.drop(before)
            node.gradient, node.is_view = block, False
        else:
            node.gradient = self.memory.allocate("add", edge.size, edge.category)
            node.is_view = False
            self.memory.drop(before)
            self.memory.drop(block)


# ---------------------------------------------------------------- one step

_AGE = {
    Category.PARAMETER: 0,
    Category.INPUT: 1,
    Category.OPTIMIZER_STATE: 2,
    Category.GRADIENT: 3,
    Category.ACTIVATION: 4,  # scores and loss of the step before
}
"""The order in which the things that a step finds came to be."""


class _Step:
    """One warm step of a network, played on construction."""

    def __init__(
        self, architecture: Architecture, optimizer: str, precision: str, training: bool
    ) -> None:
        if optimizer not in OPTIMIZER_STATES:
            raise UnknownNameError("optimizer", optimizer, OPTIMIZER_STATES)
        if precision not in COMPUTE_BYTES:
            raise UnknownNameError("precision", precision, COMPUTE_BYTES)
        self.compute_bytes = COMPUTE_BYTES[precision]
        self.training = training
        self.memory = _Memory()
        self.autograd = _Autograd(self.memory)
        self.parameters: dict[str, list[_Parameter]] = {}  # by layer
        self.shapes: dict[str, Shape] = {}  # of each layer's output
        self._place(architecture.layers, architecture.input_shape, "")
        image_bytes = prod(architecture.input_shape) * FLOAT32_BYTES
        self.images = _Value(self.memory.find(Category.INPUT, (0, image_bytes)), FLOAT32_BYTES)
        if training:
            self._train(architecture, OPTIMIZER_STATES[optimizer])
        else:
            self._predict(architecture)

    def events(self) -> tuple[MemoryEvent, ...]:
        """What the step finds, then what it does."""
        found = sorted(self.memory.found, key=lambda event: _AGE[event.category])
        return (*found, *self.memory.during)

    def saved_lines(self) -> tuple[SavedLine, ...]:
        """What the nodes keep, each block once and parameters excluded."""
        lines: dict[int, SavedLine] = {}
        for node in self.autograd.nodes:
            for block, kind in node.saved:
                if block.category is not Category.PARAMETER:
                    line = SavedLine(node.layer, kind, *block.size)
                    lines.setdefault(block.number, line)
        return tuple(lines.values())

    def _place(self, layers: Sequence[Layer], shape: Shape, prefix: str) -> Shape:
        """Find the parameters and the output shape of every layer; returns the last shape."""
        for name, layer in named_children(layers):
            path = prefix + name
            match layer:
                case Block():
                    shape = self._place(layer.layers, shape, f"{path}.")
                case Branches():
                    for branch in layer.branches:
                        self._place((branch,), shape, f"{path}.")
                    shape = output_shape(layer, shape)
                case _:
                    self.parameters[path] = [
                        _Parameter(path, self.memory.find(Category.PARAMETER, (size, 0), path))
                        for size in _parameter_bytes(layer, shape)
                    ]
                    if isinstance(layer, BatchNorm):
                        self._find_running_statistics(shape[0], path)
                    shape = output_shape(layer, shape)
            self.shapes[path] = shape
        return shape

    def _find_running_statistics(self, channels: int, path: str) -> None:
        """Mean and variance of each channel, and how many batches they have seen."""
        for size in (channels * FLOAT32_BYTES, channels * FLOAT32_BYTES, INT64_BYTES):
            self.memory.find(Category.PARAMETER, (size, 0), path)

    # ------------------------------------------------------------ the order of a step

    def _train(self, architecture: Architecture, num_states: int) -> None:
        memory = self.memory
        parameters = [each for of_layer in self.parameters.values() for each in of_layer]
        memory.phase = Phase.ZERO_GRAD
        for parameter in parameters:
            for _ in range(num_states):
                memory.find(Category.OPTIMIZER_STATE, parameter.block.size, parameter.layer)
            memory.drop(memory.find(Category.GRADIENT, parameter.block.size, parameter.layer))

        memory.phase = Phase.FORWARD
        scores = self._sequence(architecture.layers, self.images, "")
        memory.phase, memory.layer = Phase.LOSS, LOSS
        loss = self._cross_entropy(scores)
        self._leave_autocast()
        memory.phase = Phase.BACKWARD
        if isinstance(loss.source, _Node):  # there is something to learn
            self.autograd.backward(loss.source, loss.block.size)

        memory.phase, memory.layer, memory.operator = Phase.STEP, "", ""
        if num_states == 2:  # Adam: the roots of all second moments at once
            roots = [
                memory.allocate("_foreach_sqrt", parameter.block.size, Category.TEMPORARY)
                for parameter in parameters
            ]
            for root in roots:
                memory.drop(root)
        memory.operator = ""
        for result in (scores, loss):
            memory.drop(memory.find(Category.ACTIVATION, result.block.size))

    def _predict(self, architecture: Architecture) -> None:
        self.memory.phase = Phase.FORWARD
        scores = self._sequence(architecture.layers, self.images, "")
        self._leave_autocast()
        self.memory.layer = self.memory.operator = ""
        self.memory.drop(self.memory.find(Category.ACTIVATION, scores.block.size))

    def _leave_autocast(self) -> None:
        for of_layer in self.parameters.values():
            for parameter in of_layer:
                if parameter.copy is not None:
                    self._release(parameter.copy)

    # ------------------------------------------------------------ containers

    def _sequence(self, layers: Sequence[Layer], value: _Value, prefix: str) -> _Value:
        """The layers one after the other; what a container was given its caller still holds."""
        given = value
        for name, layer in named_children(layers):
            result = self._layer(layer, value, prefix + name)
            if value is not given:
                self._release(value)
            value = result
        return self._view(value) if value is given else value

    def _layer(self, layer: Layer, value: _Value, path: str) -> _Value:
        match layer:
            case Block():
                return self._sequence(layer.layers, value, f"{path}.")
            case Branches():
                return self._joined(layer, value, path)
            case _:
                self.memory.layer = path
                return self._leaf(layer, value, path)

    def _joined(self, branches: Branches, value: _Value, path: str) -> _Value:
        parts = [self._sequence((branch,), value, f"{path}.") for branch in branches.branches]
        self.memory.layer = path
        widest = max(part.element_bytes for part in parts)
        joined = self._make("cat", prod(self.shapes[path]), widest)
        self.autograd.record(
            joined,
            [(part, _VIEW if part.element_bytes == widest else "_to_copy") for part in parts],
        )
        self._release(*parts)
        return joined

    # ------------------------------------------------------------ layers that compute

    def _leaf(self, layer: Leaf, value: _Value, path: str) -> _Value:
        elements = prod(self.shapes[path])
        match layer:
            case Conv() | Linear():
                return self._product(layer, value, path)
            case BatchNorm():
                return self._batch_norm(value, path)
            case ReLU():
                result = self._make("relu", elements, value.element_bytes)
                saved = [(result.block, "relu_result")]
                self.autograd.record(result, [(value, "threshold_backward")], saved)
            case Sigmoid():
                result = self._make("sigmoid", elements, value.element_bytes)
                saved = [(result.block, "sigmoid_result")]
                self.autograd.record(result, [(value, "sigmoid_backward")], saved)
            case MaxPool():
                operator = "max_pool2d_with_indices"
                result = self._make(operator, elements, value.element_bytes)
                indices = self._aside(operator, value, (0, elements * INT64_BYTES))
                saved = [(value.block, "pool_input"), (indices, "pool_indices")]
                self.autograd.record(result, [(value, f"{operator}_backward")], saved)
                self.memory.drop(indices)
            case AvgPool():
                result = self._make("avg_pool2d", elements, value.element_bytes)
                saved = [(value.block, "pool_input")]
                self.autograd.record(result, [(value, "avg_pool2d_backward")], saved)
            case GlobalAvgPool():
                result = self._make("mean", elements, value.element_bytes)
                self.autograd.record(result, [(value, "div")])
            case Dropout(probability=probability) if self.training and 0 < probability < 1:
                result = self._make("native_dropout", elements, value.element_bytes)
                mask = self._aside("native_dropout", value, (0, elements * BOOL_BYTES))
                saved = [(mask, "dropout_mask")]
                self.autograd.record(result, [(value, "native_dropout_backward")], saved)
                self.memory.drop(mask)
            case Flatten() | Dropout(probability=0):  # the same memory
                return self._view(value)
            case Dropout() if not self.training:
                return self._view(value)
            case _:
                raise NinlabError(f"no memory rule for the layer {layer!r}")
        return result

    def _product(self, layer: Conv | Linear, value: _Value, path: str) -> _Value:
        """A convolution or a linear layer; autocast casts its arguments from right to left."""
        operands = [self._operand(each) for each in reversed(self.parameters[path])]
        operands.append(self._cast(value, self.compute_bytes))
        source, weight, *_ = operands = operands[::-1]
        if isinstance(layer, Conv):
            operator, gradients = "convolution", ("convolution_backward",) * 3
        else:
            operator, gradients = ("addmm" if layer.bias else "mm"), ("mm", "mm", "sum")
        result = self._make(operator, prod(self.shapes[path]), self.compute_bytes)
        saved = [(source.block, "input"), (weight.block, "weight_copy")]
        if isinstance(layer, Linear) and source.source is None:
            saved.pop()  # only the gradient of the input would need the weight
        self.autograd.record(result, zip(operands, gradients, strict=False), saved)
        self._release(source)
        return result

    def _batch_norm(self, value: _Value, path: str) -> _Value:
        """On float32 it is cuDNN's, which makes no statistics at prediction; on bf16 torch's."""
        by_cudnn = value.element_bytes == FLOAT32_BYTES
        operator = "cudnn_batch_norm" if by_cudnn else "native_batch_norm"
        result = self._make(operator, prod(self.shapes[path]), value.element_bytes)
        if self.training or not by_cudnn:
            size = (self.shapes[path][0] * FLOAT32_BYTES, 0)
            category = Category.ACTIVATION if self.training else Category.TEMPORARY
            mean, deviation = (self.memory.allocate(operator, size, category) for _ in range(2))
            weights = [self._whole(each) for each in self.parameters[path]]
            self.autograd.record(
                result,
                [(each, f"{operator}_backward") for each in (value, *weights)],
                [
                    (value.block, "input"),
                    (mean, "batch_mean"),
                    (deviation, "batch_inverse_deviation"),
                ],
                makes_all=by_cudnn,
            )
            self.memory.drop(mean)
            self.memory.drop(deviation)
        return result

    def _cross_entropy(self, scores: _Value) -> _Value:
        """The mean loss; its logarithms are computed as the scores come, and picked in float32."""
        elements = scores.block.size[1] // scores.element_bytes
        logs = self._make("_log_softmax", elements, scores.element_bytes)
        self.autograd.record(
            logs, [(scores, "_log_softmax_backward_data")], [(logs.block, "log_softmax")]
        )
        wide = self._cast(logs, FLOAT32_BYTES)
        labels = self.memory.find(Category.INPUT, (0, INT64_BYTES))
        scalar = (FLOAT32_BYTES, 0)
        loss, total_weight = (
            self.memory.allocate("nll_loss_forward", scalar, Category.ACTIVATION) for _ in range(2)
        )
        result = _Value(loss, FLOAT32_BYTES)
        self.autograd.record(
            result,
            [(wide, "nll_loss_backward")],
            [(wide.block, "log_softmax"), (labels, "labels"), (total_weight, "total_weight")],
        )
        self.memory.drop(total_weight)
        self._release(wide, logs)
        return result

    # ------------------------------------------------------------ tensors

    def _make(self, operator: str, elements: int, element_bytes: int) -> _Value:
        """A new activation of that many elements an image."""
        size = (0, elements * element_bytes)
        return _Value(self.memory.allocate(operator, size, Category.ACTIVATION), element_bytes)

    def _aside(self, operator: str, value: _Value, size: _Size) -> _Block:
        """A second result, which is of use only if the value needs a gradient."""
        category = Category.TEMPORARY if value.source is None else Category.ACTIVATION
        return self.memory.allocate(operator, size, category)

    def _whole(self, parameter: _Parameter) -> _Value:
        """The parameter itself, which needs no holder: it outlives the step."""
        return _Value(parameter.block, FLOAT32_BYTES, parameter if self.training else None)

    def _operand(self, parameter: _Parameter) -> _Value:
        """The parameter as a product reads it; autocast makes its narrow copy once and holds it."""
        if self.compute_bytes == FLOAT32_BYTES:
            return self._whole(parameter)
        if parameter.copy is None:
            parameter.copy = self._cast(self._whole(parameter), self.compute_bytes)
        return parameter.copy

    def _view(self, value: _Value) -> _Value:
        return _Value(self.memory.hold(value.block), value.element_bytes, value.source)

    def _cast(self, value: _Value, element_bytes: int) -> _Value:
        """The value in that width: itself, or a copy."""
        if value.element_bytes == element_bytes:
            return self._view(value)
        constant, per_image = value.block.size
        size = (
            constant // value.element_bytes * element_bytes,
            per_image // value.element_bytes * element_bytes,
        )
        copy = _Value(self.memory.allocate("_to_copy", size, Category.ACTIVATION), element_bytes)
        self.autograd.record(copy, [(value, "_to_copy")])
        return copy

    def _release(self, *values: _Value) -> None:
        for value in values:
            self.memory.drop(value.block)


def _parameter_bytes(layer: Leaf, shape: Shape) -> tuple[int, ...]:
    """Bytes of the weight and, if there is one, the bias of a layer that reads that shape."""
    match layer:
        case Conv():
            fan_in = shape[0] // layer.groups * layer.kernel_size**2
            elements = (layer.out_channels * fan_in, layer.out_channels)[: 1 + layer.bias]
        case Linear():
            elements = (layer.out_features * shape[0], layer.out_features)[: 1 + layer.bias]
        case BatchNorm():
            elements = (shape[0], shape[0])
        case _:
            return ()
    return tuple(count * FLOAT32_BYTES for count in elements)
