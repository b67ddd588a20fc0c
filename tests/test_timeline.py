"""The step on the meta device against real steps on the CPU, and against torch's own tracker."""

from collections import Counter
from functools import partial, reduce
from operator import add

import pytest
import torch
import torchvision
from hypothesis import given, settings
from torch import nn

from ninlab.architectures import ARCHITECTURES
from ninlab.errors import NinlabError
from ninlab.networks import build
from ninlab.optimizers import make
from ninlab.reports import Category, MemoryEvent, Phase, live_bytes, tensor_peak
from ninlab.resources import StepTimeline, load, trace_step
from ninlab.steps import Optimizer
from tests.cpu_step import SCALAR_BYTES, WarmStep, as_on_cpu, block_sizes, measure, peak_of
from tests.strategies import architectures

BOOK = {
    "lenet": (3, 64),
    "nin": (1, 4),
    "alexnet": (1, 4),
    "vgg11_quarter": (2,),  # the operators of VGG-11 on a tenth of its products
    "googlenet": (2, 5),
}
EVERY_OPTIMIZER = "lenet"  # the book's network that all of them update
TORCHVISION = ("resnet18", "mobilenet_v2", "squeezenet1_0", "densenet121")


@pytest.mark.slow
@pytest.mark.parametrize(("name", "batch_sizes"), BOOK.items())
def test_the_timeline_is_the_real_step_of_the_books_networks(name, batch_sizes):
    """Optimizers and a prediction, each at those batch sizes: peak and every block."""
    optimizers = Optimizer if name == EVERY_OPTIMIZER else ("sgd", "momentum", "adam")
    steps = [
        WarmStep(batch_size, make_optimizer)
        for batch_size in batch_sizes
        for make_optimizer in (*(partial(make, each) for each in optimizers), None)
    ]
    network = ARCHITECTURES[name]
    measured = measure(partial(build, network, seed=0), network.input_shape, steps)
    subject = load(name)
    for step, real in zip(steps, measured, strict=True):
        timeline = as_on_cpu(subject, step)
        assert abs(peak_of(timeline) - real.peak_bytes) <= SCALAR_BYTES, step
        assert block_sizes(timeline) == real.block_sizes, step


@pytest.mark.parametrize("name", TORCHVISION)
def test_the_timeline_is_the_real_step_of_networks_nobody_tuned_it_for(name):
    steps = [WarmStep(4, partial(make, "momentum")), WarmStep(4)]
    build_it = partial(getattr(torchvision.models, name), weights=None)
    measured = measure(build_it, (3, 224, 224), steps)
    subject = load(f"torchvision.models:{name}", (3, 224, 224))
    for step, real in zip(steps, measured, strict=True):
        timeline = as_on_cpu(subject, step)
        assert abs(peak_of(timeline) - real.peak_bytes) <= SCALAR_BYTES, step
        assert timeline.unmodeled == {}


@pytest.mark.parametrize("name", ["nin_28", "alexnet_28"])
def test_the_timeline_is_the_real_step_in_channels_last(name):
    steps = [WarmStep(4, partial(make, "sgd")), WarmStep(4)]

    def channels_last() -> nn.Module:
        return build(name, seed=0).to(memory_format=torch.channels_last)

    measured = measure(channels_last, ARCHITECTURES[name].input_shape, steps)
    subject = load(name)
    for step, real in zip(steps, measured, strict=True):
        timeline = as_on_cpu(subject, step, channels_last=True)
        assert peak_of(timeline) == real.peak_bytes
        assert block_sizes(timeline) == real.block_sizes


@pytest.mark.parametrize(
    "make_optimizer",
    [
        partial(make, "sgd", weight_decay=1e-4),
        partial(make, "adam", weight_decay=1e-4),
        partial(torch.optim.AdamW, foreach=True),
        partial(torch.optim.RMSprop, momentum=0.9, foreach=True),
        partial(torch.optim.SGD, lr=0.1, momentum=0.9, nesterov=True, foreach=False),
        partial(torch.optim.Adam, foreach=False),
    ],
    ids=["sgd decayed", "adam decayed", "adamw", "rmsprop", "nesterov one by one", "one by one"],
)
def test_the_timeline_is_the_real_step_of_other_optimizers(make_optimizer):
    step = WarmStep(2, make_optimizer)
    (real,) = measure(partial(build, "nin_28", seed=0), (1, 28, 28), [step])
    assert abs(peak_of(as_on_cpu(load("nin_28"), step)) - real.peak_bytes) <= SCALAR_BYTES


