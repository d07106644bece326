"""A catalogue of malformed requests: the right status, a short JSON error, and nobody else hurt.

Each case is (name, path, status, body, headers). A body that is no bytes is sent as JSON.
"""

import asyncio
import contextlib
import gzip
import json
import socket
import tracemalloc

import httpx
import pytest

from rerank_core import InvalidRequest
from serve_app.config import Limits, ServeConfig
from serve_app.dialects.decoding import slice_fields
from serve_app.dialects.jina import JINA
from serve_app.dialects.nvidia import NVIDIA
from serve_app.gateway import Gateway
from tests.serve_app.local_pool import LocalPool

SECRET = "zebra-canary-text"
GOOD = {"query": "q", "documents": ["q", SECRET]}
JSON_TYPE = {"content-type": "application/json"}
RERANKS = ("/v1/rerank", "/v2/rerank", "/rerank")


def raw(text):
    return text if isinstance(text, bytes) else text.encode()


def not_json():
    bodies = {
        "empty": b"",
        "blank": b"   \n",
        "cut object": b'{"query": "q", "documents": ["a"',
        "cut string": b'{"query": "q',
        "single quotes": b"{'query': 'q', 'documents': ['a']}",
        "trailing comma": b'{"query": "q", "documents": ["a"],}',
        "trailing text": json.dumps(GOOD).encode() + b" x",
        "two objects": json.dumps(GOOD).encode() * 2,
        "comment": b'{"query": "q" /* hi */, "documents": ["a"]}',
        "NaN": b'{"query": "q", "documents": ["a"], "score_threshold": NaN}',
        "Infinity": b'{"query": "q", "documents": ["a"], "score_threshold": Infinity}',
        "minus Infinity": b'{"query": "q", "documents": ["a"], "top_n": -Infinity}',
        "leading zero": b'{"query": "q", "documents": ["a"], "top_n": 01}',
        "plus sign": b'{"query": "q", "documents": ["a"], "top_n": +1}',
        "hex": b'{"query": "q", "documents": ["a"], "top_n": 0x1}',
        "bad escape": b'{"query": "\\x41", "documents": ["a"]}',
        "raw newline in a string": b'{"query": "a\nb", "documents": ["a"]}',
        "raw NUL in a string": b'{"query": "a\x00b", "documents": ["a"]}',
        "Latin-1": '{"query": "é", "documents": ["a"]}'.encode("latin-1"),
        "UTF-16": json.dumps(GOOD).encode("utf-16"),
        "overlong UTF-8": b'{"query": "\xc0\xaf", "documents": ["a"]}',
        "surrogate in UTF-8": b'{"query": "\xed\xa0\x80", "documents": ["a"]}',
        "bytes": bytes(range(256)),
        "gzip": b"\x1f\x8b\x08\x00" + b"\x00" * 20,
        "a form": b"query=q&documents=a",
        "XML": b"<query>q</query>",
        "deep lists": b"[" * 10_000,
        "deep objects": b'{"a":' * 10_000,
        "deep and closed": b'{"documents": ' + b"[" * 5000 + b"]" * 5000 + b"}",
        "top null": b"null",
        "top list": b"[]",
        "top string": b'"q"',
        "top number": b"7",
        "top true": b"true",
        "unquoted key": b'{query: "q"}',
        "key without value": b'{"query"}',
    }
    return [(name, "/v1/rerank", 400, body, {}) for name, body in bodies.items()]


