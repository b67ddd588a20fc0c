"""What would PyTorch's CUDA caching allocator report for these memory events?

Tensors ask for bytes (*requested*); the allocator hands out blocks of whole 512 bytes that
it does not always split (*allocated*, what ``torch.cuda.max_memory_allocated`` reports) and
takes segments from the device that it keeps for later (*reserved*). This module replays a
step's events through a model of that allocator, without torch and without a GPU.

Source: ``c10/cuda/CUDACachingAllocator.cpp`` and ``c10/core/AllocatorConfig.h`` of PyTorch
with their default settings; the constants below carry the names they have there.

Of free blocks of equal size the allocator takes the one at the lowest address, and addresses
are the driver's choice. No document says how it makes it. What traces of one driver show
(580.159 on an H100, tests/test_traces.py): a large segment comes right below the one before
it, unless a hole among older ones holds it; a small one comes into such a hole, the later the
higher in most cases. So segments of the large pool fall here, and those of the small pool rise.
Where the choice between equal blocks of two large segments moves the reserved peak, the report
says its range over both orders.

Known limits: one stream; a device that never runs out, so that nothing is given back; no holes
between large segments, which a process has that gave segments back before: it meets blocks of
equal size in an order between the two, and its reserved peak may be another one. The allocated
peak hangs on the order, too, by at most 1 MiB a block, and is given for falling segments alone.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from operator import itemgetter

from ninlab.errors import NinlabError
from ninlab.reports import Category, MemoryEvent, MemoryReport, Phase, tensor_peak
from ninlab.units import BYTE_UNITS, format_bytes

MIB = BYTE_UNITS["MiB"]

MIN_BLOCK_BYTES = 512  # kMinBlockSize: every block is a multiple of it
LARGEST_SMALL_BYTES = 1 * MIB  # kSmallSize: above it a request goes to the large pool
SMALL_SEGMENT_BYTES = 2 * MIB  # kSmallBuffer: segment, or page, of the small pool
LARGE_SEGMENT_BYTES = 20 * MIB  # large_segment_size: the same of the large pool
OWN_SEGMENT_BYTES = 10 * MIB  # kMinLargeAlloc: from here on a request gets a segment to itself
ROUND_LARGE_BYTES = 2 * MIB  # kRoundLarge: such a segment is a multiple of it

ADDRESS_GRANULE_BYTES = 32 * MIB
"""Large segments begin at multiples of it: seen in the traces named above, in no document."""


@dataclass(slots=True, eq=False)
class CachedBlock:
    """Part of a segment: handed out, or free and waiting in its pool.

    previous and next are its neighbors in the same segment, which begins at that address.
    """

    pool: BlockPool
    segment: int
    address: int
    bytes: int
    requested_bytes: int | None = None  # None while the block is free
    previous: CachedBlock | None = field(default=None, repr=False)
    next: CachedBlock | None = field(default=None, repr=False)


@dataclass(slots=True, eq=False)
class BlockPool:
    """The segments of either the small or the large requests, and their free blocks."""

    segment_bytes: int  # of a shared segment, and of one page of an expandable one
    smallest_remainder: int  # a block is split if at least that much remains
    expandable: bool
    edge: int  # where the newest segment ends, or begins where segments fall
    falls: bool = False  # whether a new segment comes below those that are there
    was_tied: bool = False  # whether free blocks of equal size in two segments were met
    free: list[tuple[int, int, CachedBlock]] = field(default_factory=list)  # by size, then address
    last: CachedBlock | None = None  # the block at the end of the newest segment

    def best_fit(self, wanted: int) -> CachedBlock | None:
        """The smallest free block of at least that many bytes, taken out of the pool.

        The last block of an expandable segment counts as the largest: it can grow.
        """
        index = bisect_left(self.free, (wanted,))
        if index == len(self.free):
            return None
        if self.expandable and self.free[index][2] is self.last and index + 1 < len(self.free):
            index += 1
        size, _, block = self.free.pop(index)
        if index < len(self.free) and self.free[index][0] == size and not self.was_tied:
            highest = self.free[bisect_left(self.free, (size + 1,)) - 1][2]
            self.was_tied = highest.segment != block.segment
        return block

    def take(self, block: CachedBlock) -> CachedBlock:
        """That free block, taken out of the pool."""
        self.free.pop(bisect_left(self.free, (block.bytes, block.address)))
        return block

    def put(self, block: CachedBlock) -> None:
        """Make the block free for the next request that it fits."""
        insort(self.free, (block.bytes, block.address, block))

    def new_segment(self, wanted: int) -> CachedBlock:
        """A segment from the device, large enough for that many bytes."""
        size = self.segment_bytes
        if wanted >= OWN_SEGMENT_BYTES:
            size = _round_up(wanted, ROUND_LARGE_BYTES)
        room = _round_up(size, ADDRESS_GRANULE_BYTES)
        start = self.edge - room if self.falls else self.edge
        self.edge = start if self.falls else start + room
        block = CachedBlock(self, start, start, size)
        self.last = block
        return block

    def expand(self, wanted: int) -> tuple[CachedBlock, int]:
        """The end of the one expandable segment, grown to at least that many bytes.

        Returns the block and the bytes of the pages mapped for it. Free memory at the
        end of the segment is used first.
        """
        last = self.last
        tail = self.take(last) if last is not None and last.requested_bytes is None else None
        mapped = _round_up(wanted - (tail.bytes if tail else 0), self.segment_bytes)
        if tail is None:
            tail = CachedBlock(self, 0, self.edge, 0, previous=last)
            if last is not None:
                last.next = tail
            self.last = tail
        tail.bytes += mapped
        self.edge += mapped
        return tail, mapped

    def split(self, block: CachedBlock, size: int) -> None:
        """Cut the block to size and free the remainder, where the pool's rule allows it."""
        remainder = block.bytes - size
        if remainder < self.smallest_remainder:
            return
        rest = CachedBlock(
            self,
            block.segment,
            block.address + size,
            remainder,
            previous=block,
            next=block.next,
        )
        if rest.next is not None:
            rest.next.previous = rest
        if self.last is block:
            self.last = rest
        block.next = rest
        block.bytes = size
        self.put(rest)

    def merge(self, block: CachedBlock) -> None:
        """Free the block, joined with the free blocks beside it."""
        before, after = block.previous, block.next
        if before is not None and before.requested_bytes is None:
            self.take(before)
            block.address = before.address
            block.bytes += before.bytes
            block.previous = before.previous
            if block.previous is not None:
                block.previous.next = block
        if after is not None and after.requested_bytes is None:
            self.take(after)
            block.bytes += after.bytes
            block.next = after.next
            if block.next is not None:
                block.next.previous = block
            if self.last is after:
                self.last = block
        self.put(block)


