"""Before and after as numbers and plain text. It knows rankings and answers, not who ranked.

A ranking is a list of document ids, best first; rankings are given by question id.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from tools.demo.questions import Question

Rankings = Mapping[str, Sequence[str]]
Answers = Mapping[str, Collection[str]]

LANGUAGES = {"en": "English", "zh": "Chinese"}
MRR_DEPTH, RECALL_DEPTH = 10, 30


def answer_rank(ranking: Sequence[str], answers: Collection[str]) -> int | None:
    """Return the rank of the best answer, from 1, or None if no answer is in the ranking."""
    return next((rank for rank, name in enumerate(ranking, start=1) if name in answers), None)


def mrr(rankings: Rankings, answers: Answers, depth: int = MRR_DEPTH) -> float:
    """Return the mean of 1/rank over all questions; an answer below `depth` counts as 0."""
    ranks = [answer_rank(rankings.get(q, ())[:depth], names) for q, names in answers.items()]
    return sum(1 / rank for rank in ranks if rank) / len(ranks)


def recall_at(rankings: Rankings, answers: Answers, depth: int = RECALL_DEPTH) -> float:
    """Return the share of questions with an answer among the first `depth` documents."""
    ranks = [answer_rank(rankings.get(q, ())[:depth], names) for q, names in answers.items()]
    return sum(rank is not None for rank in ranks) / len(ranks)


def climb(before: Rankings, after: Rankings, answers: Answers) -> dict[str, int]:
    """Return by how many places each question's best answer rose (negative: fell).

    Questions whose answer was never proposed are left out: no reranker can help them.
    """
    moved = {}
    for question_id, names in answers.items():
        old = answer_rank(before.get(question_id, ()), names)
        new = answer_rank(after.get(question_id, ()), names)
        if old is not None and new is not None:
            moved[question_id] = old - new
    return moved


def largest_rise(scores: Sequence[float]) -> float:
    """Return by how much a later score exceeds an earlier one at most; 0 if the order is right."""
    lowest, rise = float("inf"), 0.0
    for score in scores:
        rise = max(rise, score - lowest)
        lowest = min(lowest, score)
    return rise


def table(questions: Sequence[Question], before: Rankings, after: Rankings) -> str:
    """Return one line per language and one for all of them."""
    groups = {
        title: [question for question in questions if question["language"] == language]
        for language, title in LANGUAGES.items()
    }
    lines = [
        f"                              MRR@{MRR_DEPTH}                  rank of the answer",
        f"           questions  recall@{RECALL_DEPTH}  first stage -> reranked    up  down  same"
        "  not proposed",
    ]
    for title, group in {**groups, "all": questions}.items():
        if group:
            lines.append(_line(title, group, before, after))
    return "\n".join(lines)


def _line(title: str, group: Sequence[Question], before: Rankings, after: Rankings) -> str:
    answers = {question["id"]: question["answers"] for question in group}
    moved = list(climb(before, after, answers).values())
    up, down = sum(step > 0 for step in moved), sum(step < 0 for step in moved)
    return (
        f"{title:<9}{len(group):>11}{recall_at(before, answers):>11.3f}"
        f"{mrr(before, answers):>13.3f} -> {mrr(after, answers):<8.3f}"
        f"{up:>6}{down:>6}{len(moved) - up - down:>6}{len(group) - len(moved):>14}"
    )


def examples(questions: Sequence[Question], before: Rankings, after: Rankings) -> str:
    """Return the top 3 before and after for three questions: both sides of the coin.

    They are the largest rise in each language and the largest fall, or the next rise without one.
    """
    answers = {question["id"]: question["answers"] for question in questions}
    moved = climb(before, after, answers)
    chosen: list[Question] = []

    def choose(candidates: Sequence[Question], *, falls: bool = False) -> None:
        sign = -1 if falls else 1
        left = [q for q in candidates if q not in chosen and sign * moved.get(q["id"], 0) > 0]
        if left:
            chosen.append(max(left, key=lambda question: sign * moved[question["id"]]))

    for language in LANGUAGES:
        choose([question for question in questions if question["language"] == language])
    choose(questions, falls=True)
    if len(chosen) < 3:
        choose(questions)
    return "\n\n".join(_example(question, before, after) for question in chosen)


def _example(question: Question, before: Rankings, after: Rankings) -> str:
    names = question["answers"]
    old, new = before[question["id"]], after[question["id"]]
    shown = [(_mark(a, names), _mark(b, names)) for a, b in zip(old[:3], new[:3], strict=True)]
    width = max(len(left) for left, _ in shown) + 4
    return "\n".join(
        [
            f"{question['question']}",
            f"    answer: {', '.join(names)}"
            f" (rank {answer_rank(old, names)} -> {answer_rank(new, names)})",
            *(f"    {n}. {left:<{width}}{right}" for n, (left, right) in enumerate(shown, 1)),
        ]
    )


def _mark(name: str, answers: Collection[str]) -> str:
    return f"[{name}]" if name in answers else f" {name}"
