"""Deadlines, overload, lost replicas, limits and readiness, without Ray."""

import asyncio
import gc
import json
import time
import tracemalloc
from dataclasses import replace

import httpx
import numpy as np
import pytest

from rerank_core import ModelUnavailable, Overloaded, ScoringFailed
from serve_app.config import Admission, ServeConfig
from serve_app.gateway import Gateway
from serve_app.http.asgi import local_path
from serve_app.pool import ReplicaLost, ReplicaReport
from tests.serve_app.local_pool import LocalPool

BODY = {"query": "capital", "documents": ["capital", "banana"]}


def test_a_client_can_shorten_the_deadline_and_the_units_are_cancelled(gateway_of, pools):
    pool = pools.stuck()
    started = time.monotonic()
    answer = gateway_of(pool).post("/v2/rerank", BODY, headers={"x-rerank-timeout-seconds": "0.5"})
    assert time.monotonic() - started < 3
    assert (answer.status_code, answer.json()["error"]["type"]) == (504, "timeout_error")
    assert (len(pool.units), pool.cancelled) == (1, 1)
    assert pool.units[0].timeout_s <= 0.5


def test_a_client_cannot_lengthen_the_deadline(gateway_of, pools):
    caller = gateway_of(pools.stuck(), limits={"request_timeout_s": 0.1})
    headers = {"x-rerank-timeout-seconds": "3600"}
    assert caller.post("/v2/rerank", BODY, headers=headers).status_code == 504


@pytest.mark.parametrize("value", ["0", "-1", "nan", "inf", "soon", ""])
def test_a_deadline_that_is_no_number_above_zero_is_refused(gateway_of, value):
    answer = gateway_of().post("/v2/rerank", BODY, headers={"x-rerank-timeout-seconds": value})
    assert answer.status_code == 400


@pytest.mark.parametrize("error", [ReplicaLost("gone"), ModelUnavailable("broken")])
def test_a_unit_whose_replica_died_is_sent_once_more(gateway_of, pools, error):
    pool = pools.failing(error)
    answer = gateway_of(pool).post("/v2/rerank", BODY)
    assert answer.status_code == 200
    assert len(pool.units) == 2


def test_a_unit_that_dies_twice_is_a_503_with_retry_after(gateway_of, pools):
    pool = pools.failing(ReplicaLost("gone"), ReplicaLost("gone"))
    answer = gateway_of(pool).post("/v2/rerank", BODY)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert len(pool.units) == 2


def test_retries_have_a_budget(gateway_of, pools):
    pool = pools.failing(*[ReplicaLost("gone")] * 1000)
    caller = gateway_of(pool)
    for _ in range(30):
        caller.post("/v2/rerank", BODY)
    # 30 requests, 10 retries saved up and one more for every ten requests.
    assert 40 <= len(pool.units) <= 44


@pytest.mark.parametrize(
    ("path", "body", "expected"),
    [
        (
            "/v2/rerank",
            BODY,
            {
                "message": "full",
                "detail": "full",
                "error": {
                    "message": "full",
                    "type": "rate_limit_error",
                    "param": None,
                    "code": 429,
                },
                "request_id": "r",
            },
        ),
        (
            "/rerank",
            {"query": "q", "texts": ["t"]},
            {"error": "full", "error_type": "Overloaded"},
        ),
    ],
)
def test_overload_is_a_429_with_retry_after_in_the_dialect(gateway_of, pools, path, body, expected):
    caller = gateway_of(pools.failing(Overloaded("full", 2.3)))
    answer = caller.post(path, body, headers={"x-request-id": "r"})
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "3")
    assert answer.json() == expected


