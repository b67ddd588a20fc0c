"""How does the book draw a number? One function for each kind of figure.

A figure is made from architectures, reports or records, never from typed numbers, and says
where its numbers come from: `counted` and `measured` make that line, and a figure carries it
in ``layout.meta["provenance"]``, from where the book prints it under the plot.

What was counted or predicted is hollow or dashed, what was measured is solid. A network has
one color in the whole book. Text, paper and grid have none: the site's two templates choose
them for light and dark, so no function here may type one in.

Imports from ninlab: architectures, formulas, records, reports, roofline, units and errors; no
torch.
Known limits: drawn for a column 350 to 800 pixels wide; a figure holds at most six series.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from math import ceil, floor, log, log10, prod, sqrt
from typing import Any, Protocol

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from ninlab.architectures import (
    ARCHITECTURES,
    Architecture,
    AvgPool,
    BatchNorm,
    Block,
    Branches,
    Conv,
    Dropout,
    Flatten,
    GlobalAvgPool,
    Layer,
    Linear,
    MaxPool,
    ReLU,
    Sigmoid,
    architecture,
)
from ninlab.errors import NinlabError
from ninlab.formulas import (
    PlacedLayer,
    layer_macs,
    layer_parameters,
    output_shape,
    placed_layers,
)
from ninlab.formulas import macs as network_macs
from ninlab.records import Device, Outcome, Provenance, RunRecord, Software
from ninlab.reports import Category, MemoryEvent, Phase
from ninlab.roofline import Operator
from ninlab.units import Shape, format_bytes, format_count, format_shape

# ---------------------------------------------------------------- colors

NEUTRAL = "#788484"
"""What belongs to no network. Like every color here it has a contrast of at least 3 against
both pages, and is told from the others with each kind of color blindness."""

_FAMILY_COLORS = {
    "nin": "#d87818",
    "nin_fixed": "#786c24",
    "alexnet": "#1884fc",
    "vgg": "#009c60",
    "googlenet": "#a860a8",
    "lenet": NEUTRAL,
}
_REPAIRED_AT_28 = "nin_28"


def _family(name: str) -> str:
    """The family whose color a network has: the longest one its name begins with."""
    if name.startswith(_REPAIRED_AT_28) and not name.startswith(f"{_REPAIRED_AT_28}_textbook"):
        return "nin_fixed"
    return max((f for f in _FAMILY_COLORS if name.startswith(f)), key=len, default="")


NETWORK_COLORS: Mapping[str, str] = {name: _FAMILY_COLORS[_family(name)] for name in ARCHITECTURES}
"""The color of each network. Variants of one design share it and are told apart by their labels."""

CATEGORY_COLORS: Mapping[Category, str] = {
    Category.PARAMETER: "#1884fc",
    Category.GRADIENT: "#a860a8",
    Category.OPTIMIZER_STATE: "#786c24",
    Category.ACTIVATION: "#d87818",
    Category.TEMPORARY: "#009c60",
    Category.WORKSPACE: "#6e32fa",
    Category.INPUT: NEUTRAL,
}


def _faded(color: str, opacity: float) -> str:
    red, green, blue = (int(color[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},{opacity})"


_HOLLOW = 0.15  # opacity of the inside of what was counted
_ROOM_FOR_TEXT = 1.28  # width of a panel, in lengths of its longest bar
_ROOM_FOR_TEXT_IN_HALF = 1.5  # the same where two panels share a line, also on a phone


# ---------------------------------------------------------------- provenance


def counted(counts: Mapping[str, object]) -> str:
    """The line ``Counted: formulas, equal to fvcore.``, which says where counts come from.

    counts gives the same quantities as each counter has them, the drawn ones first. The
    sentence cannot be had for counters that differ: that raises NinlabError.
    """
    return _agreeing("Counted", counts)


def predicted(predictions: Mapping[str, object]) -> str:
    """The line ``Predicted: liveness, equal to traced operators.``, made as `counted` does.

    For what a device will do, such as memory in use, as opposed to what a network is.
    """
    return _agreeing("Predicted", predictions)


def _agreeing(what: str, sources: Mapping[str, object]) -> str:
    (first, drawn), *others = sources.items()
    for source, values in others:
        if values != drawn:
            raise NinlabError(f"{first} says {drawn}, but {source} says {values}")
    equal = " and ".join(source for source, _ in others)
    return f"{what}: {first}, equal to {equal}." if equal else f"{what}: {first}."


_MOST_NAMED = 3


def measured(runs: Sequence[RunRecord], statistic: str = "median") -> str:
    """The line that says where measurements come from: device, date, software, seeds, records.

    Raises NinlabError without a run: nothing was measured.
    """
    if not runs:
        raise NinlabError("no record was given; a measured figure needs at least one")
    runs_of_a_group: dict[tuple[str, str], int] = {}
    for run in runs:
        group = (run.experiment, run.name)
        runs_of_a_group[group] = runs_of_a_group.get(group, 0) + 1
    fewest, most = min(runs_of_a_group.values()), max(runs_of_a_group.values())
    seeds = f"{fewest}" if fewest == most else f"{fewest} to {most}"
    dates = sorted({run.provenance.utc[:10] for run in runs})
    parts = [
        _listed(run.device.name for run in runs),
        dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}",
        "torch " + _listed(run.software.torch for run in runs),
        _listed(str(run.recipe.precision) for run in runs),
        "batch " + _listed(str(run.recipe.batch_size) for run in runs),
        "one seed" if most == 1 else f"{statistic} of {seeds} seeds",
    ]
    ids = sorted(run.id for run in runs)
    if len(ids) == 1:
        source = f"record {ids[0]}"
    else:
        experiments = {run.experiment for run in runs}
        few = len(experiments) <= _MOST_NAMED
        where = _listed(experiments) if few else f"{len(experiments)} experiments"
        source = f"{len(ids)} records of {where}"
    return f"Measured: {', '.join(parts)}; {source}."


class _MeasuredStep(Protocol):
    """What `measured_steps` reads of a record of `measurement`, which this module cannot import."""

    @property
    def id(self) -> str: ...

    @property
    def provenance(self) -> Provenance: ...

    @property
    def device(self) -> Device: ...

    @property
    def software(self) -> Software: ...


def measured_steps(steps: Sequence[_MeasuredStep]) -> str:
    """The line that says where measured steps come from: device, date, software, records.

    Raises NinlabError without a step: nothing was measured.
    """
    if not steps:
        raise NinlabError("no measured step was given; a measured figure needs at least one")
    dates = sorted({step.provenance.utc[:10] for step in steps})
    parts = [
        _listed(step.device.name for step in steps),
        dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}",
        "torch " + _listed(step.software.torch for step in steps),
    ]
    folder = steps[0].id.partition("/")[0]
    source = f"record {steps[0].id}" if len(steps) == 1 else f"{len(steps)} records of {folder}"
    return f"Measured: {', '.join(parts)}; {source}."


def _listed(values: Iterable[str]) -> str:
    return " and ".join(sorted(set(values)))


# ---------------------------------------------------------------- shared by all figures


def _title(name: str) -> str:
    return ARCHITECTURES[name].title if name in ARCHITECTURES else name


def _color(name: str, like: Mapping[str, str] | None = None) -> str:
    return NETWORK_COLORS.get((like or {}).get(name, name), NEUTRAL)


def _finish(figure: go.Figure, *, height: int, provenance: str, **layout: Any) -> go.Figure:
    """The figure with the book's layout; what depends on the theme is left to the site."""
    settings: dict[str, Any] = {
        "height": height,
        "margin": {"l": 8, "r": 8, "t": 34, "b": 40},
        "showlegend": False,
        "hoverlabel": {"align": "left"},
        "dragmode": False,  # a finger that scrolls the page must not zoom the plot
        "meta": {"provenance": provenance},
    }
    figure.update_layout(settings | layout)
    figure.update_yaxes(automargin=True)
    return figure


