"""An installed cuDNN answers as the tables do, and for what they do not hold."""

import ctypes
import json
from dataclasses import replace

import pytest
import torch
import torchvision
from torch import nn

from ninlab import cudnn
from ninlab.devices import DEVICES
from ninlab.resources import profile
from ninlab.workspaces import (
    ConvCall,
    ConvScratch,
    Direction,
    Source,
    Workspaces,
    available,
    has_table,
    product_bytes,
)

NIN_STEM = ConvCall((1, 224, 224), (96, 1, 11, 11), (4, 4))
SEPARABLE = ConvCall((32, 28, 28), (32, 1, 3, 3), padding=(1, 1), groups=32)
NO_ROOM = ConvCall((1, 4, 4), (1, 1, 9, 9))
SET = "cudnnBackendSetAttribute"


@pytest.fixture(params=sorted({name.device for name in available()}))
def tables(request):
    """The tables of a device that the cuDNN of this environment can add to."""
    if torch.version.cuda is None:
        pytest.skip("a CPU build of torch brings no cuDNN")
    if not has_table(request.param, torch.__version__):
        pytest.skip(f"no table was made with the cuDNN of torch {torch.__version__}")
    tables = Workspaces.load(request.param, torch=".".join(torch.__version__.split(".")[:2]))
    assert cudnn.installed().version == tables.cudnn
    return tables


@pytest.mark.parametrize("direction", [Direction.FORWARD, Direction.WEIGHT_GRADIENT])
def test_what_a_table_lacks_is_answered_as_it_would_have_been(tables, direction):
    emptied = cudnn.answering(replace(tables, rows={}))
    for mode in tables.modes:
        asked = (NIN_STEM, direction, 64, *mode.split())
        assert emptied.convolution_bytes(*asked) == tables.convolution_bytes(*asked)


def test_what_a_table_holds_is_not_asked_again(tables):
    def never(*asked):
        raise AssertionError(asked)

    telling = replace(cudnn.answering(tables), ask=never)
    assert telling.convolution_bytes(NIN_STEM, Direction.FORWARD, 64) is not None


def test_a_batch_between_those_of_the_table_has_a_workspace_too(tables):
    assert tables.convolution_bytes(NIN_STEM, Direction.FORWARD, 100) is None
    size = cudnn.answering(tables).convolution_bytes(NIN_STEM, Direction.FORWARD, 100)
    assert isinstance(size, int)
    assert size >= 0


def test_a_mode_that_the_device_gives_to_other_kernels_has_no_answer(tables):
    for mode in {"bf16 contiguous", "bf16 channels_last"}.difference(tables.modes):
        asked = (NIN_STEM, Direction.FORWARD, 100, *mode.split())
        assert cudnn.answering(tables).convolution_bytes(*asked) is None


def test_a_depthwise_convolution_runs_without_scratch_unless_its_layout_or_precision_asks_cudnn(
    tables,
):
    telling = cudnn.answering(tables)
    for direction in Direction:
        contiguous = telling.convolution(SEPARABLE, direction, 8, "fp32")
        assert contiguous == ConvScratch(0, Source.OWN_KERNEL)
        assert telling.convolution(SEPARABLE, direction, 8, "bf16") is None
        last = telling.convolution(SEPARABLE, direction, 8, "fp32", "channels_last")
        assert last.source is Source.DESCRIBED


def test_a_convolution_that_cannot_be_planned_has_no_answer(tables):
    assert cudnn.answering(tables).convolution_bytes(NO_ROOM, Direction.FORWARD, 8) is None


def test_another_version_of_cudnn_answers_under_a_name_of_its_own(tables):
    of_another = cudnn.answering(replace(tables, cudnn="9.8.0.0", rows={}))
    same = cudnn.answering(replace(tables, rows={}))
    asked = (NIN_STEM, Direction.FORWARD, 64, "tf32")
    assert of_another.convolution(*asked).source is Source.ANOTHER_CUDNN
    assert same.convolution(*asked).source is Source.DESCRIBED
    assert of_another.convolution_bytes(*asked) == same.convolution_bytes(*asked)


