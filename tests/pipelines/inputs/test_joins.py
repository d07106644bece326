"""Run form: ids in, texts from two tables, the same scores and ranks as with texts inside."""

import json
import sys
import uuid
from datetime import date
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake

sys.path.insert(0, str(Path(__file__).parents[1]))
from protocol import LEXICAL, InProcess, forget_owner, job, rows_of

from pipelines.commits.store import open_store
from pipelines.config import RerankJobConfig
from pipelines.identity import identity_of
from pipelines.inputs.joins import load_texts
from pipelines.inputs.reading import FileChanged
from pipelines.plan import make_plan
from rerank_core import InvalidRequest


@pytest.fixture
def tables(tmp_path, pairs_input):
    """The pairs input as ids, a TREC run, and tables of queries and documents."""
    pairs = pq.read_table(pairs_input)
    rows = pairs.to_pylist()
    queries = {row["query_id"]: row["query"] for row in rows}
    pq.write_table(
        pa.table({"query_id": list(queries), "query": list(queries.values())}),
        tmp_path / "queries.parquet",
    )
    (tmp_path / "docs").mkdir()
    for half in (0, 1):
        pq.write_table(pairs.select(["doc_id", "text"])[half * 300 : half * 300 + 300],
                       tmp_path / "docs" / f"{half}.parquet")  # fmt: skip
    pq.write_table(pairs.select(["query_id", "doc_id", "place"]), tmp_path / "ids.parquet")
    lines = [f"{row['query_id']} Q0 {row['doc_id']} {n} {-n} bm25" for n, row in enumerate(rows)]
    (tmp_path / "first.run").write_text("\n".join(lines) + "\n")
    return {
        "queries": str(tmp_path / "queries.parquet"),
        "documents": str(tmp_path / "docs"),
    }


def ranking(out):
    return [(r["query_id"], r["doc_id"], r["score"], r["rank"]) for r in rows_of(out)]


@pytest.mark.parametrize("name", ["ids.parquet", "first.run"])
def test_ids_give_the_ranking_that_their_texts_give(tmp_path, pairs_input, tables, name):
    job(pairs_input, tmp_path / "whole", top_k=4)
    job(tmp_path / name, tmp_path / "out", top_k=4, **tables)
    assert ranking(tmp_path / "out") == ranking(tmp_path / "whole")
    names = set(pq.read_table(tmp_path / "out").column_names)
    assert {"query_id", "doc_id", "score", "rank"} < names
    assert not {"query", "text"} & names


def test_an_unknown_id_is_set_aside(tmp_path, tables):
    ids = pa.table({"query_id": ["q0", "q0", "nobody"], "doc_id": ["d0-1", "nothing", "d0-1"]})
    pq.write_table(ids, tmp_path / "few.parquet")
    job(tmp_path / "few.parquet", tmp_path / "out", **tables)
    aside = pq.read_table(tmp_path / "out" / "_quarantine").to_pylist()
    assert [(line["row"], line["reason"]) for line in aside] == [
        (1, "null_text"), (2, "null_query")
    ]  # fmt: skip
    assert len(rows_of(tmp_path / "out")) == 1


def test_half_of_the_tables_is_refused(tmp_path, tables):
    with pytest.raises(InvalidRequest, match="both --queries and --documents"):
        job(tmp_path / "ids.parquet", tmp_path / "out", queries=tables["queries"])


def test_an_id_with_two_texts_is_refused(tmp_path, tables):
    table = pq.read_table(tables["queries"])
    pq.write_table(pa.concat_tables([table, table]), tables["queries"])
    with pytest.raises(InvalidRequest, match="there twice"):
        job(tmp_path / "ids.parquet", tmp_path / "out", **tables)


def test_a_text_without_an_id_is_nobodys(tmp_path):
    ids = pa.table({"doc_id": ["a", None, None], "text": ["x", "y", "z"]})
    pq.write_table(ids, tmp_path / "docs.parquet")
    queries = pa.table({"query_id": ["q"], "query": ["x"]})
    pq.write_table(queries, tmp_path / "queries.parquet")
    pq.write_table(
        pa.table({"query_id": ["q", "q"], "doc_id": ["a", None]}), tmp_path / "ids.parquet"
    )
    tables = {name: str(tmp_path / f"{name}.parquet") for name in ("queries",)}
    tables["documents"] = str(tmp_path / "docs.parquet")
    job(tmp_path / "ids.parquet", tmp_path / "out", **tables)
    aside = pq.read_table(tmp_path / "out" / "_quarantine").to_pylist()
    assert [(line["row"], line["reason"]) for line in aside] == [(1, "null_text")]


