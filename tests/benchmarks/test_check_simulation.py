"""The simulation's throughput is the real service's within 15 %."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_the_simulation_predicts_the_real_throughput():
    done = subprocess.run(
        [
            sys.executable,
            "benchmarks/check_simulation.py",
            "--replicas",
            "1",
            "3",
            "--seconds",
            "8",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=380,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])["replicas"]
    assert set(found) == {"1", "2"}
    assert all(abs(row["simulated_over_measured"] - 1) <= 0.15 for row in found.values())
