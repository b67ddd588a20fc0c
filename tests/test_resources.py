"""Counts from operators against fvcore, torch, torchvision's published figures and closed forms."""

import warnings
from contextlib import contextmanager

import pytest
import torch
import torchvision
from fvcore.nn import ActivationCountAnalysis, FlopCountAnalysis
from hypothesis import given, settings
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from ninlab import formulas, shapes
from ninlab.architectures import ARCHITECTURES
from ninlab.errors import NinlabError, ShapeError
from ninlab.layers import BatchNorm, GlobalAvgPool
from ninlab.networks import build
from ninlab.resources import CHANCE, count, load, profile
from tests.processes import python, run
from tests.strategies import architectures

TORCHVISION = {
    "alexnet": (3, 224, 224),
    "vgg11": (3, 224, 224),
    "googlenet": (3, 224, 224),
    "resnet18": (3, 224, 224),
    "mobilenet_v2": (3, 224, 224),
    "squeezenet1_0": (3, 224, 224),
    "densenet121": (3, 64, 64),
    "shufflenet_v2_x0_5": (3, 64, 64),
    "efficientnet_b0": (3, 64, 64),
    "vit_b_32": (3, 224, 224),
}


def torchvision_module(name: str) -> nn.Module:
    options = {"init_weights": False} if name in ("googlenet", "vgg11") else {}
    return getattr(torchvision.models, name)(weights=None, **options)


@contextmanager
def slow_attention():
    """Attention as the products that it is made of, which every counter knows."""
    enabled = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    with sdpa_kernel(SDPBackend.MATH):
        yield
    torch.backends.mha.set_fastpath_enabled(enabled)


def fvcore_totals(module: nn.Module, input_shape: tuple[int, ...]) -> tuple[int, int]:
    """fvcore's own two totals, traced on real tensors in evaluation mode."""
    totals = []
    with torch.no_grad(), slow_attention():
        for analysis in (FlopCountAnalysis, ActivationCountAnalysis):
            traced = analysis(module.eval(), torch.zeros(1, *input_shape))
            traced.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
            totals.append(traced.total())
    return tuple(totals)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_fvcore_totals_are_fvcores_own_on_real_tensors(name):
    cost = profile(name, batch_size=2)  # batch normalization of one pixel takes no single image
    totals = fvcore_totals(build(name), cost.input_shape)
    assert (cost.fvcore_flops, cost.fvcore_activations) == totals


@pytest.mark.parametrize(("name", "input_shape"), TORCHVISION.items())
def test_fvcore_totals_are_fvcores_own_on_modules_of_others(name, input_shape):
    module = torchvision_module(name)
    counts = count(load(module, input_shape))
    totals = fvcore_totals(module, input_shape)
    assert (counts.fvcore_flops, counts.fvcore_activations) == totals


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_fvcore_adds_pools_and_norms_to_the_macs_and_nothing_else(name):
    """fvcore counts one "flop" an input of a global pool, two of a norm in evaluation mode."""
    beside = sum(
        torch.Size(at.input_shape).numel() * {GlobalAvgPool: 1, BatchNorm: 2}[type(at.layer)]
        for at in shapes.placed_layers(ARCHITECTURES[name])
        if isinstance(at.layer, GlobalAvgPool | BatchNorm)
    )
    cost = profile(name, batch_size=2)  # batch normalization of one pixel takes no single image
    assert cost.fvcore_flops - cost.macs == beside


@pytest.mark.parametrize(("name", "input_shape"), TORCHVISION.items())
def test_macs_are_half_of_torchs_flops(name, input_shape):
    module = torchvision_module(name).eval()
    with FlopCounterMode(display=False) as torchs, torch.no_grad(), slow_attention():
        module(torch.zeros(1, *input_shape))
    assert 2 * sum(count(load(module, input_shape)).macs.values()) == torchs.get_total_flops()


