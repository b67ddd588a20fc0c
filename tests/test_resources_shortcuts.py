"""Every shortcut against torch's own meta kernels, on random shapes and layouts."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ninlab.resources.shortcuts import LISTS, SHORTCUTS, result_on_meta

aten = torch.ops.aten


@st.composite
def images(draw) -> torch.Tensor:
    """A float meta batch: contiguous, channels_last, or a slice of a wider one."""
    batch, channels, height, width = (draw(st.integers(least, 4)) for least in (2, 1, 1, 1))
    dtype = draw(st.sampled_from([torch.float32, torch.bfloat16]))
    layout = draw(st.sampled_from(["contiguous", "channels_last", "slice"]))
    if layout == "slice":
        wide = torch.empty(batch, channels + 2, height, width, dtype=dtype, device="meta")
        return wide[:, 1:-1]
    own = torch.empty(batch, channels, height, width, dtype=dtype, device="meta")
    if layout == "channels_last":
        return own.contiguous(memory_format=torch.channels_last)
    return own


def arguments(operator, first: torch.Tensor) -> tuple:
    """Operands that fit the first one."""
    channels = torch.empty(first.shape[1], device="meta")
    mask = torch.empty_like(first, dtype=torch.bool)
    return {
        aten.cudnn_batch_norm.default: (*[channels] * 4, True, 0.1, 1e-5),
        aten.native_batch_norm.default: (*[channels] * 4, False, 0.1, 1e-5),
        aten.cudnn_batch_norm_backward.default: (
            *[first, channels, channels, channels, channels, channels, 1e-5],
            torch.empty(0, dtype=torch.uint8, device="meta"),
        ),
        aten.native_batch_norm_backward.default: (
            *[first, channels, channels, channels, channels, channels, True, 1e-5],
            [True, True, True],
        ),
        aten.native_dropout_backward.default: (mask, 2.0),
        aten.threshold_backward.default: (first, 0),
        aten.hardtanh_backward.default: (first, 0, 6),
        aten.hardtanh.default: (0, 6),
        aten.sigmoid_backward.default: (first,),
        aten.mish_backward.default: (first,),
        aten.silu_backward.default: (first,),
    }.get(operator, ())


def looks(result) -> list:
    """Shape, dtype, strides and bytes in memory of each result."""
    results = result if isinstance(result, list | tuple) else [result]
    return [
        (each.shape, each.dtype, each.stride(), each.untyped_storage().nbytes()) for each in results
    ]


@pytest.mark.parametrize("operator", SHORTCUTS, ids=str)
@settings(deadline=None, max_examples=25)
@given(first=images())
def test_a_shortcut_returns_what_torch_would(operator, first):
    operands = (first, *arguments(operator, first))
    assert looks(result_on_meta(operator, operands)) == looks(operator(*operands))


@pytest.mark.parametrize("name", sorted(LISTS))
@settings(deadline=None, max_examples=10)
@given(lists=st.lists(images(), min_size=1, max_size=3))
def test_lists_of_results_look_like_the_lists_of_operands(name, lists):
    packet = getattr(aten, name)
    overload = "Scalar" if "Scalar" in packet.overloads() else "default"
    others = {
        "_foreach_addcdiv": (lists, lists),
        "_foreach_addcmul": (lists, lists),
        "_foreach_lerp": (lists, 0.5),
        "_foreach_neg": (),
        "_foreach_sqrt": (),
    }.get(name, (2.0,))
    operator = getattr(packet, overload)
    assert looks(result_on_meta(operator, (lists, *others))) == looks(operator(lists, *others))


def test_tensors_with_values_are_left_to_torch():
    assert result_on_meta(aten.relu.default, (torch.ones(1),)) is NotImplemented
    assert result_on_meta(aten._foreach_add_.Scalar, ([torch.ones(1)], 1)) is NotImplemented
    assert result_on_meta(aten.add_.Scalar, (torch.ones(1), 1)) is NotImplemented
