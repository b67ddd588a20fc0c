"""The pages as a browser shows them: complete, readable, and needing only their own files."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from zipfile import ZipFile

import pytest
from PIL import Image
from playwright.sync_api import Browser, ConsoleMessage, Page

from ninlab import bookext, figures
from tests import book

pytestmark = pytest.mark.browser

AXE = files("axe_playwright_python").joinpath("axe.min.js").read_text()
GRAVE = {"serious", "critical"}
OF_COLORS = ("color-contrast", "link-in-text-block")  # the rules that a theme makes a difference to
PATIENCE = 60_000  # milliseconds, for a busy machine; a page that is ready sooner is not waited for


@dataclass(frozen=True)
class View:
    """How a page is looked at."""

    name: str
    width: int
    height: int
    theme: str
    from_folder: bool = False

    def __str__(self) -> str:
        return self.name


VIEWS = (
    View("desk-light", 1280, 900, "light"),
    View("desk-dark", 1280, 900, "dark"),
    View("phone-dark-from-folder", 390, 844, "dark", from_folder=True),
)
BOTH_WIDTHS = VIEWS[0], VIEWS[2]  # and both themes, and from a server as from a folder


@dataclass
class Trouble:
    """What went wrong behind a page."""

    requests: list[str] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)


@contextmanager
def opened(
    browser: Browser, site: str, document: str, view: View
) -> Iterator[tuple[Page, Trouble]]:
    """A page in its final state: figures drawn, equations set, scripts idle."""
    home = book.HTML.as_uri() if view.from_folder else site
    context = browser.new_context(
        viewport={"width": view.width, "height": view.height}, color_scheme=view.theme
    )
    context.set_default_timeout(PATIENCE)
    page, trouble = context.new_page(), Trouble()

    def seen(url: str) -> None:
        if not url.startswith((home, "data:", "blob:")):
            trouble.requests.append(url)

    def complain(message: ConsoleMessage) -> None:
        if message.type == "error":
            trouble.messages.append(f"{message.text} ({message.location.get('url')})")

    page.on("request", lambda request: seen(request.url))
    page.on("pageerror", lambda error: trouble.messages.append(str(error)))
    page.on("console", complain)
    page.on("requestfailed", lambda request: trouble.messages.append(f"failed: {request.url}"))
    page.goto(f"{home}/{document}.html", wait_until="load")
    page.wait_for_load_state("networkidle")
    page.evaluate(
        """async (patience) => {
            await window.MathJax?.startup?.promise;
            const pending = () => document.querySelector('.ninlab-figure:not([data-state=drawn])');
            for (const start = performance.now(); pending(); ) {
                if (performance.now() - start > patience) break;
                await new Promise((resume) => setTimeout(resume, 50));
            }
        }""",
        PATIENCE if page.locator(".ninlab-figure").count() else 0,
    )
    yield page, trouble
    context.close()


def drawn_figures(page: Page) -> int:
    """Figures in which something can be seen: an area, and at least one mark in it."""
    return page.evaluate(
        """() => [...document.querySelectorAll('.ninlab-figure[data-state=drawn]')].filter(
            (figure) => {
                const { width, height } = figure.querySelector('.main-svg').getBoundingClientRect();
                const marks = '.trace, .slice, .shapelayer path, .main-svg image, canvas';
                return width > 100 && height > 100 && figure.querySelector(marks);
            }).length"""
    )


def images_without_text(page: Page) -> list[str]:
    """Images and figures that say nothing to somebody who cannot see them."""
    return page.evaluate(
        """() => [
            ...[...document.querySelectorAll('img')].filter((image) => !image.alt.trim()),
            ...[...document.querySelectorAll('.ninlab-figure')].filter(
                (figure) => !figure.getAttribute('aria-label')?.trim()),
        ].map((element) => element.outerHTML.slice(0, 120))"""
    )


def repeated_ids(page: Page) -> list[str]:
    """Ids that more than one element of the page has."""
    return page.evaluate(
        """() => {
            const ids = [...document.querySelectorAll('[id]')].map((element) => element.id);
            return [...new Set(ids.filter((id, i) => ids.indexOf(id) !== i))];
        }"""
    )


def texts_in_the_way(page: Page) -> list[str]:
    """Texts of figures that are cut off at a side, or that lie on one another."""
    return page.evaluate(
        """() => [...document.querySelectorAll('.ninlab-figure')].flatMap((figure) => {
            const whole = figure.getBoundingClientRect();
            const shown = (text) => {  // of the figure; of what stands at a mark, the plot's part
                const clipped = text.closest('[clip-path]');
                const id = clipped?.getAttribute('clip-path').match(/#([^'")]+)/)?.[1];
                const cut = id && document.getElementById(id)?.querySelector('rect');
                if (!cut) return whole;
                const { e, f } = clipped.getScreenCTM();
                const [x, y, width, height] = ['x', 'y', 'width', 'height']
                    .map((side) => Number(cut.getAttribute(side) ?? 0));
                return new DOMRect(e + x, f + y, width, height);
            };
            const name = figure.closest('figure')?.id;
            const texts = [...figure.querySelectorAll('.main-svg text')]
                .filter((text) => text.textContent.trim() && getComputedStyle(text).opacity > 0)
                .map((text) => {
                    const { left, right, top, bottom } = text.getBoundingClientRect();
                    // A box has room above and below its letters; a slanted text fills no box.
                    const slant = Math.abs(text.getCTM().b);
                    return { says: text.textContent.trim(), left, right, top: top + 2,
                             bottom: bottom - 2, fills: slant < 0.01 || slant > 0.99,
                             frame: shown(text) };
                })
                .filter(({ left, right }) => right > left);
            const meet = (one, other) => one.fills && other.fills
                && one.left < other.right - 1 && other.left < one.right - 1
                && one.top < other.bottom - 1 && other.top < one.bottom - 1;
            return texts.flatMap((one, i) => [
                ...(one.left < one.frame.left - 1 || one.right > one.frame.right + 1
                    || one.top < one.frame.top - 1 || one.bottom > one.frame.bottom + 1
                    ? [`${name}: ${one.says} is cut off`] : []),
                ...texts.slice(i + 1).filter((other) => meet(one, other))
                    .map((other) => `${name}: ${one.says} lies on ${other.says}`),
            ]);
        })"""
    )


def unset_equations(page: Page) -> list[str]:
    """Equations that MathJax left as source or marked as wrong."""
    return page.evaluate(
        """() => [...document.querySelectorAll('.math')].filter(
            (math) => !math.querySelector('mjx-container') || math.querySelector('mjx-merror')
        ).map((math) => math.textContent.trim().slice(0, 80))"""
    )


def sideways_pixels(page: Page) -> int:
    """By how many pixels the page is wider than the window."""
    return page.evaluate(
        "() => document.documentElement.scrollWidth - document.documentElement.clientWidth"
    )


def cut_off(page: Page) -> list[str]:
    """Tables and code of the page, in folds too, that scroll sideways and are not marked to."""
    return page.evaluate(
        """() => {
            for (const fold of document.querySelectorAll('details')) fold.open = true;
            for (const box of document.querySelectorAll('.toggle-hidden'))
                box.classList.remove('toggle-hidden');
            const boxes = '.bd-article :is(table, pre, .pst-scrollable-table-container)';
            return [...document.querySelectorAll(boxes)]
                .filter((box) => box.scrollWidth > box.clientWidth)
                .filter((box) => !box.closest('.ninlab-scrolls'))
                .map((box) => `${box.localName}: ${box.textContent.trim().slice(0, 60)}`);
        }"""
    )


def theme(page: Page) -> str:
    """The theme that the page is shown in, light or dark."""
    return page.evaluate("() => document.documentElement.dataset.theme")


def barriers(page: Page, rules: Sequence[str] | None = ()) -> list[str]:
    """What axe-core calls serious or critical by these of its rules: all of them for ().

    For None it is not asked.
    """
    if rules is None:
        return []
    # A fold that is still fading in is pale: axe-core is asked about what the reader comes to see.
    page.evaluate(
        """() => document.getAnimations().forEach((motion) => {
            const endless = motion.effect?.getComputedTiming().endTime === Infinity;
            return endless ? motion.cancel() : motion.finish();
        })"""
    )
    page.evaluate(AXE)
    violations = page.evaluate(
        """async (rules) => (await axe.run(document, {
            resultTypes: ['violations'],
            preload: false,  // it would fetch the page's own style sheets, which a folder forbids
            ...(rules.length && { runOnly: rules }),
        })).violations""",
        list(rules),
    )
    return [
        f"{violation['id']}: {violation['help']}: {', '.join(map(str, node['target']))}"
        for violation in violations
        if violation["impact"] in GRAVE
        for node in violation["nodes"]
    ]


def test_the_pages_built_are_those_of_the_table_of_contents() -> None:
    built = {
        path.relative_to(book.HTML).with_suffix("").as_posix()
        for path in book.HTML.rglob("*.html")
        if "_static" not in path.parts
    }
    expected = {*book.documents(), *book.SPHINX_PAGES}
    assert built == expected, "a page of an earlier build? `make clean` removes it"


def test_every_captioned_cell_put_out_a_figure() -> None:
    for document in book.documents():
        path = book.source(document)
        if path.suffix == ".ipynb":
            html = (book.HTML / f"{document}.html").read_text()
            for label in book.figure_labels(path):
                assert f'<figure class="align-default" id="{label}"' in html, f"{document}: {label}"


def test_no_page_shows_a_python_object_in_place_of_what_it_says() -> None:
    for document in book.documents():
        html = (book.HTML / f"{document}.html").read_text()
        shown = re.findall(r"&lt;[\w.]+(?: object)?(?: at 0x\w+)?&gt;", html)
        assert not [one for one in shown if "." in one or "0x" in one], document


@pytest.mark.parametrize("view", BOTH_WIDTHS, ids=str)
@pytest.mark.parametrize("document", [*book.documents(), *book.SPHINX_PAGES])
def test_a_page_is_complete_and_readable_in_its_first_theme_and_in_the_other(
    browser: Browser, site: str, document: str, view: View
) -> None:
    expected = 0 if document in book.SPHINX_PAGES else book.figures_drawn_by(document)
    other = "dark" if view.theme == "light" else "light"
    then = OF_COLORS if view == VIEWS[0] else None  # which are the same on a phone
    with opened(browser, site, document, view) as (page, trouble):
        for shown, rules in ((view.theme, ()), (other, then)):
            page.emulate_media(color_scheme=shown)
            page.wait_for_function(f"() => document.documentElement.dataset.theme === '{shown}'")
            faults = [
                *(f"no alternative text: {element}" for element in images_without_text(page)),
                *(f"equation not set: {equation}" for equation in unset_equations(page)),
                *(f"more than one element has the id {id_}" for id_ in repeated_ids(page)),
                *(f"in a figure: {text}" for text in texts_in_the_way(page)),
                *(f"barrier (axe-core): {barrier}" for barrier in barriers(page, rules)),
                *(f"request to another host: {url}" for url in trouble.requests),
                *(f"in the console: {message}" for message in trouble.messages),
            ]
            assert not faults, f"{shown}: " + "\n".join(faults)
            assert drawn_figures(page) == expected
            assert sideways_pixels(page) <= 0
        assert cut_off(page) == []
        assert sideways_pixels(page) <= 0


def ink(page: Page) -> str:
    """The color of the first figure's axis labels or titles."""
    return page.evaluate(
        "() => getComputedStyle(document.querySelector('.ninlab-figure .main-svg text')).fill"
    )


@pytest.fixture
def illustrated() -> str:
    """The first page with a figure."""
    return next(document for document in book.documents() if book.figures_drawn_by(document))


@pytest.fixture
def desk(browser: Browser, site: str, illustrated: str) -> Iterator[Page]:
    """That page on a desk, in the light."""
    with opened(browser, site, illustrated, VIEWS[0]) as (page, _):
        yield page


def test_figures_follow_the_theme_switch(desk: Page) -> None:
    on_light = ink(desk)
    for _ in ("auto", "light", "dark"):  # a full turn of the switch, from wherever it starts
        desk.locator("button.theme-switch-button:visible").first.click()
        if theme(desk) == "dark":
            break
    assert theme(desk) == "dark"
    assert ink(desk) != on_light


def test_a_dark_page_is_printed_with_dark_ink(
    browser: Browser, site: str, illustrated: str, desk: Page
) -> None:
    on_light = ink(desk)
    with opened(browser, site, illustrated, VIEWS[1]) as (page, _):
        on_dark = ink(page)
        page.evaluate("() => dispatchEvent(new Event('beforeprint'))")
        assert theme(page) == "light"
        assert ink(page) == on_light != on_dark
        page.evaluate("() => dispatchEvent(new Event('afterprint'))")
        assert theme(page) == "dark"
        assert ink(page) == on_dark


A4_COLUMN = 658  # CSS pixels of 210 mm less two margins of 18 mm


def test_figures_fit_on_paper_and_come_back_to_the_screen(desk: Page) -> None:
    beyond = """() => [...document.querySelectorAll('.ninlab-figure')].map((figure) =>
        figure.querySelector('.main-svg').getBoundingClientRect().width - figure.clientWidth)"""
    desk.evaluate("() => dispatchEvent(new Event('beforeprint'))")
    desk.set_viewport_size({"width": A4_COLUMN, "height": 900})
    desk.emulate_media(media="print")
    assert max(desk.evaluate(beyond)) <= 0
    assert desk.get_by_role("link", name="Data (csv)").count() == 0
    assert not desk.locator(".ninlab-code").first.is_visible()
    desk.emulate_media(media="screen")
    desk.set_viewport_size({"width": VIEWS[0].width, "height": VIEWS[0].height})
    desk.evaluate("() => dispatchEvent(new Event('afterprint'))")
    desk.wait_for_function(f"() => ({beyond})().every((pixels) => pixels === 0)")


def test_figures_follow_their_column_also_where_the_window_stays(desk: Page) -> None:
    width = "() => document.querySelector('.ninlab-figure').clientWidth"
    beside = """() => [...document.querySelectorAll('.ninlab-figure')].every((figure) =>
        figure.querySelector('.main-svg').clientWidth === figure.clientWidth)"""
    before = desk.evaluate(width)
    desk.add_style_tag(content="article.bd-article { padding-right: 200px !important }")
    desk.wait_for_function(beside)
    assert desk.evaluate(width) < before


def test_a_figure_scrolls_in_a_column_that_is_too_narrow_for_its_texts(
    browser: Browser, site: str, illustrated: str
) -> None:
    smallest = View("smallest", 320, 640, "light")  # of WCAG 2.2, success criterion 1.4.10
    with opened(browser, site, illustrated, smallest) as (page, trouble):
        assert sideways_pixels(page) <= 0
        figure = page.locator(".ninlab-figure").first
        assert figure.evaluate("(figure) => figure.scrollWidth > figure.clientWidth")
        figure.focus()
        page.keyboard.press("ArrowRight")
        page.wait_for_function("(figure) => figure.scrollLeft > 0", arg=figure.element_handle())
        assert trouble.messages == []


@pytest.mark.parametrize("from_folder", [False, True], ids=["http", "file"])
def test_the_numbers_of_every_captioned_figure_can_be_had_without_a_script(
    browser: Browser, site: str, from_folder: bool
) -> None:
    home = book.HTML.as_uri() if from_folder else site
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    for document in filter(book.figures_drawn_by, book.documents()):
        page.goto(f"{home}/{document}.html", wait_until="domcontentloaded")
        captioned = book.captioned_figures(document)
        assert list(captioned) == book.figure_labels(book.source(document))
        for label, put_out in captioned.items():
            figure = page.locator(f"figure#{label}")
            with page.expect_download() as download:
                figure.locator("figcaption").get_by_role("link", name="Data (csv)").click()
            file = Path(download.value.path()).read_text(encoding="utf-8")
            content = figure.locator('script[type="application/json"]').text_content()
            assert content == bookext.drawing(put_out), label
            assert file == figures.table(put_out).to_csv(index=False), label
    context.close()


def test_a_plot_is_saved_as_a_picture_on_white_under_its_name_in_the_dark_too(
    browser: Browser, site: str, illustrated: str, tmp_path: Path
) -> None:
    with opened(browser, site, illustrated, VIEWS[1]) as (page, _):
        figure = page.locator("figure:has(.ninlab-figure)").first
        figure.locator(".ninlab-plot").hover()
        with page.expect_download() as download:
            figure.get_by_role("button", name="Save as a PNG").click()
        assert download.value.suggested_filename == f"{figure.get_attribute('id')}.png"
        download.value.save_as(tmp_path / "plot.png")
    with Image.open(tmp_path / "plot.png") as picture:
        pixels = picture.convert("RGBA")
        corner = pixels.getpixel((0, 0))
        darkest, _ = pixels.convert("L").getextrema()
    assert corner == (255, 255, 255, 255)
    assert darkest < 128, "nothing dark is on it: is the text that of the dark theme?"


@pytest.mark.parametrize("view", BOTH_WIDTHS, ids=str)
def test_the_code_of_a_figure_opens_with_the_keyboard_and_can_be_copied(
    browser: Browser, site: str, illustrated: str, view: View
) -> None:
    with opened(browser, site, illustrated, view) as (page, trouble):
        caption = page.locator("figcaption:has(.ninlab-code)").first
        code = caption.locator("pre")
        assert not code.is_visible()
        data = caption.get_by_role("link", name="Data (csv)")
        beside = caption.locator("summary")
        assert (data.bounding_box() or {})["y"] == pytest.approx(
            (beside.bounding_box() or {})["y"], abs=30 if view.width < 400 else 3
        )
        beside.focus()
        page.keyboard.press("Enter")
        assert code.is_visible()
        assert caption.locator("button.copybtn").count() == 1
        assert barriers(page) == []
        assert trouble.messages == []


def test_without_a_script_the_code_of_a_figure_opens_too(
    browser: Browser, site: str, illustrated: str
) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{site}/{illustrated}.html", wait_until="domcontentloaded")
    fold = page.locator("figcaption .ninlab-code").first
    fold.locator("summary").click()
    assert fold.locator("pre").is_visible()
    context.close()


@pytest.fixture
def with_slider() -> str:
    """The first page with a figure that has a slider."""
    for document in book.documents():
        if '"sliders":' in (book.HTML / f"{document}.html").read_text(encoding="utf-8"):
            return document
    pytest.fail("no figure has a slider")


def visible_traces(page: Page) -> list[bool]:
    """Which traces are shown by the figure with the slider."""
    return page.evaluate(
        """() => document.querySelector('.ninlab-slider').parentElement
            .querySelector('.ninlab-plot').data.map((trace) => trace.visible !== false)"""
    )


def test_a_slider_moves_with_the_keyboard(browser: Browser, site: str, with_slider: str) -> None:
    with opened(browser, site, with_slider, VIEWS[0]) as (page, trouble):
        slider = page.get_by_role("slider").first
        before, said = visible_traces(page), slider.get_attribute("aria-valuetext")
        slider.focus()
        page.keyboard.press("ArrowRight")
        assert slider.get_attribute("aria-valuetext") != said
        assert visible_traces(page) != before
        assert sum(visible_traces(page)) == sum(before)
        page.keyboard.press("ArrowLeft")
        assert visible_traces(page) == before
        assert trouble.messages == []


def test_the_zip_holds_a_book_that_opens_without_a_network(
    browser: Browser, tmp_path: Path, illustrated: str
) -> None:
    subprocess.run(
        ["make", "--old-file=book", "zip", f"DIST={tmp_path}", f"PYTHON={sys.executable}"],
        cwd=book.ROOT,
        check=True,
    )
    (packed,) = tmp_path.iterdir()
    with ZipFile(packed) as archive:
        archive.extractall(tmp_path)
    unpacked = tmp_path / packed.stem
    context = browser.new_context(offline=True)
    page, requests = context.new_page(), list[str]()
    page.on("request", lambda request: requests.append(request.url))
    page.goto((unpacked / f"{illustrated}.html").as_uri())
    page.locator(".ninlab-figure[data-state=drawn]").first.wait_for()
    page.goto((unpacked / "index.html").as_uri())
    assert page.locator("article h1").count() == 1
    assert [url for url in requests if not url.startswith((unpacked.as_uri(), "data:"))] == []
    context.close()


def without_a_mark_of_focus(page: Page) -> list[str]:
    """What the tab key reaches, and what then looks as if it were not in focus."""
    unmarked = []
    seen: set[str] = set()
    while True:
        page.keyboard.press("Tab")
        place, text, is_marked = page.evaluate(
            """() => {
                const element = document.activeElement;
                const style = getComputedStyle(element);
                const ring = style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) > 0;
                const all = [...document.querySelectorAll('*')];
                return [String(all.indexOf(element)), element.outerHTML.slice(0, 120),
                        ring || style.boxShadow !== 'none' || element === document.body];
            }"""
        )
        if place in seen:
            return unmarked
        seen.add(place)
        if not is_marked:
            unmarked.append(text)


def test_what_has_the_keyboards_focus_can_be_seen(
    browser: Browser, site: str, with_slider: str
) -> None:
    with opened(browser, site, with_slider, VIEWS[0]) as (page, _):
        assert without_a_mark_of_focus(page) == []


def test_nothing_moves_for_a_reader_who_asks_for_rest(
    browser: Browser, site: str, illustrated: str
) -> None:
    context = browser.new_context(reduced_motion="reduce")
    page = context.new_page()
    page.goto(f"{site}/{illustrated}.html")
    moving = page.evaluate(
        """() => {
            for (const fold of document.querySelectorAll('details')) fold.open = true;
            const long = (durations) => durations.split(',').some((one) => parseFloat(one) > 0);
            return [...document.querySelectorAll('*')].filter((element) => {
                const style = getComputedStyle(element);
                return (style.animationName !== 'none' && long(style.animationDuration))
                    || (style.transitionProperty !== 'none' && long(style.transitionDuration))
                    || style.scrollBehavior === 'smooth';
            }).map((element) => element.outerHTML.slice(0, 120));
        }"""
    )
    context.close()
    assert moving == []


@pytest.mark.parametrize("view", BOTH_WIDTHS, ids=str)
def test_the_search_finds_a_word_of_the_notation_page(
    browser: Browser, site: str, view: View
) -> None:
    with opened(browser, site, "search", view) as (page, trouble):
        page.goto(f"{page.url}?q=accumulates")
        page.locator("#search-results a", has_text="Notation").wait_for()
        page.get_by_text("Search finished").wait_for()
        assert trouble.requests == []
        assert trouble.messages == []
