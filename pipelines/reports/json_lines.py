"""A finished result as JSON Lines, for small results: one row a line, in input order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from pipelines.commits.store import Store
from pipelines.commits.verify import open_result
from pipelines.inputs.ids import id_text
from pipelines.reports.side_files import whole
from rerank_core import InvalidRequest


def write_json_lines(store: Store, path: Path) -> None:
    """Write the rows of the finished job in `store`; the file appears whole or not at all.

    Bytes are text as in a TREC run, times are ISO 8601, decimals text, and no number is null.
    """
    try:
        with whole(path) as temporary, temporary.open("wb") as file:
            for batch in open_result(str(store)).to_batches():
                for row in batch.to_pylist():
                    file.write(msgspec.json.encode(_plain(row)) + b"\n")
    except UnicodeDecodeError:
        raise InvalidRequest(
            "JSON Lines cannot hold text that is not UTF-8", "json_lines"
        ) from None


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return id_text(value) if isinstance(value, bytes) else value
