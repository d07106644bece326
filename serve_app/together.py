"""Several calls as one: all their results, or the first failure with the others cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any


async def all_or_none(calls: Iterable[Coroutine[Any, Any, Any]]) -> list[Any]:
    """Return all results in order; the first failure cancels the others and is raised."""
    begun = list(calls)
    if len(begun) == 1:
        # A task would cost some turns of the loop.
        return [await begun[0]]
    tasks = [asyncio.ensure_future(call) for call in begun]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
