"""``runs``: which training runs are there, how did they end, and are their records sound?"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Container, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from ninlab import comparisons, decisions, records
from ninlab import power as seed_needs
from ninlab.commands import validation
from ninlab.commands.record import chosen_plan, device_of_plan
from ninlab.commands.shared import (
    Format,
    Output,
    RunsFolder,
    existing_folder,
    one_of,
    wide_console,
    write_csv,
)
from ninlab.errors import NinlabError, RecordError, UnknownNameError
from ninlab.experiments import Plan, Square
from ninlab.records import Device, RunRecord
from ninlab.relapses import held, relapsed
from ninlab.units import format_seconds


def runs(
    experiment: Annotated[str | None, typer.Option(help="Only this experiment.")] = None,
    network: Annotated[str | None, typer.Option(help="Only this network.")] = None,
    device: Annotated[
        str | None,
        typer.Option(
            help="Only this device, by its name in file names. [with --missing, --power and "
            "--decide: the one that made the most runs of the plan]"
        ),
    ] = None,
    outcome: Annotated[
        records.Outcome | None,
        typer.Option(help="Only this outcome.", **one_of(records.Outcome)),
    ] = None,
    output: Output = Format.TABLE,
    summary: Annotated[
        bool,
        typer.Option(
            "--summary", help="One line for each row of a plan and device, over its seeds."
        ),
    ] = False,
    validate: Annotated[bool, typer.Option("--validate", help="Check every file instead.")] = False,
    missing: Annotated[
        str | None, typer.Option(help="List the runs of this plan that are not there instead.")
    ] = None,
    decide: Annotated[
        str | None,
        typer.Option(
            help="Say what the designs of this plan show against their reference instead."
        ),
    ] = None,
    power: Annotated[
        str | None,
        typer.Option(help="Say how many seeds the comparisons of this plan need instead."),
    ] = None,
    folder: RunsFolder = None,
) -> None:
    """List, export or check the training runs, or say what of a plan is missing or decided."""
    where = existing_folder(folder)
    if validate:
        chosen = {"--experiment": experiment, "--network": network, "--device": device}
        shown = {"--outcome": outcome, "--summary": summary, "--missing": missing}
        shown |= {"--decide": decide, "--power": power}
        _refuse("--validate checks every file", chosen | shown | _format(output))
        _validate(where)
        return
    if device is not None and (missing or decide or power) is not None:
        records.check_slug("device", device)  # it may be one that has made no run yet
    found = records.load(where)
    if missing is not None:
        shown = {"--network": network, "--outcome": outcome, "--summary": summary}
        shown |= {"--decide": decide, "--power": power}
        _refuse("--missing lists runs that have no record", shown | _format(output))
        plan = chosen_plan(missing, [experiment] if experiment else None)
        _write_missing(plan, found, device)
        return
    if decide is not None:
        shown = {"--network": network, "--outcome": outcome, "--summary": summary}
        shown["--power"] = power
        _refuse("--decide compares all designs of a plan", shown | _format(output))
        asked = _Asked(chosen_plan(decide, None), experiment)
        _write_decisions(asked, records.current(found), device)
        return
    if power is not None:
        shown = {"--network": network, "--outcome": outcome, "--summary": summary}
        _refuse("--power speaks of all comparisons of a plan", shown | _format(output))
        asked = _Asked(chosen_plan(power, None), experiment)
        _write_power(asked, records.current(found), device)
        return
    _require_known("experiment", experiment, {run.experiment for run in found})
    _require_known("network", network, {run.network for run in found})
    _require_known("device", device, {run.device.slug for run in found})
    standing = {run.id for run in records.current(found)}
    selected = [
        run
        for run in found
        if experiment in (None, run.experiment)
        and network in (None, run.network)
        and device in (None, run.device.slug)
        and outcome in (None, run.outcome)
    ]
    if summary:
        _write_summary([run for run in selected if run.id in standing], output)
    else:
        _write_runs(selected, standing, output)


def _format(output: Format) -> dict[str, object]:
    return {"--format": output is not Format.TABLE}


def _refuse(what: str, options: Mapping[str, object]) -> None:
    """Raises NinlabError for an option that was given though it has no bearing on what is asked."""
    given = [name for name, value in options.items() if value not in (None, False)]
    if given:
        raise NinlabError(f"{what} and takes no {', '.join(given)}; ask without")


def _write_missing(plan: Plan, found: Sequence[RunRecord], device: str | None) -> None:
    """One id a line; how long they should take goes to standard error, beside what is read on."""
    on = _device(plan, found, device)
    slug = device or (on.slug if on is not None else "cpu")
    missing = plan.missing((run.id for run in found), slug)
    for planned in missing:
        typer.echo(planned.id(slug))
    if missing:
        estimates = plan.estimates(found, on)
        left = format_seconds(
            sum(estimates.seconds(run.row.network, run.row.recipe) for run in missing)
        )
        typer.echo(f"{len(missing)} of {len(plan.runs)} are missing on {slug}: {left}", err=True)


def _device(plan: Plan, found: Sequence[RunRecord], slug: str | None) -> Device | None:
    """The device of that slug, or the one that made most of the plan; None without a run."""
    if slug is None:
        return device_of_plan(plan, found)
    return next((run.device for run in found if run.device.slug == slug), None)


@dataclass(frozen=True)
class _Asked:
    """The comparisons of a plan, or those of them that answer one experiment.

    Whatever is asked for, a comparison is made as a whole: what a design shows does not hang on
    how many others are printed. Raises UnknownNameError for an experiment.
    """

    plan: Plan
    experiment: str | None

    def __post_init__(self) -> None:
        if self.experiment is not None:
            self.plan.experiment(self.experiment)

    def __str__(self) -> str:
        of = "" if self.experiment is None else f"{self.experiment} of "
        return f"{of}the plan {self.plan.name}"

    def asks(self, row: str) -> bool:
        """Whether the row, "experiment/row", is one of those to be printed."""
        return self.experiment in (None, row.partition("/")[0])

    @property
    def comparisons(self) -> list[tuple[str, list[str]]]:
        """Those with a row that is asked for."""
        return [one for one in self.plan.comparisons if any(map(self.asks, one[1]))]

    @property
    def squares(self) -> list[Square]:
        """Those whose corner is asked for."""
        return [one for one in self.plan.squares if self.asks(one.both)]


def _write_decisions(asked: _Asked, found: Sequence[RunRecord], device: str | None) -> None:
    """A table of every comparison that is asked for: intervals, and what they show.

    Below it, in how many of the runs of the collapse a class was never predicted.
    """
    plan = asked.plan
    slug, groups = _rows_of_device(plan, found, device)
    table = Table(title=f"plan {plan.name} on {slug}; the intervals of a comparison hold together")
    table.add_column("design", overflow="fold")
    for column in ("runs", "in the mean", "failed", "points", "shown"):
        table.add_column(column, justify="right")
    for reference, rows in asked.comparisons:
        designs = {row: groups[row] for row in rows if row in groups}
        own = groups.get(reference, [])
        if not own or not any(map(asked.asks, designs)):
            continue
        decided = decisions.decide(own, designs)
        of_reference = next(iter(decided.values())).reference_runs
        table.add_section()
        named = comparisons.told_apart({reference: own, **designs})
        (title, _), *titles = zip(named, named.values(), strict=True)
        table.add_row(f"{title} (reference)", *_counts(own, of_reference), "", "")
        for row, (title, runs), decision in zip(designs, titles, decided.values(), strict=True):
            if asked.asks(row):
                table.add_row(
                    title, *_counts(runs, decision.runs),
                    str(decision.difference or ""), decision.verdict.within(comparisons.MARGIN),
                )  # fmt: skip
    squares = [square for square in asked.squares if square.both in groups]
    for square in squares:
        runs = groups[square.both]
        table.add_section()
        points, shown = _interaction(square, groups)
        table.add_row(f"{square.both} (square)", *_counts(runs, len(held(runs))), points, shown)
    if not table.row_count:
        typer.echo(f"nothing of {asked} is recorded on {slug} that could be compared")
        return
    wide_console().print(table)
    if squares:
        typer.echo(_A_SQUARE)
    for row, runs in groups.items():
        if row.startswith("collapse/") and row in plan.by_path and asked.asks(row):
            comparisons.kernels_of(runs)
            lost = comparisons.share(run.never_predicted > 0 for run in runs)
            typer.echo(f"{row}: {lost} never predict a class")


_A_SQUARE = (
    "A square is of two changes: how much more the one gains where the other was made, too, than "
    "where it was not."
)


def _interaction(square: Square, groups: Mapping[str, Sequence[RunRecord]]) -> tuple[str, str]:
    """What the runs of a square show of its two changes, with an interval of its own."""
    corners = [groups.get(row, []) for row in square]
    if any(len(held(runs)) < 2 for runs in corners):
        return "", str(comparisons.Verdict.NOT_TESTED)
    both, first, second, neither = corners
    found = comparisons.interaction(both=both, first=first, second=second, neither=neither)
    return str(found), found.verdict_within(comparisons.MARGIN).within(comparisons.MARGIN)


def _rows_of_device(
    plan: Plan, found: Sequence[RunRecord], device: str | None
) -> tuple[str, dict[str, list[RunRecord]]]:
    """The device that is asked for, or that made most of the plan, and its runs by row."""
    on = _device(plan, found, device)
    slug = device or (on.slug if on is not None else "cpu")
    groups: dict[str, list[RunRecord]] = {}
    for run in found:
        if run.device.slug == slug:
            groups.setdefault(f"{run.experiment}/{run.name}", []).append(run)
    return slug, groups


def _write_power(asked: _Asked, found: Sequence[RunRecord], device: str | None) -> None:
    """A table of every comparison that is asked for: the seeds that it needs, and what it has.

    Below it, the experiments that are compared with nothing.
    """
    plan = asked.plan
    slug, groups = _rows_of_device(plan, found, device)
    equal = comparisons.Verdict.EQUAL.within(comparisons.MARGIN)
    table = Table(
        title=f"plan {plan.name} on {slug}: the seeds with which designs that do not differ are "
        f"found {equal} {seed_needs.POWER:.0%} of the time"
    )
    table.add_column("design", overflow="fold")
    for column in ("planned", "recorded", "held", "spread", "needed", "shown from"):
        table.add_column(column, justify="right")
    for reference, rows in asked.comparisons:
        table.add_section()
        spread = seed_needs.pooled_deviation([groups.get(reference, [])])
        points = "" if spread is None else f"{100 * spread:.2f}"
        title = f"{reference} (reference)"
        table.add_row(title, *_seeds(plan, reference, groups), points, "", "")
        for row in filter(asked.asks, rows):
            needs = _needs(plan, (row, reference), groups, at_once=len(rows))
            table.add_row(row, *_seeds(plan, row, groups), *needs)
    for square in asked.squares:
        table.add_section()
        needs = _needs(plan, square, groups, at_once=1)
        table.add_row(f"{square.both} (square)", *_seeds(plan, square.both, groups), *needs)
    if not table.row_count:
        typer.echo(f"{asked} compares nothing of which several runs are planned")
        return
    wide_console().print(table)
    typer.echo(
        "The spread between seeds is in points, and so is the smallest difference that the planned "
        "seeds show. In brackets, one of the designs has no spread yet, and that of the others "
        "stands for it. The seeds needed are those of runs that hold, as many of each design."
    )
    if asked.squares:
        typer.echo(_A_SQUARE)
    compared = [row for reference, rows in plan.comparisons for row in (reference, *rows)]
    compared += [row for square in plan.squares for row in square]
    left_out = [
        one.name for one in plan.experiments
        if asked.experiment is None and not set(one.by_path) & set(compared)
    ]  # fmt: skip
    if left_out:
        typer.echo(f"Left out, for want of a second seed: {', '.join(left_out)}.")


def _seeds(plan: Plan, row: str, groups: Mapping[str, Sequence[RunRecord]]) -> tuple[str, ...]:
    """How many seeds of a row are planned, recorded, and held."""
    runs = groups.get(row, [])
    return str(plan.by_path[row].seeds), str(len(runs)), str(len(held(runs)))


def _needs(
    plan: Plan, rows: Sequence[str], groups: Mapping[str, Sequence[RunRecord]], at_once: int
) -> tuple[str, str, str]:
    """The spread of the first of the rows, the seeds that all of theirs ask for, and what is shown.

    That is, the difference from which on the planned seeds show one.
    """
    of_rows = [groups.get(row, []) for row in rows]
    together = seed_needs.pooled_deviation(of_rows)
    if together is None:
        return "not known", "", ""
    own = [seed_needs.pooled_deviation([group]) for group in of_rows]
    spread = [together if one is None else one for one in own]
    seeds = [plan.by_path[row].seeds for row in rows]
    points, shown = f"{100 * spread[0]:.2f}", "nothing"
    if None in own:
        points = f"({points})"
    if min(seeds) > 1:
        smallest = seed_needs.smallest_shown(spread, *seeds, comparisons=at_once)
        shown = f"{100 * smallest:.1f}" if smallest < 1 else shown
    return points, f"{seed_needs.seeds_for_equality(spread, comparisons=at_once):,}", shown


def _counts(runs: Sequence[RunRecord], held: int) -> tuple[str, ...]:
    """Runs, those in the mean, and those that failed."""
    return str(len(runs)), str(held), comparisons.failures(runs) or "0"


def _require_known(kind: str, name: str | None, known: set[str]) -> None:
    if name is not None and known and name not in known:
        raise UnknownNameError(kind, name, sorted(known), printed_by="python -m ninlab runs")


def _validate(folder: Path) -> None:
    """Say how many records are valid, or print every problem. Raises RecordError for one."""
    found = list(validation.problems(folder))
    for problem in found:
        typer.echo(problem)
    for path in sorted(folder.glob("*/")):
        for half_written in records.leftovers(path):
            left = half_written.relative_to(folder)
            typer.echo(f"{left} is of a write that was cut off; remove it")
    if found:
        problems = "1 problem" if len(found) == 1 else f"{len(found)} problems"
        raise RecordError(f"{problems} of the files in {folder}; see above")
    kinds = records.kinds(folder)
    typer.echo(f"{sum(kinds.values())} valid records in {folder}: {_by_kind(kinds)}")


def _by_kind(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} of kind {kind!r}" for kind, count in counts.items())


def _write_runs(found: Sequence[RunRecord], standing: Container[str], output: Format) -> None:
    """A run that another replaces is marked in the table; its record says nothing of it."""
    if output is Format.JSON:
        typer.echo(json.dumps({"runs": [run.to_json() for run in found]}, indent=1))
        return
    if output is Format.CSV:
        frame = records.to_frame(found).reset_index()
        rows = frame.astype(object).where(frame.notna(), None).to_numpy().tolist()
        columns = [str(name) for name in frame.columns]
        write_csv((dict(zip(columns, row, strict=True)) for row in rows), columns)
        return
    table = Table()
    for column in ("run", "outcome"):
        table.add_column(column, overflow="fold")
    for column in ("test accuracy", "train loss", "dead", "never predicted", "images/s"):
        table.add_column(column, justify="right")
    for run in found:
        last = run.last
        loss = "not finite" if last.train_loss is None else f"{last.train_loss:.3f}"
        table.add_row(
            run.id, str(run.outcome) + ("" if run.id in standing else ", replaced"),
            f"{last.test_accuracy:.4f}", loss, str(last.dead_classes), str(run.never_predicted),
            f"{run.images_per_second:,.0f}" if run.had_its_device else "under load",
        )  # fmt: skip
    _print_table(table)


@dataclass(frozen=True)
class RowSummary:
    """The runs of one row by one device's kernels: last epochs, accuracies of those that held."""

    experiment: str
    name: str
    device_slug: str
    network: str
    runs: int
    accuracy_mean: float | None  # None, as those below, where no run held
    accuracy_deviation: float | None  # between seeds; None for one run that held, which has none
    accuracy_lowest: float | None
    accuracy_highest: float | None
    most_dead_classes: int
    most_never_predicted: int
    relapsed: int
    finished: int
    diverged: int
    stuck: int
    kernels: str  # a new column of files comes last
    train_images: int | None  # None for all of the split

    @classmethod
    def of(cls, runs: Sequence[RunRecord]) -> RowSummary:
        """The summary of runs that differ in their seed only."""
        ended = comparisons.summary(runs)
        outcomes = Counter(run.outcome for run in runs)
        return cls(
            experiment=runs[0].experiment,
            name=runs[0].name,
            device_slug=runs[0].device.slug,
            kernels=str(comparisons.kernels_of(runs)),
            train_images=comparisons.images_of(runs),
            network=runs[0].network,
            runs=ended.runs,
            accuracy_mean=ended.mean,
            accuracy_deviation=ended.deviation,
            accuracy_lowest=ended.least,
            accuracy_highest=ended.greatest,
            most_dead_classes=max(run.last.dead_classes for run in runs),
            most_never_predicted=max(run.never_predicted for run in runs),
            relapsed=relapsed(runs),
            **{str(outcome): outcomes[outcome] for outcome in records.Outcome},
        )


