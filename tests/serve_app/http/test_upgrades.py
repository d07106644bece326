"""An offered upgrade changes nothing where Serve's servers parse as our callback makes them."""

import re

import pytest

from tests.serve_app.raw_http import exchange, head, offers_of_upgrade

pytestmark = pytest.mark.seconds


@pytest.fixture
def served(gateway_of, serve_as_ray_does):
    with serve_as_ray_does(gateway_of().gateway) as url:
        yield url


@pytest.mark.parametrize("protocol", ["h2c", "TLS/1.2", "websocket"])
@pytest.mark.parametrize("chunked", [False, True])
def test_what_offers_an_upgrade_is_served_and_nothing_is_smuggled(served, protocol, chunked):
    received = exchange(served, *offers_of_upgrade(protocol, chunked=chunked))
    assert re.findall(rb"HTTP/1\.1 (\d+)", received) == [b"400", b"200", b"200"]
    assert received.count(b'"bad_json"') == 1
    assert received.count(b'"results"') == 2
    assert b'"object":"list"' not in received


def test_without_the_header_nothing_is_different(served):
    body = b'{"query": "q", "documents": ["q"]}'
    received = exchange(served, head(len(body), "connection: close"), body)
    assert re.findall(rb"HTTP/1\.1 (\d+)", received) == [b"200"]


def test_a_websocket_is_refused(served):
    asks = b"GET / HTTP/1.1\r\nhost: x\r\nupgrade: websocket\r\nconnection: Upgrade\r\n"
    asks += b"sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    assert exchange(served, asks).startswith(b"HTTP/1.1 403")
