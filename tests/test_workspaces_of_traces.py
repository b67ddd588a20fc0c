"""The workspaces that an H100 took for convolutions, call by call, beside those of its table."""

from collections import Counter
from dataclasses import dataclass
from functools import cache

import pytest

from ninlab.measurement import read_trace
from ninlab.reports import Phase
from ninlab.workspaces import ConvCall, Direction, Source, Workspaces, product_bytes
from tests.measured_steps import traced_steps
from tests.test_temporaries import RESIZED

H100 = Workspaces.load("h100", torch="2.11")
BOOKKEEPING_BYTES = 2048
"""What beside tiles and copies nobody predicts: locks, headers and pointers of a call."""


@dataclass(frozen=True)
class Asked:
    """One convolution of a traced step."""

    call: ConvCall
    direction: Direction
    batch_size: int
    precision: str
    memory_format: str

    @property
    def scratch(self):
        return H100.convolution(
            *(self.call, self.direction, self.batch_size, self.precision, self.memory_format)
        )

    @property
    def is_product(self):
        """Whether cuDNN ranks the product of matrices first."""
        return (
            self.call.is_product
            and self.memory_format == "contiguous"
            and self.scratch.bytes == product_bytes(self.call, self.direction, self.batch_size)
        )


@cache
def taken():
    """The scratch blocks behind each distinct convolution in all traces, in bytes."""
    found = {}
    for measured in traced_steps().values():
        found |= dict(taken_in(measured))
    return found


def taken_in(measured):
    step, case = measured.step, measured.case
    sizes, numbers = [], []  # of the tensors that the step makes; how many, at each event
    for event in step.events:
        if event.allocates and event.phase is not Phase.SETUP and event.constant_bytes:
            sizes.append(event.constant_bytes)
        numbers.append(len(sizes))
    behind = [[] for _ in range(len(sizes) + 1)]
    made = 0
    for event in read_trace(measured.trace):
        if not event.allocates:
            continue
        is_next = made < len(sizes) and event.bytes == sizes[made]
        if not event.is_scratch or (case.network in RESIZED and is_next):
            made += 1
        else:
            behind[made].append(event.bytes)
    assert made == len(sizes)
    for call in step.calls:
        for result, direction in enumerate(call.directions):
            asked = Asked(
                *(call.convolution, direction, case.batch_size, case.precision),
                call.memory_formats[result],
            )
            yield asked, sum(behind[numbers[call.place(result)]])


def is_right(asked, size):
    return abs(asked.scratch.bytes - size) < BOOKKEEPING_BYTES


def test_the_table_knows_each_traced_convolution_and_says_so():
    sources = {asked.scratch.source for asked in taken()}
    assert sources == {Source.DESCRIBED, Source.OWN_KERNEL}


def test_a_1x1_convolution_that_cudnn_ranks_as_a_product_takes_what_a_product_takes():
    sizes = [
        size - product_bytes(asked.call, asked.direction, asked.batch_size)
        for asked, size in taken().items()
        if asked.is_product
    ]
    assert len(sizes) == 277
    assert {0} <= set(sizes) <= {0, 272, 400}


def test_every_other_1x1_convolution_takes_more_than_a_product_would_or_less():
    others = [
        (asked, size)
        for asked, size in taken().items()
        if asked.call.is_product and not asked.is_product and asked.memory_format == "contiguous"
    ]
    assert len(others) > 20
    for asked, size in others:
        assert abs(size - product_bytes(asked.call, asked.direction, asked.batch_size)) > 400


WINDOWS = {  # of how many with larger windows the table is right
    (Direction.FORWARD, "tf32"): (40, 47),
    (Direction.INPUT_GRADIENT, "tf32"): (32, 37),
    (Direction.WEIGHT_GRADIENT, "tf32"): (44, 47),
    (Direction.FORWARD, "bf16"): (27, 27),
    (Direction.INPUT_GRADIENT, "bf16"): (20, 21),
    (Direction.WEIGHT_GRADIENT, "bf16"): (17, 27),
}


@pytest.mark.parametrize(
    ("direction", "precision", "counts"), [(*asked, counts) for asked, counts in WINDOWS.items()]
)
def test_most_convolutions_with_larger_windows_take_what_the_table_says(
    direction, precision, counts
):
    right = Counter(
        is_right(one, size)
        for one, size in taken().items()
        if (one.direction, one.precision) == (direction, precision)
        and not one.call.is_product
        and not one.call.is_depthwise
        and one.memory_format == "contiguous"
    )
    assert (right[True], right.total()) == counts


def test_convolutions_in_channels_last_take_what_the_table_says_but_some_in_bf16():
    found = [(one, size) for one, size in taken().items() if one.memory_format == "channels_last"]
    wrong = [one for one, size in found if not is_right(one, size)]
    assert len(found) == 42
    assert {(one.direction, one.precision) for one in wrong} == {
        (Direction.WEIGHT_GRADIENT, "bf16")
    }
    assert len(wrong) == 5


def test_atens_own_depthwise_kernel_takes_nothing():
    found = [size for one, size in taken().items() if one.scratch.source is Source.OWN_KERNEL]
    assert found
    assert set(found) == {0}
