"""The calculator as readers meet it: its numbers are Python's, wherever and however it is used."""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache, cached_property, partial
from http.server import ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from playwright.sync_api import Browser, Frame, Page, expect

from ninlab.__main__ import main
from ninlab.architectures import Architecture, Head, architecture
from ninlab.calculator import Calculator, menu
from ninlab.calculator.programs import (
    CATEGORIES,
    INNER_KERNEL_SIZES,
    ONE_BY_ONE_LAYERS,
    WIDTH_FACTORS,
    Design,
)
from ninlab.devices import DEVICES, DataSheet
from ninlab.errors import NinlabError, ShapeError
from ninlab.formulas import macs, parameters
from ninlab.layers import BatchNorm
from ninlab.liveness import largest_batch, saved_lines, timeline
from ninlab.reports import tensor_peak
from ninlab.roofline import time_bound, training_operators
from ninlab.shapes import at_input, placed_layers
from ninlab.steps import Optimizer, Precision
from ninlab.units import BYTE_UNITS, format_bytes, format_count, format_seconds, format_shape
from tests.browser.conftest import QuietHandler
from tests.browser.test_pages import barriers, sideways_pixels

pytestmark = pytest.mark.browser

COUNTED_CONFIGURATIONS = 300  # that show numbers; those that show only refusals come on top
SEED = 20130  # any: the test draws other configurations with another one
ROUNDING = 1e-12  # of sums of a few hundred float64 terms in two different orders
PATIENCE = 30_000  # milliseconds for a busy machine
OWN, NONE, OTHER_SIZE = "own", "", "other"
YOURS = "your NiN"  # what sentences call it
LARGEST_EXACT = 2**53 - 1

READ = """
(host) => {
    const root = host.shadowRoot;
    const rows = {};
    for (const row of root.querySelectorAll(".results tbody tr")) {
        for (const cell of row.querySelectorAll("td[data-side]")) {
            const data = cell.querySelector("data");
            (rows[cell.dataset.side] ??= {})[row.dataset.row] =
                data ? [Number(data.value), data.textContent] : null;
        }
    }
    const text = (selector) => root.querySelector(selector)?.textContent ?? null;
    const seen = root.querySelector(".results").checkVisibility({ visibilityProperty: true });
    return {
        rows: seen ? rows : {},
        devices: Object.fromEntries([...root.querySelectorAll(".devices tbody tr")].map((row) =>
            [row.dataset.row, [...row.querySelectorAll("td")].map((cell) => cell.innerText)])),
        refusals: { shared: text("#refusal"), a: text("#a-refusal"), b: text("#b-refusal") },
        moments: { a: text("figure[data-side=a] output"), b: text("figure[data-side=b] output") },
        python: text("#python"),
        command: text("#command"),
    };
}
"""
CONFIGURE = """
(host, fields) => {
    const root = host.shadowRoot;
    for (const [id, value] of Object.entries(fields)) {
        const field = root.getElementById(id);
        field.value = value;
        if (id.endsWith("-network")) field.dispatchEvent(new Event("input", { bubbles: true }));
    }
    root.getElementById("batch").dispatchEvent(new Event("input", { bubbles: true }));
}
"""
ALL = f"""
(host, configurations) => configurations.map((fields) => {{
    ({CONFIGURE})(host, fields);
    return ({READ})(host);
}})
"""


# ---------------------------------------------------------------- what Python says


@dataclass(frozen=True)
class Side:
    """One of the two networks: its fields, and the architecture that they describe."""

    fields: dict[str, object]
    architecture: Architecture | None
    image: tuple[int, int] = (0, 0)

    def within(self, side: str) -> dict[str, object]:
        return {f"{side}-{name}": value for name, value in self.fields.items()}


