import importlib
import io
import json
import subprocess
import sys

import pytest

from rerank_core import Calibration, ScorerConfig
from rerank_core.__main__ import main

pytestmark = pytest.mark.seconds

QUESTION = ["--model", "lexical", "--query", "red apple"]


def test_it_prints_the_ranking_with_bars_tokens_and_time(capsys):
    assert main([*QUESTION, "green pear", "a red apple", "red"]) == 0
    first, second, third, summary = capsys.readouterr().out.splitlines()
    assert first.split() == ["1", "0.9990", "█" * 20, "a", "red", "apple"]
    assert second.split() == ["2", "0.4983", "█" * 10 + "·" * 10, "red"]
    assert third.split() == ["3", "0.0010", "·" * 20, "green", "pear"]
    assert summary.startswith("3 documents, 12 tokens in ")
    assert summary.endswith(": lexical, lexical, cpu, float32")


def test_json_is_for_machines(capsys):
    assert main([*QUESTION, "--json", "--top-k", "1", "green pear", "red apple"]) == 0
    body = json.loads(capsys.readouterr().out)
    assert body["query"] == "red apple"
    assert [(hit["index"], hit["rank"]) for hit in body["ranked"]] == [(1, 1)]
    assert body["failed"] == []
    assert body["scorer"]["model"] == "lexical"
    assert {"load_s", "rerank_s", "tokens"} <= body.keys()


def test_a_document_is_a_line_of_the_file_whatever_else_it_holds(tmp_path, capsys):
    (tmp_path / "documents.txt").write_text("a\u2028red apple\nb\n", encoding="utf-8")
    assert main([*QUESTION, "--json", "--file", str(tmp_path / "documents.txt")]) == 0
    body = json.loads(capsys.readouterr().out)
    assert [hit["index"] for hit in body["ranked"]] == [0, 1]


def test_documents_come_from_a_file_and_from_stdin_too(tmp_path, capsys, monkeypatch):
    (tmp_path / "documents.txt").write_text("苹果 red apple\n\n", encoding="utf-8")
    monkeypatch.setattr("sys.stdin", io.StringIO("from stdin\n"))
    assert main([*QUESTION, "--json", "--file", str(tmp_path / "documents.txt"), "-"]) == 0
    body = json.loads(capsys.readouterr().out)
    assert [hit["index"] for hit in body["ranked"]] == [1, 0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "lexical", "--query", " ", "a"], "query must not be blank"),
        ([*QUESTION, "--top-k", "0", "a"], "top_k must be at least 1"),
        ([*QUESTION, "--file", "no-such-file"], "no-such-file"),
        ([*QUESTION, "--dtype", "int3", "a"], "dtype"),
        ([*QUESTION, "--max-length", "0", "a"], "max_length"),
        ([*QUESTION, "--template", "qwen9", "a"], "use one of qwen3-reranker"),
        ([*QUESTION, "--score-threshold", "nan", "a"], "score_threshold must be a finite number"),
        ([*QUESTION, "--max-tokens-per-doc", "0", "a"], "max_tokens_per_doc must be at least 1"),
        ([*QUESTION, "--calibration", "no-such-file", "a"], "python -m rerank_core.calibrate"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_exit_code_2(arguments, message, capsys):
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert message in err


def test_a_wrong_limit_is_said_before_the_model_is_looked_for(capsys):
    assert main(["--model", "no/such-folder", "--query", "q", "--top-k", "0", "a"]) == 2
    assert "top_k must be at least 1" in capsys.readouterr().err


def test_every_field_of_the_scorer_is_an_option(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    shown = capsys.readouterr().out
    missing = [f for f in ScorerConfig.model_fields if f"--{f.replace('_', '-')}" not in shown]
    assert missing == []


def test_limits_threshold_passages_and_probabilities_are_reachable(tmp_path, capsys):
    options = ["--long-documents", "split", "--max-length", "24", "--passage-overlap", "4"]
    calibration = tmp_path / "calibration.json"
    config = ScorerConfig(model="lexical", long_documents="split", max_length=24, passage_overlap=4)
    Calibration(1.0, 0.0, config.fingerprint(), 2).save(calibration)
    text = "nothing here at all. " * 20 + "The red apple fell. " + "more of nothing. " * 20
    arguments = [*QUESTION, *options, "--calibration", str(calibration), "--json", text, "a pear"]
    assert main([*arguments, "--score-threshold", "0.5"]) == 0
    (hit,) = json.loads(capsys.readouterr().out)["ranked"]
    assert hit["index"] == 0
    assert "The red apple fell." in text[slice(*hit["passage"])]
    assert hit["calibrated_score"] == pytest.approx(hit["score"])
    assert main([*arguments, "--max-tokens-per-doc", "10"]) == 0
    hits = {hit["index"]: hit for hit in json.loads(capsys.readouterr().out)["ranked"]}
    assert (hits[0]["truncated"], hits[0]["passage"]) == (True, None)


def test_the_best_passage_is_what_is_shown(capsys):
    text = "nothing here at all. " * 20 + "The red apple fell. " + "more of nothing. " * 20
    assert main([*QUESTION, "--long-documents", "split", "--max-length", "24", text]) == 0
    line = capsys.readouterr().out.splitlines()[0]
    assert "(characters " in line
    assert not line.split("·")[-1].split("█")[-1].strip().startswith("nothing here at all. nothing")


@pytest.mark.parametrize(
    ("module", "command"),
    [
        ("rerank_core.__main__", "--model lexical --query apple --top-k 0 apple"),
        ("pipelines.rerank_job", "--input none --output out"),
        ("pipelines.evaluate", "--run none --qrels none"),
    ],
)
def test_the_commands_end_with_2_and_one_line_for_bad_input(
    module, command, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    assert importlib.import_module(module).main(command.split()) == 2
    said = capsys.readouterr()
    assert (said.out, said.err.strip().count("\n")) == ("", 0)
    assert said.err.strip().startswith("error: ")


def test_the_module_runs_as_a_command_without_a_warning():
    command = [sys.executable, "-W", "error", "-m", "rerank_core.calibrate", "--help"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (run.returncode, run.stderr) == (0, "")
