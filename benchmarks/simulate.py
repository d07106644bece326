"""Discrete-event simulation of the online path: units, router, batcher, admission, autoscaler.

It answers what cannot be tried at a desk, such as how 1,000 GPUs behave when the load doubles. It
knows no Ray and no model: a forward pass takes a fixed time plus tokens / rate, both measured
elsewhere. Settings are those that ship, and admission, the cut, the choice of a replica and the
autoscaling policy are the service's own code; no deadline passes here.
check_simulation.py sets it beside the real service.

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
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import cast

import numpy as np

from benchmarks.about import commit
from benchmarks.service_model import SETTLED_S, Load, Outcome, Policies, Replicas, Service, shipped
from rerank_core import Overloaded
from rerank_core.batcher import PASS_S, PassRate
from rerank_core.batcher.lanes import Lanes, Waiting
from serve_app import scaling
from serve_app.gateway.admission import AdmissionGate
from serve_app.pool import ReplicaReport


@dataclass
class _Request:
    name: str
    arrived_s: float
    # Gives its room back.
    admitted: ExitStack
    units_left: int


class _Replica:
    """The batcher's own lanes and rate, without its thread."""

    def __init__(self, name: str, tokens_per_s: float) -> None:
        self.name = name
        self.rate = PassRate(PASS_S, tokens_per_s)
        self.queue = Lanes()
        self.in_pass: list[Waiting] = []
        self.load = 0
        self.draining = False

    def report(self) -> ReplicaReport:
        # There is one gateway: what is held is not news.
        return ReplicaReport(self.name, self.rate.tokens_per_s or 0.0, 0.0)

    def add(self, unit: int, request: _Request) -> None:
        # The batcher never looks into what it is given.
        self.queue.add(request.name, Waiting([request], unit, math.inf, 0.0))  # type: ignore[list-item]
        self.load += 1


def simulate(
    load: Load,
    service: Service,
    replicas: Replicas,
    policies: Policies | None = None,
    seed: int = 0,
) -> Outcome:
    """Play `load` against the service until every admitted request is answered."""
    return _Simulation(load, service, replicas, policies or Policies(), seed).run()