def _left_aligned_titles(figure: go.Figure) -> None:
    """Put the titles that make_subplots centers over the left edge of their plots."""
    for annotation, axis in zip(figure.layout.annotations, figure.select_xaxes(), strict=True):
        annotation.update(x=axis.domain[0], xanchor="left", align="left", font={"size": 13})


def _add_bars(
    figure: go.Figure,
    place: tuple[int, int],
    labels: Sequence[str],
    values: Sequence[float],
    *,
    text: Sequence[str],
    hover: Sequence[str],
    colors: Sequence[str],
    measured: bool = False,
    longest: float | None = None,
    room: float = _ROOM_FOR_TEXT,
) -> None:
    """Draw horizontal bars into one panel, from the top down, each with its value beside it.

    Solid when measured, hollow when counted. longest is the value that fills the panel; by
    default it is the largest of its own; room is how much wider the panel is, for the text.
    """
    row, column = place
    figure.add_bar(
        y=list(range(len(labels))),  # places, not labels: two rows may bear the same label
        x=list(values),
        orientation="h",
        text=list(text),
        textposition="outside",
        cliponaxis=False,
        marker={
            "color": [color if measured else _faded(color, _HOLLOW) for color in colors],
            "line": {"color": list(colors), "width": 1.5},
        },
        hovertext=list(hover),
        hoverinfo="text",
        row=row,
        col=column,
    )
    figure.update_yaxes(
        autorange="reversed",
        tickvals=list(range(len(labels))),
        ticktext=[f"{label} " for label in labels],  # the space keeps them off the bars
        showgrid=False,
        row=row,
        col=column,
    )
    figure.update_xaxes(
        range=[0, room * (longest or max(values, default=0) or 1)],
        showticklabels=False,
        showgrid=False,
        row=row,
        col=column,
    )


# ---------------------------------------------------------------- bars


@dataclass(frozen=True)
class Quantity:
    """One panel of bars: a value for each network (by name) or other thing (by label)."""

    title: str  # what is shown, for example "MACs of one image"
    values: Mapping[str, int]
    unit: str = ""  # of the unrounded value in the hover text, where the title has none
    write: Callable[[int], str] = format_count
    measured: bool = False
    like: str = ""  # the network whose color all bars of the panel have; by default each its own


def bars(
    *quantities: Quantity, provenance: str, like: Mapping[str, str] | None = None
) -> go.Figure:
    """One panel a quantity, one bar a network, each labeled with its value.

    The first quantity sorts the bars, in all panels alike. like gives labels that are no
    networks the color of one: ``{"NiN block": "nin"}``.
    """
    order = sorted(quantities[0].values, key=lambda name: -quantities[0].values[name])
    figure = make_subplots(
        rows=len(quantities),
        cols=1,
        shared_yaxes=True,
        subplot_titles=[quantity.title for quantity in quantities],
        vertical_spacing=0.32 / len(quantities),
    )
    for row, quantity in enumerate(quantities, start=1):
        values = [quantity.values[name] for name in order]
        _add_bars(
            figure,
            (row, 1),
            [_title(name) for name in order],
            values,
            text=[quantity.write(value) for value in values],
            hover=[
                f"<b>{_title(name)}</b><br>{quantity.title}: {value:,} {quantity.unit}".strip()
                for name, value in zip(order, values, strict=True)
            ],
            colors=[_color(quantity.like or name, like) for name in order],
            measured=quantity.measured,
        )
    _left_aligned_titles(figure)
    height = len(quantities) * (30 * len(order) + 40) + 30
    return _finish(figure, height=height, provenance=provenance, bargap=0.35)


@dataclass(frozen=True)
class Pair:
    """One quantity, predicted and measured. like is the network whose color it has."""

    label: str
    predicted: int
    measured: int
    like: str


def predicted_and_measured(
    pairs: Sequence[Pair],
    *,
    provenance: str,
    write: Callable[[int], str] = format_bytes,
    unit: str = "bytes",
) -> go.Figure:
    """A hollow bar for each prediction, a solid dot for its measurement, and how far off it is."""
    figure = make_subplots(rows=1, cols=1)
    apart = [pair.measured - pair.predicted for pair in pairs]
    hover = [
        f"<b>{pair.label}</b><br>predicted: {pair.predicted:,} {unit}"
        f"<br>measured: {pair.measured:,} {unit}<br>measured − predicted: {difference:,} {unit}"
        for pair, difference in zip(pairs, apart, strict=True)
    ]
    text = [
        f"  {write(pair.measured)}, "
        + (f"{difference / pair.predicted:+.1%}" if difference else "equal")
        for pair, difference in zip(pairs, apart, strict=True)
    ]
    colors = [_color(pair.like) for pair in pairs]
    _add_bars(
        figure,
        (1, 1),
        [pair.label for pair in pairs],
        [pair.predicted for pair in pairs],
        text=text,
        hover=hover,
        colors=colors,
        longest=1.35 * max(max(pair.predicted, pair.measured) for pair in pairs),
    )
    figure.add_scatter(
        x=[pair.measured for pair in pairs],
        y=list(range(len(pairs))),
        mode="markers",
        marker={"size": 9, "color": colors},
        hovertext=hover,
        hoverinfo="text",
    )
    return _finish(figure, height=26 * len(pairs) + 60, provenance=provenance, bargap=0.3)


def coverage(
    planned: Mapping[str, int], recorded: Mapping[str, int], *, provenance: str
) -> go.Figure:
    """How much of a plan is recorded: a hollow bar of the runs planned, a solid one in it.

    Both are by experiment, in the order of the plan.
    """
    figure = make_subplots(rows=1, cols=1)
    names = list(planned)
    for counts, is_recorded in ((planned, False), (recorded, True)):
        _add_bars(
            figure,
            (1, 1),
            names,
            [counts[name] for name in names],
            text=[""] * len(names)
            if is_recorded
            else [f"{recorded[name]} of {planned[name]}" for name in names],
            hover=[
                f"<b>{name}</b><br>{recorded[name]} of {planned[name]} runs recorded"
                for name in names
            ],
            colors=[NEUTRAL] * len(names),
            measured=is_recorded,
            longest=1.1 * max(planned.values()),
        )
    return _finish(
        figure,
        height=26 * len(names) + 60,
        provenance=provenance,
        bargap=0.3,
        barmode="overlay",
    )


# ---------------------------------------------------------------- where the costs sit

_COUNTS: Mapping[str, tuple[str, Callable[[Any, Shape], int]]] = {
    "parameters": ("parameters", layer_parameters),
    "macs": ("MACs", layer_macs),
}


