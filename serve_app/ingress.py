"""The gateway as a Ray Serve deployment, and Serve handles as ScoringPools."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from ray import serve
from ray.exceptions import RayActorError
from ray.serve.exceptions import BackPressureError
from ray.serve.handle import DeploymentHandle

from rerank_core import Overloaded, ScorerInfo
from serve_app.config import ServeConfig
from serve_app.gateway import Gateway
from serve_app.problems import ReplicaLost
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

    async def info(self) -> ScorerInfo:
        """Return what the replicas have loaded."""
        info: ScorerInfo = await self._call("info")
        return info

    async def _call(self, method: str, *arguments: Any) -> Any:
        response = getattr(self._handle, method).remote(*arguments)
        try:
            return await response
        except asyncio.CancelledError:
            response.cancel()
            raise
        except RayActorError:
            raise ReplicaLost("a replica died; send the request again") from None
        except BackPressureError:
            raise Overloaded("every replica's queue is full; try again later") from None


@serve.ingress()
class GatewayDeployment:
    """Holds a Gateway on a replica that needs no GPU."""

    def __init__(self, config: ServeConfig, **handles: DeploymentHandle[Any]) -> None:
        pools = {
            name: RayPool(handle)
            for name, handle in zip(config.served, handles.values(), strict=True)
        }
        self._gateway = Gateway(config, pools)

    def __serve_build_asgi_app__(self) -> Any:
        """Return the ASGI application; Serve calls this after the constructor."""
        gateway = self._gateway

        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            await gateway(scope, receive, send)

        return application
