"""A training step on paper against the same step run by torch on meta tensors.

The peaks, their categories and every single allocation have to agree to the byte. All
combinations are compared for the networks of `AT_EVERY_BATCH`; each of the others meets all
optimizers and precisions at one batch size. With NINLAB_EXHAUSTIVE set in the environment
every network meets every batch size (a minute).
"""

import math
import os
from collections import Counter
from functools import cache
from itertools import pairwise, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ninlab import formulas, liveness, shapes
from ninlab.allocator import CachingAllocator
from ninlab.architectures import ARCHITECTURES, Architecture, architecture
from ninlab.errors import NinlabError, ShapeError, UnknownNameError
from ninlab.fused.matching import replaced
from ninlab.layers import (
    BatchNorm,
    Block,
    Branches,
    Conv,
    Dropout,
    Flatten,
    GlobalAvgPool,
    Linear,
    MaxPool,
    ReLU,
)
from ninlab.networks import build
from ninlab.reports import Category, MemoryEvent, Phase, live_bytes, tensor_peak
from ninlab.resources.modules import joined, load
from ninlab.resources.timeline import trace_step
from ninlab.steps import Kernels, Optimizer
from ninlab.tape.joined import Role, roles
from tests.strategies import architectures, joinable

EXHAUSTIVE = "NINLAB_EXHAUSTIVE" in os.environ
BATCH_SIZES = (1, 2, 7, 32, 128)
AT_EVERY_BATCH = ("lenet", "nin", "alexnet", "vgg11", "googlenet")
DISTINCT = {  # a repeat differs in its start alone, which costs no memory
    (network.input_shape, network.layers): name for name, network in reversed(ARCHITECTURES.items())
}
EVERYWHERE = ("sgd", "momentum", "adam")  # these optimizers, too
WIDTHS = ("fp32", "bf16")  # tf32 is as wide as fp32

networks = st.sampled_from(sorted(DISTINCT.values()))
batch_sizes = st.integers(1, 4096)


@st.composite
def timelines(draw) -> tuple[MemoryEvent, ...]:
    """The step of some network of the book, training or predicting."""
    return liveness.timeline(
        architecture(draw(networks)),
        draw(st.sampled_from(Optimizer)),
        draw(st.sampled_from(WIDTHS)),
        training=draw(st.booleans()),
    )


subject = cache(load)


def fewest_images(network: Architecture) -> int:
    """Of how many images torch takes a training step: a norm needs two values of each map."""
    norms = (at for at in shapes.placed_layers(network) if isinstance(at.layer, BatchNorm))
    return 2 if any(math.prod(at.input_shape[1:]) == 1 for at in norms) else 1


def allocations(events, batch_size: int) -> list[tuple]:
    """What the step itself allocates, in order."""
    return [
        (event.bytes(batch_size), event.category, event.phase, event.layer, event.operator)
        for event in events
        if event.allocates and event.phase is not Phase.SETUP
    ]


def changes(events, batch_size: int) -> list[tuple]:
    """Allocations in order, and between two of them the sizes released, in any order."""
    steps: list[tuple] = []
    for event in events:
        if event.phase is Phase.SETUP:
            continue
        size = event.bytes(batch_size)
        if event.allocates:
            steps.append((size, []))
        elif steps:
            steps[-1][1].append(size)
            steps[-1][1].sort()
    return steps


def assert_equal_steps(paper, run, batch_size: int) -> None:
    """The same peak made of the same categories, from the same events."""
    expected, found = tensor_peak(run, batch_size), tensor_peak(paper, batch_size)
    assert found == expected
    assert allocations(paper, batch_size) == allocations(run, batch_size)
    assert changes(paper, batch_size) == changes(run, batch_size)


# ---------------------------------------------------------------- against torch


