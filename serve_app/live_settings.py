"""A deployment's `user_config`: taken whole or not at all, and never at the cost of what runs."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

log = logging.getLogger("ray.serve")


class LiveSettings:
    """Hands new settings to `apply`, which raises ValueError for wrong ones and changes nothing.

    A wrong one stops a deployment that is starting, and leaves a running one as it was. Serve asks
    for a replica's health only after its first user_config: `started` is called from there.
    """

    def __init__(self, apply: Callable[[Mapping[str, Any]], None]) -> None:
        self._apply = apply
        self._running = False

    def started(self) -> None:
        """Note that the start is over."""
        self._running = True

    def take(self, user_config: Mapping[str, Any]) -> None:
        """Apply new settings, or log why they were refused."""
        try:
            self._apply(user_config)
        except ValueError:
            if not self._running:
                raise
            log.exception("user_config refused; the former settings stay")
