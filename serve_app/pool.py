"""The seam between gateway and replicas: what crosses it, and nothing else.

A gateway knows the replicas of a model only as a ScoringPool. Behind it stand Ray (`ray_pool`) or a
scorer in this process (`local_pool`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

from rerank_core import PairScores, QueryDocumentPair, RerankError, ScorerInfo
from rerank_core.calibration import Calibration


@dataclass(frozen=True, slots=True)
class GatewayDemand:
    """What a gateway tells replicas with each unit, for the autoscaler: all that it is asked for.

    In estimated tokens a second, refused work included. `gateway` tells one from another.
    """

    gateway: str
    tokens_per_s: float


@dataclass(frozen=True, slots=True)
class ReplicaReport:
    """What a replica tells gateways with each answer: what it can do, and how much it holds.

    `tokens_per_s` is measured, in estimated tokens; 0 before the first pass. `tokens_held` is the
    sum of the charges of its units.
    """

    replica: str
    tokens_per_s: float
    tokens_held: float


@dataclass(frozen=True, slots=True)
class WorkUnit:
    """A slice of a request, sent to one replica.

    `cost` is in estimated tokens. `caller` groups the units of one request, so that a replica can
    take turns between requests. `timeout_s` is what was left of the deadline when it was sent.
    """

    pairs: tuple[QueryDocumentPair, ...]
    cost: int
    caller: str
    timeout_s: float
    # What admission counts it as: less than the cost where a request is larger than half of all.
    charge: float = 0.0
    demand: GatewayDemand | None = None


@dataclass(frozen=True, slots=True)
class UnitScores:
    """A replica's answer: scores in the unit's order, and the seconds of waiting and of scoring."""

    scores: PairScores
    queue_s: float
    inference_s: float
    report: ReplicaReport | None = None


class LoadedModel(NamedTuple):
    """What the replicas of a model have loaded."""

    info: ScorerInfo
    calibration: Calibration | None = None


class ReplicaLost(RerankError):
    """The replica died with the unit in its hands. Scoring is pure: it may be sent again."""


class ScoringPool(Protocol):
    """The replicas of one model."""

    async def score(self, unit: WorkUnit) -> UnitScores:
        """Score a unit on some replica. Raises ReplicaLost when it died meanwhile."""
        ...

    async def loaded(self) -> LoadedModel:
        """Return what the replicas have loaded."""
        ...

    async def reports(self) -> list[ReplicaReport]:
        """Return a report of every replica there is; none where nobody could be asked."""
        ...
