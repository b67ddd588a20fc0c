"""Whatever fails in a write, the old or the new file lies there, and the error says which."""

import errno

import pytest

from ninlab import records
from ninlab.errors import RecordError
from tests.write_faults import CALLS, CASES, NEW, OLD, Fault, faults, flaw, tried


def test_what_is_said_of_a_write_that_fails_is_what_lies_there(tmp_path):
    failed = set()
    for number, fault in enumerate(faults()):
        folder = tmp_path / str(number)
        folder.mkdir()
        outcome = tried(fault, folder)
        if outcome.happened:
            failed.add((fault.case, fault.call))
            assert flaw(fault, outcome) is None, f"{fault}: {outcome}"
    assert {case for case, _ in failed} == set(CASES)
    assert {call for _, call in failed} == set(CALLS)


@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.EBADF])
def test_a_file_system_that_syncs_no_folder_is_no_error(code, tmp_path):
    outcome = tried(Fault("fsync of the folder", code, False, "a record"), tmp_path)
    assert (outcome.sentence, outcome.content) == (None, NEW)


def test_a_record_whose_name_may_not_outlive_a_power_cut_is_written_and_that_is_said(tmp_path):
    fault = Fault("fsync of the folder", errno.EIO, False, "a record")
    outcome = tried(fault, tmp_path)
    assert outcome.content == NEW
    path = tmp_path / "runs" / "record.json"
    assert outcome.sentence == (
        f"{path} is written, whole and readable, but the disk did not confirm that it survives a "
        "power cut: Input/output error; copy it elsewhere"
    )


def test_a_link_whose_answer_was_lost_is_a_link(tmp_path):
    for code in (errno.EEXIST, errno.EIO):
        folder = tmp_path / str(code)
        folder.mkdir()
        outcome = tried(Fault("link", code, True, "a record"), folder)
        assert (outcome.sentence, outcome.content, outcome.hidden) == (None, NEW, ())


def test_a_file_that_cannot_be_removed_is_named(tmp_path, monkeypatch):
    path = tmp_path / "runs" / "record.json"
    monkeypatch.setattr(records.writing, "_remove", lambda temporary: False)
    path.mkdir(parents=True)
    with pytest.raises(RecordError, match=r"only \.record.json.* was left behind") as caught:
        records.write_bytes(path, OLD)
    (left,) = (tmp_path / "runs").glob(".*")
    assert left.name in str(caught.value)
