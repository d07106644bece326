"""From the bytes of a body to its known fields, in time and memory that do not follow its worst.

What no dialect reads is skipped without building it, and a list is counted before anything is made
of its entries: 8 MB of `[[],[],...]` would be millions of objects. It does not know any one API.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from typing import Any

import msgspec
from msgspec import Raw

from rerank_core import InvalidRequest
from serve_app.http.errors import RefusedRequest, refused

# What the dialects call their lists of texts; all other fields are short.
_LISTS = frozenset(
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
_SHORT_BYTES = 65_536
_Body = msgspec.defstruct("_Body", [(name, Raw, Raw()) for name in sorted(_LISTS | _SHORT)])
_body = msgspec.json.Decoder(_Body)
_fields = msgspec.json.Decoder(dict[str, Raw])
# Each field has a colon. With fewer than these their names can be told at little cost.
_MOST_COLONS = 30_000
_value = msgspec.json.Decoder()
_documents = msgspec.json.Decoder(list[str | dict[str, Raw]])
_BAD_JSON = "the body is not valid JSON in UTF-8, or is nested too deep"
# An escape of a surrogate, or a pair of them, if no backslash escapes its own.
_SURROGATE = re.compile(rb"\\u([dD][89a-fA-F][0-9a-fA-F]{2})(\\u[dD][c-fC-F][0-9a-fA-F]{2})?")
_UNKNOWN = rb"\ufffd"
_MOST_SURROGATES = 20_000
_NOTHING = (b"", b"null")
# Above it a list is counted when it is there.
_MOST_COUNTED = 10_000


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


def decode_fields(fields: Mapping[str, Raw], max_documents: int) -> dict[str, Any]:
    """Return the values of fields.

    A list of texts holds strings, and objects whose own lists and objects stay raw. Raises
    InvalidRequest for long lists and wrong entries.
    """
    return {name: _decode(name, raw, max_documents) for name, raw in fields.items()}


def _slices(body: bytes) -> dict[str, Raw]:
    try:
        if body.count(b":") > _MOST_COLONS:
            return msgspec.structs.asdict(_body.decode(body))
        return _fields.decode(body)
    except msgspec.ValidationError:
        raise refused(400, "bad_json", "the body must be a JSON object") from None
    except (msgspec.DecodeError, RecursionError):
        # The parser's own message can quote the text.
        raise refused(400, "bad_json", _BAD_JSON) from None


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


def _decode(name: str, raw: Raw, max_documents: int) -> Any:
    first = bytes(memoryview(raw)[:1])
    if first == b"[" and name in _LISTS:
        return _decode_texts(name, raw, max_documents)
    if first != b'"' and len(memoryview(raw)) > _SHORT_BYTES:
        raise InvalidRequest(f"{name} is larger than {_SHORT_BYTES} bytes", name)
    return _decode_value(name, raw)


def _decode_value(param: str, raw: Raw) -> Any:
    try:
        return _value.decode(raw)
    except msgspec.ValidationError:
        raise InvalidRequest(f"{param}: a number in it is not finite or too long", param) from None
    except (msgspec.DecodeError, RecursionError):
        raise refused(400, "bad_json", _BAD_JSON) from None


def _decode_texts(name: str, raw: Raw, max_documents: int) -> list[Any]:
    try:
        if max_documents <= _MOST_COUNTED:
            last = _counter(max_documents).decode(raw).last
            check_count(bool(memoryview(last)), name, max_documents)
        texts = _documents.decode(raw)
    except msgspec.ValidationError as error:
        place = re.search(r"\$\[(\d+)\]", str(error))
        param = f"{name}.{place[1]}" if place else name
        raise InvalidRequest(f"{param}: must be a string or an object with a text", param) from None
    except (msgspec.DecodeError, RecursionError):
        raise refused(400, "bad_json", _BAD_JSON) from None
    check_count(len(texts) > max_documents, name, max_documents)
    return [
        text if isinstance(text, str) else _object(f"{name}.{i}", text)
        for i, text in enumerate(texts)
    ]


def check_count(too_many: bool, name: str, most: int) -> None:
    """Raise InvalidRequest for a list of more than `most` texts."""
    if too_many:
        message = f"more than {most} {name}; limits.max_documents allows no more in one request"
        raise InvalidRequest(message, name)


def _object(param: str, fields: dict[str, Raw]) -> dict[str, Any]:
    """Decode what is no list and no object: that is read or handed back only as it came."""
    return {
        name: raw if bytes(memoryview(raw)[:1]) in (b"[", b"{") else _decode_value(param, raw)
        for name, raw in fields.items()
    }


@cache
def _counter(most: int) -> msgspec.json.Decoder[Any]:
    """Return what decodes a list without making anything of its entries beyond `most`."""
    entries = [(f"e{i}", Raw, Raw()) for i in range(most)]
    kind = msgspec.defstruct("_Entries", [*entries, ("last", Raw, Raw())], array_like=True)
    return msgspec.json.Decoder(kind)
