"""What every test, and every chapter under test, has in common.

One thread a process: sums come out the same on every machine, and a suite beside
other work does not fight for cores. Kernels that run chapters inherit it.
"""

import gc
import os

import pytest
from hypothesis import settings

os.environ.setdefault("OMP_NUM_THREADS", "1")

# A deadline would be a test of the clock: a law must not fail because the machine is busy.
settings.register_profile("ninlab", deadline=None)
settings.load_profile("ninlab")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Three workers for two cores: a third of the time a test waits, for a browser or a child."""
    return max(1, 3 * (os.cpu_count() or 1) // 2)


def pytest_collection_finish() -> None:
    """Let the collector of garbage pass over what was imported, and come less often.

    It looked through half a million objects that live as long as the process, again and again: a
    sixth of the time of tests/test_liveness.py, a third of that of tests/test_calculator.py.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 10, 10)


def pytest_unconfigure() -> None:
    """Give them back, for what counts leaks at the exit of the interpreter would count them."""
    gc.unfreeze()
