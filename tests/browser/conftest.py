"""A real browser and a server for the built book."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest
from playwright.sync_api import Browser, sync_playwright

from tests.book import HTML

EXECUTABLE_VARIABLE = "NINLAB_CHROMIUM"
EXECUTABLES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


class QuietHandler(SimpleHTTPRequestHandler):
    """Serves files without a line of log for each."""

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@pytest.fixture(scope="session")
def site() -> Iterator[str]:
    """Address of the built book, served from this machine."""
    if not (HTML / "index.html").exists():
        pytest.fail("no book was built; run `make book` first")
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(QuietHandler, directory=str(HTML)))
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """The system's Chromium; the tests fail where there is none, for they would prove nothing."""
    wanted = os.environ.get(EXECUTABLE_VARIABLE)
    found = [wanted] if wanted else [path for name in EXECUTABLES if (path := shutil.which(name))]
    if not found:
        pytest.fail(
            f"no Chromium on the PATH; install it (Debian: apt-get install chromium) or name one "
            f"in {EXECUTABLE_VARIABLE}; `-m 'not browser'` leaves these tests out"
        )
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found[0], args=FLAGS)
        yield browser
        browser.close()