class Tangled(nn.Module):
    """Residual sums, a tied layer, a module that runs twice, two heads, one idle parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.twice = nn.Conv2d(8, 8, 3, padding=1)
        self.tied = nn.Conv2d(8, 8, 3, padding=1)
        self.tied.weight = self.twice.weight
        self.idle = nn.Linear(1000, 1000)
        self.heads = nn.ModuleList([nn.Linear(8, 10), nn.Linear(8, 5)])

    def forward(self, images):
        features = torch.relu(self.stem(images))
        features = features + torch.sigmoid(self.twice(torch.relu(self.twice(features))))
        features = features * features + self.tied(features)
        features = torch.cat([features, torch.tanh(features)], dim=0).chunk(2)[0]
        pooled = features.mean(dim=(2, 3))
        return {"coarse": self.heads[1](pooled), "fine": [self.heads[0](pooled)]}


def test_the_timeline_is_the_real_step_of_a_tangled_network():
    def summed(output, labels):
        return reduce(
            add,
            (
                nn.functional.cross_entropy(scores, labels)
                for scores in (output["coarse"], output["fine"][0])
            ),
        )

    step = WarmStep(3, partial(make, "adam"))
    (real,) = measure(Tangled, (3, 16, 16), [step], summed)
    timeline = as_on_cpu(load(Tangled(), (3, 16, 16)), step)
    assert abs(peak_of(timeline) - real.peak_bytes) <= SCALAR_BYTES


def test_a_table_that_is_normalized_first_needs_no_gradient():
    """Torch's own kernel on the meta device makes one all the same, and it would be the peak."""

    def network() -> nn.Module:
        return nn.Sequential(nn.BatchNorm1d(1000), nn.Linear(1000, 2))

    step = WarmStep(8, partial(make, "sgd"))
    (real,) = measure(network, (1000,), [step])
    on_cpu, on_cuda = (
        peak_of(trace_step(load(network(), (1000,)), 8, on_cuda=on_cuda))
        for on_cuda in (False, True)
    )
    assert on_cpu == on_cuda == real.peak_bytes


class Finetuned(nn.Sequential):
    """Learns, but normalizes by the averages that it came with."""

    def __init__(self) -> None:
        super().__init__(nn.Conv2d(3, 1000, 1), nn.BatchNorm2d(1000), nn.Flatten())

    def train(self, mode: bool = True) -> nn.Module:
        super().train(mode)
        self[1].eval()
        return self


def test_averages_of_training_leave_no_statistics_of_the_batch():
    step = WarmStep(2, partial(make, "sgd"))
    (real,) = measure(Finetuned, (3, 2, 2), [step])
    assert peak_of(as_on_cpu(load(Finetuned(), (3, 2, 2)), step)) == real.peak_bytes


# ---------------------------------------------------------------- modules with a memory


class Attentive(nn.Module):
    """Remembers how it weighted the pixels, as for a picture of them later on."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 1)
        self.weights: dict[str, torch.Tensor] = {}

    def forward(self, images):
        values = self.conv(images).flatten(2)
        self.weights["last"] = (values.transpose(1, 2) @ values).softmax(-1)
        return (values @ self.weights["last"]).mean(-1)


class Caching(nn.Module):
    """Makes a tensor when it first meets a batch of some size, and keeps it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 1)
        self.scale = None
        self.offsets = [torch.ones(8, 8, 8), torch.zeros(8, 8, 8)]

    def forward(self, images):
        values = self.conv(images)
        if self.scale is None or self.scale.shape != values.shape:
            self.scale = torch.ones_like(values)
        return (values * self.scale + self.offsets[0]).mean((2, 3))


class KeptByFunction(torch.autograd.Function):
    """Keeps what backward needs beside autograd's own list: until the scores are let go."""

    @staticmethod
    def forward(context, values):
        context.slope, context.positive = values.sign(), values.relu()
        return values.abs() + context.positive

    @staticmethod
    def backward(context, gradient):
        return (context.slope + context.positive.sign()) * gradient


class Keeping(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 1)

    def forward(self, images):
        return KeptByFunction.apply(self.conv(images)).mean((2, 3))


