"""A Ray that cannot or does not start is said in a line; none is needed to test that."""

import pytest
import ray

from pipelines.stages.ray_start import connect
from rerank_core import InvalidRequest, RerankError

SLOW = Exception("The current node timed out during startup. This could happen because ...")


@pytest.mark.parametrize(
    ("address", "error", "line"),
    [
        (
            "local",
            SLOW,
            "Ray did not start: The current node timed out during startup; on a busy machine give"
            " it longer: RAY_raylet_start_wait_time_s=120",
        ),
        (
            "10.0.0.9:6379",
            ConnectionError("Could not connect to the cluster"),
            "Ray did not start: Could not connect to the cluster; is RAY_ADDRESS=10.0.0.9:6379 the"
            " cluster's?",
        ),
    ],
)
def test_a_ray_that_does_not_start_is_a_line_with_the_fix(monkeypatch, address, error, line):
    def init(**options):
        assert options["include_dashboard"] is (False if address == "local" else None)
        raise error

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(RerankError) as raised:
        connect()
    assert str(raised.value) == line


@pytest.mark.parametrize("variable", ["RAY_TMPDIR", "TMPDIR"])
@pytest.mark.parametrize(
    ("address", "words"), [("ray://head:10001", "ray job submit"), ("local", "RAY_TMPDIR=/tmp")]
)
def test_an_address_by_which_no_job_runs_and_a_deep_folder_are_refused(
    monkeypatch, variable, address, words
):
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setenv(variable, "/tmp/" + "deep" * 20)
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(InvalidRequest, match=words):
        connect()
