"""What does the figure of README.md show, and how is it drawn?

    python tools/readme_figure.py

draws it anew, as `_static/costs-light.svg` and `_static/costs-dark.svg`: GitHub runs no script
and shows one or the other by the reader's theme. Run it when a count, a network or the look of
the figures has changed; tests/test_readme.py says when. Needs ninlab[test], for the browser.

Known limit: letters are not drawn as paths; the reader's own font may be a little wider.
"""

import argparse
import re
from pathlib import Path

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from ninlab import exits, figures, formulas, liveness, shapes
from ninlab.architectures import architecture
from ninlab.bookext import site_templates
from ninlab.units import format_bytes
from tools.chromium import launched
from tools.whole_files import replace_files

ROOT = Path(__file__).resolve().parents[1]
FILES = {theme: ROOT / "_static" / f"costs-{theme}.svg" for theme in ("light", "dark")}
NETWORKS = ("nin", "googlenet", "alexnet", "vgg11")
BATCH_SIZE = 128
INPUT_SHAPE = (1, 224, 224)
WIDTH = 840  # pixels, about the width of a README

# plotly.js gives each drawing a random name; one that stays keeps the files the same.
_RANDOM_NAME = re.compile(r"(clip|legend|topdefs-|defs-)[0-9a-f]{6}")


def costs() -> go.Figure:
    """What four networks cost: parameters, MACs and the memory of a training step."""
    networks = [shapes.at_input(architecture(name), INPUT_SHAPE) for name in NETWORKS]
    peaks = {n.name: liveness.peak_bytes(liveness.timeline(n), BATCH_SIZE) for n in networks}
    return figures.bars(
        figures.Quantity("Parameters", {n.name: formulas.parameters(n) for n in networks}),
        figures.Quantity("MACs of one image", {n.name: formulas.macs(n) for n in networks}),
        figures.Quantity(f"Memory to train, batch {BATCH_SIZE}", peaks, "bytes", format_bytes),
        titles={n.name: n.title for n in networks},
        provenance=figures.predicted({"formulas and liveness": peaks}),
        side_by_side=True,
    )


def drawings(figure: go.Figure) -> dict[str, str]:
    """The figure as SVG in each theme of the book, on no paper of its own."""
    svg = {}
    with launched() as browser:
        page = browser.new_page()
        page.add_script_tag(content=get_plotlyjs())
        for theme, template in site_templates().items():
            content = figure.to_plotly_json() | {"config": {"staticPlot": True}}
            content["layout"] |= {"template": template, "width": WIDTH}
            drawn = page.evaluate(
                """async (figure) => {
                    const plot = document.body.appendChild(document.createElement("div"));
                    await Plotly.newPlot(plot, figure);
                    return Plotly.Snapshot.toSVG(plot);
                }""",
                content,
            )
            svg[theme] = _RANDOM_NAME.sub(rf"\g<1>-{theme}-", drawn) + "\n"
    return svg


def main() -> None:
    """Write the figure in every theme."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    drawn = drawings(costs())
    replace_files({FILES[theme]: svg for theme, svg in drawn.items()})


if __name__ == "__main__":
    exits.run(main)
