"""A deployed Serve file changes live, and an idle model goes to zero and comes back."""

import httpx
import pytest
from ray import serve

from tests.serve_app.waiting import wait_for

pytestmark = pytest.mark.slow

BODY = {"query": "capital of China", "documents": ["bananas", "the capital of China"]}
SCALING = {"cpus_per_replica": 0.1}


def deploy(user_config):
    """Deploy as `serve deploy` does, with these settings for the running gateway."""
    from ray.serve.context import _get_global_client
    from ray.serve.schema import ServeDeploySchema

    application = {
        "name": "live",
        "route_prefix": "/live",
        "import_path": "serve_app:app",
        "args": {"model": "lexical", "scaling": SCALING},
        # One replica each: a file that names both deployments stays valid.
        "deployments": [{"name": "Gateway", "user_config": user_config}, {"name": "Scorer"}],
    }
    schema = ServeDeploySchema.model_validate({"applications": [application]})
    _get_global_client().deploy_apps(schema, _blocking=True)


def test_user_config_changes_limits_live_and_a_wrong_one_changes_nothing(
    serve_instance, wait_ready
):
    url = f"{serve_instance}/live"

    def limits():
        return httpx.get(f"{url}/info").json()["limits"]

    try:
        deploy({"limits": {"max_documents": 5}})
        wait_ready(url)
        assert limits()["max_documents"] == 5
        deploy({"limits": {"max_documents": 1}})
        wait_for(lambda: limits()["max_documents"] == 1)
        assert httpx.post(f"{url}/v2/rerank", json=BODY).status_code == 422
        deploy({"limits": {"max_documents": 9, "max_document": 9}})
        deploy({"limits": {"max_query_characters": 99}})
        wait_for(lambda: limits()["max_query_characters"] == 99)
        # What is left out is as deployed: a gateway that starts now would have the same.
        assert limits()["max_documents"] == 1000
        assert httpx.post(f"{url}/v2/rerank", json=BODY).status_code == 200
    finally:
        serve.delete("live", _blocking=False)


def test_an_idle_model_goes_to_zero_and_comes_back_for_a_request(serve_instance):
    from serve_app import app
    from serve_app.config import ServeConfig

    scaling = {
        **SCALING,
        "min_replicas": 0,
        "upscale_delay_s": 0,
        "downscale_delay_s": 1,
        "look_back_period_s": 10.1,
    }
    url = f"{serve_instance}/zero"

    def replicas():
        states = serve.status().applications["zero"].deployments["Scorer"].replica_states
        return states.get("RUNNING", 0)

    config = ServeConfig.model_validate({"model": "lexical", "scaling": scaling})
    serve.run(app(config), name="zero", route_prefix="/zero")
    try:
        for _ in range(2):
            wait_for(lambda: replicas() == 0, seconds=120)
            # Readiness must not start what nobody needs.
            assert httpx.get(f"{url}/health/ready").status_code == 200
            assert httpx.post(f"{url}/v2/rerank", json=BODY, timeout=60).status_code == 200
            assert replicas() == 1
    finally:
        serve.delete("zero", _blocking=False)
