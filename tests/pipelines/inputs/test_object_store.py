"""Input from an object store, through pyarrow's own S3 client against moto's server."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))
from protocol import job, rows_of

from pipelines.commits.store import open_store
from pipelines.commits.verify import verify
from pipelines.inputs.listing import list_files


@pytest.fixture
def options(s3_server, pairs_input):
    """The pairs input in a bucket; returns what an address needs behind it."""
    for path in pairs_input.iterdir():
        open_store("s3://bucket/in").replace(f"lang=en/{path.name}", path.read_bytes())
    endpoint = s3_server.endpoint.removeprefix("http://")
    return f"?scheme=http&region=us-east-1&endpoint_override={endpoint}"


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
