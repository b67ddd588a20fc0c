"""On a GPU: the predicted peaks are those of the caching allocator."""

import gzip
import json

import pytest
import torch

from ninlab.allocator import MIN_BLOCK_BYTES
from ninlab.architectures import ARCHITECTURES
from ninlab.cudnn import device_properties
from ninlab.devices import of_cuda_name
from ninlab.environment import describe_device
from ninlab.measurement import (
    PEAKS,
    Allocator,
    Case,
    CaseOutcome,
    Failed,
    from_start_path,
    measure_in_process,
)
from ninlab.predictions import predicted_peaks
from ninlab.workspaces import ConvCall, Direction, has_table
from tools import ask_cudnn

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

NETWORKS = ("lenet", "nin", "alexnet", "vgg11", "googlenet")
CASES = [
    Case(name, ARCHITECTURES[name].input_shape, batch_size, precision, mode)
    for name in NETWORKS
    for batch_size in (16, 128)
    for precision in ("tf32", "bf16")
    for mode in ("inference", "sgd", "adam")
]
CUDA = torch.device("cuda", 0)


@pytest.fixture(scope="module")
def measured():
    """{allocator: [(case, measured, predicted peaks)]} of every case, measured once."""
    device = describe_device(CUDA)
    rows = {}
    for setting in (Allocator.DEFAULT, Allocator.EXPANDABLE_SEGMENTS):
        results = list(measure_in_process(CASES, CUDA, setting, timed_steps=2))
        failed = [result for result in results if isinstance(result, Failed)]
        assert not failed, setting
        rows[setting] = [
            (case, result, predicted_peaks(case, setting, device))
            for case, result in zip(CASES, results, strict=True)
            if result.outcome is CaseOutcome.FINISHED
        ]
    return rows


def test_tensors_without_scratch_are_predicted_within_a_thousandth(measured):
    for case, result, predicted in measured[Allocator.EXPANDABLE_SEGMENTS]:
        # Global buffers of sums and means are scratch that no table holds: under 64 KiB.
        tolerance = max(0.001 * result.tensor_peak_bytes, 64 * 2**10)
        error = predicted["tensor_peak_bytes"] - result.tensor_peak_bytes
        assert abs(error) <= tolerance, case


def test_peaks_of_every_network_but_lenet_are_predicted_within_a_hundredth(measured):
    device = of_cuda_name(torch.cuda.get_device_name(CUDA))
    if device is None or not has_table(device.name, torch.__version__):
        pytest.skip("no workspace table is of this device and this torch")
    for rows in measured.values():
        for case, result, predicted in rows:
            if case.network == "lenet":  # scratch is 30 to 100 times its tensors
                continue
            for peak in ("requested_peak_bytes", "allocated_peak_bytes"):
                assert predicted[peak] == pytest.approx(getattr(result, peak), rel=0.01), case


def test_requested_is_at_most_allocated_and_that_at_most_reserved(measured):
    for rows in measured.values():
        for _, result, _ in rows:
            peaks = (
                result.tensor_peak_bytes,
                result.requested_peak_bytes,
                result.allocated_peak_bytes,
                result.reserved_peak_bytes,
            )
            assert list(peaks) == sorted(peaks)


def test_expandable_segments_allocate_hardly_more_than_was_requested(measured):
    for case, result, _ in measured[Allocator.EXPANDABLE_SEGMENTS]:
        live_blocks = 2000  # more than any step of these networks holds at once
        surplus = result.allocated_peak_bytes - result.requested_peak_bytes
        assert surplus <= live_blocks * MIN_BLOCK_BYTES, case


def test_asking_for_events_changes_no_peak_and_their_second_step_has_the_measured_one(tmp_path):
    cases = CASES[:12]
    plain, traced = (
        list(measure_in_process(cases, CUDA, Allocator.DEFAULT, timed_steps=2, events_folder=at))
        for at in (None, tmp_path)
    )
    for case, without, measured in zip(cases, plain, traced, strict=True):
        for peak in PEAKS.values():
            assert getattr(measured, peak) == getattr(without, peak), case
        file = from_start_path(tmp_path / f"{case.slug}.json.gz")
        trace = json.loads(gzip.decompress(file.read_bytes()))
        alive = [trace["bytes_before"]]
        for allocates, _, size, _ in trace["events"]:
            alive.append(alive[-1] + (size if allocates else -size))
        assert max(alive[trace["step_begins"][1] :]) == measured.requested_peak_bytes, case


def test_a_devices_own_description_agrees_with_the_table_made_without_it():
    device = of_cuda_name(torch.cuda.get_device_name(CUDA))
    if device is None:
        pytest.skip("this device is not described")
    properties = device_properties(CUDA.index or 0)
    major, minor = torch.cuda.get_device_capability(CUDA)
    assert properties["deviceVer"] == 100 * major + 10 * minor
    assert properties["totalGlobalMem"] == pytest.approx(device.memory_bytes, rel=0.1)


@pytest.mark.parametrize("direction", Direction)
@pytest.mark.parametrize("window", [1, 3])
def test_cudnn_says_with_a_handle_what_a_call_takes_under_aten(direction, window):
    answerers = ask_cudnn.here(CUDA).answerers
    call = ConvCall((96, 54, 54), (96, 96, window, window), padding=(window // 2, window // 2))
    for mode in ask_cudnn.WANTED:
        _, said = answerers[ask_cudnn.DEVICE](call, direction, 16, mode)
        assert [None, said] == answerers[ask_cudnn.ATEN](call, direction, 16, mode)


def test_results_of_depthwise_convolutions_are_tensors_and_no_scratch():
    models = pytest.importorskip("torchvision.models")
    case = Case("mobilenet_v2", (3, 224, 224), 8, "tf32", "sgd")
    (result,) = measure_in_process(
        [case], CUDA, Allocator.DEFAULT, timed_steps=0, factories="torchvision.models"
    )
    assert not isinstance(result, Failed), result
    predicted = predicted_peaks(
        case, Allocator.DEFAULT, describe_device(CUDA), network=models.mobilenet_v2()
    )
    assert result.tensor_peak_bytes == predicted["tensor_peak_bytes"]
