"""What Serve is told of replicas; then, on a real Ray, units spread and refused work scales."""

import asyncio
import time

import pytest
from ray import serve

from benchmarks.open_loop import answer_all, send_at_rate
from benchmarks.simulated_scorer import simulated
from serve_app.application import app, build
from serve_app.config import ServeConfig
from serve_app.scaling import DemandPolicy


def deployments(**scaling):
    """Return the gateway's and the scorer's settings as Serve takes them."""
    config = ServeConfig.model_validate({"model": "lexical", "scaling": scaling})
    gateway = app(config)._bound_deployment
    (scorer,) = gateway.init_kwargs.values()
    return gateway, scorer._bound_deployment


def test_scorers_between_two_bounds_follow_our_policy_and_serve_adds_no_delay():
    _, scorer = deployments(max_replicas=8, target_utilisation=0.6, downscale_delay_s=60)
    config = scorer._deployment_config.autoscaling_config
    assert (config.min_replicas, config.max_replicas) == (1, 8)
    assert (config.upscale_delay_s, config.downscale_delay_s) == (0, 0)
    assert config.policy.policy_kwargs == {
        "target_utilisation": 0.6,
        "upscale_delay_s": 5.0,
        "downscale_delay_s": 60.0,
    }
    assert config.policy.get_policy().__name__ == DemandPolicy.__name__


def test_units_in_work_are_still_a_way_to_scale():
    _, scorer = deployments(max_replicas=8, target_units=3, upscale_delay_s=7)
    config = scorer._deployment_config.autoscaling_config
    assert config.policy.is_default_policy_function()
    assert (config.target_ongoing_requests, config.upscale_delay_s) == (3, 7)


def test_gateways_are_fixed_unless_told_otherwise():
    gateway, _ = deployments(gateways=3)
    assert gateway._deployment_config.autoscaling_config is None
    assert gateway._deployment_config.num_replicas == 3


def test_gateways_follow_their_requests_and_spread_over_machines():
    gateway, _ = deployments(gateways=2, max_gateways=9, gateway_requests=50, gateways_per_node=1)
    config = gateway._deployment_config.autoscaling_config
    assert (config.min_replicas, config.max_replicas, config.target_ongoing_requests) == (2, 9, 50)
    assert gateway._replica_config.max_replicas_per_node == 1


def test_fewer_gateways_at_most_than_at_least_are_refused():
    with pytest.raises(ValueError, match="max_gateways must be at least gateways"):
        ServeConfig.model_validate({"scaling": {"gateways": 3, "max_gateways": 2}})


# About 24 tokens a document, as the gateway estimates and the scorer counts.
BODY = {"query": "what is it", "documents": ["word " * 20 + str(i) for i in range(100)]}


@pytest.fixture
def run(serve_instance, wait_ready):
    """Run the service with simulated scorers; yields a function that returns its base URL."""

    def start(tokens_per_s, **scaling):
        config = {"model": "lexical", "scaling": {"cpus_per_replica": 0.1, **scaling}}
        built = build(ServeConfig.model_validate(config), simulated(tokens_per_s))
        serve.run(built, name="scaled", route_prefix="/scaled")
        wait_ready(f"{serve_instance}/scaled")
        return f"{serve_instance}/scaled/v2/rerank"

    yield start
    serve.delete("scaled")


def states(method="state"):
    return serve.get_deployment_handle("Scorer", "scaled").broadcast(method).results(timeout_s=30)


@pytest.mark.slow
def test_equal_units_of_one_request_go_to_idle_replicas_in_turn(run):
    url = run(20_000, min_replicas=4, max_replicas=4)
    before = {state["replica"]: state["pairs"] for state in states()}
    large = {**BODY, "documents": BODY["documents"] * 8}
    asyncio.run(answer_all(url, [large], 1))
    scored = [state["pairs"] - before[state["replica"]] for state in states()]
    assert sum(scored) >= 800
    assert max(scored) <= 1.15 * 200


@pytest.mark.slow
def test_refused_work_starts_replicas_at_the_settings_that_ship(run):
    url = run(2_000, max_replicas=2)
    deadline = time.monotonic() + 150
    statuses = set()
    while len(states("pid")) < 2 and time.monotonic() < deadline:
        samples = asyncio.run(send_at_rate(url, [BODY], 3.0, 2.0))
        statuses |= {sample.status for sample in samples}
    assert len(states("pid")) == 2
    assert statuses == {200, 429}
