"""The pool of actors that score: what a copy of the model takes, and which machine has it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import ray
from ray._private import worker
from ray._private.state import actors
from ray.autoscaler.sdk import request_resources
from ray.data import ActorPoolStrategy

from pipelines.config import RankingConfig
from rerank_core import InvalidRequest

Needs = dict[str, float]


def replica_needs(config: RankingConfig) -> tuple[float, float]:
    """Return how many GPUs and CPUs each copy of the model takes."""
    gpus = config.gpus_per_replica
    if gpus is None:
        gpus = 1.0 if resources().get("GPU", 0) else 0.0
    return gpus, float(config.cpus_per_replica)


def resources() -> Needs:
    """Return what all machines have together."""
    return dict(ray.cluster_resources())  # type: ignore[no-untyped-call]


def pool(
    config: RankingConfig, gpus: float, cpus: float, units: int | None = None, *, calls: int = 1
) -> ActorPoolStrategy:
    """Return the pool that the config asks for, but no more replicas than there are units.

    Where these are not known, others' stages need room: then `auto` grows from one. An actor has
    `calls` units in hand at a time, each in a thread of its own, or one where each gets no more.
    """
    there = resources()
    room = int(there.get("GPU", 0) / gpus if gpus else there.get("CPU", 1) / cpus)
    most = room if units is None else units
    if config.replicas == "auto":
        least = 1 if units is None else max(1, min(room, most))
        sizes = least, least, max(least, min(room, most))
    else:
        low, _, high = config.replicas.partition(":")
        if high and int(high) < int(low):
            raise InvalidRequest(f"replicas {config.replicas}: the second number is the larger one")
        least, most = (min(int(number), units or int(number)) for number in (low, high or low))
        sizes = least, min(most, max(least, room)), most
    return _strategy(calls, units, *sizes)


def _strategy(
    calls: int, units: int | None, least: int, start: int, most: int
) -> ActorPoolStrategy:
    options: dict[str, Any] = {}
    if units and units <= start:
        calls = 1
    if calls > 1:
        options |= {"max_concurrent_calls_per_actor": calls, "enable_true_multi_threading": True}
    if units and least == most:
        # Ray Data's own twice as many would wait for one actor while another has nothing to do;
        # a pool that grows does so when they are there.
        options["max_tasks_in_flight_per_actor"] = calls
    return ActorPoolStrategy(min_size=least, max_size=most, initial_size=start, **options)


def reader_cpus(gpus: float, cpus: float, copies: float, readers: int) -> float:
    """Return the CPUs of each reader: one, or less where the copies leave less; then none.

    Copies that hold all CPUs of all machines would wait for their readers for ever.
    """
    there = resources()
    if not gpus:
        return 0.0  # on CPUs the copies take them all
    left = there.get("CPU", 0) - min(copies, int(there.get("GPU", 0) / gpus)) * cpus
    # Ray counts in parts of ten thousand.
    return min(1.0, max(0, int(left / readers * 1000)) / 1000)


def restarts() -> tuple[str, int]:
    """Return, in an actor, its name and how many processes were it before, which have died."""
    name = ray.get_runtime_context().get_actor_id() or ""
    return name, int(actors(actor_id=name)["NumRestarts"])


def attempts_before() -> int:
    """Return, in a task, how often it was begun before: a process died, or a result was lost."""
    here: Any = worker.global_worker  # its type does not know what it has when it is connected
    return int(here.core_worker.get_current_task_attempt_number())


def require_machine(gpus: float, cpus: float, wait_s: float, say: Callable[[str], object]) -> None:
    """Wait until a machine is there that can hold a copy of the model, whatever else it holds.

    A cluster that grows is asked for one. Raises InvalidRequest when none has come after `wait_s`.
    """
    needs = {name: count for name, count in (("GPU", gpus), ("CPU", cpus)) if count}
    if _somewhere(needs):
        return
    there = "; ".join(_said(machine) for machine in _machines())
    lacking = f"no machine has the {_said(needs)} that a copy of the model takes; they have {there}"
    until_s = time.monotonic() + wait_s
    if wait_s:
        say(f"{lacking}. Waiting {wait_s:g} s for another\n")
        request_resources(bundles=[needs])
    while not _somewhere(needs):
        if time.monotonic() >= until_s:
            raise InvalidRequest(
                f"{lacking}. Lower --gpus-per-replica or --cpus-per-replica, or raise"
                " --machine-wait-s where machines come on demand",
                "cpus_per_replica",
            )
        time.sleep(min(1.0, wait_s))


def _said(needs: Needs) -> str:
    each = [f"{count:g} {name}{'' if count == 1 else 's'}" for name, count in needs.items()]
    return " and ".join(each)


def _machines() -> list[Needs]:
    """Return the different kinds of machines, the largest first."""
    nodes: list[dict[str, object]] = ray.nodes()  # type: ignore[no-untyped-call]
    kinds = {
        (float(has.get("GPU", 0)), float(has.get("CPU", 0)))
        for node in nodes
        if node["Alive"] and isinstance(has := node["Resources"], dict)
    }
    return [{"GPU": gpus, "CPU": cpus} for gpus, cpus in sorted(kinds, reverse=True)]


def _somewhere(needs: Needs) -> bool:
    return any(
        all(machine[name] >= count for name, count in needs.items()) for machine in _machines()
    )
