"""The calculator in JupyterLab, driven as a reader drives it: the same object, the same numbers."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import nbformat
import pytest
from playwright.sync_api import Browser, Page

from tests.browser.test_calculator_page import (
    CONFIGURE,
    READ,
    START,
    assert_shown,
    evaluated,
    wait_until_ready,
)

pytestmark = pytest.mark.browser

NOTEBOOK = "calculator.ipynb"
PATIENCE = 120  # seconds for JupyterLab and a kernel to start on a busy machine
THEME = '{"theme": "JupyterLab Dark"}'


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a JupyterLab of its own, with one notebook and the dark theme."""
    folder = tmp_path_factory.mktemp("lab")
    cell = nbformat.v4.new_code_cell("from ninlab.calculator import Calculator\n\nCalculator()")
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}
    nbformat.write(nbformat.v4.new_notebook(cells=[cell], metadata=kernel), folder / NOTEBOOK)
    settings = folder / "settings" / "@jupyterlab" / "apputils-extension"
    settings.mkdir(parents=True)
    (settings / "themes.jupyterlab-settings").write_text(THEME)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root"]
    command += [f"--port={port}", f"--ServerApp.root_dir={folder}", "--IdentityProvider.token="]
    own = ("JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR", "JUPYTERLAB_WORKSPACES_DIR", "IPYTHONDIR")
    environment = os.environ | {name: str(folder / name.lower()) for name in own}
    environment["JUPYTERLAB_SETTINGS_DIR"] = str(folder / "settings")
    with (folder / "log.txt").open("w") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        address = f"http://127.0.0.1:{port}"
        wait_for(f"{address}/api", folder / "log.txt")
        yield address
        server.send_signal(signal.SIGTERM)
        server.wait(PATIENCE)


def wait_for(address: str, log: Path) -> None:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        try:
            urlopen(address).close()
        except URLError:
            time.sleep(0.2)
        else:
            return
    pytest.fail(f"JupyterLab did not start:\n{log.read_text()}")


@pytest.fixture(scope="module")
def page(browser: Browser, lab: str) -> Iterator[Page]:
    """The notebook, with its cell run."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    context.set_default_timeout(PATIENCE * 1000)
    page = context.new_page()
    page.goto(f"{lab}/lab/tree/{NOTEBOOK}")
    run(page)
    page.locator(".jp-OutputArea .ninlab-calculator").wait_for()
    wait_until_ready(page)
    yield page
    context.close()


def run(page: Page) -> None:
    """Run the one cell; answer JupyterLab's dialogs as its reader would, with their own choice.

    It forgets a key that is pressed before the kernel answers. Where a kernel did not start, it
    says so in a dialog and asks for one in the next; nothing below a dialog takes a click.
    """
    end = time.monotonic() + PATIENCE
    prompt = page.locator(".jp-CodeCell .jp-InputPrompt")
    dialog = page.locator(".jp-Dialog")
    asked: list[str] = []
    prompt.wait_for()
    while not re.match(r"\[(\*|\d+)\]", prompt.inner_text()):
        assert time.monotonic() < end, f"the kernel did not take the cell; dialogs: {asked}"
        if dialog.count():
            asked += dialog.all_inner_texts()
            dialog.locator(".jp-mod-accept").last.click()
        else:
            page.locator(".jp-CodeCell .cm-content").focus()
            page.keyboard.press("Control+Enter")
        page.wait_for_timeout(1000)


def test_the_object_in_jupyterlab_shows_the_same_numbers(page: Page) -> None:
    assert_shown(evaluated(page, READ), START)
    evaluated(page, CONFIGURE, {"batch": 3, "optimizer": "adam", "precision": "bf16"})
    given = replace(START, batch=3, optimizer="adam", precision="bf16")
    assert_shown(evaluated(page, READ), given)


def test_it_answers_to_the_keyboard_in_a_notebook(page: Page) -> None:
    evaluated(page, CONFIGURE, {"batch": 1, "optimizer": "sgd", "precision": "fp32"})
    cells = page.locator(".jp-CodeCell").count()
    page.locator("#batch").focus()
    page.keyboard.press("ArrowUp")
    assert_shown(evaluated(page, READ), replace(START, batch=2))
    # In a notebook's command mode digits make headings and letters change cells.
    page.locator("#batch").select_text()
    page.keyboard.type("100")
    assert_shown(evaluated(page, READ), replace(START, batch=100))
    page.locator("#a-network").focus()
    page.keyboard.type("dd")
    assert page.locator(".jp-CodeCell").count() == cells
    assert not page.locator(".jp-MarkdownCell, .jp-Dialog").count()


def test_it_has_the_theme_of_jupyterlab_and_leaves_its_address_alone(page: Page) -> None:
    assert page.locator("body").get_attribute("data-jp-theme-light") == "false"
    assert page.locator(".ninlab-calculator").get_attribute("data-theme") == "dark"
    page.wait_for_timeout(1000)  # a change is remembered after a while, elsewhere
    assert page.url.endswith(NOTEBOOK)
