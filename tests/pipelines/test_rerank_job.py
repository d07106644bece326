"""The whole job on a real small Ray, against scores computed without Ray."""

from __future__ import annotations

import importlib
import inspect
import io
import textwrap
from collections import defaultdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import pipelines
from pipelines.commits.verify import verify
from pipelines.config import RerankJobConfig
from pipelines.rerank_job import main, run_job
from rerank_core import Candidate, Reranker, RerankRequest, ScorerConfig, load_scorer

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("small_ray"),
    # Ray Data warns of its own settings.
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray"),
]
LEXICAL = ScorerConfig(model="lexical")
QUESTIONS = [
    "remove whitespace from both ends of a string",
    "join strings with a separator",
    "read a file line by line",
    "parse a date from text",
    "limit the time that a call may take",
    "make a copy of an object",
]


def docstrings(count: int) -> list[tuple[str, str]]:
    """Real text: the documentation of a few of Python's own modules."""
    found: dict[str, str] = {}
    for name in ("builtins", "collections", "functools", "inspect", "itertools", "os", "textwrap"):
        for key, value in sorted(vars(importlib.import_module(name)).items()):
            text = inspect.getdoc(value) if callable(value) else None
            if text and len(text) > 40:
                found.setdefault(f"{name}.{key}", textwrap.shorten(text, 2000))
    return list(found.items())[:count]


def expected(rows: list[dict[str, Any]], top_k: int | None = None) -> dict[tuple[str, str], Any]:
    """Score and rank of each (query_id, doc_id), from the core alone."""
    queries = defaultdict(list)
    for row in rows:
        queries[row["query_id"], row["query"]].append(Candidate(row["doc_id"], row["text"]))
    results = Reranker(load_scorer(LEXICAL)).rerank(
        [RerankRequest(query, tuple(found), top_k) for (_, query), found in queries.items()]
    )
    return {
        (query_id, hit.doc_id): (hit.score, hit.rank)
        for (query_id, _), result in zip(queries, results, strict=True)
        for hit in result.ranked
    }


def run(folder: Path, out: Path, **changes: Any) -> dict[str, Any]:
    config = RerankJobConfig(
        input=(str(folder),), output=str(out), scorer=LEXICAL, unit_pairs=64, **changes
    )
    return run_job(config, out=io.StringIO())


@pytest.mark.parametrize("top_k", [None, 5])
def test_pairs_of_real_text_get_the_scores_and_ranks_of_the_core(tmp_path, write_files, top_k):
    rows = [
        {"doc_id": name, "query_id": f"q{n}", "query": query, "text": text, "length": len(text)}
        for name, text in docstrings(100)
        for n, query in enumerate(QUESTIONS)
    ]
    assert len(rows) == 600
    folder = write_files(tmp_path / "in", rows, files=3, group=70)
    manifest = run(folder, tmp_path / "out", top_k=top_k)
    table = pq.read_table(tmp_path / "out")
    assert table.schema.names == [
        "doc_id", "query_id", "query", "text", "length", "score", "rank"
    ]  # fmt: skip
    assert table.schema.field("score").type == pa.float32()
    assert table.schema.field("rank").type == pa.int32()
    got = {
        (row["query_id"], row["doc_id"]): (pytest.approx(row["score"], abs=1e-6), row["rank"])
        for row in table.to_pylist()
    }
    assert expected(rows, top_k) == got
    assert manifest["counts"]["rows_in"] == 600
    assert manifest["counts"]["rows_out"] == len(got) == (30 if top_k else 600)
    # The data set keeps the order of the input, and the manifest's account is sound.
    order = [(row["query_id"], row["doc_id"]) for row in rows]
    read = pipelines.read_output(tmp_path / "out").to_table().to_pylist()
    place = {key: n for n, key in enumerate(order)}
    places = [place[row["query_id"], row["doc_id"]] for row in read]
    assert places == sorted(places)
    assert verify(tmp_path / "out") == manifest["counts"]


def test_nested_rows_hold_their_candidates_best_first(tmp_path):
    documents = docstrings(60)
    rows = [
        {
            "query_id": n,
            "query": query,
            "candidates": [{"doc_id": d, "text": t} for d, t in documents[n * 5 : 40 + n * 3]],
        }
        for n, query in enumerate(QUESTIONS)
    ]
    (tmp_path / "in").mkdir()
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "in" / "a.parquet")
    run(tmp_path / "in", tmp_path / "out", top_k=7)
    flat = [
        {"query_id": row["query_id"], "query": row["query"], **candidate}
        for row in rows
        for candidate in row["candidates"]
    ]
    wanted = expected(flat, top_k=7)
    for row in pq.read_table(tmp_path / "out").to_pylist():
        ranks = [hit["rank"] for hit in row["candidates"]]
        assert ranks == list(range(1, 8))
        for hit in row["candidates"]:
            score, rank = wanted[row["query_id"], hit["doc_id"]]
            assert (hit["score"], hit["rank"]) == (pytest.approx(score, abs=1e-6), rank)


def test_a_copy_of_the_model_that_no_machine_can_hold_ends_the_job(tmp_path, pairs_input, capsys):
    options = ["--input", str(pairs_input), "--output", str(tmp_path / "out"), "--model", "lexical"]
    assert main([*options, "--cpus-per-replica", "64", "--machine-wait-s", "0.5"]) == 2
    said = capsys.readouterr().err
    assert (
        "no machine has the 64 CPUs that a copy of the model takes; they have 0 GPUs and 4 " in said
    )
    assert "raise --machine-wait-s where machines come on demand" in said
