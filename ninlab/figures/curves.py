"""How did training go? Accuracy and loss over time, over seeds, over learning rates.

All of it is measured, and so solid; runs that failed are crosses.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite

import plotly.graph_objects as go

from ninlab.comparisons import by_kernels
from ninlab.errors import NinlabError
from ninlab.figures.colors import color_of, faded
from ninlab.figures.labels import End, Symbols, label_ends, sign_of
from ninlab.figures.layout import finish
from ninlab.figures.provenance import measured, raced
from ninlab.figures.words import title_of
from ninlab.races import Race
from ninlab.records import Outcome, RunRecord
from ninlab.relapses import ending
from ninlab.units import format_shape

_TRAINED: Mapping[str, tuple[str, str, str]] = {  # title, format of a value, unit behind it
    "test_accuracy": ("test accuracy", ".1%", ""),
    "train_accuracy": ("training accuracy", ".1%", ""),
    "test_loss": ("test loss", ".3f", "nats"),
    "train_loss": ("training loss", ".3f", "nats"),
    "dead_classes": ("dead classes", ".0f", "of 10"),
}
_BAND = 0.2  # opacity of what lies between the seeds
_AGAINST = {  # title, and how one value of it is said
    "epoch": ("epoch", "after epoch {:.0f}"),
    "images": ("images seen", "after {:,.0f} images"),
    "time": ("time, in epochs of {network}", "after the time of {{:.1f}} epochs of {network}"),
}


def training_curves(
    runs: Sequence[RunRecord],
    quantity: str = "test_accuracy",
    *,
    against: str = "epoch",
    race: Race | None = None,
) -> go.Figure:
    """One quantity of every epoch against epochs, images seen or time.

    Time is that of race, of training steps that took turns, in epochs of its first network: the
    seconds of the runs themselves are those of the load beside them.
    Runs of one name and the same kernels are one series: the line is the median over its seeds,
    the band goes from the least to the greatest. Runs that diverged or got stuck are left out of
    both and drawn one by one, thin and ending in a cross. quantity is a field of `EpochResult`.
    Raises NinlabError without runs, for an unknown quantity, for more than six series of one color,
    and against time without a race of all networks in steps of the runs' batch and input shape.
    """
    provenance = measured(runs)
    if quantity not in _TRAINED or against not in _AGAINST:
        raise NinlabError(
            f"there are no curves of {quantity!r} against {against!r}; draw one of "
            f"{', '.join(_TRAINED)} against one of {', '.join(_AGAINST)}"
        )
    axis = _Axis.of(against, race)
    if against == "time" and race is not None:
        provenance = f"{provenance} {raced(race)}"
    groups = _by_name(runs)
    title, number_format, unit = _TRAINED[quantity]
    figure = go.Figure()
    ends: list[End] = []
    symbols = Symbols()
    for label, group in groups.items():
        color = color_of(group[0].network)
        curves = _Curves(label, color, symbols.next(color), quantity, axis)
        finished = [run for run in group if run.outcome is Outcome.FINISHED]
        if finished:
            ends.append(curves.add_median(figure, finished))
        for run in group:
            if run.outcome is not Outcome.FINISHED:
                curves.add_failure(figure, run)
    figure.update_xaxes(title=axis.title)
    figure.update_yaxes(
        title=f"{title}, {unit}" if unit else title,
        tickformat=".0%" if number_format.endswith("%") else "",
    )
    label_ends(figure, ends)
    return finish(figure, height=420, provenance=provenance, hovermode="closest")


def _by_name(runs: Sequence[RunRecord]) -> dict[str, list[RunRecord]]:
    """Runs by the label of their series: the network, and the name where that is not enough.

    Behind them are the kernels, where there are runs by several.
    """
    names: dict[str, list[RunRecord]] = {}
    for run in runs:
        names.setdefault(run.name, []).append(run)
    networks = [group[0].network for group in names.values()]
    return {
        title_of(group[0].network)
        + (f" ({name})" if networks.count(group[0].network) > 1 else "")
        + said: group
        for (name, said), group in by_kernels(names).items()
    }


@dataclass(frozen=True)
class _Axis:
    """What curves run over, its title, and how one value of it is said."""

    against: str
    title: str
    where: str
    race: Race | None = None

    @classmethod
    def of(cls, against: str, race: Race | None) -> _Axis:
        """The axis of that name. Raises NinlabError for time without a race."""
        title, where = _AGAINST[against]
        if against != "time":
            return cls(against, title, where)
        if race is None:
            raise NinlabError(
                "the times of runs do not compare; give the race of their networks, or draw "
                "against epoch or images"
            )
        network = title_of(race.networks[0])
        return cls(against, title.format(network=network), where.format(network=network), race)

    def along(self, run: RunRecord) -> list[float]:
        """Where each epoch of a run lies: its number, the images seen, the time."""
        each = self._each(run)
        return [result.epoch * each for result in run.epochs]

    def _each(self, run: RunRecord) -> float:
        """How far an epoch of the run reaches."""
        if self.race is not None:
            if run.recipe.batch_size != self.race.batch_size:
                raise NinlabError(
                    f"the race is of steps of {self.race.batch_size} images, but {run.id} took "
                    f"{run.recipe.batch_size} a step"
                )
            if run.input_shape != (raced_at := self.race.input_shape(run.network)):
                raise NinlabError(
                    f"{run.network} raced on {format_shape(raced_at)}, but {run.id} read "
                    f"{format_shape(run.input_shape)}"
                )
            return self.race.ratio(run.network, self.race.networks[0]).median
        images = run.data_set.train_images // run.recipe.batch_size * run.recipe.batch_size
        return images if self.against == "images" else 1


@dataclass(frozen=True)
class _Curves:
    """How the runs of one label are drawn."""

    label: str
    color: str
    symbol: str
    quantity: str
    axis: _Axis

    def add_median(self, figure: go.Figure, runs: Sequence[RunRecord]) -> End:
        """Draw the median of the runs in the band from the least to the greatest; its end."""
        x = [statistics.median(at) for at in self._epochs(runs, self.axis.along)]
        values = self._epochs(runs, self._values)
        middle = [statistics.median(at) for at in values]
        self._add_band(figure, x, values)
        figure.add_scatter(
            x=x,
            y=middle,
            name=self.label,
            mode="lines+markers",
            marker={"symbol": self.symbol, "size": 8, "color": self.color},
            line={"color": self.color, "width": 2},
            hovertext=[
                f"<b>{self.label}</b><br>{self._said(median)}{_over_seeds(at, self._form)}"
                f"<br>{self._where(place)}"
                for place, median, at in zip(x, middle, values, strict=True)
            ],
        )
        return End(x[-1], middle[-1], self.label, self.color, self.symbol)

    def add_failure(self, figure: go.Figure, run: RunRecord) -> None:
        """Draw a run that failed as a thin line that ends in a cross."""
        x, y = self.axis.along(run), self._values(run)
        last = max((i for i, value in enumerate(y) if isfinite(value)), default=0)
        figure.add_scatter(
            x=x,
            y=y,
            name=f"{self.label}, seed {run.seed}: {run.outcome}",
            mode="lines+markers",
            marker={
                "symbol": "x",
                "size": [9 if i == last else 0 for i in range(len(x))],
                "color": self.color,
                "opacity": 1,  # Plotly pales markers of several sizes
                "line": {"width": 0},
            },
            line={"color": self.color, "width": 1},
            showlegend=False,
            hovertext=[
                f"<b>{self.label}</b>, seed {run.seed}: {run.outcome}"
                f"<br>{self._said(value)}<br>{self._where(place)}"
                for place, value in zip(x, y, strict=True)
            ],
        )

    @property
    def _form(self) -> str:
        return _TRAINED[self.quantity][1]

    def _said(self, value: float) -> str:
        """A value of the quantity, with its name and unit."""
        title, form, unit = _TRAINED[self.quantity]
        return f"{title} {value:{form}} {unit}".rstrip()

    def _where(self, place: float) -> str:
        return self.axis.where.format(place)

    def _add_band(
        self, figure: go.Figure, x: Sequence[float], values: Sequence[Sequence[float]]
    ) -> None:
        """Fill what lies between the least and the greatest of the seeds."""
        for extreme, what, fill in ((min, "least", "none"), (max, "greatest", "tonexty")):
            figure.add_scatter(
                x=x,
                y=[extreme(at) for at in values],
                name=f"{self.label}, {what}",
                mode="lines",
                line={"width": 0, "color": self.color},
                fill=fill,
                fillcolor=faded(self.color, _BAND),
                showlegend=False,
                hoverinfo="skip",
            )

    def _epochs(
        self, runs: Sequence[RunRecord], values: Callable[[RunRecord], Sequence[float]]
    ) -> list[tuple[float, ...]]:
        """For each epoch that all of the runs have, the value of every run."""
        return list(zip(*(values(run) for run in runs), strict=False))

    def _values(self, run: RunRecord) -> list[float]:
        """The quantity at each epoch; not a number where a loss was not finite."""
        values = (getattr(result, self.quantity) for result in run.epochs)
        return [float("nan") if value is None else float(value) for value in values]


def _over_seeds(values: Sequence[float], form: str) -> str:
    """What a median is over, and how far that reaches; nothing for a single seed."""
    if len(values) == 1:
        return ""
    return f", median of {len(values)} seeds ({min(values):{form}} to {max(values):{form}})"


def learning_rates(runs: Sequence[RunRecord]) -> go.Figure:
    """Accuracy after the last epoch against the learning rate, one line a network.

    Runs by several kernels have a line each. A run that diverged or got stuck is a cross. Raises
    NinlabError without runs and for more than six lines of one color.
    """
    provenance = measured(runs)
    figure = go.Figure()
    symbols = Symbols()
    ends: list[End] = []
    networks = {name: [r for r in runs if r.network == name] for name in (r.network for r in runs)}
    for (network, said), rows in by_kernels(networks).items():
        rows.sort(key=lambda run: run.recipe.learning_rate)
        ends.append(_add_line_of_rates(figure, rows, title_of(network) + said, symbols))
    figure.update_xaxes(type="log")
    label_ends(figure, ends)
    rates = sorted({run.recipe.learning_rate for run in runs})
    figure.update_xaxes(
        title="learning rate (log scale)",
        tickvals=rates,
        ticktext=[f"{rate:g}" for rate in rates],
    )
    what = "held-out" if runs[0].recipe.evaluation_set == "held_out" else "test"
    figure.update_yaxes(title=f"{what} accuracy", tickformat=".0%")
    return finish(figure, height=400, provenance=provenance)


def _add_line_of_rates(
    figure: go.Figure, runs: Sequence[RunRecord], title: str, symbols: Symbols
) -> End:
    """Draw the runs of one network, sorted by learning rate; where their line ends."""
    color = color_of(runs[0].network)
    symbol = symbols.next(color)
    x = [run.recipe.learning_rate for run in runs]
    y = [run.last.test_accuracy for run in runs]
    figure.add_scatter(
        x=x,
        y=y,
        name=title,
        mode="lines+markers",
        line={"color": color, "width": 2},
        marker={"color": color, "size": 8, "symbol": [sign_of(run, symbol) for run in runs]},
        hovertext=[
            f"<b>{title}</b><br>learning rate {run.recipe.learning_rate:g}: "
            f"{run.last.test_accuracy:.1%}, {ending(run)}"
            for run in runs
        ],
    )
    return End(x[-1], y[-1], title, color, symbol)
