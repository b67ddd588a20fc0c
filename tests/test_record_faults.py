"""Whatever is changed in a record's file is refused, in a sentence with the field and the rule."""

import io
import json
from contextlib import redirect_stdout
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings

from ninlab import records
from ninlab.__main__ import main
from ninlab.commands import validation
from tests.record_faults import CHANGES, Fault, Trial, changed, faults, flaw, originals
from tests.test_records import run_records

TRIED = 380
"""Each kind of change several times; ``python -m tests.record_faults`` tries more."""


@pytest.fixture(scope="module")
def tried(tmp_path_factory) -> list[tuple[Fault, list[str]]]:
    trial = Trial(tmp_path_factory.mktemp("faults") / "runs")
    return [(fault, trial.said(fault)) for fault in islice(faults(), TRIED)]


def test_every_change_of_a_record_is_refused_with_its_field_and_rule(tried):
    wrong = [(flaw(fault, said), fault.change, fault.field, said) for fault, said in tried]
    assert not [each for each in wrong if each[0]]


def test_every_kind_of_change_and_of_record_is_tried(tried):
    assert {fault.change for fault, _ in tried} == set(CHANGES)
    kinds = {original.path: original.kind for original in originals()}
    assert {kinds[fault.path] for fault, _ in tried if fault.path in kinds} == set(kinds.values())
    assert set(kinds.values()) == {records.TRAINING, *validation.readers()}


def test_a_record_that_was_not_changed_passes_the_same_trial(tmp_path):
    trial = Trial(tmp_path / "runs")
    first = {original.kind: original for original in originals()}
    for original in first.values():
        assert trial.said(Fault("nothing", original.path, "", original.data, ())) == []


def test_the_sentence_that_the_readme_quotes_is_said(tmp_path):
    (original,) = (one for one in originals() if one.path == "collapse/nin_28-seed0-cpu.json")
    data = changed(original, ("epochs", 2, "test_accuracy"), 8400)
    (said,) = Trial(tmp_path / "runs").said(Fault("", original.path, "", data, ()))
    assert f"    {said}\n" in (records.runs_folder() / "README.md").read_text()


@settings(deadline=None, max_examples=12)
@given(run_records())
def test_a_record_that_is_valid_can_be_listed_summed_up_and_exported(run):
    with TemporaryDirectory() as scratch:
        folder = Path(scratch)
        records.write(folder, run)
        assert not list(records.problems(folder))
        for options in ([], ["--summary"]):
            for form in ("table", "json", "csv"):
                printed = io.StringIO()
                with redirect_stdout(printed):
                    arguments = ["runs", *options, "--format", form, "--runs", scratch]
                    assert main(arguments) == 0
                if form == "json":
                    json.loads(printed.getvalue())


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"[" * 100_000, "nested too deeply"),
        (b" " * (16 * 2**20 + 1), "larger than 16 MiB"),
        (b'{"kind": ' + b"1" * 10_000 + b"}", "kind is inf"),
        (b'{"a": {"b": 1, "b": 1}}', "b is stated twice"),
        (b"\xff\xfe", "can't decode byte"),
        (b"[]", "no JSON object"),
        (b"", "Expecting value"),
    ],
    ids=range(7),
)
def test_a_file_that_is_no_record_at_all_is_one_short_sentence(data, complaint, tmp_path):
    path = tmp_path / "collapse" / "a.json"
    path.parent.mkdir()
    path.write_bytes(data)
    (problem,) = validation.problems(tmp_path)
    assert complaint in problem
    assert len(problem) < 200
    assert "\n" not in problem
