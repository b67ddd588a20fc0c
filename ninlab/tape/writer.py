"""Who holds which tensor, and in which order does the way back run?

`TapeWriter` writes a tape: it knows storages, their holders and the graph of the forward pass, and
no layer. A storage is released when nobody holds it any more: no frame that runs the network, no
node of autograd's graph, not autocast's cache and not the caller.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, count, islice, zip_longest
from typing import Any, NamedTuple

from ninlab.reports import Category, MemoryEvent, Phase
from ninlab.units import Shape

Size = tuple[int, int]
"""(bytes, bytes per image)."""


@dataclass(slots=True, eq=False)
class Storage:
    """Memory of one tensor and of all its views."""

    number: int
    size: Size
    category: Category
    holders: int = 1
    is_planar: bool = False  # of a gradient: whether it lies channel by channel
    is_viewed: bool = False  # of a gradient: whether it comes as a view of what was made


@dataclass(slots=True, eq=False)
class Parameter:
    """A weight or a bias, where the way back ends."""

    layer: str
    size: Size


@dataclass(slots=True, eq=False)
class Value:
    """A tensor on its way forward; whoever is given one has a hold on its storage."""

    storage: Storage
    shape: Shape  # of one image; () for a parameter or a scalar
    element_bytes: int
    source: Node | Parameter | None = None  # where its gradient goes; None: needs none
    # Whether a pixel's channels lie side by side; told in steps of channels_last alone.
    is_last: bool = False

    @property
    def size(self) -> Size:
        """That of its storage."""
        return self.storage.size

    def view(self, shape: Shape | None = None) -> Value:
        """The same memory under another shape, with a holder more."""
        self.storage.holders += 1
        shape = shape or self.shape
        return Value(self.storage, shape, self.element_bytes, self.source, self.is_last)


Sized = Value | Storage


# ---------------------------------------------------------------- the tape


class Call(NamedTuple):
    """One ATen call of a step, or one of the halves of a call that computes two products.

    reads and writes are as large as what moves; vectors of one number a channel, which are not
    worth their time, are left out. macs are those of one image. joins_call is True for a half that
    the call before it counts.
    """

    operator: str  # ATen's name without overload
    phase: Phase
    layer: str  # dotted module path, "" outside any layer
    reads: Sequence[Sized]
    writes: Sequence[Sized]
    macs: int
    joins_call: bool


class Kept(NamedTuple):
    """One tensor that autograd keeps from the forward pass for the backward pass."""

    storage: Storage
    layer: str
    kind: str  # a `steps.SavedKind`, or named after autograd's node and field


@dataclass(frozen=True)
class Tape:
    """One step: what it allocates and releases, what it calls, and what autograd keeps.

    The events begin with what the step finds, in `Phase.SETUP`.
    """

    events: tuple[MemoryEvent, ...]
    _calls: Sequence[tuple[Any, ...]]
    _nodes: Sequence[Node]

    @property
    def calls(self) -> Iterator[Call]:
        """What the step calls, in order."""
        return map(Call._make, self._calls)

    @property
    def kept(self) -> Iterator[Kept]:
        """What autograd keeps, in the order of its operators; a storage may come twice."""
        for node in self._nodes:
            for storage, kind in node.keeps:
                yield Kept(storage, node.layer, kind)


_AS_IT_CAME = frozenset(
    {"_to_copy", "mul", "native_dropout_backward", "sigmoid_backward", "threshold_backward"}
)
"""What puts out a gradient of maps in the layout of the one that it reads."""

_PLANAR = "div"  # of a mean
"""What puts out a gradient of maps channel by channel, whatever it reads."""

_CONVOLUTION = "convolution_backward"
_POOLS = ("avg_pool2d_backward", "max_pool2d_with_indices_backward")
_JOINED = (
    *("bias_relu_max_pool_backward", "chain_backward", "fold_backward", "relu_bias_backward"),
)
_COPYING = frozenset({_CONVOLUTION, *_POOLS, *_JOINED})
"""What copies, while it runs, a gradient that is part of a wider one or lies in another layout.

