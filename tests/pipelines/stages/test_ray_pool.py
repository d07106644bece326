"""How many copies of the model, and what is said where no machine can hold one."""

import pytest

from pipelines.config import StageConfig
from pipelines.stages import ray_pool
from rerank_core import InvalidRequest

SMALL, LARGE = {"CPU": 4.0, "memory": 1e9}, {"CPU": 16.0, "GPU": 2.0}


@pytest.fixture
def cluster(monkeypatch):
    """Machines that a test may add to, and what the cluster was asked for."""
    machines, asked = [SMALL], []
    monkeypatch.setattr(
        ray_pool.ray, "nodes", lambda: [{"Alive": True, "Resources": has} for has in machines]
    )
    monkeypatch.setattr(
        ray_pool.ray,
        "cluster_resources",
        lambda: {name: sum(has.get(name, 0) for has in machines) for name in ("CPU", "GPU")},
    )

    def come(bundles):
        asked.extend(bundles)
        machines.append(LARGE)

    monkeypatch.setattr(ray_pool, "request_resources", come)
    return machines, asked


def test_a_machine_that_can_hold_a_copy_is_enough_and_nothing_is_said(cluster):
    said = []
    ray_pool.require_machine(0, 4, 30, said.append)
    assert (said, cluster[1]) == ([], [])


def test_a_cluster_that_grows_is_asked_for_a_machine_and_it_is_waited_for(cluster):
    said = []
    ray_pool.require_machine(1, 8, 30, said.append)
    assert said == [
        "no machine has the 1 GPU and 8 CPUs that a copy of the model takes; they have 0 GPUs and"
        " 4 CPUs. Waiting 30 s for another\n"
    ]
    assert cluster[1] == [{"GPU": 1, "CPU": 8}]


def test_two_small_machines_do_not_make_a_large_one(cluster):
    cluster[0].append(SMALL)
    with pytest.raises(InvalidRequest, match="no machine has the 8 CPUs"):
        ray_pool.require_machine(0, 8, 0, print)
    assert cluster[1] == []


@pytest.mark.parametrize(
    ("replicas", "units", "sizes"),
    [("auto", None, (1, 4)), ("auto", 2, (2, 2)), ("3", None, (3, 3)), ("3", 2, (2, 2)),
     ("2:8", None, (2, 8)), ("2:8", 1, (1, 1))],
)  # fmt: skip
def test_a_stage_grows_from_one_copy_and_a_job_takes_all_that_it_can_use(
    cluster, replicas, units, sizes
):
    pool = ray_pool.pool(StageConfig(replicas=replicas), 0, 1, units)
    assert (pool.min_size, pool.max_size) == sizes


@pytest.mark.parametrize(
    ("replicas", "units", "in_hand"),
    [("2", 100, 2), ("auto", 100, 2), ("auto", 5, 2), ("auto", 4, 1), ("2", 2, 1), ("1", 1, 1),
     ("2:8", 100, None)],
)  # fmt: skip
def test_an_actor_has_two_units_in_hand_and_one_where_there_is_one_for_each(
    cluster, replicas, units, in_hand
):
    pool = ray_pool.pool(StageConfig(replicas=replicas), 0, 1, units, calls=2)
    assert pool.max_tasks_in_flight_per_actor == in_hand
    assert (pool.max_concurrent_calls_per_actor or 1) == (in_hand or 2)


@pytest.mark.parametrize(
    ("machine", "needs", "copies", "readers", "each"),
    [
        ({"CPU": 8, "GPU": 1}, (1, 8), 1, 4, 0),  # one copy holds all CPUs
        ({"CPU": 8, "GPU": 8}, (1, 1), 8, 4, 0),  # as many GPUs as CPUs
        ({"CPU": 8, "GPU": 8}, (1, 1), 20, 4, 0),  # more copies than there is room for
        ({"CPU": 8, "GPU": 2}, (1, 3), 2, 4, 0.5),
        ({"CPU": 8, "GPU": 1}, (1, 1), 1, 4, 1),
        ({"CPU": 8, "GPU": 2}, (0.5, 2), 4, 4, 0),
        ({"CPU": 8}, (0, 1), 4, 4, 0),  # without GPUs the copies take all
    ],
)
def test_readers_take_no_cpu_that_the_copies_hold(
    monkeypatch, machine, needs, copies, readers, each
):
    monkeypatch.setattr(ray_pool.ray, "cluster_resources", lambda: machine)
    assert ray_pool.reader_cpus(*needs, copies, readers) == each
