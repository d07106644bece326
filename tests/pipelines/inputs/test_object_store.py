"""Input from an object store, through pyarrow's own S3 client against moto's server."""

from __future__ import annotations

import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake
from pyiceberg.catalog.sql import SqlCatalog

sys.path.insert(0, str(Path(__file__).parents[1]))
from protocol import job, rows_of

from pipelines.commits.store import open_store
from pipelines.commits.verify import verify
from pipelines.config import RerankJobConfig
from pipelines.inputs.footers import read_footers
from pipelines.inputs.listing import list_inputs
from pipelines.rerank_job import main
from rerank_core import InvalidRequest

pytestmark = pytest.mark.seconds

HTTP = {"allow_http": "true"}


@pytest.fixture
def options(s3_server, pairs_input):
    """The pairs input in a bucket; returns what an address needs behind it."""
    for path in pairs_input.iterdir():
        open_store("s3://bucket/in").replace(f"lang=en/{path.name}", path.read_bytes())
    endpoint = s3_server.endpoint.removeprefix("http://")
    return f"?scheme=http&region=us-east-1&endpoint_override={endpoint}"


@pytest.mark.parametrize("path", ["in", "in/", "in/lang=*/*.parquet", "in/**"])
def test_a_bucket_is_listed_by_folder_and_glob(options, path):
    found = [file.path for file in list_inputs((f"s3://bucket/{path}{options}",)).files]
    assert found == [f"s3://bucket/in/lang=en/{n}.parquet{options}" for n in range(3)]


def test_keys_of_any_letters_are_read(pairs_input, options, s3_server):
    names = ["a b", "a%20b", "a#b", "a?b", "a[1]", "ü"]
    body = (pairs_input / "0.parquet").read_bytes()
    for name in names:
        s3_server.client().put_object(Bucket="bucket", Key=f"odd/{name}/0.parquet", Body=body)
    files, *_ = read_footers(
        list_inputs((f"s3://bucket/odd{options}",)).files, RerankJobConfig(input=("x",), output="y")
    )
    assert [file.bad for file in files] == [""] * len(names)


def test_a_plan_reads_each_file_of_a_bucket_once(options, s3_server):
    listed, reads = list_inputs((f"s3://bucket/in{options}",)).files, []
    s3_server.fault = lambda method, key: (reads.append(key) if method == "GET" else None) or ""
    read_footers(listed, RerankJobConfig(input=("x",), output="y"))
    s3_server.fault = lambda method, key: ""
    assert sorted(reads) == [f"in/lang=en/{n}.parquet" for n in range(3)]


def test_an_address_that_is_none_is_said_in_a_line(capsys, options):
    given = ["--input", f"s3://bucket/a b{options}", "--output", "out", "--model", "lexical"]
    assert main([*given, "--dry-run"]) == 2
    assert "spaces and signs of a path are written as in %20" in capsys.readouterr().err


def test_a_delta_table_in_a_bucket_is_read_as_its_snapshot(tmp_path, pairs_input, options):
    table = pq.read_table(pairs_input).append_column("lang", pa.array(["a b"] * 600))
    place = "s3://bucket/lake/table"
    write_deltalake(place, table, partition_by=["lang"], storage_options=HTTP)
    DeltaTable(place, storage_options=HTTP).delete("place = 3")
    manifest = job(f"s3://bucket/lake/table{options}", tmp_path / "out")
    assert manifest["counts"]["rows_out"] == 570
    assert {row["lang"] for row in rows_of(tmp_path / "out")} == {"a b"}


def test_files_taken_out_of_a_delta_table_in_a_bucket_are_refused(pairs_input, options):
    write_deltalake("s3://bucket/parts/t", pq.read_table(pairs_input), storage_options=HTTP)
    for given in ("parts/t/*.parquet", "parts", "parts/*"):
        with pytest.raises(
            InvalidRequest, match="s3://bucket/parts/t is a Delta table: read as plain"
        ):
            list_inputs((f"s3://bucket/{given}{options}",))


def test_an_iceberg_table_in_a_bucket_is_read_as_its_snapshot(
    tmp_path, pairs_input, options, s3_server
):
    table = pq.read_table(pairs_input)
    places = {"warehouse": "s3://bucket/warehouse", "s3.endpoint": s3_server.endpoint}
    catalogue = SqlCatalog("c", uri="sqlite:///:memory:", **places)
    catalogue.create_namespace("n")
    made = catalogue.create_table("n.t", table.schema)
    made.append(table)
    made.delete("place = 3")
    catalogue.engine.dispose()
    manifest = job(f"{made.metadata_location}{options}", tmp_path / "out")
    assert manifest["counts"]["rows_out"] == 570
    (item,) = manifest["inputs"]
    assert item["namespace"] == "s3://bucket"
    assert item["snapshot"] == f"Iceberg snapshot {made.current_snapshot().snapshot_id}"


def test_a_job_reads_a_bucket(tmp_path, pairs_input, options):
    source, out = f"s3://bucket/in{options}", tmp_path / "out"
    manifest = job(source, out)
    job(pairs_input, tmp_path / "local")
    assert rows_of(out) == [{**r, "lang": "en"} for r in rows_of(tmp_path / "local")]
    assert manifest["inputs"][0]["namespace"] == "s3://bucket"
    assert manifest["inputs"][0]["name"] == "in/lang=en/0.parquet"
    assert verify(out)["rows_in"] == 600