@pytest.mark.parametrize("name", sorted(DISTINCT.values()))
@pytest.mark.parametrize("precision", WIDTHS)
def test_every_byte_lives_as_long_on_paper_as_in_torch(name, precision):
    network = architecture(name)
    spread = sorted(DISTINCT.values()).index(name)
    for training, optimizers in ((True, Optimizer), (False, ("sgd",))):
        for place, optimizer in enumerate(optimizers, start=spread):
            paper = liveness.timeline(network, optimizer, precision, training=training)
            rotating = BATCH_SIZES[place % len(BATCH_SIZES)]
            exhaustive = name in AT_EVERY_BATCH and optimizer in EVERYWHERE
            for batch_size in BATCH_SIZES if exhaustive or EXHAUSTIVE else (rotating,):
                batch_size = max(batch_size, fewest_images(network))
                run = trace_step(
                    subject(name),
                    batch_size,
                    optimizer,
                    autocast=precision == "bf16",
                    training=training,
                )
                assert_equal_steps(paper, run.events, batch_size)


@settings(max_examples=40)
@given(
    network=architectures(),
    optimizer=st.sampled_from(Optimizer),
    precision=st.sampled_from(WIDTHS),
    training=st.booleans(),
    batch_size=st.integers(2, 5),  # torch normalizes no channel of a single value
)
def test_every_byte_lives_as_long_on_paper_as_in_torch_on_random_networks(
    network, optimizer, precision, training, batch_size
):
    paper = liveness.timeline(network, optimizer, precision, training=training)
    module = load(build(network, device="meta"), network.input_shape)
    run = trace_step(module, batch_size, optimizer, autocast=precision == "bf16", training=training)
    assert_equal_steps(paper, run.events, batch_size)


def classifier(*layers) -> Architecture:
    return Architecture("made_up", "Made up", (2, 8, 8), 3, layers, source="none")


MIX = Branches("mix", (Block("wide", (Conv(3, 1),)), Block("narrow", (Conv(2, 1),))))
ODD_NETWORKS = {
    "branches inside branches": classifier(
        Conv(4, 3),
        Branches("outer", (Block("left", (MIX,)), Block("right", (Conv(2, 1), ReLU())))),
        Flatten(), Linear(3),
    ),
    "a branch that hands its input on": classifier(
        Conv(4, 3), Branches("mix", (Block("same", (Dropout(0),)), Block("other", (Conv(2, 1),)),
                                     Block("again", (Dropout(0),)))), Flatten(), Linear(3),
    ),
    "a branch that hands its input on, and a layer before it": classifier(
        Conv(4, 3), Branches("mix", (Block("other", (Conv(2, 1),)), Block("same", (Dropout(0),)))),
        Flatten(), Linear(3),
    ),
    "a branch without weights on the images": classifier(
        Branches("mix", (Block("pooled", (MaxPool(3, 1, 1),)), Block("filtered", (Conv(2, 1),)))),
        Flatten(), Linear(3),
    ),
    "dropout of everything, before and after the first weights": classifier(
        Dropout(1), Conv(4, 3), ReLU(), Dropout(1), Flatten(), Linear(3),
    ),
    "a linear layer alone": classifier(Flatten(), Linear(3, bias=False)),
    "a linear layer without bias behind another": classifier(
        Conv(4, 3), Flatten(), Linear(4, bias=False), ReLU(), Linear(3),
    ),
    "a pool and a ReLU first": classifier(
        Block("stem", (MaxPool(2, 2), ReLU())), Conv(3, 1, bias=False), GlobalAvgPool(), Flatten(),
    ),
    "an empty block": classifier(Conv(3, 3), Block("nothing", ()), GlobalAvgPool(), Flatten()),
}  # fmt: skip


@pytest.mark.parametrize("what", ODD_NETWORKS)
@pytest.mark.parametrize("precision", WIDTHS)
@pytest.mark.parametrize("training", [True, False])
def test_odd_networks_agree_with_torch_as_well(what, precision, training):
    network = ODD_NETWORKS[what]
    paper = liveness.timeline(network, "adam", precision, training=training)
    module = load(build(network, device="meta"), network.input_shape)
    run = trace_step(module, 3, "adam", autocast=precision == "bf16", training=training)
    assert_equal_steps(paper, run.events, 3)


# ---------------------------------------------------------------- joined layers against torch

JOINED = [
    (name, kernels)
    for name in sorted(DISTINCT.values())
    for kernels in (Kernels.FUSED, Kernels.CHAINED)
    if roles(architecture(name), kernels) != roles(architecture(name), Kernels.TORCH)
    and (kernels is Kernels.FUSED or Role.CHAIN in roles(architecture(name), kernels).values())
]
"""Every network and kernels that join layers of it, otherwise than those before."""

