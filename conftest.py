"""What every test, and every chapter under test, has in common.

One thread a process: sums come out the same on every machine, and a suite beside
other work does not fight for cores. Kernels that run chapters inherit it.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
