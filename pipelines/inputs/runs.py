"""Reads runs (a job's output, a TREC run, Parquet) and judgements (TREC qrels, Parquet)."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pyarrow.dataset as pads

from pipelines.columns import ColumnNames
from pipelines.commits.records import MANIFEST
from pipelines.commits.store import open_store
from pipelines.commits.verify import finished_manifest, open_result
from pipelines.inputs.ids import id_text
from pipelines.inputs.trec import read_trec_run
from rerank_core import InvalidRequest

# query -> document -> a number that orders them, higher first
Run = dict[str, dict[str, float]]


def read_run(path: str, column: str | None = None) -> Run:
    """Read a run: job output folder, Parquet, or TREC run file.

    `column` orders by another column than the rank, for example the first stage's score.
    """
    if not _is_parquet(path):
        return _from_rows((hit.query_id, hit.doc_id, -hit.rank) for hit in read_trec_run(path))
    store, called = open_store(path), ColumnNames()
    if "://" in path or store.size(MANIFEST) is not None:
        dataset = open_result(path)
        called = ColumnNames(**finished_manifest(store)["config"]["names"])
    else:
        dataset = pads.dataset(path)
    there = dataset.schema.names
    query, document = called.query_id, called.doc_id
    if called.candidates in there:
        rows = [
            {**candidate, query: row[query]}
            for row in dataset.to_table(columns=[query, called.candidates]).to_pylist()
            for candidate in row[called.candidates] or ()
        ]
        there = list(rows[0]) if rows else there
    else:
        wanted = [n for n in (query, document, called.rank, called.score, column) if n in there]
        rows = dataset.to_table(columns=wanted).to_pylist()
    by = column or next((name for name in (called.rank, called.score) if name in there), None)
    if by is None or by not in there:
        raise InvalidRequest(f"{path} has no column {by or 'rank or score'}", "run")
    sign = -1.0 if by == called.rank else 1.0
    return _from_rows(
        (id_text(row[query]), id_text(row[document]), sign * float(row[by]))
        for row in rows
        if row[by] is not None  # a document that the first stage did not have
    )


def _from_rows(rows: Iterable[tuple[str, str, float]]) -> Run:
    """Collect (query, document, value); a document that comes twice stands where it stands best."""
    run: Run = {}
    for query, document, value in rows:
        documents = run.setdefault(query, {})
        documents[document] = max(value, documents.get(document, value))
    return run


def _is_parquet(path: str) -> bool:
    return "://" in path or Path(path).is_dir() or path.endswith(".parquet")


def read_qrels(path: str) -> dict[str, dict[str, int]]:
    """Read judgements: TREC qrels (query, 0, document, relevance) or Parquet."""
    qrels: dict[str, dict[str, int]] = {}
    if _is_parquet(path):
        rows = pads.dataset(path).to_table(columns=["query_id", "doc_id", "relevance"]).to_pylist()
        judged = [(row["query_id"], row["doc_id"], row["relevance"]) for row in rows]
    else:
        judged = []
        lines = Path(path).read_text(encoding="utf-8").splitlines()
        for number, line in enumerate(lines, start=1):
            parts = line.split()
            if len(parts) not in (0, 4):
                raise InvalidRequest(f"{path}:{number}: a line of TREC qrels has 4 fields", "qrels")
            judged += [(parts[0], parts[2], parts[3])] if parts else []
    if not judged:
        raise InvalidRequest(f"{path} has no judgements", "qrels")
    for query, document, relevance in judged:
        qrels.setdefault(str(query), {})[str(document)] = int(relevance)
    return qrels
