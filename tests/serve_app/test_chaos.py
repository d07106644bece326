"""Faults under load through a real Ray Serve: nothing that a client sends may fail."""

import os
import signal
import threading
import time
from collections import Counter

import httpx
import pytest
from ray import serve
from ray.exceptions import RayActorError

from tests.serve_app.waiting import wait_for

pytestmark = [pytest.mark.slow, pytest.mark.chaos, pytest.mark.timeout(600)]

BODY = {"query": "capital of China", "documents": ["bananas", "the capital of China"] * 10}


class Load:
    """Clients that ask again and again, with a short pause, until the block ends."""

    def __init__(self, url, clients=8, pause_s=0.1):
        self.url, self.pause_s = url, pause_s
        self.outcomes = Counter()
        self.longest_s = 0.0
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(clients)]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error):
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def record(self, record_property):
        record_property("requests", sum(self.outcomes.values()))
        record_property("failed", sum(self.outcomes.values()) - self.outcomes["right"])

    def wait_for(self, count, seconds=240):
        deadline = time.monotonic() + seconds
        while sum(self.outcomes.values()) < count:
            assert time.monotonic() < deadline, self.outcomes
            time.sleep(0.1)

    def _run(self):
        with httpx.Client(base_url=self.url, timeout=60) as client:
            while not self._stop.wait(self.pause_s):
                begun = time.monotonic()
                try:
                    answer = client.post("/v2/rerank", json=BODY)
                    outcome = "right" if right(answer) else f"{answer.status_code} {answer.text}"
                except httpx.TransportError as error:
                    outcome = repr(error)
                with self._lock:
                    self.outcomes[outcome] += 1
                    self.longest_s = max(self.longest_s, time.monotonic() - begun)


def right(answer):
    return answer.status_code == 200 and answer.json()["results"][0]["index"] == 1


def replica_pids():
    """Ask often enough to meet every replica of the few there are."""
    handle = serve.get_deployment_handle("Scorer", "rerank")
    found = set()
    for _ in range(10):
        try:
            found.add(handle.pid.remote().result(timeout_s=60))
        except RayActorError:
            continue
    return found


def wait_for_two(killed, seconds=180):
    deadline = time.monotonic() + seconds
    while len(alive := replica_pids() - killed) < 2:
        assert time.monotonic() < deadline, "replicas did not come back"
        time.sleep(0.5)
    return alive


def test_five_killed_replicas_cost_no_request_of_2000(service, record_property):
    killed = set()
    with Load(service) as load:
        for _ in range(5):
            pid = wait_for_two(killed).pop()
            os.kill(pid, signal.SIGKILL)
            killed.add(pid)
        load.wait_for(2000)
    load.record(record_property)
    assert set(load.outcomes) == {"right"}
    assert len(killed) == 5
    wait_for_two(killed)


def test_a_frozen_replica_costs_its_callers_a_hedge_and_is_replaced(service, record_property):
    frozen = wait_for_two(set()).pop()
    with Load(service) as load:
        # Enough answers that the gateway knows how long a unit takes.
        load.wait_for(100)
        begun = time.monotonic()
        os.kill(frozen, signal.SIGSTOP)
        wait_for(lambda: states().get("STOPPING"), "giving up the frozen replica", 120)
        given_up_s = time.monotonic() - begun
        wait_for(lambda: states().get("RUNNING") == 2, "another in its place", 120)
        replaced_s = time.monotonic() - begun
    load.record(record_property)
    record_property("slowest answer s", round(load.longest_s, 1))
    record_property("given up after s", round(given_up_s, 1))
    record_property("replaced after s", round(replaced_s, 1))
    assert set(load.outcomes) == {"right"}
    assert load.longest_s < 10
    # Serve kills what does not stop by itself, once its time to drain is over.
    wait_for(lambda: not states().get("STOPPING"), "killing the frozen process", 120)


def states():
    return serve.status().applications["rerank"].deployments["Scorer"].replica_states


def test_a_rolling_update_costs_no_request(service, record_property):
    from serve_app import app
    from serve_app.config import ServeConfig

    settings = {
        "model": "lexical",
        "limits": {"max_documents": 950},
        "scaling": {"min_replicas": 2, "max_replicas": 2, "cpus_per_replica": 0.5},
    }
    before = replica_pids()
    with Load(service) as load:
        load.wait_for(100)
        serve.run(app(ServeConfig.model_validate(settings)), name="rerank", route_prefix="/")
        deadline = time.monotonic() + 180
        while httpx.get(f"{service}/info", timeout=30).json()["limits"]["max_documents"] != 950:
            assert time.monotonic() < deadline, "the update did not arrive"
            time.sleep(0.5)
        wait_for_two(before)
        load.wait_for(1500)
    load.record(record_property)
    assert set(load.outcomes) == {"right"}


def test_clients_that_leave_free_their_work(service, record_property):
    body = {"query": "q", "documents": ["word " * 50] * 500}
    for _ in range(20):
        with pytest.raises(httpx.TimeoutException):
            httpx.post(f"{service}/v2/rerank", json=body, timeout=0.02)
    with Load(service, clients=4) as load:
        load.wait_for(50)
    load.record(record_property)
    assert set(load.outcomes) == {"right"}
    handle = serve.get_deployment_handle("Scorer", "rerank")
    states = [handle.state.remote().result(timeout_s=30) for _ in range(10)]
    assert {(state["queued_callers"], state["queued_tokens"]) for state in states} == {(0, 0)}