def shares_by_layer(
    names: Sequence[str], *, counts: Sequence[str] = ("parameters", "macs"), provenance: str
) -> go.Figure:
    """For each network, the share of its parameters and of its MACs in each layer that has any.

    One row of panels a network, one column a count ("parameters", "macs"); the layers run
    from the top down in order of execution.
    """
    splits = [[_Split.of(architecture(name), count) for count in counts] for name in names]
    rows = [len(row[0].layers) for row in splits]
    figure = make_subplots(
        rows=len(names),
        cols=len(counts),
        row_heights=rows,
        shared_yaxes=True,
        horizontal_spacing=0.04,
        vertical_spacing=0.08,
        subplot_titles=[
            f"<b>{'' if column else split.network.title}</b>"
            f"<br>{format_count(split.total)} {split.unit}"
            for row in splits
            for column, split in enumerate(row)
        ],
    )
    largest_share = max(max(split.values) / split.total for row in splits for split in row)
    for row, of_network in enumerate(splits, start=1):
        for column, split in enumerate(of_network, start=1):
            _add_bars(
                figure,
                (row, column),
                [at.name for at in split.layers],
                [value / split.total for value in split.values],
                text=[format_count(value) for value in split.values],
                hover=split.hover,
                colors=[NETWORK_COLORS[split.network.name]] * len(split.layers),
                longest=largest_share,  # one scale for all panels
                room=_ROOM_FOR_TEXT_IN_HALF,
            )
    _left_aligned_titles(figure)
    return _finish(
        figure,
        height=17 * sum(rows) + 70 * len(names),
        provenance=provenance,
        bargap=0.25,
        margin={"l": 8, "r": 8, "t": 48, "b": 8},
    )


@dataclass(frozen=True)
class _Split:
    """One count of one network, layer by layer."""

    network: Architecture
    unit: str
    layers: tuple[PlacedLayer, ...]  # those with weights
    values: tuple[int, ...]

    @classmethod
    def of(cls, network: Architecture, count: str) -> _Split:
        unit, formula = _COUNTS[count]
        layers = tuple(
            at for at in placed_layers(network) if layer_parameters(at.layer, at.input_shape)
        )
        values = tuple(formula(at.layer, at.input_shape) for at in layers)
        return cls(network, unit, layers, values)

    @property
    def total(self) -> int:
        return sum(self.values)

    @property
    def hover(self) -> list[str]:
        return [
            f"<b>{self.network.title}, {at.name}</b><br>{describe(at.layer)}"
            f"<br>{value:,} {self.unit}, {value / self.total:.1%} of the network"
            for at, value in zip(self.layers, self.values, strict=True)
        ]


# ---------------------------------------------------------------- shapes


def shape_funnel(name: str, *, provenance: str) -> go.Figure:
    """The side of the map and the number of channels after each stage of one network.

    A stage is a layer or block of the top level that changes the shape. Values per image,
    channels x height x width, are in the hover text.
    """
    network = architecture(name)
    stages = [("input", network.input_shape), *_stages(network)]
    sides = [shape[1] if len(shape) == 3 else 1 for _, shape in stages]
    channels = [shape[0] for _, shape in stages]
    hover = [
        f"<b>{stage}</b><br>{format_shape(shape)}: {prod(shape):,} values an image"
        for stage, shape in stages
    ]
    figure = make_subplots(
        rows=1,
        cols=2,
        shared_yaxes=True,
        horizontal_spacing=0.03,
        subplot_titles=["side, pixels", "channels"],
    )
    for column, values in enumerate((sides, channels), start=1):
        _add_bars(
            figure,
            (1, column),
            [stage for stage, _ in stages],
            values,
            text=[str(value) for value in values],
            hover=hover,
            colors=[NETWORK_COLORS[name]] * len(stages),
            room=_ROOM_FOR_TEXT_IN_HALF,
        )
    _left_aligned_titles(figure)
    return _finish(figure, height=26 * len(stages) + 50, provenance=provenance, bargap=0.3)


def _stages(network: Architecture) -> Iterable[tuple[str, Shape]]:
    """(what it is, shape after it) of each top-level layer or block that changes the shape."""
    shape = network.input_shape
    for layer in network.layers:
        after = output_shape(layer, shape)
        if after != shape and not isinstance(layer, Flatten):
            yield describe(layer), after
        shape = after


# ---------------------------------------------------------------- block diagrams


@dataclass(frozen=True)
class Column:
    """One column of a block diagram: layers from the top down."""

    title: str
    layers: tuple[Layer, ...]
    input_shape: Shape
    color: str = NEUTRAL

    @classmethod
    def of(cls, name: str) -> Column:
        """The column of a whole network, in its color."""
        network = architecture(name)
        return cls(network.title, network.layers, network.input_shape, NETWORK_COLORS[name])

    @classmethod
    def of_block(cls, block: Block | Branches, input_shape: Shape, like: str) -> Column:
        """The column of a block on its own, under its name, in the color of a network."""
        return cls(block.name, (block,), input_shape, NETWORK_COLORS[like])


def describe(layer: Layer) -> str:
    """A layer in a few words: ``describe(Conv(96, 11, stride=4)) == "11×11 conv 96 /4"``.

    ``/4`` is the stride. Padding is left out: shapes tell it.
    """
    match layer:
        case Conv(out_channels=channels, kernel_size=size, stride=stride, groups=groups):
            several = f" in {groups} groups" if groups > 1 else ""
            return f"{size}×{size} conv {channels}{_by(stride)}{several}"
        case MaxPool(kernel_size=size, stride=stride):
            return f"{size}×{size} max pool{_by(stride)}"
        case AvgPool(kernel_size=size, stride=stride):
            return f"{size}×{size} mean{_by(stride)}"
        case Linear(out_features=features):
            return f"linear {features}"
        case GlobalAvgPool():
            return "global average"
        case Dropout(probability=probability):
            return f"dropout {probability:g}"
        case BatchNorm():
            return "batch norm"
        case ReLU():
            return "ReLU"
        case Sigmoid():
            return "sigmoid"
        case Flatten():
            return "flatten"
        case Block(name=name) | Branches(name=name):
            return name


def _by(stride: int) -> str:
    return f" /{stride}" if stride > 1 else ""


_BEFORE_THE_NEXT = ReLU | BatchNorm | Sigmoid  # what makes a convolution not a linear map
_BOX, _GAP, _FRAME, _SHAPE_LINE = 24.0, 4.0, 6.0, 17.0  # pixels of a diagram, downwards
_TEXT, _SMALL_TEXT, _NARROW = 11, 10, 0.25  # the small one in the boxes of four branches