class _Simulation:
    def __init__(
        self, load: Load, service: Service, replicas: Replicas, policies: Policies, seed: int
    ) -> None:
        self.load, self.service, self.bounds, self.policies = load, service, replicas, policies
        self.arrivals = np.random.default_rng(seed)
        self.outcome = Outcome()
        self.events: list[tuple[float, int, Callable[[], None]]] = []
        self.order = itertools.count()
        self.now = 0.0
        self.running: list[_Replica] = []
        self.draining: list[_Replica] = []
        self.starting = 0
        self.next_choice = 0
        self.names = itertools.count()
        self.gate = AdmissionGate(
            service.settings.admission,
            service.settings.scaling.look_back_period_s,
            clock=lambda: self.now,
        )
        self.open_requests = 0
        # Units that no replica has room for.
        self.waiting: deque[tuple[int, _Request]] = deque()
        self.tokens_waiting = 0
        self.arriving = True
        settings = service.settings.scaling
        self.target = scaling.ReplicaTarget(
            settings.target_utilisation, settings.upscale_delay_s, settings.downscale_delay_s
        )
        self.told: scaling.Load | None = None

    def run(self) -> Outcome:
        for _ in range(self.bounds.least):
            self._replica_is_up()
        self._at(self._next_gap(), self._request_arrives)
        if self.bounds.least != self.bounds.most:
            self._at(self.bounds.push_s, self._push)
            self._at(self.bounds.decide_s, self._decide)
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
        clipped: list[int] = np.clip(lengths, 1, self.load.max_length).round().astype(int).tolist()
        return clipped

    def _request_arrives(self) -> None:
        if self.now > self.load.duration_s:
            self.arriving = False
            self.outcome.replicas_at_end = len(self.running)
            return
        self._at(self._next_gap(), self._request_arrives)
        documents = self._document_tokens()
        cost = sum(documents)
        settled = self.now > SETTLED_S
        self.outcome.offered += 1
        self.outcome.offered_settled += settled
        admitted = ExitStack()
        left_s = self.service.settings.limits.request_timeout_s
        try:
            admitted.enter_context(self.gate.admit(cost, time_left_s=left_s))
        except Overloaded:
            self.outcome.refused += 1
            self.outcome.refused_settled += settled
            return
        largest_batch = self.service.max_batch_tokens
        bound = self.service.settings.unit_tokens
        bound = bound or self.gate.replicas.unit_tokens(documents, largest_batch)
        units = self.policies.cut(documents, bound)
        request = _Request(str(self.outcome.offered), self.now, admitted, len(units))
        self.open_requests += 1
        self.outcome.tokens_admitted += cost
        self.tokens_waiting += cost
        for unit in units:
            self._route(unit, request)

    def _route(self, unit: int, request: _Request) -> None:
        # Ray backs off while all that it asks are full; the outcome is a queue.
        if self.running and not self.waiting:
            place = self.policies.choose(_Loads(self.running), self.next_choice)
            self.next_choice = place + 1
            replica = self.running[place]
            if replica.load < self.service.settings.scaling.max_ongoing_units:
                replica.add(unit, request)
                if not replica.in_pass:
                    self._start_pass(replica)
                return
        self.waiting.append((unit, request))

    def _start_pass(self, replica: _Replica) -> None:
        most = self.service.settings.batching.merge_tokens or self.service.max_batch_tokens
        replica.in_pass = replica.queue.take(replica.rate.pass_tokens(most), self.now)
        tokens = sum(waiting.cost for waiting in replica.in_pass)
        self.tokens_waiting -= tokens
        seconds = self.service.fixed_s + tokens / self.service.tokens_per_s
        self.outcome.busy_s += seconds
        self._at(seconds, lambda: self._pass_ends(replica, tokens, seconds))

    def _pass_ends(self, replica: _Replica, tokens: int, seconds: float) -> None:
        self.outcome.tokens_scored += tokens
        replica.rate.record(tokens, seconds)
        replica.load -= len(replica.in_pass)
        if not replica.draining:
            self.gate.replicas.hear(replica.report())
        for waiting in replica.in_pass:
            (request,) = cast(list[_Request], waiting.pairs)
            request.units_left -= 1
            if not request.units_left:
                self.open_requests -= 1
                request.admitted.close()
                latency_s = self.now - request.arrived_s + self.service.overhead_s
                self.outcome.latencies.append(latency_s)
        replica.in_pass = []
        self._fill(replica)
        if replica.queue:
            self._start_pass(replica)
        elif replica.draining:
            self.draining.remove(replica)

    def _fill(self, replica: _Replica) -> None:
        most = self.service.settings.scaling.max_ongoing_units
        while self.waiting and not replica.draining and replica.load < most:
            replica.add(*self.waiting.popleft())

    def _replica_is_up(self) -> None:
        # Its warm-up measures a whole batch; the gateways hear of it before they need it.
        batch = self.service.max_batch_tokens
        seconds = self.service.fixed_s + batch / self.service.tokens_per_s
        replica = _Replica(str(next(self.names)), batch / seconds)
        self.running.append(replica)
        self.gate.replicas.hear(replica.report())
        self.outcome.replicas.append((self.now, len(self.running)))
        self._fill(replica)
        if replica.queue:
            self._start_pass(replica)

    def _push(self) -> None:
        """Tell the controller what the replicas know."""
        rate = self.gate.replicas.mean_tokens_per_s
        demand = self.gate.demand().tokens_per_s
        self.told = scaling.Load(demand, self.tokens_waiting, rate) if rate else None
        if self._goes_on():
            self._at(self.bounds.push_s, self._push)

    def _decide(self) -> None:
        have = len(self.running) + self.starting
        wanted = have
        if not have and self.waiting:
            # As Serve does by itself.
            wanted = 1
        elif self.told:
            wanted = self.target.decide(self.now, self.told.busy_replicas, have)
        wanted = min(self.bounds.most, max(self.bounds.least, wanted))
        if wanted > have:
            self.starting += wanted - have
            for _ in range(wanted - have):
                self._at(self.bounds.cold_start_s, self._finish_start)
        elif wanted < have:
            self._shrink(have - wanted)
        if self._goes_on():
            self._at(self.bounds.decide_s, self._decide)

    def _goes_on(self) -> bool:
        busy = self.arriving or self.open_requests > 0
        return busy or self.starting > 0 or len(self.running) > self.bounds.least

    def _finish_start(self) -> None:
        self.starting -= 1
        self._replica_is_up()

    def _shrink(self, count: int) -> None:
        leaving = sorted(self.running, key=lambda replica: replica.load)[:count]
        for replica in leaving:
            self.running.remove(replica)
            replica.draining = True
            if replica.in_pass:
                self.draining.append(replica)
        self.gate.replicas.hear_all(replica.report() for replica in self.running)
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
    parser.add_argument("--max-wait-s", type=float, help="refuse above it; else as shipped")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    load = Load(options.requests_per_s, options.docs, options.tokens, duration_s=options.seconds)
    changed = {} if options.max_wait_s is None else {"max_wait_s": options.max_wait_s}
    service = Service(
        options.tokens_per_s, options.fixed_ms / 1000, settings=shipped(admission=changed)
    )
    most = max(options.gpus, options.max_gpus or 0)
    replicas = Replicas(options.gpus, most, cold_start_s=options.cold_start_s)
    started_s = time.perf_counter()
    figures = simulate(load, service, replicas, seed=options.seed).summary()
    print(
        f"{figures['answered']} of {figures['offered']} requests answered, p50"
        f" {figures['p50_ms']} ms, p99 {figures['p99_ms']} ms, GPUs busy"
        f" {figures['utilisation']:.0%} (simulated in {time.perf_counter() - started_s:.1f} s)"
    )
    print(
        json.dumps(
            {
                "commit": commit(),
                "simulated": figures,
                "load": asdict(load),
                "replicas": asdict(replicas),
                "changed": {"admission": changed} if changed else {},
            }
        )
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
