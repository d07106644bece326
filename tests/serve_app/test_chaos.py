"""Faults under load through a real Ray Serve: nothing that a client sends may fail."""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import threading
import time
from collections import Counter
from pathlib import Path

import aiohttp
import httpx
import pytest
from ray import serve
from ray.exceptions import RayActorError
from ray.serve.context import _get_global_client
from safetensors.torch import load_file, save_file

import rerank_core
from benchmarks.simulated_scorer import simulated
from rerank_core import QueryDocumentPair, ScorerConfig, load_scorer
from serve_app.application import build
from serve_app.config import ServeConfig
from tests.serve_app.waiting import wait_for

pytestmark = [pytest.mark.slow, pytest.mark.chaos, pytest.mark.timeout(600)]

BODY = {"query": "capital of China", "documents": ["bananas", "the capital of China"] * 10}
SMALL = {"query": "capital of China", "documents": ["bananas", "the capital of China"]}


class Apart(aiohttp.BytesPayload):
    """A body in a packet of its own, as most clients send it and aiohttp does not."""

    async def write_with_length(self, writer, content_length):
        writer.send_headers()
        await asyncio.sleep(0.001)
        await super().write_with_length(writer, content_length)


class Load:
    """Clients that ask again and again, with a short pause, until the block ends.

    They share one thread. What is refused is asked again when the answer says, and counted apart.
    """

    def __init__(self, url, body=BODY, check=None, clients=8, pause_s=0.1):
        self.url, self.body, self.clients, self.pause_s = f"{url}/v2/rerank", body, clients, pause_s
        self._check = check or first_is_1
        self.outcomes = Counter()
        self.refused = 0
        self.longest_s = 0.0
        self._stopped = False
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *error):
        self._stopped = True
        self._thread.join()

    def record(self, record_property):
        record_property("requests", sum(self.outcomes.values()))
        wrong = [name for name in self.outcomes if not name.startswith("right")]
        record_property("failed", sum(self.outcomes[name] for name in wrong))

    def wait_for(self, count, seconds=240):
        deadline = time.monotonic() + seconds
        while sum(self.outcomes.values()) < count:
            assert time.monotonic() < deadline, self.outcomes
            time.sleep(0.1)

    async def _run(self):
        limits = {"connector": aiohttp.TCPConnector(limit=0)}
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(60), **limits) as session:
            await asyncio.gather(*(self._ask(session) for _ in range(self.clients)))

    async def _ask(self, session):
        while not self._stopped:
            begun = time.monotonic()
            try:
                body = Apart(json.dumps(self.body).encode(), content_type="application/json")
                async with session.post(self.url, data=body) as answer:
                    text = await answer.text()
                if answer.status == 429:
                    self.refused += 1
                    await asyncio.sleep(float(answer.headers["retry-after"]))
                    continue
                outcome = self._check(json.loads(text)) if answer.status == 200 else None
                outcome = outcome or f"{answer.status} {text}"
            except (aiohttp.ClientError, TimeoutError) as error:
                outcome = repr(error)
            self.outcomes[outcome] += 1
            self.longest_s = max(self.longest_s, time.monotonic() - begun)
            await asyncio.sleep(self.pause_s)


def first_is_1(answer):
    """Return "right" for a right answer."""
    return "right" if answer["results"][0]["index"] == 1 else None


def replica_pids(app="rerank"):
    """Ask often enough to meet every replica of the few there are."""
    handle = serve.get_deployment_handle("Scorer", app)
    found = set()
    for _ in range(10):
        try:
            found.add(handle.pid.remote().result(timeout_s=60))
        except RayActorError:
            continue
    return found


def wait_for_two(killed, app="rerank", seconds=180):
    deadline = time.monotonic() + seconds
    while len(alive := replica_pids(app) - killed) < 2:
        assert time.monotonic() < deadline, "replicas did not come back"
        time.sleep(0.5)
    return alive


def run_two(settings, load=load_scorer):
    """Run an application at /chaos, with two scorers and else as shipped."""
    two = {"min_replicas": 2, "max_replicas": 2, "cpus_per_replica": 0.5}
    scaling = {**two, **settings.get("scaling", {})}
    config = ServeConfig.model_validate({**settings, "scaling": scaling})
    serve.run(build(config, load), name="chaos", route_prefix="/chaos")


@contextlib.contextmanager
def deployed(url, wait_ready, settings, load=load_scorer):
    """Run an application at /chaos as long as the block lasts; yields its URL."""
    run_two(settings, load)
    try:
        wait_ready(f"{url}/chaos")
        yield f"{url}/chaos"
    finally:
        serve.delete("chaos")


def test_killed_replicas_that_hold_sixty_units_cost_no_request(
    serve_instance, wait_ready, record_property
):
    kills = int(os.environ.get("RAY_RERANK_KILLS", "5"))
    killed, held = set(), []
    # 1,000 words a second: a replica does 70 of these small requests in one.
    with deployed(serve_instance, wait_ready, {"model": "lexical"}, simulated(1_000)) as url:
        asked = serve.get_deployment_handle("Scorer", "chaos")
        with Load(url, SMALL, first_is_0, clients=125, pause_s=0.0) as load:
            for number in range(kills):
                load.wait_for(200 * number)
                alive = wait_for_two(killed, "chaos")
                answers = asked.broadcast("state").results(timeout_s=60)
                units = [state["queued_callers"] + state["running_callers"] for state in answers]
                held.append(max(units))
                pid = alive.pop()
                os.kill(pid, signal.SIGKILL)
                killed.add(pid)
            load.wait_for(200 * kills)
            wait_for_two(killed, "chaos")
    load.record(record_property)
    record_property("kills", len(killed))
    record_property("units held", f"{min(held)} to {max(held)}")
    record_property("refused meanwhile", load.refused)
    assert set(load.outcomes) == {"right"}
    assert len(killed) == kills


