"""What Serve's HTTP servers do with an `Upgrade` header: nothing, the request is served as it is.

Serve loads this where RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH names `callback`. Without it they
parse by httptools, which takes a body behind such a header for another protocol (`check_upgrade`).
"""

from __future__ import annotations

from starlette.middleware import Middleware
from uvicorn.config import HTTP_PROTOCOLS
from uvicorn.protocols.http.h11_impl import H11Protocol

from serve_app.http.asgi import Application, Receive, Scope, Send
from serve_app.http.early_body import EarlyBody
from serve_app.http.second_try import SecondTry


class WholeRequests(H11Protocol):
    """Reads a request to its end whatever it offers. A WebSocket, of another application, is a GET.

    h11 reads what follows as a body first, and as the next request only when we have answered.
    """

    def _should_upgrade(self) -> bool:
        return self.scope["method"] == "GET" and super()._should_upgrade()


class WithoutUpgrade:
    """Takes the header away: the gateway, which refuses it, then sees that it was parsed right."""

    def __init__(self, app: Application) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand one ASGI scope on."""
        if scope["type"] == "http":
            kept = [(name, value) for name, value in scope["headers"] if name != b"upgrade"]
            scope = {**scope, "headers": kept}
        await self._app(scope, receive, send)


def callback() -> list[Middleware]:
    """Make the HTTP servers of this process parse by h11; return the middleware for them.

    The first takes the header away. The others are for Serve's own proxy, which HAProxy falls back
    to: one asks again what a dying gateway left unanswered, one sends small bodies along.
    """
    HTTP_PROTOCOLS["auto"] = f"{WholeRequests.__module__}:{WholeRequests.__name__}"
    return [Middleware(WithoutUpgrade), Middleware(SecondTry), Middleware(EarlyBody)]
