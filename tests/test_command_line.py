"""The command line as a reader meets it: real processes, real exit codes."""

import json
import subprocess
import sys

import pytest

from ninlab import formulas
from ninlab.__main__ import COMMANDS
from ninlab.architectures import ARCHITECTURES


def ninlab(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ninlab", *arguments], capture_output=True, text=True, check=False
    )


def test_the_list_of_networks_is_complete_and_exact():
    listed = json.loads(ninlab("networks", "--format", "json").stdout)["networks"]
    assert [row["network"] for row in listed] == list(ARCHITECTURES)
    for row in listed:
        assert row["parameters"] == formulas.parameters(ARCHITECTURES[row["network"]])
        assert row["macs"] == formulas.macs(ARCHITECTURES[row["network"]])


def test_the_table_of_networks_names_every_network():
    printed = ninlab("networks").stdout
    assert "googlenet" in printed
    assert "1.99 M" in printed


@pytest.mark.parametrize(
    "arguments", [("netwroks",), ("networks", "--format", "yaml"), ("networks", "--colour")]
)
def test_bad_usage_is_one_line_on_stderr_and_exit_code_2(arguments):
    run = ninlab(*arguments)
    assert run.returncode == 2
    assert run.stdout == ""
    assert len(run.stderr.splitlines()) == 1
    assert arguments[-1] in run.stderr


def test_listing_networks_does_not_import_torch():
    code = (
        "import sys; from ninlab.__main__ import main; main(['networks']); "
        "assert 'torch' not in sys.modules, 'torch was imported'"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_help_names_every_command():
    run = ninlab("--help")
    assert run.returncode == 0
    for command in COMMANDS:
        assert command in run.stdout
