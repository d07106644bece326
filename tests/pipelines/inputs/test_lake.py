"""Tables of a lake are read as their current snapshot or refused: deleted rows never come back."""

from __future__ import annotations

import datetime
import io
import json
import struct
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.io.pyarrow import parquet_files_to_data_files
from pyiceberg.manifest import (
    DataFile,
    DataFileContent,
    FileFormat,
    ManifestContent,
    ManifestWriterV2,
)
from pyiceberg.typedef import Record
from pyiceberg.types import LongType
from pyiceberg.utils.config import Config
from pyroaring import BitMap

sys.path.insert(0, str(Path(__file__).parents[1]))
from protocol import LEXICAL, InProcess, forget_owner, job, rows_of

from pipelines.config import RerankJobConfig
from pipelines.rerank_job import main, run_job
from rerank_core import InvalidRequest

DAY = datetime.date(2026, 1, 2)
Z85 = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#"


def rows(*documents, lang="en"):
    count = len(documents)
    return pa.table(
        {
            "query_id": ["q"] * count, "query": ["lamp"] * count, "doc_id": list(documents),
            "text": [f"lamp {name}" for name in documents], "lang": [lang] * count,
            "day": pa.array([DAY] * count),
        }
    )  # fmt: skip


def documents(out):
    return [row["doc_id"] for row in rows_of(out)]


def dry_run(tmp_path, given, code=0, *options):
    """Run the command line on an input; return what it must say for this exit code."""
    common = ["--input", str(given), "--output", str(tmp_path / "out"), "--model", "lexical"]
    assert main([*common, "--dry-run", *options]) == code


@pytest.fixture
def delta(tmp_path):
    """A table of three files, from which a row was deleted after it was written."""
    path = str(tmp_path / "lake" / "table")
    write_deltalake(path, rows("a", "b"), partition_by=["lang", "day"])
    write_deltalake(path, rows("c", "12", lang="12"), mode="append")
    DeltaTable(path).delete("doc_id = 'a'")
    return Path(path)


def test_rows_that_were_deleted_from_a_delta_table_do_not_come_back(tmp_path, delta):
    assert len(list(delta.rglob("*.parquet"))) > 2
    manifest = job(delta, tmp_path / "out")
    found = [(r["doc_id"], r["lang"], r["day"]) for r in rows_of(tmp_path / "out")]
    assert found == [("12", "12", DAY), ("b", "en", DAY), ("c", "12", DAY)]
    assert {item["snapshot"] for item in manifest["inputs"]} == {"Delta version 2"}
    (old,) = manifest["left_out"]["files"]
    assert (old["reason"], old["count"]) == ("not of the table's snapshot", 1)


def test_a_dry_run_says_the_version_of_a_table(tmp_path, delta, capsys):
    dry_run(tmp_path, delta)
    said = capsys.readouterr().out
    assert f"table: {delta} at version 2" in said
    assert "left out: 1 file not of the table's snapshot (" in said


@pytest.mark.parametrize(
    "given",
    ["lake", "lake/table/**/*.parquet", "lake/tab*", "lake/table/lang=en", "lake/table/*/*/*"],
)
def test_files_taken_out_of_a_delta_table_are_refused(tmp_path, delta, capsys, given):
    dry_run(tmp_path, tmp_path / given, 2)
    error = capsys.readouterr().err
    assert f"{delta} is a Delta table: read as plain files, rows that were deleted" in error
    assert "give the table itself as an input" in error


def test_files_beside_a_table_are_no_part_of_it(tmp_path, delta):
    beside = delta.parent / "a.parquet"
    pq.write_table(rows("x").drop_columns(["lang", "day"]), beside)
    job(delta.parent / "*.parquet", tmp_path / "out")
    assert documents(tmp_path / "out") == ["x"]