@dataclass(frozen=True)
class Configuration:
    sides: dict[str, Side]
    batch: int
    optimizer: str
    precision: str
    memory: str | int  # name of a device, or GiB

    @property
    def fields(self) -> dict[str, object]:
        """Values by the ids of the fields, in the order in which a reader fills them."""
        named = isinstance(self.memory, str)
        return {
            **{
                key: value
                for side, one in self.sides.items()
                for key, value in one.within(side).items()
            },
            "batch": self.batch,
            "optimizer": self.optimizer,
            "precision": self.precision,
            "memory": self.memory if named else OTHER_SIZE,
            "gibibytes": "" if named else self.memory,
        }

    @property
    def counted(self) -> list[str]:
        """The sides whose network can read its image."""
        return [side for side, expected in self.expected.items() if not isinstance(expected, str)]

    @cached_property
    def expected(self) -> dict[str, Any]:
        """What Python counts of each network, or the sentence of its error."""
        networks = {name: side for name, side in self.sides.items() if side.architecture}
        return {name: counted(side, self) for name, side in networks.items()}

    @property
    def device(self) -> DataSheet:
        if isinstance(self.memory, str):
            return DEVICES[self.memory]
        return DataSheet("other", "other", self.memory * BYTE_UNITS["GiB"], "the reader")


def log_uniform(rng: random.Random, largest: int) -> int:
    return round(largest ** rng.random())


def random_side(rng: random.Random, *, optional: bool) -> Side:
    if optional and rng.random() < 0.1:
        return Side({"network": NONE}, None)
    image = log_uniform(rng, 512), log_uniform(rng, 512)
    if rng.random() < 0.3:
        image = image[0], image[0]
    fields = {"height": image[0], "width": image[1]}
    if rng.random() < 0.6:
        name = rng.choice(menu())
        if rng.random() < 0.5:
            image = architecture(name).input_shape[1:]
            fields = {}  # the page fills in the network's own image
        return Side({"network": name, **fields}, architecture(name), image)
    design = Design(
        rng.choice(ONE_BY_ONE_LAYERS), rng.choice(INNER_KERNEL_SIZES), rng.choice(list(Head))
    )
    classes, channels, factor = (
        log_uniform(rng, 1000),
        rng.choice((1, 3)),
        rng.choice(WIDTH_FACTORS),
    )
    knobs = {
        "layers": design.one_by_one_layers,
        "kernel": design.inner_kernel_size,
        "factor": f"{factor:g}",
        "head": str(design.head),
        "classes": classes,
        "channels": channels,
    }
    own = replace(design.architecture(classes, channels, factor), name=YOURS)
    return Side({"network": OWN, **fields, **knobs}, own, image)


def random_configuration(rng: random.Random) -> Configuration:
    return Configuration(
        {"a": random_side(rng, optional=False), "b": random_side(rng, optional=True)},
        log_uniform(rng, 8192),
        rng.choice(list(Optimizer)),
        rng.choice(list(Precision)),
        rng.choice([*DEVICES, rng.randint(1, 200)]),
    )


def counted(side: Side, given: Configuration) -> tuple[dict[str, Any], str] | str:
    """(values by row, where the peak is) as Python counts them, or the sentence of its error."""
    assert side.architecture is not None
    try:
        network = at_input(side.architecture, (side.architecture.input_shape[0], *side.image))
    except ShapeError as error:
        return str(error)
    training = timeline(network, given.optimizer, given.precision)
    inference = timeline(network, precision=given.precision, training=False)
    peaks = {
        "training": tensor_peak(training, given.batch),
        "inference": tensor_peak(inference, given.batch),
    }
    rows: dict[str, Any] = {
        "parameters": parameters(network),
        "macs": macs(network),
        "flops": 2 * macs(network),
        "saved": sum(
            line.constant_bytes + line.bytes_per_image * given.batch
            for line in saved_lines(network, given.precision)
        ),
        "largest": largest_batch(training, given.device.memory_bytes),
        "largest inference": largest_batch(inference, given.device.memory_bytes),
        "seconds": None,
    }
    for phase, peak in peaks.items():
        rows[phase] = peak.tensor_peak_bytes
        for category in CATEGORIES:
            rows[f"{phase} {category}"] = peak.by_category.get(category, 0)
    if given.precision in given.device.flops_per_second:
        operators = training_operators(network, given.batch, given.optimizer, given.precision)
        rows["seconds"] = time_bound(operators, given.device, given.precision).seconds
    return rows, f"{peaks['training'].at}: {format_bytes(rows['training'])} alive, the peak"


def written(row: str, value: float) -> str:
    """How a row of the page reads."""
    if row == "seconds":
        return format_seconds(value)
    if row.startswith("largest"):
        return f"{value:,}"
    return (format_count if row in ("parameters", "macs", "flops") else format_bytes)(value)