@dataclass
class _Diagram:
    """Boxes, frames and texts of a block diagram while it is laid out, y in pixels downward."""

    shapes: list[dict[str, Any]] = field(default_factory=list)
    x: list[float] = field(default_factory=list)
    y: list[float] = field(default_factory=list)
    text: list[str] = field(default_factory=list)
    hover: list[str] = field(default_factory=list)
    size: list[int] = field(default_factory=list)

    def write(self, x: float, y: float, text: str, hover: str = "", *, room: float = 1.0) -> None:
        """Center a text there; room is the width it has, in columns."""
        self.x.append(x)
        self.y.append(y)
        self.text.append(text)
        self.hover.append(hover or text)
        self.size.append(_TEXT if room > _NARROW else _SMALL_TEXT)

    def box(self, x: tuple[float, float], y: float, color: str, opacity: float) -> None:
        self.shapes.append(
            {
                "type": "rect",
                "layer": "below",
                "x0": x[0],
                "x1": x[1],
                "y0": y,
                "y1": y + _BOX,
                "fillcolor": _faded(color, opacity),
                "line": {"color": color, "width": 1.2 if opacity else 0.6},
            }
        )

    def frame(self, x: tuple[float, float], y: tuple[float, float]) -> None:
        self.shapes.append(
            {
                "type": "rect",
                "layer": "below",
                "x0": x[0],
                "x1": x[1],
                "y0": y[0],
                "y1": y[1],
                "line": {"color": NEUTRAL, "width": 1},
            }
        )

    def layers(
        self,
        layers: Sequence[Layer],
        shape: Shape,
        x: tuple[float, float],
        y: float,
        color: str,
        *,
        shapes: bool = False,
    ) -> float:
        """Draw the layers downward from y; returns where they end.

        shapes writes the shape below each single layer that changes the side of the map.
        """
        following = [*layers[1:], None]
        for layer, after in zip(layers, following, strict=True):
            put_out = output_shape(layer, shape)
            match layer:
                case ReLU() | Sigmoid() | Flatten():  # part of the box above, or no computation
                    pass
                case Block():
                    inset = (x[0] + 0.03, x[1] - 0.03)
                    bottom = self.layers(layer.layers, shape, inset, y + _FRAME, color)
                    self.frame(x, (y, bottom - _GAP + _FRAME))
                    y = self._shape_below(x, bottom - _GAP + _FRAME, put_out)
                case Branches():
                    width = (x[1] - x[0]) / len(layer.branches)
                    bottoms = []
                    for number, branch in enumerate(layer.branches):
                        left = x[0] + number * width
                        inset = (left + 0.01, left + width - 0.01)
                        bottoms.append(self.layers(branch.layers, shape, inset, y, color))
                    y = self._shape_below(x, max(bottoms), put_out)
                case _:
                    text = describe(layer)
                    if isinstance(layer, Conv) and not isinstance(
                        after, ReLU | BatchNorm | Sigmoid
                    ):
                        text += ", no ReLU"
                    self.box(x, y, color, _diagram_opacity(layer))
                    hover, room = _layer_hover(layer, shape), x[1] - x[0]
                    self.write(sum(x) / 2, y + _BOX / 2, text, hover, room=room)
                    y += _BOX + _GAP
                    if shapes and put_out[1:] != shape[1:]:
                        y = self._shape_below(x, y - _GAP, put_out)
            shape = put_out
        return y

    def _shape_below(self, x: tuple[float, float], y: float, shape: Shape) -> float:
        self.write(sum(x) / 2, y + _SHAPE_LINE / 2, f"↓ {_times(shape)}", "shape of one image")
        return y + _SHAPE_LINE + _GAP


def _times(shape: Shape) -> str:
    return "×".join(map(str, shape))


def _diagram_opacity(layer: Layer) -> float:
    """How strongly a box is filled: by its kind, so that the kinds can be told apart."""
    match layer:
        case Linear():
            return 0.6
        case Conv(kernel_size=size):
            return 0.34 if size > 1 else 0.12
    return 0.0


def _layer_hover(layer: Any, shape: Shape) -> str:
    lines = [f"<b>{describe(layer)}</b>", f"{_times(shape)} → {_times(output_shape(layer, shape))}"]
    if layer_parameters(layer, shape):
        lines += [
            f"{layer_parameters(layer, shape):,} parameters",
            f"{layer_macs(layer, shape):,} MACs",
        ]
    return "<br>".join(lines)


def diagram(*columns: Column) -> go.Figure:
    """The layers of networks or blocks as boxes from the top down, one column each.

    Frames are blocks. A filled box has weights: the fuller, the more each output value
    reads (1x1, larger window, everything). A ReLU belongs to the convolution above it, and
    a convolution that has none says so. Hover text: shapes, parameters, MACs.
    """
    drawn = _Diagram()
    bottom = 0.0
    for number, column in enumerate(columns):
        x = (number + 0.04, number + 0.96)
        drawn.write(sum(x) / 2, 10, f"<b>{column.title}</b>")
        drawn.write(sum(x) / 2, 30, _times(column.input_shape), "shape of one image")
        end = drawn.layers(column.layers, column.input_shape, x, 42, column.color, shapes=True)
        bottom = max(bottom, end)
    figure = go.Figure(
        go.Scatter(
            x=drawn.x,
            y=drawn.y,
            text=drawn.text,
            hovertext=drawn.hover,
            mode="text",
            hoverinfo="text",
            textfont={"size": drawn.size},
        )
    )
    figure.update_xaxes(visible=False, fixedrange=True, range=[0, len(columns)])
    figure.update_yaxes(visible=False, fixedrange=True, range=[bottom + 2, 0])
    return _finish(
        figure,
        height=round(bottom) + 4,
        provenance="",
        shapes=drawn.shapes,
        margin={"l": 0, "r": 0, "t": 0, "b": 0},
    )


# ---------------------------------------------------------------- training curves

_TRAINED: Mapping[str, tuple[str, str]] = {
    "test_accuracy": ("test accuracy", ".1%"),
    "train_accuracy": ("training accuracy", ".1%"),
    "test_loss": ("test loss, nats", ".3f"),
    "train_loss": ("training loss, nats", ".3f"),
    "dead_classes": ("dead classes, of 10", ".0f"),
}
_AGAINST = ("epoch", "images", "seconds")
_MOST_SERIES = 6
_LABEL_SPACE = 0.36  # of the drawn range, free at the right for the labels of the lines


def training_curves(
    runs: Sequence[RunRecord], quantity: str = "test_accuracy", *, against: str = "epoch"
) -> go.Figure:
    """One quantity of every epoch against epochs, images seen or seconds of training.

    Runs of one name are one series: the line is the median over its seeds, the band goes from
    the least to the greatest. Runs that diverged or got stuck are left out of both and drawn
    one by one, thin and ending in a cross. quantity is a field of `EpochResult`.
    Raises NinlabError without runs, for an unknown quantity and for more than six series.
    """
    provenance = measured(runs)
    if quantity not in _TRAINED or against not in _AGAINST:
        raise NinlabError(
            f"there are no curves of {quantity!r} against {against!r}; draw one of "
            f"{', '.join(_TRAINED)} against one of {', '.join(_AGAINST)}"
        )
    groups: dict[str, list[RunRecord]] = {}
    for run in runs:
        groups.setdefault(run.name, []).append(run)
    if len(groups) > _MOST_SERIES:
        raise NinlabError(f"{len(groups)} series are too many to tell apart; draw {_MOST_SERIES}")
    title, number_format = _TRAINED[quantity]
    figure = go.Figure()
    ends: list[_End] = []
    symbols: dict[str, int] = {}
    for name, group in groups.items():
        label, color = _title(group[0].network), _color(group[0].network)
        if len({run.name for run in runs if run.network == group[0].network}) > 1:
            label = f"{label} ({name})"
        symbol = list(_SYMBOLS)[symbols.get(color, 0)]
        symbols[color] = symbols.get(color, 0) + 1
        finished = [run for run in group if run.outcome is Outcome.FINISHED]
        failed = [run for run in group if run.outcome is not Outcome.FINISHED]
        if finished:
            x = [statistics.median(at) for at in _epochs(finished, lambda r: _along(r, against))]
            values = list(_epochs(finished, lambda r: _values(r, quantity)))
            middle = [statistics.median(at) for at in values]
            _add_band(figure, x, [min(at) for at in values], [max(at) for at in values], color)
            figure.add_scatter(
                x=x,
                y=middle,
                name=label,
                mode="lines+markers",
                marker={"symbol": symbol, "size": 6, "color": color},
                line={"color": color, "width": 2},
                hovertext=[
                    f"<b>{label}</b><br>{title} {median:{number_format}}, "
                    f"{min(at):{number_format}} to {max(at):{number_format}}"
                    f"<br>{against} {where:,.0f}; seeds: {len(at)}"
                    for where, median, at in zip(x, middle, values, strict=True)
                ],
                hoverinfo="text",
            )
            ends.append(_End(x[-1], middle[-1], label, color, symbol))
        for run in failed:
            x, y = _along(run, against), _values(run, quantity)
            figure.add_scatter(
                x=x,
                y=y,
                name=f"{label}, seed {run.seed}: {run.outcome}",
                mode="lines+markers",
                marker={
                    "symbol": "x",
                    "size": [0] * (len(x) - 1) + [9],
                    "color": color,
                    "line": {"width": 0},
                },
                line={"color": color, "width": 1},
                hovertext=[
                    f"<b>{label}</b>, seed {run.seed}: {run.outcome}"
                    f"<br>{title} {value:{number_format}}<br>{against} {where:,.0f}"
                    for where, value in zip(x, y, strict=True)
                ],
                hoverinfo="text",
            )
    units = {"epoch": "epoch", "images": "images seen", "seconds": "training time, seconds"}
    figure.update_xaxes(title=units[against])
    figure.update_yaxes(title=title, tickformat=".0%" if number_format.endswith("%") else "")
    _label_ends(figure, ends)
    return _finish(figure, height=420, provenance=provenance, hovermode="closest")


