"""How does a share change step by step: one line for each thing that it is a share of?

All of it is measured, and so solid.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

import plotly.graph_objects as go

from ninlab.errors import NinlabError
from ninlab.figures.colors import color_of, faded
from ninlab.figures.labels import End, Symbols, label_ends
from ninlab.figures.layout import finish

_BAND = 0.2  # opacity of what lies between the seeds


@dataclass(frozen=True)
class Line:
    """The counts of one label at each step, one count a seed, and what each of them is of."""

    label: str
    counts: Mapping[int, Sequence[int]]
    whole: int
    like: str = ""  # the network whose color it has

    def shares(self, step: int) -> list[float]:
        """The share of each seed."""
        return [count / self.whole for count in self.counts[step]]

    def share(self, step: int) -> float:
        """The share of all seeds together."""
        seeds = self.counts[step]
        return float(Fraction(sum(seeds), len(seeds) * self.whole))

    def said(self, step: int) -> str:
        """The share, with its counts and, of several seeds, the least and the greatest."""
        seeds, shares = self.counts[step], self.shares(step)
        spread = (
            f"<br>{len(seeds)} seeds, {min(shares):.1%} to {max(shares):.1%}"
            if len(seeds) > 1
            else ""
        )
        return f"{self.share(step):.1%}, {sum(seeds):,} of {len(seeds) * self.whole:,}{spread}"


def shares_by_step(lines: Sequence[Line], *, step: str, share: str, provenance: str) -> go.Figure:
    """The share of each line at each step; step and share say what the axes measure.

    A line goes through all seeds together, in the band from the least seed to the greatest. Raises
    NinlabError where lines have other steps, or a step no count, and for more than six lines of
    one color.
    """
    figure = go.Figure()
    symbols = Symbols()
    steps = sorted(lines[0].counts) if lines else []
    if not steps or any(sorted(line.counts) != steps for line in lines):
        raise NinlabError(f"each line needs counts at the same steps; the first has {steps}")
    if any(not seeds for line in lines for seeds in line.counts.values()):
        raise NinlabError("a step needs the count of one seed at least")
    ends = [_add_line(figure, line, steps, step, symbols) for line in lines]
    label_ends(figure, ends)
    figure.update_xaxes(title=step, tickvals=steps)
    figure.update_yaxes(title=share, tickformat=".0%")
    return finish(figure, height=400, provenance=provenance)


def _add_line(
    figure: go.Figure, line: Line, steps: Sequence[int], title: str, symbols: Symbols
) -> End:
    """Draw one line in the band of its seeds; where it ends."""
    color = color_of(line.like)
    symbol = symbols.next(color)
    shares = [line.share(at) for at in steps]
    if any(len(line.counts[at]) > 1 for at in steps):
        for extreme, what, fill in ((min, "least", "none"), (max, "greatest", "tonexty")):
            figure.add_scatter(
                x=steps,
                y=[extreme(line.shares(at)) for at in steps],
                name=f"{line.label}, {what}",
                mode="lines",
                line={"width": 0, "color": color},
                fill=fill,
                fillcolor=faded(color, _BAND),
                showlegend=False,
                hoverinfo="skip",
            )
    figure.add_scatter(
        x=steps,
        y=shares,
        name=line.label,
        mode="lines+markers",
        marker={"symbol": symbol, "size": 8, "color": color},
        line={"color": color, "width": 2},
        hovertext=[f"<b>{line.label}</b><br>{title}: {at}<br>{line.said(at)}" for at in steps],
    )
    return End(steps[-1], shares[-1], line.label, color, symbol)
