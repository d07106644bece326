"""What Prometheus sees, through Ray's metrics. Labels hold names that we chose, never texts."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from ray.serve.metrics import Counter, Gauge, Histogram

from rerank_core import PairScores
from rerank_core.batcher import MicroBatcher
from rerank_core.batching import computed
from serve_app.gateway.admission import AdmissionGate
from serve_app.gateway.request_log import RequestRecord

_SECONDS = [0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0]
_COUNTS: list[float] = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000]
_TOKENS: list[float] = [64, 256, 1024, 4096, 16_384, 65_536, 262_144, 1_048_576]


class RequestMeter:
    """Counts what a gateway answers; called once a request."""

    def __init__(self, admission: Mapping[str, AdmissionGate]) -> None:
        self._admission = admission
        # Ray's own annotation allows one key only.
        by: Any = ("dialect", "model", "status")
        two: Any = ("dialect", "model")
        self._requests = Counter("rerank_requests", "Requests by outcome.", tag_keys=by)
        self._seconds = Histogram(
            "rerank_request_duration_seconds",
            "From first header to answer.",
            boundaries=_SECONDS,
            tag_keys=two,
        )
        self._queue = _seconds("rerank_queue_duration_seconds", "Waiting in replicas.")
        self._inference = _seconds("rerank_inference_duration_seconds", "Slowest pass.")
        self._documents = _count("rerank_documents", "Documents scored.")
        self._tokens = _count("rerank_tokens", "Tokens that models read.")
        self._units = _count("rerank_units", "Work units sent.")
        self._retries = _count("rerank_retries", "Units sent again after a lost replica.")
        self._mixed = _count("rerank_mixed_units", "Units that another version of a model scored.")
        self._truncated = _count("rerank_truncated_documents", "Documents not read whole.")
        keys = ("model",)
        self._bound = Gauge(
            "rerank_admission_limit_tokens", "Work that may be under way.", tag_keys=keys
        )
        self._under_way = Gauge(
            "rerank_admitted_tokens", "Work of this gateway that is under way.", tag_keys=keys
        )
        self._demand = Gauge(
            "rerank_demand_tokens_per_second",
            "Work that this gateway is asked for, refused work included.",
            tag_keys=keys,
        )

    def __call__(self, record: RequestRecord) -> None:
        """Count one request."""
        named = {"dialect": record.dialect or "none", "model": record.model or "none"}
        self._requests.inc(tags={**named, "status": str(record.status)})
        model = {"model": record.model}
        if gate := self._admission.get(record.model):
            self._bound.set(gate.bound, tags=model)
            self._under_way.set(gate.under_way, tags=model)
            self._demand.set(gate.demand().tokens_per_s, tags=model)
        gathered = record.gathered
        if gathered is None:
            return
        self._seconds.observe(record.total_s, tags=named)
        self._queue.observe(gathered.queue_s, tags=model)
        self._inference.observe(gathered.inference_s, tags=model)
        for counter, amount in (
            (self._documents, record.documents),
            (self._tokens, record.tokens),
            (self._units, gathered.units),
            (self._retries, gathered.retries),
            (self._mixed, gathered.mixed),
            (self._truncated, len(record.truncated)),
        ):
            if amount:
                counter.inc(amount, tags=model)


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
            "tokens": _count("rerank_real_tokens", "Tokens in forward passes, no padding."),
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
    return Histogram(name, text, boundaries=_SECONDS, tag_keys=("model",))


def _count(name: str, text: str) -> Counter:
    return Counter(name, text, tag_keys=("model",))
