"""A small real Ray for the slow tests, and Parquet inputs for all."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

WORDS = "river stone lamp green music paper window bridge 北京 大学 公司 天气 音乐".split()  # noqa: SIM905


def _make_rows(queries: int, per_query: int, seed: int = 0) -> list[dict[str, Any]]:
    """Rows of the pairs shape with two columns of their own, in an order that mixes queries."""
    rng = random.Random(seed)
    texts = [" ".join(rng.sample(WORDS, 3)) for _ in range(queries)]
    rows = [
        {
            "query_id": f"q{query}",
            "query": texts[query],
            "doc_id": f"d{query}-{place}",
            "text": " ".join(rng.choices(WORDS, k=rng.randint(3, 30))),
            "first_stage": rng.random(),
            "place": place,
        }
        for query in range(queries)
        for place in range(per_query)
    ]
    rng.shuffle(rows)
    return rows


def _write_files(folder: Path, rows: list[dict[str, Any]], files: int, group: int) -> Path:
    """Spread the rows over Parquet files with row groups of `group` rows."""
    folder.mkdir(parents=True, exist_ok=True)
    step = -(-len(rows) // files)
    for number in range(files):
        part = rows[number * step : (number + 1) * step]
        pq.write_table(
            pa.Table.from_pylist(part), folder / f"{number}.parquet", row_group_size=group
        )
    return folder


@pytest.fixture(scope="session")
def make_rows() -> Callable[..., list[dict[str, Any]]]:
    return _make_rows


@pytest.fixture(scope="session")
def write_files() -> Callable[..., Path]:
    return _write_files


@pytest.fixture
def pairs_input(tmp_path: Path) -> Path:
    """600 pairs of 30 queries in 3 files, each query in all of them."""
    return _write_files(tmp_path / "in", _make_rows(30, 20), files=3, group=70)


@pytest.fixture(scope="session")
def small_ray(local_ray: None) -> None:
    """The session's own Ray."""
