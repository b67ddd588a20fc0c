"""What does a page of the book look like? Takes the picture of one that README.md shows.

    make book
    .venv/bin/python tools/readme_page.py

takes it anew from the built book, as `_static/page-light.webp` and `_static/page-dark.webp`:
GitHub shows one or the other by the reader's theme. Run it when the look of the pages has changed,
or the top of the page that it shows. Needs ninlab[test], for the browser.

Known limit: letters are those of this machine's fonts.
"""

import argparse
import sys
from io import BytesIO
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page

from ninlab import exits
from tools.chromium import launched
from tools.whole_files import replace_files

ROOT = Path(__file__).resolve().parents[1]
HTML = ROOT / "_build" / "html"
FILES = {theme: ROOT / "_static" / f"page-{theme}.webp" for theme in ("light", "dark")}
PAGE = "index"
WIDTH, HEIGHT = 1280, 860  # pixels of the window; README shows it at two thirds
LARGEST_BYTES = 120_000  # of one picture
QUALITIES = (80, 60, 40)  # of WebP, the best first


def _wait_until_drawn(page: Page) -> None:
    """Wait for the page's letters, and for the figures that the window shows."""
    page.evaluate("document.fonts.ready")
    page.wait_for_function(
        """() => [...document.querySelectorAll(".ninlab-figure")].every((figure) =>
            figure.dataset.state === "drawn"
            || figure.getBoundingClientRect().top > window.innerHeight)"""
    )


def pictures(address: str) -> dict[str, Image.Image]:
    """What a reader sees first of the page at that address, in each theme."""
    taken = {}
    with launched() as browser:
        for theme in FILES:
            page = browser.new_page(
                viewport={"width": WIDTH, "height": HEIGHT},
                color_scheme="dark" if theme == "dark" else "light",
                reduced_motion="reduce",
            )
            page.goto(address)
            _wait_until_drawn(page)
            taken[theme] = Image.open(BytesIO(page.screenshot())).convert("RGB")
            page.close()
    return taken


def compressed(picture: Image.Image) -> bytes:
    """The picture as WebP, in the best of `QUALITIES` that keeps it within `LARGEST_BYTES`.

    Raises ValueError where none does.
    """
    for quality in QUALITIES:
        file = BytesIO()
        picture.save(file, "WEBP", quality=quality, method=6)
        if len(file.getvalue()) <= LARGEST_BYTES:
            return file.getvalue()
    raise ValueError(f"the picture has {len(file.getvalue()):,} bytes; at most {LARGEST_BYTES:,}")


def main() -> None:
    """Write the pictures; exits with what to do where there is no book or no browser."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    built = HTML / f"{PAGE}.html"
    if not built.exists():
        sys.exit(f"no {built.relative_to(ROOT)}; run `make book` first")
    try:
        taken = pictures(built.as_uri())
        replace_files({FILES[theme]: compressed(picture) for theme, picture in taken.items()})
    except (FileNotFoundError, ValueError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    exits.run(main)
