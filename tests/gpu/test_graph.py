"""On a GPU: a captured step does what an eager one does, and a run uses it."""

from dataclasses import replace

import pytest
import torch

from ninlab import data
from ninlab.environment import arithmetic
from ninlab.networks import build
from ninlab.recipes import Augmentation, Optimizer, Precision, Recipe, Schedule
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
    "mirrored": replace(PLAIN, augmentation=Augmentation.FLIP, standardize=True),
}


@pytest.mark.parametrize("network", ["nin_28", "nin_28_batch_norm", "googlenet_28"])
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


def test_a_run_on_the_gpu_uses_the_graph_and_reports_its_memory():
    split = tuple(part.take(slice(1024)) for part in data.fashion_mnist())
    run = train("nin_28", PLAIN, seed=0, device="cuda", split=split)
    assert run.execution == "cuda_graph"
    requested, allocated, reserved = run.peak_bytes
    assert 0 < requested <= allocated <= reserved


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
