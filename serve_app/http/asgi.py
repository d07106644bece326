"""ASGI's own types, and where in the tree of paths a request is. No server is imported for them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]


def local_path(scope: Scope) -> str:
    """Return the path below where the application is mounted (`route_prefix`); `` for that itself.

    ASGI servers and Ray's proxies put the mount point into both `root_path` and `path`.
    """
    path: str = scope["path"]
    root: str = scope.get("root_path", "").rstrip("/")
    below = path.removeprefix(root)
    return below if below.startswith("/") or not below else path


async def answer_server(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer what is no request: nothing is to be done at start and stop; no WebSocket is taken."""
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008})
        return
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
