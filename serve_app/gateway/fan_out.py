"""Sends a request's units to replicas all at once, one to each, and gathers their scores.

It knows replicas only as what scores, so Ray is not needed here. A unit whose replica died is
sent once more, inside the deadline. Scores of one request come from one model: during an update two
versions of it answer, and the units of the smaller part are asked again of the other version. The
first failure cancels all other units.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from rerank_core import DeadlineExceeded, ModelUnavailable, PairScores, QueryDocumentPair
from serve_app.gateway.retries import RetryBudget
from serve_app.gateway.units import cut_units, share_out
from serve_app.pool import LoadedModel, OtherModel, ReplicaLost, Scoring, UnitScores, WorkUnit
from serve_app.together import all_or_none

# Serve picks the replica, so a version is found by asking until it answers. With a half of the
# replicas on each side, four tries find it 15 times in 16.
_TRIES = 4
_TURNS = 6
_PAUSE_S = 0.01


@dataclass(frozen=True, slots=True)
class Gathered:
    """A request's merged scores, all of one model, and where its time went.

    `retries` counts units sent again after a lost replica, `mixed` those that came from another
    version of the model first, `hedged` the late ones that were sent twice. Times are the slowest
    unit's wait and pass.
    """

    scores: PairScores
    model: LoadedModel
    units: int
    retries: int
    mixed: int
    hedged: int
    queue_s: float
    inference_s: float


async def score_in_units(
    pool: Scoring,
    pairs: Sequence[QueryDocumentPair],
    costs: Sequence[int],
    *,
    unit_tokens: int,
    deadline: float,
    caller: str,
    retries: RetryBudget,
    replicas: int = 0,
    can_wait: bool = False,
) -> Gathered:
    """Score `pairs`, of `costs` estimated tokens, before `deadline` (time.monotonic).

    Pieces of `unit_tokens` are shared out to one call for each of so many replicas; 0: unknown, and
    each piece is a call.
    Raises DeadlineExceeded, ModelUnavailable when two versions of the model answer to the end, or
    the first unit's error; either way nothing stays behind.
    """
    retries.earn()
    runs = cut_units(costs, unit_tokens)
    units = [
        _unit(pairs, costs, part, caller, can_wait=can_wait)
        for part in share_out(runs, replicas or len(runs))
    ]
    fan_out = _FanOut(pool, units, deadline, retries)
    try:
        async with asyncio.timeout(deadline - time.monotonic()):
            parts = await fan_out.gather()
    except TimeoutError:
        raise DeadlineExceeded("the deadline passed; ask for less or allow more time") from None
    return Gathered(
        scores=PairScores.concat([part.scores for part in parts]),
        model=parts[0].model,
        units=len(parts),
        retries=fan_out.retried,
        mixed=fan_out.mixed,
        hedged=sum(part.hedged for part in parts),
        queue_s=max(part.queue_s for part in parts),
        inference_s=max(part.inference_s for part in parts),
    )


def _unit(
    pairs: Sequence[QueryDocumentPair],
    costs: Sequence[int],
    part: Sequence[range],
    caller: str,
    *,
    can_wait: bool,
) -> WorkUnit:
    pieces = tuple((len(run), sum(costs[run.start : run.stop])) for run in part)
    whole = pairs[part[0].start : part[-1].stop]
    cost = sum(cost for _, cost in pieces)
    return WorkUnit.of(whole, cost, caller, can_wait=can_wait, pieces=pieces)


class _FanOut:
    """One request's units on their way."""

    def __init__(
        self, pool: Scoring, units: Sequence[WorkUnit], deadline: float, retries: RetryBudget
    ) -> None:
        self._pool = pool
        self._units = units
        self._deadline = deadline
        self._retries = retries
        self.retried = 0
        self.mixed = 0

    async def gather(self) -> list[UnitScores]:
        """Return the scores of every unit, in order, all of one fingerprint."""
        parts = await all_or_none(self._send(unit) for unit in self._units)
        gone: set[str] = set()
        for _ in range(_TURNS):
            weights = Counter[str]()
            for unit, part in zip(self._units, parts, strict=True):
                weights[part.model.fingerprint] += unit.cost
            if len(weights) == 1:
                return parts
            # The larger part stays, unless its replicas seem to be gone.
            wanted = max(weights, key=lambda name: (name not in gone, weights[name]))
            found = await self._ask_again(parts, wanted)
            if not found:
                gone.add(wanted)
        raise ModelUnavailable("the model is being replaced; send the request again")

    async def _ask_again(self, parts: list[UnitScores], wanted: str) -> int:
        """Replace scores of other models by those of the wanted one; return for how many units."""
        others = [i for i, part in enumerate(parts) if part.model.fingerprint != wanted]
        self.mixed += len(others)
        answers = await all_or_none(self._ask_for(self._units[i], wanted) for i in others)
        for i, answer in zip(others, answers, strict=True):
            parts[i] = answer or parts[i]
        return sum(answer is not None for answer in answers)

    async def _ask_for(self, unit: WorkUnit, wanted: str) -> UnitScores | None:
        for turn in range(_TRIES):
            try:
                return await self._send(unit, wanted)
            except OtherModel:
                await asyncio.sleep(_PAUSE_S * turn)
        return None

    async def _send(self, unit: WorkUnit, wanted: str = "") -> UnitScores:
        try:
            return await self._pool.score(self._dated(unit, wanted))
        except (ReplicaLost, ModelUnavailable) as error:
            # Both are about the replica, not about the unit.
            if not self._retries.allows(getattr(error, "replica", "")):
                raise
            self.retried += 1
            return await self._pool.score(self._dated(unit, wanted))

    def _dated(self, unit: WorkUnit, wanted: str) -> WorkUnit:
        return replace(unit, timeout_s=self._deadline - time.monotonic(), fingerprint=wanted)
