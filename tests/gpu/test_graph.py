"""On a GPU: a captured step does what an eager one does, and a run uses it."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from ninlab import data
from ninlab.environment import arithmetic
from ninlab.networks import build
from ninlab.recipes import Augmentation, Recipe, Schedule
from ninlab.records import Outcome
from ninlab.steps import Optimizer, Precision
from ninlab.training import Engine, train

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

PLAIN = Recipe(0.05, 1, batch_size=64)
RECIPES = {
    "fp32": PLAIN,
    "tf32": replace(PLAIN, precision=Precision.TF32),
    "bf16": replace(PLAIN, precision=Precision.BF16),
    "momentum, one cycle": replace(
        PLAIN, momentum=0.9, nesterov=True, weight_decay=5e-4, schedule=Schedule.ONE_CYCLE
    ),
    "adam": replace(PLAIN, optimizer=Optimizer.ADAM, learning_rate=0.002),
    "adamw": replace(PLAIN, optimizer=Optimizer.ADAMW, learning_rate=0.002, weight_decay=1e-2),
    "rmsprop": replace(PLAIN, optimizer=Optimizer.RMSPROP, learning_rate=0.0005),
    "mirrored": replace(PLAIN, augmentation=Augmentation.FLIP, standardize=True),
}


# dropout; dropout and running means; a linear layer; both
@pytest.mark.parametrize("network", ["nin_28", "nin_28_batch_norm", "googlenet_28", "alexnet_28"])
@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_the_graph_takes_the_steps_of_the_eager_loop(network, recipe):
    images = data.fashion_mnist()[0].take(slice(64 * 20)).to("cuda")

    def losses(use_graph: bool) -> torch.Tensor:
        module = build(network, seed=0).to("cuda").to(memory_format=torch.channels_last)
        with arithmetic(recipe.precision, benchmark=True):
            engine = Engine(module, images, recipe, seed=0, use_graph=use_graph)
            assert (engine.graph is not None) == use_graph
            return torch.tensor(engine.epoch()[0])

    eager, again, graph = losses(False), losses(False), losses(True)
    # cuDNN adds in no fixed order, so eager differs from itself too: ten times that, and the
    # rounding of one step of the arithmetic, is what the graph may differ by.
    rounding = 2**-8 if recipe.precision is Precision.BF16 else 2**-10
    assert (graph - eager).abs().max() <= 10 * (again - eager).abs().max() + rounding


class Counting(nn.Module):
    """Scores that depend on how often Python has come by, which a graph cannot repeat."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(28 * 28, 10)
        self.calls = 0

    def forward(self, images):
        self.calls += 1
        return self.linear(images.flatten(1)) * self.calls


class Waiting(nn.Module):
    """Scores that the host has a look at, which cannot be captured."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(28 * 28, 10)

    def forward(self, images):
        scores = self.linear(images.flatten(1))
        return scores / max(scores.abs().max().item(), 1.0)


@pytest.mark.parametrize("module", [Counting, Waiting])
def test_a_step_that_a_graph_cannot_repeat_is_taken_eagerly(module):
    images = data.fashion_mnist()[0].take(slice(64 * 4)).to("cuda")
    engine = Engine(module().to("cuda"), images, PLAIN, seed=0)
    assert engine.graph is None
    losses, _ = engine.epoch()
    assert all(map(math.isfinite, losses))


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_preparing_the_graph_leaves_the_network_as_it_was(recipe):
    images = data.fashion_mnist()[0].take(slice(64 * 4)).to("cuda")
    module = build("nin_28_batch_norm", seed=0).to("cuda").to(memory_format=torch.channels_last)
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    Engine(module, images, recipe, seed=0)
    for name, tensor in module.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_a_run_on_the_gpu_uses_the_graph():
    split = tuple(part.take(slice(1024)) for part in data.fashion_mnist())
    run = train("nin_28", PLAIN, seed=0, device="cuda", split=split)
    assert run.execution == "cuda_graph"


def test_a_runs_peaks_do_not_depend_on_the_runs_before_it():
    split = tuple(part.take(slice(1024)) for part in data.fashion_mnist())
    first, larger, again = (
        train(network, PLAIN, seed=0, device="cuda", split=split).peak_bytes
        for network in ("nin_28", "vgg11_28", "nin_28")
    )
    assert again == first
    assert 0 < first.requested <= first.allocated <= first.reserved
    assert larger.requested > first.requested


def test_a_failed_run_is_recorded_on_the_gpu_too():
    split = tuple(part.take(slice(1024)) for part in data.fashion_mnist())
    run = train("nin_28", replace(PLAIN, learning_rate=1e38), seed=0, device="cuda", split=split)
    assert run.outcome is Outcome.DIVERGED


@pytest.mark.parametrize("size", [28, 96, 224])
def test_images_resized_on_the_gpu_equal_those_of_the_cpu(size):
    images = data.fashion_mnist()[1].take(slice(500))
    assert torch.equal(images.to("cuda").resized(size).images.cpu(), images.resized(size).images)


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_a_step_waits_for_nothing(recipe):
    images = data.fashion_mnist()[0].take(slice(128)).to("cuda")
    module = build("nin_28", seed=0).to("cuda").to(memory_format=torch.channels_last)
    engine = Engine(module, images, recipe, seed=0, use_graph=False)
    engine.epoch()  # the first step makes the optimizer's state
    engine._slot.zero_()
    torch.cuda.set_sync_debug_mode("error")
    try:
        engine._train_step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