def wrong_fields():
    bodies = {
        "nothing": {},
        "no query": {"documents": ["a"]},
        "no documents": {"query": "q"},
        "query null": {"query": None, "documents": ["a"]},
        "query number": {"query": 7, "documents": ["a"]},
        "query list of two": {"query": ["q", "r"], "documents": ["a"]},
        "query list empty": {"query": [], "documents": ["a"]},
        "query list of lists": {"query": [["q"]], "documents": ["a"]},
        "query of an image": {"query": [{"type": "image_url"}], "documents": ["a"]},
        "a document of an image": {"query": "q", "documents": [{"content": [{"type": "image"}]}]},
        "a document of no parts": {"query": "q", "documents": [{"content": []}]},
        "a document of strange parts": {"query": "q", "documents": [{"content": [1]}]},
        "on_error a word": {**GOOD, "on_error": "ignore"},
        "query a large object": {"query": {"text": "q", "x": ["y" * 70_000]}, "documents": ["a"]},
        "rank_fields large": {**GOOD, "rank_fields": ["x" * 70_000]},
        "query true": {"query": True, "documents": ["a"]},
        "query object without text": {"query": {"image": "x"}, "documents": ["a"]},
        "query object with a number": {"query": {"text": 7}, "documents": ["a"]},
        "query empty": {"query": "", "documents": ["a"]},
        "query blank": {"query": " \t\n", "documents": ["a"]},
        "query wide blank": {"query": "\u3000", "documents": ["a"]},
        "documents null": {"query": "q", "documents": None},
        "documents empty": {"query": "q", "documents": []},
        "documents string": {"query": "q", "documents": SECRET},
        "documents object": {"query": "q", "documents": {"0": "a"}},
        "documents number": {"query": "q", "documents": 3},
        "a document null": {"query": "q", "documents": ["a", None]},
        "a document number": {"query": "q", "documents": ["a", 3]},
        "a document true": {"query": "q", "documents": [True]},
        "a document list": {"query": "q", "documents": [["a"]]},
        "a document empty object": {"query": "q", "documents": [{}]},
        "a document without text": {"query": "q", "documents": [{"tags": ["x"]}]},
        "a document's text null": {"query": "q", "documents": [{"text": None}]},
        "a document's text number": {"query": "q", "documents": [{"text": 3}]},
        "top_n negative": {**GOOD, "top_n": -1},
        "top_n fraction": {**GOOD, "top_n": 1.5},
        "top_n true": {**GOOD, "top_n": True},
        "top_n word": {**GOOD, "top_n": "all"},
        "top_n list": {**GOOD, "top_n": [1]},
        "rank_fields string": {**GOOD, "rank_fields": "text"},
        "rank_fields numbers": {**GOOD, "rank_fields": [1]},
        "rank_fields absent": {"query": "q", "documents": [{"a": "x"}], "rank_fields": ["b"]},
        "return_documents word": {**GOOD, "return_documents": "maybe"},
        "return_documents list": {**GOOD, "return_documents": []},
        "threshold word": {**GOOD, "score_threshold": "high"},
        "threshold true": {**GOOD, "score_threshold": True},
        "max_tokens_per_doc fraction": {**GOOD, "max_tokens_per_doc": 0.5},
        "max_tokens_per_doc below -1": {**GOOD, "max_tokens_per_doc": -2},
        "instruction number": {**GOOD, "instruction": 1},
        "model number": {**GOOD, "model": 1},
        "model list": {**GOOD, "model": ["lexical"]},
        "too many documents": {"query": "q", "documents": ["a"] * 21},
        "query too long": {"query": "q" * 501, "documents": ["a"]},
    }
    cases = [
        (f"{name} on {path}", path, 422, body, {})
        for name, body in bodies.items()
        for path in RERANKS
    ]
    infinite = b'{"query": "q", "documents": ["a"], "score_threshold": 1e999}'
    digits = b'{"query": "q", "documents": ["a"], "top_n": ' + b"9" * 5000 + b"}"
    infinite_field = b'{"query": "q", "documents": [{"text": "a", "n": 1e999}]}'
    return [
        *cases,
        ("5000 digits", "/v1/rerank", 422, digits, {}),
        ("threshold 1e999", "/v1/rerank", 422, infinite, {}),
        ("a document's number 1e999", "/v1/rerank", 422, infinite_field, {}),
        ("unknown model", "/v2/rerank", 404, {**GOOD, "model": "gpt"}, {}),
        ("model as a path", "/v1/rerank", 404, {**GOOD, "model": "../../etc/passwd"}, {}),
        ("model as an address", "/v1/rerank", 404, {**GOOD, "model": "http://169.254.0.1/"}, {}),
    ]


