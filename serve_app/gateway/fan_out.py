"""Sends a request's units to replicas all at once and gathers their scores.

It knows a replica only as a ScoringPool, so Ray is not needed here. A unit whose replica died is
sent once more, inside the deadline and a budget; the first failure cancels the other units.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from rerank_core import DeadlineExceeded, ModelUnavailable, PairScores, QueryDocumentPair
from serve_app.gateway.units import cut_units
from serve_app.pool import ReplicaLost, ScoringPool, UnitScores, WorkUnit


class RetryBudget:
    """Allows retries as a share of requests, so that a dying pool is not hit twice as hard."""

    def __init__(self, share: float, burst: float = 10.0) -> None:
        self.share = share
        self._burst = burst
        self._left = burst

    def earn(self) -> None:
        """Count one request."""
        self._left = min(self._burst, self._left + self.share)

    def spend(self) -> bool:
        """Take one retry, if there is one."""
        if self._left < 1 or self.share <= 0:
            return False
        self._left -= 1
        return True


class Gathered:
    """A request's merged scores and where its time went: the slowest unit's wait and pass."""

    def __init__(self, parts: Sequence[UnitScores], retries: int) -> None:
        self.scores: PairScores = PairScores.concat([part.scores for part in parts])
        self.units = len(parts)
        self.retries = retries
        self.queue_s = max(part.queue_s for part in parts)
        self.inference_s = max(part.inference_s for part in parts)


async def score_in_units(
    pool: ScoringPool,
    pairs: Sequence[QueryDocumentPair],
    costs: Sequence[int],
    *,
    unit_tokens: int,
    deadline: float,
    caller: str,
    retries: RetryBudget,
) -> Gathered:
    """Score `pairs`, of `costs` estimated tokens, before `deadline` (time.monotonic).

    Raises DeadlineExceeded, or the first unit's error; either way nothing stays behind.
    """
    retries.earn()
    retried = 0

    def unit(run: range) -> WorkUnit:
        return WorkUnit(
            tuple(pairs[run.start : run.stop]),
            sum(costs[run.start : run.stop]),
            caller,
            deadline - time.monotonic(),
        )

    async def send(run: range) -> UnitScores:
        nonlocal retried
        try:
            return await pool.score(unit(run))
        except (ReplicaLost, ModelUnavailable):
            # Both are about the replica, not about the unit.
            if not retries.spend():
                raise
            retried += 1
            return await pool.score(unit(run))

    tasks = [asyncio.ensure_future(send(run)) for run in cut_units(costs, unit_tokens)]
    try:
        async with asyncio.timeout(deadline - time.monotonic()):
            parts = await asyncio.gather(*tasks)
    except TimeoutError:
        raise DeadlineExceeded("the deadline passed; ask for less or allow more time") from None
    finally:
        for task in tasks:
            task.cancel()
    return Gathered(parts, retried)
