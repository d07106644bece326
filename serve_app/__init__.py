"""HTTP in, work units to replicas, answers out. `serve run serve_app:app` starts it."""

from serve_app.application import app

__all__ = ["app"]
