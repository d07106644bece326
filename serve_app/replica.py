"""The scorer deployment: one model, one batcher, one scoring thread. It knows nothing of HTTP."""

from __future__ import annotations

import asyncio
import dataclasses
import os
from typing import Any

from rerank_core import QueryDocumentPair, ScorerConfig, ScorerInfo, load_scorer
from rerank_core.batcher import MicroBatcher
from serve_app.config import Batching
from serve_app.work_units import UnitScores, WorkUnit


class ScorerReplica:
    """Loads a scorer, warms it, and scores units of many callers in shared passes."""

    def __init__(self, scorer: ScorerConfig, batching: Batching, warm_up: bool) -> None:
        self._scorer = load_scorer(scorer)
        self._batching = batching
        if warm_up:
            # The largest pass first: memory that is not there shows now, not under load.
            self._scorer.score(_largest_batch(self._scorer.info))
        self._batcher = MicroBatcher(
            self._scorer.score,
            merge_tokens=batching.merge_tokens or self._scorer.info.max_batch_tokens,
            max_queued_tokens=batching.max_queued_tokens,
        )

    async def score(self, unit: WorkUnit) -> UnitScores:
        """Score one unit; raises what MicroBatcher.submit raises."""
        scored = await self._batcher.submit(
            unit.pairs, unit.cost, caller=unit.caller, timeout_s=unit.timeout_s
        )
        return UnitScores(scored.scores, scored.queue_s, scored.inference_s)

    async def info(self) -> ScorerInfo:
        """Return what was loaded."""
        return self._scorer.info

    async def pid(self) -> int:
        """Return the process id; fault tests kill it."""
        return os.getpid()

    async def state(self) -> dict[str, Any]:
        """Return the batcher's counters, for tests and benchmarks."""
        return dataclasses.asdict(self._batcher.state())

    def reconfigure(self, user_config: dict[str, Any]) -> None:
        """Take new budgets between passes. Raises, and changes nothing, if one is wrong."""
        batching = Batching.model_validate({**self._batching.model_dump(), **user_config})
        self._batcher.merge_tokens = batching.merge_tokens or self._scorer.info.max_batch_tokens
        self._batcher.max_queued_tokens = batching.max_queued_tokens
        self._batching = batching

    async def check_health(self) -> None:
        """Raise when scoring has stopped or failed for good, so that Ray replaces this replica."""
        state = self._batcher.state()
        if state.broken:
            raise RuntimeError(f"the scorer failed for good: {state.broken}")
        if state.running_s > self._batching.stall_s:
            raise RuntimeError(f"a pass has been running for {state.running_s:.0f} s")

    async def __del__(self) -> None:
        """Finish the running pass; Serve has waited for the callers before."""
        await asyncio.to_thread(self._batcher.close)


def _largest_batch(info: ScorerInfo) -> list[QueryDocumentPair]:
    words = max(1, min(info.max_length, info.max_batch_tokens) - 8)
    document = "warm " * words
    return [QueryDocumentPair("warm up", document)] * max(1, info.max_batch_tokens // (words + 8))
