"""The inventory counts every record once, and says of a plan what is there and what is not."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from ninlab import records
from ninlab.experiments import PLANS
from ninlab.inventory import Inventory
from tests.records import A_RECORD, H100, a_profile


@pytest.mark.parametrize("scale", PLANS)
def test_no_more_is_recorded_of_an_experiment_than_was_planned(scale: str) -> None:
    inventory = Inventory.load()
    planned, recorded = inventory.planned(scale), inventory.recorded(scale)
    assert list(planned) == list(recorded)
    assert sum(planned.values()) == len(PLANS[scale].runs)
    assert all(0 <= recorded[name] <= planned[name] for name in planned)


def test_every_record_is_a_link_in_one_of_the_tables() -> None:
    inventory = Inventory.load()
    tables = inventory.every_run() + inventory.every_step() + inventory.others()
    linked = re.findall(r'href="\.\./runs/(.*?)\.json"', tables)
    files = records.runs_folder().glob("*/*.json")
    stems = [file.relative_to(records.runs_folder()).with_suffix("").as_posix() for file in files]
    assert sorted(linked) == sorted(stems)


def test_what_is_neither_run_nor_step_is_listed_as_what_it_is(tmp_path) -> None:
    profile = a_profile()
    records.write(tmp_path, profile)
    found = {"benchmarks/peers-1": "Comparisons", "probes/a_gpu": "Other files"}
    for name in found:
        records.write_bytes(tmp_path / f"{name}.json", b"{}")
    told = Inventory(tmp_path, [], [], []).others()
    sentences = re.findall("<p>([^<:]*):(.*?)</p>", told)
    assert len(sentences) == 3
    for name, beginning in {profile.id: "Profiles of training steps", **found}.items():
        ((said, links),) = [each for each in sentences if f"../runs/{name}.json" in each[1]]
        assert said.startswith(beginning)
        assert links.count("<a ") == 1


def test_what_is_missing_of_a_plan_is_named_by_row_and_seed() -> None:
    row = PLANS["compact"].experiment("family").rows[0]
    run = replace(A_RECORD, experiment="family", name=row.name, network=row.network, seed=0)
    (table,) = re.findall(
        "<td>family</td>.*?</tr>", Inventory(Path("runs"), [run], [], []).plans(), re.S
    )[:1]
    assert f"{row.name}, seed 1" in table
    assert f"{row.name}, seed 0" not in table


def test_the_box_says_how_many_full_size_runs_there_are() -> None:
    row = PLANS["full"].experiment("family").rows[0]
    run = replace(A_RECORD, experiment="family", name=row.name, seed=0, device=H100)
    planned = len(PLANS["full"].runs)
    for runs in ([], [run]):
        box = Inventory(Path("runs"), runs, [], []).missing_at_full_size()
        assert f"{len(runs)} of the {planned} full-size runs are recorded" in box


def test_a_run_that_a_later_one_corrects_is_marked() -> None:
    better = replace(A_RECORD, seed=9, corrects=A_RECORD.id)
    table = Inventory(Path("runs"), [A_RECORD, better], [], []).every_run()
    assert table.count("replaced") == 1
