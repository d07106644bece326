"""Calibration recovers known probabilities, keeps every order, refuses what it cannot fit."""

import json
import re
import sys

import numpy as np
import pytest

from rerank_core import (
    Candidate,
    InvalidRequest,
    Reranker,
    RerankRequest,
    ScorerConfig,
    load_scorer,
)
from rerank_core.calibrate import fit, main
from rerank_core.calibration import Calibration


def sample(slope, offset, size=20_000):
    generator = np.random.default_rng(5)
    raw = generator.normal(0, 3, size)
    chance = 1 / (1 + np.exp(-(slope * raw + offset)))
    return raw, (generator.random(size) < chance).astype(int)


def test_platt_finds_the_slope_and_offset_that_made_the_labels():
    found = fit(*sample(0.7, -1.2), "f")
    assert found.slope == pytest.approx(0.7, abs=0.03)
    assert found.offset == pytest.approx(-1.2, abs=0.05)


def test_temperature_has_no_offset():
    found = fit(*sample(2.0, 0.0), "f", method="temperature")
    assert found.slope == pytest.approx(2.0, abs=0.1)
    assert found.offset == 0.0


def test_scores_that_separate_the_labels_stay_finite():
    found = fit([-5, -4, 4, 5], [0, 0, 1, 1], "f")
    assert 0 < found.slope < 10


def test_calibrating_never_changes_an_order():
    raw = np.linspace(-20, 20, 101, dtype=np.float32)
    assert (np.diff(fit(*sample(0.5, 0.3), "f").apply(raw)) >= 0).all()


@pytest.mark.parametrize(
    ("raw", "labels", "message"),
    [
        ([1.0, 2.0], [1, 1], "labels of both kinds"),
        ([1.0, 2.0], [0, 2], "labels must be 0 or 1"),
        ([1.0, 2.0], [0], "one for each score"),
        ([5.0, 4.0, -4.0, -5.0], [0, 0, 1, 1], "do not rise with relevance"),
    ],
)
def test_what_cannot_be_fitted_is_refused(raw, labels, message):
    with pytest.raises(InvalidRequest, match=message):
        fit(raw, labels, "f")


def test_the_file_comes_back_and_belongs_to_one_scorer(tmp_path):
    path = tmp_path / "calibration.json"
    saved = Calibration(0.5, -1.0, "abc", 10)
    saved.save(path)
    assert Calibration.load(path, "abc") == saved
    with pytest.raises(InvalidRequest, match="fitted on another scorer"):
        Calibration.load(path, "def")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"slope": "2"}, "slope: Input should be a valid number"),
        ({"slope": -2.0}, "slope: Input should be greater than 0"),
        ({"slope": 0}, "slope: Input should be greater than 0"),
        ({"offset": float("nan")}, "offset: Input should be a finite number"),
        ({"fingerprint": 3}, "fingerprint: Input should be a valid string"),
        ({"pairs": 2.5}, "pairs: Input should be a valid integer"),
        ({"scale": 1}, "scale: Unexpected keyword argument"),
        ({"version": 3}, "version: Input should be 2"),
    ],
)
def test_a_wrong_file_is_refused_with_its_name_and_field(tmp_path, change, message):
    path = tmp_path / "calibration.json"
    content = {"slope": 1.0, "offset": 0.0, "fingerprint": "abc", "pairs": 10, "version": 2}
    path.write_text(json.dumps(content | change))
    with pytest.raises(InvalidRequest) as caught:
        Calibration.load(path, "abc")
    assert str(caught.value) == f"calibration '{path}': {caught.value.message.split(': ', 1)[1]}"
    assert message in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", None])
def test_what_is_no_json_file_is_refused_with_the_command_that_makes_one(tmp_path, content):
    path = tmp_path / "calibration.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InvalidRequest, match=r"cannot be read .* python -m rerank_core.calibrate"):
        Calibration.load(path, "abc")


@pytest.mark.parametrize("slope", ["2", -2.0, 0.0, float("inf")])
def test_no_calibration_reverses_an_order_also_when_built_in_code(slope):
    with pytest.raises(ValueError, match="Input should be"):
        Calibration(slope, 0.0, "abc", 10)


OLD = {"slope": 0.5, "offset": -1.0, "fingerprint": "0123456789abcdef", "pairs": 10}


def test_a_file_of_0_1_0_is_refused_with_the_command_that_takes_it_over(tmp_path, capsys):
    path = tmp_path / "calibration.json"
    path.write_text(json.dumps(OLD))
    config = ScorerConfig(model="lexical", calibration=str(path))
    with pytest.raises(InvalidRequest, match=r"of release 0\.1\.0") as caught:
        Reranker.load(config)
    command = str(caught.value).split("python -m rerank_core.calibrate ")[1].split(" and ")[0]
    assert main([*command.split(), "--model", "lexical"]) == 0
    assert "now of fingerprint" in capsys.readouterr().out
    taken = Reranker.load(config).calibration
    assert (taken.slope, taken.offset, taken.pairs) == (0.5, -1.0, 10)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (OLD | {"version": 2}, "is no calibration of release 0.1.0"),
        (OLD | {"slope": -1.0}, "old.json': slope: Input should be greater than 0"),
    ],
)
def test_only_a_sound_file_of_0_1_0_is_taken_over(tmp_path, capsys, content, message):
    source, target = tmp_path / "old.json", tmp_path / "new.json"
    source.write_text(json.dumps(content))
    assert main(["--restamp", str(source), "--output", str(target), "--model", "lexical"]) == 2
    assert message in capsys.readouterr().err
    assert not target.exists()


