"""How long does it take to find the peak memory of a training step on paper?

For each network and precision: the milliseconds to play a step anew and to find its peak at
batch 128, for each optimizer and for inference; nothing is remembered from one call to the
next. Then, of Adagrad's step, which is the longest: its events, the lines of its peak over all
batches, and the milliseconds to find these lines and to replay the step twice through the
model of the caching allocator. Times are the least of many, so that other work on the machine
is left out.

Run it with ``python benchmarks/liveness_cost.py [network ...]``; without a name it takes every
network of the book.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from timeit import repeat

from ninlab import liveness
from ninlab.allocator import CachingAllocator
from ninlab.architectures import ARCHITECTURES, Architecture, architecture
from ninlab.steps import Optimizer

BATCH_SIZE = 128
REPEATS = 50
LONGEST = Optimizer.ADAGRAD
COLUMNS = (
    "network", "precision", *Optimizer, "inference",
    "events", "lines", "all peaks", "allocator",
)  # fmt: skip


def milliseconds(work: Callable[[], object]) -> float:
    """Wall time of the fastest of `REPEATS` calls, without Python's garbage collector."""
    return 1e3 * min(repeat(work, number=1, repeat=REPEATS))


def milliseconds_of_peak(
    network: Architecture, optimizer: str, precision: str, *, training: bool = True
) -> float:
    """The time of a peak whose step is played for it."""

    def find_peak() -> int:
        liveness.timeline.cache_clear()
        events = liveness.timeline(network, optimizer, precision, training=training)
        return liveness.peak_bytes(events, BATCH_SIZE)

    return milliseconds(find_peak)


def row(name: str, precision: str) -> tuple[list[str], float]:
    """What one network costs to analyze, as text, and its slowest peak."""
    network = architecture(name)
    peaks = [milliseconds_of_peak(network, each, precision) for each in Optimizer]
    peaks.append(milliseconds_of_peak(network, "sgd", precision, training=False))
    events = liveness.timeline(network, LONGEST, precision)
    later = (
        milliseconds(lambda: liveness.envelope(events)),
        milliseconds(lambda: CachingAllocator().replay(events, BATCH_SIZE)),
    )
    counts = (len(events), len(liveness.envelope(events)))
    cells = [
        name,
        precision,
        *(f"{time:.2f} ms" for time in peaks),
        *map(str, counts),
        *(f"{time:.2f} ms" for time in later),
    ]
    return cells, max(peaks)


def main(names: list[str]) -> None:
    """Print the table, and the slowest of all peaks."""
    rows = [row(name, precision) for name in names for precision in ("fp32", "bf16")]
    lines = [list(COLUMNS), *(cells for cells, _ in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for cells in lines:
        print("  ".join(cell.rjust(width) for cell, width in zip(cells, widths, strict=True)))
    (name, precision, *_), slowest = max(rows, key=lambda each: each[1])
    print(f"slowest peak: {slowest:.2f} ms, {name} in {precision}")


if __name__ == "__main__":
    main(sys.argv[1:] or list(ARCHITECTURES))
