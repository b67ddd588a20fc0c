"""Modules that nobody had in mind: the step on meta tensors against the real one on the CPU."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
import torchvision
from fvcore.nn import FlopCountAnalysis
from torch import nn
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from ninlab.errors import NinlabError
from ninlab.optimizers import make
from ninlab.resources import load, profile, trace_step
from ninlab.resources.loss import cross_entropy, labels_for, scores_of
from tests.cpu_step import SCALAR_BYTES, WarmStep, as_on_cpu, block_sizes, measure, peak_of

BATCH_SIZE = 2
KEPT_SCALARS_BYTES = 4 * SCALAR_BYTES
"""A network may keep such scalars until its gradient is made: Swin keeps three."""


# ---------------------------------------------------------------- networks of others

models = torchvision.models
STRANGERS = {
    "convnext_tiny": partial(models.convnext_tiny, weights=None),
    "efficientnet_b0": partial(models.efficientnet_b0, weights=None),
    "mnasnet0_5": partial(models.mnasnet0_5, weights=None),
    "mobilenet_v3_small": partial(models.mobilenet_v3_small, weights=None),
    "regnet_y_400mf": partial(models.regnet_y_400mf, weights=None),
    "shufflenet_v2_x1_0": partial(models.shufflenet_v2_x1_0, weights=None),
    "swin_t": partial(models.swin_t, weights=None),
    "googlenet, side scores": partial(models.googlenet, weights=None, init_weights=False),
    "fcn_resnet50, two maps": partial(
        models.segmentation.fcn_resnet50, weights=None, weights_backbone=None, aux_loss=True
    ),
    "lraspp, a map": partial(
        models.segmentation.lraspp_mobilenet_v3_large, weights=None, weights_backbone=None
    ),
}


class SummedLoss:
    """Cross-entropy of all scores against labels that are there before the step."""

    def __init__(self):
        self.labels = None

    def __call__(self, output, labels):
        scores = scores_of(output)
        if self.labels is None:
            self.labels = [torch.zeros_like(each) for each in labels_for(scores)]
            self.unused_bytes = labels.nbytes
        return cross_entropy(scores, self.labels)

    @property
    def surplus_bytes(self):
        """Labels that the measured process holds and the step does not need."""
        distinct = {each.shape: each.nbytes for each in self.labels}
        held = sum(each.nbytes for each in self.labels)
        return self.unused_bytes + held - sum(distinct.values())


@pytest.mark.parametrize("name", STRANGERS)
def test_the_timeline_is_the_real_step_of_networks_of_others(name):
    shape = (3, 64, 64)
    loss = SummedLoss()
    step = WarmStep(BATCH_SIZE, partial(make, "sgd"))
    (real,) = measure(STRANGERS[name], shape, [step], loss)
    timeline = as_on_cpu(load(STRANGERS[name](), shape), step)
    assert abs(peak_of(timeline) - real.peak_bytes + loss.surplus_bytes) <= KEPT_SCALARS_BYTES
    assert timeline.unmodeled == {}


# ---------------------------------------------------------------- one operator at a time


class Around(nn.Module):
    """A convolution, and whatever is done to its maps."""

    def __init__(self, operation):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 1)
        self.operation = operation

    def forward(self, images):
        return self.operation(self.conv(images)).flatten(1)


def places(maps):
    return torch.zeros(maps.shape, dtype=torch.int64, device=maps.device)


OPERATIONS = {
    "index": lambda x: x[:, torch.arange(8, device=x.device).flip(0)],
    "index_select": lambda x: x.index_select(1, torch.arange(8, device=x.device)),
    "gather": lambda x: x.gather(1, places(x)),
    "scatter_add": lambda x: torch.zeros_like(x).scatter_add(1, places(x), x),
    "sort": lambda x: x.sort(1)[0],
    "topk": lambda x: x.topk(3, 1)[0],
    "max": lambda x: x.max(1)[0],
    "median": lambda x: x.median(1)[0],
    "cummax": lambda x: x.cummax(1)[0],
    "maximum": lambda x: torch.maximum(x, x.tanh()),
    "norm": lambda x: F.normalize(x, dim=1),
    "masked_fill": lambda x: x.masked_fill(x > 0, 0.0),
    "write a part": lambda x: F.relu_(torch.cat([x[:, :4].exp(), x[:, 4:]], 1)),
    "split": lambda x: torch.cat([each.sigmoid() for each in x.split(2, 1)], 1),
    "expand": lambda x: x.expand(2, *x.shape).sum(0),
    "einsum": lambda x: torch.einsum("bchw,bdhw->bcd", x, x),
    "softmax": lambda x: x.softmax(1),
    "group_norm": lambda x: F.group_norm(x, 2),
    "layer_norm": lambda x: F.layer_norm(x, x.shape[-1:]),
    "pad": lambda x: F.pad(x, (1, 1, 1, 1), mode="reflect"),
    "pixel_shuffle": lambda x: F.pixel_shuffle(x, 2),
    "upsample": lambda x: F.interpolate(x, scale_factor=2),
    "dropout of everything": lambda x: F.dropout(x, 1.0),
}


@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=list(OPERATIONS))
def test_every_block_of_an_operation_is_that_of_the_real_step(operation):
    step = WarmStep(3, partial(make, "sgd"))
    (real,) = measure(lambda: Around(operation), (3, 8, 8), [step])
    timeline = as_on_cpu(load(Around(operation), (3, 8, 8)), step)
    ours, theirs = (
        [size for size in sizes if size > SCALAR_BYTES]
        for sizes in (block_sizes(timeline), real.block_sizes)
    )
    assert ours == theirs
    assert abs(peak_of(timeline) - real.peak_bytes) <= SCALAR_BYTES


class Transposed(nn.Module):
    """A layer on the channels of transposed maps, as in a mixer."""

    def __init__(self, add_bias):
        super().__init__()
        self.linear = nn.Linear(64, 64)
        self.add_bias = add_bias

    def forward(self, images):
        return self.add_bias(self.linear, images.flatten(2).transpose(1, 2))


@pytest.mark.parametrize("training", [True, False])
def test_a_linear_layer_on_a_transposed_input_adds_its_bias_in_place(training):
    layer = Transposed(lambda linear, x: linear(x))
    by_hand = Transposed(lambda linear, x: (x @ linear.weight.t()).add_(linear.bias))
    peaks = [
        peak_of(trace_step(load(module, (64, 4, 4)), 2, training=training))
        for module in (layer, by_hand)
    ]
    assert peaks[0] == peaks[1]


@pytest.mark.parametrize(
    ("name", "operation"),
    [
        ("prod", lambda x: x.prod(1)),
        ("cumprod", lambda x: x.cumprod(1)),
        ("mish", F.mish),
        ("atan2", lambda x: torch.atan2(x, x + 1)),
    ],
)
def test_an_operator_whose_gradient_cuda_makes_otherwise_is_named(name, operation):
    cost = profile(Around(operation), (3, 8, 8))
    assert cost.unsupported_operators == {f"aten::{name}": 1}


def test_a_prediction_that_attention_shortens_elsewhere_is_named():
    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = nn.MultiheadAttention(16, 4, batch_first=True)

        def forward(self, images):
            return self.attention(images, images, images)[0].mean(1)

    cost = profile(Attention(), (5, 16))
    assert cost.unsupported_operators == {"aten::_native_multi_head_attention": 1}


# ---------------------------------------------------------------- counts


def test_macs_of_an_einsum_are_half_of_torchs_flops():
    """fvcore rounds them to four digits."""
    module = Around(lambda x: torch.einsum("bchw,bdhw->bcd", x, x))
    with FlopCounterMode(display=False) as torchs:
        module(torch.zeros(1, 3, 48, 48))
    assert 2 * profile(module, (3, 48, 48)).macs == torchs.get_total_flops()


def test_arguments_that_a_caller_leaves_out_are_those_that_fvcore_sees():
    module = Around(lambda x: F.layer_norm(x, x.shape[-1:]))
    traced = FlopCountAnalysis(module.eval(), torch.zeros(1, 3, 8, 8))
    traced.unsupported_ops_warnings(False)
    assert profile(module, (3, 8, 8)).fvcore_flops == traced.total()


# ---------------------------------------------------------------- recomputed activations


class Recomputing(nn.Module):
    """Blocks whose activations are kept, or computed once more in backward."""

    def __init__(self, recomputes, reentrant=False, dropout=0.3):
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(), nn.Dropout(dropout))
            for _ in range(4)
        )
        self.head = nn.Linear(16, 10)
        self.recomputes, self.reentrant = recomputes, reentrant

    def forward(self, images):
        features = self.stem(images)
        for block in self.blocks:
            if self.recomputes:
                features = checkpoint(block, features, use_reentrant=self.reentrant)
            else:
                features = block(features)
        return self.head(features.mean((2, 3)))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("reentrant", [False, True])
def test_recomputing_activations_costs_flops_and_saves_memory(precision, reentrant):
    """Dropout and autocast choose in the repeated forward pass as in the first one."""
    kept, recomputed = (
        profile(module, (3, 16, 16), batch_size=8, precision=precision)
        for module in (Recomputing(False), Recomputing(True, reentrant))
    )
    assert recomputed.training.tensor_peak_bytes < kept.training.tensor_peak_bytes
    blocks = 4 * 2 * 16 * 16 * 3 * 3 * 16 * 16  # 2 a MAC
    assert recomputed.training_flops == kept.training_flops + blocks
    assert recomputed.inference == kept.inference


def test_a_step_that_recomputes_is_the_real_step_but_for_the_random_states():
    random_state = torch.get_rng_state().nbytes  # of the host, kept by every checkpoint
    step = WarmStep(4, partial(make, "sgd"))
    (real,) = measure(lambda: Recomputing(True), (3, 16, 16), [step])
    timeline = as_on_cpu(load(Recomputing(True), (3, 16, 16)), step)
    assert 0 <= real.peak_bytes - peak_of(timeline) <= 4 * random_state


# ---------------------------------------------------------------- what cannot be answered


class Written(nn.Module):
    """Overwrites what backward needs."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, images):
        return self.linear(images).relu().add_(1).mul_(2)


