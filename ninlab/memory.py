"""How close are predicted peaks of a step to the measured ones, in words and rows of tables?

`measurement` knows what was measured and by how much a prediction was off, `predictions` what is
predicted; here both meet the titles of the networks. Steps are those of `on_gpu` and `on_cpu`,
which bear the predictions of today's calculator.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, TypeVar

from ninlab.architectures import architecture
from ninlab.formulas import layer_costs
from ninlab.measurement import (
    TOLERANCE,
    Allocator,
    CaseOutcome,
    MemoryRecord,
    Order,
    errors_in_words,
    orders,
    relative_errors,
    rightly,
)
from ninlab.peers import Comparison, Workload, format_error
from ninlab.predictions import predicted_now
from ninlab.steps import Optimizer, Precision
from ninlab.units import format_bytes

if TYPE_CHECKING:
    import pandas as pd

Number = TypeVar("Number", int, float)


def on_gpu(steps: Iterable[MemoryRecord]) -> list[MemoryRecord]:
    """Those of the steps that a GPU finished, with what is predicted of them now."""
    return [
        predicted_now(step)
        for step in steps
        if step.allocator is not Allocator.CPU and step.measured.outcome is CaseOutcome.FINISHED
    ]


def on_cpu(steps: Iterable[MemoryRecord]) -> list[MemoryRecord]:
    """Those of the steps that a CPU took, with what is predicted of them now."""
    return [predicted_now(step) for step in steps if step.allocator is Allocator.CPU]


def tensor_peaks(steps: Iterable[MemoryRecord]) -> dict[str, dict[int, int]]:
    """Measured peak bytes of the tensors by network and batch size, where they are known."""
    peaks: dict[str, dict[int, int]] = {}
    for step in steps:
        if (size := step.measured.tensor_peak_bytes) is not None:
            peaks.setdefault(step.case.network, {})[step.case.batch_size] = size
    return peaks


# ---------------------------------------------------------------- on a CPU


def step_counter_bytes(step: MemoryRecord) -> int:
    """Bytes of Adam's step counters on a CPU, 4 for each tensor of parameters; 0 without Adam.

    On a GPU they lie on the host, so that a prediction made for one does not have them.
    """
    if step.case.mode != Optimizer.ADAM:
        return 0
    layers = layer_costs(architecture(step.case.network))
    return 2 * 4 * sum(layer.parameters > 0 for layer in layers)  # weight and bias of each


def cpu_in_words(steps: Iterable[MemoryRecord]) -> str:
    """How many of the steps on a CPU were predicted to the byte; empty where none was predicted."""
    off = [
        (step.measured.tensor_peak_bytes - round(predicted), step_counter_bytes(step))
        for step in steps
        if step.allocator is Allocator.CPU
        and step.measured.tensor_peak_bytes is not None
        and (predicted := step.predicted.get("tensor_peak_bytes")) is not None
    ]
    if not off:
        return ""
    exact = sum(bytes_off == 0 for bytes_off, _ in off)
    counted = sum(bytes_off == counters > 0 for bytes_off, counters in off)
    words = f"**{exact} of {len(off)} recorded steps are as predicted, to the byte.**"
    if counted:
        words += (
            f" {counted} more are off by Adam's step counters, 4 bytes for each tensor of "
            "parameters. The prediction is for a GPU, where these counters lie on the host."
        )
    return words


# ---------------------------------------------------------------- on a GPU


def gpu_in_words(steps: Sequence[MemoryRecord]) -> str:
    """How well the peaks of steps on a GPU were predicted; empty without a step.

    First the tensors, then the requested bytes, then what the device holds outside the allocator.
    `agreement_rows` has the allocated and the reserved bytes, too.
    """
    words = [errors_in_words(steps, peak) for peak in ("tensor", "requested")]
    missed = {
        name
        for name, group in _by_network(steps).items()
        if any(abs(error) > TOLERANCE for error in relative_errors(group, "requested").values())
    }
    others = [step for step in steps if step.case.network not in missed]
    if len(missed) == 1 and others:
        (name,) = missed
        own = [step for step in steps if step.case.network == name]
        words.append(
            f"All misses are {architecture(name).title}'s: {rightly(own, 'requested')} of its "
            f"steps are right, and {rightly(others, 'requested')} of all others."
        )
    if overheads := [size for step in steps if (size := step.measured.overhead_bytes)]:
        words.append(f"Outside the allocator another {_span(overheads, format_bytes)} were in use.")
    return " ".join(filter(None, words))


def agreement_rows(steps: Iterable[MemoryRecord]) -> dict[str, dict[str, str]]:
    """Of how many steps each peak was predicted correctly, by the title of the network."""
    rows = {}
    for name, group in _by_network(steps).items():
        reserved = relative_errors(group, "reserved").values()
        rows[architecture(name).title] = {
            "tensors, to the byte": rightly(group, "tensor"),
            f"requested, to {TOLERANCE:.0%}": rightly(group, "requested"),
            f"allocated, to {TOLERANCE:.0%}": rightly(group, "allocated"),
            "reserved is off by": _span(reserved, "{:+.0%}".format) if reserved else "",
        }
    return rows


# ---------------------------------------------------------------- two networks


def ranks_in_words(steps: Sequence[MemoryRecord], first: str, second: str) -> str:
    """In how many cases it was predicted which of two networks needs more; empty without one.

    A case is a kind of peak under one setting.
    """
    judged = [order for order in orders(steps, first, second) if order.holds is not None]
    if not judged:
        return ""
    titles = " and ".join(architecture(name).title for name in (first, second))
    right = sum(bool(order.holds) for order in judged)
    return (
        f"A case is one kind of peak under one setting. In {right} of {len(judged)} cases it was "
        f"predicted correctly which of {titles} needs more."
    )


def reversed_rows(
    steps: Sequence[MemoryRecord], first: str, second: str
) -> dict[str, dict[str, str]]:
    """The peaks of which the wrong network was predicted to need more: predicted and measured."""
    rows = {}
    conditions = _conditions(steps)
    for order in orders(steps, first, second):
        if order.holds is False and order.predicted is not None:
            rows[f"{order.peak}, {conditions(order.step)}"] = {
                "predicted": _both(order.predicted),
                "measured": _both(order.measured),
            }
    return rows


def needs_in_words(steps: Sequence[MemoryRecord], first: str, second: str, batch_size: int) -> str:
    """Which of two networks needed more, by kind of peak, in SGD steps with that batch.

    A sentence for each setting without bfloat16 in which both were measured; empty without one.
    """
    by_setting: dict[str, list[Order]] = {}
    conditions = _conditions(steps)
    for order in orders(steps, first, second):
        case = order.step.case
        if (
            (case.mode, case.batch_size) == (Optimizer.SGD, batch_size)
            and case.precision != Precision.BF16
            and order.step.allocator is Allocator.DEFAULT
        ):
            by_setting.setdefault(conditions(order.step), []).append(order)
    sentences = []
    for where, found in by_setting.items():
        needs = []
        for place, name in enumerate((first, second)):
            more = [o for o in found if o.measured[place] > o.measured[1 - place]]
            if more:
                peaks = ", ".join(f"{order.peak} ({_both(order.measured)})" for order in more)
                needs.append(f"{architecture(name).title} needs more by the {peaks} peak")
        sentences.append(f"{where}: {'; '.join(needs)}.")
    return " ".join(sentences)


# ---------------------------------------------------------------- other tools


SEE_TENSORS = ("ninlab", "liveness", "mem_tracker")
"""Tools of a comparison that answer for the tensors alone, by their keys."""


def asked_of_tools(
    compared: Comparison, steps: Iterable[MemoryRecord]
) -> dict[Workload, MemoryRecord]:
    """The steps on a GPU that tools were asked about: those of SGD in float32 or TF32.

    They come in the comparison's order; a step without the allocator's peak is left out.
    """
    by_workload = {
        (step.case.network, step.case.batch_size): step
        for step in steps
        if step.case.mode == Optimizer.SGD
        and step.case.precision != Precision.BF16
        and step.allocator is Allocator.DEFAULT
        and step.measured.allocated_peak_bytes is not None
    }
    return {one: by_workload[one] for one in compared.peaks if one in by_workload}


def tools_on_gpu(compared: Comparison, steps: Iterable[MemoryRecord]) -> pd.DataFrame | None:
    """By how much tools missed the peaks that a GPU's allocator gave out, as text; None without.

    Of the steps those count that `asked_of_tools` names. Rows of tools that answer for the tensors
    alone say so; where the allocator's own peak was predicted, that is the first row. Columns are
    the titles of the networks, with the batch.
    """
    asked = asked_of_tools(compared, steps)
    true = {one: step.measured.allocated_peak_bytes or 0 for one, step in asked.items()}
    if not true:
        return None
    table = compared.beside(
        "peak_bytes", true, lambda said, count: format_error(said / count - 1), format_bytes
    )
    table.columns = [f"{architecture(name).title}, batch {size}" for name, size in true]
    titles = {compared.titles[key] for key in SEE_TENSORS if key in compared.titles}
    table = table.rename(index={title: f"{title}, tensors" for title in titles})
    predicted = [step.predicted.get("allocated_peak_bytes") for step in asked.values()]
    if all(predicted):
        row = [
            format_error(said / count - 1)
            for said, count in zip(predicted, true.values(), strict=True)
            if said
        ]
        table.loc["ninlab, allocated"] = row
        first = ["the truth", "ninlab, allocated"]
        table = table.loc[[*first, *(name for name in table.index if name not in first)]]
    return table


def _conditions(steps: Iterable[MemoryRecord]) -> Callable[[MemoryRecord], str]:
    """How to write what a step is a measurement of, its network apart, in a row of a table.

    The device and its torch are named where the steps are of more than one.
    """
    several = len({(step.device.name, step.software.torch) for step in steps}) > 1

    def write(step: MemoryRecord) -> str:
        case = step.case
        words = [f"{case.batch_size} images", str(case.precision), str(case.mode)]
        if step.allocator is Allocator.EXPANDABLE_SEGMENTS:
            words.append("expandable segments")
        if several:
            words += [step.device.name, f"torch {step.software.torch}"]
        return ", ".join(words)

    return write


def _by_network(steps: Iterable[MemoryRecord]) -> dict[str, list[MemoryRecord]]:
    groups: dict[str, list[MemoryRecord]] = {}
    for step in steps:
        groups.setdefault(step.case.network, []).append(step)
    return groups


def _span(values: Iterable[Number], write: Callable[[Number], str]) -> str:
    """The least and the largest of the values, once where both are written alike."""
    values = list(values)
    return " to ".join(dict.fromkeys((write(min(values)), write(max(values)))))


def _both(peaks: tuple[int, int]) -> str:
    return " / ".join(map(format_bytes, peaks))
