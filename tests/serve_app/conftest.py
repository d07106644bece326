"""A gateway without Ray for fast tests, and one real local Ray with the service for slow ones."""

import asyncio
import contextlib
import socket
import threading
import warnings
from types import SimpleNamespace

import httpx
import numpy as np
import pytest
import uvicorn

with warnings.catch_warnings():
    # Ray declares its own pydantic fields in a deprecated way; ours must stay free of it.
    warnings.simplefilter("ignore")
    import ray.serve  # noqa: F401

from rerank_core import PairScores
from serve_app.config import ServeConfig
from serve_app.gateway import Gateway
from serve_app.http import upgrades
from serve_app.pool import UnitScores
from tests.serve_app.local_pool import LocalPool
from tests.serve_app.raw_http import stays_open
from tests.serve_app.waiting import wait_for


class FixedPool(LocalPool):
    """Answers with the numbers written in the documents, as raw scores; 10 tokens a pair."""

    async def score(self, unit):
        self.units.append(unit)
        raw = np.array([float(pair.document.split()[0]) for pair in unit.pairs], np.float32)
        n = len(raw)
        truncated = np.array(["long" in pair.document for pair in unit.pairs])
        scores = PairScores(raw, np.full(n, 10, np.int32), truncated)
        return UnitScores(scores, self.model, 0.001, 0.002)


class StuckPool(LocalPool):
    """Never answers; counts how many units were cancelled."""

    def __init__(self):
        super().__init__()
        self.cancelled = 0

    async def score(self, unit):
        self.units.append(unit)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise


class FailingPool(LocalPool):
    """Raises each of the given errors once, in order; then answers."""

    def __init__(self, *errors):
        super().__init__()
        self.errors = list(errors)

    async def score(self, unit):
        if self.errors:
            self.units.append(unit)
            raise self.errors.pop(0)
        return await super().score(unit)


def client_of(gateway):
    transport = httpx.ASGITransport(app=gateway)
    return httpx.AsyncClient(transport=transport, base_url="http://rerank.test")


class Caller:
    """Sends requests to a gateway from tests that are not async."""

    def __init__(self, gateway):
        self.gateway = gateway

    def send(self, method, path, **options):
        async def go():
            async with client_of(self.gateway) as client:
                return await client.request(method, path, **options)

        return asyncio.run(go())

    def post(self, path, body, **options):
        return self.send("POST", path, json=body, **options)


@contextlib.contextmanager
def over_http(gateway, **options):
    """Serve a gateway on a loopback port from a thread; yields the base URL."""
    options = {"log_config": None, "lifespan": "off", **options}
    server = uvicorn.Server(uvicorn.Config(gateway, host="127.0.0.1", port=0, **options))
    sock = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{sock.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(timeout=10)
        sock.close()


def lexical(**settings):
    return ServeConfig.model_validate({"model": "lexical", **settings})


@pytest.fixture
def pools():
    """The pool classes, because tests cannot import a conftest."""
    return SimpleNamespace(local=LocalPool, fixed=FixedPool, stuck=StuckPool, failing=FailingPool)


@pytest.fixture
def serve_over_http():
    """Return the context manager that serves a gateway on a loopback port."""
    return over_http


@pytest.fixture
def serve_as_ray_does(monkeypatch):
    """Return the context manager behind a server of a process in which our callback was called."""
    monkeypatch.setattr(uvicorn.config, "HTTP_PROTOCOLS", dict(uvicorn.config.HTTP_PROTOCOLS))
    monkeypatch.setattr(upgrades, "HTTP_PROTOCOLS", uvicorn.config.HTTP_PROTOCOLS)

    def serve(app):
        for middleware in reversed(upgrades.callback()):
            app = middleware.cls(app)
        return over_http(app)

    return serve


@pytest.fixture
def fixed():
    """A gateway whose scores are the numbers in the documents."""
    return Caller(Gateway(lexical(), {"lexical": FixedPool()}))


@pytest.fixture
def pool():
    """A pool in this process that keeps what it was sent."""
    return LocalPool()


@pytest.fixture
def gateway_of():
    """Build a Caller from settings and a pool."""

    def build(pool=None, api_keys=None, **settings):
        return Caller(
            Gateway(lexical(**settings), {"lexical": pool or LocalPool()}, api_keys=api_keys)
        )

    return build


@pytest.fixture(scope="session")
def service(serve_instance, wait_ready):
    """The real application with two lexical replicas; yields the base URL."""
    from ray import serve

    from serve_app import app

    config = lexical(
        scaling={"min_replicas": 2, "max_replicas": 2, "cpus_per_replica": 0.5},
        model_names=["ours/rerank"],
        cors_origins=["https://app.example"],
    )
    serve.run(app(config), name="rerank", route_prefix="/")
    wait_ready(serve_instance)
    return serve_instance


@pytest.fixture(scope="session")
def fused(serve_instance, wait_ready):
    """One process with gateway and scorer, mounted below /fused; returns its base URL."""
    from ray import serve

    from serve_app import app

    config = lexical(scaling={"cpus_per_replica": 0.1})
    serve.run(app(config), name="fused", route_prefix="/fused")
    wait_ready(f"{serve_instance}/fused")
    # HAProxy is loaded again for a new application, and closes what was open.
    wait_for(lambda: stays_open(serve_instance), "connections that stay open", 120)
    return f"{serve_instance}/fused"


@pytest.fixture(scope="session")
def mounted(serve_instance, wait_ready):
    """A second application with two models below /rerank-service; returns its base URL."""
    from ray import serve

    from serve_app import app

    config = lexical(models={"second": {"model": "lexical"}}, scaling={"cpus_per_replica": 0.1})
    serve.run(app(config), name="mounted", route_prefix="/rerank-service")
    wait_ready(f"{serve_instance}/rerank-service")
    return f"{serve_instance}/rerank-service"
