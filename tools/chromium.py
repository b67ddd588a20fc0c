"""Where is the browser that draws and checks pages, and how is it started?

The system's own Chromium: nothing is downloaded. `NINLAB_CHROMIUM` names another one.
Known limit: runs without the browser's sandbox, which containers refuse; open own pages only.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Browser, sync_playwright

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


def executable() -> str:
    """Path of the browser; raises FileNotFoundError with what to do where there is none."""
    wanted = os.environ.get(EXECUTABLE_VARIABLE)
    for name in (wanted,) if wanted else EXECUTABLES:
        if path := shutil.which(name):
            return path
    missing = f"{EXECUTABLE_VARIABLE} names no program" if wanted else "no Chromium on the PATH"
    raise FileNotFoundError(
        f"{missing}; install it (Debian: apt-get install chromium) or name one in "
        f"{EXECUTABLE_VARIABLE}"
    )


@contextmanager
def launched() -> Iterator[Browser]:
    """A browser without a window, closed in the end."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable(), args=FLAGS)
        yield browser
        browser.close()
