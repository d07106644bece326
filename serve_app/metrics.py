"""What Prometheus sees of replicas, through Ray's metrics. Labels never hold texts."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ray.serve.metrics import Counter, Gauge, Histogram

from rerank_core import PairScores
from rerank_core.batcher import MicroBatcher
from rerank_core.batching import computed
from serve_app.gateway.meter import SECONDS

_COUNTS: list[float] = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000]
_TOKENS: list[float] = [64, 256, 1024, 4096, 16_384, 65_536, 262_144, 1_048_576]


class PassMeter:
    """Measures a replica's passes."""

    def __init__(self, model: str) -> None:
        # The name alone: a folder's path would tell too much.
        self._tags = {"model": model.rsplit("/", 1)[-1]}
        keys = ("model",)
        self._pairs = Histogram(
            "rerank_batch_pairs", "Pairs in a pass.", boundaries=_COUNTS, tag_keys=keys
        )
        self._tokens = Histogram(
            "rerank_batch_tokens", "Tokens in a pass.", boundaries=_TOKENS, tag_keys=keys
        )
        self._seconds = _seconds("rerank_pass_duration_seconds", "One pass of the model.")
        self._queued = Gauge("rerank_queued_tokens", "Waiting in a replica.", tag_keys=keys)
        self._errors = _count("rerank_pair_errors", "Pairs without a score.")
        # Real-token share: real over computed; batch fill: computed over budget.
        self._computed = {
            "tokens": _count(
                "rerank_real_tokens", "Tokens computed, no padding; what pairs share counts once."
            ),
            "computed_tokens": _count("rerank_computed_tokens", "The same, with padding."),
            "budget_tokens": _count("rerank_budget_tokens", "What the passes could have held."),
            "out_of_memory": _count("rerank_out_of_memory", "Passes halved for want of memory."),
        }
        self._before = dataclasses.asdict(computed)

    @contextmanager
    def measure(self, batcher: MicroBatcher) -> Iterator[Callable[[PairScores], None]]:
        """Time a pass; hand the scores to what is yielded."""
        started = time.monotonic()

        def record(scores: PairScores) -> None:
            self._pairs.observe(len(scores), tags=self._tags)
            self._tokens.observe(float(scores.tokens.sum()), tags=self._tags)
            if scores.errors:
                self._errors.inc(len(scores.errors), tags=self._tags)

        try:
            yield record
        finally:
            self._seconds.observe(time.monotonic() - started, tags=self._tags)
            self._queued.set(batcher.state().queued_tokens, tags=self._tags)
            now = dataclasses.asdict(computed)
            for name, counter in self._computed.items():
                if now[name] > self._before[name]:
                    counter.inc(now[name] - self._before[name], tags=self._tags)
            self._before = now


def _seconds(name: str, text: str) -> Histogram:
    return Histogram(name, text, boundaries=SECONDS, tag_keys=("model",))


def _count(name: str, text: str) -> Counter:
    return Counter(name, text, tag_keys=("model",))
