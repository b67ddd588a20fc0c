"""What every test, and every chapter under test, has in common.

One thread a process: sums come out the same on every machine, and a suite beside
other work does not fight for cores. Kernels that run chapters inherit it.
"""

import os

from hypothesis import settings

os.environ.setdefault("OMP_NUM_THREADS", "1")

# A deadline would be a test of the clock: a law must not fail because the machine is busy.
settings.register_profile("ninlab", deadline=None)
settings.load_profile("ninlab")
