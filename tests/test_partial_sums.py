"""What the kernels of joined layers take on a GPU beside their tensors."""

from dataclasses import replace
from functools import cache

import pytest
import torch
from torch import nn

from ninlab import resources
from ninlab.fused import reference, tiles
from ninlab.reports import Category, Phase
from ninlab.resources import joined, load, profile, trace_step, with_scratch
from ninlab.resources.temporaries import Temporary, course
from ninlab.steps import Kernels
from ninlab.torch_private import DispatchMode, storage_key
from ninlab.workspaces import Workspaces

TABLES = replace(Workspaces.load("h100"), ask=lambda *call: 0)  # whatever no table holds
BATCH_SIZE = 128
SUMMING = ("relu_bias_backward", "bias_relu_max_pool_backward", "chain_backward")


@cache
def events_of(kernels, precision="bf16"):
    step = trace_step(joined(load("nin_28"), kernels), BATCH_SIZE, autocast=precision == "bf16")
    scratch = with_scratch(step, TABLES, precision)
    return None if scratch is None else scratch[0]


@pytest.mark.parametrize("kernels", [Kernels.FUSED, Kernels.CHAINED])
@pytest.mark.parametrize("operator", SUMMING)
def test_partial_sums_lie_from_behind_the_first_result_until_the_last_is_made(kernels, operator):
    calls: dict[str, list] = {}
    for event in events_of(kernels):
        if event.operator == operator and event.category is not Category.TEMPORARY:
            calls.setdefault(event.layer, []).append(event)
    assert calls or (operator == "chain_backward" and kernels is Kernels.FUSED)
    for events in calls.values():
        own = [event for event in events if event.allocates]
        first, partial, *others = own
        assert first.category is Category.ACTIVATION
        assert partial.category is Category.WORKSPACE
        assert others
        released = next(e for e in events if not e.allocates and e.block == partial.block)
        assert events.index(released) > events.index(others[-1])


def test_a_bias_has_a_partial_sum_for_each_program_and_channel():
    sizes = {
        event.layer: event.constant_bytes
        for event in events_of(Kernels.FUSED)
        if event.category is Category.WORKSPACE
        and event.allocates
        and event.operator == "relu_bias_backward"
    }
    pixels, channels = BATCH_SIZE * 14**2, 16  # of the first block's maps
    assert sizes["block1.conv1"] == tiles.partial_bytes(pixels, channels)
    assert sizes["block1.conv1"] == 4 * channels * tiles.summing_programs(pixels, channels)


def test_of_a_chain_in_float32_nobody_knows_the_scratch():
    assert events_of(Kernels.CHAINED, "fp32") is None
    cost = profile("nin_28", precision="fp32", kernels=Kernels.CHAINED, device="h100")
    assert cost.training.tensor_peak_bytes is not None
    assert cost.training.allocated_peak_bytes is None
    assert set(cost.unsupported_operators) == {"ninlab::chain", "ninlab::chain_backward"}


@pytest.mark.parametrize("window", [tiles.WIDEST_WINDOW, tiles.WIDEST_WINDOW + 1])
def test_of_a_pool_without_a_kernel_nobody_knows_the_scratch(window):
    network = nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.ReLU(), nn.MaxPool2d(window), nn.Flatten(), nn.Linear(8, 3)
    )
    cost = profile(network, (1, window + 2, window + 2), kernels=Kernels.FUSED)
    pool = "ninlab::bias_relu_max_pool"
    unknown = {pool, f"{pool}_backward"} if window > tiles.WIDEST_WINDOW else set()
    assert set(cost.unsupported_operators) == unknown


@pytest.mark.parametrize(
    ("kernels", "precision"), [("fused", "fp32"), ("fused", "bf16"), ("chained", "bf16")]
)
def test_all_peaks_of_joined_layers_are_known_on_an_h100(monkeypatch, kernels, precision):
    monkeypatch.setattr(resources, "answering", lambda tables: replace(tables, ask=TABLES.ask))
    cost = profile(
        "nin", batch_size=BATCH_SIZE, precision=precision, kernels=kernels, device="h100"
    )
    assert cost.unsupported_operators == {}
    for report in (cost.training, cost.inference):
        peaks = [
            *(report.tensor_peak_bytes, report.requested_peak_bytes),
            *(report.allocated_peak_bytes, report.reserved_peak_bytes),
        ]
        assert peaks == sorted(peaks)


def test_a_product_with_an_epilogue_takes_what_addmm_takes():
    tables = Workspaces.load("h100", torch="2.11")
    for phase in (Phase.FORWARD, Phase.BACKWARD):
        assert tables.gemm("_addmm_activation", phase) == tables.gemm("addmm", phase)
        assert tables.gemm("_addmm_activation", phase) != tables.gemm("mm", phase)


# ---------------------------------------------------------------- inside of folding


class Made(DispatchMode):
    """The sizes of all storages that operators make, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.storages: dict[int, torch.UntypedStorage] = {}  # held, so that none is made twice

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if not func.is_view:
            storage = result.untyped_storage()
            self.storages.setdefault(storage_key(storage), storage)
        return result


def sizes_by_rule(operator, args, result) -> list[int]:
    made = dict.fromkeys(course(operator, args, result))
    size = result.untyped_storage().nbytes()
    return [step.bytes if isinstance(step, Temporary) else size for step in made]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("side", "before", "folded"), [(12, 0, 12), (11, 0, 12), (11, 2, 16)])
def test_folding_makes_what_its_rule_says(channels, side, before, folded):
    maps = torch.empty(2, channels, side, side, device="meta")
    maps = maps.contiguous(memory_format=torch.channels_last)
    both = (
        ("fold", (maps, 4, before, folded, folded)),
        ("fold_backward", (reference.fold(maps, 4, before, folded, folded), 4, before, side, side)),
    )
    for name, args in both:
        with Made() as made:
            result = getattr(reference, name)(*args)
        given = storage_key(args[0].untyped_storage())
        sizes = [each.nbytes() for key, each in made.storages.items() if key != given]
        operator = getattr(torch.ops.ninlab, name).default
        assert sizes == sizes_by_rule(operator, args, result)
