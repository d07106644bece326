"""A late unit is sent once more, to another replica: the first answer counts.

Scoring is pure, so an answer is an answer. This is the hedged request of Dean and Barroso, "The
Tail at Scale" (2013): a replica that hangs costs its callers three usual waits, not their deadline.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from serve_app.gateway.retries import RetryBudget
from serve_app.pool import ReplicaReport, ScoringPool, UnitScores, WorkUnit

_LATE_TIMES_P95 = 3.0
# Below this a second call costs more than the wait.
_LEAST_LATE_S = 0.5
_FEWEST, _REMEMBERED = 20, 256


class UnitTimes:
    """How long the latest units of a model took from sending to answer."""

    def __init__(self) -> None:
        self._seconds: deque[float] = deque(maxlen=_REMEMBERED)
        self._news = 0
        # Three times the 95th percentile: after so long a unit is late. None: unknown.
        self.late_s: float | None = None

    def add(self, seconds: float) -> None:
        """Take a unit that was answered."""
        self._seconds.append(seconds)
        self._news += 1
        if self._news == _FEWEST:
            self._news = 0
            p95 = float(np.percentile(list(self._seconds), 95))
            self.late_s = max(_LEAST_LATE_S, _LATE_TIMES_P95 * p95)


class HedgedPool:
    """Scores on a pool, and on another of its replicas what is late, as the budget allows."""

    def __init__(self, pool: ScoringPool, budget: RetryBudget) -> None:
        self._pool = pool
        self.budget = budget
        self.times = UnitTimes()
        self._overtaken: set[asyncio.Future[UnitScores]] = set()

    async def score(self, unit: WorkUnit) -> UnitScores:
        """Score a unit. Raises what the pool raises, once every call for it has failed."""
        if not self._pool.has_other(unit):
            return await self._pool.score(unit)
        self.budget.earn()
        begun = time.monotonic()
        calls: set[asyncio.Future[UnitScores]] = {asyncio.ensure_future(self._pool.score(unit))}
        try:
            in_time, _ = await asyncio.wait(calls, timeout=self.times.late_s)
            hedged = not in_time and self._pool.has_other(unit) and self.budget.allows("")
            if hedged:
                left_s = unit.timeout_s - (time.monotonic() - begun)
                calls.add(asyncio.ensure_future(self._pool.score(replace(unit, timeout_s=left_s))))
            answer = await _first(calls)
        except BaseException:
            for call in calls:
                call.cancel()
            raise
        for call in calls:
            # Not cancelled: while it counts as under way there, its replica gets nothing new.
            if not call.done():
                self._overtaken.add(call)
                call.add_done_callback(self._forget)
        self.times.add(time.monotonic() - begun)
        return replace(answer, hedged=hedged)

    def _forget(self, call: asyncio.Future[UnitScores]) -> None:
        self._overtaken.discard(call)
        if not call.cancelled():
            call.exception()  # Nobody waits for it; unread, it would be logged.

    async def reports(self) -> list[ReplicaReport]:
        """Return a report of every replica."""
        return await self._pool.reports()


def hedged(pools: Mapping[str, ScoringPool], share: float) -> dict[str, HedgedPool]:
    """Return the pools, each with a budget of its own."""
    return {name: HedgedPool(pool, RetryBudget(share)) for name, pool in pools.items()}


async def _first(calls: set[asyncio.Future[UnitScores]]) -> UnitScores:
    """Return the first answer; an error counts only when all have failed."""
    waiting = calls
    while True:
        done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for call in done:
            if not call.exception():
                return call.result()
        if not waiting:
            return done.pop().result()