def endings(groups: Mapping[str, Sequence[RunRecord]], *, chance: float | None = None) -> go.Figure:
    """Where the runs of each group ended: one dot a seed, a line at their mean.

    groups gives the runs of each label, drawn from the top down. Runs that diverged or got
    stuck are crosses and count in the mean. chance draws a line at the accuracy of guessing.
    Raises NinlabError without runs.
    """
    provenance = measured([run for runs in groups.values() for run in runs], "mean")
    figure = go.Figure()
    for place, (label, runs) in enumerate(groups.items()):
        color = _color(runs[0].network)
        accuracies = [run.last.test_accuracy for run in runs]
        mean = statistics.fmean(accuracies)
        figure.add_scatter(
            x=accuracies,
            y=[place] * len(runs),
            mode="markers",
            marker={
                "color": color,
                "size": 9,
                "symbol": ["circle" if run.outcome is Outcome.FINISHED else "x" for run in runs],
                "opacity": 0.85,
            },
            hovertext=[
                f"<b>{label}</b>, seed {run.seed}<br>test accuracy {run.last.test_accuracy:.1%}, "
                f"{run.outcome}, {run.last.dead_classes} dead classes"
                for run in runs
            ],
            hoverinfo="text",
        )
        figure.add_scatter(
            x=[mean, mean],
            y=[place - 0.3, place + 0.3],
            mode="lines",
            line={"color": color, "width": 2},
            hovertext=f"<b>{label}</b><br>mean of {len(runs)}: {mean:.1%}",
            hoverinfo="text",
        )
        figure.add_annotation(
            x=0, xref="paper", y=place - 0.42, text=f"{label}: {mean:.1%}", showarrow=False,
            xanchor="left", yanchor="middle",
        )  # fmt: skip
    if chance is not None:
        figure.add_vline(x=chance, line={"color": NEUTRAL, "width": 1, "dash": "dot"})
    figure.update_yaxes(range=[len(groups) - 0.5, -0.75], visible=False)
    figure.update_xaxes(title="test accuracy after the last epoch", tickformat=".0%")
    return _finish(figure, height=44 * len(groups) + 70, provenance=provenance)


def learning_rates(runs: Sequence[RunRecord]) -> go.Figure:
    """Accuracy after the last epoch against the learning rate, one line a network.

    A run that diverged or got stuck is a cross. Raises NinlabError without runs.
    """
    provenance = measured(runs)
    figure = go.Figure()
    ends: list[_End] = []
    symbols: dict[str, int] = {}
    for network in dict.fromkeys(run.network for run in runs):
        rows = sorted(
            (run for run in runs if run.network == network), key=lambda r: r.recipe.learning_rate
        )
        color = _color(network)
        symbol = list(_SYMBOLS)[symbols.get(color, 0)]
        symbols[color] = symbols.get(color, 0) + 1
        figure.add_scatter(
            x=[log10(run.recipe.learning_rate) for run in rows],
            y=[run.last.test_accuracy for run in rows],
            name=_title(network),
            mode="lines+markers",
            line={"color": color, "width": 2},
            marker={
                "color": color,
                "size": 8,
                "symbol": [symbol if run.outcome is Outcome.FINISHED else "x" for run in rows],
            },
            hovertext=[
                f"<b>{_title(network)}</b><br>learning rate {run.recipe.learning_rate:g}: "
                f"{run.last.test_accuracy:.1%}, {run.outcome}"
                for run in rows
            ],
            hoverinfo="text",
        )
        last = rows[-1]
        at = (log10(last.recipe.learning_rate), last.last.test_accuracy)
        ends.append(_End(*at, _title(network), color, symbol))
    _label_ends(figure, ends)
    rates = sorted({run.recipe.learning_rate for run in runs})
    figure.update_xaxes(
        title="learning rate (log scale)",
        tickvals=[log10(rate) for rate in rates],
        ticktext=[f"{rate:g}" for rate in rates],
    )
    what = "held-out" if runs[0].recipe.evaluation_set == "held_out" else "test"
    figure.update_yaxes(title=f"{what} accuracy", tickformat=".0%")
    return _finish(figure, height=400, provenance=provenance)


_SYMBOLS = {
    "circle": "●",
    "square": "■",
    "diamond": "◆",
    "triangle-up": "▲",
    "star": "★",
    "triangle-down": "▼",
}
"""Markers by which lines of one color are told apart, and the same signs as text."""


def _epochs(
    runs: Sequence[RunRecord], values: Callable[[RunRecord], Sequence[float]]
) -> Iterable[tuple[float, ...]]:
    """For each epoch that all of the runs have, the value of every run."""
    return zip(*(values(run) for run in runs), strict=False)


def _along(run: RunRecord, against: str) -> list[float]:
    """Where each epoch of a run lies: its number, the images seen, the seconds trained."""
    if against == "seconds":
        return list(accumulate(result.seconds for result in run.epochs))
    images = run.data_set.train_images // run.recipe.batch_size * run.recipe.batch_size
    return [result.epoch * (images if against == "images" else 1) for result in run.epochs]


def _values(run: RunRecord, quantity: str) -> list[float]:
    """The quantity at each epoch; not a number where a loss was not finite."""
    values = (getattr(result, quantity) for result in run.epochs)
    return [float("nan") if value is None else float(value) for value in values]


def _add_band(
    figure: go.Figure,
    x: Sequence[float],
    low: Sequence[float],
    high: Sequence[float],
    color: str,
) -> None:
    figure.add_scatter(
        x=[*x, *reversed(x)],
        y=[*high, *reversed(low)],
        mode="lines",
        line={"width": 0},
        fill="toself",
        fillcolor=_faded(color, 0.25),
        hoverinfo="skip",
    )


@dataclass(frozen=True)
class _End:
    """Where a line ends, and how it is called there."""

    x: float
    y: float
    label: str
    color: str
    symbol: str

    @property
    def text(self) -> str:
        sign = f'<span style="color:{self.color}">{_SYMBOLS[self.symbol]}</span>'
        return f"{sign} {self.label.replace(', ', ',<br>')}"

    @property
    def lines(self) -> int:
        return 1 + self.text.count("<br>")