class Embedding(nn.Module):
    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(10, 4)

    def forward(self, images):
        return self.words(images).mean(1)


class Chosen(nn.Module):
    def forward(self, images):
        return images[images > 0].reshape(-1, 1)


class Elsewhere(nn.Module):
    def forward(self, images):
        return images * torch.ones(4)


class Detour(nn.Module):
    def forward(self, images):
        return torch.from_numpy(images.numpy())


class Labels(nn.Module):
    def forward(self, images):
        return images.argmax(1)


class Hidden(nn.Module):
    """Holds its layers where no optimizer and no ``to`` finds them."""

    def __init__(self):
        super().__init__()
        self.layers = [nn.Linear(4, 4)]

    def forward(self, images):
        return self.layers[0](images)


class TrainedBeside(nn.Module):
    """Has side scores that need larger images, and only while it learns."""

    def __init__(self):
        super().__init__()
        self.side = nn.Conv1d(1, 3, 10)

    def forward(self, images):
        return self.side(images[:, None]).flatten(1) if self.training else images


class Clamped(nn.Linear):
    def forward(self, images):
        self.weight.data = self.weight.data.clamp(-1, 1)
        return super().forward(images)


class Penalized(nn.Linear):
    def forward(self, images):
        with torch.enable_grad():
            images = images.detach().requires_grad_()
            scores = super().forward(images)
            return scores + torch.autograd.grad(scores.sum(), images, create_graph=True)[0]