@pytest.mark.seconds
def test_beyond_the_bound_requests_are_refused_in_milliseconds(pools, gateway_of):
    gateway = gateway_of(
        pools.stuck(),
        admission={"min_tokens": 20, "min_requests": 1},
        limits={"request_timeout_s": 1},
    ).gateway

    async def go():
        transport = httpx.ASGITransport(app=gateway)
        async with httpx.AsyncClient(transport=transport, base_url="http://t") as client:
            held = [asyncio.create_task(client.post("/v2/rerank", json=BODY)) for _ in range(2)]
            await asyncio.sleep(0.1)
            started = time.monotonic()
            refused = await client.post("/v2/rerank", json=BODY)
            took = time.monotonic() - started
            return refused, took, [answer.status_code for answer in await asyncio.gather(*held)]

    refused, took, held = asyncio.run(go())
    assert (refused.status_code, refused.headers["retry-after"], held) == (429, "1", [504, 504])
    assert took < 0.5


class GatheringPool(LocalPool):
    """Answers nobody before `held` units are there; reports what a GPU can do."""

    def __init__(self, held):
        super().__init__()
        self.model = self.model._replace(info=replace(self.model.info, max_batch_tokens=65_536))
        self.held, self.all_here = held, asyncio.Event()

    async def reports(self):
        return [ReplicaReport("gpu", tokens_per_s=500_000.0, tokens_held=0.0)]

    async def score(self, unit):
        self.held -= 1
        if not self.held:
            self.all_here.set()
        await self.all_here.wait()
        return await super().score(unit)


def test_a_new_gateway_refuses_nothing_that_the_replicas_can_bear(gateway_of):
    gateway = gateway_of(GatheringPool(64)).gateway
    body = {"query": "q", "documents": ["word " * 120] * 30}

    async def go():
        transport = httpx.ASGITransport(app=gateway)
        async with httpx.AsyncClient(transport=transport, base_url="http://t") as client:
            sent = (client.post("/v2/rerank", json=body) for _ in range(64))
            return [answer.status_code for answer in await asyncio.gather(*sent)]

    assert asyncio.run(go()) == [200] * 64


def test_a_client_that_leaves_frees_its_units_and_its_room(pools, gateway_of):
    pool = pools.stuck()
    gateway = gateway_of(pool).gateway

    async def go():
        transport = httpx.ASGITransport(app=gateway)
        async with httpx.AsyncClient(transport=transport, base_url="http://t") as client:
            task = asyncio.create_task(client.post("/v2/rerank", json=BODY))
            while not pool.units:
                await asyncio.sleep(0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(go())
    assert (pool.cancelled, gateway.admission["lexical"].under_way) == (1, 0)


def test_our_own_faults_tell_nothing_but_the_request_id(gateway_of, pools, caplog):
    secret = "the caller's text"
    caller = gateway_of(pools.failing(RuntimeError(secret), ScoringFailed("no score")))
    answer = caller.post("/v2/rerank", {"query": secret, "documents": [secret]})
    assert (answer.status_code, answer.json()["error"]["type"]) == (500, "internal_error")
    assert secret not in answer.text
    assert secret not in caplog.text
    assert "RuntimeError at" in caplog.text


@pytest.mark.parametrize(
    ("limits", "body", "param"),
    [
        ({"max_documents": 1}, BODY, "documents"),
        ({"max_query_characters": 6}, BODY, "query"),
    ],
)
def test_limits_name_the_field_before_anything_is_sent(gateway_of, pool, limits, body, param):
    answer = gateway_of(pool, limits=limits).post("/v2/rerank", body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (422, param)
    assert pool.units == []


def test_a_document_beyond_the_limit_is_cut_and_named_and_its_neighbours_are_scored(
    gateway_of, pool
):
    caller = gateway_of(pool, limits={"max_document_characters": 6})
    body = {**BODY, "documents": ["capital letters", "banana"], "return_documents": True}
    answer = caller.post("/v2/rerank", body)
    assert answer.json()["meta"]["truncated"] == [0]
    assert answer.headers["x-truncated-documents"] == "0"
    assert answer.json()["results"][0]["document"] == {"text": "capital letters"}
    assert [pair.document for pair in pool.units[0].pairs] == ["capita", "banana"]
    refusing = {"query": "capital", "texts": body["documents"], "truncate": False}
    assert caller.post("/rerank", refusing).status_code == 422


class PoisonPool:
    """Scores all but the documents that say so."""

    def __init__(self, inner):
        self.inner, self.loaded, self.has_other = inner, inner.loaded, inner.has_other

    async def score(self, unit):
        answer = await self.inner.score(unit)
        bad = [i for i, pair in enumerate(unit.pairs) if pair.document == "poison"]
        raw = answer.scores.raw.copy()
        raw[bad] = np.nan
        errors = dict.fromkeys(bad, "not finite")
        return replace(answer, scores=replace(answer.scores, raw=raw, errors=errors))


POISONED = {"query": "capital", "documents": ["banana", "poison", "capital"]}


def test_a_document_that_cannot_be_scored_is_a_422_that_names_it(gateway_of, pool):
    answer = gateway_of(PoisonPool(pool)).post("/v2/rerank", POISONED)
    error = answer.json()["error"]
    assert (answer.status_code, error["type"]) == (422, "scoring_failed_error")
    assert error["param"] == "documents.1"
    assert error["message"] == (
        "document 1 could not be scored (not finite); leave it out or send on_error: skip"
    )


@pytest.mark.parametrize("path", ["/v1/rerank", "/v2/rerank", "/rerank"])
def test_on_request_it_is_left_out_and_named(gateway_of, pool, path):
    answer = gateway_of(PoisonPool(pool)).post(path, {**POISONED, "on_error": "skip"})
    assert [hit["index"] for hit in answer.json()["results"]] == [2, 0]
    assert answer.json()["meta"]["failed"] == [1]
    assert answer.headers["x-failed-documents"] == "1"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/rerank", {"query": "capital", "texts": POISONED["documents"]}),
        ("/v1/rerank", {**POISONED, "top_k": 3}),
        ("/score", {"text_1": "capital", "text_2": POISONED["documents"]}),
        (
            "/v1/ranking",
            {
                "query": {"text": "capital"},
                "passages": [{"text": text} for text in POISONED["documents"]],
            },
        ),
    ],
)
def test_apis_without_meta_name_it_in_a_header(gateway_of, pool, path, body):
    answer = gateway_of(PoisonPool(pool)).post(path, {**body, "on_error": "skip"})
    assert (answer.status_code, answer.headers["x-failed-documents"]) == (200, "1")