def test_one_file_of_a_delta_table_is_refused(tmp_path, delta, capsys):
    dry_run(tmp_path, next(delta.rglob("*.parquet")), 2)
    assert f"{delta} is a Delta table" in capsys.readouterr().err


class Stop(Exception):
    """Ends a job in the middle."""


class OneUnit(InProcess):
    """Scores one unit and stops."""

    def score_units(self, *arguments):
        yield next(super().score_units(*arguments))
        raise Stop


def stopped_job(folder, out):
    """Begin a job and end it after its first unit."""
    with pytest.raises(Stop):
        job(folder, out, engine=OneUnit(), unit_pairs=1)
    forget_owner(out)


def test_a_job_goes_on_with_the_version_of_a_delta_table_that_it_began_with(tmp_path, delta):
    stopped_job(delta, tmp_path / "out")
    write_deltalake(str(delta), rows("later"), mode="append")
    manifest = job(delta, tmp_path / "out", unit_pairs=1)
    assert documents(tmp_path / "out") == ["12", "b", "c"]
    assert {item["snapshot"] for item in manifest["inputs"]} == {"Delta version 2"}
    # The same command says that it is complete; to replace the result takes the newest version.
    assert job(delta, tmp_path / "out", unit_pairs=1) == manifest
    said = io.StringIO()
    config = RerankJobConfig(
        input=(str(delta),), output=str(tmp_path / "out"), unit_pairs=1, scorer=LEXICAL
    )
    assert run_job(config, out=said) == manifest
    assert f"of {delta} at version 2; --overwrite takes the newest" in said.getvalue()
    job(delta, tmp_path / "out", unit_pairs=1, overwrite=True)
    assert documents(tmp_path / "out") == ["12", "b", "c", "later"]


def test_a_job_whose_version_is_gone_says_so(tmp_path, delta):
    stopped_job(delta, tmp_path / "out")
    for path in (delta / "_delta_log").glob("*2.json"):
        path.unlink()
    with pytest.raises(
        InvalidRequest, match=r"opened: .*; the job here began with version 2: take"
    ):
        job(delta, tmp_path / "out", unit_pairs=1)
    job(delta, tmp_path / "out", unit_pairs=1, overwrite=True)
    assert documents(tmp_path / "out") == ["12", "a", "b", "c"]


def test_a_column_that_a_delta_table_got_later_is_null_in_its_older_files(tmp_path, delta):
    new = rows("d").append_column("n", pa.array([5]))
    write_deltalake(str(delta), new, mode="append", schema_mode="merge")
    job(delta, tmp_path / "out")
    assert [(r["doc_id"], r["n"]) for r in rows_of(tmp_path / "out")] == [
        ("12", None), ("b", None), ("c", None), ("d", 5)
    ]  # fmt: skip


def change_log(delta, features, **changes):
    """Rewrite the first entry of a table's log, as a writer does that knows these features."""
    log = sorted((delta / "_delta_log").glob("*.json"))[0]
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    for line in lines:
        if "protocol" in line:
            line["protocol"] = {
                "minReaderVersion": 3, "minWriterVersion": 7,
                "readerFeatures": features, "writerFeatures": features,
            }  # fmt: skip
        for name, change in changes.items():
            if name in line:
                line[name] |= change
    log.write_text("\n".join(map(json.dumps, lines)))


