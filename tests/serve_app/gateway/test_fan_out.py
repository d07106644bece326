"""Units on their way: scores of one model only, and lost replicas at nobody's expense."""

import asyncio
import itertools
import time
from dataclasses import replace

import numpy as np
import pytest

from rerank_core import ModelUnavailable, PairScores, QueryDocumentPair
from serve_app.gateway.fan_out import score_in_units
from serve_app.gateway.retries import RetryBudget
from serve_app.pool import LoadedModel, OtherModel, ReplicaLost, UnitScores
from tests.serve_app.local_pool import LocalPool

INFO = LocalPool().model.info


def model(name):
    return LoadedModel(replace(INFO, fingerprint=name, activation="identity"))


class Versions:
    """Replicas of two versions: `turns` says who answers the next unit, over and over.

    A version's score is the number in the document, plus a thousand for each letter after `a`.
    """

    def __init__(self, turns):
        self.turns = itertools.cycle(turns)
        self.scored = 0
        self.refused = 0

    async def score(self, unit):
        name = next(self.turns)
        if unit.fingerprint not in ("", name):
            self.refused += 1
            raise OtherModel("not mine")
        self.scored += 1
        base = 1000 * (ord(name) - ord("a"))
        raw = np.array([base + float(pair.document) for pair in unit.pairs], np.float32)
        n = len(raw)
        scores = PairScores(raw, np.full(n, 10, np.int32), np.zeros(n, np.bool_))
        return UnitScores(scores, model(name), 0.0, 0.0)

    async def loaded(self):
        return model("a")


def gather(pool, documents, unit_tokens=10, retries=None, seconds=5.0, **options):
    """Send one document a unit, where a document costs 10 tokens."""
    pairs = [QueryDocumentPair("q", str(document)) for document in documents]
    return asyncio.run(
        score_in_units(
            pool,
            pairs,
            [10] * len(pairs),
            unit_tokens=unit_tokens,
            deadline=time.monotonic() + seconds,
            caller="caller",
            retries=retries or RetryBudget(0.1),
            **options,
        )
    )


@pytest.mark.parametrize("turns", ["aaab", "abab", "bbba", "aab", "abb", "abc"])
def test_scores_of_two_versions_are_never_merged(turns):
    documents = list(range(8))
    found = gather(Versions(turns), documents)
    base = 1000 * (ord(found.model.fingerprint) - ord("a"))
    assert found.scores.raw.tolist() == [base + document for document in documents]


def test_the_smaller_part_is_asked_again_and_only_that():
    pool = Versions("aaabaaaaaaaa")
    found = gather(pool, range(4))
    assert (found.model.fingerprint, found.mixed, found.units) == ("a", 1, 4)
    assert pool.scored == 5


def test_a_version_that_went_away_meanwhile_does_not_hold_the_request_up():
    pool = Versions("aaabbb")
    pool.turns = itertools.chain("aaab", itertools.repeat("b"))
    found = gather(pool, range(4))
    assert found.model.fingerprint == "b"
    assert found.scores.raw.tolist() == [1000, 1001, 1002, 1003]


def test_replicas_of_which_each_has_another_model_end_in_a_503_instead_of_a_ranking():
    pool = Versions("a")
    names = (chr(ord("a") + number) for number in itertools.count())
    pool.turns = names
    with pytest.raises(ModelUnavailable, match="being replaced"):
        gather(pool, range(2))


def test_the_answer_is_activated_as_the_model_that_scored_says(gateway_of):
    """The gateway has asked an old replica what is loaded; a new one, without sigmoid, scores."""

    class Updated(Versions):
        def has_other(self, unit):
            return False

        async def loaded(self):
            return LoadedModel(replace(INFO, fingerprint="a", activation="sigmoid"))

    caller = gateway_of(Updated("c"))
    answer = caller.post("/v2/rerank", {"query": "q", "documents": ["1", "2"]}).json()
    assert [hit["relevance_score"] for hit in answer["results"]] == [2002.0, 2001.0]
    assert caller.send("GET", "/info").json()["fingerprint"] == "c"


class DyingReplica(LocalPool):
    """Holds `held` units, dies with all of them, and another one answers from then on."""

    def __init__(self, held, name="a"):
        super().__init__()
        self.held, self.name = held, name
        self.waiting = 0
        self.dead = asyncio.Event()

    async def score(self, unit):
        if self.dead.is_set():
            return await super().score(unit)
        self.waiting += 1
        if self.waiting == self.held:
            self.dead.set()
        await self.dead.wait()
        raise ReplicaLost("a replica died", self.name)


def test_a_replica_that_dies_with_64_requests_costs_none_of_them(gateway_of, pools):
    import httpx

    gateway = gateway_of(DyingReplica(64)).gateway

    async def go():
        transport = httpx.ASGITransport(app=gateway)
        body = {"query": "q", "documents": ["a"]}
        async with httpx.AsyncClient(transport=transport, base_url="http://t") as client:
            sent = (client.post("/v2/rerank", json=body) for _ in range(64))
            return [answer.status_code for answer in await asyncio.gather(*sent)]

    assert asyncio.run(go()) == [200] * 64


def test_a_request_of_64_units_survives_the_loss_of_the_replica_that_holds_them():
    retries = RetryBudget(0.1, burst=1.0)
    found = gather(DyingReplica(64), range(64), retries=retries)
    assert (found.retries, found.units) == (64, 64)


def test_many_replicas_that_die_are_a_storm():
    retries = RetryBudget(0.5, burst=3.0)
    assert [retries.allows(name) for name in "abcdabc"] == [*[True] * 3, False, *[True] * 3]
    retries.earn()
    assert not retries.allows("d")
    retries.earn()
    assert retries.allows("d")


def test_a_loss_of_which_nobody_knows_the_replica_counts_each_time():
    retries = RetryBudget(0.1, burst=2.0)
    assert [retries.allows("") for _ in range(3)] == [True, True, False]


def test_without_a_share_nothing_goes_twice():
    assert not RetryBudget(0.0).allows("a")


def test_a_request_is_one_call_to_each_replica_in_pieces_of_bounded_cost():
    pool = LocalPool()
    found = gather(pool, range(9), unit_tokens=20, replicas=2, can_wait=True)
    assert [unit.pieces for unit in pool.units] == [((2, 20), (2, 20)), ((1, 10), (2, 20), (2, 20))]
    assert [(len(unit.documents), unit.cost) for unit in pool.units] == [(4, 40), (5, 50)]
    assert {unit.can_wait for unit in pool.units} == {True}
    assert (found.units, len(found.scores)) == (2, 9)
