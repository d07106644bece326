"""The values that pass between rooms. Plain and frozen; they know nothing of models or HTTP."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt

Float32s = npt.NDArray[np.float32]


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
    whose activated score is below `score_threshold` are left out of the ranking; a calibrated
    score does not count there.
    """

    query: str
    candidates: tuple[Candidate, ...]
    top_k: int | None = None
    max_tokens_per_query: int | None = None
    max_tokens_per_doc: int | None = None
    score_threshold: float | None = None
    instruction: str | None = None


@dataclass(frozen=True, slots=True)
class QueryDocumentPair:
    """All that a scorer ever sees. Unpacks into query and document.

    `max_query_tokens` and `max_document_tokens` are the caller's own limits; the scorer's apply
    in any case. `instruction` takes the place of the scorer's.
    """

    query: str
    document: str
    max_query_tokens: int | None = None
    max_document_tokens: int | None = None
    instruction: str | None = None

    @property
    def question(self) -> str:
        """The query behind its instruction, for models that have no place for one."""
        return f"{self.instruction}\n{self.query}" if self.instruction else self.query

    def __iter__(self) -> Iterator[str]:
        yield self.query
        yield self.document


@dataclass(frozen=True, slots=True)
class PairScores:
    """One entry per pair, in input order.

    `raw` holds the model's logits, float32, higher is better, NaN exactly where `errors` has the
    pair's index. `tokens` counts what the model read, special tokens included. `truncated` says
    that the model did not see the whole pair. `passages` says, for a document that was split, which
    characters (start, end) the best passage has.
    """

    raw: Float32s
    tokens: npt.NDArray[np.int32]
    truncated: npt.NDArray[np.bool_]
    errors: Mapping[int, str] = field(default_factory=dict)
    passages: Mapping[int, tuple[int, int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not len(self.raw) == len(self.tokens) == len(self.truncated):
            raise ValueError("raw, tokens and truncated must have one entry per pair")

    def __len__(self) -> int:
        return len(self.raw)

    @classmethod
    def none(cls) -> PairScores:
        """Return the scores of no pairs."""
        return cls(np.empty(0, np.float32), np.empty(0, np.int32), np.empty(0, np.bool_))

    @classmethod
    def concat(cls, parts: Sequence[PairScores]) -> PairScores:
        """Put the scores of neighbouring ranges together; indices count from the whole's start."""
        if not parts:
            return cls.none()
        starts = np.cumsum([0, *(len(part) for part in parts)]).tolist()
        return cls(
            np.concatenate([part.raw for part in parts]),
            np.concatenate([part.tokens for part in parts]),
            np.concatenate([part.truncated for part in parts]),
            {s + i: why for s, part in zip(starts, parts, strict=False)
             for i, why in part.errors.items()},
            {s + i: span for s, part in zip(starts, parts, strict=False)
             for i, span in part.passages.items()},
        )  # fmt: skip

    def part(self, start: int, stop: int) -> PairScores:
        """Return the entries from `start` up to `stop`; its indices count from `start`."""
        places = range(start, min(stop, len(self)))
        return PairScores(
            self.raw[start:stop],
            self.tokens[start:stop],
            self.truncated[start:stop],
            _at(self.errors, places),
            _at(self.passages, places),
        )

    def take(self, index: npt.ArrayLike) -> PairScores:
        """Return the entries at the given indices, in that order; an index may stand twice."""
        places = np.asarray(index, dtype=np.int64)
        return PairScores(
            self.raw[places],
            self.tokens[places],
            self.truncated[places],
            _at(self.errors, places.tolist()),
            _at(self.passages, places.tolist()),
        )


_Value = TypeVar("_Value")


def _at(values: Mapping[int, _Value], places: Sequence[int]) -> dict[int, _Value]:
    # Looks up the few places wanted: walking all values for each of many parts is quadratic.
    return {new: values[old] for new, old in enumerate(places) if old in values} if values else {}


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


@dataclass(frozen=True, slots=True)
class RankedCandidate:
    """A scored candidate. `index` is its place in the request, `rank` starts at 1.

    `passage` has the characters (start, end) of the best passage of a document that was split;
    `calibrated_score` is a probability, where a calibration was fitted.
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
