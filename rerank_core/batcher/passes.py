"""One pass: its units are scored together, each caller gets its part or its error.

It does not know whose turn it is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

from rerank_core.batcher.lanes import Scored, Waiting
from rerank_core.batcher.pass_rate import PassRate
from rerank_core.errors import ModelUnavailable
from rerank_core.scores import PairScores

# Takes what callers handed in: pairs, or what the scorer's first half made of them.
Score = Callable[[Sequence[Any]], PairScores]


class Passes:
    """Runs passes in the scoring thread, and counts them under `lock`.

    `broken` is the reason once the model has failed for good, `last_success` a time of `clock`.
    """

    def __init__(
        self,
        score: Score,
        rate: PassRate,
        clock: Callable[[], float],
        lock: AbstractContextManager[Any],
    ) -> None:
        self.rate = rate
        self.broken: str | None = None
        self.last_success: float | None = None
        self.passes = self.pairs = self.merged_callers = self.dropped = self.failed_in_a_row = 0
        self._score = score
        self._clock = clock
        self._lock = lock

    def run(self, batch: list[Waiting]) -> None:
        """Score the units of `batch` together and answer each; what fails is scored alone."""
        started = self._clock()
        pairs = [pair for waiting in batch for pair in waiting.pairs]
        try:
            scores = self._score(pairs)
            if len(scores) != len(pairs):
                raise RuntimeError("the scorer answered with another number of scores than pairs")
        except ModelUnavailable as error:
            self.failed_in_a_row += 1
            self.broken = str(error)
            fail(batch, error)
        except Exception as error:
            self.failed_in_a_row += 1
            if len(batch) == 1:
                fail(batch, error)
                return
            # Somebody's input broke the pass: each caller alone, so that only that one fails.
            for waiting in batch:
                if self.broken:
                    fail([waiting], ModelUnavailable(self.broken))
                elif waiting.is_wanted(self._clock()):
                    self.run([waiting])
                else:
                    self.dropped += 1
        else:
            self._deliver(batch, scores, started)

    def _deliver(self, batch: list[Waiting], scores: PairScores, started: float) -> None:
        ended = self._clock()
        # A pass without a single score may be its input's fault, or a scorer that only makes NaN.
        useless = bool(scores.errors) and len(scores.errors) == len(scores)
        with self._lock:
            if useless:
                self.failed_in_a_row += 1
            else:
                self.last_success = ended
                self.failed_in_a_row = 0
                self.rate.record(sum(waiting.cost for waiting in batch), ended - started)
            self.passes += 1
            self.pairs += len(scores)
            self.merged_callers += len(batch)
        start = 0
        for waiting in batch:
            stop = start + len(waiting.pairs)
            part = scores.part(start, stop)
            waiting.future.set_result(Scored(part, started - waiting.queued_at, ended - started))
            start = stop


def fail(batch: list[Waiting], error: Exception) -> None:
    """Answer with `error` all of `batch` that have no answer yet."""
    for waiting in batch:
        if not waiting.future.done():
            waiting.future.set_exception(error)
