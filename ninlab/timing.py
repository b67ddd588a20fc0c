"""How long did measured steps take beside their bound, and what do some say of the others?

`roofline` knows operators and rates, `measurement` keeps what steps took; here they meet. The
three constants of step time are fitted to the steps of `FITTED_NETWORKS` alone, and judged on
all other networks.

Imports from ninlab: architectures, devices, measurement, records, roofline.
"""

from __future__ import annotations

from collections.abc import Iterable

from ninlab.architectures import architecture
from ninlab.devices import device, of_cuda_name
from ninlab.measurement import Case, MemoryRecord
from ninlab.records import Device
from ninlab.roofline import (
    Operator,
    TimeBound,
    TimeModel,
    fit,
    inference_operators,
    time_bound,
    training_operators,
)

FITTED_NETWORKS = ("vgg11", "lenet")
"""Large batches of the first tell how well kernels run, steps of the second wait for the host."""


def operators(case: Case) -> tuple[Operator, ...]:
    """What the case's step calls."""
    network = architecture(case.network)
    if case.mode == "inference":
        return inference_operators(network, case.batch_size, case.precision)
    return training_operators(network, case.batch_size, case.mode, case.precision)


def bound(case: Case, on: Device) -> TimeBound | None:
    """The least that the step can take on that device, None where no data sheet says so."""
    described = of_cuda_name(on.name)
    if described is None or case.precision not in described.flops_per_second:
        return None
    return time_bound(operators(case), described, case.precision)


def time_model(steps: Iterable[MemoryRecord], device_name: str, precision: str) -> TimeModel:
    """The three constants of step time, fitted to those of the steps that may be used for it.

    The steps are of one device; device_name is its name in `ninlab.devices`. Raises NinlabError
    where the steps leave a constant open.
    """
    timed = [
        (operators(step.case), seconds)
        for step in steps
        if step.case.precision == precision
        and step.case.network in FITTED_NETWORKS
        and (seconds := step.measured.median_seconds) is not None
    ]
    return fit(timed, device(device_name), precision)


def prediction_errors(model: TimeModel, steps: Iterable[MemoryRecord]) -> dict[str, float]:
    """Predicted over measured seconds, less one, of steps that the fit has not seen, by id."""
    return {
        step.id: model.seconds(operators(step.case)) / seconds - 1
        for step in steps
        if step.case.precision == model.precision
        and step.case.network not in FITTED_NETWORKS
        and (seconds := step.measured.median_seconds) is not None
    }
