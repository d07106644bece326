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
from dataclasses import asdict, dataclass, field

import numpy as np

from benchmarks.service_model import SETTLED_S, Load, Outcome, Policies, Replicas, Service, shipped
from serve_app import capacity, scaling


@dataclass
class _Request:
    arrived_s: float
    cost: int
    charge: float
    units_left: int


@dataclass
class _Replica:
    # What it tells with its answers: tokens of a second at work.
    tokens_per_s: float
    queue: deque[tuple[int, _Request]] = field(default_factory=deque)
    in_pass: list[tuple[int, _Request]] = field(default_factory=list)
    draining: bool = False

    @property
    def load(self) -> int:
        return len(self.queue) + len(self.in_pass)


def simulate(
    load: Load,
    service: Service,
    replicas: Replicas,
    policies: Policies | None = None,
    seed: int = 0,
) -> Outcome:
    """Play `load` against the service until every admitted request is answered."""
    return _Simulation(load, service, replicas, policies or Policies(), seed).run()


class _Gateway:
    """What a gateway counts, to ask the service's own rules."""

    def __init__(self, service: Service) -> None:
        self._admission = service.settings.admission
        self._timeout_s = service.settings.limits.request_timeout_s
        self.demand = capacity.Demand(service.settings.scaling.look_back_period_s)
        self.under_way: dict[int, _Request] = {}
        self.tokens = 0.0

    def admit(self, cost: int, tokens_per_s: float) -> float | None:
        """Return what the request counts as, or None when it is refused."""
        rules = self._admission
        most = capacity.most_tokens(tokens_per_s, rules.max_wait_s, rules.min_tokens)
        asked = capacity.charge(cost, most)
        now = capacity.UnderWay(self.tokens, 0.0, tokens_per_s)
        if not self.under_way or capacity.over(asked, now, most) <= 0:
            return asked
        few = rules.min_requests
        costs = [r.cost for r in itertools.islice(self.under_way.values(), few)]
        if capacity.few_have_time(cost, costs, now, few=few, time_left_s=self._timeout_s):
            return asked
        return None

    def begin(self, request: _Request) -> None:
        self.under_way[id(request)] = request
        self.tokens += request.charge

    def end(self, request: _Request) -> None:
        del self.under_way[id(request)]
        self.tokens = self.tokens - request.charge if self.under_way else 0.0


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
        # Sum of what the running replicas tell.
        self.tokens_per_s = 0.0
        self.gateway = _Gateway(service)
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

    @property
    def _rate(self) -> float:
        """Of one replica, as measured."""
        return self.tokens_per_s / len(self.running) if self.running else 0.0

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
        self.gateway.demand.add(cost, self.now)
        charge = self.gateway.admit(cost, self.tokens_per_s)
        if charge is None:
            self.outcome.refused += 1
            self.outcome.refused_settled += settled
            return
        units = self.policies.cut(documents, self._unit_tokens())
        request = _Request(self.now, cost, charge, len(units))
        self.gateway.begin(request)
        self.outcome.tokens_admitted += cost
        self.tokens_waiting += cost
        for unit in units:
            self._route(unit, request)

    def _unit_tokens(self) -> int:
        fixed = self.service.settings.unit_tokens
        return fixed or capacity.unit_tokens(self._rate, self.service.max_batch_tokens)

    def _route(self, unit: int, request: _Request) -> None:
        # Ray backs off while all that it asks are full; the outcome is a queue.
        if self.running and not self.waiting:
            place = self.policies.choose(_Loads(self.running), self.next_choice)
            self.next_choice = place + 1
            replica = self.running[place]
            if replica.load < self.service.settings.scaling.max_ongoing_units:
                replica.queue.append((unit, request))
                if not replica.in_pass:
                    self._start_pass(replica)
                return
        self.waiting.append((unit, request))

    def _start_pass(self, replica: _Replica) -> None:
        fixed = self.service.settings.batching.merge_tokens
        most = self.service.max_batch_tokens
        bound = fixed or capacity.unit_tokens(replica.tokens_per_s, most)
        costs = [cost for cost, _ in itertools.islice(replica.queue, bound)]
        count = self.policies.take(costs, bound)
        replica.in_pass = [replica.queue.popleft() for _ in range(count)]
        tokens = sum(costs[:count])
        self.tokens_waiting -= tokens
        seconds = self.service.fixed_s + tokens / self.service.tokens_per_s
        self.outcome.busy_s += seconds
        self._at(seconds, lambda: self._pass_ends(replica, tokens, seconds))

    def _pass_ends(self, replica: _Replica, tokens: int, seconds: float) -> None:
        self.outcome.tokens_scored += tokens
        self._tell(replica, tokens / seconds)
        for _, request in replica.in_pass:
            request.units_left -= 1
            if not request.units_left:
                self.gateway.end(request)
                latency_s = self.now - request.arrived_s + self.service.overhead_s
                self.outcome.latencies.append(latency_s)
        replica.in_pass = []
        self._fill(replica)
        if replica.queue:
            self._start_pass(replica)
        elif replica.draining:
            self.draining.remove(replica)

    def _tell(self, replica: _Replica, tokens_per_s: float) -> None:
        if replica.draining:
            return
        known = replica.tokens_per_s
        replica.tokens_per_s = max(tokens_per_s, 0.9 * known + 0.1 * tokens_per_s)
        self.tokens_per_s += replica.tokens_per_s - known

    def _fill(self, replica: _Replica) -> None:
        room = self.service.settings.scaling.max_ongoing_units - len(replica.queue)
        while self.waiting and not replica.draining and room > 0:
            replica.queue.append(self.waiting.popleft())
            room -= 1

    def _replica_is_up(self) -> None:
        # Its warm-up measures a whole batch; the gateways hear of it before they need it.
        batch = self.service.max_batch_tokens
        seconds = self.service.fixed_s + batch / self.service.tokens_per_s
        replica = _Replica(tokens_per_s=batch / seconds)
        self.running.append(replica)
        self.tokens_per_s += replica.tokens_per_s
        self.outcome.replicas.append((self.now, len(self.running)))
        self._fill(replica)
        if replica.queue:
            self._start_pass(replica)

    def _push(self) -> None:
        """Tell the controller what the replicas know."""
        self.told = None
        if self._rate:
            demand = self.gateway.demand.per_s(self.now)
            self.told = scaling.Load(demand, self.tokens_waiting, self._rate)
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
        busy = self.arriving or bool(self.gateway.under_way)
        return busy or self.starting > 0 or len(self.running) > self.bounds.least

    def _finish_start(self) -> None:
        self.starting -= 1
        self._replica_is_up()

    def _shrink(self, count: int) -> None:
        leaving = sorted(self.running, key=lambda replica: replica.load)[:count]
        for replica in leaving:
            self.running.remove(replica)
            self.tokens_per_s -= replica.tokens_per_s
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
