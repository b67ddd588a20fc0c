"""A Ray cluster makes the same records as one process."""

import pytest

from ninlab import recording, records
from ninlab.watching import Status
from tests.recorders import IDS, PLAN, site

ray = pytest.importorskip("ray", reason="needs the ray extra")
pytestmark = [pytest.mark.ray, pytest.mark.slow]


@pytest.fixture(scope="module")
def cluster():
    """Two CPUs of this machine as a cluster."""
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.mark.usefixtures("cluster")
def test_a_cluster_of_two_records_what_one_process_records(tmp_path):
    alone, together = tmp_path / "alone", tmp_path / "together"
    alone.mkdir()
    together.mkdir()
    recording.record(PLAN, site(alone))
    tally = recording.record_with_ray(PLAN, site(together))
    assert tally.ids(Status.RECORDED) == IDS
    assert not list(records.problems(together))
    for one, other in zip(records.load(alone), records.load(together), strict=True):
        assert one.id == other.id
        assert one.recipe == other.recipe
        assert one.loss == other.loss
        assert one.confusion == other.confusion
        assert one.weights_sha256 == other.weights_sha256
    again = recording.record_with_ray(PLAN, site(together))
    assert again.ids(Status.PRESENT) == IDS


@pytest.mark.usefixtures("cluster")
def test_a_run_that_no_machine_has_room_for_is_an_error(tmp_path):
    with pytest.raises(recording.NinlabError, match="too few for one run"):
        recording.record_with_ray(PLAN, site(tmp_path), gpus_per_run=1000.0)
