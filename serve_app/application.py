"""From a ServeConfig to a Serve application: deployments and what each may use.

Only this module decides placement, and only it reads the environment (RAY_RERANK_API_KEYS).
Postponed annotations stay off here: with them Serve could not
see the builder's argument type and would pass a plain dict.
"""

import logging
import os
from collections.abc import Callable
from typing import Any

import click
import ray
from ray import serve
from ray._private.accelerators import get_accelerator_manager_for_resource
from ray._private.services import canonicalize_bootstrap_address
from ray.serve import Application, metrics
from ray.serve.config import RequestRouterConfig
from ray.serve.handle import DeploymentHandle
from ray.serve.schema import LoggingConfig

from rerank_core import ScorerConfig, load_scorer
from rerank_core.types import LoadedScorer
from serve_app.autoscaling import gateway_replicas, scorer_replicas
from serve_app.config import ServeConfig
from serve_app.gateway import Gateway
from serve_app.gateway.meter import Metrics, RequestMeter
from serve_app.gateway.request_log import RequestRecord
from serve_app.http.api_keys import ApiKeys
from serve_app.http.asgi import Receive, Scope, Send
from serve_app.live_settings import LiveSettings
from serve_app.ray_pool import LeastLoadedRouter, RayPool
from serve_app.replica import ScorerReplica
from serve_app.serve_command import prepare

log = logging.getLogger("ray.serve")

Load = Callable[[ScorerConfig], LoadedScorer]

# The gateway writes its own line a request; Serve's, one a unit and one a request, would cost more
# than they tell.
_LOGGING = LoggingConfig(encoding="JSON", enable_access_log=False)


_ROUTER = f"{LeastLoadedRouter.__module__}:{LeastLoadedRouter.__name__}"


@serve.ingress()
class GatewayDeployment:
    """Holds a Gateway on a replica that needs no GPU."""

    def __init__(self, config: ServeConfig, **handles: DeploymentHandle[Any]) -> None:
        pools = {
            name: RayPool(handle)
            for name, handle in zip(config.served, handles.values(), strict=True)
        }
        api_keys = ApiKeys(config.api_keys_file, os.environ.get("RAY_RERANK_API_KEYS"))
        # Serve's proxy answers with x-request-id itself.
        self._gateway = Gateway(
            config, pools, api_keys=api_keys, observe=self._observe, names_requests=False
        )
        self._drain_s = config.scaling.drain_s
        self._meter = RequestMeter(
            self._gateway.admission, Metrics(metrics.Counter, metrics.Gauge, metrics.Histogram)
        )
        self._settings = LiveSettings(self._gateway.reconfigure)

    def __serve_build_asgi_app__(self) -> Any:
        """Return the ASGI application; Serve calls this after the constructor."""
        gateway = self._gateway

        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            await gateway(scope, receive, send)

        return application

    def reconfigure(self, user_config: dict[str, Any]) -> None:
        """Take new limits, whole or not at all."""
        self._settings.take(user_config)

    def check_health(self) -> None:
        """Note that the start is over."""
        self._settings.started()

    async def drain(self) -> None:
        """Refuse what comes from now on; return when the rest is answered, or after `drain_s`."""
        await self._gateway.drain(self._drain_s)

    def _observe(self, record: RequestRecord) -> None:
        self._meter(record)
        log.info("request", extra=record.log_fields())


def app(args: ServeConfig) -> Application:
    """Build the application; `serve run serve_app:app model=...` and serve.yaml call this."""
    return build(args)


def build(args: ServeConfig, load: Load = load_scorer) -> Application:
    """Build the application with another way to load scorers; benchmarks bring simulated ones."""
    command = click.get_current_context(silent=True)
    if command and command.info_name == "run":
        # Called in the process that users start, just before it starts Ray.
        prepare()
    scorers = {
        f"model_{place}": _scorer(place, scorer, args, load)
        for place, scorer in enumerate(args.served.values())
    }
    gateway = serve.deployment(
        name="Gateway",
        **gateway_replicas(args.scaling),
        # An update starts new gateways before it stops old ones: they need no GPU.
        max_surge_percent=100,
        logging_config=_LOGGING,
        # Slow senders wait here and cost little; the work is bounded by admission.
        max_ongoing_requests=10_000,
        graceful_shutdown_timeout_s=args.scaling.drain_s,
        ray_actor_options={"num_cpus": args.scaling.gateway_cpus},
    )(GatewayDeployment)
    return gateway.bind(args, **scorers)


def _scorer(place: int, scorer: ScorerConfig, config: ServeConfig, load: Load) -> Application:
    scaling = config.scaling
    options: dict[str, Any] = {
        "name": "Scorer" if place == 0 else f"Scorer-{place}",
        **scorer_replicas(scaling),
        "max_ongoing_requests": scaling.max_ongoing_units,
        "logging_config": _LOGGING,
        "graceful_shutdown_timeout_s": scaling.drain_s,
        "request_router_config": RequestRouterConfig(
            request_router_class=_ROUTER  # type: ignore[arg-type]
        ),
        "health_check_period_s": 5,
        "health_check_timeout_s": 10,
        "ray_actor_options": {
            "num_cpus": scaling.cpus_per_replica,
            "num_gpus": _gpus(scorer, config),
        },
    }
    return serve.deployment(**options)(ScorerReplica).bind(scorer, config, load)


def _gpus(scorer: ScorerConfig, config: ServeConfig) -> float:
    asked = config.scaling.gpus_per_replica
    if asked != "auto":
        return asked
    if scorer.model == "lexical" or scorer.device == "cpu":
        return 0
    return 1 if _cluster_gpus() >= 1 else 0


def _cluster_gpus() -> float:
    if ray.is_initialized():
        resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
        return resources.get("GPU", 0)
    # `serve run` builds the application before it connects: look where it will, and let go again.
    command = click.get_current_context(silent=True)
    asked = command.params.get("address") if command else None
    address = canonicalize_bootstrap_address(asked)  # type: ignore[arg-type]
    if address is None:
        # It will start a cluster of this machine alone.
        manager = get_accelerator_manager_for_resource("GPU")
        return manager.get_current_node_num_accelerators() if manager else 0
    ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    try:
        return _cluster_gpus()
    finally:
        ray.shutdown()
