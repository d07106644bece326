"""The quickstart's cluster for real: two nodes, a token, a deploy, updates under requests, a job.

It runs the commands of docs/quickstart.md with ports and folders of its own, and the shipped fake
scorer instead of a model. It starts some thirty processes and was never run to its end beside other
work, so it runs only where RAY_RERANK_TWO_NODES=1 is set.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

pytestmark = [
    pytest.mark.slow,
    pytest.mark.chaos,
    pytest.mark.timeout(900),
    pytest.mark.skipif(
        os.environ.get("RAY_RERANK_TWO_NODES") != "1",
        reason="set RAY_RERANK_TWO_NODES=1 on a machine that does nothing else",
    ),
]
ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
QUESTION = {"query": "capital of China", "documents": ["Bananas are yellow.", "Beijing, capital"]}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_for(what: str, done: Callable[[], bool], seconds: float = 240) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if done():
            return
        time.sleep(2)
    raise AssertionError(f"not within {seconds} s: {what}")


@dataclass
class TwoNodes:
    """A head without CPUs and a worker, as in the quickstart."""

    home: Path
    gcs: int = field(default_factory=free_port)
    api: int = field(default_factory=free_port)
    http: int = field(default_factory=free_port)
    nodes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def env(self) -> dict[str, str]:
        return {
            **os.environ,
            "HOME": str(self.home),
            "RAY_AUTH_MODE": "token",
            "RAY_API_SERVER_ADDRESS": f"http://127.0.0.1:{self.api}",
            "RAY_DASHBOARD_ADDRESS": f"http://127.0.0.1:{self.api}",
            "RAY_USAGE_STATS_ENABLED": "0",
            "PYTHONUNBUFFERED": "1",
            # On a busy machine nodes register late.
            "RAY_raylet_start_wait_time_s": "150",
        }

    def run(self, *command: str, check: bool = True) -> str:
        program, *rest = command
        done = subprocess.run(
            [BIN / program, *rest],
            cwd=ROOT,
            env=self.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=240,
            check=False,
        )
        assert not check or done.returncode == 0, done.stdout[-3000:]
        return done.stdout

    def start(self) -> None:
        self.run("ray", "get-auth-token", "--generate")
        small = ["--object-store-memory=100000000", "--block"]
        head = [f"--port={self.gcs}", f"--dashboard-port={self.api}", f"--temp-dir={self.home}/r"]
        client = f"--ray-client-server-port={free_port()}"
        self._node("--head", "--num-cpus=0", client, *head, *small)
        wait_for("the head", lambda: self.says(0, "Ray runtime started"))
        wait_for("the job API", lambda: self.api_status() == 401)
        self._node(f"--address=127.0.0.1:{self.gcs}", "--num-cpus=8", *small)
        wait_for("the worker", lambda: self.says(1, "Ray runtime started"))
        wait_for("two nodes", lambda: "8.0 CPU" in self.status())

    def says(self, number: int, text: str) -> bool:
        """Whether a node has said so; fails when it has ended by itself."""
        said = (self.home / f"node{number}.log").read_text(encoding="utf-8")
        assert self.nodes[number].poll() is None, said[-3000:]
        return text in said

    def status(self) -> str:
        return self.run("ray", "status", "--address", f"127.0.0.1:{self.gcs}", check=False)

    def _node(self, *options: str) -> None:
        agent = f"--dashboard-agent-listen-port={free_port()}"
        command = [BIN / "ray", "start", agent, *options]
        with (self.home / f"node{len(self.nodes)}.log").open("wb") as log:
            node = subprocess.Popen(command, cwd=ROOT, env=self.env, stdout=log, stderr=log)
        self.nodes.append(node)

    def stop(self) -> None:
        # A blocking `ray start` takes its own processes with it, and no others.
        for node in reversed(self.nodes):
            node.send_signal(signal.SIGTERM)
            node.wait(60)

    def api_status(self) -> int:
        return http_status(f"http://127.0.0.1:{self.api}/api/jobs/")

    def ask(self) -> int:
        return http_status(f"http://127.0.0.1:{self.http}/v2/rerank", QUESTION)

    def info(self) -> dict[str, Any]:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.http}/info", timeout=10) as answer:
            body: dict[str, Any] = json.load(answer)
            return body

    def deploy(self, **scorer: Any) -> None:
        config = yaml.safe_load((ROOT / "deploy" / "two-nodes.yaml").read_text(encoding="utf-8"))
        config["http_options"]["port"] = self.http
        config["applications"][0]["args"]["scorer"] = scorer
        file = self.home / "serve.yaml"
        file.write_text(yaml.safe_dump(config), encoding="utf-8")
        self.run("serve", "deploy", str(file))

    def application(self) -> dict[str, Any]:
        """What `serve status` says of our application, without its log lines."""
        text = self.run("serve", "status")
        found: dict[str, Any] = yaml.safe_load(text[text.index("proxies:") :])["applications"]
        return dict(found["rerank"])


def http_status(url: str, body: Any = None) -> int:
    return http_answer(url, None if body is None else json.dumps(body).encode())[0]


def http_answer(url: str, data: bytes | None = None, request_id: str = "-") -> tuple[int, bytes]:
    headers = {"content-type": "application/json", "x-request-id": request_id}
    try:
        with urllib.request.urlopen(
            urllib.request.Request(url, data, headers), timeout=20
        ) as answer:
            return int(answer.status), answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()
    except OSError:
        return 0, b""


@dataclass
class Stream:
    """Two callers that ask without a pause; counts statuses."""

    cluster: TwoNodes
    statuses: dict[int, int] = field(default_factory=dict)
    done: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> dict[int, int]:
        self.callers = [threading.Thread(target=self._call) for _ in range(2)]
        for caller in self.callers:
            caller.start()
        return self.statuses

    def _call(self) -> None:
        while not self.done.is_set():
            status = self.cluster.ask()
            self.statuses[status] = self.statuses.get(status, 0) + 1

    def __exit__(self, *_: object) -> None:
        self.done.set()
        for caller in self.callers:
            caller.join()


@pytest.fixture(scope="module")
def cluster() -> Iterator[TwoNodes]:
    # Short: Ray's sockets lie below it, and their paths may have 107 letters.
    home = Path(tempfile.mkdtemp(prefix="r", dir="/tmp"))
    nodes = TwoNodes(home)
    try:
        nodes.start()
        nodes.deploy(model="lexical")
        wait_for("an answer", lambda: nodes.ask() == 200)
        yield nodes
    finally:
        nodes.stop()
        shutil.rmtree(home, ignore_errors=True)


def test_the_job_api_asks_for_the_token_and_the_service_answers(cluster: TwoNodes) -> None:
    assert cluster.api_status() == 401
    assert cluster.ask() == 200


def test_a_changed_config_rolls_out_without_a_failed_request(cluster: TwoNodes) -> None:
    before = cluster.info()["fingerprint"]
    with Stream(cluster) as statuses:
        cluster.deploy(model="lexical", max_length=512)
        wait_for("the new fingerprint", lambda: cluster.info()["fingerprint"] != before)
        wait_for("the old to stop", lambda: cluster.application()["status"] == "RUNNING")
    assert set(statuses) == {200}
    assert statuses[200] > 20


def test_a_bad_update_fails_no_request_and_says_why(cluster: TwoNodes) -> None:
    before = cluster.info()["fingerprint"]
    with Stream(cluster) as statuses:
        cluster.deploy(model="/there/is/no/such/folder")
        wait_for("the reason", lambda: "no folder" in str(cluster.application()))
        time.sleep(10)
    assert set(statuses) == {200}
    assert cluster.info()["fingerprint"] == before
    cluster.deploy(model="lexical", max_length=512)
    wait_for("the good one", lambda: cluster.application()["status"] == "RUNNING")


def test_a_job_runs_beside_the_service_and_its_exit_code_comes_back(cluster: TwoNodes) -> None:
    source, result = cluster.home / "in.parquet", cluster.home / "out"
    rows = {"query_id": ["1", "1"], "query": ["capital"] * 2, "doc_id": ["a", "b"]}
    pq.write_table(pa.table({**rows, "text": ["Bananas", "the capital"]}), source)
    job = ["ray", "job", "submit", "--working-dir", ".", "--", "python", "-m"]
    job += ["pipelines.rerank_job", "--input", str(source), "--output", str(result)]
    job += ["--model", "lexical", "--replicas", "1"]
    cluster.run(*job)
    assert (result / "_SUCCESS").is_file()
    assert pq.read_table(result)["rank"].to_pylist() == [2, 1]
    refused = subprocess.run(
        [BIN / job[0], *job[1:-4], "--input", "nowhere.parquet"],
        cwd=ROOT,
        env=cluster.env,
        capture_output=True,
        timeout=240,
        check=False,
    )
    assert refused.returncode == 1


def holding(folder: Path, text: str) -> list[str]:
    """The files below a folder that have this text in them."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return [str(path.relative_to(folder)) for path in files if text.encode() in path.read_bytes()]


