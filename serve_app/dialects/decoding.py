"""From the bytes of a body to its known fields, in time and memory that do not follow its worst.

What no dialect reads is skipped without building it, and a list is counted before anything is made
of its entries: 8 MB of `[[],[],...]` would be millions of objects. It does not know any one API.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import cache
from itertools import takewhile
from typing import Any

import msgspec
import numpy as np
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
_entries = msgspec.json.Decoder(list[Raw])
_document = msgspec.json.Decoder(str | dict[str, Raw])
# So many fields each of as many documents as one request may have, however they share them.
_FIELDS_EACH = 50
_COLON, _QUOTE, _BACKSLASH, _SPACE = b':"\\ '
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
    first = _first(raw)
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
        counted = None
        if max_documents <= _MOST_COUNTED:
            counted = _counter(max_documents).decode(raw)
            check_count(counted.last is not None, name, max_documents)
        if bytes(memoryview(raw)).count(b":") > _MOST_COLONS:
            entries = msgspec.structs.astuple(counted) if counted else _entries.decode(raw)
            texts = _decode_large(name, takewhile(_is_there, entries), max_documents)
        else:
            texts = _documents.decode(raw)
    except msgspec.ValidationError as error:
        place = re.search(r"\$\[(\d+)\]", str(error))
        raise _no_text(f"{name}.{place[1]}" if place else name) from None
    except (msgspec.DecodeError, RecursionError):
        raise refused(400, "bad_json", _BAD_JSON) from None
    check_count(len(texts) > max_documents, name, max_documents)
    return [
        text if isinstance(text, str) else _object(f"{name}.{i}", text)
        for i, text in enumerate(texts)
    ]


def _decode_large(name: str, entries: Iterable[Raw], max_documents: int) -> list[Any]:
    """Decode one by one what may have very many fields, of which an object is made for each.

    Raises InvalidRequest for too many; what lies deeper is skipped and does not count.
    """
    most = left = _FIELDS_EACH * max_documents
    texts = []
    for i, entry in enumerate(entries):
        param = f"{name}.{i}"
        if _first(entry) == b"{" and _most_names(entry) > left:
            message = f"{param}: more than {most} fields in one request; send what is read"
            raise InvalidRequest(message, param)
        try:
            text = _document.decode(entry)
        except msgspec.ValidationError:
            raise _no_text(param) from None
        left -= len(text) if isinstance(text, dict) else 0
        texts.append(text)
    return texts


def _most_names(entry: Raw) -> int:
    """Return at least the names in a JSON object, at any depth, without making any of them.

    A colon that is not within a string has a quote or a space before it, and no escaped quote.
    """
    letters = np.frombuffer(entry, np.uint8)
    colons = np.flatnonzero(letters == _COLON)
    last, second, third = (letters[colons - back] for back in (1, 2, 3))
    escaped = (second == _BACKSLASH) & (third != _BACKSLASH)
    return int(np.count_nonzero((last <= _SPACE) | ((last == _QUOTE) & ~escaped)))


def _is_there(entry: Raw | None) -> bool:
    return entry is not None


def _first(raw: Raw) -> bytes:
    return bytes(memoryview(raw)[:1])


def _no_text(param: str) -> InvalidRequest:
    return InvalidRequest(f"{param}: must be a string or an object with a text", param)


def check_count(too_many: bool, name: str, most: int) -> None:
    """Raise InvalidRequest for a list of more than `most` texts."""
    if too_many:
        message = f"more than {most} {name}; limits.max_documents allows no more in one request"
        raise InvalidRequest(message, name)


def _object(param: str, fields: dict[str, Raw]) -> dict[str, Any]:
    """Decode what is no list and no object: that is read or handed back only as it came."""
    return {
        # A copy: what is handed back must not hold the whole body meanwhile.
        name: raw.copy()
        if bytes(memoryview(raw)[:1]) in (b"[", b"{")
        else _decode_value(param, raw)
        for name, raw in fields.items()
    }


def has_more(raw: Raw | bytes, most: int) -> bool:
    """Say whether a list has more entries than so many. Raises MsgspecError for what is no list."""
    return _counter(most).decode(raw).last is not None


@cache
def _counter(most: int) -> msgspec.json.Decoder[Any]:
    """Return what decodes a list without making anything of its entries beyond `most`."""
    entries = [(f"e{i}", Raw, None) for i in range(most)]
    kind = msgspec.defstruct("_Entries", [*entries, ("last", Raw, None)], array_like=True)
    return msgspec.json.Decoder(kind)
