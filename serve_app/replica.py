"""The scorer deployment: one model, one batcher, one scoring thread. It knows nothing of HTTP."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import os
import time
import uuid
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from rerank_core import ModelUnavailable, PairScores, QueryDocumentPair, ScorerConfig
from rerank_core.batcher import MicroBatcher, Scored
from rerank_core.calibration import Calibration
from rerank_core.types import LoadedScorer, preparing
from serve_app.config import Batching, ServeConfig
from serve_app.live_settings import LiveSettings
from serve_app.metrics import PassMeter
from serve_app.pool import (
    LoadedModel,
    OtherModel,
    ReplicaLost,
    ReplicaReport,
    UnitScores,
    WorkUnit,
)
from serve_app.scaling import DEMAND, RATE, WAITING
from serve_app.together import all_or_none
from serve_app.warm_start import start_scorer

log = logging.getLogger("ray.serve")

_HEALTH_PROBE_S = 8.0
# A gateway that has sent nothing for longer asks for nothing here.
_DEMAND_S = 15.0


class ScorerReplica:
    """Loads a scorer, warms it, and scores units of many callers in shared passes."""

    def __init__(
        self,
        scorer: ScorerConfig,
        config: ServeConfig,
        load: Callable[[ScorerConfig], LoadedScorer],
    ) -> None:
        # In a thread that ends: OpenMP keeps workers for every thread that ever computed, and once
        # they outnumber the cores none of them spins at a barrier. One core in five stood idle.
        with ThreadPoolExecutor(1, "start") as start:
            self._scorer, self._start_s, tokens_per_s = start.submit(
                start_scorer, load, scorer, config.warm_up
            ).result()
        log.info("%s: %s", self._scorer.info.model, self._start_s)
        self._deployed = self._batching = batching = config.batching
        self._settings = LiveSettings(self._change_budgets)
        # A wrong file stops the start, instead of failing every request.
        path, fingerprint = scorer.calibration, self._scorer.info.fingerprint
        calibration = Calibration.load(path, fingerprint) if path else None
        self._model = LoadedModel(self._scorer.info, calibration)
        self._name = uuid.uuid4().hex
        # A cascade's scores depend on which pairs of a query it sees together.
        self._alone = scorer.first_stage is not None
        self._halves = preparing(self._scorer)
        self._tokenising = ThreadPoolExecutor(1, "prepare")
        self._meter = PassMeter(self._scorer.info.model)
        self._held = 0.0
        # Gateway -> (tokens a second, when it said so).
        self._demand: dict[str, tuple[float, float]] = {}
        self._batcher = MicroBatcher(
            self._score,
            tokens_per_s=tokens_per_s,
            merge_tokens=self._merge_tokens(batching),
            max_queued_tokens=batching.max_queued_tokens,
        )

    async def score(self, unit: WorkUnit) -> UnitScores:
        """Score one unit. Raises what MicroBatcher.submit raises, and what a pool may raise."""
        if unit.demand:
            self._demand[unit.demand.gateway] = (unit.demand.tokens_per_s, time.monotonic())
        if unit.fingerprint not in ("", self._model.fingerprint):
            raise OtherModel("the unit is meant for another version of this model")
        self._held += unit.charge
        try:
            done = await all_or_none(self._pieces(unit, await self._prepared(unit.pairs)))
        except ModelUnavailable as error:
            # It stops, or has failed for good: as lost as one that died.
            raise ReplicaLost(str(error), self._name) from None
        finally:
            self._held = max(0.0, self._held - unit.charge)
        return UnitScores(
            PairScores.concat([one.scores for one in done]),
            self._model,
            max(one.queue_s for one in done),
            max(one.inference_s for one in done),
            await self.report(),
        )

    async def _prepared(self, pairs: Sequence[QueryDocumentPair]) -> Sequence[Any]:
        """Tokenise at once, beside the pass that runs, where that is worth a thread."""
        if self._halves is None:
            return pairs
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._tokenising, self._halves.prepare, pairs)

    def _pieces(
        self, unit: WorkUnit, pairs: Sequence[Any]
    ) -> Iterator[Coroutine[Any, Any, Scored]]:
        start = 0
        for count, cost in unit.pieces or ((len(pairs), unit.cost),):
            yield self._batcher.submit(
                pairs[start : start + count],
                cost,
                caller=unit.caller,
                timeout_s=unit.timeout_s,
                can_wait=unit.can_wait,
            )
            start += count

    async def report(self) -> ReplicaReport:
        """Return what gateways are to know."""
        return ReplicaReport(self._name, self._batcher.tokens_per_s or 0.0, self._held)

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """Return what the autoscaling policy is to know; Serve asks every few seconds."""
        oldest = time.monotonic() - _DEMAND_S
        self._demand = {name: told for name, told in self._demand.items() if told[1] >= oldest}
        demand = {f"{DEMAND}{name}": rate for name, (rate, _) in self._demand.items()}
        rate = self._batcher.tokens_per_s or 0.0
        return {RATE: rate, WAITING: float(self._batcher.tokens_waiting), **demand}

    async def loaded(self) -> LoadedModel:
        """Return what was loaded."""
        return self._model

    async def pid(self) -> int:
        """Return the process id; fault tests kill it."""
        return os.getpid()

    async def state(self) -> dict[str, Any]:
        """Return report, counters, budgets and what the start took, for tests and benchmarks."""
        state = dataclasses.asdict(self._batcher.state())
        budget = {"merge_tokens": self._batcher.merge_tokens}
        return {**state, **self._start_s, **budget, **dataclasses.asdict(await self.report())}

    def reconfigure(self, user_config: dict[str, Any]) -> None:
        """Take new budgets between passes, whole or not at all; what is left out is as deployed."""
        self._settings.take(user_config)

    async def check_health(self) -> None:
        """Raise when scoring has stopped or failed for good, so that Ray replaces this replica."""
        self._settings.started()
        state = self._batcher.state()
        if state.broken:
            raise RuntimeError("the scorer failed for good")
        if state.running_s > self._batching.stall_s:
            raise RuntimeError(f"a pass has been running for {state.running_s:.0f} s")
        if state.failed_in_a_row:
            # The input's fault or the scorer's? A pair that always works tells.
            probe = await self._prepared([QueryDocumentPair("health", "health")])
            scored = await self._batcher.submit(
                probe, 8, caller="health", timeout_s=_HEALTH_PROBE_S, first=True
            )
            if scored.scores.errors:
                raise RuntimeError("a pair that always works could not be scored")

    def __del__(self) -> None:
        """Finish the running pass; Serve has waited for the callers before."""
        if hasattr(self, "_batcher"):
            self._batcher.close()
            self._tokenising.shutdown(wait=False)

    def _change_budgets(self, user_config: Mapping[str, Any]) -> None:
        batching = Batching.model_validate({**self._deployed.model_dump(), **user_config})
        self._batching = batching
        self._batcher.merge_tokens = self._merge_tokens(batching)
        self._batcher.max_queued_tokens = batching.max_queued_tokens

    def _score(self, pairs: Sequence[Any]) -> PairScores:
        score = self._scorer.score if self._halves is None else self._halves.run
        with self._meter.measure(self._batcher) as record:
            scores = score(pairs).stamped(self._scorer.info.fingerprint)
            record(scores)
        return scores

    def _merge_tokens(self, batching: Batching) -> int:
        if self._alone:
            return 1
        return batching.merge_tokens or self._scorer.info.max_batch_tokens
