"""A real browser and a server for the built book."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest
from playwright.sync_api import Browser

from tests.book import HTML
from tools import chromium


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
    try:
        with chromium.launched() as browser:
            yield browser
    except FileNotFoundError as missing:
        pytest.fail(f"{missing}; `-m 'not browser'` leaves these tests out")
