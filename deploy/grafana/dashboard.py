"""The Grafana dashboard, written as a table and printed as the JSON that Grafana imports.

python deploy/grafana/dashboard.py > deploy/grafana/ray-rerank.json

The names are those of serve_app/metrics.py, and Ray's own; a test holds them to both.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from typing import Any

_DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
_WIDTH, _HEIGHT = 8, 8
_PER_ROW = 24 // _WIDTH


@dataclass(frozen=True)
class Panel:
    """One graph: what it shows, why one looks at it, and a query for each kind of line."""

    title: str
    why: str
    unit: str
    lines: tuple[tuple[str, str], ...]


def _quantile(share: float, histogram: str, by: str = "", only: str = "") -> str:
    group = f"le, {by}" if by else "le"
    return f"histogram_quantile({share}, sum by ({group}) (rate({histogram}_bucket{only}[5m])))"


def _mean(histogram: str, by: str) -> str:
    total, count = (f"sum by ({by}) (rate({histogram}_{end}[5m]))" for end in ("sum", "count"))
    return f"{total} / {count}"


def _share(part: str, whole: str) -> str:
    over, under = (
        f"sum by (model) (rate(ray_rerank_{name}_tokens_total[5m]))" for name in (part, whole)
    )
    return f"{over} / {under}"


ROWS: dict[str, tuple[Panel, ...]] = {
    "Callers": (
        Panel(
            "Requests by status",
            "200 is an answer, 429 a refusal for lack of room, 5xx our fault. Probes count, too.",
            "reqps",
            (("sum by (status) (rate(ray_rerank_requests_total[1m]))", "{{status}}"),),
        ),
        Panel(
            "Time to answer",
            "From the first header to the last byte. Refusals are quick; failures are not.",
            "s",
            (
                *(
                    (
                        _quantile(
                            share,
                            "ray_rerank_request_duration_seconds",
                            only='{outcome="answered"}',
                        ),
                        name,
                    )
                    for share, name in ((0.5, "p50"), (0.95, "p95"), (0.99, "p99"))
                ),
                (
                    _quantile(
                        0.95,
                        "ray_rerank_request_duration_seconds",
                        "outcome",
                        only='{outcome!="answered"}',
                    ),
                    "p95, {{outcome}}",
                ),
            ),
        ),
        Panel(
            "Requests by API",
            "Which dialects are in use. none: probes, pages, and what is refused unread.",
            "reqps",
            (("sum by (dialect) (rate(ray_rerank_requests_total[5m]))", "{{dialect}}"),),
        ),
        Panel(
            "Refused",
            "Share of requests answered 429. Above one percent for long: more replicas.",
            "percentunit",
            (
                (
                    'sum(rate(ray_rerank_requests_total{status="429"}[5m]))'
                    ' / sum(rate(ray_rerank_requests_total{dialect!="none"}[5m]))',
                    "refused",
                ),
            ),
        ),
        Panel(
            "Work under way and its bound",
            "Estimated tokens admitted. At the bound, requests are refused.",
            "short",
            (
                ("sum(ray_rerank_admitted_tokens)", "under way"),
                ("sum(ray_rerank_admission_limit_tokens)", "bound"),
            ),
        ),
        Panel(
            "Cut and failed documents",
            "Documents the model did not read whole, and pairs without a score.",
            "cps",
            (
                ("sum(rate(ray_rerank_truncated_documents_total[5m]))", "cut"),
                ("sum(rate(ray_rerank_pair_errors_total[5m]))", "without a score"),
            ),
        ),
    ),
    "Scoring": (
        Panel(
            "Tokens and documents per second",
            "What the models do. Tokens per second and replica is the figure to plan with.",
            "short",
            (
                ("sum by (model) (rate(ray_rerank_tokens_total[1m]))", "tokens, {{model}}"),
                ("sum by (model) (ray_rerank_demand_tokens_per_second)", "asked for, {{model}}"),
                ("sum by (model) (rate(ray_rerank_documents_total[1m]))", "documents, {{model}}"),
            ),
        ),
        Panel(
            "Waiting and scoring",
            "95 % of requests wait and are scored within this. Waiting grows first.",
            "s",
            (
                (_quantile(0.95, "ray_rerank_queue_duration_seconds"), "waiting"),
                (_quantile(0.95, "ray_rerank_inference_duration_seconds"), "scoring"),
                (_quantile(0.95, "ray_rerank_pass_duration_seconds"), "one pass"),
            ),
        ),
        Panel(
            "Size of a pass",
            "Tokens and pairs that share a forward pass, on average. Small under load: smaller"
            " requests than the budget, or too many replicas.",
            "short",
            (
                (_mean("ray_rerank_batch_tokens", "model"), "tokens, {{model}}"),
                (_mean("ray_rerank_batch_pairs", "model"), "pairs, {{model}}"),
            ),
        ),
        Panel(
            "How full passes are",
            "Tokens that a pass computes, of its budget; and how many of those are no padding. Low"
            " fill under load: `merge_tokens` is below `max_batch_tokens`, or requests are small.",
            "percentunit",
            (
                (_share("computed", "budget"), "filled, {{model}}"),
                (_share("real", "computed"), "real tokens, {{model}}"),
            ),
        ),
        Panel(
            "Out of memory",
            "Passes that did not fit and were halved. More than a few: lower `max_batch_tokens`.",
            "cps",
            (
                (
                    "sum by (model) (rate(ray_rerank_out_of_memory_total[5m]))",
                    "{{model}}",
                ),
            ),
        ),
        Panel(
            "Units and retries",
            "Work units sent to replicas; those sent again after a replica died.",
            "cps",
            (
                ("sum(rate(ray_rerank_units_total[1m]))", "units"),
                ("sum(rate(ray_rerank_retries_total[1m]))", "sent again"),
                ("sum(rate(ray_rerank_hedged_units_total[1m]))", "late, sent twice"),
            ),
        ),
        Panel(
            "Queued in replicas",
            "Estimated tokens that wait for a pass, of the fullest replica.",
            "short",
            (("max by (model) (ray_rerank_queued_tokens)", "{{model}}"),),
        ),
        Panel(
            "Waiting for any replica",
            "Units that Serve could not give to a replica yet.",
            "short",
            (
                (
                    "sum by (deployment)"
                    ' (ray_serve_deployment_queued_queries{deployment=~"Scorer.*"})',
                    "{{deployment}}",
                ),
            ),
        ),
    ),
    "Replicas": (
        Panel(
            "Replicas",
            "Healthy ones, and how many the load is worth, whatever the bounds.",
            "short",
            (
                ("sum by (deployment) (ray_serve_deployment_replica_healthy)", "{{deployment}}"),
                (
                    "max by (deployment) (ray_serve_autoscaling_total_requests)"
                    " / max by (deployment) (ray_serve_autoscaling_target_ongoing_requests)",
                    "{{deployment}}, wanted",
                ),
            ),
        ),
        Panel(
            "Start of a replica",
            "From creation to ready: image, weights, warm-up.",
            "ms",
            (
                (
                    _quantile(0.95, "ray_serve_replica_startup_latency_ms", "deployment"),
                    "{{deployment}}, p95",
                ),
            ),
        ),
        Panel(
            "Failed health checks",
            "Since the controller started. Should be flat; each third in a row replaces a replica.",
            "short",
            (
                (
                    "sum by (deployment) (ray_serve_health_check_failures_total)",
                    "{{deployment}}",
                ),
            ),
        ),
        Panel(
            "Late event loops",
            "How late each kind of loop comes to what waits. 200 ms: something blocks it.",
            "ms",
            (
                (
                    _quantile(
                        0.95,
                        "ray_serve_event_loop_scheduling_latency_ms",
                        "component, loop_type",
                    ),
                    "{{component}}, {{loop_type}}",
                ),
            ),
        ),
    ),
    "Machines": (
        Panel(
            "GPU use",
            "Percent of time that a kernel ran; it says nothing of how well it used the GPU.",
            "percent",
            (("avg by (instance) (ray_node_gpus_utilization)", "{{instance}}"),),
        ),
        Panel(
            "GPU memory",
            "Used. Near the top is normal after warm-up; a steady climb is not.",
            "decmbytes",
            (("sum by (instance) (ray_node_gram_used)", "{{instance}}"),),
        ),
        Panel(
            "Memory",
            "Share of each machine's memory in use.",
            "percentunit",
            (
                (
                    "sum by (instance) (ray_node_mem_used)"
                    " / sum by (instance) (ray_node_mem_total)",
                    "{{instance}}",
                ),
            ),
        ),
        Panel(
            "CPU",
            "Share of each machine's cores in use.",
            "percent",
            (("avg by (instance) (ray_node_cpu_utilization)", "{{instance}}"),),
        ),
        Panel(
            "Free disk",
            "The object store spills here; a full disk stops Ray.",
            "bytes",
            (("min by (instance) (ray_node_disk_free)", "{{instance}}"),),
        ),
        Panel(
            "Nodes that report",
            "Machines whose metrics arrive.",
            "short",
            (('count(up{job="ray"} == 1)', "nodes"),),
        ),
    ),
}


def dashboard() -> dict[str, Any]:
    """Return the dashboard as Grafana's JSON model."""
    panels: list[dict[str, Any]] = []
    y = 0
    for name, graphs in ROWS.items():
        panels.append(_row(len(panels) + 1, name, y))
        y += 1
        for place, panel in enumerate(graphs):
            x = place % _PER_ROW * _WIDTH
            panels.append(_graph(len(panels) + 1, panel, x, y + place // _PER_ROW * _HEIGHT))
        y += -(-len(graphs) // _PER_ROW) * _HEIGHT
    return {
        "uid": "ray-rerank",
        "title": "ray-rerank",
        "tags": ["ray", "rerank"],
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {
            "list": [
                {
                    "name": "datasource",
                    "label": "Prometheus",
                    "type": "datasource",
                    "query": "prometheus",
                }
            ]
        },
        "panels": panels,
    }


def _row(number: int, title: str, y: int) -> dict[str, Any]:
    return {
        "id": number,
        "type": "row",
        "title": title,
        "collapsed": False,
        "gridPos": {"x": 0, "y": y, "w": 24, "h": 1},
        "panels": [],
    }


def _graph(number: int, panel: Panel, x: int, y: int) -> dict[str, Any]:
    return {
        "id": number,
        "type": "timeseries",
        "title": panel.title,
        "description": panel.why,
        "datasource": _DATASOURCE,
        "gridPos": {"x": x, "y": y, "w": _WIDTH, "h": _HEIGHT},
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "options": {"tooltip": {"mode": "multi", "sort": "desc"}},
        "targets": [
            {"refId": chr(ord("A") + i), "datasource": _DATASOURCE, "expr": e, "legendFormat": name}
            for i, (e, name) in enumerate(panel.lines)
        ],
    }


if __name__ == "__main__":
    json.dump(dashboard(), sys.stdout, indent=1)
    sys.stdout.write("\n")
