"""A Serve handle as a ScoringPool: what Ray raises becomes ours here, and nowhere else."""

from __future__ import annotations

import asyncio
from typing import Any

from ray.exceptions import RayActorError
from ray.serve.exceptions import (
    BackPressureError,
    DeploymentUnavailableError,
    ReplicaUnavailableError,
)
from ray.serve.handle import DeploymentHandle

from rerank_core import ModelUnavailable, Overloaded, RerankError
from serve_app.pool import LoadedModel, ReplicaLost, UnitScores, WorkUnit


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
