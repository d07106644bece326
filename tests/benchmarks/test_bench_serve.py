"""The benchmarks of the service: their arithmetic, their picture, and a smoke run of each."""

import json
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchmarks.chart import chart
from benchmarks.open_loop import Sample, Summary, done_per_s, summarise

ROOT = Path(__file__).parents[2]
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


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "figures"),
    [
        (["bench_serve.py", "--model", "lexical"], {"core", "ray-rerank", "of_core"}),
        (["bench_scaling.py", "replicas"], {"documents_per_s", "of_linear"}),
        (["bench_scaling.py", "autoscale"], {"phases", "peak_replicas", "last_replicas"}),
        (["bench_scaling.py", "overload"], {"capacity_per_s", "goodput_of_capacity"}),
        (["bench_scaling.py", "sizes"], {"by_replicas"}),
        (["bench_scaling.py", "cold"], {"model", "seconds"}),
        (["bench_batcher.py"], {"rows"}),
    ],
)
def test_a_small_run_ends_in_one_json_line_and_a_picture(tmp_path, command, figures):
    name, *options = command
    svg = tmp_path / "picture.svg"
    done = subprocess.run(
        [sys.executable, f"benchmarks/{name}", *options, "--small", "--svg", str(svg)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert figures | {"benchmark", "machine"} <= set(found)
    assert ElementTree.parse(svg).getroot().tag.endswith("svg")
