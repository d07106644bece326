"""A Serve handle as a ScoringPool: what Ray raises becomes ours here, and nowhere else."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import MutableMapping
from functools import cached_property
from typing import Any
from weakref import WeakValueDictionary

from ray.exceptions import NodeDiedError, ObjectLostError, RayActorError, WorkerCrashedError
from ray.serve._private.common import DeploymentID, ReplicaID
from ray.serve.exceptions import (
    BackPressureError,
    DeploymentUnavailableError,
    ReplicaUnavailableError,
)
from ray.serve.handle import DeploymentHandle
from ray.serve.request_router import FIFOMixin, PendingRequest, RequestRouter, RunningReplica

from rerank_core import ModelUnavailable, Overloaded, RerankError
from serve_app.capacity import turn
from serve_app.pool import LoadedModel, ReplicaLost, ReplicaReport, UnitScores, WorkUnit

# A replica that is slower than this to say how it is can be asked again.
_REPORTS_S = 2.0
# Between a choice and its unit's departure lie some turns of the event loop.
_CHOSEN_S = 0.5

_DIED = "a replica died; send the request again"
# Work or scores above 100 KB travel through object stores, which die with their machines.
_LOST = (ReplicaUnavailableError, ObjectLostError, NodeDiedError, WorkerCrashedError)

# Those of this process: a handle does not say which replicas it knows.
routers: MutableMapping[DeploymentID, LeastLoadedRouter] = WeakValueDictionary()


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

    def has_other(self, unit: WorkUnit) -> bool:
        """Say whether Serve knows a replica that the unit was not sent to."""
        router = routers.get(self._handle.deployment_id)
        # The router changes them on another thread.
        running = list(router.curr_replicas) if router else []
        return any(name.unique_id not in unit.sent_to for name in running)

    async def loaded(self) -> LoadedModel:
        """Return what the replicas have loaded."""
        loaded: LoadedModel = await self._call(self._handle.loaded)
        return loaded

    async def reports(self) -> list[ReplicaReport]:
        """Ask every running replica; one that does not answer is left out."""
        asked = self._handle.broadcast("report")
        try:
            answers = await asked.results_async(timeout_s=_REPORTS_S, return_exceptions=True)
        except (TimeoutError, DeploymentUnavailableError):
            return []
        return [answer for answer in answers if isinstance(answer, ReplicaReport)]

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
            raise Overloaded(
                "every replica holds scaling.max_ongoing_units already; try again later"
            ) from None
        except DeploymentUnavailableError:
            raise ModelUnavailable("the model could not be deployed; try again later") from None
        except RerankError as error:
            # Ray wraps what a replica raised, and its wrapper's message is a traceback.
            raise getattr(error, "cause", error) from None


class LeastLoadedRouter(FIFOMixin, RequestRouter):
    """Sends each unit to the replica with the fewest of this gateway's, in turn among equals.

    One that was sent before goes elsewhere where there is another replica. Serve's own choice looks
    at two by chance: eight equal units on eight idle replicas took two passes instead of one. The
    count is ours: Serve's cache of queue lengths is overwritten by what a replica knew before it
    heard of the units just sent. Nor is a replica asked how long its queue is before the first unit
    goes there, as Serve does: on a busy host it does not answer in time, and all went elsewhere.
    """

    def __init__(self, deployment_id: DeploymentID, *args: Any, **options: Any) -> None:
        super().__init__(deployment_id, *args, **options)  # type: ignore[no-untyped-call]
        # Serve copies this class with all that its methods name; the module's own is wanted here.
        from serve_app import ray_pool

        ray_pool.routers[deployment_id] = self
        # Gateways must not begin at the same replica.
        self._next = random.randrange(2**16)  # noqa: S311
        self._under_way: Counter[ReplicaID] = Counter()
        # Units are chosen for side by side, each some steps of the loop before it is sent.
        self._chosen: list[tuple[ReplicaID, float]] = []
        # Could not be reached: asked first, and last in line, until they answer.
        self._in_doubt: set[ReplicaID] = set()

    def on_send_request(self, replica_id: ReplicaID) -> None:
        """Count a unit that was sent."""
        super().on_send_request(replica_id)
        self._under_way[replica_id] += 1
        for place, (chosen, _) in enumerate(self._chosen):
            if chosen == replica_id:
                del self._chosen[place]
                break

    def on_request_completed(self, replica_id: ReplicaID, internal_request_id: str) -> None:
        """Forget a unit that ended in any way; Serve calls this once for each."""
        super().on_request_completed(replica_id, internal_request_id)
        self._under_way -= Counter([replica_id])

    def on_replica_actor_unavailable(self, replica_id: ReplicaID) -> None:
        """Doubt a replica that could not be reached."""
        super().on_replica_actor_unavailable(replica_id)
        self._in_doubt.add(replica_id)

    def on_replica_actor_died(self, replica_id: ReplicaID) -> None:
        """Forget a replica that died."""
        super().on_replica_actor_died(replica_id)
        self._in_doubt.discard(replica_id)

    async def choose_replicas(
        self,
        candidate_replicas: list[RunningReplica],
        pending_request: PendingRequest | None = None,
    ) -> list[list[RunningReplica]]:
        """Return the replicas to try, best first, each a rank of its own."""
        if pending_request is not None:
            # Where all are full, wait a little before looking again.
            pending_request.routing_context.should_backoff = True
        for replica in candidate_replicas:
            name = replica.replica_id
            if self.replica_queue_len_cache.get(name) is not None:
                self._in_doubt.discard(name)
            elif name not in self._in_doubt:
                self.replica_queue_len_cache.update(name, self._under_way[name])
        now = time.monotonic()
        # What was chosen for a unit that went elsewhere, or nowhere, is forgotten.
        self._chosen = [one for one in self._chosen if now - one[1] < _CHOSEN_S]
        self._next += 1
        places = turn(len(candidate_replicas), self._next)
        looked_at = [candidate_replicas[i] for i in places]
        held = self._under_way + Counter(name for name, _ in self._chosen)
        sent_to = _sent_to(pending_request)
        looked_at.sort(
            key=lambda one: (
                one.replica_id.unique_id in sent_to,
                one.replica_id in self._in_doubt,
                held[one.replica_id],
            )
        )
        if looked_at:
            self._chosen.append((looked_at[0].replica_id, now))
        return [[replica] for replica in looked_at]

    def _fulfill_next_pending_request(self, replica: RunningReplica, *metadata: Any) -> None:
        """Give a chosen replica to the first unit that was not sent there, or to the first.

        Not to the one that it was chosen for: all units of one request have the same id in Serve.
        """
        waiting, name = self._pending_requests_to_fulfill, replica.replica_id.unique_id
        places = [place for place, one in enumerate(waiting) if not one.future.done()]
        for place in sorted(places, key=lambda at: name in _sent_to(waiting[at]))[:1]:
            first = waiting[place]
            del waiting[place]
            waiting.appendleft(first)
            _sent_to(first).append(name)
        super()._fulfill_next_pending_request(replica, *metadata)


def _sent_to(request: PendingRequest | None) -> list[str]:
    """Return the list of the unit that is sent, to be added to."""
    arguments = request.args if request else ()
    return next((one.sent_to for one in arguments if isinstance(one, WorkUnit)), [])
