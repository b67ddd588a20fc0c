"""CUDA's choices on the meta device against torch's own, made on fake CUDA tensors without a GPU.

A fake tensor says that it is on a CUDA device and has no memory; torch dispatches and
autocasts it as it would a real one. It cannot run backward without a driver, so it serves
as the oracle of the forward pass and the loss: same operators, same results, same tensors
kept for backward.
"""

from contextlib import contextmanager
from functools import partial
from itertools import accumulate, pairwise

import pytest
import torch
import torchvision
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from ninlab.architectures import ARCHITECTURES
from ninlab.devices import DEVICES
from ninlab.networks import build
from ninlab.reports import Category, Phase, tensor_peak
from ninlab.resources import load, profile, trace_step, with_scratch
from ninlab.resources.cuda import as_on_cuda
from ninlab.workspaces import CUBLAS_RULES, ConvScratch, Direction, Source, Workspaces

pytestmark = pytest.mark.skipif(
    not torch.backends.cuda.is_built(), reason="this torch does not know CUDA's operators"
)

WITHOUT_MEMORY = ("prim::", "aten::detach", "aten::view")
"""Operators that the fake device adds or drops: questions, and views."""


class Mixed(nn.Module):
    """Operators of every autocast policy that the networks below leave out."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(8)
        self.groups = nn.GroupNorm(2, 4)
        self.linear = nn.Linear(8, 8, bias=False)
        self.project = nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, images):
        features = self.groups(self.project(images))
        wide = nn.functional.interpolate(features, scale_factor=2.0)
        pooled = nn.functional.adaptive_avg_pool2d(wide, 8)
        scores = torch.softmax(self.norm(self.linear(pooled)), dim=-1)
        mixed = torch.einsum("bchw,bcwk->bchk", scores, pooled) @ pooled.mT
        gated = mixed * torch.sigmoid(pooled) + (pooled.float() ** 2).exp()
        joined = torch.cat([gated, pooled], dim=1)
        dropped = nn.functional.dropout(joined, 0.1)
        total = dropped.sum(dim=(2, 3)) + joined.mean((2, 3)).cumsum(1)
        return torch.addcmul(total, total, total.to(torch.bfloat16).float())


def torchvision_builder(name):
    options = {"init_weights": False, "aux_logits": False} if name == "googlenet" else {}
    return lambda: getattr(torchvision.models, name)(weights=None, **options)


NETWORKS = {
    name: ((lambda name=name: build(name, device=torch.get_default_device())), architecture)
    for name, architecture in (
        (name, ARCHITECTURES[name].input_shape)
        for name in ("lenet", "nin", "alexnet", "googlenet_28", "nin_28_batch_norm")
    )
} | {
    "mixed": (Mixed, (3, 8, 8)),
    **{
        f"torchvision {name}": (torchvision_builder(name), (3, 64, 64))
        for name in ("googlenet", "resnet18", "mobilenet_v2", "squeezenet1_0", "efficientnet_b0")
    },
}


class EveryCall(Workspaces):
    """Tables that know every convolution, and write down which they were asked for."""

    def __init__(self, *, kept: bool) -> None:
        rules = CUBLAS_RULES["2.11" if kept else "2.15"]
        described = DEVICES["h100"].described
        super().__init__(
            "any", "0", "0", 90, (4,), ("fp32 contiguous",), {}, rules, described, Source.DEVICE
        )
        object.__setattr__(self, "asked", [])

    def convolution(self, call, direction, *_):
        self.asked.append((call, direction))
        return ConvScratch(1000, Source.DEVICE)


class Log(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.calls = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        name = func._schema.name
        if not name.startswith(WITHOUT_MEMORY):
            results = result if isinstance(result, list | tuple) else [result]
            self.calls.append((name, [(each.shape, each.dtype) for each in results]))
        return result


@contextmanager
def torchs_own_autocast(enabled):
    """torch.autocast, which refuses to start where there is no GPU, by hand."""
    torch.set_autocast_dtype("cuda", torch.bfloat16)
    torch.set_autocast_enabled("cuda", enabled)
    torch.autocast_increment_nesting()
    try:
        yield
    finally:
        torch.autocast_decrement_nesting()
        torch.clear_autocast_cache()
        torch.set_autocast_enabled("cuda", False)


def forward_and_loss(make, input_shape, device, choices):
    """The operators that ran, with their results, and the bytes and dtypes that autograd kept."""
    kept = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        kept.setdefault(storage._cdata, (storage.nbytes(), str(tensor.dtype), storage))
        return tensor

    with torch.device(device):
        module = make()
        images = torch.empty(4, *input_shape)
        labels = torch.empty(4, dtype=torch.int64)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda kept: kept), Log() as log, choices:
        nn.functional.cross_entropy(module(images), labels)
    return log.calls, sorted(tuple(each[:2]) for each in kept.values())


@pytest.mark.parametrize("autocast", [False, True], ids=["fp32", "bf16"])
@pytest.mark.parametrize("name", NETWORKS)
def test_the_forward_pass_is_that_of_a_cuda_device(name, autocast):
    make, input_shape = NETWORKS[name]
    with FakeTensorMode():
        on_cuda = forward_and_loss(make, input_shape, "cuda", torchs_own_autocast(autocast))
    on_meta = forward_and_loss(make, input_shape, "meta", as_on_cuda(autocast=autocast))
    assert on_meta == on_cuda


def test_choices_end_with_their_region_and_leave_other_tensors_alone():
    values = torch.ones(2, 2)
    with as_on_cuda(autocast=True):
        product = values.to("meta") @ values.to("meta")
    assert product.dtype is torch.bfloat16
    assert (values.to("meta") @ values.to("meta")).dtype is torch.float32


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("rms_norm", lambda: nn.RMSNorm(8)),
        ("log_sigmoid", lambda: nn.Sequential(nn.Linear(8, 8), nn.LogSigmoid())),
        ("lstm_cell", lambda: Cell(nn.LSTMCell)),
        pytest.param(
            *("gru_cell", lambda: Cell(nn.GRUCell)),
            marks=pytest.mark.skipif(
                torch.__version__ < (2, 15), reason="this torch has no fused cell without a GPU"
            ),
        ),
    ],
)
def test_an_operator_that_keeps_other_tensors_on_cuda_is_named(name, make):
    with FakeTensorMode():
        _, kept_on_cuda = forward_and_loss(make, (8,), "cuda", torchs_own_autocast(False))
    _, kept_on_meta = forward_and_loss(make, (8,), "meta", as_on_cuda())
    assert kept_on_meta != kept_on_cuda
    assert profile(make(), (8,)).unsupported_operators == {f"aten::{name}": 1}


class Cell(nn.Module):
    """One step of a recurrent network, and the state that it ends in."""

    def __init__(self, kind) -> None:
        super().__init__()
        self.cell = kind(8, 8)

    def forward(self, images):
        state = self.cell(images)
        return state[0] if isinstance(state, tuple) else state


def test_attention_is_named_because_cuda_has_another_one():
    class Attention(nn.Module):
        def forward(self, images):
            tokens = images.flatten(2)
            return nn.functional.scaled_dot_product_attention(tokens, tokens, tokens)

    step = trace_step(load(Attention(), (4, 8, 8)), 2, training=False)
    assert step.unmodeled == {"aten::scaled_dot_product_attention": 1}


@pytest.mark.parametrize("name", ["nin", "alexnet", "googlenet", "nin_28_batch_norm"])
def test_channels_last_lays_bytes_out_otherwise_and_needs_no_more_of_them(name):
    """Gradients are laid out as their weights, so that they are taken and not copied."""
    subject = load(name)
    peaks = [
        tensor_peak(
            trace_step(subject, 4, autocast=autocast, channels_last=channels_last).events, 4
        ).tensor_peak_bytes
        for autocast in (False, True)
        for channels_last in (False, True)
    ]
    assert peaks[0] == peaks[1]
    assert peaks[2] == peaks[3]


class Idle(nn.Module):
    """nin_28 beside a layer that never runs."""

    def __init__(self) -> None:
        super().__init__()
        self.never = nn.Linear(10, 10)
        self.network = build("nin_28", device=torch.get_default_device())

    def forward(self, images):
        return self.network(images)


@pytest.mark.parametrize("make", [partial(build, "nin_28"), partial(build, "alexnet_28"), Idle])
def test_scratch_is_taken_by_the_call_that_needs_it_and_leaves_the_tensors_as_they_are(make):
    tables = EveryCall(kept=False)
    step = trace_step(load(make(), (1, 28, 28)), 4)
    events, _ = with_scratch(step, tables, "fp32")
    assert tuple(e for e in events if e.category is not Category.WORKSPACE) == step.events
    for before, taken in pairwise(events):
        if taken.category is Category.WORKSPACE and taken.allocates:
            assert before.operator == taken.operator
            assert (before.phase, before.layer) == (taken.phase, taken.layer)
    convolutions = sum(
        isinstance(each, nn.Conv2d) for each in load(make(), (1, 28, 28)).module.modules()
    )
    directions = [direction for _, direction in tables.asked]
    assert directions.count(Direction.FORWARD) == convolutions
    assert directions.count(Direction.WEIGHT_GRADIENT) == convolutions
    assert directions.count(Direction.INPUT_GRADIENT) == convolutions - 1


def test_a_workspace_that_a_library_keeps_is_there_from_the_start():
    step = trace_step(load("alexnet_28"), 4)
    events, _ = with_scratch(step, EveryCall(kept=True), "fp32")
    kept = [e for e in events if e.operator.startswith("cublas")]
    assert {e.phase for e in kept} == {Phase.SETUP}
    assert all(e.allocates for e in kept)
    assert sorted(e.operator for e in kept) == ["cublas.autograd", "cublas.main", "cublaslt.main"]


@pytest.mark.parametrize("training", [True, False])
def test_what_a_library_keeps_is_first_made_after_the_result_of_its_owners_first_product(training):
    timeline = trace_step(load("alexnet_28"), 4, training=training)
    events, _ = with_scratch(timeline, EveryCall(kept=True), "fp32")
    step = [e for e in events if e.phase is not Phase.SETUP]
    products = {
        "main": [call for call in timeline.calls if call.operator == "addmm"],
        "autograd": [call for call in timeline.calls if call.operator == "mm"],
    }
    kept = [e for e in events if e.first_at is not None]
    assert {e.operator.partition(".")[2] for e in kept} == {
        thread for thread, calls in products.items() if calls
    }
    for event in kept:
        result = timeline.events[products[event.operator.partition(".")[2]][0].event]
        assert step[event.first_at - 1] == result
        assert result.allocates


@pytest.mark.parametrize(("name", "kept_bytes"), [("vgg16", 33 * 2**20), ("nin", 0)])
def test_a_warm_prediction_holds_what_cublas_keeps_even_where_it_peaks_before_a_product(
    name, kept_bytes
):
    """One workspace of 32 MiB and one of 1 MiB, where there is a linear layer at all."""
    cost = profile(name, None, 128, precision="tf32", device="h100", torch_version="2.11")
    events = cost.inference_events
    kept = {e.block: e.constant_bytes for e in events if e.operator.startswith("cublas")}
    assert sum(kept.values()) == kept_bytes
    live = accumulate(
        e.constant_bytes if e.allocates else -e.constant_bytes
        for e in events
        if e.block not in kept
    )
    assert cost.inference.requested_peak_bytes == max(live) + kept_bytes


def test_a_call_that_nobody_knows_leaves_the_peaks_open():
    module = nn.Sequential(nn.Unflatten(1, (1, 1)), nn.Conv3d(1, 3, (1, 7, 7)), nn.Flatten())
    cost = profile(module, (1, 9, 9), 3, device="h100")
    assert cost.training.tensor_peak_bytes > 0
    assert cost.training.requested_peak_bytes is None