def gateway_pids(app):
    """Return the processes of the gateways that run."""
    details = _get_global_client().get_serve_details()
    gateways = details["applications"][app]["deployments"]["Gateway"]["replicas"]
    return {gateway["pid"] for gateway in gateways if gateway["state"] == "RUNNING"}


def test_killed_gateways_cost_no_request(serve_instance, wait_ready, record_property):
    killed = set()
    settings = {"model": "lexical", "scaling": {"gateways": 2}}
    # A request takes a fifth of a second, so a gateway dies with some in its hands.
    body = {**SMALL, "documents": SMALL["documents"] * 10}
    with (
        deployed(serve_instance, wait_ready, settings, simulated(1_000)) as url,
        Load(url, body, first_half_first, pause_s=0.0) as load,
    ):
        for number in range(5):
            load.wait_for(40 * (number + 1))
            wait_for(lambda: len(gateway_pids("chaos") - killed) == 2, "two gateways", 120)
            pid = (gateway_pids("chaos") - killed).pop()
            os.kill(pid, signal.SIGKILL)
            killed.add(pid)
        load.wait_for(300)
    load.record(record_property)
    record_property("kills", len(killed))
    record_property("slowest answer s", round(load.longest_s, 1))
    assert (set(load.outcomes), load.refused) == ({"right"}, 0)


def first_half_first(answer):
    """Return "right" for an answer that has all shorter documents, the even ones, first."""
    ranked = [hit["index"] % 2 for hit in answer["results"]]
    return "right" if ranked == [0] * 10 + [1] * 10 else None


def first_is_0(answer):
    """Return "right" for an answer that has the shorter document first."""
    return "right" if [hit["index"] for hit in answer["results"]] == [0, 1] else None


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
    assert (set(load.outcomes), load.refused) == ({"right"}, 0)
    assert load.longest_s < 10
    # Serve kills what does not stop by itself, once its time to drain is over.
    wait_for(lambda: not states().get("STOPPING"), "killing the frozen process", 120)


def states():
    return serve.status().applications["rerank"].deployments["Scorer"].replica_states


def test_a_rolling_update_costs_no_request(service, record_property):
    settings = {
        "model": "lexical",
        "limits": {"max_documents": 950},
        "scaling": {"min_replicas": 2, "max_replicas": 2, "cpus_per_replica": 0.5},
    }
    before = replica_pids()
    with Load(service) as load:
        load.wait_for(100)
        serve.run(build(ServeConfig.model_validate(settings)), name="rerank", route_prefix="/")
        deadline = time.monotonic() + 180
        while httpx.get(f"{service}/info", timeout=30).json()["limits"]["max_documents"] != 950:
            assert time.monotonic() < deadline, "the update did not arrive"
            time.sleep(0.5)
        wait_for_two(before)
        load.wait_for(1500)
    load.record(record_property)
    assert (set(load.outcomes), load.refused) == ({"right"}, 0)


@pytest.fixture
def other_model(tmp_path):
    """The embedded model with a head that says something else."""
    folder = tmp_path / "other"
    shutil.copytree(Path(rerank_core.__file__).parent / "embedded", folder)
    weights = load_file(folder / "model.safetensors")
    weights["classifier.weight"] *= 0.5
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def test_an_update_to_another_model_merges_no_scores_of_two(
    serve_instance, wait_ready, other_model, record_property
):
    models = {
        "embedded": {"model": "embedded", "threads": 1},
        "other": {"model": str(other_model), "threads": 1},
    }
    text = "the capital of a country is where its government sits and many people live. "
    documents = [f"{i} {text[i:] * 6}" for i in range(40)]
    body = {"query": "capital of China", "documents": documents, "raw_scores": True}
    pairs = [QueryDocumentPair(body["query"], document) for document in documents]
    scores = {
        name: load_scorer(ScorerConfig(**model)).score(pairs).raw.tolist()
        for name, model in models.items()
    }

    def whole(answer):
        given = {hit["index"]: hit["relevance_score"] for hit in answer["results"]}
        for name, right in scores.items():
            if all(abs(given[i] - score) < 1e-3 for i, score in enumerate(right)):
                return f"right {name}"
        return None

    with (
        deployed(serve_instance, wait_ready, models["embedded"]) as url,
        Load(url, body, whole, clients=3, pause_s=0.0) as load,
    ):
        # Most of the requests are those while it changes; each takes a second of this machine.
        load.wait_for(6)
        for name in ("other", "embedded"):
            before = replica_pids("chaos")
            run_two(models[name])
            wait_for_two(before, "chaos")
            load.wait_for(sum(load.outcomes.values()) + 6)
    load.record(record_property)
    assert (set(load.outcomes), load.refused) == ({"right embedded", "right other"}, 0)


def test_clients_that_leave_free_their_work(service, record_property):
    body = {"query": "q", "documents": ["word " * 50] * 500}
    for _ in range(20):
        with pytest.raises(httpx.TimeoutException):
            httpx.post(f"{service}/v2/rerank", json=body, timeout=0.02)
    with Load(service, clients=4) as load:
        load.wait_for(50)
    load.record(record_property)
    assert (set(load.outcomes), load.refused) == ({"right"}, 0)
    handle = serve.get_deployment_handle("Scorer", "rerank")
    states = [handle.state.remote().result(timeout_s=30) for _ in range(10)]
    assert {(state["queued_callers"], state["queued_tokens"]) for state in states} == {(0, 0)}
