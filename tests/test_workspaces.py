import json
from dataclasses import replace
from functools import cache

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from ninlab.architectures import ARCHITECTURES, Architecture
from ninlab.cudnn import Oracle, installed
from ninlab.devices import DEVICES
from ninlab.errors import NinlabError, UnknownNameError
from ninlab.layers import Conv, Flatten, GlobalAvgPool
from ninlab.measurement import load_records
from ninlab.networks import build
from ninlab.records import runs_folder
from ninlab.reports import Phase
from ninlab.resources import profile
from ninlab.steps import Precision
from ninlab.workspaces import (
    CUBLAS_RULES,
    MEMORY_FORMATS,
    ConvCall,
    ConvScratch,
    Direction,
    Source,
    Workspaces,
    available,
    has_table,
)
from tests.book import ROOT
from tools import cudnn_workspaces

BATCH_SIZES = (1, 16, 32, 64, 128, 256)
PRINTED = sorted(
    {record.case.network for record in load_records(runs_folder()) if record.device.slug != "cpu"}
)
"""The networks that a GPU was measured with: the book prints what they should take there."""
TABLES = ROOT / "ninlab" / "tables"
NIN_STEM = ConvCall((1, 224, 224), (96, 1, 11, 11), (4, 4))


@pytest.fixture(params=available(), ids=lambda name: name.file)
def table(request):
    return Workspaces.load(request.param.device, cudnn=request.param.cudnn)


@cache
def convolutions_of(name):
    """(call, needs an input gradient) of every convolution that the module runs on meta."""
    calls = []

    def record(conv, inputs, _):
        (images,) = inputs
        call = ConvCall(
            tuple(images.shape[1:]),
            tuple(conv.weight.shape),
            conv.stride,
            conv.padding,
            conv.dilation,
            conv.groups,
        )
        calls.append((call, images.requires_grad))

    network = build(name, device="meta")
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(record)
    # two, because batch normalization needs two values of a map, which may be one pixel
    network(torch.empty(2, *ARCHITECTURES[name].input_shape, device="meta"))
    return calls


@pytest.mark.parametrize("name", PRINTED)
def test_every_convolution_of_a_network_that_the_book_prints_for_a_gpu_has_its_workspaces(
    table, name
):
    for call, needs_input_gradient in convolutions_of(name):
        directions = set(Direction) - (
            set() if needs_input_gradient else {Direction.INPUT_GRADIENT}
        )
        sizes = [
            table.convolution_bytes(call, direction, batch_size, *mode.split())
            for direction in directions
            for batch_size in BATCH_SIZES
            for mode in table.modes
        ]
        assert all(isinstance(size, int) and size >= 0 for size in sizes), (
            f"{table.device} with cuDNN {table.cudnn} does not know {call.key} of {name}; "
            "make its table again with tools/cudnn_workspaces.py"
        )


def test_a_network_that_is_in_no_table_has_its_tensors_counted_and_no_scratch(table, monkeypatch):
    layers = Conv(6, 9, stride=3, padding=5), Conv(7, 6), GlobalAvgPool(), Flatten()
    strange = Architecture("strange", "Strange", (3, 41, 43), 7, layers, source="a test")
    monkeypatch.setitem(ARCHITECTURES, strange.name, strange)
    monkeypatch.setattr("ninlab.resources.answering", lambda tables: tables)  # no cuDNN is here
    cost = profile("strange", device=table.device, torch_version=table.torch)
    for report in (cost.training, cost.inference):
        assert report.tensor_peak_bytes > 0
        assert report.requested_peak_bytes is None
        assert report.allocated_peak_bytes is None


def test_every_gpu_that_cudnn_is_told_of_has_a_table_for_the_oldest_torch_and_for_the_newest():
    described = [name for name, sheet in DEVICES.items() if sheet.described]
    assert {"h100", "a100", "t4"} <= set(described)
    assert {(name.device, name.torch) for name in available()} == {
        (gpu, torch_version) for gpu in described for torch_version in ("2.11.0", "2.15.0")
    }


