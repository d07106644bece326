"""Made-up short lists that punish shared words: facts about countries and books, and topics.

Each list asks one thing; the wrong passages repeat the question's words about something else, as
an institute named after a capital does. The lists cover both languages. China, its cities and
artificial intelligence are left to the checks and appear in none of them.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from tools.embedded_model.trap_facts import (
    ASKED,
    ASPECTS,
    ASPECTS_EN,
    BOOK_ASKED,
    BOOKS,
    COUNTRIES,
    TOPICS,
)


@dataclass(frozen=True)
class TrapList:
    """A query with right and wrong passages, all of one or two sentences."""

    query: str
    right: list[str]
    wrong: list[str]


def _rows(table: str) -> list[list[str]]:
    return [line.split("|") for line in table.strip().split("\n")]


_COUNTRY_ROWS = [
    [tuple(part.replace("_", " ") for part in cell.split(" ")) for cell in row]
    for row in _rows(COUNTRIES)
]
_BOOK_ROWS = [
    [tuple(part.replace("_", " ") for part in cell.split(" ")) for cell in row[:2]]
    + [(row[2], row[2])]
    for row in _rows(BOOKS)
]
_TOPIC_ROWS = _rows(TOPICS)


def make_trap_list(rng: random.Random) -> TrapList:
    """One list: countries half of the time, books a fifth, topics the rest."""
    kind = rng.random()
    if kind < 0.5:
        return _fact_list(rng)
    return _book_list(rng) if kind < 0.7 else _topic_list(rng)


def _fact_list(rng: random.Random) -> TrapList:
    column, *forms = rng.choice((ASKED[0], *ASKED))
    english = rng.random() < 0.35
    one, two = rng.sample(_COUNTRY_ROWS, 2)
    pick = int(english)
    names = {
        "c": one[0][pick],
        "a": one[column][pick],
        "k": one[1][pick],
        "o": one[2][pick],
        "d": two[0][pick],
        "b": two[1][pick],
    }
    question, right, wrong = forms[3:] if english else forms[:3]
    other = {**names, "c": two[0][pick], "a": two[column][pick], "k": two[1][pick]}
    traps = [text.format(**names) for text in rng.sample(wrong, min(5, len(wrong)))]
    if two[column] != one[column] or english:
        traps.append(rng.choice(right).format(**other))
    return _finish(rng, rng.choice(question).format(**names), right, names, traps)


def _book_list(rng: random.Random) -> TrapList:
    english = int(rng.random() < 0.35)
    one, two = rng.sample(_BOOK_ROWS, 2)
    names = dict(zip("twy", (cell[english] for cell in one), strict=True))
    names |= {"u": two[0][english], "v": two[1][english]}
    question, right, wrong = BOOK_ASKED[3:] if english else BOOK_ASKED[:3]
    traps = [text.format(**names) for text in rng.sample(wrong, 4)]
    return _finish(rng, rng.choice(question).format(**names), right, names, traps)


def _finish(
    rng: random.Random, query: str, right: tuple[str, ...], names: dict[str, str], traps: list[str]
) -> TrapList:
    answers = [text.format(**names) for text in rng.sample(right, rng.choice((1, 1, 2)))]
    return TrapList(query, answers, traps)


def _topic_list(rng: random.Random) -> TrapList:
    mine = rng.choice(_TOPIC_ROWS)
    chinese = not mine[0].isascii()
    others = [row for row in _TOPIC_ROWS if row is not mine and row[0].isascii() != chinese]
    wrong = [rng.choice(row[1:]) for row in rng.sample(others, 4)]
    if chinese:
        query = mine[0] + rng.choice(ASPECTS)
    else:
        aspect = rng.choice(ASPECTS_EN)
        query = aspect + mine[0] if aspect.endswith(" ") else mine[0] + aspect
    return TrapList(query, rng.sample(mine[1:], rng.choice((1, 2, 2, 3))), wrong)
