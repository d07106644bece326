import time
from contextlib import ExitStack

import pytest

from rerank_core import Overloaded
from serve_app.config import Admission
from serve_app.gateway.admission import AdmissionGate


def admission(min_tokens=100, max_wait_s=1.0, min_requests=1):
    return AdmissionGate(
        Admission(min_tokens=min_tokens, max_wait_s=max_wait_s, min_requests=min_requests)
    )


def test_work_is_admitted_up_to_the_bound_and_room_comes_back():
    gate = admission()
    with gate.admit(50), gate.admit(50), pytest.raises(Overloaded), gate.admit(50):
        pass
    with gate.admit(50):
        assert gate.under_way == 50
    assert gate.under_way == 0


def test_a_request_larger_than_the_bound_is_admitted_and_leaves_room_for_small_ones():
    gate = admission()
    with gate.admit(100_000), gate.admit(10):
        assert gate.under_way == 60


def test_the_bound_follows_measured_throughput():
    gate = admission(min_tokens=100, max_wait_s=2.0)
    for _ in range(3):
        with gate.admit(5000):
            time.sleep(0.2)
    assert 15_000 < gate.tokens_per_s < 26_000
    assert gate.bound == 2 * gate.tokens_per_s


def test_light_load_does_not_lower_the_bound():
    gate = admission(min_tokens=1)
    gate.tokens_per_s = 10_000
    for _ in range(6):
        with gate.admit(10):
            time.sleep(0.1)
    assert gate.tokens_per_s == 10_000


def test_a_failure_gives_its_room_back_and_counts_for_nothing():
    gate = admission()
    with pytest.raises(RuntimeError), gate.admit(50):
        raise RuntimeError
    assert (gate.under_way, gate.tokens_per_s) == (0, 0)


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


def test_refusals_say_when_to_come_back():
    gate = admission()
    gate.tokens_per_s = 20.0
    with gate.admit(50), gate.admit(50), pytest.raises(Overloaded) as refused, gate.admit(40):
        pass
    assert refused.value.retry_after_s == 2.0


def test_nobody_is_sent_away_for_longer_than_a_minute():
    gate = admission()
    gate.tokens_per_s = 0.001
    with gate.admit(50), gate.admit(50), pytest.raises(Overloaded) as refused, gate.admit(50):
        pass
    assert refused.value.retry_after_s == 60


def test_a_few_whole_requests_are_admitted_however_large_they_are():
    gate = admission(min_requests=3)
    gate.tokens_per_s = 100.0
    with ExitStack() as held:
        for _ in range(3):
            held.enter_context(gate.admit(500, left_s=30))
        with pytest.raises(Overloaded) as refused:
            held.enter_context(gate.admit(500, left_s=30))
    assert str(refused.value) == (
        "too much work is under way, try again later; allowed are 1 s of it"
        " (admission.max_wait_s) or 3 requests"
    )
    assert (gate.requests, gate.under_way) == (0, 0)


def test_but_not_when_they_would_miss_their_deadline():
    gate = admission(min_requests=3)
    gate.tokens_per_s = 100.0
    with gate.admit(500, left_s=30), gate.admit(500, left_s=30):
        with pytest.raises(Overloaded), gate.admit(500, left_s=14):
            pass
        with gate.admit(500, left_s=16):
            pass


def test_keys_share_the_room_of_the_few():
    gate = admission(min_requests=4)
    gate.tokens_per_s = 100.0
    with ExitStack() as held:
        held.enter_context(gate.admit(500, "victim", 60))
        held.enter_context(gate.admit(500, "flood", 60))
        held.enter_context(gate.admit(500, "flood", 60))
        with pytest.raises(Overloaded):
            held.enter_context(gate.admit(500, "flood", 60))
        held.enter_context(gate.admit(500, "victim", 60))


def test_a_gate_that_has_measured_nothing_leaves_room_for_what_replicas_hold():
    gate = admission()
    gate.expect(1000)
    with ExitStack() as held:
        for _ in range(16):
            held.enter_context(gate.admit(1000))
        with pytest.raises(Overloaded):
            held.enter_context(gate.admit(1000))