class CachingAllocator:
    """The allocator of one device, empty at first.

    expandable_segments is the setting of that name in ``PYTORCH_CUDA_ALLOC_CONF``: one
    segment a pool that grows by pages, in which every remainder is split off. Without it
    large segments come at falling addresses, unless segments_fall says otherwise.
    """

    def __init__(self, expandable_segments: bool = False, *, segments_fall: bool = True) -> None:
        self.expandable_segments = expandable_segments
        self.segments_fall = segments_fall and not expandable_segments
        split_all = MIN_BLOCK_BYTES
        split_large = split_all if expandable_segments else LARGEST_SMALL_BYTES + 1
        self._small = BlockPool(SMALL_SEGMENT_BYTES, split_all, expandable_segments, edge=0)
        self._large = BlockPool(
            LARGE_SEGMENT_BYTES,
            split_large,
            expandable_segments,
            edge=2**60,
            falls=self.segments_fall,
        )
        self._live: dict[int, CachedBlock] = {}
        self.requested_bytes = self.allocated_bytes = self.reserved_bytes = 0
        self.reset_peaks()

    def reset_peaks(self) -> None:
        """Start the peaks again from what is in use now, as ``reset_peak_memory_stats`` does."""
        self.requested_peak_bytes = self.requested_bytes
        self.allocated_peak_bytes = self.allocated_bytes
        self.reserved_peak_bytes = self.reserved_bytes

    def allocate(self, requested_bytes: int) -> CachedBlock:
        """A block of at least that many bytes: the best fit in the pool, or new memory.

        Raises NinlabError for a request under one byte; a tensor without elements asks
        for none.
        """
        if requested_bytes < 1:
            raise NinlabError(f"an allocation must be at least 1 byte, not {requested_bytes}")
        size = _round_up(requested_bytes, MIN_BLOCK_BYTES)
        pool = self._small if size <= LARGEST_SMALL_BYTES else self._large
        block = pool.best_fit(size)
        if block is None and pool.expandable:
            block, mapped = pool.expand(size)
            self.reserved_bytes += mapped
        elif block is None:
            block = pool.new_segment(size)
            self.reserved_bytes += block.bytes
        pool.split(block, size)
        block.requested_bytes = requested_bytes
        self._live[id(block)] = block
        self.requested_bytes += requested_bytes
        self.allocated_bytes += block.bytes
        self.requested_peak_bytes = max(self.requested_peak_bytes, self.requested_bytes)
        self.allocated_peak_bytes = max(self.allocated_peak_bytes, self.allocated_bytes)
        self.reserved_peak_bytes = max(self.reserved_peak_bytes, self.reserved_bytes)
        return block

    def release(self, block: CachedBlock) -> None:
        """Take the block back; its memory stays reserved for the requests that follow.

        Raises NinlabError when the block is not handed out.
        """
        if self._live.pop(id(block), None) is None:
            raise NinlabError(
                f"the block of {format_bytes(block.bytes)} at address {block.address} is not "
                "handed out; release a block once"
            )
        assert block.requested_bytes is not None
        self.requested_bytes -= block.requested_bytes
        self.allocated_bytes -= block.bytes
        block.requested_bytes = None
        block.pool.merge(block)

    @property
    def was_tied(self) -> bool:
        """Whether another order of large segments could have led to other blocks so far."""
        return self._large.was_tied

    def replay(self, events: Sequence[MemoryEvent], batch_size: int) -> MemoryReport:
        """The peaks of a warm step: the second of two on an empty device of this setting.

        events are one warm step, with what it finds in `Phase.SETUP`. The first step finds
        weights and batch only: gradients, scores and loss of an earlier step do not exist
        yet, the optimizer makes its state when it first runs, and a library what it keeps at
        its first call (`MemoryEvent.first_at`). The second step meets
        the segments the first one left, cut where it cut them, as on a GPU after warm-up.
        Raises NinlabError when a step leaves other blocks than the next one expects.
        """
        device = self._warmed(events, batch_size, segments_fall=self.segments_fall)
        reserved = {device.reserved_peak_bytes}
        if device.was_tied:
            other = self._warmed(events, batch_size, segments_fall=not self.segments_fall)
            reserved.add(other.reserved_peak_bytes)
        return replace(
            tensor_peak(events, batch_size),
            requested_peak_bytes=device.requested_peak_bytes,
            allocated_peak_bytes=device.allocated_peak_bytes,
            reserved_peak_bytes=device.reserved_peak_bytes,
            reserved_range_bytes=(min(reserved), max(reserved)) if len(reserved) > 1 else None,
        )

    def _warmed(
        self, events: Sequence[MemoryEvent], batch_size: int, *, segments_fall: bool
    ) -> CachingAllocator:
        """A device of this setting after two such steps, with the peaks of the second."""
        device = CachingAllocator(self.expandable_segments, segments_fall=segments_fall)
        steps = _Steps(device, events, batch_size)
        steps.run_first()
        device.reset_peaks()
        steps.run_warm()
        return device


