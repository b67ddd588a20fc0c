"""How long must one step take at least, and how long will it take?

Every operator that PyTorch calls in a step multiplies numbers and moves bytes. A
device can do neither faster than its data sheet says, so an operator takes at least
the longer of the two times, and a step at least their sum: the bound. A prediction
adds what a data sheet does not say in three constants of a device and its host: the
shares of both peak rates that real kernels reach, and the time that the host needs
to call one operator. They are fitted to measured steps, never assumed.

All of it is in closed form, from `formulas`; tests/test_roofline.py holds operators
and FLOPs against those that torch dispatches.

Imports from ninlab: architectures, devices, errors, formulas, reports and units.

Known limits. Each operator reads its inputs and writes its results once: caches
between operators, the addition of biases, layout changes and the extra passes of
some kernels are in neither count, so the bound stays a bound on devices whose last
cache is small beside the activations. Only the arithmetic of convolutions and linear
layers is counted; the others move bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import exp, log, prod

from ninlab.architectures import Architecture
from ninlab.devices import Device
from ninlab.errors import NinlabError, UnknownNameError
from ninlab.formulas import (
    BOOL_BYTES,
    FLOAT32_BYTES,
    INT64_BYTES,
    layer_macs,
    layer_parameters,
    output_shape,
    parameters,
)
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
from ninlab.reports import Phase
from ninlab.units import Shape, format_seconds

BFLOAT16_BYTES = 2
ELEMENT_BYTES = {"fp32": FLOAT32_BYTES, "tf32": FLOAT32_BYTES, "bf16": BFLOAT16_BYTES}
"""Bytes of one activation; parameters, gradients and optimizer state stay float32."""

OPTIMIZER_OPERATORS = {
    "sgd": (("_foreach_add_", 3),),
    "momentum": (("_foreach_mul_", 2), ("_foreach_add_", 3), ("_foreach_add_", 3)),
    "adam": (
        ("_foreach_add_", 0),  # the step counters: scalars, on the host
        ("_foreach_lerp_", 3),
        ("_foreach_mul_", 2),
        ("_foreach_addcmul_", 3),
        ("_foreach_sqrt", 2),
        ("_foreach_div_", 2),
        ("_foreach_add_", 2),
        ("_foreach_addcdiv_", 4),
    ),
}
"""What a warm step of torch.optim's foreach implementations calls, and how many lists of all
parameters each call reads and writes."""


@dataclass(frozen=True, slots=True)
class Operator:
    """One ATen call of a step, or one of the two halves of a `convolution_backward`.

    flops and bytes are of the whole batch. calls is 0 for a half that the call of the
    other one already counts.
    """

    layer: str
    phase: Phase
    name: str
    flops: int
    bytes: int
    calls: int = 1


GRID = 32  # points of one pass of the search in `fit`
LARGEST_RATIO = 32  # of one efficiency to the other
RATIO_TOLERANCE = 1e-4  # relative; far below the noise of any timing


# ---------------------------------------------------------------- operators of a step


def training_operators(
    architecture: Architecture,
    batch_size: int,
    optimizer: str = "sgd",
    precision: str = "fp32",
) -> tuple[Operator, ...]:
    """What one warm training step calls: forward, cross-entropy loss, backward, optimizer.

    Raises UnknownNameError for an unknown optimizer or precision, ShapeError where the
    network cannot read its input.
    """
    if optimizer not in OPTIMIZER_OPERATORS:
        raise UnknownNameError("optimizer", optimizer, OPTIMIZER_OPERATORS)
    counter = _Counter(batch_size, precision, training=True)
    scores = counter.run(architecture)
    counter.loss(scores)
    weights = parameters(architecture)
    step = [
        Operator("", Phase.STEP, name, 0, lists * weights * FLOAT32_BYTES)
        for name, lists in OPTIMIZER_OPERATORS[optimizer]
    ]
    return (*counter.forward, *reversed(counter.backward), *step)


def inference_operators(
    architecture: Architecture, batch_size: int, precision: str = "fp32"
) -> tuple[Operator, ...]:
    """What one forward pass in evaluation mode without gradients calls."""
    counter = _Counter(batch_size, precision, training=False)
    counter.run(architecture)
    return tuple(counter.forward)


class _Counter:
    """Walks an architecture once and lists the operators of both directions."""

    def __init__(self, batch_size: int, precision: str, *, training: bool) -> None:
        if precision not in ELEMENT_BYTES:
            raise UnknownNameError("precision", precision, ELEMENT_BYTES)
        if batch_size < 1:
            raise NinlabError(f"batch size {batch_size} is too small; use 1 or more")
        self.batch_size = batch_size
        self.element = ELEMENT_BYTES[precision]
        self.training = training
        self.forward: list[Operator] = []
        self.backward: list[Operator] = []  # in order of the forward pass

    @property
    def casts(self) -> bool:
        """Whether autocast copies images, weights and biases to another type."""
        return self.element != FLOAT32_BYTES

    def run(self, architecture: Architecture) -> int:
        """Lists the network's operators; returns the scores of one image."""
        if self.casts:
            images = prod(architecture.input_shape) * self.batch_size
            self._forward("", "_to_copy", images * (FLOAT32_BYTES + self.element))
        shape, _ = self._layers(architecture.layers, architecture.input_shape, False, "")
        return prod(shape)

    def loss(self, scores: int) -> None:
        """Cross-entropy: log-softmax, negative log-likelihood, and both backwards.

        Under CUDA's autocast the log-softmax stays in bfloat16, and the likelihood is float32.
        """
        table, in_float32 = (
            scores * self.batch_size * size for size in (self.element, FLOAT32_BYTES)
        )
        labels = self.batch_size * INT64_BYTES
        operators = [("_log_softmax", 2 * table, "_log_softmax_backward_data", 3 * table)]
        if self.casts:
            cast = table + in_float32
            operators.append(("_to_copy", cast, "_to_copy", cast))
        operators.append(("nll_loss_forward", labels, "nll_loss_backward", in_float32 + labels))
        for forward, moved, backward, moved_back in operators:
            self.forward.append(Operator("loss", Phase.LOSS, forward, 0, moved))
            self._backward("loss", backward, moved_back)
        self._backward("loss", "ones_like", FLOAT32_BYTES)

    def _layers(
        self, layers: Sequence[Layer], shape: Shape, learns_before: bool, prefix: str
    ) -> tuple[Shape, bool]:
        """(shape after the layers, whether a gradient passes back through them)."""
        for name, layer in named_children(layers):
            path = prefix + name
            after = output_shape(layer, shape)
            if isinstance(layer, Block):
                _, learns_before = self._layers(layer.layers, shape, learns_before, f"{path}.")
            elif isinstance(layer, Branches):
                learns_before = self._branches(layer, shape, after, learns_before, path)
            else:
                self._leaf(layer, path, shape, after, learns_before)
                learns_before = learns_before or isinstance(layer, Conv | Linear | BatchNorm)
            shape = after
        return shape, learns_before

    def _branches(
        self, layer: Branches, shape: Shape, after: Shape, learns_before: bool, path: str
    ) -> bool:
        images = self.batch_size * self.element
        if self.training and learns_before:  # the gradients of the branches meet in their input
            for _ in layer.branches[1:]:
                self._backward(path, "add", 3 * prod(shape) * images)
        learns = [
            self._layers((branch,), shape, learns_before, f"{path}.")[1]
            for branch in layer.branches
        ]
        self._forward(path, "cat", 2 * prod(after) * images)  # its backward makes views only
        return any(learns)

    def _leaf(
        self, layer: Leaf, path: str, shape: Shape, after: Shape, learns_before: bool
    ) -> None:
        before, behind = (prod(s) * self.batch_size * self.element for s in (shape, after))
        match layer:
            case Conv() | Linear():
                self._multiply(layer, path, shape, before, behind, learns_before)
            case BatchNorm():
                self._forward(path, "native_batch_norm", before + behind)
                self._backward(path, "native_batch_norm_backward", 2 * behind + before)
                if self.training:
                    self._forward(path, "add_", 2 * INT64_BYTES)  # the number of batches seen
            case ReLU() | Sigmoid():
                name = "relu" if isinstance(layer, ReLU) else "sigmoid"
                derivative = "threshold" if isinstance(layer, ReLU) else "sigmoid"
                self._forward(path, name, before + behind)
                if learns_before:
                    self._backward(path, f"{derivative}_backward", 2 * behind + before)
            case MaxPool():
                indices = prod(after) * self.batch_size * INT64_BYTES
                self._forward(path, "max_pool2d_with_indices", before + behind + indices)
                if learns_before:
                    self._backward(
                        path, "max_pool2d_with_indices_backward", behind + indices + before
                    )
            case AvgPool():
                self._forward(path, "avg_pool2d", before + behind)
                if learns_before:
                    self._backward(path, "avg_pool2d_backward", behind + before)
            case GlobalAvgPool():
                self._forward(path, "mean", before + behind)
                if learns_before:
                    self._backward(path, "div", behind + before)
            case Dropout(probability=1) if self.training:  # a product with a single zero
                self._forward(path, "zeros", self.element)
                self._forward(path, "mul", before + behind + self.element)
                if learns_before:
                    self._backward(path, "mul", behind + before + self.element)
            case Dropout(probability=probability) if self.training and probability > 0:
                mask = prod(after) * self.batch_size * BOOL_BYTES
                self._forward(path, "native_dropout", before + behind + mask)
                if learns_before:
                    self._backward(path, "native_dropout_backward", behind + mask + before)
            case Flatten() | Dropout():
                pass  # a view, or nothing at all

    def _multiply(
        self,
        layer: Conv | Linear,
        path: str,
        shape: Shape,
        before: int,
        behind: int,
        learns_before: bool,
    ) -> None:
        flops = 2 * layer_macs(layer, shape) * self.batch_size
        values = layer_parameters(layer, shape)
        biases = (
            layer.out_channels if isinstance(layer, Conv) else layer.out_features
        ) * layer.bias
        weight = (values - biases) * self.element
        if self.casts:
            for count in (values - biases, biases):
                if count:
                    self._forward(path, "_to_copy", count * (FLOAT32_BYTES + self.element))
                    self._backward(path, "_to_copy", count * (FLOAT32_BYTES + self.element))
        convolves = isinstance(layer, Conv)
        multiplies = "convolution" if convolves else "addmm" if layer.bias else "mm"
        self._forward(path, multiplies, before + weight + behind, flops)
        to_input = "convolution_backward" if convolves else "mm"
        if learns_before:
            self._backward(path, to_input, behind + weight + before, flops)
        self._backward(
            path,
            to_input,
            behind + before + weight,
            flops,
            calls=0 if convolves and learns_before else 1,
        )
        if layer.bias and not convolves:
            self._backward(path, "sum", behind + biases * self.element)

    def _forward(self, layer: str, name: str, moved: int, flops: int = 0) -> None:
        self.forward.append(Operator(layer, Phase.FORWARD, name, flops, moved))

    def _backward(
        self, layer: str, name: str, moved: int, flops: int = 0, *, calls: int = 1
    ) -> None:
        if self.training:
            self.backward.append(Operator(layer, Phase.BACKWARD, name, flops, moved, calls))


