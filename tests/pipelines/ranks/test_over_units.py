from pathlib import Path

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.ranks.sidecars import apply_ranks, merge_bucket, read_ranks, sidecar
from pipelines.ranks.within_unit import ranks_within

entries = st.lists(st.tuples(st.integers(0, 5), st.sampled_from([0.0, 0.5, 1.0, -2.0])))


def by_hand(groups, raw):
    ranks = [0] * len(raw)
    for group in set(groups):
        members = [i for i, g in enumerate(groups) if g == group]
        for rank, i in enumerate(sorted(members, key=lambda i: -raw[i]), start=1):
            ranks[i] = rank
    return ranks


@settings(deadline=None)
@given(entries)
def test_ranks_are_descending_within_each_group_and_ties_keep_their_order(rows):
    groups = np.array([g for g, _ in rows], dtype=np.int64)
    raw = np.array([r for _, r in rows], dtype=np.float32)
    assert ranks_within(groups, raw).tolist() == by_hand(groups.tolist(), raw.tolist())


@settings(deadline=None)
@given(
    units=st.lists(entries, min_size=1, max_size=5),
    buckets=st.integers(1, 3),
    top_k=st.none() | st.integers(1, 4),
)
def test_merging_units_equals_ranking_everything_at_once(tmp_path_factory, units, buckets, top_k):
    folder = tmp_path_factory.mktemp("merge")
    paths, tables = [], []
    for number, rows in enumerate(units):
        groups = np.array([g for g, _ in rows], dtype=np.int64)
        raw = np.array([r for _, r in rows], dtype=np.float32)
        ranks = ranks_within(groups, raw)
        kept = np.flatnonzero(ranks <= top_k) if top_k else np.arange(len(ranks))
        body = sidecar(groups[kept], [f"q{g}" for g in range(6)], raw[kept], buckets)
        paths.append(folder / f"{number}.arrow")
        paths[-1].write_bytes(body)
        row = pa.array(kept, pa.int64())
        tables.append(pa.table({"row": row, "rank": pa.array(ranks[kept], pa.int32())}))
    updates: dict[int, list] = {number: [] for number in range(len(units))}
    for bucket in range(buckets):
        body, touched = merge_bucket(paths, bucket, top_k)
        if body is None:
            assert touched == []
            continue
        merged = folder / f"ranks{bucket}"
        merged.write_bytes(body)
        for unit in touched:
            updates[unit].append(read_ranks(merged, unit))
    together = [
        (unit, row, rank)
        for unit, table in enumerate(tables)
        for row, rank in zip(
            *apply_ranks(table, "rank", updates[unit]).to_pydict().values(), strict=True
        )
    ]
    flat = [(unit, row, g, r) for unit, rows in enumerate(units) for row, (g, r) in enumerate(rows)]
    ranks = by_hand([g for _, _, g, _ in flat], [r for _, _, _, r in flat])
    expected = [
        (unit, row, rank)
        for (unit, row, _, _), rank in zip(flat, ranks, strict=True)
        if not top_k or rank <= top_k
    ]
    assert together == expected


def test_a_unit_without_shared_queries_has_no_new_ranks(tmp_path: Path):
    one = np.zeros(1, dtype=np.int64)
    paths = []
    for name in ("a", "b", "a"):
        paths.append(tmp_path / f"{len(paths)}")
        paths[-1].write_bytes(sidecar(one, [name], np.ones(1, dtype=np.float32), 1))
    body, touched = merge_bucket(paths, 0, None)
    assert touched == [0, 2]
    assert body is not None
    (tmp_path / "ranks").write_bytes(body)
    assert [part.tolist() for part in read_ranks(tmp_path / "ranks", 1)] == [[], []]
    assert [part.tolist() for part in read_ranks(tmp_path / "ranks", 2)] == [[0], [2]]
