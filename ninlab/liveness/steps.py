"""What does each layer allocate, hold and save as a step runs through it?

Imports from ninlab: architectures, reports, units and errors; from formulas only what a layer
puts out and how wide a number is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any

from ninlab.architectures import Architecture
from ninlab.errors import NinlabError, UnknownNameError
from ninlab.formulas import BOOL_BYTES, FLOAT32_BYTES, INT64_BYTES, joined_shape, output_shape
from ninlab.layers import (
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
from ninlab.liveness.autograd import NARROW, Autograd, Memory, Node, Parameter, Size, Value
from ninlab.liveness.autograd import Block as MemoryBlock
from ninlab.reports import Category, Phase
from ninlab.units import Shape

OPTIMIZER_STATES = {"sgd": 0, "momentum": 1, "adam": 2}
"""Tensors of a parameter's size that each optimizer keeps from step to step."""

COMPUTE_BYTES = {"fp32": 4, "tf32": 4, "bf16": 2}
"""Bytes of one element in convolutions and linear layers, by precision."""

LOSS = "loss"
"""The layer under which the loss's own tensors are listed."""

_SCALAR: Size = (FLOAT32_BYTES, 0)


class Step:
    """One warm step of a network, played on construction.

    Raises UnknownNameError for another optimizer or precision, ShapeError when a layer
    cannot read its input.
    """

    def __init__(
        self, architecture: Architecture, optimizer: str, precision: str, *, training: bool
    ) -> None:
        if optimizer not in OPTIMIZER_STATES:
            raise UnknownNameError("optimizer", optimizer, OPTIMIZER_STATES)
        if precision not in COMPUTE_BYTES:
            raise UnknownNameError("precision", precision, COMPUTE_BYTES)
        self.compute_bytes = COMPUTE_BYTES[precision]
        self.training = training
        self.memory = Memory()
        self.autograd = Autograd(self.memory)
        self.parameters: list[Parameter] = []  # of the layers met so far
        self.casts: list[Value] = []  # autocast's cache: their low-precision copies
        images = self._given(architecture.input_shape)
        self.memory.phase = Phase.FORWARD
        scores = self._sequence(architecture.layers, images, "")
        if training:
            self._learn(scores, OPTIMIZER_STATES[optimizer])
        else:
            self._leave_autocast()
            self.memory.layer = self.memory.operator = ""
            self._release_of_the_step_before(scores)

    # ------------------------------------------------------------ the order of a step

    def _learn(self, scores: Value, num_states: int) -> None:
        memory = self.memory
        memory.phase, memory.layer = Phase.LOSS, LOSS
        loss = self._cross_entropy(scores)
        self._leave_autocast()
        memory.phase = Phase.BACKWARD
        if isinstance(loss.source, Node):  # there is something to learn
            self.autograd.backward(loss.source, loss.block.size)
        memory.phase, memory.layer, memory.operator = Phase.STEP, "", ""
        memory.find_beside(self.parameters, Category.GRADIENT, 1)
        memory.find_beside(self.parameters, Category.OPTIMIZER_STATE, num_states)
        if num_states == 2:  # Adam: the roots of all second moments at once
            roots = [
                memory.allocate("_foreach_sqrt", parameter.size, Category.TEMPORARY)
                for parameter in self.parameters
            ]
            for root in roots:
                memory.drop(root)
        memory.operator = ""
        self._release_of_the_step_before(scores, loss)

    def _release_of_the_step_before(self, *results: Value) -> None:
        """The caller, who now has the step's results, lets go of those like them."""
        for result in results:
            self.memory.drop(self.memory.find(Category.ACTIVATION, result.block.size))

    def _leave_autocast(self) -> None:
        for copy in self.casts:
            self.memory.drop(copy.block)

    # ------------------------------------------------------------ containers

    def _sequence(self, layers: Sequence[Layer], value: Value, prefix: str) -> Value:
        """The layers one after the other; what a container was given its caller still holds."""
        given = value
        for name, layer in named_children(layers):
            result = self._layer(layer, value, prefix + name)
            if value is not given:
                self.memory.drop(value.block)
            value = result
        return _view(value) if value is given else value

    def _layer(self, layer: Layer, value: Value, path: str) -> Value:
        if isinstance(layer, Block):
            return self._sequence(layer.layers, value, f"{path}.")
        if isinstance(layer, Branches):
            return self._joined(layer, value, path)
        rule = _RULES.get(type(layer))
        if rule is None:
            raise NinlabError(f"no memory rule for the layer {layer!r}")
        self.memory.layer = path
        return rule(self, layer, value, output_shape(layer, value.shape))

    def _joined(self, branches: Branches, value: Value, path: str) -> Value:
        parts = [self._sequence((branch,), value, f"{path}.") for branch in branches.branches]
        self.memory.layer = path
        shape = joined_shape(path, branches, [part.shape for part in parts])
        widest = max(part.element_bytes for part in parts)
        joined = self._make("cat", shape, widest)
        self.autograd.record(
            joined,
            [(part, NARROW if part.element_bytes == widest else "_to_copy") for part in parts],
        )
        for part in parts:
            self.memory.drop(part.block)
        return joined

    # ------------------------------------------------------------ layers that compute

    def _convolution(self, layer: Conv, value: Value, shape: Shape) -> Value:
        fan_in = value.shape[0] // layer.groups * layer.kernel_size**2
        counts = (layer.out_channels * fan_in, layer.out_channels)[: 1 + layer.bias]
        source, weight, *_ = operands = self._operands(value, counts)
        result = self._make("convolution", shape, self.compute_bytes)
        self.autograd.record(
            result,
            [(operand, "convolution_backward") for operand in operands],
            ((source.block, "input"), (weight.block, "weight_copy")),
        )
        self.memory.drop(source.block)
        return result

    def _linear(self, layer: Linear, value: Value, shape: Shape) -> Value:
        counts = (layer.out_features * value.shape[0], layer.out_features)[: 1 + layer.bias]
        source, weight, *_ = operands = self._operands(value, counts)
        result = self._make("addmm" if layer.bias else "mm", shape, self.compute_bytes)
        saved = [(source.block, "input"), (weight.block, "weight_copy")]
        if source.source is None:
            saved.pop()  # only the gradient of the input would need the weight
        gradients = zip(operands, ("mm", "mm", "sum"), strict=False)
        self.autograd.record(result, list(gradients), saved)
        self.memory.drop(source.block)
        return result

    def _operands(self, value: Value, counts: Sequence[int]) -> list[Value]:
        """The value and the parameters of so many numbers, in the width of a product.

        Autocast casts arguments from right to left, and holds the copies of parameters.
        """
        parameters = self._parameters(counts)
        if self.compute_bytes != FLOAT32_BYTES:
            copies = [self._cast(each, self.compute_bytes) for each in reversed(parameters)]
            self.casts += copies
            parameters = copies[::-1]
        return [self._cast(value, self.compute_bytes), *parameters]

    def _batch_norm(self, layer: BatchNorm, value: Value, shape: Shape) -> Value:
        """On float32 it is cuDNN's, which makes no statistics at prediction; on bf16 torch's."""
        by_cudnn = value.element_bytes == FLOAT32_BYTES
        operator = "cudnn_batch_norm" if by_cudnn else "native_batch_norm"
        channels = shape[0]
        weights = self._parameters((channels, channels))
        statistic = (channels * FLOAT32_BYTES, 0)
        for size in (statistic, statistic, (INT64_BYTES, 0)):  # mean, variance, batches seen
            self.memory.find(Category.PARAMETER, size, self.memory.layer)
        result = self._make(operator, shape, value.element_bytes)
        if self.training or not by_cudnn:
            category = Category.ACTIVATION if self.training else Category.TEMPORARY
            mean, deviation = (
                self.memory.allocate(operator, statistic, category) for _ in range(2)
            )
            self.autograd.record(
                result,
                [(each, f"{operator}_backward") for each in (value, *weights)],
                (
                    (value.block, "input"),
                    (mean, "batch_mean"),
                    (deviation, "batch_inverse_deviation"),
                ),
                makes_all=by_cudnn,
            )
            self.memory.drop(mean)
            self.memory.drop(deviation)
        return result

    def _relu(self, layer: ReLU, value: Value, shape: Shape) -> Value:
        result = self._make("relu", shape, value.element_bytes)
        saved = ((result.block, "relu_result"),)
        self.autograd.record(result, [(value, "threshold_backward")], saved)
        return result

    def _sigmoid(self, layer: Sigmoid, value: Value, shape: Shape) -> Value:
        result = self._make("sigmoid", shape, value.element_bytes)
        saved = ((result.block, "sigmoid_result"),)
        self.autograd.record(result, [(value, "sigmoid_backward")], saved)
        return result

    def _max_pool(self, layer: MaxPool, value: Value, shape: Shape) -> Value:
        operator = "max_pool2d_with_indices"
        result = self._make(operator, shape, value.element_bytes)
        indices = self._aside(operator, value, (0, prod(shape) * INT64_BYTES))
        saved = ((value.block, "pool_input"), (indices, "pool_indices"))
        self.autograd.record(result, [(value, f"{operator}_backward")], saved)
        self.memory.drop(indices)
        return result

    def _average_pool(self, layer: AvgPool, value: Value, shape: Shape) -> Value:
        result = self._make("avg_pool2d", shape, value.element_bytes)
        saved = ((value.block, "pool_input"),)
        self.autograd.record(result, [(value, "avg_pool2d_backward")], saved)
        return result

    def _global_average(self, layer: GlobalAvgPool, value: Value, shape: Shape) -> Value:
        result = self._make("mean", shape, value.element_bytes)
        self.autograd.record(result, [(value, "div")])
        return result

    def _dropout(self, layer: Dropout, value: Value, shape: Shape) -> Value:
        if not self.training or layer.probability == 0:
            return _view(value)
        if layer.probability == 1:  # no mask: a product with a single zero
            width = value.element_bytes
            zero = self.memory.allocate("zeros", (width, 0), Category.ACTIVATION)
            result = self._make("mul", shape, width)
            self.autograd.record(result, [(value, "mul")], ((zero, "mul_other"),))
            self.memory.drop(zero)
            return result
        result = self._make("native_dropout", shape, value.element_bytes)
        mask = self._aside("native_dropout", value, (0, prod(shape) * BOOL_BYTES))
        saved = ((mask, "dropout_mask"),)
        self.autograd.record(result, [(value, "native_dropout_backward")], saved)
        self.memory.drop(mask)
        return result

    def _flatten(self, layer: Flatten, value: Value, shape: Shape) -> Value:
        return _view(value, shape)

    def _cross_entropy(self, scores: Value) -> Value:
        """The mean loss; its logarithms are computed as the scores come, and picked in float32."""
        logs = self._make("_log_softmax", scores.shape, scores.element_bytes)
        saved = ((logs.block, "log_softmax"),)
        self.autograd.record(logs, [(scores, "_log_softmax_backward_data")], saved)
        wide = self._cast(logs, FLOAT32_BYTES)
        labels = self.memory.find(Category.INPUT, (0, INT64_BYTES))
        loss, total_weight = (
            self.memory.allocate("nll_loss_forward", _SCALAR, Category.ACTIVATION) for _ in range(2)
        )
        result = Value(loss, (), FLOAT32_BYTES)
        self.autograd.record(
            result,
            [(wide, "nll_loss_backward")],
            ((wide.block, "log_softmax"), (labels, "labels"), (total_weight, "total_weight")),
        )
        for block in (total_weight, wide.block, logs.block):
            self.memory.drop(block)
        return result

    # ------------------------------------------------------------ tensors

    def _given(self, shape: Shape) -> Value:
        """The images, which the caller holds."""
        size = (0, prod(shape) * FLOAT32_BYTES)
        return Value(self.memory.find(Category.INPUT, size), shape, FLOAT32_BYTES)

    def _parameters(self, counts: Sequence[int]) -> list[Value]:
        """Parameters of so many numbers each; they belong to the present layer.

        They need no holder: they outlive the step.
        """
        layer = self.memory.layer
        values = []
        for count in counts:
            size = (count * FLOAT32_BYTES, 0)
            block = self.memory.find(Category.PARAMETER, size, layer)
            parameter = Parameter(layer, size)
            self.parameters.append(parameter)
            values.append(Value(block, (), FLOAT32_BYTES, parameter if self.training else None))
        return values

    def _make(self, operator: str, shape: Shape, element_bytes: int) -> Value:
        """A new activation of that shape."""
        size = (0, prod(shape) * element_bytes)
        block = self.memory.allocate(operator, size, Category.ACTIVATION)
        return Value(block, shape, element_bytes)

    def _aside(self, operator: str, value: Value, size: Size) -> MemoryBlock:
        """A second result, which is of use only if the value needs a gradient."""
        category = Category.TEMPORARY if value.source is None else Category.ACTIVATION
        return self.memory.allocate(operator, size, category)

    def _cast(self, value: Value, element_bytes: int) -> Value:
        """The value in that width: itself, or a copy."""
        width = value.element_bytes
        if width == element_bytes:
            return _view(value)
        constant, per_image = value.block.size
        size = constant // width * element_bytes, per_image // width * element_bytes
        block = self.memory.allocate("_to_copy", size, Category.ACTIVATION)
        copy = Value(block, value.shape, element_bytes)
        self.autograd.record(copy, [(value, "_to_copy")])
        return copy


def _view(value: Value, shape: Shape | None = None) -> Value:
    """The same memory under another shape, with a holder more."""
    value.block.holders += 1
    return Value(value.block, shape or value.shape, value.element_bytes, value.source)


_RULES: Mapping[type[Leaf], Callable[[Step, Any, Value, Shape], Value]] = {
    Conv: Step._convolution,
    Linear: Step._linear,
    BatchNorm: Step._batch_norm,
    ReLU: Step._relu,
    Sigmoid: Step._sigmoid,
    MaxPool: Step._max_pool,
    AvgPool: Step._average_pool,
    GlobalAvgPool: Step._global_average,
    Dropout: Step._dropout,
    Flatten: Step._flatten,
}
"""What each kind of layer does, given its input and the shape of its output."""
