"""A figure shows the numbers that it was given, says where they are from, and can be read in
the light and in the dark, on a phone, and with each kind of color blindness.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from inspect import get_annotations, isfunction
from itertools import combinations
from typing import Any, get_args

import numpy as np
import plotly.graph_objects as go
import plotly.io
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plotly.colors import unlabel_rgb

from ninlab import figures, formulas, liveness, roofline, tape
from ninlab.architectures import ARCHITECTURES, architecture, nin_block
from ninlab.bookext import site_templates
from ninlab.devices import DEVICES
from ninlab.errors import NinlabError
from ninlab.figures import labels
from ninlab.figures.themes import DIAGRAM_TEXT_PIXELS, TEXT_PIXELS, template
from ninlab.layers import Activation, Block, Conv, Linear, ReLU
from ninlab.records import EpochResult, LossCurve, Outcome, RunRecord
from ninlab.reports import Category, TracedMoment, tensor_peak
from ninlab.resources import profile
from ninlab.shapes import at_input
from ninlab.units import format_bytes
from tests.races import raced
from tests.records import A_HOST
from tests.test_records import A_RECORD

drawing = settings(max_examples=25, deadline=None)  # a Plotly figure takes some 10 ms to make

NETWORKS = ("nin", "alexnet", "vgg11")
SOURCE = "Counted: paper."
WIDTHS = ("fp32", "bf16")


def run(name: str, seed: int, accuracies: list[float], outcome: Outcome = Outcome.FINISHED):
    """A record of a run that went through these test accuracies, one an epoch of 2 s."""
    epochs = tuple(
        EpochResult(epoch, value, 1.0, value, 1.0, 0, 2.0, 0.1)
        for epoch, value in enumerate(accuracies, start=1)
    )
    return replace(
        A_RECORD,
        name=name,
        seed=seed,
        outcome=outcome,
        epochs=epochs,
        recipe=replace(A_RECORD.recipe, epochs=len(epochs)),
    )


@cache
def steps(name: str):
    return liveness.timeline(architecture(name))


@cache
def report(name: str):
    return profile(name)


def peaks(name: str) -> dict[int, int]:
    return {batch: liveness.peak_bytes(steps(name), batch) for batch in (1, 8, 64)}


RUNS = [run("a", 0, [0.5, 0.8]), run("a", 1, [0.6, 0.7]), run("b", 0, [0.1, 0.1], Outcome.STUCK)]
TWINS = (
    replace(RUNS[0], host=A_HOST, loss=LossCurve(1, (2.0, 1.4))),
    replace(RUNS[0], host=replace(A_HOST, cpu_capability="AVX2"), loss=LossCurve(1, (2.0, 1.5))),
)
ONE_OF_EACH: dict[str, Callable[[], go.Figure]] = {
    "bars": lambda: figures.bars(
        figures.Quantity("Parameters", dict.fromkeys(NETWORKS, 10)), provenance=SOURCE
    ),
    "costs": lambda: figures.costs(
        {"ours": "nin", "theirs": "alexnet"}, {"ours": report("nin"), "theirs": report("alexnet")}
    ),
    "predicted_and_measured": lambda: figures.predicted_and_measured(
        [figures.Pair("NiN", 10, 12, "nin")], provenance=SOURCE
    ),
    "coverage": lambda: figures.coverage({"a": 3, "b": 2}, {"a": 1, "b": 0}, provenance=SOURCE),
    "shares_by_layer": lambda: figures.shares_by_layer(NETWORKS, provenance=SOURCE),
    "shape_funnel": lambda: figures.shape_funnel("nin", provenance=SOURCE),
    "diagram": lambda: figures.diagram(*map(figures.Column.of, NETWORKS)),
    "training_curves": lambda: figures.training_curves(RUNS),
    "endings": lambda: figures.endings({"both": RUNS[:2], "all": RUNS}, chance=0.1, intervals=True),
    "learning_rates": lambda: figures.learning_rates(RUNS),
    "memory_timeline": lambda: figures.memory_timeline(steps("nin"), 8, provenance=SOURCE),
    "memory_by_batch": lambda: figures.memory_by_batch(
        {name: peaks(name) for name in NETWORKS},
        provenance=SOURCE,
        measured={"nin": {8: 80_000_000}},
        devices={"small": 2**30},
    ),
    "traced_step": lambda: figures.traced_step(
        [
            TracedMoment(event, {Category.ACTIVATION: 2**20 * n, Category.WORKSPACE: 10}, 2**20 * n)
            for n, event in enumerate(steps("nin")[20:60], start=1)
        ],
        8,
        provenance=SOURCE,
    ),
    "traffic": lambda: figures.traffic(
        {precision: tape.record(architecture("nin"), precision=precision) for precision in WIDTHS},
        {path: str(leaf) for path, leaf in architecture("nin").named_leaves()},
        8,
        like="nin",
        provenance=SOURCE,
    ),
    "errors_in_turn": lambda: figures.errors_in_turn(
        {
            "own": {"none": {"nin": -0.5, "alexnet": 0.75}, "+ one": {"nin": 0.0, "alexnet": 0.1}},
            "others": {"none": {"resnet18": 0.2}, "+ one": {"resnet18": 0.0}},
        },
        error="error",
        provenance=SOURCE,
    ),
    "intensities": lambda: figures.intensities(
        {name: roofline.training_operators(architecture(name), 8) for name in NETWORKS},
        {"a device": 20.0, "another": 300.0},
        provenance=SOURCE,
    ),
    "roofline": lambda: figures.roofline(
        {name: roofline.training_operators(architecture(name), 8) for name in NETWORKS},
        DEVICES["t4"],
        "fp32",
        provenance=SOURCE,
        measured={"nin": 0.5},
    ),
    "rate_by_macs": lambda: figures.rate_by_macs(
        raced({"nin_28": [1.0, 1.1], "vgg11_28": [2.0, 2.5]}), {"nin_28": "NiN"}
    ),
    "fading_signal": lambda: figures.fading_signal(
        (0.5, 0.25), {"nin": (0.4, 0.2)}, layers=("conv1", "conv2"), provenance=SOURCE
    ),
    "plateaus": lambda: figures.plateaus(RUNS[:2]),
    "lost_classes": lambda: figures.lost_classes({"a": RUNS[:2], "b": RUNS[2:]}),
    "shares_by_step": lambda: figures.shares_by_step(
        [
            figures.Line("ink", {0: [100], 1: [90]}, 100),
            figures.Line("NiN", {0: [8, 9], 1: [4, 6]}, 10, "nin"),
        ],
        step="pixels",
        share="share",
        provenance=SOURCE,
    ),
    "dots_by_row": lambda: figures.dots_by_row(
        {"NiN": [0.001, 0.5], "AlexNet": [0.2, 0.2]},
        axis="share",
        like={"NiN": "nin", "AlexNet": "alexnet"},
        provenance=SOURCE,
        notes={"NiN": ": faint"},
    ),
    "twin_curves": lambda: figures.twin_curves([TWINS]),
    "growing_apart": lambda: figures.growing_apart({"NiN": [TWINS]}),
    "tiles": lambda: figures.tiles(
        [[figures.Tile("image", [[0, 255]]), figures.Tile("map", [[-1.5, 2.0]], "+.1f")]],
        provenance=SOURCE,
    ),
}
ONE_OF_EACH |= {kind: cache(draw) for kind, draw in ONE_OF_EACH.items()}  # no test changes one
each = pytest.mark.parametrize("draw", ONE_OF_EACH.values(), ids=ONE_OF_EACH)


# ---------------------------------------------------------------- colors

PAGES = {"light": "#ffffff", "dark": "#121212"}
NON_TEXT_CONTRAST = 3.0  # WCAG 2.2, success criterion 1.4.11
TEXT_CONTRAST = 4.5  # the same, 1.4.3
TEXT_ON_LIGHT_CELLS = "#444444"  # Plotly's, on what is brighter than half
TOLD_APART = 12.0
"""CIE 1976 color difference; 2.3 is just noticeable side by side (Sharma 2003), dots and thin lines
need several times that. Every figure also labels its series with text."""

# Machado, Oliveira and Fernandes 2009, severity 1, for linear RGB.
VISION = {
    "normal": np.eye(3),
    "protanopia": np.array(
        [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ]
    ),
    "deuteranopia": np.array(
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ]
    ),
    "tritanopia": np.array(
        [
            [1.255528, -0.076749, -0.178779],
            [-0.078411, 0.930809, 0.147602],
            [0.004733, 0.691367, 0.303900],
        ]
    ),
}
XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
WHITE = np.array([0.95047, 1.0, 1.08883])
PALETTES = {
    "networks": {*figures.FAMILY_COLORS.values(), figures.NEUTRAL},
    "memory": set(figures.CATEGORY_COLORS.values()),
}


def linear_rgb(color: str) -> np.ndarray:
    channels = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)


def contrast(one: str, other: str) -> float:
    darker, lighter = sorted(float(XYZ[1] @ linear_rgb(color)) for color in (one, other))
    return (lighter + 0.05) / (darker + 0.05)


def lab(color: str, vision: str) -> np.ndarray:
    xyz = XYZ @ np.clip(VISION[vision] @ linear_rgb(color), 0, 1) / WHITE
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


NEW_FAMILY = """
from dataclasses import replace
from ninlab.architectures import NIN, register
new = register(replace(NIN, name="a_new_one", title="A new one", family="new"))
from ninlab import figures
assert figures.color_of("a_new_one") == figures.NEUTRAL
assert figures.diagram(figures.Column.of("a_new_one")).layout.shapes
"""


def test_a_network_of_a_family_without_a_color_has_the_neutral_one():
    subprocess.run([sys.executable, "-c", NEW_FAMILY], check=True)
    assert {network.family for network in ARCHITECTURES.values()} > set(figures.FAMILY_COLORS)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_variants_of_a_family_share_its_color(name):
    family = ARCHITECTURES[name].family
    assert figures.color_of(name) == figures.FAMILY_COLORS.get(family, figures.NEUTRAL)
    assert figures.color_of("a label", {"a label": name}) == figures.color_of(name)


def test_the_networks_that_are_compared_have_colors_of_their_own():
    compared = ("nin", "nin_fixed", "alexnet", "vgg11", "googlenet", "lenet")
    assert len({figures.color_of(name) for name in compared}) == len(compared)


@pytest.mark.parametrize("palette", PALETTES)
@pytest.mark.parametrize("page", PAGES)
def test_every_color_stands_out_from_the_page(palette, page):
    for color in PALETTES[palette]:
        assert contrast(color, PAGES[page]) >= NON_TEXT_CONTRAST, color


def test_the_numbers_in_the_cells_of_a_map_can_be_read():
    (colored,) = (t for t in ONE_OF_EACH["tiles"]().data if t.texttemplate)
    for _, text in colored.colorscale:
        color = "#" + "".join(f"{round(channel):02x}" for channel in unlabel_rgb(text))
        assert contrast(color, TEXT_ON_LIGHT_CELLS) >= TEXT_CONTRAST, color


@pytest.mark.parametrize("page", PAGES)
def test_the_text_in_the_boxes_of_a_diagram_can_be_read(page):
    ink = site_templates()[page]["layout"]["font"]["color"]
    fills = {shape.fillcolor for shape in ONE_OF_EACH["diagram"]().layout.shapes} - {None}
    for red, green, blue, opacity in (
        map(float, fill[len("rgba(") : -1].split(",")) for fill in fills
    ):
        paper = [int(PAGES[page][i : i + 2], 16) for i in (1, 3, 5)]
        mixed = [
            round(opacity * color + (1 - opacity) * behind)
            for color, behind in zip((red, green, blue), paper, strict=True)
        ]
        assert contrast("#" + "".join(f"{channel:02x}" for channel in mixed), ink) >= TEXT_CONTRAST


@pytest.mark.parametrize("palette", PALETTES)
@pytest.mark.parametrize("vision", VISION)
def test_two_colors_of_a_figure_are_told_apart(palette, vision):
    for one, other in combinations(sorted(PALETTES[palette]), 2):
        difference = float(np.linalg.norm(lab(one, vision) - lab(other, vision)))
        assert difference >= TOLD_APART, (one, other)


# ---------------------------------------------------------------- every figure


def keys_below(value: Any, path: tuple[str, ...] = ()):
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from keys_below(inner, (*path, key))
    elif isinstance(value, list):
        for inner in value:
            yield from keys_below(inner, path)
    else:
        yield path, value


def test_every_kind_of_figure_is_tested_here():
    kinds = {
        name
        for name, function in vars(figures).items()
        if isfunction(function)
        and not name.startswith("_")
        and get_annotations(function).get("return") == "go.Figure"
    }
    assert kinds == set(ONE_OF_EACH)


@each
def test_a_figure_leaves_text_and_paper_to_the_theme(draw):
    content = json.loads(draw().to_json())
    content["layout"].pop("template", None)  # of notebooks; the book puts its own in its place
    for path, _ in keys_below(content):
        assert path[-1] not in ("paper_bgcolor", "plot_bgcolor", "bgcolor")
        assert path[-2:] not in (("font", "color"), ("tickfont", "color"), ("textfont", "color"))


def test_the_text_of_figures_is_large_enough_to_be_read():
    assert TEXT_PIXELS >= 12
    assert DIAGRAM_TEXT_PIXELS >= 13


@pytest.mark.parametrize("kind", ONE_OF_EACH)
def test_no_text_is_smaller_than_the_one_size_of_its_kind_of_figure(kind):
    """tests/browser/test_figures_drawn.py measures the same texts on a desk and on a phone."""
    figure = ONE_OF_EACH[kind]()
    least = DIAGRAM_TEXT_PIXELS if kind == "diagram" else TEXT_PIXELS
    fonts = [
        (path, value)
        for path, value in keys_below(json.loads(figure.to_json()))
        if path[-1] == "size" and path[-2].endswith("font")
    ]
    assert fonts
    for path, value in fonts:
        assert value >= (TEXT_PIXELS if "template" in path else least), path
    for trace in figure.data:
        assert trace.type != "bar" or trace.constraintext == "none", "Plotly scales its text down"
        assert kind != "diagram" or trace.textfont.size == least


@each
def test_what_the_template_leaves_out_of_plotlys_own_is_in_no_figure(draw):
    own, whole = template("light"), plotly.io.templates["plotly_white"].to_plotly_json()
    kinds = whole["data"].keys() - own["data"].keys()
    parts = whole["layout"].keys() - own["layout"].keys()
    assert kinds.isdisjoint(trace.type for trace in draw().data)
    assert parts.isdisjoint(draw().layout.to_plotly_json())


@pytest.mark.parametrize("page", PAGES)
def test_the_templates_of_the_site_have_the_size_of_text(page):
    assert site_templates()[page]["layout"]["font"]["size"] == TEXT_PIXELS


@each
def test_a_figure_knows_its_height_before_it_is_drawn(draw):
    assert draw().layout.height > 0


@each
def test_what_a_figure_draws_can_be_pointed_at(draw):
    for trace in draw().data:
        assert trace.hoverinfo in ("text", "skip")
        if trace.hoverinfo == "text":
            said = trace.hovertemplate if trace.type == "heatmap" else trace.hovertext
            assert all([said] if isinstance(said, str) else said)


@pytest.mark.parametrize("kind", [kind for kind in ONE_OF_EACH if kind != "diagram"])
def test_a_figure_of_numbers_says_where_they_are_from(kind):
    assert ONE_OF_EACH[kind]().layout.meta["provenance"].endswith(".")


# ---------------------------------------------------------------- provenance


@given(st.dictionaries(st.text(min_size=1), st.integers(), min_size=1))
def test_equal_counts_are_said_to_be_equal(counts):
    assert figures.counted({"paper": counts}) == "Counted: paper."
    both = {"paper": counts, "fvcore": dict(counts)}
    assert figures.counted(both) == "Counted: paper, equal to fvcore."
    assert figures.predicted(both) == "Predicted: paper, equal to fvcore."


@given(st.integers(), st.integers(min_value=1))
def test_counters_that_differ_have_no_line_of_provenance(count, difference):
    with pytest.raises(NinlabError, match="fvcore says"):
        figures.counted({"paper": count, "fvcore": count + difference})


def test_a_measurement_names_device_date_software_and_record():
    line = figures.measured([A_RECORD])
    fused = replace(A_RECORD, recipe=replace(A_RECORD.recipe, kernels="fused"))
    assert "kernels" not in line
    assert ", fp32, fused kernels, batch 128" in figures.measured([fused])
    assert ", fp32, fused and torch kernels, batch 128" in figures.measured([fused, A_RECORD])
    for part in ("processor", "2026-01-01", "torch 2.11", "one seed", A_RECORD.id):
        assert part in line


def test_unequal_numbers_of_seeds_are_said():
    runs = [*RUNS[:2], replace(A_RECORD, name="b")]
    assert "median of 1 to 2 seeds" in figures.measured(runs)


def test_nothing_measured_is_no_measurement():
    with pytest.raises(NinlabError, match="no record"):
        figures.measured([])


# ---------------------------------------------------------------- bars


def test_costs_draw_what_formulas_count_and_refuse_another_opinion() -> None:
    networks = {"ours": "nin", "theirs": "alexnet"}
    reports = {label: profile(name) for label, name in networks.items()}
    panels = figures.costs(networks, reports).data
    for panel, count in zip(
        panels, (formulas.parameters, formulas.macs, formulas.saved_bytes), strict=True
    ):
        assert sorted(panel.x) == sorted(count(architecture(name)) for name in networks.values())
    with pytest.raises(NinlabError, match="the operators that torch runs says"):
        figures.costs(networks, reports | {"ours": reports["theirs"]})


counts = st.dictionaries(st.sampled_from(NETWORKS), st.integers(0, 10**12), min_size=1)


@drawing
@given(counts, st.booleans())
def test_bars_show_every_value_once_from_the_largest_down(values, measured):
    quantity = figures.Quantity("Parameters", values, measured=measured)
    (trace,) = figures.bars(quantity, provenance=SOURCE).data
    assert list(trace.x) == sorted(values.values(), reverse=True)
    assert all(f"{value:,}" in text for value, text in zip(trace.x, trace.hovertext, strict=True))


@pytest.mark.parametrize(
    ("title", "unit", "said"),
    [
        ("MACs of one image", "MACs", "MACs of one image: 1,200"),
        ("Memory", "bytes", "Memory: 1,200 bytes"),
        ("Parameters", "", "Parameters: 1,200"),
    ],
)
def test_pointing_at_a_bar_names_the_unit_once(title, unit, said):
    figure = figures.bars(figures.Quantity(title, {"nin": 1200}, unit), provenance=SOURCE)
    assert figure.data[0].hovertext[0].partition("<br>")[2] == said


def test_a_network_goes_by_the_title_that_its_figure_gives_it():
    quantity = figures.Quantity("Parameters", {"nin": 3, "vgg11": 2})
    figure = figures.bars(quantity, titles={"nin": "ours"}, provenance=SOURCE)
    assert figure.layout.yaxis.ticktext == ("ours ", "VGG-11 ")
    assert figure.data[0].hovertext[0].startswith("<b>ours</b>")


@drawing
@given(counts)
def test_counted_bars_are_hollow_and_measured_ones_solid(values):
    for measured in (False, True):
        quantity = figures.Quantity("Parameters", values, measured=measured)
        (trace,) = figures.bars(quantity, provenance=SOURCE).data
        for inside, line in zip(trace.marker.color, trace.marker.line.color, strict=True):
            assert (inside == line) is measured


@drawing
@given(st.lists(counts, min_size=2, max_size=4))
def test_panels_of_bars_keep_one_order(panels):
    names = sorted(panels[0])
    quantities = [
        figures.Quantity(f"panel {i}", {name: panel.get(name, 0) for name in names})
        for i, panel in enumerate(panels)
    ]
    figure = figures.bars(*quantities, provenance=SOURCE)
    labels = {axis.ticktext for axis in figure.select_yaxes()}
    assert len(labels) == 1


@drawing
@given(counts, counts, st.booleans())
def test_a_panel_says_where_it_has_no_bar(first, second, beside):
    second = {name: value for name, value in second.items() if name in first}
    figure = figures.bars(
        figures.Quantity("all", first),
        figures.Quantity("some", second),
        provenance=SOURCE,
        side_by_side=beside,
    )
    missing = [note for note in figure.layout.annotations if "no record" in note.text]
    assert {figure.layout.yaxis2.ticktext[note.y].strip() for note in missing} == {
        architecture(name).title for name in set(first) - set(second)
    }
    assert {note.yref for note in missing} <= {figure.data[1].yaxis}
    shown = [value for value in figure.data[1].x if value is not None]
    assert sorted(shown) == sorted(second.values())
    assert len(figures.table(figure)) == len(first) + len(second)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_shares_of_the_layers_add_up_to_the_network(name):
    figure = figures.shares_by_layer([name], provenance=SOURCE)
    for trace in figure.data:
        assert math.fsum(trace.x) == pytest.approx(1, abs=1e-12)
    network = ARCHITECTURES[name]
    weighted = [cost for cost in formulas.layer_costs(network) if cost.parameters]
    assert [list(axis.tickvals) for axis in figure.select_yaxes()] == [
        list(range(len(weighted)))
    ] * 2


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_funnel_begins_at_the_image_and_ends_at_the_classes(name):
    side, channels = figures.shape_funnel(name, provenance=SOURCE).data
    network = ARCHITECTURES[name]
    assert (channels.x[0], side.x[0]) == network.input_shape[:2]
    assert channels.x[-1] == network.num_classes


# ---------------------------------------------------------------- diagrams

DRAWN_ALONE = {"Conv", "Linear", "MaxPool", "AvgPool", "GlobalAvgPool", "Dropout", "BatchNorm"}


Box = tuple[float, float, float, float]  # left, right, top, bottom


def boxes(figure: go.Figure) -> list[Box]:
    shapes = figure.to_plotly_json()["layout"]["shapes"]
    return [(s["x0"], s["x1"], s["y0"], s["y1"]) for s in shapes if "fillcolor" in s]


def overlap(one: Box, other: Box) -> bool:
    return one[0] < other[1] and other[0] < one[1] and one[2] < other[3] and other[2] < one[3]


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_diagram_has_one_box_for_each_layer_that_is_drawn_alone(name):
    figure = figures.diagram(figures.Column.of(name))
    leaves = [type(leaf).__name__ for _, leaf in ARCHITECTURES[name].named_leaves()]
    assert len(boxes(figure)) == sum(leaf in DRAWN_ALONE for leaf in leaves)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_boxes_of_a_diagram_do_not_overlap_and_stay_inside(name):
    figure = figures.diagram(figures.Column.of(name), figures.Column.of("nin"))
    for one, other in combinations(boxes(figure), 2):
        assert not overlap(one, other)
    bottom, top = figure.layout.yaxis.range
    for left, right, upper, lower in boxes(figure):
        assert 0 <= left < right <= 2
        assert top <= upper < lower <= bottom


@pytest.mark.parametrize("block", ["block1", "block2", "block3"])
def test_a_column_behind_a_block_reads_what_the_block_puts_out(block):
    costs = formulas.layer_costs(architecture("nin"))
    column = figures.Column.of("nin", behind=block)
    *_, last = (cost for cost in costs if cost.name.startswith(f"{block}."))
    assert column.input_shape == last.output_shape
    before = architecture("nin").layers[: -len(column.layers)]
    assert before[-1].name == block
    assert before + column.layers == architecture("nin").layers


def test_a_block_that_a_network_lacks_is_refused_with_those_it_has():
    with pytest.raises(NinlabError, match="known: block1, block2, block3, classes"):
        figures.Column.of("nin", behind="block4")


def test_a_convolution_without_a_relu_says_so():
    texts = [
        figures.diagram(figures.Column.of_block(block, (3, 8, 8), "nin")).data[0].text
        for block in (nin_block("b", 4, 3), nin_block("b", 4, 3, last_relu=False))
    ]
    assert [sum("no ReLU" in text for text in column) for column in texts] == [0, 1]


@pytest.mark.parametrize("kind", get_args(Activation))
def test_an_activation_belongs_to_the_convolution_above_it(kind):
    block = Block("b", (Conv(4, 3), kind()))
    figure = figures.diagram(figures.Column.of_block(block, (3, 8, 8), "nin"))
    assert len(boxes(figure)) == 1
    assert not any("no ReLU" in text for text in figure.data[0].text)


def test_every_layer_has_words_of_its_own():
    layers = {type(leaf): leaf for net in ARCHITECTURES.values() for _, leaf in net.named_leaves()}
    words = [str(layer) for layer in layers.values()]
    assert len(set(words)) == len(words)
    assert str(Conv(96, 11, stride=4)) == "11×11 conv 96 /4"
    assert str(Conv(8, 3, groups=2)) == "3×3 conv 8 in 2 groups"
    assert str(Linear(10)) == "linear 10"
    assert str(ReLU()) == "ReLU"


# ---------------------------------------------------------------- training

histories = st.lists(st.lists(st.floats(0, 1), min_size=3, max_size=3), min_size=1, max_size=5)


def series(figure: go.Figure, label: str) -> Any:
    return next(trace for trace in figure.data if trace.name == label)


@drawing
@given(histories)
def test_the_median_lies_in_the_band_of_its_seeds(accuracies):
    runs = [run("nin", seed, values) for seed, values in enumerate(accuracies)]
    figure = figures.training_curves(runs)
    least, greatest, line = figure.data
    for low, middle, high, values in zip(
        least.y, line.y, greatest.y, zip(*accuracies, strict=True), strict=True
    ):
        assert low <= middle <= high
        assert (low, high) == (min(values), max(values))


@drawing
@given(histories, st.sampled_from([Outcome.STUCK, Outcome.DIVERGED]))
def test_a_failed_run_is_drawn_and_moves_no_median(accuracies, outcome):
    runs = [run("nin", seed, values) for seed, values in enumerate(accuracies)]
    failed = run("nin", len(runs), [0.1, 0.1, 0.1], outcome)
    without, with_it = (figures.training_curves(some) for some in (runs, [*runs, failed]))
    label = without.data[-1].name
    assert series(with_it, label).y == series(without, label).y
    (cross,) = [trace for trace in with_it.data if trace.name and str(outcome) in trace.name]
    assert list(cross.y) == [0.1, 0.1, 0.1]
    assert cross.marker.symbol == "x"


@given(st.integers(0, 3), st.integers(1, 3))
def test_the_cross_of_a_failed_run_is_where_its_loss_was_last_finite(finite, lost):
    failed = run("nin", 0, [0.1] * (finite + 1 + lost), Outcome.DIVERGED)
    kept, others = failed.epochs[: finite + 1], failed.epochs[finite + 1 :]
    infinite = tuple(replace(result, test_loss=None) for result in others)
    (line,) = figures.training_curves([replace(failed, epochs=kept + infinite)], "test_loss").data
    assert [i for i, size in enumerate(line.marker.size) if size] == [finite]


def test_curves_may_run_over_epochs_images_and_the_time_of_a_race():
    runs = [run("nin", 0, [0.5, 0.6])]
    race = raced({"vgg11_28": [2.0, 4.0, 6.0], "nin_28": [1.0, 1.0, 1.5]})
    ends = {
        against: series(
            figures.training_curves(runs, against=against, race=race), "NiN at 28x28, repaired"
        ).x
        for against in ("epoch", "images", "time")
    }
    batch = A_RECORD.recipe.batch_size
    images = A_RECORD.data_set.train_images // batch * batch
    assert ends == {"epoch": (1, 2), "images": (images, 2 * images), "time": (0.25, 0.5)}


def test_pointing_at_a_curve_says_what_it_is_the_median_of():
    runs = [run("nin", seed, [value, value]) for seed, value in enumerate((0.5, 0.6))]
    race = raced({"nin_28": [3.0]})
    over_time = figures.training_curves(runs, against="time", race=race)
    both = series(over_time, "NiN at 28x28, repaired")
    alone = series(figures.training_curves(runs[:1], "test_loss"), "NiN at 28x28, repaired")
    assert both.hovertext[1].split("<br>")[1:] == [
        "test accuracy 55.0%, median of 2 seeds (50.0% to 60.0%)",
        "after the time of 2.0 epochs of NiN at 28x28, repaired",
    ]
    assert alone.hovertext[0].split("<br>")[1:] == ["test loss 1.000 nats", "after epoch 1"]


def test_the_times_of_runs_are_not_drawn_without_a_race_of_their_step():
    runs = [run("nin", 0, [0.5, 0.6])]
    batch = runs[0].recipe.batch_size
    with pytest.raises(NinlabError, match="give the race"):
        figures.training_curves(runs, against="time")
    race = raced({"nin_28": [1.0]}, batch_size=2 * batch)
    with pytest.raises(NinlabError, match=f"{2 * batch} images"):
        figures.training_curves(runs, against="time", race=race)
    with pytest.raises(NinlabError, match="'nin_28'"):
        figures.training_curves(runs, against="time", race=raced({"vgg11_28": [1.0]}))
    with pytest.raises(NinlabError, match="raced on 1x36x36, but"):
        figures.training_curves(runs, against="time", race=at_side(36, raced({"nin_28": [1.0]})))


def at_side(side, race):
    """The race as if every network had read images of that side."""
    lanes = (replace(lane, input_shape=(1, side, side)) for lane in race.lanes)
    return replace(race, lanes=tuple(lanes))


def test_the_macs_of_a_race_are_those_of_the_images_that_raced():
    names = {"nin_28": "one", "vgg11_28": "two"}
    race = raced({name: [1.0] for name in names})
    small, large = (figures.rate_by_macs(at_side(side, race), names) for side in (28, 36))
    for name, label in names.items():
        network = architecture(name)
        assert set(series(small, label).x) == {formulas.macs(network)}
        assert set(series(large, label).x) == {formulas.macs(at_input(network, (1, 36, 36)))}


@given(st.lists(st.tuples(*[st.floats(0.1, 10)] * 2), min_size=1, max_size=9), st.floats(0.1, 10))
def test_a_network_stands_where_its_rounds_put_it_beside_the_first(rounds, load):
    first, second = zip(*rounds, strict=True)
    slowed = [load * seconds for seconds in first]
    labeled = {"nin_28": "one", "vgg11_28": "two"}
    heights = []
    for alike in (first, slowed):
        other = [a * s / f for a, s, f in zip(alike, second, first, strict=True)]
        figure = figures.rate_by_macs(raced({"nin_28": alike, "vgg11_28": other}), labeled)
        (middle, high, low) = series(figure, "two").y
        assert high >= middle >= low
        heights.append(middle / series(figure, "one").y[0])
    ratio = np.median([s / f for f, s in rounds])
    assert heights == pytest.approx([1 / ratio, 1 / ratio])


def test_one_dead_class_is_not_called_classes():
    last = replace(RUNS[0].epochs[-1], dead_classes=1)
    figure = figures.endings({"one": [replace(RUNS[0], epochs=(*RUNS[0].epochs[:-1], last))]})
    assert "1 dead class," in figure.data[0].hovertext[0]


def one_run_each(networks: Sequence[str]) -> list[RunRecord]:
    return [replace(run(name, 0, [0.5, 0.6]), network=name) for name in networks]


DRAWN_IN_ONE_COLOR: dict[str, Callable[[Sequence[str]], go.Figure]] = {
    "training_curves": lambda networks: figures.training_curves(one_run_each(networks)),
    "learning_rates": lambda networks: figures.learning_rates(one_run_each(networks)),
    "rate_by_macs": lambda networks: figures.rate_by_macs(
        raced({name: [1.0] for name in networks}), {name: name for name in networks}
    ),
    "shares_by_step": lambda networks: figures.shares_by_step(
        [figures.Line(name, {0: [1], 1: [1]}, 2, name) for name in networks],
        step="pixels",
        share="share",
        provenance=SOURCE,
    ),
    "fading_signal": lambda networks: figures.fading_signal(
        (0.5, 0.25),
        dict.fromkeys(networks, (0.4, 0.2)),
        layers=("conv1", "conv2"),
        provenance=SOURCE,
    ),
}


@pytest.mark.parametrize("draw", DRAWN_IN_ONE_COLOR.values(), ids=DRAWN_IN_ONE_COLOR)
def test_a_seventh_line_of_one_color_is_refused_with_the_limit(draw):
    of_one_color = [one.name for one in ARCHITECTURES.values() if one.family == "nin_fixed"]
    draw(of_one_color[:6])
    with pytest.raises(NinlabError, match="6 lines of one color"):
        draw(of_one_color[:7])


@pytest.mark.parametrize("draw", [figures.training_curves, figures.learning_rates])
def test_more_lines_than_labels_can_name_are_named_by_a_legend(draw):
    networks = ("nin", "alexnet", "vgg11", "vgg13", "googlenet", "lenet", "nin_fixed")
    for shown in (networks[:6], networks):
        figure = draw(one_run_each(shown))
        titles = {architecture(name).title for name in shown}
        in_legend = {trace.name for trace in figure.data if trace.showlegend is not False}
        labeled = {note.text.rpartition("</span> ")[2] for note in figure.layout.annotations}
        assert in_legend == titles
        assert figure.layout.showlegend is (len(shown) > 6)
        assert labeled == (set() if len(shown) > 6 else titles)


BY_BOTH: dict[str, Callable[[Sequence[RunRecord]], go.Figure]] = {
    "training_curves": figures.training_curves,
    "learning_rates": figures.learning_rates,
}


@pytest.mark.parametrize("draw", BY_BOTH.values(), ids=BY_BOTH)
def test_no_mark_is_of_runs_by_two_kernels(draw):
    torchs = [replace(run("nin", seed, [0.5, 0.6]), network="nin") for seed in range(3)]
    fused = [
        replace(one, network="nin", recipe=replace(one.recipe, kernels="fused"))
        for one in (run("nin", seed, [0.3, 0.4]) for seed in range(3))
    ]
    title = architecture("nin").title
    alone, both = draw(torchs), draw([torchs[0], *fused, *torchs[1:]])
    values = list(series(alone, title).y)
    assert list(series(draw(fused), title).y) == list(series(both, f"{title}, fused kernels").y)
    assert list(series(both, title).y) == values
    assert "kernels" not in str([trace.name for trace in alone.data])


def test_an_unknown_quantity_is_refused_with_the_known_ones():
    with pytest.raises(NinlabError, match="test_accuracy"):
        figures.training_curves(RUNS, "accuracy")


@given(st.lists(st.tuples(st.floats(0, 1), st.integers(1, 2)), min_size=1, max_size=6))
def test_labels_at_the_ends_of_lines_never_meet(ends):
    ends.sort()
    heights = [0.08 * lines for _, lines in ends]
    places = labels.moved_apart([y for y, _ in ends], heights, top=1.0)
    for i in range(1, len(places)):
        assert places[i] - places[i - 1] >= (heights[i] + heights[i - 1]) / 2 - 1e-9
    assert places[-1] + heights[-1] / 2 <= 1 + 1e-9


ENDS_ARE_LABELED = (
    "training_curves",
    "learning_rates",
    "memory_by_batch",
    "fading_signal",
    "shares_by_step",
)


@pytest.mark.parametrize("kind", ENDS_ARE_LABELED)
def test_a_narrow_column_has_a_legend_in_place_of_the_labels_of_lines(kind):
    figure = ONE_OF_EACH[kind]()
    narrow = figure.layout.meta["narrow"]
    lines = {trace.name for trace in figure.data if trace.showlegend is not False}
    labels = [note.text for note in figure.layout.annotations if "<span" in note.text]
    assert labels
    assert len(lines) >= len(labels)
    assert narrow["showlegend"]
    assert not any("<span" in note["text"] for note in narrow["annotations"])
    assert narrow["xaxis"]["range"][1] < figure.layout.xaxis.range[1]


@drawing
@given(
    st.lists(st.lists(st.floats(0, 1), min_size=2, max_size=5), min_size=1, max_size=4),
    st.sampled_from(["epoch", "images", "time"]),
)
def test_every_round_value_that_an_axis_of_curves_covers_is_named(histories, against):
    runs = [run(f"run{i}", 0, accuracies) for i, accuracies in enumerate(histories)]
    race = raced({"vgg11_28": [2.0], "nin_28": [1.0]})
    axes = figures.training_curves(runs, against=against, race=race).layout
    left, right = axes.meta["narrow"]["xaxis"]["range"]
    first, second, *_ = ticks = axes.xaxis.tickvals
    assert left <= first
    assert ticks[-1] <= right < ticks[-1] + (second - first)


@given(st.text("abc ,", min_size=1, max_size=40))
def test_a_label_has_room_beside_its_line(label):
    figure = go.Figure(go.Scatter(x=[0, 1], y=[0, 1]))
    end = labels.End(1, 1, label, figures.NEUTRAL, "circle")
    labels.label_ends(figure, [end])
    left, right = figure.layout.xaxis.range
    assert (right - 1) / (right - left) * labels.COLUMN_PIXELS >= end.width


def test_variants_of_one_color_have_signs_of_their_own():
    runs: list[RunRecord] = [
        replace(run(name, 0, [0.5, 0.6]), network=name)
        for name in ("nin_fixed", "nin_fixed_no_1x1", "nin_fixed_3x3")
    ]
    lines = [t for t in figures.training_curves(runs).data if t.mode == "lines+markers"]
    assert len({trace.line.color for trace in lines}) == 1
    assert len({trace.marker.symbol for trace in lines}) == 3


# ---------------------------------------------------------------- shares step by step

steps_of_seeds = st.integers(1, 4).flatmap(
    lambda seeds: st.lists(
        st.lists(st.integers(0, 20), min_size=seeds, max_size=seeds), min_size=2, max_size=5
    )
)


@drawing
@given(steps_of_seeds)
def test_a_line_of_shares_goes_through_all_seeds_together_in_their_band(counts):
    line = figures.Line("NiN", dict(enumerate(counts)), 20, "nin")
    figure = figures.shares_by_step([line], step="pixels", share="share", provenance=SOURCE)
    *band, middle = figure.data
    assert list(middle.x) == list(range(len(counts)))
    for at, seeds in enumerate(counts):
        assert middle.y[at] == pytest.approx(np.mean(seeds) / 20, abs=1e-12)
        assert f"{sum(seeds):,} of {20 * len(seeds):,}" in middle.hovertext[at]
    assert len(band) == (0 if len(counts[0]) == 1 else 2)
    for edge, extreme in zip(band, (min, max), strict=False):
        assert [20 * y for y in edge.y] == pytest.approx([extreme(seeds) for seeds in counts])


@pytest.mark.parametrize("others", [{0: [1]}, {0: [1], 2: [1]}, {0: [1], 1: []}])
def test_lines_of_shares_need_counts_at_the_same_steps(others):
    lines = [figures.Line("one", {0: [1], 1: [1]}, 2), figures.Line("other", others, 2)]
    with pytest.raises(NinlabError, match="count"):
        figures.shares_by_step(lines, step="pixels", share="share", provenance=SOURCE)


# ---------------------------------------------------------------- memory


@drawing
@given(st.sampled_from(NETWORKS), st.integers(1, 256))
def test_the_stack_of_categories_reaches_the_peak_of_the_step(name, batch_size):
    figure = figures.memory_timeline(steps(name), batch_size, provenance=SOURCE)
    stack = [trace for trace in figure.data if trace.stackgroup]
    heights = np.sum([trace.y for trace in stack], axis=0)
    peak = tensor_peak(steps(name), batch_size).tensor_peak_bytes
    # MiB as floats: sums of a handful of exactly represented terms below 2**53 bytes
    assert heights.max() * 2**20 == pytest.approx(peak, rel=1e-12)
    assert any(format_bytes(peak) in note.text for note in figure.layout.annotations)
    assert {trace.line.color for trace in stack} <= set(figures.CATEGORY_COLORS.values())


def test_in_a_narrow_column_a_legend_names_the_networks_that_have_a_label():
    race = raced({name: [1.0, 2.0] for name in ("nin_28", "vgg11_28", "vgg11")})
    labeled = {"vgg11_28": "small", "vgg11": "large"}
    figure = figures.rate_by_macs(race, labeled)
    narrow = figure.layout.meta["narrow"]
    named = {trace.name: trace.marker.symbol for trace in figure.data if trace.showlegend}
    assert narrow["showlegend"]
    assert set(named) == set(labeled.values())
    assert len(set(named.values())) == 2  # both have the color of VGG
    assert not {note["text"] for note in narrow["annotations"]} & set(named)
    assert set(named) < {note.text for note in figure.layout.annotations}


def test_a_narrow_column_names_fewer_phases_and_still_the_peak():
    figure = ONE_OF_EACH["memory_timeline"]()
    wide = [note.text for note in figure.layout.annotations]
    narrow = [note["text"] for note in figure.layout.meta["narrow"]["annotations"]]
    assert set(narrow) < set(wide)
    assert {"forward", "backward"} < set(narrow)
    assert sum(text.startswith("peak") for text in narrow) == 1


def test_every_category_of_memory_has_a_color():
    assert set(figures.CATEGORY_COLORS) == set(Category)


def test_predictions_are_dashed_and_measurements_are_dots():
    figure = ONE_OF_EACH["memory_by_batch"]()
    drawn = {trace.name.rpartition(", ")[2]: (trace.mode, trace.line.dash) for trace in figure.data}
    assert drawn["predicted"] == ("lines", "dash")
    assert drawn["measured"][0] == "markers"
    assert drawn["memory of small"] == ("lines", None)


def test_errors_stand_row_by_row_with_their_mean_size_beside_them():
    figure = ONE_OF_EACH["errors_in_turn"]()
    notes = [note.text for note in figure.layout.annotations]
    assert notes[:4] == ["<b>own</b>", "<b>others</b>", "mean", "mean"]
    assert notes[4:] == ["62.5%", "5.0%", "20.0%", "0.0%"]
    first, second, *_ = figure.data
    assert list(first.x) == [-0.5, 0.75]
    assert set(first.y) == {0}
    assert set(second.y) == {1}
    lowest, highest = figure.layout.yaxis.range
    assert lowest > 1 > 0 > highest  # the first row is at the top
    assert list(figure.layout.yaxis2.ticktext) == ["none", "+ one"]


def test_a_traced_step_stacks_what_was_predicted_and_dots_what_was_measured():
    figure = ONE_OF_EACH["traced_step"]()
    areas = [trace for trace in figure.data if trace.stackgroup]
    (dots,) = (trace for trace in figure.data if trace.mode == "markers")
    assert [trace.name for trace in areas] == ["activation", "workspace"]
    assert list(dots.y) == list(areas[0].y) == list(range(1, 41))
    assert "+10 B" in dots.hovertext[0]