def test_settings_change_live_whole_or_not_at_all(gateway_of):
    caller = gateway_of()
    caller.gateway.reconfigure({"limits": {"max_documents": 1}})
    assert caller.post("/v2/rerank", BODY).status_code == 422
    for wrong in ({"limits": {"max_documents": 5, "no": 1}}, {"limit": {}}, {"scorer": {}}):
        with pytest.raises(ValueError, match=r"no|limit|scorer"):
            caller.gateway.reconfigure(wrong)
    assert caller.post("/v2/rerank", BODY).status_code == 422


@pytest.mark.parametrize("mount", ["", "/rerank-service", "/rerank", "/a/b"])
def test_it_works_wherever_it_is_mounted(gateway_of, mount):
    gateway = gateway_of().gateway
    paths = ["/v2/rerank", "/rerank", "/info", "/health/ready", "/", "/elsewhere", ""]

    async def go():
        transport = httpx.ASGITransport(app=gateway, root_path=mount)
        async with httpx.AsyncClient(transport=transport, base_url="http://t") as client:
            return [
                (
                    await client.request(
                        "POST" if "rerank" in path else "GET", mount + path, json=BODY
                    )
                )
                for path in paths[: None if mount else -1]
            ]

    answers = asyncio.run(go())
    assert [a.status_code for a in answers] == [200, 200, 200, 200, 200, 404, 307][: len(answers)]
    assert [a.headers["location"] for a in answers[6:]] == [f"{mount}/"][: len(answers[6:])]


def test_a_path_that_only_begins_like_the_mount_is_left_whole():
    assert local_path({"path": "/rerank", "root_path": "/re"}) == "/rerank"


def test_a_cold_start_is_waited_for_no_longer_than_the_deadline(gateway_of, pools):
    class Cold(pools.local):
        async def loaded(self):
            await asyncio.Event().wait()

    headers = {"x-rerank-timeout-seconds": "0.1"}
    assert gateway_of(Cold()).post("/v2/rerank", BODY, headers=headers).status_code == 504


