"""What stands before, between and behind the texts of a pair: special tokens, or a prompt.

It does not know limits or models.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from rerank_core.catalog.families import Family, has_place
from rerank_core.errors import ModelUnavailable
from rerank_core.scorers.texts import Ids, TextIds, TextTokenizer
from rerank_core.types import QueryDocumentPair

_PROBES = (
    ("how many people live here", "About three million, most of them in the old town."),
    ("中国的首都", "北京是中国的首都。"),
    ("a", ""),
)
_UNREADABLE = (
    "the tokenizer joins a query and a document in a way that cannot be read off it; use its"
    " tokenizer.json with a pair template (special tokens before, between and behind)"
)


class Question(NamedTuple):
    """A query as a frame takes it: at most `limit` of its tokens, and the caller's instruction."""

    query: str
    limit: int
    instruction: str | None


@dataclass
class TemplateFrame:
    """The tokenizer's own pair: special tokens before, between and behind.

    `types` has the token types of query and document, and of what is behind (None: no types).
    `prefix` stands in the document's own text, for `prefix_tokens` of its tokens. `most` is what a
    query may keep at most, set by the encoder.
    """

    texts: TextTokenizer
    before: Ids
    between: Ids
    behind: Ids
    types: tuple[tuple[int, int], tuple[int, ...]] | None
    prefix: str = ""
    prefix_tokens: int = 0
    most: int = 0

    @property
    def tokens(self) -> int:
        """How many tokens of a pair are not text."""
        return len(self.before) + len(self.between) + len(self.behind)

    def question(self, pair: QueryDocumentPair, limit: int) -> Question:
        """Return the query behind its instruction, for which there is no other place."""
        return Question(pair.question, limit, None)

    def heads(self, asked: Iterable[Question]) -> dict[Question, tuple[Ids, bool] | None]:
        """Return the ids before the document and whether the query was cut; None: unreadable."""
        wanted = list(asked)
        # Not the largest limit among these: a query's ids would depend on its company.
        found = self.texts.batch([question.query for question in wanted], self.most)
        return {question: self._head(found[question.query], question.limit) for question in wanted}

    def tail(self, instruction: str | None) -> Ids:
        """Return the ids behind the document."""
        return self.behind

    def _head(self, query: TextIds | None, limit: int) -> tuple[Ids, bool] | None:
        if query is None:
            return None
        ids = np.concatenate((self.before, query.ids[:limit], self.between))
        return ids, query.cut or len(query.ids) > limit


class PromptFrame:
    """A family's prompt: every piece tokenised on its own, control tokens only in its own words."""

    types = None
    most = 0

    def __init__(self, family: Family, instruction: str | None, tokenizer: Any) -> None:
        self.texts = TextTokenizer(tokenizer)
        self._family = family
        self._instruction = instruction
        self._tokenizer = tokenizer
        bos = tokenizer.bos_token_id
        self._bos = [bos] if family.starts_with_bos and bos is not None else []
        self.prefix = family.around("")
        # Most calls ask for one tail; a caller's instructions may be many.
        self.tail = lru_cache(1000)(self._tail)
        self._refuse_marks()
        (probe,) = self.texts.batch([self.prefix + "word"], 64, offsets=True).values()
        self.prefix_tokens = (
            sum(end <= len(self.prefix) for _, end in probe.encoding.offsets) if probe else 0
        )
        self.tokens = len(self._before("", None)) + len(self.tail(None)) + self.prefix_tokens

    def _refuse_marks(self) -> None:
        """Raise ModelUnavailable for a control token where a caller's text stands beside it."""
        family = self._family
        own = [family.document, family.instruction_line, family.instruction]
        for piece in [*own, *(p for p in family.before + family.behind if has_place(p))]:
            plain = self.texts.one(piece)
            known = self._tokenizer(piece, add_special_tokens=False)["input_ids"]
            if plain is None or plain.tolist() != known:
                raise ModelUnavailable(
                    f"template {family.name} has a control token beside a placeholder, where it is"
                    f" read as plain text ({piece!r}); give it a piece of its own"
                )

    def question(self, pair: QueryDocumentPair, limit: int) -> Question:
        """Return query and instruction; the instruction before the query without a place for it."""
        if self._family.takes_instruction:
            return Question(pair.query, limit, pair.instruction)
        return Question(pair.question, limit, None)

    def heads(self, asked: Iterable[Question]) -> dict[Question, tuple[Ids, bool] | None]:
        """Return the ids before the document and whether the query was cut; None: unreadable."""
        return {question: self._head(question) for question in asked}

    def _tail(self, instruction: str | None) -> Ids:
        pieces = self._family.pieces(self._family.behind, "", instruction or self._instruction)
        return self._join([], pieces)

    def answers(self) -> list[int]:
        """Return the ids of the positive answer and, where there is one, of the negative."""
        found = []
        for answer in filter(None, [self._family.positive, self._family.negative]):
            ids = self.texts.one(answer)
            if ids is None or len(ids) != 1:
                raise ModelUnavailable(
                    f"the tokenizer has no single token {answer!r}, which the template"
                    f" {self._family.name} reads the score from; it is not a model of that family"
                )
            found.append(int(ids[0]))
        return found

    def _head(self, question: Question) -> tuple[Ids, bool] | None:
        query = self.texts.cut_text(question.query, question.limit)
        return query and (self._before(query[0], question.instruction), query[1])

    def _before(self, query: str, instruction: str | None) -> Ids:
        pieces = self._family.pieces(self._family.before, query, instruction or self._instruction)
        return self._join(self._bos, pieces)

    def _join(self, first: list[int], pieces: list[tuple[str, bool]]) -> Ids:
        parts = [np.array(first, dtype=np.int64)]
        for piece, from_caller in pieces:
            own = None if from_caller else self._tokenizer(piece, add_special_tokens=False)
            ids = self.texts.one(piece) if own is None else np.array(own["input_ids"], np.int64)
            if ids is None:
                raise ValueError("the tokenizer failed on a piece of the prompt")
            parts.append(ids)
        return np.concatenate(parts)


Frame = TemplateFrame | PromptFrame


def read_frame(tokenizer: Any, texts: TextTokenizer) -> TemplateFrame:
    """Read the frame off the tokenizer's own pairs, and check it on several.

    Raises ModelUnavailable where before, between and behind do not reproduce them.
    """
    queries, documents = zip(*_PROBES, strict=True)
    # In lists: alone, an empty document would be taken for none.
    whole = tokenizer(list(queries), list(documents))
    ids, types, sides = whole["input_ids"], whole.get("token_type_ids"), whole.sequence_ids(0)
    if not {0, 1} <= set(sides):
        raise ModelUnavailable(_UNREADABLE)
    start, again = sides.index(0), sides.index(1)
    turn, end = start + sides.count(0), again + sides.count(1)
    before, between, behind = ids[0][:start], ids[0][turn:again], ids[0][end:]
    kinds = None if types is None else ((types[0][start], types[0][again]), tuple(types[0][end:]))
    for place, probe in enumerate(_PROBES):
        bare = [texts.one(text) for text in probe]
        query, document = ([] if part is None else part.tolist() for part in bare)
        head = [*before, *query, *between]
        (one, other), rest = kinds or ((0, 0), ())
        wanted = [one] * len(head) + [other] * len(document) + list(rest)
        if ids[place] != [*head, *document, *behind] or (types and types[place] != wanted):
            raise ModelUnavailable(_UNREADABLE)
    first, middle, last = (np.array(part, np.int64) for part in (before, between, behind))
    return TemplateFrame(texts, first, middle, last, kinds)
