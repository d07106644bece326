"""A query with very many candidates: no call grows with it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.parquet as pq
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from protocol import LEXICAL, job

from rerank_core import load_scorer
from rerank_core.types import PairScores

pytestmark = pytest.mark.seconds
MANY, UNIT = 200_000, 10_000


class Number:
    """Scores a document by the number that it is; remembers how many it was asked for at once."""

    def __init__(self, config):
        self.asked.clear()
        self.info = load_scorer(config).info

    asked: ClassVar[list[int]] = []

    def score(self, pairs):
        self.asked.append(len(pairs))
        raw = np.array([float(pair.document) for pair in pairs], dtype=np.float32)
        ones = np.ones(len(pairs), dtype=np.int32)
        return PairScores(raw, ones, ones.astype(bool))


@pytest.mark.parametrize("top_k", [None, 1000])
def test_one_query_with_200_000_candidates_is_ranked_unit_by_unit(tmp_path, top_k):
    order = np.random.default_rng(0).permutation(MANY)
    with pq.ParquetWriter(tmp_path / "in.parquet", pa.schema(
        {"query_id": pa.int8(), "query": pa.string(), "doc_id": pa.int32(), "text": pa.string()}
    )) as writer:  # fmt: skip
        for part in np.split(order, 20):
            same = pa.array([1] * len(part), pa.int8())
            columns = [same, pa.array(["q"] * len(part)), pa.array(part, pa.int32())]
            writer.write_table(
                pa.table(
                    [*columns, pa.array([str(n) for n in part])],
                    names=["query_id", "query", "doc_id", "text"],
                )
            )
    manifest = job(tmp_path / "in.parquet", tmp_path / "out", Number, unit_pairs=UNIT, top_k=top_k)
    assert Number.asked == [UNIT] * (MANY // UNIT)
    table = pads.dataset(tmp_path / "out").to_table(columns=["doc_id", "rank"]).sort_by("rank")
    kept = top_k or MANY
    assert table["rank"].to_pylist() == list(range(1, kept + 1))
    assert table["doc_id"].to_pylist() == list(range(MANY - 1, MANY - 1 - kept, -1))
    assert LEXICAL.fingerprint() == manifest["identity"]["scorer"]
