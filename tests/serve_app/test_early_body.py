"""Small bodies that go to the gateway with their request, through a real local Ray Serve."""

import httpx
import pytest
from ray import serve
from starlette.requests import Request

from benchmarks.simulated_scorer import simulated
from serve_app.application import build
from serve_app.config import ServeConfig
from tests.serve_app.raw_http import exchange, head
from tests.serve_app.test_service import log_lines

pytestmark = pytest.mark.slow

BODY = b'{"query": "q", "documents": ["q"]}'


@serve.deployment(ray_actor_options={"num_cpus": 0.1})
class Echo:
    async def __call__(self, request: Request) -> bytes:
        return await request.body()


@pytest.fixture
def deployed(serve_instance):
    """Deploys an application below a path of its own; yields what does."""
    names = []

    def deploy(application, name):
        names.append(name)
        serve.run(application, name=name, route_prefix=f"/{name}")
        return f"{serve_instance}/{name}"

    yield deploy
    for name in names:
        serve.delete(name, _blocking=False)


def test_another_application_with_such_a_path_gets_its_body(deployed):
    at = deployed(Echo.bind(), "echo")
    assert httpx.post(f"{at}/rerank", content=BODY).content == BODY


def test_a_body_in_two_segments_is_served_whole(service):
    received = exchange(service, head(len(BODY), "connection: close"), BODY[:9], BODY[9:])
    assert received.startswith(b"HTTP/1.1 200")


def test_a_client_that_left_cancels_its_request(deployed, wait_ready):
    config = ServeConfig.model_validate({"model": "lexical", "scaling": {"cpus_per_replica": 0.1}})
    at = deployed(build(config, simulated(1e6, fixed_s=3.0)), "sleepy")
    wait_ready(at)
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{at}/rerank", content=BODY, headers={"x-request-id": "left"}, timeout=1)
    (line,) = log_lines("left", application="sleepy")
    assert line["status"] == 499
