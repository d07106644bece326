"""What a job tells Prometheus, metric by metric."""

import pytest

from pipelines.stages import ray_metrics
from pipelines.stages.ray_metrics import JobMeter

LINE = {
    "published": True,
    "retries": 2,
    "counts": {"pairs_in": 10, "pairs_quarantined": 3, "tokens": 700},
}


@pytest.fixture
def told(monkeypatch):
    """The last value of each gauge and the sum of each counter, by name."""
    values = {}

    class Metric:
        def __init__(self, name, what, tag_keys):
            self.name = name

        def inc(self, value, tags):
            assert tags == {"job_output": "out"}
            values[self.name] = values.get(self.name, 0) + value

        def set(self, value, tags):
            values[self.name] = value

    monkeypatch.setattr(ray_metrics, "Counter", Metric)
    monkeypatch.setattr(ray_metrics, "Gauge", Metric)
    return values


def test_each_finished_unit_is_counted(told):
    with JobMeter("s3://bucket/out/", 4) as meter:
        meter.count(LINE)
        meter.count({**LINE, "published": False, "retries": 0})
        meter.count({"unit": "3", "bad": "cannot be read", "file": "x"})
    assert told.pop("rerank_job_last_unit_age_seconds") < 60
    assert told == {
        "rerank_job_units": 3,
        "rerank_job_pairs": 14,
        "rerank_job_tokens": 1400,
        "rerank_job_pairs_set_aside": 6,
        "rerank_job_retries": 3,
        "rerank_job_units_left": 1,
    }
