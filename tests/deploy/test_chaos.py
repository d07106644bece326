"""Faults of the cluster under load: proxy, controller, control store, node, and bad updates."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

pytestmark = [pytest.mark.slow, pytest.mark.chaos, pytest.mark.timeout(900)]

HERE = Path(__file__).parent
SCALING = {"min_replicas": 2, "max_replicas": 2, "cpus_per_replica": 1}
GOOD = {"scorer": {"model": "lexical"}, "scaling": SCALING}
BODY = {"query": "capital of China", "documents": ["bananas", "the capital of China"] * 5}
# As the manual has it for a single machine: three missed checks make a proxy dead.
QUICK_PROXY = {"RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "0.5"}


class Remote:
    """The cluster's process; `ask` sends it one command."""

    def __init__(self, process: subprocess.Popen[str], url: str) -> None:
        self.process, self.url = process, url

    def ask(self, command: str, *values: Any) -> Any:
        if command != "started":
            self.process.stdin.write(json.dumps([command, *values]) + "\n")
            self.process.stdin.flush()
        line = self.process.stdout.readline()
        assert line, f"the cluster's process ended at {command!r}"
        return json.loads(line)

    def wait_for(self, what: str, done: Callable[[dict[str, Any]], bool], limit_s: float) -> float:
        """Wait until the application's status is as wanted; returns the seconds it took."""
        begun = time.monotonic()
        status: Any = None
        while time.monotonic() - begun < limit_s:
            status = self.ask("status")
            if done(status):
                return time.monotonic() - begun
            time.sleep(0.5)
        raise AssertionError(f"not within {limit_s} s: {what}; last seen {status}")

    def serving(self, limit_s: float = 180) -> float:
        return self.wait_for(
            "two scorers of a running application",
            lambda s: s["status"] == "RUNNING" and s["scorers"] == 2,
            limit_s,
        )


@contextmanager
def cluster(
    *, nodes: int = 1, cpus: int = 8, proxies: str = "head", env: dict[str, str] | None = None
) -> Iterator[Remote]:
    """The service on its own cluster, answering."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    # Short: Ray's sockets lie below it, and their paths may have 107 letters.
    with tempfile.TemporaryDirectory(prefix="r", dir="/tmp", ignore_cleanup_errors=True) as home:
        settings = {
            **os.environ,
            "RAY_TMPDIR": home,
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_AUTH_MODE": "disabled",
            "RAY_raylet_start_wait_time_s": "150",
            "PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parents[1])]),
            **(env or {}),
        }
        command = [sys.executable, str(HERE / "faulty_cluster.py")]
        command += [str(port), str(nodes), str(cpus), proxies]
        with (
            open(f"{home}/cluster.log", "w+") as log,
            subprocess.Popen(
                command,
                env=settings,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            ) as process,
        ):
            remote = Remote(process, f"http://127.0.0.1:{port}")
            try:
                remote.ask("started")
                remote.ask("deploy", GOOD)
                remote.serving()
                wait_ready(remote.url)
                yield remote
            except BaseException:
                log.seek(0)
                print(log.read()[-3000:])
                raise
            finally:
                process.stdin.close()
                try:
                    process.wait(90)
                except subprocess.TimeoutExpired:
                    process.kill()


def wait_ready(url: str, limit_s: float = 60) -> None:
    end = time.monotonic() + limit_s
    while time.monotonic() < end:
        try:
            if httpx.get(f"{url}/health/ready", timeout=5).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.2)
    raise AssertionError("the service did not become ready")


class Load:
    """Four clients that ask ten times a second each; a broken connection is tried once more."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.outcomes: Counter[str] = Counter()
        self.retried = 0
        self.longest_gap_s = 0.0
        self._last = time.monotonic()
        self._stop, self._lock = threading.Event(), threading.Lock()
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(4)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        self.wait_for_more(40)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    @property
    def total(self) -> int:
        return sum(self.outcomes.values())

    @property
    def failed(self) -> int:
        return self.total - self.outcomes["right"]

    def wait_for_more(self, count: int, limit_s: float = 120) -> None:
        wanted, end = self.outcomes["right"] + count, time.monotonic() + limit_s
        while self.outcomes["right"] < wanted:
            assert time.monotonic() < end, self.outcomes
            time.sleep(0.05)

    def record(self, record_property: Callable[[str, object], None]) -> None:
        record_property("requests", self.total)
        record_property("failed", self.failed)
        record_property("sent again", self.retried)
        record_property("longest gap s", round(self.longest_gap_s, 1))

    def _run(self) -> None:
        client = httpx.Client(base_url=self.url, timeout=30)
        while not self._stop.wait(0.1):
            try:
                outcome = self._ask(client)
            except httpx.TransportError:
                client.close()
                client = httpx.Client(base_url=self.url, timeout=30)
                try:
                    outcome = self._ask(client)
                    self.retried += 1
                except httpx.TransportError as error:
                    outcome = type(error).__name__
            with self._lock:
                self.outcomes[outcome] += 1
                if outcome == "right":
                    now = time.monotonic()
                    self.longest_gap_s = max(self.longest_gap_s, now - self._last)
                    self._last = now
        client.close()

    def _ask(self, client: httpx.Client) -> str:
        answer = client.post("/v2/rerank", json=BODY)
        right = answer.status_code == 200 and answer.json()["results"][0]["index"] == 1
        return "right" if right else f"{answer.status_code} {answer.text}"