def _label_ends(figure: go.Figure, ends: Sequence[_End]) -> None:
    """Write each line's label beside its last point, moved apart where they would meet.

    The labels stand inside the plot, in room made for them: a margin of fixed width would
    leave a phone no plot.
    """
    drawn = [(x, y) for trace in figure.data for x, y in zip(trace.x, trace.y, strict=True)]
    xs = [x for x, _ in drawn]
    ys = [y for _, y in drawn if y == y] or [0.0]
    width, height = max(xs) - min(xs) or 1.0, max(ys) - min(ys) or 1.0
    bottom, top = min(ys) - 0.06 * height, max(ys) + 0.06 * height
    figure.update_xaxes(
        range=[min(xs) - 0.03 * width, max(xs) + _LABEL_SPACE * width],
        tickvals=_round_values(min(xs), max(xs)),
    )
    figure.update_yaxes(range=[bottom, top])
    ends = sorted(ends, key=lambda end: end.y)
    heights = [0.055 * (top - bottom) * end.lines for end in ends]
    places = _moved_apart([end.y for end in ends], heights, top)
    for end, y in zip(ends, places, strict=True):
        figure.add_annotation(
            x=end.x, y=y, text=end.text, showarrow=False, xanchor="left", xshift=8, align="left"
        )


def _moved_apart(wanted: Sequence[float], heights: Sequence[float], top: float) -> list[float]:
    """Centers of boxes of those heights near the wanted ones (ascending), none meeting another.

    The uppermost box ends at the top at most; boxes may go below any bottom.
    """
    places: list[float] = []
    for center, height in zip(wanted, heights, strict=True):
        if places:
            center = max(center, places[-1] + (heights[len(places) - 1] + height) / 2)
        places.append(center)
    limit = top
    for i in reversed(range(len(places))):
        places[i] = min(places[i], limit - heights[i] / 2)
        limit = places[i] - heights[i] / 2
    return places


