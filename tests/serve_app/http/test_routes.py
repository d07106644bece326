"""What people who swap servers ask for: paths, probes, pages, browsers, readable refusals."""

import re

import httpx
import pytest

from rerank_core import ModelUnavailable
from serve_app.http.routes import plain
from tests.serve_app.raw_http import exchange, head

BODY = {"query": "capital", "documents": ["banana", "capital"]}
READY = ["/health", "/healthz", "/ping", "/health/ready", "/v1/health/ready", "/v1/health"]
READY += ["/status"]


@pytest.mark.parametrize("path", READY)
def test_readiness_has_the_name_that_each_server_gives_it(gateway_of, pools, path):
    assert gateway_of().send("GET", path).json() == {"status": "ready"}
    unready = gateway_of(pools.failing(RuntimeError("no")))
    assert gateway_of(pools.stuck(), scaling={"min_replicas": 0}).send("GET", path).is_success
    assert unready.send("GET", path).status_code >= 500


def test_vllms_probe_may_be_posted(gateway_of, pools):
    assert gateway_of().send("POST", "/ping").json() == {"status": "ready"}
    assert gateway_of(pools.failing(RuntimeError("no"))).send("POST", "/ping").status_code >= 500
    wrong = gateway_of().send("PUT", "/ping")
    assert (wrong.headers["allow"], wrong.json()["message"]) == (
        "GET, POST",
        "use GET or POST here",
    )


def test_liveness_does_not_ask_the_model(gateway_of, pools):
    for path in ("/health/live", "/v1/health/live"):
        assert gateway_of(pools.stuck()).send("GET", path).json() == {"status": "alive"}


@pytest.mark.parametrize("path", ["/reranking", "/v1/reranking", "/invocations"])
def test_more_paths_rank(gateway_of, path):
    answer = gateway_of().post(path, BODY).json()
    assert [hit["index"] for hit in answer["results"]] == [1, 0]
    tei = gateway_of().post(path, {"query": "capital", "texts": BODY["documents"]}).json()
    assert [hit["index"] for hit in tei] == [1, 0]


@pytest.mark.parametrize("path", ["/v1/rerank/", "/v1//rerank", "/v1/rerank//"])
def test_more_slashes_are_served(gateway_of, path):
    assert gateway_of().post(path, BODY).status_code == 200


def test_plain_paths():
    paths = ["/", "//", "", "/a/", "//a//b//", "/a"]
    assert [plain(path) for path in paths] == ["/", "/", "", "/a", "/a/b", "/a"]


@pytest.mark.parametrize(
    ("path", "nearest"),
    [
        ("/v1/reranks", "/v1/rerank"),
        ("/V2/Rerank", "/v2/rerank"),
        ("/rerank/v1", "/rerank"),
        ("/metric", "/metrics"),
        ("/v1/healt/live", "/v1/health/live"),
    ],
)
def test_a_wrong_path_is_told_the_nearest(gateway_of, path, nearest):
    answer = gateway_of().send("POST", path, json=BODY)
    assert (answer.status_code, answer.json()["error"]["type"]) == (404, "not_found_error")
    assert f"the nearest is {nearest}," in answer.json()["message"]


def test_posting_to_the_page_says_where_to_post(gateway_of):
    answer = gateway_of().post("/", BODY)
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET")
    assert "post to one of /v2/rerank, /v1/rerank, /rerank" in answer.json()["message"]


ALIAS = "BAAI/bge-reranker-v2-m3"


def model(name):
    known = {"id": name, "object": "model", "created": 0, "owned_by": "ray-rerank"}
    return {
        **known,
        "root": "lexical",
        "model_type": "rerank",
        "name": name,
        "endpoints": ["rerank"],
    }


@pytest.mark.parametrize("path", ["/v1/models", "/models"])
def test_every_name_that_is_served_is_listed_once_the_default_first(gateway_of, path):
    listed = gateway_of(model_names=[ALIAS, "lexical"]).send("GET", path).json()
    models = [model("lexical"), model(ALIAS)]
    assert listed == {"object": "list", "data": models, "models": models}


