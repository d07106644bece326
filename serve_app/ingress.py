"""The gateway as a Ray Serve deployment, and Serve handles as ScoringPools.

The only place that reads the environment: RAY_RERANK_API_KEYS.
"""

from __future__ import annotations

import asyncio
import logging
import os
from typing import Any

from ray import serve
from ray.exceptions import RayActorError
from ray.serve.exceptions import (
    BackPressureError,
    DeploymentUnavailableError,
    ReplicaUnavailableError,
)
from ray.serve.handle import DeploymentHandle

from rerank_core import ModelUnavailable, Overloaded, RerankError
from serve_app.config import ServeConfig
from serve_app.door import Door
from serve_app.exchange import Exchange
from serve_app.gateway import Gateway
from serve_app.metrics import RequestMeter
from serve_app.problems import ReplicaLost
from serve_app.scatter import LoadedModel
from serve_app.wire import Receive, Scope, Send
from serve_app.work_units import UnitScores, WorkUnit

log = logging.getLogger("ray.serve")


class RayPool:
    """The replicas behind one Serve handle."""

    def __init__(self, handle: DeploymentHandle[Any]) -> None:
        self._handle = handle

    async def score(self, unit: WorkUnit) -> UnitScores:
        """Score a unit on the replica that Serve picks."""
        scores: UnitScores = await self._call("score", unit)
        return scores

    async def loaded(self) -> LoadedModel:
        """Return what the replicas have loaded."""
        loaded: LoadedModel = await self._call("loaded")
        return loaded

    async def _call(self, method: str, *arguments: Any) -> Any:
        response = getattr(self._handle, method).remote(*arguments)
        try:
            return await response
        except asyncio.CancelledError:
            response.cancel()
            raise
        except (RayActorError, ReplicaUnavailableError):
            raise ReplicaLost("a replica died; send the request again") from None
        except BackPressureError:
            raise Overloaded("every replica's queue is full; try again later") from None
        except DeploymentUnavailableError:
            raise ModelUnavailable("the model could not be deployed; try again later") from None
        except RerankError as error:
            # Ray wraps what a replica raised, and its wrapper's message is a traceback.
            raise getattr(error, "cause", error) from None


@serve.ingress()
class GatewayDeployment:
    """Holds a Gateway on a replica that needs no GPU."""

    def __init__(self, config: ServeConfig, **handles: DeploymentHandle[Any]) -> None:
        pools = {
            name: RayPool(handle)
            for name, handle in zip(config.served, handles.values(), strict=True)
        }
        door = Door(config.api_keys_file, os.environ.get("RAY_RERANK_API_KEYS"))
        # Serve's proxy answers with x-request-id itself.
        self._gateway = Gateway(
            config, pools, door=door, observe=self._observe, names_requests=False
        )
        self._meter = RequestMeter(self._gateway.admission)
        self._running = False

    def __serve_build_asgi_app__(self) -> Any:
        """Return the ASGI application; Serve calls this after the constructor."""
        gateway = self._gateway

        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            await gateway(scope, receive, send)

        return application

    def reconfigure(self, user_config: dict[str, Any]) -> None:
        """Take new limits, whole or not at all.

        A wrong one stops a gateway that is starting, and leaves a running one as it was.
        """
        try:
            self._gateway.reconfigure(user_config)
        except ValueError:
            if not self._running:
                raise
            log.exception("user_config refused; the former limits stay")

    def check_health(self) -> None:
        """Note that the start is over: Serve asks only after the first user_config."""
        self._running = True

    def _observe(self, exchange: Exchange) -> None:
        self._meter(exchange)
        log.info("request", extra=exchange.log_fields())
