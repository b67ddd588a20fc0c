"""Tensors inside CUDA's operators: law by law on small modules, then a GPU's own traces."""

from dataclasses import astuple

import pytest
import torch
from torch import nn
from torch.nn import functional

from ninlab.devices import DEVICES
from ninlab.measurement import read_trace
from ninlab.reports import Category, Phase
from ninlab.resources import load, trace_step, with_scratch
from ninlab.steps import Precision
from ninlab.workspaces import CUBLAS_RULES, ConvScratch, Source, Workspaces
from tests.measured_steps import traced_steps

OPTIONS = ("autocast", "training", "on_cuda", "channels_last")


class Of(nn.Module):
    """A module of one function; what it is given has been made by a layer and needs a gradient."""

    def __init__(self, function, **layers) -> None:
        super().__init__()
        self.function = function
        self.scale = nn.Parameter(torch.ones(1, device="meta"))
        for name, layer in layers.items():
            self.add_module(name, layer.to("meta"))

    def forward(self, images):
        return self.function(self, images * self.scale).flatten(1)


def steps_of(function, shape, operator, *, batch_size=2, **options):
    """What the operator allocates (+) and what it allocated is released (-), in order: bytes.

    Only while it runs: releases of results come later and are left out.
    """
    layers = {name: options.pop(name) for name in list(options) if name not in OPTIONS}
    step = trace_step(load(Of(function, **layers), shape), batch_size, **options)
    found = []
    temporary = set()
    for event in step.events:
        if event.operator == operator and event.phase is not Phase.SETUP:
            if event.allocates and event.category is Category.TEMPORARY:
                temporary.add(event.block)
            if event.allocates or event.block in temporary:
                found.append(event.bytes(batch_size) * (1 if event.allocates else -1))
    return found


def test_the_mask_of_dropout_comes_before_what_it_masks():
    def dropped(module, images):
        return functional.dropout(images, 0.5)

    assert steps_of(dropped, (8,), "native_dropout", batch_size=4) == [4 * 8, 4 * 8 * 4]


# ---------------------------------------------------------------- layer normalization


def normalized(module, images):
    return module.norm(images)


def normalized_across(module, images):
    return module.norm(images.transpose(1, 2))


@pytest.mark.parametrize(("function", "copies"), [(normalized, 0), (normalized_across, 1)])
def test_layer_normalization_copies_what_is_not_contiguous_and_nothing_else(function, copies):
    shape = (5, 8) if function is normalized else (8, 5)
    images, rows, channels = 4 * 2 * 5 * 8, 4 * 2 * 5, 4 * 8
    copy, gone = [images] * copies, [-images] * copies
    forward = steps_of(function, shape, "native_layer_norm", norm=nn.LayerNorm(8))
    assert forward == [*copy, images, rows, rows, *gone]
    backward = steps_of(function, shape, "native_layer_norm_backward", norm=nn.LayerNorm(8))
    assert backward == [*copy, images, channels, channels, *gone]


def test_a_gradient_that_is_not_contiguous_is_copied_when_all_results_are_there():
    def then_across(module, images):
        return module.norm(images).transpose(1, 2)

    images, channels = 4 * 2 * 5 * 8, 4 * 8
    found = steps_of(then_across, (5, 8), "native_layer_norm_backward", norm=nn.LayerNorm(8))
    assert found == [images, channels, channels, images, -images]


