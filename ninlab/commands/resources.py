"""``resources``: what do these networks cost, and where do they fit?"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout, suppress
from dataclasses import asdict, dataclass
from enum import StrEnum
from html import escape
from itertools import permutations
from pathlib import Path
from typing import Annotated, Any, TextIO

import typer
from rich.table import Table

from ninlab import liveness, records
from ninlab.commands.shared import (
    BATCH_SIZE,
    MOST_IMAGES,
    Format,
    Output,
    a_path,
    one_of,
    wide_console,
    write_csv,
)
from ninlab.devices import DEVICES
from ninlab.errors import NinlabError, quoted
from ninlab.reports import (
    MemoryEvent,
    MemoryReport,
    NetworkCost,
    peak_by_layer,
    peak_by_phase,
    tensor_peak,
)
from ninlab.resources import (
    CHANCE,
    Subject,
    allocates_otherwise_on_cuda,
    joined,
    load,
    profile,
    trace_batches,
    trace_step,
)
from ninlab.steps import Kernels, Optimizer, Precision
from ninlab.units import (
    format_bytes,
    format_count,
    format_shape,
    parse_bytes,
    parse_shape,
    parse_whole,
)
from ninlab.workspaces import Source


class By(StrEnum):
    """How the bytes of the training peak are divided."""

    CATEGORY = "category"
    LAYER = "layer"
    PHASE = "phase"


@dataclass(frozen=True)
class NetworkAnswer:
    """What was asked about one network; what was not asked is None."""

    cost: NetworkCost
    divided: Mapping[str, int] | None  # bytes of the training peak
    largest_batch: Mapping[str, int] | None  # training and inference
    sweep: Sequence[Mapping[str, int]] | None  # peaks by batch size


def resources(
    networks: Annotated[
        list[str],
        typer.Argument(
            help="Names of networks, package.module:factory, or path.py:factory.",
            show_default=False,
        ),
    ],
    batch_size: Annotated[int, typer.Option(help="Images in one batch.", **BATCH_SIZE)] = 1,
    input_shape: Annotated[
        str | None,
        typer.Option(
            "--input",
            help="Channels x height x width, as 3x224x224; the book's networks have one.",
        ),
    ] = None,
    optimizer: Annotated[
        Optimizer, typer.Option(help="Whose step it is.", **one_of(Optimizer))
    ] = Optimizer.SGD,
    precision: Annotated[
        Precision, typer.Option(help="Arithmetic.", **one_of(Precision))
    ] = Precision.FP32,
    kernels: Annotated[
        Kernels,
        typer.Option(help="Whether one operator computes several layers.", **one_of(Kernels)),
    ] = Kernels.TORCH,
    device: Annotated[
        str | None,
        typer.Option(help="Add that device's scratch memory and allocator, as h100."),
    ] = None,
    torch_version: Annotated[
        str | None,
        typer.Option("--torch", help="The torch release whose scratch memory to take, as 2.11."),
    ] = None,
    layers: Annotated[bool, typer.Option("--layers", help="One row a layer.")] = False,
    by: Annotated[
        By | None,
        typer.Option("--by", help="Divide the bytes of the training peak.", **one_of(By)),
    ] = None,
    fit: Annotated[
        str | None, typer.Option(help="Find the largest batch for that much memory, as 16GiB.")
    ] = None,
    batches: Annotated[
        str | None,
        typer.Option(help="Peaks at these batch sizes, as 1,16,128, and where networks cross."),
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(help="Write the memory over one step as a page, as out.html.", **a_path()),
    ] = None,
    output: Output = Format.TABLE,
) -> None:
    """Count what networks cost: parameters, computation, memory for training and prediction."""
    shape = None if input_shape is None else parse_shape(input_shape)
    memory = None if fit is None else parse_bytes(fit)
    sizes = None if batches is None else _batch_sizes(batches)
    if torch_version is not None and device is None:
        raise NinlabError("--torch says whose scratch memory a device takes; give --device, too")
    if plot is not None:
        _check_can_write(plot)
    options: dict[str, Any] = {"optimizer": optimizer, "autocast": precision.autocasts}
    answers = []
    growth: dict[str, tuple[MemoryEvent, ...]] = {}
    with _prints_to_stderr():  # what a module prints is no part of the answer
        for network in networks:
            subject = load(network, shape)
            cost = profile(
                subject,
                batch_size=batch_size,
                optimizer=optimizer,
                precision=precision,
                kernels=kernels,
                device=device,
                torch_version=torch_version,
            )
            twin = joined(subject, kernels)
            if twin is subject and kernels is not Kernels.TORCH:
                typer.echo(_nothing_joined(network, kernels), err=True)
            subject = twin
            if sizes is not None and len(networks) > 1:
                growth[network] = trace_batches(subject, **options)
            answers.append(
                NetworkAnswer(
                    cost,
                    None if by is None else _divided(cost, by),
                    None if memory is None else _largest_batch(subject, memory, options),
                    None if sizes is None else _sweep(subject, sizes, options),
                )
            )
    if plot is not None:
        _write_page(plot, [answer.cost for answer in answers])
    crossings = _crossings(growth)
    if output is Format.JSON:
        found = {"networks": [_as_json(answer, layers, by) for answer in answers]}
        if sizes is not None:
            found["crossings"] = crossings
        typer.echo(json.dumps(found, indent=2))
    elif output is Format.CSV:
        _write_csv(answers, layers, by)
    else:
        _print_tables(answers, layers, by, memory, crossings)


def _nothing_joined(network: str, kernels: Kernels) -> str:
    return (
        f"{network}: no layers that {kernels} kernels compute together, so that its costs are "
        f"those of {Kernels.TORCH} kernels"
    )


@contextmanager
def _prints_to_stderr() -> Iterator[None]:
    """What is printed inside goes to stderr, by whichever way: Python, C++ or another process.

    Afterwards both streams are what they were, even if somebody put others in their place.
    """
    with ExitStack() as stack:
        stack.enter_context(redirect_stdout(sys.stderr))
        stack.enter_context(redirect_stderr(sys.stderr))
        if sys.__stdout__ and sys.__stderr__:  # None is one that the shell has closed
            stack.enter_context(_second_for_first(sys.__stdout__))
        yield


@contextmanager
def _second_for_first(stream: TextIO) -> Iterator[None]:
    """File descriptor 2 in the place of 1, to which the stream of Python writes."""
    with suppress(ValueError):  # a network that was asked about before has closed the stream
        stream.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        with suppress(OSError, ValueError):  # stderr is full; or somebody has closed the stream
            stream.flush()
        os.dup2(kept, 1)
        os.close(kept)


# ---------------------------------------------------------------- what beside the costs is asked


def _batch_sizes(text: str) -> list[int]:
    try:
        return [parse_whole(part.strip(), 1, MOST_IMAGES) for part in text.split(",")]
    except NinlabError as error:
        raise NinlabError(
            f"{quoted(text)} is no list of batch sizes: {error}; write it as 1,16,128"
        ) from error


def _divided(cost: NetworkCost, by: By) -> Mapping[str, int]:
    if by is By.CATEGORY:
        return cost.training.by_category
    divide = peak_by_layer if by is By.LAYER else peak_by_phase
    return divide(cost.training_events, cost.batch_size)


def _peak(subject: Subject, batch_size: int, options: Any, *, training: bool) -> int:
    events = trace_step(subject, batch_size, training=training, **options).events
    peak = tensor_peak(events, batch_size).tensor_peak_bytes
    assert peak is not None
    return peak


def _largest_batch(subject: Subject, memory: int, options: Any) -> dict[str, int]:
    """The largest batch whose tensors fit into the memory; 0 where not one image does."""
    largest = {}
    for name, training in (("training", True), ("inference", False)):
        events = trace_batches(subject, training=training, **options)
        batch_size = liveness.largest_batch(events, memory)
        if batch_size < 2:  # the events hold from two images on
            batch_size = int(_one_image_fits(subject, memory, options, training=training))
        largest[name] = batch_size
    return largest


def _one_image_fits(subject: Subject, memory: int, options: Any, *, training: bool) -> bool:
    try:
        return _peak(subject, 1, options, training=training) <= memory
    except NinlabError:  # batch normalization may need a second one
        return False


def _sweep(subject: Subject, sizes: Sequence[int], options: Any) -> list[dict[str, int]]:
    return [
        {
            "batch_size": size,
            "training_tensor_peak_bytes": _peak(subject, size, options, training=True),
            "inference_tensor_peak_bytes": _peak(subject, size, options, training=False),
        }
        for size in sizes
    ]


def _crossings(growth: Mapping[str, Sequence[MemoryEvent]]) -> list[dict[str, Any]]:
    """From which batch size on does one network always need more training memory than another?"""
    return [
        {"network": first, "needs_more_than": second, "from_batch_size": batch_size}
        for first, second in permutations(growth, 2)
        if (batch_size := liveness.crossing(growth[first], growth[second])) is not None
    ]


def _write_page(path: Path, costs: Sequence[NetworkCost]) -> None:
    from ninlab import figures  # Plotly takes as long to load as everything else here

    parts = []
    for cost in costs:
        figure = figures.memory_timeline(
            cost.training_events,
            cost.batch_size,
            provenance=figures.predicted({"traced operators": cost.training.tensor_peak_bytes}),
        )
        heading = f"{cost.network}, {cost.optimizer}, {cost.precision}"
        if cost.kernels != Kernels.TORCH:
            heading += f", {cost.kernels} kernels"
        parts.append(f"<h1>{escape(heading)}</h1>")
        parts.append(figure.to_html(full_html=False, include_plotlyjs=cost is costs[0]))
    page = (
        "<!doctype html><html lang='en'><head><meta charset='utf-8'><title>Memory over one step"
        "</title><style>body {{ font-family: sans-serif }}</style></head><body>{}</body></html>"
    )
    whole = page.format("".join(parts)).encode(errors="xmlcharrefreplace")
    if _is_special(path):
        path.write_bytes(whole)
    else:
        records.write_bytes(_behind_links(path), whole)


def _check_can_write(path: Path) -> None:
    """Raises NinlabError where no page can be written, before anything is counted for it."""
    if path.is_dir():
        raise NinlabError(f"--plot {quoted(str(path))} is a folder; name a file, as out.html")
    if not path.parent.is_dir():
        raise NinlabError(
            f"--plot {quoted(str(path))} lies in a folder that does not exist; create it first"
        )
    if not _is_special(path):
        records.check_can_write(_behind_links(path))


def _behind_links(path: Path) -> Path:
    """The file that is to be replaced, so that a link to it stays one."""
    return Path(os.path.realpath(path))  # which, unlike Path.resolve, takes links that go round


def _is_special(path: Path) -> bool:
    """Whether it is there and no file, such as a pipe or a device, which nothing may replace."""
    return path.exists() and not path.is_file()


# ---------------------------------------------------------------- JSON and CSV


def _as_json(answer: NetworkAnswer, layers: bool, by: By | None) -> dict[str, Any]:
    content = answer.cost.to_json()
    if layers:
        content["layers"] = [
            row | {"output_shape": list(row["output_shape"])} for row in _layer_rows(answer.cost)
        ]
    if answer.divided is not None:
        content[f"training_peak_by_{by}"] = dict(answer.divided)
    if answer.largest_batch is not None:
        content["largest_batch"] = dict(answer.largest_batch)
    if answer.sweep is not None:
        content["sweep"] = list(answer.sweep)
    return content


def _layer_rows(cost: NetworkCost) -> list[dict[str, Any]]:
    return [asdict(layer) | {"flops": layer.flops} for layer in cost.layer_costs]


def _write_csv(answers: Sequence[NetworkAnswer], layers: bool, by: By | None) -> None:
    asked = [
        name
        for name, is_asked in (
            ("--layers", layers),
            ("--by", by is not None),
            ("--batches", answers[0].sweep is not None),
        )
        if is_asked
    ]
    if len(asked) > 1:
        raise NinlabError(
            f"csv holds one table, not those of {' and '.join(asked)}; "
            "ask for one of them, or for --format json"
        )
    rows = [row for answer in answers for row in _csv_rows(answer, layers, by)]
    write_csv(rows, list(rows[0]))


def _csv_rows(answer: NetworkAnswer, layers: bool, by: By | None) -> Iterable[dict[str, Any]]:
    network = {"network": answer.cost.network}
    if layers:
        for row in _layer_rows(answer.cost):
            yield network | row | {"output_shape": format_shape(row["output_shape"])}
    elif answer.divided is not None:
        for name, count in answer.divided.items():
            yield network | {str(by): name, "bytes": count}
    elif answer.sweep is not None:
        for point in answer.sweep:
            yield network | dict(point)
    else:
        yield _flat(answer)


def _flat(answer: NetworkAnswer) -> dict[str, Any]:
    """The JSON object as one row: ``training.at`` for what is nested."""
    row: dict[str, Any] = {}
    for name, value in answer.cost.to_json().items():
        if name in ("training", "inference"):
            row |= {f"{name}.{key}": _cell(count) for key, count in value.items()}
        elif name == "input_shape":
            row[name] = format_shape(answer.cost.input_shape)
        elif name == "unsupported_operators":
            row[name] = " ".join(value)
        elif name == "scratch_sources":
            row[name] = " ".join(f"{source}:{count}" for source, count in value.items())
        else:
            row[name] = value
    for name, batch_size in (answer.largest_batch or {}).items():
        row[f"largest_batch.{name}"] = batch_size
    row["kernels"] = row.pop("kernels")  # a new column comes last
    return row


def _cell(value: Any) -> Any:
    """The value, and a range as its two ends."""
    return " ".join(map(str, value)) if isinstance(value, tuple) else value


# ---------------------------------------------------------------- tables


def _print_tables(
    answers: Sequence[NetworkAnswer],
    layers: bool,
    by: By | None,
    memory: int | None,
    crossings: Sequence[Mapping[str, Any]],
) -> None:
    console = wide_console()
    costs = [answer.cost for answer in answers]
    first = costs[0]
    console.print(
        f"batch {first.batch_size}, {first.optimizer}, {first.precision}"
        + ("" if first.kernels == Kernels.TORCH else f", {first.kernels} kernels")
        + "; counts are of one image "
        "and one forward pass, bytes of the whole batch; peaks are of tensors alone"
        + (" (--device adds scratch and allocator)" if first.device is None else "")
    )
    console.print(_summary(costs))
    console.print(_fits_in(costs))
    for answer in answers:
        if layers:
            console.print(_layer_table(answer.cost))
        if answer.divided is not None:
            console.print(_divided_table(answer, str(by)))
    if memory is not None:
        console.print(_largest_table(answers, memory))
    if first_sweep := answers[0].sweep:
        console.print(_sweep_table(answers, [point["batch_size"] for point in first_sweep]))
    for crossing in crossings:
        start = crossing["from_batch_size"]
        when = "at every batch size" if start == 1 else f"from batch {start} on"
        console.print(
            f"{crossing['network']} needs more training memory than "
            f"{crossing['needs_more_than']} {when}"
        )
    for cost in costs:
        for sentence in _what_is_not_exact(cost):
            console.print(sentence)


_SAID_BY = {
    Source.DEVICE: "as cuDNN says on such a device",
    Source.DESCRIBED: "as cuDNN plans for a device described to it",
    Source.OWN_KERNEL: "without, by kernels of ATen's own",
    Source.ANOTHER_CUDNN: "as another version of cuDNN plans, to which the device was described",
    Source.RULE: "by the rule for 1x1 windows",
}


def _what_is_not_exact(cost: NetworkCost) -> Iterator[str]:
    """A sentence each on who knows scratch, on addresses, on operators, on chance."""
    if cost.device is not None and None in (
        cost.training.allocated_peak_bytes,
        cost.inference.allocated_peak_bytes,
    ):
        own = ", ".join(name for name in cost.unsupported_operators if name.startswith("ninlab::"))
        reason = (
            f"{own} run as plain torch on {cost.device}, of which nobody knows the scratch"
            if own
            else f"no table says how much scratch it takes on {cost.device}, and no cuDNN is "
            "installed that knows"
        )
        yield f"{cost.network}: {reason}; its peaks are of tensors alone"
    if cost.scratch_sources:
        said = ", ".join(
            f"{count} {_SAID_BY[Source(source)]}" for source, count in cost.scratch_sources.items()
        )
        yield (
            f"{cost.network}: scratch of convolutions on {cost.device}, each result of a training "
            f"step for itself: {said}"
        )
    for what, report in (("training", cost.training), ("prediction", cost.inference)):
        if report.reserved_range_bytes is not None:
            least, most = map(format_bytes, report.reserved_range_bytes)
            yield (
                f"{cost.network}: {what} reserves {least} to {most} on {cost.device}; which of two "
                "equal free blocks is taken hangs on the addresses that the driver gives"
            )
    calls: dict[bool, list[str]] = {False: [], True: []}
    for name, count in cost.unsupported_operators.items():
        if name != CHANCE:
            calls[allocates_otherwise_on_cuda(name)].append(f"{name} ({count}x)")
    if calls[False]:
        yield f"{cost.network}: no rule for {', '.join(calls[False])}; what is above leaves it out"
    if calls[True]:
        yield (
            f"{cost.network}: on a GPU {', '.join(calls[True])} may allocate otherwise than the "
            "plain formulas that are counted above"
        )
    if CHANCE in cost.unsupported_operators:
        yield (
            f"{cost.network}: draws random numbers on the host; if they decide which layers run, "
            "what is above is one case of several"
        )


def _table(title: str, left: Sequence[str], right: Sequence[str]) -> Table:
    table = Table(*left, title=title or None, title_justify="left")
    for name in right:
        table.add_column(name, justify="right")
    return table


def _summary(costs: Sequence[NetworkCost]) -> Table:
    device = costs[0].device
    table = _table(
        "",
        ["network", "input"],
        ["parameters", "MACs", "FLOPs", "kept for backward", "training peak", "inference peak"],
    )
    if device is not None:
        table.add_column(f"training, allocated on {device}", justify="right")
        table.add_column(f"inference, allocated on {device}", justify="right")
    table.add_column("training peak at")
    for cost in costs:
        peaks = [cost.training.tensor_peak_bytes, cost.inference.tensor_peak_bytes]
        if device is not None:
            peaks += [cost.training.allocated_peak_bytes, cost.inference.allocated_peak_bytes]
        table.add_row(
            cost.network,
            format_shape(cost.input_shape),
            format_count(cost.parameters),
            format_count(cost.macs),
            format_count(cost.flops),
            format_bytes(cost.saved_bytes),
            *("unknown" if peak is None else format_bytes(peak) for peak in peaks),
            cost.training.at or "–",
        )
    return table


def _fits_in(costs: Sequence[NetworkCost]) -> Table:
    """Whether the peaks fit into each device's memory, the most exact peaks there are."""
    table = _table(
        "fits in (the CUDA context and its libraries need some hundred MiB more)",
        ["device"],
        ["memory"],
    )
    for cost in costs:
        table.add_column(cost.network)
    for device in DEVICES.values():
        fits = (
            " and ".join(
                what
                for what, report in (("training", cost.training), ("prediction", cost.inference))
                if device.fits(_most_exact(report))
            )
            for cost in costs
        )
        memory = format_bytes(device.memory_bytes)
        table.add_row(device.title, memory, *(each or "–" for each in fits))
    return table


