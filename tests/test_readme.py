"""The numbers of README.md, of its table and of its figure are the code's."""

import re
import tomllib
from xml.etree import ElementTree

import pytest
from PIL import Image, ImageStat

from ninlab import figures, formulas, records, shapes
from ninlab.__main__ import COMMANDS
from ninlab.answers import answer
from ninlab.architectures import architecture
from ninlab.comparisons import summary
from ninlab.devices import DEVICES
from ninlab.liveness import peak_bytes, timeline
from ninlab.measurement import Allocator, load_records
from ninlab.peers import latest
from ninlab.units import format_bytes, format_seconds, format_shape
from ninlab.workspaces import available
from tests.book import ROOT
from tools import readme_figure, readme_page

README = (ROOT / "README.md").read_text(encoding="utf-8")
NOT_PROSE = r"```.*?```|`[^`]*`|<[^>]*>|^\|[^\n]*$"
PROSE = " ".join(re.sub(NOT_PROSE, "", README, flags=re.DOTALL | re.MULTILINE).split())
ALTERNATIVE = re.findall(r'alt="([^"]*)"', README)[0]
BATCH_SIZE = readme_figure.BATCH_SIZE
NETWORKS = {
    name: shapes.at_input(architecture(name), readme_figure.INPUT_SHAPE)
    for name in readme_figure.NETWORKS
}
PARAMETERS = {name: formulas.parameters(network) for name, network in NETWORKS.items()}
MACS = {name: formulas.macs(network) for name, network in NETWORKS.items()}
PEAKS = {name: peak_bytes(timeline(network), BATCH_SIZE) for name, network in NETWORKS.items()}
STEPS = {
    step.case.network: step
    for step in load_records(records.runs_folder())
    if step.device.slug == "nvidia-h100-80gb-hbm3"
    and step.allocator is Allocator.DEFAULT
    and (step.case.precision, step.case.mode, step.case.batch_size) == ("tf32", "sgd", BATCH_SIZE)
    and step.case.input_shape == readme_figure.INPUT_SHAPE
    and step.case.network in NETWORKS
}
"""What an H100 measured of the networks, at the size of the table."""


# ---------------------------------------------------------------- table


def cost_rows() -> dict[str, list[str]]:
    rows = re.findall(r"^\| `(\w+)` \|(.+)\|$", README, flags=re.MULTILINE)
    return {name: [cell.strip() for cell in cells.split("|")] for name, cells in rows}


def test_the_table_has_a_row_for_each_network_of_the_figure():
    assert set(cost_rows()) == set(NETWORKS)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_table_says_what_the_counters_say(name):
    network = NETWORKS[name]
    assert cost_rows()[name] == [
        f"{PARAMETERS[name]:,}",
        f"{MACS[name]:,}",
        format_bytes(formulas.saved_bytes(network, BATCH_SIZE)),
        format_bytes(PEAKS[name]),
        format_bytes(peak_bytes(timeline(network, training=False), BATCH_SIZE)),
        format_seconds(STEPS[name].measured.median_seconds) if name in STEPS else "–",
    ]


# ---------------------------------------------------------------- prose


def range_of_endings(name: str) -> str:
    """Between which accuracies those of the twenty compact runs of one variant ended that held."""
    runs = [run for run in records.current(records.load()) if run.device.slug == "cpu"]
    ended = summary(answer("collapse", runs).runs[name])
    assert ended.runs == 20
    return f"between {100 * ended.least:.0f} % and {100 * ended.greatest:.0f} %"


def classes_block_shapes() -> str:
    """What goes into the last block of NiN's convolutions and what comes out of it."""
    placed = [at for at in shapes.placed_layers(NETWORKS["nin"]) if at.name.startswith("classes")]
    ends = placed[0].input_shape, placed[-1].output_shape
    return " to ".join(map(format_shape, ends))