@pytest.mark.parametrize(
    ("name", "weights"),
    [
        ("alexnet", torchvision.models.AlexNet_Weights.DEFAULT),
        ("vgg11", torchvision.models.VGG11_Weights.DEFAULT),
        ("vgg19", torchvision.models.VGG19_Weights.DEFAULT),
        ("resnet18", torchvision.models.ResNet18_Weights.DEFAULT),
        ("densenet121", torchvision.models.DenseNet121_Weights.DEFAULT),
        ("mobilenet_v2", torchvision.models.MobileNet_V2_Weights.DEFAULT),
    ],
)
def test_counts_are_torchvisions_published_figures(name, weights):
    cost = profile(f"torchvision.models:{name}", (3, 224, 224))
    assert cost.parameters == weights.meta["num_params"]
    assert round(cost.macs / 1e9, 3) == weights.meta["_ops"]


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_operators_and_closed_form_give_the_same_layers(name):
    architecture = ARCHITECTURES[name]
    cost = profile(name, batch_size=3)
    assert cost.layer_costs == formulas.layer_costs(architecture, batch_size=3)
    assert cost.saved_tensors == formulas.saved_tensors(architecture, batch_size=3)


@settings(deadline=None, max_examples=50)
@given(network=architectures())
def test_operators_and_closed_form_give_the_same_layers_of_random_networks(network):
    cost = profile(build(network, device="meta"), network.input_shape, batch_size=2)
    assert cost.layer_costs == formulas.layer_costs(network, batch_size=2)
    assert cost.unsupported_operators == {}


@pytest.mark.parametrize("name", ["nin", "googlenet"])
def test_the_columns_add_up_to_the_totals(name):
    cost = profile(name, batch_size=2)
    assert cost.layers.parameters.sum() == cost.parameters
    assert cost.layers.macs.sum() == cost.macs
    assert cost.layers.saved_bytes.sum() == cost.saved_bytes


@pytest.mark.parametrize("cell", [nn.LSTMCell, nn.GRUCell, nn.RNNCell])
def test_fvcore_looks_into_a_cell_and_finds_its_matrix_products(cell):
    module = cell(16, 12).eval()
    counts = count(load(module, (16,)))
    assert counts.fvcore_flops == fvcore_totals(module, (16,))[0]
    assert counts.fvcore_flops == sum(counts.macs.values()) == module.weight_hh.shape[0] * (16 + 12)


def test_what_writes_to_its_operand_is_as_free_as_what_does_not():
    class Written(nn.Module):
        def forward(self, images):
            scores = images.mean((2, 3)).unsqueeze_(2).squeeze_(2)
            chosen = torch.zeros_like(scores).scatter_(1, scores.argmax(1, keepdim=True), 1.0)
            return scores * chosen.mul_(torch.tensor(2.0))

    assert profile(Written(), (3, 8, 8)).unsupported_operators == {}


def test_an_operator_without_a_rule_is_named_and_pooling_makes_no_noise():
    class Spectrum(nn.Module):
        def forward(self, images):
            pooled = nn.functional.max_pool2d(images, 2)
            return torch.fft.rfft2(pooled).abs().flatten(1)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cost = profile(Spectrum(), (1, 8, 8))
    assert cost.unsupported_operators == {"aten::_fft_r2c": 1}
    assert cost.macs == 0


def test_fvcore_is_imported_without_a_warning():
    ended = python("-W", "error", "-c", "import ninlab.resources")
    assert ended.returncode == 0, ended.stderr