A part of one image, in channels_last of one pixel, lies as it would alone and needs no copy:
copies are those of more images. Pools make their results first, joined layers the copy. A
convolution copies a part for each of its halves, behind the gradient of maps and before that of
weights, and what lies in another layout once, before both.
"""

_CLONING = "cudnn_batch_norm_backward"
"""What autograd copies such a gradient for, in a call of its own."""

# A step has thousands of them; a call with arguments takes three times as long.
_event = partial(tuple.__new__, MemoryEvent)


# ---------------------------------------------------------------- the graph


class Backward(NamedTuple):
    """A call that makes the gradients of some of an operator's inputs.

    It makes only the gradients that are needed, and is not called when none is. With makes_all,
    which only operators with parameters have, it makes them all. In reads the result stands for its
    gradient, which is as large. Of what is written, the gradient of the first input counts. With
    joins_call it is part of the call before it, if there was one. A view is a part of the gradient
    that came: it takes no call. One that is_copy writes what it reads to what the call before it
    has made. passes says how often all of this is read and written, by one kernel after another.
    """

    operator: str
    of: Sequence[Value]
    reads: Sequence[Sized] = ()
    macs: int = 0
    makes_all: bool = False
    joins_call: bool = False
    is_view: bool = False
    is_copy: bool = False
    passes: int = 1


@dataclass(slots=True, eq=False)
class Node:
    """One operator of the forward pass, as autograd remembers it.

    In channels_last an operator may copy what lies otherwise than it needs it, until the gradients
    of maps and weights are made: its gradient, if that is planar and reads_last or neither, and
    what is in copies. reads_last is None for an operator that reads any layout.
    """

    layer: str
    backward: Sequence[Backward]
    keeps: Sequence[tuple[Storage, str]]
    reads_last: bool | None
    copies: Sequence[Size]
    gradient: Storage | None = None  # the sum of those that have come so far
    is_view: bool = False  # the gradient is part of a wider one


# ---------------------------------------------------------------- the writer


class TapeWriter:
    """Writes a tape. phase and layer are those of what is recorded next.

    What the step finds may be told at any time. It comes first all the same, in the order of the
    categories given, and then zero_grad, which lets go of the gradients among it. Layouts are told
    apart only in_channels_last: they hang on sizes, which the calculator leaves open.
    """

    def __init__(self, found: Sequence[Category], *, in_channels_last: bool = False) -> None:
        self._in_channels_last = in_channels_last
        self.phase = Phase.FORWARD
        self.layer = ""
        self._operator = ""  # the one that allocated last
        self._numbers = count(1)
        self._found: dict[Category, list[MemoryEvent]] = {category: [] for category in found}
        self._events: list[MemoryEvent] = []
        self._calls: list[tuple[Any, ...]] = []  # the fields of a `Call`
        self._nodes: list[Node] = []  # in order of execution

    def tape(self) -> Tape:
        """What was recorded so far."""
        zero_grad = [
            _event((False, *event[1:5], Phase.ZERO_GRAD, "", "", None))
            for event in self._found[Category.GRADIENT]
        ]
        return Tape(
            events=(*chain.from_iterable(self._found.values()), *zero_grad, *self._events),
            _calls=self._calls,
            _nodes=self._nodes,
        )

    def at(self, layer: str, phase: Phase | None = None) -> None:
        """What is recorded from now on belongs to that layer, and to that phase if one is given."""
        self.layer = layer
        self.phase = phase or self.phase
        if not layer:
            self._operator = ""

    # ------------------------------------------------------------ storages

    def find(self, category: Category, size: Size, layer: str = "") -> Storage:
        """A storage that is there when the step begins."""
        number = next(self._numbers)
        constant, per_image = size
        self._found[category].append(
            _event((True, number, constant, per_image, category, Phase.SETUP, layer, "", None))
        )
        return Storage(number, size, category)

    def find_beside(self, parameters: Sequence[Parameter], category: Category, each: int) -> None:
        """So many storages of each parameter's size that are there when the step begins."""
        self._found[category] += [
            _event((True, number, *like.size, category, Phase.SETUP, like.layer, "", None))
            for like in parameters
            for number in islice(self._numbers, each)
        ]

    def make(self, size: Size, category: Category = Category.ACTIVATION) -> Storage:
        """A storage for the call that is recorded next to make; held by whoever asked for it."""
        return Storage(next(self._numbers), size, category)

    def let_go(self, value: Value) -> None:
        """A frame needs the value no more."""
        storage = value.storage
        if storage.holders == 1:
            self.drop(storage)
        else:
            storage.holders -= 1

    def drop(self, storage: Storage) -> None:
        """The storage has one holder less; without any it is released."""
        storage.holders -= 1
        if storage.holders == 0:
            constant, per_image = storage.size
            self._events.append(_event((
                False, storage.number, constant, per_image, storage.category,
                self.phase, self.layer, self._operator, None,
            )))  # fmt: skip

    # ------------------------------------------------------------ calls

    def call(
        self,
        operator: str,
        reads: Sequence[Sized],
        writes: Sequence[Sized],
        makes: Sequence[Storage] = (),
        macs: int = 0,
        joins_call: bool = False,
    ) -> None:
        """Record a call and the storages that it makes; see `Call`."""
        self._calls.append((operator, self.phase, self.layer, reads, writes, macs, joins_call))
        self._allocate(operator, makes)

    def _allocate(self, operator: str, makes: Sequence[Storage]) -> None:
        phase, layer = self.phase, self.layer
        for one in makes:
            self._operator = operator
            constant, per_image = one.size
            self._events.append(_event((
                True, one.number, constant, per_image, one.category, phase, layer, operator, None,
            )))  # fmt: skip

    def remember(
        self,
        result: Value,
        backward: Sequence[Backward],
        keeps: Sequence[tuple[Storage, str]] = (),
        *,
        reads_last: bool | None = None,
        copies: Sequence[Size] = (),
    ) -> None:
        """Remember how result was made. To be called where an input of it needs a gradient."""
        for storage, _ in keeps:
            storage.holders += 1
        result.source = Node(self.layer, backward, keeps, reads_last, copies)
        self._nodes.append(result.source)

    # ------------------------------------------------------------ the way back

    def backward(self, loss: Value) -> None:
        """Run every node that leads to the loss, the latest first; nothing if nothing learns.

        A node's gradients come from later nodes only, so that all have come by its turn.
        """
        if not isinstance(loss.source, Node):
            return
        root = self.make(loss.size)
        self.call("ones_like", (), (root,), (root,))
        root.holders += 1  # backward() itself holds it for its caller
        loss.source.gradient = root
        for node in reversed(self._nodes):
            if node.gradient is not None:
                self.layer = node.layer
                self._run(node, node.gradient)
        self.layer = ""
        self.drop(root)

    def _run(self, node: Node, gradient: Storage) -> None:
        """Make the gradients of the node's inputs, let go of what it kept, hand them on."""
        made: list[tuple[Value, Storage, bool]] = []
        copies: list[Storage] = []
        clones: list[Storage] = []
        is_part = node.is_view and gradient.is_planar is not node.reads_last
        for backward, following in zip_longest(node.backward, node.backward[1:]):
            operator, of, reads, macs, makes_all, joins_call, is_view, is_copy, passes = backward
            first, makes = len(made), []
            if is_copy and made:
                self.call(operator, reads, reads)
            for value in of:
                if is_view and value.source:
                    gradient.holders += 1
                    made.append((value, gradient, True))
                elif makes_all or value.source:
                    storage = self.make(value.storage.size, _category(value))
                    if self._in_channels_last:
                        storage.is_planar = _is_planar(operator, value, gradient)
                    storage.is_viewed = operator == "mm" and len(value.shape) == 3
                    makes.append(storage)
                    made.append((value, storage, False))
            if makes:
                if operator == _CLONING and _must_copy(node, gradient):
                    clone = self.make(reads[0].size)
                    self.call("clone", reads[:1], reads[:1], (clone,))
                    clones.append(clone)
                writes = of[:1] if made[first][0] is of[0] else ()
                joins_call = joins_call and first > 0
                if is_part or not joins_call:
                    sizes = _copied(node, gradient, backward)
                    copies = [self.make(size, Category.TEMPORARY) for size in sizes]
                    makes = _in_order(operator, of, copies, makes, is_part=is_part)
                ends = is_part or following is None or not following.joins_call
                # A convolution makes the gradient of its bias when the copies are gone.
                later = [makes.pop()] if copies and ends and _ends_with_bias(backward) else []
                self.call(
                    operator, (*reads,) * passes, (*writes,) * passes, makes, macs, joins_call
                )
                if ends:
                    for copy in copies:
                        self.drop(copy)
                self._allocate(operator, later)
        self.drop(gradient)
        for storage in (*clones, *(kept for kept, _ in node.keeps)):
            self.drop(storage)
        for value, storage, is_view in made:
            if value.source is None:
                self.drop(storage)
            elif isinstance(value.source, Node):  # while a parameter keeps what arrives
                self._collect(value, value.source, storage, is_view=is_view)

    def _collect(self, value: Value, node: Node, storage: Storage, *, is_view: bool) -> None:
        """Add a gradient of the value to what its node has so far.

        In place where that is nobody else's, or else anew: never in what has just come.
        """
        before = node.gradient
        if before is None:
            node.gradient, node.is_view = storage, is_view
            return
        total, makes = before, list[Storage]()
        if before.holders > 1 or before.is_viewed or node.is_view:
            total = self.make(value.size)
            total.is_planar = before.is_planar
            makes = [total]
        self.call("add", (value, value), (value,), makes)
        for part in (before, storage):
            if part is not total:
                self.drop(part)
        node.gradient, node.is_view = total, False


