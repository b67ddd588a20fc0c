"""What must a page know of a network to recount it for any input, batch and optimizer?

A *program*: what ninlab's own formulas do to an image of unknown height and width, recorded
by `tracing` as polynomials. It holds parameters, MACs, saved bytes, every allocation and
release of a step, the work of every operator, and the checks with their sentences. No
formula is written here, and none in the page: a page adds, multiplies and compares.

A network of the book has one program for all sizes of the image. A NiN of the reader's own
has one for each arrangement of its layers, in which the numbers of channels and classes and
the widths of the blocks are unknowns as well.

Known limits: a program is exact as long as no number exceeds 2**53, which the page checks; what
the traced modules leave out, such as scratch, is left out here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import groupby, pairwise
from typing import Any

from ninlab.architectures import NIN, TEXTBOOK_STEM, Architecture, Head, Stem, nin_layers
from ninlab.calculator.tracing import Quotient, Symbol, Terms, Traced, Tracer
from ninlab.formulas import macs, parameters
from ninlab.layers import Block, Conv
from ninlab.liveness import kept
from ninlab.reports import Category, MemoryEvent, Phase
from ninlab.roofline import Operator, tape_operators
from ninlab.shapes import at_input
from ninlab.steps import Optimizer, Precision
from ninlab.tape import record

CATEGORIES = tuple(category for category in Category if category is not Category.WORKSPACE)
PHASES = tuple(Phase)

NETWORK = "{network}"
"""Stands in a program's sentences for the name of the network."""

ONE_BY_ONE_LAYERS = (0, 1, 2, 3)
INNER_KERNEL_SIZES = (1, 3)
WIDTH_FACTORS = (0.25, 0.5, 0.75, 1.0, 1.5, 2.0)

Json = dict[str, Any]
_SPAN_COLUMNS = ("span_phases", "span_events", "span_layers", "span_operators")


# ---------------------------------------------------------------- a NiN of one's own


@dataclass(frozen=True)
class Design:
    """The arrangement of a NiN's layers: what a number left open cannot express."""

    one_by_one_layers: int = 2
    inner_kernel_size: int = 1
    head: Head = Head.AVERAGE

    @property
    def key(self) -> str:
        """How a page looks the design up."""
        return f"{self.one_by_one_layers} {self.inner_kernel_size} {self.head}"

    def architecture(
        self,
        num_classes: int = NIN.num_classes,
        channels: int = NIN.input_shape[0],
        width_factor: float = 1.0,
        stem: Stem = TEXTBOOK_STEM,
    ) -> Architecture:
        """A NiN of this design that reads images of the textbook's size."""
        layers = nin_layers(
            stem,
            num_classes,
            one_by_one_layers=self.one_by_one_layers,
            inner_kernel_size=self.inner_kernel_size,
            width_factor=width_factor,
            head=self.head,
        )
        input_shape = (channels, *NIN.input_shape[1:])
        return replace(NIN, layers=layers, input_shape=input_shape, num_classes=num_classes)


def designs() -> Iterator[Design]:
    """Every design; where a block has no inner layers, their window is 1."""
    for head in Head:
        for layers in ONE_BY_ONE_LAYERS:
            for kernel_size in INNER_KERNEL_SIZES if layers else INNER_KERNEL_SIZES[:1]:
                yield Design(layers, kernel_size, head)


def block_widths(width_factor: float) -> list[int]:
    """Channels of the blocks of a NiN that is so many times as wide as the textbook's."""
    layers = nin_layers(width_factor=width_factor, head=Head.FULLY_CONNECTED)
    first_layers = [layer.layers[0] for layer in layers if isinstance(layer, Block)]
    return [layer.out_channels for layer in first_layers if isinstance(layer, Conv)]


# ---------------------------------------------------------------- programs


@lru_cache(maxsize=256)
def network_program(architecture: Architecture) -> Json:
    """The program of a network; open are the height and the width of the image."""
    tracer = Tracer()
    image = tracer.symbol("height", 1), tracer.symbol("width", 1)
    channels = architecture.input_shape[0]
    return _program(tracer, replace(architecture, input_shape=(channels, *image)))


@lru_cache(maxsize=256)
def design_program(design: Design) -> Json:
    """The program of a design; open are also its channels, classes and widths."""
    tracer = Tracer()
    image = tracer.symbol("height", 1), tracer.symbol("width", 1)
    channels, classes = tracer.symbol("channels", 1), tracer.symbol("classes", 1)
    narrowest = min(block_widths(min(WIDTH_FACTORS)))
    blocks = tuple(
        (tracer.symbol(f"width{number}", narrowest), kernel_size, stride, padding)
        for number, (_, kernel_size, stride, padding) in enumerate(TEXTBOOK_STEM.blocks, start=1)
    )
    stem = replace(TEXTBOOK_STEM, blocks=blocks)
    architecture = design.architecture(classes, channels, stem=stem)
    return _program(tracer, replace(architecture, input_shape=(channels, *image)))


