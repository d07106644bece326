"""The benchmarks of the service: their arithmetic and their picture."""

from xml.etree import ElementTree

import pytest

from benchmarks.chart import chart
from benchmarks.open_loop import Sample, Summary, done_per_s, summarise

SAMPLES = [
    Sample(0.0, 0.1, 200),
    Sample(1.0, 0.3, 200),
    Sample(2.0, 2.0, 200),
    Sample(3.0, 0.01, 429, "1"),
    Sample(4.0, 0.5, 0),
]


def test_goodput_counts_answers_in_time_and_latency_only_answers():
    assert summarise(SAMPLES, 5.0, within_s=1.0) == Summary(1.0, 0.4, 1, 1, 300.0, 1966.0)


def test_throughput_is_counted_to_the_last_answer():
    assert done_per_s(SAMPLES) == pytest.approx(3 / 4)
    assert done_per_s(SAMPLES, 1.0) == pytest.approx(2 / 3)
    assert done_per_s([]) == 0


def test_the_picture_is_well_formed_names_every_line_and_is_the_same_each_time():
    def draw():
        return chart("a < b", "s", "ms", {"p&50": [(0, 1), (2, 3)], "other": []})

    texts = {element.text for element in ElementTree.fromstring(draw()).iter()}
    assert {"a < b", "s", "ms", "p&50", "other"} <= texts
    assert draw() == draw()