@pytest.fixture(scope="module")
def one_node() -> Iterator[Remote]:
    """A cluster whose head does all, for faults that leave it whole."""
    with cluster(env=QUICK_PROXY) as remote:
        yield remote


def test_a_killed_controller_costs_no_request(one_node, record_property):
    with Load(one_node.url) as load:
        one_node.ask("kill", "ServeController")
        load.wait_for_more(200)
        one_node.serving()
        load.wait_for_more(100)
    load.record(record_property)
    assert set(load.outcomes) == {"right"}


def test_a_killed_proxy_on_the_only_machine_comes_back_by_itself(one_node, record_property):
    with Load(one_node.url) as load:
        one_node.ask("kill", "ProxyActor")
        load.wait_for_more(100)
    load.record(record_property)
    # The new proxy answers 404 until the controller has told it the routes.
    dark = {"ConnectError", "RemoteProtocolError", "ReadError", "404"}
    assert {outcome.split()[0] for outcome in load.outcomes} <= {"right", *dark}
    # Without the setting above it was 32 s. Most of it is a process that starts.
    assert load.longest_gap_s < 20


BAD_UPDATES = {
    "a missing model": ("serve_app:app", {"model": "/there/is/no/such/folder"}, "no folder"),
    "a revision that is not staged": (
        "serve_app:app",
        {
            "model": "BAAI/bge-reranker-v2-m3",
            "revision": "0000000000000000000000000000000000000000",
            "local_files_only": True,
        },
        "bge-reranker-v2-m3",
    ),
    "a model too large for the device": (
        "faulty_cluster:too_large",
        {"model": "lexical", "max_length": 256},
        "out of memory",
    ),
}


@pytest.mark.parametrize("fault", BAD_UPDATES)
def test_a_bad_update_fails_no_request_and_says_why(one_node, fault, record_property):
    target, scorer, reason = BAD_UPDATES[fault]
    before = httpx.get(f"{one_node.url}/info", timeout=30).json()["fingerprint"]
    with Load(one_node.url) as load:
        one_node.ask("deploy", {**GOOD, "scorer": scorer}, target)
        seconds = one_node.wait_for("the reason", lambda s: reason in s["message"], 120)
        load.wait_for_more(200)
    load.record(record_property)
    record_property("reason shown after s", round(seconds, 1))
    assert set(load.outcomes) == {"right"}
    assert httpx.get(f"{one_node.url}/info", timeout=30).json()["fingerprint"] == before
    one_node.ask("deploy", GOOD)
    one_node.serving()


def test_two_proxies_cover_for_one_that_is_killed(record_property):
    with cluster(nodes=2, cpus=2, proxies="every", env=QUICK_PROXY) as remote:
        # Both have the port: on one machine the kernel shares connections out between them.
        end = time.monotonic() + 60
        while remote.ask("count", "ProxyActor") < 2:
            assert time.monotonic() < end, "no second proxy"
            time.sleep(0.5)
        with Load(remote.url) as load:
            remote.ask("kill", "ProxyActor")
            load.wait_for_more(1000)
    load.record(record_property)
    assert load.failed <= load.total / 1000
    assert load.longest_gap_s < 5


def test_a_lost_node_costs_no_request(record_property):
    # One scorer on each of the two nodes beside the head.
    with cluster(nodes=3, cpus=1) as remote, Load(remote.url) as load:
        assert remote.ask("lose_node") == 2
        remote.wait_for("one scorer left", lambda s: s["scorers"] == 1, 60)
        assert remote.ask("add_node") == 3
        seconds = remote.serving()
        load.wait_for_more(100)
    load.record(record_property)
    record_property("two replicas again after s", round(seconds, 1))
    assert set(load.outcomes) == {"right"}


def test_a_control_store_that_keeps_its_state_may_be_away_for_12_s(tmp_path, record_property):
    env = {"RAY_gcs_storage": "rocksdb", "RAY_gcs_storage_path": str(tmp_path / "gcs")}
    with cluster(env=env) as remote, Load(remote.url) as load:
        remote.ask("lose_gcs", 12)
        load.wait_for_more(100)
        seconds = remote.serving(60)
        more = {**GOOD, "scaling": {**SCALING, "min_replicas": 3, "max_replicas": 3}}
        remote.ask("deploy", more)
        remote.wait_for("a third scorer", lambda s: s["scorers"] == 3, 120)
    load.record(record_property)
    record_property("running again after s", round(seconds, 1))
    assert set(load.outcomes) == {"right"}


def test_requests_are_answered_while_a_control_store_without_state_is_away(record_property):
    with cluster() as remote, Load(remote.url) as load:
        threading.Thread(target=remote.ask, args=("lose_gcs", 12), daemon=True).start()
        end = time.monotonic() + 11
        while time.monotonic() < end:
            time.sleep(0.1)
        # What comes after is a cluster without memory: the manual says to deploy again.
    load.record(record_property)
    assert set(load.outcomes) == {"right"}
    assert load.total > 200
