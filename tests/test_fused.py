"""A network with joined layers against the same network with torch's own."""

from __future__ import annotations

import copy
from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.utils._python_dispatch import TorchDispatchMode

from ninlab.architectures import ARCHITECTURES, architecture
from ninlab.errors import UnknownNameError
from ninlab.fused import fuse, layers
from ninlab.fused.matching import replaced
from ninlab.networks import JoinedBranches, build
from ninlab.shapes import at_input, smallest_input
from ninlab.steps import Kernels

JOINED = [Kernels.FUSED, Kernels.CHAINED]
SMALL = {"alexnet_28", "vgg11_quarter_28", "googlenet_28"}  # for all that have the same layers
DISTINCT = {(a.input_shape, a.layers): name for name, a in reversed(ARCHITECTURES.items())}
CHANGED = sorted(
    name
    for name in DISTINCT.values()
    if (name.startswith("nin") or name in SMALL)
    and replaced(build(name, device="meta"), Kernels.FUSED)
)


def small(name: str, seed: int = 0) -> tuple[nn.Module, Tensor, Tensor]:
    """The network in the layout of a GPU, two images of about the smallest size, and labels."""
    network = architecture(name)
    if network.input_shape[-1] > 64:
        network = at_input(network, smallest_input(network))
    module = build(network, seed=seed).to(memory_format=torch.channels_last).eval()
    chance = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, network.num_classes, (2,), generator=chance)
    return module, torch.rand(2, *network.input_shape, generator=chance), labels


def gradients(network: nn.Module, images: Tensor, labels: Tensor) -> list[Tensor]:
    """Those of all parameters, in float64."""
    loss = F.cross_entropy(network(images), labels)
    parameters = list(network.parameters())
    made = torch.autograd.grad(loss, parameters, allow_unused=True)
    return [
        torch.zeros_like(own, dtype=torch.float64) if each is None else each.double()
        for own, each in zip(parameters, made, strict=True)
    ]


def distance(found: list[Tensor], reference: list[Tensor]) -> float:
    """Of all gradients together: the 2-norm of the difference over that of the reference."""
    apart = sum((a - b).square().sum() for a, b in zip(found, reference, strict=True))
    return float((apart / sum(b.square().sum() for b in reference)).sqrt())


# ---------------------------------------------------------------- the same numbers


@pytest.mark.parametrize("name", CHANGED)
def test_the_gradients_of_a_joined_network_are_those_of_its_layers(name):
    """To the last digits of float64; in float32 they are rounded as much as torch's own are.

    How much that is, is chance: from one start of a network to another it doubles.
    """
    module, images, labels = small(name)
    exact = copy.deepcopy(module).double()
    truth = gradients(exact, images.double(), labels)
    stock = gradients(module, images, labels)
    for kernels in JOINED:
        wide = gradients(fuse(exact, kernels), images.double(), labels)
        assert distance(wide, truth) < 1e-13
        joined = gradients(fuse(module, kernels), images, labels)
        assert distance(joined, truth) < max(1e-6, 2 * distance(stock, truth))


def test_networks_of_the_paper_block_keep_their_gradients_to_a_millionth():
    for name in ("nin", "nin_28", "nin_cifar10", "nin_imagenet", "nin_gradual"):
        module, images, labels = small(name)
        stock = gradients(module, images, labels)
        for kernels in JOINED:
            assert distance(gradients(fuse(module, kernels), images, labels), stock) < 1e-6


def test_a_whole_step_of_the_textbook_network_at_its_own_size_is_the_same():
    module = build("nin", seed=0).to(memory_format=torch.channels_last).double()
    images = torch.rand(1, 1, 224, 224, generator=torch.Generator().manual_seed(0)).double()
    labels = torch.tensor([3])
    with torch.random.fork_rng():  # dropout draws the same mask
        torch.manual_seed(1)
        stock = gradients(module, images, labels)
        torch.manual_seed(1)
        joined = gradients(fuse(module, Kernels.CHAINED), images, labels)
    assert distance(joined, stock) < 1e-13


