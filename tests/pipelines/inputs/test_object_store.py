"""Input from an object store, through pyarrow's own S3 client against a small server of ours."""

from __future__ import annotations

import shutil
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))
from protocol import job, rows_of

from pipelines.commits.verify import verify
from pipelines.inputs.listing import list_files


class Bucket(BaseHTTPRequestHandler):
    """What reading needs of S3: whether a key is there, what keys there are, and bytes of one."""

    protocol_version = "HTTP/1.1"
    root: Path

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


def test_a_job_reads_a_bucket(tmp_path, pairs_input, options):
    source, out = f"s3://bucket/in{options}", tmp_path / "out"
    manifest = job(source, out)
    job(pairs_input, tmp_path / "local")
    assert rows_of(out) == [{**r, "lang": "en"} for r in rows_of(tmp_path / "local")]
    assert manifest["inputs"][0]["namespace"] == "s3://bucket"
    assert manifest["inputs"][0]["name"] == "in/lang=en/0.parquet"
    assert verify(out)["rows_in"] == 600
