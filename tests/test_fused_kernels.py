"""The kernels of the fused operators, in Triton's interpreter: a GPU is not needed."""

from __future__ import annotations

import os

import pytest

from tests.processes import python

pytest.importorskip("triton", reason="the kernels are written in Triton, which is not installed")


@pytest.mark.slow
def test_kernels_compute_what_the_reference_does() -> None:
    ended = python(
        *("-m", "pytest", "--quiet", "-p", "no:cacheprovider", "tests/interpreted_kernels.py"),
        env=os.environ | {"TRITON_INTERPRET": "1"},
    )
    assert ended.returncode == 0, ended.stdout[-5000:]
