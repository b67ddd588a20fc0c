"""What would torch do otherwise if no dispatch mode looked on?

A dispatch mode could keep what it sees, so torch makes a new tensor where it would work in
place behind everybody's back: the engine when it adds gradients that meet, and a few
formulas of autograd when they fill a tensor of their own. The recorder of a step keeps
nothing, so it undoes that difference.

Known limits. Formulas that torch chooses by values (``prod`` and ``cumprod`` look for zeros)
are those for the general case; `cuda.UNMODELED` names them.
"""

from __future__ import annotations

from collections import Counter
from functools import cache
from typing import Any

import torch
from torch import Tensor

from ninlab.torch_private import (
    DispatchMode,
    OpOverload,
    reference_counts,
    running_node,
    storage_key,
)

_ADD = torch.ops.aten.add.Tensor

_FILLS = frozenset(
    {
        torch.ops.aten.index_add.default,
        torch.ops.aten.index_put.default,
        torch.ops.aten.masked_fill.Scalar,
        torch.ops.aten.masked_fill.Tensor,
        torch.ops.aten.scatter.src,
        torch.ops.aten.scatter.value,
        torch.ops.aten.scatter_add.default,
    }
)
"""What formulas of ``FunctionsManual.cpp`` call in place unless ``areAnyTensorSubclassLike``."""


class BackwardPass:
    """Follows the engine through the graph of a loss, operator by operator."""

    def __init__(self, loss: Tensor) -> None:
        self._loss = loss
        self._joining: set[Any] | None = None
        self._node: Any = None  # the one that runs
        self._made: set[int] = set()  # the storages that it made, by address

    def works_in_place(self, node: Any, func: OpOverload, args: tuple[Any, ...]) -> bool:
        """Whether the call, made for that node, would have written to its first argument."""
        if node is not self._node:
            self._node = node
            self._made.clear()
        if func is _ADD:
            return (
                isinstance(args[1], Tensor)
                and args[0].shape == args[1].shape
                and node in self._joining_nodes()
                and _is_sole_owner(args[0])
            )
        return (
            func in _FILLS
            and storage_key(args[0].untyped_storage()) in self._made
            and not isinstance(node, torch.autograd.function.BackwardCFunction)
        )

    def made(self, storage: torch.UntypedStorage) -> None:
        """The running node made a storage."""
        self._made.add(storage_key(storage))

    def _joining_nodes(self) -> set[Any]:
        """The nodes with an output that arrives where another gradient may wait for it."""
        if self._joining is None:
            self._joining = _nodes_that_join(self._loss.grad_fn)
        return self._joining


def _nodes_that_join(root: Any) -> set[Any]:
    """The nodes with an output that arrives where another node's arrives as well."""
    arrivals: Counter[tuple[Any, int]] = Counter()
    nodes, waiting = {root}, [root]
    while waiting:
        for edge in waiting.pop().next_functions:
            if edge[0] is None:
                continue
            arrivals[edge] += 1
            if edge[0] not in nodes:
                nodes.add(edge[0])
                waiting.append(edge[0])
    return {node for node in nodes if any(arrivals[edge] > 1 for edge in node.next_functions)}


def _is_sole_owner(gradient: Tensor) -> bool:
    """Whether the engine, about to add to that gradient, is the only one that holds it."""
    return reference_counts(gradient) == counts_of_sole_owner() and _is_dense(gradient)


def _is_dense(tensor: Tensor) -> bool:
    """Whether the elements lie side by side in some order of the dimensions."""
    expected = 1
    for stride, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if size > 1:
            if stride != expected:
                return False
            expected *= size
    return True


@cache
def counts_of_sole_owner() -> tuple[int, int]:
    """The counts where nobody but the engine holds a gradient, read from such a case.

    It has to be read once before anything is recorded.
    """
    seen = []

    class Reader(DispatchMode):
        def __torch_dispatch__(
            self, func: OpOverload, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            if func is _ADD and running_node() is not None:
                seen.append(reference_counts(args[0]))
            return func(*args, **(kwargs or {}))

    value = torch.empty(1, device="meta", requires_grad=True)
    loss = (value.relu() + value.sigmoid()).sum()
    with Reader():
        loss.backward()  # type: ignore[no-untyped-call]
    (counts,) = seen
    return counts