def inline_vector(deleted):
    """A deletion vector as the Delta protocol writes it into the log."""
    body = struct.pack("<iqi", 1681511377, 1, 0) + BitMap(deleted).serialize()
    padded = body + bytes(-len(body) % 4)
    words = [int.from_bytes(padded[n : n + 4], "big") for n in range(0, len(padded), 4)]
    text = "".join(Z85[word // 85**k % 85] for word in words for k in (4, 3, 2, 1, 0))
    return {
        "storageType": "i", "pathOrInlineDv": text, "sizeInBytes": len(body),
        "cardinality": len(deleted),
    }  # fmt: skip


def test_rows_that_a_deletion_vector_takes_from_a_delta_table_do_not_come_back(tmp_path, place):
    write_deltalake(str(tmp_path / "in"), rows("a", "b", "c", "d", "e"))
    change_log(tmp_path / "in", ["deletionVectors"], add={"deletionVector": inline_vector([1, 3])})
    manifest = job(tmp_path / "in", place.out("out"))
    assert documents(place.out("out")) == ["a", "c", "e"]
    (item,) = manifest["inputs"]
    assert item["path"] == str(next((tmp_path / "in").glob("*.parquet")))


def test_a_deletion_vector_reaches_its_file_through_a_link_and_in_odd_folders(tmp_path):
    place = tmp_path / "odd é #" / "in"
    place.parent.mkdir()
    write_deltalake(str(place), rows("a", "b", lang="x/y z"), partition_by=["lang"])
    change_log(place, ["deletionVectors"], add={"deletionVector": inline_vector([0])})
    (tmp_path / "link").symlink_to(place.parent)
    for given in (place, tmp_path / "link" / "in"):
        out = tmp_path / f"out-{given.parent.name == 'link'}"
        job(given, out)
        assert [(r["doc_id"], r["lang"]) for r in rows_of(out)] == [("b", "x/y z")]


def test_a_delta_table_that_only_may_have_deletion_vectors_is_read(tmp_path, delta):
    change_log(delta, ["deletionVectors"])
    job(delta, tmp_path / "out")
    assert documents(tmp_path / "out") == ["12", "b", "c"]


def test_times_that_spark_wrote_into_a_delta_table_are_in_its_zone(tmp_path):
    """INT96 has no zone; files of other writers say that they are in UTC."""
    at = datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC)
    table = rows("a").append_column("at", pa.array([at]))
    write_deltalake(str(tmp_path / "in"), table)
    (file,) = (tmp_path / "in").glob("*.parquet")
    pq.write_table(table, file, use_deprecated_int96_timestamps=True, store_schema=False)
    change_log(tmp_path / "in", [], add={"size": file.stat().st_size})
    other = rows("b").append_column("at", pa.array([at]))
    write_deltalake(str(tmp_path / "in"), other, mode="append")
    job(tmp_path / "in", tmp_path / "out")
    assert [row["at"] for row in rows_of(tmp_path / "out")] == [at, at]


def mapped_delta(folder, table, names, **inner):
    """A table whose files have other names for its columns, as Databricks renames them."""
    kinds = {"day": "date", "candidates": inner.get("kind")}
    fields = [
        {"name": name, "type": kinds.get(name, "string"), "nullable": True,
         "metadata": {"delta.columnMapping.id": n, "delta.columnMapping.physicalName": old}}
        for n, (old, name) in enumerate(names.items(), 1)
    ]  # fmt: skip
    lang = next(old for old, name in names.items() if name == "lang")
    write_deltalake(str(folder), table.rename_columns(list(names)), partition_by=[lang])
    schema = json.dumps({"type": "struct", "fields": fields})
    configuration = {"delta.columnMapping.mode": "name"}
    changed = {"configuration": configuration, "schemaString": schema, "partitionColumns": ["lang"]}
    change_log(folder, ["columnMapping"], metaData=changed)


def test_columns_that_a_delta_table_renamed_have_its_names_for_them(tmp_path):
    old = {f"col-{n}": name for n, name in enumerate(rows("a").column_names)}
    mapped_delta(tmp_path / "in", rows("a", "b"), old)
    job(tmp_path / "in", tmp_path / "out")
    found = [(r["doc_id"], r["lang"], r["day"]) for r in rows_of(tmp_path / "out")]
    assert found == [("a", "en", DAY), ("b", "en", DAY)]
    assert pq.read_table(tmp_path / "out").column_names == [*old.values(), "score", "rank"]


def test_a_renamed_field_inside_candidates_of_a_delta_table_is_refused(tmp_path, capsys):
    nested = pa.table(
        {"q": ["q"], "t": ["lamp"], "l": ["en"], "c": [[{"doc_id": "a", "body": "b"}]]}
    )
    names = {"q": "query_id", "t": "query", "l": "lang", "c": "candidates"}
    fields = [
        {"name": name, "type": "string", "nullable": True,
         "metadata": {"delta.columnMapping.id": n, "delta.columnMapping.physicalName": old}}
        for n, (old, name) in enumerate([("doc_id", "doc_id"), ("body", "text")], 7)
    ]  # fmt: skip
    struct = {"type": "struct", "fields": fields}
    kind = {"type": "array", "elementType": struct, "containsNull": True}
    mapped_delta(tmp_path / "in", nested, names, kind=kind)
    dry_run(tmp_path, tmp_path / "in", 2)
    assert "in column candidates the field text has another name" in capsys.readouterr().err


def test_a_feature_of_delta_that_nobody_here_knows_is_refused_with_the_way_out(
    tmp_path, delta, capsys
):
    change_log(delta, ["typeWidening"])
    dry_run(tmp_path, delta, 2)
    error = capsys.readouterr().err
    assert "typeWidening" in error
    assert len(error.strip().splitlines()) == 1


def test_a_log_that_is_broken_is_said_in_a_line(tmp_path, delta, capsys):
    for path in (delta / "_delta_log").glob("*0.json"):
        path.write_text("not json")
    dry_run(tmp_path, delta, 2)
    error = capsys.readouterr().err
    assert f"{delta}: this Delta table cannot be opened: " in error
    assert len(error.strip().splitlines()) == 1


@pytest.mark.parametrize(("library", "extra"), [("deltalake", "delta"), ("pyiceberg", "iceberg")])
def test_a_missing_extra_is_said_with_the_command_that_installs_it(
    tmp_path, delta, monkeypatch, library, extra
):
    for name in [name for name in sys.modules if name.split(".")[0] == library]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, library, None)
    given = delta if extra == "delta" else tmp_path / "v1.metadata.json"
    with pytest.raises(InvalidRequest, match=rf"pip install 'ray-rerank\[{extra}\]'"):
        job(given, tmp_path / "out")


