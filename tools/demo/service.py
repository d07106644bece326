"""Start commands as a user would, stop them for certain, and ask the service over HTTP.

It knows processes, ports and the wire; it does not know what is asked or what is right.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import yaml

# As a traceback ends, whatever Ray puts in front of the line.
_ERROR = re.compile(r"((?:\w+\.)*\w+(?:Error|Exception): .+)")

REQUEST_LIMIT_S = 120.0
ROOT = Path(__file__).parents[2]


class DemoFailed(Exception):
    """Something the demo shows does not hold; the message says what and where to look."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The service's scores for one question, by document id, best first, and seconds it took."""

    scores: dict[str, float]
    seconds: float


@contextmanager
def running(
    command: Sequence[str], environment: Mapping[str, str], log: Path | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command in a session of its own and stop all of it at the end, however that comes.

    Its output goes to `log`, or to the terminal without one.
    """
    output = log.open("wb") if log else None
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        _stop(process)
        if output:
            output.close()


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Interrupt as Ctrl-C does, so that Ray shuts its cluster down; then insist."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            process.terminate()
    for sent in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, sent)
        except ProcessLookupError:
            break
        time.sleep(0.5)
    process.wait()


def ray_environment(folder: Path) -> dict[str, str]:
    """Return this environment with a Ray of its own under `folder`, apart from any other here."""
    left_out = {"RAY_ADDRESS"}
    kept = {name: value for name, value in os.environ.items() if name not in left_out}
    return {**kept, "RAY_TMPDIR": str(folder), "RAY_USAGE_STATS_ENABLED": "0"}


@contextmanager
def start_service(
    model: str, port: int, environment: Mapping[str, str], folder: Path, limit_s: float
) -> Iterator[str]:
    """Run `rerank-serve` until the block ends; yields the URL once the service is ready.

    Raises DemoFailed with the end of the log if it stops or is not ready within `limit_s` seconds.
    """
    config, log = folder / "service.yaml", folder / "service.log"
    config.write_text(yaml.safe_dump(_config(model, port), sort_keys=False), encoding="utf-8")
    serve = str(Path(sys.executable).with_name("rerank-serve"))
    url = f"http://127.0.0.1:{port}"
    command = [serve, "--address", "local", str(config.absolute())]
    with running(command, environment, log) as process:
        _wait_until_ready(url, process, log, limit_s)
        yield url


def _config(model: str, port: int) -> dict[str, Any]:
    """Return what serve_app/local.yaml says, for this model and port."""
    config: dict[str, Any] = yaml.safe_load((ROOT / "serve_app" / "local.yaml").read_text("utf-8"))
    config["http_options"] = {**config.get("http_options", {}), "host": "127.0.0.1", "port": port}
    arguments = config["applications"][0]["args"]
    arguments["scorer"]["model"] = model
    # The demo compares scores: a busy laptop may take longer than callers would wait.
    arguments["limits"] = {**arguments.get("limits", {}), "request_timeout_s": REQUEST_LIMIT_S}
    return config


def _wait_until_ready(
    url: str, process: subprocess.Popen[bytes], log: Path, limit_s: float
) -> None:
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise DemoFailed(f"the service stopped with code {process.returncode}:\n{_causes(log)}")
        try:
            # No proxy of the environment: it could not reach this machine's own loopback.
            if httpx.get(f"{url}/health/ready", timeout=5, trust_env=False).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(1)
    raise DemoFailed(f"the service was not ready within {limit_s:.0f} s:\n{_causes(log)}")


def _causes(log: Path) -> str:
    """Return the last errors that the log names, without what stands around them."""
    lines = log.read_text("utf-8", errors="replace").splitlines()
    errors = [match[1] for line in lines if (match := _ERROR.search(line))]
    last = list(dict.fromkeys(reversed(errors or lines)))[:5]
    return "\n".join([*reversed(last), f"all of it: {log}"])


def free_port(wanted: int) -> int:
    """Return `wanted` if nothing listens there, else a port that is free."""
    with socket.socket() as probe:
        # As the server itself will: connections of an earlier run that linger do not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", wanted))
        except OSError:
            with socket.socket() as other:
                other.bind(("127.0.0.1", 0))
                return int(other.getsockname()[1])
    return wanted


def ask(client: httpx.Client, query: str, documents: Mapping[str, str]) -> Answer:
    """Rerank `documents` (text by id) over HTTP. Raises DemoFailed if the answer is no 200."""
    names = list(documents)
    start = time.perf_counter()
    response = client.post(
        "/v2/rerank", json={"query": query, "documents": list(documents.values())}
    )
    seconds = time.perf_counter() - start
    if response.status_code != 200:
        raise DemoFailed(f"the service answered {response.status_code}: {response.text[:300]}")
    results = response.json()["results"]
    return Answer({names[hit["index"]]: hit["relevance_score"] for hit in results}, seconds)
