"""Where do the numbers of a figure come from? The one line that says so."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from ninlab.errors import NinlabError
from ninlab.races import Race
from ninlab.records import Device, Provenance, Recorded, RunRecord, Software
from ninlab.steps import Kernels


def counted(counts: Mapping[str, object]) -> str:
    """The line ``Counted: formulas, equal to fvcore.``, which says where counts come from.

    counts gives the same quantities as each counter has them, the drawn ones first. The
    sentence cannot be had for counters that differ: that raises NinlabError.
    """
    return _agreeing("Counted", counts)


def predicted(predictions: Mapping[str, object]) -> str:
    """The line ``Predicted: liveness, equal to traced operators.``, made as `counted` does.

    For what a device will do, such as memory in use, as opposed to what a network is.
    """
    return _agreeing("Predicted", predictions)


def _agreeing(what: str, sources: Mapping[str, object]) -> str:
    (first, drawn), *others = sources.items()
    for source, values in others:
        if values != drawn:
            raise NinlabError(f"{first} says {drawn}, but {source} says {values}")
    equal = " and ".join(source for source, _ in others)
    return f"{what}: {first}, equal to {equal}." if equal else f"{what}: {first}."


_MOST_NAMED = 3


def measured(runs: Sequence[RunRecord], statistic: str = "median") -> str:
    """The line that says where measurements come from: device, date, software, seeds, records.

    Raises NinlabError without a run: nothing was measured.
    """
    if not runs:
        raise NinlabError("no record was given; a measured figure needs at least one")
    runs_of_a_group: dict[tuple[str, str], int] = {}
    for run in runs:
        group = (run.experiment, run.name)
        runs_of_a_group[group] = runs_of_a_group.get(group, 0) + 1
    fewest, most = min(runs_of_a_group.values()), max(runs_of_a_group.values())
    seeds = f"{fewest}" if fewest == most else f"{fewest} to {most}"
    kernels = {run.recipe.kernels for run in runs}
    parts = [
        *_made_by(runs),
        _listed(str(run.recipe.precision) for run in runs),
        *([f"{_listed(kernels)} kernels"] if kernels != {Kernels.TORCH} else []),
        "batch " + _listed(str(run.recipe.batch_size) for run in runs),
        "one seed" if most == 1 else f"{statistic} of {seeds} seeds",
    ]
    ids = sorted(run.id for run in runs)
    if len(ids) == 1:
        source = f"record {ids[0]}"
    else:
        experiments = {run.experiment for run in runs}
        few = len(experiments) <= _MOST_NAMED
        names = (name.replace("_", " ") for name in experiments)
        where = _listed(names) if few else f"{len(experiments)} experiments"
        source = f"{len(ids)} records of {where}"
    return f"Measured: {', '.join(parts)}; {source}."


class _MadeBy(Protocol):
    """What is read of anything measured."""

    @property
    def provenance(self) -> Provenance: ...

    @property
    def device(self) -> Device: ...

    @property
    def software(self) -> Software: ...


class _Measured(_MadeBy, Recorded, Protocol):
    """What is read of a record, be it one of `measurement`, which this module cannot import."""


def measured_steps(steps: Sequence[_Measured]) -> str:
    """The line that says where measured steps come from: device, date, software, records.

    Raises NinlabError without a step: nothing was measured.
    """
    if not steps:
        raise NinlabError("no measured step was given; a measured figure needs at least one")
    folder = steps[0].id.partition("/")[0]
    source = f"record {steps[0].id}" if len(steps) == 1 else f"{len(steps)} records of {folder}"
    return f"Measured: {', '.join(_made_by(steps))}; {source}."


def raced(race: Race) -> str:
    """The line that says where the times of a race come from, and how busy others were then."""
    threads = race.device.threads or 1
    parts = [
        *_made_by([race]),
        f"{threads} thread" + ("" if threads == 1 else "s"),
        f"fp32, batch {race.batch_size}",
        f"median of {race.rounds} rounds",
    ]
    others, cores = race.host.other_cores, race.host.cores
    busy = "" if others is None else f"; meanwhile others kept {others:.1f} of {cores} cores busy"
    return f"Raced: {', '.join(parts)}{busy}."


def _made_by(records: Sequence[_MadeBy]) -> list[str]:
    """Devices, dates and versions of torch of the records."""
    dates = sorted({record.provenance.utc[:10] for record in records})
    return [
        _listed(record.device.name for record in records),
        dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}",
        "torch " + _listed(record.software.torch for record in records),
    ]


def _listed(values: Iterable[str]) -> str:
    *others, last = sorted(set(values))
    return f"{', '.join(others)} and {last}" if others else last
