"""The scorer deployment as a plain class, without Serve."""

import asyncio
import threading
from dataclasses import replace

import httpx
import pytest

from rerank_core import (
    InvalidRequest,
    ModelUnavailable,
    QueryDocumentPair,
    ScorerConfig,
    load_scorer,
)
from rerank_core.calibration import Calibration
from serve_app.application import FusedPool
from serve_app.config import ServeConfig
from serve_app.pool import OtherModel, ReplicaLost, WorkUnit
from serve_app.replica import ScorerReplica

PAIRS = (QueryDocumentPair("q", "q"), QueryDocumentPair("q", "d"))


class Spy:
    """The shipped scorer, counting warm-ups; fails or answers wrongly when told to."""

    def __init__(self, config):
        self.inner = load_scorer(config)
        self.info = self.inner.info
        self.warmed = 0
        self.threads = {threading.current_thread()}
        self.error = None

    def score(self, pairs):
        if self.error:
            raise self.error
        return self.inner.score(pairs)

    def warm_up(self):
        self.warmed += 1
        self.threads.add(threading.current_thread())


@pytest.fixture
def replica_of():
    def build(warm_up=True, stall_s=60, **scorer):
        config = ScorerConfig(model="lexical", **scorer)
        serving = ServeConfig(warm_up=warm_up, batching={"stall_s": stall_s})
        return ScorerReplica(config, serving, Spy)

    return build


@pytest.mark.parametrize(("wanted", "times"), [(True, 1), (False, 0)])
def test_it_is_warm_before_it_serves_where_the_config_says_so(replica_of, wanted, times):
    assert replica_of(warm_up=wanted)._scorer.warmed == times


def test_a_replica_says_how_long_its_start_took(replica_of):
    state = asyncio.run(replica_of().state())
    assert (state["load_s"] >= 0, state["warm_up_s"] >= 0) == (True, True)


def test_the_thread_that_loads_and_warms_is_gone_when_scoring_starts(replica_of):
    assert [thread.is_alive() for thread in replica_of()._scorer.threads] == [False]


def test_a_unit_comes_back_scored_in_its_order(replica_of):
    scores = asyncio.run(replica_of().score(WorkUnit.of(PAIRS, 4, "caller", 5.0))).scores
    assert scores.raw[0] > scores.raw[1]


def test_a_unit_in_pieces_is_scored_in_its_order_and_lets_others_between(replica_of):
    replica = replica_of()
    replica.reconfigure({"merge_tokens": 2})
    seen, asked_all = [], threading.Event()
    inner = replica._scorer.score

    def score(pairs):
        seen.append([pair.document for pair in pairs])
        assert asked_all.wait(20)
        return inner(pairs)

    replica._scorer.score = score
    pairs = [QueryDocumentPair("q", "q " * count) for count in range(1, 5)]
    large = WorkUnit.of(pairs, 8, "large", 5.0, pieces=((1, 2), (1, 2), (2, 4)))
    small = WorkUnit.of([QueryDocumentPair("q", "small")], 2, "small", 5.0)

    async def waiting(callers):
        while replica._batcher.state().queued_callers != callers or not seen:
            await asyncio.sleep(0.001)

    async def both():
        first = asyncio.ensure_future(replica.score(large))
        # One piece is in the running pass.
        await waiting(2)
        second = asyncio.ensure_future(replica.score(small))
        await waiting(3)
        asked_all.set()
        return await asyncio.gather(first, second)

    answer, _ = asyncio.run(both())
    assert answer.scores.raw.tolist() == inner(pairs).raw.tolist()
    assert [len(one) for one in seen] == [1, 1, 1, 2]
    assert seen.index(["small"]) in (1, 2)


def test_one_piece_that_fails_fails_its_unit(replica_of):
    replica = replica_of()
    replica._scorer.error = ModelUnavailable("broken for good")
    unit = WorkUnit.of(PAIRS, 4, "caller", 5.0, pieces=((1, 2), (1, 2)))
    with pytest.raises(ReplicaLost, match="broken for good"):
        asyncio.run(replica.score(unit))
    assert asyncio.run(replica.report()).tokens_held == 0


def test_scores_say_which_model_made_them_and_units_for_another_are_refused(replica_of):
    replica = replica_of()
    model = asyncio.run(replica.loaded())
    unit = replace(WorkUnit.of(PAIRS, 4, "caller", 5.0), fingerprint=model.fingerprint)
    assert asyncio.run(replica.score(unit)).model == model
    with pytest.raises(OtherModel):
        asyncio.run(replica.score(replace(unit, fingerprint="another")))
    assert asyncio.run(replica.state())["passes"] == 1


def test_new_budgets_are_taken_whole_or_not_at_all(replica_of):
    replica = replica_of()
    asyncio.run(replica.check_health())
    replica.reconfigure({"merge_tokens": 7})
    replica.reconfigure({"merge_tokens": 9, "max_queued_tokens": 0})
    assert asyncio.run(replica.state())["merge_tokens"] == 7


def test_wrong_budgets_stop_a_replica_that_is_starting(replica_of):
    with pytest.raises(ValueError, match="merge_token"):
        replica_of().reconfigure({"merge_token": 7})


def test_a_calibration_is_handed_on_and_one_of_another_scorer_stops_the_start(replica_of, tmp_path):
    path = str(tmp_path / "calibration.json")
    fingerprint = ScorerConfig(model="lexical").fingerprint()
    Calibration(2.0, 0.5, fingerprint, 10).save(path)
    loaded = asyncio.run(replica_of(calibration=path).loaded())
    assert loaded.calibration == Calibration(2.0, 0.5, fingerprint, 10)
    with pytest.raises(InvalidRequest, match="fitted on another scorer"):
        replica_of(calibration=path, max_length=64)