class Tied(nn.Module):
    """A bit of everything that an analysis could disturb."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.drop = nn.Dropout(0.5)
        self.last = nn.LazyLinear(10)
        self.twin = self.first
        self.scale = torch.ones(4, 1, 1)  # a plain tensor, neither parameter nor buffer
        self.calls = []

    def forward(self, images):
        self.calls.append(images.shape)
        features = self.drop(self.norm(self.first(images)) * self.scale)
        return self.last(features.flatten(1))


def state_of(module: nn.Module) -> dict:
    return {
        "attributes": {name: sorted(vars(each)) for name, each in module.named_modules()},
        "types": [type(each) for each in module.modules()],
        "modes": [each.training for each in module.modules()],
        "hooks": [
            len(each._forward_hooks) + len(each._forward_pre_hooks) for each in module.modules()
        ],
        "values": {
            name: (id(own), own.device, own.dtype, None if lazy(own) else own.clone())
            for name, own in [*module.named_parameters(), *module.named_buffers()]
        },
        "gradients": [own.grad for own in module.parameters()],
    }


def lazy(tensor: torch.Tensor) -> bool:
    return nn.parameter.is_lazy(tensor)


def test_the_readers_module_is_left_exactly_as_it_was():
    module = Tied()
    module.norm.eval()
    before, random_state = state_of(module), torch.get_rng_state()
    cost = profile(module, (1, 8, 8), batch_size=4)
    after = state_of(module)
    values, values_after = before.pop("values"), after.pop("values")
    assert before == after
    assert module.calls == []
    assert torch.equal(random_state, torch.get_rng_state())
    assert values.keys() == values_after.keys()
    for name in values:
        assert values[name][:3] == values_after[name][:3]
        if values[name][3] is not None:
            assert torch.equal(values[name][3], values_after[name][3])
    assert cost.parameters == 4 * 9 + 4 + 2 * 4 + 4 * 64 * 10 + 10


class Skipping(nn.Module):
    """Leaves layers out by chance, and jitters the others with numbers of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.generator = torch.Generator().manual_seed(0)
        self.layers = nn.ModuleList(nn.Conv2d(3, 3, 1) for _ in range(4))

    def forward(self, images):
        noise = torch.rand(images.shape[-2:], generator=self.generator, device=images.device)
        for layer in self.layers:
            if not self.training or torch.rand(()) > 0.5:
                images = images + layer(images) * noise
        return images.flatten(1)


def test_chance_of_the_host_is_named_and_given_back():
    module = Skipping()
    states = torch.get_rng_state(), module.generator.get_state()
    assert profile(module, (3, 8, 8)).unsupported_operators == {CHANCE: 1}
    for before, after in zip(
        states, (torch.get_rng_state(), module.generator.get_state()), strict=True
    ):
        assert torch.equal(before, after)
    assert profile(module.eval(), (3, 8, 8)).macs == 4 * 9 * 64


def test_hooks_on_gradients_are_named_and_not_run():
    module = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Flatten())
    seen = []
    module[0].weight.register_hook(seen.append)
    module[0].bias.register_post_accumulate_grad_hook(seen.append)
    assert profile(module, (3, 8, 8)).unsupported_operators == {"gradient_hooks": 2}
    assert seen == []


def test_real_lazy_and_meta_modules_cost_the_same():
    def network(linear):
        return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), linear)

    real = network(nn.Linear(4 * 36, 10))
    costs = [
        profile(module, (1, 8, 8), batch_size=2)
        for module in (real, network(nn.LazyLinear(10)), real.to("meta"))
    ]
    assert costs[0] == costs[1] == costs[2]


@pytest.mark.slow
def test_no_weight_is_allocated_for_a_network_known_by_name():
    """VGG-19 has 558 MB of weights; the whole analysis stays under 50 MB of resident memory."""
    run("""
        import resource
        from ninlab.resources import profile
        profile("nin_28")
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        profile("vgg19", batch_size=128)
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        assert grown * 1024 < 50e6, grown
    """)


class Checkpointed(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)

    def forward(self, images):
        features = checkpoint(lambda kept: self.conv(kept).relu(), images, use_reentrant=False)
        return features.flatten(1)


def test_activations_that_are_recomputed_are_named():
    assert profile(Checkpointed(), (1, 8, 8)).unsupported_operators == {"saved_tensors_hooks": 2}


