"""Discrete-event simulation of the online path: units, router, batcher, admission, autoscaler.

It answers what cannot be tried at a desk, such as how 1,000 GPUs behave when the load doubles. It
knows no Ray and no model: a forward pass takes a fixed time plus tokens / rate, both measured
elsewhere. Every decision is a plain function in service_model.py, so another one can be tried.
check_simulation.py sets its throughput beside the real service's.

python -m benchmarks.simulate --requests-per-s 3000 --gpus 1000 --tokens-per-s 100000
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import json
import math
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field

import numpy as np

from benchmarks.service_model import Load, Outcome, Policies, Scaling, Service


@dataclass
class _Request:
    arrived_s: float
    units_left: int


@dataclass
class _Replica:
    queue: deque[tuple[int, _Request]] = field(default_factory=deque)
    in_pass: list[tuple[int, _Request]] = field(default_factory=list)
    draining: bool = False

    @property
    def load(self) -> int:
        return len(self.queue) + len(self.in_pass)


def simulate(
    load: Load,
    service: Service,
    scaling: Scaling,
    policies: Policies | None = None,
    seed: int = 0,
) -> Outcome:
    """Play `load` against the service until every admitted request is answered."""
    return _Simulation(load, service, scaling, policies or Policies(), seed).run()


class _Simulation:
    def __init__(
        self, load: Load, service: Service, scaling: Scaling, policies: Policies, seed: int
    ) -> None:
        self.load, self.service, self.scaling, self.policies = load, service, scaling, policies
        # Two streams: the same requests arrive whatever the router draws.
        self.arrivals, self.draws = (np.random.default_rng([seed, i]) for i in range(2))
        self.outcome = Outcome()
        self.events: list[tuple[float, int, Callable[[], None]]] = []
        self.order = itertools.count()
        self.now = 0.0
        self.running: list[_Replica] = []
        self.starting = 0
        self.draining: list[_Replica] = []
        # Units that no replica has room for.
        self.waiting: deque[tuple[int, _Request]] = deque()
        self.admitted_tokens = self.ongoing_units = self.open_requests = 0
        self.arriving = True
        self.history: deque[tuple[float, int]] = deque()
        self.wanted_more_since = self.wanted_less_since = math.inf

    def run(self) -> Outcome:
        for _ in range(self.scaling.min_replicas):
            self._replica_is_up()
        self._at(self._next_gap(), self._request_arrives)
        if self.scaling.min_replicas != self.scaling.max_replicas:
            self._at(self.scaling.interval_s, self._autoscale)
        while self.events:
            moment, _, action = heapq.heappop(self.events)
            serving = len(self.running) + len(self.draining)
            self.outcome.replica_s += (moment - self.now) * serving
            self.outcome.gpu_s += (moment - self.now) * (serving + self.starting)
            self.now = moment
            action()
        return self.outcome

    def _at(self, delay_s: float, action: Callable[[], None]) -> None:
        heapq.heappush(self.events, (self.now + delay_s, next(self.order), action))

    def _next_gap(self) -> float:
        return float(self.arrivals.exponential(1 / self.load.requests_per_s))

    def _document_tokens(self) -> Sequence[int]:
        sigma = self.load.spread
        # The mean of a log-normal is exp(mu + sigma**2 / 2).
        mu = math.log(self.load.tokens) - sigma**2 / 2
        lengths = self.arrivals.lognormal(mu, sigma, self.load.documents)
        return [round(n) for n in np.clip(lengths, 1, self.load.max_length)]

    def _request_arrives(self) -> None:
        if self.now > self.load.duration_s:
            self.arriving = False
            return
        self._at(self._next_gap(), self._request_arrives)
        units = self.policies.cut(self._document_tokens(), self.service.unit_tokens)
        cost = sum(units)
        self.outcome.offered += 1
        if not self.policies.admit(self.admitted_tokens, len(self.running), self.service):
            self.outcome.refused += 1
            return
        request = _Request(self.now, len(units))
        self.open_requests += 1
        self.outcome.tokens_admitted += cost
        self.admitted_tokens += cost
        self.ongoing_units += len(units)
        for unit in units:
            self._route(unit, request)

    def _route(self, unit: int, request: _Request) -> None:
        # Ray asks two replicas at a time and backs off while both are full; the outcome is a queue.
        if self.running and not self.waiting:
            loads = _Loads(self.running)
            replica = self.running[self.policies.choose(loads, self.draws)]
            if replica.load < self.service.max_ongoing_units:
                return self._give(replica, unit, request)
        self.waiting.append((unit, request))
        return None

    def _give(self, replica: _Replica, unit: int, request: _Request) -> None:
        replica.queue.append((unit, request))
        if not replica.in_pass:
            self._start_pass(replica)

    def _start_pass(self, replica: _Replica) -> None:
        costs = [cost for cost, _ in replica.queue]
        count = self.policies.take(costs, self.service.max_batch_tokens)
        replica.in_pass = [replica.queue.popleft() for _ in range(count)]
        tokens = sum(costs[:count])
        seconds = self.service.fixed_s + tokens / self.service.tokens_per_s
        self.outcome.busy_s += seconds
        self._at(seconds, lambda: self._pass_ends(replica, tokens))

    def _pass_ends(self, replica: _Replica, tokens: int) -> None:
        self.outcome.tokens_scored += tokens
        self.admitted_tokens -= tokens
        self.ongoing_units -= len(replica.in_pass)
        for _, request in replica.in_pass:
            request.units_left -= 1
            if not request.units_left:
                self.open_requests -= 1
                latency_s = self.now - request.arrived_s + self.service.overhead_s
                self.outcome.latencies.append(latency_s)
        replica.in_pass = []
        self._fill(replica)
        if replica.queue:
            self._start_pass(replica)
        elif replica.draining:
            self.draining.remove(replica)

    def _fill(self, replica: _Replica) -> None:
        while (
            self.waiting
            and not replica.draining
            and len(replica.queue) < self.service.max_ongoing_units
        ):
            replica.queue.append(self.waiting.popleft())

    def _replica_is_up(self) -> None:
        replica = _Replica()
        self.running.append(replica)
        self.outcome.replicas.append((self.now, len(self.running)))
        self._fill(replica)
        if replica.queue:
            self._start_pass(replica)

    def _autoscale(self) -> None:
        self.history.append((self.now, self.ongoing_units))
        while self.history[0][0] < self.now - self.scaling.look_back_s:
            self.history.popleft()
        ongoing = sum(units for _, units in self.history) / len(self.history)
        wanted = self.policies.scale(ongoing, self.scaling)
        have = len(self.running) + self.starting
        self.wanted_more_since = (
            min(self.wanted_more_since, self.now) if wanted > have else math.inf
        )
        self.wanted_less_since = (
            min(self.wanted_less_since, self.now) if wanted < have else math.inf
        )
        if self.now - self.wanted_more_since >= self.scaling.upscale_delay_s:
            self._grow(wanted - have)
        if self.now - self.wanted_less_since >= self.scaling.downscale_delay_s:
            self._shrink(have - wanted)
        if self.arriving or self.open_requests or len(self.running) > self.scaling.min_replicas:
            self._at(self.scaling.interval_s, self._autoscale)

    def _grow(self, count: int) -> None:
        self.starting += count
        self.wanted_more_since = math.inf
        for _ in range(count):
            self._at(self.scaling.cold_start_s, self._finish_start)

    def _finish_start(self) -> None:
        self.starting -= 1
        self._replica_is_up()

    def _shrink(self, count: int) -> None:
        self.wanted_less_since = math.inf
        count = min(count, len(self.running) - self.scaling.min_replicas)
        leaving = sorted(self.running, key=lambda replica: replica.load)[:count]
        for replica in leaving:
            self.running.remove(replica)
            replica.draining = True
            if replica.in_pass:
                self.draining.append(replica)
        self.outcome.replicas.append((self.now, len(self.running)))


class _Loads(Sequence[int]):
    """The replicas' loads, read only where the router looks."""

    def __init__(self, replicas: list[_Replica]) -> None:
        self._replicas = replicas

    def __len__(self) -> int:
        return len(self._replicas)

    def __getitem__(self, index: int) -> int:  # type: ignore[override]
        return self._replicas[index].load


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one simulation from the command line; prints a sentence and one JSON line."""
    parser = argparse.ArgumentParser("python -m benchmarks.simulate", description=__doc__)
    parser.add_argument("--requests-per-s", type=float, required=True)
    parser.add_argument("--docs", type=int, default=100)
    parser.add_argument("--tokens", type=float, default=300, help="mean tokens of a pair")
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--gpus", type=int, default=1, help="replicas at the start")
    parser.add_argument("--max-gpus", type=int, help="more than --gpus: scale between the two")
    parser.add_argument("--tokens-per-s", type=float, required=True, help="of one GPU, measured")
    parser.add_argument("--fixed-ms", type=float, default=5, help="of a forward pass")
    parser.add_argument("--cold-start-s", type=float, default=60)
    parser.add_argument("--max-wait-s", type=float, default=math.inf, help="refuse above it")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    load = Load(options.requests_per_s, options.docs, options.tokens, duration_s=options.seconds)
    service = Service(options.tokens_per_s, options.fixed_ms / 1000, max_wait_s=options.max_wait_s)
    scaling = Scaling(
        options.gpus,
        max(options.gpus, options.max_gpus or 0),
        cold_start_s=options.cold_start_s,
    )
    started_s = time.perf_counter()
    figures = simulate(load, service, scaling, seed=options.seed).summary()
    print(
        f"{figures['answered']} of {figures['offered']} requests answered, p50"
        f" {figures['p50_ms']} ms, p99 {figures['p99_ms']} ms, GPUs busy"
        f" {figures['utilisation']:.0%} (simulated in {time.perf_counter() - started_s:.1f} s)"
    )
    print(json.dumps({"simulated": figures, "load": asdict(load)}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