def test_a_cascade_never_merges_callers(replica_of):
    replica = replica_of(first_stage={"model": "lexical", "keep": 1})
    assert asyncio.run(replica.state())["merge_tokens"] == 1


def test_health_fails_while_nothing_can_be_scored_and_comes_back_with_it(replica_of):
    replica = replica_of()
    replica._scorer.error = RuntimeError("stuck")

    async def go():
        await replica.check_health()
        with pytest.raises(RuntimeError, match="stuck"):
            await replica.score(WorkUnit.of(PAIRS, 4, "caller", 5.0))
        with pytest.raises(RuntimeError, match="stuck"):
            await replica.check_health()
        replica._scorer.error = None
        await replica.check_health()

    asyncio.run(go())


def test_health_fails_while_every_score_is_nan(replica_of):
    replica = replica_of()
    scorer = replica._scorer

    def nothing(pairs):
        scores = scorer.inner.score(pairs)
        return replace(scores, errors=dict.fromkeys(range(len(pairs)), "not finite"))

    scorer.score = nothing

    async def go():
        await replica.check_health()
        await replica.score(WorkUnit.of(PAIRS, 4, "caller", 5.0))
        with pytest.raises(RuntimeError, match="always works"):
            await replica.check_health()
        scorer.score = scorer.inner.score
        await replica.check_health()

    asyncio.run(go())


def test_health_fails_for_good_once_the_model_has(replica_of):
    replica = replica_of()
    replica._scorer.error = ModelUnavailable("the device is lost")

    async def go():
        with pytest.raises(ReplicaLost, match="device is lost") as lost:
            await replica.score(WorkUnit.of(PAIRS, 4, "caller", 5.0))
        assert lost.value.replica == replica._name
        replica._scorer.error = None
        with pytest.raises(RuntimeError, match="failed for good"):
            await replica.check_health()

    asyncio.run(go())


def test_health_fails_when_a_pass_hangs(replica_of):
    replica = replica_of(stall_s=0.05)
    free = threading.Event()
    replica._scorer.score = lambda pairs: free.wait(10) and replica._scorer.inner.score(pairs)

    async def go():
        hanging = asyncio.create_task(replica.score(WorkUnit.of(PAIRS, 4, "caller", 5.0)))
        await asyncio.sleep(0.2)
        try:
            with pytest.raises(RuntimeError, match="a pass has been running"):
                await replica.check_health()
        finally:
            free.set()
            await hanging

    asyncio.run(go())


def test_a_gateway_with_its_replica_in_it_answers_as_over_a_hop(replica_of, gateway_of, pools):
    body = {"query": "capital of China", "documents": ["bananas", "the capital of China"] * 20}

    async def ask():
        # The replica belongs to the event loop of its gateway.
        gateway = gateway_of(FusedPool(replica_of())).gateway
        transport = httpx.ASGITransport(app=gateway)
        async with httpx.AsyncClient(transport=transport, base_url="http://t") as client:
            ready = await client.get("/health/ready")
            return ready, await client.post("/v2/rerank", json=body), gateway

    ready, fused, gateway = asyncio.run(ask())
    assert ready.status_code == 200
    assert fused.json()["results"] == gateway_of().post("/v2/rerank", body).json()["results"]
    # Admission knows what the replica measured.
    assert gateway.admission["lexical"].replicas.tokens_per_s > 0


def test_a_fused_gateway_answers_a_probe_while_a_pass_runs(replica_of, gateway_of):
    begun, may_end = threading.Event(), threading.Event()

    async def ask():
        replica = replica_of()

        def held(pairs):
            begun.set()
            assert may_end.wait(20)
            return replica._scorer.inner.score(pairs)

        replica._scorer.score = held
        transport = httpx.ASGITransport(app=gateway_of(FusedPool(replica)).gateway)
        async with httpx.AsyncClient(transport=transport, base_url="http://t") as client:
            body = {"query": "q", "documents": ["q"]}
            scored = asyncio.create_task(client.post("/v2/rerank", json=body))
            assert await asyncio.to_thread(begun.wait, 10)
            live = await client.get("/health/live")
            waits = not scored.done()
            may_end.set()
            return live.status_code, waits, (await scored).status_code

    assert asyncio.run(ask()) == (200, True, 200)


class Halves(Spy):
    """Its first half says when it was called; its second waits for what the test allows."""

    prepares = True

    def __init__(self, config):
        super().__init__(config)
        self.prepared, self.threads = threading.Semaphore(0), set()
        self.may_end = threading.Event()

    def prepare(self, pairs):
        self.threads.add(threading.current_thread().name.split("_")[0])
        self.prepared.release()
        return [(pair,) for pair in pairs]

    def run(self, prepared):
        self.threads.add(threading.current_thread().name)
        assert self.may_end.wait(30)
        return self.inner.score([pair for (pair,) in prepared])


def test_units_are_tokenised_while_others_are_scored():
    config = ScorerConfig(model="lexical")
    replica = ScorerReplica(config, ServeConfig(warm_up=False), Halves)
    scorer = replica._scorer
    expected = scorer.inner.score(PAIRS).raw.tolist()

    async def go():
        units = [
            asyncio.create_task(replica.score(WorkUnit.of(PAIRS, 4, str(number), 30.0)))
            for number in range(3)
        ]
        # All three, though the first one's pass is not over.
        for _ in units:
            assert await asyncio.to_thread(scorer.prepared.acquire, timeout=30)
        assert not any(unit.done() for unit in units)
        scorer.may_end.set()
        return await asyncio.gather(*units)

    assert [answer.scores.raw.tolist() for answer in asyncio.run(go())] == [expected] * 3
    assert scorer.threads == {"prepare", "scorer"}
    asyncio.run(replica.check_health())
