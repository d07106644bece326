"""How an error of ours gets from a worker to the driver, and so to the exit code.

Ray Data wraps what a stage raises in an error of its own, and the kind is lost on the way; a line
that says the kind is not. It does not know which errors there are.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from pipelines.commits.records import lean_json
from rerank_core import RerankError


def failure_line(error: RerankError) -> str:
    """Return the line that stands for the error in a stage's output."""
    return json.dumps({"error": type(error).__name__, "text": str(error)})


def read_line(text: str) -> dict[str, Any]:
    """Return the line of a stage; raises the error that it stands for."""
    line: dict[str, Any] = lean_json(text)
    if "error" in line:
        kinds = {kind.__name__: kind for kind in _kinds(RerankError)}
        raise kinds.get(line["error"], RerankError)(line["text"])
    return line


def _kinds(kind: type[RerankError]) -> Iterator[type[RerankError]]:
    yield kind
    for below in kind.__subclasses__():
        yield from _kinds(below)