def other_dialects():
    tei = {"query": "q", "texts": ["a"]}
    cases = {
        "TEI texts empty": ("/rerank", 400, {**tei, "texts": []}),
        "TEI texts null": ("/rerank", 422, {**tei, "texts": None}),
        "TEI texts string": ("/rerank", 422, {**tei, "texts": SECRET}),
        "TEI a text null": ("/rerank", 422, {**tei, "texts": [None]}),
        "TEI a text object": ("/rerank", 422, {**tei, "texts": [{"text": "a"}]}),
        "TEI no query": ("/rerank", 422, {"texts": ["a"]}),
        "TEI blank query": ("/rerank", 422, {**tei, "query": " "}),
        "TEI direction up": ("/rerank", 422, {**tei, "truncation_direction": "up"}),
        "TEI raw_scores word": ("/rerank", 422, {**tei, "raw_scores": "maybe"}),
        "TEI too many texts": ("/rerank", 422, {**tei, "texts": ["a"] * 21}),
        "Voyage top_k zero": ("/v1/rerank", 422, {**GOOD, "top_k": 0}),
        "Voyage objects": ("/v1/rerank", 422, {**GOOD, "documents": [{"text": "a"}], "top_k": 1}),
        "score without right": ("/score", 422, {"queries": "q"}),
        "score without left": ("/v1/score", 422, {"items": ["a"]}),
        "score unequal": ("/score", 422, {"text_1": ["a", "b"], "text_2": ["a", "b", "c"]}),
        "score empty right": ("/score", 422, {"text_1": "a", "text_2": []}),
        "score empty left": ("/score", 422, {"text_1": [], "text_2": ["a"]}),
        "score blank query": ("/score", 422, {"text_1": ["q", " "], "text_2": ["a", "b"]}),
        "score numbers": ("/score", 422, {"data_1": 1, "data_2": [2]}),
        "NVIDIA plain query": ("/v1/ranking", 422, {"query": "q", "passages": [{"text": "a"}]}),
        "NVIDIA plain passages": ("/v1/ranking", 422, {"query": {"text": "q"}, "passages": ["a"]}),
        "NVIDIA no passages": ("/v1/ranking", 422, {"query": {"text": "q"}, "passages": []}),
        "NVIDIA bad truncate": (
            "/v1/ranking",
            422,
            {"query": {"text": "q"}, "passages": [{"text": "a"}], "truncate": "START"},
        ),
    }
    return [(name, path, status, body, {}) for name, (path, status, body) in cases.items()]


def wrong_headers():
    cases = {
        "form type": (415, {"content-type": "application/x-www-form-urlencoded"}),
        "text type": (415, {"content-type": "text/plain"}),
        "multipart type": (415, {"content-type": "multipart/form-data; boundary=x"}),
        "nonsense type": (415, {"content-type": "json"}),
        "Latin-1 charset": (415, {"content-type": "application/json; charset=latin-1"}),
        "UTF-16 charset": (415, {"content-type": "application/json; charset=utf-16"}),
        "gzip that is none": (400, {"content-encoding": "gzip"}),
        "unknown encoding": (415, {"content-encoding": "snappy"}),
        "stacked encoding": (415, {"content-encoding": "identity, gzip"}),
        "upgrade": (400, {"upgrade": "h2c", "connection": "Upgrade, HTTP2-Settings"}),
        "length a word": (400, {"content-length": "many"}),
        "length negative": (400, {"content-length": "-1"}),
        "length too large": (413, {"content-length": "999999999"}),
        "length absurd": (413, {"content-length": "9" * 400}),
        "large header": (431, {"x-large": "x" * 20_000}),
        "many headers": (431, {f"x-{i}": "y" * 50 for i in range(400)}),
        "deadline a word": (400, {"x-rerank-timeout-seconds": "soon"}),
        "deadline zero": (400, {"x-rerank-timeout-seconds": "0"}),
        "deadline nan": (400, {"x-rerank-timeout-seconds": "nan"}),
    }
    return [
        (name, "/v1/rerank", status, GOOD, headers) for name, (status, headers) in cases.items()
    ]


def large_bodies():
    large = json.dumps({"query": "q", "documents": ["x" * 270_000]}).encode()
    bomb = gzip.compress(b" " * 270_000)
    packed = {"content-encoding": "gzip"}
    return [
        ("gzip of a large body", "/v1/rerank", 413, bomb, packed),
        ("gzip cut off", "/v1/rerank", 400, gzip.compress(json.dumps(GOOD).encode())[:-9], packed),
        ("declared large body", "/v1/rerank", 413, large, {}),
        ("undeclared large body", "/v1/rerank", 413, large, {"content-length": None}),
    ]