def _copied(node: Node, gradient: Storage, backward: Backward) -> list[Size]:
    """What the call copies."""
    if backward.operator not in _COPYING:
        return []
    return [*node.copies, *([backward.reads[0].size] if _must_copy(node, gradient) else [])]


def _must_copy(node: Node, gradient: Storage) -> bool:
    """Whether the node's gradient is part of a wider one, or lies in another layout."""
    return node.is_view or gradient.is_planar is node.reads_last


def _in_order(
    operator: str,
    of: Sequence[Value],
    copies: Sequence[Storage],
    makes: Sequence[Storage],
    *,
    is_part: bool,
) -> list[Storage]:
    """The copies and the results, as the call makes them."""
    is_late = operator in _POOLS or (operator == _CONVOLUTION and is_part and of[0].shape)
    return [*makes, *copies] if is_late else [*copies, *makes]


def _ends_with_bias(backward: Backward) -> bool:
    """Whether it is a convolution's half that makes the gradients of weight and bias."""
    return backward.operator == _CONVOLUTION and len(backward.of) > 1


def _is_planar(operator: str, value: Value, gradient: Storage) -> bool:
    """Whether the gradient of the value lies channel by channel."""
    return (
        len(value.shape) < 3
        or value.shape == (1, 1, 1)
        or operator == _PLANAR
        or (gradient.is_planar and operator in _AS_IT_CAME)
    )


def _category(value: Value) -> Category:
    """What the gradient of the value is; that of a weight's low-precision copy is a weight's."""
    if value.source is None:
        return Category.TEMPORARY
    return Category.ACTIVATION if value.shape else Category.GRADIENT
