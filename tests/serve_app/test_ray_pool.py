"""What the gateway makes of the failures that Serve's handles raise."""

import asyncio
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest
from ray.exceptions import (
    ActorDiedError,
    ActorUnavailableError,
    NodeDiedError,
    ObjectLostError,
    OwnerDiedError,
    RayTaskError,
    WorkerCrashedError,
)
from ray.serve._private.common import (
    DeploymentHandleSource,
    DeploymentID,
    ReplicaID,
    RequestMetadata,
)
from ray.serve.exceptions import (
    BackPressureError,
    DeploymentUnavailableError,
    ReplicaUnavailableError,
)
from ray.serve.request_router import PendingRequest

from rerank_core import DeadlineExceeded, ModelUnavailable, Overloaded, QueryDocumentPair
from serve_app.http.errors import error_reply
from serve_app.pool import OtherModel, ReplicaLost, WorkUnit
from serve_app.ray_pool import LeastLoadedRouter, RayPool

PAIRS = (QueryDocumentPair("q", "d"),)


class Handle:
    """A handle whose every call ends in one error."""

    def __init__(self, error):
        self.error, self.cancelled = error, False
        self.score = self

    def remote(self, unit):
        return self

    def cancel(self):
        self.cancelled = True

    def __await__(self):
        if self.error:
            raise self.error
        return (yield from asyncio.Event().wait().__await__())


def raised_by(error):
    with pytest.raises(Exception) as caught:  # noqa: PT011
        asyncio.run(RayPool(Handle(error)).score(WorkUnit.of(PAIRS, 1, "caller", 1.0)))
    return caught.value


def from_a_replica(error):
    return RayTaskError("score", "Traceback with a path", error).as_instanceof_cause()


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ActorDiedError(), ReplicaLost),
        (ActorUnavailableError("gone", None), ReplicaLost),
        (ReplicaUnavailableError("replica"), ReplicaLost),
        (ObjectLostError("00", None, ""), ReplicaLost),
        (OwnerDiedError("00", None, ""), ReplicaLost),
        (NodeDiedError("gone"), ReplicaLost),
        (WorkerCrashedError(), ReplicaLost),
        (from_a_replica(ReplicaLost("stopping", "a")), ReplicaLost),
        (from_a_replica(OtherModel("not mine")), OtherModel),
        (BackPressureError(3, 2), Overloaded),
        (DeploymentUnavailableError(DeploymentID("Scorer", "rerank")), ModelUnavailable),
        (from_a_replica(DeadlineExceeded("late")), DeadlineExceeded),
    ],
)
def test_failures_become_ours(error, kind):
    assert type(raised_by(error)) is kind


def test_a_lost_replica_is_known_by_its_actor():
    actor = b"0123456789abcdef"
    assert raised_by(ActorUnavailableError("gone", actor)).replica == actor.hex()


def test_what_a_replica_raised_comes_without_rays_traceback():
    problem = error_reply(raised_by(from_a_replica(Overloaded("full", 3.0))))
    assert (problem.status, problem.message, problem.headers) == (429, "full", {"retry-after": "3"})


def test_a_cancelled_call_is_cancelled_on_the_replica():
    handle = Handle(None)

    async def go():
        task = asyncio.create_task(RayPool(handle).score(WorkUnit.of(PAIRS, 1, "caller", 1.0)))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(go())
    assert handle.cancelled


SCORER = DeploymentID("Scorer", "rerank")
REPLICAS = [SimpleNamespace(replica_id=ReplicaID(name, SCORER)) for name in "abcd"]


@pytest.fixture
def router():
    source = DeploymentHandleSource.REPLICA
    return LeastLoadedRouter(SCORER, source, use_replica_queue_len_cache=True)


def choices(router, unit=None):
    request = unit and SimpleNamespace(args=(unit,), routing_context=SimpleNamespace())
    ranks = asyncio.run(router.choose_replicas(REPLICAS, request))
    return [replica.replica_id for (replica,) in ranks]


