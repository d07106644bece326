"""From pairs of text to token ids within the limits; long documents to one item per passage.

Each query and each distinct document is tokenised once; passages are slices of a document's ids.
It does not know models.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from rerank_core.documents import Passage, SplitPolicy, read_passages
from rerank_core.limits import PairLimits
from rerank_core.scorers.frame import Frame, Question
from rerank_core.scorers.texts import Ids, TextIds
from rerank_core.types import QueryDocumentPair

_NO_ROOM = "the instruction, or the limit of tokens, leaves no room for the document"
_EMPTY = Question("", 1, None)


class Asked(NamedTuple):
    """A pair whose texts are ids: its document's, and what stands around it (`head`, `tail`).

    `cut` says that the head has not the whole query.
    """

    pair: QueryDocumentPair
    question: Question
    document: TextIds
    head: Ids
    cut: bool
    tail: Ids


@dataclass(frozen=True, slots=True)
class TokenizedPair:
    """A pair as ids: `head` (all before the document) is shared by the query's pairs.

    `truncated` says that the model does not see the whole pair.
    """

    head: Ids
    tail: Ids
    truncated: bool

    def __len__(self) -> int:
        return len(self.head) + len(self.tail)


@dataclass(frozen=True, slots=True, eq=False)
class PreparedPair:
    """What tokenising made of a pair: its items, several for `passages`, or why there are none.

    `unread`: even the passages leave something out.
    """

    items: Sequence[TokenizedPair] = ()
    error: str | None = None
    passages: Sequence[Passage] = ()
    unread: bool = False


def items_of(prepared: Iterable[PreparedPair]) -> list[TokenizedPair]:
    """Return the items of all, in order."""
    return [item for one in prepared for item in one.items]


class PairEncoder:
    """Encodes pairs for one model, whose `limits` count a whole pair with its frame.

    `passage_score` is how the scores of passages become the document's.
    """

    def __init__(
        self,
        frame: Frame,
        max_length: int,
        max_query_tokens: int | None,
        policy: SplitPolicy | None,
    ) -> None:
        self.frame = frame
        self.limits = PairLimits.of(max_length, max_query_tokens, frame.tokens)
        frame.most = self.limits.max_query_tokens
        self.policy = policy
        self.passage_score = "max" if policy is None else policy.score
        longest = max_length
        if policy is not None:
            longest = policy.size(max_length) * policy.max_passages + 1
        self._document_tokens = longest + frame.prefix_tokens

    def encode(self, pairs: Sequence[QueryDocumentPair]) -> list[PreparedPair]:
        """Return what becomes of each pair, in input order."""
        frame = self.frame
        asked = [frame.question(pair, self.limits.query(pair)) for pair in pairs]
        heads = self._heads(list(dict.fromkeys(asked)))
        texts = [frame.prefix + pair.document for pair in pairs]
        offsets = self.policy is not None
        documents = frame.texts.batch(texts, self._document_tokens, offsets=offsets)
        return [
            self._prepare(pair, question, heads[question], documents[text])
            for pair, question, text in zip(pairs, asked, texts, strict=True)
        ]

    def _heads(self, asked: list[Question]) -> dict[Question, tuple[Ids, bool] | None]:
        try:
            return self.frame.heads(asked)
        except Exception:
            # One text's fault, which is found, and then is its pairs' alone.
            if len(asked) < 2:
                return dict.fromkeys(asked)
            return self._heads(asked[: len(asked) // 2]) | self._heads(asked[len(asked) // 2 :])

    def _prepare(
        self,
        pair: QueryDocumentPair,
        question: Question,
        head: tuple[Ids, bool] | None,
        document: TextIds | None,
    ) -> PreparedPair:
        if head is None or document is None:
            part = "query" if head is None else "document"
            return PreparedPair(error=f"the tokenizer failed on the {part}; send other text")
        try:
            tail = self.frame.tail(question.instruction)
            return self._cut(Asked(pair, question, document, *head, tail))
        except Exception as error:
            # A text that the tokenizer changed may not fit its offsets: one pair's fault.
            return PreparedPair(error=f"the pair could not be encoded ({type(error).__name__})")

    def _cut(self, asked: Asked) -> PreparedPair:
        """Make a pair's items: one, or one for each passage of a document that is too long."""
        pair, prefix = asked.pair, self.frame.prefix_tokens
        room = self.limits.room(pair, len(asked.head) + len(asked.tail)) - prefix
        if room < 1:
            return PreparedPair(error=_NO_ROOM)
        found = self._passages(asked, room)
        if found is None:
            kept = room if pair.max_document_tokens is None else min(room, pair.max_document_tokens)
            cut = asked.cut or asked.document.cut or len(asked.document.ids) - prefix > kept
            return PreparedPair([self._item(asked, Passage(0, len(pair.document), 0, kept), cut)])
        items = [self._item(asked, passage, asked.cut) for passage in found[0]]
        return PreparedPair(items, None, *found)

    def _passages(self, asked: Asked, room: int) -> tuple[list[Passage], bool] | None:
        """Return a long document's passages, in its own text and tokens; None where all fits."""
        prefix, shift = self.frame.prefix_tokens, len(self.frame.prefix)
        if self.policy is None or len(asked.document.ids) - prefix <= self.policy.size(room):
            return None
        spans = asked.document.encoding.offsets[prefix:]
        offsets = [(max(0, start - shift), end - shift) for start, end in spans]
        most = asked.pair.max_document_tokens
        return read_passages(asked.pair.document, offsets, self.policy, room, most)

    def _item(self, asked: Asked, passage: Passage, cut: bool) -> TokenizedPair:
        """Return what the model reads of a passage."""
        prefix, ids = self.frame.prefix_tokens, asked.document.ids
        body = ids[prefix + passage.first : prefix + passage.last]
        parts = (ids[:prefix], body, asked.tail) if prefix else (body, asked.tail)
        return TokenizedPair(asked.head, np.concatenate(parts), cut)

    def longest_pair(self) -> TokenizedPair:
        """Return a pair of `max_length` tokens that mean nothing."""
        head = next(iter(self.frame.heads([_EMPTY]).values()))
        before = head[0] if head else np.zeros(1, np.int64)
        tail = self.frame.tail(None)
        word = self.frame.texts.one("a")
        filler = np.resize(before if word is None or not len(word) else word,
                           self.limits.max_length - len(before) - len(tail))  # fmt: skip
        return TokenizedPair(before, np.concatenate((filler, tail)), False)
