"""What does any ``nn.Module`` cost, counted from the operators that torch runs?

`profile` answers with the same `NetworkCost` that the closed forms are compared with,
for the networks of the book and for modules that nobody tuned it for. Nothing is
allocated and no weight is read: a copy of the module runs on the meta device.

Imports from ninlab: allocator, devices, networks (to look a name up), reports, units and
workspaces; never architectures or formulas, so that it stays a second opinion.
"""

from __future__ import annotations

from collections import Counter

from torch import nn

from ninlab import devices
from ninlab.errors import NinlabError, UnknownNameError
from ninlab.reports import LayerCost, MemoryReport, NetworkCost, SavedTensor
from ninlab.resources.counting import Counts, count
from ninlab.resources.modules import Subject, load, meta_copy
from ninlab.resources.saved import LOSS, kept_for_backward
from ninlab.units import Shape

__all__ = ["OPTIMIZERS", "PRECISIONS", "Counts", "Subject", "count", "load", "meta_copy", "profile"]

OPTIMIZERS = ("sgd", "momentum", "adam")
PRECISIONS = ("fp32", "tf32", "bf16")


def profile(
    module_or_name: nn.Module | str,
    input_shape: Shape | None = None,
    batch_size: int = 1,
    optimizer: str = "sgd",
    precision: str = "fp32",
    device: str | None = None,
) -> NetworkCost:
    """What the network costs at that input shape, batch size, optimizer and precision.

    module_or_name is a module, the name of a network of the book, ``package.module:factory``
    or ``path.py:factory``; input_shape is (channels, height, width) of one image and may be
    left out for networks of the book. The module itself is not run and not changed.
    Counts are of one image in one forward pass in evaluation mode.
    Raises NinlabError, which names the value, the rule and the nearest valid choice.
    """
    _check("optimizer", optimizer, OPTIMIZERS)
    _check("precision", precision, PRECISIONS)
    if batch_size < 1:
        raise NinlabError(f"the batch size must be at least 1, not {batch_size}")
    if device is not None:
        devices.device(device)
    subject = load(module_or_name, input_shape)
    counts = count(subject)
    saved = kept_for_backward(subject, batch_size, autocast=precision == "bf16")
    return NetworkCost(
        network=subject.name,
        input_shape=subject.input_shape,
        batch_size=batch_size,
        optimizer=optimizer,
        precision=precision,
        device=device,
        parameters=sum(counts.parameters.values()),
        macs=sum(counts.macs.values()),
        fvcore_flops=counts.fvcore_flops,
        fvcore_activations=counts.fvcore_activations,
        saved_bytes=sum(tensor.bytes for tensor in saved),
        training=MemoryReport(None),
        inference=MemoryReport(None),
        unsupported_operators=counts.unsupported_operators,
        layer_costs=_layer_costs(counts, saved),
        saved_tensors=saved,
    )


def _check(kind: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise UnknownNameError(kind, value, known)


def _layer_costs(counts: Counts, saved: tuple[SavedTensor, ...]) -> tuple[LayerCost, ...]:
    """One row for every layer that costs anything or has no layers inside, in order of execution.

    Modules that run only in training, or never, come after the others, the loss last.
    The columns add up to the totals.
    """
    kept: Counter[str] = Counter()
    for tensor in saved:
        kept[tensor.layer] += tensor.bytes
    inner = {name.rpartition(".")[0] for name in counts.kinds if name}
    costly = {*counts.parameters, *counts.macs, *kept} - {LOSS}
    names = [name for name in counts.output_shapes if name in costly or name not in inner]
    names += [name for name in counts.kinds if name in costly and name not in counts.output_shapes]
    rows = [
        LayerCost(
            name=name,
            kind=counts.kinds[name],
            output_shape=counts.output_shapes.get(name, ()),
            parameters=counts.parameters.get(name, 0),
            macs=counts.macs.get(name, 0),
            saved_bytes=kept[name],
        )
        for name in names
    ]
    return (*rows, LayerCost(LOSS, "CrossEntropyLoss", (), 0, 0, kept[LOSS]))