REPLACED = {
    Role.CONVOLUTION_RELU: "ConvBiasRelu",
    Role.CONVOLUTION: "ConvWithoutBias",
    Role.PRODUCT_RELU: "ProductBiasRelu",
    Role.PRODUCT: "ProductWithoutBias",
    Role.PARAMETERS: "DoneElsewhere",
    Role.CHAIN: "Chain",
    Role.POOL: "BiasReluMaxPool",
    Role.NOTHING: "DoneElsewhere",
}


def assert_the_same_layers_are_joined(network, kernels) -> None:
    by_torch = replaced(build(network, device="meta"), kernels)
    on_paper = {path: REPLACED[role] for path, role in roles(network, kernels).items()}
    assert on_paper == {path: type(layer).__name__ for path, layer in by_torch.items()}


@pytest.mark.parametrize("name", sorted(DISTINCT.values()))
@pytest.mark.parametrize("kernels", [Kernels.FUSED, Kernels.CHAINED])
def test_paper_joins_the_layers_that_torch_joins(name, kernels):
    assert_the_same_layers_are_joined(architecture(name), kernels)


@settings(max_examples=60)
@given(
    network=st.one_of(architectures(), joinable()),
    kernels=st.sampled_from([Kernels.FUSED, Kernels.CHAINED]),
)
def test_paper_joins_the_layers_that_torch_joins_in_random_networks(network, kernels):
    assert_the_same_layers_are_joined(network, kernels)


def assert_equal_joined_steps(network, twin, kernels, precision, training, optimizer, batch_size):
    paper = liveness.timeline(network, optimizer, precision, training=training, kernels=kernels)
    run = trace_step(twin, batch_size, optimizer, autocast=precision == "bf16", training=training)
    assert_equal_steps(paper, run.events, batch_size)
    if training:
        lines = liveness.saved_lines(network, precision, kernels=kernels)
        kept = sorted((line.layer, line.kind, line.bytes(batch_size)) for line in lines)
        assert kept == sorted((each.layer, each.kind, each.bytes) for each in run.saved)


def test_of_one_image_whose_branches_end_in_a_pixel_only_copies_are_played_too_many():
    """A known limit: for torch the part of such a gradient lies in one piece already."""
    name, kernels = "googlenet_28", Kernels.FUSED
    paper = allocations(liveness.timeline(architecture(name), kernels=kernels), 1)
    run = allocations(trace_step(joined(subject(name), kernels), 1).events, 1)
    copies = list((Counter(paper) - Counter(run)).elements())
    assert not Counter(run) - Counter(paper)
    assert 0 < sum(size for size, *_ in copies) < 1_000
    assert {place[1:3] for place in copies} == {(Category.TEMPORARY, Phase.BACKWARD)}
    assert {layer.partition(".")[0] for _, _, _, layer, _ in copies} == {
        at.name.partition(".")[0]
        for at in shapes.placed_layers(architecture(name))
        if at.output_shape[1:] == (1, 1) and at.name.startswith("inception")
    }


@pytest.mark.parametrize(("name", "kernels"), JOINED)
def test_every_byte_of_joined_layers_lives_as_long_on_paper_as_in_torch(name, kernels):
    spread, twin = JOINED.index((name, kernels)), joined(subject(name), kernels)
    for place, (precision, training) in enumerate(product(WIDTHS, (True, False)), start=spread):
        optimizer = list(Optimizer)[place % len(Optimizer)] if training else "sgd"
        rotating = BATCH_SIZES[place % len(BATCH_SIZES)]
        fewest = 2 if name == "googlenet_28" else fewest_images(architecture(name))
        batch_size = max(rotating, fewest)
        assert_equal_joined_steps(
            architecture(name), twin, kernels, precision, training, optimizer, batch_size
        )


@settings(max_examples=60)
@given(
    network=joinable(),
    kernels=st.sampled_from([Kernels.FUSED, Kernels.CHAINED]),
    precision=st.sampled_from(WIDTHS),
    training=st.booleans(),
    batch_size=st.integers(2, 5),
)
def test_every_byte_of_joined_layers_lives_as_long_in_random_networks(
    network, kernels, precision, training, batch_size
):
    twin = joined(load(build(network, device="meta"), network.input_shape), kernels)
    assert_equal_joined_steps(network, twin, kernels, precision, training, "momentum", batch_size)