def test_a_hudi_table_is_refused_with_the_way_out(tmp_path, capsys):
    (tmp_path / "in" / ".hoodie").mkdir(parents=True)
    (tmp_path / "in" / ".hoodie" / "hoodie.properties").write_text("hoodie.table.name=t")
    pq.write_table(rows("a"), tmp_path / "in" / "a.parquet")
    for given in ("in", "in/a.parquet", "i*"):
        dry_run(tmp_path, tmp_path / given, 2)
        error = capsys.readouterr().err
        assert "is a Hudi table: read as plain files, rows that were deleted come back" in error
        assert "export its current rows as Parquet or Delta and give that" in error


@pytest.fixture
def catalogue(tmp_path, monkeypatch):
    """A catalogue that pyiceberg is set up for, as people do it: by environment variables."""
    settings = {"type": "sql", "uri": f"sqlite:///{tmp_path}/catalogue.db"}
    settings["warehouse"] = f"file://{tmp_path}/warehouse"
    for name, value in settings.items():
        monkeypatch.setenv(f"PYICEBERG_CATALOG__PROD__{name.upper()}", value)
    monkeypatch.setattr("pyiceberg.catalog._ENV_CONFIG", Config())  # else as it was when imported
    (tmp_path / "warehouse").mkdir()
    made = SqlCatalog("prod", **settings)
    made.create_namespace("web")
    yield made
    made.engine.dispose()


@pytest.fixture
def iceberg(catalogue):
    """A table of two files, from which a row was deleted after it was written."""
    table = catalogue.create_table("web.hits", rows("a").schema)
    table.append(rows("a", "b"))
    table.append(rows("c"))
    table.delete("doc_id = 'a'")
    return table