BODIES = [*not_json(), *wrong_fields(), *other_dialects(), *wrong_headers(), *large_bodies()]
METHODS = [
    *((method, path, 405) for method in ("GET", "PUT", "DELETE", "PATCH") for path in RERANKS),
    *(("POST", path, 405) for path in ("/", "/info", "/health/live", "/health/ready")),
    *(("POST", path, 405) for path in ("/v1/models", "/openapi.json")),
    *(("GET", path, 405) for path in ("/score", "/v1/score", "/v1/ranking")),
    *(("POST", path, 404) for path in ("/V1/rerank", "/v3/rerank", "/v1/rerank/x")),
    *(("POST", path, 405) for path in ("/health", "/version", "/metrics", "/docs")),
    *(("GET", path, 405) for path in ("/v1/check-api-key",)),
    *(("PUT", path, 405) for path in ("/ping", "/v1/check-api-key")),
    *(("GET", path, 405) for path in ("/reranking", "/v1/reranking", "/invocations")),
    *(("POST", path, 404) for path in ("/rerank/../rerank", "/v1", "/embed", "/%72erank%00")),
    *(("GET", path, 404) for path in ("/v1/models/nobody", "/favicon.ico", "/" + "a" * 5000)),
]


@pytest.fixture(scope="module")
def gateway():
    limits = {
        "max_body_bytes": 262_144,
        "max_documents": 20,
        "max_document_characters": 500,
        "max_query_characters": 500,
    }
    config = ServeConfig.model_validate(
        {"model": "lexical", "limits": limits, "unknown_models": "refuse"}
    )
    return Gateway(config, {"lexical": LocalPool()})


