"""How long does it take to find the peak memory of a training step on paper?

For each network: the events of the step, the lines of its peak over all batches, and the
milliseconds to play the step anew (nothing cached), to find the peak at one batch size, to
find it for all, and to replay the step twice through the model of the caching allocator.
Times are the least of many, so that other work on the machine is left out.

Run it with ``python benchmarks/liveness_cost.py [network ...]``.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from time import perf_counter

from ninlab import liveness
from ninlab.allocator import CachingAllocator
from ninlab.architectures import architecture

NETWORKS = ("lenet", "nin", "alexnet", "vgg11", "vgg16", "vgg19", "googlenet")
BATCH_SIZE = 128
REPEATS = 50
COLUMNS = ("network", "precision", "events", "lines", "step", "peak", "all peaks", "allocator")


def milliseconds(work: Callable[[], object]) -> float:
    """Wall time of the fastest of `REPEATS` calls."""
    times = []
    for _ in range(REPEATS):
        start = perf_counter()
        work()
        times.append(perf_counter() - start)
    return 1e3 * min(times)


def row(name: str, precision: str) -> tuple[str, ...]:
    """What one network costs to analyze, as text."""
    network = architecture(name)

    def play() -> None:
        liveness.timeline.cache_clear()
        liveness.timeline(network, "sgd", precision)

    events = liveness.timeline(network, "sgd", precision)
    times = (
        milliseconds(play),
        milliseconds(lambda: liveness.peak_bytes(events, BATCH_SIZE)),
        milliseconds(lambda: liveness.envelope(events)),
        milliseconds(lambda: CachingAllocator().replay(events, BATCH_SIZE)),
    )
    counts = (len(events), len(liveness.envelope(events)))
    return (name, precision, *map(str, counts), *(f"{time:.2f} ms" for time in times))


def main(names: list[str]) -> None:
    """Print the table."""
    rows = [row(name, precision) for name in names for precision in ("fp32", "bf16")]
    widths = [max(map(len, column)) for column in zip(COLUMNS, *rows, strict=True)]
    for cells in (COLUMNS, *rows):
        print("  ".join(cell.rjust(width) for cell, width in zip(cells, widths, strict=True)))


if __name__ == "__main__":
    main(sys.argv[1:] or list(NETWORKS))
