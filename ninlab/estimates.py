"""How long will a training run take, before it is made and from what has been made?

Two guesses know nothing of any run: a straight line in what a network consists of, for the small
networks of a CPU, and the operators of a step at shares of a data sheet's rates, for a GPU.
`Estimates` corrects either by the runs that one device has made: a network's own runs where there
are some, those of its family otherwise. A guess by a device's own data sheet stands for a family
that it has not met; one for another device is corrected by whatever ran. Runs of other
kernels correct nothing: theirs is another step. A run that had to share its CPU counts by the
part of the time that it had, where its record tells.

Known limits: estimates are those of an idle machine, and under load a run takes longer. An estimate
decides which run still fits into the time left, and nothing that the book says rests on it.
Choosing kernels for shapes that are new to a process takes 2 to 6 s of an H100; that is not in it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from statistics import median
from typing import Protocol

from ninlab import formulas
from ninlab.architectures import architecture
from ninlab.devices import device, of_cuda_name
from ninlab.recipes import Recipe
from ninlab.records import RunRecord
from ninlab.roofline import training_operators
from ninlab.steps import Kernels


class Cost(Protocol):
    """What a run takes in seconds, guessed without any run."""

    @property
    def is_of_the_device(self) -> bool:
        """Whether it rests on the rates of the device that it is used for."""

    def on(self, device_name: str) -> Cost:
        """The same guess for the device that its driver calls so, as far as it is known."""

    def seconds(self, network: str, recipe: Recipe, epochs: int) -> float:
        """Seconds of a run of the recipe on that network that stops after so many epochs."""


@dataclass(frozen=True)
class LinearCost:
    """A straight line in layers, parameters and MACs.

    Seconds are of a step, with the step's part of start and evaluation. Good to a factor of 1.5 on
    the machine that it was fitted to.
    """

    seconds_per_layer: float
    seconds_per_parameter: float
    seconds_per_mac: float  # and image

    @property
    def is_of_the_device(self) -> bool:
        """False: it is fitted to one machine, and used for any."""
        return False

    def on(self, device_name: str) -> LinearCost:
        """The same: nothing is known of other machines."""
        return self

    def seconds(self, network: str, recipe: Recipe, epochs: int) -> float:
        """Seconds of a run of the recipe on that network that stops after so many epochs."""
        layers, parameters, macs = _size(network)
        step = (
            self.seconds_per_layer * layers
            + self.seconds_per_parameter * parameters
            + self.seconds_per_mac * recipe.batch_size * macs
        )
        return epochs * recipe.steps_an_epoch * step


@lru_cache(maxsize=1024)
def _size(network: str) -> tuple[int, int, int]:
    """Layers, parameters and MACs of a network, which a plan asks for once a run."""
    counted = architecture(network)
    layers = sum(1 for _ in counted.named_leaves())
    return layers, formulas.parameters(counted), formulas.macs(counted)


@dataclass(frozen=True)
class RooflineCost:
    """The operators of a step at the same shares of the data sheet's rates for every network.

    Round numbers, not fitted: an H100's first runs took 1.0 to 1.8 times as long, which the tests
    hold against the records. An evaluated image takes a third of a trained one.
    """

    device_name: str  # in `ninlab.devices`
    share_of_peak: float = 0.4
    share_of_bandwidth: float = 0.6
    seconds_per_call: float = 4e-6
    start_seconds: float = 1.0  # to make the network, the graph and the record
    is_of_the_device: bool = False

    def on(self, device_name: str) -> RooflineCost:
        """The same shares of that device's rates, where `ninlab.devices` knows them."""
        known = of_cuda_name(device_name)
        return (
            self
            if known is None
            else (replace(self, device_name=known.name, is_of_the_device=True))
        )

    def step_seconds(self, network: str, recipe: Recipe) -> float:
        """Seconds of one training step."""
        return _step_seconds(
            self,
            network,
            recipe.batch_size,
            recipe.counted_optimizer,
            str(recipe.precision),
            recipe.kernels,
        )

    def seconds(self, network: str, recipe: Recipe, epochs: int) -> float:
        """Seconds of a run of the recipe on that network that stops after so many epochs."""
        evaluated_steps = recipe.evaluation_images / recipe.batch_size / 3
        steps = recipe.steps_an_epoch + evaluated_steps
        return self.start_seconds + epochs * steps * self.step_seconds(network, recipe)


@lru_cache(maxsize=1024)
def _step_seconds(
    cost: RooflineCost,
    network: str,
    batch_size: int,
    optimizer: str,
    precision: str,
    kernels: Kernels,
) -> float:
    on = device(cost.device_name)
    # A device computes what it has no units for, too, and no faster than anything else.
    peak = on.flops_per_second.get(precision, min(on.flops_per_second.values()))
    operators = training_operators(
        architecture(network), batch_size, optimizer, precision, kernels=kernels
    )
    return (
        sum(one.flops for one in operators) / (cost.share_of_peak * peak)
        + sum(one.bytes for one in operators) / (cost.share_of_bandwidth * on.bandwidth())
        + sum(one.calls for one in operators) * cost.seconds_per_call
    )


def _idle_seconds(run: RunRecord) -> float:
    """What a run would have taken on an idle machine, as far as its record tells.

    A CPU that gave it a part of the time that its threads could have used would have been done in
    that part of its seconds.
    """
    if run.host is None or run.device.threads is None:  # which a GPU's run has not
        return run.wall_seconds
    return run.wall_seconds * min(1.0, run.host.own_cores / run.device.threads)


_TIMED_AS = {"nin_fixed": "nin"}  # the same but for its start and its last ReLU


def kin(network: str) -> str:
    """What networks share that take similar times: mostly the family."""
    family = architecture(network).family
    return _TIMED_AS.get(family, family)


class Estimates:
    """Seconds of runs on one device: a guess, corrected by the runs that the device has made.

    The correction is measured over guessed seconds, the median over the runs of the same network;
    of its family, where it has none. A family without any is corrected by all runs, unless the
    guess is of the device itself. All of that is said of runs by the same kernels.
    """

    def __init__(self, cost: Cost, made: Iterable[RunRecord] = ()) -> None:
        self._cost = cost
        self._factors: dict[Kernels, dict[str, list[float]]] = {}  # of a network by the kernels
        for run in made:
            self.add(run)

    def add(self, run: RunRecord) -> None:
        """Learn from a run that was made."""
        guessed = self._cost.seconds(run.network, run.recipe, len(run.epochs))
        factors = self._factors.setdefault(run.recipe.kernels, {})
        factors.setdefault(run.network, []).append(_idle_seconds(run) / guessed)

    def is_of_the_device(self, kernels: Kernels) -> bool:
        """Whether those of the kernels' runs rest on anything that is known of the device."""
        return self.is_corrected(kernels) or self._cost.is_of_the_device

    def is_corrected(self, kernels: Kernels) -> bool:
        """Whether the device has made any run by them: until then an estimate is only a guess."""
        return kernels in self._factors

    def seconds(self, network: str, recipe: Recipe) -> float:
        """Seconds of a whole run of the recipe on that network."""
        correction = self._correction(network, self._factors.get(recipe.kernels, {}))
        return correction * self._cost.seconds(network, recipe, recipe.epochs)

    def _correction(self, network: str, made: Mapping[str, Sequence[float]]) -> float:
        own = made.get(network)
        if own:
            return median(own)
        of_networks = {name: median(factors) for name, factors in made.items()}
        similar = [of for name, of in of_networks.items() if kin(name) == kin(network)]
        others = () if self._cost.is_of_the_device else of_networks.values()
        return median(similar or others or (1.0,))
