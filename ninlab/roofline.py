"""How long must one step take at least, and how long will it take?

Every operator that PyTorch calls in a step multiplies numbers and moves bytes. A
device can do neither faster than its data sheet says. So an operator takes at least
the longer of the two times, and a step takes at least their sum: the bound. A prediction
adds three constants of a device and its host, which no data sheet has: the
shares of both peak rates that real kernels reach, and the time that the host needs
to call one operator. They are fitted to measured steps, never assumed.

The operators come from the `tape`; tests/test_roofline.py compares them and their FLOPs
with those that torch dispatches. A bound holds for the kernels whose operators it is made of
(`steps.Kernels`). Where one operator computes several layers less is moved, so that the bound
without joined layers says nothing of a step with them.

Known limits. Each operator is taken to read its inputs and write its results once. Caches
between operators are left out, so the bound holds only where the last cache is small beside
the activations. The addition of biases by torch's own layers, layout changes and the extra passes
of some kernels are left out, too. Only the arithmetic of convolutions, linear layers and products
is counted, zeros and what is computed again included; other operators only move bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import exp, log

from ninlab.architectures import Architecture
from ninlab.devices import DataSheet
from ninlab.errors import NinlabError
from ninlab.reports import Phase
from ninlab.steps import Kernels, Optimizer, Precision
from ninlab.tape import Tape, record
from ninlab.units import format_seconds


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
    optimizer: str = Optimizer.SGD,
    precision: str = Precision.FP32,
    *,
    kernels: str = Kernels.TORCH,
) -> tuple[Operator, ...]:
    """What one warm training step calls: forward, cross-entropy loss, backward, optimizer.

    Joined layers read images in the type in which they compute, all others in float32.
    Raises UnknownNameError for an unknown optimizer, precision or kernels, ShapeError where the
    network cannot read its input.
    """
    return tape_operators(record(architecture, optimizer, precision, kernels=kernels), batch_size)


def inference_operators(
    architecture: Architecture, batch_size: int, precision: str = Precision.FP32
) -> tuple[Operator, ...]:
    """What one forward pass in evaluation mode without gradients calls."""
    return tape_operators(record(architecture, precision=precision, training=False), batch_size)


def tape_operators(tape: Tape, batch_size: int) -> tuple[Operator, ...]:
    """What the tape's step calls, in order."""
    if batch_size < 1:
        raise NinlabError(f"batch size {batch_size} is too small; use 1 or more")
    return tuple(
        Operator(
            call.layer,
            call.phase,
            call.operator,
            2 * call.macs * batch_size,
            sum(
                constant + per_image * batch_size
                for constant, per_image in (one.size for one in (*call.reads, *call.writes))
            ),
            calls=0 if call.joins_call else 1,
        )
        for call in tape.calls
    )


# ---------------------------------------------------------------- bound


@dataclass(frozen=True)
class TimeBound:
    """The least time that a step can take on a device, and what it is made of."""

    seconds: float
    memory_bound_seconds: float  # the part of it in which the bytes are what takes long
    flops: int
    bytes: int
    calls: int


def operator_seconds(operator: Operator, device: DataSheet, precision: str) -> float:
    """The longer of the operator's arithmetic at peak rate and its bytes at full bandwidth."""
    return max(operator.flops / device.peak(precision), operator.bytes / device.bandwidth())


def training_bound(
    architecture: Architecture,
    batch_size: int,
    device: DataSheet,
    optimizer: str = Optimizer.SGD,
    precision: str = Precision.FP32,
    *,
    kernels: str = Kernels.TORCH,
) -> TimeBound:
    """The bound of one warm training step in one precision, arithmetic and peak rate alike.

    It is of the operators that these kernels run, and says nothing of others.
    Raises what `training_operators` and `time_bound` raise.
    """
    operators = training_operators(architecture, batch_size, optimizer, precision, kernels=kernels)
    return time_bound(operators, device, precision)


def time_bound(operators: Iterable[Operator], device: DataSheet, precision: str) -> TimeBound:
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

    device: DataSheet
    precision: str
    compute_efficiency: float  # share of the peak rate that matrix kernels reach
    bandwidth_efficiency: float  # share of the bandwidth that the others reach
    seconds_per_call: float

    def __str__(self) -> str:
        """Its constants: ``71% of the peak rate, 83% of the bandwidth, 5.0 µs a call``."""
        return (
            f"{self.compute_efficiency:.0%} of the peak rate, {self.bandwidth_efficiency:.0%} of "
            f"the bandwidth, {format_seconds(self.seconds_per_call)} a call"
        )

    def seconds(self, operators: Sequence[Operator]) -> float:
        """Predicted duration of a step of these operators."""
        ratio = self.compute_efficiency / self.bandwidth_efficiency
        at_full_bandwidth = _device_seconds(operators, self.device, self.precision, ratio)
        calls = sum(one.calls for one in operators)
        return max(at_full_bandwidth / self.bandwidth_efficiency, calls * self.seconds_per_call)


def fit(
    measured: Sequence[tuple[Sequence[Operator], float]], device: DataSheet, precision: str
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
    operators: Sequence[Operator], device: DataSheet, precision: str, ratio: float
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
