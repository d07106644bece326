import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["speed", "rows"])
def test_the_benchmark_of_the_job_runs_small_and_draws(tmp_path, kind):
    command = [sys.executable, "benchmarks/bench_job.py", kind, "--small"]
    done = subprocess.run(
        [*command, "--svg", str(tmp_path / "p.svg")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    result = json.loads(done.stdout.splitlines()[-1])
    lines = result["runs"] if kind == "rows" else [result]
    assert [line["rows"] for line in lines] == [400]
    assert (tmp_path / "p.svg").read_text().startswith('<svg xmlns="http')
