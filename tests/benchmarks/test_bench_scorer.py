"""The scorer benchmark runs whole and gives every figure; its texts are what they say."""

import json
import random
import re

import numpy as np
import pytest

from benchmarks.bench_former import ROOT, compare
from benchmarks.bench_former import main as against_former
from benchmarks.bench_scorer import main, order
from benchmarks.pair_mixes import MIXES, Mix, Texts
from tests.rerank_core.scorers.tiny_checkpoints import save_bert

FIGURES = {"pairs_s", "tokens_s", "ours_faster", "real_tokens", "memory_mb", "of_peak"}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(save_bert(tmp_path_factory.mktemp("model")))


@pytest.mark.seconds
def test_a_smoke_run_compares_every_rival_on_every_mix(model, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    picture = tmp_path / "pictures" / "scorer.svg"
    options = ["--small", "--device", "cpu", "--mixes", "short", "--picture", str(picture)]
    main([*options, "--model", model, "--record", str(tmp_path / "results")])
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    (run,) = result["runs"]
    assert list(run["mixes"]) == ["short passages", "one request of 3"]
    for found in run["mixes"].values():
        assert found["difference"] < 1e-5
        assert list(found["rivals"]) == [
            "ours", "ours, padded", "predict, 32", "FlagEmbedding's way, 128", "predict, best"
        ]  # fmt: skip
        assert all(row.keys() >= FIGURES for row in found["rivals"].values())
        assert (found["rivals"]["ours"]["ours_faster"], found["rivals"]["ours"]["real_tokens"]) == (
            1.0, 1.0,
        )  # fmt: skip
    assert picture.read_text().count("<svg") == 1
    recorded = list((tmp_path / "results").iterdir())
    assert [json.loads(path.read_text()) for path in recorded] == [result]


def test_orders_are_compared_query_by_query():
    pairs = [("a", str(i)) for i in range(20)] + [("b", str(i)) for i in range(20)]
    ours = np.arange(40.0)
    other = np.concatenate([np.arange(20.0), -np.arange(20.0)])
    assert order(pairs, ours, ours * 3) == {"rank_correlation": 1.0, "first_ten": 10}
    assert order(pairs, ours, other) == {"rank_correlation": 0.0, "first_ten": 5}
    assert order(pairs[:19], ours, ours) == {"rank_correlation": None, "first_ten": None}


def words(text):
    return [match.span() for match in re.finditer(r"\S+", text)]


def test_documents_have_exactly_the_tokens_asked_for():
    texts = Texts(words, 1000)
    rng = random.Random(0)
    assert [len(texts.document(rng, n).split()) for n in (1, 7, 300, 5000)] == [1, 7, 300, 1000]


def test_pools_are_the_same_every_time_and_as_large_as_asked():
    texts = Texts(words, 1000)
    pool = texts.pool(MIXES["chunks"], 5000, seed=1)
    assert pool == texts.pool(MIXES["chunks"], 5000, seed=1)
    lengths = [len(text.split()) for _, text in pool]
    assert 5000 <= sum(lengths) < 5000 + 512
    assert 180 < sum(lengths) / len(lengths) < 280
    request = texts.request(20, Mix("", 50, 0.0, 50), seed=1)
    assert {(query, len(text.split())) for query, text in request} == {(request[0][0], 50)}


@pytest.mark.seconds
def test_a_checkout_against_itself_has_the_same_scores_and_a_ratio_for_each_round():
    tokens = ["--tokens", "200", "--rounds", "2", "--mixes", "short", "--requests", "3"]
    found = against_former([str(ROOT), *tokens])["mixes"]
    assert list(found) == ["short", "request of 3"]
    for figures in found.values():
        assert (figures["difference"], len(figures["rounds"])) == (0.0, 2)
        assert min(figures["rounds"]) > 0


def test_the_median_is_of_ratios_within_rounds_in_turns():
    class Side:
        def __init__(self, name, seconds):
            self.name, self.seconds = name, iter(seconds)

        def ask(self, pairs):
            turns.append(self.name)
            return {"scores": [1.0 if self.name == "ours" else 1.5], "cpu_s": next(self.seconds)}

    turns = []
    sides = {"ours": Side("ours", [9, 1, 2, 4]), "former": Side("former", [9, 2, 2, 12])}
    found = compare(sides, [["q", "d"]], 3)
    assert (found["former_over_ours"], found["rounds"]) == (2.0, [2.0, 1.0, 3.0])
    assert (found["ours_s"], found["former_s"], found["difference"]) == (2, 2, 0.5)
    assert turns == ["ours", "former", "former", "ours"] * 2
