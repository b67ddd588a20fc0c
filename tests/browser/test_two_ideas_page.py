"""The picture of the two ideas as readers meet it: by mouse, finger, keyboard, ear and on paper."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from playwright.sync_api import Browser, Page, expect

from ninlab import records
from ninlab.data import CLASS_NAMES, fashion_mnist
from ninlab.training import load_network
from ninlab.two_ideas import TwoIdeas, two_ideas
from tests.browser.test_pages import barriers, sideways_pixels

pytestmark = pytest.mark.browser

RUN = "collapse/nin_28-seed0-cpu"  # the one that the first page of the book shows
LAYER = "block1.conv2"
PATIENCE = 30_000  # milliseconds for a busy machine
WALK = 6 * 600  # milliseconds that the picture moves by itself
CARRIED = 1e-4  # numbers of up to 4, each carried with four decimals, and products of two of them
SIDE = 14  # pixels of a map
STILL = {"reduced_motion": "reduce"}
MOVE = """
(host, [row, column]) => {
    const map = host.querySelector(".map");
    const { left, top, width, height } = map.getBoundingClientRect();
    const at = (number, from, size) => from + ((number + 0.5) * size) / 14;
    const place = { clientX: at(column, left, width), clientY: at(row, top, height) };
    map.dispatchEvent(new PointerEvent("pointermove", place));
}
"""
READ = """
(host) => ({
    numbers: [...host.querySelectorAll(".sum data")].map((cell) => [cell.value, cell.innerText]),
    place: [...host.querySelectorAll("caption b")].map((part) => Number(part.innerText)),
    said: [...host.querySelectorAll(".said")].map((line) => line.innerText),
    large: host.querySelector(".large").innerText,
})
"""


@pytest.fixture(scope="module")
def network() -> torch.nn.Module:
    return load_network(next(run for run in records.load() if run.id == RUN))


@pytest.fixture(scope="module")
def image() -> torch.Tensor:
    return fashion_mnist()[1].images[0]


@pytest.fixture(scope="module")
def picture(network: torch.nn.Module, image: torch.Tensor) -> TwoIdeas:
    return two_ideas(
        network,
        image,
        convolution=LAYER,
        classes=CLASS_NAMES,
        subject="Test image 0.",
        provenance="Measured: here.",
    )


def document(*pictures: TwoIdeas, style: str = "") -> str:
    shown = "\n".join(picture._repr_html_() for picture in pictures)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Ideas</title>'
        '<meta name="viewport" content="width=device-width"><link rel="icon" href="data:,">'
        f"<style>{style}</style></head><body><main><h1>Ideas</h1>{shown}</main></body></html>"
    )


@pytest.fixture(scope="module")
def folder(picture: TwoIdeas, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pages with nothing but the picture."""
    folder = tmp_path_factory.mktemp("two_ideas")
    (folder / "index.html").write_text(document(picture))
    (folder / "two.html").write_text(document(picture, picture))
    return folder


@contextmanager
def opened(browser: Browser, file: Path, **options: Any) -> Iterator[Page]:
    """A page of that folder; at the end it has asked and complained of nothing."""
    context = browser.new_context(**options)
    context.set_default_timeout(PATIENCE)
    page, trouble = context.new_page(), list[str]()
    page.on("pageerror", lambda error: trouble.append(str(error)))
    page.on("request", lambda request: trouble.append(request.url))
    page.goto(file.as_uri())
    yield page
    assert [one for one in trouble if not one.startswith("data:")] == [file.as_uri()]
    context.close()


@pytest.fixture
def page(browser: Browser, folder: Path) -> Iterator[Page]:
    with opened(browser, folder / "index.html", **STILL) as page:
        yield page


def read(page: Page, which: int = 0) -> dict[str, Any]:
    return page.locator(".ninlab-two-ideas").nth(which).evaluate(READ)


def move(page: Page, row: int, column: int) -> None:
    page.locator(".ninlab-two-ideas").first.evaluate(MOVE, [row, column])


def written(value: float) -> str:
    """A score as a page writes it."""
    text = f"{value:.1f}"
    return text.replace("-", "−" if float(text) else "")


