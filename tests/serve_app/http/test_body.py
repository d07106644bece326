"""A refused body is read as long as its sender sends, and no longer."""

import asyncio

from serve_app.config import Limits
from serve_app.http.body import IncomingBody, discard_body

SCOPE = {"type": "http", "headers": []}


def discarded(chunks, pause_s=0.0):
    """Discard a body that stops after so many chunks, but does not end; return what was read."""
    read = []

    async def receive():
        if len(read) == chunks:
            await asyncio.Event().wait()
        await asyncio.sleep(pause_s)
        read.append(b"x")
        return {"type": "http.request", "body": b"x", "more_body": True}

    async def go():
        async with asyncio.timeout(20):
            await discard_body(SCOPE, IncomingBody(receive), Limits(body_timeout_s=60))

    asyncio.run(go())
    return len(read)


def test_a_sender_that_stops_is_not_waited_for(monkeypatch):
    monkeypatch.setattr("serve_app.http.body._IDLE_S", 0.05)
    assert [discarded(count) for count in (0, 3)] == [0, 3]


def test_a_slow_sender_is_read_to_its_end(monkeypatch):
    monkeypatch.setattr("serve_app.http.body._IDLE_S", 0.5)
    assert discarded(12, pause_s=0.06) == 12