def test_a_table_that_a_data_sheet_made_was_made_from_that_of_its_device():
    for name in available():
        head = json.loads((TABLES / name.file).read_text())
        if head["device_properties_source"] == cudnn_workspaces.DATA_SHEET:
            assert head["device_properties"] == DEVICES[name.device].described


def test_a_call_is_told_by_its_key(table):
    for key in table.rows:
        assert ConvCall.of(key).key == key


def test_what_a_table_holds_no_answer_for_is_asked_of_somebody_else():
    nobody = [[None] * 9] * 6
    asked = (NIN_STEM, Direction.FORWARD, 64, "tf32")
    table = replace(Workspaces.load("h100"), rows={NIN_STEM.key: {Direction.FORWARD: nobody}})
    assert table.convolution_bytes(*asked) is None
    assert replace(table, ask=lambda *_: 7).convolution_bytes(*asked) == 7


def test_tables_come_by_device_and_by_the_age_of_their_cudnn():
    keys = [(name.device, [int(part) for part in name.cudnn.split(".")]) for name in available()]
    assert keys == sorted(keys)


@pytest.mark.parametrize(
    ("call", "batch_size", "precision"),
    [
        (NIN_STEM, 7, "fp32"),
        (ConvCall((1, 224, 224), (97, 1, 11, 11), (4, 4)), 16, "fp32"),
    ],
    ids=["batch size", "call"],
)
def test_what_a_table_does_not_hold_is_none_and_never_zero(call, batch_size, precision):
    for name in available():
        table = Workspaces.load(name.device, cudnn=name.cudnn)
        assert table.convolution_bytes(call, Direction.FORWARD, batch_size, precision) is None


@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16"])
def test_a_rule_answers_for_1x1_windows_that_nobody_was_asked_about_and_says_so(precision):
    table = Workspaces.load("h100")
    of_nobody = ConvCall((33, 7, 9), (41, 33, 1, 1))
    scratch = table.convolution(of_nobody, Direction.WEIGHT_GRADIENT, 5, precision)
    if precision == "fp32":  # in which nobody has seen it
        assert scratch is None
    else:
        assert scratch == ConvScratch(5 * 41 * 33 * 4, Source.RULE)


