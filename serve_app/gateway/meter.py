"""What is counted of requests. It knows the metrics' kinds, and not who collects them.

Labels hold names that we chose, never texts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from serve_app.gateway.admission import AdmissionGate
from serve_app.gateway.request_log import RequestRecord

SECONDS = [0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0]


class Metrics(NamedTuple):
    """Makes metrics; the classes of `ray.serve.metrics`, or others with their interface."""

    Counter: Callable[..., Any]
    Gauge: Callable[..., Any]
    Histogram: Callable[..., Any]


class RequestMeter:
    """Counts what a gateway answers, in metrics that `make` makes; called once a request."""

    def __init__(self, admission: Mapping[str, AdmissionGate], make: Metrics) -> None:
        def _seconds(name: str, text: str, *more: str) -> Any:
            keys = (*more, "model")
            return make.Histogram(name, text, boundaries=SECONDS, tag_keys=keys)

        def _count(name: str, text: str, *more: str) -> Any:
            return make.Counter(name, text, tag_keys=(*more, "model"))

        def _gauge(name: str, text: str) -> Any:
            return make.Gauge(name, text, tag_keys=("model",))

        self._admission = admission
        self._requests = _count("rerank_requests", "Requests by outcome.", "dialect", "status")
        self._seconds = _seconds(
            "rerank_request_duration_seconds", "From first header to answer.", "dialect", "outcome"
        )
        self._queue = _seconds("rerank_queue_duration_seconds", "Waiting in replicas.")
        self._inference = _seconds("rerank_inference_duration_seconds", "Slowest pass.")
        self._documents = _count("rerank_documents", "Documents scored.")
        self._tokens = _count("rerank_tokens", "Tokens that models read.")
        self._units = _count("rerank_units", "Work units sent.")
        self._retries = _count("rerank_retries", "Units sent again after a lost replica.")
        self._mixed = _count("rerank_mixed_units", "Units that another version of a model scored.")
        self._hedged = _count("rerank_hedged_units", "Late units sent to a second replica, too.")
        self._truncated = _count("rerank_truncated_documents", "Documents not read whole.")
        self._bound = _gauge("rerank_admission_limit_tokens", "Work that may be under way.")
        self._under_way = _gauge("rerank_admitted_tokens", "Work of this gateway under way.")
        self._demand = _gauge(
            "rerank_demand_tokens_per_second",
            "Work that this gateway is asked for, refused work included.",
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
        if record.dialect:
            self._seconds.observe(
                record.total_s, tags={**named, "outcome": _outcome(record.status)}
            )
        gathered = record.gathered
        if gathered is None:
            return
        self._queue.observe(gathered.queue_s, tags=model)
        self._inference.observe(gathered.inference_s, tags=model)
        for counter, amount in (
            (self._documents, record.documents),
            (self._tokens, record.tokens),
            (self._units, gathered.units),
            (self._retries, gathered.retries),
            (self._mixed, gathered.mixed),
            (self._hedged, gathered.hedged),
            (self._truncated, len(record.truncated)),
        ):
            if amount:
                counter.inc(amount, tags=model)


def _outcome(status: int) -> str:
    if status < 400:
        return "answered"
    # 499: the client has gone.
    return "refused" if status < 499 else "failed"
