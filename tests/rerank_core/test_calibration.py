"""Calibration recovers known probabilities, keeps every order, refuses what it cannot fit."""

import json

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
from rerank_core.calibration import Calibration, fit, main


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
    path.write_text("{}")
    with pytest.raises(InvalidRequest, match="cannot be read"):
        Calibration.load(path, "abc")


def test_the_command_fits_and_the_ranking_shows_probabilities(tmp_path, capsys):
    rows = [("red fox", "a red fox", 1), ("red fox", "a cat", 0), ("sky", "blue sky", 1)]
    rows += [("sky", "mud", 0)]
    source, target = tmp_path / "pairs.jsonl", tmp_path / "calibration.json"
    source.write_text(
        "\n".join(json.dumps(dict(zip(("query", "document", "label"), row))) for row in rows)
    )
    assert main(["--input", str(source), "--output", str(target), "--model", "lexical"]) == 0
    assert "fitted on 4 pairs" in capsys.readouterr().out
    scorer = load_scorer(ScorerConfig(model="lexical"))
    calibration = Calibration.load(target, scorer.info.fingerprint)
    request = RerankRequest("red fox", (Candidate("a", "a cat"), Candidate("b", "red fox")))
    (result,) = Reranker(scorer, calibration).rerank([request])
    best, worst = (hit.calibrated_score for hit in result.ranked)
    assert best > 0.5 > worst


def test_the_command_says_which_line_is_wrong(tmp_path, capsys):
    source = tmp_path / "pairs.jsonl"
    source.write_text('{"query": "a"}\n')
    assert main(["--input", str(source), "--output", str(tmp_path / "out")]) == 2
    assert "pairs.jsonl:1 is not an object" in capsys.readouterr().err


def test_a_threshold_leaves_out_what_is_below():
    scorer = load_scorer(ScorerConfig(model="lexical"))
    candidates = (Candidate("a", "a cat"), Candidate("b", "red fox"))
    (result,) = Reranker(scorer).rerank([RerankRequest("red fox", candidates, score_threshold=0.5)])
    assert [hit.doc_id for hit in result.ranked] == ["b"]
    assert result.failed == ()
