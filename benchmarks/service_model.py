"""What a simulated service is made of: its load, its figures, and its decisions as plain functions.

The cut into units is the service's own; the other decisions are those of Ray Serve and of our
replica, written down again without Ray. It knows nothing of time: that is simulate.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from serve_app.gateway.units import cut_units


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
    """One replica and the limits around it. Rates and times as measured on the real thing."""

    tokens_per_s: float
    # What a forward pass costs however small it is.
    fixed_s: float = 0.005
    # HTTP, checks and the hop to the replica, per request.
    overhead_s: float = 0.005
    unit_tokens: int = 65_536
    max_batch_tokens: int = 65_536
    max_ongoing_units: int = 256
    # Refuse a request when the admitted work is worth more seconds than this.
    max_wait_s: float = math.inf


@dataclass(frozen=True)
class Scaling:
    """How many replicas, and how their number follows the load. min == max: fixed."""

    min_replicas: int = 1
    max_replicas: int = 1
    target_units: float = 2.0
    interval_s: float = 1.0
    look_back_s: float = 11.0
    upscale_delay_s: float = 5.0
    downscale_delay_s: float = 120.0
    # From the decision to a replica that takes work: machine, container, weights, warm-up.
    cold_start_s: float = 60.0


def cut(documents: Sequence[int], unit_tokens: int) -> list[int]:
    """Cut a request's documents into units as the service does; return the units' tokens."""
    return [sum(documents[i] for i in run) for run in cut_units(documents, unit_tokens)]


def power_of_two_choices(loads: Sequence[int], rng: np.random.Generator) -> int:
    """Return the less loaded of two random replicas, as Ray Serve's router does."""
    if len(loads) == 1:
        return 0
    first, second = int(rng.integers(0, len(loads))), int(rng.integers(0, len(loads) - 1))
    second += second >= first
    return first if loads[first] <= loads[second] else second


def take_what_fits(queue: Sequence[int], max_batch_tokens: int) -> int:
    """Return how many units from the front share one forward pass; at least one."""
    taken = tokens = 0
    for cost in queue:
        if taken and tokens + cost > max_batch_tokens:
            break
        taken, tokens = taken + 1, tokens + cost
    return taken


def replicas_for_units(ongoing: float, scaling: Scaling) -> int:
    """Return how many replicas Ray Serve's default policy wants for this many units in work."""
    wanted = math.ceil(ongoing / scaling.target_units)
    return min(scaling.max_replicas, max(scaling.min_replicas, wanted))


def admit_by_wait(admitted_tokens: int, replicas: int, service: Service) -> bool:
    """Say whether one more request is taken, given the tokens admitted and not yet scored."""
    return admitted_tokens <= service.max_wait_s * service.tokens_per_s * max(1, replicas)


@dataclass(frozen=True)
class Policies:
    """The decisions. Each is pure; swap one to see what it is worth."""

    cut: Callable[[Sequence[int], int], list[int]] = cut
    choose: Callable[[Sequence[int], np.random.Generator], int] = power_of_two_choices
    take: Callable[[Sequence[int], int], int] = take_what_fits
    scale: Callable[[float, Scaling], int] = replicas_for_units
    admit: Callable[[int, int, Service], bool] = admit_by_wait


@dataclass
class Outcome:
    """What happened. Times in seconds; `latencies` has one entry per answered request."""

    offered: int = 0
    refused: int = 0
    tokens_admitted: int = 0
    tokens_scored: int = 0
    latencies: list[float] = field(default_factory=list)
    # In forward passes; of replicas that take work; and with those that are starting.
    busy_s: float = 0.0
    replica_s: float = 0.0
    gpu_s: float = 0.0
    # (time, replicas that take work), at each change.
    replicas: list[tuple[float, int]] = field(default_factory=list)

    @property
    def utilisation(self) -> float:
        """Share of the replicas' time spent in forward passes."""
        return self.busy_s / self.replica_s if self.replica_s else 0.0

    def quantile(self, share: float) -> float:
        """Latency that this share of the answered requests did not exceed; NaN without any."""
        return float(np.quantile(self.latencies, share)) if self.latencies else math.nan

    def summary(self) -> dict[str, float | int]:
        """Return the figures of the JSON line."""
        return {
            "offered": self.offered,
            "answered": len(self.latencies),
            "refused": self.refused,
            "p50_ms": round(1000 * self.quantile(0.5), 1),
            "p99_ms": round(1000 * self.quantile(0.99), 1),
            "utilisation": round(self.utilisation, 3),
            "peak_replicas": max((count for _, count in self.replicas), default=0),
            "gpu_hours": round(self.gpu_s / 3600, 3),
        }
