"""What is predicted of a measured case, where no record holds it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from ninlab.errors import NinlabError
from ninlab.measurement import MODES, Allocator, Case, load_records, measure_in_process
from ninlab.predictions import predicted_now, predicted_peaks, tensor_peak_on_cpu
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


def test_a_step_is_shown_with_the_peaks_that_are_predicted_now_and_its_record_stays() -> None:
    (step,) = (
        step
        for step in load_records(runs_folder())
        if step.case.slug == "nin-b128-tf32-inference" and step.allocator is Allocator.DEFAULT
    )
    then = dict(step.predicted)
    now = predicted_now(step)
    peaks = predicted_peaks(
        step.case, step.allocator, step.device, torch_version=step.software.torch
    )
    assert now.predicted == {"bound_seconds": then["bound_seconds"], **peaks}
    assert now.predicted["requested_peak_bytes"] < then["requested_peak_bytes"]
    assert step.predicted == then
    assert replace(now, predicted=then) == step


def test_a_peak_that_is_predicted_no_more_is_not_shown() -> None:
    (step, *_) = load_records(runs_folder())
    unknown = replace(step, device=replace(step.device, name="a GPU that nobody described"))
    assert "reserved_peak_bytes" in unknown.predicted
    assert "reserved_peak_bytes" not in predicted_now(unknown).predicted


def test_an_expandable_step_is_predicted_with_expandable_segments() -> None:
    """All own peaks of such segments but GoogLeNet's were predicted to the byte on an H100."""
    steps = [
        predicted_now(step)
        for step in load_records(runs_folder())
        if step.allocator is Allocator.EXPANDABLE_SEGMENTS and step.case.network != "googlenet"
    ]
    assert len(steps) > 1
    for step in steps:
        assert step.predicted["reserved_peak_bytes"] == step.measured.reserved_peak_bytes
