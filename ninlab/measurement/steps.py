"""What is one step of a case, and how long does it take?"""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ninlab import optimizers
from ninlab.environment import arithmetic
from ninlab.measurement.cases import INFERENCE, Case
from ninlab.networks import build
from ninlab.steps import Precision

WARM_STEPS = 3
"""Steps before those that are timed."""


NetworkFactory = Callable[[], nn.Module]
"""Makes a network that takes a batch of images and returns its scores."""


class CaseStep:
    """A network with what its step needs, on its device; calling it takes one step.

    build_network makes the network, by default the book's of the case's name.
    Scores and loss of a step are held until the next one has returned its own.
    """

    def __init__(
        self, case: Case, device: torch.device, build_network: NetworkFactory | None = None
    ) -> None:
        self._case = case
        network = build(case.network, seed=0) if build_network is None else build_network()
        self._network: nn.Module = network.to(device)
        self._images = torch.zeros(case.batch_size, *case.input_shape, device=device)
        self._held: tuple[Tensor, ...] = ()
        self._optimizer: torch.optim.Optimizer | None = None
        if case.mode == INFERENCE:
            self._network.eval()
            return
        self._labels = torch.zeros(case.batch_size, dtype=torch.int64, device=device)
        self._optimizer = optimizers.make(case.mode, self._network.parameters())

    def __call__(self) -> None:
        """Take one step; it may still run on the device when this returns."""
        self._held = self._predict() if self._optimizer is None else self._train(self._optimizer)

    def _train(self, optimizer: torch.optim.Optimizer) -> tuple[Tensor, Tensor]:
        optimizer.zero_grad(set_to_none=True)
        with self._autocast():
            scores = self._network(self._images)
            loss = F.cross_entropy(scores, self._labels)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return scores, loss

    def _predict(self) -> tuple[Tensor]:
        with torch.no_grad(), self._autocast():
            return (self._network(self._images),)

    def _autocast(self) -> contextlib.AbstractContextManager[object]:
        if not Precision(self._case.precision).autocasts:
            return contextlib.nullcontext()
        return torch.autocast(self._images.device.type, torch.bfloat16)


def quartiles(
    step: Callable[[], None], count: int, wait: Callable[[], None]
) -> tuple[float, float, float]:
    """(quarter, median, three quarters) of the seconds of so many steps, waited for one by one."""
    seconds = []
    for _ in range(count):
        start = time.perf_counter()
        step()
        wait()
        seconds.append(time.perf_counter() - start)
    quarter, median, three_quarters = statistics.quantiles(seconds, n=4, method="inclusive")
    return quarter, median, three_quarters


def probe_rate(device: torch.device, precision: str) -> float:
    """FLOP/s of one convolution, forward and backward: enough to estimate a duration."""
    channels, size, batch_size = 64, 56, 8
    conv = nn.Conv2d(channels, channels, 3, padding=1).to(device)
    images = torch.zeros(batch_size, channels, size, size, device=device, requires_grad=True)
    enabled = Precision(precision).autocasts

    def step() -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=enabled):
            scores = conv(images).sum()
        scores.backward()

    with arithmetic(precision, benchmark=False):
        step()
        wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
        _, median, _ = quartiles(step, 3, wait)
    macs = batch_size * size**2 * channels**2 * 3**2
    return 3 * 2 * macs / median  # forward, and the gradients of images and weights
