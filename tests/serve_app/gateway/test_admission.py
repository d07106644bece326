"""Admission: who may send work, from what replicas report; and what both sides tell each other."""

import asyncio
from contextlib import ExitStack
from dataclasses import replace

import pytest

from rerank_core import Overloaded, QueryDocumentPair
from serve_app.config import Admission
from serve_app.gateway.admission import AdmissionGate, CountedPool
from serve_app.pool import GatewayDemand, ReplicaReport, WorkUnit
from tests.serve_app.local_pool import LocalPool


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


def admission(min_tokens=100, max_wait_s=1.0, min_requests=1, clock=None):
    settings = Admission(min_tokens=min_tokens, max_wait_s=max_wait_s, min_requests=min_requests)
    return AdmissionGate(settings, 20.0, clock or Clock())


def hear(gate, **rates):
    gate.replicas.hear_all(ReplicaReport(name, rate, 0.0) for name, rate in rates.items())


def test_work_is_admitted_up_to_the_bound_and_room_comes_back():
    gate = admission()
    with gate.admit(50), gate.admit(50), pytest.raises(Overloaded), gate.admit(50):
        pass
    with gate.admit(50):
        assert gate.under_way == 50
    assert gate.under_way == 0


def test_a_request_larger_than_the_bound_is_admitted_and_leaves_room_for_small_ones():
    gate = admission()
    with gate.admit(100_000) as share, gate.admit(10):
        assert gate.under_way == 60
        assert share == 50 / 100_000


def test_the_bound_follows_what_the_replicas_report():
    gate = admission(min_tokens=100, max_wait_s=2.0)
    assert gate.bound == 100
    hear(gate, a=10_000, b=30_000)
    assert gate.bound == 80_000
    gate.replicas.hear(ReplicaReport("a", 20_000, 0.0))
    assert gate.bound == 100_000
    hear(gate, a=10)
    assert gate.bound == 20


def test_a_replica_that_is_not_in_the_next_round_no_longer_counts():
    gate = admission()
    hear(gate, a=10_000, b=30_000)
    hear(gate, b=30_000)
    assert (gate.bound, gate.replicas.count) == (30_000, 1)


def test_a_round_in_which_nobody_answered_changes_nothing():
    gate = admission()
    hear(gate, a=10_000)
    hear(gate)
    assert gate.bound == 10_000


def test_a_failure_gives_its_room_back():
    gate = admission()
    with pytest.raises(RuntimeError), gate.admit(50):
        raise RuntimeError
    assert gate.under_way == 0


def test_a_flooding_key_is_held_to_its_share_and_others_come_in():
    gate = admission()
    with ExitStack() as held:
        held.enter_context(gate.admit(10, "victim"))
        for _ in range(5):
            held.enter_context(gate.admit(10, "flood"))
        with pytest.raises(Overloaded), gate.admit(10, "flood"):
            pass
        for _ in range(4):
            held.enter_context(gate.admit(10, "victim"))


def test_a_newcomer_finds_room_where_one_key_has_filled_the_bound():
    gate = admission()
    with ExitStack() as held:
        for _ in range(10):
            held.enter_context(gate.admit(10, "flood"))
        held.enter_context(gate.admit(10, "victim"))


def test_a_key_that_has_gone_takes_no_share():
    clock = Clock()
    gate = admission(clock=clock)
    with gate.admit(10, "gone"):
        pass
    clock.now += 3.0
    with ExitStack() as held:
        for _ in range(10):
            held.enter_context(gate.admit(10, "stays"))


def test_a_few_requests_are_admitted_whatever_they_cost_while_nobody_knows_the_rate():
    gate = admission(min_requests=4)
    with ExitStack() as held:
        for _ in range(4):
            held.enter_context(gate.admit(90))
        with pytest.raises(Overloaded), gate.admit(90):
            pass


def test_a_few_requests_are_admitted_only_while_they_can_end_in_time():
    gate = admission(min_requests=8)
    hear(gate, a=100)
    with ExitStack() as held:
        for _ in range(3):
            held.enter_context(gate.admit(90, time_left_s=15.0))
        with pytest.raises(Overloaded), gate.admit(90, time_left_s=15.0):
            pass


def test_the_few_are_shared_between_keys():
    gate = admission(min_requests=4)
    with ExitStack() as held:
        held.enter_context(gate.admit(90, "one"))
        held.enter_context(gate.admit(90, "two"))
        held.enter_context(gate.admit(90, "two"))
        with pytest.raises(Overloaded), gate.admit(90, "two"):
            pass
        held.enter_context(gate.admit(90, "one"))


def test_refusals_say_when_to_come_back_and_name_the_setting():
    gate = admission(max_wait_s=5.0)
    hear(gate, a=20.0)
    with gate.admit(50), gate.admit(50), pytest.raises(Overloaded) as refused, gate.admit(40):
        pass
    assert refused.value.retry_after_s == 2.0
    assert "admission.max_wait_s" in str(refused.value)