class _Steps:
    """A first and a warm step on one device, from the events of the warm one."""

    def __init__(
        self, device: CachingAllocator, events: Sequence[MemoryEvent], batch_size: int
    ) -> None:
        self.device = device
        self.batch_size = batch_size
        self.setup = [event for event in events if event.phase is Phase.SETUP]
        self.step = [event for event in events if event.phase is not Phase.SETUP]
        self.live: dict[int, CachedBlock | None] = {}  # None: a tensor without elements
        released = {event.block for event in self.step if not event.allocates}
        self.inherited = [event for event in self.setup if event.block in released]

    def run_first(self) -> None:
        """Set up, and run the step without what an earlier one would have left.

        State that stands after the batch is made when the optimizer first runs; what stands
        before it was made with the optimizer. What a library keeps is made at its first call,
        where it may take a part of a large free block, for good.
        """
        inherited = {event.block for event in self.inherited}
        batch = next((i for i, e in enumerate(self.setup) if e.category is Category.INPUT), 0)
        states = [e for e in self.setup[batch:] if e.category is Category.OPTIMIZER_STATE]
        optimizer_runs = next(
            (i for i, event in enumerate(self.step) if event.phase is Phase.STEP), len(self.step)
        )
        made = [(optimizer_runs, event) for event in states]
        made += [(event.first_at, event) for event in self.setup if event.first_at is not None]
        late = inherited | {event.block for _, event in made}
        self._run(event for event in self.setup if event.block not in late)
        step = list(self.step)
        made.sort(key=itemgetter(0))
        for at, event in reversed(made):
            step.insert(at, event)
        self._run(event for event in step if event.block not in inherited)

    def run_warm(self) -> None:
        """Run the step with the blocks that the first one left as those it inherits."""
        left: dict[tuple[int, int], deque[int]] = defaultdict(deque)
        for event in self.step:
            if event.allocates and event.block in self.live:
                left[event.constant_bytes, event.bytes_per_image].append(event.block)
        renamed = {}
        for event in self.inherited:
            same_size = left[event.constant_bytes, event.bytes_per_image]
            if not same_size:
                raise NinlabError(
                    f"the step releases {format_bytes(event.bytes(self.batch_size))} of the step "
                    f"before ({event.category}, {event.layer!r}) but leaves no such block itself; "
                    "replay the events of one warm step"
                )
            renamed[event.block] = same_size.popleft()
        if any(left.values()):
            raise NinlabError(
                f"the step leaves {sum(map(len, left.values()))} block(s) behind that the next "
                "one does not release; replay the events of one warm step"
            )
        self.live |= {new: self.live.pop(old) for new, old in renamed.items()}
        self._run(iter(self.step))

    def _run(self, events: Iterator[MemoryEvent]) -> None:
        for event in events:
            size = event.bytes(self.batch_size)
            if event.allocates:
                self.live[event.block] = self.device.allocate(size) if size else None
            elif block := self.live.pop(event.block):
                self.device.release(block)


def _round_up(size: int, multiple: int) -> int:
    return -(-size // multiple) * multiple
