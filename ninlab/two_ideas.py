"""What do a 1x1 convolution and an average do to the numbers of a real image?

`two_ideas` runs a trained NiN on one image and keeps what it saw: the maps around one 1x1
convolution, with its weights, and the maps of the classes before they are averaged. `TwoIdeas`
shows that as a picture which answers: for each pixel the sum that makes an output value, for
each class the mean that makes its score. Everything is one piece of HTML that asks for nothing
else, as in `calculator`. It is complete without a script and on paper; the script moves it.

Known limits: maps of one image and of one size; some of the channels, the rest as one term;
numbers are carried with four decimals.
"""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from html import escape
from itertools import product
from pathlib import Path
from struct import pack
from zlib import compress, crc32

import torch
from torch import Tensor, nn

from ninlab.errors import NinlabError

__all__ = ["Mixing", "TwoIdeas", "two_ideas"]

Map = tuple[tuple[float, ...], ...]
"""Numbers of one map, rows from the top down."""

SHOWN_CHANNELS = 4
_DECIMALS = 4  # of the numbers that a page carries
_ABOVE, _BELOW = (224, 82, 60), (52, 132, 228)  # 0; both seen on white and on black
_STATIC = Path(__file__).parent / "static" / "two_ideas"


@dataclass(frozen=True)
class Mixing:
    """A 1x1 convolution on one image: some of its maps, and the weights between them."""

    layer: str
    in_channels: int
    out_channels: int
    inputs: Mapping[int, Map]  # by channel
    outputs: Mapping[int, Map]  # by channel, before any activation
    weights: Mapping[int, tuple[float, ...]]  # by output channel, one for each of the inputs
    biases: Mapping[int, float]  # by output channel

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of every map."""
        some = next(iter(self.outputs.values()))
        return len(some), len(some[0])

    def terms(self, output: int, row: int, column: int) -> list[tuple[float, float]]:
        """(value, weight) of each input shown, at one pixel of one output."""
        values = (channel[row][column] for channel in self.inputs.values())
        return list(zip(values, self.weights[output], strict=True))

    def rest(self, output: int, row: int, column: int) -> float:
        """What the inputs that are not shown add to that output there."""
        shown = sum(value * weight for value, weight in self.terms(output, row, column))
        return self.outputs[output][row][column] - self.biases[output] - shown


@dataclass(frozen=True)
class TwoIdeas:
    """A picture of both ideas that a notebook shows as the last value of a cell."""

    image: Map  # gray values up to 255
    subject: str  # what the image is and which network reads it, for the line below
    mixing: Mixing
    class_maps: Mapping[str, Map]  # before they are averaged
    provenance: str

    @property
    def scores(self) -> dict[str, float]:
        """The mean of each class map."""
        return {name: _mean(values) for name, values in self.class_maps.items()}

    def _repr_html_(self) -> str:
        carried = {
            "mixing": asdict(self.mixing),
            "classes": self.class_maps,
            "start": self._start,
        }
        text = json.dumps(carried, separators=(",", ":")).replace("<", "\\u003c")
        return (
            f'<div class="ninlab-two-ideas" style="--above:rgb{_ABOVE};--below:rgb{_BELOW}">\n'
            f"<style>{_file('two_ideas.css')}</style>\n"
            f"{self._first_idea()}\n{self._second_idea()}\n{self._source()}\n"
            f'<script type="application/json">{text}</script>\n'
            f"<script>{_file('two_ideas.js')}</script>\n</div>"
        )

    @property
    def _start(self) -> dict[str, object]:
        """The sum in which the least of the products shown is largest, and the best class."""
        height, width = self.mixing.shape
        output, row, column = max(
            product(self.mixing.outputs, range(height), range(width)),
            key=lambda place: min(
                abs(value * weight) for value, weight in self.mixing.terms(*place)
            ),
        )
        best = max(self.scores, key=self.scores.__getitem__)
        return {"output": output, "row": row, "column": column, "class": best}

    def _first_idea(self) -> str:
        of, start = self.mixing, self._start
        output, row, column = (int(str(start[name])) for name in ("output", "row", "column"))
        (height, width), side = of.shape, len(self.image)
        ring = f'<i style="--row:{row};--column:{column}"></i>'
        frame = f'class="map" style="--height:{height};--width:{width}"'
        inputs = "".join(
            f"<span class=tile><span {frame}>{_signed(values, f'map of channel {channel}')}{ring}"
            f"</span>channel {channel}</span>"
            for channel, values in of.inputs.items()
        )
        outputs = "".join(
            f'<button type="button" class="tile" disabled data-output="{channel}" '
            f'aria-pressed="{str(channel == output).lower()}"><span {frame}>'
            f"{_signed(values, f'map of output {channel}')}{ring}</span>output {channel}</button>"
            for channel, values in of.outputs.items()
        )
        terms = of.terms(output, row, column)
        rows = "".join(
            f'<tr><th scope="row">channel {channel}</th><td>{_data(value)}</td>'
            f"<td>{_data(weight)}</td><td>{_data(value * weight)}</td></tr>"
            for channel, (value, weight) in zip(of.inputs, terms, strict=True)
        )
        ends = {
            f"the other {of.in_channels - len(of.inputs)} channels": of.rest(output, row, column),
            "bias": of.biases[output],
            "sum": of.outputs[output][row][column],
        }
        rows += "".join(
            f'<tr data-end="{name.split()[-1]}"><th scope="row" colspan="3">{name}</th>'
            f"<td>{_data(value)}</td></tr>"
            for name, value in ends.items()
        )
        return (
            '<div class="idea" data-idea="mixing">'
            f'<p class="title">{_gray(self.image, f"the image, {side} by {side} pixels")}'
            "<span><b>Idea 1: a 1×1 convolution mixes the channels of one pixel.</b> "
            "Each output value is a sum: the values of all channels at that pixel, each times a "
            "weight. Every pixel has the same weights; every output has its own. "
            '<span class="hint">Point at a pixel, tap it, or use the arrow keys.</span></span></p>'
            '<div class="parts"><div class="side"><p>In: '
            f'{len(of.inputs)} of {of.in_channels} channels</p><div class="maps inputs">{inputs}'
            '</div></div><table class="sum"><caption>Output <b data-place="output">'
            f'{output}</b> at row <b data-place="row">{row}</b>, column '
            f'<b data-place="column">{column}</b></caption><thead><tr><td></td>'
            '<th scope="col">value</th><th scope="col">× weight</th>'
            f'<th scope="col">= product</th></tr></thead><tbody>{rows}</tbody></table>'
            f'<div class="side"><p>Out: {len(of.outputs)} of {of.out_channels} channels</p>'
            f'<div class="maps outputs">{outputs}</div></div></div>'
            f'<p class="said" aria-live="off">{self._sum_in_words(output, row, column)}</p></div>'
        )

    def _sum_in_words(self, output: int, row: int, column: int) -> str:
        of = self.mixing
        added = [f"{_fixed(v)} × {_bracketed(w)}" for v, w in of.terms(output, row, column)]
        rest, bias = of.rest(output, row, column), of.biases[output]
        added += [f"{_bracketed(rest)} from the other channels", f"{_bracketed(bias)} bias"]
        total = _fixed(of.outputs[output][row][column])
        return f"Row {row}, column {column}, output {output}: {' + '.join(added)} = {total}."

    def _second_idea(self) -> str:
        scores, chosen = self.scores, str(self._start["class"])
        reach = max(map(abs, scores.values()))
        peak = _reach(self.class_maps.values())
        rows = "".join(
            f'<button type="button" disabled data-class="{escape(name)}" '
            f'aria-pressed="{str(name == chosen).lower()}"><span class="name">{escape(name)}'
            f"</span>{_signed(values, f'map of {name}', peak)}"
            f'<span class="bar" style="--share:{abs(scores[name]) / reach:.3f}" '
            f'data-sign="{"+" if scores[name] > 0 else "-"}"></span>'
            f'<span class="score">{_fixed(scores[name], 1)}</span></button>'
            for name, values in self.class_maps.items()
        )
        values = self.class_maps[chosen]
        cells = "".join(
            f'<span style="--color:var(--{"above" if value > 0 else "below"});'
            f'--share:{abs(value) / peak:.3f}">{_fixed(value, 1)}</span>'
            for line in values
            for value in line
        )
        return (
            '<div class="idea" data-idea="averaging"><p class="title"><span><b>Idea 2: the '
            "average of a map is the score of its class.</b> The last convolution puts out one "
            "map for each class. No layer with weights follows: the mean of a map is the score, "
            'and the highest score names the class. <span class="hint">Choose a map.</span>'
            '</span></p><div class="parts"><div class="large"><span class="name">'
            f'{escape(chosen)}</span><span class="cells" style="--columns:{len(values[0])}">'
            f'{cells}</span><span class="mean">mean: <b>{_fixed(scores[chosen], 1)}</b></span>'
            f'</div><div class="classes">{rows}</div></div>'
            f'<p class="said" aria-live="off">{self._mean_in_words(chosen)}</p></div>'
        )

    def _mean_in_words(self, name: str) -> str:
        values = [value for line in self.class_maps[name] for value in line]
        added = " + ".join([_fixed(values[0], 1), *(_bracketed(value, 1) for value in values[1:])])
        score = self.scores[name]
        is_best = " This is the highest of all: the network's answer."
        return (
            f"{escape(name)}: ({added}) ÷ {len(values)} = {_fixed(score, 1)}."
            f"{is_best if score == max(self.scores.values()) else ''}"
        )

    def _source(self) -> str:
        of = self.mixing
        return (
            f'<p class="source">{escape(self.subject)} The convolution is {of.layer}, from '
            f"{of.in_channels} channels to {of.out_channels}, before its ReLU. Shown are the "
            f"{len(of.outputs)} outputs that vary most over this image, and the "
            f"{len(of.inputs)} inputs with the largest products; the rest is one line of the "
            "sum. Red is above 0, blue below. All numbers are rounded. "
            f"<em>{escape(self.provenance)}</em></p>"
        )


# ---------------------------------------------------------------- looking into a network


@torch.no_grad()
def two_ideas(
    network: nn.Module,
    image: Tensor,
    *,
    convolution: str,
    classes: Sequence[str],
    subject: str,
    provenance: str,
) -> TwoIdeas:
    """The picture of what a trained network does to one uint8 image of (1, height, width).

    convolution is the module path of the 1x1 convolution to show. Of its outputs those are shown
    that vary most over the image, of its inputs those with the largest products in them. The
    class maps are what the network's average pooling reads. Raises NinlabError where that layer
    is no 1x1 convolution with bias, or the network does not average one map for each class.
    """
    layer = dict(network.named_modules()).get(convolution)
    if not isinstance(layer, nn.Conv2d) or layer.kernel_size != (1, 1) or layer.bias is None:
        raise NinlabError(f"{convolution!r} is no 1x1 convolution with bias of this network")
    averages = [m for m in network.modules() if isinstance(m, nn.AdaptiveAvgPool2d)]
    if not averages:
        raise NinlabError("this network does not average its maps at the end")
    (read, put_out), (maps, _) = _seen(network, image, layer, averages[-1])
    if len(maps) != len(classes):
        raise NinlabError(f"the network averages {len(maps)} maps for {len(classes)} classes")
    weights, biases = layer.weight[:, :, 0, 0], layer.bias
    shown = _largest(put_out.std((1, 2)))
    products = weights[shown].abs()[:, :, None, None] * read.abs()
    mixed = _largest(products.mean((0, 2, 3)))
    return TwoIdeas(
        image=_rows(image[0]),
        subject=subject,
        mixing=Mixing(
            layer=convolution,
            in_channels=layer.in_channels,
            out_channels=layer.out_channels,
            inputs={channel: _rows(read[channel]) for channel in mixed},
            outputs={channel: _rows(put_out[channel]) for channel in shown},
            weights={channel: _numbers(weights[channel, mixed]) for channel in shown},
            biases={channel: _numbers(biases[channel, None])[0] for channel in shown},
        ),
        class_maps={name: _rows(values) for name, values in zip(classes, maps, strict=True)},
        provenance=provenance,
    )


def _seen(network: nn.Module, image: Tensor, *modules: nn.Module) -> list[tuple[Tensor, Tensor]]:
    """(input, output) of each module when the network reads that one image."""
    kept: dict[nn.Module, tuple[Tensor, Tensor]] = {}

    def keep(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        kept[module] = inputs[0][0], output[0]

    handles = [module.register_forward_hook(keep) for module in modules]
    try:
        network(image[None].float() / 255)
    finally:
        for handle in handles:
            handle.remove()
    return [kept[module] for module in modules]


def _largest(values: Tensor) -> list[int]:
    return sorted(values.topk(min(SHOWN_CHANNELS, len(values))).indices.tolist())


def _numbers(values: Tensor) -> tuple[float, ...]:
    return tuple(round(value, _DECIMALS) for value in values.tolist())


def _rows(values: Tensor) -> Map:
    return tuple(_numbers(line) for line in values)


# ---------------------------------------------------------------- writing


def _file(name: str) -> str:
    return (_STATIC / name).read_text(encoding="utf-8")


def _fixed(value: float, decimals: int = 2) -> str:
    """A number as the page writes it: a real minus, and none before nothing."""
    text = f"{value:.{decimals}f}"
    return text.replace("-", "\N{MINUS SIGN}" if float(text) else "")


def _bracketed(value: float, decimals: int = 2) -> str:
    text = _fixed(value, decimals)
    return text if text[0].isdigit() else f"({text})"


def _data(value: float) -> str:
    return f'<data value="{round(value, 2 * _DECIMALS)}">{_fixed(value)}</data>'


def _mean(values: Map) -> float:
    numbers = [value for line in values for value in line]
    return sum(numbers) / len(numbers)


def _reach(maps: Iterable[Map]) -> float:
    return max(abs(value) for values in maps for line in values for value in line)


def _color(value: float, reach: float) -> tuple[int, int, int, int]:
    color = _ABOVE if value > 0 else _BELOW
    return (*color, round(255 * abs(value) / reach) if reach else 0)


def _signed(values: Map, text: str, reach: float | None = None) -> str:
    """A map as a picture: red above 0, blue below, and the page's paper at 0."""
    reach = reach or _reach([values])
    return _picture([[_color(value, reach) for value in line] for line in values], text)


def _gray(values: Map, text: str) -> str:
    """An image of gray values as a picture."""
    return _picture([[(int(v), int(v), int(v), 255) for v in line] for line in values], text)


def _picture(pixels: Sequence[Sequence[tuple[int, int, int, int]]], text: str) -> str:
    """An img element that holds the pixels, red, green, blue and alpha, as a PNG file."""
    lines = b"".join(b"\0" + bytes(part for pixel in line for part in pixel) for line in pixels)
    head = pack(">IIBBBBB", len(pixels[0]), len(pixels), 8, 6, 0, 0, 0)
    chunks = ((b"IHDR", head), (b"IDAT", compress(lines, level=9)), (b"IEND", b""))
    file = b"\x89PNG\r\n\x1a\n" + b"".join(
        pack(">I", len(body)) + kind + body + pack(">I", crc32(kind + body))
        for kind, body in chunks
    )
    address = f"data:image/png;base64,{b64encode(file).decode()}"
    return f'<img alt="{escape(text)}" src="{address}">'
