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
from ray.serve import Application, Deployment, metrics
from ray.serve.config import RequestRouterConfig
from ray.serve.handle import DeploymentHandle
from ray.serve.schema import LoggingConfig

from rerank_core import ScorerConfig, load_scorer
from rerank_core.types import LoadedScorer
from serve_app.autoscaling import gateway_replicas, gpus_of, scorer_replicas
from serve_app.config import ServeConfig
from serve_app.gateway import Gateway
from serve_app.gateway.meter import Metrics, RequestMeter
from serve_app.gateway.request_log import RequestRecord
from serve_app.gateway.tracing import note
from serve_app.http.api_keys import ApiKeys
from serve_app.http.asgi import Receive, Scope, Send
from serve_app.http.early_body import with_early_body, without_expect
from serve_app.live_settings import LiveSettings
from serve_app.pool import ReplicaReport, ScoringPool, WorkUnit
from serve_app.ray_pool import LeastLoadedRouter, RayPool
from serve_app.replica import ScorerReplica
from serve_app.serve_command import prepare

log = logging.getLogger("ray.serve")

LoadScorer = Callable[[ScorerConfig], LoadedScorer]

# The gateway writes its own line a request; Serve's, one a unit and one a request, would cost more
# than they tell.
_LOGGING = LoggingConfig(encoding="JSON", enable_access_log=False)
_HEALTH = {"health_check_period_s": 5, "health_check_timeout_s": 10}
_ROUTER = f"{LeastLoadedRouter.__module__}:{LeastLoadedRouter.__name__}"


class FusedPool:
    """The one replica of a small service, called as it is: it batches as it does behind Ray."""

    def __init__(self, replica: ScorerReplica) -> None:
        self._replica = replica
        self.score = replica.score
        self.loaded = replica.loaded

    def has_other(self, unit: WorkUnit) -> bool:
        """There is one replica."""
        return False

    async def reports(self) -> list[ReplicaReport]:
        """Return the replica's report."""
        return [await self._replica.report()]


@serve.ingress()
class GatewayDeployment:
    """Holds a Gateway, on a replica that needs no GPU; with `load` the only scorer, too."""

    def __init__(
        self, config: ServeConfig, load: LoadScorer | None, **handles: DeploymentHandle[Any]
    ) -> None:
        served = config.served
        self._scorers = [ScorerReplica(one, config, load) for one in served.values() if load]
        behind = [FusedPool(scorer) for scorer in self._scorers]
        pools: dict[str, ScoringPool] = dict(
            zip(served, behind or map(RayPool, handles.values()), strict=True)
        )
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
            receive = with_early_body(scope, receive)
            await gateway(without_expect(scope), receive, send)

        return application

    def reconfigure(self, user_config: dict[str, Any]) -> None:
        """Take new limits, whole or not at all."""
        self._settings.take(user_config)

    async def check_health(self) -> None:
        """Note that the start is over; raise when a scorer in here has stopped or failed."""
        self._settings.started()
        for scorer in self._scorers:
            await scorer.check_health()

    async def drain(self) -> None:
        """Refuse what comes from now on; return when the rest is answered, or after `drain_s`."""
        await self._gateway.drain(self._drain_s)

    def _observe(self, record: RequestRecord) -> None:
        self._meter(record)
        note(record)
        log.info("request", extra=record.log_fields())


def app(args: ServeConfig) -> Application:
    """Build the application; `serve run serve_app:app model=...` and serve.yaml call this."""
    return build(args)


def build(args: ServeConfig, load: LoadScorer = load_scorer) -> Application:
    """Build the application with another way to load scorers; benchmarks bring simulated ones."""
    command = click.get_current_context(silent=True)
    if command and command.info_name == "run":
        # Called in the process that users start, just before it starts Ray.
        prepare(command.params.get("address"))
    if args.is_fused and not (args.scaling.fused == "auto" and _in_a_file()):
        return _fused(args, load)
    scorers = {
        f"model_{place}": _scorer(place, scorer, args.by_model[name], load)
        for place, (name, scorer) in enumerate(args.served.items())
    }
    options = {
        **gateway_replicas(args.scaling),
        # An update starts new gateways before it stops old ones: they need no GPU.
        "max_surge_percent": 100,
        "ray_actor_options": {"num_cpus": args.scaling.gateway_cpus},
    }
    return _gateway(args, options).bind(args, None, **scorers)


def _in_a_file() -> bool:
    """Say whether Serve builds this from a file: such may have options for a `Scorer`."""
    return ray.is_initialized() and ray.get_runtime_context().worker.mode == ray.WORKER_MODE


def _fused(config: ServeConfig, load: LoadScorer) -> Application:
    """Return the application that is one deployment: a gateway with the scorer in it."""
    scaling = config.scaling
    gpus = gpus_of(config.scorer, config)
    options = {
        **_HEALTH,
        "num_replicas": 1,
        # A second one beside it needs a GPU of its own, which few have that need one replica.
        "max_surge_percent": 0 if gpus else 100,
        "ray_actor_options": {
            "num_cpus": scaling.gateway_cpus + scaling.cpus_per_replica,
            "num_gpus": gpus,
        },
    }
    return _gateway(config, options).bind(config, load)


def _gateway(config: ServeConfig, options: dict[str, Any]) -> Deployment:
    return serve.deployment(
        name="Gateway",
        **options,
        logging_config=_LOGGING,
        # Slow senders wait here and cost little; the work is bounded by admission.
        max_ongoing_requests=10_000,
        graceful_shutdown_timeout_s=config.scaling.drain_s,
    )(GatewayDeployment)


def _scorer(place: int, scorer: ScorerConfig, config: ServeConfig, load: LoadScorer) -> Application:
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
        **_HEALTH,
        "ray_actor_options": {
            "num_cpus": scaling.cpus_per_replica,
            "num_gpus": gpus_of(scorer, config),
        },
    }
    return serve.deployment(**options)(ScorerReplica).bind(scorer, config, load)