def test_a_prediction_makes_the_scores_of_training_and_no_codes():
    made = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            result = func(*args, **(kwargs or {}))
            if "bias_relu_max_pool" in str(func):
                made.append(result[1].numel())
            return result

    module, images, _ = small("nin_28")
    joined = fuse(module)
    scores = joined(images)
    with torch.no_grad(), Watch():
        assert torch.equal(joined(images), scores)
    assert made == [0, 0, 0]


# ---------------------------------------------------------------- the same parameters


@pytest.mark.parametrize("kernels", JOINED)
@pytest.mark.parametrize("name", ["nin_28", "googlenet_28", "alexnet_28"])
def test_both_networks_have_the_same_parameters_under_the_same_names(name, kernels):
    module = build(name, seed=0)
    before = str(module)
    joined = fuse(module, kernels)
    assert str(joined) != before == str(module)
    ours, theirs = dict(joined.named_parameters()), dict(module.named_parameters())
    assert list(joined.state_dict()) == list(module.state_dict())
    assert ours.keys() == theirs.keys()
    assert all(ours[path] is theirs[path] for path in theirs)
    joined.load_state_dict(module.state_dict())


def test_a_copy_of_a_joined_network_adds_its_own_biases():
    module, images, _ = small("nin_28")
    joined = fuse(module, Kernels.CHAINED)
    twin = copy.deepcopy(joined)
    before = joined(images)
    assert torch.equal(twin(images), before)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.mul_(1.5)
    assert torch.equal(joined(images), before)
    assert not torch.equal(twin(images), before)


def test_a_joined_network_that_is_made_wider_computes_wider():
    module, images, _ = small("nin_28")
    joined = fuse(copy.deepcopy(module)).double()
    assert torch.equal(joined(images.double()), fuse(module.double())(images.double()))


# ---------------------------------------------------------------- what is joined


def kinds(network: nn.Module) -> list[str]:
    return [type(leaf).__name__ for leaf in network.modules() if not list(leaf.children())]


def test_layers_are_joined_across_nested_rows():
    row = nn.Sequential(
        nn.Sequential(nn.Conv2d(8, 8, 3), nn.Sequential(nn.ReLU())),
        nn.MaxPool2d(2),
        nn.Sequential(nn.Conv2d(8, 16, 1)),
        nn.ReLU(inplace=True),
        nn.Conv2d(16, 4, 1),
        nn.ReLU(),
        nn.Flatten(),
    )
    assert kinds(fuse(row)) == [
        *("ConvWithoutBias", "DoneElsewhere", "BiasReluMaxPool"),
        *("ProductBiasRelu", "DoneElsewhere", "ConvBiasRelu", "DoneElsewhere", "Flatten"),
    ]


def test_only_a_narrow_block_of_one_width_is_chained():
    def block(*widths: int) -> nn.Sequential:
        first, *others = pairwise(widths)
        convs = [nn.Conv2d(*first, 3), *(nn.Conv2d(*pair, 1) for pair in others)]
        return nn.Sequential(*(one for conv in convs for one in (conv, nn.ReLU())), nn.MaxPool2d(2))

    def is_chained(network: nn.Module) -> bool:
        return any(isinstance(each, layers.Chain) for each in network.modules())

    assert is_chained(fuse(block(3, 128, 128, 128), "chained"))
    for other in (block(3, 136, 136, 136), block(3, 64, 32, 64), block(3, 64, 64)):
        assert not is_chained(fuse(other, "chained"))
    assert not is_chained(fuse(block(3, 128, 128, 128), "fused"))


