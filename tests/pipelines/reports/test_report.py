import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))
from protocol import job, rows_of

from pipelines.evaluate import read_run
from pipelines.reports.report import throughput


def test_the_report_stands_alone_and_tells_what_was_set_aside(tmp_path, make_rows, write_files):
    rows = make_rows(5, 12)
    rows[3]["text"] = None
    folder = write_files(tmp_path / "in", rows, files=2, group=15)
    job(folder, tmp_path / "out")
    page = (tmp_path / "out" / "_report.html").read_text()
    for wanted in ("null_text", "lexical", "0.parquet", "pairs per second", "ray"):
        assert wanted in page
    assert "http" not in page
    assert "src=" not in page


def test_throughput_spreads_a_units_pairs_over_its_time():
    records = [
        {"at": 104.0, "seconds": 4.0, "counts": {"pairs_in": 100}},
        {"at": 160.0, "seconds": 1.0, "counts": {"pairs_in": 50}},
    ]
    points = throughput(records)
    width = points[1][0] - points[0][0]
    assert sum(rate for _, rate in points) * width == pytest.approx(150)
    assert throughput([]) == []


def test_a_trec_run_has_the_ranks_of_the_output(tmp_path, pairs_input):
    job(pairs_input, tmp_path / "out", trec_run=str(tmp_path / "run.txt"), top_k=3)
    run = read_run(str(tmp_path / "run.txt"))
    expected: dict[str, dict[str, float]] = {}
    for row in rows_of(tmp_path / "out"):
        expected.setdefault(row["query_id"], {})[row["doc_id"]] = -row["rank"]
    assert run == expected
    assert len(run) == 30
