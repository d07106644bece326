"""From pairs of text to token ids: each query and each distinct document tokenised once.

The pair's ids are put together with the tokenizer's own pair template, read off once and checked
against the tokenizer itself. It does not know models.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from rerank_core.types import QueryDocumentPair

Ids = npt.NDArray[np.int64]

# Longest text handed to the tokenizer, in characters per token that can be kept. Real text has 1 to
# 6 characters a token; the cap only bounds the time that a pathological text can cost.
_CHARACTERS_PER_TOKEN = 24
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
    document what is left. `backend` is the tokenizer's Rust half, its own unless given.
    """

    def __init__(
        self,
        tokenizer: Any,
        max_length: int,
        max_query_tokens: int | None,
        backend: Any = None,
    ) -> None:
        plain = bare_backend(tokenizer)
        self.backend = backend or plain
        self.template = read_template(tokenizer, plain)
        self.max_length = max_length
        room = max_length - self.template.special_tokens
        wanted = max_query_tokens if max_query_tokens is not None else max_length * 3 // 4
        self.max_query_tokens = max(1, min(wanted, room))

    def encode(
        self, pairs: Sequence[QueryDocumentPair]
    ) -> tuple[list[TokenizedPair | None], dict[int, str]]:
        """Tokenise pairs in input order; None and a reason for a pair that cannot be."""
        heads = self._texts_to_ids([query for query, _ in pairs], self.max_query_tokens)
        tails = self._texts_to_ids([document for _, document in pairs], self.max_length)
        prefix, middle, suffix = (
            np.asarray(part, dtype=np.int64)
            for part in (self.template.prefix, self.template.middle, self.template.suffix)
        )
        joined: dict[str, Ids] = {}
        out: list[TokenizedPair | None] = []
        errors: dict[int, str] = {}
        for index, (query, document) in enumerate(pairs):
            head, tail = heads[query], tails[document]
            if head is None or tail is None:
                part = "query" if head is None else "document"
                errors[index] = f"the tokenizer failed on the {part}; send other text"
                out.append(None)
                continue
            query_ids = head.ids[: self.max_query_tokens]
            if query not in joined:
                joined[query] = np.concatenate((prefix, query_ids, middle))
            room = self.max_length - len(joined[query]) - len(suffix)
            cut = head.cut or tail.cut or len(tail.ids) > room or len(query_ids) < len(head.ids)
            kept = np.concatenate((tail.ids[: max(0, room)], suffix))
            out.append(TokenizedPair(joined[query], kept, cut))
        return out, errors

    def longest_pair(self) -> TokenizedPair:
        """Return a pair of `max_length` tokens that mean nothing."""
        template = self.template
        head = np.array((*template.prefix, *template.middle), dtype=np.int64)
        filler = np.resize(head, self.max_length - len(head) - len(template.suffix))
        return TokenizedPair(head, np.append(filler, template.suffix).astype(np.int64), False)

    def _texts_to_ids(self, texts: Sequence[str], max_tokens: int) -> dict[str, _TextIds | None]:
        distinct = list(dict.fromkeys(texts))
        limit = max_tokens * _CHARACTERS_PER_TOKEN
        cut = [text[:limit] for text in distinct]
        return {
            text: None if ids is None else _TextIds(ids, len(text) > limit)
            for text, ids in zip(distinct, self._batch_ids(cut), strict=True)
        }

    def _batch_ids(self, texts: list[str]) -> list[Ids | None]:
        try:
            encodings = self.backend.encode_batch_fast(texts, add_special_tokens=False)
        except BaseException as error:
            # The tokenizer's Rust panics derive from BaseException; anything else is not ours.
            if not _is_tokenizer_failure(error):
                raise
            return [self._ids_alone(text) for text in texts]
        return [np.asarray(encoding.ids, dtype=np.int64) for encoding in encodings]

    def _ids_alone(self, text: str) -> Ids | None:
        # Half a surrogate pair is no character; the tokenizer refuses the whole batch for one.
        clean = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        try:
            encoding = self.backend.encode_batch_fast([clean], add_special_tokens=False)[0]
        except BaseException as error:
            if not _is_tokenizer_failure(error):
                raise
            return None
        return np.asarray(encoding.ids, dtype=np.int64)


@dataclass(frozen=True, slots=True)
class _TextIds:
    ids: Ids
    cut: bool


def _is_tokenizer_failure(error: BaseException) -> bool:
    return isinstance(error, Exception) or type(error).__name__ == "PanicException"


def bare_backend(tokenizer: Any) -> Tokenizer:
    """Copy a fast tokenizer's Rust half, without the truncation and padding it saved."""
    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    backend.no_truncation()
    backend.no_padding()
    return backend


def read_template(tokenizer: Any, backend: Tokenizer) -> PairTemplate:
    """Read the pair template off the tokenizer, and check it on several pairs.

    Raises TemplateUnknown where prefix, middle and suffix do not reproduce the tokenizer.
    """
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