POOLED = Block("pooled", (Conv(24, 1), ReLU(), MaxPool(3, 1, 1)))
FILTERED = Block("filtered", (Conv(24, 1), ReLU()))
DROPPED = Block("dropped", (Dropout(0.5),))
HEAD = (Conv(3, 3), GlobalAvgPool(), Flatten())


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("precision", WIDTHS)
@pytest.mark.parametrize(
    "layers",
    [
        (Conv(8, 1), ReLU(), MaxPool(2, 2)),
        (Branches("mix", (POOLED, FILTERED)),),
        (Conv(8, 3), ReLU(), Branches("mix", (POOLED, FILTERED))),
        (Conv(8, 3), ReLU(), Branches("mix", (POOLED, FILTERED, DROPPED))),
        (Conv(8, 3), ReLU(), Branches("mix", (DROPPED, POOLED))),
    ],
    ids=["a product first", "branches first", "branches", "dropped last", "dropped first"],
)
def test_products_first_and_in_branches_give_their_gradients_in_torchs_order(
    layers, precision, training
):
    network = Architecture("made_up", "Made up", (8, 8, 8), 3, (*layers, *HEAD), source="none")
    twin = joined(load(build(network, device="meta"), network.input_shape), "fused")
    assert_equal_joined_steps(network, twin, "fused", precision, training, "momentum", 3)


def test_kernels_that_join_no_layer_change_nothing():
    for name in ("lenet", "nin_28_batch_norm"):
        for kernels in Kernels:
            assert liveness.timeline(architecture(name), kernels=kernels) == liveness.timeline(
                architecture(name)
            )
            assert joined(subject(name), kernels) is subject(name)


def test_no_layer_is_joined_across_a_gap():
    split = Branches("mix", (Block("a", (Conv(8, 3, padding=1),)), Block("b", (Conv(8, 1),))))
    network = classifier(split, ReLU(), MaxPool(2, 2), Flatten(), Linear(3))
    assert roles(network, Kernels.FUSED) == {}


@given(networks, st.sampled_from(WIDTHS), batch_sizes)
def test_who_joins_more_layers_keeps_no_more(name, precision, batch_size):
    kept = [
        sum(
            line.bytes(batch_size)
            for line in liveness.saved_lines(architecture(name), precision, kernels=kernels)
        )
        for kernels in Kernels
    ]
    assert kept == sorted(kept, reverse=True)


@pytest.mark.parametrize("precision", WIDTHS)
def test_who_joins_more_layers_needs_no_more_memory_at_batch_128(precision):
    for name in DISTINCT.values():
        peaks = [
            liveness.peak_bytes(
                liveness.timeline(architecture(name), "sgd", precision, kernels=kernels), 128
            )
            for kernels in Kernels
        ]
        assert peaks == sorted(peaks, reverse=True)


def test_a_network_without_weights_has_no_way_back():
    events = liveness.timeline(classifier(MaxPool(2, 2), GlobalAvgPool(), Flatten()))
    assert Phase.BACKWARD not in {event.phase for event in events}


@pytest.mark.parametrize("name", ["lenet", "nin", "nin_28_batch_norm", "alexnet", "googlenet_28"])
@pytest.mark.parametrize("precision", WIDTHS)
@pytest.mark.parametrize("batch_size", [1, 6])
def test_autograd_keeps_the_listed_tensors(name, precision, batch_size):
    lines = liveness.saved_lines(architecture(name), precision)
    paper = [
        (line.layer, line.kind, line.constant_bytes + line.bytes_per_image * batch_size)
        for line in lines
    ]
    run = trace_step(subject(name), batch_size, autocast=precision == "bf16")
    assert sorted(paper) == sorted((each.layer, each.kind, each.bytes) for each in run.saved)


# ---------------------------------------------------------------- laws of a step


@given(timelines())
def test_a_block_is_allocated_once_and_released_at_most_once_with_the_same_size(events):
    alive: dict[int, MemoryEvent] = {}
    seen = set()
    for event in events:
        if event.allocates:
            assert event.block not in seen
            seen.add(event.block)
            alive[event.block] = event
        else:
            born = alive.pop(event.block)
            assert (born.constant_bytes, born.bytes_per_image, born.category) == (
                event.constant_bytes, event.bytes_per_image, event.category,
            )  # fmt: skip


