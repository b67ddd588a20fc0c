"""The model of the CUDA caching allocator, held to its published rules.

The worked examples follow c10/cuda/CUDACachingAllocator.cpp by hand; the laws hold for
every order of requests and releases.
"""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ninlab.allocator import CachingAllocator
from ninlab.errors import NinlabError
from ninlab.reports import Category, MemoryEvent, Phase

KIB, MIB = 2**10, 2**20

sizes = st.one_of(
    st.integers(1, 4 * KIB),
    st.integers(1, 3 * MIB),
    st.integers(1, 64 * MIB),
    st.sampled_from([512, MIB, MIB + 1, 10 * MIB - 512, 10 * MIB, 11 * MIB + 512, 20 * MIB]),
)
settings_of_segments = st.booleans()


@st.composite
def traces(draw, max_steps: int = 60) -> list[int]:
    """Requests (positive sizes) and releases (minus one minus the place among the live)."""
    trace, live = [], 0
    for _ in range(draw(st.integers(1, max_steps))):
        if live and draw(st.integers(0, 2)) == 0:
            trace.append(-1 - draw(st.integers(0, live - 1)))
            live -= 1
        else:
            trace.append(draw(sizes))
            live += 1
    return trace


def run(allocator: CachingAllocator, trace: list[int]):
    """Carry out the trace; yields the living blocks, oldest first, after each of its steps."""
    live = []
    for step in trace:
        if step > 0:
            live.append(allocator.allocate(step))
        else:
            allocator.release(live.pop(-1 - step))
        yield live


def up_to_512(size: int) -> int:
    return (size + 511) // 512 * 512


# ---------------------------------------------------------------- laws of every trace


@given(traces(), settings_of_segments)
def test_requested_is_at_most_allocated_is_at_most_reserved(trace, expandable):
    allocator = CachingAllocator(expandable)
    for _ in run(allocator, trace):
        assert allocator.requested_bytes <= allocator.allocated_bytes <= allocator.reserved_bytes
    assert (
        allocator.requested_peak_bytes
        <= allocator.allocated_peak_bytes
        <= allocator.reserved_peak_bytes
    )


@given(traces(), settings_of_segments)
def test_live_blocks_never_overlap(trace, expandable):
    allocator = CachingAllocator(expandable)
    for live in run(allocator, trace):
        blocks = sorted(live, key=lambda block: block.address)
        for before, after in pairwise(blocks):
            assert before.address + before.bytes <= after.address


@given(traces(), settings_of_segments)
def test_the_counters_are_the_sums_over_the_live_blocks(trace, expandable):
    allocator = CachingAllocator(expandable)
    for live in run(allocator, trace):
        assert allocator.requested_bytes == sum(block.requested_bytes for block in live)
        assert allocator.allocated_bytes == sum(block.bytes for block in live)


@given(traces(), settings_of_segments)
def test_a_released_network_holds_no_bytes_and_gives_none_back_to_the_device(trace, expandable):
    allocator = CachingAllocator(expandable)
    *_, live = [], *run(allocator, trace)
    reserved = allocator.reserved_bytes
    for block in live:
        allocator.release(block)
    assert (allocator.requested_bytes, allocator.allocated_bytes) == (0, 0)
    assert allocator.reserved_bytes == reserved == allocator.reserved_peak_bytes


@given(traces())
def test_with_expandable_segments_only_the_rounding_to_512_is_lost(trace):
    allocator = CachingAllocator(expandable_segments=True)
    for live in run(allocator, trace):
        wanted = [up_to_512(block.requested_bytes) for block in live]
        assert allocator.allocated_bytes == sum(wanted)


@given(traces())
def test_by_default_a_block_wastes_at_most_one_mebibyte_and_a_small_one_nothing(trace):
    allocator = CachingAllocator()
    for live in run(allocator, trace):
        for block in live:
            wanted = up_to_512(block.requested_bytes)
            assert block.bytes - wanted <= (MIB if wanted > MIB else 0)