@pytest.mark.parametrize(
    "change",
    [
        {"stride": (2, 2)},
        {"padding": (1, 1)},
        {"groups": 3},
        {"input_shape": (33, 1, 1)},
        {"weight_shape": (41, 33, 1, 2)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_no_other_convolution_is_a_product_of_matrices(change):
    product = ConvCall((33, 7, 9), (41, 33, 1, 1))
    assert product.is_product
    assert not replace(product, **change).is_product


def test_depthwise_convolutions_in_bf16_are_atens_in_the_versions_that_were_looked_up():
    separable = ConvCall((32, 28, 28), (32, 1, 3, 3), padding=(1, 1), groups=32)
    asked = (separable, Direction.FORWARD, 8, "bf16")
    assert Workspaces.load("h100", torch="2.11").convolution(*asked).source is Source.OWN_KERNEL
    assert Workspaces.load("h100", torch="2.15").convolution(*asked) is None


def test_what_a_device_took_in_atens_depthwise_kernel_is_believed():
    separable = ConvCall((32, 28, 28), (32, 1, 3, 3), padding=(1, 1), groups=32)
    table = Workspaces.load("h100", torch="2.11")
    sizes = [[1000] * len(table.batch_sizes)] * len(table.modes)
    rows = {separable.key: {Direction.FORWARD: sizes}}
    asked = (separable, Direction.FORWARD, 8, "tf32")
    assert replace(table, rows=rows).convolution(*asked).bytes == 0
    of_device = replace(table, rows=rows, source=Source.DEVICE)
    assert of_device.convolution(*asked) == ConvScratch(1000, Source.DEVICE)


def test_no_input_gradient_is_tabled_for_the_convolution_that_reads_the_images():
    table = Workspaces.load("h100")
    assert table.convolution_bytes(NIN_STEM, Direction.WEIGHT_GRADIENT, 16) is not None
    assert table.convolution_bytes(NIN_STEM, Direction.INPUT_GRADIENT, 16) is None


def test_bf16_convolutions_of_a_device_before_ampere_are_not_cudnns():
    assert Workspaces.load("t4").convolution_bytes(NIN_STEM, Direction.FORWARD, 16, "bf16") is None
    assert (
        Workspaces.load("h100").convolution_bytes(NIN_STEM, Direction.FORWARD, 16, "bf16")
        is not None
    )


def test_tf32_changes_nothing_on_a_device_that_has_no_tf32():
    table = Workspaces.load("t4")
    fp32, tf32 = (
        [
            modes[table.modes.index(f"{precision} {memory_format}")]
            for row in table.rows.values()
            for modes in row.values()
            for memory_format in MEMORY_FORMATS
        ]
        for precision in ("fp32", "tf32")
    )
    assert fp32 == tf32


def test_the_newest_cudnn_answers_unless_a_version_is_named():
    assert Workspaces.load("h100").torch == "2.15.0"
    assert Workspaces.load("h100", torch="2.11").cudnn == "9.19.0.56"
    assert Workspaces.load("h100", cudnn="9.19").torch == "2.11.0"
    with pytest.raises(UnknownNameError, match=r"'2\.1'.*known: 2\.11\.0, 2\.15\.0"):
        Workspaces.load("h100", torch="2.1")  # no version of the line 2.1, whatever it begins with


def test_a_table_is_found_whatever_the_build_of_torch():
    assert has_table("h100", "2.11.0+cu130")
    assert not has_table("h100", "2.1.0")
    assert not has_table("phone_8gb", "2.11.0")


def test_names_that_do_not_exist_are_answered_with_those_that_do():
    with pytest.raises(UnknownNameError, match=r"'a10'.*known: a100, h100, h200, l4, t4"):
        Workspaces.load("a10")
    table = Workspaces.load("h100")
    with pytest.raises(UnknownNameError, match="known: fp32, tf32, bf16"):
        table.convolution_bytes(NIN_STEM, Direction.FORWARD, 16, "fp16")
    with pytest.raises(UnknownNameError, match="known: contiguous, channels_last"):
        table.convolution_bytes(NIN_STEM, Direction.FORWARD, 16, "fp32", "nhwc")


@st.composite
def conv_calls(draw):
    groups = draw(st.integers(1, 3))
    pair = lambda low, high: draw(st.tuples(*[st.integers(low, high)] * 2))  # noqa: E731
    dilation, window = pair(1, 2), pair(1, 4)
    reach = [step * (extent - 1) + 1 for step, extent in zip(dilation, window, strict=True)]
    height, width = (draw(st.integers(size, size + 12)) for size in reach)
    in_channels = draw(st.integers(1, 4))
    return ConvCall(
        (groups * in_channels, height, width),
        (groups * draw(st.integers(1, 4)), in_channels, *window),
        pair(1, 3),
        pair(0, 2),
        dilation,
        groups,
    )


@given(call=conv_calls())
def test_a_calls_output_shape_is_torchs(call):
    output = nn.functional.conv2d(
        torch.empty(1, *call.input_shape, device="meta"),
        torch.empty(call.weight_shape, device="meta"),
        stride=call.stride,
        padding=call.padding,
        dilation=call.dilation,
        groups=call.groups,
    )
    assert call.output_shape == tuple(output.shape[1:])


@given(one=conv_calls(), other=conv_calls())
def test_two_calls_share_a_key_only_when_they_are_the_same(one, other):
    assert (one.key == other.key) == (one == other)


@pytest.mark.parametrize("rule", CUBLAS_RULES.values(), ids=CUBLAS_RULES)
def test_cublas_takes_its_own_default_size_before_hopper_and_32_mib_on_it(rule):
    # 8,519,680 bytes is what users of torch 2.0 to 2.10 report for the first matrix product.
    for before_hopper in (70, 75, 80, 86, 89):
        assert rule.gemm("mm", Phase.BACKWARD, before_hopper)[0].bytes == 8_519_680
    assert rule.gemm("mm", Phase.BACKWARD, 90)[0].bytes == 32 * 2**20


@pytest.mark.parametrize("blackwell", [100, 103, 110, 120, 121])
def test_blackwell_takes_32_mib_since_a_torch_after_2_11(blackwell):
    sizes = {
        version: rule.gemm("mm", Phase.BACKWARD, blackwell)[0].bytes
        for version, rule in CUBLAS_RULES.items()
    }
    assert sizes == {"2.11": 8_519_680, "2.15": 32 * 2**20}


@pytest.mark.parametrize("capability", [0, 9, 95, 130])
def test_a_compute_capability_that_nobody_looked_up_is_refused(capability):
    for rule in CUBLAS_RULES.values():
        with pytest.raises(NinlabError, match=rf"capability {capability} is not known.*90, 100"):
            rule.gemm("mm", Phase.FORWARD, capability)


def test_kept_cublas_workspaces_belong_to_the_thread_and_the_others_to_nobody():
    kept, freed = Workspaces.load("h100", torch="2.11"), Workspaces.load("h100", torch="2.15")
    forward, backward = kept.gemm("addmm", Phase.FORWARD), kept.gemm("mm", Phase.BACKWARD)
    assert {block.owner for block in forward}.isdisjoint(block.owner for block in backward)
    assert sum(block.bytes for block in (*forward, *backward)) == 65 * 2**20
    for operator in ("addmm", "mm"):
        assert [block.owner for block in freed.gemm(operator, Phase.BACKWARD)] == [None]


def test_operators_that_are_no_matrix_products_ask_cublas_for_nothing():
    assert Workspaces.load("h100").gemm("convolution", Phase.FORWARD) == ()


def test_a_table_says_where_it_comes_from(table):
    name = next(n for n in available() if (n.device, n.cudnn) == (table.device, table.cudnn))
    head = json.loads((TABLES / name.file).read_text(encoding="utf-8"))
    assert head["command"].startswith("python tools/cudnn_workspaces.py --device")
    assert head["generated"]
    assert head["device_properties_source"]
    assert table.source == head["source"]
    assert table.source in (Source.DEVICE, Source.DESCRIBED)
    assert (head["cudnn"], head["torch"], head["device"]) == (name.cudnn, name.torch, name.device)


def test_the_tool_asks_for_the_same_convolutions_as_the_modules_run():
    for name, architecture in ARCHITECTURES.items():
        asked = set(cudnn_workspaces.convolutions(architecture))
        ran = {
            (call, direction)
            for call, needs_input_gradient in convolutions_of(name)
            for direction in Direction
            if needs_input_gradient or direction is not Direction.INPUT_GRADIENT
        }
        assert asked == ran


def test_the_cudnn_of_this_environment_still_answers_what_the_tables_say():
    if torch.version.cuda is None:
        pytest.skip("a CPU build of torch brings no cuDNN")
    cudnn = installed()
    names = [name for name in available() if name.cudnn == cudnn.version]
    if not names:
        pytest.skip(f"no table was made with cuDNN {cudnn.version}")
    for name in names:
        table = Workspaces.load(name.device, cudnn=name.cudnn)
        if table.source == cudnn_workspaces.DEVICE:
            continue  # what a device says is another matter
        oracle = Oracle(cudnn, DEVICES[name.device].described)
        for call, direction in cudnn_workspaces.convolutions(ARCHITECTURES["nin"]):
            for mode in table.modes:
                assert table.convolution_bytes(
                    call, direction, 64, *mode.split()
                ) == oracle.workspace_bytes(call, direction, 64, mode)


def test_the_precisions_and_formats_of_the_tables_are_those_that_can_be_asked_for(table):
    assert set(table.modes) <= {f"{p} {m}" for p in Precision for m in MEMORY_FORMATS}