# ---------------------------------------------------------------- bound


@dataclass(frozen=True)
class TimeBound:
    """A step cannot be faster than this on that device."""

    seconds: float
    memory_bound_seconds: float  # the part of it in which the bytes are what takes long
    flops: int
    bytes: int
    calls: int


def operator_seconds(operator: Operator, device: Device, precision: str) -> float:
    """The longer of the operator's arithmetic at peak rate and its bytes at full bandwidth."""
    return max(operator.flops / device.peak(precision), operator.bytes / device.bandwidth())


def time_bound(operators: Iterable[Operator], device: Device, precision: str) -> TimeBound:
    """The sum of the operators' lower bounds.

    Raises NinlabError where no document gives the device's rates.
    """
    operators = tuple(operators)
    seconds = [operator_seconds(one, device, precision) for one in operators]
    waits = [
        one.bytes / device.bandwidth() >= second
        for one, second in zip(operators, seconds, strict=True)
    ]
    return TimeBound(
        seconds=sum(seconds),
        memory_bound_seconds=sum(s for s, wait in zip(seconds, waits, strict=True) if wait),
        flops=sum(one.flops for one in operators),
        bytes=sum(one.bytes for one in operators),
        calls=sum(one.calls for one in operators),
    )


# ---------------------------------------------------------------- prediction