def test_without_scikit_learn_the_command_says_what_to_install(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.linear_model", None)
    arguments = ["--input", str(tmp_path / "none"), "--output", str(tmp_path / "out")]
    assert main(arguments) == 2
    assert "pip install 'ray-rerank[calibrate]'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("activation", "shown"),
    [("sigmoid", "log loss 0.0.. -> 0."), ("identity", "no probabilities")],
)
def test_before_is_what_the_models_own_scores_were_worth(tmp_path, capsys, activation, shown):
    source, target = tmp_path / "pairs.jsonl", tmp_path / "calibration.json"
    source.write_text("\n".join(map(json.dumps, PAIRS)))
    options = ["--model", "lexical", "--activation", activation]
    assert main(["--input", str(source), "--output", str(target), *options]) == 0
    assert re.search(shown, capsys.readouterr().out)


def test_the_command_fits_and_the_ranking_shows_probabilities(tmp_path, capsys):
    rows = [("red fox", "a red fox", 1), ("red fox", "a cat", 0), ("sky", "blue sky", 1)]
    rows += [("sky", "mud", 0)]
    source, target = tmp_path / "pairs.jsonl", tmp_path / "calibration.json"
    source.write_text(
        "\n".join(
            json.dumps(dict(zip(("query", "document", "label"), row, strict=True))) for row in rows
        )
    )
    assert main(["--input", str(source), "--output", str(target), "--model", "lexical"]) == 0
    assert "fitted on 4 pairs" in capsys.readouterr().out
    reranker = Reranker.load(ScorerConfig(model="lexical", calibration=str(target)))
    request = RerankRequest("red fox", (Candidate("a", "a cat"), Candidate("b", "red fox")))
    (result,) = reranker.rerank([request])
    best, worst = (hit.calibrated_score for hit in result.ranked)
    assert best > 0.5 > worst


def test_a_document_may_hold_unicodes_own_line_separators(tmp_path):
    source = tmp_path / "pairs.jsonl"
    rows = [row | {"document": row["document"] + "\u2028\x85more"} for row in PAIRS]
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    source.write_text("\n".join(lines), encoding="utf-8")
    target = tmp_path / "calibration.json"
    assert main(["--input", str(source), "--output", str(target), "--model", "lexical"]) == 0
    assert json.loads(target.read_text())["pairs"] == 2


@pytest.mark.parametrize(
    ("line", "options", "message"),
    [
        ('{"query": "a"}', [], "pairs.jsonl:1 is not an object"),
        ('{"query": "a", "document": 3, "label": 1}', [], "must be texts"),
        ('{"query": "a", "document": "b", "label": 0.5}', [], "pairs.jsonl:1: label must be 0 or"),
        ("", [], "labels of both kinds"),
        ("", ["--dtype", "int3"], "dtype: Input should be"),
    ],
)
def test_the_command_says_what_is_wrong(tmp_path, capsys, line, options, message):
    source = tmp_path / "pairs.jsonl"
    source.write_text(f"{line}\n")
    common = ["--input", str(source), "--output", str(tmp_path / "out"), "--model", "lexical"]
    assert main([*common, *options]) == 2
    assert message in capsys.readouterr().err


PAIRS = [{"query": "red fox", "document": d, "label": n} for d, n in (("red fox", 1), ("cat", 0))]


def test_a_calibration_belongs_to_the_options_it_was_fitted_with(tmp_path):
    source, target = tmp_path / "pairs.jsonl", tmp_path / "calibration.json"
    source.write_text("\n".join(map(json.dumps, PAIRS)))
    cascade = {"model": "lexical", "first_stage": {"model": "lexical", "keep": 1}}
    options = ["--model", "lexical", "--first-stage", json.dumps(cascade["first_stage"])]
    assert main(["--input", str(source), "--output", str(target), *options]) == 0
    served = ScorerConfig.model_validate({**cascade, "calibration": str(target)})
    assert Reranker.load(served).calibration.pairs == 2
    with pytest.raises(InvalidRequest, match="fitted on another scorer"):
        Reranker.load(ScorerConfig(model="lexical", calibration=str(target)))


def test_a_threshold_leaves_out_what_is_below():
    scorer = load_scorer(ScorerConfig(model="lexical"))
    candidates = (Candidate("a", "a cat"), Candidate("b", "red fox"))
    (result,) = Reranker(scorer).rerank([RerankRequest("red fox", candidates, score_threshold=0.5)])
    assert [hit.doc_id for hit in result.ranked] == ["b"]
    assert result.failed == ()


@pytest.mark.parametrize("activation", ["sigmoid", "identity"])
def test_the_threshold_is_held_against_the_score_that_is_shown(activation):
    reranker = Reranker(load_scorer(ScorerConfig(model="lexical", activation=activation)))
    candidates = tuple(Candidate(text, text) for text in ("red fox", "red", "cat"))
    (every,) = reranker.rerank([RerankRequest("red fox", candidates)])
    second = every.ranked[1].score
    (kept,) = reranker.rerank([RerankRequest("red fox", candidates, score_threshold=second)])
    assert kept.ranked == every.ranked[:2]


def test_a_calibration_does_not_move_the_threshold():
    candidates = (Candidate("a", "a cat"), Candidate("b", "red fox"))
    request = RerankRequest("red fox", candidates, score_threshold=0.5)
    scorer = load_scorer(ScorerConfig(model="lexical"))
    hopeless = Calibration(0.1, -9.0, scorer.info.fingerprint, 2)
    (result,) = Reranker(scorer, hopeless).rerank([request])
    assert [hit.doc_id for hit in result.ranked] == ["b"]
    assert result.ranked[0].calibrated_score < 0.01
