"""Where do the bytes of one training step go, and how do they grow with the batch?

Known limits: events are drawn one after the other, for their times are not known.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import log10

import plotly.graph_objects as go

from ninlab.figures.colors import CATEGORY_COLORS, NEUTRAL, color_of, faded
from ninlab.figures.labels import DASHED, End, label_ends
from ninlab.figures.layout import add_narrow, finish
from ninlab.figures.words import title_of
from ninlab.reports import Category, MemoryEvent, Phase, TracedMoment
from ninlab.units import format_bytes

_MIB = 2**20
_LETTER, _LETTER_ON_A_PHONE = 0.012, 0.022  # of the width
_FILL = 0.3  # opacity of an area
_TICK_SPACE = 0.045  # of the width, from one slanted label to the next


def memory_timeline(
    events: Sequence[MemoryEvent], batch_size: int, *, provenance: str
) -> go.Figure:
    """Live bytes after each allocation and release of one step, by category, layer by layer.

    It begins with what the step finds: weights, optimizer state and what the step before left.
    The horizontal axis counts events, not time, and names the top-level layers. Hover text
    names phase, layer and operator; the dot is the first moment of the peak.
    """
    levels = _Levels.of(events, batch_size)
    figure = go.Figure()
    for category in levels.live:
        _add_category(figure, levels, category)
    peak = _add_peak(figure, levels)
    _mark_phases(figure, [event.phase for event in levels.steps[1:]])
    figure.update_yaxes(
        title=f"live memory, MiB, batch {batch_size}",
        rangemode="tozero",
        range=[0, 1.12 * peak / _MIB],
    )
    return _finish_step(figure, "allocations and releases in order", levels.steps, provenance)


def traced_step(moments: Sequence[TracedMoment], batch_size: int, *, provenance: str) -> go.Figure:
    """Live bytes of a predicted step by category, and dots where a GPU's trace had them.

    A moment is the fullest between one tensor and the next: the horizontal axis counts tensors,
    not time, and names the top-level layers. Hover text names phase, layer and operator.
    """
    figure = go.Figure()
    events = [moment.event for moment in moments]
    totals = [sum(moment.live.values()) for moment in moments]
    names = [
        "before the step",
        *(" ".join(filter(None, (e.phase, e.layer, e.operator))) for e in events[1:]),
    ]
    for category in sorted(Category, key=lambda each: each is Category.WORKSPACE):  # on top
        counts = [moment.live.get(category, 0) for moment in moments]
        if any(counts):
            _add_area(figure, category, counts, totals, names)
    figure.add_scatter(
        y=[moment.traced_bytes / _MIB for moment in moments],
        name="measured",
        mode="markers",
        marker={"size": 5, "color": NEUTRAL},
        hovertext=[
            f"<b>measured: {format_bytes(moment.traced_bytes)}</b><br>predicted: "
            f"{format_bytes(total)}, {total - moment.traced_bytes:+,} B<br>{name}"
            for moment, total, name in zip(moments, totals, names, strict=True)
        ],
    )
    _mark_phases(figure, [event.phase for event in events[1:]])
    figure.update_yaxes(title=f"requested memory, MiB, batch {batch_size}", rangemode="tozero")
    return _finish_step(figure, "tensors in order of allocation", events, provenance)


def _finish_step(
    figure: go.Figure, order: str, events: Sequence[MemoryEvent], provenance: str
) -> go.Figure:
    """The figure with the layers of the events along its axis, and a legend above."""
    places, layers = _layer_ticks(events)
    figure.update_xaxes(
        title=f"{order}, by layer",
        tickvals=places,
        ticktext=layers,
        tickangle=-60,
        showgrid=False,
    )
    return finish(
        figure,
        height=500,
        provenance=provenance,
        showlegend=True,
        legend={"orientation": "h", "y": 1.08, "yanchor": "bottom", "traceorder": "normal"},
        margin={"l": 8, "r": 8, "t": 100, "b": 90},
    )


@dataclass(frozen=True)
class _Levels:
    """Live bytes after each event of a step; the first moment is before the step."""

    steps: Sequence[MemoryEvent]  # the first is the last of what the step finds
    live: Mapping[Category, Sequence[int]]  # of the categories that are ever alive
    totals: Sequence[int]
    moments: Sequence[str]

    @classmethod
    def of(cls, events: Sequence[MemoryEvent], batch_size: int) -> _Levels:
        """The levels of those events; what was allocated before the step is one moment."""
        now = dict.fromkeys(Category, 0)
        live: dict[Category, list[int]] = {category: [] for category in Category}
        for event in events:
            size = event.bytes(batch_size)
            now[event.category] += size if event.allocates else -size
            for category, count in now.items():
                live[category].append(count)
        before = max(0, sum(event.phase is Phase.SETUP for event in events) - 1)
        steps = events[before:]
        moments = [" ".join(filter(None, (e.phase, e.layer, e.operator))) for e in steps[1:]]
        return cls(
            steps=steps,
            live={
                category: counts[before:]
                for category, counts in live.items()
                if any(counts[before:])
            },
            totals=[sum(counts) for counts in zip(*live.values(), strict=True)][before:],
            moments=["before the step", *moments],
        )


def _add_category(figure: go.Figure, levels: _Levels, category: Category) -> None:
    counts = levels.live[category]
    _add_area(figure, category, counts, levels.totals, levels.moments, steps=True)


def _add_area(
    figure: go.Figure,
    category: Category,
    counts: Sequence[int],
    totals: Sequence[int],
    moments: Sequence[str],
    *,
    steps: bool = False,
) -> None:
    """The bytes of one category upon those of the others; steps says that they change at once."""
    label, color = str(category).replace("_", " "), CATEGORY_COLORS[category]
    figure.add_scatter(
        y=[count / _MIB for count in counts],
        name=label,
        stackgroup="live",
        line={"color": color, "width": 1, "shape": "hv" if steps else "linear"},
        fillcolor=faded(color, _FILL),
        hovertext=[
            f"<b>{label}: {format_bytes(count)}</b><br>of {format_bytes(total)}<br>{moment}"
            for count, total, moment in zip(counts, totals, moments, strict=True)
        ],
    )


def _add_peak(figure: go.Figure, levels: _Levels) -> int:
    """Mark the first moment of the peak; its bytes."""
    bytes_ = max(levels.totals)
    at = levels.totals.index(bytes_)
    text = f"peak {format_bytes(bytes_)}"
    figure.add_scatter(
        x=[at],
        y=[bytes_ / _MIB],
        name="peak",
        mode="markers",
        marker={"size": 9, "color": NEUTRAL},
        showlegend=False,
        hovertext=[f"<b>peak: {format_bytes(bytes_)}</b><br>{levels.moments[at]}"],
    )
    figure.add_annotation(x=at, y=bytes_ / _MIB, text=text, yshift=14, showarrow=False)
    return bytes_


def _layer_ticks(events: Sequence[MemoryEvent]) -> tuple[list[float], list[str]]:
    """(places, names) of the top-level layers that the events belong to, the longest stays first.

    A layer whose name would meet that of a longer one stays without.
    """
    stays: list[tuple[int, int, str]] = []  # (first event, event after the last, name)
    for i, event in enumerate(events):
        name = event.layer.partition(".")[0]
        if not name or event.phase is Phase.SETUP:
            continue
        if stays and stays[-1][2] == name and events[stays[-1][0]].phase is event.phase:
            stays[-1] = (stays[-1][0], i + 1, name)
        else:
            stays.append((i, i + 1, name))
    named: dict[float, str] = {}
    for first, end, name in sorted(stays, key=lambda stay: stay[0] - stay[1]):
        place = (first + end - 1) / 2
        if all(abs(place - other) >= _TICK_SPACE * len(events) for other in named):
            named[place] = name
    return list(named), list(named.values())


def _mark_phases(figure: go.Figure, phases: Sequence[Phase]) -> None:
    """Draw a line where a phase begins, and name the phases that are as wide as their name.

    The first event of the step stands at 1, behind what the step finds.
    """
    starts = [i for i, phase in enumerate(phases) if not i or phase != phases[i - 1]]
    narrow = list(figure.layout.annotations)
    for start, end in zip(starts, [*starts[1:], len(phases)], strict=True):
        figure.add_vline(x=start + 1, line={"color": NEUTRAL, "width": 0.6, "dash": "dot"})
        text = str(phases[start]).replace("_", " ")
        letter = (end - start) / len(text) / len(phases)  # of the width, for each of its letters
        if letter < _LETTER:
            continue
        figure.add_annotation(
            x=(start + end) / 2 + 1, y=1, yref="paper", yanchor="bottom", text=text,
            showarrow=False,
        )  # fmt: skip
        if letter >= _LETTER_ON_A_PHONE:
            narrow.append(figure.layout.annotations[-1])
    add_narrow(figure, annotations=[note.to_plotly_json() for note in narrow])


def memory_by_batch(
    predicted: Mapping[str, Mapping[int, int]],
    *,
    provenance: str,
    measured: Mapping[str, Mapping[int, int]] | None = None,
    devices: Mapping[str, int] | None = None,
    titles: Mapping[str, str] | None = None,
) -> go.Figure:
    """Bytes of one step against the batch size, both on logarithmic axes.

    predicted and measured give {batch size: bytes} for each network: dashed lines and solid
    dots. devices gives the memory of each device, a horizontal line. titles gives networks other
    titles than their own, as for images of another size.
    """
    figure = go.Figure()
    title = {
        name: (titles or {}).get(name, title_of(name)) for name in {**predicted, **(measured or {})}
    }
    for device, count in (devices or {}).items():
        _add_device(figure, device, count, sorted(next(iter(predicted.values()))))
    ends = [_add_sizes(figure, name, title[name], points) for name, points in predicted.items()]
    for name, points in (measured or {}).items():
        _add_sizes(figure, name, title[name], points, measured=True)
    figure.update_xaxes(type="log")
    figure.update_yaxes(type="log")
    label_ends(figure, ends)
    batches = sorted({batch for points in predicted.values() for batch in points})
    counts = [count for trace in figure.data for count in trace.y]
    powers = range(min(counts).bit_length() // 2, max(counts).bit_length() // 2 + 1)
    figure.update_xaxes(title="batch size (log scale)", tickvals=batches[::2])
    figure.update_yaxes(
        title="memory of one step, bytes (log scale)",
        tickvals=[4**power for power in powers],
        ticktext=[format_bytes(4**power) for power in powers],
    )
    return finish(figure, height=430, provenance=provenance)


def _add_sizes(
    figure: go.Figure,
    name: str,
    title: str,
    points: Mapping[int, int],
    *,
    measured: bool = False,
) -> End:
    """Draw the bytes of one network: dashed where predicted, dots where measured; the end."""
    color, how = color_of(name), "measured" if measured else "predicted"
    figure.add_scatter(
        x=list(points),
        y=list(points.values()),
        name=f"{title}, {how}",
        mode="markers" if measured else "lines",
        line={"color": color, "dash": "dash", "width": 2},
        marker={"color": color, "size": 9},
        showlegend=not measured,  # dots have the color of the network's line
        hovertext=[
            f"<b>{title}</b><br>batch {batch:,}: {format_bytes(count)}, {how}"
            for batch, count in points.items()
        ],
    )
    largest = max(points)
    return End(largest, points[largest], title, color, DASHED)


def _add_device(figure: go.Figure, device: str, count: int, batches: Sequence[int]) -> None:
    """Draw the memory of a device as a line over those batch sizes."""
    figure.add_scatter(
        x=[batches[0], batches[-1]],
        y=[count, count],
        name=f"memory of {device}",
        mode="lines",
        line={"color": NEUTRAL, "width": 1},
        showlegend=False,
        hovertext=f"<b>{device}</b><br>{format_bytes(count)}",
    )
    figure.add_annotation(
        x=log10(batches[0]), y=log10(count), text=f"{device}, {format_bytes(count)}",
        showarrow=False, xanchor="left", yanchor="bottom",
    )  # fmt: skip
