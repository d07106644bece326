"""In int8, where 1e-7 in an activation can move a score by a tenth: the front ends still agree.

Without Ray, which moves scores and computes none: the gateway and the job with their own cuts.
"""

import asyncio

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rerank_core import Candidate, Reranker, RerankRequest, ScorerConfig, load_scorer
from serve_app.config import ServeConfig
from serve_app.gateway import Gateway
from tests.pipelines.protocol import job, rows_of
from tests.serve_app.local_pool import LocalPool

pytestmark = pytest.mark.seconds

SCORER = ScorerConfig(model="embedded", max_length=128, dtype="int8")
QUERIES = ("how to remove spaces around a string", "怎样把 JSON 文本变成对象")
TEXTS = sorted({doc for name in dir(str) if (doc := getattr(str, name).__doc__)})


@pytest.fixture(scope="module")
def scorer():
    return load_scorer(SCORER)


@pytest.fixture(scope="module")
def alone(scorer):
    """Every pair in a pass of its own, by query and place."""
    reranker = Reranker(scorer)

    def score(query, text):
        (result,) = reranker.rerank([RerankRequest(query, (Candidate("0", text),))])
        return result.ranked[0].score

    return {(q, place): score(q, text) for q in QUERIES for place, text in enumerate(TEXTS)}


def test_a_request_gives_each_document_the_score_it_has_alone(scorer, alone):
    # Units of 300 tokens: a request's documents are cut into many passes.
    config = ServeConfig.model_validate({"scorer": SCORER.model_dump(), "unit_tokens": 300})
    gateway = Gateway(config, {"embedded": LocalPool(scorer)})

    async def ask(query):
        transport = httpx.ASGITransport(app=gateway)
        async with httpx.AsyncClient(transport=transport, base_url="http://rerank.test") as client:
            body = {"model": "embedded", "query": query, "documents": TEXTS}
            return (await client.post("/v2/rerank", json=body, timeout=60)).json()["results"]

    for query in QUERIES:
        hits = asyncio.run(ask(query))
        found = {(query, hit["index"]): hit["relevance_score"] for hit in hits}
        wanted = {key: score for key, score in alone.items() if key[0] == query}
        assert found == pytest.approx(wanted, abs=1e-5)


def test_a_job_gives_each_row_the_score_it_has_alone(scorer, alone, tmp_path):
    rows = [
        {"query_id": str(QUERIES.index(query)), "query": query, "doc_id": str(place), "text": text}
        for place, text in enumerate(TEXTS)
        for query in QUERIES
    ]
    (tmp_path / "in").mkdir()
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "in" / "pairs.parquet")
    job(tmp_path / "in", tmp_path / "out", lambda _: scorer, scorer=SCORER, unit_pairs=30)
    found = {(row["query"], int(row["doc_id"])): row["score"] for row in rows_of(tmp_path / "out")}
    assert found == pytest.approx(alone, abs=1e-5)