def supported_pythons() -> str:
    """The versions of Python as the project's requirement has them, the last one included."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    oldest, beyond = re.findall(r"3\.(\d+)", project["requires-python"])
    return f"3.{oldest} to 3.{int(beyond) - 1}"


def gpus_with_tables() -> str:
    """The devices whose scratch memory is tabled, from the largest memory to the smallest."""
    tabled = {table.device for table in available()}
    *names, last = (name.upper() for name in DEVICES if name in tabled)
    return f"{', '.join(names)} or {last}"


def seconds_of(name: str) -> float:
    """The median of the measured seconds of a step."""
    seconds = STEPS[name].measured.median_seconds
    assert seconds is not None
    return seconds


def phrases_with_numbers() -> list[str]:
    """What the prose may say that has a number in it, made by the code."""
    return [
        f"Images of {format_shape(readme_figure.INPUT_SHAPE)}",
        f"in float32 with {BATCH_SIZE} of them",
        "1x1 convolutions",
        f"for {format_shape(architecture('nin_28').input_shape[1:])} images",
        f"end anywhere {range_of_endings('nin_28_textbook')} accuracy",
        f"those of a repaired copy, where they hold, {range_of_endings('nin_28')}",
        NETWORKS["vgg11"].title,
        f"{classes_block_shapes()} in one step",
        f"NiN has a {PARAMETERS['alexnet'] / PARAMETERS['nin']:.0f}rd of AlexNet's parameters",
        f"needs {100 * (PEAKS['nin'] / PEAKS['alexnet'] - 1):.0f} % more memory to train",
        f"needs {PEAKS['googlenet'] / PEAKS['alexnet']:.1f} times the memory",
        f"*{figures.measured_steps(list(STEPS.values()))}*",
        "in TF32",
        f"its step takes {seconds_of('nin') / seconds_of('alexnet'):.2f} times as long",
        "on an H100, and held just these bytes",
        f"separately for an {gpus_with_tables()}",
        f"Python {supported_pythons()}",
        "CC BY 4.0",
    ]


def test_every_number_of_the_prose_stands_in_a_phrase_that_the_code_makes():
    rest = PROSE
    for phrase in phrases_with_numbers():
        assert phrase in PROSE
        rest = rest.replace(phrase, "")
    assert re.findall(r".{0,40}\d.{0,40}", rest) == []


def test_fewest_parameters_and_least_work_are_not_least_memory():
    assert min(PARAMETERS, key=PARAMETERS.get) == min(MACS, key=MACS.get) == "nin"
    assert min(PEAKS, key=PEAKS.get) == "alexnet"
    assert "Fewest parameters and least work are not least memory" in PROSE


def test_the_networks_that_are_said_to_have_run_held_the_bytes_that_are_predicted():
    *names, last = run = ("nin", "alexnet", "vgg11")
    measured = latest("peak_bytes").peaks
    assert {name: measured[name, BATCH_SIZE] for name in run} == {name: PEAKS[name] for name in run}
    titles = ", ".join(NETWORKS[name].title for name in names)
    assert {name: STEPS[name].measured.tensor_peak_bytes for name in run} == {
        name: PEAKS[name] for name in run
    }
    said = f"{titles} and {NETWORKS[last].title} were also run, on a CPU and on an H100, and held"
    assert said in PROSE


def test_googlenet_has_an_eighth_of_alexnets_parameters():
    assert round(PARAMETERS["alexnet"] / PARAMETERS["googlenet"]) == 8
    assert "GoogLeNet has an eighth of them" in PROSE


def test_the_license_is_the_one_that_is_named():
    license_text = " ".join((ROOT / "LICENSE").read_text(encoding="utf-8").split())
    assert "Creative Commons Attribution 4.0 International" in license_text


def test_every_command_and_target_that_the_readme_names_exists():
    commands = set(re.findall(r"python -m ninlab (\w+)", README))
    assert commands
    assert commands <= set(COMMANDS)
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = re.findall(r"^make (\w+)|`make (\w+)`", README, flags=re.MULTILINE)
    assert targets
    for target in map("".join, targets):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target


# ---------------------------------------------------------------- figure

SVG = "{http://www.w3.org/2000/svg}"
PIXELS = 0.01  # to which plotly.js rounds the corners of a bar
each_theme = pytest.mark.parametrize("theme", readme_figure.FILES)


@each_theme
def test_the_texts_of_the_committed_figure_are_those_that_the_code_gives_now(theme):
    drawing = ElementTree.parse(readme_figure.FILES[theme])
    figure = readme_figure.costs()
    drawn = ["".join(text.itertext()).strip() for text in drawing.iter(f"{SVG}text")]
    expected = [
        *(text for trace in figure.data for text in trace.text),
        *(name.strip() for name in figure.layout.yaxis.ticktext),
        *(title.text for title in figure.layout.annotations),
    ]
    assert sorted(drawn) == sorted(expected)


@each_theme
def test_the_bars_of_the_committed_figure_are_as_long_as_the_code_has_them_now(theme):
    drawing = ElementTree.parse(readme_figure.FILES[theme])
    bars = [group for group in drawing.iter(f"{SVG}g") if group.get("class") == "point"]
    corners = [group.find(f"{SVG}path").get("d") for group in bars]
    lengths = [float(re.findall(r"H([\d.]+)", path)[0]) for path in corners]
    for trace in readme_figure.costs().data:
        drawn, lengths = lengths[: len(trace.x)], lengths[len(trace.x) :]
        scale = max(drawn) / max(trace.x)
        assert drawn == pytest.approx([scale * value for value in trace.x], abs=PIXELS)
    assert lengths == []


@each_theme
def test_the_readme_shows_the_figure_in_both_themes(theme):
    assert f'"{readme_figure.FILES[theme].relative_to(ROOT).as_posix()}"' in README


def test_who_cannot_see_the_figure_is_told_what_it_shows():
    for network in NETWORKS.values():
        assert network.title in ALTERNATIVE
    assert "NiN has the fewest parameters and MACs" in ALTERNATIVE
    assert "more memory to train than AlexNet" in ALTERNATIVE


# ---------------------------------------------------------------- picture of a page


@pytest.mark.parametrize("theme", readme_page.FILES)
def test_the_readme_shows_a_page_in_both_themes(theme):
    picture = readme_page.FILES[theme]
    assert f'"{picture.relative_to(ROOT).as_posix()}"' in README
    assert picture.stat().st_size <= readme_page.LARGEST_BYTES
    with Image.open(picture) as image:
        assert image.size == (readme_page.WIDTH, readme_page.HEIGHT)


def test_the_picture_of_a_page_is_brighter_in_the_light_theme():
    brightness = {
        theme: ImageStat.Stat(Image.open(path).convert("L")).mean[0]
        for theme, path in readme_page.FILES.items()
    }
    assert brightness["dark"] < 128 < brightness["light"]  # half of a pixel's range


def test_a_picture_is_compressed_until_it_is_small_enough():
    noise = Image.effect_noise((readme_page.WIDTH, readme_page.HEIGHT), sigma=20)
    plain = Image.new("RGB", noise.size)
    assert len(readme_page.compressed(plain)) <= readme_page.LARGEST_BYTES
    with pytest.raises(ValueError, match="at most 120,000"):
        readme_page.compressed(noise.convert("RGB"))
