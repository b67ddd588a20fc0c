from collections import Counter
from operator import attrgetter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.flop_counter import FlopCounterMode

from ninlab.architectures import ARCHITECTURES, Architecture, architecture
from ninlab.devices import DEVICES, device
from ninlab.errors import NinlabError, UnknownNameError
from ninlab.layers import Conv, Dropout, Flatten, GlobalAvgPool
from ninlab.networks import build
from ninlab.optimizers import make
from ninlab.reports import Phase
from ninlab.resources import joined, load, trace_step
from ninlab.resources.cuda import as_on_cuda
from ninlab.roofline import (
    TimeModel,
    fit,
    inference_operators,
    time_bound,
    training_bound,
    training_operators,
)
from ninlab.shapes import layer_macs, placed_layers
from ninlab.steps import OPTIMIZERS, Kernels, Optimizer
from ninlab.tape import joined as joined_on_paper
from ninlab.torch_private import suggested_format
from tests.strategies import architectures, joinable

BOOK = (
    "lenet",
    "nin",
    "nin_fixed_batch_norm",
    "alexnet",
    "vgg11",
    "googlenet",
    "nin_cifar10_strided",
)
BATCH_SIZE = 4
UNREAD = {  # argument that gives a backward only its shape
    "max_pool2d_with_indices_backward": 1,
    "avg_pool2d_backward": 1,
}
NO_WORK = {
    *("_unsafe_view", "as_strided_", "detach", "device", "empty"),
    *("_record_function_enter_new", "_record_function_exit"),
}
ONCE_OVER = (  # operators that move each input and each result once
    "relu",
    "sigmoid",
    "threshold_backward",
    "sigmoid_backward",
    "max_pool2d_with_indices",
    "max_pool2d_with_indices_backward",
    "avg_pool2d",
    "avg_pool2d_backward",
    "mean",
    "cat",
    "add",
    "native_dropout",
    "native_dropout_backward",
    "_log_softmax",
    "_log_softmax_backward_data",
)


JOINED_ONCE_OVER = (  # the same, vectors of one number a channel aside
    *("bias_relu_", "relu_bias_backward", "bias_relu_max_pool", "bias_relu_max_pool_backward"),
    *("chain", "chain_backward", "fold", "fold_backward", "_addmm_activation", "mm", "clone"),
)

FIRST_COUNTS = ("chain_backward", "relu_bias_backward", "bias_relu_max_pool_backward")
"""Of several gradients that these make the first counts: that of the maps."""

PASSES = {"chain_backward": 2}
"""How often an operator of several kernels, one after the other, moves its operands."""


class Dispatched(TorchDispatchMode):
    """Counts the calls that compute, and the bytes of their tensors."""

    def __init__(self):
        super().__init__()
        self.calls, self.bytes = Counter(), Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        if name in ("convolution", "convolution_backward"):
            result = as_cudnn_lays_out(result, args)
        if not func.is_view and name not in NO_WORK:
            read = [a for i, a in enumerate(args) if i != UNREAD.get(name)]
            written = args[0] if name.endswith("_") else result
            if name in JOINED_ONCE_OVER:
                made = result[:1] if name in FIRST_COUNTS else written
                read, written = wide(read), wide(made)
            self.calls[name] += 1
            self.bytes[name] += PASSES.get(name, 1) * (size(read) + size(written))
        return result


def as_cudnn_lays_out(result, operands):
    """Maps in channels_last where an operand is; on meta they lie as the first operand does."""
    last = torch.channels_last
    maps = [each for each in wide(operands) if each.ndim == 4]
    if all(suggested_format(each) is not last for each in maps):
        return result
    return tree_map_only(
        torch.Tensor,
        lambda each: torch.empty_like(each, memory_format=last) if each.ndim == 4 else each,
        result,
    )


def size(tensors) -> int:
    """Bytes of the different tensors in nested sequences."""
    flat = {id(leaf): leaf for leaf in tree_leaves(tensors) if isinstance(leaf, torch.Tensor)}
    return sum(leaf.numel() * leaf.element_size() for leaf in flat.values())


def wide(tensors) -> list:
    """The tensors of more than one dimension."""
    return [leaf for leaf in tree_leaves(tensors) if getattr(leaf, "ndim", 0) > 1]


def twin(network, kernels):
    """The network on the meta device, its layers joined."""
    return joined(load(build(network, device="meta"), network.input_shape), kernels)


