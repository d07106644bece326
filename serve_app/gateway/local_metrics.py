"""Metrics of one gateway process, for `/metrics` on the serving port, by Prometheus' own client.

Ray's agents collect the same for the whole cluster; this is for who scrapes the service itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import prometheus_client as prometheus

from serve_app.gateway.meter import Metrics


class LocalMetrics:
    """Makes metrics with the interface of `ray.serve.metrics`, in a registry of its own."""

    def __init__(self) -> None:
        self._registry = prometheus.CollectorRegistry()

    def text(self) -> bytes:
        """Return all values, as Prometheus reads them."""
        return prometheus.generate_latest(self._registry)

    @property
    def kinds(self) -> Metrics:
        """Return what makes metrics in this registry."""
        return Metrics(self._counter, self._gauge, self._histogram)

    def _counter(self, name: str, text: str, *, tag_keys: Sequence[str] = ()) -> _Metric:
        return _Metric(prometheus.Counter(name, text, tag_keys, registry=self._registry))

    def _gauge(self, name: str, text: str, *, tag_keys: Sequence[str] = ()) -> _Metric:
        return _Metric(prometheus.Gauge(name, text, tag_keys, registry=self._registry))

    def _histogram(
        self, name: str, text: str, *, boundaries: Sequence[float], tag_keys: Sequence[str] = ()
    ) -> _Metric:
        kind = prometheus.Histogram(
            name, text, tag_keys, registry=self._registry, buckets=tuple(boundaries)
        )
        return _Metric(kind)


class _Metric:
    def __init__(self, metric: Any) -> None:
        self._metric = metric

    def inc(self, value: float = 1.0, tags: Mapping[str, str] | None = None) -> None:
        self._with(tags).inc(value)

    def set(self, value: float, tags: Mapping[str, str] | None = None) -> None:
        self._with(tags).set(value)

    def observe(self, value: float, tags: Mapping[str, str] | None = None) -> None:
        self._with(tags).observe(value)

    def _with(self, tags: Mapping[str, str] | None) -> Any:
        return self._metric.labels(**tags) if tags else self._metric