def _write_summary(found: Sequence[RunRecord], output: Format) -> None:
    groups: dict[tuple[str | int | None, ...], list[RunRecord]] = {}
    for run in found:
        recipe = run.recipe
        row = (
            *(run.experiment, run.name, run.device.slug),
            *(recipe.kernels, recipe.train_images),
        )
        groups.setdefault(row, []).append(run)
    summaries = [RowSummary.of(group) for group in groups.values()]
    if output is Format.JSON:
        rows = [asdict(summary) for summary in summaries]
        typer.echo(json.dumps({"variants": rows}, indent=1))
    elif output is Format.CSV:
        columns = [field.name for field in fields(RowSummary)]
        write_csv(map(asdict, summaries), columns)
    else:
        _print_summaries(summaries)


def _print_summaries(summaries: Sequence[RowSummary]) -> None:
    table = Table()
    for column in ("row", "device", "kernels", "images"):
        table.add_column(column, overflow="fold")
    for column in ("n", "accuracy, mean", "lowest", "highest", "most dead", "most never predicted",
                   "relapsed", "outcomes"):  # fmt: skip
        table.add_column(column, justify="right")
    for summary in summaries:
        counts = ((getattr(summary, outcome), outcome) for outcome in records.Outcome)
        table.add_row(
            f"{summary.experiment}/{summary.name}", summary.device_slug, summary.kernels,
            "all" if summary.train_images is None else f"{summary.train_images:,}",
            str(summary.runs),
            *map(_accuracy, (
                summary.accuracy_mean, summary.accuracy_lowest, summary.accuracy_highest
            )),
            str(summary.most_dead_classes), str(summary.most_never_predicted),
            str(summary.relapsed),
            ", ".join(f"{count} {outcome}" for count, outcome in counts if count),
        )  # fmt: skip
    _print_table(table)


def _accuracy(share: float | None) -> str:
    return "none held" if share is None else f"{share:.4f}"


def _print_table(table: Table) -> None:
    if table.row_count:
        wide_console().print(table)
    else:
        typer.echo("no run is like that; `python -m ninlab record` makes those of a plan")
