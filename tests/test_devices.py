import pytest
from hypothesis import given
from hypothesis import strategies as st

from ninlab.devices import DEVICES, TERA, device, of_cuda_name
from ninlab.errors import NinlabError, UnknownNameError
from ninlab.steps import Precision
from ninlab.workspaces import available

devices = st.sampled_from(list(DEVICES.values()))


@given(one=devices, needed_bytes=st.integers(0, 10**12))
def test_what_fits_a_device_fits_every_larger_one(one, needed_bytes):
    larger = [other for other in DEVICES.values() if other.memory_bytes >= one.memory_bytes]
    if one.fits(needed_bytes):
        assert all(other.fits(needed_bytes) for other in larger)


@pytest.mark.parametrize("one", DEVICES.values(), ids=lambda one: one.name)
def test_a_device_holds_its_own_memory_and_not_a_byte_more(one):
    assert one.fits(one.memory_bytes)
    assert not one.fits(one.memory_bytes + 1)


@pytest.mark.parametrize("one", DEVICES.values(), ids=lambda one: one.name)
def test_every_device_names_its_document_and_only_known_precisions(one):
    assert one.source
    assert set(one.flops_per_second) <= set(Precision)


@pytest.mark.parametrize("one", DEVICES.values(), ids=lambda one: one.name)
def test_fewer_bits_are_never_slower(one):
    rates = [one.flops_per_second[p] for p in Precision if p in one.flops_per_second]
    assert rates == sorted(rates)


@pytest.mark.parametrize(
    ("name", "multiprocessors", "flops_per_clock", "boost_megahertz"),
    [
        # Outside oracle: multiprocessors x FMA lanes x 2 x boost clock, from the whitepapers.
        ("h200", 132, 128 * 2, 1980),
        ("h100", 132, 128 * 2, 1980),
        ("a100", 108, 64 * 2, 1410),
        ("l4", 58, 128 * 2, 2040),
        ("t4", 40, 64 * 2, 1590),
    ],
)
def test_a_gpus_fp32_peak_is_its_lanes_times_its_clock(
    name, multiprocessors, flops_per_clock, boost_megahertz
):
    peak = multiprocessors * flops_per_clock * boost_megahertz * 10**6
    assert device(name).peak("fp32") == pytest.approx(peak, rel=0.01)  # printed in three digits


def test_dense_tensor_rates_are_half_of_those_with_sparsity():
    assert 2 * device("h100").peak("bf16") == 1979 * TERA
    assert device("h100").peak("bf16") == pytest.approx(2 * device("h100").peak("tf32"), rel=0.001)


def test_an_unknown_device_is_answered_with_those_there_are():
    with pytest.raises(UnknownNameError, match=r"'h1000'; did you mean 'h100'\? known: h200, h100"):
        device("h1000")


def test_a_rate_that_no_document_gives_is_an_error_and_not_zero():
    with pytest.raises(NinlabError, match=r"T4.*'bf16'.*precisions with one: fp32"):
        device("t4").peak("bf16")
    with pytest.raises(NinlabError, match="no sourced memory bandwidth"):
        device("phone_512mb").bandwidth()


def test_every_workspace_table_is_of_a_device_that_is_described_here():
    assert {name.device for name in available()} <= set(DEVICES)


@pytest.mark.parametrize(
    ("cuda_name", "name"),
    [
        ("NVIDIA H200", "h200"),
        ("NVIDIA H100 80GB HBM3", "h100"),
        ("NVIDIA A100-SXM4-40GB", "a100"),
        ("NVIDIA L4", "l4"),
        ("Tesla T4", "t4"),
    ],
)
def test_a_device_is_found_by_what_cuda_calls_it(cuda_name, name):
    assert of_cuda_name(cuda_name) is device(name)


def test_a_device_that_only_begins_alike_is_not_taken_for_another():
    assert of_cuda_name("NVIDIA L40S") is None