@pytest.mark.parametrize("name", ["lexical", ALIAS, ALIAS.replace("/", "%2F")])
def test_models_have_pages_of_their_own_also_with_slashes(gateway_of, name):
    caller = gateway_of(model_names=[ALIAS], unknown_models="refuse")
    assert caller.send("GET", f"/v1/models/{name}").json() == model(name.replace("%2F", "/"))


@pytest.mark.parametrize("settings", [{}, {"unknown_models": "refuse"}])
def test_a_name_has_a_page_where_it_is_answered_and_else_the_same_refusal(gateway_of, settings):
    caller = gateway_of(**settings)
    page = caller.send("GET", "/v1/models/my/uid")
    answer = caller.post("/v1/rerank", {**BODY, "model": "my/uid"})
    assert page.status_code == answer.status_code == (404 if settings else 200)
    if settings:
        assert page.json()["message"] == answer.json()["message"]
        assert "model_names, or set unknown_models: default" in page.json()["message"]
    else:
        assert page.json() == model("my/uid")


def test_version_and_metadata_say_what_runs(gateway_of):
    caller = gateway_of()
    version = caller.send("GET", "/version").json()["version"]
    assert caller.send("GET", "/v1/metadata").json() == {
        "version": version,
        "modelInfo": [{"modelUrl": "lexical", "shortName": "lexical"}],
    }


@pytest.mark.parametrize("path", ["/metrics", "/v1/metrics"])
def test_metrics_stand_on_the_serving_port(gateway_of, path):
    caller = gateway_of()
    caller.post("/v2/rerank", BODY)
    answer = caller.send("GET", path)
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    lines = answer.text.splitlines()
    asked = 'rerank_requests_total{dialect="cohere",model="lexical",status="200"} 1.0'
    assert asked in lines
    assert 'rerank_documents_total{model="lexical"} 2.0' in lines


@pytest.mark.parametrize(
    ("errors", "body", "status", "outcome"),
    [
        ([], BODY, 200, "answered"),
        ([], {}, 422, "refused"),
        ([RuntimeError("no")], BODY, 500, "failed"),
        ([ModelUnavailable("no")] * 2, BODY, 503, "failed"),
    ],
)
def test_the_times_of_answers_refusals_and_failures_are_told_apart(
    gateway_of, pools, errors, body, status, outcome
):
    caller = gateway_of(pools.failing(*errors))
    assert caller.post("/v2/rerank", body).status_code == status
    counted = r'rerank_request_duration_seconds_count{.*model="lexical",outcome="(\w+)"} (.+)'
    kept = re.findall(counted, caller.send("GET", "/metrics").text)
    assert kept == [(outcome, "1.0")]


def test_the_api_is_described_on_a_page_that_needs_nothing_else(gateway_of):
    answer = gateway_of().send("GET", "/docs")
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert '"/v1/rerank":' in answer.text
    assert "{{openapi}}" not in answer.text
    assert "https://" not in answer.text


ORIGIN = {"origin": "https://app.example"}
ASKS = {**ORIGIN, "access-control-request-method": "POST"}


def test_pages_of_named_origins_may_call(gateway_of):
    caller = gateway_of(cors_origins=["https://app.example"])
    before = caller.send("OPTIONS", "/v2/rerank", headers=ASKS)
    assert (before.status_code, before.headers["access-control-allow-methods"]) == (
        *(204, "GET, POST"),
    )
    for answer in (before, caller.post("/v2/rerank", BODY, headers=ORIGIN)):
        assert answer.headers["access-control-allow-origin"] == "https://app.example"
        assert answer.headers["vary"] == "origin"
    wrong = caller.post("/v2/rerank", {}, headers=ORIGIN)
    assert "access-control-allow-origin" in wrong.headers


SDK = "authorization,content-type,x-rerank-priority,x-stainless-os,x-fern-language"


@pytest.mark.parametrize("names", [SDK, "Authorization, X-Request-Id", "accept"])
def test_pages_may_send_the_headers_that_their_libraries_add(gateway_of, names):
    caller = gateway_of(cors_origins=["*"])
    asks = {**ASKS, "access-control-request-headers": names}
    before = caller.send("OPTIONS", "/v2/rerank", headers=asks)
    assert (before.status_code, before.headers["access-control-allow-headers"]) == (204, names)


