"""The rule of a GPU's reductions: its laws, and every block that traces of an H100 hold of them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import astuple
from itertools import permutations
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from ninlab.devices import DEVICES
from ninlab.measurement import read_trace
from ninlab.reductions import Reduction, ReductionScratch
from ninlab.reports import Category
from ninlab.resources import load, trace_step, with_scratch
from ninlab.resources.reduced import reductions_of
from ninlab.workspaces import CUBLAS_RULES, ConvScratch, Source, Workspaces
from tests.measured_steps import traced_steps

H100 = DEVICES["h100"].described
SIZE = (H100["multiProcessorCount"], H100["maxThreadsPerSM"])
aten = torch.ops.aten


def contiguous(shape: Sequence[int]) -> tuple[int, ...]:
    return tuple(math.prod(shape[at + 1 :]) for at in range(len(shape)))


def total(shape: Sequence[int], reduced: Iterable[int], strides: Sequence[int] = ()) -> Reduction:
    """The sum of a tensor of floats, contiguous unless strides are given."""
    return Reduction(tuple(shape), tuple(strides or contiguous(shape)), tuple(reduced), 4, 4)


def bias_gradient(rows: int, features: int) -> Reduction:
    return total((rows, features), [0])


# ---------------------------------------------------------------- laws

ROWS = st.lists(st.integers(1, 30), min_size=1, max_size=4)
FEATURES = st.integers(1, 3000)
SIZES = st.integers(1, 200)


@given(ROWS, FEATURES)
def test_the_sum_over_rows_does_not_depend_on_how_the_rows_are_viewed(rows, features):
    views = total((*rows, features), range(len(rows)))
    assert views.scratch(*SIZE) == bias_gradient(math.prod(rows), features).scratch(*SIZE)


@given(ROWS, FEATURES, st.integers(0, 4))
def test_a_dimension_of_one_takes_no_part(rows, features, place):
    shape = (*rows, features)
    wider = (*shape[:place], 1, *shape[place:])
    kept = wider.index(features, len(wider) - 1) if place < len(shape) else len(shape) - 1
    for reduced in (set(range(len(wider))) - {kept}, set(range(len(wider))) - {kept, place}):
        same = total(shape, range(len(rows)))
        assert total(wider, reduced).scratch(*SIZE) == same.scratch(*SIZE)


@given(st.lists(SIZES, min_size=3, max_size=3), st.integers(0, 2))
def test_the_order_in_which_dimensions_are_named_does_not_matter(shape, kept):
    reduced = [dimension for dimension in range(3) if dimension != kept]
    there, back = (total(shape, order).scratch(*SIZE) for order in permutations(reduced))
    assert there == back


@given(st.integers(2, 200), st.integers(2, 200), FEATURES)
def test_rows_may_be_walked_in_any_order(first, second, features):
    """Transposed: the same memory, and the same loops."""
    shape, strides = (second, first, features), (features, second * features, 1)
    same = total((first, second, features), [0, 1])
    assert total(shape, [0, 1], strides).scratch(*SIZE) == same.scratch(*SIZE)


@given(st.integers(1, 10**6), FEATURES, st.integers(1, 200))
def test_more_multiprocessors_never_take_less(rows, features, multiprocessors):
    fewer, more = (
        sum(map(sum, bias_gradient(rows, features).scratch(count, 2048)))
        for count in (multiprocessors, multiprocessors + 1)
    )
    assert fewer <= more


@given(st.integers(1, 255), st.integers(1, 10**6), st.booleans())
def test_nothing_is_taken_where_a_thread_alone_could_sum_each_output(inputs, outputs, by_rows):
    one = total((outputs, inputs), [1]) if by_rows else total((inputs, outputs), [0])
    assert one.scratch(*SIZE) == ()


@given(st.integers(1, 10**6), FEATURES)
def test_partial_sums_have_the_size_of_what_is_carried(rows, features):
    one = bias_gradient(rows, features)
    wide = Reduction(one.shape, one.strides, one.reduced, 4, 16)
    assert wide.scratch(*SIZE) == tuple(
        ReductionScratch(4 * partial, semaphores) for partial, semaphores in one.scratch(*SIZE)
    )


@given(st.integers(1, 10**6), FEATURES)
def test_each_output_has_a_place_for_every_block_that_shares_it(rows, features):
    for partial, semaphores in bias_gradient(rows, features).scratch(*SIZE):
        assert partial % (4 * features) == 0
        assert partial >= 2 * 4 * features
        assert semaphores % 4 == 0
        assert 4 <= semaphores <= 4 * features


def test_a_tensor_beyond_the_reach_of_the_indices_is_summed_part_by_part():
    half = bias_gradient(3 * 2**17, 1024)  # 1.5 GiB
    assert len(half.scratch(*SIZE)) == 1
    assert bias_gradient(2 * 3 * 2**17, 1024).scratch(*SIZE) == 2 * half.scratch(*SIZE)


def test_nothing_comes_of_nothing():
    assert total((), []).scratch(*SIZE) == ()
    assert bias_gradient(0, 10).scratch(*SIZE) == ()
    assert bias_gradient(10**6, 0).scratch(*SIZE) == ()


@pytest.mark.parametrize(
    ("shape", "strides", "reduced", "expected"),
    [
        ((3072, 96), (96, 1), [0], [(589824, 8)]),  # four columns a thread
        ((256, 768), (768, 1), [0], []),
        ((50000, 3072), (3072, 1), [0, 1], [(4688, 4)]),
        ((50000,), (1,), [0], []),  # one block is wide enough
        ((64, 3072), (1, 65), [1], []),  # rows of an odd width are read one by one
        ((3, 50000), (1, 4), [1], []),
        ((3072, 96, 6), (576, 6, 1), [0], [(14155776, 20)]),
        ((6, 768, 50000), (38400000, 50000, 1), [0, 2], []),  # blocks enough without sharing
    ],
)
def test_sums_of_other_shapes_take_what_the_header_says(shape, strides, reduced, expected):
    """setReduceConfig of torch 2.15, compiled for a host that says it were an H100."""
    assert list(total(shape, reduced, strides).scratch(*SIZE)) == expected


# ---------------------------------------------------------------- what torch calls


@pytest.mark.parametrize(
    ("func", "dtype", "kwargs", "element", "carried"),
    [
        (aten.sum.default, torch.float32, {}, 4, 4),
        (aten.sum.default, torch.bfloat16, {}, 2, 4),
        (aten.sum.default, torch.bfloat16, {"dtype": torch.float32}, 2, 4),
        (aten.sum.default, torch.float32, {"dtype": torch.float64}, 8, 8),
        (aten.mean.default, torch.float16, {}, 2, 4),
        (aten.prod.default, torch.bfloat16, {}, 2, 4),
        (aten.linalg_vector_norm.default, torch.float32, {}, 4, 4),
        (aten.var.correction, torch.float32, {}, 4, 16),
        (aten.std_mean.correction, torch.bfloat16, {}, 2, 16),
        (aten.var.correction, torch.float64, {}, 8, 32),
        (aten.amax.default, torch.bfloat16, {}, 2, 2),
    ],
)
def test_each_kind_carries_what_its_kernel_does(func, dtype, kwargs, element, carried):
    images = torch.empty(5, 6, 7, device="meta", dtype=dtype)
    expected = Reduction((5, 6, 7), (42, 7, 1), (0, 1, 2), element, carried)
    assert reductions_of(func, (images,), kwargs) == (expected,)


@pytest.mark.parametrize(
    ("func", "args", "kwargs", "reduced"),
    [
        (aten.sum.dim_IntList, ([0, -1],), {}, (0, 2)),
        (aten.sum.dim_IntList, ([],), {}, (0, 1, 2)),
        (aten.mean.dim, (None,), {}, (0, 1, 2)),
        (aten.prod.dim_int, (-2,), {}, (1,)),
        (aten.linalg_vector_norm.default, (2, [1]), {}, (1,)),
        (aten.linalg_vector_norm.default, (), {"dim": [2]}, (2,)),
        (aten.amax.default, ([0, 1], True), {}, (0, 1)),
        (aten.var.correction, ([1, 2],), {"correction": 0}, (1, 2)),
        (aten.amax.default, ([-3],), {}, (0,)),
    ],
)
def test_the_dimensions_are_found_wherever_they_are_named(func, args, kwargs, reduced):
    images = torch.empty(8, 6, 7, device="meta")[3:]
    (found,) = reductions_of(func, (images, *args), kwargs)
    assert found.reduced == reduced
    assert found.offset == 3 * 6 * 7


@pytest.mark.parametrize(("keeps", "reduced"), [(True, (1,)), (False, (0, 1))])
def test_a_dimension_of_one_that_is_kept_is_not_reduced(keeps, reduced):
    images = torch.empty(1, 6, 7, device="meta")
    (found,) = reductions_of(aten.sum.dim_IntList, (images, [0, 1], keeps), {})
    assert found.reduced == reduced


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.complex64])
def test_whole_and_complex_numbers_are_left_out(dtype):
    assert reductions_of(aten.sum.default, (torch.ones(3, 4, dtype=dtype),), {}) == ()


def of_operator(name: str, module: nn.Module, shape: Sequence[int], batch_size: int) -> list[Any]:
    """What the calls of that operator reduce, in one step of that module."""
    step = trace_step(load(module, tuple(shape)), batch_size)
    return [call.reductions for call in step.calls if call.operator == name]


def test_a_bias_gradient_is_a_sum_over_images_and_pixels():
    """Of the first convolution no gradient of the input is made, of the last none of a bias."""
    module = nn.Sequential(
        *(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 6, 3), nn.Conv2d(6, 5, 3, bias=False)), nn.Flatten()
    )
    assert of_operator("convolution_backward", module, (3, 9, 9), 4) == [
        (),
        (None, None, total((4, 6, 5, 5), [0, 2, 3])),
        (None, total((4, 8, 7, 7), [0, 2, 3])),
    ]


@pytest.mark.parametrize(("rows", "parts"), [(2**16, None), (2**16 + 32, 2**11 + 1)])
def test_a_layer_norm_ends_in_sums_where_rows_are_very_many(rows, parts):
    module = nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.Flatten(0, 1))
    last = None if parts is None else total((parts, 8), [0])
    expected = () if last is None else (None, last, last)
    found = of_operator("native_layer_norm_backward", module, (rows // 32, 4), 32)
    assert [each for each in found if each] == [expected][: bool(expected)]


# ---------------------------------------------------------------- traces of an H100

TRACED = {
    "alexnet-b128-bf16-inference": 0,
    "alexnet-b128-bf16-sgd": 1,
    "alexnet-b128-tf32-inference": 0,
    "alexnet-b128-tf32-sgd": 1,
    "nin-b128-bf16-inference": 0,
    "nin-b128-bf16-sgd": 3,
    "nin-b128-tf32-inference": 0,
    "nin-b128-tf32-sgd": 3,
    "vgg11-b128-bf16-inference": 0,
    "vgg11-b128-bf16-sgd": 4,
    "vgg11-b128-tf32-inference": 0,
    "vgg11-b128-tf32-sgd": 4,
    "convnext_tiny-b32-bf16-momentum": 82,
    "convnext_tiny-b32-tf32-sgd": 82,
    "densenet121-b32-tf32-sgd": 0,
    "mobilenet_v2-b32-tf32-sgd": 0,
    "resnet18-b32-bf16-momentum": 0,
    "resnet18-b32-tf32-sgd": 0,
    "squeezenet1_1-b128-tf32-sgd": 7,
    "swin_t-b16-tf32-sgd": 41,
    "vgg16_bn-b32-tf32-sgd": 4,
    "vit_b_16-b32-bf16-momentum": 49,
    "vit_b_16-b32-tf32-sgd": 49,
}
"""Traced cases, and how many reductions take scratch in each."""

SORTED = ReductionScratch(2401 * 8, 3583)
"""No reduction: to add up a table's gradient by index, Swin's index_put sorts 2401 of them."""

Change = tuple[bool, int, int, bool]  # allocates, a block, bytes, scratch


def shared_results(changes: Sequence[Change]) -> Iterator[tuple[int, ReductionScratch]]:
    """Two blocks of scratch that come one after the other and go the other way round.

    With the bytes of the tensor before them, which is what the reduction results in.
    """
    result = 0
    for at, (allocates, block, size, is_scratch) in enumerate(changes):
        if allocates and not is_scratch:
            result = size
        elif allocates and at + 3 < len(changes):
            second, third, fourth = changes[at + 1 : at + 4]
            goes = [(False, second[1]), (False, block)]
            if second[0] and second[3] and [third[:2], fourth[:2]] == goes:
                yield result, ReductionScratch(size, second[2])


class WithoutConvolutions(Workspaces):
    """Tables of an H100 on which convolutions need no scratch, and products keep theirs."""

    def __init__(self) -> None:
        rules = CUBLAS_RULES["2.11"]
        super().__init__("h100", "0", "0", 90, (), (), {}, rules, H100, Source.DEVICE)

    def convolution(self, *_):
        return ConvScratch(0, Source.DEVICE)


def traced(case: str) -> list[Change]:
    return [astuple(event) for event in read_trace(traced_steps()[case].trace)]


def predicted(case: str) -> list[Change]:
    measured = traced_steps()[case]
    step, batch_size, precision = measured.step, measured.case.batch_size, measured.case.precision
    events, _ = with_scratch(step, WithoutConvolutions(), precision)
    return [
        (each.allocates, each.block, each.bytes(batch_size), each.category is Category.WORKSPACE)
        for each in events
    ]


@pytest.mark.parametrize("case", TRACED)
def test_an_h100_took_that_scratch_behind_those_results(case):
    found = [pair for pair in shared_results(traced(case)) if pair[1] != SORTED]
    assert list(shared_results(predicted(case))) == found
    assert len(found) == TRACED[case]


def test_the_biases_of_a_vision_transformer_are_summed_as_its_shape_says():
    """Twelve blocks of four linear layers on 197 tokens, one convolution on 196."""
    inside = [bias_gradient(32 * 197, features) for features in (2304, 768, 3072, 768)]
    expected = Counter(scratch for one in inside * 12 for scratch in one.scratch(*SIZE))
    expected.update(total((32, 768, 196), [0, 2], (196 * 768, 1, 768)).scratch(*SIZE))
    found = Counter(scratch for _, scratch in shared_results(traced("vit_b_16-b32-tf32-sgd")))
    assert found == expected
    assert max(found) == ReductionScratch(138412032, 96)
