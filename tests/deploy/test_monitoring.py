"""Dashboard and alerts: every query parses, and asks for metrics that the code really has."""

from __future__ import annotations

import json
import re
import runpy
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import ray
import yaml

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
RAY = Path(ray.__file__).parent
# Prometheus makes these itself.
OWN_OF_PROMETHEUS = {"up"}
ALERTS = [
    rule
    for group in yaml.safe_load((DEPLOY / "prometheus" / "alerts.yaml").read_text())["groups"]
    for rule in group["rules"]
]


def generated() -> dict[str, Any]:
    return runpy.run_path(str(DEPLOY / "grafana" / "dashboard.py"))["dashboard"]()


def queries() -> list[str]:
    panels = [p for p in generated()["panels"] if p["type"] != "row"]
    shown = [target["expr"] for panel in panels for target in panel["targets"]]
    return shown + [alert["expr"] for alert in ALERTS]


def asked_metrics(query: str) -> set[str]:
    """Parse the query, which fails if it is none, and return the metric names in it."""
    promql_parser.parse(query)
    return set(re.findall(r"\b(?:ray_\w+|up)\b", query))


# What Prometheus makes of a metric's name, by its kind.
ENDINGS = {"Gauge": ("",), "Counter": ("_total",), "Histogram": ("_bucket", "_sum", "_count")}
# metrics.py makes most of its own through two short functions.
KINDS = {"_seconds": "Histogram", "_count": "Counter", "_gauge": "Gauge"}


def series_in(folder: Path, prefix: str) -> set[str]:
    """Every series of the metrics that the sources under `folder` make, with Ray's prefix."""
    made = rf'\b(Gauge|Counter|Histogram|_seconds|_count|_gauge)\(\s*"({prefix}\w+)"'
    sources = (path.read_text(encoding="utf-8") for path in folder.rglob("*.py"))
    found = {match for text in sources for match in re.findall(made, text)}
    kinds = [(KINDS.get(kind, kind), name) for kind, name in found]
    # A counter whose name has the ending already does not get it twice.
    plain = [(k, name.removesuffix("_total") if k == "Counter" else name) for k, name in kinds]
    return {f"ray_{name}{ending}" for kind, name in plain for ending in ENDINGS[kind]}


def known_names() -> set[str]:
    """Every series that a query may ask for."""
    return (
        series_in(ROOT / "serve_app", "rerank_")
        | series_in(ROOT / "pipelines", "rerank_job_")
        | series_in(RAY / "serve" / "_private", "serve_")
        | series_in(RAY / "dashboard" / "modules" / "reporter", "node_")
    )


def test_the_dashboard_in_the_repository_is_the_generated_one() -> None:
    kept = json.loads((DEPLOY / "grafana" / "ray-rerank.json").read_text(encoding="utf-8"))
    assert kept == generated()


def test_every_query_asks_for_metrics_that_exist() -> None:
    asked = set().union(*(asked_metrics(query) for query in queries()))
    assert asked - known_names() - OWN_OF_PROMETHEUS == set()


def test_a_metric_that_nobody_writes_would_be_found() -> None:
    known = known_names()
    assert "ray_rerank_requests_total" in known
    # A mistyped name, and a gauge taken for a counter.
    assert not {"ray_rerank_request_total", "ray_rerank_queued_tokens_total"} & known


def test_every_metric_of_ours_is_shown_or_watched() -> None:
    files = [ROOT / "serve_app" / name for name in ("metrics.py", "gateway/meter.py")]
    ours = [name for file in files for name in re.findall(r'"(rerank_\w+)"', file.read_text())]
    text = " ".join(queries())
    assert {name for name in ours if f"ray_{name}" not in text} == set()


def test_no_two_panels_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in generated()["panels"]:
        grid = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(grid["x"], grid["x"] + grid["w"])
            for y in range(grid["y"], grid["y"] + grid["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert["alert"])
def test_every_alert_has_a_severity_a_summary_and_a_page_in_the_runbook(
    alert: dict[str, Any],
) -> None:
    assert alert["labels"]["severity"] in ("page", "ticket")
    assert alert["annotations"]["summary"].endswith(".")
    assert re.fullmatch(r"\d+[mh]", alert["for"])
    runbook = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    assert f"### {alert['alert']}\n" in runbook


def test_no_query_asks_for_a_gauge_that_is_gone_most_of_the_time() -> None:
    # Ray drops a gauge that is not written again. The target is written when it changes, and a wish
    # above the maximum shows once per upscale_delay_s.
    text = " ".join(queries())
    assert "autoscaling_target_replicas" not in text
    assert "autoscaling_desired_replicas" not in text


def test_increase_is_never_asked_of_a_counter_that_starts_with_its_first_event() -> None:
    # One series a replica: its first value, often its only one, is no increase.
    assert not any("health_check_failures_total[" in query for query in queries())


def test_prometheus_gives_both_kinds_of_cluster_the_job_that_queries_ask_for() -> None:
    config = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
    machines, kubernetes = config["scrape_configs"]
    assert machines["job_name"] == "ray"
    (discovery,) = machines["http_sd_configs"]
    path = discovery["url"].removeprefix("http://127.0.0.1:8265")
    reporter = RAY / "dashboard" / "modules" / "reporter" / "reporter_head.py"
    assert f'@routes.get("{path}")' in reporter.read_text(encoding="utf-8")
    assert "credentials_file" in discovery["authorization"]
    assert kubernetes["relabel_configs"][-1] == {"target_label": "job", "replacement": "ray"}
    assert config["rule_files"] == ["alerts.yaml"]
