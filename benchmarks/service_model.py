"""What a simulated service is made of: its load, its figures, its settings and its decisions.

Settings are those that ship (serve_app/serve.yaml) and decisions are the service's own functions;
only what Ray and the batcher do inside is written down again. It knows nothing of time: that is
simulate.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from serve_app.capacity import least_loaded
from serve_app.config import ServeConfig
from serve_app.gateway.units import cut_units

_SERVE_YAML = Path(__file__).parents[1] / "serve_app" / "serve.yaml"
# Refusals by chance before the load has met its replicas are not what a share is about.
SETTLED_S = 120.0


def shipped(**changed: dict[str, Any]) -> ServeConfig:
    """Return the settings that ship, with fields of its blocks changed: admission={...}."""
    (application,) = yaml.safe_load(_SERVE_YAML.read_text(encoding="utf-8"))["applications"]
    settings = ServeConfig.model_validate(application["args"]).model_dump()
    for block, fields in changed.items():
        settings[block].update(fields)
    return ServeConfig.model_validate(settings)


@dataclass(frozen=True)
class Load:
    """What arrives: a Poisson stream of requests whose documents vary in length."""

    requests_per_s: float
    documents: int = 100
    # Mean tokens of a pair, and the sigma of their log-normal spread (0: all equal).
    tokens: float = 300.0
    spread: float = 0.6
    duration_s: float = 30.0
    # The model cuts longer pairs.
    max_length: int = 8192


@dataclass(frozen=True)
class Service:
    """One replica, as measured on the real thing, and the settings around it."""

    tokens_per_s: float
    # What a forward pass costs however small it is.
    fixed_s: float = 0.005
    # HTTP, checks and the hop to the replica, per request.
    overhead_s: float = 0.005
    # Of a GPU's scorer.
    max_batch_tokens: int = 65_536
    settings: ServeConfig = field(default_factory=shipped)


@dataclass(frozen=True)
class Replicas:
    """How many there may be (equal: fixed), and how late everything is that Ray does."""

    least: int = 1
    most: int = 1
    # From the decision to a replica that takes work: machine, container, weights, warm-up.
    cold_start_s: float = 60.0
    # Serve's controller hears from replicas this often, and decides this often.
    push_s: float = 10.0
    decide_s: float = 1.0


def cut(documents: Sequence[int], unit_tokens: int) -> list[int]:
    """Cut a request's documents into units as the service does; return the units' tokens."""
    return [sum(documents[i] for i in run) for run in cut_units(documents, unit_tokens)]


@dataclass(frozen=True)
class Policies:
    """Decisions to swap, to see what one is worth. Each is pure."""

    cut: Callable[[Sequence[int], int], list[int]] = cut
    # (units that each replica has, where to begin) -> the replica
    choose: Callable[[Sequence[int], int], int] = least_loaded


@dataclass
class Outcome:
    """What happened. Times in seconds; `latencies` has one entry per answered request."""

    offered: int = 0
    refused: int = 0
    # The same of what arrived after SETTLED_S.
    offered_settled: int = 0
    refused_settled: int = 0
    tokens_admitted: int = 0
    tokens_scored: int = 0
    latencies: list[float] = field(default_factory=list)
    # In forward passes; of replicas that take work; and with those that are starting.
    busy_s: float = 0.0
    replica_s: float = 0.0
    gpu_s: float = 0.0
    # (time, replicas that take work), at each change.
    replicas: list[tuple[float, int]] = field(default_factory=list)
    # When the last request had arrived.
    replicas_at_end: int = 0

    @property
    def utilisation(self) -> float:
        """Share of the replicas' time spent in forward passes."""
        return self.busy_s / self.replica_s if self.replica_s else 0.0

    @property
    def answered_share(self) -> float:
        """Share of all requests that was answered; NaN without any."""
        return 1 - self.refused / self.offered if self.offered else math.nan

    @property
    def answered_share_settled(self) -> float:
        """The same of what arrived after SETTLED_S."""
        if not self.offered_settled:
            return math.nan
        return 1 - self.refused_settled / self.offered_settled

    def quantile(self, share: float) -> float:
        """Latency that this share of the answered requests did not exceed; NaN without any."""
        return float(np.quantile(self.latencies, share)) if self.latencies else math.nan

    def summary(self) -> dict[str, float | int | None]:
        """Return the figures of the JSON line."""
        return {
            "offered": self.offered,
            "answered": len(self.latencies),
            "refused": self.refused,
            "answered_share": _rounded(self.answered_share, 4),
            f"answered_share_after_{SETTLED_S:.0f}_s": _rounded(self.answered_share_settled, 4),
            "p50_ms": _rounded(1000 * self.quantile(0.5), 1),
            "p99_ms": _rounded(1000 * self.quantile(0.99), 1),
            "utilisation": round(self.utilisation, 3),
            "peak_replicas": max((count for _, count in self.replicas), default=0),
            "replicas_at_end": self.replicas_at_end,
            "gpu_hours": round(self.gpu_s / 3600, 3),
        }


def _rounded(value: float, digits: int) -> float | None:
    # JSON has no NaN.
    return None if math.isnan(value) else round(value, digits)