def assert_shown(shown: dict[str, Any], given: Configuration) -> None:
    """Hold everything that the page shows against Python."""
    assert shown["rows"].keys() <= given.expected.keys()
    for side, expected in given.expected.items():
        if isinstance(expected, str):
            assert shown["refusals"][side] == expected
            assert side not in shown["rows"]
            continue
        assert shown["refusals"][side] == ""
        rows, moment = expected
        assert shown["moments"][side] == moment
        for name, value in rows.items():
            cell = shown["rows"][side].get(name)
            if value is None:
                assert cell is None
            elif cell is None:  # a category that neither network has
                assert value == 0
                assert name.partition(" ")[2] in CATEGORIES
            else:
                assert cell[0] == (
                    pytest.approx(value, rel=ROUNDING) if name == "seconds" else value
                )
                assert cell[1] == written(name, value)


# ---------------------------------------------------------------- pages


def document(*calculators: Calculator, style: str = "") -> str:
    objects = "\n".join(calculator._repr_html_() for calculator in calculators)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Calculator</title>'
        '<meta name="viewport" content="width=device-width"><link rel="icon" href="data:,">'
        f"<style>{style}</style></head><body><main><h1>Calculator</h1>{objects}</main></body></html>"
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pages with nothing but calculators."""
    folder = tmp_path_factory.mktemp("calculator")
    (folder / "index.html").write_text(document(Calculator()))
    (folder / "two.html").write_text(document(Calculator(), Calculator("lenet", None)))
    frame = document(Calculator()).replace("&", "&amp;").replace('"', "&quot;")
    (folder / "isolated.html").write_text(
        f'<!doctype html><title>x</title><iframe sandbox="allow-scripts" srcdoc="{frame}"></iframe>'
    )
    return folder


@pytest.fixture(scope="module", params=["http", "file"])
def address(request: pytest.FixtureRequest, folder: Path) -> Iterator[str]:
    """Where the folder is: on a server, or as it lies on the disk."""
    if request.param == "file":
        yield folder.as_uri()
        return
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(QuietHandler, directory=str(folder)))
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@contextmanager
def opened(browser: Browser, url: str, **options: Any) -> Iterator[Page]:
    """A page whose calculators are ready; at the end it has asked and complained of nothing."""
    context = browser.new_context(**options)
    context.set_default_timeout(PATIENCE)
    page = context.new_page()
    trouble: list[str] = []
    page.on("pageerror", lambda error: trouble.append(str(error)))
    page.on(
        "console", lambda message: trouble.append(message.text) if message.type == "error" else None
    )
    page.on("request", lambda request: trouble.append(request.url))
    page.goto(url)
    if options.get("java_script_enabled", True):
        wait_until_ready(page)
    yield page
    assert [one for one in trouble if not one.startswith("data:")] == [url.partition("#")[0]]
    context.close()


def wait_until_ready(page: Page | Frame) -> None:
    page.wait_for_function(
        "() => document.querySelector('.ninlab-calculator')"
        " && !document.querySelector('.ninlab-calculator:not([data-status=ready])')"
    )


def evaluated(page: Page | Frame, script: str, argument: object = None) -> Any:
    return page.locator(".ninlab-calculator").first.evaluate(script, argument)


@pytest.fixture
def page(browser: Browser, folder: Path) -> Iterator[Page]:
    """The calculator alone, as it starts."""
    with opened(browser, f"{folder.as_uri()}/index.html") as page:
        yield page


START = Configuration(
    {
        name: Side({"network": network}, architecture(network), (224, 224))
        for name, network in (("a", "nin"), ("b", "alexnet"))
    },
    128,
    "sgd",
    "fp32",
    "h100",
)


# ---------------------------------------------------------------- numbers


@pytest.fixture(scope="module")
def drawn() -> list[Configuration]:
    rng = random.Random(SEED)
    drawn: list[Configuration] = []
    while sum(bool(one.counted) for one in drawn) < COUNTED_CONFIGURATIONS:
        one = random_configuration(rng)
        if not any(normalizes_one_value(side, one.batch) for side in one.sides.values()):
            drawn.append(one)
    return drawn


def normalizes_one_value(side: Side, batch: int) -> bool:
    """Whether a batch normalization has one value a channel, of which torch takes no step.

    Known gap: the page and `liveness.timeline` count such a step all the same.
    """
    if side.architecture is None or batch > 1:
        return False
    try:
        network = at_input(side.architecture, (side.architecture.input_shape[0], *side.image))
    except ShapeError:
        return False
    return any(
        isinstance(at.layer, BatchNorm) and at.input_shape[1:] == (1, 1)
        for at in placed_layers(network)
    )


@pytest.fixture(scope="module")
def shown(browser: Browser, address: str, drawn: list[Configuration]) -> list[dict[str, Any]]:
    """What the page shows of each configuration."""
    with opened(browser, f"{address}/index.html") as page:
        return evaluated(page, ALL, [one.fields for one in drawn])


@pytest.fixture(scope="module")
def command_line(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], list[str]]:
    """What ``--format json`` prints for each of the copied commands, beside the copied Python.

    The real command line, in this process: torch is imported once and not for every command.
    """

    @cache
    def printed(commands: str, python: str) -> list[str]:
        with contextlib.chdir(folder_with(python, tmp_path_factory)):
            return [printed_here(line) for line in commands.splitlines()]

    return printed


def folder_with(python: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new folder, with the copied Python where the copied command looks for it."""
    folder = tmp_path_factory.mktemp("copied")
    (folder / "my_nin.py").write_text(python)
    return folder


