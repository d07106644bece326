"""A Ray and a Serve of the benchmark's own on a free loopback port, gone when it ends."""

from __future__ import annotations

import contextlib
import platform
import socket
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import URLError

import ray
from ray import serve

from rerank_core import load_scorer
from serve_app.application import Load, build
from serve_app.config import ServeConfig


@contextlib.contextmanager
def local_serve(*, cpus: int = 16, gpus: int = 0) -> Iterator[str]:
    """Yield the base URL of a Serve without applications. Resources are logical only."""
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
        yield f"http://127.0.0.1:{port}"
    finally:
        serve.shutdown()
        ray.shutdown()


def deploy(url: str, settings: dict[str, Any], load: Load = load_scorer) -> None:
    """Run the application with these settings at `/`, and wait until it scores."""
    serve.run(build(ServeConfig.model_validate(settings), load), name="bench", route_prefix="/")
    wait_until(f"{url}/health/ready")


def wait_until(url: str, seconds: float = 300) -> None:
    """Return when a GET is answered with 200."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
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


def machine() -> str:
    """Return what the figures were measured on."""
    names = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        if line.startswith("model name")
    ]
    return f"{len(names)} x {names[0] if names else platform.machine()}"
