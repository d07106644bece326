"""Input from an object store, through pyarrow's own S3 client against a small server of ours."""

from __future__ import annotations

import shutil
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar
from urllib.parse import parse_qs, unquote, urlsplit

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.io.pyarrow import PyArrowFileIO

sys.path.insert(0, str(Path(__file__).parents[1]))
from protocol import job, rows_of

from pipelines.commits.verify import verify
from pipelines.config import RerankJobConfig
from pipelines.inputs.footers import read_footers
from pipelines.inputs.listing import list_files
from pipelines.rerank_job import main
from rerank_core import InvalidRequest


class Bucket(BaseHTTPRequestHandler):
    """What reading needs of S3: whether a key is there, what keys there are, and bytes of one."""

    protocol_version = "HTTP/1.1"
    root: Path
    reads: ClassVar[list[str]] = []

    def do_HEAD(self) -> None:
        self._answer(send=False)

    def do_GET(self) -> None:
        self._answer(send=True)

    def _answer(self, send: bool) -> None:
        url = urlsplit(self.path)
        asked = {name: values[0] for name, values in parse_qs(url.query).items()}
        path = self.root / unquote(url.path).lstrip("/")
        if "list-type" in asked or "prefix" in asked:
            self._reply(200, self._listing(asked.get("prefix", "")), send)
        elif path.is_file():
            body, part = path.read_bytes(), self.headers.get("Range", "")
            self.reads += [unquote(url.path)] if send else []
            if part:
                first, _, last = part.removeprefix("bytes=").partition("-")
                body = body[int(first) : int(last) + 1]
            self._reply(206 if part else 200, body, send)
        else:
            self._reply(404, b"", send)

    def _listing(self, prefix: str) -> bytes:
        found = []
        for path in sorted((self.root / "bucket").rglob("*")):
            key = str(path.relative_to(self.root / "bucket"))
            if path.is_file() and key.startswith(prefix):
                found.append(
                    f"<Contents><Key>{key}</Key><Size>{path.stat().st_size}</Size>"
                    "<LastModified>2026-01-01T00:00:00.000Z</LastModified></Contents>"
                )
        count = f"<KeyCount>{len(found)}</KeyCount><IsTruncated>false</IsTruncated>"
        return f"<ListBucketResult>{count}{''.join(found)}</ListBucketResult>".encode()

    def _reply(self, status: int, body: bytes, send: bool) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Last-Modified", "Thu, 01 Jan 2026 00:00:00 GMT")
        self.end_headers()
        if send:
            self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def options(tmp_path, pairs_input, monkeypatch):
    """The pairs input in a bucket; yields what an address needs behind it."""
    shutil.copytree(pairs_input, tmp_path / "s3" / "bucket" / "in" / "lang=en")
    handler = type("Here", (Bucket,), {"root": tmp_path / "s3"})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    yield f"?scheme=http&region=us-east-1&endpoint_override=127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("path", ["in", "in/", "in/lang=*/*.parquet", "in/**"])
def test_a_bucket_is_listed_by_folder_and_glob(options, path):
    found = [file.path for file in list_files((f"s3://bucket/{path}{options}",))]
    assert found == [f"s3://bucket/in/lang=en/{n}.parquet{options}" for n in range(3)]


def test_keys_of_any_letters_are_read(tmp_path, pairs_input, options):
    names = ["a b", "a%20b", "a#b", "a?b", "a[1]", "ü"]
    for name in names:
        folder = tmp_path / "s3" / "bucket" / "odd" / name
        folder.mkdir(parents=True)
        shutil.copy(pairs_input / "0.parquet", folder)
    files, *_ = read_footers(
        list_files((f"s3://bucket/odd{options}",)), RerankJobConfig(input=("x",), output="y")
    )
    assert [file.bad for file in files] == [""] * len(names)


def test_a_plan_reads_each_file_of_a_bucket_once(options):
    Bucket.reads.clear()
    listed = list_files((f"s3://bucket/in{options}",))
    read_footers(listed, RerankJobConfig(input=("x",), output="y"))
    assert sorted(Bucket.reads) == [f"/bucket/in/lang=en/{n}.parquet" for n in range(3)]


def test_an_address_that_is_none_is_said_in_a_line(capsys, options):
    given = ["--input", f"s3://bucket/a b{options}", "--output", "out", "--model", "lexical"]
    assert main([*given, "--dry-run"]) == 2
    assert "spaces and signs of a path are written as in %20" in capsys.readouterr().err


def test_a_delta_table_in_a_bucket_is_read_as_its_snapshot(tmp_path, pairs_input, options):
    place = tmp_path / "s3" / "bucket" / "lake" / "table"
    table = pq.read_table(pairs_input)
    write_deltalake(str(place), table.append_column("lang", pa.array(["a b"] * 600)),
                    partition_by=["lang"])  # fmt: skip
    DeltaTable(str(place)).delete("place = 3")
    manifest = job(f"s3://bucket/lake/table{options}", tmp_path / "out")
    assert manifest["counts"]["rows_out"] == 570
    assert {row["lang"] for row in rows_of(tmp_path / "out")} == {"a b"}


def test_files_taken_out_of_a_delta_table_in_a_bucket_are_refused(tmp_path, pairs_input, options):
    write_deltalake(str(tmp_path / "s3" / "bucket" / "lake" / "t"), pq.read_table(pairs_input))
    for given in ("lake/t/*.parquet", "lake", "lake/*"):
        with pytest.raises(
            InvalidRequest, match="s3://bucket/lake/t is a Delta table: read as plain"
        ):
            list_files((f"s3://bucket/{given}{options}",))


class Written(pafs.SubTreeFileSystem):
    """The bucket's folder, for a writer that makes folders as a store does."""

    def __init__(self, root):
        super().__init__(str(root), pafs.LocalFileSystem())

    def open_output_stream(self, path, *arguments, **options):
        (Path(self.base_path) / path).parent.mkdir(parents=True, exist_ok=True)
        return super().open_output_stream(path, *arguments, **options)


def test_an_iceberg_table_in_a_bucket_is_read_as_its_snapshot(
    tmp_path, pairs_input, options, monkeypatch
):
    table = pq.read_table(pairs_input)
    with monkeypatch.context() as writer:
        store = Written(tmp_path / "s3")
        writer.setattr(PyArrowFileIO, "_initialize_fs", lambda *scheme: store)
        catalogue = SqlCatalog("c", uri="sqlite:///:memory:", warehouse="s3://bucket/warehouse")
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
