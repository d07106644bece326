"""Whether requests would be answered: every model is loaded, and scoring moves."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Mapping

from rerank_core import DeadlineExceeded, PairScores, QueryDocumentPair, RerankError, ScoringFailed
from serve_app.http.errors import refused
from serve_app.pool import LoadedModel, ReplicaLost, ScoringPool, WorkUnit

# A score younger than this proves that scoring moves; otherwise one is made.
_FRESH_S = 5.0
_PROBE_TIMEOUT_S = 4.0
_PROBE = QueryDocumentPair("ready", "ready")


class Readiness:
    """Keeps when each model last scored, and asks it to when that is long ago.

    Those of `probed` are asked whether they are ready; asking one that is scaled to zero would
    start it. `may_take` raises when requests are no longer taken.
    """

    def __init__(
        self,
        pools: Mapping[str, ScoringPool],
        *,
        probed: Collection[str],
        may_take: Callable[[], None] = lambda: None,
    ) -> None:
        self._pools = pools
        self._may_take = may_take
        self._probed = probed
        self._loaded: dict[str, LoadedModel] = {}
        self._scored: dict[str, float] = {}
        self._turns = {name: asyncio.Lock() for name in pools}

    async def loaded(self, name: str, deadline: float) -> LoadedModel:
        """Return what a model's replicas have loaded; asked once, again if that one died.

        Raises DeadlineExceeded after `deadline` (time.monotonic): a cold start can take long.
        """
        try:
            async with asyncio.timeout(deadline - time.monotonic()):
                return await self._ask(name)
        except TimeoutError:
            raise DeadlineExceeded("the model was not up before the deadline") from None

    def scored(self, name: str, model: LoadedModel, scores: PairScores) -> None:
        """Note that a model has just scored, and which version of it: an update changes it."""
        self._loaded[name] = model
        if len(scores.errors) < len(scores):
            self._scored[name] = time.monotonic()

    async def check(self) -> None:
        """Return if every model that is probed is ready; raise a 503 that names one that is not."""
        self._may_take()
        await asyncio.gather(*(self._check(name) for name in self._probed))

    async def _check(self, name: str) -> None:
        if self._fresh(name):
            return
        try:
            # One probe for all who ask meanwhile.
            async with asyncio.timeout(_PROBE_TIMEOUT_S), self._turns[name]:
                if self._fresh(name):
                    return
                await self._ask(name)
                unit = WorkUnit.of((_PROBE,), 8, "readiness", _PROBE_TIMEOUT_S)
                answer = await self._pools[name].score(unit)
                self.scored(name, answer.model, answer.scores)
                if answer.scores.errors:
                    raise ScoringFailed("the probe could not be scored")
        except (TimeoutError, RerankError):
            if self._fresh(name):
                # Another replica answered others meanwhile.
                return
            message = f"model {name} does not score now"
            raise refused(503, "service_unavailable_error", message, retry_after="2") from None

    async def _ask(self, name: str) -> LoadedModel:
        if name not in self._loaded:
            try:
                self._loaded[name] = await self._pools[name].loaded()
            except ReplicaLost:
                self._loaded[name] = await self._pools[name].loaded()
        return self._loaded[name]

    def _fresh(self, name: str) -> bool:
        return time.monotonic() - self._scored.get(name, float("-inf")) < _FRESH_S
