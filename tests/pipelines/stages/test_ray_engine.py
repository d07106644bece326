"""A Ray that does not start is said in a line; Ray itself is not needed for that."""

import io

import pytest
import ray

from pipelines.stages.ray_engine import RayEngine
from rerank_core import RerankError

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
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setenv("RAY_ADDRESS", address)
    with RayEngine(io.StringIO()) as engine, pytest.raises(RerankError) as raised:
        engine._start()
    assert str(raised.value) == line
