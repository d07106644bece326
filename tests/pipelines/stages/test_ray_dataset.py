"""The stage in Ray Data pipelines, and the manual's examples of it."""

import re
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

import pipelines
from rerank_core import ScorerConfig

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("few_parts"),
    # Ray Data warns of its own settings.
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray"),
]
LEXICAL = ScorerConfig(model="lexical")
PAGE = Path(__file__).parents[3] / "docs" / "pipelines.md"


@pytest.fixture
def few_parts(local_ray, monkeypatch):
    """A shuffle as small as these tests' data."""
    from ray.data import DataContext

    context = DataContext.get_current()
    monkeypatch.setattr(context, "default_hash_shuffle_parallelism", 2)
    monkeypatch.setattr(context, "enable_progress_bars", False)


def first_stage_until(seen: Path):
    """Return a first stage whose last row comes only when the first has left the pipeline."""

    def first_stage(row):
        if row["id"] == 7:
            started = time.monotonic()
            while not seen.exists():
                assert time.monotonic() - started < 120, "no row came out before the last went in"
                time.sleep(0.1)
        texts = ["river", "stone river", "lamp"]
        candidates = [{"doc_id": f"{row['id']}-{t}", "text": t} for t in texts]
        return {"query_id": row["id"], "query": "river stone", "candidates": candidates}

    return first_stage


def test_nested_rows_stream_through_three_stages(tmp_path):
    import ray

    seen = tmp_path / "seen"
    stream = ray.data.range(8, override_num_blocks=8).map(first_stage_until(seen), num_cpus=0.5)
    stream = pipelines.rerank(stream, LEXICAL, top_k=2, shape="nested", batch_rows=1, replicas=1)
    stream = stream.map(lambda row: row | {"best": row["candidates"][0]["doc_id"]}, num_cpus=0.5)
    rows = []
    for row in stream.iter_rows():
        seen.touch()
        rows.append((row["query_id"], row["best"], row["score_fingerprint"]))
    want = [(n, f"{n}-stone river", LEXICAL.fingerprint()) for n in range(8)]
    assert sorted(rows) == want


def test_pairs_in_any_block_and_grouped_ones_are_ranked_as_in_one_table(make_rows):
    import ray

    # Gathered rows have lost their order, so ties go by document: then it is the same.
    table = pa.Table.from_pylist(sorted(make_rows(6, 10), key=lambda row: row["doc_id"]))
    want = sorted(pipelines.rerank(table, LEXICAL, top_k=4).to_pylist(), key=str)
    blocks = [table.slice(start, 20) for start in (0, 20, 40)]
    mixed = pipelines.rerank(ray.data.from_arrow(blocks), LEXICAL, top_k=4, replicas=1)
    assert sorted(mixed.take_all(), key=str) == want
    tables = by_query(table)
    blocks = [pa.concat_tables(tables[:3]), pa.concat_tables(tables[3:])]
    options = {"top_k": 4, "grouped": True, "replicas": 1}
    grouped = pipelines.rerank(ray.data.from_arrow(blocks), LEXICAL, **options)
    assert sorted(grouped.take_all(), key=str) == want


def by_query(table):
    ids = table["query_id"].unique().to_pylist()
    return [table.filter(pc.equal(table["query_id"], key)) for key in ids]


def test_the_manuals_examples_do_what_they_show(tmp_path, make_rows):
    (tmp_path / "pairs").mkdir()
    pairs = [*make_rows(3, 5), make_rows(3, 6)[0] | {"text": None}]
    pq.write_table(pa.Table.from_pylist(pairs), tmp_path / "pairs" / "0.parquet")
    # Workers have a folder of their own, so paths are whole ones.
    page = re.sub(r'parquet\("', f'parquet("{tmp_path}/', PAGE.read_text())
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert [block.split()[0] for block in blocks] == [
        "reranked", "import", "for", "from", "import"
    ]  # fmt: skip
    shown = []
    exec("\n".join(blocks[1:]), {"print": lambda *words: shown.append(" ".join(map(str, words)))})
    assert sorted(shown) == ["1 ['a', 'c']", "2 ['d']", "['a']"]
    ranks = pq.read_table(tmp_path / "ranked").select(["query_id", "rank"]).to_pylist()
    assert sorted((row["query_id"], row["rank"]) for row in ranks) == [
        (f"q{query}", rank) for query in range(3) for rank in (1, 2, 3)
    ]
