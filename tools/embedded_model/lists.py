"""Makes training lists: one question, right passages first, then wrong ones that look right.

Draws from the pools and their mined candidates, cuts passages to windows of several lengths,
changes script between simplified and traditional, and shortens questions to keywords.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from zhconv import convert

from tools.embedded_model.bm25 import terms
from tools.embedded_model.training_text import Pool, Question
from tools.embedded_model.traps import make_trap_list

# Share of each source among the lists.
SHARES = {
    "cmrc": 0.15,
    "drcd": 0.28,
    "debian": 0.13,
    "python": 0.05,
    "stdlib": 0.34,
    "traps": 0.05,
}
# Longest passages in characters: the window is drawn anew for each list.
_EARLY = (40, 80, 130, 130, 130, 200, 260)
_LATE = (40, 130, 200, 300, 1000, 1000, 1000, 1000)
_ALIKE = 0.97
# What each teacher's score counts in logits. On the training questions their sum ranks best about
# here, and hardly worse with BM25 at 0.2 or the English cosine at 25.
_TEACHERS = {"cosine": 50, "english": 12.5, "lexical": 0.125}
# How far (in logits) a random passage lies below the last one that was mined.
_BELOW = 2.0
# How far (in logits) a passage without its answer lies below the best one.
_WITHOUT = 3.0
_ASKING = re.compile(
    r"什么|甚麼|什麼|哪里|哪裡|哪些|哪个|哪個|哪一|哪|谁|誰|多少|几|幾|怎么|怎麼|如何|为何|為何|请问|請問|是否|吗|嗎|呢|了|的|是|？|\?"
)
_OPENINGS = ("how to ", "what is ", "which tool provides ", "how do I ", "")


@dataclass(frozen=True)
class TrainingList:
    """`texts` starts with `right` right passages; `teacher` has a score for each text."""

    query: str
    texts: list[str]
    right: int
    teacher: list[float] | None = None


@dataclass
class Source:
    """A pool with its mined candidates: indices (-1 pads), their scores, and their likeness."""

    pool: Pool
    found: NDArray[np.int32]
    scores: NDArray[np.float32]
    alike: NDArray[np.float32]

    @classmethod
    def load(cls, pool_path: Path, mined_path: Path) -> Source:
        """Read a pool and what `mine` wrote about it; the teacher's score is the sum of all."""
        mined = np.load(mined_path)
        scores = sum((mined[name] * factor for name, factor in _TEACHERS.items()), np.float32(0))
        return cls(Pool.load(pool_path), mined["places"], scores, mined["alike"])

    def __post_init__(self) -> None:
        self.articles: dict[str, list[int]] = {}
        for i, group in enumerate(self.pool.groups):
            self.articles.setdefault(group, []).append(i)
        self.answers: dict[str, set[int]] = {}
        for question in self.pool.questions:
            self.answers.setdefault(question.text, set()).add(question.passage)


