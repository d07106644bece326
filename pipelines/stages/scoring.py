"""From pairs to scores and the columns that come of them, the same in a job and in a stage."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pyarrow as pa

from pipelines.inputs.ids import Column
from rerank_core import activate
from rerank_core.calibration import Calibration
from rerank_core.types import PairScores, PreparingScorer, QueryDocumentPair, Scorer

_PASSAGE = pa.struct([pa.field("start", pa.int32()), pa.field("end", pa.int32())])


def warm(scorer: Scorer) -> Scorer:
    """Return the scorer, ready: a budget that the device cannot hold shows now, not on the way."""
    warm_up = getattr(scorer, "warm_up", None)
    if warm_up and scorer.info.device != "cpu":
        warm_up()
    return scorer


def score_distinct(
    score: Callable[[Sequence[QueryDocumentPair]], PairScores], pairs: list[QueryDocumentPair]
) -> PairScores:
    """Score each different pair once and give its score to all its copies."""
    if not pairs:
        return PairScores.none()
    places: dict[QueryDocumentPair, int] = {}
    index = [places.setdefault(pair, len(places)) for pair in pairs]
    return score(list(places)).take(index)


def added_values(
    scores: PairScores, activation: str, names: dict[str, str], calibration: Calibration | None
) -> list[tuple[str, Column]]:
    """Return the columns that are added, the score first; one value per pair.

    `names` says what they are called, and whether there is a passage.
    """
    activated = activate(scores.raw, activation)
    added: list[tuple[str, Column]] = [(names["score"], pa.array(activated, pa.float32()))]
    if calibration:
        chances = calibration.apply(scores.raw)
        added.append((names["calibrated_score"], pa.array(chances, pa.float32())))
    if "passage" in names:
        spans = [scores.passages.get(place) for place in range(len(scores))]
        ends = [None if s is None else {"start": s[0], "end": s[1]} for s in spans]
        added.append((names["passage"], pa.array(ends, _PASSAGE)))
    return added


class SecondHalf:
    """The second half of a scorer, as one that scores what the first half has made."""

    def __init__(self, halves: PreparingScorer) -> None:
        self.info, self.score = halves.info, halves.run
