"""The numbers of README.md are the code's."""

import re
from pathlib import Path

import pytest

from ninlab import formulas
from ninlab.__main__ import COMMANDS
from ninlab.architectures import architecture
from ninlab.liveness import peak_bytes, timeline
from ninlab.units import format_bytes

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BATCH_SIZE = 128


def cost_rows() -> dict[str, list[str]]:
    rows = re.findall(r"^\| `(\w+)` \|(.+)\|$", README, flags=re.MULTILINE)
    return {name: [cell.strip() for cell in cells.split("|")] for name, cells in rows}


@pytest.mark.parametrize("name", ["nin", "alexnet", "vgg11"])
def test_the_table_says_what_the_counters_say(name):
    network = architecture(name)
    assert cost_rows()[name] == [
        f"{formulas.parameters(network):,}",
        f"{formulas.macs(network):,}",
        format_bytes(formulas.saved_bytes(network, BATCH_SIZE)),
        format_bytes(peak_bytes(timeline(network), BATCH_SIZE)),
        format_bytes(peak_bytes(timeline(network, training=False), BATCH_SIZE)),
    ]


def test_nin_has_a_23rd_of_alexnets_parameters_and_needs_more_memory_to_train():
    nin, alexnet = architecture("nin"), architecture("alexnet")
    assert round(formulas.parameters(alexnet) / formulas.parameters(nin)) == 23
    assert peak_bytes(timeline(nin), BATCH_SIZE) > peak_bytes(timeline(alexnet), BATCH_SIZE)


def test_every_command_and_target_that_the_readme_names_exists():
    commands = set(re.findall(r"python -m ninlab (\w+)", README))
    assert commands
    assert commands <= set(COMMANDS)
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"^make (\w+)", README, flags=re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE)
