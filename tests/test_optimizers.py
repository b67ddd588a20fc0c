"""The rules of `steps.OPTIMIZERS` against torch's own optimizers of the same names."""

import pytest
import torch
from torch import nn

from ninlab import liveness
from ninlab.allocator import CachingAllocator
from ninlab.architectures import architecture
from ninlab.errors import NinlabError
from ninlab.optimizers import TORCH, known_options, make
from ninlab.recipes import TRAINED, Recipe
from ninlab.reports import Category
from ninlab.resources import load, trace_step
from ninlab.steps import OPTIMIZERS, Optimizer


def taught(optimizer: str) -> tuple[torch.optim.Optimizer, nn.Parameter, bool]:
    """torch's optimizer after a step, its one parameter, and whether it had state before."""
    weight = nn.Parameter(torch.ones(3, 5))
    weight.grad = torch.ones(3, 5)
    made = make(optimizer, [weight])
    had_state = bool(made.state)
    made.step()
    return made, weight, had_state


def test_every_optimizer_has_one_rule_and_one_of_torchs():
    assert set(OPTIMIZERS) == set(TORCH) == set(Optimizer)


@pytest.mark.parametrize("optimizer", Optimizer)
def test_torch_keeps_as_many_tensors_of_a_parameters_size_as_the_rule_says(optimizer):
    made, weight, _ = taught(optimizer)
    states = [s for s in made.state[weight].values() if getattr(s, "shape", None) == weight.shape]
    assert len(states) == OPTIMIZERS[optimizer].states


@pytest.mark.parametrize("optimizer", Optimizer)
def test_torch_makes_the_state_when_the_rule_says(optimizer):
    assert taught(optimizer)[2] is OPTIMIZERS[optimizer].made_at_once


@pytest.mark.parametrize("optimizer", sorted(set(Optimizer) - {Optimizer.SGD, Optimizer.MOMENTUM}))
def test_torch_offers_capturable_for_the_optimizers_whose_rule_says_so(optimizer):
    # SGD counts no steps, and so needs no option for it.
    can = bool(known_options(optimizer, {"capturable": True}))
    assert can is OPTIMIZERS[optimizer].is_capturable


@pytest.mark.parametrize("optimizer", Optimizer)
@pytest.mark.parametrize("name", ["lenet", "nin_28_batch_norm"])
def test_the_allocator_replays_the_step_on_paper_as_the_traced_one(optimizer, name):
    paper = liveness.timeline(architecture(name), optimizer)
    run = trace_step(load(name), 7, optimizer).events
    assert CachingAllocator().replay(paper, 7) == CachingAllocator().replay(run, 7)


def test_state_that_is_made_with_the_optimizer_stands_before_the_batch():
    for optimizer, rule in OPTIMIZERS.items():
        found = [event.category for event in liveness.timeline(architecture("lenet"), optimizer)]
        if rule.states:
            state = found.index(Category.OPTIMIZER_STATE)
            assert (state < found.index(Category.INPUT)) is rule.made_at_once


@pytest.mark.parametrize("optimizer", sorted(set(Optimizer) - set(TRAINED)))
def test_a_recipe_refuses_an_optimizer_that_no_run_can_use(optimizer):
    with pytest.raises(NinlabError, match=r"sgd with a momentum|no step of .* take one of"):
        Recipe(0.1, 1, optimizer=optimizer)


def test_adamw_without_weight_decay_is_refused_for_it_is_adam():
    with pytest.raises(NinlabError, match=r"weight decay is 0\.0, but must be above 0 for adamw"):
        Recipe(0.1, 1, optimizer=Optimizer.ADAMW)


def test_momentum_is_a_number_of_sgd_alone():
    assert Recipe(0.1, 1, momentum=0.9).counted_optimizer is Optimizer.MOMENTUM
    with pytest.raises(NinlabError, match=r"momentum is 0\.9, but must be 0 for adam"):
        Recipe(0.1, 1, optimizer=Optimizer.ADAM, momentum=0.9)
