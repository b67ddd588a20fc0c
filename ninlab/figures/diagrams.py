"""What is a network or a block made of? Boxes from the top down, one column each.

Known limits: at most four branches side by side can be read on a phone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from textwrap import wrap
from typing import Any

import plotly.graph_objects as go

from ninlab.architectures import architecture
from ninlab.errors import UnknownNameError
from ninlab.figures.colors import NEUTRAL, color_of, faded
from ninlab.figures.layout import finish
from ninlab.figures.themes import DIAGRAM_TEXT_PIXELS
from ninlab.figures.words import times
from ninlab.layers import Activation, BatchNorm, Block, Branches, Conv, Flatten, Layer, Linear
from ninlab.shapes import layer_macs, layer_parameters, output_shape
from ninlab.units import Shape


@dataclass(frozen=True)
class Column:
    """One column of a block diagram: layers from the top down."""

    title: str
    layers: tuple[Layer, ...]
    input_shape: Shape
    color: str = NEUTRAL

    @classmethod
    def of(cls, name: str, *, behind: str = "", title: str = "") -> Column:
        """The column of a network in its color, under its title or another one.

        behind leaves out all layers up to and including that block. Raises UnknownNameError for
        a block that the network does not have.
        """
        network = architecture(name)
        ends = {"": 0} | {
            layer.name: end
            for end, layer in enumerate(network.layers, start=1)
            if isinstance(layer, Block)
        }
        if behind not in ends:
            raise UnknownNameError(f"block of {name}", behind, [*filter(None, ends)])
        before, shown = network.layers[: ends[behind]], network.layers[ends[behind] :]
        shape = output_shape(Block("before", before), network.input_shape)
        return cls(title or network.title, shown, shape, color_of(name))

    @classmethod
    def of_block(cls, block: Block | Branches, input_shape: Shape, like: str) -> Column:
        """The column of a block on its own, under its name, in the color of a network."""
        return cls(block.name, (block,), input_shape, color_of(like))


_Span = tuple[float, float]  # from the left, or from the top
_Nonlinear = Activation | BatchNorm  # what may stand behind a convolution that has no note
_Undrawn = Activation | Flatten  # part of the box above, or no computation
_BOX, _GAP, _FRAME, _SHAPE_LINE = 24.0, 4.0, 6.0, 18.0  # pixels of a diagram, downwards
_LINE = 16.0  # pixels from a line of text to the next
_HEAD = 6.0  # pixels over the title and under the shape of the image
_LETTER = 7.5  # pixels across a letter, in the wider ones of the fonts that systems have
_NARROWEST = 328  # pixels across a diagram on a phone: there its texts have the least room
_SIDE, _INSET, _BETWEEN_BRANCHES = 0.02, 0.03, 0.005  # free on both sides, in columns


@dataclass
class _Drawing:
    """Boxes, frames and texts of one column while it is laid out, y in pixels downward."""

    color: str
    letters: float  # that a line has room for where it is as wide as the column
    shapes: list[dict[str, Any]] = field(default_factory=list)
    x: list[float] = field(default_factory=list)
    y: list[float] = field(default_factory=list)
    text: list[str] = field(default_factory=list)
    hover: list[str] = field(default_factory=list)

    def write(self, x: _Span, y: float, text: str, hover: str = "") -> None:
        """Center a text there, in that width."""
        self.x.append(sum(x) / 2)
        self.y.append(y)
        self.text.append(text)
        self.hover.append(hover or text)

    def lines(self, text: str, x: _Span) -> list[str]:
        """The text in lines that a phone has room for, in that width.

        The first word has a line of its own where that is enough: the window of a layer over
        what it does there.
        """
        letters = max(1, int((x[1] - x[0]) * self.letters))
        first, _, rest = text.partition(" ")
        if len(text) > letters >= len(rest) > 0:
            return [first, rest]
        return wrap(text, letters, break_long_words=False)

    def layers(
        self, layers: Sequence[Layer], shape: Shape, x: _Span, y: float, *, shapes: bool = False
    ) -> float:
        """Draw the layers downward from y; returns where they end.

        shapes writes the shape below each single layer that changes the side of the map.
        """
        following = [*layers[1:], None]
        for layer, after in zip(layers, following, strict=True):
            put_out = output_shape(layer, shape)
            match layer:
                case _ if isinstance(layer, _Undrawn):
                    pass
                case Block():
                    y = self._block(layer, shape, x, y)
                case Branches():
                    y = self._branches(layer, shape, x, y)
                case _:
                    y = self._single(layer, after, shape, x, y)
                    if shapes and put_out[1:] != shape[1:]:
                        y = self._shape_below(x, y - _GAP, put_out)
            shape = put_out
        return y

    def _block(self, block: Block, shape: Shape, x: _Span, y: float) -> float:
        bottom = self.layers(block.layers, shape, _inside(x, _INSET), y + _FRAME) - _GAP + _FRAME
        self._rectangle(x, (y, bottom), line={"color": NEUTRAL, "width": 1})
        return self._shape_below(x, bottom, output_shape(block, shape))

    def _branches(self, layer: Branches, shape: Shape, x: _Span, y: float) -> float:
        width = (x[1] - x[0]) / len(layer.branches)
        bottoms = []
        for number, branch in enumerate(layer.branches):
            left = x[0] + number * width
            span = _inside((left, left + width), _BETWEEN_BRANCHES)
            bottoms.append(self.layers(branch.layers, shape, span, y))
        return self._shape_below(x, max(bottoms), output_shape(layer, shape))

    def _single(self, layer: Layer, after: Layer | None, shape: Shape, x: _Span, y: float) -> float:
        linear = isinstance(layer, Conv) and not isinstance(after, _Nonlinear)
        lines = self.lines(str(layer), x) + ["no ReLU"] * linear
        opacity, height = _opacity(layer), _BOX + _LINE * (len(lines) - 1)
        self._rectangle(
            x,
            (y, y + height),
            fillcolor=faded(self.color, opacity),
            line={"color": self.color, "width": 1.2 if opacity else 0.6},
        )
        self.write(x, y + height / 2, "<br>".join(lines), _hover(layer, shape))
        return y + height + _GAP

    def _rectangle(self, x: _Span, y: _Span, **style: Any) -> None:
        corners = {"x0": x[0], "x1": x[1], "y0": y[0], "y1": y[1]}
        self.shapes.append({"type": "rect", "layer": "below", **corners, **style})

    def _shape_below(self, x: _Span, y: float, shape: Shape) -> float:
        self.write(x, y + _SHAPE_LINE / 2, f"↓ {times(shape)}", "shape of one image")
        return y + _SHAPE_LINE + _GAP


def _inside(x: _Span, inset: float) -> _Span:
    return (x[0] + inset, x[1] - inset)


def _opacity(layer: Layer) -> float:
    """How strongly a box is filled: by its kind, so that the kinds can be told apart."""
    match layer:
        case Linear():
            return 0.6
        case Conv(kernel_size=size):
            return 0.34 if size > 1 else 0.12
    return 0.0


def _hover(layer: Any, shape: Shape) -> str:
    lines = [f"<b>{layer}</b>", f"{times(shape)} → {times(output_shape(layer, shape))}"]
    if layer_parameters(layer, shape):
        lines += [
            f"{layer_parameters(layer, shape):,} parameters",
            f"{layer_macs(layer, shape):,} MACs",
        ]
    return "<br>".join(lines)


def diagram(*columns: Column) -> go.Figure:
    """The layers of networks or blocks as boxes from the top down, one column each.

    Frames are blocks. A filled box has weights: the fuller, the more each output value
    reads (1x1, larger window, everything). An activation belongs to the layer above it, and
    a convolution that has none says so. Hover text: shapes, parameters, MACs.
    """
    figure = go.Figure()
    shapes: list[dict[str, Any]] = []
    drawings = [_Drawing(one.color, _NARROWEST / len(columns) / _LETTER) for one in columns]
    spans = [_inside((number, number + 1), _SIDE) for number in range(len(columns))]
    titles = [
        drawn.lines(one.title, x) for drawn, one, x in zip(drawings, columns, spans, strict=True)
    ]
    first = _HEAD + _LINE * max(map(len, titles))  # where the shapes of the images begin
    bottom = 0.0
    for column, drawn, x, title in zip(columns, drawings, spans, titles, strict=True):
        drawn.write(x, first - _LINE * len(title) / 2, f"<b>{'<br>'.join(title)}</b>")
        drawn.write(x, first + _LINE / 2, times(column.input_shape), "shape of one image")
        top = first + _LINE + _HEAD
        bottom = max(bottom, drawn.layers(column.layers, column.input_shape, x, top, shapes=True))
        shapes += drawn.shapes
        figure.add_scatter(
            x=drawn.x,
            y=drawn.y,
            text=drawn.text,
            hovertext=drawn.hover,
            name=column.title,
            mode="text",
            textfont={"size": DIAGRAM_TEXT_PIXELS},
        )
    figure.update_xaxes(visible=False, fixedrange=True, range=[0, len(columns)])
    figure.update_yaxes(visible=False, fixedrange=True, range=[bottom + 2, 0])
    return finish(
        figure,
        height=round(bottom) + 4,
        provenance="",
        shapes=shapes,
        margin={"l": 0, "r": 0, "t": 0, "b": 0},
    )
