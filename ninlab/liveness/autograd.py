"""Who holds the memory of a tensor, and what does autograd keep for the way back?

`Memory` writes the events of a step as its blocks are allocated and dropped, `Autograd` the
graph of its forward pass; neither knows a layer.

Imports from ninlab: reports.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, count, islice

from ninlab.reports import Category, MemoryEvent, Phase
from ninlab.units import Shape

Size = tuple[int, int]
"""(bytes, bytes per image)."""

NARROW = "narrow"
"""The gradient of one part of a joined tensor: a view, which needs no memory."""

_FOUND = (
    Category.PARAMETER,
    Category.INPUT,
    Category.OPTIMIZER_STATE,
    Category.GRADIENT,
    Category.ACTIVATION,  # scores and loss of the step before
)
"""What a step finds, in the order in which it came to be."""

_event = MemoryEvent._make  # takes half the time of a call with arguments


# ---------------------------------------------------------------- blocks and their holders


@dataclass(slots=True, eq=False)
class Block:
    """Memory of one tensor and of all its views."""

    number: int
    size: Size
    category: Category
    holders: int = 1


class Memory:
    """The events of one step: what it finds, and what it allocates and releases.

    What the step finds may be told at any time; it comes first all the same, and then
    zero_grad, which lets go of the gradients among it.
    """

    def __init__(self) -> None:
        self.phase = Phase.SETUP
        self.layer = ""
        self.operator = ""  # the one that ran last
        self._numbers = count(1)
        self._found: dict[Category, list[MemoryEvent]] = {category: [] for category in _FOUND}
        self._during: list[MemoryEvent] = []

    def events(self) -> tuple[MemoryEvent, ...]:
        """What the step finds, then what it does."""
        zero_grad = [
            _event((False, *event[1:5], Phase.ZERO_GRAD, "", ""))
            for event in self._found[Category.GRADIENT]
        ]
        return (*chain.from_iterable(self._found.values()), *zero_grad, *self._during)

    def find(self, category: Category, size: Size, layer: str = "") -> Block:
        """A block that is there when the step begins."""
        number = next(self._numbers)
        self._found[category].append(
            _event((True, number, *size, category, Phase.SETUP, layer, ""))
        )
        return Block(number, size, category)

    def find_beside(self, parameters: Sequence[Parameter], category: Category, each: int) -> None:
        """So many blocks of each parameter's size that are there when the step begins."""
        self._found[category] += [
            _event((True, number, *like.size, category, Phase.SETUP, like.layer, ""))
            for like in parameters
            for number in islice(self._numbers, each)
        ]

    def allocate(self, operator: str, size: Size, category: Category) -> Block:
        """A new block, held by whoever asked for it."""
        number = next(self._numbers)
        self.operator = operator
        constant, per_image = size
        self._during.append(
            _event((True, number, constant, per_image, category, self.phase, self.layer, operator))
        )
        return Block(number, size, category)

    def drop(self, block: Block) -> None:
        """The block has one holder less; the last one releases it."""
        block.holders -= 1
        if block.holders == 0:
            constant, per_image = block.size
            released = (False, block.number, constant, per_image, block.category)
            self._during.append(_event((*released, self.phase, self.layer, self.operator)))


# ---------------------------------------------------------------- the graph


@dataclass(slots=True, eq=False)
class Parameter:
    """A weight or a bias, where the way back ends."""

    layer: str
    size: Size


@dataclass(slots=True, eq=False)
class Value:
    """A tensor on its way forward; whoever is given one has a hold on its block."""

    block: Block
    shape: Shape  # of one image; () for a parameter or a scalar
    element_bytes: int
    source: Node | Parameter | None = None  # where its gradient goes; None: needs none


Inputs = Sequence[tuple[Value, str]]
"""What an operator reads, each with the operator that makes its gradient."""

Saved = Sequence[tuple[Block, str]]
"""What an operator keeps for backward, each with its kind: "input", "relu_result", ..."""


@dataclass(slots=True, eq=False)
class Node:
    """One operator of the forward pass, as autograd remembers it."""

    layer: str
    inputs: Inputs  # of which it makes the gradients
    saved: Saved
    gradient: Block | None = None  # the sum of those that have come so far
    is_view: bool = False  # the gradient is part of a wider one


class Autograd:
    """The graph of one forward pass, what it keeps alive, and the way back through it."""

    def __init__(self, memory: Memory) -> None:
        self.memory = memory
        self.nodes: list[Node] = []  # in order of execution

    def record(
        self, result: Value, inputs: Inputs, saved: Saved = (), *, makes_all: bool = False
    ) -> None:
        """Remember how result was made, if any of its inputs needs a gradient.

        Most operators make only the gradients that are needed; makes_all tells the others.
        """
        needed = [each for each in inputs if each[0].source is not None]
        if needed:
            for block, _ in saved:
                block.holders += 1
            result.source = Node(self.memory.layer, inputs if makes_all else needed, saved)
            self.nodes.append(result.source)

    def backward(self, loss: Node, loss_size: Size) -> None:
        """Run every node that leads to the loss, the latest first.

        A node's gradients come from later nodes only, so that all have come by its turn.
        """
        memory = self.memory
        root = memory.allocate("ones_like", loss_size, Category.ACTIVATION)
        root.holders += 1  # backward() itself holds it for its caller
        loss.gradient = root
        for node in reversed(self.nodes):
            if node.gradient is not None:
                memory.layer = node.layer
                self._run(node, node.gradient)
        memory.layer = ""
        memory.drop(root)

    def _run(self, node: Node, gradient: Block) -> None:
        """Make the gradients of the node's inputs, let go of what it kept, hand them on."""
        memory = self.memory
        made = []
        for value, operator in node.inputs:
            if operator == NARROW:
                gradient.holders += 1
                block = gradient
            else:
                block = memory.allocate(operator, value.block.size, _category_of_gradient(value))
            made.append(block)
        memory.drop(gradient)
        for block, _ in node.saved:
            memory.drop(block)
        for (value, operator), block in zip(node.inputs, made, strict=True):
            if value.source is None:
                memory.drop(block)
            elif isinstance(value.source, Node):  # while a parameter keeps what arrives
                self._collect(value.source, block, value.block.size, is_view=operator == NARROW)

    def _collect(self, node: Node, block: Block, size: Size, *, is_view: bool) -> None:
        """Add a gradient to what the node has so far, in place where nobody else would see it."""
        before = node.gradient
        if before is None:
            node.gradient, node.is_view = block, is_view
        elif before.holders == 1 and not node.is_view:
            self.memory.drop(block)
        elif block.holders == 1 and not is_view:
            self.memory.drop(before)
            node.gradient, node.is_view = block, False
        else:
            node.gradient = self.memory.allocate("add", size, Category.ACTIVATION)
            node.is_view = False
            self.memory.drop(before)
            self.memory.drop(block)


def _category_of_gradient(value: Value) -> Category:
    if value.source is None:
        return Category.TEMPORARY
    is_parameter = value.block.size[1] == 0  # or the low-precision copy of one
    return Category.GRADIENT if is_parameter else Category.ACTIVATION
