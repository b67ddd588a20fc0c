"""What does any ``nn.Module`` cost, counted from the operators that torch runs?

`profile` gives a `NetworkCost`, for the networks of the book and for any other module. A
copy of the module runs on the meta device: its tensors have shapes and no data, so nothing
is allocated and no weight is read.

It imports no architecture and no formula, so its counts do not depend on those of `formulas`.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch import nn

from ninlab import devices
from ninlab.allocator import CachingAllocator
from ninlab.cudnn import answering
from ninlab.errors import NinlabError, quoted
from ninlab.reports import (
    LayerCost,
    MemoryEvent,
    MemoryReport,
    NetworkCost,
    SavedTensor,
    tensor_peak,
)
from ninlab.resources.batches import trace_batches
from ninlab.resources.counting import Counts, count
from ninlab.resources.cuda import allocates_otherwise_on_cuda
from ninlab.resources.modules import Subject, joined, load, meta_copy
from ninlab.resources.scratch import with_scratch
from ninlab.resources.timeline import CHANCE, StepTimeline, trace_step
from ninlab.steps import LOSS, Kernels, Optimizer, Precision, named
from ninlab.units import Shape
from ninlab.workspaces import Workspaces, available, has_table, minor_version

__all__ = [
    "CHANCE",
    "Counts",
    "StepTimeline",
    "Subject",
    "allocates_otherwise_on_cuda",
    "count",
    "joined",
    "load",
    "meta_copy",
    "profile",
    "trace_batches",
    "trace_step",
    "with_scratch",
]


def profile(
    module_or_name: nn.Module | str | Subject,
    input_shape: Shape | None = None,
    batch_size: int = 1,
    optimizer: str = Optimizer.SGD,
    precision: str = Precision.FP32,
    device: str | None = None,
    *,
    torch_version: str | None = None,
    channels_last: bool = False,
    weight_decay: float | None = None,
    kernels: str = Kernels.TORCH,
) -> NetworkCost:
    """What the network costs at that input shape, batch size, optimizer and precision.

    module_or_name is a module, the name of a network of the book, ``package.module:factory``
    or ``path.py:factory``, or what `load` made of one; input_shape is (channels, height, width)
    of one image and may be left out for networks of the book and for what `load` made.
    The module itself is not run and not changed.
    Parameters, MACs and outputs are of one image in one forward pass in evaluation mode; kept
    bytes and peaks are of the whole batch. The peaks are those of a step as CUDA takes it, not
    the first of a run. device is one of `ninlab.devices`: with it, the peaks that its allocator
    would report are added, if a table of scratch sizes covers the network. The table is that for
    torch_version, else for the installed torch, else the newest.
    With kernels that join layers (`ninlab.fused`) the steps are those of the joined layers, in
    channels_last, under the same layer names, on images in the type in which they compute.
    Parameters, MACs and outputs stay the network's.
    Raises NinlabError, which names the value, the rule and the nearest valid choice.
    """
    named(Optimizer, optimizer)
    named(Precision, precision)
    kernels = named(Kernels, kernels)
    if not isinstance(batch_size, int) or batch_size < 1:
        raise NinlabError(f"the batch size must be at least 1, not {batch_size!r}")
    tables = None if device is None else _tables(device, torch_version)
    subject = load(module_or_name, input_shape)
    counts = count(subject)
    subject = joined(subject, kernels)
    options: Any = {"autocast": Precision(precision).autocasts, "channels_last": channels_last}
    steps = [
        trace_step(subject, batch_size, optimizer, weight_decay=weight_decay, **options),
        trace_step(subject, batch_size, training=False, **options),
    ]
    (training, training_events, sources), (inference, inference_events, _) = (
        _report(step, tables, precision) for step in steps
    )
    saved = steps[0].saved
    unmodeled = {name: calls for step in reversed(steps) for name, calls in step.unmodeled.items()}
    return NetworkCost(
        network=subject.name,
        input_shape=subject.input_shape,
        batch_size=batch_size,
        optimizer=optimizer,
        precision=precision,
        kernels=kernels,
        device=device,
        parameters=sum(counts.parameters.values()),
        macs=sum(counts.macs.values()),
        fvcore_flops=counts.fvcore_flops,
        fvcore_activations=counts.fvcore_activations,
        saved_bytes=sum(tensor.bytes for tensor in saved),
        training=training,
        inference=inference,
        unsupported_operators={**counts.unsupported_operators, **unmodeled},
        layer_costs=_layer_costs(counts, saved),
        saved_tensors=saved,
        training_flops=sum(steps[0].flops.values()) // batch_size,
        training_events=training_events,
        inference_events=inference_events,
        scratch_sources=sources,
    )


def _tables(device: str, torch_version: str | None) -> Workspaces | None:
    """The workspaces of that device, or None if no table is that device's."""
    devices.device(device)  # raises for a device that nobody knows
    if all(table.device != device for table in available()):
        if torch_version is not None:
            raise NinlabError(
                f"no table of scratch memory is of {device}, so there is none of torch "
                f"{quoted(torch_version)} to choose; leave the release out"
            )
        return None
    if torch_version is None and has_table(device, torch.__version__):
        torch_version = minor_version(torch.__version__)
    return answering(Workspaces.load(device, torch=torch_version))


def _report(
    step: StepTimeline, tables: Workspaces | None, precision: str
) -> tuple[MemoryReport, tuple[MemoryEvent, ...], dict[str, int]]:
    """The peaks of the step, its events, and how many convolutions each source said.

    The events hold scratch where somebody knows all of it; where nobody does, no source is named.
    """
    scratch = None if tables is None else with_scratch(step, tables, precision)
    if scratch is None:
        return tensor_peak(step.events, step.batch_size), step.events, {}
    events, sources = scratch
    report = CachingAllocator().replay(events, step.batch_size)
    return report, events, {str(source): count for source, count in sources.items()}


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
