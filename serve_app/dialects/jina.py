"""Jina, on `/v1/rerank`, which it shares with Cohere v1: one answer holds what both need.

Documents come back unless the caller says no: clients that never ask read them, and Cohere's v1
client does not mind.
"""

from __future__ import annotations

from functools import partial

from serve_app.dialects.cohere import write
from serve_app.dialects.dialect import Dialect, common_error
from serve_app.dialects.documents import DocumentsBody, read

JINA = Dialect(
    "jina",
    DocumentsBody,
    partial(read, documents_by_default=True),
    partial(write, version="1"),
    common_error,
)