@given(timelines(), batch_sizes)
def test_a_warm_step_leaves_as_many_bytes_as_it_found(events, batch_size):
    curve = live_bytes(events, batch_size)
    found = sum(1 for event in events if event.phase is Phase.SETUP)
    assert curve[-1] == curve[found - 1]


@given(timelines(), batch_sizes)
def test_the_peak_grows_with_the_batch(events, batch_size):
    assert liveness.peak_bytes(events, batch_size) < liveness.peak_bytes(events, batch_size + 1)


@given(timelines(), batch_sizes)
def test_categories_add_up_to_the_peak(events, batch_size):
    report = tensor_peak(events, batch_size)
    assert sum(report.by_category.values()) == report.tensor_peak_bytes


@given(networks, st.sampled_from(WIDTHS), batch_sizes)
def test_each_optimizer_needs_at_least_the_memory_of_a_simpler_one(name, precision, batch_size):
    peaks = [
        liveness.peak_bytes(liveness.timeline(architecture(name), each, precision), batch_size)
        for each in EVERYWHERE
    ]
    state = 4 * formulas.parameters(architecture(name))
    for before, after in pairwise(peaks):
        assert after >= before + state


@given(networks, batch_sizes)
def test_prediction_needs_less_than_training(name, batch_size):
    network = architecture(name)
    predicting = liveness.timeline(network, training=False)
    training = liveness.timeline(network)
    assert liveness.peak_bytes(predicting, batch_size) < liveness.peak_bytes(training, batch_size)


@pytest.mark.parametrize("training", [True, False])
def test_tf32_changes_no_size(training):
    for network in ARCHITECTURES.values():
        assert liveness.timeline(network, "sgd", "tf32", training=training) == liveness.timeline(
            network, "sgd", "fp32", training=training
        )


@pytest.mark.parametrize(
    ("optimizer", "copies"),
    [("sgd", 2), ("momentum", 3), ("adam", 5), ("adamw", 5), ("rmsprop", 4), ("adagrad", 5)],
)
def test_alexnet_on_one_image_needs_little_but_its_weights_times_a_whole_number(optimizer, copies):
    # Weights and gradients; a state; for Adam two states and, in its step, their square roots; for
    # Adagrad one state, its square root, and the gradient times the rate.
    events = liveness.timeline(architecture("alexnet"), optimizer)
    weights = 4 * formulas.parameters(architecture("alexnet"))
    assert liveness.peak_bytes(events, 1) // weights == copies
    assert liveness.peak_bytes(events, 1) < 1.03 * copies * weights


# ---------------------------------------------------------------- the peak over the batch


def held(lines, batch_size: int) -> int:
    """The peak that an envelope tells for one batch size."""
    line = [each for each in lines if each.first_batch <= batch_size][-1]
    return line.constant_bytes + line.bytes_per_image * batch_size


@pytest.mark.parametrize("name", ["lenet", "nin", "alexnet", "vgg11", "vgg19", "googlenet"])
@pytest.mark.parametrize("optimizer", Optimizer)
@pytest.mark.parametrize("precision", WIDTHS)
def test_the_envelope_is_the_largest_event_at_every_batch_up_to_1024(name, optimizer, precision):
    events = liveness.timeline(architecture(name), optimizer, precision)
    batches = np.arange(1, 1025)
    signs = np.array([1 if event.allocates else -1 for event in events])
    constants = np.cumsum(signs * [event.constant_bytes for event in events])
    per_images = np.cumsum(signs * [event.bytes_per_image for event in events])
    largest = (constants[:, None] + per_images[:, None] * batches).max(axis=0)
    lines = liveness.envelope(events)
    assert [held(lines, batch) for batch in batches.tolist()] == largest.tolist()


@given(timelines(), batch_sizes)
def test_the_envelope_is_the_peak(events, batch_size):
    lines = liveness.envelope(events)
    assert held(lines, batch_size) == liveness.peak_bytes(events, batch_size)


@given(timelines())
def test_the_envelope_begins_at_one_image_and_each_line_takes_over_once(events):
    lines = liveness.envelope(events)
    assert lines[0].first_batch == 1
    for flatter, steeper in pairwise(lines):
        assert flatter.first_batch < steeper.first_batch
        assert flatter.bytes_per_image < steeper.bytes_per_image