def dispatched_step(network, optimizer="sgd", precision="fp32", kernels="torch") -> Dispatched:
    """One warm training step on meta tensors, with the choices that torch makes on CUDA.

    tests/test_timeline_cuda.py holds these casts against torch's own, on fake CUDA tensors.
    """
    subject = twin(network, kernels)
    autocast = precision == "bf16"
    module, images = subject.module, subject.images(BATCH_SIZE, autocast=autocast)
    labels = torch.zeros(BATCH_SIZE, dtype=torch.long, device="meta")
    update = make(optimizer, module.parameters())

    def step():
        update.zero_grad()
        with as_on_cuda(autocast=autocast):
            loss = nn.functional.cross_entropy(module(images), labels)
        with as_on_cuda(autocast=autocast, backward=True):
            loss.backward()
        update.step()

    step()
    with Dispatched() as counts:
        step()
    return counts


def by_name(operators, quantity):
    counts = Counter()
    for operator in operators:
        counts[operator.name] += getattr(operator, quantity)
    return counts


def flops_counted_too_often(network: Architecture) -> int:
    """torch counts the weight gradient of a convolution in groups as if it had none."""
    return sum(
        (at.layer.groups - 1) * 2 * layer_macs(at.layer, at.input_shape) * BATCH_SIZE
        for at in placed_layers(network)
        if isinstance(at.layer, Conv)
    )


IN_GROUPS = Architecture(
    "in_groups", "In groups", (3, 12, 12), 8,
    (Conv(8, 3), Conv(8, 3, groups=4), GlobalAvgPool(), Flatten()), source="none",
)  # fmt: skip


@pytest.mark.parametrize("network", [*ARCHITECTURES.values(), IN_GROUPS], ids=attrgetter("name"))
def test_flops_of_a_training_step_are_what_torch_counts(network):
    module = build(network, device="meta")
    images = torch.empty(BATCH_SIZE, *network.input_shape, device="meta")
    with FlopCounterMode(display=False) as counter:
        module(images).sum().backward()
    flops = sum(operator.flops for operator in training_operators(network, BATCH_SIZE))
    assert flops == counter.get_total_flops() - flops_counted_too_often(network)


def assert_torch_dispatches_the_step(network: Architecture) -> None:
    expected = dispatched_step(network)
    operators = training_operators(network, BATCH_SIZE)
    assert by_name(operators, "calls") == expected.calls
    moved = by_name(operators, "bytes")
    for name in ONCE_OVER:
        assert moved[name] == expected.bytes[name], name


@pytest.mark.parametrize("name", BOOK)
def test_a_step_calls_and_moves_what_torch_dispatches(name):
    assert_torch_dispatches_the_step(ARCHITECTURES[name])


@settings(max_examples=40)
@given(network=architectures())
def test_a_step_of_any_network_calls_and_moves_what_torch_dispatches(network):
    assert_torch_dispatches_the_step(network)


def assert_torch_dispatches_the_joined_step(network, kernels, precision) -> None:
    expected = dispatched_step(network, precision=precision, kernels=kernels)
    operators = training_operators(network, BATCH_SIZE, precision=precision, kernels=kernels)
    assert by_name(operators, "calls") == expected.calls
    moved = by_name(operators, "bytes")
    for name in JOINED_ONCE_OVER:
        assert moved[name] == expected.bytes[name], name
    traced = trace_step(twin(network, kernels), BATCH_SIZE, autocast=precision == "bf16")
    assert sum(operator.flops for operator in operators) == sum(
        traced.flops.values()
    ) - flops_counted_too_often(network)


@pytest.mark.parametrize("kernels", [Kernels.FUSED, Kernels.CHAINED])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", ["nin", "alexnet_28", "vgg11_28", "googlenet_28"])
def test_a_step_of_joined_layers_calls_and_moves_what_torch_dispatches(name, precision, kernels):
    assert_torch_dispatches_the_joined_step(ARCHITECTURES[name], kernels, precision)


@settings(max_examples=30)
@given(
    network=joinable(),
    kernels=st.sampled_from([Kernels.FUSED, Kernels.CHAINED]),
    precision=st.sampled_from(["fp32", "bf16"]),
)
def test_a_step_of_any_joined_layers_calls_and_moves_what_torch_dispatches(
    network, kernels, precision
):
    assert_torch_dispatches_the_joined_step(network, kernels, precision)


def bound_of_nin(kernels: str):
    return training_bound(architecture("nin"), 128, device("h100"), "sgd", "bf16", kernels=kernels)


