"""Who is refused while sending hears it, and is read as long as it sends, within bounds."""

import asyncio
import contextlib

import pytest

from serve_app.config import Limits
from serve_app.http.api_keys import ApiKeys
from serve_app.http.body import IncomingBody
from serve_app.http.lingering import Lingering, discard
from serve_app.http.replies import Reply
from tests.serve_app.raw_http import exchange, head

SIZE = 8_000_000
FULL = {"admission": {"min_tokens": 16, "min_requests": 1}}
HELD = {"limits": {"max_body_bytes": SIZE, "max_held_bytes": SIZE}}
# Status, settings, and how the head differs.
REFUSALS = {
    "no such path": (404, {}, (b"/v2/rerank", b"/v3/rerank")),
    "another method": (405, {}, (b"POST", b"PUT")),
    "a deadline that is none": (400, {}, (b"host", b"x-rerank-timeout-seconds: x\r\nhost")),
    "another media type": (415, {}, (b"host", b"content-type: text/plain\r\nhost")),
    "no gzip": (400, {}, (b"host", b"content-encoding: gzip\r\nhost")),
    "no JSON, and so read": (400, {}, ()),
    "too large": (413, {"limits": {"max_body_bytes": 1_000_000}}, ()),
    "too many bodies": (429, HELD, ()),
    "too much work": (429, FULL, ()),
}


def ask(url, *change, version=b"1.1"):
    """Send a whole request before reading anything, as most clients do; return the status."""
    start = head(SIZE, "connection: close") if version == b"1.1" else head(SIZE)
    start = start.replace(*change) if change else start
    received = exchange(url, start.replace(b"HTTP/1.1", b"HTTP/" + version) + b" " * SIZE)
    return int(received.split()[1])


@pytest.mark.parametrize("name", REFUSALS)
def test_who_sends_is_not_cut_off_from_a_refusal(gateway_of, serve_as_ray_does, name):
    status, settings, change = REFUSALS[name]
    gateway = gateway_of(**settings).gateway
    with contextlib.ExitStack() as stack:
        if settings is FULL:
            for _ in range(2):
                stack.enter_context(gateway.admission["lexical"].admit(16))
        if settings is HELD:
            stack.enter_context(gateway._bodies.hold())(SIZE - 500_000)
        assert ask(stack.enter_context(serve_as_ray_does(gateway)), *change) == status


@pytest.mark.parametrize("version", [b"1.1", b"1.0"])
def test_who_has_no_key_hears_it_by_either_version_of_http(gateway_of, serve_as_ray_does, version):
    gateway = gateway_of(api_keys=ApiKeys(environment="tests: sesame")).gateway
    with serve_as_ray_does(gateway) as url:
        assert ask(url, version=version) == 401


def test_who_comes_to_a_gateway_that_stops_hears_it_and_is_not_waited_for(gateway_of):
    gateway, sent = gateway_of().gateway, []

    async def receive():
        await asyncio.Event().wait()

    async def send(message):
        sent.append(message)

    async def go():
        await gateway.drain(0)
        headers = [(b"content-length", b"9")]
        scope = {"type": "http", "method": "POST", "path": "/v2/rerank", "headers": headers}
        asked = asyncio.create_task(gateway(scope, receive, send))
        while len(sent) < 2:
            await asyncio.sleep(0)
        async with asyncio.timeout(3):
            await gateway.drain(60)
        asked.cancel()

    asyncio.run(go())
    assert (sent[0]["status"], sent[1]["more_body"]) == (503, True)


def wanted(*headers, version="1.1", closes=False, ended=False):
    scope = {"http_version": version, "headers": [(b"content-length", b"9"), *headers]}
    body = IncomingBody(None)
    body.ended = ended
    reply = Reply(429, b"", headers={"connection": "close"} if closes else {})
    return Lingering().wanted(scope, body, reply)


def test_only_a_connection_that_ends_is_read_on():
    assert wanted((b"Connection", b"Close"))
    assert wanted(closes=True)
    assert wanted(version="1.0")
    assert not wanted((b"connection", b"keep-alive"))


def test_nothing_is_read_on_that_has_ended_asked_first_or_offered_an_upgrade():
    assert not wanted(closes=True, ended=True)
    assert not wanted((b"expect", b"100-continue"), closes=True)
    assert not wanted((b"upgrade", b"h2c"), closes=True)


def test_a_request_without_a_body_is_not_read_on():
    scope = {"http_version": "1.0", "headers": [(b"connection", b"close")]}
    assert not Lingering().wanted(scope, IncomingBody(None), Reply(404, b""))


def test_beyond_so_many_at_once_connections_end_at_once(monkeypatch):
    monkeypatch.setattr("serve_app.http.lingering._MOST", 1)
    lingering, ends = Lingering(), []

    async def go():
        async def receive():
            lingers.set()
            await asyncio.Event().wait()

        lingers, body = asyncio.Event(), IncomingBody(receive)
        scope = {"http_version": "1.0", "headers": [(b"content-length", b"9")]}
        body.lingers = lingering.wanted(scope, body, Reply(401, b""))
        first = asyncio.create_task(lingering.end(body, None, Limits()))
        await asyncio.wait_for(lingers.wait(), 10)
        ends.append(lingering.wanted(scope, body, Reply(401, b"")))
        first.cancel()
        await asyncio.wait([first])
        ends.append(lingering.wanted(scope, body, Reply(401, b"")))

    asyncio.run(go())
    assert ends == [False, True]


def discarded(chunks, pause_s=0.0, **limits):
    """Discard a body that stops after so many chunks, but does not end; return what was read."""
    read = []

    async def receive():
        if len(read) == chunks:
            await asyncio.Event().wait()
        await asyncio.sleep(pause_s)
        read.append(b"x")
        return {"type": "http.request", "body": b"x" * 1024, "more_body": True}

    async def go():
        async with asyncio.timeout(20):
            await discard(IncomingBody(receive), Limits(**{"body_timeout_s": 60, **limits}))

    asyncio.run(go())
    return len(read)


def test_a_sender_that_stops_is_not_waited_for(monkeypatch):
    monkeypatch.setattr("serve_app.http.lingering._IDLE_S", 0.05)
    assert [discarded(count) for count in (0, 3)] == [0, 3]


def test_a_slow_sender_is_read_to_its_end(monkeypatch):
    monkeypatch.setattr("serve_app.http.lingering._IDLE_S", 0.5)
    assert discarded(12, pause_s=0.06) == 12


def test_of_what_never_ends_eight_bodies_are_read():
    assert discarded(100, max_body_bytes=1024) == 9
