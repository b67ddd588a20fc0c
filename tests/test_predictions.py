"""What is predicted of a measured case, where no record holds it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from ninlab.errors import NinlabError
from ninlab.measurement import MODES, Allocator, Case, load_records, measure_in_process
from ninlab.predictions import predicted_peaks, scratch_call, tensor_peak_on_cpu
from ninlab.records import runs_folder


def test_the_tensors_of_a_step_on_a_cpu_are_those_that_are_predicted_for_one() -> None:
    """AlexNet's dropout and Adam's counters are what a CPU allocates in its own way."""
    cases = [Case("alexnet_28", (1, 28, 28), 3, mode=mode) for mode in MODES[:4]]
    answers = measure_in_process(cases, torch.device("cpu"), Allocator.CPU, timed_steps=0)
    for case, answer in zip(cases, answers, strict=True):
        off = answer.tensor_peak_bytes - tensor_peak_on_cpu(case)
        assert 0 <= off <= 8, case  # one scalar of Adam's may be wrapped as a tensor


def test_a_step_on_a_cpu_is_predicted_in_float32_only() -> None:
    with pytest.raises(NinlabError, match="not in bf16"):
        tensor_peak_on_cpu(Case("nin_28", (1, 28, 28), 3, "bf16"))


@pytest.mark.parametrize("precision", ["tf32", "bf16"])
@pytest.mark.parametrize("network", ["alexnet", "vgg11"])
def test_a_warm_prediction_reserves_what_an_h100_did_whose_products_came_late(network, precision):
    (step,) = (
        step
        for step in load_records(runs_folder())
        if step.case.slug == f"{network}-b128-{precision}-inference"
        and step.allocator is Allocator.DEFAULT
    )
    peaks = predicted_peaks(
        step.case, step.allocator, step.device, torch_version=step.software.torch
    )
    assert peaks["reserved_peak_bytes"] == step.measured.reserved_peak_bytes


def test_the_call_of_a_predicted_peak_is_known_while_the_tables_are_those_of_the_record() -> None:
    (step,) = (
        step
        for step in load_records(runs_folder())
        if step.case.slug == "nin-b128-tf32-inference" and step.allocator is Allocator.DEFAULT
    )
    call = scratch_call(step)
    assert call is not None
    requested = step.predicted["requested_peak_bytes"]
    assert call.scratch_bytes + call.other_bytes == requested
    assert call.most_taken(requested) == call.scratch_bytes
    mended = replace(step, predicted={"requested_peak_bytes": requested + 1})
    assert scratch_call(mended) is None
    other_torch = replace(step, software=replace(step.software, torch="1.0.0"))
    assert scratch_call(other_torch) is None
