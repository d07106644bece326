"""Callers' texts to token ids, each distinct text once, in bounded time whatever the text is.

No text can act as a control token: "[SEP]" in a document is five characters. It does not know
pairs or frames.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from rerank_core.errors import ModelUnavailable

Ids = npt.NDArray[np.int64]

# Longest text handed to the tokenizer, in characters per token that can be kept: real text has 1 to
# 6 a token, so the first pass is short, and the second bounds what a pathological text can cost.
_CHARACTERS_PER_TOKEN = (6, 24)
# Added tokens that steer a model although their tokenizer does not call them special.
_CONTROL = re.compile(r"<\|.+\|>|</?(think|tool_call|tool_response)>|\[[A-Z]+\]|</?s>")


@dataclass(slots=True)
class TextIds:
    """A text's ids, without special tokens; `cut` where the cap took characters off its end.

    `encoding` knows where each token lies, where that was asked for.
    """

    ids: Ids
    cut: bool
    encoding: Any = None


class TextTokenizer:
    """The Rust half of a fast tokenizer, its own unless `backend` is given."""

    def __init__(self, tokenizer: Any, backend: Any = None) -> None:
        self.backend = backend or text_backend(tokenizer)

    def batch(
        self, texts: Sequence[str], max_tokens: int, *, offsets: bool = False
    ) -> dict[str, TextIds | None]:
        """Tokenise the distinct texts; None for one that the tokenizer fails on.

        Of a longer text at least `max_tokens` are found, if it has them within the cap.
        """
        found: dict[str, TextIds | None] = {}
        waiting = list(dict.fromkeys(texts))
        for characters in _CHARACTERS_PER_TOKEN:
            limit = max_tokens * characters
            encodings = self._encode([text[:limit] for text in waiting], offsets)
            for text, encoding in zip(waiting, encodings, strict=True):
                ids = None if encoding is None else np.asarray(encoding.ids, dtype=np.int64)
                kept = encoding if offsets else None
                found[text] = None if ids is None else TextIds(ids, len(text) > limit, kept)
            # The last tokens before a cut may be halves of longer ones.
            waiting = [
                text
                for text in waiting
                if (one := found[text]) is not None
                and one.cut
                and len(one.ids) <= max_tokens + max_tokens // 8 + 8
            ]
            if not waiting:
                break
        return found

    def one(self, text: str) -> Ids | None:
        """Tokenise one text of trusted length; None where the tokenizer fails."""
        (encoding,) = self._encode([text], False)
        return None if encoding is None else np.asarray(encoding.ids, dtype=np.int64)

    def cut_text(self, text: str, max_tokens: int) -> tuple[str, bool] | None:
        """Return the text of the first `max_tokens` tokens, and whether it lost any."""
        found = self.batch([text], max_tokens, offsets=True)[text]
        if found is None:
            return None
        if len(found.ids) <= max_tokens and not found.cut:
            return clean_text(text), False
        # There are none of white space, nor of nothing.
        *_, end = [0, *(end for _, end in found.encoding.offsets[:max_tokens])]
        return clean_text(text)[:end], True

    def _encode(self, texts: list[str], offsets: bool) -> list[Any]:
        encode = self.backend.encode_batch if offsets else self.backend.encode_batch_fast
        try:
            return list(encode([clean_text(text) for text in texts], add_special_tokens=False))
        except BaseException as error:
            _raise_unless_tokenizer_failure(error)
            if len(texts) < 2:
                return [None] * len(texts)
            half = len(texts) // 2
            return self._encode(texts[:half], offsets) + self._encode(texts[half:], offsets)


def clean_text(text: str) -> str:
    """Replace halves of surrogate pairs, which are no characters and which tokenizers refuse."""
    if text.isascii():
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def text_backend(tokenizer: Any) -> Tokenizer:
    """Copy a fast tokenizer's Rust half for callers' texts: nothing in them is a control token.

    Truncation and padding that it saved are left out.
    """
    rust = getattr(tokenizer, "backend_tokenizer", None)
    if rust is None:
        raise ModelUnavailable(
            f"the tokenizer ({type(tokenizer).__name__}) has no fast form; save one as"
            " tokenizer.json, or name another model"
        )
    content = json.loads(rust.to_str())
    marks = set()
    for token in content["added_tokens"]:
        token["special"] = token["special"] or _CONTROL.fullmatch(token["content"]) is not None
        if token["special"]:
            marks.add(token["content"])
    model = content["model"]
    if model.get("type") == "Unigram":
        # Its vocabulary holds the marks, too, as its likeliest pieces.
        worst = 50 * min(score for _, score in model["vocab"]) - 50
        model["vocab"] = [
            [piece, worst if piece in marks and place != model["unk_id"] else score]
            for place, (piece, score) in enumerate(model["vocab"])
        ]
    backend = Tokenizer.from_str(json.dumps(content))
    backend.encode_special_tokens = True
    backend.no_truncation()
    backend.no_padding()
    return backend


def _raise_unless_tokenizer_failure(error: BaseException) -> None:
    # The tokenizer's Rust panics derive from BaseException; interrupts and exits are not ours.
    if not (isinstance(error, Exception) or type(error).__name__ == "PanicException"):
        raise error
