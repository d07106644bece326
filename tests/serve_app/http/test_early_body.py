"""A small body goes with its request; what is large, late or unfinished is received as ever."""

import asyncio
import pickle

import pytest
from ray.serve._private.http_util import ASGIReceiveProxy

from serve_app.http.early_body import EarlyBody, with_early_body

BODY = b'{"query": "q"}'
WHOLE = {"type": "http.request", "body": BODY, "more_body": False}
GONE = {"type": "http.disconnect"}


def went_along(sent, path="/v2/rerank", headers=()):
    """Return what a gateway finds in its scope, and what is left to be received."""
    found = []

    async def gateway(scope, receive, send):
        scope = pickle.loads(pickle.dumps(scope))
        without = dict(scope)
        early = with_early_body(scope, receive)
        assert scope == {name: value for name, value in without.items() if name in given}
        found.extend([await early() for _ in range(len(sent))])
        found.append(early is not receive)

    messages = list(sent)

    async def receive():
        return messages.pop(0)

    length = str(len(BODY)).encode()
    headers = [*headers] if headers else [(b"content-length", length)]
    given = {"type": "http", "method": "POST", "path": path, "headers": headers}
    asyncio.run(EarlyBody(gateway)(given, receive, None))
    return found


def test_a_body_that_is_there_goes_with_the_request_and_is_received_once():
    assert went_along([WHOLE, GONE]) == [WHOLE, GONE, True]


@pytest.mark.parametrize(
    "headers",
    [
        [(b"content-length", b"65537")],
        [(b"content-length", b"-1")],
        [(b"transfer-encoding", b"chunked")],
        [(b"transfer-encoding", b"chunked"), (b"content-length", b"14")],
        [(b"content-length", b"14"), (b"expect", b"100-continue")],
    ],
)
def test_a_large_body_or_one_of_unknown_length_is_not_waited_for(headers):
    assert went_along([WHOLE, GONE], headers=headers) == [WHOLE, GONE, False]


def test_another_applications_path_is_not_touched():
    assert went_along([WHOLE, GONE], path="/predict") == [WHOLE, GONE, False]


def test_a_body_that_is_not_whole_is_received_from_its_first_chunk():
    begun = {"type": "http.request", "body": BODY[:3], "more_body": True}
    rest = {"type": "http.request", "body": BODY[3:], "more_body": False}
    assert went_along([begun, rest]) == [begun, rest, False]


def test_a_body_that_is_larger_than_it_says_does_not_go_along():
    large = {**WHOLE, "body": b"x" * 65_537}
    assert went_along([large, GONE]) == [large, GONE, False]


def test_a_late_body_is_left_to_the_gateway(monkeypatch):
    monkeypatch.setattr("serve_app.http.early_body._WAIT_S", 0.0)
    asked = []

    async def main():
        arrived = asyncio.Event()

        async def gateway(scope, receive, send):
            assert not arrived.is_set()
            arrived.set()
            asked.append(await with_early_body(scope, receive)())

        async def receive():
            await arrived.wait()
            return WHOLE

        scope = {"type": "http", "method": "POST", "path": "/rerank"}
        scope["headers"] = [(b"content-length", b"14")]
        async with asyncio.timeout(10):
            await EarlyBody(gateway)(scope, receive, None)

    asyncio.run(main())
    assert asked == [WHOLE]


def test_a_client_that_leaves_at_once_is_seen():
    assert went_along([GONE]) == [GONE, False]


@pytest.mark.parametrize(("scope", "calls"), [({"ray_rerank.body": BODY}, 0), ({}, 1)])
def test_serve_asks_its_proxy_for_nothing_where_the_body_came_along(scope, calls):
    asked = []

    async def ask_proxy(metadata):
        asked.append(metadata)
        return pickle.dumps([WHOLE, GONE])

    async def main():
        receive = ASGIReceiveProxy({"type": "http"}, "metadata", ask_proxy)
        fetching = asyncio.create_task(receive.fetch_until_disconnect())
        assert await with_early_body(scope, receive)() == WHOLE
        await asyncio.sleep(0)
        fetching.cancel()

    asyncio.run(main())
    assert asked == ["metadata"] * calls
