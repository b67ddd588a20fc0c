"""The kernels of the fused operators, without a GPU: what they compute, and what they become."""

from __future__ import annotations

import os
import sys
from importlib import metadata

import numpy as np
import pytest
from packaging.version import Version

from tests.processes import python

pytest.importorskip("triton", reason="the kernels are written in Triton, which is not installed")

from tools import compile_kernels
from tools.compile_kernels import Compiled

PTX = """
    ld.param.b64 %rd1, [some_kernel_param_0];
    ld.param.b64 %rd2, [some_kernel_param_1];
    ld.param.b32 %r1, [some_kernel_param_2];
    mad.wide.s32 %rd3, %r1, 2, %rd1;
    add.s64 %rd4, %rd3, 32;
    @%p1 ld.global.v4.b32 { %r2, %r3, %r4, %r5 }, [ %rd4 + 0 ];
    ld.global.b64 { %rd5 }, [ %rd2 + 0 ];
    add.s64 %rd6, %rd1, %rd5;
    @%p1 ld.global.L1::evict_last.v2.b16 { %rs1, %rs2 }, [ %rd6 + 0 ];
    cp.async.cg.shared.global [ %r6 + 0 ], [ %rd4 + 0 ], 0x10, %r7;
    @%p1 st.global.b8 [ %rd6 + 0 ], { %rs1 };
"""


@pytest.mark.slow
@pytest.mark.skipif(
    Version(metadata.version("triton")) < Version("3.7")
    and Version(np.__version__) >= Version("2.4"),
    reason="the interpreter of Triton 3.6 and older asks NumPy for what NumPy 2.4 refuses",
)
def test_kernels_compute_what_the_reference_does() -> None:
    ended = python(
        *("-m", "pytest", "--quiet", "-p", "no:cacheprovider", "tests/kernel_laws.py"),
        env=os.environ | {"TRITON_INTERPRET": "1"},
    )
    assert ended.returncode == 0, ended.stdout[-5000:]


def test_the_narrowest_load_of_each_argument_is_found() -> None:
    assert compile_kernels.load_bytes(PTX, ["maps", "indices", "rows"]) == {"maps": 4, "indices": 8}


def test_what_is_spilled_and_what_is_loaded_too_narrowly_is_said() -> None:
    widths = {"gradient": 2, "codes": 1}
    good = Compiled("kernel", 32, 0, 256, {"gradient": 16, "codes": 8}, widths)
    assert not [*good.faults()]
    bad = Compiled("kernel", 255, 8, 256, {"gradient": 16, "codes": 1}, widths)
    assert [*bad.faults()] == [
        "kernel spills 8 bytes a thread",
        "kernel loads 1 bytes of codes at once, not 8",
    ]
    narrow = Compiled("kernel", 32, 0, 0, {"maps": 4}, {"maps": 2}, channels=10)
    assert not [*narrow.faults()]  # rows of 20 bytes
    (unread,) = Compiled("kernel", 32, 0, 256, {}, widths).faults()
    assert unread == "kernel loads nothing that this program finds"


@pytest.mark.parametrize(("argument", "code"), [("--help", 0), ("--nonsense", 2), ("file", 2)])
def test_the_compiling_tool_does_nothing_when_it_is_given_an_argument(
    argument: str, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compile_kernels, "compiled_kernels", None)
    monkeypatch.setattr(sys, "argv", ["tool", argument])
    with pytest.raises(SystemExit) as ended:
        compile_kernels.main()
    assert ended.value.code == code
