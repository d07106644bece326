"""From a body's fields, as they came, to values, in time and memory that do not follow their worst.

A list is counted before anything is made of its entries: 8 MB of `[[],[],...]` would be millions of
objects. It does not know any one API.
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
from serve_app.dialects.decoding import BAD_JSON, LISTS, MOST_COLONS
from serve_app.http.errors import refused

_SHORT_BYTES = 65_536
_value = msgspec.json.Decoder()
_documents = msgspec.json.Decoder(list[str | dict[str, Raw]])
_entries = msgspec.json.Decoder(list[Raw])
_document = msgspec.json.Decoder(str | dict[str, Raw])
# So many fields each of as many documents as one request may have, however they share them.
_FIELDS_EACH = 50
_COLON, _QUOTE, _BACKSLASH, _SPACE = b':"\\ '
# Above it a list is counted when it is there.
_MOST_COUNTED = 10_000


def decode_fields(fields: Mapping[str, Raw], max_documents: int) -> dict[str, Any]:
    """Return the values of fields.

    A list of texts holds strings, and objects whose own lists and objects stay raw. Raises
    InvalidRequest for long lists and wrong entries.
    """
    return {name: _decode(name, raw, max_documents) for name, raw in fields.items()}


def _decode(name: str, raw: Raw, max_documents: int) -> Any:
    first = _first(raw)
    if first == b"[" and name in LISTS:
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
        raise refused(400, "bad_json", BAD_JSON) from None


def _decode_texts(name: str, raw: Raw, max_documents: int) -> list[Any]:
    try:
        counted = None
        if max_documents <= _MOST_COUNTED:
            counted = _counter(max_documents).decode(raw)
            check_count(counted.last is not None, name, max_documents)
        if bytes(memoryview(raw)).count(b":") > MOST_COLONS:
            entries = msgspec.structs.astuple(counted) if counted else _entries.decode(raw)
            texts = _decode_large(name, takewhile(_is_there, entries), max_documents)
        else:
            texts = _documents.decode(raw)
    except msgspec.ValidationError as error:
        place = re.search(r"\$\[(\d+)\]", str(error))
        raise _no_text(f"{name}.{place[1]}" if place else name) from None
    except (msgspec.DecodeError, RecursionError):
        raise refused(400, "bad_json", BAD_JSON) from None
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
        name: raw.copy() if _first(raw) in (b"[", b"{") else _decode_value(param, raw)
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
