"""ScoringPools in this process: the one replica of a small service, or a bare scorer for tests.

Neither crosses a process; they do not know Ray.
"""

from __future__ import annotations

from typing import Protocol

from rerank_core import ScorerConfig, load_scorer
from rerank_core.calibration import Calibration
from rerank_core.types import Scorer
from serve_app.pool import LoadedModel, OtherModel, ReplicaReport, UnitScores, WorkUnit


class Replica(Protocol):
    """What a scorer replica offers."""

    async def score(self, unit: WorkUnit) -> UnitScores:
        """Score one unit."""
        ...

    async def loaded(self) -> LoadedModel:
        """Return what was loaded."""
        ...

    async def report(self) -> ReplicaReport:
        """Return what gateways are to know."""
        ...


class FusedPool:
    """One replica, called as it is: its batcher and its scoring thread work as behind Ray."""

    def __init__(self, replica: Replica) -> None:
        self._replica = replica
        self.score = replica.score
        self.loaded = replica.loaded

    def has_other(self, unit: WorkUnit) -> bool:
        """There is one replica."""
        return False

    async def reports(self) -> list[ReplicaReport]:
        """Return the replica's report."""
        return [await self._replica.report()]


class LocalPool:
    """Scores each unit when it comes, and keeps it in `units`.

    It takes the event loop while it scores: right for a scorer that takes no time, such as
    `lexical`, and for one caller at a time.
    """

    def __init__(
        self, scorer: Scorer | ScorerConfig | None = None, calibration: Calibration | None = None
    ) -> None:
        if scorer is None or isinstance(scorer, ScorerConfig):
            scorer = load_scorer(scorer or ScorerConfig(model="lexical"))
        self.scorer = scorer
        self.model = LoadedModel(scorer.info, calibration)
        self.units: list[WorkUnit] = []

    async def score(self, unit: WorkUnit) -> UnitScores:
        """Score a unit; the times are made up: 1 ms of waiting, 2 ms of scoring."""
        self.units.append(unit)
        if unit.fingerprint not in ("", self.model.fingerprint):
            raise OtherModel("the unit is meant for another model")
        scores = self.scorer.score(unit.pairs)
        return UnitScores(scores, self.model, queue_s=0.001, inference_s=0.002)

    def has_other(self, unit: WorkUnit) -> bool:
        """There is one scorer."""
        return False

    async def loaded(self) -> LoadedModel:
        """Return what was loaded."""
        return self.model

    async def reports(self) -> list[ReplicaReport]:
        """Return nothing: it measures nothing."""
        return []