def output(page: Page) -> str:
    """Which output is chosen, its row and its column."""
    return page.locator(".sum caption").inner_text()


# ---------------------------------------------------------------- numbers


@torch.no_grad()
def through(network: torch.nn.Module, image: torch.Tensor, layers: list[str]) -> torch.Tensor:
    value = image[None].float() / 255
    for path in layers:
        value = network.get_submodule(path)(value)
    return value[0]


def test_every_sum_on_the_page_is_what_torch_computes(
    page: Page, picture: TwoIdeas, network: torch.nn.Module, image: torch.Tensor
) -> None:
    layer, of = network.get_submodule(LAYER), picture.mixing
    values = through(network, image, ["block1.conv1", "block1.relu1"])
    sums = through(network, image, ["block1.conv1", "block1.relu1", LAYER])
    rng = random.Random(20130)
    for chosen in of.outputs:
        page.get_by_role("button", name=f"output {chosen}", exact=False).click()
        for _ in range(12):
            row, column = rng.randrange(SIDE), rng.randrange(SIDE)
            move(page, row, column)
            shown = read(page)
            assert shown["place"] == [chosen, row, column]
            numbers = [float(value) for value, _ in shown["numbers"]]
            *terms, rest, bias, total = numbers
            expected = [
                number
                for channel in of.inputs
                for value in [values[channel, row, column].item()]
                for weight in [layer.weight[chosen, channel, 0, 0].item()]
                for number in (value, weight, value * weight)
            ]
            assert terms == pytest.approx(expected, abs=2 * CARRIED)
            assert bias == pytest.approx(layer.bias[chosen].item(), abs=CARRIED)
            assert total == pytest.approx(sums[chosen, row, column].item(), abs=CARRIED)
            assert sum(terms[2::3]) + rest + bias == pytest.approx(total, abs=1e-12)
            for value, text in shown["numbers"]:
                assert float(text.replace("−", "-")) == pytest.approx(float(value), abs=0.00501)
                assert text != "−0.00"
            products = slice(2, len(terms), 3)
            told = [text for _, text in shown["numbers"]]
            del told[products]  # a sentence has the factors
            assert all(text in shown["said"][0] for text in told)


def test_every_class_shows_its_values_and_their_mean_which_is_the_networks_score(
    page: Page, picture: TwoIdeas, network: torch.nn.Module, image: torch.Tensor
) -> None:
    with torch.no_grad():
        scores = network(image[None].float() / 255)[0]
    for number, (name, values) in enumerate(picture.class_maps.items()):
        button = page.locator(f"[data-class='{name}']")
        button.click()
        shown = read(page)
        score = written(scores[number])
        for value in (cell for line in values for cell in line):
            assert written(value) in shown["large"]
        assert f"mean: {score}" in shown["large"]
        assert shown["said"][1].startswith(f"{name}: (")
        assert f" ÷ 4 = {score}." in shown["said"][1]
        assert ("highest" in shown["said"][1]) == (number == scores.argmax())
        assert button.get_attribute("aria-pressed") == "true"
    assert page.locator(".classes [aria-pressed=true]").count() == 1


# ---------------------------------------------------------------- readers


def test_without_a_script_and_on_paper_the_first_sum_and_all_scores_stand(
    browser: Browser, folder: Path, page: Page, picture: TwoIdeas
) -> None:
    with opened(browser, folder / "index.html", java_script_enabled=False) as still:
        text = still.locator("main").inner_text()
        assert "Point at" not in text
        for name, score in picture.scores.items():
            assert re.search(rf"{name}\s+{written(score)}", text), name
        rows = still.locator(".sum tbody tr").all_inner_texts()
        assert rows == page.locator(".sum tbody tr").all_inner_texts()
        assert len(rows) == len(picture.mixing.inputs) + 3
    assert page.get_by_text("Point at").is_visible()
    page.emulate_media(media="print")
    assert not page.get_by_text("Point at").is_visible()
    assert page.locator(".sum").is_visible()


