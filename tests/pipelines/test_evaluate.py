import json
import math
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.evaluate import compare, evaluate, main, p_value, read_qrels, read_run

# Worked by hand from trec_eval's definitions.
QRELS = "q1 0 a 1\nq1 0 b 0\nq1 0 c 2\nq2 0 x 1\nq3 0 z 1\n"
RUN = "q1 Q0 b 1 9 r\nq1 Q0 c 2 8 r\nq1 Q0 a 3 8 r\nq2 Q0 y 1 1 r\nq2 Q0 x 2 0 r\n"


@pytest.fixture
def files(tmp_path):
    (tmp_path / "qrels").write_text(QRELS)
    (tmp_path / "run").write_text(RUN)
    return tmp_path


def test_measures_agree_with_trec_eval_worked_by_hand(files):
    found = evaluate(read_run(str(files / "run")), read_qrels(str(files / "qrels")))
    dcg = 2 / math.log2(3) + 1 / math.log2(4)
    ideal = 2 / math.log2(2) + 1 / math.log2(3)
    assert found["nDCG@10"] == pytest.approx(
        {"q1": dcg / ideal, "q2": 1 / math.log2(3), "q3": 0.0}, abs=1e-6
    )
    assert found["RR@10"] == {"q1": 0.5, "q2": 0.5, "q3": 0.0}
    assert found["R@10"] == {"q1": 1.0, "q2": 1.0, "q3": 0.0}
    assert found["AP"] == pytest.approx({"q1": (1 / 2 + 2 / 3) / 2, "q2": 0.5, "q3": 0.0})


def test_a_run_is_read_alike_from_trec_pairs_and_nested(files, tmp_path):
    rows = [line.split() for line in RUN.splitlines()]
    pairs = [{"query_id": r[0], "doc_id": r[2], "rank": int(r[3]), "bm25": 1.0} for r in rows]
    pq.write_table(pa.Table.from_pylist(pairs), tmp_path / "pairs.parquet")
    nested = [
        {
            "query_id": query,
            "candidates": [
                {"doc_id": r["doc_id"], "rank": r["rank"]} for r in pairs if r["query_id"] == query
            ],
        }
        for query in ("q1", "q2")
    ]
    pq.write_table(pa.Table.from_pylist(nested), tmp_path / "nested.parquet")
    expected = read_run(str(files / "run"))
    assert read_run(str(tmp_path / "pairs.parquet")) == expected
    assert read_run(str(tmp_path / "nested.parquet")) == expected


def test_a_clear_win_is_significant_and_a_coin_toss_is_not():
    assert p_value([0.1] * 20, [0.5] * 20) < 0.001
    assert p_value([0.1, 0.5] * 10, [0.5, 0.1] * 10) > 0.9
    assert p_value([0.1], [0.9]) == 1.0


def test_a_comparison_counts_queries_won_and_lost():
    after, before = {"AP": {"a": 0.5, "b": 0.2, "c": 1.0}}, {"AP": {"a": 0.1, "b": 0.4, "c": 1.0}}
    line = compare(after, before)["AP"]
    assert (line["mean"], line["baseline"], line["won"], line["lost"]) == (0.5667, 0.5, 1, 1)


def test_the_command_prints_json_and_writes_a_page(files, capsys):
    options = ["--run", str(files / "run"), "--qrels", str(files / "qrels")]
    assert (
        main([*options, "--baseline", str(files / "run"), "--json", "--html", str(files / "p")])
        == 0
    )
    assert json.loads(capsys.readouterr().out)["RR@10"]["delta"] == 0.0
    assert "<svg" in (files / "p").read_text()
    assert main(options) == 0
    assert "3 judged queries" in capsys.readouterr().out


def test_a_broken_run_is_refused_with_its_line(files, capsys):
    (files / "run").write_text("q1 a 1\n")
    assert main(["--run", str(files / "run"), "--qrels", str(files / "qrels")]) == 2
    assert "run:1: a TREC run line has 6 fields" in capsys.readouterr().err


def test_a_document_that_comes_twice_stands_where_it_stands_best(tmp_path):
    rows = {"query_id": ["q"] * 4, "doc_id": ["a", "b", "a", "c"], "first": [3.0, 2.0, 1.0, None]}
    pq.write_table(pa.table(rows), tmp_path / "run.parquet")
    assert read_run(str(tmp_path / "run.parquet"), "first") == {"q": {"a": 3.0, "b": 2.0}}
    (tmp_path / "run").write_text("q 0 a 1 9 t\nq 0 b 2 8 t\nq 0 a 3 7 t\n")
    assert read_run(str(tmp_path / "run")) == {"q": {"a": -1.0, "b": -2.0}}


@pytest.mark.parametrize(
    ("text", "message"), [("q1 0 a\n", "qrels:1: a line of TREC qrels"), ("\n", "no judgements")]
)
def test_broken_judgements_are_refused(files, capsys, text, message):
    (files / "qrels").write_text(text)
    assert main(["--run", str(files / "run"), "--qrels", str(files / "qrels")]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("package", ["ir_measures", "scipy.stats"])
def test_a_missing_extra_is_said_with_the_command_that_installs_it(
    files, capsys, monkeypatch, package
):
    monkeypatch.setitem(sys.modules, package, None)
    run = str(files / "run")
    assert main(["--run", run, "--qrels", str(files / "qrels"), "--baseline", run]) == 2
    assert "pip install 'ray-rerank[evaluate]'" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--html", "--per-query"])
def test_a_page_that_cannot_be_written_is_refused_before_anything_is_read(files, capsys, option):
    given = ["--run", str(files / "none"), "--qrels", str(files / "qrels"), option]
    assert main([*given, str(files)]) == 2
    assert capsys.readouterr().err == (
        f"error: {option} {files}: it is a folder; name another file\n"
    )


@pytest.mark.parametrize("option", ["--html", "--per-query"])
def test_a_page_that_could_not_be_written_is_a_line_below_the_figures(
    files, capsys, monkeypatch, option
):
    def full(*options, **how):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    page = str(files / "page")
    given = ["--run", str(files / "run"), "--qrels", str(files / "qrels"), option, page]
    assert main(given) == 2
    said = capsys.readouterr()
    assert "3 judged queries" in said.out
    assert said.err == f"error: {option} {page}: No space left on device; all else is done\n"