def _most_exact(report: MemoryReport) -> int:
    """The most that the device can be asked to reserve, as far as it is known."""
    if report.reserved_range_bytes is not None:
        return max(report.reserved_range_bytes)
    peak = report.reserved_peak_bytes or report.tensor_peak_bytes
    assert peak is not None
    return peak


def _layer_table(cost: NetworkCost) -> Table:
    table = _table(
        cost.network, ["layer", "kind", "output"], ["parameters", "MACs", "kept for backward"]
    )
    for layer in cost.layer_costs:
        table.add_row(
            layer.name,
            layer.kind,
            format_shape(layer.output_shape),
            format_count(layer.parameters),
            format_count(layer.macs),
            format_bytes(layer.saved_bytes),
        )
    return table


def _divided_table(answer: NetworkAnswer, by: str) -> Table:
    cost = answer.cost
    peak = cost.training.tensor_peak_bytes
    assert peak
    assert answer.divided is not None
    title = f"{cost.network}: {'peak within each phase' if by == By.PHASE else 'training peak'}"
    table = _table(title, [by], ["bytes", "of the peak"])
    for name, count in answer.divided.items():
        table.add_row(name or "(no layer)", format_bytes(count), f"{count / peak:.1%}")
    return table


def _largest_table(answers: Sequence[NetworkAnswer], memory: int) -> Table:
    table = _table(
        f"largest batch for {format_bytes(memory)} (tensors only)",
        ["network"],
        ["training", "prediction"],
    )
    for answer in answers:
        assert answer.largest_batch is not None
        table.add_row(
            answer.cost.network,
            str(answer.largest_batch["training"]),
            str(answer.largest_batch["inference"]),
        )
    return table


def _sweep_table(answers: Sequence[NetworkAnswer], sizes: Sequence[int]) -> Table:
    names = [
        f"{answer.cost.network}, {what}"
        for answer in answers
        for what in ("training", "prediction")
    ]
    table = _table("tensor peak by batch size", [], ["batch", *names])
    for number, size in enumerate(sizes):
        points = [answer.sweep[number] for answer in answers if answer.sweep]
        table.add_row(
            str(size),
            *(
                format_bytes(point[f"{what}_tensor_peak_bytes"])
                for point in points
                for what in ("training", "inference")
            ),
        )
    return table