@given(traces())
def test_expandable_segments_reserve_whole_pages_and_less_than_one_more_than_ever_needed(trace):
    allocator = CachingAllocator(expandable_segments=True)
    for live in run(allocator, [step for step in trace if step > 0]):
        small = [b for b in live if b.bytes <= MIB]
        large = [b for b in live if b.bytes > MIB]
        pages = -(-sum(b.bytes for b in small) // (2 * MIB)) * 2 * MIB
        pages += -(-sum(b.bytes for b in large) // (20 * MIB)) * 20 * MIB
        assert allocator.reserved_bytes == pages


@given(traces(), settings_of_segments)
def test_the_same_trace_gives_the_same_addresses(trace, expandable):
    first, second = CachingAllocator(expandable), CachingAllocator(expandable)
    for one, other in zip(run(first, trace), run(second, trace), strict=True):
        assert [b.address for b in one] == [b.address for b in other]
    assert first.reserved_bytes == second.reserved_bytes


@given(traces(), sizes, settings_of_segments)
def test_a_block_just_released_serves_the_same_request_without_new_memory(trace, size, expandable):
    allocator = CachingAllocator(expandable)
    for _ in run(allocator, trace):
        pass
    allocator.release(allocator.allocate(size))
    reserved = allocator.reserved_bytes
    allocator.allocate(size)
    assert allocator.reserved_bytes == reserved


@given(traces())
def test_without_a_tie_the_order_of_segments_decides_nothing(trace):
    falling, rising = CachingAllocator(), CachingAllocator(segments_fall=False)
    for _ in zip(run(falling, trace), run(rising, trace), strict=True):
        assert falling.was_tied == rising.was_tied
        if falling.was_tied:
            return
        assert falling.reserved_bytes == rising.reserved_bytes
        assert falling.allocated_bytes == rising.allocated_bytes


@given(traces())
def test_an_expandable_segment_leaves_no_order_open(trace):
    allocator = CachingAllocator(expandable_segments=True)
    for _ in run(allocator, trace):
        assert not allocator.was_tied


# ---------------------------------------------------------------- worked by hand


@pytest.mark.parametrize(
    ("requested", "allocated", "reserved"),
    [
        (1, 512, 2 * MIB),
        (513, 1024, 2 * MIB),
        (MIB, MIB, 2 * MIB),  # the largest request of the small pool
        (MIB + 1, MIB + 512, 20 * MIB),  # the smallest of the large pool: 19 MiB are cut off
        (10 * MIB - 512, 10 * MIB - 512, 20 * MIB),
        (10 * MIB, 10 * MIB, 10 * MIB),  # from here on a segment of its own
        (10 * MIB + 1, 10 * MIB + 512, 12 * MIB),  # more than 1 MiB remains: cut off
        (11 * MIB, 12 * MIB, 12 * MIB),  # exactly 1 MiB remains: not cut off
        (11 * MIB - 512, 11 * MIB - 512, 12 * MIB),
        (20 * MIB + 1, 20 * MIB + 512, 22 * MIB),
    ],
)
def test_the_first_request_follows_the_published_rules(requested, allocated, reserved):
    allocator = CachingAllocator()
    allocator.allocate(requested)
    assert (allocator.allocated_bytes, allocator.reserved_bytes) == (allocated, reserved)


@pytest.mark.parametrize(
    ("requested", "reserved"),
    [(1, 2 * MIB), (MIB + 1, 20 * MIB), (11 * MIB, 20 * MIB), (20 * MIB + 1, 40 * MIB)],
)
def test_the_first_request_maps_pages_of_2_or_20_mebibytes(requested, reserved):
    allocator = CachingAllocator(expandable_segments=True)
    allocator.allocate(requested)
    assert allocator.reserved_bytes == reserved


@pytest.mark.parametrize(
    ("size", "reserved", "reserved_expandable"),
    [
        (512, 2 * MIB, 2 * MIB),
        (MIB, 4 * MIB, 4 * MIB),
        (MIB + 512, 20 * MIB, 20 * MIB),
        (10 * MIB - 512, 40 * MIB, 40 * MIB),
        (10 * MIB + 512, 36 * MIB, 40 * MIB),
    ],
)
def test_a_tensor_copied_and_incremented_reserves_what_pytorch_expects_on_a_gpu(
    size, reserved, reserved_expandable
):
    # The figures that PyTorch's own test_cuda.py demands of a real device, in
    # test_graph_memory_stats_and_use_result_after_destroy_graph: b = b.clone() + 1, five times.
    for expandable, expected in ((False, reserved), (True, reserved_expandable)):
        allocator = CachingAllocator(expandable)
        b = allocator.allocate(size)
        for _ in range(5):
            copied, incremented = allocator.allocate(size), allocator.allocate(size)
            allocator.release(copied)
            allocator.release(b)
            b = incremented
        assert allocator.reserved_bytes == expected
        assert allocator.allocated_bytes == size


def test_the_smallest_free_block_that_fits_is_taken():
    allocator = CachingAllocator()
    wide, _, narrow, _ = (allocator.allocate(size * KIB) for size in (64, 1, 32, 1))
    allocator.release(wide)
    allocator.release(narrow)
    assert allocator.allocate(16 * KIB).address == narrow.address


def test_of_equal_free_blocks_the_lowest_is_taken_and_new_segments_come_below():
    for falls in (True, False):
        allocator = CachingAllocator(segments_fall=falls)
        older, newer = (allocator.allocate(40 * MIB) for _ in range(2))
        assert (newer.address < older.address) is falls
        for block in (older, newer):
            allocator.release(block)
        taken = allocator.allocate(40 * MIB)
        assert taken is (newer if falls else older)
        assert allocator.was_tied


def test_equal_free_blocks_of_one_segment_are_no_tie():
    allocator = CachingAllocator()
    left, _, right, _ = (allocator.allocate(4 * MIB) for _ in range(4))
    allocator.release(right)
    allocator.release(left)
    assert allocator.allocate(4 * MIB) is left
    assert not allocator.was_tied


def test_neighbors_that_are_free_become_one_block():
    allocator = CachingAllocator()
    blocks = [allocator.allocate(512 * KIB) for _ in range(4)]  # one small segment, full
    for block in (blocks[0], blocks[2], blocks[1]):
        allocator.release(block)
    assert allocator.allocate(MIB).address == blocks[0].address
    assert allocator.reserved_bytes == 2 * MIB


def test_a_cached_block_with_one_mebibyte_to_spare_is_handed_out_whole():
    allocator = CachingAllocator()
    allocator.release(allocator.allocate(12 * MIB))
    allocator.allocate(11 * MIB)
    assert allocator.allocated_bytes == 12 * MIB
    assert allocator.requested_bytes == 11 * MIB


def test_an_expandable_segment_grows_from_the_free_memory_at_its_end():
    allocator = CachingAllocator(expandable_segments=True)
    allocator.allocate(15 * MIB)  # 5 MiB of the page stay free
    allocator.allocate(24 * MIB)  # needs 19 MiB more: one page
    assert allocator.reserved_bytes == 40 * MIB


def test_an_expandable_segment_spares_its_growing_end_for_large_requests():
    allocator = CachingAllocator(expandable_segments=True)
    hole = allocator.allocate(8 * MIB)
    allocator.allocate(8 * MIB)  # 4 MiB stay free at the end: the better fit, but it can grow
    allocator.release(hole)
    assert allocator.allocate(3 * MIB).address == hole.address


def test_a_block_is_released_once():
    allocator = CachingAllocator()
    block = allocator.allocate(512)
    allocator.release(block)
    with pytest.raises(NinlabError, match="release a block once"):
        allocator.release(block)


def test_an_empty_request_is_refused():
    with pytest.raises(NinlabError, match="at least 1 byte, not 0"):
        CachingAllocator().allocate(0)


# ---------------------------------------------------------------- replay of a step


def event(allocates, block, size, category, phase, layer=""):
    return MemoryEvent(allocates, block, 0, size, category, phase, layer, "operator")


def one_weight_step(scratch: int = 0) -> list[MemoryEvent]:
    """A step of one weight of 3 MiB with a gradient, an optimizer state and an activation."""
    size = 3 * MIB
    steps = [
        event(True, 0, size, Category.PARAMETER, Phase.SETUP),
        event(True, 1, size, Category.OPTIMIZER_STATE, Phase.SETUP),
        event(True, 2, size, Category.GRADIENT, Phase.SETUP),
        event(False, 2, size, Category.GRADIENT, Phase.ZERO_GRAD),
        event(True, 3, size, Category.ACTIVATION, Phase.FORWARD),
        event(True, 4, size, Category.GRADIENT, Phase.BACKWARD),
        event(False, 3, size, Category.ACTIVATION, Phase.BACKWARD),
        event(True, 5, size, Category.TEMPORARY, Phase.STEP),
        event(False, 5, size, Category.TEMPORARY, Phase.STEP),
    ]
    if scratch:
        around_backward = [
            event(allocates, 6, scratch, Category.WORKSPACE, Phase.BACKWARD)
            for allocates in (True, False)
        ]
        steps[6:6] = around_backward
    return steps


def test_replay_tells_tensors_requests_blocks_and_segments_apart():
    report = CachingAllocator().replay(one_weight_step(scratch=5 * MIB), batch_size=1)
    assert report.tensor_peak_bytes == 4 * 3 * MIB
    assert report.requested_peak_bytes == 4 * 3 * MIB + 5 * MIB
    assert report.allocated_peak_bytes == report.requested_peak_bytes
    assert report.reserved_peak_bytes == 20 * MIB
    assert sum(report.by_category.values()) == report.tensor_peak_bytes


def test_replay_reports_the_warm_step_not_the_first():
    # Step 1 has no gradient and no state yet at its start; only the warm step holds all five.
    report = CachingAllocator(expandable_segments=True).replay(one_weight_step(), batch_size=7)
    assert report.requested_peak_bytes == 7 * 4 * 3 * MIB
    assert report.reserved_peak_bytes == -(-7 * 4 * 3 // 20) * 20 * MIB


def test_what_a_library_keeps_is_cut_for_good_from_a_block_that_its_first_call_finds_free():
    kept = event(True, 1, 32 * MIB, Category.WORKSPACE, Phase.SETUP)
    step = [
        event(allocates, 2, 100 * MIB, Category.ACTIVATION, Phase.FORWARD)
        for allocates in (True, False)
    ]
    # From the start, it has a segment to itself, and the activation another one.
    report = CachingAllocator().replay([kept, *step], batch_size=1)
    assert (report.requested_peak_bytes, report.reserved_peak_bytes) == (132 * MIB, 132 * MIB)
    # At its first call the activation's segment is free, and of 68 MiB ever after.
    report = CachingAllocator().replay([kept._replace(first_at=2), *step], batch_size=1)
    assert (report.requested_peak_bytes, report.reserved_peak_bytes) == (132 * MIB, 200 * MIB)


def two_segments_with_a_tie() -> list[MemoryEvent]:
    """In segments of 70 and 60 MiB, two blocks of 40 become free; the one that is taken decides.

    When the two blocks beside them are free, too, 65 MiB fit in the first segment, or nowhere.
    """
    changes = [
        *[("first", 40), ("beside first", 30), ("second", 40), ("beside second", 20)],
        *["first", "second", ("one of them", 40), "beside first", "beside second"],
        *[("large", 65), "large", "one of them"],
    ]
    found = [("room of the first", 70), ("room of the second", 60)]
    sizes = dict(change for change in (*found, *changes) if isinstance(change, tuple))
    numbers = {name: number for number, name in enumerate(sizes)}

    def change(what, phase):
        allocates = isinstance(what, tuple)
        name = what[0] if allocates else what
        size = sizes[name] * MIB
        return event(allocates, numbers[name], size, Category.ACTIVATION, phase)

    rooms = [*found, "room of the first", "room of the second"]
    return [change(what, Phase.FORWARD) for what in (*rooms, *changes)]


def test_a_reserved_peak_that_hangs_on_the_order_of_segments_comes_with_its_range():
    events = two_segments_with_a_tie()
    by_order = {
        falls: CachingAllocator(segments_fall=falls).replay(events, batch_size=1)
        for falls in (True, False)
    }
    assert by_order[True].reserved_peak_bytes == 130 * MIB
    assert by_order[False].reserved_peak_bytes == 196 * MIB
    for report in by_order.values():
        assert report.reserved_range_bytes == (130 * MIB, 196 * MIB)
    expandable = CachingAllocator(expandable_segments=True).replay(events, batch_size=1)
    assert expandable.reserved_range_bytes is None


def test_a_reserved_peak_that_no_order_moves_has_no_range():
    assert CachingAllocator().replay(one_weight_step(), batch_size=1).reserved_range_bytes is None


def test_a_tensor_without_elements_asks_for_nothing():
    empty = event(True, 9, 0, Category.INPUT, Phase.SETUP)
    with_empty = CachingAllocator().replay([empty, *one_weight_step()], batch_size=1)
    assert with_empty == CachingAllocator().replay(one_weight_step(), batch_size=1)


def test_events_that_are_no_warm_step_are_refused():
    step = one_weight_step()
    without_gradient = [e for e in step if e.block != 4]
    with pytest.raises(NinlabError, match="leaves no such block itself"):
        CachingAllocator().replay(without_gradient, batch_size=1)
    leaking = [e for e in step if e.allocates or e.block != 3]
    with pytest.raises(NinlabError, match=r"leaves 1 block\(s\) behind"):
        CachingAllocator().replay(leaking, batch_size=1)
