"""Writes docs/metrics.md: every metric of ours, out of the objects that count.

    python -m tools.metrics_page

It knows no metric by name: each meter is made once, and what it holds is asked for name, labels and
description.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ray.util.metrics import Counter, Gauge, Histogram, Metric

from pipelines.stages.ray_metrics import JobMeter
from serve_app.gateway.meter import Metrics, RequestMeter
from serve_app.metrics import PassMeter

PAGE = Path(__file__).parent.parent / "docs" / "metrics.md"
START = """# Metrics

Written by `make settings` from the code; do not edit it by hand. [Operations](operations.md) says
what to look at.

On every machine Ray's metrics port (8080 in the cluster files) has these, by the names below,
beside Ray's own (`ray_serve_*`, `ray_node_*`). A histogram has three: `_bucket`, `_sum` and
`_count`. `/metrics` at the service's own port has those of the gateway that answers, without
`ray_`. Ray adds labels of its own, such as the replica.

`outcome` is `answered`, `refused` (a status from 400 to 498) or `failed`; `dialect` is whose API
was spoken.
"""
_HEADER = "| Metric | Kind | Labels | Meaning |\n| --- | --- | --- | --- |"


def page() -> str:
    """Return the whole page."""
    parts = [START]
    for heading, meter in (
        ("Gateways", RequestMeter({}, Metrics(Counter, Gauge, Histogram))),
        ("Replicas", PassMeter("any")),
        ("Jobs", JobMeter("any", 1)),
    ):
        rows = "\n".join(_row(metric) for metric in _metrics(meter))
        parts.append(f"## {heading}\n\n{_HEADER}\n{rows}\n")
    return "\n".join(parts)


def _metrics(meter: object) -> Iterator[Metric]:
    for held in vars(meter).values():
        for value in held.values() if isinstance(held, dict) else [held]:
            if isinstance(value, Metric):
                yield value


def _row(metric: Metric) -> str:
    told = metric.info
    name = "ray_" + str(told["name"]) + "_total" * isinstance(metric, Counter)
    labels = ", ".join(f"`{key}`" for key in told["tag_keys"])
    kind = type(metric).__name__.lower()
    return f"| `{name}` | {kind} | {labels} | {told['description']} |"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