def ask(gateway, method, path, body=b"", headers=None):
    """Call the gateway as a server would, with headers that no client library would send."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    named = {**JSON_TYPE, "content-length": str(len(content)), **(headers or {})}
    pairs = [(raw(name), raw(value)) for name, value in named.items() if value is not None]
    scope = {"type": "http", "method": method, "path": path, "headers": pairs}
    sent = []
    # In two pieces, because bodies come in pieces.
    half = len(content) // 2
    pieces = [
        {"type": "http.request", "body": content[:half], "more_body": True},
        {"type": "http.request", "body": content[half:], "more_body": False},
    ]

    async def receive():
        # A server waits for the end of the connection once the body is whole.
        assert pieces, "the body was whole"
        return pieces.pop(0)

    async def send(message):
        sent.append(message)

    asyncio.run(gateway(scope, receive, send))
    # What was refused before it was read ends apart.
    start, end, *_ = sent
    return start["status"], dict(start["headers"]), end["body"]


def check_refusal(status, headers, body, expected):
    assert status == expected
    assert headers[b"content-type"] == b"application/json"
    assert len(body) <= 8192
    error = json.loads(body)
    assert isinstance(error, dict)
    assert isinstance(error.get("message") or error.get("error"), str)
    text = body.decode()
    for leak in (SECRET, "Traceback", "/serve_app", "0x", "pydantic"):
        assert leak not in text


def test_the_catalogue_has_at_least_120_cases_and_no_name_twice():
    names = [case[0] for case in BODIES]
    assert len(set(names)) == len(names)
    assert len(names) + len(METHODS) >= 120


@pytest.mark.parametrize("case", BODIES, ids=lambda case: case[0])
def test_bodies(gateway, case):
    _, path, status, body, headers = case
    check_refusal(*ask(gateway, "POST", path, body, headers), status)
    assert ask(gateway, "POST", "/v2/rerank", GOOD)[0] == 200


@pytest.mark.parametrize(("method", "path", "status"), METHODS)
def test_methods_and_paths(gateway, method, path, status):
    check_refusal(*ask(gateway, method, path, GOOD), status)
    assert ask(gateway, "POST", "/v2/rerank", GOOD)[0] == 200


ODD_BUT_GOOD = {
    "duplicate keys": b'{"query": "x", "query": "q", "documents": ["q"]}',
    "an empty document": b'{"query": "q", "documents": ["", "q"]}',
    "NUL escaped": b'{"query": "q\\u0000", "documents": ["q"]}',
    "emoji in escapes": b'{"query": "\\ud83d\\ude00", "documents": ["q"]}',
    "right to left": '{"query": "שלום", "documents": ["\u202eq"]}'.encode(),
    "large unknown number": b'{"query": "q", "documents": ["q"], "seed": 1e400}',
    "unknown deep field": b'{"query": "q", "documents": ["q"], "x": '
    + b"[" * 90
    + b"]" * 90
    + b"}",
    "top_n as a string": b'{"query": "q", "documents": ["q"], "top_n": "1"}',
    "top_n as a whole float": b'{"query": "q", "documents": ["q"], "top_n": 1.0}',
    "byte order mark": b"\xef\xbb\xbf" + json.dumps(GOOD).encode(),
    "half an emoji": b'{"query": "\\ud800", "documents": ["\\udc00 \\\\ud800 \\ud83d\\ude00"]}',
}


@pytest.mark.parametrize("name", ODD_BUT_GOOD)
def test_odd_requests_that_are_good_are_answered(gateway, name):
    assert ask(gateway, "POST", "/v1/rerank", ODD_BUT_GOOD[name])[0] == 200


def test_half_an_emoji_is_scored_as_the_replacement_character(gateway_of, pool):
    body = ODD_BUT_GOOD["half an emoji"]
    gateway_of(pool).send("POST", "/v1/rerank", content=body)
    assert tuple(pool.units[0].pairs[0]) == ("\ufffd", "\ufffd \\ud800 \U0001f600")


def test_a_body_may_be_gzipped_and_have_no_content_type(gateway_of):
    body = gzip.compress(json.dumps(GOOD).encode())
    answer = gateway_of().send(
        "POST", "/v1/rerank", content=body, headers={"content-encoding": "gzip"}
    )
    assert answer.status_code == 200


def junk(template, piece, count=2_700_000):
    return template % b",".join([piece] * count)


def fields(count, template=b'"f%d":0', start=0):
    return b",".join(template % i for i in range(start, start + count))


def documents_of_fields(each):
    parts = (b'{"text":"a",%s}' % fields(each, start=i * each) for i in range(1000))
    return b'{"query": "q", "documents": [%s]}' % b",".join(parts)


OF_LISTS = {
    "an unknown field": b'{"query": "q", "documents": ["a"], "x": [%s]}',
    "a document's field": b'{"query": "q", "documents": [{"text": "a", "x": [%s]}]}',
    "documents": b'{"query": "q", "documents": [%s]}',
    "rank_fields": b'{"query": "q", "documents": ["a"], "rank_fields": [%s]}',
    "query": b'{"query": [%s], "documents": ["a"]}',
}
ONE_DOCUMENT = b'{"query": "q", "documents": [{"text": "a", %s}]}'
PASSAGES = b'{"query": {"text": "q"}, "passages": [{"text": "a", %s}]}'
PARTS = b'{"query": "q", "documents": [{"content": [%s]}]}'
MANY_FIELDS = fields(650_000)
JUNK = {
    **{name: (JINA, junk(template, b"[]")) for name, template in OF_LISTS.items()},
    "fields of a document": (JINA, ONE_DOCUMENT % MANY_FIELDS),
    "fields of a passage": (NVIDIA, PASSAGES % MANY_FIELDS),
    "fields with a space": (JINA, ONE_DOCUMENT % fields(600_000, b'"f%d" :0')),
    "names that end with an escape": (JINA, ONE_DOCUMENT % fields(500_000, b'"f%d\\\\":0')),
    "fields of 1,000 documents": (JINA, documents_of_fields(600)),
    "empty parts": (JINA, junk(PARTS, b"{}")),
    "empty texts": (JINA, junk(PARTS, b'{"type":"text"}', 500_000)),
    "one field many times": (
        JINA,
        json.dumps(
            {"query": "q", "documents": [{"a": "x" * 10_000}], "rank_fields": ["a"] * 13_000}
        ).encode(),
    ),
}


@pytest.mark.parametrize("name", JUNK)
def test_what_nobody_reads_is_never_built(name):
    """Eight megabytes of empty lists would be 2.8 million objects, 200 MB of them."""
    dialect, body = JUNK[name]
    tracemalloc.start()
    try:
        with contextlib.suppress(InvalidRequest):
            dialect.parse(slice_fields(body), Limits())
        assert tracemalloc.get_traced_memory()[1] < 40e6
    finally:
        tracemalloc.stop()


def parsed(documents, dialect=JINA):
    body = json.dumps({"query": "q", "documents": documents}).encode()
    return dialect.parse(slice_fields(body), Limits())


def test_too_many_fields_are_refused_by_a_line_that_says_so():
    with pytest.raises(InvalidRequest) as refused:
        JINA.parse(slice_fields(JUNK["fields of a document"][1]), Limits())
    assert str(refused.value) == (
        "documents.0: more than 50000 fields in one request; send what is read"
    )
    with pytest.raises(InvalidRequest, match=r"^documents\.\d\d: more than 50000 fields"):
        JINA.parse(slice_fields(JUNK["fields of 1,000 documents"][1]), Limits())


def test_a_thousand_documents_of_forty_fields_are_read_whole():
    documents = [{f"f{i}": f"{n} {i}" for i in range(40)} for n in range(1000)]
    texts = [pair.document for pair in parsed(documents).pairs]
    assert texts[999] == "\n".join(f"f{i}: 999 {i}" for i in range(40))
    assert len(texts) == 1000


def test_colons_within_texts_and_deeper_names_are_no_fields():
    text = '{"at": "12:30:45"} ' * 10_000
    deep = {"text": text, "n": {str(i): {"x": 1} for i in range(20_000)}}
    request = parsed([deep, {"text": text}, text, *["a"] * 5])
    assert [pair.document == text[:200_000] for pair in request.pairs[:3]] == [True] * 3
    assert json.loads(bytes(request.documents[0]["n"])) == deep["n"]


def test_a_wrong_entry_among_many_fields_is_named():
    documents = [*({f"f{i}": 0 for i in range(400)} for _ in range(100)), 7]
    with pytest.raises(InvalidRequest, match=r"^documents\.100: must be a string"):
        parsed(documents)


@pytest.mark.parametrize("count", [1000, 1001])
def test_content_has_up_to_a_thousand_parts(count):
    documents = [{"content": [{"type": "text", "text": "a"}] * count}]
    if count > 1000:
        with pytest.raises(InvalidRequest, match="more than 1000 content parts"):
            parsed(documents)
    else:
        assert parsed(documents).pairs[0].document.count("a") == count


def test_a_rank_field_is_read_once_and_a_hundred_at_most():
    body = {"query": "q", "documents": [{"a": "x"}], "rank_fields": ["a", "b", "a"]}
    request = JINA.parse(slice_fields(json.dumps(body).encode()), Limits())
    assert request.pairs[0].document == "x"
    body["rank_fields"] = [f"f{i}" for i in range(101)]
    with pytest.raises(InvalidRequest, match=r"^rank_fields: .* at most 100"):
        JINA.parse(slice_fields(json.dumps(body).encode()), Limits())


@pytest.mark.seconds
def test_slow_senders_get_a_408_and_do_not_stop_good_requests(gateway_of, serve_over_http):
    gateway = gateway_of(limits={"body_timeout_s": 1.0}).gateway
    with serve_over_http(gateway) as url:
        host, port = url.removeprefix("http://").split(":")
        slow = [socket.create_connection((host, int(port))) for _ in range(48)]
        try:
            for sock in slow:
                sock.sendall(
                    b"POST /v1/rerank HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
                    b"content-length: 1000\r\n\r\n{"
                )
            with httpx.Client(base_url=url, timeout=30) as client:
                good = [client.post("/v2/rerank", json=GOOD).status_code for _ in range(20)]
            answers = []
            for sock in slow:
                sock.settimeout(20)
                answers.append(sock.recv(100).split(b"\r\n")[0])
        finally:
            for sock in slow:
                sock.close()
    assert good == [200] * 20
    assert answers == [b"HTTP/1.1 408 Request Timeout"] * 48