class ListMaker:
    """Draws lists; the same seed and the same calls give the same lists."""

    def __init__(self, sources: dict[str, Source], seed: int) -> None:
        self._sources = sources
        self._rng = random.Random(seed)
        self._names = list(SHARES)
        self._weights = [SHARES[name] for name in self._names]

    def draw(self, late: bool) -> TrainingList:
        """One list; `late` in training the passages are long, early they are mostly short."""
        name = self._rng.choices(self._names, self._weights)[0]
        if name == "traps":
            made = make_trap_list(self._rng)
            drawn = TrainingList(made.query, made.right + made.wrong, len(made.right))
        elif name in ("cmrc", "drcd"):
            drawn = self._answer_list(self._sources[name], late)
        else:
            drawn = self._description_list(self._sources[name], late, name)
        return self._change_script(drawn)

    def _candidates(self, source: Source, index: int, hard: int, easy: int) -> dict[int, float]:
        """The right passage, `hard` wrong ones that were mined, `easy` random ones, in this order.

        With their teacher scores; what nobody scored lies below what was mined.
        """
        question = source.pool.questions[index]
        group = source.pool.groups[question.passage]
        by_article = source.articles[group] if source.pool.name in ("cmrc", "drcd") else []
        answers = source.answers[question.text]
        columns = (source.found[index], source.scores[index], source.alike[index])
        found = [row for row in zip(*(c.tolist() for c in columns), strict=True) if row[0] >= 0]
        scores = {i: score for i, score, _ in found}
        low = min(scores.values()) - _BELOW
        mined = [
            i
            for i, _, alike in found
            if i not in answers
            and (by_article or (alike < _ALIKE and source.pool.groups[i] != group))
        ]
        # Paragraphs of the same article are what a question about it is most often given instead.
        siblings = [i for i in by_article if i not in answers]
        picked = self._rng.sample(siblings, min(len(siblings), self._rng.randrange(3)))
        # The first ones of both lists are the hardest: prefer them, but not only them.
        ranked = [i for i in sorted(mined, key=lambda i: -scores[i]) if i not in picked]
        first = self._rng.sample(ranked[:8], min(len(ranked), 8, hard - hard // 3 - len(picked)))
        rest = [i for i in ranked if i not in first]
        picked += first + self._rng.sample(rest, min(len(rest), hard // 3))
        while len(picked) < hard + easy:
            other = self._rng.randrange(len(source.pool.passages))
            if other not in answers and source.pool.groups[other] != group:
                picked.append(other)
        return {i: scores.get(i, low) for i in (question.passage, *picked)}

    def _answer_list(self, source: Source, late: bool) -> TrainingList:
        rng, pool = self._rng, source.pool
        index = rng.randrange(len(pool.questions))
        question = pool.questions[index]
        size = rng.choice(_LATE if late else _EARLY)
        first, *wrong = found = self._candidates(source, index, 4 if size > 400 else 5, 0)
        text = pool.passages[first]
        asked = frozenset(terms(question.text))
        texts = [self._around(text, question, size)]
        texts += [self._cut(pool.passages[i], asked, size) for i in wrong]
        teacher = list(found.values()) if size > 400 else None
        if question.answer and rng.random() < 0.3:
            trap = self._cut(text if size <= 200 else _without_answer(text, question), asked, size)
            if trap and question.answer not in trap:
                texts.append(trap)
                if teacher:
                    teacher.append(max(teacher) - _WITHOUT)
        query = question.text
        if rng.random() < 0.15:
            query = re.sub(r"\s+", " ", _ASKING.sub(" ", query)).strip() or query
        return TrainingList(query, texts, 1, teacher)

    def _around(self, text: str, question: Question, size: int) -> str:
        """A window of about `size` characters with the answer in it, from a sentence's start."""
        if len(text) <= size:
            return text
        if question.start < 0:
            return text[:size]
        end = question.start + len(question.answer)
        start = max(0, min(question.start, end - self._rng.randint(size // 3, size)))
        stops = [m.end() for m in re.finditer(r"[。！？；]", text[: question.start])]
        near = [s for s in stops if start <= s] or [stops[-1] if stops and size < 100 else start]
        start = near[0]
        stop = max(end, start + size)
        if size < 100:
            found = re.search(r"[。！？；]", text[end:])
            stop = min(stop + 40, end + found.end()) if found else stop
        return text[start:stop]

    def _cut(self, text: str, asked: frozenset[str], size: int) -> str:
        """A window: where the question's words are densest, or anywhere."""
        if len(text) <= size:
            return text
        if self._rng.random() < 0.4:
            start = self._rng.randrange(len(text) - size)
        else:
            hits = [text[i : i + 2].lower() in asked for i in range(len(text))]
            sums = np.concatenate([[0], np.cumsum(hits)])
            start = int(np.argmax(sums[size:] - sums[:-size]))
        stop = re.search(r"[。！？；，]", text[max(0, start - 15) : start + 1])
        if stop and size < 400:
            start = max(0, start - 15) + stop.end()
        return text[start : start + size]

    def _description_list(self, source: Source, late: bool, name: str) -> TrainingList:
        rng, pool = self._rng, source.pool
        index = rng.randrange(len(pool.questions))
        question = pool.questions[index]
        found = self._candidates(source, index, 4, 3)
        size = rng.choice((200, 500, 500, 900) if late else (80, 150, 300, 500))
        query, text = question.text, pool.passages[question.passage]
        # The teachers scored the whole passage for the question as it stands.
        whole = size >= 500
        sentences = [s for s in re.split(r"(?<=[.!?。]) ?", text) if 30 < len(s) < 200]
        if name == "debian" and len(sentences) > 2 and rng.random() < 0.25:
            query, whole = rng.choice(sentences[1:]), False
            text = text.replace(query, "")
        if query.isascii() and name != "stdlib":
            query = query.rstrip(".")
            if rng.random() < 0.4:
                query = rng.choice(_OPENINGS) + query[0].lower() + query[1:]
            if rng.random() < 0.15:
                words = query.split()
                query, whole = " ".join(w for w in words if rng.random() < 0.7) or query, False
        texts = [text[:size], *(pool.passages[i][:size] for i in list(found)[1:])]
        return TrainingList(query, texts, 1, list(found.values()) if whole else None)

    def _change_script(self, drawn: TrainingList) -> TrainingList:
        """Sometimes all in the other script, sometimes only the question."""
        chance = self._rng.random()
        if chance > 0.3:
            return drawn
        script = self._rng.choice(("zh-cn", "zh-tw"))
        texts = drawn.texts if chance > 0.22 else [_converted(t, script) for t in drawn.texts]
        return TrainingList(_converted(drawn.query, script), texts, drawn.right, drawn.teacher)


def _without_answer(text: str, question: Question) -> str:
    """The passage without the sentence that answers: all about the matter, and no answer."""
    start = max((m.end() for m in re.finditer(r"[。！？；]", text[: question.start])), default=0)
    end = re.search(r"[。！？；]", text[question.start + len(question.answer) :])
    stop = question.start + len(question.answer) + end.end() if end else len(text)
    return text[:start] + text[stop:]


@lru_cache(maxsize=20_000)
def _converted(text: str, script: str) -> str:
    return text if text.isascii() else str(convert(text, script))
