"""Appending and reusing on a real small Ray, against the same jobs without it."""

from __future__ import annotations

import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))
from protocol import job

import pipelines
from pipelines.commits.verify import verify
from pipelines.rerank_job import main

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("small_ray"),
    # Ray Data warns of its own settings.
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray"),
]


def test_an_output_grows_and_gives_its_scores_to_another_job(tmp_path, make_rows, capfd):
    rows, given = make_rows(6, 20), tmp_path / "in"
    given.mkdir()
    options = ["--input", str(given), "--model", "lexical", "--unit-pairs", "20"]
    for number in range(2):
        part = pa.Table.from_pylist(rows[number * 60 : number * 60 + 60])
        pq.write_table(part, given / f"{number}.parquet", row_group_size=20)
        assert main([*options, "--output", str(tmp_path / "out"), "--append"]) == 0
    assert "appending 1 new files to 1 that are finished" in capfd.readouterr().err
    found = pipelines.read_output(tmp_path / "out").to_table()
    job(given, tmp_path / "plain", unit_pairs=20)
    assert found.equals(pipelines.read_output(tmp_path / "plain").to_table())
    reused = ["--output", str(tmp_path / "top"), "--top-k", "3", "--reuse", str(tmp_path / "out")]
    assert main([*options, *reused]) == 0
    job(given, tmp_path / "plain3", unit_pairs=20, top_k=3)
    top, plain = (pipelines.read_output(tmp_path / name).to_table() for name in ("top", "plain3"))
    assert top.equals(plain)
    assert verify(tmp_path / "top")["pairs_reused"] == verify(tmp_path / "out")["pairs_in"] == 120