def test_the_model_page_waits_no_longer_than_a_request(gateway_of, pools):
    pool = pools.local()

    async def never():
        await asyncio.Event().wait()

    pool.loaded = never
    caller = gateway_of(pool, limits={"request_timeout_s": 0.1})
    assert caller.send("GET", "/info").status_code == 504


def test_empty_settings_are_as_deployed_and_others_are_refused(gateway_of):
    gateway = gateway_of(limits={"max_documents": 7}).gateway
    gateway.reconfigure({"limits": None})
    assert gateway.config.limits.max_documents == 7
    with pytest.raises(ValueError, match="objects"):
        gateway.reconfigure({"limits": [1]})


def test_what_new_settings_leave_out_is_as_deployed(gateway_of):
    gateway = gateway_of(limits={"max_documents": 7}).gateway
    gateway.reconfigure({"limits": {"max_documents": 1}})
    gateway.reconfigure({"admission": {"max_wait_s": 3}})
    assert (gateway.config.limits.max_documents, gateway.config.admission.max_wait_s) == (7, 3)


def test_ready_means_that_scoring_moves(gateway_of, pools):
    assert gateway_of().send("GET", "/health/ready").status_code == 200
    answer = gateway_of(pools.failing(ModelUnavailable("broken"))).send("GET", "/health/ready")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")


class NanPool:
    """Loads well and scores nothing."""

    def __init__(self, inner):
        self.inner, self.loaded, self.has_other = inner, inner.loaded, inner.has_other

    async def score(self, unit):
        answer = await self.inner.score(unit)
        errors = dict.fromkeys(range(len(unit.pairs)), "not finite")
        return replace(answer, scores=replace(answer.scores, errors=errors))


def test_many_who_ask_whether_it_is_ready_cost_one_probe(gateway_of, pool):
    gateway = gateway_of(pool).gateway

    async def go():
        transport = httpx.ASGITransport(app=gateway)
        async with httpx.AsyncClient(transport=transport, base_url="http://t") as client:
            return await asyncio.gather(*(client.get("/health/ready") for _ in range(5)))

    assert [answer.status_code for answer in asyncio.run(go())] == [200] * 5
    assert len(pool.units) == 1


@pytest.mark.seconds
def test_a_hung_probe_does_not_make_a_gateway_unready_that_scores(gateway_of, pools):
    pool = pools.stuck()
    gateway = gateway_of(pool).gateway

    async def go():
        transport = httpx.ASGITransport(app=gateway)
        async with httpx.AsyncClient(transport=transport, base_url="http://t") as client:
            hung = asyncio.create_task(client.get("/health/ready"))
            while not pool.units:
                await asyncio.sleep(0.01)
            gateway._readiness.scored("lexical", pool.model, pool.scorer.score(pool.units[0].pairs))
            async with asyncio.timeout(1):
                later = await client.get("/health/ready")
            return later.status_code, (await hung).status_code

    assert asyncio.run(go()) == (200, 200)


@pytest.mark.seconds
def test_all_bodies_together_have_a_bound_and_leave_their_room(gateway_of, pools):
    pool = pools.stuck()
    limits = {"max_held_bytes": 1024, "max_body_bytes": 1024, "request_timeout_s": 0.5}
    gateway = gateway_of(pool, limits=limits).gateway
    body = {"query": "capital", "documents": ["x" * 600]}
    with pytest.raises(ValueError, match="at least max_body_bytes"):
        gateway.reconfigure({"limits": {"max_body_bytes": 2048}})

    async def go():
        transport = httpx.ASGITransport(app=gateway)
        async with httpx.AsyncClient(transport=transport, base_url="http://t") as client:
            first = asyncio.create_task(client.post("/v2/rerank", json=body))
            while not pool.units:
                await asyncio.sleep(0.01)
            second = await client.post("/v2/rerank", json=body)
            return [second, await first, await client.post("/v2/rerank", json=body)]

    answers = asyncio.run(go())
    assert [answer.status_code for answer in answers] == [429, 504, 504]
    assert answers[0].headers["retry-after"] == "1"


