import math
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))
from protocol import job, rows_of

from pipelines.commits.records import JobFolder
from pipelines.commits.store import open_store
from pipelines.evaluate import read_run
from pipelines.ranks.moves import moves
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


def test_the_report_tells_units_whose_scores_were_all_known(tmp_path, pairs_input):
    def facts(name):
        page = (tmp_path / name / "_report.html").read_text()
        scores = page.partition("<h2>Scores</h2>")[2].partition("<h2>Slowest units</h2>")[0]
        return page.partition("<td>units scored</td>")[2].partition("</tr>")[0], scores

    job(pairs_input, tmp_path / "former")
    job(pairs_input, tmp_path / "out", reuse=str(tmp_path / "former"))
    assert facts("out") == facts("former")
    assert facts("out")[0] == "<td>6</td>"


@pytest.mark.parametrize("unit_pairs", [25, 1000])
def test_the_report_counts_what_moved_against_the_whole_inputs_order(
    tmp_path, pairs_input, unit_pairs
):
    job(pairs_input, tmp_path / "out", unit_pairs=unit_pairs, top_k=15)
    place = {}
    for row in pq.read_table(pairs_input).to_pylist():
        of_query = place.setdefault(row["query_id"], {})
        of_query[row["doc_id"]] = len(of_query) + 1
    rows = rows_of(tmp_path / "out")
    raw = np.array([math.log(row["score"] / (1 - row["score"])) for row in rows])
    ranks = np.array([row["rank"] for row in rows])
    before = np.array([place[row["query_id"]][row["doc_id"]] for row in rows])
    records = JobFolder(open_store(tmp_path / "out"), 0).all_records()
    found = Counter()
    for record in (*records.units.values(), *records.ranks.values()):
        found.update(dict(enumerate(record.get("moves", []))))
    assert [found[n] for n in range(23)] == moves(before, ranks, raw)["moves"]
    page = (tmp_path / "out" / "_report.html").read_text()
    for wanted in ("1,024 or more up", "ranks 4 to 10", "ranks from 101", "Slowest units"):
        assert wanted in page


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
