"""How do two runs of one seed part, where the processor adds up its sums in another order?

Twins have their network, recipe and seed in common, and so their first weights and batches; also
torch, its threads and the processor, which choose kernels too. They differ in the instructions
that the kernels use, which a record's host names.

Known limit: a record keeps six digits of its losses, as means over some steps. What is closer than
that counts as equal.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import accumulate
from math import inf

from ninlab.errors import NinlabError
from ninlab.records import RunRecord

PARTED_NATS = 0.01
"""Twins have parted when their training losses are this far apart: where a run is seen to be
another, and far above the digits in which the first steps differ."""

Twins = tuple[RunRecord, RunRecord]
"""That of the wider instructions first."""


def twins(runs: Iterable[RunRecord], network: str) -> list[Twins]:
    """The single runs of a network that were made with two kinds of instructions, by seed.

    Of more than two kinds the two widest count. A run of whose host nothing is recorded has no
    twin. Raises NinlabError for two runs that differ not even in their instructions: which of
    them is the twin, nothing says.
    """
    made: dict[tuple[object, ...], dict[str, RunRecord]] = {}
    for run in runs:
        if run.experiment == "single" and run.network == network and run.host:
            by_instructions = made.setdefault(tuple(shared(run).values()), {})
            other = by_instructions.setdefault(instructions(run), run)
            if other != run:
                raise NinlabError(
                    f"{run.id} and {other.id} are of one seed, made by {instructions(run)}; give "
                    "one of them"
                )
    found = []
    for by_instructions in made.values():
        widest = sorted(by_instructions, key=_width, reverse=True)
        if len(widest) > 1:
            found.append((by_instructions[widest[0]], by_instructions[widest[1]]))
    return sorted(found, key=lambda pair: pair[0].seed)


def shared(run: RunRecord) -> dict[str, object]:
    """What twins have in common, each by its name."""
    return {
        "network": run.network,
        "recipe": run.recipe,
        "seed": run.seed,
        "torch": run.software.torch,
        "threads": run.device.threads,
        "processor": run.host.processor if run.host else None,
    }


def instructions(run: RunRecord) -> str:
    """The instructions of torch's kernels, as torch names them; of old records unknown."""
    return run.host.cpu_capability if run.host else "unknown instructions"


def farthest_apart(pair: Twins) -> list[float]:
    """The largest distance so far between the losses of both runs, in nats, at each stored loss.

    A loss that is not finite is as far away as any.
    """
    ours, theirs = (run.loss.values for run in pair)
    distances = (
        inf if one is None or other is None else abs(one - other)
        for one, other in zip(ours, theirs, strict=False)  # one that diverged has fewer
    )
    return list(accumulate(distances, max))


def parting_step(pair: Twins, nats: float = PARTED_NATS) -> int | None:
    """The first step of the first stored loss that is so far from the twin's; None if none is."""
    apart = farthest_apart(pair)
    return next((i * pair[0].loss.every for i, far in enumerate(apart) if far >= nats), None)


def _width(capability: str) -> int:
    """The number in the name of a processor's instructions: 512 of ``AVX512``."""
    return int("".join(filter(str.isdigit, capability)) or 0)