HELD = {
    "texts": ["x" * 100_000] * 10,
    "texts with a dash": ["x" * 99_000 + "\u2013"] * 10,
    "texts with an emoji": ["x" * 99_000 + "\U0001f600"] * 10,
    "objects": [{"text": "x" * 90_000, "tags": ["y" * 9000]}] * 10,
}


@pytest.mark.parametrize("documents", HELD.values(), ids=HELD)
@pytest.mark.parametrize("back", [True, False])
def test_a_request_that_waits_holds_what_is_counted(gateway_of, pools, documents, back):
    pool = pools.stuck()
    gateway = gateway_of(pool, admission={"min_tokens": 10**9}).gateway
    body = {"query": "q", "documents": documents, "return_documents": back}
    content = json.dumps(body, ensure_ascii=False).encode()

    async def post():
        pieces = iter(range(0, len(content), 65_536))

        async def receive():
            start = next(pieces)
            more = start + 65_536 < len(content)
            chunk = content[start : start + 65_536]
            return {"type": "http.request", "body": chunk, "more_body": more}

        scope = {"type": "http", "method": "POST", "path": "/v2/rerank", "headers": []}
        await gateway(scope, receive, None)

    async def held():
        tracemalloc.start()
        try:
            asked = [asyncio.create_task(post()) for _ in range(8)]
            while len({unit.caller for unit in pool.units}) < 8:
                await asyncio.sleep(0.01)
            gc.collect()
            memory = tracemalloc.get_traced_memory()[0], gateway._bodies.held_bytes
        finally:
            tracemalloc.stop()
        for task in asked:
            task.cancel()
        await asyncio.gather(*asked, return_exceptions=True)
        return memory

    traced, counted = asyncio.run(held())
    assert len(content) * 8 <= counted
    assert traced < 1.1 * counted
    assert gateway._bodies.held_bytes == 0


def test_truncated_documents_are_named_in_every_dialect(gateway_of, pools):
    caller = gateway_of(pools.fixed())
    texts = ["1 long", "2", "3 long"]
    for path, body in {
        "/rerank": {"query": "q", "texts": texts},
        "/score": {"queries": "q", "documents": texts},
        "/v1/ranking": {"query": {"text": "q"}, "passages": [{"text": text} for text in texts]},
        "/v2/rerank": {"query": "q", "documents": texts},
    }.items():
        assert caller.post(path, body).headers["x-truncated-documents"] == "0,2"
    answer = caller.post("/v2/rerank", {"query": "q", "documents": ["1"]})
    assert "x-truncated-documents" not in answer.headers
    answer = caller.post("/v2/rerank", {"query": "q", "documents": ["1 long"] * 200})
    first = ",".join(str(index) for index in range(100))
    assert answer.headers["x-truncated-documents"] == f"{first},..."


def test_a_model_that_scores_nothing_is_not_ready(gateway_of, pool):
    caller = gateway_of(NanPool(pool))
    assert caller.post("/v2/rerank", BODY).status_code == 500
    assert caller.send("GET", "/health/ready").status_code == 503


def test_load_balancers_may_ask_by_head(gateway_of):
    caller = gateway_of()
    answers = [caller.send("HEAD", path) for path in ("/health/live", "/health/ready")]
    assert [answer.status_code for answer in answers] == [200, 200]


def test_too_many_documents_are_counted_before_each_is_looked_at(gateway_of, pool):
    for path, field in (("/v2/rerank", "documents"), ("/rerank", "texts")):
        answer = gateway_of(pool).post(path, {"query": "q", field: [None] * 1001})
        assert answer.status_code == 422
        assert f"more than 1000 {field}" in answer.text
    assert pool.units == []


def test_a_long_list_that_nobody_reads_is_let_pass(gateway_of):
    body = {**BODY, "metadata": [None] * 1001}
    assert gateway_of().post("/v2/rerank", body).status_code == 200


def test_an_instruction_does_not_stand_in_for_a_query(gateway_of):
    body = {"query": " ", "documents": ["a"], "instruction": "find it"}
    assert gateway_of().post("/v2/rerank", body).status_code == 422