class Mixed(nn.Linear):
    def forward(self, images):
        with torch.autocast(images.device.type, torch.bfloat16):
            return super().forward(images)


class Sparse(nn.Module):
    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(10, 4, sparse=True)

    def forward(self, images):
        return self.words(images.long()).mean(1)


# What torch says of a window larger than what it slides over: since 2.11, and before.
TOO_SMALL = "be greater than actual input size|Output size is too small"


@pytest.mark.parametrize(
    ("module", "batch_size", "precision", "says"),
    [
        (Written(), 2, "fp32", "cannot take a training step .* modified by an inplace operation"),
        pytest.param(
            *(Embedding(), 1, "fp32", "reads indices, and images are float32"),
            marks=pytest.mark.skipif(
                torch.__version__ < (2, 15), reason="this torch embeds whatever is on meta"
            ),
        ),
        (Chosen(), 1, "fp32", "because what it does depends on values"),
        (Elsewhere(), 1, "fp32", "make them with device=images.device"),
        (Detour(), 1, "fp32", "because what it does depends on values"),
        (nn.Module(), 1, "fp32", "has no forward method"),
        (Labels(), 1, "fp32", "without class scores"),
        (nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)), 1, "fp32", "a batch of 2 works$"),
        (nn.BatchNorm1d(4, momentum=None), 2, "fp32", "because what it does depends on values"),
        (Around(lambda x: torch.linalg.det(x)), 2, "bf16", "in bf16: .*; fp32 works$"),
        (TrainedBeside(), 2, "fp32", f"training step .* ({TOO_SMALL})$"),
        (Hidden(), 2, "fp32", "register them: as buffers, parameters, modules"),
        (Clamped(4, 4), 2, "fp32", "sets the data of a weight .*; let it copy_ into the weight"),
        (Penalized(4, 4), 2, "fp32", "takes gradients in its forward pass"),
        (Mixed(4, 4), 2, "fp32", "enters autocast .*; let it do without"),
        (Sparse(), 2, "fp32", "makes sparse tensors"),
    ],
    ids=[
        "written", "embedding", "chosen", "elsewhere", "detour", "nothing", "labels",
        "normalized", "averaged", "determinant", "beside", "hidden", "clamped", "penalized",
        "mixed", "sparse",
    ],
)  # fmt: skip
def test_what_cannot_be_counted_is_said_in_one_sentence(module, batch_size, precision, says):
    input_shape = (3, 8, 8) if isinstance(module, Around) else (4,)
    with pytest.raises(NinlabError, match=says) as raised:
        profile(module, input_shape, batch_size=batch_size, precision=precision)
    assert len(str(raised.value).splitlines()) == 1
    assert "Hint" not in str(raised.value)