def _program(tracer: Tracer, architecture: Architecture) -> Json:
    architecture = replace(architecture, name=NETWORK)
    batch = tracer.symbol("batch", 1)
    _, guards = tracer.explore(lambda: at_input(architecture, architecture.input_shape))
    recording = _Recording()
    number = recording.sum
    saved, inference, training, work = {}, {}, {}, {}
    for width, precision in {each.element_bytes: each for each in Precision}.items():
        predicting = record(architecture, precision=precision, training=False)
        inference[width] = recording.step(predicting.events)
        for optimizer in Optimizer:
            tape = record(architecture, optimizer, precision)
            training[f"{optimizer} {width}"] = recording.step(tape.events)
            work[f"{optimizer} {width}"] = recording.work(tape_operators(tape, batch))
        lines = kept(tape)  # which no optimizer changes
        saved[width] = [
            number(sum(line.constant_bytes for line in lines)),
            number(sum(line.bytes_per_image for line in lines)),
        ]
    return {
        "parameters": number(parameters(architecture)),
        "macs": number(macs(architecture)),
        "saved": saved,
        "training": training,
        "inference": inference,
        "work": work,
        "guards": [
            [
                number(guard.value),
                [piece if isinstance(piece, str) else number(piece) for piece in guard.sentence],
            ]
            for guard in guards
        ],
        **recording.tables(tracer),
    }


class _Recording:
    """The tables of one program: what it says more than once is kept once, under a number."""

    def __init__(self) -> None:
        self._sums: dict[Terms, int] = {}
        self._blocks: dict[tuple[int, int, int], int] = {}
        self._layers: dict[str, int] = {}
        self._operators: dict[str, int] = {}
        self._spans: dict[Any, int] = {}
        self._works: dict[Any, int] = {}

    def sum(self, value: Traced | int) -> int:
        """The number of a polynomial."""
        terms = value.terms if isinstance(value, Traced) else (((), value),)
        return _numbered(self._sums, terms)

    def step(self, events: Iterable[MemoryEvent]) -> list[int]:
        """The numbers of the spans that make up a step, one for each phase.

        In a span, events, layers and operators are lists of equal length. An event is a
        number of a block, doubled and odd for a release; events and layers are written as
        differences to the one before, for then equal layers of a network read the same.
        """
        spans = []
        for phase, of_phase in groupby(events, key=lambda event: event.phase):
            blocks, layers, operators = [], [], []
            for event in of_phase:
                size = self.sum(event.constant_bytes), self.sum(event.bytes_per_image)
                block = (*size, CATEGORIES.index(event.category))
                blocks.append((_numbered(self._blocks, block), not event.allocates))
                layers.append(_numbered(self._layers, event.layer))
                operators.append(_numbered(self._operators, event.operator))
            steps = _differences([block for block, _ in blocks])
            coded = tuple(
                2 * step + released for step, (_, released) in zip(steps, blocks, strict=True)
            )
            span = (PHASES.index(phase), coded, _differences(layers), tuple(operators))
            spans.append(_numbered(self._spans, span))
        return spans

    def work(self, operators: Iterable[Operator]) -> list[int]:
        """The numbers of the works that make up a step, one for each phase.

        A work is three lists: the FLOPs and the bytes of an operator, as differences to the
        one before, and how often the phase has such an operator.
        """
        works = []
        for _, of_phase in groupby(operators, key=lambda operator: operator.phase):
            times = Counter((self.sum(each.flops), self.sum(each.bytes)) for each in of_phase)
            flops, moved = zip(*times, strict=True)
            work = (_differences(flops), _differences(moved), tuple(times.values()))
            works.append(_numbered(self._works, work))
        return works

    def tables(self, tracer: Tracer) -> Json:
        """All tables in the order of their numbers; of the tracer its unknowns and quotients."""
        atoms = tracer.atoms
        quotients = [
            [self.sum(atom.numerator), atom.divisor] for atom in atoms if isinstance(atom, Quotient)
        ]
        return {
            "symbols": [atom.name for atom in atoms if isinstance(atom, Symbol)],
            "quotients": quotients,
            "sums": [[[factor, *atoms] for atoms, factor in terms] for terms in self._sums],
            "blocks": list(self._blocks),
            "layers": list(self._layers),
            "operators": list(self._operators),
            # By column: like stands beside like, which halves what is left after compression.
            **dict(zip(_SPAN_COLUMNS, zip(*self._spans, strict=True), strict=True)),
            "works": list(self._works),
        }


def _numbered(table: dict[Any, int], key: Any) -> int:
    return table.setdefault(key, len(table))


def _differences(numbers: Sequence[int]) -> tuple[int, ...]:
    return tuple(number - before for before, number in pairwise((0, *numbers)))
