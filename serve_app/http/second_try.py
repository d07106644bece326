"""A gateway that dies with requests in its hands costs their callers time, no answer.

Serve's proxy gives such a request up: it sends nothing, and its server makes that a bare 500. A
rerank request may be asked twice, so it goes through the proxy once more, to another gateway. In
HAProxy mode no request passes here; HAProxy does the same where RAY_SERVE_HAPROXY_RETRY_ON says so.
"""

from __future__ import annotations

from serve_app.http.asgi import Application, Message, Receive, Scope, Send
from serve_app.http.routes import reranks


class SecondTry:
    """Asks an application once more that returned without an answer, with what it had read."""

    def __init__(self, app: Application) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI scope."""
        # What another application of this Serve understands by its paths is not ours to repeat.
        if not reranks(scope):
            await self._app(scope, receive, send)
            return
        read: list[Message] = []
        answered = False

        async def remember(message: Message) -> None:
            nonlocal answered
            if not answered:
                # The body is held no longer than until somebody answers.
                answered = True
                read.clear()
            await send(message)

        async def listen() -> Message:
            message = await receive()
            if not answered:
                read.append(message)
            return message

        # The proxy writes into its scope, where the path begins for instance.
        await self._app({**scope}, listen, remember)
        if answered or any(message["type"] == "http.disconnect" for message in read):
            return
        again = iter(read.copy())

        async def repeat() -> Message:
            return next(again, None) or await receive()

        await self._app({**scope}, repeat, send)
