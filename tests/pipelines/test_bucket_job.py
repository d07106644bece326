"""The command line on a real Ray of its own, from a bucket to a bucket."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from protocol import job, rows_of

from pipelines.commits.store import open_store
from pipelines.commits.verify import verify

pytestmark = pytest.mark.slow


def test_a_job_reads_a_bucket_and_writes_to_it(s3_server, pairs_input, tmp_path):
    given, out = "s3://bucket/command/in", "s3://bucket/command/out"
    for path in pairs_input.iterdir():
        open_store(given).replace(path.name, path.read_bytes())
    options = ["--input", given, "--output", out, "--unit-pairs", "100", "--model", "lexical"]
    # A process of its own: workers have the environment of when their Ray started.
    run = subprocess.run(
        [sys.executable, "-m", "pipelines.rerank_job", *options],
        env=os.environ | {"RAY_ADDRESS": "local"},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr[-2000:]
    assert f"600 out, 0 cut by top_k, 0 set aside; {out}" in run.stderr
    job(pairs_input, tmp_path / "local")
    assert rows_of(out) == rows_of(tmp_path / "local")
    assert verify(out)["rows_out"] == 600