def test_nobody_is_sent_away_for_longer_than_a_minute():
    gate = admission(max_wait_s=100_000)
    hear(gate, a=0.001)
    with gate.admit(50), gate.admit(50), pytest.raises(Overloaded) as refused, gate.admit(50):
        pass
    assert refused.value.retry_after_s == 60


def test_refused_work_is_demand_like_admitted_work():
    clock = Clock()
    gate = admission(clock=clock)
    with gate.admit(60), gate.admit(40), pytest.raises(Overloaded), gate.admit(1000):
        pass
    assert gate.demand().tokens_per_s == 1100 / 20
    clock.now += 30
    assert gate.demand().tokens_per_s == 0


class Replica(LocalPool):
    """A replica that two gateways share: it holds what it is told to, and reports it."""

    def __init__(self):
        super().__init__()
        self.held = 0.0

    async def score(self, unit):
        report = ReplicaReport("r", 1000.0, self.held)
        return replace(await super().score(unit), report=report)


def unit(cost):
    return WorkUnit.of([QueryDocumentPair("q", "d")], cost, "caller", 1.0)


def test_a_unit_carries_its_share_of_the_charge_and_the_gateway_s_demand():
    gate, pool = admission(), Replica()
    with gate.admit(400) as share:
        asyncio.run(CountedPool(pool, gate, share).score(unit(100)))
    (sent,) = pool.units
    assert (sent.charge, sent.demand) == (12.5, gate.demand())
    assert isinstance(sent.demand, GatewayDemand)


def test_what_replicas_hold_of_other_gateways_takes_room_until_it_is_old():
    clock = Clock()
    gate, pool = admission(clock=clock), Replica()
    pool.held = 950.0
    with gate.admit(10) as share:
        asyncio.run(CountedPool(pool, gate, share).score(unit(10)))
        assert (gate.bound, gate.replicas.others) == (1000, 950)
        with pytest.raises(Overloaded), gate.admit(50):
            pass
        clock.now += 3.0
        with gate.admit(50):
            pass


def test_what_this_gateway_has_sent_is_not_others_work():
    gate = admission()
    with gate.replicas.sending(300):
        gate.replicas.hear(ReplicaReport("r", 1000.0, 300.0))
        assert gate.replicas.others == 0
        gate.replicas.hear(ReplicaReport("r", 1000.0, 450.0))
        assert gate.replicas.others == 150


class Reporting(LocalPool):
    """Counts how often all replicas are asked; slow or broken on demand."""

    def __init__(self, *reports, error=None):
        super().__init__()
        self.answers, self.error, self.rounds = list(reports), error, 0

    async def reports(self):
        self.rounds += 1
        await asyncio.sleep(0)
        if self.error:
            raise self.error
        return self.answers


def test_a_new_gateway_starts_from_what_replicas_report_and_asks_once():
    gate, pool = admission(), Reporting(ReplicaReport("a", 700.0, 0.0))

    async def many():
        await asyncio.gather(*(gate.replicas.ask(pool) for _ in range(64)))
        return gate.bound

    assert asyncio.run(many()) == 700
    assert pool.rounds == 1


def test_replicas_are_asked_again_after_a_while_and_nobody_waits_for_it():
    clock = Clock()
    gate, pool = admission(clock=clock), Reporting(ReplicaReport("a", 700.0, 0.0))

    async def twice():
        await gate.replicas.ask(pool)
        pool.answers = [ReplicaReport("b", 900.0, 0.0)]
        clock.now += 6.0
        await gate.replicas.ask(pool)
        before = gate.bound
        await asyncio.sleep(0.01)
        return before, gate.bound

    assert asyncio.run(twice()) == (700, 900)


def test_a_round_that_fails_stops_no_request():
    gate, pool = admission(), Reporting(error=RuntimeError("broken"))
    asyncio.run(gate.replicas.ask(pool))
    assert gate.bound == 100


def test_work_that_can_wait_leaves_half_of_the_room_to_others():
    gate = admission(min_requests=8)
    hear(gate, a=100.0)
    with gate.admit(30, can_wait=True):
        with pytest.raises(Overloaded), gate.admit(30, can_wait=True):
            pass
        with gate.admit(30), gate.admit(20):
            assert gate.under_way == 80


def test_a_full_gate_says_so_before_anything_is_read_and_counts_what_is_asked_for():
    gate = admission()
    gate.check_open(10**6, "")
    with gate.admit(50), gate.admit(50):
        before = gate.demand().tokens_per_s
        with pytest.raises(Overloaded):
            gate.check_open(2000, "")
        assert gate.demand().tokens_per_s == pytest.approx(before + 2000 / 20)
    gate.check_open(10**6, "")
