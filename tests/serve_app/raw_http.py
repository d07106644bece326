"""Requests as bytes on a socket, for what no client library would send."""

import http.client
import socket
import time


def exchange(url, *segments, close_after=True):
    """Send raw bytes in segments of their own; return all that comes back until the end."""
    host, port = url.removeprefix("http://").partition("/")[0].split(":")
    with socket.create_connection((host, int(port)), timeout=20) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        received = b""
        for segment in segments:
            sock.settimeout(20)
            sock.sendall(segment)
            sock.settimeout(0.3)
            try:
                received += sock.recv(65_536)
            except TimeoutError:
                pass
            except ConnectionError:
                return received
        sock.settimeout(20)
        try:
            while chunk := sock.recv(65_536):
                received += chunk
        except (TimeoutError, ConnectionError):
            pass
        return received


def stays_open(url, seconds=2.0):
    """Say whether a connection that has served a request serves another after a pause."""
    host, port = url.removeprefix("http://").partition("/")[0].split(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=20)
    try:
        for pause in (seconds, 0):
            connection.request("GET", "/health/ready")
            kept = connection.getresponse()
            kept.read()
            time.sleep(pause)
        return connection.sock is not None
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def head(length, *headers, mount=""):
    """Return the head of a POST; without a length it is up to `headers` to say where it ends."""
    sized = [] if length is None else [f"content-length: {length}"]
    lines = [f"POST {mount}/v2/rerank HTTP/1.1", "host: x", *sized, *headers]
    return "\r\n".join([*lines, "", ""]).encode()


def offers_of_upgrade(protocol, *, chunked=False, mount=""):
    """Return three requests on one connection, as segments: two offer an upgrade.

    The body of the first looks like a request, and the last has no such header. They go to an
    application at `mount`; what the first hides would go to that at the root.
    """
    body = b'{"query": "q", "documents": ["q"]}'
    upgrade = (f"upgrade: {protocol}", "connection: Upgrade, HTTP2-Settings")
    hidden = b"GET /v1/models HTTP/1.1\r\nhost: x\r\n\r\n"
    segments = []
    for content in (hidden, body):
        if chunked:
            segments.append(head(None, *upgrade, "transfer-encoding: chunked", mount=mount))
            segments.append(b"%x\r\n%b\r\n0\r\n\r\n" % (len(content), content))
        else:
            segments += [head(len(content), *upgrade, mount=mount), content]
    return [*segments, head(len(body), "connection: close", mount=mount), body]
