"""Two machines that share no folder make the same records as one process."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from ninlab import recording, records
from ninlab.errors import NinlabError
from ninlab.recording import cluster, making
from ninlab.watching import Status
from tests.ray_worker import make_and_say_where, raise_an_error
from tests.recorders import IDS, PLAN, site, train_at_once
from tests.records import files

ray = pytest.importorskip("ray", reason="needs the ray extra")
pytestmark = [pytest.mark.ray, pytest.mark.slow]


@pytest.fixture(scope="module")
def nodes(tmp_path_factory) -> Iterator[dict[str, Path]]:
    """Two nodes of one CPU each, by name: the folder in which a node works and may leave files."""
    from ray.cluster_utils import Cluster

    started, folders, here = Cluster(), {}, Path.cwd()
    try:
        for name in ("first", "second"):
            folder = folders[name] = tmp_path_factory.mktemp(name)
            os.chdir(folder)
            started.add_node(
                num_cpus=1,
                include_dashboard=False,
                include_log_monitor=False,
                no_monitor=True,
                object_store_memory=80 * 2**20,
                env_vars={"NODE": name, "TMPDIR": str(folder)},
            )
        os.chdir(here)
        ray.init(address=started.address, log_to_driver=False)
        yield folders
    finally:
        os.chdir(here)
        ray.shutdown()
        started.shutdown()


def test_an_address_without_a_cluster_is_said(tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "nowhere")
    with pytest.raises(NinlabError, match=r"no Ray cluster at RAY_ADDRESS \(nowhere\)"):
        recording.record_with_ray(PLAN, site(tmp_path))


def test_a_cluster_of_two_records_what_one_process_records(nodes, tmp_path, monkeypatch):
    monkeypatch.setattr(cluster, "make_on_node", make_and_say_where)
    monkeypatch.setattr(making, "train", train_at_once)
    alone, together = tmp_path / "alone", tmp_path / "together"
    alone.mkdir()
    together.mkdir()
    recording.record(PLAN, site(alone))
    tally = recording.record_with_ray(PLAN, site(together))
    assert tally.ids(Status.RECORDED) == IDS
    assert not list(records.problems(together))
    pairs = list(zip(records.load(alone), records.load(together), strict=True))
    for one, other in pairs:
        assert one.id == other.id
        assert one.recipe == other.recipe
        assert one.loss == other.loss
        assert one.confusion == other.confusion
        assert one.weights_sha256 == other.weights_sha256
    assert {other.provenance.command for _, other in pairs} == set(nodes)
    assert [files(folder) for folder in nodes.values()] == [set(), set()]
    again = recording.record_with_ray(PLAN, site(together))
    assert again.ids(Status.PRESENT) == IDS


@pytest.mark.usefixtures("nodes")
def test_a_machine_without_ninlab_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(cluster, "make_on_node", raise_an_error)
    with pytest.raises(NinlabError, match=r"cannot make runs: .*No module named 'ninlab'"):
        recording.record_with_ray(PLAN, site(tmp_path))
    assert records.claim_holders(tmp_path) == {}


@pytest.mark.usefixtures("nodes")
def test_a_run_that_no_machine_has_room_for_is_an_error(tmp_path):
    with pytest.raises(NinlabError, match="none of the cluster's 2 machines has room"):
        recording.record_with_ray(PLAN, site(tmp_path), gpus_per_run=1000.0)
