"""Whole responses, and how they are sent. It knows nothing of what they say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from serve_app.http.asgi import Send


@dataclass(frozen=True, slots=True)
class Reply:
    """One whole response."""

    status: int
    body: bytes
    media: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)


def json_reply(status: int, value: Any, headers: Mapping[str, str] | None = None) -> Reply:
    """Return `value` as a response of strict JSON."""
    return Reply(status, msgspec.json.encode(value), headers=headers or {})


async def send_reply(
    send: Send, reply: Reply, headers: Mapping[str, str], *, ends: bool = True
) -> None:
    """Send a response, with more headers; unless it `ends` now, the server waits for its end."""
    named = {
        "content-type": reply.media,
        "content-length": str(len(reply.body)),
        **reply.headers,
        **headers,
    }
    raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in named.items()]
    await send({"type": "http.response.start", "status": reply.status, "headers": raw})
    await send({"type": "http.response.body", "body": reply.body, "more_body": not ends})
