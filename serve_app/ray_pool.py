"""A Serve handle as a ScoringPool: what Ray raises becomes ours here, and nowhere else."""

from __future__ import annotations

import asyncio
from functools import cached_property
from typing import Any

from ray.exceptions import (
    NodeDiedError,
    ObjectLostError,
    RayActorError,
    WorkerCrashedError,
)
from ray.serve.exceptions import (
    BackPressureError,
    DeploymentUnavailableError,
    ReplicaUnavailableError,
)
from ray.serve.handle import DeploymentHandle

from rerank_core import ModelUnavailable, Overloaded, RerankError
from serve_app.pool import LoadedModel, ReplicaLost, UnitScores, WorkUnit

_DIED = "a replica died; send the request again"
# Work or scores above 100 KB travel through object stores, which die with their machines.
_LOST = (ReplicaUnavailableError, ObjectLostError, NodeDiedError, WorkerCrashedError)


class RayPool:
    """The replicas behind one Serve handle."""

    def __init__(self, handle: DeploymentHandle[Any]) -> None:
        self._handle = handle

    @cached_property
    def _score(self) -> DeploymentHandle[Any]:
        # Each access to a method of a handle makes a new handle.
        return self._handle.score

    async def score(self, unit: WorkUnit) -> UnitScores:
        """Score a unit on the replica that Serve picks."""
        scores: UnitScores = await self._call(self._score, unit)
        return scores

    async def loaded(self) -> LoadedModel:
        """Return what the replicas have loaded."""
        loaded: LoadedModel = await self._call(self._handle.loaded)
        return loaded

    async def _call(self, method: DeploymentHandle[Any], *arguments: Any) -> Any:
        response = method.remote(*arguments)
        try:
            return await response
        except asyncio.CancelledError:
            response.cancel()  # type: ignore[no-untyped-call]
            raise
        except RayActorError as error:
            raise ReplicaLost(_DIED, error.actor_id or "") from None
        except _LOST:
            raise ReplicaLost(_DIED) from None
        except BackPressureError:
            raise Overloaded("every replica's queue is full; try again later") from None
        except DeploymentUnavailableError:
            raise ModelUnavailable("the model could not be deployed; try again later") from None
        except RerankError as error:
            # Ray wraps what a replica raised, and its wrapper's message is a traceback.
            raise getattr(error, "cause", error) from None