@pytest.mark.parametrize("rows", [64 * 1024, 64 * 1024 + 1])
def test_sums_over_very_many_rows_are_made_by_parts_of_32_rows(rows):
    found = steps_of(
        normalized, (rows, 3), "native_layer_norm_backward", batch_size=1, norm=nn.LayerNorm(3)
    )
    images, sums, blocks = 12 * rows, 12, 12 * -(-rows // 32)
    if rows <= 64 * 1024:
        assert found == [images, sums, sums]
    else:
        first, parts = [sums, sums], [blocks, blocks]
        then = [sums, -sums, sums, -sums, -blocks, -blocks]
        assert found == [images, *first, *parts, *then]


# ---------------------------------------------------------------- convolutions


def convolved(module, images):
    return module.convolution(images)


def test_contiguous_images_cost_a_convolution_no_copy():
    layer = nn.Conv2d(4, 6, 3)
    images, weights, maps = 4 * 2 * 4 * 64, 4 * 6 * 4 * 9, 4 * 2 * 6 * 36
    assert steps_of(convolved, (4, 8, 8), "convolution", convolution=layer) == [maps]
    backward = steps_of(convolved, (4, 8, 8), "convolution_backward", convolution=layer)
    assert backward == [images, weights, 4 * 6]


def test_weights_are_copied_into_the_format_of_the_images():
    """Forward when the result is there, and again for the gradient of the images."""

    def of_last(module, images):
        return module.convolution(images.permute(0, 3, 1, 2))

    layer = nn.Conv2d(4, 6, 3)
    images, weights, maps = 4 * 2 * 4 * 64, 4 * 6 * 4 * 9, 4 * 2 * 6 * 36
    forward = steps_of(of_last, (8, 8, 4), "convolution", convolution=layer)
    assert forward == [maps, weights, -weights]
    # the gradient is contiguous, and copied once for both parts of the backward pass
    backward = steps_of(of_last, (8, 8, 4), "convolution_backward", convolution=layer)
    assert backward == [maps, images, weights, -weights, weights, -maps, 4 * 6]


def test_a_gradient_that_is_a_slice_is_copied_by_each_part_of_the_backward_pass():
    def joined(module, images):
        return torch.cat([module.convolution(images), images[:, :, 1:-1, 1:-1]], dim=1)

    images, weights, maps = 4 * 2 * 4 * 64, 4 * 6 * 4 * 9, 4 * 2 * 6 * 36
    found = steps_of(
        joined, (4, 8, 8), "convolution_backward", convolution=nn.Conv2d(4, 6, 3, bias=False)
    )
    assert found == [images, maps, -maps, maps, weights, -maps]


def test_atens_depthwise_kernel_makes_the_gradient_of_the_weights_first():
    layer = nn.Conv2d(4, 4, 3, padding=1, groups=4, bias=False)
    images, weights = 4 * 2 * 4 * 64, 4 * 4 * 9
    contiguous = steps_of(convolved, (4, 8, 8), "convolution_backward", convolution=layer)
    assert contiguous == [weights, images]

    def of_last(module, images):
        return module.convolution(images.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)

    by_cudnn = steps_of(of_last, (8, 8, 4), "convolution_backward", convolution=layer)
    assert by_cudnn == [images, weights]


class EveryCall(Workspaces):
    """Tables in which every convolution takes 1,000 bytes."""

    def __init__(self) -> None:
        rules = CUBLAS_RULES["2.15"]
        described = DEVICES["h100"].described
        super().__init__(
            "any", "0", "0", 90, (2,), ("fp32 contiguous",), {}, rules, described, Source.DEVICE
        )

    def convolution(self, *_):
        return ConvScratch(1000, Source.DEVICE)


def test_scratch_is_taken_when_the_copies_are_there_and_given_back_before_them():
    def of_last(module, images):
        return module.convolution(images.permute(0, 3, 1, 2))

    module = Of(of_last, convolution=nn.Conv2d(4, 6, 3, bias=False))
    step = trace_step(load(module, (8, 8, 4)), 2)
    images, weights, maps = 4 * 2 * 4 * 64, 4 * 6 * 4 * 9, 4 * 2 * 6 * 36
    events, _ = with_scratch(step, EveryCall(), "fp32")
    forward, backward = (
        [e.bytes(2) * (1 if e.allocates else -1) for e in events if e.operator == operator]
        for operator in ("convolution", "convolution_backward")
    )
    assert forward == [maps, weights, 1000, -1000, -weights]
    assert backward[:10] == [
        *(maps, images, weights, 1000, -1000, -weights),
        *(weights, 1000, -1000, -maps),
    ]


# ---------------------------------------------------------------- other operators


@pytest.mark.parametrize("dimensions", [(1,), (1, 2), (1, 2, 3)])
def test_rolling_makes_one_result_for_each_dimension(dimensions):
    def rolled(module, images):
        return torch.roll(images, [1] * len(dimensions), dimensions)

    images, more = 4 * 2 * 4 * 64, len(dimensions) - 1
    once = [images] * (more + 1) + [-images] * more
    assert steps_of(rolled, (4, 8, 8), "roll") == [*once, *once]


def test_the_gradient_of_a_softmax_needs_a_product_and_that_of_its_logarithm_none():
    def soft(module, images):
        return images.softmax(-1)

    def logarithm(module, images):
        return images.log_softmax(-1)

    images = 4 * 2 * 8
    assert steps_of(soft, (8,), "_softmax_backward_data") == [images, images, -images]
    # the second is that of the loss
    assert steps_of(logarithm, (8,), "_log_softmax_backward_data") == [images, images]


def test_adding_up_rows_that_were_looked_up_sorts_them_first():
    class Table(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Parameter(torch.zeros(7, 3, device="meta"))
            self.register_buffer("rows", torch.zeros(20, dtype=torch.int64, device="meta"))

        def forward(self, images):
            return images + self.table[self.rows].sum(0)

    step = trace_step(load(Table(), (3,)), 2)
    operator = "index_put"
    found = [e.bytes(2) for e in step.events if e.allocates and e.operator == operator]
    # wrapped and scaled indices, the values that a sum spread over all rows, and three of the sort
    assert found == [160, 160, 240, 160, 160, 160]


def test_a_pool_copies_a_gradient_that_is_a_slice():
    def joined(module, images):
        return torch.cat([functional.avg_pool2d(images, 2), images[:, :, ::2, ::2]], dim=1)

    images = 4 * 2 * 4 * 64
    found = steps_of(joined, (4, 8, 8), "avg_pool2d_backward")
    assert found == [images, images // 4, -images // 4]


def test_batch_normalization_keeps_a_contiguous_copy_of_a_slice():
    def half(module, images):
        return module.norm(images[:, ::2])

    def whole(module, images):
        return module.norm(images)

    assert steps_of(half, (8, 4, 4), "clone", norm=nn.BatchNorm2d(4)) == [4 * 2 * 4 * 16]
    assert steps_of(whole, (4, 4, 4), "clone", norm=nn.BatchNorm2d(4)) == []


def test_the_cpu_makes_no_temporary_tensor():
    images, rows = 4 * 2 * 5 * 8, 4 * 2 * 5
    options = {"norm": nn.LayerNorm(8), "on_cuda": False}
    found = steps_of(normalized_across, (8, 5), "native_layer_norm", **options)
    assert found == [images, rows, rows]

    def rolled(module, images):
        return torch.roll(images, [1, 1], [1, 2]).softmax(-1)

    assert steps_of(rolled, (5, 8), "roll", on_cuda=False) == [images, images]
    assert steps_of(rolled, (5, 8), "_softmax_backward_data", on_cuda=False) == [images]


# ---------------------------------------------------------------- attention

BATCH, HEADS, LENGTH, WIDTH = 2, 4, 40, 16


def attend(module, images, **options):
    heads = images.unflatten(2, (HEADS, WIDTH)).transpose(1, 2)
    return functional.scaled_dot_product_attention(heads, heads, heads, **options)


def attention_step(**options):
    module = Of(lambda module, images: attend(module, images, **options))
    return lambda **how: trace_step(load(module, (LENGTH, HEADS * WIDTH)), BATCH, **how)


def made_by(step, operator, category=None):
    return [
        e.bytes(BATCH)
        for e in step.events
        if e.allocates and e.operator == operator and (category is None or e.category is category)
    ]


@pytest.mark.parametrize("autocast", [False, True])
def test_fused_attention_keeps_its_output_and_a_number_a_row_and_no_scores(autocast):
    """In single precision rows are counted by 32; cuDNN keeps a seed and an offset as well."""
    step = attention_step()(autocast=autocast)
    assert not step.unmodeled
    rows = BATCH * HEADS * LENGTH
    name = "cudnn" if autocast else "efficient"
    found = made_by(step, f"_scaled_dot_product_{name}_attention")
    padded = BATCH * HEADS * 64
    own = [8, 8, 2 * rows * WIDTH, 4 * rows] if autocast else [4 * rows * WIDTH, 4 * padded]
    assert found == own
    scores = BATCH * HEADS * LENGTH * LENGTH
    assert all(e.bytes(BATCH) not in (2 * scores, 4 * scores) for e in step.events)


def test_the_backward_pass_of_attention_by_tiles_takes_a_tile_for_64_queries():
    step = attention_step()()
    name = "_scaled_dot_product_efficient_attention_backward"
    rows, tiles = BATCH * HEADS * LENGTH, BATCH * HEADS
    assert made_by(step, name, Category.TEMPORARY)[-4:] == [
        *(4 * rows * WIDTH, 4 * rows, 4 * rows, tiles * (16 + 4 * 64 * 64))
    ]


def test_what_cudnn_takes_for_attention_is_scratch_of_the_call():
    step = attention_step()(autocast=True)
    events, _ = with_scratch(step, EveryCall(), "bf16")
    taken = [e for e in events if e.category is Category.WORKSPACE and e.allocates]
    rows = BATCH * HEADS * LENGTH
    assert [e.bytes(BATCH) for e in taken] == [256, 4 * rows * (WIDTH + 1) + 256]
    assert {e.operator for e in taken} == {
        "_scaled_dot_product_cudnn_attention",
        "_scaled_dot_product_cudnn_attention_backward",
    }


def test_a_prediction_keeps_no_number_a_row():
    step = attention_step()(training=False)
    rows = BATCH * HEADS * LENGTH
    assert made_by(step, "_scaled_dot_product_efficient_attention") == [4 * rows * WIDTH]
    step = attention_step()(training=False, autocast=True)
    found = made_by(step, "_scaled_dot_product_cudnn_attention")
    assert found == [8, 8, 2 * rows * WIDTH]


def test_attention_that_no_modeled_kernel_takes_is_named():
    mask = torch.zeros(LENGTH, LENGTH, device="meta")
    named = {"aten::scaled_dot_product_attention": 1}
    assert attention_step(attn_mask=mask)().unmodeled == named
    # cuDNN's chances are sixteenths in some versions of torch
    assert attention_step(dropout_p=0.1)(autocast=True).unmodeled == named
    assert attention_step(dropout_p=0.125)(autocast=True).unmodeled == {}
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        assert attention_step()().unmodeled == named


# ---------------------------------------------------------------- what a GPU did

RESIZED = {"mobilenet_v2": 51, "vgg16_bn": 1, "swin_t": 12}
"""Tensors that these traces take for scratch, because they came empty and were resized.

They are the results of ATen's depthwise kernel, of an adaptive pool, and of ``arange``.
"""


@pytest.mark.parametrize("name", traced_steps())
def test_a_gpu_made_the_predicted_tensors_one_after_the_other(name):
    """Of the sizes that are predicted, in that order, none more and none less.

    Without autocast they went in that order as well; casts of weights are dropped in the order
    of a hash table there. What is older than the step is left out: when the loop lets go of it
    is the loop's business.
    """
    measured = traced_steps()[name]
    network, batch_size = measured.case.network, measured.case.batch_size
    predicted = measured.step
    expected = [
        (event.block, event.bytes(batch_size), event.allocates)
        for event in predicted.events
        if event.phase is not Phase.SETUP and event.bytes(batch_size)
    ]
    sizes = [size for _, size, allocates in expected if allocates]
    traced = [astuple(event) for event in read_trace(measured.trace)]
    made, changes, alive, resized = [], [], {}, 0
    for allocates, address, size, is_scratch in traced:
        if not allocates:
            if (number := alive.pop(address, None)) is not None:
                changes.append(-number)
            continue
        if is_scratch:
            if len(made) == len(sizes) or sizes[len(made)] != size or network not in RESIZED:
                continue
            resized += 1
        made.append(size)
        alive[address] = len(made)
        changes.append(len(made))
    assert made == sizes
    assert resized == RESIZED.get(network, 0)
    if not Precision(measured.case.precision).autocasts:
        numbers, own = {}, []
        for block, _, allocates in expected:
            if allocates:
                numbers[block] = len(numbers) + 1
                own.append(numbers[block])
            elif block in numbers:
                own.append(-numbers[block])
        assert changes == own
