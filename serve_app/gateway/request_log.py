"""One request and what became of it: all that headers, the log line and metrics need. No texts."""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from serve_app.dialects import Answer
from serve_app.gateway.fan_out import Gathered

# What may stand in a header.
_PLAIN = re.compile(r"[\w.-]+\Z", re.ASCII)


@dataclass(slots=True)
class RequestRecord:
    """Filled in while a request is answered; times are in seconds, `truncated` and `failed` have
    indices."""

    path: str
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    key: str = ""
    dialect: str = ""
    model: str = ""
    status: int = 0
    error_type: str = ""
    documents: int = 0
    tokens: int = 0
    truncated: tuple[int, ...] = ()
    failed: tuple[int, ...] = ()
    ignored: tuple[str, ...] = ()
    gathered: Gathered | None = None
    started: float = field(default_factory=time.monotonic)
    ended: float = 0.0

    @property
    def total_s(self) -> float:
        """Seconds from the first header to the answer."""
        return (self.ended or time.monotonic()) - self.started

    def answered(self, answer: Answer) -> None:
        """Note what an answer says of its documents."""
        self.tokens = answer.result.tokens
        self.truncated, self.failed = answer.truncated, answer.failed

    def headers(self) -> dict[str, str]:
        """Return the response headers; times in milliseconds, under TEI's names."""
        if not self.gathered:
            return {}
        return {
            # Some APIs' answers have no place for it; a name may have any letters, a header not.
            "x-rerank-model": quote(self.model),
            **_listed("x-truncated-documents", self.truncated),
            **_listed("x-failed-documents", self.failed),
            **_listed("x-ignored-fields", [name for name in self.ignored if _PLAIN.match(name)]),
            "x-compute-tokens": str(self.tokens),
            "x-queue-time": f"{self.gathered.queue_s * 1000:.1f}",
            "x-inference-time": f"{self.gathered.inference_s * 1000:.1f}",
            "x-total-time": f"{self.total_s * 1000:.1f}",
        }

    def log_fields(self) -> dict[str, Any]:
        """Return what the log line says, as flat JSON values."""
        fields = {
            "rerank_id": self.id,
            "path": self.path[:80],
            "key": self.key,
            "dialect": self.dialect,
            "model": self.model,
            "status": self.status,
            "error_type": self.error_type,
            "documents": self.documents,
            "tokens": self.tokens,
            "truncated": len(self.truncated),
            "failed": len(self.failed),
            "total_ms": round(self.total_s * 1000, 1),
        }
        if self.gathered:
            fields |= {
                "units": self.gathered.units,
                "retries": self.gathered.retries,
                "mixed": self.gathered.mixed,
                "hedged": self.gathered.hedged,
                "queue_ms": round(self.gathered.queue_s * 1000, 1),
                "inference_ms": round(self.gathered.inference_s * 1000, 1),
            }
        return fields


def _listed(name: str, indices: Sequence[int | str]) -> dict[str, str]:
    # The first hundred: nginx refuses headers of more than 4 KB in all.
    shown = [str(index) for index in indices[:100]] + ["..."] * (len(indices) > 100)
    return {name: ",".join(shown)} if shown else {}


Observe = Callable[[RequestRecord], None]