def test_normalized_compiled_and_parallel_modules_cost_what_they_wrap():
    def network(first):
        return nn.Sequential(first, nn.ReLU(), nn.Flatten(), nn.Linear(144, 10))

    plain = profile(network(nn.Conv2d(1, 4, 3)), (1, 8, 8))
    normalized = nn.utils.parametrizations.weight_norm(nn.Conv2d(1, 4, 3))
    for module in (
        torch.compile(network(nn.Conv2d(1, 4, 3))),
        nn.DataParallel(network(nn.Conv2d(1, 4, 3))),
        network(normalized),
    ):
        cost = profile(module, (1, 8, 8))
        assert (cost.macs, cost.unsupported_operators) == (plain.macs, {})
    assert cost.parameters == plain.parameters + 4  # the norm of each filter


@pytest.mark.parametrize(
    ("module", "says"),
    [
        (nn.Conv2d(1, 4, 3).half(), "has float16 weights; give it float32 weights"),
        (torch.jit.trace(nn.Conv2d(1, 4, 3), torch.zeros(1, 1, 8, 8)), "TorchScript"),
        (
            nn.Sequential(torch.jit.trace(nn.Conv2d(1, 4, 3), torch.zeros(1, 1, 8, 8))),
            "module '0' of Sequential is compiled by TorchScript",
        ),
    ],
)
def test_modules_that_hide_or_round_their_operators_are_refused(module, says):
    with pytest.raises(NinlabError, match=says):
        profile(module, (1, 8, 8))


@pytest.mark.parametrize(
    ("module", "input_shape", "says"),
    [
        (torchvision_module("alexnet"), (3, 32, 32), "3x63x63"),
        (torchvision_module("alexnet"), (1, 224, 224), "try 3x224x224"),
        (nn.Sequential(nn.Flatten(), nn.Linear(784, 10)), (1, 32, 32), "1x28x28"),
    ],
)
def test_an_input_that_cannot_be_read_is_answered_with_one_that_can(module, input_shape, says):
    with pytest.raises(ShapeError, match=says):
        profile(module, input_shape)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"input_shape": "1x8x8"}, "input shape '1x8x8' must be whole numbers of at least 1, as"),
        ({"input_shape": 8}, "input shape 8 must be whole numbers"),
        ({"input_shape": ()}, "must be whole numbers"),
        ({"input_shape": (1, 0, 8)}, "must be whole numbers of at least 1"),
        ({"input_shape": (1, 8.0, 8)}, "must be whole numbers"),
        ({"batch_size": 2.0}, "the batch size must be at least 1, not 2.0"),
        ({"batch_size": 2**62}, "cannot take a training step on 4611686018427387904 image"),
        ({"optimizer": None}, "unknown optimizer None; known: sgd"),
        ({"channels_last": True, "input_shape": (8,)}, "channels_last is an order of images"),
    ],
)
def test_an_argument_of_another_kind_is_refused_in_one_sentence(arguments, says):
    module = nn.Linear(8, 8)
    with pytest.raises(NinlabError, match=says):
        profile(module, **{"input_shape": (1, 8, 8)} | arguments)


class OfVolumes(nn.Module):
    """A layer of five dimensions between others of four."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv3d(1, 1, 3, padding=1)

    def forward(self, maps):
        return self.conv(maps.unsqueeze(1)).squeeze(1)


@pytest.mark.parametrize("options", [{"kernels": "fused"}, {"channels_last": True}])
def test_weights_of_volumes_lie_as_they_lay_where_those_of_images_are_turned(options):
    row = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), OfVolumes(), nn.Flatten(), nn.Linear(144, 3))
    cost = profile(row, (2, 8, 8), 2, **options)
    weights = [event.constant_bytes for event in cost.training_events if event.layer == "2.conv"]
    assert {4 * 27, 4 * 1} <= {*weights}
    assert cost.training.tensor_peak_bytes


def test_a_network_that_reads_values_is_refused_by_the_name_of_the_operator():
    class Branching(nn.Module):
        def forward(self, images):
            return images if images.sum() > 0 else -images

    with pytest.raises(NinlabError, match="Branching cannot be counted without running it"):
        profile(Branching(), (1, 4, 4))
