"""Single texts to token ids, each distinct text once, in bounded time whatever the text is.

It does not know pairs or templates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

Ids = npt.NDArray[np.int64]

# Longest text handed to the tokenizer, in characters per token that can be kept. Real text has 1 to
# 6 characters a token; the cap only bounds the time that a pathological text can cost.
CHARACTERS_PER_TOKEN = 24


@dataclass(frozen=True, slots=True)
class TextIds:
    """A text's ids, without special tokens; `cut` where the cap took characters off its end."""

    ids: Ids
    cut: bool


class TextTokenizer:
    """The Rust half of a fast tokenizer, its own unless `backend` is given."""

    def __init__(self, tokenizer: Any, backend: Any = None) -> None:
        self.backend = backend or bare_backend(tokenizer)

    def batch(self, texts: Sequence[str], max_tokens: int) -> dict[str, TextIds | None]:
        """Tokenise the distinct texts; None for one that the tokenizer fails on."""
        distinct = list(dict.fromkeys(texts))
        limit = max_tokens * CHARACTERS_PER_TOKEN
        cut = [text[:limit] for text in distinct]
        return {
            text: None if ids is None else TextIds(ids, len(text) > limit)
            for text, ids in zip(distinct, self._batch_ids(cut), strict=True)
        }

    def one(self, text: str) -> Ids | None:
        """Tokenise one text of trusted length."""
        encoding = self._encode_clean(text)
        return None if encoding is None else np.asarray(encoding.ids, dtype=np.int64)

    def offsets(self, text: str, max_tokens: int) -> list[tuple[int, int]] | None:
        """Return where each of the first tokens lies in `text`: (first character, one past)."""
        capped = text[: max_tokens * CHARACTERS_PER_TOKEN]
        encoding = self._encode_clean(capped, offsets=True)
        return None if encoding is None else list(encoding.offsets)

    def cut_text(self, text: str, max_tokens: int) -> tuple[str, int, bool] | None:
        """Return the text of the first `max_tokens` tokens, their count, whether it lost any."""
        offsets = self.offsets(text, max_tokens)
        if offsets is None:
            return None
        capped = clean_text(text[: max_tokens * CHARACTERS_PER_TOKEN])
        if len(offsets) > max_tokens:
            end = offsets[max_tokens - 1][1] if max_tokens > 0 else 0
            return capped[:end], max_tokens, True
        return capped, len(offsets), len(capped) < len(text)

    def _batch_ids(self, texts: list[str]) -> list[Ids | None]:
        try:
            encodings = self.backend.encode_batch_fast(texts, add_special_tokens=False)
        except BaseException as error:
            _raise_unless_tokenizer_failure(error)
            return [self.one(text) for text in texts]
        return [np.asarray(encoding.ids, dtype=np.int64) for encoding in encodings]

    def _encode_clean(self, text: str, offsets: bool = False) -> Any:
        encode = self.backend.encode_batch if offsets else self.backend.encode_batch_fast
        try:
            return encode([clean_text(text)], add_special_tokens=False)[0]
        except BaseException as error:
            _raise_unless_tokenizer_failure(error)
            return None


def clean_text(text: str) -> str:
    """Replace halves of surrogate pairs, which are no characters and which tokenizers refuse."""
    if text.isascii():
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def bare_backend(tokenizer: Any) -> Tokenizer:
    """Copy a fast tokenizer's Rust half, without the truncation and padding it saved."""
    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    backend.no_truncation()
    backend.no_padding()
    return backend


def _raise_unless_tokenizer_failure(error: BaseException) -> None:
    # The tokenizer's Rust panics derive from BaseException; interrupts and exits are not ours.
    if not (isinstance(error, Exception) or type(error).__name__ == "PanicException"):
        raise error