@given(timelines(), st.integers(1, 2**36))
def test_the_largest_batch_fits_and_the_next_does_not(events, available):
    largest = liveness.largest_batch(events, available)
    assert largest == 0 or liveness.peak_bytes(events, largest) <= available
    assert liveness.peak_bytes(events, largest + 1) > available


# ---------------------------------------------------------------- two networks


@given(timelines(), timelines())
def test_from_the_crossing_on_the_first_needs_more_and_just_before_it_does_not(first, second):
    crossing = liveness.crossing(first, second)

    def surplus(batch_size: int) -> int:
        return liveness.peak_bytes(first, batch_size) - liveness.peak_bytes(second, batch_size)

    if crossing is None:
        assert surplus(10**9) <= 0
        return
    assert surplus(crossing) > 0
    assert surplus(crossing + 1) > 0
    assert surplus(10**9) > 0
    assert crossing == 1 or surplus(crossing - 1) <= 0


def test_nin_with_a_23rd_of_alexnets_parameters_needs_more_memory_from_batch_96_on():
    nin, alexnet = architecture("nin"), architecture("alexnet")
    assert formulas.parameters(alexnet) // formulas.parameters(nin) == 23
    crossings = {
        optimizer: liveness.crossing(
            liveness.timeline(nin, optimizer), liveness.timeline(alexnet, optimizer)
        )
        for optimizer in EVERYWHERE
    }
    assert crossings["sgd"] == 96
    # Every state that an optimizer keeps a parameter puts the crossing off.
    assert crossings["sgd"] < crossings["momentum"] < crossings["adam"]


def test_a_network_never_crosses_itself():
    events = liveness.timeline(architecture("lenet"))
    assert liveness.crossing(events, events) is None


# ---------------------------------------------------------------- through the allocator


@given(timelines(), st.integers(1, 256), st.booleans())
def test_what_the_allocator_reports_is_at_least_what_the_tensors_ask_for(
    events, batch_size, expandable
):
    report = CachingAllocator(expandable).replay(events, batch_size)
    assert report.tensor_peak_bytes == report.requested_peak_bytes  # no scratch in these events
    assert report.requested_peak_bytes <= report.allocated_peak_bytes <= report.reserved_peak_bytes


@given(timelines(), st.integers(1, 256))
def test_with_expandable_segments_the_step_allocates_its_tensors_in_whole_512_bytes(
    events, batch_size
):
    live = peak = 0
    for event in events:
        size = -(-event.bytes(batch_size) // 512) * 512
        live += size if event.allocates else -size
        peak = max(peak, live)
    report = CachingAllocator(expandable_segments=True).replay(events, batch_size)
    assert report.allocated_peak_bytes == peak


# ---------------------------------------------------------------- what cannot be answered


def test_a_wrong_optimizer_or_precision_gets_the_list_of_the_right_ones():
    with pytest.raises(UnknownNameError, match="'momentun'; did you mean 'momentum'"):
        liveness.timeline(architecture("nin"), "momentun")
    with pytest.raises(UnknownNameError, match="known: fp32, tf32, bf16"):
        liveness.timeline(architecture("nin"), precision="fp8")
    with pytest.raises(UnknownNameError, match="'fuse'; did you mean 'fused'"):
        liveness.saved_lines(architecture("nin"), kernels="fuse")


def test_a_batch_of_no_image_is_refused():
    with pytest.raises(NinlabError, match="at least 1, not 0"):
        liveness.peak_bytes(liveness.timeline(architecture("lenet")), 0)


def test_an_input_that_a_layer_cannot_read_is_refused():
    with pytest.raises(ShapeError, match="a window of 9 does not fit"):
        liveness.timeline(classifier(Conv(3, 9), Flatten(), Linear(3)))


def test_without_anything_that_grows_there_is_no_largest_batch():
    weight = MemoryEvent(True, 1, 512, 0, Category.PARAMETER, Phase.SETUP, "", "")
    assert liveness.largest_batch([weight], 511) == 0
    with pytest.raises(NinlabError, match="every batch fits"):
        liveness.largest_batch([weight], 512)