@pytest.mark.parametrize("precision", ["tf32", "bf16"])
def test_a_1x1_convolution_is_a_matrix_product_where_cudnn_ranks_that_first(precision):
    if torch.version.cuda is None:
        pytest.skip("a CPU build of torch brings no cuDNN")
    oracle = cudnn.Oracle(cudnn.installed(), DEVICES["h100"].described)
    channels, batch_size = 96, 128
    block1 = ConvCall((channels, 54, 54), (channels, channels, 1, 1))  # NiN's
    sizes = {
        direction: oracle.workspace_bytes(block1, direction, batch_size, f"{precision} contiguous")
        for direction in Direction
    }
    assert sizes == {
        Direction.FORWARD: 0,
        Direction.INPUT_GRADIENT: 0,
        Direction.WEIGHT_GRADIENT: batch_size * channels * channels * 4,
    }


def test_a_1x1_convolution_that_cudnn_ranks_otherwise_takes_the_first_plan_that_can_be_made():
    if torch.version.cuda is None:
        pytest.skip("a CPU build of torch brings no cuDNN")
    oracle = cudnn.Oracle(cudnn.installed(), DEVICES["h100"].described)
    few_pixels = ConvCall((832, 3, 3), (384, 832, 1, 1))  # of GoogLeNet's last block
    block3 = ConvCall((384, 12, 12), (384, 384, 1, 1))  # of NiN
    for call, direction, mode in (
        (few_pixels, Direction.INPUT_GRADIENT, "tf32 contiguous"),
        (block3, Direction.WEIGHT_GRADIENT, "bf16 contiguous"),
    ):
        size = oracle.workspace_bytes(call, direction, 128, mode)
        assert size > 0
        assert size != product_bytes(call, direction, 128)


def test_messages_of_cudnn_are_read_no_longer_than_they_are_asked_for():
    if torch.version.cuda is None:
        pytest.skip("a CPU build of torch brings no cuDNN")
    library = cudnn.installed()
    oracle = cudnn.Oracle(library, DEVICES["h100"].described)
    call = ConvCall((96, 54, 54), (96, 96, 1, 1))
    with library.refusals() as refused:
        pass
    oracle.workspace_bytes(call, Direction.FORWARD, 128, "fp32 contiguous")
    assert refused == []


def test_on_a_device_the_graph_and_each_plan_have_the_handle_and_nothing_is_described(
    tables, monkeypatch
):
    """Where a handle is set, this machine describes a device instead, and answers as for it."""
    given, call = [], cudnn.Cudnn.call
    asked = (NIN_STEM, Direction.WEIGHT_GRADIENT, 8, tables.modes[0])
    oracle = cudnn.Oracle(cudnn.installed(), tables.device_properties)
    expected = list(oracle.plans(*asked))
    described = cudnn._device_descriptor(oracle.cudnn, json.dumps(tables.device_properties))

    def refer(library, descriptor, attribute):
        kind, count = ctypes.c_int(cudnn.Type.DESCRIPTOR), ctypes.c_int64(1)
        pointer = ctypes.byref(described.pointer)
        call(library, SET, descriptor, ctypes.c_int(attribute), kind, count, pointer)

    def call_without_a_gpu(library, name, *arguments):
        if name != SET:
            return call(library, name, *arguments)
        descriptor, attribute, kind, count, values = arguments
        if kind.value == cudnn.Type.HANDLE:
            given.append((attribute.value, count.value, list(values)))
            if attribute.value == cudnn.Attribute.PLAN_HANDLE:
                refer(library, descriptor, cudnn.Attribute.PLAN_DEVICE)
            return None
        if attribute.value == cudnn.Attribute.HEURISTICS_GRAPH:
            refer(library, descriptor, cudnn.Attribute.HEURISTICS_DEVICE)
        assert attribute.value not in (
            cudnn.Attribute.HEURISTICS_DEVICE,
            cudnn.Attribute.PLAN_DEVICE,
        )
        return call(library, name, *arguments)

    monkeypatch.setattr(cudnn.Cudnn, "call", call_without_a_gpu)
    on_device = cudnn.OnDevice(cudnn.installed(), ctypes.c_void_p(7))
    assert list(on_device.plans(*asked)) == expected
    assert given == [(800, 1, [7]), *[(400, 1, [7])] * len(expected)]


