"""What a scorer answers: one entry per pair, cut and joined. It does not know what was scored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from rerank_core.errors import ScoringFailed

Float32s = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class PairScores:
    """One entry per pair, in input order.

    `raw` holds the model's logits, float32, higher is better, NaN exactly where `errors` has the
    pair's index. `tokens` counts what the model read, special tokens included. `truncated` says
    that the model did not see the whole pair. `passages` says, for a document that was split, which
    characters (start, end) the best passage has. `first_stage_only` holds the indices of pairs that
    only a cascade's small model saw: their `raw` gives an order and means nothing else.
    `fingerprint` is the scorer's, where it is known.
    """

    raw: Float32s
    tokens: npt.NDArray[np.int32]
    truncated: npt.NDArray[np.bool_]
    errors: Mapping[int, str] = field(default_factory=dict)
    passages: Mapping[int, tuple[int, int]] = field(default_factory=dict)
    first_stage_only: frozenset[int] = frozenset()
    fingerprint: str | None = None

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
        """Put the scores of neighbouring ranges together; indices count from the whole's start.

        Raises ScoringFailed for scores of two fingerprints: they cannot be compared. The whole has
        a fingerprint only if all its parts do.
        """
        if not parts:
            return cls.none()
        starts = np.cumsum([0, *(len(part) for part in parts)]).tolist()
        placed = list(zip(starts, parts, strict=False))
        return cls(
            np.concatenate([part.raw for part in parts]),
            np.concatenate([part.tokens for part in parts]),
            np.concatenate([part.truncated for part in parts]),
            {s + i: why for s, part in placed for i, why in part.errors.items()},
            {s + i: span for s, part in placed for i, span in part.passages.items()},
            frozenset(s + i for s, part in placed for i in part.first_stage_only),
            _one_fingerprint(parts),
        )

    def part(self, start: int, stop: int) -> PairScores:
        """Return the entries from `start` up to `stop`; its indices count from `start`."""
        return self._at(slice(start, stop), range(start, min(stop, len(self))))

    def take(self, index: npt.ArrayLike) -> PairScores:
        """Return the entries at the given indices, in that order; an index may stand twice."""
        places = np.asarray(index, dtype=np.int64)
        return self._at(places, places.tolist())

    def stamped(self, fingerprint: str) -> PairScores:
        """Return the same scores as those of the scorer with this fingerprint."""
        return replace(self, fingerprint=fingerprint)

    def _at(self, index: slice | npt.NDArray[np.int64], places: Sequence[int]) -> PairScores:
        only = self.first_stage_only
        return PairScores(
            self.raw[index],
            self.tokens[index],
            self.truncated[index],
            _picked(self.errors, places),
            _picked(self.passages, places),
            frozenset(new for new, old in enumerate(places) if old in only) if only else only,
            self.fingerprint,
        )


def _one_fingerprint(parts: Sequence[PairScores]) -> str | None:
    found = {part.fingerprint for part in parts if len(part)}
    known = sorted(fingerprint for fingerprint in found if fingerprint is not None)
    if len(known) > 1:
        raise ScoringFailed(
            f"scores of two scorers cannot be joined (fingerprints {', '.join(known)}); score all"
            " pairs of a query with one of them"
        )
    return found.pop() if len(found) == 1 else None


_Value = TypeVar("_Value")


def _picked(values: Mapping[int, _Value], places: Sequence[int]) -> dict[int, _Value]:
    # Looks up the few places wanted: walking all values for each of many parts is quadratic.
    return {new: values[old] for new, old in enumerate(places) if old in values} if values else {}
