"""The values that pass between rooms. Plain and frozen; they know nothing of models or HTTP."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

from rerank_core.scores import Float32s as Float32s
from rerank_core.scores import PairScores as PairScores


@dataclass(frozen=True, slots=True)
class Candidate:
    """A document proposed for a query by the first stage."""

    doc_id: str
    text: str


@dataclass(frozen=True, slots=True)
class RerankRequest:
    """One caller's question: a query, its candidates, and how many to keep (`None`: all).

    `instruction` says what relevance means, in place of the model's own. `max_tokens_per_query`
    and `max_tokens_per_doc` cut further than the model must. Candidates
    whose activated score is below `score_threshold` are left out of the ranking, and so are those
    that only the first stage of a cascade saw; a calibrated score does not count there.
    """

    query: str
    candidates: tuple[Candidate, ...]
    top_k: int | None = None
    max_tokens_per_query: int | None = None
    max_tokens_per_doc: int | None = None
    score_threshold: float | None = None
    instruction: str | None = None
    max_tokens_per_pair: int | None = None


@dataclass(frozen=True, slots=True)
class QueryDocumentPair:
    """All that a scorer ever sees. Unpacks into query and document.

    `max_query_tokens`, `max_document_tokens` and `max_tokens`, of all that is read, are the
    caller's own limits; the scorer's apply in any case. `instruction` takes the place of the
    scorer's. `query_id` says which pairs belong to one query, where scores depend on that (a
    cascade); without one the query's text does.
    """

    query: str
    document: str
    max_query_tokens: int | None = None
    max_document_tokens: int | None = None
    instruction: str | None = None
    query_id: str | None = None
    max_tokens: int | None = None

    @property
    def question(self) -> str:
        """The query behind its instruction, for models that have no place for one."""
        return f"{self.instruction}\n{self.query}" if self.instruction else self.query

    def __iter__(self) -> Iterator[str]:
        yield self.query
        yield self.document


@dataclass(frozen=True, slots=True)
class ScorerInfo:
    """What was loaded. `fingerprint` is equal exactly when two sets of scores are comparable."""

    model: str
    revision: str | None
    backend: str
    device: str
    dtype: str
    max_length: int
    max_batch_tokens: int
    activation: str
    fingerprint: str


class Scorer(Protocol):
    """Scores pairs. Implementations are not thread-safe: one thread at a time."""

    @property
    def info(self) -> ScorerInfo:
        """What was loaded, for `/info` and manifests."""
        ...

    def score(self, pairs: Sequence[QueryDocumentPair]) -> PairScores:
        """Score every pair, in input order.

        A pair that cannot be scored gets NaN and a reason in `errors`; the others are scored.
        Raises ModelUnavailable when the model itself has failed and must be replaced.
        """
        ...


class LoadedScorer(Scorer, Protocol):
    """A scorer as `load_scorer` returns it."""

    def warm_up(self) -> None:
        """Do now what only the first call would do, at the largest batch that calls can make."""
        ...


class PreparingScorer(LoadedScorer, Protocol):
    """A scorer in two halves: texts to ids in any one thread, ids to scores in the scoring one."""

    prepares: bool

    def prepare(self, pairs: Sequence[QueryDocumentPair]) -> Sequence[Any]:
        """Return something for each pair, in order, for `run`."""
        ...

    def run(self, prepared: Sequence[Any]) -> PairScores:
        """Score what was prepared, of several calls together if need be, as `score` would."""
        ...


def preparing(scorer: Scorer) -> PreparingScorer | None:
    """Return the scorer as one in two halves, where that is worth it; None elsewhere."""
    return cast(PreparingScorer, scorer) if getattr(scorer, "prepares", False) else None


@dataclass(frozen=True, slots=True)
class RankedCandidate:
    """A scored candidate. `index` is its place in the request, `rank` starts at 1.

    `passage` has the characters (start, end) of the best passage of a document that was split;
    `calibrated_score` is a probability, where a calibration was fitted. `first_stage_only` says
    that only a cascade's small model saw it: its score gives its place and means nothing else.
    """

    index: int
    doc_id: str
    rank: int
    score: float
    raw_score: float
    tokens: int
    truncated: bool
    passage: tuple[int, int] | None = None
    calibrated_score: float | None = None
    first_stage_only: bool = False


@dataclass(frozen=True, slots=True)
class FailedCandidate:
    """A candidate without a score, and why. The reason never holds its text."""

    index: int
    doc_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class RerankResult:
    """The answer to one request: best first, cut to `top_k`, and what could not be scored.

    Going through it goes through `ranked`. `tokens` are all that the model read for it.
    """

    ranked: tuple[RankedCandidate, ...]
    failed: tuple[FailedCandidate, ...]
    tokens: int

    def __iter__(self) -> Iterator[RankedCandidate]:
        return iter(self.ranked)