class Scaled(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return 2 * weight


def with_hook(layer: nn.Module) -> nn.Module:
    layer.register_forward_hook(lambda module, given, made: made + 1)
    return layer


def with_parametrization(conv: nn.Module) -> nn.Module:
    parametrize.register_parametrization(conv, "weight", Scaled())
    return conv


def with_forward(layer: nn.Module) -> nn.Module:
    layer.forward = lambda maps: maps + 1
    return layer


class OtherReLU(nn.ReLU):
    def forward(self, maps: Tensor) -> Tensor:
        return super().forward(maps) + 1


CONV, RELU, POOL = (lambda: nn.Conv2d(8, 8, 3), nn.ReLU, lambda: nn.MaxPool2d(2))
LEFT: dict[str, Callable[[], nn.Module]] = {
    "without bias": lambda: nn.Sequential(nn.Conv2d(8, 8, 3, bias=False), RELU()),
    "in groups": lambda: nn.Sequential(nn.Conv2d(8, 8, 3, groups=2), RELU()),
    "dilated": lambda: nn.Sequential(nn.Conv2d(8, 8, 3, dilation=2), RELU()),
    "reflected": lambda: nn.Sequential(
        nn.Conv2d(8, 8, 3, padding=1, padding_mode="reflect"), RELU()
    ),
    "padded by name": lambda: nn.Sequential(nn.Conv2d(8, 8, 3, padding="same"), RELU()),
    "oblong": lambda: nn.Sequential(nn.Conv2d(8, 8, (3, 1)), RELU()),
    "watched convolution": lambda: nn.Sequential(with_hook(CONV()), RELU()),
    "watched ReLU": lambda: nn.Sequential(CONV(), with_hook(RELU())),
    "watched row": lambda: nn.Sequential(with_hook(nn.Sequential(CONV())), RELU()),
    "parametrized": lambda: nn.Sequential(with_parametrization(CONV()), RELU()),
    "spectral norm": lambda: nn.Sequential(nn.utils.spectral_norm(CONV()), RELU()),
    "another ReLU": lambda: nn.Sequential(CONV(), OtherReLU()),
    "a ReLU by another forward": lambda: nn.Sequential(CONV(), with_forward(RELU())),
    "another activation": lambda: nn.Sequential(CONV(), nn.ReLU6(), POOL()),
    "normalized": lambda: nn.Sequential(CONV(), nn.BatchNorm2d(8), RELU()),
    "apart": lambda: nn.ModuleList([CONV(), RELU()]),
}


@pytest.mark.parametrize("case", LEFT)
def test_what_is_not_plain_stays_as_it_is(case):
    network = LEFT[case]()
    assert fuse(network, Kernels.CHAINED) is network


POOLS: dict[str, Callable[[], nn.Module]] = {
    "rounds up": lambda: nn.MaxPool2d(2, ceil_mode=True),
    "dilated": lambda: nn.MaxPool2d(2, dilation=2),
    "oblong": lambda: nn.MaxPool2d((2, 1)),
    "larger than a code": lambda: nn.MaxPool2d(16),
    "watched": lambda: with_hook(nn.MaxPool2d(2)),
    "a mean": lambda: nn.AvgPool2d(2),
}


@pytest.mark.parametrize("case", POOLS)
def test_a_pool_that_is_not_plain_stays_behind_the_joined_convolution(case):
    torch.manual_seed(0)
    network = nn.Sequential(CONV(), RELU(), POOLS[case]()).double()
    joined = fuse(network)
    assert joined[2] is network[2]
    images = torch.randn(2, 8, 20, 20, dtype=torch.float64)
    assert torch.allclose(joined(images), network(images), atol=1e-12)


class Residual(nn.Module):
    """Runs its row as it stands."""

    def __init__(self) -> None:
        super().__init__()
        self.inside = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, 1, 1))

    def forward(self, maps: Tensor) -> Tensor:
        return maps + self.inside(maps)


class BeforeTheReLU(Residual):
    """Reads what the first layer of its row makes, and no other, as a feature extractor does."""

    def forward(self, maps: Tensor) -> Tensor:
        return self.inside[0](maps)


class Backwards(nn.Sequential):
    """Runs its layers from the last to the first."""

    def forward(self, maps: Tensor) -> Tensor:
        for layer in reversed(self):
            maps = layer(maps)
        return maps


def in_branches(*branches: nn.Module) -> nn.Module:
    joined = JoinedBranches()
    for number, branch in enumerate(branches):
        joined.add_module(f"branch{number}", branch)
    return joined


