"""How heavy is the calculator of the page, and how long does a change take to show?

Opens a page with nothing but the calculator in the system's Chromium, changes the batch again
and again, and prints for each pair of networks the milliseconds of one change: of the
script alone, of everything that the page's thread computes for it (style and layout
included), both in that thread's own time, so that work beside it does not count, and from
the change to the next picture by the clock.

    python benchmarks/calculator_page.py --changes 50
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import tempfile
import zlib
from pathlib import Path

from playwright.sync_api import CDPSession, sync_playwright

from ninlab.calculator import Calculator

PAIRS = (
    ("lenet", ""),
    ("own", "own"),
    ("nin", "alexnet"),
    ("googlenet", "vgg19"),
    ("googlenet", "googlenet"),
)
CHANGE = """
async ([first, second, changes]) => {
    const root = document.querySelector(".ninlab-calculator").shadowRoot;
    const set = (id, value) => {
        const field = root.getElementById(id);
        field.value = value;
        field.dispatchEvent(new Event("input", { bubbles: true }));
    };
    const picture = () =>
        new Promise((resolve) => requestAnimationFrame(() => setTimeout(resolve)));
    set("a-network", first);
    set("b-network", second);
    await picture();
    const milliseconds = [];
    for (let batch = 1; batch <= changes; batch++) {
        const start = performance.now();
        set("batch", batch);
        await picture();
        milliseconds.push(performance.now() - start);
    }
    return milliseconds;
}
"""


def thread_seconds(session: CDPSession) -> dict[str, float]:
    """Seconds that the page's thread has computed so far, by kind of work."""
    metrics = session.send("Performance.getMetrics")["metrics"]
    return {metric["name"]: metric["value"] for metric in metrics}


def main() -> None:
    """Measure, and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--changes", type=int, default=50, help="changes for each pair")
    parser.add_argument("--chromium", default=shutil.which("chromium"), help="the browser to use")
    arguments = parser.parse_args()
    html = Calculator()._repr_html_()
    rows = []
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        page_file = Path(folder, "index.html")
        page_file.write_text(f'<!doctype html><meta charset="utf-8">{html}', encoding="utf-8")
        browser = playwright.chromium.launch(
            executable_path=arguments.chromium, args=["--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_page(viewport={"width": 900, "height": 900})
        page.goto(page_file.as_uri())
        page.locator(".ninlab-calculator[data-status=ready]").wait_for()
        session = page.context.new_cdp_session(page)
        session.send("Performance.enable", {"timeDomain": "threadTicks"})
        for first, second in PAIRS:
            before = thread_seconds(session)
            shown = page.evaluate(CHANGE, [first, second, arguments.changes])
            after = thread_seconds(session)
            each = {
                name: 1000 * (after[name] - before[name]) / arguments.changes
                for name in ("ScriptDuration", "TaskDuration")
            }
            rows.append(
                {
                    "networks": [first, second],
                    "script_milliseconds": round(each["ScriptDuration"], 1),
                    "thread_milliseconds": round(each["TaskDuration"], 1),
                    "shown_median_milliseconds": round(statistics.median(shown), 1),
                    "shown_worst_milliseconds": round(max(shown), 1),
                }
            )
        browser.close()
    weight = {"bytes": len(html.encode()), "deflated_bytes": len(zlib.compress(html.encode(), 9))}
    print(json.dumps({"weight": weight, "changes": rows}, indent=2))


if __name__ == "__main__":
    main()