def test_texts_of_more_than_2_gib_can_be_taken_from(tmp_path, tables):
    config = RerankJobConfig(input=("x",), output=str(tmp_path / "out"), **tables)
    texts = load_texts(config)
    assert texts is not None
    assert texts.documents["text"].type == texts.queries["text"].type == pa.large_string()


@pytest.mark.parametrize("line", ["q0 Q0 d0-1 one 1.0 t", "q0 Q0 d0-1 1 high t", "q0 Q0 d0-1 1"])
def test_a_trec_run_that_cannot_be_read_is_refused_with_its_line(tmp_path, tables, line):
    (tmp_path / "bad.run").write_text(f"q0 Q0 d0-1 1 1.0 t\n{line}\n")
    with pytest.raises(InvalidRequest, match=r"bad\.run:2"):
        job(tmp_path / "bad.run", tmp_path / "out", **tables)


@pytest.mark.parametrize(
    ("documents", "message"),
    [
        ({"doc_id": ["a"], "body": ["x"]}, "docs.*unreadable: .*text"),
        ({"doc_id": ["a"], "text": [["x"]]}, "column text must be text"),
    ],
)
def test_a_table_without_texts_is_refused(tmp_path, tables, documents, message):
    pq.write_table(pa.table(documents), tmp_path / "docs.parquet")
    tables["documents"] = str(tmp_path / "docs.parquet")
    with pytest.raises(InvalidRequest, match=message):
        job(tmp_path / "ids.parquet", tmp_path / "out", **tables)


IDS = [uuid.UUID(int=7), uuid.UUID(int=8)]


@pytest.mark.parametrize(
    ("given", "known"),
    [
        (pa.array([u.bytes for u in IDS], pa.uuid()), pa.array([u.bytes for u in IDS], pa.uuid())),
        (pa.array([u.bytes for u in IDS], pa.binary(16)), pa.array([str(u) for u in IDS])),
        (pa.array([7, 8], pa.int32()), pa.array([7, 8], pa.int64())),
        (pa.array([7, 8]), pa.array(["7", "8"])),
        (pa.array(["a", "b"]).dictionary_encode(), pa.array(["a", "b"], pa.string_view())),
        (pa.array([date(2026, 1, 2), date(2026, 1, 3)]), pa.array(["2026-01-02", "2026-01-03"])),
    ],
)
def test_ids_of_any_type_find_their_texts(tmp_path, given, known):
    pq.write_table(pa.table({"query_id": ["q"], "query": ["lamp"]}), tmp_path / "q.parquet")
    pq.write_table(pa.table({"doc_id": known, "text": ["lamp", "music"]}), tmp_path / "d.parquet")
    pq.write_table(pa.table({"query_id": ["q", "q"], "doc_id": given}), tmp_path / "ids.parquet")
    tables = {"queries": str(tmp_path / "q.parquet"), "documents": str(tmp_path / "d.parquet")}
    job(tmp_path / "ids.parquet", tmp_path / "out", **tables)
    out = pq.read_table(tmp_path / "out")
    first = out["doc_id"].to_pylist()[out["rank"].to_pylist().index(1)]
    assert first == given[0].as_py()


@pytest.mark.parametrize("kind", ["jsonl", "csv", "arrow"])
def test_texts_of_other_kinds_are_looked_up(tmp_path, pairs_input, tables, kind):
    docs = pq.read_table(tables["documents"])
    path = tmp_path / f"docs.{kind}"
    if kind == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in docs.to_pylist()))
    elif kind == "csv":
        pa.csv.write_csv(docs, path)
    else:
        with pa.ipc.new_file(str(path), docs.schema) as writer:
            writer.write_table(docs)
    job(pairs_input, tmp_path / "whole")
    job(tmp_path / "ids.parquet", tmp_path / "out", **tables | {"documents": str(path)})
    assert ranking(tmp_path / "out") == ranking(tmp_path / "whole")


def test_texts_that_were_deleted_from_a_delta_table_are_not_found(tmp_path, tables):
    write_deltalake(str(tmp_path / "delta"), pq.read_table(tables["documents"]))
    DeltaTable(str(tmp_path / "delta")).delete("doc_id = 'd0-1'")
    tables["documents"] = str(tmp_path / "delta")
    manifest = job(tmp_path / "ids.parquet", tmp_path / "out", **tables)
    assert manifest["counts"]["rows_quarantined"] == 1