def folder_of(table):
    return Path(table.location().removeprefix("file://"))


def metadata_of(table):
    return table.metadata_location.removeprefix("file://")


@pytest.mark.parametrize("given", ["file", "uri", "catalogue", "hint"])
def test_rows_that_were_deleted_from_an_iceberg_table_do_not_come_back(tmp_path, iceberg, given):
    assert len(list(folder_of(iceberg).rglob("*.parquet"))) > 2
    hint = folder_of(iceberg) / "metadata" / "version-hint.text"
    hint.write_text(Path(metadata_of(iceberg)).name)
    addresses = {
        "file": metadata_of(iceberg), "uri": iceberg.metadata_location,
        "catalogue": "iceberg://prod/web.hits", "hint": folder_of(iceberg),
    }  # fmt: skip
    manifest = job(addresses[given], tmp_path / "out")
    assert documents(tmp_path / "out") == ["b", "c"]
    named = f"Iceberg snapshot {iceberg.current_snapshot().snapshot_id}"
    assert {item["snapshot"] for item in manifest["inputs"]} == {named}


def test_a_folder_whose_current_metadata_only_a_catalogue_knows_is_refused(
    tmp_path, iceberg, capsys
):
    dry_run(tmp_path, folder_of(iceberg), 2)
    error = capsys.readouterr().err
    assert "is an Iceberg table, and only its catalogue knows which metadata is current" in error
    assert "give iceberg://CATALOGUE/NAMESPACE.TABLE or the metadata file" in error
    assert metadata_of(iceberg) in error


@pytest.mark.parametrize("given", ["", "data", "data/*.parquet"])
def test_files_taken_out_of_an_iceberg_table_are_refused(tmp_path, iceberg, capsys, given):
    place = folder_of(iceberg) / given if given else folder_of(iceberg).parent
    dry_run(tmp_path, place, 2)
    assert f"{folder_of(iceberg)} is an Iceberg table: read as plain" in capsys.readouterr().err


def test_a_job_goes_on_with_the_snapshot_of_an_iceberg_table_that_it_began_with(tmp_path, iceberg):
    stopped_job("iceberg://prod/web.hits", tmp_path / "out")
    iceberg.append(rows("later"))
    job("iceberg://prod/web.hits", tmp_path / "out", unit_pairs=1)
    assert documents(tmp_path / "out") == ["b", "c"]


def test_a_job_whose_snapshot_is_gone_says_so(tmp_path, iceberg):
    stopped_job("iceberg://prod/web.hits", tmp_path / "out")
    old = iceberg.current_snapshot().snapshot_id
    iceberg.append(rows("later"))
    iceberg.maintenance.expire_snapshots().by_id(old).commit()
    with pytest.raises(InvalidRequest, match=f"snapshot {old} is gone; the job here began with"):
        job("iceberg://prod/web.hits", tmp_path / "out", unit_pairs=1)


def test_columns_that_an_iceberg_table_renamed_added_and_dropped_are_those_of_the_table(
    tmp_path, iceberg
):
    with iceberg.update_schema() as change:
        change.rename_column("lang", "language")
        change.add_column("n", LongType())
        change.delete_column("day")
    with iceberg.update_schema() as change:  # another column of the name: not the old values
        change.add_column("day", LongType())
    new = rows("d").rename_columns(["query_id", "query", "doc_id", "text", "language", "day"])
    new = new.set_column(5, "day", pa.array([3])).append_column("n", pa.array([5]))
    iceberg.append(new)
    job("iceberg://prod/web.hits", tmp_path / "out")
    found = [(r["doc_id"], r["language"], r["day"], r["n"]) for r in rows_of(tmp_path / "out")]
    assert found == [("b", "en", None, None), ("c", "en", None, None), ("d", "en", 3, 5)]
    assert "lang" not in pq.read_table(tmp_path / "out").column_names


