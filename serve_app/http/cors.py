"""Which pages of other origins may call: what browsers ask for (CORS). Off by default."""

from __future__ import annotations

import re
from collections.abc import Sequence

from serve_app.http.asgi import Scope
from serve_app.http.replies import Reply

_EXPOSED = (
    "x-request-id, x-rerank-model, x-truncated-documents, x-failed-documents, x-ignored-fields,"
    " x-compute-tokens, x-queue-time, x-inference-time, x-total-time, retry-after"
)
# Names of headers, comma separated, as browsers ask for them; clients' libraries have their own.
_NAMES = re.compile(r"[\w!#$%&'*+.^`|~-]+(?:[ \t]*,[ \t]*[\w!#$%&'*+.^`|~-]+)*", re.ASCII)
_LONGEST_NAMES = 4096
_REMEMBERED_S = "600"


class Cors:
    """Lets pages of `origins` call, every page with `*`; cookies are never asked for."""

    def __init__(self, origins: Sequence[str]) -> None:
        self._origins = frozenset(origins)

    def preflight(self, scope: Scope) -> Reply | None:
        """Return the answer to a browser's question before a request, None for all else."""
        asks = scope["method"] == "OPTIONS" and _header(scope, b"access-control-request-method")
        if not asks or not self.headers(scope):
            return None
        headers = {
            "access-control-allow-methods": "GET, POST",
            "access-control-max-age": _REMEMBERED_S,
        }
        names = _header(scope, b"access-control-request-headers")
        if len(names) <= _LONGEST_NAMES and _NAMES.fullmatch(names):
            headers["access-control-allow-headers"] = names
        return Reply(204, b"", headers=headers)

    def headers(self, scope: Scope) -> dict[str, str]:
        """Return what every answer to a page of an allowed origin says."""
        origin = _header(scope, b"origin") if self._origins else ""
        if not origin or self._origins.isdisjoint((origin, "*")):
            return {}
        return {
            "access-control-allow-origin": origin,
            "access-control-expose-headers": _EXPOSED,
            "vary": "origin",
        }


def _header(scope: Scope, wanted: bytes) -> str:
    for name, value in scope["headers"]:
        if name.lower() == wanted:
            return bytes(value).decode("latin-1")
    return ""
