import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.rerank_job import main


def test_a_dry_run_prints_the_plan_and_makes_nothing(tmp_path, pairs_input, capsys):
    (pairs_input / "bad.parquet").write_bytes(b"no")
    options = ["--input", str(pairs_input), "--output", str(tmp_path / "out"), "--dry-run"]
    assert main([*options, "--unit-pairs", "50", "--model", "lexical"]) == 0
    said = capsys.readouterr().out
    for line in ("shape: pairs", "files: 4, unreadable: 1", "rows: 600", "units: 12", "hours: "):
        assert line in said
    assert not (tmp_path / "out").exists()


def test_a_dry_run_goes_past_a_row_group_that_cannot_be_read(tmp_path, pairs_input, capsys):
    path = pairs_input / "0.parquet"
    body = bytearray(path.read_bytes())
    for group in range(3):
        start = pq.read_metadata(path).row_group(group).column(3).data_page_offset
        body[start : start + 60] = b"\xff" * 60
    path.write_bytes(bytes(body))
    options = ["--input", str(pairs_input), "--output", str(tmp_path / "out"), "--dry-run"]
    assert main([*options, "--model", "lexical"]) == 0
    assert "hours: " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "units"),
    [
        ([], 10),
        (["--gpus-per-replica", "0.5"], 2),
        (["--gpus-per-replica", "1", "--unit-pairs", "5000"], 4),
    ],
)
def test_units_are_as_large_as_the_machine_wants(tmp_path, capsys, options, units):
    names = ("query_id", "query", "doc_id", "text")
    pq.write_table(pa.table(dict.fromkeys(names, ["a"] * 20_000)), tmp_path / "0.parquet")
    where = ["--input", str(tmp_path), "--output", "out", "--model", "lexical", "--dry-run"]
    assert main([*where, *options]) == 0
    assert f"units: {units}," in capsys.readouterr().out
