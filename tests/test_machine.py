"""Which machine a run was made on, and whether it had it for itself."""

import os
import subprocess
import sys
import time
from dataclasses import replace

import pytest

from ninlab import machine
from ninlab.machine import Watch, processor, processor_name
from tests.records import A_HOST

CPUINFO = """\
processor\t: 0
vendor_id\t: AuthenticAMD
cpu family\t: 25
model\t\t: 17
model name\t: AMD EPYC
stepping\t: 1

processor\t: 1
model name\t: another
"""

ARM_CPUINFO = """\
processor\t: 0
BogoMIPS\t: 50.00
Features\t: fp asimd crc32 atomics
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x3
CPU part\t: 0xd0c
CPU revision\t: 1

processor\t: 1
CPU implementer\t: 0x61
"""


@pytest.fixture
def linux(tmp_path, monkeypatch):
    """A machine whose ``/proc`` is written by the test."""
    for name in ("_CPUINFO", "_STAT"):
        monkeypatch.setattr(machine, name, tmp_path / name)
    return tmp_path


def test_processors_of_one_name_are_told_apart(linux):
    (linux / "_CPUINFO").write_text(CPUINFO)
    first = processor()
    assert first == "AMD EPYC (AuthenticAMD, family 25, model 17, stepping 1)"
    assert processor_name() == "AMD EPYC"
    (linux / "_CPUINFO").write_text(CPUINFO.replace("25", "26"))
    assert processor_name() == "AMD EPYC"
    assert processor() != first


@pytest.mark.parametrize("other", [("0x41", "0x61"), ("0xd0c", "0xd40"), ("0x3", "0x1")])
def test_arm_processors_have_no_name_and_are_told_apart(linux, monkeypatch, other):
    for answer in ("processor", "machine"):
        monkeypatch.setattr(machine.platform, answer, lambda: "aarch64")
    (linux / "_CPUINFO").write_text(ARM_CPUINFO)
    first = processor()
    assert first == "aarch64 (implementer 0x41, variant 0x3, part 0xd0c, revision 1)"
    (linux / "_CPUINFO").write_text(ARM_CPUINFO.replace(*other))
    assert processor_name() == "aarch64"
    assert processor() != first


def test_a_machine_that_tells_nothing_is_named_all_the_same(linux):
    assert processor() == processor_name() != ""
    host = Watch().host()
    assert host.other_cores is None
    assert not host.was_idle


def test_the_run_is_not_counted_among_the_others(linux, monkeypatch):
    """In 10 s two cores are busy for 13: 4 for this process, 8 for others, 1 for a hypervisor.

    Idle time, time that waits for a disk and what guests took, counted twice, are nobody's.
    """
    (linux / "_STAT").write_text("cpu  100 0 100 900 7 0 0 0 5 0\ncpu0 1 1 1 1 1 1 1 1 1 1\n")
    monkeypatch.setattr(machine.os, "sysconf", lambda name: 100)
    monkeypatch.setattr(machine.os, "cpu_count", lambda: 2)
    clocks = {"perf_counter": 50.0, "process_time": 7.0}
    for clock in clocks:
        monkeypatch.setattr(machine.time, clock, lambda clock=clock: clocks[clock])
    watch = Watch()
    clocks.update(perf_counter=60.0, process_time=11.0)
    (linux / "_STAT").write_text("cpu  900 100 400 1500 107 0 0 100 205 0\n")
    host = watch.host()
    assert (host.cores, host.own_cores, host.other_cores) == (2, 0.4, 0.9)


def test_a_process_that_computes_is_seen_beside_one_that_does_not():
    watch = Watch()
    loop = "import time\nend = time.time() + 60\nwhile time.time() < end: pass"
    with subprocess.Popen([sys.executable, "-c", loop]) as other:
        time.sleep(1)
        host = watch.host()
        other.kill()
    assert host.own_cores < 0.5
    assert not host.was_idle
    if machine._STAT.exists():
        assert host.other_cores > 0.3  # of a core that it may have to share
    else:
        assert host.other_cores is None


@pytest.mark.parametrize(
    "variable",
    [
        "ATEN_CPU_CAPABILITY",
        "ONEDNN_DEFAULT_FPMATH_MODE",
        "DNNL_DEFAULT_FPMATH_MODE",
        "NVIDIA_TF32_OVERRIDE",
    ],
)
def test_a_variable_that_chooses_kernels_makes_another_host(monkeypatch, variable):
    monkeypatch.setenv(variable, "default")
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "")
    found = Watch().host()
    assert found.kernel_variables[variable] == "default"
    assert "ONEDNN_MAX_CPU_ISA" not in found.kernel_variables
    plain = replace(found, kernel_variables={})
    assert found.kernels != plain.kernels
    assert plain.kernels == replace(plain, own_cores=0.1, other_cores=1.9).kernels
    assert plain.kernels != replace(plain, cpu_capability="AVX2").kernels


def test_torch_says_which_instructions_it_uses():
    asked = [sys.executable, "-c", "from ninlab.machine import Watch; print(Watch().host())"]
    environment = {**os.environ, "ATEN_CPU_CAPABILITY": "default"}
    told = subprocess.run(asked, env=environment, capture_output=True, text=True, check=True).stdout
    assert "cpu_capability='DEFAULT'" in told


@pytest.mark.parametrize(
    ("others", "idle"), [(0.0, True), (0.1, True), (0.11, False), (None, False)]
)
def test_a_machine_is_idle_where_all_others_are_known_to_rest(others, idle):
    assert replace(A_HOST, other_cores=others).was_idle is idle