def test_no_text_of_a_caller_or_a_job_is_in_errors_metrics_or_rays_folder(
    cluster: TwoNodes,
) -> None:
    canary, request_id = f"canary{secrets.token_hex(8)}", f"id{secrets.token_hex(8)}"
    url = f"http://127.0.0.1:{cluster.http}/v2/rerank"
    bodies: dict[int, list[Any]] = {
        200: [{"query": canary, "documents": [canary, "x"]}],
        422: [{"query": canary, "documents": canary}, {"query": canary, "documents": [canary, 5]}],
    }
    for status, asked in bodies.items():
        for body in asked:
            answer = http_answer(url, json.dumps(body).encode(), request_id)
            assert answer[0] == status
            assert status == 200 or canary.encode() not in answer[1]
    broken = http_answer(url, f'{{"query": "{canary}", "documents": ["{canary}'.encode())
    assert 400 <= broken[0] < 500
    assert canary.encode() not in broken[1]

    source, result = cluster.home / "private.parquet", cluster.home / "kept"
    rows = {"query_id": ["1", "1"], "query": [canary, None], "doc_id": ["a", "b"]}
    pq.write_table(pa.table({**rows, "text": [canary, canary]}), source)
    job = ["ray", "job", "submit", "--working-dir", ".", "--", "python", "-m"]
    job += ["pipelines.rerank_job", "--input", str(source), "--output", str(result)]
    said = cluster.run(*job, "--model", "lexical", "--replicas", "1")
    assert canary not in said
    assert [name for name in holding(result, canary) if not name.endswith(".parquet")] == []
    assert holding(result / "_quarantine", canary) == []

    ray_folder = cluster.home / "r"
    found = json.loads((ray_folder / "prom_metrics_service_discovery.json").read_text())
    metrics = [http_answer(f"http://{at}/metrics") for group in found for at in group["targets"]]
    assert any(b"ray_serve" in text for _, text in metrics)
    assert not any(canary.encode() in text for _, text in metrics)
    # The id shows that the log of these requests is among what is read.
    assert holding(ray_folder, request_id)
    assert holding(ray_folder, canary) == []