@dataclass(frozen=True)
class TimeModel:
    """Step times of one device and its host at one precision.

    The host calls operators while the device computes; the slower of the two sets the
    pace. `fit` makes one from measured steps.
    """

    device: Device
    precision: str
    compute_efficiency: float  # share of the peak rate that matrix kernels reach
    bandwidth_efficiency: float  # share of the bandwidth that the others reach
    seconds_per_call: float

    def seconds(self, operators: Sequence[Operator]) -> float:
        """Predicted duration of a step of these operators."""
        ratio = self.compute_efficiency / self.bandwidth_efficiency
        at_full_bandwidth = _device_seconds(operators, self.device, self.precision, ratio)
        calls = sum(one.calls for one in operators)
        return max(at_full_bandwidth / self.bandwidth_efficiency, calls * self.seconds_per_call)


def fit(
    measured: Sequence[tuple[Sequence[Operator], float]], device: Device, precision: str
) -> TimeModel:
    """The model whose predictions differ least from measured steps, in squared log ratio.

    measured holds (operators, seconds) of steps of one device at one precision; large
    batches tell the efficiencies, steps that wait for the host the time of a call. Both
    efficiencies are at most 1. Raises NinlabError where a step is faster than its bound,
    for fewer than four steps, and where fewer than two of them wait for the host.
    """
    if len(measured) < 4:
        raise NinlabError(
            f"the three constants need four measured steps or more, not {len(measured)}"
        )
    for operators, seconds in measured:
        least = time_bound(operators, device, precision).seconds
        if seconds < least:
            raise NinlabError(
                f"a measured step of {format_seconds(seconds)} is below its bound of "
                f"{format_seconds(least)} on {device.title}; check device and precision"
            )
    calls = [sum(one.calls for one in operators) for operators, _ in measured]
    times = [seconds for _, seconds in measured]

    def candidates(low: float, high: float) -> Iterator[tuple[float, float, float, float]]:
        """(error, log of the ratio of the efficiencies, slowdown, seconds of a call)."""
        for i in range(GRID + 1):
            point = low + (high - low) * i / GRID
            works = [_device_seconds(ops, device, precision, exp(point)) for ops, _ in measured]
            for slowdown, per_call in _scales(works, calls, times, at_least=max(1.0, exp(point))):
                error = sum(
                    log(max(slowdown * work, per_call * count) / time) ** 2
                    for work, count, time in zip(works, calls, times, strict=True)
                )
                yield error, point, slowdown, per_call

    low, high = -log(LARGEST_RATIO), log(LARGEST_RATIO)
    best = min(candidates(low, high))
    while high - low > RATIO_TOLERANCE:
        low, high = best[1] - (high - low) / GRID, best[1] + (high - low) / GRID
        best = min(best, *candidates(low, high))
    _, point, slowdown, per_call = best
    if per_call == 0:
        raise NinlabError(
            "no two of the measured steps wait for the host, so nothing tells the time of a "
            "call; measure small batches of a small network too"
        )
    return TimeModel(device, precision, exp(point) / slowdown, 1 / slowdown, per_call)


def _device_seconds(
    operators: Sequence[Operator], device: Device, precision: str, ratio: float
) -> float:
    """Seconds at full bandwidth and that ratio of compute to bandwidth efficiency."""
    peak, bandwidth = device.peak(precision) * ratio, device.bandwidth()
    return sum(max(one.flops / peak, one.bytes / bandwidth) for one in operators)


def _scales(
    works: Sequence[float], calls: Sequence[int], times: Sequence[float], *, at_least: float
) -> Iterator[tuple[float, float]]:
    """(slowdown of the device, seconds of a call) for each split into host- and device-bound.

    Whatever the two scales are, the steps with the least work a call are the ones that
    wait for the host; so only the splits of that order can be the best one. Within a
    split the best scale is the geometric mean of the ratios. One step alone could always
    be explained by the host, so it takes two; with none, a call takes no time.
    """
    order = sorted(range(len(times)), key=lambda i: works[i] / calls[i])
    for split in (0, *range(2, len(order))):
        host, busy = order[:split], order[split:]
        per_call = exp(sum(log(times[i] / calls[i]) for i in host) / split) if split else 0.0
        slowdown = exp(sum(log(times[i] / works[i]) for i in busy) / len(busy))
        yield max(slowdown, at_least), per_call