def _round_values(low: float, high: float, most: int = 6) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten from low to high, that many at most."""
    exponent = floor(log10((high - low) or 1)) - 1
    for step in (factor * 10**e for e in (exponent, exponent + 1) for factor in (1, 2, 5)):
        values = [i * step for i in range(ceil(low / step), floor(high / step) + 1)]
        if len(values) <= most:
            return values
    return [low, high]


# ---------------------------------------------------------------- memory


def memory_timeline(
    events: Sequence[MemoryEvent], batch_size: int, *, provenance: str, measured: bool = False
) -> go.Figure:
    """Live bytes after each allocation and release of one step, by category, layer by layer.

    It begins with what the step finds: weights, optimizer state and what the step before left.
    The horizontal axis counts events, not time, and names the top-level layers. Hover text
    names phase, layer and operator; the dot is the first moment of the peak.
    """
    live = dict.fromkeys(Category, 0)
    levels: dict[Category, list[int]] = {category: [] for category in Category}
    totals: list[int] = []
    moments: list[str] = []
    for event in events:
        size = event.bytes(batch_size)
        live[event.category] += size if event.allocates else -size
        for category, count in live.items():
            levels[category].append(count)
        totals.append(sum(live.values()))
        moments.append(" ".join(filter(None, (event.phase, event.layer, event.operator))))
    before = max(0, sum(event.phase is Phase.SETUP for event in events) - 1)
    steps, totals, moments = events[before:], totals[before:], moments[before:]
    moments[0] = "before the step"
    levels = {category: counts[before:] for category, counts in levels.items()}
    unit = 2**20
    figure = go.Figure()
    for category, counts in levels.items():
        if not any(counts):
            continue
        label, color = str(category).replace("_", " "), CATEGORY_COLORS[category]
        figure.add_scatter(
            y=[count / unit for count in counts],
            name=label,
            stackgroup="live",
            line={"color": color, "width": 1, "shape": "hv"},
            fillcolor=_faded(color, 0.75 if measured else 0.3),
            hovertext=[
                f"<b>{label}: {format_bytes(count)}</b><br>of {format_bytes(total)}<br>{moment}"
                for count, total, moment in zip(counts, totals, moments, strict=True)
            ],
            hoverinfo="text",
        )
    peak = totals.index(max(totals))
    figure.add_scatter(
        x=[peak],
        y=[totals[peak] / unit],
        mode="markers",
        marker={"size": 9, "color": NEUTRAL},
        showlegend=False,
        hovertext=[f"<b>peak: {format_bytes(totals[peak])}</b><br>{moments[peak]}"],
        hoverinfo="text",
    )
    figure.add_annotation(
        x=peak, y=totals[peak] / unit, text=f"peak {format_bytes(totals[peak])}", yshift=14,
        showarrow=False,
    )  # fmt: skip
    _mark_phases(figure, [event.phase for event in steps[1:]], offset=1)
    places, names = _layer_ticks(steps)
    figure.update_xaxes(
        title="layers, in the order of the step",
        tickvals=places,
        ticktext=names,
        tickangle=-60,
        showgrid=False,
    )
    figure.update_yaxes(
        title=f"live memory, MiB, batch {batch_size}",
        rangemode="tozero",
        range=[0, 1.12 * totals[peak] / unit],
    )
    return _finish(
        figure,
        height=500,
        provenance=provenance,
        showlegend=True,
        legend={"orientation": "h", "y": 1.08, "yanchor": "bottom", "traceorder": "normal"},
        margin={"l": 8, "r": 8, "t": 80, "b": 90},
    )


_TICK_SPACE = 0.045  # of the width, from one slanted label to the next


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


def _mark_phases(figure: go.Figure, phases: Sequence[Phase], offset: int = 0) -> None:
    """Draw a line where a phase begins, and name the phases that are wide enough to be read.

    offset is where the first of them begins.
    """
    starts = [i for i, phase in enumerate(phases) if not i or phase != phases[i - 1]]
    for start, end in zip(starts, [*starts[1:], len(phases)], strict=True):
        figure.add_vline(x=start + offset, line={"color": NEUTRAL, "width": 0.6, "dash": "dot"})
        if end - start > 0.08 * len(phases):
            figure.add_annotation(
                x=(start + end) / 2 + offset, y=1, yref="paper", yanchor="bottom",
                text=str(phases[start]).replace("_", " "), showarrow=False,
            )  # fmt: skip


def memory_by_batch(
    predicted: Mapping[str, Mapping[int, int]],
    *,
    provenance: str,
    measured: Mapping[str, Mapping[int, int]] | None = None,
    devices: Mapping[str, int] | None = None,
) -> go.Figure:
    """Bytes of one step against the batch size, both on logarithmic axes.

    predicted and measured give {batch size: bytes} for each network: dashed lines and solid
    dots. devices gives the memory of each device, a horizontal line.
    """
    figure = go.Figure()
    for sizes, mode in ((predicted, "lines"), (measured or {}, "markers")):
        for name, points in sizes.items():
            color = _color(name)
            how = "predicted" if mode == "lines" else "measured"
            figure.add_scatter(
                x=list(points),
                y=list(points.values()),
                name=f"{_title(name)}, {how}",
                mode=mode,
                line={"color": color, "dash": "dash", "width": 2},
                marker={"color": color, "size": 9},
                hovertext=[
                    f"<b>{_title(name)}</b><br>batch {batch:,}: {format_bytes(count)}, {how}"
                    for batch, count in points.items()
                ],
                hoverinfo="text",
            )
    batches = sorted({batch for points in predicted.values() for batch in points})
    counts = [count for points in predicted.values() for count in points.values()]
    lowest, highest = min(counts), max([*counts, *(devices or {}).values()])
    ends = sorted((log10(points[max(points)]), name) for name, points in predicted.items())
    line = 0.055 * log10(highest / lowest)
    places = _moved_apart([y for y, _ in ends], [line] * len(ends), log10(highest))
    for place, (_, name) in zip(places, ends, strict=True):
        figure.add_annotation(
            x=log10(max(predicted[name])), y=place, text=_title(name), showarrow=False,
            xanchor="left", xshift=6,
        )  # fmt: skip
    for device, count in (devices or {}).items():
        figure.add_hline(y=count, line={"color": NEUTRAL, "width": 1})
        figure.add_annotation(
            x=log10(batches[0]), y=log10(count), text=f"{device}, {format_bytes(count)}",
            showarrow=False, xanchor="left", yanchor="bottom",
        )  # fmt: skip
    powers = [4**e for e in range(lowest.bit_length() // 2, highest.bit_length() // 2 + 1)]
    decades = log10(batches[-1] / batches[0])
    figure.update_xaxes(
        type="log",
        title="batch size (log scale)",
        tickvals=batches[::2],
        range=[
            log10(batches[0]) - 0.03 * decades,
            log10(batches[-1]) + _LABEL_SPACE * decades,
        ],
    )
    figure.update_yaxes(
        type="log",
        title="memory of one step (log scale)",
        tickvals=powers,
        ticktext=[format_bytes(count) for count in powers],
    )
    return _finish(figure, height=430, provenance=provenance)


# ---------------------------------------------------------------- time

_LARGEST_DOT = 26  # pixels across the dot of all of a network's arithmetic


def intensities(
    networks: Mapping[str, Sequence[Operator]], ridges: Mapping[str, float], *, provenance: str
) -> go.Figure:
    """The FLOPs that each operator does for every byte it moves, one row of dots a network.

    The area of a dot is the operator's share of its network's FLOPs; operators without any
    have none. ridges gives for each device the FLOPs it can do in the time that it moves one
    byte: left of its line an operator waits for memory, right of it for arithmetic.
    """
    figure = go.Figure()
    everything: list[float] = []
    for row, (name, operators) in enumerate(networks.items()):
        total = sum(one.flops for one in operators)
        computing = [one for one in operators if one.flops]
        x = [one.flops / one.bytes for one in computing]
        everything += x
        figure.add_scatter(
            x=x,
            y=[row] * len(x),
            mode="markers",
            marker={
                "size": [_LARGEST_DOT * sqrt(one.flops / total) for one in computing],
                "sizemin": 3,
                "color": _faded(_color(name), _HOLLOW),
                "line": {"color": _color(name), "width": 1.5},
            },
            hovertext=[
                f"<b>{_title(name)}, {one.layer}</b><br>{one.phase}: {one.name}"
                f"<br>{at:.3g} FLOPs a byte<br>{one.flops / total:.1%} of the step's FLOPs"
                for one, at in zip(computing, x, strict=True)
            ],
            hoverinfo="text",
        )
    for level, (device, ridge) in enumerate(sorted(ridges.items(), key=lambda item: item[1])):
        figure.add_vline(x=ridge, line={"color": NEUTRAL, "width": 1})
        figure.add_annotation(
            x=log10(ridge), y=1, yref="paper", yanchor="bottom", yshift=2 + 15 * (level % 2),
            text=device, showarrow=False,
        )  # fmt: skip
    decades = range(floor(log10(min(everything))), ceil(log10(max(everything))) + 1)
    figure.update_xaxes(
        type="log", title="FLOPs a byte (log scale)", tickvals=[10**e for e in decades]
    )
    figure.update_yaxes(
        tickvals=list(range(len(networks))),
        ticktext=[f"{_title(name)} " for name in networks],
        range=[len(networks) - 0.5, -0.5],
        showgrid=False,
    )
    return _finish(
        figure,
        height=44 * len(networks) + 130,
        provenance=provenance,
        margin={"l": 8, "r": 8, "t": 44, "b": 40},
    )


def rate_by_macs(runs: Sequence[RunRecord], labels: Mapping[str, str] | None = None) -> go.Figure:
    """Images trained in one second against the MACs of one image, a dot for each network.

    The dot is the fastest run, which other work on the machine disturbed least; the line goes
    down to the slowest. Dashed diagonals join equal MACs in a second. labels gives what stands
    beside the dots of some networks. Raises NinlabError without runs.
    """
    provenance = measured(runs, "fastest")
    rates: dict[str, list[float]] = {}
    for run in runs:
        rates.setdefault(run.network, []).append(run.images_per_second)
    macs = {name: network_macs(architecture(name)) for name in rates}
    x_range = (0.8 * min(macs.values()), 1.6 * max(macs.values()))
    y_range = (0.8 * min(map(min, rates.values())), 1.5 * max(map(max, rates.values())))
    figure = go.Figure()
    _add_diagonals(figure, x_range, y_range)
    for name, values in rates.items():
        color = _color(name)
        figure.add_scatter(
            x=[macs[name]] * 2,
            y=[max(values), min(values)],
            mode="lines+markers",
            line={"color": color, "width": 1.5},
            marker={"color": color, "size": [9, 0]},
            hovertext=f"<b>{_title(name)}</b><br>{macs[name]:,} MACs an image"
            f"<br>fastest of {len(values)} runs: {max(values):,.0f} images/s"
            f"<br>slowest: {min(values):,.0f} images/s",
            hoverinfo="text",
        )
    for name, label in (labels or {}).items():
        figure.add_annotation(
            x=log10(macs[name]), y=log10(max(rates[name])), text=label, showarrow=False,
            xanchor="left", xshift=4, yanchor="bottom", yshift=2,
        )  # fmt: skip
    figure.update_xaxes(**_log_axis(x_range), title="MACs of one image, forward (log scale)")
    figure.update_yaxes(**_log_axis(y_range), title="images trained in a second (log scale)")
    return _finish(figure, height=440, provenance=provenance)


def _add_diagonals(
    figure: go.Figure, x_range: tuple[float, float], y_range: tuple[float, float]
) -> None:
    """Draw x * y = 1 and 3 times each power of ten, dashed, each with its value in a second."""
    lowest, highest = (floor(log10(x_range[i] * y_range[i])) for i in (0, 1))
    for rate in (factor * 10**e for e in range(lowest, highest + 1) for factor in (1, 3)):
        left, right = max(x_range[0], rate / y_range[1]), min(x_range[1], rate / y_range[0])
        if left >= right:
            continue
        figure.add_scatter(
            x=[left, right],
            y=[rate / left, rate / right],
            mode="lines",
            line={"color": NEUTRAL, "width": 0.8, "dash": "dash"},
            hoverinfo="skip",
        )
        figure.add_annotation(
            x=log10(right), y=log10(rate / right), text=f"{format_count(rate)}/s",
            showarrow=False, xanchor="right", yanchor="bottom", font={"size": 10},
        )  # fmt: skip


def _log_axis(ends: tuple[float, float]) -> dict[str, Any]:
    """A logarithmic axis between those values, labeled at 1, 2 and 5 times powers of ten."""
    exponents = range(floor(log10(ends[0])), ceil(log10(ends[1])))
    values = [factor * 10**e for e in exponents for factor in (1, 2, 5)]
    return {
        "type": "log",
        "range": [log10(end) for end in ends],
        "tickvals": values,
        "ticktext": [format_count(value) for value in values],
    }


def fading_signal(
    predicted_ratios: Sequence[float],
    measured_ratios: Mapping[str, Sequence[float]],
    *,
    layers: Sequence[str],
    provenance: str,
    like: Mapping[str, str] | None = None,
) -> go.Figure:
    """How much of the difference between images is left behind each layer, as a ratio.

    The prediction is dashed and hollow, each measurement solid, with the color of the network
    that like gives its label. Raises NinlabError for a series that has not one ratio a layer.
    """
    figure = go.Figure()
    ends: list[_End] = []
    series = {"predicted": predicted_ratios, **measured_ratios}
    symbols: dict[str, int] = {}
    for label, ratios in series.items():
        if len(ratios) != len(layers):
            raise NinlabError(f"{label!r} has {len(ratios)} ratios for {len(layers)} layers")
        color, solid = _color(label, like), label in measured_ratios
        symbol = list(_SYMBOLS)[symbols.get(color, 0)]
        symbols[color] = symbols.get(color, 0) + 1
        x, y = list(range(1, len(layers) + 1)), [log10(ratio) for ratio in ratios]
        figure.add_scatter(
            x=x,
            y=y,
            name=label,
            mode="lines+markers",
            line={"color": color, "width": 2, "dash": "solid" if solid else "dash"},
            marker={"color": color, "size": 7, "symbol": symbol if solid else f"{symbol}-open"},
            hovertext=[
                f"<b>{label}</b><br>behind {layer}: {ratio:.2%}"
                for layer, ratio in zip(layers, ratios, strict=True)
            ],
            hoverinfo="text",
        )
        ends.append(_End(x[-1], y[-1], label, color, symbol))
    _label_ends(figure, ends)
    exponents = range(floor(min(min(trace.y) for trace in figure.data)), 1)
    figure.update_xaxes(title="convolutions passed")
    figure.update_yaxes(
        title="share of the signal left (log scale)",
        tickvals=list(exponents),
        ticktext=[f"{10.0**exponent:.{max(0, -exponent - 2)}%}" for exponent in exponents],
    )
    return _finish(figure, height=420, provenance=provenance)


def plateaus(
    runs: Sequence[RunRecord], floor_of: Callable[[int, int], float], *, num_classes: int = 10
) -> go.Figure:
    """Training loss, test loss and the floor under it, one seed at a time, chosen by a slider.

    Losses are measured and solid; the hollow squares are floor_of(dead classes after that epoch,
    num_classes). Raises NinlabError without runs.
    """
    provenance = measured(runs, "each")
    figure = go.Figure()
    for place, run in enumerate(runs):
        color, shown = _color(run.network), place == 0
        steps = run.recipe.steps / run.recipe.epochs
        epochs = [result.epoch for result in run.epochs]
        figure.add_scatter(
            x=[(i + 0.5) * run.loss.every / steps for i in range(len(run.loss.values))],
            y=run.loss.values,
            mode="lines",
            visible=shown,
            line={"color": color, "width": 1},
            hoverinfo="skip",
        )
        figure.add_scatter(
            x=epochs,
            y=_values(run, "test_loss"),
            mode="markers",
            visible=shown,
            marker={"color": color, "size": 9},
            hovertext=[
                f"<b>seed {run.seed}</b>, epoch {result.epoch}<br>test loss "
                f"{value:.3f}, test accuracy {result.test_accuracy:.1%}"
                for result, value in zip(run.epochs, _values(run, "test_loss"), strict=True)
            ],
            hoverinfo="text",
        )
        floors = [floor_of(result.dead_classes, num_classes) for result in run.epochs]
        figure.add_scatter(
            x=epochs,
            y=floors,
            mode="markers+text",
            visible=shown,
            marker={"color": color, "size": 9, "symbol": "square-open", "line": {"width": 2}},
            text=[f"{result.dead_classes} dead" for result in run.epochs],
            textposition="bottom center",
            hovertext=[
                f"<b>seed {run.seed}</b>, epoch {result.epoch}<br>{result.dead_classes} dead "
                f"classes: test loss at least {value:.3f}"
                for result, value in zip(run.epochs, floors, strict=True)
            ],
            hoverinfo="text",
        )
    traces = len(figure.data) // len(runs)
    figure.update_layout(
        sliders=[
            {
                "active": 0,
                "currentvalue": {"prefix": "seed "},
                "pad": {"t": 44},
                "steps": [
                    {
                        "label": str(run.seed),
                        "method": "restyle",
                        "args": [
                            "visible",
                            [at // traces == place for at in range(traces * len(runs))],
                        ],
                    }
                    for place, run in enumerate(runs)
                ],
            }
        ]
    )
    guess = log(num_classes)
    figure.add_hline(y=guess, line={"color": NEUTRAL, "width": 1, "dash": "dot"})
    figure.update_xaxes(title="epoch", range=[0, max(len(run.epochs) for run in runs) + 0.35])
    figure.update_yaxes(title="loss, nats", range=[-0.32, 1.12 * guess])
    return _finish(figure, height=460, provenance=provenance)


# ---------------------------------------------------------------- images and maps


@dataclass(frozen=True)
class Tile:
    """One small picture: an image of gray values up to 255, or a map of signed numbers."""

    title: str
    values: Sequence[Sequence[float]]  # rows from the top down
    number_format: str = ""  # of the numbers written into a map; an image has none


def tiles(rows: Sequence[Sequence[Tile]], *, provenance: str) -> go.Figure:
    """Images and maps side by side, each under its title, one line for each sequence of tiles.

    All maps share one scale, blue below 0 and red above. Lines have equally many tiles.
    """
    across = len(rows[0])
    figure = make_subplots(
        rows=len(rows),
        cols=across,
        subplot_titles=[tile.title for row in rows for tile in row],
        horizontal_spacing=0.05,
        vertical_spacing=0.25 / len(rows),
    )
    maps = [tile for row in rows for tile in row if tile.number_format]
    reach = max((abs(v) for tile in maps for line in tile.values for v in line), default=1.0)
    for place, tile in enumerate(tile for row in rows for tile in row):
        is_map, write = bool(tile.number_format), tile.number_format or ".0f"
        written = [[f"{value:{write}}" for value in line] for line in tile.values]
        figure.add_heatmap(
            z=[list(line) for line in tile.values],
            colorscale="RdBu_r" if is_map else "gray",
            zmin=-reach if is_map else 0,
            zmax=reach if is_map else 255,
            showscale=False,
            text=written if is_map else None,
            texttemplate="%{text}" if is_map else None,
            hovertext=[
                [f"<b>{tile.title}</b><br>row {y}, column {x}: {v}" for x, v in enumerate(line)]
                for y, line in enumerate(written)
            ],
            hoverinfo="text",
            row=place // across + 1,
            col=place % across + 1,
        )
        figure.update_yaxes(  # square pixels
            scaleanchor=figure.data[-1].xaxis, row=place // across + 1, col=place % across + 1
        )
    figure.update_xaxes(visible=False, fixedrange=True, constrain="domain", constraintoward="left")
    figure.update_yaxes(
        visible=False, fixedrange=True, autorange="reversed", constrain="domain",
        constraintoward="top",
    )  # fmt: skip
    _left_aligned_titles(figure)
    return _finish(figure, height=150 * len(rows) + 40, provenance=provenance)
