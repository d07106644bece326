"""The seam between gateway and replicas: what crosses it, and nothing else.

A gateway knows the replicas of a model only as a ScoringPool. Behind it stand Ray (`ray_pool`) or a
replica in this process (`application`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from rerank_core import PairScores, QueryDocumentPair, RerankError, ScorerInfo
from rerank_core.calibration import Calibration


class LoadedModel(NamedTuple):
    """What a replica has loaded. Scores of two fingerprints must not be ranked together."""

    info: ScorerInfo
    calibration: Calibration | None = None

    @property
    def fingerprint(self) -> str:
        """Equal exactly when two replicas give equal scores."""
        return self.info.fingerprint


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
    """A slice of a request, sent to one replica, as columns: no object per document is pickled.

    `queries` has one text for all documents, or one for each. `cost` is in estimated tokens. The
    replica queues it in `pieces`, (documents, cost) each, or whole without any, so that other
    requests get their turn in between; `caller` says which belong to one request.
    `timeout_s` is what was left of the deadline when it was sent. `fingerprint` names the only
    model that may score it; empty: whichever the replica has. `can_wait` gives way to others.
    Copies of a unit share `sent_to`, the replicas that it was sent to as its pool names them.
    """

    queries: tuple[str, ...]
    documents: tuple[str, ...]
    cost: int
    caller: str
    timeout_s: float = 0.0
    fingerprint: str = ""
    max_query_tokens: int | None = None
    max_document_tokens: int | None = None
    instruction: str | None = None
    max_tokens: int | None = None
    # What admission counts it as: less than the cost where a request is larger than half of all.
    charge: float = 0.0
    demand: GatewayDemand | None = None
    can_wait: bool = False
    pieces: tuple[tuple[int, int], ...] = ()
    sent_to: list[str] = field(default_factory=list, compare=False)

    @classmethod
    def of(
        cls,
        pairs: Sequence[QueryDocumentPair],
        cost: int,
        caller: str,
        timeout_s: float = 0.0,
        *,
        can_wait: bool = False,
        pieces: tuple[tuple[int, int], ...] = (),
    ) -> WorkUnit:
        """Return the unit of `pairs`, at least one, which share limits and instruction."""
        first = pairs[0]
        shared = _shared(first)
        for pair in pairs:
            if _shared(pair) != shared:
                raise ValueError("the pairs of a unit must share limits and instruction")
        queries = tuple(pair.query for pair in pairs)
        if len(set(queries)) == 1:
            queries = queries[:1]
        documents = tuple(pair.document for pair in pairs)
        return cls(
            queries,
            documents,
            cost,
            caller,
            timeout_s,
            "",  # Whichever model the replica has.
            *shared,
            can_wait=can_wait,
            pieces=pieces if len(pieces) > 1 else (),
        )

    @property
    def pairs(self) -> tuple[QueryDocumentPair, ...]:
        """The pairs, made anew; the replica makes them where they are scored."""
        queries = self.queries * len(self.documents) if len(self.queries) == 1 else self.queries
        limits = self.max_query_tokens, self.max_document_tokens, self.instruction
        return tuple(
            QueryDocumentPair(query, document, *limits, max_tokens=self.max_tokens)
            for query, document in zip(queries, self.documents, strict=True)
        )


def _shared(pair: QueryDocumentPair) -> tuple[int | None, int | None, str | None, int | None]:
    return pair.max_query_tokens, pair.max_document_tokens, pair.instruction, pair.max_tokens


@dataclass(frozen=True, slots=True)
class UnitScores:
    """A replica's answer: scores in the unit's order, what made them, and where time went.

    `queue_s` and `inference_s` are the seconds of waiting and of scoring; `hedged`: it was late, so
    that a second replica got it, too.
    """

    scores: PairScores
    model: LoadedModel
    queue_s: float
    inference_s: float
    report: ReplicaReport | None = None
    hedged: bool = False


class ReplicaLost(RerankError):
    """The replica died with the unit in its hands. Scoring is pure: it may be sent again.

    `replica` tells one replica from another, empty where nobody knows which it was.
    """

    def __init__(self, message: str, replica: str = "") -> None:
        super().__init__(message, replica)
        self.message = message
        self.replica = replica

    def __str__(self) -> str:
        return self.message


class OtherModel(RerankError):
    """This replica has not the model that the unit is meant for; another one may have it."""


class Scoring(Protocol):
    """What scores units: a pool, or what stands before it."""

    async def score(self, unit: WorkUnit) -> UnitScores:
        """Score a unit on some replica.

        Raises ReplicaLost when it died meanwhile, OtherModel when it has another fingerprint.
        """
        ...


class Reporting(Protocol):
    """What can be asked how the replicas are."""

    async def reports(self) -> list[ReplicaReport]:
        """Return a report of every replica there is; none where nobody could be asked."""
        ...


class ScoringPool(Scoring, Reporting, Protocol):
    """The replicas of one model, which during an update have two versions of it."""

    def has_other(self, unit: WorkUnit) -> bool:
        """Say whether there is a replica that the unit was not sent to."""
        ...

    async def loaded(self) -> LoadedModel:
        """Return what one of the replicas has loaded."""
        ...
