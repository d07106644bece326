"""From the bytes of a body to its known fields, in time and memory that do not follow its worst.

What no dialect reads is skipped without building it. It does not know any one API.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec
from msgspec import Raw

from rerank_core import DeadlineExceeded
from serve_app.http.errors import RefusedRequest, refused

# What the dialects call their lists of texts; all other fields are short.
LISTS = frozenset(
    (
        *("documents", "texts", "passages", "items", "input", "queries"),
        *("text_1", "text_2", "data_1", "data_2"),
    )
)
_SHORT = frozenset(
    (
        *("query", "model", "instruction", "rank_fields", "on_error", "score_threshold"),
        *("top_n", "top_k", "return_documents", "return_text", "return_input"),
        *("raw_scores", "use_activation", "priority"),
        *("max_tokens_per_doc", "max_tokens_per_query", "truncate_prompt_tokens"),
        *("truncate", "truncation", "truncation_direction"),
    )
)
_Body = msgspec.defstruct("_Body", [(name, Raw, Raw()) for name in sorted(LISTS | _SHORT)])
_body = msgspec.json.Decoder(_Body)
_fields = msgspec.json.Decoder(dict[str, Raw])
# Each field has a colon. With fewer than these their names can be told at little cost.
MOST_COLONS = 30_000
BAD_JSON = "the body is not valid JSON in UTF-8, or is nested too deep"
# An escape of a surrogate, or a pair of them, if no backslash escapes its own.
_SURROGATE = re.compile(rb"\\u([dD][89a-fA-F][0-9a-fA-F]{2})(\\u[dD][c-fC-F][0-9a-fA-F]{2})?")
_UNKNOWN = rb"\ufffd"
_MOST_SURROGATES = 20_000
_NOTHING = (b"", b"null")
# Below it the worst that a body can be is parsed within some 15 ms.
_LARGE_BYTES = 1_000_000
_T = TypeVar("_T")


class Parsing:
    """Calls what parses a body; for large ones in a thread, one at a time.

    Each call of a parser holds the interpreter, so a thread makes none of them faster; but the
    event loop runs between them, and not only after the last.
    """

    def __init__(self) -> None:
        self._large = asyncio.Lock()

    async def __call__(
        self,
        body: bytes,
        deadline: float,
        parse: Callable[..., _T],
        *arguments: Any,
        **options: Any,
    ) -> _T:
        """Return what `parse` makes of the arguments, which are the body or come from it.

        Raises DeadlineExceeded where others take until `deadline` (time.monotonic).
        """
        if len(body) < _LARGE_BYTES:
            return parse(*arguments, **options)
        try:
            async with asyncio.timeout(deadline - time.monotonic()):
                await self._large.acquire()
        except TimeoutError:
            message = "the deadline passed before the body was parsed; send less or allow more time"
            raise DeadlineExceeded(message) from None
        work = asyncio.ensure_future(asyncio.to_thread(parse, *arguments, **options))
        try:
            return await asyncio.shield(work)
        finally:
            # A client that leaves ends no thread: until that ends the body counts, and others wait.
            try:
                await asyncio.wait([work])
            finally:
                self._large.release()


def slice_fields(body: bytes) -> dict[str, Raw]:
    """Return the fields of a JSON object as they came, without nulls.

    Of very many only those that a dialect may read. Raises a 400 for what is no JSON object. Half
    an emoji (a surrogate alone) becomes U+FFFD.
    """
    body = body.removeprefix(b"\xef\xbb\xbf")
    try:
        fields = _slices(body)
    except RefusedRequest:
        fields = _slices(_SURROGATE.sub(_replacement, body, count=_MOST_SURROGATES))
    return {name: raw for name, raw in fields.items() if bytes(memoryview(raw)[:5]) not in _NOTHING}


def _slices(body: bytes) -> dict[str, Raw]:
    try:
        if body.count(b":") > MOST_COLONS:
            return msgspec.structs.asdict(_body.decode(body))
        return _fields.decode(body)
    except msgspec.ValidationError:
        raise refused(400, "bad_json", "the body must be a JSON object") from None
    except (msgspec.DecodeError, RecursionError):
        # The parser's own message can quote the text.
        raise refused(400, "bad_json", BAD_JSON) from None


def _replacement(found: re.Match[bytes]) -> bytes:
    """Return a pair of surrogates as it is, and U+FFFD for half of one."""
    first, second = found.groups()
    is_escape = _backslashes(found.string, found.start()) % 2 == 0
    if is_escape and second and first[1] in b"89abAB":
        return found[0]
    begin = _UNKNOWN if is_escape else rb"\u" + first
    return begin + (_UNKNOWN if second else b"")


def _backslashes(body: bytes, end: int) -> int:
    """Count the backslashes just before `end`, however many there are."""
    size = 64
    while True:
        before = body[max(0, end - size) : end]
        count = len(before) - len(before.rstrip(b"\\"))
        if count < len(before) or size >= end:
            return count
        size *= 2
