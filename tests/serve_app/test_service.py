"""The same routes through a real local Ray Serve; test_haproxy runs this file again."""

import contextlib
import gzip
import json
import os
import re
import signal
import socket
import threading
import time
from pathlib import Path

import cohere
import httpx
import pytest
import ray
from ray import serve

from tests.serve_app.raw_http import exchange, head, offers_of_upgrade

pytestmark = pytest.mark.slow

BODY = {"query": "capital of China", "documents": ["bananas", "the capital of China is Beijing"]}


@pytest.mark.parametrize("path", ["/v1/rerank", "/v2/rerank", "/rerank"])
def test_each_path_ranks_over_http(service, path):
    answer = httpx.post(f"{service}{path}", json=BODY)
    assert [result["index"] for result in answer.json()["results"]] == [1, 0]
    assert float(answer.headers["x-compute-tokens"]) > 0


def test_tei_body_and_info_over_http(service):
    body = {"query": BODY["query"], "texts": BODY["documents"]}
    assert [hit["index"] for hit in httpx.post(f"{service}/rerank", json=body).json()] == [1, 0]
    assert httpx.get(f"{service}/info").json()["model_id"] == "lexical"


def test_errors_are_ours_and_not_serves(service):
    answer = httpx.post(f"{service}/v1/rerank", content=b"{")
    assert (answer.status_code, answer.json()["error"]["type"]) == (400, "bad_json")
    assert httpx.get(f"{service}/v1/rerank").status_code == 405
    assert httpx.get(f"{service}/elsewhere").json()["error"]["code"] == 404


@pytest.mark.parametrize("client", [cohere.ClientV2, cohere.Client])
def test_the_official_cohere_clients_rank(service, client):
    with httpx.Client() as http:
        sdk = client(api_key="any", base_url=service, httpx_client=http)
        answer = sdk.rerank(model="lexical", **BODY, top_n=5)
    assert [result.index for result in answer.results] == [1, 0]


def test_a_request_with_many_documents_comes_back_whole_and_in_order(service):
    documents = [f"word{i} capital" if i % 3 else f"word{i}" for i in range(900)]
    body = {"query": "capital", "documents": documents, "return_documents": True}
    results = httpx.post(f"{service}/v2/rerank", json=body, timeout=30).json()["results"]
    assert sorted(result["index"] for result in results) == list(range(900))
    assert all(documents[r["index"]] == r["document"]["text"] for r in results)
    assert all(r["index"] % 3 for r in results[:600])


def test_an_answer_has_one_request_id_and_the_log_line_has_it_too(service):
    secret = "a-text-that-no-log-may-hold"
    headers = {"x-request-id": "find.me-1"}
    body = {"query": secret, "documents": [secret]}
    answer = httpx.post(f"{service}/v2/rerank", json=body, headers=headers)
    assert answer.headers.get_list("x-request-id") == ["find.me-1"]
    (line,) = log_lines("find.me-1")
    expected = {"message": "request", "status": 200, "documents": 1, "path": "/v2/rerank"}
    assert {name: line[name] for name in expected} == expected
    assert secret not in json.dumps(line)
    assert len(httpx.get(f"{service}/info").headers.get_list("x-request-id")) == 1


def log_lines(request_id, seconds=10, application="rerank"):
    folder = Path(ray._private.worker._global_node.get_logs_dir_path()) / "serve"
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        lines = [
            json.loads(line)
            for file in folder.glob(f"replica_{application}_Gateway_*.log")
            for line in file.read_text(encoding="utf-8").splitlines()
            if f'"rerank_id": "{request_id}"' in line
        ]
        if lines:
            return lines
        time.sleep(0.2)
    return []


def test_it_works_below_a_route_prefix(mounted):
    answer = httpx.post(f"{mounted}/v2/rerank", json=BODY)
    assert [result["index"] for result in answer.json()["results"]] == [1, 0]
    page = httpx.get(mounted, follow_redirects=True)
    assert (page.status_code, page.url.path) == (200, "/rerank-service/")
    assert httpx.get(f"{mounted}/elsewhere").json()["error"]["code"] == 404
    with httpx.Client() as http:
        sdk = cohere.ClientV2(api_key="any", base_url=mounted, httpx_client=http)
        assert [hit.index for hit in sdk.rerank(model="lexical", **BODY).results] == [1, 0]


@pytest.mark.parametrize("mount", ["", "/fused"])
@pytest.mark.parametrize("protocol", ["h2c", "TLS/1.2"])
@pytest.mark.parametrize("chunked", [False, True])
def test_an_upgrade_is_served_and_nothing_is_smuggled(service, fused, mount, protocol, chunked):
    # Stock Java clients offer h2c, Apache's HttpClient TLS/1.2.
    received = exchange(service, *offers_of_upgrade(protocol, chunked=chunked, mount=mount))
    assert re.findall(rb"HTTP/1\.1 (\d+)", received) == [b"400", b"200", b"200"]
    assert received.count(b'"bad_json"') == 1
    assert b'"object":"list"' not in received


