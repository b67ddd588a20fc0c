"""How many parameters and MACs has a module, counted from the operators that it runs?

One image runs through the meta copy in evaluation mode under inference mode, where a
dispatch mode meets operators as fvcore's tracer would (``linear`` before it becomes
``addmm``) and then, one level down, as torch's flop counter would. So both give their
totals from one pass that traces and allocates nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ninlab.errors import NinlabError
from ninlab.resources import operators
from ninlab.resources.layers import LayerStack
from ninlab.resources.modules import Subject, in_mode, refusal
from ninlab.resources.shortcuts import result_on_meta
from ninlab.resources.strangers import at_work, quoted
from ninlab.steps import LOSS
from ninlab.torch_private import DispatchMode, OpOverload, check, is_composite, qualified_name
from ninlab.units import Shape


@dataclass(frozen=True)
class Counts:
    """What one image costs in one forward pass; mappings are by layer."""

    macs: Mapping[str, int]
    torch_flops: Mapping[str, int]  # torch's own formulas: 2 a MAC
    fvcore_flops: int
    fvcore_activations: int
    unsupported_operators: Mapping[str, int]  # calls of each operator that has no rule
    output_shapes: Mapping[str, Shape]  # of one image, in order of execution
    parameters: Mapping[str, int]
    kinds: Mapping[str, str]  # class name of each module


def count(subject: Subject) -> Counts:
    """Parameters, MACs and fvcore's totals of one image, forward, in evaluation mode.

    Raises NinlabError for a module that does what inference mode forbids, and where this torch
    lacks what counting needs.
    """
    check()
    with at_work(subject.name):
        return _count(subject)


def _count(subject: Subject) -> Counts:
    layers = LayerStack()
    counter = _Counter(layers)
    with (
        torch.inference_mode(),
        in_mode(subject.module, training=False),
        layers.watch(subject.module),
        counter,
    ):
        try:
            subject.module(subject.images(1))
        except Exception as error:
            raise refusal(subject, error) or NinlabError(
                f"{subject.name} cannot be counted in inference mode: {quoted(error)}"
            ) from error
    parameters = _own_parameters(subject.module)
    if LOSS in {*layers.output_shapes, *parameters}:
        raise NinlabError(
            f"{subject.name} has a layer called {LOSS!r}, as the loss of a training step is called "
            "here; give it another name"
        )
    return Counts(
        macs=counter.macs,
        torch_flops=counter.torch_flops,
        fvcore_flops=counter.fvcore_flops,
        fvcore_activations=counter.fvcore_activations,
        unsupported_operators=counter.unsupported,
        output_shapes=layers.output_shapes,
        parameters=parameters,
        kinds={name: type(module).__name__ for name, module in subject.module.named_modules()},
    )


def _own_parameters(module: nn.Module) -> dict[str, int]:
    """Learnable scalars by the module that holds them; a tied parameter counts once."""
    parameters: Counter[str] = Counter()
    for path, parameter in module.named_parameters():
        parameters[path.rpartition(".")[0]] += parameter.numel()
    return dict(parameters)


class _Counter(DispatchMode):
    """Asks both formula books for every operator; see the module's docstring."""

    def __init__(self, layers: LayerStack) -> None:
        super().__init__()
        self.layers = layers
        self.macs: Counter[str] = Counter()
        self.torch_flops: Counter[str] = Counter()
        self.unsupported: Counter[str] = Counter()
        self.fvcore_flops = 0
        self.fvcore_activations = 0
        self._traced = False  # inside an operator that fvcore's tracer records as one
        self._priced = False  # inside an operator whose MACs fvcore gave

    def __torch_dispatch__(
        self,
        func: OpOverload,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        traced, priced = self._traced, self._priced
        prices_macs = not traced and operators.fvcore_name(func) in operators.MAC_OPERATORS
        if is_composite(func):
            self._traced = traced or not operators.is_looked_through(func)
            self._priced = priced or prices_macs
            with self:
                result = func.decompose(*args, **kwargs)
            self._traced, self._priced = traced, priced
            by_torch, covered = None, True
        else:
            result = result_on_meta(func, args)
            if result is NotImplemented:
                result = func(*args, **kwargs)
            by_torch = operators.torch_flops(func, args, kwargs, result)
            covered = by_torch is not None or operators.is_free(func, args)
        by_fvcore = None if traced else operators.fvcore_flops(func, args, result)
        self._add(by_fvcore, by_torch, prices_macs, priced)
        if not traced:
            self.fvcore_activations += operators.fvcore_activations(func, args, result) or 0
        if not covered and by_fvcore is None:
            self.unsupported[qualified_name(func)] += 1
        return result

    def _add(
        self, by_fvcore: int | None, by_torch: int | None, prices_macs: bool, priced: bool
    ) -> None:
        layer = self.layers.current
        self.fvcore_flops += by_fvcore or 0
        self.torch_flops[layer] += by_torch or 0
        if prices_macs and by_fvcore is not None:
            self.macs[layer] += by_fvcore
        elif by_torch is not None and not priced:
            self.macs[layer] += by_torch // 2  # fused attention, which fvcore does not know