def test_files_of_the_tables_that_are_left_out_are_counted_too(tmp_path, tables):
    for name in ("notes.txt", "_SUCCESS"):
        (tmp_path / "docs" / name).write_text("")
    found = job(tmp_path / "ids.parquet", tmp_path / "out", **tables)["left_out"]["files"]
    assert {(item["first"], item["count"]) for item in found} == {
        (str(tmp_path / "docs" / name), 1) for name in ("notes.txt", "_SUCCESS")
    }


def test_tables_of_texts_that_differ_in_types_are_one(tmp_path, tables):
    docs = pq.read_table(tables["documents"])
    view = docs.set_column(1, "text", docs["text"].cast(pa.string_view()))
    pq.write_table(view.slice(0, 300), tmp_path / "docs" / "0.parquet")
    coded = docs.set_column(0, "doc_id", docs["doc_id"].dictionary_encode())
    pq.write_table(coded.slice(300), tmp_path / "docs" / "1.parquet")
    assert job(tmp_path / "ids.parquet", tmp_path / "out", **tables)["counts"]["rows_out"] == 600


def test_parquet_without_a_suffix_is_no_trec_run(tmp_path, tables):
    (tmp_path / "ids.parquet").rename(tmp_path / "ids")
    assert job(tmp_path / "ids", tmp_path / "out", **tables)["counts"]["rows_out"] == 600


def test_a_trec_run_that_is_not_utf8_is_said_in_a_line(tmp_path, tables):
    (tmp_path / "bad.run").write_bytes(b"q0 Q0 d\xff-1 1 1.0 t\n")
    with pytest.raises(InvalidRequest, match=r"bad\.run is not UTF-8"):
        job(tmp_path / "bad.run", tmp_path / "out", **tables)


def test_tables_of_texts_that_cannot_be_read_are_said_before_ray(tmp_path, tables):
    (tmp_path / "docs" / "0.parquet").write_bytes(b"no")
    engine = Unused()
    with pytest.raises(InvalidRequest, match="docs/0"):
        job(tmp_path / "ids.parquet", tmp_path / "out", engine=engine, **tables, unit_pairs=None)
    assert not (tmp_path / "out" / "_job" / "plan.json").exists()


class Unused:
    """An engine that must not be asked for anything."""

    def __getattr__(self, name):
        raise AssertionError(name)


def test_few_and_no_texts_are_found_by_the_search(tmp_path, tables):
    empty = pq.read_table(tables["documents"]).slice(0, 0)
    for path in (tmp_path / "docs").iterdir():
        path.unlink()
    pq.write_table(empty, tmp_path / "docs" / "0.parquet")
    counts = job(tmp_path / "ids.parquet", tmp_path / "out", **tables)["counts"]
    assert (counts["rows_out"], counts["rows_quarantined"]) == (0, 600)


class Stop(Exception):
    """Ends a job in the middle."""


class OneUnit(InProcess):
    """Scores one unit and stops."""

    def score_units(self, *arguments):
        yield next(super().score_units(*arguments))
        raise Stop


def test_documents_rewritten_with_an_equal_size_are_not_gone_on_with(tmp_path, tables):
    """Path and size are all that a job's identity knows of them."""
    path = tmp_path / "docs" / "0.parquet"
    table = pq.read_table(path)
    texts = table["text"].to_pylist()
    pq.write_table(table, path, compression="none", use_dictionary=False)
    with pytest.raises(Stop):
        job(tmp_path / "ids.parquet", tmp_path / "out", engine=OneUnit(), **tables)
    forget_owner(tmp_path / "out")
    size = path.stat().st_size
    changed = table.set_column(1, "text", pa.array([texts[0], *texts[2:], texts[1]]))
    pq.write_table(changed, path, compression="none", use_dictionary=False)
    assert path.stat().st_size == size
    with pytest.raises(FileChanged, match="--queries or --documents have changed"):
        job(tmp_path / "ids.parquet", tmp_path / "out", **tables)
    pq.write_table(table, path, compression="none", use_dictionary=False)
    assert job(tmp_path / "ids.parquet", tmp_path / "out", **tables)["counts"]["rows_out"] == 600


def test_a_job_lists_each_table_of_texts_once(tmp_path, tables, listed):
    job(tmp_path / "ids.parquet", tmp_path / "out", **tables)
    assert listed == [str(tmp_path / "ids.parquet"), tables["queries"], tables["documents"]]


def test_a_plan_says_how_far_it_is(tmp_path, pairs_input):
    said = []
    config = RerankJobConfig(input=(str(pairs_input),), output="out", scorer=LEXICAL)
    scratch = open_store(tmp_path)
    make_plan(
        config, identity_of(config), scratch, lambda: 0.0, say=lambda *step: said.append(step)
    )
    assert said == [("footers", n, 3) for n in (1, 2, 3)]
