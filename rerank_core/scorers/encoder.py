"""From pairs of text to token ids: each query and each distinct document tokenised once.

The pair's ids are put together with the tokenizer's own pair template, read off once and checked
against the tokenizer itself. It does not know models.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from rerank_core.limits import PairLimits
from rerank_core.scorers.texts import Ids, TextTokenizer, bare_backend
from rerank_core.types import QueryDocumentPair

_PROBES = (
    ("how many people live here", "About three million, most of them in the old town."),
    ("中国的首都", "北京是中国的首都。"),
    ("a", ""),
)


class TemplateUnknown(Exception):
    """The tokenizer builds pairs in a way that prefix, middle and suffix cannot express."""


@dataclass(frozen=True, slots=True)
class PairTemplate:
    """The ids around a query and a document, and the token types of both halves (or None)."""

    prefix: tuple[int, ...]
    middle: tuple[int, ...]
    suffix: tuple[int, ...]
    types: tuple[int, int] | None

    @property
    def special_tokens(self) -> int:
        """How many tokens of a pair are not text."""
        return len(self.prefix) + len(self.middle) + len(self.suffix)


@dataclass(frozen=True, slots=True)
class TokenizedPair:
    """A pair as ids: `head` (prefix, query, middle) is shared by the query's pairs."""

    head: Ids
    tail: Ids
    truncated: bool

    def __len__(self) -> int:
        return len(self.head) + len(self.tail)


class PairTokenizer:
    """Tokenises pairs for one model.

    `max_length` counts a whole pair, special tokens included. A query keeps `max_query_tokens`, the
    document what is left; both less where the pair itself says so.
    """

    def __init__(
        self,
        tokenizer: Any,
        max_length: int,
        max_query_tokens: int | None,
        texts: TextTokenizer | None = None,
    ) -> None:
        self.texts = texts or TextTokenizer(tokenizer)
        self.template = read_template(tokenizer)
        self.max_length = max_length
        self._limits = PairLimits.of(max_length, max_query_tokens, self.template.special_tokens)

    def document_room(self, pair: QueryDocumentPair) -> int:
        """Return how many of the document's tokens the model can read beside the query."""
        limit = self._limits.query(pair)
        query = self.texts.batch([pair.question], self._limits.max_query_tokens)[pair.question]
        taken = 0 if query is None else min(limit, len(query.ids))
        return self._limits.document(pair, self.template.special_tokens + taken)

    def encode(
        self, pairs: Sequence[QueryDocumentPair]
    ) -> tuple[list[TokenizedPair | None], dict[int, str]]:
        """Tokenise pairs in input order; None and a reason for a pair that cannot be."""
        heads = self.texts.batch([pair.question for pair in pairs], self._limits.max_query_tokens)
        tails = self.texts.batch([pair.document for pair in pairs], self.max_length)
        joined: dict[tuple[str, int], Ids] = {}
        out: list[TokenizedPair | None] = []
        errors: dict[int, str] = {}
        for index, pair in enumerate(pairs):
            head, tail = heads[pair.question], tails[pair.document]
            if head is None or tail is None:
                part = "query" if head is None else "document"
                errors[index] = f"the tokenizer failed on the {part}; send other text"
                out.append(None)
                continue
            limit = self._limits.query(pair)
            key = (pair.question, limit)
            if key not in joined:
                joined[key] = self._join(
                    self.template.prefix, head.ids[:limit], self.template.middle
                )
            room = self._limits.document(pair, len(joined[key]) + len(self.template.suffix))
            cut = head.cut or tail.cut or len(tail.ids) > room or limit < len(head.ids)
            kept = self._join((), tail.ids[:room], self.template.suffix)
            out.append(TokenizedPair(joined[key], kept, cut))
        return out, errors

    def longest_pair(self) -> TokenizedPair:
        """Return a pair of `max_length` tokens that mean nothing."""
        template = self.template
        head = self._join(template.prefix, (), template.middle)
        filler = np.resize(head, self.max_length - len(head) - len(template.suffix))
        return TokenizedPair(head, self._join((), filler, template.suffix), False)

    @staticmethod
    def _join(before: Sequence[int], ids: Ids | tuple[()], after: Sequence[int]) -> Ids:
        return np.concatenate([np.asarray(part, dtype=np.int64) for part in (before, ids, after)])


def read_template(tokenizer: Any) -> PairTemplate:
    """Read the pair template off the tokenizer, and check it on several pairs.

    Raises TemplateUnknown where prefix, middle and suffix do not reproduce the tokenizer.
    """
    backend = bare_backend(tokenizer)
    query, document = _PROBES[0]
    whole = tokenizer(query, document)
    ids: list[int] = list(whole["input_ids"])
    first = backend.encode(query, add_special_tokens=False).ids
    second = backend.encode(document, add_special_tokens=False).ids
    start = _find(ids, first, 0)
    turn = start + len(first)
    again = _find(ids, second, turn)
    types: list[int] | None = whole.get("token_type_ids")
    kinds = None if types is None else (types[start], types[again])
    template = PairTemplate(
        tuple(ids[:start]), tuple(ids[turn:again]), tuple(ids[again + len(second) :]), kinds
    )
    for query, document in _PROBES:
        _check_template(template, tokenizer, backend, query, document)
    return template


def _check_template(
    template: PairTemplate, tokenizer: Any, backend: Tokenizer, query: str, document: str
) -> None:
    expected = tokenizer([query], [document])
    first, second = (
        backend.encode(text, add_special_tokens=False).ids for text in (query, document)
    )
    head = [*template.prefix, *first, *template.middle]
    tail = [*second, *template.suffix]
    types = template.types
    built = None if types is None else [types[0]] * len(head) + [types[1]] * len(tail)
    same = expected["input_ids"][0] == head + tail
    if not same or (built is not None and expected["token_type_ids"][0] != built):
        raise TemplateUnknown(
            "the tokenizer's pairs are not prefix, query, middle, document, suffix"
        )


def _find(ids: list[int], part: list[int], start: int) -> int:
    for place in range(start, len(ids) - len(part) + 1):
        if ids[place : place + len(part)] == part:
            return place
    raise TemplateUnknown("the text's own tokens do not appear in the tokenizer's pair")