@pytest.mark.parametrize(
    "names", ["", "a b", "a,,b", "a;b", "é", pytest.param("a," * 3000 + "a", id="many")]
)
def test_only_names_of_headers_and_not_too_many_are_allowed(gateway_of, names):
    caller = gateway_of(cors_origins=["*"])
    asks = {**ASKS, "access-control-request-headers": names.encode()}
    before = caller.send("OPTIONS", "/v2/rerank", headers=asks)
    assert before.status_code == 204
    assert "access-control-allow-headers" not in before.headers


def test_pages_may_read_all_headers_of_an_answer(gateway_of, pools):
    caller = gateway_of(pools.fixed(), cors_origins=["*"])
    body = {"query": "q", "documents": ["1 long"], "unknown": True}
    headers = caller.post("/v2/rerank", body, headers=ORIGIN).headers
    own = {name for name in headers if name.startswith("x-")}
    assert {"x-rerank-model", "x-ignored-fields", "x-truncated-documents"} <= own
    assert own <= set(headers["access-control-expose-headers"].split(", "))


def test_a_browser_may_ask_before_it_has_a_key(gateway_of):
    from serve_app.http.api_keys import ApiKeys

    keys = ApiKeys(environment="tests: key")
    caller = gateway_of(api_keys=keys, cors_origins=["*"])
    assert caller.send("OPTIONS", "/v2/rerank", headers=ASKS).status_code == 204
    assert caller.post("/v2/rerank", BODY, headers=ORIGIN).status_code == 401


def test_no_page_of_another_origin_may_call(gateway_of):
    other = gateway_of(cors_origins=["https://other.example"])
    for caller in (gateway_of(), other):
        assert caller.send("OPTIONS", "/v2/rerank", headers=ASKS).status_code in (401, 405)
        answer = caller.post("/v2/rerank", BODY, headers=ORIGIN)
        assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize("protocol", ["h2c", "TLS/1.2"])
def test_a_body_behind_an_upgrade_is_never_read_as_the_next_request(
    gateway_of, serve_over_http, protocol
):
    hidden = b"GET /v1/models HTTP/1.1\r\nhost: x\r\n\r\n"
    upgrade = (f"upgrade: {protocol}", "connection: Upgrade, HTTP2-Settings")
    with serve_over_http(gateway_of().gateway) as url:
        received = exchange(url, head(len(hidden), *upgrade), hidden)
    assert len(re.findall(rb"HTTP/1\.1 \d", received)) == 1
    assert received.startswith(b"HTTP/1.1 400")
    assert b'"upgrade_not_supported"' in received
    assert b'"object":"list"' not in received


def test_no_websocket_is_opened(gateway_of, serve_over_http):
    asks = b"GET / HTTP/1.1\r\nhost: x\r\nupgrade: websocket\r\nconnection: Upgrade\r\n"
    asks += b"sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    with serve_over_http(gateway_of().gateway) as url:
        received = exchange(url, asks)
    assert received.startswith(b"HTTP/1.1 403")


def test_who_expects_a_continue_gets_one_and_an_answer(gateway_of, serve_over_http):
    body = b'{"query": "q", "documents": ["q"]}'
    waiting = head(len(body), "expect: 100-continue", "connection: close")
    with serve_over_http(gateway_of().gateway) as url:
        received = exchange(url, waiting, body)
    assert received.startswith(b"HTTP/1.1 100")
    assert b"HTTP/1.1 200" in received


def test_a_client_can_read_why_its_body_is_too_large(gateway_of, serve_over_http):
    with serve_over_http(gateway_of().gateway) as url:
        answer = httpx.post(f"{url}/v2/rerank", content=b" " * 30_000_000, timeout=30)
    assert answer.status_code == 413
    assert answer.json()["message"] == (
        "the body is larger than 8388608 bytes; send fewer documents, or raise"
        " limits.max_body_bytes"
    )


def test_who_asks_before_sending_too_much_is_refused_at_once(gateway_of, serve_over_http):
    with serve_over_http(gateway_of().gateway) as url:
        received = exchange(url, head(30_000_000, "expect: 100-continue"))
    assert received.startswith(b"HTTP/1.1 413")
