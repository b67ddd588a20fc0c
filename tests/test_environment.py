"""A record says rightly which machine and which software made it."""

import platform
from importlib.metadata import version

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ninlab.environment import (
    arithmetic,
    describe_device,
    describe_software,
    is_out_of_memory,
    parse_device,
    slug,
)
from ninlab.errors import NinlabError
from ninlab.records import check_slug
from ninlab.torch_private import is_cache_emptied_between_trials

CPU = torch.device("cpu")


def settings() -> tuple[str, str, bool]:
    """What `arithmetic` sets."""
    products, convolutions = torch.backends.cuda.matmul, torch.backends.cudnn.conv
    benchmark = torch.backends.cudnn.benchmark
    return products.fp32_precision, convolutions.fp32_precision, benchmark


@given(st.text().filter(lambda name: any(c.isascii() and c.isalnum() for c in name)))
def test_any_devices_name_becomes_part_of_a_file_name(name):
    check_slug("device slug", slug(name))
    assert slug(slug(name)) == slug(name)


def test_a_devices_name_is_still_recognized_in_a_file_name():
    assert slug("NVIDIA H100 80GB HBM3") == "nvidia-h100-80gb-hbm3"
    assert slug("Tesla V100-SXM2 (16 GB)") == "tesla-v100-sxm2-16-gb"


@pytest.mark.parametrize("name", ["cpu", "cpu:0"])
def test_a_named_device_is_taken(name):
    assert parse_device(name).type == "cpu"


def test_auto_is_the_gpu_where_there_is_one():
    assert parse_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("tpu", "unknown device 'tpu'; write cpu, cuda or cuda:0"),
        ("meta", "runs are not made on 'meta'; write cpu"),
        ("cpu:1", "unknown device 'cpu:1'; write cpu"),
        ("cuda:-1", "unknown device 'cuda:-1'; write cpu"),
        ("", "unknown device ''; write cpu"),
        (f"cuda:{torch.cuda.device_count()}", f"torch sees {torch.cuda.device_count()} GPUs"),
    ],
)
def test_a_device_that_is_not_here_is_refused(name, said):
    with pytest.raises(NinlabError, match=said):
        parse_device(name)


def test_memory_that_ran_out_is_known_by_whatever_torch_raises():
    with pytest.raises(RuntimeError) as refused:
        torch.empty(2**60, dtype=torch.uint8)
    assert is_out_of_memory(refused.value)
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    assert not is_out_of_memory(RuntimeError("cuDNN error"))


def test_a_processor_is_described_by_its_model_memory_and_threads():
    described = describe_device(CPU)
    # Outside oracle: what Linux itself says, in KiB.
    with open("/proc/meminfo") as file:
        total = next(int(line.split()[1]) for line in file if line.startswith("MemTotal:"))
    assert described.memory_bytes == 1024 * total
    assert described.slug == "cpu"
    assert described.name == described.name.strip() != ""
    assert described.threads == torch.get_num_threads()
    assert described.driver is described.power_limit_watts is None


def test_software_is_named_by_the_versions_that_are_installed():
    described = describe_software()
    assert described.python == platform.python_version()
    assert described.torch.partition("+")[0] == version("torch").partition("+")[0]
    assert described.ninlab == version("ninlab")
    on_gpu = torch.cuda.is_available()
    assert (described.cuda is not None) is (described.cudnn is not None) is on_gpu


@pytest.mark.parametrize(
    ("precision", "expected"), [("fp32", "ieee"), ("bf16", "ieee"), ("tf32", "tf32")]
)
@pytest.mark.parametrize("benchmark", [False, True])
def test_arithmetic_is_set_inside_the_block_and_put_back_behind_it(precision, expected, benchmark):
    for outer in ("fp32", "tf32"):
        with arithmetic(outer, benchmark=not benchmark):
            before = settings()
            with arithmetic(precision, benchmark=benchmark):
                assert settings() == (expected, expected, benchmark)
            assert settings() == before


def test_arithmetic_is_put_back_behind_an_error_too():
    before = settings()
    with pytest.raises(ZeroDivisionError), arithmetic("tf32", benchmark=not before[2]):
        raise ZeroDivisionError
    assert settings() == before


def test_trials_of_kernels_keep_the_cache_and_nothing_else_is_changed():
    empties = is_cache_emptied_between_trials
    before = empties()
    with arithmetic("bf16", benchmark=False):
        assert empties() == before
    with arithmetic("bf16", benchmark=True):
        assert not empties()
        with arithmetic("bf16", benchmark=False):
            assert not empties()
    assert empties() == before