@pytest.mark.parametrize("expects", [(), ("expect: 100-continue",)], ids=["", "expects"])
@pytest.mark.parametrize("chunked", [False, True])
def test_who_sends_too_much_can_read_the_413(service, expects, chunked):
    body, headers = b" " * 30_000_000, ("connection: close", *expects)
    if chunked:
        first = head(None, *headers, "transfer-encoding: chunked")
        body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    else:
        first = head(len(body), *headers)
    received = exchange(service, first, body)
    assert re.findall(rb"HTTP/1\.1 (\d+)", received) == [b"100"] * len(expects) + [b"413"]
    assert b"limits.max_body_bytes" in received


@pytest.mark.parametrize("version", [b"1.1", b"1.0"])
def test_who_sends_too_much_to_no_path_can_read_the_404(service, version):
    first = head(6_000_000, "connection: close").replace(
        b"/v2/rerank HTTP/1.1", b"/no HTTP/" + version
    )
    received = exchange(service, first + b" " * 6_000_000)
    assert re.findall(rb"HTTP/1\.1 (\d+)", received) == [b"404"]


CONTENT = json.dumps(BODY).encode()
JSON_TYPE = "content-type: application/json"
PREFLIGHT = ("origin: https://app.example", "access-control-request-method: POST")
# The first line, the body, headers, and what the answer begins with and has.
ODD = {
    "byte order mark": (
        "POST /v2/rerank",
        b"\xef\xbb\xbf" + CONTENT,
        [JSON_TYPE],
        200,
        '"index":1',
    ),
    "gzip": (
        "POST /v2/rerank",
        gzip.compress(CONTENT),
        [JSON_TYPE, "content-encoding: gzip"],
        200,
        '"index":1',
    ),
    "no content type": ("POST /v2/rerank", CONTENT, [], 200, '"index":1'),
    "slash at the end": ("POST /v2/rerank/", CONTENT, [JSON_TYPE], 200, '"index":1'),
    "doubled slashes": ("POST //v2//rerank", CONTENT, [JSON_TYPE], 200, '"index":1'),
    "slash in a name": ("GET /v1/models/ours/rerank", b"", [], 200, '"id":"ours/rerank"'),
    "%2F in a name": ("GET /v1/models/ours%2Frerank", b"", [], 200, '"id":"ours/rerank"'),
    "preflight": ("OPTIONS /v2/rerank", b"", PREFLIGHT, 204, "allow-origin: https://app.example"),
}


@pytest.mark.parametrize(("line", "content", "headers", "status", "has"), ODD.values(), ids=ODD)
def test_odd_requests_reach_the_gateway_as_they_are(service, line, content, headers, status, has):
    lines = [f"{line} HTTP/1.1", "host: x", "connection: close", *headers]
    lines += [f"content-length: {len(content)}"] if content else []
    received = exchange(service, "\r\n".join([*lines, "", ""]).encode(), content)
    assert received.startswith(b"HTTP/1.1 %d" % status)
    assert has.encode() in received


def test_several_models_behind_one_address(mounted):
    def ask(model):
        return httpx.post(f"{mounted}/v2/rerank", json={**BODY, "model": model})

    assert [ask(name).json()["model"] for name in ("lexical", "second")] == ["lexical", "second"]
    assert ask("third").status_code == 404


def test_one_replica_and_one_gateway_are_one_deployment_with_the_same_scores(service, fused):
    assert set(serve.status().applications["fused"].deployments) == {"Gateway"}
    alone, split = (httpx.post(f"{at}/v2/rerank", json=BODY) for at in (fused, service))
    assert alone.json()["results"] == split.json()["results"]


def test_48_slow_senders_do_not_stop_good_requests(service):
    host, port = service.removeprefix("http://").split(":")
    head = f"POST /v1/rerank HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\n"
    slow = [socket.create_connection((host, int(port))) for _ in range(48)]
    stop = threading.Event()

    def trickle():
        while not stop.wait(0.2):
            for sock in slow:
                # Those that got their 408 are closed.
                with contextlib.suppress(OSError):
                    sock.sendall(b" ")

    try:
        for sock in slow:
            sock.sendall(f"{head}content-length: 1000\r\n\r\n{{".encode())
        threading.Thread(target=trickle, daemon=True).start()
        with httpx.Client(base_url=service, timeout=30) as client:
            statuses = [client.post("/v2/rerank", json=BODY).status_code for _ in range(50)]
        assert statuses == [200] * 50
    finally:
        stop.set()
        for sock in slow:
            sock.close()


@pytest.mark.chaos
def test_no_request_fails_when_a_replica_is_killed(service):
    statuses = []

    def ask():
        with httpx.Client(base_url=service, timeout=30) as client:
            statuses.extend(client.post("/v2/rerank", json=BODY).status_code for _ in range(60))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    handle = serve.get_deployment_handle("Scorer", "rerank")
    os.kill(handle.pid.remote().result(), signal.SIGKILL)
    for thread in threads:
        thread.join()
    assert statuses == [200] * 240
    assert ray.is_initialized()