def arguments_of(line: str) -> list[str]:
    """What the shell hands to Python."""
    program, *arguments = shlex.split(line)
    assert (program, *arguments[:3]) == ("python", "-m", "ninlab", "resources")
    return [*arguments, "--format", "json"]


def printed_here(line: str) -> str:
    with contextlib.redirect_stdout(io.StringIO()) as written:
        assert main(arguments_of(line)[2:]) == 0
    return written.getvalue()


def printed_by_a_process(line: str, folder: Path) -> str:
    command = [sys.executable, *arguments_of(line)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout


def test_every_number_is_the_one_that_python_counts(
    shown: list[dict[str, Any]], drawn: list[Configuration]
) -> None:
    for given, seen in zip(drawn, shown, strict=True):
        assert_shown(seen, given)


def test_the_command_that_it_copies_prints_the_numbers_that_it_shows(
    shown: list[dict[str, Any]],
    drawn: list[Configuration],
    command_line: Callable[[str, str], list[str]],
) -> None:
    """The command counts the operators that torch runs: it shares no formula with the page."""
    for given, seen in zip(drawn, shown, strict=True):
        assert list(seen["rows"]) == given.counted
        if not given.counted:
            continue
        answers = command_line(seen["command"], seen["python"])
        costs = [cost for answer in answers for cost in json.loads(answer)["networks"]]
        for side, cost in zip(given.counted, costs, strict=True):
            assert_costs(seen["rows"][side], cost)
            assert seen["moments"][side].startswith(f"{cost['training']['at']}:")


@pytest.mark.parametrize("address", ["file"], indirect=True)
def test_a_process_of_its_own_prints_what_the_command_prints_here(
    shown: list[dict[str, Any]],
    command_line: Callable[[str, str], list[str]],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    asked = dict.fromkeys((seen["command"], seen["python"]) for seen in shown if seen["rows"])
    if "NINLAB_EXHAUSTIVE" not in os.environ:  # one with a network of the reader's own, one without
        single = [one for one in asked if one[0].count("python") == 1]
        asked = {"my_nin" in command: (command, python) for command, python in single}.values()
        assert len(asked) == 2
    for commands, python in asked:
        folder = folder_with(python, tmp_path_factory)
        answers = [printed_by_a_process(line, folder) for line in commands.splitlines()]
        assert answers == command_line(commands, python)


def test_it_starts_with_what_it_was_made_for(page: Page) -> None:
    assert_shown(evaluated(page, READ), START)


def test_a_nin_of_ones_own_is_copied_as_python_that_prints_its_numbers(
    page: Page, tmp_path: Path
) -> None:
    evaluated(
        page,
        CONFIGURE,
        {
            "a-network": OWN,
            "a-layers": 3,
            "a-kernel": 3,
            "a-factor": "0.5",
            "a-head": "linear",
            "a-classes": 100,
            "a-channels": 3,
            "a-height": 96,
            "a-width": 128,
            "b-network": "alexnet_one_tower",
            "b-height": 96,
            "b-width": 128,
            "batch": 3,
            "optimizer": "momentum",
        },
    )
    shown = evaluated(page, READ)
    (tmp_path / "my_nin.py").write_text(shown["python"])
    run = subprocess.run(
        [sys.executable, "my_nin.py"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    rows = [shown["rows"][side] for side in "ab"]
    names = ("parameters", "macs", "saved", "training", "inference")
    numbers = [int(word) for word in run.stdout.split() if word.isdigit()]
    assert numbers == [row[name][0] for row in rows for name in names]


def test_images_of_two_sizes_take_two_commands(page: Page) -> None:
    evaluated(page, CONFIGURE, {"b-height": 128})
    shown = evaluated(page, READ)
    first, second = shown["command"].splitlines()
    assert first.startswith("python -m ninlab resources nin --batch-size 128 --input 1x224x224 ")
    assert second.startswith("python -m ninlab resources alexnet --batch-size 128 --input 1x128x")


def assert_costs(row: dict[str, Any], cost: dict[str, Any]) -> None:
    assert {
        name: row[name][0]
        for name in ("parameters", "macs", "flops", "saved", "training", "inference")
    } == {
        "parameters": cost["parameters"],
        "macs": cost["macs"],
        "flops": cost["flops"],
        "saved": cost["saved_bytes"],
        "training": cost["training"]["tensor_peak_bytes"],
        "inference": cost["inference"]["tensor_peak_bytes"],
    }


def test_a_device_is_said_to_fit_exactly_when_python_says_so(page: Page) -> None:
    batch = 2000
    evaluated(page, CONFIGURE, {"batch": batch})
    shown = evaluated(page, READ)
    for name, device in DEVICES.items():
        for cell, network in zip(shown["devices"][name], ("nin", "alexnet"), strict=True):
            events = timeline(architecture(network))
            fits = device.fits(tensor_peak(events, batch).tensor_peak_bytes)
            assert cell.startswith("✓ fits" if fits else "✗ does not fit")
            assert f"batch ≤ {largest_batch(events, device.memory_bytes):,}" in cell
            assert ("step ≥" in cell) == ("fp32" in device.flops_per_second)


def test_units_change_the_text_and_not_the_numbers(page: Page) -> None:
    texts = {}
    for units in ("binary", "decimal", "exact"):
        evaluated(page, CONFIGURE, {"units": units})
        row = evaluated(page, READ)["rows"]["a"]
        assert (
            row["training"][0] == tensor_peak(timeline(architecture("nin")), 128).tensor_peak_bytes
        )
        texts[units] = row["training"][1], row["parameters"][1]
    peak = row["training"][0]
    assert texts["exact"] == (f"{peak:,} B", "1,992,166")
    assert texts["decimal"][0] == format_count(peak).replace(" G", " GB").replace(
        " M", " MB"
    ).replace(" k", " kB")


def test_a_difference_is_the_second_less_the_first_and_a_multiple_of_the_first(page: Page) -> None:
    # AlexNet's activations at its peak with Adam are a few bytes: the smallest multiple there is.
    evaluated(page, CONFIGURE, {"batch": 12, "optimizer": "adam"})
    rows = evaluated(page, READ)["rows"]
    multiples = []
    for name in rows["a"].keys() - {"line"}:
        first, second = (rows[side][name][0] for side in "ab")
        cell = page.locator(f'.results tr[data-row="{name}"] .difference')
        amount, _, multiple = cell.inner_text().partition(", ×")
        sign = "+" if second > first else "−"
        assert amount == ("none" if first == second else sign + written(name, abs(second - first)))
        if multiple:
            multiples.append(second / first)
            # Half of the last digit: three digits, but two decimals at most from 0.1 on.
            decimals = 0.005 if multiples[-1] >= 0.1 else 0
            assert float(multiple) == pytest.approx(multiples[-1], rel=0.005, abs=decimals)
    assert min(multiples) < 1e-3


def test_networks_are_offered_by_the_image_they_read(page: Page) -> None:
    groups = page.locator("#a-network optgroup").evaluate_all(
        "(groups) => groups.map((group) =>"
        " [group.label, [...group.children].map((choice) => choice.value)])"
    )
    offered = [name for _, names in groups for name in names]
    assert sorted(offered) == sorted(menu())
    for label, names in groups:
        read = {format_shape(architecture(name).input_shape) for name in names}
        assert label == f"reads {'×'.join(read.pop().split('x'))}"
        assert not read


def test_where_there_are_no_inner_layers_there_is_no_window_to_choose(page: Page) -> None:
    window = page.get_by_label("Their window")
    evaluated(page, CONFIGURE, {"a-network": OWN, "a-kernel": 3})
    with_layers = evaluated(page, READ)["rows"]["a"]["parameters"]
    expect(window.first).to_be_enabled()
    page.locator("#a-layers").select_option("0")
    expect(window.first).to_be_disabled()
    page.locator("#a-layers").select_option("2")
    assert evaluated(page, READ)["rows"]["a"]["parameters"] == with_layers


# ---------------------------------------------------------------- wrong values


@pytest.mark.parametrize("batch", ["0", "-3"])
def test_a_batch_below_one_is_refused_in_pythons_words(page: Page, batch: str) -> None:
    evaluated(page, CONFIGURE, {"batch": batch})
    with pytest.raises(NinlabError) as error:
        Calculator(batch_size=int(batch))
    shown = evaluated(page, READ)
    assert shown["refusals"]["shared"] == str(error.value)
    assert shown["rows"] == {}


@pytest.mark.parametrize(
    ("field", "value", "sentence"),
    [
        ("batch", "", "the batch size must be a whole number of at least 1"),
        ("batch", "1.5", "the batch size must be a whole number of at least 1"),
        ("batch", "9" * 20, f"the batch size must be at most {LARGEST_EXACT:,}, not {'9' * 20}"),
        ("a-height", "0", "the image height must be at least 1, not 0"),
        ("a-width", "", "the image width must be a whole number of at least 1"),
    ],
)
def test_what_is_no_number_is_refused_beside_its_field(
    page: Page, field: str, value: str, sentence: str
) -> None:
    evaluated(page, CONFIGURE, {field: value})
    place = "shared" if field == "batch" else "a"
    assert evaluated(page, READ)["refusals"][place] == sentence
    wrong = page.locator(f"#{field}")
    assert wrong.get_attribute("aria-invalid") == "true"
    assert (
        wrong.evaluate(
            "(field) => field.getRootNode().getElementById("
            "field.getAttribute('aria-describedby')).textContent"
        )
        == sentence
    )
    assert "NaN" not in page.locator(".ninlab-calculator").inner_text()


def test_nothing_moves_under_who_types_another_batch(page: Page) -> None:
    height = "(host) => host.offsetHeight"
    before = evaluated(page, height)
    evaluated(page, CONFIGURE, {"batch": ""})
    shown = evaluated(page, READ)
    assert shown["rows"] == {}
    line = page.locator("#refusal").bounding_box()
    assert line is not None
    # What refuses the value is the only thing that comes in between, with the gap of its grid.
    assert 0 <= evaluated(page, height) - before <= 2 * line["height"]


def test_another_size_begins_with_that_of_the_device_before(page: Page) -> None:
    page.locator("#memory").select_option("t4")
    page.locator("#memory").select_option(OTHER_SIZE)
    size = int(page.locator("#gibibytes").input_value())
    assert size == DEVICES["t4"].memory_bytes // 2**30
    assert set(evaluated(page, READ)["refusals"].values()) == {""}


def test_the_other_network_stays_when_one_is_refused(page: Page) -> None:
    evaluated(page, CONFIGURE, {"a-height": 20})
    shown = evaluated(page, READ)
    assert shown["refusals"]["a"].startswith("nin cannot read 1x20x224")
    assert shown["rows"].keys() == {"b"}


def test_beyond_exact_numbers_the_largest_batch_that_counts_is_named(page: Page) -> None:
    evaluated(page, CONFIGURE, {"a-network": "vgg19", "b-network": NONE, "batch": 10**9})
    sentence = evaluated(page, READ)["refusals"]["a"]
    largest = int(re.search(r"can count is ([\d,]+)$", sentence)[1].replace(",", ""))
    assert largest == largest_batch(timeline(architecture("vgg19")), LARGEST_EXACT)
    evaluated(page, CONFIGURE, {"batch": largest})
    shown = evaluated(page, READ)["rows"]["a"]
    assert (
        shown["training"][0]
        == tensor_peak(timeline(architecture("vgg19")), largest).tensor_peak_bytes
    )
    evaluated(page, CONFIGURE, {"batch": largest + 1})
    assert evaluated(page, READ)["refusals"]["a"]


def test_an_image_beyond_exact_numbers_is_refused(page: Page) -> None:
    evaluated(page, CONFIGURE, {"a-height": 10**9, "a-width": 10**9})
    assert "choose a smaller image" in evaluated(page, READ)["refusals"]["a"]


# ---------------------------------------------------------------- address


def test_an_address_brings_back_the_configuration(browser: Browser, address: str) -> None:
    rng = random.Random(SEED)
    given = random_configuration(rng)
    while given.sides["a"].fields["network"] != OWN or given.counted != list(given.expected):
        given = random_configuration(rng)
    with opened(browser, f"{address}/index.html") as page:
        evaluated(page, CONFIGURE, given.fields)
        page.wait_for_url("**#calculator&**")
        link, before = page.url, evaluated(page, READ)
    assert_shown(before, given)
    with opened(browser, link) as page:
        assert evaluated(page, READ) == before
        page.evaluate("location.hash = 'calculator&a-network=lenet&b-network=none-such&batch=3'")
        expect(page.locator("#batch")).to_have_value("3")
        assert page.locator("#a-network").input_value() == "lenet"
        told = page.get_by_text("the address asks for what is no choice here")
        assert told.inner_text().endswith(": b-network=none-such")
        page.locator("#batch").fill("4")
        expect(told).to_have_count(0)


def test_an_address_means_the_same_whatever_stood_there_before(
    browser: Browser, address: str
) -> None:
    link = f"{address}/index.html#calculator&a-network=vgg16&batch=32"
    with opened(browser, link) as page:
        alone = evaluated(page, READ)
    with opened(browser, f"{address}/index.html") as page:
        evaluated(page, CONFIGURE, {"b-network": OWN, "b-height": 96, "optimizer": "adam"})
        page.evaluate("(hash) => { location.hash = hash }", link.partition("#")[2])
        expect(page.locator("#a-network")).to_have_value("vgg16")
        assert evaluated(page, READ) == alone


def test_one_can_start_again(page: Page) -> None:
    before = evaluated(page, READ)
    changed = {"a-network": OWN, "a-layers": 0, "batch": 7, "units": "decimal", "memory": "t4"}
    evaluated(page, CONFIGURE, changed)
    assert evaluated(page, READ) != before
    page.get_by_role("button", name="Start again").click()
    assert evaluated(page, READ) == before


def test_a_foreign_address_is_left_alone(browser: Browser, folder: Path) -> None:
    with opened(browser, f"{folder.as_uri()}/index.html#some-section") as page:
        assert page.url.endswith("#some-section")
        assert_shown(evaluated(page, READ), START)


# ---------------------------------------------------------------- readers


def test_a_keyboard_and_labels_are_enough(page: Page) -> None:
    page.get_by_label("Batch size").fill("1")
    page.get_by_label("Optimizer").select_option("adam")
    assert_shown(evaluated(page, READ), replace(START, batch=1, optimizer="adam"))
    slider = page.get_by_label("Moment of the training step of NiN")
    peak = slider.get_attribute("aria-valuetext")
    slider.focus()
    page.keyboard.press("ArrowRight")
    assert slider.get_attribute("aria-valuetext") != peak
    page.keyboard.press("Home")
    assert slider.get_attribute("aria-valuetext").startswith("setup")
    page.get_by_text("Copy as Python or as a command").press("Enter")
    assert page.get_by_role("button", name="Copy as command").is_visible()


def test_a_finger_on_the_curve_chooses_the_moment(browser: Browser, folder: Path) -> None:
    phone = {"viewport": {"width": 390, "height": 844}, "has_touch": True}
    with opened(browser, f"{folder.as_uri()}/index.html", **phone) as page:
        readout = page.locator("figure[data-side=a] output")
        expect(readout).to_contain_text("the peak")
        page.locator("figure[data-side=a] svg").tap(position={"x": 1, "y": 100})
        expect(readout).to_contain_text(re.compile("^setup"))


def test_every_field_can_be_reached_by_tab_and_has_a_label(page: Page) -> None:
    page.locator("#a-network").focus()
    reached = []
    for _ in range(20):
        reached.append(
            page.evaluate("() => document.activeElement.shadowRoot?.activeElement?.id ?? ''")
        )
        page.keyboard.press("Tab")
    fields = [
        "a-network",
        "a-height",
        "a-width",
        "b-network",
        "b-height",
        "b-width",
        "batch",
        "optimizer",
        "precision",
        "memory",
        "units",
    ]
    assert reached[: len(fields)] == fields
    assert {"a-moment", "b-moment"} <= set(reached)
    assert page.locator("input, select").evaluate_all(
        "(fields) => fields.every((field) => field.labels.length || field.ariaLabel)"
    )


def test_a_screen_reader_is_told_the_result_once_it_rests(page: Page) -> None:
    summary = page.locator(".summary")
    assert summary.get_attribute("aria-live") == "polite"
    page.get_by_label("Batch size").fill("2")
    expect(summary).to_contain_text("batch of 2 ")
    assert summary.inner_text().count("NiN at 1×224×224 has 1.99 M parameters") == 1


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1000])
def test_no_barrier_and_no_sideways_scrolling_in_either_theme(
    browser: Browser, folder: Path, theme: str, width: int
) -> None:
    colors = {"light": "color: #222; background: #fff", "dark": "color: #ddd; background: #121212"}
    page_file = folder / f"{theme}.html"
    page_file.write_text(document(Calculator(), style=f"body {{ {colors[theme]} }}"))
    with opened(browser, page_file.as_uri(), viewport={"width": width, "height": 844}) as page:
        for fields in (
            {},
            {"a-network": OWN, "batch": 0},
            {"batch": 10**5, "units": "exact", "memory": "other", "gibibytes": 3},
        ):
            evaluated(page, CONFIGURE, fields)
            page.locator("details").evaluate("(details) => { details.open = true; }")
            assert page.locator(".ninlab-calculator").get_attribute("data-theme") == theme
            assert barriers(page) == []
            assert sideways_pixels(page) <= 0


def test_the_theme_follows_the_page_around_it(page: Page) -> None:
    host = page.locator(".ninlab-calculator")
    assert host.get_attribute("data-theme") == "light"
    page.add_style_tag(content="[data-theme=dark] body { color: white; background: black }")
    page.evaluate("document.documentElement.dataset.theme = 'dark'")
    page.wait_for_selector(".ninlab-calculator[data-theme=dark]")


def test_paper_gets_the_table_of_the_first_state(page: Page) -> None:
    assert not page.get_by_text("a calculator stands here").is_visible()
    assert not page.locator("table.dataframe").is_visible()
    page.emulate_media(media="print")
    assert page.locator("table.dataframe").is_visible()
    assert not page.locator("#batch").is_visible()


def test_without_a_script_the_table_of_the_first_state_stands(
    browser: Browser, folder: Path
) -> None:
    with opened(browser, f"{folder.as_uri()}/index.html", java_script_enabled=False) as page:
        assert page.get_by_text("a calculator stands here").is_visible()
        rows = page.locator("table.dataframe tbody tr")
        for i, name in enumerate(("nin", "alexnet", "vgg11")):
            network = architecture(name)
            expected, _ = counted(Side({}, network, network.input_shape[1:]), START)
            names = ("parameters", "macs", "saved", "training", "inference")
            assert rows.nth(i).locator("th, td").all_inner_texts() == [
                network.title,
                format_shape(network.input_shape),
                *(written(one, expected[one]) for one in names),
            ]


# ---------------------------------------------------------------- places


def test_it_works_in_an_isolated_frame(browser: Browser, folder: Path) -> None:
    with opened_frame(browser, f"{folder.as_uri()}/isolated.html") as frame:
        evaluated(frame, CONFIGURE, {"batch": 7})
        assert_shown(evaluated(frame, READ), replace(START, batch=7))


@contextmanager
def opened_frame(browser: Browser, url: str) -> Iterator[Frame]:
    context = browser.new_context()
    page = context.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(url)
    frame = page.frames[1]
    wait_until_ready(frame)
    yield frame
    assert not errors
    context.close()


def test_two_calculators_of_a_page_do_not_disturb_each_other(
    browser: Browser, folder: Path
) -> None:
    with opened(browser, f"{folder.as_uri()}/two.html") as page:
        evaluated(page, CONFIGURE, {"batch": 1})
        assert_shown(evaluated(page, READ), replace(START, batch=1))
        second = page.locator(".ninlab-calculator").nth(1).evaluate(READ)
        assert second["rows"]["a"]["parameters"][0] == parameters(architecture("lenet"))
