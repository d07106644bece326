"""A small body goes to the gateway with its request, instead of being asked for.

Serve's proxy hands a request on without its body; the gateway asks the proxy for that by an actor
call, then by another one for what follows. In HAProxy mode gateways are asked without it.
"""

from __future__ import annotations

import asyncio
from typing import Any

from serve_app.http.asgi import Application, Message, Receive, Scope, Send
from serve_app.http.routes import reranks

# What a client still sends then is left to the gateway and its time limit.
_WAIT_S = 0.1
_MAX_BYTES = 64 << 10
_KEY = "ray_rerank.body"


class EarlyBody:
    """Puts a body that is there, or will be at once, into the scope, which goes to the gateway.

    It is received as ever too: by another application that has the path.
    """

    def __init__(self, app: Application) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI scope."""
        if not (reranks(scope) and _is_small(scope)):
            await self._app(scope, receive, send)
            return
        first: list[Message] = []
        try:
            async with asyncio.timeout(_WAIT_S):
                first.append(await receive())
        except TimeoutError:
            pass
        if first and first[0]["type"] == "http.request" and not first[0].get("more_body"):
            body = first[0].get("body", b"")
            scope = {**scope, _KEY: body} if len(body) <= _MAX_BYTES else scope

        async def listen() -> Message:
            return first.pop() if first else await receive()

        await self._app(scope, listen, send)


def with_early_body(scope: Scope, receive: Receive) -> Receive:
    """Return what receives the body that came with the request, `receive` where none did.

    What follows it may never come: Serve cancels a request whose client has left.
    """
    body = scope.pop(_KEY, None)
    if body is None:
        return receive
    if hasattr(receive, "_receive_asgi_messages"):
        # Serve asks the proxy beside every request, as long as it lasts.
        receive._receive_asgi_messages = _nothing
    messages = [{"type": "http.request", "body": body, "more_body": False}]

    async def early() -> Message:
        if messages:
            return messages.pop()
        message = await receive()
        # It was sent twice: here and as ever.
        return await receive() if message["type"] == "http.request" else message

    return early


def without_expect(scope: Scope) -> Scope:
    """Return the scope without `expect: 100-continue`, which has been answered.

    Serve receives a body before its gateway asks for it, so the client has been told to send.
    """
    if scope["type"] != "http":
        return scope
    kept = [(name, value) for name, value in scope["headers"] if name.lower() != b"expect"]
    return {**scope, "headers": kept}


async def _nothing(_: Any) -> bytes:
    await asyncio.get_running_loop().create_future()
    return b""


def _is_small(scope: Scope) -> bool:
    headers = dict(scope["headers"])
    length = headers.get(b"content-length", b"")
    waits = b"expect" in headers or b"transfer-encoding" in headers
    return length.isdigit() and int(length) <= _MAX_BYTES and not waits