def test_a_column_that_no_file_has_yet_is_of_the_tables_type(tmp_path, iceberg):
    with iceberg.update_schema() as change:
        change.add_column("n", LongType())
    job("iceberg://prod/web.hits", tmp_path / "out")
    assert pq.read_table(tmp_path / "out").schema.field("n").type == pa.int64()


def test_a_renamed_field_inside_candidates_of_an_iceberg_table_is_refused(
    tmp_path, catalogue, capsys
):
    nested = pa.table(
        {"query_id": ["q"], "query": ["lamp"], "candidates": [[{"doc_id": "a", "body": "b"}]]}
    )
    table = catalogue.create_table("web.nested", nested.schema)
    table.append(nested)
    with table.update_schema() as change:
        change.rename_column("candidates.element.body", "text")
    dry_run(tmp_path, "iceberg://prod/web.nested", 2)
    assert "in column candidates the field text has another name" in capsys.readouterr().err


def test_a_partition_that_only_an_iceberg_tables_metadata_knows_is_a_column(tmp_path, catalogue):
    table = catalogue.create_table("web.hive", rows("a").schema)
    with table.update_spec() as change:
        change.add_identity("day")
    path = tmp_path / "from-hive.parquet"
    pq.write_table(rows("a").drop_columns(["day"]), path)
    (file,) = parquet_files_to_data_files(table.io, table.metadata, iter([f"file://{path}"]))
    file._data[3] = Record((DAY - datetime.date(1970, 1, 1)).days)
    with table.transaction() as change, change.update_snapshot().fast_append() as append:
        append.append_data_file(file)
    job("iceberg://prod/web.hive", tmp_path / "out")
    assert [(r["doc_id"], r["day"]) for r in rows_of(tmp_path / "out")] == [("a", DAY)]


class DeleteManifest(ManifestWriterV2):
    """Merge on read, as Spark, Flink and Trino write it; pyiceberg itself only reads it."""

    def content(self):
        return ManifestContent.DELETES

    @property
    def _meta(self):
        return super()._meta | {"content": "deletes"}


def delete_on_read(
    table, path, file, *places, content=DataFileContent.POSITION_DELETES, equality_ids=None
):
    """Take rows of a file away as of the next snapshot, by a file of positions."""
    fields = [pa.field("file_path", pa.string(), False), pa.field("pos", pa.int64(), False)]
    schema = pa.schema([
        field.with_metadata({"PARQUET:field_id": str(2147483546 - n)})
        for n, field in enumerate(fields)
    ])  # fmt: skip
    pq.write_table(pa.table([[file] * len(places), list(places)], schema=schema), path)
    with table.transaction() as change, change.update_snapshot().fast_append() as append:
        append.new_manifest_writer = lambda spec: DeleteManifest(
            spec, table.schema(), append.new_manifest_output(), append.snapshot_id, "deflate"
        )
        made = {
            "content": content, "file_path": f"file://{path}", "file_format": FileFormat.PARQUET,
            "partition": Record(), "record_count": len(places),
            "file_size_in_bytes": path.stat().st_size, "equality_ids": equality_ids,
        }  # fmt: skip
        append.append_data_file(DataFile.from_args(**made))


def test_rows_that_a_delete_file_takes_from_an_iceberg_table_do_not_come_back(tmp_path, iceberg):
    iceberg.append(rows("d", "e", "f"))
    (file,) = {task.file.file_path for task in iceberg.scan("doc_id == 'd'").plan_files()}
    delete_on_read(iceberg, tmp_path / "deletes.parquet", file, 0, 2)
    manifest = job("iceberg://prod/web.hits", tmp_path / "out")
    assert documents(tmp_path / "out") == ["b", "c", "e"]
    assert file.removeprefix("file://") in {item["path"] for item in manifest["inputs"]}


