"""Which tensors does autograd keep from the forward pass for the backward pass?

After forward and loss the graph that autograd built is read node by node: each node tells
what it keeps under the name that its derivative formula gives it.

Known limits. Tensors that belong to the module (weights, buffers) are not listed: they
exist anyway. Hooks on saved tensors, such as those of ``torch.utils.checkpoint``, are run
where they were to wait for backward; `StepTimeline.unmodeled` names them.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Container, Iterator, Mapping
from functools import cache
from typing import Any

from torch import Tensor, nn

from ninlab.reports import SavedTensor
from ninlab.steps import SavedKind
from ninlab.torch_private import nodes_made, number_of, saved_fields, storage_key

KINDS: Mapping[tuple[str, str] | tuple[str, str, int], SavedKind] = {
    ("Addmm", "mat1"): SavedKind.INPUT,
    ("Addmm", "mat2"): SavedKind.WEIGHT_COPY,  # listed only where autocast made one
    ("AdaptiveAvgPool2D", "self"): SavedKind.POOL_INPUT,
    ("AvgPool2D", "self"): SavedKind.POOL_INPUT,
    ("Convolution", "input"): SavedKind.INPUT,
    ("Convolution", "weight"): SavedKind.WEIGHT_COPY,
    ("LogSoftmax", "result"): SavedKind.LOG_SOFTMAX,
    ("MaxPool2DWithIndices", "result1"): SavedKind.POOL_INDICES,
    ("MaxPool2DWithIndices", "self"): SavedKind.POOL_INPUT,
    ("Mm", "self"): SavedKind.INPUT,
    ("Mm", "mat2"): SavedKind.WEIGHT_COPY,
    ("CudnnBatchNorm", "input"): SavedKind.INPUT,
    ("CudnnBatchNorm", "result1"): SavedKind.BATCH_MEAN,
    ("CudnnBatchNorm", "result2"): SavedKind.BATCH_INVERSE_DEVIATION,
    ("NativeBatchNorm", "input"): SavedKind.INPUT,
    ("NativeBatchNorm", "result1"): SavedKind.BATCH_MEAN,
    ("NativeBatchNorm", "result2"): SavedKind.BATCH_INVERSE_DEVIATION,
    ("NativeDropout", "result1"): SavedKind.DROPOUT_MASK,
    ("NllLoss", "self"): SavedKind.LOG_SOFTMAX,
    ("NllLoss", "target"): SavedKind.LABELS,
    ("NllLoss", "total_weight"): SavedKind.TOTAL_WEIGHT,
    ("_BiasRelu", "saved_tensors", 0): SavedKind.RELU_RESULT,
    ("_BiasReluMaxPool", "saved_tensors", 0): SavedKind.POOL_CODES,
    ("_Chain", "saved_tensors", 0): SavedKind.INPUT,
    ("_Chain", "saved_tensors", 2): SavedKind.WEIGHT_COPY,
    ("_Chain", "saved_tensors", 4): SavedKind.WEIGHT_COPY,
    ("_Epilogue", "saved_tensors", 0): SavedKind.RELU_RESULT,
    ("_ProductWithEpilogue", "saved_tensors", 0): SavedKind.INPUT,
    ("_ProductWithEpilogue", "saved_tensors", 1): SavedKind.WEIGHT_COPY,
}
"""What a saved tensor is called, by node and field; others are named ``node_field``.

Those of `ninlab.fused` are told by their place in the field, too."""

_NODE_NAME = re.compile(r"(\w+?)(Backward\d*)?$")
_CAPITAL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


class LayerMarks:
    """Which layer made an autograd node, from the numbers that nodes get in order of making."""

    def __init__(self) -> None:
        self.numbers = [0]
        self.layers = [""]

    def mark(self, layer: str) -> None:
        """Nodes made from now on are that layer's."""
        self.numbers.append(nodes_made())
        self.layers.append(layer)

    def layer_of(self, node: Any) -> str:
        """The layer that made the node."""
        return self.layers[bisect_right(self.numbers, number_of(node)) - 1]


def saved_tensors(
    loss: Tensor, module: nn.Module, marks: LayerMarks, devices: Container[str]
) -> tuple[SavedTensor, ...]:
    """What the graph of the loss keeps, in order of making; the module's own tensors excluded.

    Storages on these types of device are counted, whole and once, under the first node that
    keeps them.
    """
    seen = {storage_key(own.untyped_storage()) for own in (*module.parameters(), *module.buffers())}
    saved = []
    for node in sorted(_graph(loss.grad_fn), key=number_of):
        for field, place, tensor in _kept_by(node):
            if tensor.device.type not in devices:  # a number, say, wrapped on the host
                continue
            storage = tensor.untyped_storage()
            key = storage_key(storage)
            if key not in seen and storage.nbytes() > 0:
                seen.add(key)
                kind = _kind(node.name(), field, place)
                saved.append(SavedTensor(marks.layer_of(node), str(kind), storage.nbytes()))
    return tuple(saved)


def _graph(root: Any) -> list[Any]:
    """Every node that the root leads to, the accumulators of parameters excepted."""
    if root is None:  # nothing in the network learns
        return []
    nodes, waiting, seen = [], [root], {root}
    while waiting:
        node = waiting.pop()
        nodes.append(node)
        for following, _ in node.next_functions:
            if following is not None and following not in seen and following.next_functions:
                seen.add(following)
                waiting.append(following)
    return nodes


def _kept_by(node: Any) -> Iterator[tuple[str, int, Tensor]]:
    """(field, place in it, tensor) of what the node keeps."""
    for field, attribute in _fields(node.__class__).items():
        value = getattr(node, attribute)
        for place, tensor in enumerate(value if isinstance(value, list | tuple) else (value,)):
            if isinstance(tensor, Tensor):
                yield field, place, tensor


@cache
def _fields(node_type: Any) -> Mapping[str, str]:
    # A torch.autograd.Function written in Python keeps what it keeps under one name.
    of_python = {"saved_tensors": "saved_tensors"} if hasattr(node_type, "saved_tensors") else {}
    return saved_fields(node_type) or of_python


@cache
def _kind(node_name: str, field: str, place: int) -> str:
    match = _NODE_NAME.match(node_name.rpartition(":")[2])
    assert match is not None
    node = match[1]
    kind = KINDS.get((node, field)) or KINDS.get((node, field, place))
    return kind or f"{_CAPITAL.sub('_', node).lower()}_{field}"