def test_what_the_script_writes_first_is_what_stood_there(page: Page) -> None:
    before = read(page)
    _, row, column = before["place"]
    move(page, row, column - 1)
    assert read(page)["said"] != before["said"]
    move(page, row, column)
    page.get_by_role("button", name="Bag").click()
    page.get_by_role("button", name="Ankle boot").click()
    after = read(page)
    assert after["said"] == before["said"]
    assert after["large"] == before["large"]
    assert [text for _, text in after["numbers"]] == [text for _, text in before["numbers"]]


def test_the_arrow_keys_move_the_pixel_and_stop_at_the_border(page: Page) -> None:
    slider = page.get_by_role("slider", name="Pixel of the maps")
    slider.focus()
    page.keyboard.press("Home")
    for _ in range(SIDE):
        page.keyboard.press("ArrowUp")
    assert slider.get_attribute("aria-valuetext") == "row 0, column 0"
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("End")
    assert slider.get_attribute("aria-valuetext") == f"row 1, column {SIDE - 1}"
    assert slider.get_attribute("aria-valuenow") == str(2 * SIDE - 1)
    assert output(page).endswith(f"at row 1, column {SIDE - 1}")


def test_a_finger_chooses_pixel_and_output_and_finds_all_in_a_narrow_column(
    browser: Browser, folder: Path
) -> None:
    phone = {"viewport": {"width": 390, "height": 844}, "has_touch": True, **STILL}
    with opened(browser, folder / "index.html", **phone) as page:
        page.locator(".inputs .map").first.tap(position={"x": 2, "y": 2})
        assert output(page).endswith("at row 0, column 0")
        button = page.locator("[data-output]").last
        button.locator(".map").tap(position={"x": 2, "y": 20})
        assert output(page).startswith(f"Output {button.get_attribute('data-output')} ")
        assert output(page).endswith(", column 0")
        assert button.get_attribute("aria-pressed") == "true"
        assert sideways_pixels(page) <= 0


def test_a_screen_reader_hears_the_sum_only_after_its_reader_asked(page: Page) -> None:
    lines = page.locator(".said")
    assert [line.get_attribute("aria-live") for line in lines.all()] == ["off", "off"]
    page.get_by_role("slider").press("ArrowLeft")
    assert [line.get_attribute("aria-live") for line in lines.all()] == ["polite", "polite"]


def test_the_pixel_walks_once_and_rests_at_the_first_touch(browser: Browser, folder: Path) -> None:
    with opened(browser, folder / "index.html", reduced_motion="no-preference") as page:
        start = output(page)
        expect(page.locator(".sum caption")).not_to_have_text(start)
        page.locator(".inputs").focus()
        touched = output(page)
        page.wait_for_timeout(WALK)
        assert output(page) == touched


def test_the_walk_ends_where_it_began(browser: Browser, folder: Path) -> None:
    with opened(browser, folder / "index.html", reduced_motion="no-preference") as page:
        start = output(page)
        expect(page.locator(".sum caption")).not_to_have_text(start)
        expect(page.locator(".sum caption")).to_have_text(start)
        page.wait_for_timeout(WALK)
        assert output(page) == start


def test_nothing_moves_for_a_reader_who_asks_for_rest(page: Page) -> None:
    start = output(page)
    page.wait_for_timeout(WALK)
    assert output(page) == start


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1000])
def test_no_barrier_and_no_sideways_scrolling_in_either_theme(
    browser: Browser, picture: TwoIdeas, tmp_path: Path, theme: str, width: int
) -> None:
    colors = {"light": "color: #222; background: #fff", "dark": "color: #ddd; background: #121212"}
    file = tmp_path / "page.html"
    file.write_text(document(picture, style=f"body {{ {colors[theme]} }}"))
    with opened(browser, file, viewport={"width": width, "height": 844}, **STILL) as page:
        for name in ("Trouser", "Ankle boot"):
            page.get_by_role("button", name=name).click()
            assert barriers(page) == []
            assert sideways_pixels(page) <= 0


def test_two_pictures_of_a_page_do_not_disturb_each_other(browser: Browser, folder: Path) -> None:
    with opened(browser, folder / "two.html", **STILL) as page:
        before = read(page, 1)
        move(page, 0, 0)
        assert read(page)["place"][1:] == [0, 0]
        assert read(page, 1) == before
