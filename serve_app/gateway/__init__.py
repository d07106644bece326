"""A request's life between HTTP and the replicas: admission, fan-out, ranking. It knows no Ray."""

from serve_app.gateway.gateway import Gateway

__all__ = ["Gateway"]