def test_each_kernels_of_nin_have_a_bound_of_their_own_on_an_h100():
    bounds = {kernels: bound_of_nin(kernels) for kernels in Kernels}
    assert {kernels: round(bound.seconds * 1e6) for kernels, bound in bounds.items()} == {
        "torch": 1716,
        "fused": 1381,
        "chained": 1124,
    }
    moved = [bound.bytes for bound in bounds.values()]
    assert moved == sorted(moved, reverse=True)
    # What is read and written less is bought with zeros in folded windows and with products again.
    computed = [bound.flops for bound in bounds.values()]
    assert computed == sorted(computed)


def test_a_chain_in_every_block_would_about_halve_nins_unfused_bound(monkeypatch):
    monkeypatch.setattr(joined_on_paper, "CHAINED_CHANNELS", 384)
    bound = bound_of_nin("chained")
    assert round(bound.seconds * 1e6) == 918
    assert round(bound.bytes / 1e9, 2) == 1.91
    assert round(bound.flops / 1e12, 2) == 0.6


def test_dropping_everything_multiplies_by_a_single_zero():
    layers = (Conv(3, 1), Dropout(1), Conv(2, 1), GlobalAvgPool(), Flatten())
    network = Architecture("d", "d", (1, 4, 4), 2, layers, source="none")
    expected, operators = dispatched_step(network), training_operators(network, BATCH_SIZE)
    for name in ("zeros", "mul"):
        assert by_name(operators, "calls")[name] == expected.calls[name]
        assert by_name(operators, "bytes")[name] == expected.bytes[name]


@pytest.mark.parametrize("name", ["lenet", "nin_28", "googlenet_28"])
def test_a_bf16_step_casts_what_cudas_autocast_casts(name):
    expected = dispatched_step(ARCHITECTURES[name], precision="bf16")
    operators = training_operators(ARCHITECTURES[name], BATCH_SIZE, precision="bf16")
    full = training_operators(ARCHITECTURES[name], BATCH_SIZE)
    assert sum(one.flops for one in operators) == sum(one.flops for one in full)
    assert by_name(operators, "calls") == expected.calls
    moved = by_name(operators, "bytes")
    for cast_or_loss in ("_to_copy", "_log_softmax", "_log_softmax_backward_data", "relu", "cat"):
        assert moved[cast_or_loss] == expected.bytes[cast_or_loss], cast_or_loss


@pytest.mark.parametrize("optimizer", Optimizer)
def test_an_optimizer_calls_what_torchs_foreach_implementation_dispatches(optimizer):
    counts = dispatched_step(architecture("nin_28"), optimizer)
    step = [
        operator
        for operator in training_operators(architecture("nin_28"), BATCH_SIZE, optimizer)
        if operator.phase is Phase.STEP
    ]
    parameter_tensors = len(list(build("nin_28", device="meta").parameters()))
    counts_steps = any(call.moved_lists == 0 for call in OPTIMIZERS[optimizer].calls)
    host_side = {"_foreach_add_": 4 + 8 * parameter_tensors} if counts_steps else {}
    for name, calls in by_name(step, "calls").items():
        assert counts.calls[name] == calls
        assert counts.bytes[name] == by_name(step, "bytes")[name] + host_side.get(name, 0)


@settings(max_examples=25)
@given(network=architectures(), batch_size=st.integers(1, 64))
def test_inference_is_what_training_computes_forward_without_dropout(network, batch_size):
    dropouts = {"native_dropout", "zeros", "mul"}  # the last two where everything is dropped
    forward = [
        operator
        for operator in training_operators(network, batch_size)
        if operator.phase is Phase.FORWARD
        and operator.name not in {*dropouts, "add_"}  # add_ counts the batches seen
    ]
    assert list(inference_operators(network, batch_size)) == forward


@settings(max_examples=25)
@given(network=architectures(), batch_size=st.integers(1, 64), factor=st.integers(2, 5))
def test_a_larger_batch_never_lowers_the_bound_nor_costs_more_than_its_share(
    network, batch_size, factor
):
    small, large = (
        time_bound(training_operators(network, size), device("h100"), "tf32").seconds
        for size in (batch_size, factor * batch_size)
    )
    rounding = 1 + 1e-12  # sums of floats
    assert small <= large * rounding
    assert large <= factor * small * rounding