def test_without_a_share_nothing_is_sent_again(gateway_of, pools):
    pool = pools.failing(ReplicaLost("gone"))
    answer = gateway_of(pool, admission={"retry_share": 0}).post("/v2/rerank", BODY)
    assert (answer.status_code, len(pool.units)) == (503, 1)


def test_answers_say_where_the_time_went(gateway_of):
    headers = gateway_of().post("/v2/rerank", BODY, headers={"x-request-id": "abc.1"}).headers
    assert headers["x-request-id"] == "abc.1"
    assert (headers["x-queue-time"], headers["x-inference-time"]) == ("1.0", "2.0")
    assert int(headers["x-compute-tokens"]) == 4
    assert float(headers["x-total-time"]) > 0


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/rerank", {"query": "q", "texts": ["a"]}),
        ("/v1/ranking", {"query": {"text": "q"}, "passages": [{"text": "a"}], "model": "nv"}),
        ("/v2/rerank", {"query": "q", "documents": ["a"], "model": "rerank-v3.5"}),
        ("/score", {"text_1": "q", "text_2": "a"}),
    ],
)
def test_every_answer_says_in_a_header_which_model_scored(gateway_of, path, body):
    assert gateway_of().post(path, body).headers["x-rerank-model"] == "lexical"


def test_a_models_name_may_have_any_letters(pools):
    settings = {"model": "lexical", "models": {"größe/ü 1": {"model": "lexical"}}}
    config = ServeConfig.model_validate(settings)
    gateway = Gateway(config, {name: pools.local() for name in config.served})

    async def go():
        transport = httpx.ASGITransport(app=gateway)
        async with httpx.AsyncClient(transport=transport, base_url="http://t") as client:
            return await client.post("/v2/rerank", json={**BODY, "model": "größe/ü 1"})

    assert asyncio.run(go()).headers["x-rerank-model"] == "gr%C3%B6%C3%9Fe/%C3%BC%201"


def test_several_models_are_chosen_by_name(pools):
    from serve_app.config import ServeConfig

    settings = {"model": "lexical", "models": {"other": {"model": "lexical", "max_length": 8}}}
    first, other = pools.local(), pools.local()
    gateway = Gateway(ServeConfig.model_validate(settings), {"lexical": first, "other": other})

    async def go(model):
        transport = httpx.ASGITransport(app=gateway)
        async with httpx.AsyncClient(transport=transport, base_url="http://t") as client:
            return (await client.post("/v2/rerank", json={**BODY, "model": model})).json()["model"]

    assert [asyncio.run(go(name)) for name in (None, "other", "lexical")] == [
        *("lexical", "other", "lexical")
    ]
    assert (len(first.units), len(other.units)) == (2, 1)


def test_what_would_be_refused_is_refused_before_its_body_is_read(pools):
    gateway = Gateway(ServeConfig.model_validate({"model": "lexical"}), {"lexical": pools.local()})
    messages = []

    async def receive():
        raise AssertionError("the body was read")

    async def send(message):
        messages.append(message)

    async def go():
        (gate,) = gateway.admission.values()
        gate.settings = Admission(min_requests=1)
        headers = [(b"content-length", b"4000000"), (b"content-type", b"application/json")]
        scope = {"type": "http", "method": "POST", "path": "/v2/rerank", "headers": headers}
        with gate.admit(10**9), gate.admit(10**9):
            await gateway(scope, receive, send)

    asyncio.run(go())
    assert messages[0]["status"] == 429
    assert (b"retry-after", b"1") in messages[0]["headers"]


