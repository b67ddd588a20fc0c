"""What every test, and every chapter under test, has in common.

One thread a process: sums come out the same on every machine, and a suite beside
other work does not fight for cores. Kernels that run chapters inherit it.
"""

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
