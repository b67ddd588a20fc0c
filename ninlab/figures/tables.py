"""How are the tables of several scales shown below each other, so that none mixes them?"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from html import escape
from itertools import chain

import pandas as pd

from ninlab.comparisons import Groups, Scale, conditions, effects, scale_of, told_apart
from ninlab.errors import UnknownNameError
from ninlab.records import RunRecord


@dataclass(frozen=True)
class Tables:
    """Tables, each under a heading that says what all its rows have in common."""

    frames: Mapping[str, pd.DataFrame]

    def __getitem__(self, heading: str) -> pd.DataFrame:
        return self.frames[heading]

    def _repr_html_(self) -> str:
        """What a notebook and the book show."""
        return "".join(
            f"<p><strong>{escape(heading)}</strong></p>{frame.to_html()}"
            for heading, frame in self.frames.items()
        )

    def __repr__(self) -> str:
        return "\n\n".join(f"{heading}\n{frame}" for heading, frame in self.frames.items())


def tables_by_scale(
    *groups: Groups,
    rows: Callable[[Groups], Mapping[str, Mapping[str, str]]] | None = None,
    columns: Sequence[str] = (),
    more: Mapping[str, Callable[[Sequence[RunRecord]], str]] | None = None,
) -> Tables:
    """What the runs of each scale show, one table a scale.

    rows makes the rows of one argument, by label; by default they are those of
    `comparisons.effects`, whose intervals hold together in each table. columns names which of
    their columns are shown, in which order; by default all. A scale that lacks one goes without.
    more gives further columns, each from the runs of a row. Arguments of one scale share a table,
    and each is compared with its own first row. Raises UnknownNameError for a column that
    no scale has, NinlabError for an argument that holds runs of two scales.
    """
    by_scale: dict[Scale, list[Groups]] = {}
    for part in groups:
        if part:
            by_scale.setdefault(scale_of([*chain(*part.values())]), []).append(part)
    frames: dict[str, pd.DataFrame] = {}
    known: dict[str, None] = {}
    for scale, parts in by_scale.items():
        parts = [told_apart(part, among=parts) for part in parts]
        labeled = [row for part in parts for row in part.items()]
        heading = conditions({f"{i}": runs for i, (_, runs) in enumerate(labeled)})
        rows_of = rows or partial(effects, among=parts)
        frame = pd.concat(pd.DataFrame(rows_of(part)).T for part in parts).fillna("")
        known |= dict.fromkeys(frame.columns)
        if columns:
            frame = frame[[name for name in columns if name in frame]].copy()
        for name, value in (more or {}).items():
            frame[name] = [value(runs) for _, runs in labeled]
        # two models of one GPU may go by one name
        frames[f"{heading} ({scale.device_slug})" if heading in frames else heading] = frame
    if frames and (unknown := [name for name in columns if name not in known]):
        raise UnknownNameError("column", unknown[0], known)
    return Tables(frames)