def test_the_plan_that_aten_runs_is_the_first_that_builds(tables):
    oracle = cudnn.Oracle(cudnn.installed(), tables.device_properties)
    asked = (ConvCall((96, 54, 54), (96, 96, 1, 1)), Direction.FORWARD, 128, tables.modes[0])
    plans = list(oracle.plans(*asked))
    built = [(plan.engine, plan.bytes) for plan in plans if plan.bytes is not None]
    assert oracle.first(*asked) == built[0]
    assert all((plan.bytes is None) == bool(plan.refusal) for plan in plans)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_there_is_no_handle():
    if cudnn.installed() is None:
        pytest.skip("a CPU build of torch brings no cuDNN")
    with pytest.raises(cudnn.CudnnError):
        cudnn.installed().handle()


class Net(nn.Module):
    """A network that is in no table: 1-d, grouped, depthwise and transposed convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.grouped = nn.Conv2d(8, 8, 3, padding=1, groups=2)
        self.separable = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.up = nn.ConvTranspose2d(8, 4, 3, stride=2, padding=1, output_padding=1)
        self.line = nn.Conv1d(4, 4, 5, padding=2)
        self.head = nn.Linear(4, 10)

    def forward(self, images):
        maps = self.up(self.separable(self.grouped(self.down(images)).relu()).relu()).relu()
        return self.head(self.line(maps.flatten(2)).relu().mean(2))


@pytest.mark.parametrize("precision", ["fp32", "tf32"])
def test_a_network_of_the_readers_own_has_all_four_peaks(tables, precision):
    cost = profile(
        Net(), (3, 32, 32), 12, "adam", precision, tables.device,
        torch_version=tables.torch,
    )  # fmt: skip
    for report in (cost.training, cost.inference):
        peaks = [
            report.tensor_peak_bytes,
            report.requested_peak_bytes,
            report.allocated_peak_bytes,
            report.reserved_peak_bytes,
        ]
        assert None not in peaks
        assert peaks == sorted(peaks)


@pytest.mark.parametrize(
    ("layer", "images"),
    [
        (nn.ConvTranspose2d(6, 4, 3, stride=2, padding=1, output_padding=1), (6, 5, 7)),
        (nn.ConvTranspose2d(6, 4, (2, 3), stride=(2, 3), dilation=(1, 2)), (6, 5, 7)),
        (nn.ConvTranspose1d(6, 4, 4, stride=2, padding=1), (6, 9)),
    ],
)
def test_a_transposed_convolution_is_the_gradient_of_one_that_reads_what_it_returns(layer, images):
    from ninlab.resources.recorder import _convolution  # the one place that translates it

    x = torch.randn(2, *images)
    flat = len(images) == 2
    arguments = (
        x, layer.weight, None, list(layer.stride), list(layer.padding), list(layer.dilation),
        True, list(layer.output_padding), 1,
    )  # fmt: skip
    call, directions = _convolution(torch.ops.aten.convolution.default, arguments)
    assert directions == (Direction.INPUT_GRADIENT,)
    returned = tuple(layer(x).shape[1:])
    assert call.input_shape == ((returned[0], 1, returned[1]) if flat else returned)
    assert call.output_shape == ((images[0], 1, images[1]) if flat else images)


def test_a_network_and_a_batch_that_no_table_knows_are_answered_under_another_torch(tables):
    """torch 2.11's peaks of one of torchvision's networks, whichever cuDNN is installed."""
    network = torchvision.models.get_model("squeezenet1_1", weights=None)
    cost = profile(
        network, (3, 224, 224), 20, precision="tf32", device=tables.device, torch_version="2.11"
    )
    assert None not in (cost.training.reserved_peak_bytes, cost.inference.reserved_peak_bytes)
    (source,) = cost.scratch_sources
    installed = cudnn.installed().version
    same = Workspaces.load(tables.device, torch="2.11").cudnn == installed
    assert source == (Source.DESCRIBED if same else Source.ANOTHER_CUDNN)
