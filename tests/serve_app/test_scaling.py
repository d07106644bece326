"""The autoscaling policy: what it wants, when, and that it needs nothing of ours where it runs."""

import subprocess
import sys
from types import SimpleNamespace

import cloudpickle
import pytest
from ray.serve.config import AutoscalingPolicy

from serve_app import scaling
from serve_app.scaling import DemandPolicy, Load, ReplicaTarget, load_of


def target(**changes):
    return ReplicaTarget(
        **{"target_utilisation": 0.7, "upscale_delay_s": 5, "downscale_delay_s": 120, **changes}
    )


def play(decider, loads, have=1, step_s=1.0):
    """Return how many replicas are asked for after each load, one a second, obeyed at once."""
    asked = []
    for second, busy in enumerate(loads):
        have = decider.decide(second * step_s, busy, have)
        asked.append(have)
    return asked


def points(*values, at=100.0):
    return [SimpleNamespace(timestamp=at + i, value=value) for i, value in enumerate(values)]


def reports(**by_replica):
    """Turn replica -> {name: value} into Serve's name -> replica -> points."""
    told = {}
    for replica, values in by_replica.items():
        for name, value in values.items():
            told.setdefault(name, {})[replica] = points(value)
    return told


def test_a_load_is_answered_by_as_many_replicas_as_are_busy_at_the_target():
    assert play(target(), [4.8] * 10) == [1] * 5 + [7] * 5


def test_a_short_burst_starts_nothing():
    assert play(target(), [0.5, 9, 9, 9, 9, 0.5, 9, 9, 9, 9, 0.5]) == [1] * 11


def test_the_wish_does_not_depend_on_how_many_are_there_or_starting():
    """Nothing to oscillate: the same load wants the same number before, while and after it has."""
    asked = play(target(), [4.8] * 600)
    assert asked == [1] * 5 + [7] * 595


def test_a_load_within_the_tolerance_of_what_is_there_changes_nothing():
    noisy = [4.9, 5.3, 4.5, 5.35] * 200
    assert play(target(), noisy, have=7) == [7] * 800


def test_it_goes_down_to_the_largest_load_of_the_last_two_minutes():
    asked = play(target(), [4.8] * 10 + [0.5] * 60 + [2.0] + [0.5] * 200, have=7)
    assert asked[:130] == [7] * 130
    assert asked[131:191] == [3] * 60
    assert asked[-1] == 1


def test_one_that_has_just_been_started_takes_nothing_away():
    """Serve's controller restarts without a memory: a quiet moment then must not stop replicas."""
    assert play(target(), [0.0] * 120, have=8) == [8] * 120


def test_it_goes_to_zero_when_nothing_has_been_asked_for():
    assert play(target(), [0.3] + [0.0] * 125, have=1)[-1] == 0


def test_without_a_replica_any_load_wants_one_after_the_delay():
    assert play(target(upscale_delay_s=0), [0.1], have=0) == [1]


@pytest.mark.parametrize("replicas", [1, 7, 300])
def test_a_whole_number_at_the_target_is_not_rounded_up(replicas):
    decider = target(upscale_delay_s=0)
    assert decider.decide(0, 0.7 * replicas, 0) == replicas


def test_busy_replicas_are_demand_and_what_waits_over_the_rate():
    assert Load(240_000, 0, 50_000).busy_replicas == 4.8
    assert Load(0, 1_000_000, 50_000).busy_replicas == 1.0


def test_each_gateway_s_demand_counts_once_and_what_waits_and_rates_come_from_all():
    told = reports(
        a={"tokens_per_s": 40_000, "tokens_waiting": 10, "demand/g1": 1000, "demand/g2": 400},
        b={"tokens_per_s": 60_000, "tokens_waiting": 20, "demand/g1": 900},
        c={"tokens_per_s": 0, "tokens_waiting": 0, "demand/g2": 500},
    )
    assert load_of(told, 105.0) == Load(1500, 30, 50_000)


def test_what_a_replica_no_longer_tells_does_not_count():
    told = reports(a={"tokens_per_s": 40_000, "tokens_waiting": 0, "demand/gone": 9000})
    told["tokens_per_s"]["a"] = points(1, 40_000)
    told["tokens_waiting"]["a"] = points(7, 5)
    assert load_of(told, 105.0) == Load(0, 5, 40_000)


def test_a_replica_that_has_told_nothing_for_long_does_not_count():
    told = reports(a={"tokens_per_s": 40_000, "tokens_waiting": 9})
    assert load_of(told, 129.0) == Load(0, 9, 40_000)
    assert load_of(told, 131.0) is None


def context(told, have=3):
    return SimpleNamespace(raw_metrics=told, current_time=105.0, target_num_replicas=have)


def test_nothing_measured_changes_nothing():
    policy = DemandPolicy(target_utilisation=0.7, upscale_delay_s=0, downscale_delay_s=0)
    assert policy(context({})) == (3, {})
    assert policy(context(reports(a={"tokens_per_s": 0, "demand/g": 5}))) == (3, {})


def test_the_policy_asks_for_what_is_refused_too():
    policy = DemandPolicy(target_utilisation=0.5, upscale_delay_s=0, downscale_delay_s=0)
    told = reports(a={"tokens_per_s": 1000, "tokens_waiting": 0, "demand/g": 8000})
    assert policy(context(told)) == (16, {})


@pytest.mark.seconds
def test_serve_s_controller_runs_it_without_this_package():
    """Pickled as Serve does, and run where neither serve_app nor rerank_core can be imported."""
    policy = AutoscalingPolicy(policy_function=f"{scaling.__name__}:{DemandPolicy.__name__}")
    told = reports(a={"tokens_per_s": 1000, "tokens_waiting": 0, "demand/g": 8000})
    program = f"""
import pickle, sys
from types import SimpleNamespace
sys.modules["serve_app"] = sys.modules["rerank_core"] = None
policy = pickle.loads({policy.get_serialized_policy_def()!r})
told = pickle.loads({cloudpickle.dumps(told)!r})
decider = policy(target_utilisation=0.5, upscale_delay_s=0, downscale_delay_s=0)
context = SimpleNamespace(raw_metrics=told, current_time=105.0, target_num_replicas=1)
print(decider(context))
"""
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd="/"
    )
    assert (ran.stdout, ran.stderr) == ("(16, {})\n", "")
