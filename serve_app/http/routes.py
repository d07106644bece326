"""Which path leads where, and by which method."""

from __future__ import annotations

from serve_app.dialects import ROUTES, Dialect
from serve_app.http.errors import RefusedRequest, refused


def dialects_at(method: str, path: str) -> tuple[Dialect, ...]:
    """Return the APIs that answer on a path, none where nothing is scored. Raises a 405."""
    dialects = ROUTES.get(path, ())
    if dialects:
        check_method(method, "POST")
    return dialects


def check_method(method: str, allowed: str) -> None:
    """Raise a 405 that names what is allowed."""
    # Load balancers ask by HEAD; servers leave the body out.
    if method != allowed and (method, allowed) != ("HEAD", "GET"):
        raise refused(405, "invalid_request_error", f"use {allowed} here", allow=allowed)


def unknown_path() -> RefusedRequest:
    """Return the 404 of a path that leads nowhere."""
    return refused(404, "not_found_error", "no such path; /openapi.json lists them")
