import io
import json

import pytest

from rerank_core.__main__ import main

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
    ],
)
def test_what_cannot_be_done_is_one_line_and_exit_code_2(arguments, message, capsys):
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert message in err