def test_units_go_to_the_replica_with_the_fewest_that_have_not_ended(router):
    # Two are chosen for before either is sent.
    for _ in range(4):
        for name in [choices(router)[0], choices(router)[0]]:
            router.on_send_request(name)
    ids = [replica.replica_id for replica in REPLICAS]
    assert [router._under_way[name] for name in ids] == [2, 2, 2, 2]
    router.on_request_completed(ids[2], "request")
    assert choices(router)[0] == ids[2]


def sent(router, *units):
    """Choose for units that wait together, as Serve does; return where each goes."""

    async def choose():
        # Units of one request have one id.
        metadata = RequestMetadata(request_id="r", internal_request_id="r")
        asked = [PendingRequest((unit,), {}, metadata) for unit in units]
        router._pending_requests_to_fulfill.extend(asked)
        for request in reversed(asked):
            ((replica,), *_) = await router.choose_replicas(REPLICAS, request)
            router._fulfill_next_pending_request(replica, request.metadata)
        return [request.future.result().replica_id for request in asked]

    return asyncio.run(choose())


def unit_of_one():
    return WorkUnit.of(PAIRS, 1, "caller", 1.0)


def test_a_unit_that_was_sent_before_goes_to_another_replica_however_busy(router):
    unit = unit_of_one()
    (first,) = sent(router, unit)
    for name in [one.replica_id for one in REPLICAS if one.replica_id != first] * 9:
        router.on_send_request(name)
    (second,) = sent(router, replace(unit, timeout_s=0.5))
    assert unit.sent_to == [first.unique_id, second.unique_id]
    assert first != second


def test_all_units_of_one_request_are_sent_each_to_a_replica_of_its_own(router):
    units = [unit_of_one() for _ in REPLICAS]
    went = sent(router, *units)
    assert sorted(went, key=str) == sorted((one.replica_id for one in REPLICAS), key=str)
    assert [unit.sent_to for unit in units] == [[name.unique_id] for name in went]


def test_a_late_unit_among_others_takes_no_replica_that_it_was_sent_to(router):
    late = unit_of_one()
    for _ in range(20):
        (first,) = sent(router, late)
        _, again = sent(router, unit_of_one(), replace(late, timeout_s=0.5))
        assert again != first
        late.sent_to.clear()


def test_whether_there_is_another_replica_is_what_serve_knows(router, monkeypatch):
    pool = RayPool(SimpleNamespace(deployment_id=SCORER))
    unit = unit_of_one()
    monkeypatch.setattr(router, "_replicas", {one.replica_id: one for one in REPLICAS[:2]})
    (first,) = sent(router, unit)
    monkeypatch.setattr(router, "_replicas", {first: None})
    assert not pool.has_other(unit)
    monkeypatch.setattr(router, "_replicas", {first: None, ReplicaID("new", SCORER): None})
    assert pool.has_other(unit)
    assert not RayPool(SimpleNamespace(deployment_id=DeploymentID("none"))).has_other(unit)


def test_a_choice_that_nothing_was_sent_for_is_forgotten(router, monkeypatch):
    first = choices(router)[0]
    for name in [one.replica_id for one in REPLICAS if one.replica_id != first]:
        router.on_send_request(name)
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 1)
    assert choices(router)[0] == first


def test_a_replica_need_not_say_how_long_its_queue_is_before_its_first_unit(router):
    for name in choices(router):
        assert router.replica_queue_len_cache.get(name) == 0


def test_a_replica_that_could_not_be_reached_is_last_and_asked_until_it_answers(router):
    lost = choices(router)[0]
    router.on_replica_actor_unavailable(lost)
    assert choices(router)[-1] == lost
    assert router.replica_queue_len_cache.get(lost) is None
    router.on_new_queue_len_info(lost, 0)
    for name in [one.replica_id for one in REPLICAS if one.replica_id != lost] * 4:
        router.on_send_request(name)
    assert choices(router)[0] == lost
