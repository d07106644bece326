"""From pairs of text to token ids within the limits; long documents to one item per passage.

Each query and each distinct document is tokenised once; passages are slices of a document's ids.
It does not know models.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from rerank_core.documents import Passage, SplitPolicy, read_passages
from rerank_core.limits import PairLimits
from rerank_core.scorers.frame import Frame, Question
from rerank_core.scorers.texts import Ids, TextIds
from rerank_core.types import QueryDocumentPair

NO_ROOM = "the instruction, or the limit of tokens, leaves no room for the document"
_EMPTY = Question("", 1, None)


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


@dataclass(slots=True)
class Encoded:
    """Items in the order of their pairs. `owners` has the pair of each item; a pair has none where
    `errors` says why, and several where `passages` has it. `unread`: even those left something out.
    """

    items: list[TokenizedPair] = field(default_factory=list)
    owners: list[int] = field(default_factory=list)
    errors: dict[int, str] = field(default_factory=dict)
    passages: dict[int, list[Passage]] = field(default_factory=dict)
    unread: set[int] = field(default_factory=set)

    def add_passages(self, pair: int, passages: list[Passage], left_out: bool) -> None:
        """Say that a pair's items are these passages of its document."""
        self.passages[pair] = passages
        if left_out:
            self.unread.add(pair)


class PairEncoder:
    """Encodes pairs for one model, whose `limits` count a whole pair with its frame."""

    def __init__(
        self,
        frame: Frame,
        max_length: int,
        max_query_tokens: int | None,
        policy: SplitPolicy | None,
    ) -> None:
        self.frame = frame
        self.limits = PairLimits.of(max_length, max_query_tokens, frame.tokens)
        self.policy = policy
        longest = max_length
        if policy is not None:
            longest = policy.size(max_length) * policy.max_passages + 1
        self._document_tokens = longest + frame.prefix_tokens

    def encode(self, pairs: Sequence[QueryDocumentPair]) -> Encoded:
        """Encode pairs in input order."""
        frame, out = self.frame, Encoded()
        asked = [frame.question(pair, self.limits.query(pair)) for pair in pairs]
        heads = frame.heads(dict.fromkeys(asked))
        prefix = frame.prefix
        texts = [prefix + pair.document if prefix else pair.document for pair in pairs]
        split = self.policy is not None
        documents = frame.texts.batch(texts, self._document_tokens, offsets=split)
        for index, (pair, question, text) in enumerate(zip(pairs, asked, texts, strict=True)):
            head, document = heads[question], documents[text]
            if head is None or document is None:
                part = "query" if head is None else "document"
                out.errors[index] = f"the tokenizer failed on the {part}; send other text"
                continue
            tail = frame.tail(question.instruction)
            room = self.limits.room(pair, len(head[0]) + len(tail))
            if room <= frame.prefix_tokens and (frame.prefix or pair.max_tokens is not None):
                out.errors[index] = NO_ROOM
            elif not (split and self._split(index, pair, (head, tail), document, out)):
                if pair.max_document_tokens is not None:
                    room = min(room, pair.max_document_tokens + frame.prefix_tokens)
                cut = head[1] or document.cut or len(document.ids) > room
                ids = np.concatenate((document.ids[:room], tail))
                out.items.append(TokenizedPair(head[0], ids, cut))
                out.owners.append(index)
        return out

    def longest_pair(self) -> TokenizedPair:
        """Return a pair of `max_length` tokens that mean nothing."""
        head = next(iter(self.frame.heads([_EMPTY]).values()))
        before = head[0] if head else np.zeros(1, np.int64)
        tail = self.frame.tail(None)
        word = self.frame.texts.one("a")
        filler = np.resize(before if word is None or not len(word) else word,
                           self.limits.max_length - len(before) - len(tail))  # fmt: skip
        return TokenizedPair(before, np.concatenate((filler, tail)), False)

    def _split(
        self,
        index: int,
        pair: QueryDocumentPair,
        around: tuple[tuple[Ids, bool], Ids],
        document: TextIds,
        out: Encoded,
    ) -> bool:
        """Add a long document's passages; False where it is to be read as it is."""
        prefix, shift = self.frame.prefix_tokens, len(self.frame.prefix)
        policy = self.policy or SplitPolicy()
        head, tail = around
        room = self.limits.room(pair, len(head[0]) + len(tail))
        if len(document.ids) - prefix <= policy.size(room - prefix):
            return False
        offsets = [(max(0, a - shift), b - shift) for a, b in document.encoding.offsets[prefix:]]
        try:
            found = read_passages(
                pair.document, offsets, policy, room - prefix, pair.max_document_tokens
            )
        except Exception as error:
            # A text that the tokenizer changed may not fit its offsets: this pair's fault alone.
            out.errors[index] = f"the document could not be split ({type(error).__name__})"
            return True
        if found is None:
            return False
        before, body = document.ids[:prefix], document.ids[prefix:]
        for passage in found[0]:
            ids = np.concatenate((before, body[passage.first : passage.last], tail))
            out.items.append(TokenizedPair(head[0], ids, head[1]))
            out.owners.append(index)
        out.add_passages(index, *found)
        return True