STRANGE: dict[str, Callable[[], nn.Module]] = {
    "its row as it stands": Residual,
    "one layer of its row": BeforeTheReLU,
    "one layer of a row, in a branch": lambda: in_branches(BeforeTheReLU()),
    "a row from its end": lambda: Backwards(nn.ReLU(), CONV(), nn.ReLU()),
    "a row by another forward": lambda: with_forward(nn.Sequential(CONV(), nn.ReLU())),
}


@pytest.mark.parametrize("case", STRANGE)
def test_rows_are_left_whole_where_others_call_their_layers(case):
    torch.manual_seed(0)
    network = nn.Sequential(CONV(), nn.ReLU(), STRANGE[case](), CONV(), nn.ReLU()).double()
    joined = fuse(network, Kernels.CHAINED)
    assert joined[2] is network[2]
    assert kinds(joined[:2]) == kinds(joined[3:]) == ["ConvBiasRelu", "DoneElsewhere"]
    images = torch.randn(2, 8, 9, 9, dtype=torch.float64)
    assert torch.allclose(joined(images), network(images), atol=1e-12)


def test_each_branch_is_a_row_of_its_own():
    torch.manual_seed(0)
    branches = in_branches(nn.Sequential(CONV(), nn.ReLU()), nn.Sequential(CONV()))
    network = nn.Sequential(CONV(), branches, nn.ReLU(), nn.MaxPool2d(2)).double()
    joined = fuse(network)
    changed = [path for path, each in joined.named_modules() if type(each) is layers.ConvBiasRelu]
    assert changed == ["1.branch0.0"]
    images = torch.randn(2, 8, 12, 12, dtype=torch.float64)
    assert torch.allclose(joined(images), network(images), atol=1e-12)


def test_a_row_of_a_network_of_another_kind_can_be_joined_by_itself():
    network = Residual()
    assert fuse(network) is network
    images = torch.randn(2, 8, 9, 9)
    before = network(images)
    network.inside = fuse(network.inside)
    assert kinds(network) == ["ConvWithoutBias", "DoneElsewhere", "BiasReluMaxPool"]
    assert torch.allclose(network(images), before, atol=1e-6)


def test_one_layer_in_two_places_is_joined_in_both():
    torch.manual_seed(0)
    conv = nn.Conv2d(8, 8, 3, padding=1)
    network = nn.Sequential(conv, nn.ReLU(), conv, nn.ReLU(), nn.MaxPool2d(2)).double()
    joined = fuse(network)
    images = torch.randn(2, 8, 9, 9, dtype=torch.float64)
    labels = torch.tensor([0, 1])
    heads = (nn.Sequential(each, nn.Flatten()) for each in (joined, network))
    ours, theirs = (gradients(head, images, labels) for head in heads)
    assert distance(ours, theirs) < 1e-13
    assert len(list(joined.parameters())) == len(list(network.parameters())) == 2


def test_only_images_of_few_channels_are_folded_where_the_window_strides():
    def folds(*arguments: int, **options: int) -> int:
        joined = fuse(nn.Sequential(nn.Conv2d(*arguments, **options), nn.ReLU()))
        return joined[0].fold

    assert folds(1, 96, 11, stride=4) == 4
    assert folds(3, 64, 7, stride=2, padding=3) == 2
    assert folds(8, 64, 7, stride=2) == folds(1, 64, 7) == 1


def test_torchs_kernels_are_the_network_itself_and_others_are_unknown():
    network = build("nin_28", device="meta")
    assert fuse(network, "torch") is network
    with pytest.raises(UnknownNameError, match="torch, fused, chained"):
        fuse(network, "triton")


def test_a_hook_on_a_joined_network_is_none_on_the_network():
    module, images, _ = small("nin_28")
    before = module(images)
    joined = fuse(module)
    joined.register_forward_hook(lambda network, read, made: made + 1)
    joined.register_buffer("count", torch.zeros(1), persistent=False)
    assert torch.equal(module(images), before)
    assert torch.allclose(joined(images), before + 1, atol=1e-5)
    assert not list(module.buffers())


def test_what_is_joined_is_not_joined_again():
    joined = fuse(build("nin_28", device="meta"), "chained")
    assert fuse(joined, "chained") is joined
