"""A Ray and a Serve of the benchmark's own on a free loopback port, gone when it ends."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import URLError

import ray
from ray import serve
from ray.autoscaler._private.fake_multi_node.node_provider import (
    FAKE_HEAD_NODE_ID,
    FAKE_HEAD_NODE_TYPE,
    FakeMultiNodeProvider,
)

from rerank_core import load_scorer
from serve_app.application import LoadScorer, build
from serve_app.config import ServeConfig

# A proxy of the environment could not reach this machine's own loopback.
open_here = urllib.request.build_opener(urllib.request.ProxyHandler({})).open

# The base URL of the local Serve of this process.
_running: list[str] = []


@contextlib.contextmanager
def growing_serve(gpu_nodes: int) -> Iterator[str]:
    """Yield the base URL of a Serve whose cluster adds a node with one logical GPU when one lacks.

    The nodes are processes of this machine (Ray's fake provider); they go after 15 idle seconds.
    The block must end without any: nobody is left then to stop them.
    """
    gcs, port = free_port(), free_port()
    address = f"{ray.util.get_node_ip_address()}:{gcs}"
    provider = {
        # By its class: for its own name Ray reads a file that is not in its wheel.
        "type": "external",
        "module": f"{FakeMultiNodeProvider.__module__}.FakeMultiNodeProvider",
        "gcs_address": address,
        "launch_multiple": True,
        "head_node_id": FAKE_HEAD_NODE_ID,
        "use_node_id_as_ip": True,
        "disable_node_updaters": True,
        "disable_launch_config_check": True,
    }
    small = {"object_store_memory": 80 << 20}
    config = {
        "cluster_name": "growing",
        "provider": provider,
        "max_workers": gpu_nodes,
        "idle_timeout_minutes": 0.25,
        "upscaling_speed": 100,
        "available_node_types": {
            FAKE_HEAD_NODE_TYPE: {"resources": {"CPU": 2}, "node_config": {}, "max_workers": 0},
            "gpu": {
                "resources": {"CPU": 1, "GPU": 1, **small},
                "node_config": {},
                "min_workers": 0,
                "max_workers": gpu_nodes,
            },
        },
        "head_node_type": FAKE_HEAD_NODE_TYPE,
        **{key: {} for key in ("auth", "docker", "file_mounts")},
        **{f"{who}setup_commands": [] for who in ("", "head_", "worker_")},
        **{f"{who}start_ray_commands": [] for who in ("head_", "worker_")},
        "initialization_commands": [],
        "cluster_synced_files": [],
        "file_mounts_sync_continuously": False,
        "rsync_exclude": [],
        "rsync_filter": [],
    }
    # Short: Ray's sockets lie below it, and their paths may have 107 letters.
    with tempfile.TemporaryDirectory(prefix="r", dir="/tmp", ignore_cleanup_errors=True) as home:
        file = Path(home) / "cluster.json"
        file.write_text(json.dumps(config), encoding="utf-8")
        ids = {"RAY_CLOUD_INSTANCE_ID": FAKE_HEAD_NODE_ID}
        ids["RAY_OVERRIDE_NODE_ID_FOR_TESTING"] = FAKE_HEAD_NODE_ID
        environment = {
            **os.environ,
            **ids,
            "RAY_FAKE_CLUSTER": "1",
            "RAY_enable_autoscaler_v2": "1",
            "AUTOSCALER_UPDATE_INTERVAL_S": "1",
            "RAY_AUTH_MODE": "disabled",
        }
        command = [Path(sys.executable).with_name("ray"), "start", "--head", "--block"]
        options = [f"--port={gcs}", "--num-cpus=2", f"--autoscaling-config={file}"]
        more = [f"--temp-dir={home}", "--include-dashboard=false"]
        more += [f"--object-store-memory={200 << 20}"]
        with (
            open(f"{home}/head.log", "wb") as log,
            subprocess.Popen(
                [*command, *options, *more], env=environment, stdout=log, stderr=log
            ) as head,
        ):
            try:
                os.environ["RAY_AUTH_MODE"] = "disabled"
                _connect(address, head)
                serve.start(http_options={"host": "127.0.0.1", "port": port})
                yield f"http://127.0.0.1:{port}"
                serve.shutdown()
            finally:
                ray.shutdown()
                # It takes its own processes with it, and no others.
                head.terminate()


def _connect(address: str, head: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 120
    while True:
        try:
            ray.init(address=address, log_to_driver=False)
            return
        except (ConnectionError, ValueError, RuntimeError):
            if head.poll() is not None or time.monotonic() > deadline:
                raise
            time.sleep(2)


@contextlib.contextmanager
def local_serve(*, cpus: int = 16, gpus: int = 0) -> Iterator[str]:
    """Yield the base URL of a Serve without applications. Resources are logical only.

    Inside another one of this process it is that one, so that several benchmarks can share it.
    """
    if _running:
        try:
            yield _running[-1]
        finally:
            names = list(serve.status().applications)
            # All begin to end at once. Deployed again before it is gone, one keeps its replicas.
            for waits in (False, True):
                for name in names:
                    serve.delete(name, _blocking=waits)
        return
    ray.init(
        address="local",
        num_cpus=cpus,
        num_gpus=gpus,
        include_dashboard=False,
        log_to_driver=False,
        object_store_memory=200 << 20,
    )
    try:
        port = free_port()
        serve.start(http_options={"host": "127.0.0.1", "port": port})
        _running.append(f"http://127.0.0.1:{port}")
        yield _running[-1]
    finally:
        _running.clear()
        serve.shutdown()
        ray.shutdown()


def deploy(url: str, settings: dict[str, Any], load: LoadScorer = load_scorer) -> None:
    """Run the application with these settings at `/`, and wait until it scores."""
    serve.run(build(ServeConfig.model_validate(settings), load), name="bench", route_prefix="/")
    wait_until(f"{url}/health/ready")


def wait_until(url: str, seconds: float = 300) -> None:
    """Return when a GET is answered with 200."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            with open_here(url, timeout=10) as answer:
                if answer.status == 200:
                    return
        except (URLError, OSError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.3)


def free_port() -> int:
    """Return a port that nobody listens on now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port
