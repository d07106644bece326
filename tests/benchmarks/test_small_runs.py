"""Every benchmark on Ray runs small, ends in one JSON line and draws; all share one process."""

import json
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[2]
FIGURES = {
    "bench_job.py speed": {"rows", "job_pairs_s", "core_pairs_s"},
    "bench_job.py rows": {"runs"},
    "bench_job.py end": {"end_s", "driver_mb", "operations_a_unit"},
    "bench_job.py bucket": {"folder", "bucket", "bucket_of_folder_whole_s"},
    "bench_serve.py --model lexical": {"core", "ray-rerank", "of_core"},
    "bench_scaling.py replicas": {"documents_per_s", "of_linear"},
    "bench_scaling.py autoscale": {"phases", "peak_replicas", "last_replicas"},
    "bench_scaling.py overload": {"capacity_per_s", "goodput_of_capacity"},
    "bench_scaling.py sizes": {"by_replicas"},
    "bench_scaling.py cold": {"model", "seconds"},
    "bench_batcher.py": {"rows"},
}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return tmp_path_factory.mktemp("pictures")


@pytest.fixture(scope="module")
def answers(pictures):
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name("run_small.py"), pictures, *FIGURES],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=560,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    lines = map(json.loads, (pictures / "answers").read_text(encoding="utf-8").splitlines())
    return {line.pop("command"): line for line in lines}


@pytest.mark.parametrize("command", FIGURES)
def test_it_ends_in_one_json_line_and_a_picture(answers, pictures, command):
    answer = answers[command]
    assert answer.get("error") is None, answer["error"]
    assert FIGURES[command] <= set(answer["found"])
    assert {"commit", "machine"} <= set(answer["found"])
    assert ElementTree.parse(pictures / f"{command}.svg").getroot().tag.endswith("svg")


def test_the_job_benchmark_counts_its_rows(answers):
    speed, rows = (answers[f"bench_job.py {kind}"]["found"] for kind in ("speed", "rows"))
    places = answers["bench_job.py bucket"]["found"]
    lines = (speed, *rows["runs"], places["folder"], places["bucket"])
    assert [line["rows"] for line in lines] == [400, 400, 400, 400]


def test_the_end_of_a_job_is_measured_with_what_a_bucket_would_be_asked_for(answers):
    found = answers["bench_job.py end"]["found"]
    assert found["operations_a_unit"] > 0
    assert {"create", "read", "copy"} <= set(found["operations"])