@settings(max_examples=25)
@given(network=architectures(), batch_size=st.integers(1, 64))
def test_the_bound_lies_between_its_parts_and_their_sum(network, batch_size):
    gpu = device("a100")
    bound = time_bound(training_operators(network, batch_size), gpu, "fp32")
    arithmetic, traffic = bound.flops / gpu.peak("fp32"), bound.bytes / gpu.bandwidth()
    rounding = 1 + 1e-12  # sums of floats
    assert max(arithmetic, traffic) <= bound.seconds * rounding
    assert bound.seconds <= (arithmetic + traffic) * rounding
    assert 0 <= bound.memory_bound_seconds <= bound.seconds * rounding


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_the_bound_of_a_step_is_that_of_its_operators_at_the_rate_of_their_precision(optimizer):
    network = architecture("nin")
    operators = training_operators(network, 8, optimizer, "bf16")
    bound = training_bound(network, 8, device("h100"), optimizer, "bf16")
    assert bound == time_bound(operators, device("h100"), "bf16")
    assert bound.seconds < time_bound(operators, device("h100"), "fp32").seconds


@pytest.mark.parametrize("name", [n for n, d in DEVICES.items() if "bf16" in d.flops_per_second])
def test_bf16_is_never_bound_later_than_fp32(name):
    for network in BOOK:
        fp32, bf16 = (
            time_bound(
                training_operators(ARCHITECTURES[network], 64, precision=precision),
                device(name),
                precision,
            ).seconds
            for precision in ("fp32", "bf16")
        )
        assert bf16 <= fp32


def steps(network, model, batch_sizes):
    """(operators, seconds) as a device would measure them that obeys the model."""
    rows = []
    for batch_size in batch_sizes:
        operators = training_operators(architecture(network), batch_size, precision=model.precision)
        rows.append((operators, model.seconds(operators)))
    return rows


@settings(max_examples=10, deadline=None)
@given(
    compute=st.floats(0.2, 0.95),
    bandwidth=st.floats(0.3, 0.95),
    per_call=st.floats(4e-6, 2e-5),
)
def test_the_fit_finds_the_constants_that_made_its_times(compute, bandwidth, per_call):
    truth = TimeModel(device("h100"), "tf32", compute, bandwidth, per_call)
    rows = steps("vgg11", truth, (16, 64, 256)) + steps("lenet", truth, (1, 16, 64))
    fitted = fit(rows, truth.device, "tf32")
    # The search stops at a relative step of 1e-4 in the ratio of the two efficiencies.
    assert fitted.compute_efficiency == pytest.approx(compute, rel=1e-3)
    assert fitted.bandwidth_efficiency == pytest.approx(bandwidth, rel=1e-3)
    assert fitted.seconds_per_call == pytest.approx(per_call, rel=1e-3)


@pytest.mark.parametrize("noise", [1.0, 1.05])
def test_steps_that_all_wait_for_the_device_do_not_tell_the_time_of_a_call(noise):
    truth = TimeModel(device("h100"), "tf32", 0.5, 0.5, 1e-6)
    (operators, seconds), *others = steps("vgg11", truth, (16, 32, 64, 128, 256))
    rows = [(operators, noise * seconds), *others]  # a single slow step is not the host's doing
    with pytest.raises(NinlabError, match="no two of the measured steps wait for the host"):
        fit(rows, truth.device, "tf32")


def test_a_prediction_is_never_below_the_bound():
    model = TimeModel(device("h100"), "fp32", 0.9, 0.7, 1e-5)
    for network in BOOK:
        operators = training_operators(ARCHITECTURES[network], 16)
        assert model.seconds(operators) >= time_bound(operators, model.device, "fp32").seconds


def test_steps_that_beat_the_data_sheet_are_refused():
    truth = TimeModel(device("h100"), "tf32", 1.0, 1.0, 1e-6)
    rows = [(ops, seconds / 2) for ops, seconds in steps("vgg11", truth, (16, 32, 64, 128))]
    with pytest.raises(NinlabError, match="is below its bound"):
        fit(rows, truth.device, "tf32")


def test_three_steps_do_not_check_three_constants():
    truth = TimeModel(device("h100"), "tf32", 0.5, 0.5, 1e-5)
    with pytest.raises(NinlabError, match="four measured steps or more, not 3"):
        fit(steps("vgg11", truth, (1, 64, 256)), truth.device, "tf32")


def test_unknown_names_are_answered_with_the_known_ones():
    nin = architecture("nin")
    with pytest.raises(UnknownNameError, match="optimizer 'lion'; known: sgd, momentum, adam"):
        training_operators(nin, 1, "lion")
    with pytest.raises(UnknownNameError, match=r"precision 'fp16'.*known: fp32, tf32, bf16"):
        training_operators(nin, 1, precision="fp16")
    with pytest.raises(NinlabError, match="batch size 0"):
        training_operators(nin, 0)