def test_a_gateway_that_drains_finishes_what_it_has_and_takes_no_more(pools):
    gateway = Gateway(ServeConfig.model_validate({"model": "lexical"}), {"lexical": SlowPool()})

    async def go():
        transport = httpx.ASGITransport(app=gateway)
        async with httpx.AsyncClient(transport=transport, base_url="http://t") as client:
            asked = asyncio.ensure_future(client.post("/v2/rerank", json=BODY))
            await asyncio.sleep(0.1)
            drained = asyncio.ensure_future(gateway.drain(20))
            await asyncio.sleep(0)
            late = await client.post("/v2/rerank", json=BODY)
            probes = [
                (await client.get(f"/health/{kind}")).status_code for kind in ("ready", "live")
            ]
            assert not drained.done()
            answer = await asked
            await drained
            return answer.status_code, late, probes

    status, late, probes = asyncio.run(go())
    assert (status, late.status_code, probes) == (200, 503, [503, 200])
    assert late.headers["connection"] == "close"


class SlowPool(LocalPool):
    """Takes half a second a unit."""

    async def score(self, unit):
        await asyncio.sleep(0.5)
        return await super().score(unit)


def test_a_drain_ends_in_time_though_requests_do_not(pools):
    gateway = Gateway(ServeConfig.model_validate({"model": "lexical"}), {"lexical": pools.stuck()})

    async def go():
        transport = httpx.ASGITransport(app=gateway)
        async with httpx.AsyncClient(transport=transport, base_url="http://t") as client:
            asked = asyncio.ensure_future(client.post("/v2/rerank", json=BODY))
            await asyncio.sleep(0.1)
            await gateway.drain(0.1)
            asked.cancel()

    started = time.monotonic()
    asyncio.run(go())
    assert time.monotonic() - started < 5


class Keys:
    """Names the key that a header spells, and lets everyone in."""

    locked = False

    def check(self, path, headers):
        return headers.get(b"x-key", b"").decode()


@pytest.mark.parametrize(
    ("headers", "can_wait"),
    [
        ({}, False),
        ({"x-rerank-priority": "interactive"}, False),
        ({"x-rerank-priority": "batch"}, True),
        ({"x-key": "nightly"}, True),
        ({"x-key": "nightly", "x-rerank-priority": "interactive"}, True),
        ({"x-key": "web"}, False),
    ],
)
def test_batch_traffic_gives_way_by_key_or_header(gateway_of, pools, headers, can_wait):
    pool = pools.local()
    caller = gateway_of(pool, api_keys=Keys(), admission={"batch_keys": ["nightly"]})
    assert caller.post("/v2/rerank", BODY, headers=headers).status_code == 200
    assert [unit.can_wait for unit in pool.units] == [can_wait]


def test_a_priority_that_is_no_class_is_refused(gateway_of):
    answer = gateway_of().post("/v2/rerank", BODY, headers={"x-rerank-priority": "highest"})
    assert (answer.status_code, answer.json()["error"]["message"]) == (
        400,
        "x-rerank-priority is interactive or batch",
    )


def test_one_of_several_models_has_limits_and_admission_of_its_own(pools):
    settings = {
        "model": "lexical",
        "models": {"other": {"model": "lexical", "max_length": 8}},
        "admission": {"max_wait_s": 2},
        "per_model": {
            "other": {
                "limits": {"max_documents": 1, "max_document_characters": 3},
                "admission": {"max_wait_s": 5},
            }
        },
    }
    gateway = Gateway(
        ServeConfig.model_validate(settings), {"lexical": pools.local(), "other": pools.local()}
    )

    async def go(model, documents):
        transport = httpx.ASGITransport(app=gateway)
        async with httpx.AsyncClient(transport=transport, base_url="http://t") as client:
            body = {"query": "q", "documents": documents, "model": model}
            return await client.post("/v2/rerank", json=body)

    assert asyncio.run(go("lexical", ["long", "b"])).json()["meta"]["truncated"] == []
    assert asyncio.run(go("other", ["long"])).json()["meta"]["truncated"] == [0]
    assert asyncio.run(go("other", ["long", "b"])).status_code == 422
    waits = {name: gate.settings.max_wait_s for name, gate in gateway.admission.items()}
    assert waits == {"lexical": 2, "other": 5}
    gateway.reconfigure({"admission": {"max_wait_s": 3}})
    waits = {name: gate.settings.max_wait_s for name, gate in gateway.admission.items()}
    assert waits == {"lexical": 3, "other": 5}
