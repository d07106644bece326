"""A gateway without Ray for fast tests, and one real local Ray with the service for slow ones."""

import socket
import time
import warnings

import httpx
import numpy as np
import pytest

with warnings.catch_warnings():
    # Ray declares its own pydantic fields in a deprecated way; ours must stay free of it.
    warnings.simplefilter("ignore")
    import ray.serve  # noqa: F401

from rerank_core import PairScores, ScorerConfig, load_scorer
from serve_app.config import ServeConfig
from serve_app.gateway import Gateway
from serve_app.work_units import UnitScores


class LocalPool:
    """A ScoringPool in this process: the shipped lexical scorer, and a list of what it was sent."""

    def __init__(self, config=None):
        self.scorer = load_scorer(config or ScorerConfig(model="lexical"))
        self.units = []

    async def score(self, unit):
        self.units.append(unit)
        return UnitScores(self.scorer.score(unit.pairs), queue_s=0.001, inference_s=0.002)

    async def info(self):
        return self.scorer.info


class FixedPool(LocalPool):
    """Answers with the numbers written in the documents, as raw scores; 10 tokens a pair."""

    async def score(self, unit):
        self.units.append(unit)
        raw = np.array([float(pair.document.split()[0]) for pair in unit.pairs], np.float32)
        n = len(raw)
        truncated = np.array(["long" in pair.document for pair in unit.pairs])
        return UnitScores(PairScores(raw, np.full(n, 10, np.int32), truncated), 0.001, 0.002)


def client_of(gateway):
    transport = httpx.ASGITransport(app=gateway)
    return httpx.AsyncClient(transport=transport, base_url="http://rerank.test")


class Caller:
    """Sends requests to a gateway from tests that are not async."""

    def __init__(self, gateway):
        self.gateway = gateway

    def send(self, method, path, **options):
        import asyncio

        async def go():
            async with client_of(self.gateway) as client:
                return await client.request(method, path, **options)

        return asyncio.run(go())

    def post(self, path, body, **options):
        return self.send("POST", path, json=body, **options)


def lexical(**settings):
    return ServeConfig.model_validate({"model": "lexical", **settings})


@pytest.fixture
def fixed():
    """A gateway whose scores are the numbers in the documents."""
    return Caller(Gateway(lexical(), {"lexical": FixedPool()}))


@pytest.fixture
def gateway_of():
    """Build a Caller from settings and a pool."""

    def build(pool=None, **settings):
        return Caller(Gateway(lexical(**settings), {"lexical": pool or LocalPool()}))

    return build


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


@pytest.fixture(scope="session")
def serve_instance(local_ray):
    """Serve on a free loopback port of the session's Ray; yields the base URL."""
    from ray import serve

    port = free_port()
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    yield f"http://127.0.0.1:{port}"
    serve.shutdown()


@pytest.fixture(scope="session")
def service(serve_instance):
    """The real application with two lexical replicas; yields the base URL."""
    from ray import serve

    from serve_app import app

    config = lexical(scaling={"min_replicas": 2, "max_replicas": 2, "cpus_per_replica": 0.5})
    serve.run(app(config), name="rerank", route_prefix="/")
    wait_ready(serve_instance)
    return serve_instance


def wait_ready(url, seconds=60):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if httpx.get(f"{url}/health/ready", timeout=5).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.2)
    raise AssertionError("the service did not become ready")
