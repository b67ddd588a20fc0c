"""What does each kind of layer do, operator by operator, forward and backward?

One rule a kind: what its operators are called, what they read, write, make and keep, and their
MACs. A kind without a rule does not pass mypy. `Player` plays a whole step by them.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import ClassVar, assert_never

from ninlab.architectures import Architecture
from ninlab.layers import (
    AvgPool,
    BatchNorm,
    Branches,
    Conv,
    Dropout,
    Flatten,
    GlobalAvgPool,
    Leaf,
    Linear,
    MaxPool,
    ReLU,
    Sigmoid,
    walk,
)
from ninlab.reports import Category, Phase
from ninlab.shapes import joined_shape, leaf_shape, parameter_counts, product_macs
from ninlab.steps import (
    BOOL_BYTES,
    FLOAT32_BYTES,
    INT64_BYTES,
    LOSS,
    OPTIMIZERS,
    Optimizer,
    OptimizerRule,
    Precision,
    SavedKind,
)
from ninlab.tape.writer import (
    Backward,
    Parameter,
    Storage,
    TapeWriter,
    Value,
)
from ninlab.units import Shape


class Player:
    """Plays one warm step of a network on its `writer`."""

    in_channels_last: ClassVar[bool] = False

    def __init__(self, precision: Precision, *, training: bool) -> None:
        self.compute_bytes = precision.element_bytes
        self.image_bytes = FLOAT32_BYTES  # of a number of the images that are found
        self.training = training
        self.parameters: list[Parameter] = []  # of the layers met so far
        self.casts: list[Value] = []  # autocast's cache: their low-precision copies

    def play(self, architecture: Architecture, optimizer: Optimizer) -> TapeWriter:
        """Take the step; what wrote it down."""
        rule = OPTIMIZERS[optimizer]
        self.writer = TapeWriter(
            _order_of_what_is_found(rule), in_channels_last=self.in_channels_last
        )
        shape = architecture.input_shape
        size = (0, prod(shape) * self.image_bytes)
        images = Value(self.writer.find(Category.INPUT, size), shape, self.image_bytes)
        images.is_last = self._lays_last(shape)
        scores = walk(
            architecture.layers, images, self._leaf, self._join,
            hold=Value.view, let_go=self.writer.let_go,
        )  # fmt: skip
        if self.training:
            self._learn(scores, rule)
        else:
            self._leave_autocast()
            self.writer.at("")
            self._release_of_the_step_before(scores)
        return self.writer

    def _lays_last(self, shape: Shape) -> bool:
        """Whether maps of that shape are brought into channels_last."""
        return False

    # ------------------------------------------------------------ the order of a step

    def _learn(self, scores: Value, rule: OptimizerRule) -> None:
        writer = self.writer
        writer.at(LOSS, Phase.LOSS)
        loss = self._cross_entropy(scores)
        self._leave_autocast()
        writer.at(LOSS, Phase.BACKWARD)
        writer.backward(loss)
        writer.at("", Phase.STEP)
        writer.find_beside(self.parameters, Category.GRADIENT, 1)
        writer.find_beside(self.parameters, Category.OPTIMIZER_STATE, rule.states)
        self._update(rule)
        writer.at("")
        self._release_of_the_step_before(scores, loss)

    def _update(self, rule: OptimizerRule) -> None:
        """The optimizer's calls, each for the lists of all parameters."""
        size = sum(parameter.size[0] for parameter in self.parameters), 0
        weights = Storage(0, size, Category.PARAMETER)  # of all, for what a call moves
        made: list[Storage] = []
        for call in rule.calls:
            parameters = self.parameters if call.makes_list else []
            makes = [self.writer.make(like.size, Category.TEMPORARY) for like in parameters]
            self.writer.call(call.operator, (weights,) * call.moved_lists, (), makes)
            made += makes
        for storage in made:
            self.writer.drop(storage)

    def _release_of_the_step_before(self, *results: Value) -> None:
        """The caller, who now has the step's results, lets go of those like them."""
        for result in results:
            self.writer.drop(self.writer.find(Category.ACTIVATION, result.storage.size))

    def _leave_autocast(self) -> None:
        for copy in self.casts:
            self.writer.drop(copy.storage)

    # ------------------------------------------------------------ layers

    def _leaf(self, path: str, layer: Leaf, value: Value) -> Value:
        self.writer.layer = path
        shape = leaf_shape(layer, value.shape)
        match layer:
            case Conv():
                return self._convolution(layer, value, shape)
            case Linear():
                return self._linear(layer, value, shape)
            case BatchNorm():
                return self._batch_norm(layer, value)
            case ReLU():
                return self._activation("relu", "threshold_backward", value)
            case Sigmoid():
                return self._activation("sigmoid", "sigmoid_backward", value)
            case MaxPool():
                return self._max_pool(value, shape)
            case AvgPool():
                return self._average_pool(value, shape)
            case GlobalAvgPool():
                return self._global_average(value, shape)
            case Dropout():
                return self._dropout(layer, value)
            case Flatten():
                return value.view(shape)
            case _:
                assert_never(layer)

    def _join(self, path: str, branches: Branches, parts: list[Value]) -> Value:
        self.writer.layer = path
        shape = joined_shape(path, branches, [part.shape for part in parts])
        widest = max(part.element_bytes for part in parts)
        joined = self.result("cat", parts, shape, widest)
        if any(part.source for part in parts):
            backward = [
                Backward("narrow", (part,), is_view=True)
                if part.element_bytes == widest
                else Backward("_to_copy", (part,), (part,))
                for part in parts
            ]
            self.writer.remember(joined, backward)
        for part in parts:
            self.writer.drop(part.storage)
        return joined

    def _convolution(self, layer: Conv, value: Value, shape: Shape) -> Value:
        return self._convolved(*self._operands(layer, value, shape), shape)

    def _convolved(
        self, source: Value, weight: Value, bias: Sequence[Value], macs: int, shape: Shape
    ) -> Value:
        """The convolution of operands in its width; it lets go of the source."""
        result = self.result("convolution", (source, weight), shape, self.compute_bytes, macs=macs)
        if weight.source:
            operator = "convolution_backward"
            self.writer.remember(
                result,
                (
                    Backward(operator, (source,), (result, weight), macs),
                    Backward(operator, (weight, *bias), (result, source), macs, joins_call=True),
                ),
                ((source.storage, SavedKind.INPUT), (weight.storage, SavedKind.WEIGHT_COPY)),
            )
        self.writer.drop(source.storage)
        return result

    def _linear(self, layer: Linear, value: Value, shape: Shape) -> Value:
        source, weight, bias, macs = self._operands(layer, value, shape)
        operator = "addmm" if bias else "mm"
        result = self.result(operator, (source, weight), shape, self.compute_bytes, macs=macs)
        if weight.source:
            keeps = ((source.storage, SavedKind.INPUT), (weight.storage, SavedKind.WEIGHT_COPY))
            products = (
                Backward("mm", (source,), (result, weight), macs),
                Backward("mm", (weight,), (result, source), macs),
            )
            self.writer.remember(  # autograd makes the gradients of addmm and of mm in other orders
                result,
                (*products, Backward("sum", bias, (result,))) if bias else products[::-1],
                keeps if source.source else keeps[:1],  # only the input's gradient needs the weight
            )
        self.writer.drop(source.storage)
        return result

    def _operands(
        self, layer: Conv | Linear, value: Value, shape: Shape
    ) -> tuple[Value, Value, list[Value], int]:
        """What a product reads, in its width: the value, the weight, and the bias if there is one.

        The last are its MACs. Autocast casts arguments from right to left, and holds the copies
        of parameters.
        """
        counts = parameter_counts(layer, value.shape)
        parameters = self.parameters_of(counts)
        if self.compute_bytes != FLOAT32_BYTES:
            copies = [self.cast(each, self.compute_bytes) for each in reversed(parameters)]
            self.casts += copies
            parameters = copies[::-1]
        weight, *bias = parameters
        return self.cast(value, self.compute_bytes), weight, bias, product_macs(counts[0], shape)

    def _batch_norm(self, layer: BatchNorm, value: Value) -> Value:
        """On float32 it is cuDNN's, which makes no statistics at prediction; on bf16 torch's."""
        writer = self.writer
        by_cudnn = value.element_bytes == FLOAT32_BYTES
        operator = "cudnn_batch_norm" if by_cudnn else "native_batch_norm"
        weights = self.parameters_of(parameter_counts(layer, value.shape))
        of_a_channel = weights[0].size
        for _ in ("mean", "variance"):
            writer.find(Category.PARAMETER, of_a_channel, writer.layer)
        batches_seen = writer.find(Category.PARAMETER, (INT64_BYTES, 0), writer.layer)
        if self.training:
            writer.call("add_", (batches_seen,), (batches_seen,))
        result = self.new(value.shape, value.element_bytes)
        statistics = []
        if self.training or not by_cudnn:
            category = Category.ACTIVATION if self.training else Category.TEMPORARY
            statistics = [writer.make(of_a_channel, category) for _ in range(2)]
        writer.call(operator, (value,), (result,), (result.storage, *statistics))
        if self.training:
            kinds = (SavedKind.BATCH_MEAN, SavedKind.BATCH_INVERSE_DEVIATION)
            operator, of = f"{operator}_backward", (value, *weights)
            writer.remember(
                result,
                [Backward(operator, of, (result, value), makes_all=by_cudnn)],
                ((value.storage, SavedKind.INPUT), *zip(statistics, kinds, strict=True)),
            )
        for each in statistics:
            writer.drop(each)
        return result

    def _activation(self, operator: str, derivative: str, value: Value) -> Value:
        """One whose gradient follows from its result."""
        result = self.result(operator, (value,), value.shape, value.element_bytes)
        if value.source:
            self.writer.remember(
                result,
                [Backward(derivative, (value,), (result, result))],
                ((result.storage, f"{operator}_result"),),
            )
        return result

    def _max_pool(self, value: Value, shape: Shape) -> Value:
        """Autograd keeps the input, of which the way back needs no more than the shape."""
        operator = "max_pool2d_with_indices"
        result, indices = self._two_results(operator, value, shape, INT64_BYTES)
        if value.source:
            self.writer.remember(
                result,
                [Backward(f"{operator}_backward", (value,), (result, indices))],
                ((value.storage, SavedKind.POOL_INPUT), (indices, SavedKind.POOL_INDICES)),
            )
        self.writer.drop(indices)
        return result

    def _average_pool(self, value: Value, shape: Shape) -> Value:
        """As `_max_pool`: the input is kept and not read again."""
        result = self.result("avg_pool2d", (value,), shape, value.element_bytes)
        if value.source:
            self.writer.remember(
                result,
                [Backward("avg_pool2d_backward", (value,), (result,))],
                ((value.storage, SavedKind.POOL_INPUT),),
            )
        return result

    def _global_average(self, value: Value, shape: Shape) -> Value:
        result = self.result("mean", (value,), shape, value.element_bytes)
        if value.source:
            self.writer.remember(result, [Backward("div", (value,), (result,))])
        return result

    def _dropout(self, layer: Dropout, value: Value) -> Value:
        if not self.training or layer.probability == 0:
            return value.view()
        if layer.probability == 1:  # no mask: a product with a single zero
            factor, kind = self.writer.make((value.element_bytes, 0)), "mul_other"
            self.writer.call("zeros", (), (factor,), (factor,))
            result = self.result("mul", (value, factor), value.shape, value.element_bytes)
            derivative = "mul"
        else:
            result, factor = self._two_results("native_dropout", value, value.shape, BOOL_BYTES)
            kind, derivative = SavedKind.DROPOUT_MASK, "native_dropout_backward"
        if value.source:
            self.writer.remember(
                result, [Backward(derivative, (value,), (result, factor))], ((factor, kind),)
            )
        self.writer.drop(factor)
        return result

    def _cross_entropy(self, scores: Value) -> Value:
        """The mean loss; its logarithms are computed as the scores come, and picked in float32."""
        writer = self.writer
        logs = self.result("_log_softmax", (scores,), scores.shape, scores.element_bytes)
        if scores.source:
            writer.remember(
                logs,
                [Backward("_log_softmax_backward_data", (scores,), (logs, logs))],
                ((logs.storage, SavedKind.LOG_SOFTMAX),),
            )
        wide = self.cast(logs, FLOAT32_BYTES)
        labels = writer.find(Category.INPUT, (0, INT64_BYTES))
        loss, total_weight = (writer.make((FLOAT32_BYTES, 0)) for _ in range(2))
        writer.call("nll_loss_forward", (labels,), (), (loss, total_weight))
        result = Value(loss, (), FLOAT32_BYTES)
        if wide.source:
            writer.remember(
                result,
                [Backward("nll_loss_backward", (wide,), (labels,))],
                (
                    (wide.storage, SavedKind.LOG_SOFTMAX),
                    (labels, SavedKind.LABELS),
                    (total_weight, SavedKind.TOTAL_WEIGHT),
                ),
            )
        for storage in (total_weight, wide.storage, logs.storage):
            writer.drop(storage)
        return result

    # ------------------------------------------------------------ tensors

    def parameters_of(self, counts: Sequence[int]) -> list[Value]:
        """Parameters of so many numbers each; they belong to the present layer.

        They need no holder: they outlive the step.
        """
        path = self.writer.layer
        values = []
        for count in counts:
            size = (count * FLOAT32_BYTES, 0)
            parameter = Parameter(path, size)
            self.parameters.append(parameter)
            storage = self.writer.find(Category.PARAMETER, size, path)
            values.append(Value(storage, (), FLOAT32_BYTES, parameter if self.training else None))
        return values

    def new(self, shape: Shape, element_bytes: int) -> Value:
        """An activation of that shape, for a call to make."""
        return Value(self.writer.make((0, prod(shape) * element_bytes)), shape, element_bytes)

    def result(
        self,
        operator: str,
        reads: Sequence[Value | Storage],
        shape: Shape,
        element_bytes: int,
        *,
        macs: int = 0,
    ) -> Value:
        """What the operator makes of what it reads."""
        storage = self.writer.make((0, prod(shape) * element_bytes))
        result = Value(storage, shape, element_bytes)
        self.writer.call(operator, reads, (result,), (storage,), macs)
        return result

    def _two_results(
        self, operator: str, value: Value, shape: Shape, second_bytes: int
    ) -> tuple[Value, Storage]:
        """What the operator makes of the value, and a second tensor for backward alone.

        second_bytes is the width of its elements. It is of no use where nothing flows back.
        """
        result = self.new(shape, value.element_bytes)
        category = Category.TEMPORARY if value.source is None else Category.ACTIVATION
        second = self.writer.make((0, prod(shape) * second_bytes), category)
        made = [result.storage, second]
        if operator == "native_dropout":  # CUDA makes the mask first
            made.reverse()
        self.writer.call(operator, (value,), (result, second), made)
        return result, second

    def cast(self, value: Value, element_bytes: int) -> Value:
        """The value in that width: itself, or a copy."""
        width = value.element_bytes
        if width == element_bytes:
            return value.view()
        constant, per_image = value.size
        storage = self.writer.make(
            (constant // width * element_bytes, per_image // width * element_bytes)
        )
        copy = Value(storage, value.shape, element_bytes, is_last=value.is_last)
        self.writer.call("_to_copy", (value,), (copy,), (storage,))
        if value.source:
            self.writer.remember(copy, [Backward("_to_copy", (value,), (copy,))])
        return copy


def _order_of_what_is_found(rule: OptimizerRule) -> list[Category]:
    """In which order it came to be: scores and loss, of the step before, last."""
    state = [Category.OPTIMIZER_STATE]
    early, late = (state, []) if rule.made_at_once else ([], state)
    return [
        *(Category.PARAMETER, *early, Category.INPUT, *late),
        *(Category.GRADIENT, Category.ACTIVATION),
    ]