def test_files_of_an_iceberg_table_that_are_no_parquet_are_refused_with_the_way_out(
    tmp_path, iceberg, capsys
):
    (file, *_) = [task.file for task in iceberg.scan().plan_files()]
    file._data[2] = FileFormat.ORC
    with iceberg.transaction() as change, change.update_snapshot().fast_append() as append:
        append.append_data_file(file)
    dry_run(tmp_path, "iceberg://prod/web.hits", 2)
    error = capsys.readouterr().err
    assert "iceberg://prod/web.hits has files of ORC; export its current rows" in error


def test_a_partition_column_that_an_iceberg_table_dropped_is_no_column(tmp_path, catalogue):
    table = catalogue.create_table("web.parts", rows("a").schema)
    with table.update_spec() as change:
        change.add_identity("lang")
    table.append(rows("a"))
    with table.update_spec() as change:
        change.remove_field("lang")
    with table.update_schema() as change:
        change.delete_column("lang")
    job("iceberg://prod/web.parts", tmp_path / "out")
    assert [(row["doc_id"], "lang" in row) for row in rows_of(tmp_path / "out")] == [("a", False)]


def test_deletes_by_equality_as_flink_writes_them_are_refused_with_the_way_out(
    tmp_path, iceberg, capsys
):
    (file, *_) = [task.file.file_path for task in iceberg.scan().plan_files()]
    kind = {"content": DataFileContent.EQUALITY_DELETES, "equality_ids": [1]}
    delete_on_read(iceberg, tmp_path / "deletes.parquet", file, 0, **kind)
    dry_run(tmp_path, "iceberg://prod/web.hits", 2)
    error = capsys.readouterr().err
    assert "equality deletes" in error
    assert "export its current rows as Parquet or Delta and give that" in error


def test_a_delete_file_that_is_gone_is_said_in_a_line(tmp_path, iceberg, capsys):
    (file, *_) = [task.file.file_path for task in iceberg.scan().plan_files()]
    delete_on_read(iceberg, tmp_path / "deletes.parquet", file, 0)
    (tmp_path / "deletes.parquet").unlink()
    dry_run(tmp_path, "iceberg://prod/web.hits", 2)
    error = capsys.readouterr().err
    assert "this Iceberg table cannot be opened: " in error
    assert "deletes.parquet" in error
    assert len(error.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("iceberg://nobody/web.hits", "this Iceberg table cannot be opened: URI missing"),
        ("iceberg://prod/web.none", "this Iceberg table cannot be opened: Table does not exist"),
        ("none.metadata.json", "this Iceberg table cannot be opened: "),
    ],
)
def test_an_iceberg_table_that_is_not_there_is_said_in_a_line(
    tmp_path, iceberg, capsys, given, said
):
    dry_run(tmp_path, given, 2)
    error = capsys.readouterr().err
    assert said in error
    assert len(error.strip().splitlines()) == 1


def test_an_empty_table_says_that_it_is_empty(tmp_path, catalogue, capsys):
    catalogue.create_table("web.empty", rows("a").schema)
    dry_run(tmp_path, "iceberg://prod/web.empty", 2)
    assert "has no rows" in capsys.readouterr().err


@pytest.mark.parametrize("by_file", [False, True])
def test_an_output_of_an_iceberg_table_grows_with_its_snapshots(tmp_path, catalogue, by_file):
    table = catalogue.create_table("web.hits", rows("a").schema)
    table.append(rows("a", "b"))
    out = tmp_path / "out"

    def grow():
        given = metadata_of(table) if by_file else "iceberg://prod/web.hits"
        return job(given, out, append=True)

    grow()
    table.append(rows("c"))
    assert grow()["appended"]["rows"] == 1
    assert documents(out) == ["a", "b", "c"]
    file = table.inspect.files()["file_path"][0].as_py()
    delete_on_read(table, tmp_path / "deletes.parquet", file, 0)
    with pytest.raises(InvalidRequest, match="changed since the output was finished"):
        grow()