@pytest.mark.parametrize("keeper", [Attentive, Caching, Keeping])
def test_a_warm_step_finds_what_the_module_keeps_of_the_step_before(keeper):
    steps = [WarmStep(3, partial(make, "adam")), WarmStep(2)]
    subject = load(keeper(), (3, 8, 8))
    for step, real in zip(steps, measure(keeper, (3, 8, 8), steps), strict=True):
        timeline = as_on_cpu(subject, step)
        assert abs(peak_of(timeline) - real.peak_bytes) <= SCALAR_BYTES, step
        assert block_sizes(timeline) == real.block_sizes, step


def test_what_only_a_cycle_of_references_holds_is_not_kept():
    class Recursive(nn.Conv2d):
        def forward(self, images):
            values = super().forward(images)

            def power(exponent):
                return values if exponent == 1 else values * power(exponent - 1)

            return power(3).mean((2, 3))

    trace_step(load(Recursive(3, 8, 1), (3, 8, 8)), 2)


def test_a_module_that_keeps_more_after_every_step_is_refused():
    class Hoarding(Keeping):
        def __init__(self) -> None:
            super().__init__()
            self.conv.register_forward_hook(lambda _, inputs, output: self.kept.append(output))
            self.kept: list[torch.Tensor] = []

    with pytest.raises(NinlabError, match="keeps other tensors after each step than it found"):
        trace_step(load(Hoarding(), (3, 8, 8)), 2)


# ---------------------------------------------------------------- torch's own tracker


def tracked_peak(module: nn.Module, input_shape: tuple[int, ...], batch_size: int) -> int:
    """Peak of a second SGD step by torch's private MemTracker, on the meta device."""
    from torch.distributed._tools.mem_tracker import MemTracker

    images = torch.empty(batch_size, *input_shape, device="meta")
    labels = torch.empty(batch_size, dtype=torch.int64, device="meta")
    optimizer = make("momentum", module.parameters())
    tracker = MemTracker()
    tracker.track_external(module, optimizer, images, labels)

    def step():
        optimizer.zero_grad(set_to_none=True)
        scores = module(images)
        loss = nn.functional.cross_entropy(scores, labels)
        loss.backward()
        optimizer.step()
        return scores, loss

    with tracker:
        held = step()
        tracker.reset_mod_stats()
        held = step()
        (peak,) = tracker.get_tracker_snapshot("peak").values()
    del held
    return peak["Total"]


@pytest.mark.parametrize("name", ["nin", "alexnet", "vgg11"])
def test_the_peak_is_that_of_torchs_own_tracker(name):
    tracked = tracked_peak(build(name, device="meta"), ARCHITECTURES[name].input_shape, 8)
    assert peak_of(trace_step(load(name), 8, "momentum", on_cuda=False)) == tracked


def test_torchs_own_tracker_is_too_high_where_gradients_meet():
    """While a mode looks on, the engine makes a new tensor where it would add in place.

    The tracker counts it; the real step (first test of this file) does without. At the
    peak of GoogLeNet one such tensor is alive: inception3b's input gradient, 192 channels.
    """
    real = tracked_peak(
        build("googlenet", device="meta"), ARCHITECTURES["googlenet"].input_shape, 8
    )
    ours = peak_of(trace_step(load("googlenet"), 8, "momentum", on_cuda=False))
    assert 0 < real - ours < 0.01 * ours


# ---------------------------------------------------------------- laws


def live_at_end(timeline: StepTimeline) -> dict[int, MemoryEvent]:
    live: dict[int, MemoryEvent] = {}
    for event in timeline.events:
        if event.allocates:
            assert event.block not in live
            live[event.block] = event
        else:
            born = live.pop(event.block)
            assert (born.constant_bytes, born.category) == (event.constant_bytes, event.category)
    return live


@pytest.mark.parametrize("autocast", [False, True], ids=["fp32", "bf16"])
@pytest.mark.parametrize("optimizer", Optimizer)
@pytest.mark.parametrize("name", ["nin", "alexnet_28", "googlenet_28", "nin_28_batch_norm"])
def test_a_warm_step_leaves_what_it_found(name, optimizer, autocast):
    timeline = trace_step(load(name), 4, optimizer, autocast=autocast)

    def sizes(events):
        return Counter((event.category, event.constant_bytes) for event in events)

    setup = [event for event in timeline.events if event.phase is Phase.SETUP]
    assert sizes(setup) == sizes(live_at_end(timeline).values())


