"""Judges a cross-encoder on held-out questions beside BM25 and the base encoder.

Candidates are BM25's first 20 and the base encoder's first 20; the figure is MRR@10 over them.
It trains nothing and decides nothing about what is held out.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from transformers import BertForSequenceClassification, PreTrainedTokenizerFast

from rerank_core import QueryDocumentPair, Scorer
from tools.embedded_model.bm25 import BM25, top
from tools.embedded_model.negatives import BiEncoder, find_candidates
from tools.embedded_model.passes import raw_scores, token_ids
from tools.embedded_model.training_text import Pool

# The two checks of the README: the query, how many passages are right, those first.
CHECKS: tuple[tuple[str, int, tuple[str, ...]], ...] = (
    (
        "人工智能的发展趋势",
        2,
        (
            "机器学习是人工智能的一个分支。",
            "深度神经网络推动了AI技术进步。",
            "苹果是一种水果,富含维生素C。",
        ),
    ),
    (
        "中国的首都是哪里?",
        1,
        (
            "北京是中国的政治中心和首都。",
            "上海是中国最大的城市,经济发达。",
            "首都机场位于北京,是中国重要交通枢纽。",
            "杭州有西湖,是著名的旅游城市。",
            "首都医科大学位于北京市丰台区。",
        ),
    ),
)


@dataclass(frozen=True)
class Case:
    """One held-out question: candidate texts, which are right, and the two older scores."""

    query: str
    texts: list[str]
    right: list[int]
    bm25: list[float]
    base: list[float]


@dataclass
class Trial:
    """A held-out set, ready to be judged."""

    name: str
    passages: int
    cases: list[Case] = field(default_factory=list)

    def save(self, folder: Path) -> None:
        """Write the trial as one JSON file into `folder`."""
        text = json.dumps(asdict(self), ensure_ascii=False)
        (folder / f"trial-{self.name}.json").write_text(text, encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Trial:
        """Read what `save` wrote."""
        raw = json.loads(path.read_text(encoding="utf-8"))
        return cls(raw["name"], raw["passages"], [Case(**case) for case in raw["cases"]])


def make_trial(
    pool: Pool, encoder: BiEncoder, limit: int | None, answers: list[list[int]] | None = None
) -> Trial:
    """Candidates for `limit` evenly drawn questions of `pool`; None takes all.

    `answers` names all right passages of each question where there can be several. A question
    whose right passages are in neither first 20 stays in the trial: nobody can find it.
    """
    count = len(pool.questions)
    chosen = np.linspace(0, count - 1, min(limit or count, count)).astype(int)
    asked = Pool(pool.name, pool.passages, pool.groups, [pool.questions[i] for i in chosen])
    found = find_candidates(asked, encoder)
    trial = Trial(pool.name, len(pool.passages))
    for row, places in enumerate(found.lists()):
        question = asked.questions[row]
        right = set(answers[chosen[row]]) if answers else {question.passage}
        trial.cases.append(
            Case(
                question.text,
                [pool.passages[i] for i in places],
                [at for at, i in enumerate(places) if i in right],
                found.lexical[row, places].tolist(),
                found.cosine[row, places].tolist(),
            )
        )
    return trial


def reciprocal_rank(scores: Sequence[float], right: Sequence[int]) -> float:
    """1 / rank of the best right entry within the first ten, else 0; ties count against it."""
    if not right:
        return 0.0
    best = max(scores[i] for i in right)
    rank = 1 + sum(score >= best for i, score in enumerate(scores) if i not in set(right))
    return 1 / rank if rank <= 10 else 0.0


def judge(trial: Trial, scorer: Scorer) -> dict[str, float]:
    """MRR@10 of BM25, base encoder and `scorer`, with the standard errors of our leads."""
    pairs = [QueryDocumentPair(case.query, text) for case in trial.cases for text in case.texts]
    scores = scorer.score(pairs).raw.tolist()
    rows, at = [], 0
    for case in trial.cases:
        ours = scores[at : at + len(case.texts)]
        at += len(case.texts)
        rows.append([reciprocal_rank(s, case.right) for s in (case.bm25, case.base, ours)])
    table = np.array(rows)
    leads = table[:, 2:] - table[:, :2]
    errors = leads.std(0) / np.sqrt(len(rows))
    return {
        "questions": len(rows),
        "passages": trial.passages,
        "bm25": round(float(table[:, 0].mean()), 4),
        "base": round(float(table[:, 1].mean()), 4),
        "model": round(float(table[:, 2].mean()), 4),
        "bm25_error": round(float(errors[0]), 4),
        "base_error": round(float(errors[1]), 4),
    }


def check_scores(scorer: Scorer) -> list[list[float]]:
    """Sigmoid scores of the checks' passages, in their order."""
    return [
        [
            round(1 / (1 + math.exp(-raw)), 3)
            for raw in scorer.score([QueryDocumentPair(query, t) for t in texts]).raw.tolist()
        ]
        for query, _, texts in CHECKS
    ]


def pair_scores(
    model: BertForSequenceClassification,
    tokenizer: PreTrainedTokenizerFast,
    pairs: Sequence[tuple[str, str]],
) -> list[float]:
    """Sigmoid score of each (query, passage), in input order."""
    model.eval()
    queries, passages = zip(*pairs, strict=True)
    ids = token_ids(tokenizer, queries, passages)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        return torch.sigmoid(raw_scores(model, tokenizer, ids, 6000)).tolist()


class QuickJudge:
    """A few questions over BM25's first ten, cheap enough to run while training."""

    def __init__(
        self, tokenizer: PreTrainedTokenizerFast, pools: Sequence[tuple[Pool, int]]
    ) -> None:
        self._tokenizer = tokenizer
        self._cases = {pool.name: list(_first_ten(pool, count)) for pool, count in pools}

    def __call__(self, model: BertForSequenceClassification) -> dict[str, float]:
        """MRR@10 of BM25 and of the model for each pool, and the scores of the checks."""
        figures: dict[str, float] = {}
        for name, cases in self._cases.items():
            pairs = [(case.query, text) for case in cases for text in case.texts]
            scores = pair_scores(model, self._tokenizer, pairs)
            before, after, at = 0.0, 0.0, 0
            for case in cases:
                before += reciprocal_rank(case.bm25, case.right)
                after += reciprocal_rank(scores[at : at + len(case.texts)], case.right)
                at += len(case.texts)
            figures[f"{name} bm25"] = round(before / len(cases), 3)
            figures[name] = round(after / len(cases), 3)
        for number, (query, _, texts) in enumerate(CHECKS):
            values = pair_scores(model, self._tokenizer, [(query, text) for text in texts])
            figures |= {f"check {number}.{i}": round(v, 2) for i, v in enumerate(values)}
        return figures


def _first_ten(pool: Pool, count: int) -> Iterator[Case]:
    """About `count` questions of `pool` whose passage is among BM25's first ten."""
    questions = pool.questions[:: max(1, len(pool.questions) // count)][:count]
    scores = BM25(pool.passages).scores([question.text for question in questions])
    for question, row, found in zip(questions, scores, top(scores, 10), strict=True):
        right = np.flatnonzero(found == question.passage).tolist()
        if right:
            texts = [pool.passages[i] for i in found]
            yield Case(question.text, texts, right, row[found].tolist(), [])
