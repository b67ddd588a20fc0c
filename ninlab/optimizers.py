"""Which of torch's optimizers is each of `steps.Optimizer`?"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from inspect import signature
from types import MappingProxyType
from typing import Any

import torch
from torch import nn

from ninlab.steps import Optimizer, named

TORCH: Mapping[Optimizer, Callable[..., torch.optim.Optimizer]] = MappingProxyType(
    {
        Optimizer.SGD: torch.optim.SGD,
        Optimizer.MOMENTUM: partial(torch.optim.SGD, momentum=0.9),
        Optimizer.ADAM: torch.optim.Adam,
        Optimizer.ADAMW: torch.optim.AdamW,
        Optimizer.RMSPROP: torch.optim.RMSprop,
        Optimizer.ADAGRAD: torch.optim.Adagrad,
    }
)
"""What makes each of them, given the parameters."""


def make(
    optimizer: str, parameters: Iterable[nn.Parameter], **options: Any
) -> torch.optim.Optimizer:
    """The optimizer of that name on lists of tensors, as CUDA chooses by itself.

    options are torch's. Raises UnknownNameError for another name.
    """
    return TORCH[named(Optimizer, optimizer)](
        parameters, **{"lr": 0.01, "foreach": True, **options}
    )


def known_options(optimizer: Optimizer, options: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the options that torch's optimizer has: RMSprop, say, cannot be fused."""
    known = signature(TORCH[optimizer]).parameters
    return {name: value for name, value in options.items() if name in known}