@settings(deadline=None, max_examples=30)
@given(network=architectures())
def test_weights_gradients_and_state_are_multiples_of_the_parameters(network):
    module = build(network, device="meta")
    weights = 4 * sum(each.numel() for each in module.parameters())
    buffers = sum(each.untyped_storage().nbytes() for each in module.buffers())
    timeline = trace_step(load(module, network.input_shape), 2, "adam")
    held = Counter()
    for event in timeline.events:
        if event.phase is Phase.SETUP:
            held[event.category] += event.constant_bytes
    made = sum(
        event.constant_bytes
        for event in timeline.events
        if event.allocates and event.phase is Phase.BACKWARD and event.category is Category.GRADIENT
    )
    assert held[Category.PARAMETER] == weights + buffers
    assert held[Category.GRADIENT] == made == weights
    assert held[Category.OPTIMIZER_STATE] == 2 * weights


@settings(deadline=None, max_examples=20)
@given(network=architectures())
def test_more_images_never_need_less_memory(network):
    subject = load(build(network, device="meta"), network.input_shape)
    peaks = [peak_of(trace_step(subject, batch_size)) for batch_size in (2, 3, 5, 9)]
    assert peaks == sorted(peaks)


@pytest.mark.parametrize("training", [True, False])
def test_categories_add_up_to_the_peak_and_nothing_is_left_unnamed(training):
    timeline = trace_step(load("googlenet"), 2, training=training)
    report = tensor_peak(timeline.events, 2)
    assert sum(report.by_category.values()) == report.tensor_peak_bytes
    assert min(live_bytes(timeline.events, 2)) >= 0
    layers = set(dict(load("googlenet").module.named_modules())) | {"loss"}
    assert {event.layer for event in timeline.events} <= layers


class Nested(nn.Module):
    """Parameters and buffers of its own beside those of what it holds."""

    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.ones(3, 1, 1))
        self.register_buffer("offset", torch.ones(5))
        self.body = nn.Sequential(nn.Conv2d(3, 7, 1), nn.BatchNorm2d(7), nn.Flatten())
        self.head = nn.Linear(7 * 16, 11)

    def forward(self, images):
        return self.head(self.body(images * self.token)) + self.offset.sum()


def test_what_a_module_holds_lies_in_the_order_in_which_it_was_moved_to_the_device():
    moved = []
    Nested()._apply(lambda tensor: moved.append(tensor.nbytes) or tensor)
    events = trace_step(load(Nested(), (3, 4, 4)), 2, training=False).events
    found = [e.constant_bytes for e in events if e.category is Category.PARAMETER]
    assert found == moved


def test_backward_belongs_to_the_layers_that_ran_forward():
    timeline = trace_step(load("nin_28"), 2)
    convolutions = {
        phase: [
            event.layer
            for event in timeline.events
            if event.allocates and event.phase is phase and event.operator == operator
        ]
        for phase, operator in (
            (Phase.FORWARD, "convolution"),
            (Phase.BACKWARD, "convolution_backward"),
        )
    }
    assert list(dict.fromkeys(convolutions[Phase.BACKWARD])) == convolutions[Phase.FORWARD][::-1]


def test_backward_takes_twice_the_flops_less_the_gradient_of_the_images():
    timeline = trace_step(load("nin"), 2)
    first = 2 * 2 * 54 * 54 * 96 * 11 * 11
    forward = timeline.flops[Phase.FORWARD]
    assert timeline.flops[Phase.BACKWARD] == 2 * forward - first


def test_a_network_with_nothing_to_learn_takes_no_gradient_and_no_state():
    frozen = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten()).requires_grad_(False)
    timeline = trace_step(load(frozen, (1, 8, 8)), 2, "adam")
    categories = {event.category for event in timeline.events}
    assert not categories & {Category.GRADIENT, Category.OPTIMIZER_STATE}


def test_a_network_without_scores_is_refused():
    class Nothing(nn.Module):
        def forward(self, images):
            return None

    with pytest.raises(NinlabError, match="puts out NoneType without class scores"):
        trace_step(load(Nothing(), (1, 8, 8)), 2)
