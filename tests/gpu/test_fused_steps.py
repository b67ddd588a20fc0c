"""On a GPU: a fused step is torch's but for the order of its sums, captured or not."""

import math
from dataclasses import replace

import pytest
import torch

from ninlab import data, fused, selfcheck
from ninlab.environment import arithmetic
from ninlab.networks import build
from ninlab.recipes import Recipe
from ninlab.records import Outcome, RunRecord
from ninlab.steps import Kernels, Precision
from ninlab.training import Engine, evaluate, train
from tests.records import NOBODY

WHY_NOT = fused.why_not("cuda")

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(WHY_NOT is not None, reason=str(WHY_NOT)),
]

RECIPE = Recipe(0.05, 1, batch_size=64, precision=Precision.BF16, kernels=Kernels.FUSED)


@pytest.mark.parametrize("network", ["nin", "nin_28", "alexnet_28", "vgg11_28", "googlenet_28"])
@pytest.mark.parametrize("kernels", [Kernels.FUSED, Kernels.CHAINED])
def test_gradients_of_a_fused_step_are_no_further_from_float32_than_torchs(network, kernels):
    torchs, found = (
        selfcheck.gradient_error(network, one, device=torch.device("cuda"))
        for one in (Kernels.TORCH, kernels)
    )
    assert found <= selfcheck.MOST_GRADIENT_ERROR * torchs


@pytest.mark.parametrize("precision", Precision)
def test_the_graph_takes_the_fused_steps_of_the_eager_loop(precision):
    recipe = replace(RECIPE, precision=precision, augmentation="flip", standardize=True)
    images = data.fashion_mnist()[0].take(slice(64 * 20)).to("cuda")

    def losses(use_graph: bool) -> torch.Tensor:
        module = build("nin_28", seed=0).to("cuda").to(memory_format=torch.channels_last)
        with arithmetic(precision, benchmark=True):
            engine = Engine(module, images, recipe, seed=0, use_graph=use_graph)
            assert (engine.graph is not None) == use_graph
            return torch.tensor(engine.epoch()[0])

    eager, again, graph = losses(False), losses(False), losses(True)
    noise = float((again - eager).abs().max())
    assert (graph - eager).abs().max() <= selfcheck.allowed(noise, precision)


def test_a_fused_evaluation_is_torchs_but_for_rounding():
    test = data.fashion_mnist()[1].take(slice(1000)).to("cuda")
    images = data.fashion_mnist()[0].take(slice(64 * 8)).to("cuda")
    module = build("nin_28", seed=0).to("cuda").to(memory_format=torch.channels_last)
    with arithmetic(Precision.BF16, benchmark=False):
        engine = Engine(module, images, RECIPE, seed=0)
        engine.epoch()
        found = evaluate(engine.stepping, test, Precision.BF16, engine.normalize)
        plain = evaluate(engine.network, test, Precision.BF16)
    assert found.loss == pytest.approx(plain.loss, rel=2**-7)  # bfloat16 keeps 8 bits


def test_a_fused_run_is_recorded_as_one():
    split = tuple(part.take(slice(1024)) for part in data.fashion_mnist())
    run = train("nin_28", RECIPE, seed=0, device="cuda", split=split)
    assert run.execution == "cuda_graph"
    assert run.outcome is not Outcome.DIVERGED
    assert all(map(math.isfinite, run.losses))
    record = run.record(experiment="tests", name="nin_28_fused", provenance=NOBODY)
    assert RunRecord.from_json(record.to_json()).recipe.kernels is Kernels.FUSED
