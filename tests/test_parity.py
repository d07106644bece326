"""The promise of the project: one core, so both front ends give the same scores and order."""

import json
from pathlib import Path

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rerank_core import Candidate, Reranker, RerankRequest, ScorerConfig, load_scorer

pytestmark = [
    pytest.mark.slow,
    # Ray Data warns about a setting of its own.
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray"),
]

SCORER = {"model": "embedded", "max_length": 256}
TOLERANCE = 1e-5
QUESTIONS = {
    "how do I get rid of spaces around a string": "en",
    "怎样把 JSON 文本变成对象": "zh",
    "which day of the week is a date": "en",
}


def candidates() -> list[dict[str, str]]:
    """Real text of many lengths: docstrings that Python brings along, in two rows of questions."""
    documents = {
        f"{owner.__name__}.{name}": getattr(owner, name).__doc__
        for owner in (str, list, dict, json, Path)
        for name in sorted(vars(owner))
        if not name.startswith("_") and getattr(getattr(owner, name), "__doc__", None)
    }
    return [
        {"query_id": f"q{place}", "query": query, "doc_id": name, "text": text}
        for place, query in enumerate(QUESTIONS)
        for name, text in list(documents.items())[place::2]
    ]


def by_query(rows: list[dict]) -> dict[str, list[dict]]:
    found: dict[str, list[dict]] = {}
    for row in rows:
        found.setdefault(row["query"], []).append(row)
    return found


def scored_alone(rows: list[dict]) -> dict[str, list[tuple[str, float]]]:
    reranker = Reranker(load_scorer(ScorerConfig(**SCORER)))
    requests = [
        RerankRequest(query, tuple(Candidate(row["doc_id"], row["text"]) for row in part))
        for query, part in by_query(rows).items()
    ]
    results = reranker.rerank(requests)
    return {
        request.query: [(hit.doc_id, hit.score) for hit in result.ranked]
        for request, result in zip(requests, results, strict=True)
    }


def scored_online(rows: list[dict], url: str) -> dict[str, list[tuple[str, float]]]:
    found = {}
    for query, part in by_query(rows).items():
        body = {"model": "embedded", "query": query, "documents": [row["text"] for row in part]}
        answer = httpx.post(f"{url}/v2/rerank", json=body, timeout=120)
        assert answer.status_code == 200, answer.text
        hits = answer.json()["results"]
        found[query] = [(part[hit["index"]]["doc_id"], hit["relevance_score"]) for hit in hits]
    return found


def scored_offline(rows: list[dict], folder: Path) -> dict[str, list[tuple[str, float]]]:
    from pipelines.config import RerankJobConfig
    from pipelines.rerank_job import run_job

    pq.write_table(pa.Table.from_pylist(rows), folder / "in.parquet", row_group_size=40)
    # Small units, so that one query's candidates lie in several of them.
    run_job(
        RerankJobConfig(
            input=(str(folder / "in.parquet"),),
            output=str(folder / "out"),
            scorer=ScorerConfig(**SCORER),
            unit_pairs=25,
            replicas="1",
        )
    )
    result = pq.read_table(folder / "out").sort_by([("query", "ascending"), ("rank", "ascending")])
    return {
        query: [(row["doc_id"], row["score"]) for row in part]
        for query, part in by_query(result.to_pylist()).items()
    }


def test_online_offline_and_the_bare_core_agree(local_ray, embedded_service, tmp_path):
    rows = candidates()
    alone = scored_alone(rows)
    online = scored_online(rows, embedded_service)
    offline = scored_offline(rows, tmp_path)
    assert len(rows) > 150
    for query, expected in alone.items():
        names, scores = zip(*expected, strict=True)
        for other in (online[query], offline[query]):
            assert [name for name, _ in other] == list(names)
            assert [score for _, score in other] == pytest.approx(scores, abs=TOLERANCE)
